"""The charts in the HTML of a result: their bars, and the styles that notebooks keep."""

import re

from ragasync import Attempt, BatchResult

# Internals: results with exact times and states, which no run produces on demand.
from ragasync._outcomes.columns import Columns
from ragasync._outcomes.outcome import DONE
from ragasync._outcomes.stats import RunStats, StageStats
from ragasync._reports.timeline import BACKOFF, LIMITER, STATE_COLORS
from tests.support.results import done, failed, result_of

KEPT_PROPERTIES = {
    *(
        "align-items",
        "background",
        "border-bottom",
        "border-radius",
        "border-top",
        "color",
        "cursor",
    ),
    *("display", "flex", "font-family", "font-size", "font-weight", "gap", "height"),
    *("justify-content", "line-height", "margin-bottom", "margin-right", "margin-top", "max-width"),
    *("min-width", "opacity", "overflow", "overflow-wrap", "padding-right", "padding-top"),
    *("text-align", "white-space"),
}
"""The CSS properties used here that JupyterLab keeps in a notebook that it does not trust."""


def busy(**options: RunStats) -> BatchResult:
    """Two calls of four seconds: one was retried, one waited for the rate limit first."""
    history = (Attempt(0.0, 1.0, "E", 2.0),)
    return result_of(
        [
            done(0, seconds=2.0, attempts=2, backed_off=2.0, history=history),
            failed(1, ValueError(), started=2.0, seconds=2.0, waited=2.0, worker=1),
        ],
        seconds=4.0,
        **options,
    )


def words(html: str) -> str:
    """The text of HTML."""
    return " ".join(re.sub("<[^>]*>", " ", html).split())


def test_calls_waits_and_back_off_are_shown_separately():
    """Each with its mean concurrency, its color and its name."""
    html = busy()._repr_html_()
    assert (
        "mean concurrent calls: ■ 1 in calls ■ 0.5 waiting for the rate limit ■ 0.5 backing off"
    ) in words(html)
    assert f"background:{STATE_COLORS[LIMITER]}" in html
    assert f"px solid {STATE_COLORS[BACKOFF]}" in html


def test_the_legend_only_names_states_that_occurred():
    """A run without a rate limit does not name one."""
    html = result_of([done(0, seconds=1.0)], seconds=1.0)._repr_html_()
    assert "mean concurrent calls: ■ 1 in calls" in words(html)
    assert "rate limit" not in words(html)


def test_pipelines_count_documents():
    """Each document makes many calls."""
    stats = RunStats(stages=(StageStats("embed", 4, 1.0),))
    html = busy(stats=stats)._repr_html_()
    assert "mean concurrent documents: ■ 1 in progress" in words(html)


def test_merged_runs_are_shown_end_to_end():
    """The time axis spans both."""
    html = busy().merge(result_of([done(0, seconds=3.0)], seconds=3.0))._repr_html_()
    assert "0 s items ended over time, 2 runs end to end 7.00 s mean" in words(html)


def test_the_highest_rate_is_only_stated_where_it_counts_enough_items():
    """A few items that end in one moment are no rate of thousands a second."""
    few = [done(index, seconds=1.0) for index in range(9)]
    assert "items ended over time 1.00 s" in words(result_of(few, seconds=1.0)._repr_html_())
    many = [done(index, seconds=1.0) for index in range(10)]
    shown = words(result_of(many, seconds=1.0)._repr_html_())
    assert "items ended over time, at most 600 a second 1.00 s" in shown


def test_a_result_without_times_has_no_chart():
    """Neither of item ends nor of calls."""
    html = BatchResult([1], [None], 1, 0)._repr_html_()
    assert "items ended" not in html
    assert "concurrent" not in html


def test_untrusted_notebooks_keep_the_styles():
    """JupyterLab drops all CSS properties that are not on its list."""
    styles = re.findall('style="([^"]*)"', busy()._repr_html_())
    assert {part.split(":")[0] for style in styles for part in style.split(";")} <= KEPT_PROPERTIES


def test_neighboring_equal_bars_are_one_element():
    """A steady run of a million items takes a few kilobytes."""
    n = 1_000_000
    columns: Columns[int, None] = Columns(items=range(n))
    columns.status[:] = bytes([DONE]) * n
    for row in range(n):
        columns.started[row], columns.seconds[row] = row / 1000, 0.5
    html = BatchResult.of(columns, seconds=1000.5)._repr_html_()
    assert len(html) < 6_000
    assert html.count("<div") < 75
