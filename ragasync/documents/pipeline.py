"""AsyncDocumentProcessor: load, chunk, embed and store documents on the engine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Literal, TypeAlias

from ragasync.batch import AsyncBatchProcessor
from ragasync.bridge.run_async import run_async
from ragasync.documents.chunk import RecursiveSplitter
from ragasync.documents.document import Document
from ragasync.documents.embed import HashingEmbedder
from ragasync.documents.line import Line, Parcel, Recipe, open_line
from ragasync.documents.load import LOADER_VERSION, load_source
from ragasync.documents.prepare import AsyncCut, AsyncLoad, Cut, Load, LoadAndCut
from ragasync.documents.processed import ProcessedDocument
from ragasync.documents.sources import Source, find_sources
from ragasync.documents.stage import Stage, as_stage
from ragasync.documents.store import Store, WrongEmbedder
from ragasync.errors import JobStopped, StageFailure
from ragasync.job import Job
from ragasync.limits.limiter import Limiter
from ragasync.outcomes.outcome import Outcome
from ragasync.plan import Plan
from ragasync.progress import ProgressCallback
from ragasync.result import BatchResult
from ragasync.retries.causes import FATAL, Fatal
from ragasync.retries.retry import AsyncRetry
from ragasync.retries.retry_on import verdict_of

Given: TypeAlias = Callable[..., Any] | Stage | None
"""What may be given for a stage: a function, a Stage, or None for the embedded default."""


class AsyncDocumentProcessor:
    """
    Take documents through load, chunk, embed and store: a document an item.

    Each stage has its own window of calls, and the chunks of many documents fill the same
    embedding batch. A document is done when its last chunk is stored; one that fails harms no
    other, and its outcome names the stage. What the store already has from the same text and the
    same stages is not embedded again.

        store = SqliteStore("library.sqlite")
        result = await AsyncDocumentProcessor(store=store).process("docs")
        store.search("how do I ...")

    Args:
        load: takes a path (or whatever `sources` holds) and returns a Document or a text; by
            default by file type.
        chunk: takes a text and returns texts or Chunks; by default RecursiveSplitter().
        embed: takes a list of texts and returns as many vectors; by default HashingEmbedder().
        store: a Store, or a function of (document, chunks, embeddings); None keeps documents,
            chunks and embeddings in the result.
        max_concurrency: documents being loaded and cut at once.
        batch_size: the most chunks in one call of `embed`.
        embed_concurrency: calls of `embed`, and of a `store` function, at once.
        rate_limiter: limits the calls of `embed`: one limiter or several.
        retry_count: retries of `embed` and `store`; load and chunk are not retried.
        retry_delay: the base of their back-off, in seconds.
        timeout: seconds for one call of any stage.
        executor: where sync load and chunk functions run instead of on threads.
        max_errors: as for AsyncBatchProcessor.
        keep: "all" keeps documents, chunks and embeddings in the result beside a store.
        version: changes the fingerprint of every document, and so has all of them embedded anew.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        load: Given = None,
        chunk: Given = None,
        embed: Given = None,
        store: Store | Given = None,
        *,
        max_concurrency: int = 8,
        batch_size: int = 32,
        embed_concurrency: int = 4,
        rate_limiter: Limiter | Sequence[Limiter] | None = None,
        retry_count: int = 3,
        retry_delay: float = 1.0,
        timeout: float | None = None,
        executor: Executor | None = None,
        max_errors: float | None = None,
        keep: Literal["ids", "all"] = "ids",
        version: str = "",
    ) -> None:
        if keep not in ("ids", "all"):
            raise ValueError(f"keep must be 'ids' or 'all', got {keep!r}")
        self._loads_itself = load is None
        self._retry = AsyncRetry(retry_count, retry_delay)
        stages = {
            "load": as_stage(load, load_source),
            "chunk": as_stage(chunk, RecursiveSplitter()),
            "embed": as_stage(embed, HashingEmbedder()),
        }
        prints = [f"{name}={stage.fingerprint}" for name, stage in stages.items()]
        pipeline = "; ".join([*prints, f"loaders={LOADER_VERSION}", f"version={version}"])
        known: Any = store if hasattr(store, "fingerprint_of") else None
        every: dict[str, Any] = {"timeout": timeout, "executor": executor}
        loading, preparing = _preparation(
            stages["load"],
            stages["chunk"],
            partial(Cut, pipeline=pipeline, known=known),
            partial(AsyncCut, pipeline=pipeline, known=known),
            {"max_concurrency": max_concurrency, **every},
        )
        self._recipe = Recipe(
            load=loading,
            prepare=preparing,
            embed=stages["embed"].plan(
                stages["embed"].fn,
                max_concurrency=embed_concurrency,
                batched=True,
                batch_size=batch_size,
                rate_limiter=rate_limiter,
                retry=self._retry,
                timeout=timeout,
            ),
            store=_storing(store, embed_concurrency, self._retry, timeout),
            embedder=stages["embed"].fingerprint,
            keep_all=keep == "all",
            backlog=2 * embed_concurrency * batch_size,
        )
        if known is not None and getattr(known, "embedder", self) is None:
            known.embedder = stages["embed"].fn  # so that it can embed what is searched for
        self._batch: AsyncBatchProcessor[Any, ProcessedDocument] = AsyncBatchProcessor(
            _through_the_line,
            max_concurrency=max_concurrency + self._recipe.backlog,
            retry=AsyncRetry(0, retry_on=self._is_fatal),
            max_errors=max_errors,
            resources=self._open_line,
        )

    @property
    def last_result(self) -> BatchResult[ProcessedDocument] | None:
        """The result of the latest run that ended, whole or not."""
        return self._batch.last_result

    async def process(
        self,
        sources: Any,
        progress_callback: ProgressCallback | None = None,
        *,
        total: int | None = None,
        limit: int | None = None,
    ) -> BatchResult[ProcessedDocument]:
        """
        Take every source through all stages and return all outcomes, in order.

        Args:
            sources: a folder, which is walked, a file, a Document, or an iterable or async
                iterable of these and of (id, text) pairs; with a `load` of your own, of whatever
                it takes.
            progress_callback: as for `AsyncBatchProcessor.process`.
            total: likewise.
            limit: likewise.

        Raises:
            FileNotFoundError: a str names no existing path.
            RunAsyncError: a stage uses an object of another event loop.
        """
        found = await asyncio.to_thread(self._items, sources)
        return await self._batch.process(found, progress_callback, total=total, limit=limit)

    def process_sync(
        self,
        sources: Any,
        progress_callback: ProgressCallback | None = None,
        *,
        total: int | None = None,
        limit: int | None = None,
    ) -> BatchResult[ProcessedDocument]:
        """Do as `process` does, from sync code; see `run_async`."""
        return run_async(self.process(sources, progress_callback, total=total, limit=limit))

    def stream(
        self, sources: Any, *, ordered: bool = False, total: int | None = None
    ) -> AsyncIterator[Outcome[Any, ProcessedDocument]]:
        """Yield each document's outcome as it comes; see `AsyncBatchProcessor.stream`."""
        return self._batch.stream(self._items(sources), ordered=ordered, total=total)

    def start(
        self,
        sources: Any,
        progress_callback: ProgressCallback | None = None,
        *,
        total: int | None = None,
        limit: int | None = None,
        here: bool = False,
    ) -> Job[Any, ProcessedDocument]:
        """Begin in the background and return the Job; see `AsyncBatchProcessor.start`."""
        return self._batch.start(
            self._items(sources), progress_callback, total=total, limit=limit, here=here
        )

    def __repr__(self) -> str:
        return (
            f"<AsyncDocumentProcessor embed={self._recipe.embedder}, "
            f"batch_size={self._recipe.embed.batch_size}>"
        )

    def _open_line(self) -> AbstractAsyncContextManager[Line]:
        """Open the stages of a run."""
        return open_line(self._recipe)

    def _items(self, sources: Any) -> Any:
        """
        Return what there is to process: a list where it is finite anyway, for the progress.

        Only a path is walked for a `load` of the caller's own; other sources are the caller's.
        """
        if isinstance(sources, AsyncIterable):
            return sources
        if isinstance(sources, str | os.PathLike | Source | Document):
            return list(find_sources(sources))
        if not self._loads_itself:
            return sources
        found = find_sources(sources)
        return list(found) if isinstance(sources, Sequence) else found

    def _is_fatal(self, error: Exception) -> bool | Fatal:
        """Judge whether a document's failure ends the whole run."""
        inner = error.error if isinstance(error, StageFailure) else error
        fatal = isinstance(inner, WrongEmbedder | JobStopped) or (
            verdict_of(inner, self._retry.retry_on) is FATAL
        )
        return FATAL if fatal else False


