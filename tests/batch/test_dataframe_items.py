"""Items from a Series or DataFrame: what a call gets, and the index that the result keeps."""

import asyncio
import datetime
import math
import pickle
import subprocess
import sys
from decimal import Decimal
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ragasync import (
    AsyncBatchProcessor,
    BatchResult,
    gather_with_concurrency,
    process_with_workers,
)
from tests.support.requirements import go_without, needs

INDEXES = {
    "strings": pd.Index(["x", "y", "z", "w"]),
    "numbers": pd.Index([30, 10, 20, 0]),
    "a range": pd.RangeIndex(4),
    "dates": pd.date_range("2024-03-30", periods=4),
    "zoned dates": pd.date_range("2024-03-30", periods=4, tz="Europe/Berlin"),
    "categories": pd.CategoricalIndex(["b", "a", "d", "c"]),
    "missing": pd.Index(["x", None, "z", "w"]),
    "not a number": pd.Index([1.5, np.nan, 2.5, 0.5]),
    "tuples": pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1), ("b", 2)], names=["k", "n"]),
    "periods": pd.period_range("2024-01", periods=4, freq="M"),
    "duplicates": pd.Index(["x", "y", "x", "x"]),
    "duplicate tuples": pd.MultiIndex.from_tuples([("a", 1), ("b", 2), ("a", 1), ("b", 2)]),
}

each_index = pytest.mark.parametrize("index", INDEXES.values(), ids=list(INDEXES))


class Service:
    """Triples numbers; those in `bad` fail until they are removed from it."""

    def __init__(self, *bad: int) -> None:
        self.bad = set(bad)
        self.calls: list[int] = []

    async def __call__(self, item: Any) -> int:
        number = item["n"] if isinstance(item, dict) else item
        self.calls.append(number)
        await asyncio.sleep(0)
        if number in self.bad:
            raise ValueError(f"{number} is bad")
        return 3 * number


def processor_of(service: Service, **options: Any) -> AsyncBatchProcessor[Any, int]:
    """A processor that retries nothing."""
    return AsyncBatchProcessor(service, retry_count=0, **options)


def a_frame(index: pd.Index) -> pd.DataFrame:
    """A frame of four rows."""
    return pd.DataFrame({"n": [0, 1, 2, 3], "text": list("abcd")}, index=index)


# ── what a call gets ────────────────────────────────────────────────────────────────────────


async def received(items: Any) -> list[Any]:
    """The items that the calls of a run got."""

    async def same(item: Any) -> Any:
        return item

    return list((await AsyncBatchProcessor(same, max_concurrency=1).process(items)).results)


async def test_a_series_gives_plain_python_values():
    """Numbers of numpy become Python's; what is missing is None, and NaN among floats."""
    assert [type(item) for item in await received(pd.Series([1, 2]))] == [int, int]
    assert await received(pd.Series(["a", None])) == ["a", None]
    assert await received(pd.Series([1, None], dtype="Int64")) == [1, None]
    assert await received(pd.Series(["a", np.nan, pd.NA, np.int64(7)], dtype=object)) == [
        "a",
        None,
        None,
        7,
    ]
    first, second = await received(pd.Series([1.5, np.nan]))
    assert (first, math.isnan(second)) == (1.5, True)


