"""Progress bars: throttled, flushed at the end, and static HTML afterwards."""

import asyncio
import io
import re
import subprocess
import sys
import time
import types
from typing import Any

import ipywidgets
import pytest

from ragasync import AsyncBatchProcessor
from ragasync.notebook import TqdmProgress, WidgetProgress, progress_bars

# Internals: states of a view that a live job passes too quickly.
from ragasync.notebook.progress_bars import (
    ProgressBar,
    ProgressState,
    Throttle,
    bar_bundle,
    bar_html,
    progress_line,
)


class ManualClock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """The current time."""
        return self.now


class RecordingBar(ProgressBar):
    """A bar that records what would be drawn."""

    def __init__(self, clock: Any) -> None:
        super().__init__(clock)
        self.seen: list[tuple[str, int, int | None]] = []

    def _start(self, state: ProgressState) -> None:
        self.seen.append(("start", state.done, state.total))

    def _draw(self, state: ProgressState) -> None:
        self.seen.append(("draw", state.done, state.total))

    def _end(self, state: ProgressState) -> None:
        self.seen.append(("end", state.done, state.total))


class BriefBar(RecordingBar):
    """A bar that records separately the end of a run without a bar."""

    def _show_end(self, state: ProgressState) -> None:
        self.seen.append(("end only", state.done, state.total))


class BrokenBar(RecordingBar):
    """A bar that cannot be shown."""

    def _start(self, state: ProgressState) -> None:
        raise ImportError("no front end")


@pytest.fixture
def clock() -> ManualClock:
    """A clock that is set by hand."""
    return ManualClock()


