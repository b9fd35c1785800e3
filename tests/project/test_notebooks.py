"""The notebooks: each runs from top to bottom, and is saved with clean outputs."""

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.support.notebook_files import read_notebook, run_notebook
from tests.support.requirements import needs, run_in_step

needs("ipykernel", "nbclient", "nbformat")

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))

pytestmark = pytest.mark.real_time


def test_the_course_has_eleven_lessons():
    """They are numbered from 0, and their README lists them all."""
    assert [path.name[:3] for path in NOTEBOOKS] == [f"{number:02}-" for number in range(11)]
    listed = (NOTEBOOKS[0].parent / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in NOTEBOOKS if f"]({path.name})" not in listed] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_lesson_is_short_opens_with_its_aim_and_ends_with_two_exercises(path: Path):
    """It has at most 40 cells, a picture, and a solution for each exercise."""
    notebook = read_notebook(path)
    assert len(notebook.cells) <= (12 if path.stem.startswith("00") else 40)
    assert "**You will** " in notebook.cells[0].source
    assert "**You will learn** " in notebook.cells[0].source
    (exercises,) = [cell.source for cell in notebook.cells if "## Exercises" in cell.source]
    exercises = exercises.partition("## Exercises")[2]
    task, _, solutions = exercises.partition("<details><summary>Solutions</summary>")
    assert re.findall(r"^(\d)\. ", task, re.MULTILINE) == ["1", "2"]
    answers = len(re.findall(r"^```python", solutions, re.MULTILINE))
    assert max(answers, len(re.findall(r"^\d\. ", solutions, re.MULTILINE))) == 2
    text = path.read_text(encoding="utf-8")
    assert '"image/png"' in text or "](pictures/" in text


@pytest.mark.kernel
@pytest.mark.timeout(300)
@run_in_step("notebooks", "run elsewhere", is_here="RAGASYNC_NOTEBOOKS" not in os.environ)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path: Path, tmp_path: Path):
    """It runs in its own folder, as for a reader who has just opened it."""
    shutil.copy(path, tmp_path)
    notebook = read_notebook(tmp_path / path.name)
    run_notebook(notebook, tmp_path, timeout=240)
    errors = [o for cell in notebook.cells for o in cell.get("outputs", []) if "ename" in o]
    assert errors == []
    assert [each.name for each in tmp_path.iterdir()] == [path.name]  # it leaves nothing behind


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_saved_with_its_outputs_and_without_errors_or_paths(path: Path):
    """The saved outputs are complete, and name no path of a machine."""
    notebook = read_notebook(path)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)
    assert not re.search(r"/(root|home/\w+|tmp|Users/\w+)/", path.read_text(encoding="utf-8"))
