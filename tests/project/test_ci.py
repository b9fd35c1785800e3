"""The assumptions of CI: the tests that may be retried, and the tests of the core."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.requirements import needs, needs_eager_tasks, needs_in_step, only_where

HERE = Path(__file__).parents[1]

DRIVERS = {"kernels", "ipykernel_6", "jupyterlab", "nbclient", "playwright"}
"""Modules that start a kernel or a browser."""

pytestmark = [pytest.mark.real_time, pytest.mark.timeout(120)]


def driving_tests(code: str) -> Iterator[tuple[str, bool]]:
    """Yield the tests of a file that drive a kernel or a browser, and whether each is marked."""
    tree = ast.parse(code)
    names = {
        alias.asname or alias.name.partition(".")[0]
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if DRIVERS.intersection(
            (node.module if isinstance(node, ast.ImportFrom) else alias.name).split(".")
        )
    }
    marked = [
        ast.unparse(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
    ]
    functions = [
        node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    uses = {each.name: set(_words(each)) for each in functions}
    drives = names | {name for name, words in uses.items() if words & names}
    for each in functions:
        if each.name.startswith("test_") and uses[each.name] & drives:
            yield each.name, _is_marked(*marked, *map(ast.unparse, each.decorator_list))


def _words(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """Yield the names that a function uses: its arguments too, which may be fixtures."""
    for node in ast.walk(function):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg


def _is_marked(*marks: str) -> bool:
    """Return whether one of these names drives a kernel or a browser."""
    return any(f"mark.{name}" in mark for name in ("kernel", "browser") for mark in marks)


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", sorted(HERE.rglob("test_*.py")), ids=lambda path: path.relative_to(HERE).as_posix()
)
def test_every_test_that_drives_a_kernel_or_a_browser_is_marked(path: Path):
    """Any other test has to pass on the first attempt."""
    found = dict(driving_tests(path.read_text(encoding="utf-8")))
    assert [name for name, is_marked in found.items() if not is_marked] == []


def test_tests_that_drive_something_are_found():
    """Through a fixture too; what only shares a file with them does not."""
    code = (
        "from tests.support.kernels import Kernel\n"
        "@pytest.fixture\ndef shared():\n    yield Kernel()\n"
        "def test_one(shared): ...\n"
        "@pytest.mark.kernel\ndef test_two():\n    Kernel()\n"
        "def test_three(): ...\n"
    )
    assert list(driving_tests(code)) == [("test_one", False), ("test_two", True)]


def collected(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Collect tests as CI does."""
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--collect-only",
            "-p",
            "no:cacheprovider",
            *arguments,
        ],
        cwd=HERE.parent,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


@pytest.mark.slow
def test_the_core_is_tested_without_documents_kernels_and_browsers():
    """Other tests may need packages that are not available for every Python."""
    ran = collected("--core", "tests/properties", "tests/documents", "tests/integration")
    assert ran.returncode == 0, ran.stdout
    assert "::test_a_copy_is_brought_up_to_date_ever_more_seldom" not in ran.stdout  # it is slow
    files = {line.partition("::")[0] for line in ran.stdout.splitlines() if "::" in line}
    assert "tests/properties/test_runs.py" in files
    assert not files & {
        "tests/documents/test_pipeline_quick.py",
        "tests/integration/test_kernel_processes.py",
    }


@pytest.mark.slow
def test_an_installed_pytest_asyncio_does_no_harm(tmp_path: Path):
    """Its plugin is never loaded, where it would run the async tests itself."""
    (tmp_path / "asyncio_plugin.py").write_text("raise RuntimeError('loaded')\n")
    info = tmp_path / "asyncio_plugin-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: asyncio-plugin\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text("[pytest11]\nasyncio = asyncio_plugin\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    ran = collected("tests/simulation/test_virtual_clock.py", PYTHONPATH=path)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@needs_eager_tasks