async def _through_the_line(source: object, line: Line) -> ProcessedDocument:
    """Take one source through the stages that its run has opened."""
    return await line.one_document(source)


def _preparation(
    load: Stage,
    chunk: Stage,
    cut: Callable[[Any], Cut],
    async_cut: Callable[[Any], AsyncCut],
    settings: dict[str, Any],
) -> tuple[Plan[Any, Any] | None, Plan[Any, Any]]:
    """Return the plans for loading and for cutting; one for both where one call can do both."""
    plain = load == Stage(load.fn) and chunk == Stage(chunk.fn) and settings["executor"] is None
    if plain and not load.is_async and not chunk.is_async:
        return None, load.plan(LoadAndCut(Load(load.fn), cut(chunk.fn)), **settings)
    loading = load.plan(AsyncLoad(load.fn) if load.is_async else Load(load.fn), **settings)
    cutting = async_cut(chunk.fn) if chunk.is_async else cut(chunk.fn)
    return loading, chunk.plan(cutting, **settings)


def _storing(
    store: Any, concurrency: int, retry: AsyncRetry, timeout: float | None
) -> Plan[Any, Any] | None:
    """Return the plan for storing; a Store takes one document at a time."""
    if store is None:
        return None
    if hasattr(store, "upsert"):

        def put(parcel: Parcel) -> None:
            store.upsert(
                parcel.document,
                parcel.chunks,
                parcel.embeddings,
                fingerprint=parcel.fingerprint,
                embedder=parcel.embedder,
            )

        return Stage(put).plan(put, max_concurrency=1, retry=retry, timeout=timeout)
    stage = as_stage(store, store)

    def hand_over(parcel: Parcel) -> Any:
        return stage.fn(parcel.document, parcel.chunks, parcel.embeddings)

    async def hand_over_async(parcel: Parcel) -> Any:
        return await stage.fn(parcel.document, parcel.chunks, parcel.embeddings)

    function = hand_over_async if stage.is_async else hand_over
    return stage.plan(function, max_concurrency=concurrency, retry=retry, timeout=timeout)
