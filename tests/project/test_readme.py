"""The README: its examples run, and print the output shown."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

pytestmark = pytest.mark.real_time


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_runs(example: str, tmp_path: Path):
    """Each block of code runs in its own process."""
    ran = _run(example, tmp_path)
    assert ran.returncode == 0, ran.stderr


def test_the_first_example_prints_what_is_shown(tmp_path: Path):
    """Word for word, except times, random counts and white space."""
    shown = re.search(r"```text\n(.*?)```", README, re.DOTALL)
    assert shown is not None
    assert _without_chance(_run(EXAMPLES[0], tmp_path).stdout) == _without_chance(shown[1])


def test_every_file_that_is_linked_is_there():
    """Links to files lead somewhere."""
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_test_that_is_named_is_there():
    """The tests that prove the promises exist."""
    named = re.findall(r"`((?:\w+/)*test_\w+\.py)::(\w+)`", README)
    assert len(named) > 10
    missing = [(file, name) for file, name in named if not _is_there(ROOT / "tests" / file, name)]
    assert missing == []


def _is_there(file: Path, name: str) -> bool:
    """Return whether a test file has a test of this name."""
    return re.search(rf"^(async def |def )?{name}\b", file.read_text(), re.MULTILINE) is not None


def _run(example: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run some code as a script."""
    (folder / "example.py").write_text(example, encoding="utf-8")
    command = [sys.executable, "-W", "error", "example.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def _without_chance(printed: str) -> list[list[str]]:
    """Return the words of each line without random numbers."""
    chance = r"[\d,]+(\.\d+)?( s)?( items)?( a second)?$|\d+\.\d+ s|retried: \d+"
    lines = re.sub(chance, "#", printed, flags=re.MULTILINE).splitlines()
    return [line.split() for line in lines]
