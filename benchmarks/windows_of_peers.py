"""
Ways to run an async function over items, with bounded concurrency, that other packages offer.

Each is an async function of (work, items, at_once) that imports its package itself, and uses it as
its own documentation does; `windows.py` names them as contenders.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from functools import partial

from windows_by_hand import Work


async def with_aiometer(work: Work, items: Sequence[int], at_once: int) -> Sequence[int]:
    """Hand a list of calls to aiometer's run_all."""
    import aiometer

    calls = [partial(work, item) for item in items]
    values: Sequence[int] = await aiometer.run_all(calls, max_at_once=at_once)
    return values


async def with_aiostream(work: Work, items: Sequence[int], at_once: int) -> Sequence[int]:
    """Map over a stream of aiostream, in order, which is how it comes."""
    from aiostream import pipe, stream

    mapped = stream.iterate(items) | pipe.map(work, ordered=True, task_limit=at_once)
    async with mapped.stream() as values:
        return [value async for value in values]


async def with_anyio(work: Work, items: Sequence[int], at_once: int) -> Sequence[int | None]:
    """Start every item in a task group of anyio, and let its limiter hold them back."""
    import anyio

    slots = anyio.CapacityLimiter(at_once)
    values: list[int | None] = [None] * len(items)

    async def one(index: int, item: int) -> None:
        async with slots:
            values[index] = await work(item)

    async with anyio.create_task_group() as group:
        for index, item in enumerate(items):
            group.start_soon(one, index, item)
    return values


async def with_tqdm(work: Work, items: Sequence[int], at_once: int) -> Sequence[int]:
    """Gather with tqdm's bar, and let a semaphore hold the items back."""
    from tqdm.asyncio import tqdm

    slots = asyncio.Semaphore(at_once)

    async def one(item: int) -> int:
        async with slots:
            return await work(item)

    values: Sequence[int] = await tqdm.gather(*map(one, items), file=io.StringIO())
    return values


async def with_langchain(work: Work, items: Sequence[int], at_once: int) -> Sequence[int]:
    """Wrap the function as a runnable of LangChain, and have it run a batch."""
    from langchain_core.runnables import RunnableLambda

    runnable = RunnableLambda(work)
    values: Sequence[int] = await runnable.abatch(list(items), {"max_concurrency": at_once})
    return values


async def with_llama_index(work: Work, items: Sequence[int], at_once: int) -> Sequence[int]:
    """Hand the coroutines of all items to LlamaIndex's run_jobs."""
    from llama_index.core.async_utils import run_jobs

    values: Sequence[int] = await run_jobs([work(item) for item in items], workers=at_once)
    return values
