"""Reports on runs with max_concurrency="auto": the explanation and the timeline plot."""

from __future__ import annotations

import pytest

from ragasync import BatchResult, plot_timeline

# Internals: results with exact times and states, which no run produces on demand.
from ragasync._outcomes.stats import RunSettings, RunStats
from tests.support.requirements import needs
from tests.support.results import done, result_of


def adapted(*bounds: tuple[float, int], rate: float | None = None) -> BatchResult[None]:
    """The result of ten seconds of calls, more than a plot draws as single bars."""
    stats = RunStats(
        max_concurrency=max((bound for _, bound in bounds), default=4),
        concurrency_history=bounds,
        adapted=True,
        settings=RunSettings(where="loop", rate=rate),
    )
    outcomes = [done(n, started=n / 400, seconds=0.1, worker=n % 40) for n in range(4_000)]
    return result_of(outcomes, seconds=10.1, stats=stats)


def explanation(result: BatchResult[None]) -> str:
    """The explanation in one line."""
    return " ".join(result.explain().split())


def test_an_explanation_names_the_usual_concurrency_and_its_range():
    """The usual one is what was in force longest, in several parts of the run."""
    text = explanation(adapted((0.0, 4), (1.0, 80), (2.0, 40), (4.5, 44), (7.0, 40)))
    assert 'max_concurrency="auto" allowed 40 concurrent calls most of the time' in text
    assert text.endswith("and varied between 4 and 80.")
    assert '(max_concurrency="auto", at most 80)' in text


def test_an_explanation_says_that_the_concurrency_never_changed():
    """There is no range to report."""
    assert explanation(adapted()).endswith('max_concurrency="auto" had no reason to change from 4.')


@pytest.mark.parametrize("rate", [None, 400.0])
def test_no_concurrency_is_advised_if_the_run_adapts_it(rate: float | None):
    """Not even with a rate limit; a higher rate is advised."""
    text = explanation(adapted((0.0, 4), (0.1, 40), rate=rate))
    assert "The calls themselves take the time" in text
    assert "max_concurrency=" not in text.replace('max_concurrency="auto"', "")
    assert ("RateLimiter(800)" in text) == (rate is not None)


def test_a_timeline_shows_the_limit_over_time():
    """As a labelled line of steps, instead of a straight line."""
    needs("matplotlib")
    from matplotlib import pyplot

    ax = plot_timeline(adapted((0.0, 4), (2.0, 80), (5.0, 40)))
    (line,) = [patch for patch in ax.patches if patch.get_label() == "limit (auto)"]
    values, edges, _ = line.get_data()
    assert (list(values), list(edges)) == ([4, 80, 40], [0.0, 2.0, 5.0, 10.1])
    assert ax.get_ylim()[1] >= 80
    legend = ax.get_legend() or ax.figure.legends[0]
    names = [text.get_text() for text in legend.get_texts()]
    assert "limit (auto)" in names
    assert not [name for name in names if name.endswith("workers")]
    pyplot.close("all")
