"""The README files: their examples run, print the output shown, and their links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATHS = [
    ROOT / name / "README.md" for name in (".", "binder", "notebooks", "tests", "tests/recipes")
]
TEXTS = {path: path.read_text(encoding="utf-8") for path in PATHS}
README = TEXTS[ROOT / "README.md"]
EXAMPLES = [
    pytest.param(example, shown, id=f"{path.parent.relative_to(ROOT)}-{number}")
    for path, text in TEXTS.items()
    for number, (example, shown) in enumerate(
        re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", text, re.DOTALL)
    )
]

pytestmark = pytest.mark.real_time


@pytest.mark.parametrize(("example", "shown"), EXAMPLES)
def test_an_example_runs_twice_in_a_folder_and_prints_what_is_shown(
    example: str, shown: str, tmp_path: Path
):
    """Each block of code is a script; times, random counts and white space may differ."""
    for _ in range(2):
        ran = _run(example, tmp_path)
        assert ran.returncode == 0, ran.stderr
        if shown:
            assert _without_chance(ran.stdout) == _without_chance(shown)


def test_it_is_read_in_a_few_minutes():
    """The README has at most 8 kB: all else is in the files that it links to."""
    assert len(README.encode()) <= 8_000


@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.parent.relative_to(ROOT)))
def test_every_file_that_is_linked_is_there(path: Path):
    """Links to files lead somewhere, also to headings."""
    links = re.findall(r"\]\(([^):]+)\)", TEXTS[path])
    missing = [link for link in links if not _is_linked(path.parent, link)]
    assert missing == []


def test_every_test_that_is_named_is_there():
    """The tests that prove the promises exist."""
    named = re.findall(r"`((?:\w+/)*test_\w+\.py)::(\w+)`", TEXTS[ROOT / "tests" / "README.md"])
    assert len(named) > 10
    missing = [(file, name) for file, name in named if not _is_there(ROOT / "tests" / file, name)]
    assert missing == []


def test_its_speeds_are_those_that_were_measured():
    """Each row is in the summary of all tables, too."""
    rows = README.partition("<!-- made by")[2].partition("<!-- end")[0].splitlines()[1:]
    measured = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 7  # the headings, a rule, five rows
    assert [row for row in rows if row not in measured] == []


def _is_linked(folder: Path, link: str) -> bool:
    """Check that the file of a link exists, and has the heading that it names."""
    file, _, heading = link.partition("#")
    target = folder / file
    if not heading:
        return target.exists()
    headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
    return heading in [each.lower().replace(" ", "-") for each in headings]


def _is_there(file: Path, name: str) -> bool:
    """Check that a test file has a test of this name."""
    return (
        re.search(rf"^(async def |def )?{name}\b|class {name}\b", file.read_text(), re.MULTILINE)
        is not None
    )


def _run(example: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run some code as a script."""
    (folder / "example.py").write_text(example, encoding="utf-8")
    command = [sys.executable, "-W", "error", "example.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def _without_chance(printed: str) -> list[list[str]]:
    """Split the output into the words of each line, without random numbers."""
    chance = r"[\d,]+(\.\d+)?( m?s)?( items?)?( a second)?$|(\d+ min )?[\d.]+ m?s\b|retried: \d+"
    lines = re.sub(chance, "#", printed, flags=re.MULTILINE).splitlines()
    return [line.split() for line in lines]
