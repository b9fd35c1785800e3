"""
The contenders of `scheduling.py` and its neighbours: ways to run a function over items.

With each stands how to read the values from what it gives, and how many items are bearable.

To add one, write an async function of (work, items, at_once) and give it a line in a table here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import windows_by_hand as by_hand
import windows_of_peers as peers
from measuring import installed
from windows_by_hand import LONG, Work

from ragasync import AsyncBatchProcessor, BatchResult
from ragasync._outcomes.outcome import Outcome

Run: TypeAlias = Callable[[Work, Sequence[int], int], Awaitable[object]]


async def ragasync(
    work: Work, items: Sequence[int], at_once: int, timeout: float | None = None
) -> BatchResult[int]:
    """Process with everything that a run of ragasync does."""
    processor = AsyncBatchProcessor[int, int](work, max_concurrency=at_once, timeout=timeout)
    return await processor.process(items)


async def ragasync_stream(
    work: Work, items: Sequence[int], at_once: int, ordered: bool = False
) -> list[Outcome[int, int]]:
    """Stream the outcomes, and keep them."""
    processor = AsyncBatchProcessor[int, int](work, max_concurrency=at_once)
    return [outcome async for outcome in processor.stream(items, ordered=ordered)]


def as_they_are(given: Any) -> Sequence[int]:
    """Return the values of a contender that gives a list of them."""
    values: Sequence[int] = given
    return values


def from_records(given: Any) -> Sequence[int]:
    """Return the values that records hold."""
    return [record.value for record in given]


def from_result(given: Any) -> Sequence[int]:
    """Return the values of a BatchResult that calls every item done."""
    assert given.all_succeeded
    values: Sequence[int] = given.results
    return values


def from_outcomes(given: Any) -> Sequence[int]:
    """Return the values of outcomes, of which each must be there once, in the order of items."""
    by_index = sorted(given, key=lambda outcome: outcome.index)
    assert [outcome.index for outcome in by_index] == list(range(len(by_index)))
    return [outcome.value for outcome in by_index]


@dataclass(frozen=True)
class Contender:
    """A way to run a function over items, and how to read the values from what it gives."""

    run: Run
    values: Callable[[Any], Sequence[int]] = as_they_are
    most_items: int = 1_000_000
    """Beyond, it would take minutes or gigabytes."""

    needs: tuple[str, ...] = ()
    """The packages that it is made of."""


REFERENCE = "hand-made workers with a record"

_PEERS = {
    "tqdm.asyncio gather and semaphore": Contender(
        peers.with_tqdm, most_items=100_000, needs=("tqdm",)
    ),
    "LlamaIndex run_jobs": Contender(
        peers.with_llama_index, most_items=100_000, needs=("llama_index",)
    ),
    "aiometer run_all": Contender(peers.with_aiometer, most_items=100_000, needs=("aiometer",)),
    "anyio CapacityLimiter": Contender(peers.with_anyio, most_items=100_000, needs=("anyio",)),
    "aiostream map, ordered": Contender(
        peers.with_aiostream, most_items=100_000, needs=("aiostream",)
    ),
    "LangChain abatch": Contender(
        peers.with_langchain, most_items=10_000, needs=("langchain_core",)
    ),
}

_ALL = {
    "hand-made workers, bare": Contender(by_hand.bare_workers),
    REFERENCE: Contender(by_hand.recording_workers, from_records),
    "queue and workers": Contender(by_hand.queue_and_workers),
    "a task an item in a window": Contender(by_hand.task_in_a_window),
    "chunked gather": Contender(by_hand.chunked_gather),
    "gather and semaphore": Contender(by_hand.gather_and_semaphore, most_items=100_000),
    "TaskGroup and semaphore": Contender(by_hand.group_and_semaphore, most_items=100_000),
    **_PEERS,
    "ragasync": Contender(ragasync, from_result),
    "ragasync, stream": Contender(ragasync_stream, from_outcomes),
}

CONTENDERS: Mapping[str, Contender] = {
    name: contender for name, contender in _ALL.items() if installed(*contender.needs)
}

LEFT_OUT = tuple(name for name in _ALL if name not in CONTENDERS)
"""The contenders whose packages are not installed."""

WITH_A_TIME_LIMIT: Mapping[str, Contender] = {
    REFERENCE: CONTENDERS[REFERENCE],
    "the same, asyncio.timeout": Contender(by_hand.timeout_each, from_records, most_items=100_000),
    "the same, asyncio.wait_for": Contender(
        by_hand.wait_for_each, from_records, most_items=100_000
    ),
    "ragasync": CONTENDERS["ragasync"],
    "ragasync, timeout=": Contender(partial(ragasync, timeout=LONG), from_result),
}


THAT_ISOLATE: Mapping[str, Contender] = {
    REFERENCE: CONTENDERS[REFERENCE],  # which does not: every later item sees what one has bound
    **{
        name: CONTENDERS[name]
        for name in ("a task an item in a window", "gather and semaphore", "ragasync")
    },
}
"""Ways in which what one item binds reaches no other, beside the reference."""


def note() -> str:
    """Return a line that says what is left out, and how to have it; nothing if all are there."""
    if not LEFT_OUT:
        return ""
    return f"Left out, because not installed: {', '.join(LEFT_OUT)}. Install ragasync[bench]."
