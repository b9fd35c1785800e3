"""The columns of outcomes under a result: dense, optional and sparse ones, and snapshots."""

from array import array
from typing import Any

import pytest

from ragasync import Attempt, Outcome

# Internals: results with exact times and states, which no run produces on demand.
from ragasync._outcomes.columns import Columns
from ragasync._outcomes.outcome import CANCELLED, DONE, FAILED, PENDING, CallSuccess, SparseSequence


def test_a_new_row_is_pending_with_no_attempt():
    """An item that has not started has only an index and itself."""
    columns: Columns[str, int] = Columns(items=["a"])
    assert columns.outcome(0) == Outcome(0, "a", "pending")


def test_a_recorded_success_has_its_times_and_one_attempt():
    """The fast-path recorder writes the times and the worker of a success."""
    columns: Columns[str, int] = Columns(items=["a", "b"])
    columns.fast_recorder(3, 10.0)(1, 7, 10.5, 10.75)
    assert columns.outcome(1) == Outcome(
        1, "b", "done", 7, attempts=1, started=0.5, seconds=0.25, worker=3
    )


def test_a_recorded_outcome_is_read_back_unchanged():
    """Every field of an outcome is kept in the columns."""
    outcome: Outcome[str, int] = Outcome(
        index=1,
        item="b",
        status="failed",
        error=ValueError("no"),
        attempts=3,
        started=1.0,
        seconds=2.0,
        waited=0.5,
        backed_off=0.25,
        batch=4,
        stage="embed",
        worker=2,
        history=(Attempt(1.0, 0.5, "ValueError: no", 0.25),),
    )
    columns: Columns[str, int] = Columns(items=["a", "b"])
    columns.record(outcome)
    assert columns.outcome(1) == outcome
    assert columns.outcome(0) == Outcome(0, "a", "pending")


def success(indices: list[int], **facts: Any) -> CallSuccess[int, int]:
    """A call that returned ten times each item."""
    given: dict[str, Any] = {
        "attempts": 1,
        "started": 0.5,
        "seconds": 0.25,
        "waited": 0.0,
        "backed_off": 0.0,
        "batch": 4,
        "worker": 3,
        "history": (),
    }
    return CallSuccess(indices, indices, [10 * index for index in indices], **given | facts)


@pytest.mark.parametrize(
    "call",
    [
        success([2, 3, 4]),
        success([5]),
        success([1, 2, 5]),
        success([1, 2], batch=None),
        success([1, 2], seconds=[0.1, 0.2]),
        success([1, 4], seconds=[0.1, 0.2]),
        success([1, 2], attempts=100_000),
        success([1, 2], attempts=2, waited=1.0, backed_off=2.0),
        success([1, 2], attempts=2, history=(Attempt(1.0, 0.5, "ValueError: no", 0.25),)),
    ],
)
def test_recording_a_call_equals_recording_its_items_one_by_one(call: CallSuccess[int, int]):
    """Slices are only a faster way to write the same outcomes."""
    whole: Columns[int, int] = Columns(items=range(7))
    single: Columns[int, int] = Columns(items=range(7))
    whole.record_call(call)
    for outcome in call.outcomes():
        single.record(outcome)
    assert whole == single
    assert {type(column) for column in (whole.results, whole.status, whole.seconds)} == {
        list,
        bytearray,
        array,
    }


def test_optional_columns_are_created_with_the_first_item_that_needs_them():
    """A job without waits, back-off or batches has no columns for them."""
    columns: Columns[str, int] = Columns(items=["a", "b"])
    columns.fast_recorder(0, 0.0)(0, 1, 0.0, 0.1)
    assert (columns.waited, columns.backed_off, columns.batch) == (None, None, None)
    columns.record(Outcome(1, "b", "done", 2, attempts=1, waited=0.5))
    assert columns.waited == array("d", [0.0, 0.5])
    assert columns.backed_off is None


def test_more_attempts_than_the_column_holds_show_as_its_maximum():
    """A count beyond two bytes does not overflow."""
    columns: Columns[str, int] = Columns(items=["a"])
    columns.record(Outcome(0, "a", "failed", error=OSError(), attempts=1_000_000))
    assert columns.outcome(0).attempts == 0xFFFF


