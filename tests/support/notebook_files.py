"""Notebook files: make, read, write and run them, without importing nbformat at collection."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbformat import NotebookNode

# nbformat takes two seconds to import, more than all test modules that do not need it together.


def new_notebook(*cells: str) -> NotebookNode:
    """Make a notebook of code cells."""
    from nbformat import v4

    return v4.new_notebook(cells=[v4.new_code_cell(cell) for cell in cells])


def read_notebook(path: Path) -> NotebookNode:
    """Read a notebook file."""
    import nbformat

    return nbformat.read(path, as_version=4)


def write_notebook(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook file."""
    import nbformat

    nbformat.write(notebook, path)


def run_notebook(notebook: NotebookNode, folder: Path, timeout: float) -> None:
    """Run all cells in a kernel that starts in this folder, and keep their outputs."""
    from nbclient import NotebookClient

    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=timeout, kernel_name="python3", resources=resources).execute()
