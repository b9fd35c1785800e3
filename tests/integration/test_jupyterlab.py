"""The notebook as its user sees it: a real JupyterLab in a real browser, with real clicks."""

import contextlib
import os
import re
import signal
from collections.abc import Iterator

import pytest

from tests.support.jupyterlab import Lab, Locator, Notebook, expect, running_lab

pytestmark = [
    pytest.mark.browser,
    pytest.mark.kernel,
    pytest.mark.real_time,
    pytest.mark.timeout(120),
]

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


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One server and one browser for the tests of this file."""
    with running_lab() as lab:
        yield lab


@contextlib.contextmanager
def interrupted(lab: Lab, *cells: str, click: str = "") -> Iterator[Notebook]:
    """
    Open a notebook, press the stop button in its second cell, and see that the kernel is well.

    ipykernel 7.3 and 7.4 go deaf after one interrupt in 50 to 200, so a notebook that does not
    answer is given up for a new one, once.

    Args:
        lab: where to open it.
        cells: its cells, after the one that sets up; the first prints "ready".
        click: the button in the output of the first that is clicked before.
    """
    for may_be_deaf in (True, False):
        with lab.notebook(SETUP, *cells, "1 + 1") as notebook:
            notebook.run(0)
            notebook.start(1)
            if click:
                notebook.output(1).get_by_role("button", name=click).click()
            expect(notebook.cell(1)).to_contain_text("ready")
            try:
                notebook.stop(1)
                healthy = notebook.run(len(cells) + 1) == "2"
            except AssertionError:
                if may_be_deaf:
                    continue
                raise
            assert healthy
            yield notebook
            return


def number(text: str, what: str) -> int:
    """Return the number in front of a word."""
    found = re.search(rf"([\d,]+) {what}", text)
    assert found, f"no number of {what} in {text!r}"
    return int(found[1].replace(",", ""))


# ── a bar while a cell awaits ───────────────────────────────────────────────────────────────────


def test_a_bar_moves_while_a_cell_awaits(lab: Lab):
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
        output = notebook.save().cells[1].outputs[0]
        assert set(output.data) == {"text/plain", "text/html"}
        assert "100 / 100" in output.data["text/html"]


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
    said.value = "ready"
    try:
        said.value = f"got {run_async(CORO)}"
    except BaseException as error:
        said.value = f"ended by {type(error).__name__}"
        raise

button.on_click(clicked)
ipywidgets.VBox([button, said])
"""


def test_run_async_gives_values_in_a_cell_nested_and_in_a_callback(lab: Lab):
    """Wherever a notebook has sync code, it gets the value, and the kernel goes on."""
    callback = IN_A_CALLBACK.replace("CORO", "asyncio.sleep(0.1, 42)")
    cells = ("run_async(asyncio.sleep(0.01, 42))", NESTED, callback, "1 + 1")
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


def test_the_stop_button_ends_run_async_in_a_callback(lab: Lab):
    """No cell runs, and what a click has begun is stopped all the same."""
    callback = IN_A_CALLBACK.replace("CORO", "slow()")
    with interrupted(lab, callback, click="Go") as notebook:
        expect(notebook.output(1)).to_contain_text("ended by")


# ── the panel of a job ──────────────────────────────────────────────────────────────────────────

START = "job = processor.start(range(100_000))\njob"
BEGUN = "len(begun)"


def press(notebook: Notebook, button: str) -> None:
    """Click a button of the panel."""
    notebook.page.locator(f".ragasync-{button}").click()


def drag(notebook: Notebook, knob: str, share: float) -> str:
    """Drag a slider of the panel to this share of its length, and return what it stands at."""
    slider = notebook.page.locator(f".ragasync-{knob}-slider")
    from_ = slider.locator(".noUi-handle").bounding_box()
    bar = slider.locator(".noUi-base").bounding_box()
    assert from_
    assert bar
    mouse, height = notebook.page.mouse, bar["y"] + bar["height"] / 2
    mouse.move(from_["x"] + from_["width"] / 2, height)
    mouse.down()
    mouse.move(bar["x"] + bar["width"] / 2, height, steps=3)
    mouse.move(bar["x"] + bar["width"] * share, height, steps=3)
    mouse.up()
    return slider.locator(".widget-readout").inner_text()


