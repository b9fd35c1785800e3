"""
Usage that has to type-check, and what its types are: mypy reads this file, and nobody runs it.

Each function is a way of use. Where `assert_type` names a type, a user's editor shows the same.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import assert_type

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ragasync import (
    FATAL,
    AsyncBatchProcessor,
    AsyncDocumentProcessor,
    AsyncRetry,
    BatchResult,
    Job,
    Journal,
    Outcome,
    Progress,
    RateLimiter,
    TqdmProgress,
    gather_with_concurrency,
    process_with_workers,
    retry_async,
    run_async,
    to_dataframe,
)
from ragasync.documents import (
    Chunk,
    Document,
    Embedder,
    Filter,
    HashingEmbedder,
    Hits,
    MemoryStore,
    ProcessedDocument,
    RecursiveSplitter,
    SqliteStore,
    Store,
)


async def embed(text: str) -> list[float]:
    """Stand for a call of a service."""
    return [float(len(text))]


async def embed_all(texts: list[str]) -> list[list[float]]:
    """Stand for a call with several texts."""
    return [[float(len(text))] for text in texts]


def count(text: str) -> int:
    """Stand for sync work."""
    return len(text)


async def a_result_is_of_what_the_function_returns() -> None:
    """The items and the values have types where the processor is given them."""
    processor: AsyncBatchProcessor[str, list[float]] = AsyncBatchProcessor(embed)
    result = await processor.process(["a text"], TqdmProgress(desc="all"))
    assert_type(result, BatchResult[list[float]])
    assert_type(result.get_successful(), list[list[float]])
    assert_type(result.errors[0], BaseException | None)
    assert_type(result.to_dataframe(), pd.DataFrame)
    assert_type(to_dataframe(result), pd.DataFrame)
    assert_type(processor.last_result, BatchResult[list[float]] | None)


def a_sync_function_and_sync_code() -> None:
    """The same, without a loop."""
    processor: AsyncBatchProcessor[str, int] = AsyncBatchProcessor(count, max_concurrency=8)
    assert_type(processor.process_sync(["a text"], max_items=50), BatchResult[int])


async def a_batched_function() -> None:
    """A value an item."""
    processor: AsyncBatchProcessor[str, list[float]] = AsyncBatchProcessor(
        embed_all, batched=True, weight=len, max_batch_weight=8000, key=str.lower
    )
    assert_type(await processor.process(iter(["a text"]), total=1), BatchResult[list[float]])


async def a_stream() -> None:
    """Outcomes of items and values."""
    processor: AsyncBatchProcessor[str, int] = AsyncBatchProcessor(count)
    async for outcome in processor.stream(["a text"], ordered=True):
        assert_type(outcome, Outcome[str, int])
        assert_type(outcome.item, str | None)
        assert_type(outcome.value, int | None)


async def a_job() -> None:
    """What is awaited and what is set while it runs."""
    processor: AsyncBatchProcessor[str, int] = AsyncBatchProcessor(
        count, journal=Journal("run.sqlite", retry_failed=True)
    )
    job = processor.start(["a text"])
    assert_type(job, Job[str, int])
    job.max_concurrency = 16
    job.rate = None
    assert_type(job.progress, Progress)
    assert_type(await job, BatchResult[int])
    assert_type(job.wait(timeout=1.0), BatchResult[int])


def rules(client: AbstractAsyncContextManager[object]) -> None:
    """Limits, retries and resources as values."""
    requests, tokens = RateLimiter(10), RateLimiter.at_most(100_000, per=60.0, weight=len)

    def verdict(error: Exception) -> bool | float:
        return isinstance(error, ConnectionError) or 0.5

    processor: AsyncBatchProcessor[str, int] = AsyncBatchProcessor(
        count,
        rate_limiter=[requests, tokens],
        retry=AsyncRetry(3, 0.5, max_elapsed=60, retry_on=verdict),
        resources=lambda: client,
    )
    assert_type(processor.process_sync([]), BatchResult[int])
    AsyncRetry(retry_on=lambda error: FATAL if "used up" in str(error) else True)
    AsyncRetry(retry_on=(ConnectionError, TimeoutError))


@AsyncRetry(max_retries=5)
async def fetch(url: str, *, page: int = 1) -> bytes:
    """Keep its signature where it is decorated."""
    return url.encode() * page


@AsyncRetry(max_retries=5)
def read(path: str) -> int:
    """The same for a sync function."""
    return len(path)


async def a_decorated_function_keeps_its_signature() -> None:
    """What is wrong without the decorator is wrong with it."""
    assert_type(await fetch("a", page=2), bytes)
    assert_type(read("a"), int)
    assert_type(await AsyncRetry().call(embed, "a text"), list[float])
    assert_type(await retry_async(lambda: fetch("a")), bytes)
    await fetch(1)  # type: ignore[arg-type]
    read("a", 2)  # type: ignore[call-arg]


async def bridges_and_patterns() -> None:
    """The value of what is run."""
    assert_type(run_async(embed("a text"), timeout=30), list[float])
    assert_type(await gather_with_concurrency([embed("a")], 2), list[list[float]])
    assert_type(await gather_with_concurrency(embed(text) for text in "ab"), list[list[float]])
    assert_type(await gather_with_concurrency([lambda: embed("a")]), list[list[float]])
    mixed = await gather_with_concurrency([embed("a")], return_exceptions=True)
    assert_type(mixed, list[list[float] | BaseException])
    assert_type(await process_with_workers(["a"], count), BatchResult[int])
    assert_type(await process_with_workers(["a"], embed, num_workers=2), BatchResult[list[float]])


class Lengths:
    """An embedder of one's own."""

    name, dimension = "lengths-v1", 1

    def __call__(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """Return a row a text."""
        return np.array([[len(text)] for text in texts], dtype=np.float32)


def documents() -> None:
    """Parts of one's own fit, and the results say what they are."""
    embedder: Embedder = Lengths()
    another: Embedder = HashingEmbedder()
    store: Store = MemoryStore(another)
    result = AsyncDocumentProcessor(embed=embedder, store=store).process_sync("docs")
    assert_type(result, BatchResult[ProcessedDocument])
    where: Filter = {"year": {"$gte": 2020}}
    hits = SqliteStore("library.sqlite").search("a bucket", where=where, min_score=0.1)
    assert_type(hits, Hits)
    assert_type(hits[:3], Hits)
    assert_type(hits[0].line, int | None)
    assert_type(RecursiveSplitter(800)(Document("guide", "A bucket refills.")), list[Chunk])
