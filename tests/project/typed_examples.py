"""
Typed usage of the public API: mypy and pyright check this file, and it is never run.

Each function is one use case. Where `assert_type` names a type, an editor shows the same.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any, assert_type

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
    DocumentJob,
    Embedder,
    Filter,
    FrameSource,
    HashingEmbedder,
    Hits,
    MemoryStore,
    ProcessedDocument,
    RecursiveSplitter,
    SqliteStore,
    Store,
)


async def embed(text: str) -> list[float]:
    """Embed a text, as an async call of a service does."""
    return [float(len(text))]


async def embed_all(texts: list[str]) -> list[list[float]]:
    """Embed several texts in one call."""
    return [[float(len(text))] for text in texts]


def embed_rows(texts: Sequence[str]) -> NDArray[np.float32]:
    """Embed several texts with a local model, as the rows of an array."""
    return np.array([[len(text)] for text in texts], dtype=np.float32)


def check_all(texts: list[str]) -> list[int | Exception]:
    """Return an error in the place of a bad text."""
    return [len(text) or ValueError("empty") for text in texts]


def count(text: str) -> int:
    """Count characters, as sync work."""
    return len(text)


class Client:
    """A client of a service."""


@asynccontextmanager
async def client() -> AsyncIterator[Client]:
    """Open a client."""
    yield Client()


async def ask(text: str, client: Client) -> bytes:
    """Call a service through a client."""
    return text.encode()


async def ask_all(texts: list[str], client: Client) -> list[bytes]:
    """Call a service through a client, with several texts."""
    return [text.encode() for text in texts]


def ask_sync(text: str, client: Client) -> bytes:
    """Call a service through a client on a thread."""
    return text.encode()


class Service:
    """A callable object."""

    async def __call__(self, item: int) -> str:
        """Call the service."""
        return str(item)

    async def ask(self, item: int, *, lang: str = "en") -> str:
        """Call the service through a method."""
        return lang * item


def a_processor_infers_items_and_values_from_its_function() -> None:
    """Async and sync functions, methods, partials and callable objects."""
    assert_type(AsyncBatchProcessor(embed), AsyncBatchProcessor[str, list[float]])
    assert_type(AsyncBatchProcessor(embed, 32, "auto"), AsyncBatchProcessor[str, list[float]])
    assert_type(AsyncBatchProcessor(count, timeout=3), AsyncBatchProcessor[str, int])
    assert_type(AsyncBatchProcessor(str.upper), AsyncBatchProcessor[str, str])
    assert_type(AsyncBatchProcessor(Service()), AsyncBatchProcessor[int, str])
    assert_type(AsyncBatchProcessor(Service().ask), AsyncBatchProcessor[int, str])
    by_lang = AsyncBatchProcessor(partial(Service().ask, lang="bg"))
    assert_type(by_lang.last_result, BatchResult[str] | None)


def a_batched_processor_infers_items_and_values_from_lists() -> None:
    """A list gives a value for each item; an array has rows of unknown type."""
    assert_type(
        AsyncBatchProcessor(embed_all, batched=True, weight=len, max_batch_weight=8000),
        AsyncBatchProcessor[str, list[float]],
    )
    assert_type(AsyncBatchProcessor(embed_rows, batched=True), AsyncBatchProcessor[str, Any])
    assert_type(AsyncBatchProcessor(check_all, batched=True), AsyncBatchProcessor[str, int])


def a_processor_passes_its_resource_as_the_second_argument() -> None:
    """The function takes what the context manager returns."""
    assert_type(AsyncBatchProcessor(ask, resources=client), AsyncBatchProcessor[str, bytes])
    assert_type(AsyncBatchProcessor(ask_sync, resources=client), AsyncBatchProcessor[str, bytes])
    assert_type(
        AsyncBatchProcessor(ask_all, batched=True, resources=client),
        AsyncBatchProcessor[str, bytes],
    )


def a_processor_rejects_a_function_that_it_would_call_wrongly() -> None:
    """The number and the types of its arguments are known before anything runs."""
    AsyncBatchProcessor(ask)  # type: ignore[arg-type]
    AsyncBatchProcessor(embed, batched=True)  # type: ignore[call-overload]
    AsyncBatchProcessor(embed, resources=client)  # type: ignore[arg-type]
    AsyncBatchProcessor(embed).process_sync([1])  # type: ignore[list-item]


async def a_result_has_the_type_of_the_values() -> None:
    """Results, errors and frames."""
    processor = AsyncBatchProcessor(embed)
    result = await processor.process(["a text"], TqdmProgress("all"))
    assert_type(result, BatchResult[list[float]])
    assert_type(result.get_successful(), list[list[float]])
    assert_type(result.errors[0], BaseException | None)
    assert_type(result[0].value, list[float] | None)
    assert_type(result.to_dataframe(), pd.DataFrame)
    assert_type(to_dataframe(result), pd.DataFrame)
    assert_type(await result.retry_failed(processor), BatchResult[list[float]])
    assert_type(processor.process_sync(["a text"], max_items=50), BatchResult[list[float]])


def first_letter(row: dict[str, Any]) -> str:
    """A function of a row."""
    return str(row["text"])[0]


async def a_dataframe_and_a_series() -> None:
    """Rows and values are items; the result has tables."""
    frame = pd.DataFrame({"text": ["a text"]})
    processor = AsyncBatchProcessor(first_letter)
    result = await processor.process(frame)
    assert_type(result, BatchResult[str])
    assert_type(processor.start(frame, max_items=1), Job[dict[str, Any], str])
    assert_type(result.attach(frame, ["value"], prefix="first_"), pd.DataFrame)
    frame["first"] = result.to_series()
    assert_type(await AsyncBatchProcessor(count).process(frame["text"]), BatchResult[int])
    await result.retry_failed(processor, only=frame.index[:1])
    await result.retry_failed(processor, only=result.unfinished)
    documents = AsyncDocumentProcessor()
    assert_type(await documents.process(frame), BatchResult[ProcessedDocument])
    source = FrameSource(frame, id="text", text="text", metadata=["first"])
    assert_type(await documents.process(source), BatchResult[ProcessedDocument])


async def a_stream() -> None:
    """A stream yields outcomes of items and values."""
    async for outcome in AsyncBatchProcessor(count).stream(["a text"], ordered=True):
        assert_type(outcome, Outcome[str, int])
        assert_type(outcome.item, str | None)
        assert_type(outcome.value, int | None)


async def a_job() -> None:
    """A job is awaited, and controlled while it runs."""
    processor = AsyncBatchProcessor(count, journal=Journal("run.sqlite", retry_failed=True))
    job = processor.start(["a text"])
    assert_type(job, Job[str, int])
    job.max_concurrency = 16
    job.rate = None
    assert_type(job.progress, Progress)
    assert_type(await job, BatchResult[int])
    assert_type(job.wait(timeout=1.0), BatchResult[int])


def a_job_over_documents() -> None:
    """Each stage has a setting of its own."""
    job = AsyncDocumentProcessor(embed_concurrency="auto").start("notes")
    assert_type(job, DocumentJob)
    assert_type(job.embed_concurrency, int)
    job.max_concurrency = job.store_concurrency = 16
    job.embed_concurrency = "auto"
    job.embed_concurrency = 8
    job.rate = 2.5
    assert_type(job.wait(), BatchResult[ProcessedDocument])


def limits_and_retries() -> None:
    """Limiters and retry policies are values."""
    requests, tokens = RateLimiter(10), RateLimiter.at_most(100_000, per=60.0, weight=len)

    def verdict(error: Exception) -> bool | float:
        return isinstance(error, ConnectionError) or 0.5

    policy = AsyncRetry(3, 0.5, max_elapsed=60, retry_on=verdict)
    processor = AsyncBatchProcessor(count, rate_limiter=[requests, tokens], retry=policy)
    assert_type(processor, AsyncBatchProcessor[str, int])
    AsyncRetry(retry_on=lambda error: FATAL if "used up" in str(error) else True)
    AsyncRetry(retry_on=(ConnectionError, TimeoutError))


@AsyncRetry(max_retries=5)
async def fetch(url: str, *, page: int = 1) -> bytes:
    """Fetch a page with retries."""
    return url.encode() * page


@AsyncRetry(max_retries=5)
def read(path: str) -> int:
    """Read a file with retries."""
    return len(path)


class Pages:
    """A class with a decorated method."""

    @AsyncRetry()
    async def fetch(self, url: str) -> bytes:
        """Fetch a page with retries."""
        return url.encode()


async def a_decorated_function_keeps_its_signature() -> None:
    """The decorator accepts and rejects the same arguments as the function."""
    assert_type(await Pages().fetch("a"), bytes)
    assert_type(await fetch("a", page=2), bytes)
    assert_type(read("a"), int)
    assert_type(await AsyncRetry().call(embed, "a text"), list[float])
    assert_type(await retry_async(lambda: fetch("a")), bytes)
    await fetch(1)  # type: ignore[arg-type]
    read("a", 2)  # type: ignore[call-arg]


async def retry_blocks() -> None:
    """A block, its attempts, and a variant of a policy, whose seconds may be a timedelta."""
    policy = AsyncRetry(max_elapsed=timedelta(minutes=2), retry_on_result=lambda value: not value)
    assert_type(policy.with_(max_retries=5, base_delay=timedelta(seconds=1)), AsyncRetry)
    assert_type(policy.max_elapsed, float | None)
    async for attempt in policy.attempts():
        with attempt:
            assert_type(attempt.set_result(await fetch("a")), bytes)
        assert_type(attempt.backed_off, float)
    for sync_attempt in policy.attempts():
        with sync_attempt:
            read("a")
    policy.with_(retries=5)  # type: ignore[call-arg]


async def bridges_and_patterns() -> None:
    """The bridge and both patterns return the types of the functions that they call."""
    assert_type(run_async(embed("a text"), timeout=30), list[float])
    assert_type(await gather_with_concurrency([embed("a")], 2), list[list[float]])
    assert_type(await gather_with_concurrency(embed(text) for text in "ab"), list[list[float]])
    assert_type(await gather_with_concurrency([lambda: embed("a")]), list[list[float]])
    mixed = await gather_with_concurrency([embed("a")], return_exceptions=True)
    assert_type(mixed, list[list[float] | BaseException])
    assert_type(await process_with_workers(["a"], count), BatchResult[int])
    assert_type(await process_with_workers(["a"], embed, num_workers=2), BatchResult[list[float]])


class Lengths:
    """A custom embedder."""

    name, dimension = "lengths-v1", 1

    def __call__(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """Embed the texts as rows."""
        return np.array([[len(text)] for text in texts], dtype=np.float32)


def documents() -> None:
    """Custom parts fit, and results have precise types."""
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