def facts(notebook: Notebook) -> Locator:
    """Return the bar and the counts of the panel."""
    return notebook.page.locator(".ragasync-facts")


@contextlib.contextmanager
def started(lab: Lab, *cells: str) -> Iterator[Notebook]:
    """Open a notebook whose second cell starts a job, and wait until its counts have moved."""
    with lab.notebook(SETUP, START, *cells) as notebook:
        notebook.run(0)
        notebook.run(1)
        shown = facts(notebook)
        expect(shown).to_contain_text(re.compile(r"[1-9]\d* done"))
        early = number(shown.inner_text(), "of 100,000")
        expect(shown).not_to_contain_text(f" {early:,} of")
        assert number(shown.inner_text(), "of 100,000") > early
        yield notebook


def test_nothing_begins_while_a_job_is_paused(lab: Lab):
    """A click on Pause lets what is in flight end and nothing begin; Resume goes on."""
    with started(lab, BEGUN) as notebook:
        press(notebook, "pause")
        expect(facts(notebook)).to_contain_text("0 in flight")
        expect(notebook.page.locator(".ragasync-pause")).to_have_text("Resume")
        begun = int(notebook.run(2))
        notebook.page.wait_for_timeout(500)  # five times what a call takes
        assert int(notebook.run(2)) == begun
        press(notebook, "pause")
        expect(facts(notebook)).to_contain_text("4 in flight")
        expect(notebook.page.locator(".ragasync-pause")).to_have_text("Pause")
        assert int(notebook.run(2)) > begun


def test_plus_and_minus_change_how_many_calls_are_in_flight(lab: Lab):
    """A click on plus has more calls in flight at once, a click on minus fewer."""
    with started(lab, "job.max_concurrency") as notebook:
        for button, in_flight in (("more", 5), ("more", 6), ("fewer", 5), ("fewer", 4)):
            press(notebook, button)
            expect(facts(notebook)).to_contain_text(f"{in_flight} in flight")
            assert notebook.run(2) == str(in_flight)


def test_plus_and_minus_change_how_many_calls_begin_in_a_second(lab: Lab):
    """Minus makes a bound of the speed and lowers it; the job keeps it."""
    cell = "before = len(begun); await asyncio.sleep(1); job.rate, len(begun) - before"
    with started(lab, "job.rate", cell) as notebook:
        rates = []
        for button in ("slower", "slower", "slower", "slower", "faster"):
            press(notebook, button)
            rates.append(float(notebook.run(2)))
        assert rates[:4] == sorted(rates[:4], reverse=True)
        assert rates[4] == rates[2]
        rate, in_a_second = eval(notebook.run(3))
        assert in_a_second <= rate + 3
        expect(facts(notebook)).to_contain_text("limited by rate")


def test_sliders_turn_the_knobs_of_a_job(lab: Lab):
    """One drag after the other counts, between cells; they follow what a cell sets."""
    with started(lab, "job.rate", "job.max_concurrency, job.rate = 7, None") as notebook:
        for share in (0.5, 0.3):
            at_once = drag(notebook, "concurrency", share)
            expect(facts(notebook)).to_contain_text(f"{at_once} in flight")
        for share in (0.5, 0.3):
            rate = float(drag(notebook, "rate", share))
            expect(facts(notebook)).to_contain_text("limited by rate")
            assert float(notebook.run(2)) == rate
        notebook.run(3)
        for knob, read in (("concurrency", "7"), ("rate", "no limit")):
            readout = notebook.page.locator(f".ragasync-{knob}-slider .widget-readout")
            expect(readout).to_have_text(read)
        expect(facts(notebook)).to_contain_text("7 in flight")


