"""What a job gives back: counts, outcomes, errors, and the merging of runs."""

import inspect
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragasync import BatchResult, Outcome

# Internals: results with exact times and states, which no run produces on demand.
from ragasync._outcomes.columns import Columns
from ragasync._outcomes.outcome import STATUSES, Status
from ragasync.result import RunStats


def result_of(statuses: list[Status], **facts: Any) -> BatchResult[str]:
    """Return a result of items `item 0`, ... whose values and errors tell their index."""
    columns: Columns[str, str] = Columns(items=[f"item {index}" for index in range(len(statuses))])
    for index, status in enumerate(statuses):
        if status != "pending":
            columns.record(outcome(index, status))
    return BatchResult.of(columns, **facts)


def outcome(index: int, status: Status, **facts: Any) -> Outcome[str, str]:
    """Return an outcome whose value or error tells its index."""
    value = f"value {index}" if status == "done" else None
    error = ValueError(f"bad {index}") if status == "failed" else None
    facts = {"attempts": 1, "worker": 0, **facts}
    return Outcome(index, f"item {index}", status, value, error, **facts)


class Recorder:
    """A processor by hand: notes its items and settles them all with one status."""

    def __init__(self, status: Status = "done", seconds: float = 1.0) -> None:
        self.status, self.seconds = status, seconds
        self.seen: list[Any] = []
        self.last_result: BatchResult[str] | None = None

    async def process(self, items: Any, /) -> BatchResult[str]:
        """Settle every item."""
        self.seen.append(list(items))
        columns: Columns[Any, str] = Columns(items=list(items))
        for row, item in enumerate(items):
            columns.record(
                Outcome(
                    row,
                    item,
                    self.status,
                    value=f"again {item}",
                    error=OSError() if self.status == "failed" else None,
                    attempts=5,
                    started=9.0,
                )
            )
        self.last_result = BatchResult.of(columns, seconds=self.seconds)
        return self.last_result


def test_a_result_is_made_of_four_arguments():
    """Results, errors and the two counts are enough."""
    error = KeyError("a")
    result = BatchResult([1, None], [None, error], 1, 1)
    assert (result.results, result.errors) == ([1, None], [None, error])
    assert (result.total, result.success_count, result.error_count) == (2, 1, 1)
    assert (result.seconds, result.stopped_because) == (0.0, None)
    assert result[0] == Outcome(0, None, "done", 1, attempts=1, worker=0)
    assert result[1].error is error


def test_results_and_errors_of_unequal_length_are_refused():
    """Every item has an entry in both."""
    with pytest.raises(ValueError, match="2 results and 1 errors"):
        BatchResult([1, 2], [None], 2, 0)


@pytest.mark.parametrize("counts", [(2, 0), (0, 1), (1, 0), (0, 2)])
def test_counts_that_do_not_fit_the_entries_are_refused(counts):
    """The error names the counts and what was found."""
    with pytest.raises(ValueError, match=f"success_count={counts[0]}.*for 1 values and 1 errors"):
        BatchResult([1, None], [None, KeyError()], *counts)


def test_counts_of_an_empty_result_are_checked_too():
    """No items are no successes."""
    with pytest.raises(ValueError, match="success_count=5"):
        BatchResult([], [], 5, 0)


def test_an_empty_result_has_succeeded():
    """Nothing to do is done."""
    result: BatchResult[int] = BatchResult([], [], 0, 0)
    assert result.all_succeeded
    assert result.get_successful() == result.get_failed() == list(result) == []


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 1, 0, 2)])
def test_the_four_counts_add_up_to_the_total(order):
    """Every item is counted once."""
    result = result_of([STATUSES[code] for code in order])
    counts = (
        result.success_count,
        result.error_count,
        result.cancelled_count,
        result.pending_count,
    )
    assert counts == tuple(order.count(code) for code in (1, 2, 3, 0))
    assert sum(counts) == result.total == len(result)


def test_all_succeeded_only_without_failed_cancelled_or_pending_items():
    """A job that was stopped has not succeeded, even without a failure."""
    assert result_of(["done", "done"]).all_succeeded
    for status in ("failed", "cancelled", "pending"):
        assert not result_of(["done", status]).all_succeeded


def test_a_none_that_a_call_returned_is_a_value():
    """Success is not told from the value."""
    columns: Columns[str, None] = Columns(items=["a", "b", "c"])
    columns.fast_recorder(0, 0.0)(0, None, 0.0, 0.1)
    columns.fast_recorder(0, 0.0)(2, None, 0.0, 0.1)
    result = BatchResult.of(columns)
    assert result.get_successful() == [None, None]
    assert [item.ok for item in result] == [True, False, True]


