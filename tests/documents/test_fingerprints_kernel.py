"""What counts as changed in a notebook: a real kernel, restarted, and cells that were edited."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.kernels import Kernel, running_kernel

ROOT = Path(__file__).parents[2]

FIRST = """
import json, warnings
from ragasync import AsyncDocumentProcessor
from ragasync.documents import SqliteStore, Stage
"""

STAGES = """
MOST = 2

def chunk(text):
    '''Cut.'''
    return text.split()[:MOST]

calls = 0

async def embed(texts):
    global calls
    calls += 1
    return [[float(len(text)), 1.0] for text in texts]
"""

RUN = """
with SqliteStore({store!r}) as store, warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    processor = AsyncDocumentProcessor(chunk=chunk, embed={embed}, store=store)
    result = await processor.process([("a", "one two three"), ("b", "four five")])
print(json.dumps({{
    "unchanged": [done is not None and done.unchanged for done in result.results],
    "calls": calls,
    "why": result.stopped_because,
    "warnings": [str(warning.message) for warning in caught],
}}))
"""

DONE: dict[str, Any] = {"unchanged": [False, False], "calls": 1, "why": None, "warnings": []}
KNOWN: dict[str, Any] = {"unchanged": [True, True], "calls": 0, "why": None, "warnings": []}


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    """A kernel that finds this ragasync first."""
    with running_kernel(ROOT) as kernel:
        yield kernel


def run(kernel: Kernel, folder: Path, *cells: str, embed: str = "embed") -> dict[str, Any]:
    """Run cells and then the pipeline; return what it printed."""
    last = RUN.format(store=str(folder / "store.sqlite"), embed=embed)
    for cell in (FIRST, *cells, last):
        ran = kernel.run(cell)
        assert ran.status == "ok", ran
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@pytest.mark.kernel
@pytest.mark.real_time
def test_a_restart_and_the_same_cells_change_nothing(kernel, tmp_path):
    """Nor does another line, a docstring, a shell command, or an import from the future."""
    assert run(kernel, tmp_path, STAGES) == DONE
    assert run(kernel, tmp_path, STAGES) == KNOWN
    kernel.restart()
    assert run(kernel, tmp_path, STAGES) == KNOWN
    moved = "# Stages\n\n\nhome = !pwd\n" + STAGES.replace("Cut.", "Cut a text into words.")
    assert run(kernel, tmp_path, moved) == KNOWN
    assert run(kernel, tmp_path, "from __future__ import annotations", STAGES) == KNOWN


@pytest.mark.kernel
@pytest.mark.real_time
def test_the_same_cell_edited_is_a_change(kernel, tmp_path):
    """A chunk cell chunks again; an embed cell is refused, and goes on under a name."""
    assert run(kernel, tmp_path, STAGES) == DONE
    edited = STAGES.replace("MOST = 2", "MOST = 1")
    assert run(kernel, tmp_path, edited) == {**KNOWN, "unchanged": [False, False]}
    edited = edited.replace("float(len(text))", "1.0 + len(text)")
    refused = run(kernel, tmp_path, edited)
    assert (refused["unchanged"], refused["calls"]) == ([False, False], 0)
    assert "holds vectors of 'embed', and embed= is another one or has changed" in refused["why"]
    named = "Stage(embed, name='mine')"
    assert run(kernel, tmp_path, edited, embed=named) == KNOWN
    assert run(kernel, tmp_path, edited.replace("1.0 +", "2.0 +"), embed=named) == KNOWN
