"""The plots: of any result, small, labelled, readable in every style."""

import sys
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest

from tests.support.requirements import needs
from tests.support.results import done, failed, pending, result_of
from tests.support.services import Service, about

needs("matplotlib")

import matplotlib  # noqa: E402

matplotlib.use("agg")

from matplotlib import pyplot  # noqa: E402
from matplotlib.colors import to_hex  # noqa: E402

from ragasync import (  # noqa: E402
    AsyncBatchProcessor,
    AsyncRetry,
    Attempt,
    BatchResult,
    MissingExtra,
    Outcome,
    plot_latency,
    plot_throughput,
    plot_timeline,
)

PLOTS = [plot_timeline, plot_latency, plot_throughput]


@pytest.fixture(autouse=True)
def _close_figures():
    """Close all figures."""
    yield
    pyplot.close("all")


def many(n: int) -> BatchResult[Any]:
    """A long run on 64 workers, with waits, back-off and 1% failures."""
    outcomes = []
    for row, seconds in enumerate(np.random.default_rng(1).lognormal(0.0, 0.6, n).tolist()):
        began = row / 50
        facts = {"started": began, "seconds": seconds, "waited": seconds, "worker": row % 64}
        if row % 100:
            outcomes.append(done(row, **facts))
            continue
        history = (Attempt(began, 0.1, "E", 1.0, seconds),)
        facts |= {"attempts": 2, "history": history, "backed_off": 1.0}
        outcomes.append(failed(row, ValueError("bad"), **facts))
    stats = replace(result_of([]).stats, max_concurrency=64)
    return result_of(outcomes, seconds=n / 50 + 5, stats=stats)


def staged() -> BatchResult[Any]:
    """Documents, one of which failed in each of two stages."""
    return result_of(
        [
            done(0, seconds=1.0),
            failed(1, OSError(), seconds=0.5, stage="load"),
            failed(2, ValueError(), seconds=2.0, stage="embed", worker=1),
        ],
        seconds=2.0,
    )


ODD = {
    "empty": BatchResult([], [], 0, 0),
    "made by hand": BatchResult([1, None], [None, ValueError()], 1, 1),
    "pending": result_of([pending(0)], seconds=1.0),
    "one item": result_of([done(0, seconds=1.0)], seconds=1.0),
    "no time at all": result_of([done(0), done(1)], seconds=0.0),
    "all failed": result_of([failed(0, ValueError(), seconds=1.0)], seconds=1.0),
    "cancelled": result_of(
        [done(0, seconds=0.4), Outcome(1, None, "cancelled", attempts=1, seconds=0.6, worker=1)],
        seconds=1.0,
        stopped_because="it was $cancelled$",
    ),
    "only cancelled": result_of([Outcome(0, None, "cancelled", attempts=1, seconds=1.0, worker=0)]),
    "merged": staged().merge(result_of([done(0, seconds=3.0)], seconds=3.0)),
    "stages": staged(),
    "a stage like a formula": result_of([failed(0, OSError(), seconds=1.0, stage=r"$\frac{1}$")]),
    "many times of 0": result_of([done(n, started=1.0) for n in range(3_001)], seconds=1.0),
    "times of 0": result_of([done(0, seconds=0.0), done(1, seconds=9.0)], seconds=9.0),
}


@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize("name", ODD)
def test_every_result_can_be_drawn(plot, name):
    """Without a warning, with the counts in the title and units in the labels."""
    result = ODD[name]
    ax = plot(result)
    ax.figure.savefig(BytesIO())
    assert ax.get_title(loc="left").startswith(result.summary().splitlines()[0].split(":")[0])
    if ax.get_xticks().size:
        assert ax.get_xlabel().endswith(("(ms)", "(s)", "(min)", "(h)"))
        assert ax.get_ylabel()
    else:
        assert [text.get_text() for text in ax.texts] == ["no times are known"]


@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize("n", [10, 3_000, 50_000])
def test_a_plot_stays_small(plot, n):
    """A few artists and under 100 kB in a notebook, for ten to 50,000 items."""
    ax = plot(many(n))
    image = BytesIO()
    ax.figure.savefig(image, dpi=100)
    assert len(image.getvalue()) < 100_000
    assert len(ax.collections) + len(ax.patches) + len(ax.lines) < 12


def test_calls_are_single_bars_until_there_are_too_many():
    """First workers on the axis, then the number of concurrent calls."""
    few, lots = plot_timeline(many(400)), plot_timeline(many(5_000))
    assert (few.get_ylabel(), lots.get_ylabel()) == ("worker", "concurrent calls")
    assert sum(len(bars.get_paths()) for bars in few.collections) >= 800


def test_waits_back_off_and_calls_are_shown_separately():
    """With a color and a name for each, as bars and as areas."""
    for n in (400, 5_000):
        names = plot_timeline(many(n)).get_legend_handles_labels()[1]
        assert {"in calls", "waiting for the rate limit", "backing off"} <= set(names)


