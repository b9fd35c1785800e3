"""Progress bars: drawn seldom, flushed at the end, still HTML when it is over."""

import asyncio
import io
import subprocess
import sys
import types
from typing import Any

import pytest

from ragasync.notebook import TqdmProgress, WidgetProgress
from ragasync.notebook.progress import (
    ProgressBar,
    ProgressState,
    Throttle,
    bar_bundle,
    bar_html,
    progress_line,
)


class HandClock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class Noting(ProgressBar):
    """A drawing that notes what would be drawn."""

    def __init__(self, clock: Any) -> None:
        super().__init__(clock)
        self.seen: list[tuple[str, int, int | None]] = []

    def _start(self, state: ProgressState) -> None:
        self.seen.append(("start", state.done, state.total))

    def _draw(self, state: ProgressState) -> None:
        self.seen.append(("draw", state.done, state.total))

    def _end(self, state: ProgressState) -> None:
        self.seen.append(("end", state.done, state.total))


class Brief(Noting):
    """One that shows the end of a run without a bar in its own way."""

    def _show_end(self, state: ProgressState) -> None:
        self.seen.append(("leave", state.done, state.total))


class Broken(Noting):
    """One that cannot show a bar."""

    def _start(self, state: ProgressState) -> None:
        raise ImportError("no front end")


@pytest.fixture
def clock() -> HandClock:
    """Return a clock to be moved by hand."""
    return HandClock()


@pytest.fixture
def displayed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Make IPython look like a kernel's, and note what is displayed."""
    import IPython
    from IPython import display as module

    seen: list[tuple[dict[str, Any], dict[str, Any]]] = []
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    monkeypatch.setattr(module, "display", lambda bundle, **how: seen.append((bundle, how)))
    return seen


def test_a_throttle_says_yes_once_an_interval(clock):
    """The first time, and when the interval is over."""
    throttle = Throttle(0.1, clock)
    said = []
    for now in (0.0, 0.05, 0.1, 0.15, 1.0, 1.05):
        clock.now = now
        said.append(throttle.due())
    assert said == [True, False, True, False, True, False]
    assert repr(throttle) == "<Throttle every 0.1 s>"


def test_it_draws_ten_times_a_second_at_most_and_the_end_at_once(clock):
    """A thousand reports in a second are eleven drawings."""
    noting = Noting(clock)
    for done in range(1, 1000):
        noting(done, 1000)
        clock.now += 0.001
    noting(1000, 1000)
    draws = [entry for entry in noting.seen if entry[0] == "draw"]
    assert 8 <= len(draws) <= 10
    assert noting.seen[0] == ("start", 1, 1000)
    assert noting.seen[-1] == ("end", 1000, 1000)
    assert [entry[0] for entry in noting.seen].count("end") == 1


def test_the_end_told_once_more_is_not_another_run(clock):
    """A job may report its last item and then its end."""
    noting = Noting(clock)
    noting(5, 5)
    clock.now += 0.01
    noting(5, 5)
    assert noting.seen == [("start", 5, 5), ("end", 5, 5)]


def test_a_callback_that_is_used_again_begins_a_new_bar(clock):
    """After an end, also at once."""
    noting = Noting(clock)
    noting(5, 5)
    noting(1, 5)
    noting.close()
    clock.now += 60
    noting(5, 5)
    assert [entry for entry in noting.seen if entry[0] != "draw"] == [
        ("start", 5, 5),
        ("end", 5, 5),
        ("start", 1, 5),
        ("end", 1, 5),
        ("start", 5, 5),
        ("end", 5, 5),
    ]


def test_a_count_that_goes_back_ends_the_run_that_stopped_early(clock):
    """The next job's first report tells that the former one is over."""
    noting = Noting(clock)
    noting(1, 10)
    noting(4, 10)
    noting(1, 3)
    assert noting.seen == [("start", 1, 10), ("end", 4, 10), ("start", 1, 3)]


