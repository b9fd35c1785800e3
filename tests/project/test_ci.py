"""The assumptions of CI: the tests that may be retried, and the tests of the core."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

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


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
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