def test_values_and_failures_come_in_input_order():
    """The two lists leave out what is not theirs."""
    result = result_of(["failed", "done", "pending", "done", "failed", "cancelled"])
    assert result.get_successful() == ["value 1", "value 3"]
    assert [(item.index, str(item.error)) for item in result.get_failed()] == [
        (0, "bad 0"),
        (4, "bad 4"),
    ]


def test_results_and_errors_have_an_entry_for_every_item():
    """Both read like lists, None where there is none."""
    result = result_of(["failed", "done", "pending"])
    assert list(result.results) == [None, "value 1", None]
    assert [error and str(error) for error in result.errors] == ["bad 0", None, None]
    assert result.errors[1:] == [None, None]


def test_outcomes_are_read_by_index_from_either_end_and_by_slice():
    """Indexing is that of a list."""
    result = result_of(["done", "failed", "pending"])
    assert (result[0].status, result[-1].status) == ("done", "pending")
    assert [item.index for item in result[1:]] == [1, 2]
    assert [item.index for item in result] == [0, 1, 2]


@pytest.mark.parametrize("index", [3, -4])
def test_an_index_beyond_the_items_is_an_error_with_the_numbers(index):
    """It says which index, of how many."""
    with pytest.raises(IndexError, match=rf"item {index} of a result of 3 items"):
        result_of(["done"] * 3)[index]


def test_unfinished_names_all_that_is_not_done():
    """Failed, cancelled and pending items, by original index."""
    assert result_of(["failed", "done", "pending", "cancelled"]).unfinished == [0, 2, 3]


def test_raise_for_errors_raises_every_failure():
    """The errors themselves, in order, in one group."""
    result = result_of(["failed", "done", "failed"])
    with pytest.raises(ExceptionGroup, match="2 of 3 items failed") as caught:
        result.raise_for_errors()
    assert [str(error) for error in caught.value.exceptions] == ["bad 0", "bad 2"]


def test_raise_for_errors_says_nothing_where_nothing_failed():
    """Pending and cancelled items are no errors."""
    result_of(["done", "pending", "cancelled"]).raise_for_errors()


async def test_retry_failed_runs_what_failed_and_nothing_else():
    """The merged whole has the later run's outcome, attempts and times, at the same places."""
    result = result_of(["done", "failed", "pending", "failed"], seconds=2.0)
    processor = Recorder()
    whole = await result.retry_failed(processor)
    assert processor.seen == [["item 1", "item 3"]]
    assert [item.status for item in whole] == ["done", "done", "pending", "done"]
    assert whole.results == ["value 0", "again item 1", None, "again item 3"]
    assert [(item.index, item.item, item.attempts, item.started) for item in whole][3] == (
        3,
        "item 3",
        5,
        9.0,
    )
    assert whole.seconds == 3.0
    assert result.error_count == 2  # the former result is left as it was


async def test_a_retry_that_fails_again_keeps_the_later_error():
    """What is known of an item is what happened last."""
    whole = await result_of(["failed"]).retry_failed(Recorder("failed"))
    assert isinstance(whole.errors[0], OSError)
    assert whole.get_failed()[0].attempts == 5


async def test_a_retry_of_unfinished_items_completes_a_stopped_job():
    """Then the reason why it had stopped is gone too."""
    result = result_of(["done", "pending", "cancelled", "failed"], stopped_because="too many")
    whole = await result.retry_failed(Recorder(), only=result.unfinished)
    assert whole.all_succeeded
    assert whole.stopped_because is None


async def test_a_job_that_is_still_not_whole_keeps_saying_why():
    """The pending items are explained by the run that left them."""
    result = result_of(["failed", "pending"], stopped_because="too many")
    assert (await result.retry_failed(Recorder())).stopped_because == "too many"


async def test_only_takes_the_index_of_a_frame():
    """A filtered table leads back to its items."""
    result = result_of(["done", "failed", "failed"])
    frame = result.to_dataframe()
    processor = Recorder()
    await result.retry_failed(processor, only=frame[frame["error_message"] == "bad 2"].index)
    assert processor.seen == [["item 2"]]


async def test_only_runs_an_index_once_that_it_names_twice():
    """An item has one outcome."""
    processor = Recorder()
    await result_of(["done", "failed"]).retry_failed(processor, only=[1, 0, 1])
    assert processor.seen == [["item 1", "item 0"]]


async def test_a_retry_of_a_retry_speaks_of_the_original_indices():
    """Indices are those of the whole job, however small the part."""
    part = result_of(["failed", "failed", "failed"])
    part.columns.source_index = [10, 20, 30]
    processor = Recorder()
    whole = await part.retry_failed(processor, only=[20])
    assert processor.seen == [["item 1"]]
    assert [(item.index, item.status) for item in whole] == [
        (10, "failed"),
        (20, "done"),
        (30, "failed"),
    ]
    assert whole.unfinished == [10, 30]