def test_with_eager_tasks_every_loop_makes_them(tmp_path: Path):
    """The virtual one, asyncio's own, and that of run_async."""
    (tmp_path / "test_eager.py").write_text(
        "import asyncio\nimport pytest\nfrom ragasync import run_async\n"
        "async def begins_immediately():\n"
        "    begun = []\n"
        "    async def call():\n        begun.append(1)\n"
        "    asyncio.create_task(call())\n"
        "    return begun\n"
        "async def test_virtual():\n    assert await begins_immediately() == [1]\n"
        "@pytest.mark.real_time\n"
        "async def test_real():\n    assert await begins_immediately() == [1]\n"
        "def test_run_async():\n    assert run_async(begins_immediately()) == [1]\n"
    )
    config = HERE.parent / "pyproject.toml"
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-c", config, "--rootdir", HERE.parent),
            *(
                "-p",
                "no:cacheprovider",
                "--confcutdir",
                HERE.parent,
                "-p",
                "tests.conftest",
                tmp_path,
            ),
        ],
        cwd=HERE.parent,
        env={**os.environ, "RAGASYNC_EAGER": "1", "PYTHONPATH": str(HERE.parent)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert "3 passed" in ran.stdout, ran.stdout + ran.stderr


@needs_eager_tasks
def test_with_eager_tasks_scripts_in_other_processes_are_left_out():
    """Their tasks are not eager, and they have run on the same Python without."""
    ran = collected("--core", "tests/bridge/test_depths.py", RAGASYNC_EAGER="1")
    assert ran.returncode == 0, ran.stdout
    assert "::test_a_cancelled_job_ends_the_run_async_of_its_calls" in ran.stdout
    assert "::test_an_interrupt_reaches_the_innermost_first" not in ran.stdout


# ── what is skipped ─────────────────────────────────────────────────────────────────────────


def test_every_skip_says_why_and_comes_from_the_helper_that_fails_in_ci():
    """A test that pytest itself skips would be left out of CI unnoticed."""
    helper = HERE / "support" / "requirements.py"
    skips = re.compile(r"(pytest|mark)\.(skip|skipif|importorskip)\b")
    found = [
        path.relative_to(HERE).as_posix()
        for path in sorted(HERE.rglob("*.py"))
        if path not in (helper, Path(__file__)) and skips.search(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_what_is_missing_is_skipped_here_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch):
    """With the same reason."""
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="not installed: no_such_module"):
        needs("no_such_module", "os")
    assert only_where(False, "never").args == (True,)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="not installed: no_such_module"):
        needs("no_such_module", "os")
    assert only_where(False, "never").args == (False,)


