"""The p50, p95 and p99 of calls, waits and back-off, in summary(), explain() and HTML."""

from __future__ import annotations

import asyncio

import pytest

from ragasync import AsyncBatchProcessor, AsyncRetry, BatchResult, RateLimiter
from tests.support.results import done, failed, pending, result_of


def lines_of(text: str) -> dict[str, str]:
    """Split a summary into its facts, by name."""
    facts = (line.split(": ", 1) for line in text.splitlines() if ": " in line)
    return {name.strip(): value for name, value in facts}


def test_the_percentiles_of_calls_are_those_of_single_attempts() -> None:
    """A hundred calls of one to a hundred seconds; what has not ended does not count."""
    outcomes = [done(n, seconds=float(n + 1)) for n in range(100)]
    summary = result_of([*outcomes, pending(100)], seconds=100.0).summary()
    assert lines_of(summary)["calls"] == "p50 50.5 s, p95 1 min 35 s, p99 1 min 39 s"


async def test_a_retried_call_counts_once_for_each_attempt() -> None:
    """Ten calls of a second, and one of nine after a failed one of a second."""
    tries: list[int] = []

    async def call(item: int) -> None:
        tries.append(item)
        slow = item == 10 and tries.count(item) == 2
        await asyncio.sleep(9.0 if slow else 1.0)
        if item == 10 and not slow:
            raise ConnectionError

    retry = AsyncRetry(1, 4.0, jitter=None)
    result = await AsyncBatchProcessor(call, max_concurrency=11, retry=retry).process(range(11))
    facts = lines_of(result.summary())
    assert facts["calls"] == "p50 1.00 s, p95 4.60 s, p99 8.12 s"
    assert facts["backed off"].endswith("; p50 4.00 s, p95 4.00 s, p99 4.00 s each")


async def test_a_batched_call_counts_once() -> None:
    """However many items it has: nine calls of one item and one of a hundred."""

    async def call(items: list[int]) -> list[int]:
        await asyncio.sleep(10.0 if len(items) == 100 else 1.0)
        return items

    processor = AsyncBatchProcessor(
        call, 100, 1, batched=True, weight=lambda item: item, max_batch_weight=100
    )
    result = await processor.process([*[1] * 100, *[100] * 9])
    assert lines_of(result.summary())["calls"] == "p50 1.00 s, p95 5.95 s, p99 9.19 s"


async def test_the_percentiles_of_waits_are_those_of_items() -> None:
    """One a second: the last of eleven waits ten seconds."""

    async def call(item: int) -> None:
        pass

    limiter = RateLimiter(1, burst_size=1)
    processor = AsyncBatchProcessor(call, max_concurrency=11, rate_limiter=limiter)
    waits = lines_of((await processor.process(range(11))).summary())["waited for the rate limit"]
    assert waits == "55.0 s over all items; p50 5.00 s, p95 9.50 s, p99 9.90 s each"


async def test_an_explanation_has_a_table_of_percentiles() -> None:
    """Only of what occurred."""
    result = await AsyncBatchProcessor(asyncio.sleep).process([1.0] * 10)
    lines = result.explain().splitlines()
    row = lines.index(next(line for line in lines if "p50" in line))
    assert lines[row].split() == ["p50", "p95", "p99"]
    assert lines[row + 1].split() == ["a", "call", *["1.00", "s"] * 3]
    assert "a retried item's back-off" not in result.explain()
    assert "an item's wait" not in result.explain()


def test_the_html_states_the_same_percentiles() -> None:
    """Made from the same facts."""
    result = result_of([done(n, seconds=1.0) for n in range(3)], seconds=3.0)
    assert "p50 1.00 s, p95 1.00 s, p99 1.00 s" in result._repr_html_()


@pytest.mark.parametrize(
    "result",
    [
        BatchResult([], [], 0, 0),
        BatchResult([1], [None], 1, 0),
        result_of([pending(0)]),
        result_of([failed(0, KeyError(), seconds=0.0)]),
    ],
    ids=["empty", "by hand", "pending", "no time"],
)
def test_a_result_without_times_has_no_percentiles(result: BatchResult[object]) -> None:
    """Nothing is made up."""
    assert "p50" not in result.summary()