async def test_a_retry_leaves_the_run_s_own_result_alone():
    """`processor.last_result` keeps the indices of the run that it is of."""
    processor = Recorder()
    await result_of(["done", "failed"]).retry_failed(processor)
    assert processor.last_result is not None
    assert processor.last_result[0].index == 0


async def test_a_retry_keeps_the_items_where_the_processor_gives_none_back():
    """A result of four arguments does not wipe out what the items were."""

    class Bare:
        async def process(self, items: Any, /) -> BatchResult[str]:
            return BatchResult(["fine"] * len(items), [None] * len(items), len(items), 0)

    whole = await result_of(["done", "failed"]).retry_failed(Bare())
    assert [(item.item, item.value) for item in whole] == [
        ("item 0", "value 0"),
        ("item 1", "fine"),
    ]


async def test_only_refuses_indices_that_are_not_there():
    """The error names them."""
    with pytest.raises(IndexError, match=r"of 2 items does not have: \[2, -1\]"):
        await result_of(["done", "failed"]).retry_failed(Recorder(), only=[1, 2, -1])


@pytest.mark.parametrize("only", [[True, False], ["1"], [1.0]])
async def test_only_refuses_what_is_no_index(only):
    """A mask would name items 0 and 1, silently."""
    with pytest.raises(TypeError, match=r"pass df\.index, or df\.index\[mask\]"):
        await result_of(["done", "failed"]).retry_failed(Recorder(), only=only)


async def test_a_retry_without_items_says_what_to_do():
    """A result of four arguments knows no items."""
    result = BatchResult([None], [KeyError()], 0, 1)
    with pytest.raises(ValueError, match="process them again and merge"):
        await result.retry_failed(Recorder())


async def test_items_stay_unknown_through_a_merge():
    """A merge makes no None out of an item that nobody knows."""
    result = BatchResult([None, 1], [KeyError(), None], 1, 1)
    with pytest.raises(ValueError, match="process them again and merge"):
        await result.merge(result).retry_failed(Recorder())


async def test_a_function_is_no_processor():
    """The error shows what to pass instead."""
    with pytest.raises(TypeError, match=r"AsyncBatchProcessor\(fn\)"):
        await result_of(["failed"]).retry_failed(len)  # type: ignore[arg-type]


def test_merging_takes_what_says_most_and_of_that_the_later():
    """Pending gives way to everything, cancelled to done and failed."""
    kinds: list[Status] = ["pending", "cancelled", "failed", "done"]
    pairs = [(first, second) for first in kinds for second in kinds]
    merged = result_of([first for first, _ in pairs]).merge(
        result_of([second for _, second in pairs])
    )
    says = {"pending": 0, "cancelled": 1, "failed": 2, "done": 2}
    assert [item.status for item in merged] == [
        second if says[second] >= says[first] else first for first, second in pairs
    ]


def test_merging_carries_every_fact_of_a_row():
    """The sparse and the optional columns come along, from both sides."""
    first = result_of(["pending", "pending"])
    second = result_of(["pending", "pending"])
    facts = {"waited": 0.5, "batch": 7, "stage": "embed", "backed_off": 2.0, "attempts": 3}
    first.columns.record(outcome(0, "failed", **facts))
    second.columns.record(outcome(1, "failed", worker=4, started=8.0, seconds=0.5))
    merged = BatchResult.of(first.columns).merge(BatchResult.of(second.columns))
    assert merged[0] == first[0]
    assert merged[1] == second[1]


def test_merging_runs_of_different_items_gives_all_of_them_in_order():
    """Parts of a job are put together by original index."""
    evens, odds = result_of(["done", "done"]), result_of(["done", "failed"])
    evens.columns.source_index, odds.columns.source_index = [0, 2], [3, 1]
    merged = odds.merge(evens)
    assert [(item.index, item.item) for item in merged] == [
        (0, "item 0"),
        (1, "item 1"),
        (2, "item 1"),
        (3, "item 0"),
    ]
    assert merged.columns.source_index is None
    assert merged.get_failed()[0].index == 1


@pytest.mark.parametrize(
    "items", [["b", "a", "c", "d"], ["c", "d"], ["d", "a", "b", "c"], ["b"], ["e", "c"]]
)
def test_items_in_another_order_are_not_merged(items: list[str]):
    """Nor a part of them that does not begin with the first."""
    first, other = (BatchResult.of(columns_of(each)) for each in (["a", "b", "c", "d"], items))
    with pytest.raises(ValueError, match="in another order, or only some of them"):
        first.merge(other)


