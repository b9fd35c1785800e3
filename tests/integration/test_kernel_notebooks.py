"""Notebooks in real kernels, of ipykernel 7 and 6: panels, clicks, bars, the stop button."""

import re
from collections.abc import Iterator

import pytest

from tests.support.front_end import VIEW, FrontEnd
from tests.support.ipykernel_6 import folder_with_ipykernel_6
from tests.support.kernels import Kernel, running_kernel

pytestmark = [pytest.mark.kernel, pytest.mark.real_time, pytest.mark.timeout(120)]

SETUP = """
import asyncio, threading
from IPython.display import display
from ragasync import AsyncBatchProcessor, WidgetProgress, run_async

begun = []
free = threading.Event()

async def call(item):
    begun.append(item)
    while not free.is_set():
        await asyncio.sleep(0.01)
    return item

def ready_soon():
    asyncio.get_running_loop().call_later(0.05, lambda: print("ready", flush=True))

processor = AsyncBatchProcessor(call, max_concurrency=2)
"""

START = SETUP + "job = processor.start(range(8))\n"


@pytest.fixture(scope="module", params=[7, 6], ids=["ipykernel7", "ipykernel6"])
def version(request: pytest.FixtureRequest) -> int:
    """The versions of ipykernel that notebooks run on."""
    return int(request.param)


@pytest.fixture(scope="module")
def shared(version: int, pytestconfig: pytest.Config) -> Iterator[Kernel]:
    """One kernel of each version for the tests of this file."""
    assert pytestconfig.cache is not None
    path = folder_with_ipykernel_6(pytestconfig.cache.mkdir("ipykernel6")) if version == 6 else None
    with running_kernel(path) as kernel:
        assert kernel.run("import ipykernel; ipykernel.version_info[0]").value == str(version)
        yield kernel


@pytest.fixture
def kernel(shared: Kernel) -> Kernel:
    """The kernel, with nothing on the screen."""
    shared.front_end = FrontEnd()
    return shared


def says(kernel: Kernel, text: str) -> bool:
    """Return whether the display says this, as text and as HTML."""
    last = kernel.front_end.last
    return text in last["text/plain"] and text in last["text/html"]


def value_of(front_end: FrontEnd, knob: str) -> str:
    """Return what a slider of the panel stands at."""
    words = front_end.state(f"ragasync-{knob}-slider", "_options_labels")
    return str(words[front_end.state(f"ragasync-{knob}-slider", "index")])


def assert_healthy(kernel: Kernel) -> None:
    """The next cells run, awaiting ones as well."""
    assert kernel.run("await asyncio.sleep(0.01, 'fine')").value == "'fine'"
    assert kernel.run("run_async(asyncio.sleep(0.01, 'fine'))").value == "'fine'"


# ── a job as the last line ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("end", ["free.set()", "free.set(); (await job).success_count"])
def test_a_job_is_shown_live_and_ends_as_still_html(kernel: Kernel, end: str):
    """The view of a widget stands beside text and HTML while it lives, and goes with it."""
    kernel.run(START + "job")
    kernel.until(lambda front_end: front_end.is_live)
    assert set(kernel.front_end.last) == {"text/plain", "text/html", VIEW}
    assert says(kernel, "of 8")
    kernel.run(end)
    kernel.until(lambda front_end: front_end.is_still)
    assert set(kernel.front_end.last) == {"text/plain", "text/html"}
    assert says(kernel, "8 of 8")
    # A page that was loaded anew meanwhile has nothing else to show.
    kernel.until(lambda front_end: "8 of 8" in front_end.state("ragasync-facts", "value"))


def test_a_job_that_is_shown_twice_ends_in_both_places(kernel: Kernel):
    """The first display is no ruin of the second."""
    kernel.run(START + "display(job); job")
    kernel.run("free.set(); await job; None")
    kernel.until(lambda front_end: front_end.is_still)
    shown = [bundle["text/html"] for bundle in kernel.front_end.displays.values()]
    assert ["8 of 8" in html for html in shown if html] == [True, True]


def test_a_job_that_has_ended_is_shown_still_at_once(kernel: Kernel):
    """No widget is made for it."""
    kernel.run(START + "free.set(); await job; None")
    kernel.run("job")
    assert kernel.front_end.widgets == {}
    assert says(kernel, "8 of 8")


# ── clicks ──────────────────────────────────────────────────────────────────────────────────


def test_clicks_between_cells_pause_resume_and_widen_a_job(kernel: Kernel):
    """Each is seen on the panel, and in what the job begins."""
    kernel.run(START + "job")
    kernel.click("ragasync-pause")
    kernel.until(lambda front_end: front_end.state("ragasync-pause", "description") == "Resume")
    assert kernel.run("free.set(); await asyncio.sleep(0.3); len(begun)").value == "2"
    kernel.click("ragasync-more")
    assert kernel.run("job.max_concurrency").value == "3"
    kernel.until(lambda front_end: value_of(front_end, "concurrency") == "3")
    kernel.click("ragasync-pause")
    kernel.until(lambda front_end: front_end.is_still)
    assert says(kernel, "8 of 8")