def test_leaving_the_with_block_flushes_what_was_not_drawn(clock):
    """Also when an error leaves it."""
    noting = Noting(clock)

    def stopped() -> None:
        with noting:
            noting(1, 10)
            noting(2, 10)
            raise KeyError

    with pytest.raises(KeyError):
        stopped()
    assert noting.seen == [("start", 1, 10), ("end", 2, 10)]
    noting.close()
    assert len(noting.seen) == 2


def test_a_total_that_becomes_known_at_the_end_ends_the_run(clock):
    """Until then it is None."""
    noting = Noting(clock)
    noting(1, None)
    clock.now += 1
    noting(2, None)
    noting(2, 2)
    assert noting.seen == [("start", 1, None), ("draw", 2, None), ("end", 2, 2)]


async def test_what_came_too_early_is_drawn_a_moment_later():
    """A job that stops early, without a close, still shows its last count."""
    noting = Noting(asyncio.get_running_loop().time)
    noting(0, 10)
    await asyncio.sleep(0.05)
    noting(3, 10)
    noting(4, 10)
    assert noting.seen == [("start", 0, 10)]
    await asyncio.sleep(0.2)
    assert noting.seen == [("start", 0, 10), ("draw", 4, 10)]


async def test_what_comes_right_after_a_drawing_is_drawn_too():
    """Also where something else was to be drawn later when that drawing came."""
    noting = Noting(asyncio.get_running_loop().time)
    noting(0, 10)
    await asyncio.sleep(0.03)
    noting(1, 10)  # to be drawn at 0.13
    await asyncio.sleep(0.08)
    noting(2, 10)
    await asyncio.sleep(0.01)
    noting(3, 10)
    await asyncio.sleep(1)
    assert noting.seen == [("start", 0, 10), ("draw", 2, 10), ("draw", 3, 10)]


async def test_a_run_that_soon_ends_has_no_bar_to_begin():
    """A bar costs more than many such a run; its end is shown all the same."""
    noting = Brief(asyncio.get_running_loop().time)
    noting(9, 10)
    await asyncio.sleep(0.05)
    noting(10, 10)
    await asyncio.sleep(1)
    assert noting.seen == [("leave", 10, 10)]


async def test_a_run_that_goes_on_has_its_bar_a_moment_later():
    """By the loop where no report comes, else by the next report."""
    by_loop, by_report = (Brief(asyncio.get_running_loop().time) for _ in range(2))
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


async def test_a_bar_that_cannot_be_shown_later_says_so_at_the_next_report():
    """To whoever reports, who is nearer to the reader than the loop's log."""
    loop = asyncio.get_running_loop()
    logged: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: logged.append(context))
    broken = Broken(loop.time)
    broken(9, 20)
    await asyncio.sleep(0.15)
    assert [str(context["exception"]) for context in logged] == ["no front end"]
    await asyncio.sleep(0.1)
    with pytest.raises(ImportError, match="no front end"):
        broken(10, 20)


async def test_nothing_is_drawn_after_the_end():
    """The drawing that was put off is forgotten."""
    noting = Noting(asyncio.get_running_loop().time)
    noting(0, 10)
    noting(2, 10)
    noting.close()
    await asyncio.sleep(1)
    assert noting.seen == [("start", 0, 10), ("end", 2, 10)]


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
def test_the_line_says_what_is_known(state, ended, line):
    """Count, total, speed, and the time that is left or was taken."""
    assert progress_line(state, ended=ended) == line


def test_the_still_bar_escapes_its_description_and_states_the_same_as_its_text():
    """HTML and text for a saved notebook."""
    bundle = bar_bundle("<b>x</b>", ProgressState(5, 10, 1.0, 5))
    assert bundle["text/plain"] == "<b>x</b>: 5 / 10 · 5/s · 0:01 left"
    html = str(bundle["text/html"])
    assert "&lt;b&gt;x&lt;/b&gt;" in html
    assert "<b>" not in html
    assert "5 / 10 · 5/s · 0:01 left" in html
    assert "width:50.0%" in html