def test_failures_are_counted_with_their_stages():
    """In the legend, next to the marker."""
    assert (
        "2 failed (1 in load, 1 in embed)" in plot_timeline(staged()).get_legend_handles_labels()[1]
    )


@pytest.mark.parametrize("plot", PLOTS)
def test_text_has_the_color_of_the_style(plot):
    """On dark and light; also with Axes that were made in another style."""
    with pyplot.style.context("dark_background"):
        ax = pyplot.subplots()[1]
    plot(staged(), ax=ax)
    texts = [ax.title, ax._left_title, *ax.get_legend().get_texts()]
    assert {to_hex(text.get_color()) for text in texts if text.get_text()} == {"#ffffff"}


@pytest.mark.parametrize("plot", PLOTS)
def test_a_plot_is_drawn_in_the_given_axes(plot):
    """It returns them and creates no new figure."""
    ax = pyplot.subplots()[1]
    assert plot(staged(), ax=ax) is ax
    assert len(pyplot.get_fignums()) == 1


@pytest.mark.parametrize("plot", PLOTS)
def test_without_matplotlib_the_error_names_the_command(plot, monkeypatch):
    """And what is missing."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=rf'{plot.__name__}.*pip install "ragasync\[plot\]"'):
        plot(staged())


@pytest.mark.parametrize("plot", PLOTS)
def test_wrong_arguments_are_rejected(plot):
    """Not a result, or not an Axes."""
    with pytest.raises(TypeError, match="needs a BatchResult"):
        plot([1, 2])
    with pytest.raises(TypeError, match="one matplotlib Axes"):
        plot(staged(), ax=pyplot.subplots(2)[1])


def test_latency_is_logarithmic_if_it_spreads_widely():
    """From milliseconds to minutes, but not from one to two seconds."""
    wide = result_of([done(n, seconds=0.001 * 2.0**n) for n in range(16)], seconds=60.0)
    narrow = result_of([done(n, seconds=1.0 + n / 16) for n in range(16)], seconds=60.0)
    assert plot_latency(wide).get_xscale() == "log"
    assert plot_latency(narrow).get_xscale() == "linear"


def test_latency_marks_median_and_95th_percentile_with_their_values():
    """For done and failed separately."""
    outcomes = [done(n, seconds=n + 1.0) for n in range(101)]
    ax = plot_latency(result_of([*outcomes, failed(101, ValueError(), seconds=7.0)], seconds=101.0))
    assert ax.get_legend_handles_labels()[1] == [
        "101 done: median 51 s (line), p95 96 s (dots)",
        "1 failed: median 7 s (line), p95 7 s (dots)",
    ]
    assert [line.get_xdata()[0] for line in ax.lines] == [51.0, 96.0, 7.0, 7.0]


def test_throughput_adds_up_to_the_items():
    """The area is their number, the line their mean rate."""
    result = many(500)
    ax = plot_throughput(result)
    done_rates, edges, _ = ax.patches[0].get_data()
    assert (done_rates * np.diff(edges)).sum() == pytest.approx(result.success_count)
    assert ax.lines[0].get_ydata()[0] == pytest.approx(500 / result.seconds)


async def test_every_attempt_is_drawn_on_its_worker():
    """A call starts 0.42 above the row of its worker, a back-off 0.28 below."""
    service = Service([1.0, 2.0, 9.0], {0: [OSError("away")]})
    retry = AsyncRetry(1, 0.5, jitter=None)
    result = await AsyncBatchProcessor(service, max_concurrency=2, retry=retry).process(range(3))
    corners = {
        bars.get_label(): sorted(
            path.get_extents().min.round(2).tolist() for path in bars.get_paths()
        )
        for bars in plot_timeline(result).collections
    }
    assert corners == {
        "failed, then retried": [[0, -0.42]],
        "in calls": [[0, 0.58], [1, -0.42], [2, 0.58]],
        "backing off": [[1, 1.28]],
    }


async def test_merged_runs_are_drawn_one_after_the_other():
    """With a line where they meet, in the timeline and the throughput."""
    first = await AsyncBatchProcessor(Service(1.0, {1: ValueError()}), 1, 1, 0).process([0, 1])
    whole = await first.retry_failed(AsyncBatchProcessor(Service(3.0), 1, 1))
    timeline, throughput = plot_timeline(whole), plot_throughput(whole)
    (bars,) = timeline.collections
    assert [path.get_extents().intervalx for path in bars.get_paths()] == [
        about([0, 1]),
        about([2, 5]),
    ]
    for ax in (timeline, throughput):
        assert ax.lines[0].get_xdata() == about([2, 2])
        assert ax.get_xlim() == about((0, 5))
        assert ax.get_xlabel() == "time since the start, runs end to end (s)"
        assert ax.get_title(loc="left").endswith("(2 runs)")