def test_clicks_set_and_lower_the_rate(kernel: Kernel):
    """From no bound to one, and further down."""
    kernel.run(START + "job")
    assert kernel.run("job.rate is None").value == "True"
    kernel.click("ragasync-slower")
    assert kernel.run("first = job.rate; first > 0").value == "True"
    kernel.click("ragasync-slower")
    assert kernel.run("job.rate < first").value == "True"
    kernel.click("ragasync-fewer")
    assert kernel.run("job.max_concurrency").value == "1"
    kernel.run("job.cancel()")
    kernel.until(lambda front_end: front_end.is_still)


def test_drags_between_cells_turn_the_knobs_and_what_cells_set_moves_the_sliders(kernel: Kernel):
    """Also to where a slider has no notch; each drag counts."""
    kernel.run(START + "job")
    for index in (5, 2):
        kernel.until(lambda front_end: front_end.has("ragasync-concurrency-slider"))
        wanted = kernel.front_end.state("ragasync-concurrency-slider", "_options_labels")[index]
        kernel.change("ragasync-concurrency-slider", index=index)
        kernel.change("ragasync-rate-slider", index=index)
        assert kernel.run("job.max_concurrency").value == wanted
        assert kernel.run("0.1 < job.rate < 0.5").value == "True"
    kernel.run("job.max_concurrency, job.rate = 7, None")
    kernel.until(lambda front_end: value_of(front_end, "concurrency") == "7")
    kernel.until(lambda front_end: value_of(front_end, "rate") == "no limit")
    assert kernel.run("job.max_concurrency, job.rate").value == "(7, None)"
    kernel.run("job.cancel()")
    kernel.until(lambda front_end: front_end.is_still)


def test_a_click_between_cells_cancels_a_job(kernel: Kernel):
    """What was in flight is cancelled, and the panel says so when it is still."""
    kernel.run(START + "job")
    kernel.click("ragasync-cancel")
    kernel.until(lambda front_end: front_end.is_still)
    assert says(kernel, "Job cancelled")
    assert says(kernel, "2 cancelled")
    assert kernel.run("(await job).pending_count").value == "6"


def test_a_click_while_a_cell_awaits_is_never_lost(kernel: Kernel, version: int):
    """At once where the kernel has subshells, after the cell where it has none."""
    kernel.run(START + "job")
    kernel.until(lambda front_end: front_end.is_live)
    kernel.start(
        "print('ready', flush=True)\nfor _ in range(40):\n    await asyncio.sleep(0.02)\n"
        "    if job.paused: break\njob.paused"
    )
    kernel.until_printed("ready")
    kernel.click("ragasync-pause", in_subshell=version >= 7)
    assert kernel.finish().value == str(version >= 7)
    kernel.until(lambda front_end: front_end.state("ragasync-pause", "description") == "Resume")
    kernel.run("job.cancel()")
    kernel.until(lambda front_end: front_end.is_still)


@pytest.mark.parametrize("version", [7], indirect=True, ids=["ipykernel7"])
def test_a_job_that_a_cell_awaits_is_cancelled_by_a_click(kernel: Kernel):
    """The cell gets the partial result; without subshells (ipykernel 6) the stop button does."""
    kernel.run(START + "job")
    kernel.start("ready_soon()\n(await job).cancelled_count")
    kernel.until_printed("ready")
    kernel.click("ragasync-cancel", in_subshell=True)
    assert kernel.finish().value == "2"
    kernel.until(lambda front_end: front_end.is_still)
    assert says(kernel, "Job cancelled")


def test_clicks_that_come_after_the_end_do_no_harm(kernel: Kernel):
    """They were on their way when the panel became still."""
    kernel.run(START + "job")
    kernel.until(lambda front_end: front_end.has("ragasync-pause"))
    pause = kernel.front_end.widget("ragasync-pause")
    kernel.run("free.set(); await job; None")
    kernel.until(lambda front_end: front_end.is_still)
    kernel.front_end.widgets[pause] = {"_dom_classes": ["late"]}
    kernel.front_end.displays["another page"] = {VIEW: {}, "text/plain": ""}
    kernel.click("late")
    assert_healthy(kernel)


# ── bars, and the stop button ───────────────────────────────────────────────────────────────


