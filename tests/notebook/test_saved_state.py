"""Saved notebooks: what jobs and bars leave in one that was run without a front end."""

from typing import Any

import pytest

from tests.support.front_end import VIEW
from tests.support.notebook_files import (
    new_notebook,
    read_notebook,
    run_notebook,
    write_notebook,
)
from tests.support.requirements import needs

needs("ipykernel", "nbclient", "nbformat")

pytestmark = [pytest.mark.kernel, pytest.mark.real_time]

SETUP = """
import asyncio
from ragasync import AsyncBatchProcessor, WidgetProgress

async def call(item):
    await asyncio.sleep(0.05)
    if item == 3:
        raise ValueError("item <3> is bad")
    return item

processor = AsyncBatchProcessor(call, max_concurrency=4, retry_count=0)
"""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    """The outputs of each cell of a notebook that was run from top to bottom."""
    cells = [
        SETUP + "job = processor.start(range(20))\njob",
        "result = await job\nresult.explain()",
        "bar = await processor.process(range(20), WidgetProgress('again'))",
        "job",
        "cancelled = processor.start(range(500))\ncancelled",
        "cancelled.cancel()\n(await cancelled).stopped_because",
        "processor.start(range(500))",
    ]
    folder = tmp_path_factory.mktemp("notebook")
    notebook, path = new_notebook(*cells), folder / "saved.ipynb"
    run_notebook(notebook, folder, timeout=60)
    write_notebook(notebook, path)
    return [cell.outputs for cell in read_notebook(path).cells]


def data_of(cell: list[dict[str, Any]]) -> dict[str, Any]:
    """The data of the only output of a cell with any text."""
    (output,) = [output for output in cell if output["data"]["text/plain"]]
    data: dict[str, Any] = output["data"]
    return data


@pytest.mark.parametrize("number", [0, 3], ids=["shown live", "shown after the end"])
def test_a_job_that_was_awaited_is_saved_with_its_last_state(outputs, number):
    """As text and as HTML, without a view of widgets that are gone with the kernel."""
    data = data_of(outputs[number])
    assert set(data) == {"text/plain", "text/html"}
    for text in data.values():
        assert "20 of 20" in text
        assert "1 failed" in text
    assert "item &lt;3&gt; is bad" in data["text/html"]
    assert "item <3> is bad" in data["text/plain"]


def test_nothing_else_is_saved_of_a_job_that_has_ended(outputs):
    """The snapshot after its panel is empty."""
    assert [output["data"] for output in outputs[0][1:]] == [{"text/plain": "", "text/html": ""}]


def test_a_bar_is_saved_with_its_last_count(outputs):
    """Not with the first."""
    data = data_of(outputs[2])
    assert VIEW not in data
    assert "20 / 20" in data["text/html"]


def test_a_cancelled_job_is_saved_as_cancelled(outputs):
    """The panel in the previous cell shows its end."""
    assert "Job cancelled" in data_of(outputs[4])["text/html"]
    assert data_of(outputs[5])["text/plain"] == "'it was cancelled'"


def test_an_explanation_is_saved_as_lines(outputs):
    """As the last line of a cell it is not shown as a quoted string."""
    assert data_of(outputs[1])["text/plain"].startswith("19 of 20 done, 1 failed in ")


def test_a_job_that_was_never_awaited_is_saved_with_text_and_html(outputs):
    """The kernel ended before the job: front ends show these instead of the widget."""
    data = data_of(outputs[6])
    assert "of 500" in data["text/html"]
    assert "of 500" in data["text/plain"]