def test_a_panel_goes_on_while_a_cell_computes(lab: Lab):
    """A cell that gives no loop a turn stalls neither the job nor what is shown of it."""
    cell = "import time; until = time.time() + 3\nwhile time.time() < until: pass"
    with started(lab, cell) as notebook:
        notebook.start(2)
        early = number(facts(notebook).inner_text(), "of 100,000")
        expect(facts(notebook)).not_to_contain_text(f" {early:,} of")
        expect(notebook.prompt(2)).to_have_text("[*]:")
        notebook.finish(2)


def test_a_job_is_steered_while_a_cell_awaits_it(lab: Lab):
    """Clicks and drags act, one after the other, and Cancel gives the cell the partial result."""
    cell = "result = await job; (result.success_count > 0, result.pending_count > 0, result.total)"
    with started(lab, cell) as notebook:
        notebook.start(2)
        for in_flight in (5, 6):
            press(notebook, "more")
            expect(facts(notebook)).to_contain_text(f"{in_flight} in flight")
        for share in (0.5, 0.3, 0.4):  # the second is the one that gets lost
            at_once = drag(notebook, "concurrency", share)
            expect(facts(notebook)).to_contain_text(f"{at_once} in flight")
        press(notebook, "cancel")
        assert notebook.finish(2) == "(True, True, 100000)"


def test_a_cancelled_job_shows_its_end_in_the_saved_notebook_too(lab: Lab):
    """Still HTML with the counts of the partial result: reloaded, without kernel, not trusted."""
    cell = "result = await job; print(result.success_count, result.error_count)"
    with started(lab, cell) as notebook:
        press(notebook, "cancel")
        expect(notebook.output(1)).to_contain_text("Job cancelled")
        done, failed = map(int, notebook.run(2).split())
        ended = notebook.text(1)
        assert (number(ended, "done"), number(ended, "failed")) == (done, failed)
        assert "ValueError: no vector for <b>" in ended
        expect(notebook.output(1).locator("button")).to_have_count(0)
        saved = notebook.save()
        assert set(saved.cells[1].outputs[0].data) == {"text/plain", "text/html"}
        assert not any(saved.cells[1].outputs[1].data.values())
        notebook.reload()
        assert notebook.text(1) == ended
        lab.end_kernels()
        notebook.reload()
        assert notebook.text(1) == ended
    saved.cells[2].source = "# changed by somebody else, whom nobody trusts"
    with lab.opened(saved) as notebook:
        assert notebook.text(1) == ended


def test_a_panel_goes_on_when_the_page_is_loaded_again(lab: Lab):
    """The job does not care, the new page shows it live, and shows its end."""
    with started(lab) as notebook:
        notebook.save()
        notebook.reload()
        press(notebook, "more")
        expect(facts(notebook)).to_contain_text("5 in flight")
        press(notebook, "cancel")
        expect(notebook.output(1)).to_contain_text("Job cancelled")
        expect(notebook.output(1).locator("button")).to_have_count(0)


def test_a_page_that_finds_its_kernel_dead_shows_how_far_the_job_was(lab: Lab):
    """In the place of the panel, of which nothing is left; while it lives, it is seen alone."""
    with started(lab, "import os; os.getpid()") as notebook:
        copy = notebook.page.locator(".ragasync-snapshot")
        expect(copy).to_contain_text(re.compile(r"[1-9]\d* failed"))
        expect(copy).to_be_hidden()
        before = number(copy.text_content() or "", "failed")
        notebook.save()
        after = number(copy.text_content() or "", "failed")  # the job may have gone on since
        os.kill(int(notebook.run(2)), signal.SIGKILL)
        notebook.reload()
        expect(copy).to_be_visible()
        assert before <= number(copy.inner_text(), "failed") <= after
        assert "ValueError: no vector for <b>" in copy.inner_text()
        assert "the kernel that ran it is gone" in copy.inner_text()
        assert notebook.page.get_by_text("model not found").is_hidden()