def test_a_bar_moves_while_a_cell_awaits(kernel: Kernel):
    """Its counts are seen before the cell has ended, and it ends as still HTML."""
    kernel.start(
        SETUP
        + """
async def brief(item):
    await asyncio.sleep(0.1)
    return item

processor = AsyncBatchProcessor(brief, max_concurrency=2)
result = await processor.process(range(20), WidgetProgress("embedding"))
print("the cell has ended")
"""
    )
    counts = [f"embedding</span>.*{done} / 20" for done in range(1, 20)]
    kernel.until(lambda front_end: any(re.search(c, str(front_end.widgets)) for c in counts))
    assert VIEW in kernel.front_end.last
    ran = kernel.finish()
    assert "the cell has ended" in ran.stdout
    assert kernel.front_end.is_still
    assert kernel.front_end.widgets == {}
    assert says(kernel, "20 / 20")


def test_the_stop_button_leaves_a_still_bar(kernel: Kernel):
    """With the count so far."""
    ran = kernel.run_interrupted(
        SETUP + "ready_soon()\nawait processor.process(range(8), WidgetProgress())"
    )
    assert ran.error == "CancelledError"
    kernel.until(lambda front_end: front_end.is_still)
    assert says(kernel, "0 / 8")
    assert_healthy(kernel)


def test_the_stop_button_cancels_an_awaited_job_and_stills_its_panel(kernel: Kernel):
    """The prompt is back, the panel says what was done, the next cells run."""
    ran = kernel.run_interrupted(START + "display(job)\nready_soon()\nawait job")
    assert ran.error == "CancelledError"
    kernel.until(lambda front_end: front_end.is_still)
    assert says(kernel, "Job cancelled")
    assert kernel.run("processor.last_result.total").value == "8"
    assert_healthy(kernel)


def test_the_stop_button_spares_a_job_that_no_cell_awaits(kernel: Kernel):
    """It stops the cell, and the panel goes on."""
    ran = kernel.run_interrupted(START + "display(job)\nready_soon()\nawait asyncio.sleep(60)")
    assert ran.error == "CancelledError"
    assert kernel.run("job.done").value == "False"
    kernel.run("free.set()")
    kernel.until(lambda front_end: front_end.is_still)
    assert says(kernel, "8 of 8")


# ── run_async ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "cell",
    [
        "run_async(asyncio.sleep(0.01, 42))",
        "await outer()",
        "run_async(outer())",
        "run_async(outer(nested=True), nested=True)",
    ],
    ids=["plain cell", "awaiting cell", "inside itself", "nested"],
)
def test_run_async_gives_the_value(kernel: Kernel, cell: str):
    """In each place of a notebook."""
    outer = "async def outer(**how):\n    return run_async(asyncio.sleep(0.01, 42), **how)\n"
    assert kernel.run(SETUP + outer + cell).value == "42"
    assert_healthy(kernel)


def test_run_async_gives_the_value_in_a_widget_s_callback(kernel: Kernel):
    """A click calls sync code, which waits for a coroutine."""
    kernel.run(
        SETUP
        + """
import ipywidgets
button = ipywidgets.Button(description="not yet")
button.add_class("asks")

def clicked(_):
    button.description = run_async(asyncio.sleep(0.01, "answered"))

button.on_click(clicked)
display(button)
"""
    )
    kernel.click("asks")
    kernel.until(lambda front_end: front_end.state("asks", "description") == "answered")
    assert_healthy(kernel)


# ── jobs nobody waits for, kernels that start anew ──────────────────────────────────────────

DROPPED = (
    SETUP
    + """
import gc, logging
heard = []
handler = logging.Handler()
handler.emit = lambda record: heard.append(record.getMessage())
logging.getLogger("ragasync").addHandler(handler)

def broken():
    yield 0
    raise ValueError("the source broke")

free.set()
"""
)


@pytest.mark.parametrize(
    "shown",
    ["job = processor.start(broken())\ndisplay(job)", "job = processor.start(broken())"],
    ids=["with a panel", "without"],
)
def test_the_error_of_a_dropped_job_is_logged_once(kernel: Kernel, shown: str):
    """And the panel, if there is one, says it too."""
    kernel.run(DROPPED + shown)
    kernel.run("while not job.done: await asyncio.sleep(0.01)")
    if "display" in shown:
        kernel.until(lambda front_end: front_end.is_still)
        assert says(kernel, "ValueError: the source broke")
    kernel.run("del job; gc.collect(); await asyncio.sleep(0.1); gc.collect(); None")
    logged = kernel.run("logging.getLogger('ragasync').removeHandler(handler); heard")
    assert logged.value == '["a job\'s exception was never retrieved"]'


def test_a_restarted_kernel_leaves_what_was_shown_and_starts_anew(kernel: Kernel):
    """The old output has text and HTML for a front end that finds no widget any more."""
    kernel.run(START + "job")
    old = dict(kernel.front_end.last)
    kernel.restart()
    assert "of 8" in old["text/html"]
    kernel.front_end = FrontEnd()
    kernel.run(START + "free.set(); job")
    kernel.until(lambda front_end: bool(front_end.displays) and front_end.is_still)
    assert says(kernel, "8 of 8")