@pytest.mark.parametrize("items", [["a"], ["a", "B"], ["a", "a", "c"], ["x", "y", "z", "u", "a"]])
def test_corrected_items_replace_those_in_their_positions(items: list[str]):
    """They equal none of those that they displace."""
    merged = BatchResult.of(columns_of(["a", "b", "c"])).merge(BatchResult.of(columns_of(items)))
    assert [outcome.item for outcome in merged][: len(items)] == items


def columns_of(items: list[str]) -> Columns[str, str]:
    """The columns of a run that did all of its items."""
    columns: Columns[str, str] = Columns(items=items)
    for row in range(len(items)):
        columns.record(outcome(row, "done"))
    return columns


REASON = "a budget was spent"


@pytest.mark.parametrize(
    ("earlier", "later", "expected"),
    [
        (["failed", "done"], ["pending", "done"], REASON),  # not tried again
        (["failed", "done"], ["cancelled", "done"], REASON),
        (["done", "done"], ["pending", "done"], None),  # nothing was lost by it
        (["failed", "failed"], ["failed", "failed"], REASON),  # it stopped at its last item
        (["done", "failed"], ["done", "done"], REASON),  # its source had more items
        (["pending", "pending"], ["done", "pending"], REASON),
    ],
)
def test_a_merge_keeps_the_reason_why_the_later_run_stopped(
    earlier: list[Status], later: list[Status], expected: str | None
):
    """As long as an item that it did not reach is not done."""
    stopped = result_of(later, stopped_because=REASON)
    assert result_of(earlier).merge(stopped).stopped_because == expected


@pytest.mark.parametrize(
    ("earlier", "later", "expected"),
    [
        (["failed", "pending"], ["failed", "done"], None),
        (["failed", "pending"], ["pending", "done"], None),
        (["failed", "pending"], ["done", "pending"], REASON),
        (["failed", "failed"], ["done", "failed"], None),  # both were tried again
        (["failed", "failed"], ["done", "pending"], REASON),
        (["failed", "cancelled"], ["failed", "pending"], REASON),
        (["done", "done"], ["done", "done"], REASON),  # the rest of its source was not read
    ],
)
def test_a_merge_keeps_the_reason_why_the_earlier_run_stopped(
    earlier: list[Status], later: list[Status], expected: str | None
):
    """Until the later run has an outcome for each item that it did not reach."""
    stopped = result_of(earlier, stopped_because=REASON)
    assert stopped.merge(result_of(later)).stopped_because == expected


def test_merging_adds_up_what_the_runs_know_of_themselves():
    """Times add up; the number of runs is kept."""
    first = result_of(["failed"], stats=RunStats(4, input_waited=1.0, worked=2.0), seconds=1.0)
    second = result_of(["done"], stats=RunStats(8, limited=True), seconds=2.0)
    merged = first.merge(second)
    assert merged.stats == RunStats(8, input_waited=1.0, limited=True, worked=None, runs=2)
    assert merged.seconds == 3.0


@st.composite
def part(draw: st.DrawFn) -> Columns[str, str]:
    """Draw the columns of a run of some of ten items."""
    origin = draw(st.lists(st.integers(0, 9), unique=True))
    columns: Columns[str, str] = Columns(
        items=[f"item {index}" for index in origin], source_index=origin
    )
    for row, index in enumerate(origin):
        status = draw(st.sampled_from(STATUSES))
        if status != "pending":
            facts = {"started": draw(st.floats(0, 9)), "batch": draw(st.none() | st.just(row))}
            columns.record(Outcome(row, None, status, f"value {index}", attempts=1, **facts))
    return columns


@settings(max_examples=200, deadline=None)
@given(part(), part(), part())
def test_it_does_not_matter_how_three_runs_are_paired_when_they_are_merged(a, b, c):
    """Merging is associative."""
    first, second, third = (BatchResult.of(columns) for columns in (a, b, c))
    left = first.merge(second).merge(third)
    right = first.merge(second.merge(third))
    assert list(left) == list(right)


@settings(max_examples=100, deadline=None)
@given(part())
def test_a_run_merged_with_itself_is_the_run_in_order(columns):
    """Nothing is lost and nothing doubled."""
    result = BatchResult.of(columns)
    assert list(result.merge(result)) == sorted(result, key=lambda item: item.index)


def test_the_reprs_name_the_counts():
    """One line, with the live state."""
    result = result_of(["done", "failed", "pending"], seconds=1.5, stopped_because="of that")
    assert repr(result) == (
        "<BatchResult 1 of 3 done, 1 failed, 1 pending in 1.50 s: stopped because of that>"
    )


def test_the_signature_that_a_notebook_shows_is_short():
    """`BatchResult?` prints the repr of every default."""
    assert len(str(inspect.signature(BatchResult))) < 500
