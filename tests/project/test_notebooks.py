"""The notebooks: each runs from top to bottom, and is saved with clean outputs."""

import re
import shutil
from pathlib import Path

import pytest

from tests.support.notebook_files import read_notebook, run_notebook
from tests.support.requirements import needs

needs("ipykernel", "nbclient", "nbformat")

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))

pytestmark = pytest.mark.real_time


def test_there_are_notebooks():
    """The tests below have notebooks to run."""
    assert NOTEBOOKS


@pytest.mark.kernel
@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path: Path, tmp_path: Path):
    """It runs in its own folder, as for a reader who has just opened it."""
    shutil.copy(path, tmp_path)
    notebook = read_notebook(tmp_path / path.name)
    run_notebook(notebook, tmp_path, timeout=240)
    errors = [o for cell in notebook.cells for o in cell.get("outputs", []) if "ename" in o]
    assert errors == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_saved_with_its_outputs_and_without_errors_or_paths(path: Path):
    """The saved outputs are complete, and name no path of a machine."""
    notebook = read_notebook(path)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)
    assert not re.search(r"/(root|home/\w+|tmp|Users/\w+)/", path.read_text(encoding="utf-8"))