async def test_a_row_is_a_dict_of_plain_python_values():
    """By column name; objects that are not scalars are kept."""
    day, money, words = datetime.date(2024, 5, 1), Decimal("1.10"), ["a", "b"]
    frame = pd.DataFrame(
        {
            "whole": [1, 2],
            "nullable": pd.array([None, 2], dtype="Int64"),
            "real": [np.nan, 2.5],
            "flag": [True, False],
            "text": ["a", None],
            "kind": pd.Categorical(["x", None]),
            "when": pd.to_datetime(["2024-05-01 12:00", None]),
            "zoned": pd.to_datetime(["2024-05-01 12:00", None]).tz_localize("Europe/Berlin"),
            "took": pd.to_timedelta(["1s", None]),
            "day": [day, None],
            "money": [money, None],
            "words": [words, None],
            7: [np.float32(0.5), np.nan],
        }
    )
    first, second = await received(frame)
    assert math.isnan(first.pop("real"))
    assert first == {
        "whole": 1,
        "nullable": None,
        "flag": True,
        "text": "a",
        "kind": "x",
        "when": pd.Timestamp("2024-05-01 12:00"),
        "zoned": pd.Timestamp("2024-05-01 12:00", tz="Europe/Berlin"),
        "took": pd.Timedelta("1s"),
        "day": day,
        "money": money,
        "words": words,
        7: 0.5,
    }
    assert [type(first[name]) for name in ("whole", "flag", "text", "words")] == [
        int,
        bool,
        str,
        list,
    ]
    assert isinstance(first["when"], datetime.datetime)
    assert math.isnan(second.pop(7))
    assert (second.pop("whole"), second.pop("nullable")) == (2, 2)
    assert (second.pop("real"), second.pop("flag")) == (2.5, False)
    assert set(second.values()) == {None}


async def test_later_changes_of_a_frame_do_not_reach_the_run():
    """Items are those of the moment when the run was started."""
    frame = a_frame(pd.RangeIndex(4))
    series = frame["n"].copy()
    jobs = [processor_of(Service()).start(items) for items in (frame, series)]
    frame.loc[:, "n"] = 100
    frame["n"] = 200
    series.iloc[:] = 300
    for job in jobs:
        result = await job
        assert result.results == [0, 3, 6, 9]
    assert jobs[0].result[3].item == {"n": 3, "text": "d"}


async def test_a_call_that_changes_its_row_changes_no_other_item():
    """Each reading of a row gives a dict of its own."""
    frame = a_frame(pd.RangeIndex(4))

    async def change(row: dict[str, Any]) -> int:
        row["n"] += 10
        return int(row.pop("n"))

    result = await AsyncBatchProcessor(change).process(frame)
    assert result.results == [10, 11, 12, 13]
    result[1].item.clear()
    assert result[1].item == {"n": 1, "text": "b"}
    assert frame["n"].tolist() == [0, 1, 2, 3]


async def test_frames_without_rows_or_columns_are_runs_like_others():
    """Nothing, or dicts without keys."""
    assert await received(pd.DataFrame({"n": []})) == []
    assert await received(pd.DataFrame(index=range(2))) == [{}, {}]
    assert await received(pd.Series([], dtype="int64")) == []


@pytest.mark.parametrize("columns", [1, 5, 200])
async def test_rows_come_lazily_and_each_once(columns: int):
    """Over the bounds of the blocks in which they are converted, of narrow and wide frames."""
    frame = pd.DataFrame({"n": range(5_000)} | {f"c{k}": k for k in range(1, columns)})
    result = await processor_of(Service()).process(frame)
    assert result.results == [3 * n for n in range(5_000)]
    assert [result[row].item["n"] for row in (0, 1023, 1024, 4999, -1)] == [
        0,
        1023,
        1024,
        4999,
        4999,
    ]
    assert [outcome.item["n"] for outcome in result[1020:1030]] == list(range(1020, 1030))


def test_columns_of_one_name_are_refused():
    """A dict could keep only one of them."""
    frame = pd.DataFrame([[1, 2]], columns=["n", "n"])
    with pytest.raises(ValueError, match=r"got \['n'\] more than once: rename"):
        processor_of(Service()).process_sync(frame)


def test_a_dataframe_of_another_library_is_refused():
    """With what to do."""
    other = type("DataFrame", (list,), {"__module__": "modin.pandas"})()
    with pytest.raises(TypeError, match="got one of 'modin'"):
        processor_of(Service()).process_sync(other)


