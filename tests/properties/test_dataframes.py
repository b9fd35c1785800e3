"""Whatever frame is processed, however the run fails or stops: each row gets its own value."""

import asyncio
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragasync import AsyncBatchProcessor, BatchResult
from tests.support.random_schedules import examples

LABELS = {
    "range": lambda numbers: pd.RangeIndex(len(numbers)),
    "numbers": lambda numbers: pd.Index(numbers, dtype="int64"),
    "strings": lambda numbers: pd.Index([f"row {n}" for n in numbers], dtype=object),
    "dates": lambda numbers: pd.DatetimeIndex(
        [pd.Timestamp("2024-01-01", tz="UTC") + pd.Timedelta(days=n) for n in numbers]
    ),
    "categories": lambda numbers: pd.CategoricalIndex([f"c{n}" for n in numbers]),
    "missing": lambda numbers: pd.Index([None if n == 0 else f"r{n}" for n in numbers]),
    "tuples": lambda numbers: pd.MultiIndex.from_arrays(
        [[n % 3 for n in numbers], [str(n // 3) for n in numbers]]
    ),
}


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    """A frame with labels of some kind, in any order, perhaps with duplicates."""
    numbers = draw(st.lists(st.integers(0, 8), max_size=14))
    make = LABELS[draw(st.sampled_from(sorted(LABELS)))]
    if not numbers:
        return pd.DataFrame({"n": np.array([], dtype="int64"), "text": []})
    index = make(numbers)
    texts = [draw(st.sampled_from(["a", "b", None])) for _ in numbers]
    return pd.DataFrame({"n": range(len(numbers)), "text": texts}, index=index)


def value_of(n: int) -> str:
    """The value that belongs to a row."""
    return f"value of {n}"


def check(result: BatchResult[Any], frame: pd.DataFrame) -> None:
    """Check that each row has its own label, item, and value or error."""
    table = result.attach(frame)
    pd.testing.assert_index_equal(result.to_dataframe().index, frame.index)
    for position, outcome in enumerate(result):
        label = frame.index[position]
        assert outcome.label == label or (pd.isna(outcome.label) and pd.isna(label))
        assert outcome.item["n"] == position
        row = table.iloc[position]
        assert row["n"] == position
        assert row["status"] == outcome.status
        if outcome.ok:
            assert row["value"] == outcome.value == value_of(position)
        else:
            assert row["value"] is pd.NA
            assert outcome.error is None or str(outcome.error) == f"{position} is bad"
    if frame.index.is_unique:
        again = frame.sample(frac=1, random_state=1)
        again["v"] = result.to_series()
        for n, value in zip(again["n"], again["v"], strict=True):
            assert (value == value_of(n)) if result[n].ok else pd.isna(value)


@pytest.mark.filterwarnings("ignore:the items' index has duplicate labels")
@examples(60)
@given(
    frame=frames(),
    bad=st.sets(st.integers(0, 13)),
    max_items=st.none() | st.integers(0, 14),
    max_errors=st.none() | st.integers(0, 3),
    by_label=st.lists(st.booleans(), min_size=1, max_size=3),
    merge_part=st.booleans(),
)
def test_each_row_gets_its_own_value(
    frame: pd.DataFrame,
    bad: set[int],
    max_items: int | None,
    max_errors: int | None,
    by_label: list[bool],
    merge_part: bool,
):
    """Through failures, stops, repeated runs of the rest, and merges with runs of a part."""
    failing = set(bad)

    async def call(row: dict[str, Any]) -> str:
        await asyncio.sleep(0)
        if row["n"] in failing:
            raise ValueError(f"{row['n']} is bad")
        return value_of(row["n"])

    processor = AsyncBatchProcessor(
        call, max_concurrency=3, retry_count=0, max_errors=max_errors, max_initial_failures=None
    )
    result = processor.process_sync(frame, max_items=max_items)
    check(result, frame)
    rest = AsyncBatchProcessor(call, max_concurrency=3, retry_count=0, max_initial_failures=None)
    for use_labels in by_label:
        failing = set(sorted(failing)[1:])  # some are fixed before each further run
        if use_labels:
            only = result.unfinished
        else:
            table = result.to_dataframe()
            only = table.index[(table["status"] != "done").to_numpy()]
        result = asyncio.run(result.retry_failed(rest, only=only))
        check(result, frame)
    if merge_part and frame.index.is_unique and len(frame):
        failing = set()
        part = frame.sample(frac=0.5, random_state=2)
        result = result.merge(rest.process_sync(part))
        check(result, frame)
        assert all(result[n].ok for n in part["n"])
    failing = set()
    result = asyncio.run(result.retry_failed(rest, only=result.unfinished))
    check(result, frame)
    assert result.results == [value_of(n) for n in range(len(frame))]
