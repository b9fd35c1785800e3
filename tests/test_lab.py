"""The notebook as its user sees it: a real JupyterLab in a real browser, with real clicks."""

import contextlib
import re
from collections.abc import Iterator

import pytest
from lab import Lab, Notebook, expect, running_lab

pytestmark = [pytest.mark.kernel, pytest.mark.real_time, pytest.mark.timeout(120)]

PROMPT = 4.0
"""Seconds within which the prompt must be back: about one is the aim, and this machine is slow."""

SETUP = """
import asyncio
import ipywidgets
from ragasync import AsyncBatchProcessor, WidgetProgress, run_async

begun = []

async def call(item):
    begun.append(item)
    if len(begun) == 20:
        print("ready", flush=True)
    await asyncio.sleep(0.1)
    if item % 5 == 3:
        raise ValueError(f"no vector for <b>{item}</b>")
    return item

processor = AsyncBatchProcessor(call, max_concurrency=4, retry_count=0)

async def slow():
    print("ready", flush=True)
    while True:
        await asyncio.sleep(0.02)
"""

START = "job = processor.start(range(100_000))\njob"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One server and one browser for the tests of this file."""
    with running_lab() as lab:
        yield lab


@contextlib.contextmanager
def interrupted(lab: Lab, *cells: str) -> Iterator[Notebook]:
    """
    Open a notebook, press the stop button in its second cell, and see that this has ended soon.

    ipykernel 7.3 and 7.4 go deaf after one interrupt in 50 to 200, so a notebook whose cell goes
    on is given up for a new one, once.
    """
    for may_be_deaf in (True, False):
        with lab.notebook(SETUP, *cells, "1 + 1") as notebook:
            notebook.run(0)
            notebook.start(1)
            expect(notebook.cell(1)).to_contain_text("ready")
            try:
                seconds = notebook.stop(1)
            except AssertionError:
                if may_be_deaf:
                    continue
                raise
            assert seconds < PROMPT
            yield notebook
            assert notebook.run(len(cells) + 1) == "2"
            return


def number(text: str, what: str) -> int:
    """Return the number in front of a word."""
    found = re.search(rf"([\d,]+) {what}", text)
    assert found, f"no number of {what} in {text!r}"
    return int(found[1].replace(",", ""))


# ── a bar while a cell awaits ───────────────────────────────────────────────────────────────────


def test_a_bar_moves_while_a_cell_awaits_and_stays_when_the_page_is_loaded_again(lab: Lab):
    """It counts up, ends as still HTML, and that is what the file has."""
    cell = "result = await processor.process(range(100), WidgetProgress('embedding'))"
    with lab.notebook(SETUP, cell) as notebook:
        notebook.run(0)
        notebook.start(1)
        bar = notebook.output(1).locator(".widget-html")
        expect(bar).to_contain_text(re.compile(r"embedding\s*\d+ / 100 · .* left"))
        early = number(bar.inner_text(), "/ 100")
        expect(bar).not_to_contain_text(f"{early} / 100")
        assert early < number(bar.inner_text(), "/ 100") < 100
        assert "100 / 100" in notebook.finish(1)
        ended = notebook.text(1)
        output = notebook.save().cells[1].outputs[0]
        assert set(output.data) == {"text/plain", "text/html"}
        notebook.reload()
        assert notebook.text(1) == ended


def test_the_stop_button_ends_an_awaiting_cell_and_keeps_what_was_done(lab: Lab):
    """The prompt is back within a moment, the bar is still, and the partial result is there."""
    cells = (
        "await processor.process(range(100_000), WidgetProgress())",
        "result = processor.last_result; print(result.success_count > 10, result.total)",
    )
    with interrupted(lab, *cells) as notebook:
        assert notebook.run(2) == "True 100000"
        assert "stopped after" in notebook.text(1)
        assert "20 of" in notebook.text(1) or "items were done" in notebook.text(1)


# ── run_async ───────────────────────────────────────────────────────────────────────────────────

NESTED = """
async def outer():
    inbox = asyncio.Queue()  # of the kernel's own loop, as is the task that fills it
    filling = asyncio.create_task(inbox.put("nested"))
    return run_async(middle(inbox), nested=True)

async def middle(inbox):
    return await inbox.get(), run_async(asyncio.sleep(0.01, "and once more"), nested=True)

run_async(outer(), nested=True)
"""

IN_A_CALLBACK = """
button, said = ipywidgets.Button(description="Go"), ipywidgets.Label("nothing yet")

def clicked(_):
    said.value = f"got {run_async(asyncio.sleep(0.1, 42))}"

button.on_click(clicked)
ipywidgets.VBox([button, said])
"""


def test_run_async_gives_values_in_a_cell_nested_and_in_a_callback(lab: Lab):
    """Wherever a notebook has sync code, it gets the value, and the kernel goes on."""
    cells = ("run_async(asyncio.sleep(0.01, 42))", NESTED, IN_A_CALLBACK, "1 + 1")
    with lab.notebook(SETUP, *cells) as notebook:
        notebook.run(0)
        assert notebook.run(1) == "42"
        assert notebook.run(2) == "('nested', 'and once more')"
        notebook.run(3)
        notebook.output(3).get_by_role("button", name="Go").click()
        expect(notebook.output(3)).to_contain_text("got 42")
        assert notebook.run(4) == "2"


@pytest.mark.parametrize(
    "cell",
    [
        "run_async(slow())",
        "run_async(slow(), nested=True)",
        "async def outer():\n    run_async(slow())\n\nawait outer()",
        "async def outer():\n    run_async(slow(), nested=True)\n\nrun_async(outer(), nested=True)",
    ],
    ids=["in a cell", "nested", "in an awaiting cell", "nested in nested"],
)
def test_the_stop_button_ends_run_async_and_the_kernel_is_well(lab: Lab, cell: str):
    """The prompt is back within a moment, and what is run next works."""
    with interrupted(lab, cell, "run_async(asyncio.sleep(0.01, 'fine'))") as notebook:
        assert notebook.run(2) == "'fine'"