def test_a_column_that_cannot_be_read_ends_the_run_with_its_error():
    """It is an error of the source, with a note of what was done."""

    class Broken(pd.Series):
        def tolist(self) -> list[Any]:
            raise OSError("no disk")

    class BrokenArray(pd.arrays.IntervalArray):
        def tolist(self) -> list[Any]:
            raise OSError("no disk")

    array = BrokenArray.from_breaks(range(4))
    frame = pd.DataFrame({"n": range(3)})
    frame["broken"] = array
    if type(frame["broken"].array) is not BrokenArray:
        go_without("this pandas takes over the values")
    with pytest.raises(OSError, match="no disk") as caught:
        processor_of(Service()).process_sync(frame)
    assert "0 of 3 items were done" in caught.value.__notes__[0]


async def test_batched_functions_and_workers_take_frames_too():
    """Lists of rows, and rows."""

    async def batch(rows: list[dict[str, Any]]) -> list[int]:
        return [3 * row["n"] for row in rows]

    frame = a_frame(pd.Index(list("wxyz")))
    result = await AsyncBatchProcessor(batch, batch_size=3, batched=True).process(frame)
    assert result.results == [0, 3, 6, 9]
    assert [outcome.label for outcome in result] == list("wxyz")
    calls = pd.Series([Service()(1), Service()(2)], index=["x", "y"])
    assert await gather_with_concurrency(calls, 2) == [3, 6]
    result = await process_with_workers(frame["n"], Service())
    assert result.to_series().to_dict() == {"w": 0, "x": 3, "y": 6, "z": 9}


# ── the index ───────────────────────────────────────────────────────────────────────────────


def same(one: object, other: object) -> bool:
    """Whether two labels are equal; a missing one equals itself."""
    return one == other or (one != one and other != other)


@each_index
@pytest.mark.parametrize("of_column", [True, False])
async def test_a_result_keeps_the_index(index: pd.Index, of_column: bool):
    """In tables, Series, outcomes, streams and snapshots."""
    frame = a_frame(index)
    items = frame["n"] if of_column else frame
    job = processor_of(Service(2)).start(items)
    result = await job
    for each in (result, job.result):
        pd.testing.assert_index_equal(each.to_dataframe().index, index)
        assert all(map(same, (outcome.label for outcome in each), index))
    assert result.errors_dataframe().index.tolist() == index[[2]].tolist()
    streamed = [each async for each in processor_of(Service(2)).stream(items, ordered=True)]
    assert all(map(same, (outcome.label for outcome in streamed), index))
    attached = result.attach(frame)
    pd.testing.assert_frame_equal(attached[["n", "text"]], frame)
    assert attached["value"].tolist() == [0, 3, pd.NA, 9]


@pytest.mark.filterwarnings("ignore:the items' index has duplicate labels")
@each_index
async def test_what_is_unfinished_can_be_run_again_by_its_labels(index: pd.Index):
    """Also where other items have the same label; the rest keep their values."""
    service = Service(1, 2)
    processor = processor_of(service)
    result = await processor.process(a_frame(index), max_items=3)
    assert [outcome.status for outcome in result] == ["done", "failed", "failed", "pending"]
    assert all(map(same, result.unfinished, index[1:]))
    service.bad.clear()
    service.calls.clear()
    whole = await result.retry_failed(processor, only=result.unfinished)
    assert sorted(service.calls) == [1, 2, 3]
    assert whole.results == [0, 3, 6, 9]
    assert whole[2].item == {"n": 2, "text": "c"}
    pd.testing.assert_index_equal(whole.to_series().index, index)
    assert whole.unfinished == []


COLLECTIONS = [
    pytest.param(index, form, id=f"{name}-{form.__name__}")
    for name, index in INDEXES.items()
    for form in (pd.Index, list, np.asarray, pd.Series)
    # The tuples of a MultiIndex would be rows of an array.
    if not (isinstance(index, pd.MultiIndex) and form in (np.asarray, pd.Series))
]