def test_growing_keeps_the_rows_and_adds_pending_ones():
    """Columns grow in place, the optional ones too."""
    columns: Columns[int, int] = Columns(items=range(1))
    columns.record(Outcome(0, 0, "done", 5, attempts=1, waited=1.0, backed_off=2.0, batch=3))
    recorded = columns.fast_recorder(0, 0.0)
    columns.grow_to(3)
    recorded(2, 9, 0.0, 0.0)
    assert columns.outcome(0).waited == 1.0
    assert columns.outcome(1) == Outcome(1, None, "pending")
    assert (columns.outcome(2).value, columns.outcome(2).batch) == (9, None)


def test_rows_are_found_by_one_status_or_several():
    """The rows with a status are yielded in order."""
    columns: Columns[int, int] = Columns(items=range(5))
    columns.status[:] = bytes([DONE, FAILED, PENDING, FAILED, CANCELLED])
    assert list(columns.rows_with(FAILED)) == [1, 3]
    assert list(columns.rows_with(PENDING, CANCELLED)) == [2, 4]
    assert columns.mask(DONE, CANCELLED) == bytes([1, 0, 0, 0, 1])


def test_a_snapshot_no_longer_changes():
    """Later outcomes do not appear in a snapshot."""
    columns: Columns[str, int] = Columns(items=["a", "b"])
    columns.fast_recorder(0, 0.0)(0, 1, 0.0, 0.1)
    copy = columns.snapshot()
    columns.fast_recorder(0, 0.0)(1, 2, 0.2, 0.3)
    columns.record(Outcome(0, "a", "failed", error=ValueError(), attempts=2, waited=3.0))
    assert copy.outcome(0) == Outcome(0, "a", "done", 1, attempts=1, seconds=0.1, worker=0)
    assert copy.outcome(1).status == "pending"
    assert copy.errors == {}


def test_a_snapshot_leaves_out_errors_of_rows_that_came_after_it():
    """A sparse column may run ahead of the others while a job runs."""
    columns: Columns[str, int] = Columns(items=["a"])
    columns.errors[5] = ValueError()
    assert columns.snapshot().errors == {}


def test_rows_of_a_part_know_their_original_index():
    """A rerun of some items has the indices of the whole job."""
    columns: Columns[str, int] = Columns(items=["c", "a"], source_index=[2, 0])
    assert [columns.outcome(row).index for row in range(2)] == [2, 0]


def test_columns_are_built_from_results_and_errors():
    """An error makes an item failed; without value and error, the count decides on pending."""
    error = KeyError("x")
    columns = Columns.from_sequences([1, None, None], [None, error, None], 1)
    assert [columns.outcome(row).status for row in range(3)] == ["done", "failed", "pending"]
    assert columns.outcome(1).error is error


def test_a_none_among_results_is_a_success_if_the_count_says_so():
    """A function may return None."""
    columns = Columns.from_sequences([1, None], [None, None], 2)
    assert [columns.outcome(row).status for row in range(2)] == ["done", "done"]


ENTRIES: SparseSequence[str] = SparseSequence({1: "b", 3: "d"}, 5)


def test_a_sparse_sequence_equals_the_list_it_stands_for():
    """It compares like a list with None almost everywhere, from both sides."""
    entries, listed = ENTRIES, [None, "b", None, "d", None]
    assert entries == listed
    assert listed == entries
    assert ENTRIES != [None, "b", None, "d"]
    assert ENTRIES != "abcde"
    assert list(ENTRIES) == [None, "b", None, "d", None]


def test_a_sparse_sequence_takes_negative_indices_and_slices():
    """Indexing is that of a list."""
    assert (ENTRIES[1], ENTRIES[-2], ENTRIES[-1]) == ("b", "d", None)
    assert ENTRIES[1:4] == ["b", None, "d"]
    assert ENTRIES[::-2] == [None, None, None]
    assert ENTRIES.index("d") == 3
    assert ENTRIES.count(None) == 3


@pytest.mark.parametrize("index", [5, -6])
def test_a_sparse_sequence_ends_where_its_list_would(index):
    """An index beyond either end is an error, not None."""
    with pytest.raises(IndexError):
        ENTRIES[index]


def test_a_sparse_sequence_shows_itself_like_a_list_while_it_is_short():
    """The repr of a long one counts its entries."""
    assert repr(SparseSequence({0: 1}, 2)) == "[1, None]"
    assert repr(SparseSequence({0: 1}, 1000)) == "<1000 entries, 1 of them not None>"
