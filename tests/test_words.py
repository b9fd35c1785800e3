"""A result in words: the headline, the summary, and where the time went."""

from typing import Any

import pytest
from outcomes import done, failed, pending, result_of

from ragasync.outcomes.facts import RunFacts
from ragasync.outcomes.outcome import Outcome
from ragasync.reports.kinds import pattern_of
from ragasync.reports.words import duration, headline, per_second
from ragasync.result import BatchResult


def test_a_headline_names_only_the_counts_there_are():
    """Counts, then time, then the reason for an early end."""
    outcomes = [done(0), failed(1, KeyError()), Outcome(2, None, "cancelled"), pending(3)]
    assert headline(result_of([done(0)], seconds=1.0)) == "1 of 1 done in 1.00 s"
    assert headline(result_of(outcomes, seconds=61.0, stopped_because="it was cancelled")) == (
        "1 of 4 done, 1 failed, 1 cancelled, 1 pending in 1 min 01 s: "
        "stopped because it was cancelled"
    )


def test_large_counts_are_grouped():
    """A million can be told from ten million."""
    result = BatchResult([1] * 12_345, [None] * 12_345, 12_345, 0)
    assert headline(result) == "12,345 of 12,345 done in 0.00 s"


def test_a_summary_has_the_totals_and_the_commonest_errors():
    """Every line, to the letter."""
    result = result_of(
        [
            done(0, seconds=1.0, attempts=2, waited=0.5, backed_off=0.25),
            failed(1, ValueError("item 1 is bad"), seconds=0.5),
            failed(2, ValueError("item 2 is bad"), seconds=0.5),
            failed(3, TimeoutError()),
        ],
        seconds=2.0,
    )
    assert result.summary().splitlines() == [
        "1 of 4 done, 3 failed in 2.00 s",
        "  speed: 2 items a second",
        "  mean time in calls: 0.50 s",
        "  retried: 1 item",
        "  waited for the rate limit: 0.50 s, all items together",
        "  backed off: 0.25 s, all items together",
        "errors:",
        "  2 × ValueError: item 1 is bad (item 1)",
        "  1 × TimeoutError (item 3)",
    ]


def test_a_summary_counts_the_kinds_that_it_leaves_out():
    """Five kinds, and how many more."""
    outcomes = [failed(index, ValueError("x" * (index + 1))) for index in range(8)]
    lines = result_of(outcomes).summary().splitlines()
    assert len(lines) == 8
    assert lines[-1] == "  3 more of 3 other kinds"


def test_an_empty_result_can_be_summed_up():
    """Nothing to divide by."""
    assert BatchResult([], [], 0, 0).summary() == "0 of 0 done in 0.00 s"


def explained(facts: RunFacts, *outcomes: Outcome[Any, Any]) -> str:
    """Explain a run of ten seconds: these outcomes, or forty items that took no time."""
    chosen = outcomes or tuple(done(index) for index in range(40))
    return result_of(chosen, seconds=10.0, facts=facts).explain()


def forty(**facts: float) -> list[Outcome[Any, Any]]:
    """Return forty items alike."""
    return [done(index, **facts) for index in range(40)]


def test_the_parts_of_the_lane_time_stand_in_a_table():
    """Work, limiter, input and the rest add up; back-off holds no lane and stands apart."""
    text = explained(RunFacts(4, input_waited=4.0), *forty(seconds=0.1, waited=0.2, backed_off=0.5))
    assert text.splitlines()[1:7] == [
        "Lane time, 4 calls at once for 10.00 s:",
        "  in calls                         4.00 s    10%",
        "  waiting for the rate limit       8.00 s    20%",
        "  waiting for input                4.00 s    10%",
        "  idle                            24.00 s    60%",
        "Beside it, items waited 20.00 s between attempts; that holds no lane.",
    ]


@pytest.mark.parametrize(
    ("facts", "each", "advice"),
    [
        (RunFacts(4), {"seconds": 0.9}, "a larger max_concurrency would help"),
        (RunFacts(4), {"waited": 0.9}, "a higher rate would help"),
        (RunFacts(4, input_waited=36.0), {}, "its source gives items too slowly"),
        (RunFacts(4), {"backed_off": 5.0}, "Look at the errors"),
        (RunFacts(4), {"started": 9.9, "seconds": 0.1}, "fewer calls at once would do as well"),
    ],
)
def test_the_advice_names_the_knob_for_what_dominates(facts, each, advice):
    """Rate, concurrency, source, retries or nothing of these."""
    assert advice in explained(facts, *forty(**each)).splitlines()[-1]


def test_a_few_slow_items_at_the_end_are_told_from_other_idling():
    """Lanes that ran dry while one call went on."""
    outcomes = [done(index, started=0.0, seconds=0.1) for index in range(39)]
    text = explained(RunFacts(4), *outcomes, done(39, started=0.5, seconds=9.5))
    assert "A few slow items at the end" in text


def test_items_of_one_batch_share_their_call_s_time():
    """A call of 20 items that took a second took its lane one second."""
    outcomes = [done(index, seconds=1.0, batch=index // 20) for index in range(40)]
    assert "  in calls                         2.00 s" in explained(RunFacts(4), *outcomes)


def test_what_the_engine_says_of_its_lanes_counts_more_than_the_items():
    """Only the engine knows how calls and items went together."""
    text = explained(RunFacts(4, worked=3.0, limiter_waited=1.0), *forty(seconds=0.5, waited=0.5))
    assert "  in calls                         3.00 s" in text
    assert "  waiting for the rate limit       1.00 s" in text


def test_a_merged_run_says_that_its_times_are_not_whole():
    """The times of outcomes that were replaced are gone."""
    assert "2 runs are merged here" in explained(RunFacts(4, runs=2))


def test_too_little_is_said_to_be_too_little():
    """No advice from three items, and none where nobody knows how they ran."""
    few = result_of([done(0, seconds=1.0)], seconds=1.0, facts=RunFacts(4)).explain()
    assert "Too little to say where the time goes" in few
    unknown = BatchResult([1], [None], 1, 0).explain()
    assert "How it ran is not known" in unknown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00 s"),
        (59.99, "59.99 s"),
        (59.996, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3599.6, "1 h 00 min"),
        (36_180, "10 h 03 min"),
    ],
)
def test_a_duration_is_written_in_the_unit_that_fits(seconds, text):
    """Seconds, then minutes, then hours, without 60 of any."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("rate", "text"), [(0.01234, "0.0123"), (9.876, "9.88"), (99.6, "100"), (12_345.6, "12,346")]
)
def test_a_rate_has_three_digits_or_is_whole(rate, text):
    """Never an exponent in sight."""
    assert per_second(rate) == text


def test_an_encoding_keeps_its_number():
    """It tells kinds apart, where the numbers of items do not."""
    assert (
        pattern_of("doc17: cp1252 fails at 17, UTF-8 too") == "doc#: cp1252 fails at #, UTF-8 too"
    )