@pytest.fixture
def displayed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Make IPython look like that of a kernel, and record what is displayed."""
    import IPython
    from IPython import display as module

    seen: list[tuple[dict[str, Any], dict[str, Any]]] = []
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    monkeypatch.setattr(module, "display", lambda bundle, **how: seen.append((bundle, how)))
    return seen


def test_a_throttle_is_due_once_per_interval(clock):
    """The first time, and whenever the interval has passed."""
    throttle = Throttle(0.1, clock)
    due = []
    for now in (0.0, 0.05, 0.1, 0.15, 1.0, 1.05):
        clock.now = now
        due.append(throttle.due())
    assert due == [True, False, True, False, True, False]
    assert repr(throttle) == "<Throttle every 0.1 s>"


def test_a_bar_is_drawn_at_most_ten_times_a_second_and_immediately_at_the_end(clock):
    """A thousand reports in a second are drawn about ten times."""
    bar = RecordingBar(clock)
    for done in range(1, 1000):
        bar(done, 1000)
        clock.now += 0.001
    bar(1000, 1000)
    draws = [entry for entry in bar.seen if entry[0] == "draw"]
    assert 8 <= len(draws) <= 10
    assert bar.seen[0] == ("start", 1, 1000)
    assert bar.seen[-1] == ("end", 1000, 1000)
    assert [entry[0] for entry in bar.seen].count("end") == 1


def test_a_repeated_end_is_not_another_run(clock):
    """A job may report its last item and then its end."""
    bar = RecordingBar(clock)
    bar(5, 5)
    clock.now += 0.01
    bar(5, 5)
    assert bar.seen == [("start", 5, 5), ("end", 5, 5)]


def test_a_callback_that_is_used_again_starts_a_new_bar(clock):
    """Also immediately after an end."""
    bar = RecordingBar(clock)
    bar(5, 5)
    bar(1, 5)
    bar.close()
    clock.now += 60
    bar(5, 5)
    assert [entry for entry in bar.seen if entry[0] != "draw"] == [
        ("start", 5, 5),
        ("end", 5, 5),
        ("start", 1, 5),
        ("end", 1, 5),
        ("start", 5, 5),
        ("end", 5, 5),
    ]


def test_a_count_that_goes_back_ends_the_run_that_stopped_early(clock):
    """The first report of the next job shows that the previous one is over."""
    bar = RecordingBar(clock)
    bar(1, 10)
    bar(4, 10)
    bar(1, 3)
    assert bar.seen == [("start", 1, 10), ("end", 4, 10), ("start", 1, 3)]


def test_leaving_the_with_block_flushes_the_last_report(clock):
    """Also if an error leaves it."""
    bar = RecordingBar(clock)

    def stopped() -> None:
        with bar:
            bar(1, 10)
            bar(2, 10)
            raise KeyError

    with pytest.raises(KeyError):
        stopped()
    assert bar.seen == [("start", 1, 10), ("end", 2, 10)]
    bar.close()
    assert len(bar.seen) == 2


def test_a_total_that_becomes_known_at_the_end_ends_the_run(clock):
    """Until then it is None."""
    bar = RecordingBar(clock)
    bar(1, None)
    clock.now += 1
    bar(2, None)
    bar(2, 2)
    assert bar.seen == [("start", 1, None), ("draw", 2, None), ("end", 2, 2)]


async def test_a_report_that_came_too_early_is_drawn_a_moment_later():
    """A job that stops early, without a close, still shows its last count."""
    bar = RecordingBar(asyncio.get_running_loop().time)
    bar(0, 10)
    await asyncio.sleep(0.05)
    bar(3, 10)
    bar(4, 10)
    assert bar.seen == [("start", 0, 10)]
    await asyncio.sleep(0.2)
    assert bar.seen == [("start", 0, 10), ("draw", 4, 10)]


async def test_a_report_right_after_a_draw_is_drawn_too():
    """Also if another draw was scheduled before."""
    bar = RecordingBar(asyncio.get_running_loop().time)
    bar(0, 10)
    await asyncio.sleep(0.03)
    bar(1, 10)  # to be drawn at 0.13
    await asyncio.sleep(0.08)
    bar(2, 10)
    await asyncio.sleep(0.01)
    bar(3, 10)
    await asyncio.sleep(1)
    assert bar.seen == [("start", 0, 10), ("draw", 2, 10), ("draw", 3, 10)]


async def test_a_run_that_ends_soon_has_no_bar():
    """A bar costs more than many such runs; its end is shown anyway."""
    bar = BriefBar(asyncio.get_running_loop().time)
    bar(9, 10)
    await asyncio.sleep(0.05)
    bar(10, 10)
    await asyncio.sleep(1)
    assert bar.seen == [("end only", 10, 10)]


async def test_a_run_that_goes_on_gets_its_bar_a_moment_later():
    """From the loop if no report comes, otherwise from the next report."""
    by_loop, by_report = (BriefBar(asyncio.get_running_loop().time) for _ in range(2))
    by_loop(9, 20)
    by_report(9, 20)
    await asyncio.sleep(0.099)
    assert by_loop.seen == by_report.seen == []
    by_report(10, 20)
    await asyncio.sleep(0.002)
    by_report(11, 20)
    assert by_loop.seen == [("start", 9, 20)]
    assert by_report.seen == [("start", 10, 20)]
    by_loop.close()
    assert by_loop.seen[1:] == [("end", 9, 20)]


async def test_a_bar_that_cannot_be_shown_later_raises_at_the_next_report():
    """The caller of the report sees the error sooner than the log of the loop."""
    loop = asyncio.get_running_loop()
    logged: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: logged.append(context))
    broken = BrokenBar(loop.time)
    broken(9, 20)
    await asyncio.sleep(0.15)
    assert [str(context["exception"]) for context in logged] == ["no front end"]
    await asyncio.sleep(0.1)
    with pytest.raises(ImportError, match="no front end"):
        broken(10, 20)


async def test_nothing_is_drawn_after_the_end():
    """The scheduled draw is cancelled."""
    bar = RecordingBar(asyncio.get_running_loop().time)
    bar(0, 10)
    bar(2, 10)
    bar.close()
    await asyncio.sleep(1)
    assert bar.seen == [("start", 0, 10), ("end", 2, 10)]


@pytest.mark.parametrize(
    ("state", "ended", "line"),
    [
        (ProgressState(1234, 5000, 4.0, 1234), False, "1,234 / 5,000 · 308/s · 0:12 left"),
        (ProgressState(1234, None, 4.0, 1234), False, "1,234 · 308/s · 0:04"),
        (ProgressState(5000, 5000, 16.0, 5000), True, "5,000 / 5,000 · 312/s · 0:16"),
        (
            ProgressState(1234, 5000, 4.0, 1234),
            True,
            "1,234 / 5,000 · 308/s · stopped after 0:04",
        ),
        (ProgressState(1, 5000, 0.0, 0), False, "1 / 5,000"),
        (ProgressState(1, 10_001, 1.0, 1), False, "1 / 10,001 · 1/s · 2:46:40 left"),
        (ProgressState(0, 0, 0.0, 0), True, "0 / 0 · 0:00"),
    ],
)
def test_the_line_shows_what_is_known(state, ended, line):
    """Count, total, speed, and the time left or taken."""
    assert progress_line(state, ended=ended) == line


def test_the_static_bar_escapes_its_description_and_shows_the_same_facts_as_its_text():
    """HTML and text for a saved notebook."""
    bundle = bar_bundle("<b>x</b>", ProgressState(5, 10, 1.0, 5))
    assert bundle["text/plain"] == "<b>x</b>: 5 / 10 · 5/s · 0:01 left"
    html = str(bundle["text/html"])
    assert "&lt;b&gt;x&lt;/b&gt;" in html
    assert "<b>" not in html
    assert "5 / 10 · 5/s · 0:01 left" in html
    assert "width:50.0%" in html


@pytest.mark.parametrize(("done", "total", "width"), [(0, 0, "100.0%"), (3, None, "0.0%")])
def test_the_static_bar_of_no_items_is_full_and_of_an_unknown_total_is_empty(done, total, width):
    """Neither divides by zero."""
    assert f"width:{width}" in str(bar_bundle("", ProgressState(done, total, 0.0, 0))["text/html"])


def test_the_speed_counts_from_the_start_of_the_run(clock):
    """Also the items that ended before the first report, but not those that a journal had."""
    states: list[ProgressState] = []

    class Bar(RecordingBar):
        def _draw(self, state: ProgressState) -> None:
            states.append(state)

        _start = _end = _draw

    bar = Bar(clock)
    bar.begin_run()
    clock.now += 2
    bar.recalled = 70
    bar(100, 1000)
    assert (states[-1].rate, states[-1].seconds_left) == (15.0, 60.0)
    clock.now += 2
    bar(130, 1000)
    assert (states[-1].rate, states[-1].seconds_left) == (15.0, 58.0)
    bar.close()


async def test_a_run_tells_its_bar_when_it_starts_and_what_the_journal_had(tmp_path):
    """A bar that is passed to a processor shows the speed of this run."""
    states: list[ProgressState] = []

    class Bar(RecordingBar):
        def _end(self, state: ProgressState) -> None:
            states.append(state)

    processor = AsyncBatchProcessor(str, journal=tmp_path / "run.sqlite")
    await processor.process(range(30), Bar(time.monotonic))
    await processor.process(range(50), Bar(time.monotonic))
    assert [(state.done, state.counted) for state in states] == [(30, 30), (50, 20)]
    assert all(state.seconds > 0 for state in states)


def test_a_tqdm_bar_shows_the_speed_since_the_start_of_the_run(clock):
    """As our own bar does."""
    file = io.StringIO()
    bar = TqdmProgress("items", file=file, clock=clock)
    bar.begin_run()
    clock.now += 100
    bar(1000, 10_000)
    assert re.search(r"1000/10000 \[01:40<15:\d\d, +\d?\d\.\d\dit/s", file.getvalue())
    bar.close()


def test_a_bar_inside_an_output_ends_in_its_widget(displayed, clock, monkeypatch):
    """An Output ignores the update that would replace the widget by HTML."""
    output = ipywidgets.Output()
    monkeypatch.setattr(progress_bars, "capturing_output", lambda: output)
    progress = WidgetProgress("embedding", clock=clock)
    progress.begin_run()
    progress(0, 100)
    clock.now += 4
    progress(100, 100)
    assert len(displayed) == 1
    assert "100 / 100 · 25/s · 0:04" in progress._bar.value
    assert progress._bar.comm is not None


def test_a_widget_bar_is_replaced_by_html_at_the_end(displayed, clock):
    """Displayed once, with text and HTML for other front ends, then replaced in its output."""
    progress = WidgetProgress("embedding", clock=clock)
    progress(0, 100)
    ((bundle, how),) = displayed
    assert set(bundle) == {
        "text/plain",
        "text/html",
        "application/vnd.jupyter.widget-view+json",
    }
    assert (how["raw"], how["update"]) == (True, False)
    clock.now += 2
    progress(50, 100)
    assert progress._bar.value == bar_html("embedding", ProgressState(50, 100, 2.0, 50))
    assert len(displayed) == 1
    clock.now += 2
    progress(100, 100)
    last, how_last = displayed[-1]
    assert len(displayed) == 2
    assert set(last) == {"text/plain", "text/html"}
    assert last["text/plain"] == "embedding: 100 / 100 · 25/s · 0:04"
    assert (how_last["update"], how_last["display_id"]) == (True, how["display_id"])


def test_a_widget_bar_closes_its_widget_at_the_end(displayed, clock):
    """No model is left in the kernel, including layout and style."""
    progress = WidgetProgress("name", clock=clock)
    progress(1, 2)
    models = [progress._bar, progress._bar.layout, progress._bar.style]
    assert all(model.comm is not None for model in models)
    progress.close()
    assert all(model.comm is None for model in models)


def test_a_second_run_gets_its_own_bar(displayed, clock):
    """In its own output."""
    progress = WidgetProgress(clock=clock)
    progress(1, 2)
    progress(2, 2)
    progress(1, 2)
    progress.close()
    ids = [how["display_id"] for _, how in displayed]
    assert len(displayed) == 4
    assert ids[0] == ids[1] != ids[2] == ids[3]


def test_a_run_that_is_over_at_its_first_report_shows_static_html_and_makes_no_widget(
    displayed, clock
):
    """In one message; the next run has its own output."""
    progress = WidgetProgress("quick", clock=clock)
    progress(2, 2)
    progress(3, 3)
    (first, how_first), (second, how_second) = displayed
    assert progress._bar is None
    assert set(first) == {"text/plain", "text/html"}
    assert first["text/plain"] == "quick: 2 / 2 · 0:00"
    assert second["text/plain"] == "quick: 3 / 3 · 0:00"
    assert (how_first["update"], how_second["update"]) == (False, False)
    assert how_first["display_id"] != how_second["display_id"]


def test_a_widget_bar_escapes_its_description(displayed, clock):
    """HTML in a description is shown as text."""
    progress = WidgetProgress("<img src=x>", clock=clock)
    progress(1, 2)
    assert "&lt;img src=x&gt;" in progress._bar.value
    assert "<img" not in progress._bar.value


def test_without_a_kernel_a_widget_bar_is_text(capsys, clock):
    """A script or a terminal gets a bar of tqdm."""
    progress = WidgetProgress("embedding", clock=clock)
    progress(1, 2)
    progress(2, 2)
    assert "embedding: 100%" in capsys.readouterr().err


def test_a_tqdm_bar_ends_at_the_last_count(clock):
    """Further keyword arguments are those of tqdm."""
    out = io.StringIO()
    progress = TqdmProgress("all", clock=clock, file=out, ascii=True)
    progress(0, 40)
    progress(17, 40)
    progress(40, 40)
    assert "all: 100%" in out.getvalue()
    assert "40/40" in out.getvalue()


def test_a_tqdm_bar_that_is_closed_early_shows_its_last_count(clock):
    """The throttled report is flushed."""
    out = io.StringIO()
    with TqdmProgress(clock=clock, file=out, ascii=True) as progress:
        progress(0, 40)
        progress(17, 40)
    assert "17/40" in out.getvalue()


def test_the_reprs_show_the_progress(clock):
    """One line, with the live state."""
    progress = TqdmProgress(clock=clock, file=io.StringIO())
    assert repr(progress) == "<TqdmProgress 0 of ?, idle>"
    progress(1, 4000)
    assert repr(progress) == "<TqdmProgress 1 of 4,000, running>"
    progress.close()
    assert repr(WidgetProgress("x")) == "<WidgetProgress 0 of ?, idle>"


@pytest.mark.real_time
def test_nothing_is_imported_before_the_first_report():
    """Neither ipywidgets nor tqdm is imported for a callback that is never called."""
    code = (
        "import sys; from ragasync.notebook import TqdmProgress, WidgetProgress;"
        "TqdmProgress(); WidgetProgress();"
        "print({'ipywidgets', 'tqdm', 'IPython', 'pandas', 'numpy'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