def test_a_job_that_is_shown_twice_ends_in_both_places(lab: Lab):
    """Both panels are live, a click in one shows in both, and both end as still HTML."""
    with started(lab, "job") as notebook:
        notebook.run(2)
        notebook.cell(2).locator(".ragasync-pause").click()
        for index in (1, 2):
            expect(notebook.cell(index).locator(".ragasync-facts")).to_contain_text("Job paused")
        notebook.cell(1).locator(".ragasync-cancel").click()
        for index in (1, 2):
            expect(notebook.cell(index)).to_contain_text("Job cancelled")
            expect(notebook.output(index).locator("button")).to_have_count(0)


def test_the_stop_button_cancels_the_job_that_a_cell_awaits(lab: Lab):
    """The prompt is back, the panel has ended, and the job has what was done."""
    cell = "job = processor.start(range(100_000))\ndisplay(job)\nawait job"
    with interrupted(lab, cell, "job.done, job.result.success_count > 10") as notebook:
        assert notebook.run(2) == "(True, True)"
        expect(notebook.cell(1)).to_contain_text("Job cancelled")


# ── inside an Output ────────────────────────────────────────────────────────────────────────────

IN_OUTPUTS = """
import ipywidgets
from IPython.display import display

out, buttons = ipywidgets.Output(), []

def on_click(name):
    def register(function):
        button = ipywidgets.Button(description=name)
        button.on_click(lambda _: function())
        buttons.append(button)
        return function
    return register

@on_click("Job")
@out.capture(clear_output=True)
def _():
    display(processor.start(range(60)))

@on_click("Short")
@out.capture(clear_output=True)
def _():
    display(processor.start(range(2)))

@on_click("Bar")
def _():
    with out:
        processor.process_sync(range(40), WidgetProgress("embedding"))
        print("after the bar")

tabs = ipywidgets.Tab([ipywidgets.VBox([*buttons, out])], titles=["run"])
tabs
"""


def test_a_panel_and_a_bar_live_inside_an_output_of_a_tab(lab: Lab):
    """An Output ignores updates of displays, so only their widgets can show the progress."""
    with lab.notebook(SETUP, IN_OUTPUTS) as notebook:
        notebook.run(0)
        notebook.run(1)
        cell = notebook.output(1)

        cell.get_by_role("button", name="Job", exact=True).click()
        expect(cell).to_contain_text(re.compile(r"Job running: \d+ of 60"))
        expect(cell).to_contain_text(re.compile(r"Job running: [1-9]\d of 60 .* left"))
        cell.get_by_role("button", name="Pause").click()
        expect(cell).to_contain_text("Job paused")
        cell.get_by_role("button", name="Resume").click()
        expect(cell).to_contain_text("Job ended: 60 of 60")
        expect(cell.get_by_role("button", name="Pause")).to_have_count(0)

        cell.get_by_role("button", name="Short", exact=True).click()
        expect(cell).to_contain_text("Job ended: 2 of 2")

        cell.get_by_role("button", name="Bar", exact=True).click()
        expect(cell).to_contain_text(re.compile(r"embedding\s*\d+ / 40 · .* left"))
        expect(cell).to_contain_text(re.compile(r"embedding\s*40 / 40 .*"))
        expect(cell).to_contain_text("after the bar")


INTERACT = """
@ipywidgets.interact(n=ipywidgets.Dropdown(options=[60, 30]))
def _(n):
    return processor.start(range(n))
"""


def test_a_panel_lives_inside_interact(lab: Lab):
    """Another choice replaces the panel by that of the next job."""
    with lab.notebook(SETUP, INTERACT) as notebook:
        notebook.run(0)
        notebook.run(1)
        cell = notebook.output(1)
        expect(cell).to_contain_text(re.compile(r"Job running: [1-9]\d? of 60"))
        cell.locator("select").select_option("30")
        expect(cell).to_contain_text(re.compile(r"Job running: [1-9]\d? of 30"))
        expect(cell).to_contain_text("Job ended: 30 of 30")
