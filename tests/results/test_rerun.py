"""Rerunning the items that a filtered, sorted or grouped DataFrame names."""

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ragasync import AsyncBatchProcessor, BatchResult, error_summary

FAILED = [3, 5, 10, 16, 17]
"""The items below 20 that fail: every seventh, and some others in another way."""


async def fails_at_times(item: int) -> int:
    """Fail for some items, the later ones more slowly."""
    await asyncio.sleep(item / 1000)
    if item % 7 == 3:
        raise ValueError(f"item {item} is bad")
    if item % 11 == 5:
        raise TypeError("no")
    return item


class Noting:
    """A processor that records the items it is given."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    async def process(self, items: list[int], /) -> BatchResult[Any]:
        self.seen += items
        return BatchResult(items, [None] * len(items), len(items), 0)


async def a_run() -> BatchResult[int]:
    """The result of a real run."""
    return await AsyncBatchProcessor(fails_at_times, retry_count=0).process(range(20))


@pytest.mark.parametrize(
    ("choose", "items"),
    [
        (lambda frame: frame.index, FAILED),
        (lambda frame: frame[frame["error_type"] == "TypeError"].index, [5, 16]),
        (
            lambda frame: frame.query("error_type == 'ValueError' and index > 5").index,
            [10, 17],
        ),
        (lambda frame: frame.sort_values("seconds", ascending=False).index, FAILED[::-1]),
        (lambda frame: frame.sort_values("seconds").head(2).index, [3, 5]),
        (lambda frame: frame.groupby("error_type", observed=True).head(1).index, [3, 5]),
        (lambda frame: frame.groupby("error_type", observed=True).groups["TypeError"], [5, 16]),
        (
            lambda frame: (
                frame.reset_index().groupby("error_type", observed=True)["item_index"].last()
            ),
            [16, 17],
        ),
        (lambda frame: frame.nlargest(2, "seconds").index, [17, 16]),
        (lambda frame: pd.concat([frame, frame]).index, FAILED),
        (lambda frame: frame.index[frame["error_type"] == "TypeError"], [5, 16]),
        (lambda frame: frame.index.difference([3]), FAILED[1:]),
        (lambda frame: frame.reset_index(names="index")["index"], FAILED),
        (lambda frame: frame.reset_index()["item_index"], FAILED),
        (
            lambda frame: frame.reset_index().merge(frame[["item"]].tail(2), on="item")[
                "item_index"
            ],
            [16, 17],
        ),
        (lambda frame: frame.index.to_numpy(), FAILED),
        (lambda frame: frame.index.tolist(), FAILED),
        (lambda frame: frame.index[:0], []),
    ],
)
async def test_a_part_of_a_table_reruns_exactly_its_items(
    choose: Callable[[pd.DataFrame], Any], items: list[int]
):
    """In the given order, each once, whatever was done to the table."""
    result, processor = await a_run(), Noting()
    whole = await result.retry_failed(processor, only=choose(result.errors_dataframe()))
    assert processor.seen == items
    assert whole.total == 20
    assert whole.success_count == 15 + len(items)


async def test_a_summary_of_errors_leads_to_the_first_of_each_kind():
    """One item per kind, to check whether the cause is fixed."""
    result, processor = await a_run(), Noting()
    await result.retry_failed(processor, only=error_summary(result)["first_index"])
    assert processor.seen == [3, 5]


@pytest.mark.parametrize(
    ("choose", "got"),
    [
        (lambda frame: frame, "a DataFrame"),
        (lambda frame: frame["seconds"] > 0.1, "a mask"),
        (lambda frame: frame["attempts"] > 1, "a mask"),
        (lambda frame: frame["attempts"], "the column 'attempts'"),
        (lambda frame: frame["error_type"], "the column 'error_type'"),
        (lambda frame: frame.set_index("worker").index, "an index of 'worker'"),
        (lambda frame: frame.reset_index(drop=True).index, "may be new row numbers"),
        (lambda frame: frame.merge(frame[["item"]], on="item").index, "may be new row numbers"),
        (lambda frame: (frame["seconds"] > 0.1).to_numpy(), "got np.False_"),
        (lambda frame: frame.groupby("error_type", observed=True).size(), "the column None"),
        (lambda frame: list(frame.columns), "got 'item'"),
        (lambda frame: 3, "got 3, which is not a collection"),
    ],
)
async def test_other_than_item_indices_are_rejected_before_anything_runs(
    choose: Callable[[pd.DataFrame], Any], got: str
):
    """Whole numbers need not be indices: the error says what was received and what to pass."""
    result, processor = await a_run(), Noting()
    with pytest.raises(TypeError, match=r"pass df\.index, or df\.index\[mask\]") as caught:
        await result.retry_failed(processor, only=choose(result.errors_dataframe()))
    assert got in str(caught.value)
    assert processor.seen == []


async def test_the_index_of_a_whole_table_is_accepted():
    """Its row numbers equal the items' indices, whoever made the table."""
    result, processor = await a_run(), Noting()
    own = pd.DataFrame({"item": range(20)})
    await result.retry_failed(processor, only=own.index)
    await result.retry_failed(processor, only=own[own["item"] > 17].index)
    assert processor.seen == [*range(20), 18, 19]


async def test_equal_items_are_distinguished_by_their_index():
    """Duplicates in the input are items of their own."""

    class Flaky:
        calls = 0

        async def __call__(self, item: str) -> str:
            self.calls += 1
            if self.calls == 2:
                raise ValueError("the second of three")
            return item

    result = await AsyncBatchProcessor(Flaky(), max_concurrency=1, retry_count=0).process(["a"] * 3)
    whole = await result.retry_failed(Noting(), only=result.errors_dataframe().index)  # type: ignore[arg-type]
    assert result.errors_dataframe().index.tolist() == [1]
    assert whole.all_succeeded


async def test_numbers_of_numpy_are_indices():
    """Of whatever width."""
    result, processor = await a_run(), Noting()
    await result.retry_failed(processor, only=np.array([3, 5], dtype="uint8"))
    assert processor.seen == [3, 5]