@pytest.mark.parametrize(("done", "total", "width"), [(0, 0, "100.0%"), (3, None, "0.0%")])
def test_the_still_bar_of_nothing_is_full_and_of_an_unknown_total_is_empty(done, total, width):
    """Neither divides by zero."""
    assert f"width:{width}" in str(bar_bundle("", ProgressState(done, total, 0.0, 0))["text/html"])


def test_a_widget_bar_lives_while_the_job_does_and_is_bar_html_afterwards(displayed, clock):
    """Displayed once, with text and HTML beside it, then replaced in its place."""
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


def test_a_widget_bar_frees_its_widget_at_the_end(displayed, clock):
    """No model is left in the kernel, layout and style included."""
    progress = WidgetProgress("name", clock=clock)
    progress(1, 2)
    models = [progress._bar, progress._bar.layout, progress._bar.style]
    assert all(model.comm is not None for model in models)
    progress.close()
    assert all(model.comm is None for model in models)


def test_a_second_run_gets_a_bar_of_its_own(displayed, clock):
    """In its own place."""
    progress = WidgetProgress(clock=clock)
    progress(1, 2)
    progress(2, 2)
    progress(1, 2)
    progress.close()
    ids = [how["display_id"] for _, how in displayed]
    assert len(displayed) == 4
    assert ids[0] == ids[1] != ids[2] == ids[3]


def test_a_run_that_is_over_at_its_first_report_leaves_still_html_and_makes_no_widget(
    displayed, clock
):
    """In one message; the next run has a place of its own."""
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
    """HTML in a description is words."""
    progress = WidgetProgress("<img src=x>", clock=clock)
    progress(1, 2)
    assert "&lt;img src=x&gt;" in progress._bar.value
    assert "<img" not in progress._bar.value


def test_without_a_kernel_a_widget_bar_is_text(capsys, clock):
    """A script or a terminal gets lines, of tqdm."""
    progress = WidgetProgress("embedding", clock=clock)
    progress(1, 2)
    progress(2, 2)
    assert "embedding: 100%" in capsys.readouterr().err


def test_a_tqdm_bar_ends_at_the_last_count(clock):
    """Its keywords are tqdm's."""
    out = io.StringIO()
    progress = TqdmProgress("all", clock=clock, file=out, ascii=True)
    progress(0, 40)
    progress(17, 40)
    progress(40, 40)
    assert "all: 100%" in out.getvalue()
    assert "40/40" in out.getvalue()


def test_a_tqdm_bar_that_is_closed_early_shows_its_last_count(clock):
    """What was throttled is flushed."""
    out = io.StringIO()
    with TqdmProgress(clock=clock, file=out, ascii=True) as progress:
        progress(0, 40)
        progress(17, 40)
    assert "17/40" in out.getvalue()


def test_the_reprs_say_how_far_it_is(clock):
    """One line, with the live state."""
    progress = TqdmProgress(clock=clock, file=io.StringIO())
    assert repr(progress) == "<TqdmProgress 0 of ?, idle>"
    progress(1, 4000)
    assert repr(progress) == "<TqdmProgress 1 of 4,000, running>"
    progress.close()
    assert repr(WidgetProgress("x")) == "<WidgetProgress 0 of ?, idle>"


@pytest.mark.real_time
def test_it_makes_no_front_end_load_before_the_first_report():
    """Neither ipywidgets nor tqdm is imported for a callback that is never called."""
    code = (
        "import sys; from ragasync.notebook import TqdmProgress, WidgetProgress;"
        "TqdmProgress(); WidgetProgress();"
        "print({'ipywidgets', 'tqdm', 'IPython', 'pandas', 'numpy'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