@pytest.mark.parametrize(("index", "form"), COLLECTIONS)
async def test_labels_may_come_in_any_collection(index: pd.Index, form: Any):
    """As the index of a filtered frame, a list, an array, or a column."""
    service = Service(2)
    result = await processor_of(service).process(a_frame(index))
    service.bad.clear()
    failed = result.to_dataframe().query("status == 'failed'").index
    only = failed if form is pd.Index else form(failed.tolist())
    service.calls.clear()
    whole = await result.retry_failed(processor_of(service), only=only)
    assert whole.results == [0, 3, 6, 9]
    assert service.calls == [2]


async def test_a_duplicate_label_stands_for_all_its_items_once_all_are_done():
    """Until then it stands for those that are not done."""
    service = Service(2)
    result = await processor_of(service).process(a_frame(INDEXES["duplicates"]))
    service.calls.clear()
    service.bad.clear()
    whole = await result.retry_failed(processor_of(service), only=["x"])
    assert service.calls == [2]
    await whole.retry_failed(processor_of(service), only=["x", "y"])
    assert service.calls == [2, 0, 2, 3, 1]


MANY = 40_000

DUPLICATES = {
    "one label": pd.Index([0] * MANY),
    "two labels": pd.Index(["a", "b"] * (MANY // 2)),
    "two frames": pd.RangeIndex(MANY // 2).append(pd.RangeIndex(MANY // 2)),
    "missing labels": pd.Index([1.5, math.nan] * (MANY // 2)),
    "categories": pd.CategoricalIndex(["a", "b"] * (MANY // 2)),
    "tuples": pd.MultiIndex.from_arrays([[1, 2] * (MANY // 2), ["u"] * MANY]),
    "overlapping intervals": pd.IntervalIndex.from_tuples([(0, 2), (1, 3)] * (MANY // 2)),
}


@pytest.mark.filterwarnings("ignore:the items' index has duplicate labels")
@pytest.mark.parametrize("index", DUPLICATES.values(), ids=list(DUPLICATES))
async def test_labels_that_many_items_share_are_found_in_one_pass(index: pd.Index):
    """Matching each of n given labels with all n items would take longer than the test may."""
    bad = set(range(0, MANY, 2))
    processor = processor_of(Service(*bad), max_initial_failures=None)
    result = await processor.process(pd.Series(range(MANY), index=index))
    service = Service()
    whole = await result.retry_failed(processor_of(service), only=result.unfinished)
    assert sorted(service.calls) == sorted(bad)
    assert whole.results == [3 * number for number in range(MANY)]


@pytest.mark.parametrize(
    ("only", "error", "message"),
    [
        (["q"], KeyError, r"index does not have: \['q'\]"),
        ([1], KeyError, "index does not have"),
        ("x", TypeError, "got 'x', which is not a collection"),
        (7, TypeError, "got 7, which is not a collection"),
        (pd.DataFrame({"n": [1]}), TypeError, "got a DataFrame"),
        (pd.Series([True, False]), TypeError, "got a mask"),
        ([True, False], TypeError, "got a mask"),
        (np.array([True, False]), TypeError, "got a mask"),
        (pd.Series(["x"], name="text"), TypeError, "got the column 'text'"),
        (pd.Index(["x"], name="text"), TypeError, "got an index of 'text'"),
    ],
)
async def test_other_than_labels_are_refused_before_anything_runs(
    only: Any, error: type[Exception], message: str
):
    """The error says what was received."""
    service = Service(2)
    result = await processor_of(service).process(a_frame(INDEXES["strings"]))
    service.calls.clear()
    with pytest.raises(error, match=message):
        await result.retry_failed(processor_of(service), only=only)
    assert service.calls == []


async def test_new_row_numbers_are_not_taken_for_labels():
    """They are what `reset_index` leaves; the column that it adds has the labels."""
    service = Service(2)
    result = await processor_of(service).process(a_frame(INDEXES["numbers"]))
    renumbered = result.errors_dataframe().reset_index()
    with pytest.raises(TypeError, match="may be new row numbers"):
        await result.retry_failed(processor_of(service), only=renumbered.index)
    service.bad.clear()
    whole = await result.retry_failed(processor_of(service), only=renumbered["index"])
    assert whole.all_succeeded


async def test_a_summary_of_errors_names_the_label_of_the_first_item():
    """So that it can be run again alone."""
    service = Service(1, 2)
    result = await processor_of(service).process(a_frame(INDEXES["strings"])["n"])
    assert result.error_summary()["first_index"].tolist() == ["y"]
    service.calls.clear()
    await result.retry_failed(processor_of(service), only=result.error_summary()["first_index"])
    assert service.calls == [1]


async def test_views_name_items_by_their_labels():
    """In text, in HTML, and of a single outcome."""
    result = await processor_of(Service(2)).process(a_frame(INDEXES["strings"])["n"])
    assert "ValueError: 2 is bad (item 'z')" in result.summary()
    assert "(item &#x27;z&#x27;)" in result._repr_html_()
    assert repr(result[2]).startswith("Outcome(index=2, label='z', item=2, status='failed'")
    assert "label" in result[2]._repr_html_()


async def test_results_of_frames_with_other_indexes_are_merged_by_label():
    """The later run had some of the rows, in another order."""
    frame = a_frame(INDEXES["strings"])
    first = await processor_of(Service(1, 3)).process(frame)
    later = await processor_of(Service()).process(frame.loc[["w", "y"]])
    whole = first.merge(later)
    assert whole.to_series().to_dict() == {"x": 0, "y": 3, "z": 6, "w": 9}
    assert [outcome.item["text"] for outcome in whole] == list("abcd")
    same_rows = first.merge(await processor_of(Service(0)).process(frame))
    assert same_rows.results == [None, 3, 6, 9]


async def test_rows_that_cannot_be_matched_are_not_merged():
    """Positions in another frame would be those of other rows."""
    first = await processor_of(Service()).process(a_frame(INDEXES["strings"]))
    later = await processor_of(Service()).process(a_frame(pd.Index(list("xyzq"))))
    with pytest.raises(ValueError, match=r"labels that this one does not have: \['q'\]"):
        first.merge(later)
    double = await processor_of(Service()).process(a_frame(INDEXES["duplicates"]))
    with pytest.raises(ValueError, match="duplicate labels"):
        double.merge(first)


DUPLICATE_LABELS = {
    "duplicates": INDEXES["duplicates"],
    "duplicate tuples": INDEXES["duplicate tuples"],
    "missing": pd.Index([np.nan, 1.0, np.nan, np.nan]),
    "one label": pd.Index([0] * 4),
}

ROWS = {
    "numbers": [0, 1, 2, 3],
    "dates": list(pd.date_range("2024", periods=4)),
    "not a number": [math.nan, 1.0, 2.0, 3.0],
    "arrays": [np.arange(size) for size in (1, 2, 3, 4)],
    "lists": [[], [1], [1, 2], ["x"]],
    "objects": [object() for _ in range(4)],
}


def with_rows(rows: list[Any], index: pd.Index, *, of_column: bool) -> Any:
    """A Series of these values, or a frame with such a column."""
    values = pd.Series(rows, index=index, dtype=object, name="value")
    return values if of_column else values.to_frame()


async def unchanged(item: Any) -> Any:
    """Return the item."""
    return item


@pytest.mark.parametrize("index", DUPLICATE_LABELS.values(), ids=list(DUPLICATE_LABELS))
@pytest.mark.parametrize("rows", ROWS.values(), ids=list(ROWS))
@pytest.mark.parametrize("of_column", [True, False])
async def test_equal_rows_of_shared_labels_are_merged(
    index: pd.Index, rows: list[Any], of_column: bool
):
    """They are the same rows in the same order, whatever they hold."""
    processor = AsyncBatchProcessor(unchanged)
    first = await processor.process(with_rows(rows, index, of_column=of_column))
    again = await processor.process(with_rows(rows, index, of_column=of_column))
    assert first.merge(again).all_succeeded


PERMUTABLE = [
    pytest.param(rows, of_column, id=f"{name}-{'a column' if of_column else 'a frame'}")
    for name, rows in ROWS.items()
    for of_column in (True, False)
    if of_column or name != "objects"  # a dict with an object has no data to compare
]


@pytest.mark.parametrize("index", DUPLICATE_LABELS.values(), ids=list(DUPLICATE_LABELS))
@pytest.mark.parametrize(("rows", "of_column"), PERMUTABLE)
async def test_rows_that_were_permuted_within_a_label_are_not_merged(
    index: pd.Index, rows: list[Any], of_column: bool
):
    """The index is the same, but the outcomes would be those of other rows."""
    processor = AsyncBatchProcessor(unchanged)
    first = await processor.process(with_rows(rows, index, of_column=of_column))
    permuted = with_rows([rows[2], rows[1], rows[0], rows[3]], index, of_column=of_column)
    other = await processor.process(permuted)
    with pytest.raises(ValueError, match="position 0 that this one has at position 2"):
        first.merge(other)


async def test_a_corrected_row_of_a_duplicate_label_is_merged():
    """Its item is new; or it equals another that is in its place."""
    frame = a_frame(INDEXES["duplicates"])
    first = await processor_of(Service(2)).process(frame)
    for value in (7, 3):
        corrected = await processor_of(Service()).process(frame.replace({"n": 2}, value))
        assert first.merge(corrected)[2].item == {"n": value, "text": "c"}


async def test_rows_with_unique_labels_may_change_places():
    """The labels say which they are."""
    frame = a_frame(INDEXES["strings"])
    first = await processor_of(Service(0, 3)).process(frame)
    later = await processor_of(Service()).process(frame.iloc[::-1])
    assert first.merge(later).results == [0, 3, 6, 9]


async def test_a_result_of_a_frame_can_be_pickled():
    """With its items and labels."""
    result = await processor_of(Service()).process(a_frame(INDEXES["strings"]))
    columns = pickle.loads(pickle.dumps(result.columns))
    again = BatchResult.of(columns)
    assert [outcome.label for outcome in again] == list("xyzw")
    assert again[3].item == {"n": 3, "text": "d"}


def test_the_index_is_shared_and_not_copied():
    """Also that of a table of all items."""
    frame = a_frame(pd.Index([3, 1, 2, 0]))
    result = processor_of(Service()).process_sync(frame)
    assert result.to_dataframe().index is frame.index
    assert np.shares_memory(result.to_series().index.to_numpy(), frame.index.to_numpy())


def test_items_without_an_index_have_positions():
    """As before: a list has no labels."""
    result = processor_of(Service(2)).process_sync([0, 1, 2, 3])
    assert result[2].label is None
    assert result.unfinished == [2]
    assert result.to_series().index.name == "item_index"


# ── putting results next to their rows ──────────────────────────────────────────────────────


def test_values_are_aligned_with_shuffled_and_filtered_frames():
    """By label, whatever the order of the rows was."""
    frame = pd.DataFrame({"n": range(100)}, index=[f"row {n}" for n in range(100)])
    chosen = frame.sample(frac=0.7, random_state=1)
    chosen = chosen[chosen["n"] % 3 > 0]
    result = processor_of(Service(5, 50)).process_sync(chosen)
    frame["v"] = result.to_series()
    joined = frame.join(result.to_dataframe()[["status", "error_message"]])
    for label, row in joined.iterrows():
        n = row["n"]
        if label not in chosen.index:
            assert pd.isna(row["v"])
            assert pd.isna(row["status"])
        elif n in (5, 50):
            assert (row["v"], row["status"]) == (pd.NA, "failed") or pd.isna(row["v"])
            assert row["error_message"] == f"{n} is bad"
        else:
            assert (row["v"], row["status"]) == (3 * n, "done")


def test_a_series_with_duplicate_labels_warns():
    """Pandas would not know which row is which; the warning names the way out."""
    frame = a_frame(INDEXES["duplicates"])
    result = processor_of(Service()).process_sync(frame)
    with pytest.warns(UserWarning, match=r"duplicate labels, such as \['x'\].*attach") as caught:
        result.to_series()
    assert caught[0].filename == __file__


def test_columns_are_attached_by_choice_and_with_a_prefix():
    """The frame stays as it is, and no column of its own is hidden."""
    frame = a_frame(INDEXES["duplicates"]).assign(status="new")
    result = processor_of(Service(1)).process_sync(frame)
    with pytest.raises(ValueError, match=r"already has columns named \['status'\]"):
        result.attach(frame)
    attached = result.attach(frame, ["status", "value"], prefix="run_")
    assert list(attached.columns) == ["n", "text", "status", "run_status", "run_value"]
    assert attached["run_status"].tolist() == ["done", "failed", "done", "done"]
    assert list(frame.columns) == ["n", "text", "status"]
    with pytest.raises(ValueError, match=r"got \['vector'\]"):
        result.attach(frame, ["vector"])


def test_columns_are_not_attached_to_other_rows():
    """A frame that was sorted, filtered or made of something else."""
    frame = a_frame(INDEXES["numbers"])
    result = processor_of(Service()).process_sync(frame)
    with pytest.raises(ValueError, match="another index"):
        result.attach(frame.sort_index())
    with pytest.raises(ValueError, match="whose 4 rows were processed, got one of 3 rows"):
        result.attach(frame.iloc[:3])
    with pytest.raises(TypeError, match="a DataFrame of pandas, got 7"):
        result.attach(7)  # type: ignore[arg-type]
    of_strings = processor_of(Service()).process_sync(a_frame(INDEXES["strings"]))
    assert of_strings.attach(a_frame(pd.RangeIndex(4)))["value"].tolist() == [0, 3, 6, 9]
    of_list = processor_of(Service()).process_sync([0, 1, 2, 3])
    assert of_list.attach(frame)["value"].tolist() == [0, 3, 6, 9]


# ── other libraries ─────────────────────────────────────────────────────────────────────────


async def test_polars_works_the_same_way_without_an_index():
    """Rows by column name, with plain values; labels are positions."""
    needs("polars")
    pl: Any = import_module("polars")
    when = datetime.datetime(2024, 5, 1, 12)
    frame = pl.DataFrame(
        {"n": [0, 1, None], "when": [when, None, None], "words": [["a"], [], None]}
    )
    assert await received(frame) == [
        {"n": 0, "when": when, "words": ["a"]},
        {"n": 1, "when": None, "words": []},
        {"n": None, "when": None, "words": None},
    ]
    assert await received(frame["n"]) == [0, 1, None]
    service = Service(1)
    result = await processor_of(service).process(frame[:2])
    assert result.unfinished == [1]
    service.bad.clear()
    whole = await result.retry_failed(processor_of(service))
    assert whole.results == [0, 3]
    assert whole[1].item["n"] == 1
    assert whole.to_dataframe().index.name == "item_index"
    assert frame[:2].with_columns(pl.Series("v", whole.results))["v"].to_list() == [0, 3]
    with pytest.raises(TypeError, match=r"pass frame\.collect\(\)"):
        await received(frame.lazy())
    with pytest.raises(TypeError, match=r"pl\.Series\('value', result\.results\)"):
        whole.attach(frame[:2])


def test_a_run_without_frames_imports_neither_library():
    """They cost more than the whole package."""
    code = (
        "import sys; from ragasync import AsyncBatchProcessor; "
        "AsyncBatchProcessor(str.upper).process_sync(['a', 'b']); "
        "print([name for name in ('pandas', 'polars', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
