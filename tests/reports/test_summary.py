"""The summary of a result: its title, its facts, and how numbers are written."""

import pytest

from ragasync import BatchResult, Outcome

# Internals: one text or figure, without the run that leads to it.
from ragasync._reports.error_groups import error_template
from ragasync._reports.summary import counted, per_second
from ragasync.object_views import duration
from tests.support.results import done, failed, pending, result_of


def test_a_title_names_only_the_counts_that_occur():
    """The counts, the time, the reason for an early end."""
    outcomes = [done(0), failed(1, KeyError()), Outcome(2, None, "cancelled"), pending(3)]
    assert repr(result_of([done(0)], seconds=1.0)) == "<BatchResult 1 of 1 done in 1.00 s>"
    assert repr(result_of(outcomes, seconds=61.0, stopped_because="it was cancelled")) == (
        "<BatchResult 1 of 4 done, 1 failed, 1 cancelled, 1 pending in 1 min 01 s: "
        "stopped because it was cancelled>"
    )


def test_large_counts_have_thousands_separators():
    """A million and ten million look different."""
    result = BatchResult([1] * 12_345, [None] * 12_345, 12_345, 0)
    assert repr(result) == "<BatchResult 12,345 of 12,345 done in 0 s>"


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 items"), (1, "1 item"), (2, "2 items"), (12_345, "12,345 items")]
)
def test_a_count_of_one_has_a_singular_noun(count: int, shown: str):
    """All other counts have a plural noun."""
    assert counted(count, "item") == shown


def test_a_summary_has_the_totals_and_the_most_common_errors():
    """The exact lines."""
    result = result_of(
        [
            done(0, seconds=1.0, attempts=2, waited=0.5, backed_off=0.25),
            failed(1, ValueError("item 1 is bad"), seconds=0.5),
            failed(2, ValueError("item 2 is bad"), seconds=0.5),
            failed(3, TimeoutError()),
        ],
        seconds=2.0,
    )
    wait = "p50 0 s, p95 0.42 s, p99 0.48 s each"
    backoff = "p50 0.25 s, p95 0.25 s, p99 0.25 s each"
    assert result.summary().splitlines() == [
        "1 of 4 done, 3 failed in 2.00 s",
        "  speed: 2 items a second",
        "  mean time in calls: 0.50 s",
        "  calls: p50 0.50 s, p95 0.92 s, p99 0.98 s",
        "  retried: 1 item",
        f"  waited for the rate limit: 0.50 s over all items; {wait}",
        f"  backed off: 0.25 s over all items; {backoff}",
        "errors:",
        "  2 × ValueError: item 1 is bad (item 1)",
        "  1 × TimeoutError (item 3)",
    ]


def test_cancelled_calls_do_not_count_in_the_mean_time():
    """Their items have not ended."""
    cancelled = Outcome(1, None, "cancelled", attempts=1, seconds=9.0)
    summary = result_of([done(0, seconds=1.0), cancelled], seconds=10.0).summary()
    assert "mean time in calls: 1.00 s" in summary


def test_a_summary_counts_the_errors_that_it_leaves_out():
    """Five kinds are listed."""
    outcomes = [failed(index, ValueError("x" * (index + 1))) for index in range(8)]
    lines = result_of(outcomes).summary().splitlines()
    assert len(lines) == 8
    assert lines[-1] == "  3 more, of 3 other kinds"


def test_an_empty_result_has_a_summary():
    """Nothing is divided by zero."""
    assert BatchResult([], [], 0, 0).summary() == "0 of 0 done in 0 s"


class Printer:
    """The printer that IPython passes to a pretty-print method."""

    def __init__(self) -> None:
        self.printed = ""

    def text(self, obj: str, /) -> None:
        self.printed += obj


@pytest.mark.parametrize("text", [result_of([done(0)]).summary(), result_of([done(0)]).explain()])
def test_ipython_prints_texts_as_lines(text):
    """Not as a quoted string with escaped line breaks."""
    printer = Printer()
    text._repr_pretty_(printer, False)
    assert printer.printed == text
    assert "\n" in text or text.startswith("1 of 1 done")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (1e-12, "0 s"),
        (0.00123, "1.2 ms"),
        (0.0333, "33 ms"),
        (0.0996, "0.10 s"),
        (9.994, "9.99 s"),
        (9.996, "10.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3599.6, "1 h 00 min"),
        (36_180, "10 h 03 min"),
    ],
)
def test_a_duration_is_written_in_a_suitable_unit(seconds, text):
    """In at most three digits: milliseconds, seconds, minutes or hours, and never 60 of them."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("rate", "text"), [(0.01234, "0.0123"), (9.876, "9.88"), (99.6, "100"), (12_345.6, "12,346")]
)
def test_a_rate_has_three_digits_or_is_a_whole_number(rate, text):
    """Never with an exponent."""
    assert per_second(rate) == text


def test_an_encoding_keeps_its_number():
    """It separates kinds of errors; the numbers of items do not."""
    assert (
        error_template("doc17: cp1252 fails at 17, UTF-8 too")
        == "doc#: cp1252 fails at #, UTF-8 too"
    )