def test_what_a_step_of_ci_installs_is_skipped_in_the_others(monkeypatch: pytest.MonkeyPatch):
    """In its own step it fails."""
    monkeypatch.setenv("CI", "true")
    monkeypatch.delenv("RAGASYNC_STEP", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no_such_module; CI's step: rules"):
        needs_in_step("rules", "no_such_module")
    monkeypatch.setenv("RAGASYNC_STEP", "rules")
    with pytest.raises(pytest.fail.Exception, match="not installed: no_such_module"):
        needs_in_step("rules", "no_such_module")


# ── the script ──────────────────────────────────────────────────────────────────────────────

PYTHON = """#!/usr/bin/env bash
[ "$1 $2" = "-m venv" ] || exit 0
mkdir -p "$3/bin" "$3/lib/python3.11/site-packages"
for tool in pip pytest python ruff mypy lint-imports; do cp "$TOOL" "$3/bin/$tool"; done
"""

TOOL = """#!/usr/bin/env bash
eager=${RAGASYNC_EAGER:-0} command="${0##*/} $*" folder=$(basename "$(dirname "$(dirname "$0")")")
more=$(cat "$(dirname "$0")"/../lib/python3*/site-packages/*.pth 2>/dev/null | xargs -n 1 basename)
compiled=${PYTHONDONTWRITEBYTECODE:-kept} step=${RAGASYNC_STEP:-}
echo "$folder eager=$eager compiled=$compiled step=$step more=$more $command" >>"$CALLS"
[[ "$command" != @(pytest|check|"python -m pytest")* ]] || echo "1 passed in 0.01s"
[[ "$folder eager=$eager $command" != $FAILING ]]
"""

STEPS = [
    "all tests",
    "rules",
    "notebooks",
    "core on Python 3.12",
    "core on Python 3.13",
    "core with eager tasks",
]


def ci_with_stub_tools(folder: Path, failing: str = "") -> tuple[int, str, list[str]]:
    """Run CI's script with stub tools; its exit code, its output, and the calls of the tools."""
    (folder / ".ci").mkdir()
    for name in (".ci/run", "README.md"):
        shutil.copy(HERE.parent / name, folder / name)
    (folder / "binder").mkdir()
    (folder / "binder" / "check").write_text(TOOL)
    (folder / "binder" / "check").chmod(0o755)
    tools = folder / "tools"
    tools.mkdir()
    for name in ("python3", "python3.12", "python3.13", "chromium", "redis-server", "tool"):
        (tools / name).write_text(TOOL if name == "tool" else PYTHON)
        (tools / name).chmod(0o755)
    ran = subprocess.run(
        ["bash", folder / ".ci" / "run"],
        env={
            "PATH": f"{tools}:/usr/bin:/bin",
            "HOME": str(folder),
            "TOOL": str(tools / "tool"),
            "CALLS": str(folder / "calls"),
            "FAILING": failing,
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
        check=False,
    )
    return ran.returncode, ran.stdout, (folder / "calls").read_text().splitlines()


needs_bash = only_where(os.name == "posix", "CI is a script for bash")


@needs_bash
@pytest.mark.slow
def test_ci_runs_every_step_and_reports_it(tmp_path: Path):
    """Compiled code is kept, and each environment is installed before it is used."""
    code, output, calls = ci_with_stub_tools(tmp_path)
    assert code == 0, output
    headings = [line.removeprefix("──────── ") for line in output.splitlines() if "────" in line]
    assert headings == [*STEPS, "closing lines"]
    closing = output.partition("closing lines\n")[2].splitlines()
    assert closing == [line for name in STEPS for line in (f"{name}:", "1 passed in 0.01s")]
    assert all(" compiled=kept " in call for call in calls)
    for folder in (".venv", "venv", "python3.12", "python3.13"):
        tools = [call.split()[5] for call in calls if call.startswith(f"{folder} ")]
        assert tools[0] == "pip"
        assert ("python" if folder == "venv" else "pytest") in tools
    cores = [call.split()[:2] for call in calls if " --core " in call]
    assert sorted(cores) == [
        ["python3.12", "eager=0"],
        ["python3.13", "eager=0"],
        ["python3.13", "eager=1"],
    ]


@needs_bash
@pytest.mark.slow
def test_at_most_two_steps_of_ci_run_at_a_time(tmp_path: Path):
    """In one lane all tests and then a Python; in the other whatever else there is, in order."""
    _, _, calls = ci_with_stub_tools(tmp_path)
    ran = [
        f"{folder} {eager}"
        for folder, eager, *_, command in (call.split(maxsplit=5) for call in calls)
        if command.startswith(("pytest", "python -m pytest", "check"))
    ]
    first = [step for step in ran if step in (".venv eager=0", "python3.13 eager=0")]
    assert first == [".venv eager=0", "python3.13 eager=0"]
    second = [step.split()[0] for step in ran if step not in first]
    assert second == ["venv", ".", "python3.12", "python3.13"]  # the notebooks' in its own folder


@needs_bash
@pytest.mark.slow
def test_the_environment_of_the_rules_adds_to_that_of_the_tests(tmp_path: Path):
    """It is made after that one and sees its packages; `needs_in_step` knows the step's name."""
    _, _, calls = ci_with_stub_tools(tmp_path)
    folders = [call.partition(" ")[0] for call in calls]
    assert folders.index(".venv") < folders.index("venv")
    rules = [call for call in calls if call.startswith("venv ")]
    assert all(" step=rules more=site-packages " in call for call in rules)
    assert not any(" step=rules " in call for call in calls if call not in rules)


@needs_bash
@pytest.mark.slow
@pytest.mark.parametrize(
    ("failing", "failed"),
    [
        (".venv *pytest*", ["all tests"]),
        ("venv *mypy*", ["rules"]),
        ("venv *pip*", ["rules"]),
        ("*check python3", ["notebooks"]),
        ("python3.12 *pytest*", ["core on Python 3.12"]),
        ("python3.13 eager=0 pytest*", ["core on Python 3.13"]),
        ("python3.13 eager=1 pytest*", ["core with eager tasks"]),
        ("*@(pytest*|check python3)", STEPS),
    ],
)
def test_a_failed_step_of_ci_is_named_and_the_others_run(
    tmp_path: Path, failing: str, failed: list[str]
):
    """Those in the background, too."""
    code, output, _ = ci_with_stub_tools(tmp_path, failing)
    assert code == 1
    assert [line for line in output.splitlines() if line.startswith("FAILED")] == [
        f"FAILED: {name}" for name in failed
    ]
    assert [name for name in STEPS if f"──────── {name}\n" in output] == STEPS
