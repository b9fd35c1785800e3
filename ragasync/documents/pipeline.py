"""AsyncDocumentProcessor: load, chunk, embed and store documents on the engine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from functools import partial
from typing import Any, Literal, TypeAlias, cast

from ragasync.batch import AsyncBatchProcessor
from ragasync.bridge.run_async import run_async
from ragasync.documents.chunk import RecursiveSplitter
from ragasync.documents.embed import HashingEmbedder
from ragasync.documents.fingerprint import StageFunction
from ragasync.documents.intake import Sources, items_of
from ragasync.documents.line import Line, open_line
from ragasync.documents.load import load_source
from ragasync.documents.processed import ProcessedDocument
from ragasync.documents.recipe import Settings, Stages, ends_the_run, recipe_of
from ragasync.documents.resuming import journal_use
from ragasync.documents.stage import Stage, as_stage
from ragasync.documents.store import Store
from ragasync.job import Job
from ragasync.journal import Journal
from ragasync.limits.limiter import Limiter
from ragasync.outcomes.outcome import Outcome
from ragasync.progress import ProgressCallback
from ragasync.result import BatchResult
from ragasync.retries.retry import AsyncRetry

Given: TypeAlias = StageFunction | Stage | None
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
        max_concurrency: calls that load and cut at once; short documents share one, on a thread.
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
        key: makes of a source the text (or other plain data) that the journal knows it by; without
            it that is its id and content, which for a file are read once more.
        journal: a Journal, or the path of one: a source whose outcome it has is not loaded again,
            as long as the stages are the same and the store has what it acknowledged then. A store
            that cannot tell is trusted. What failed stays so, unless `retry_failed` is asked for.

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
        key: Callable[[Any], object] | None = None,
        journal: Journal | str | os.PathLike[str] | None = None,
    ) -> None:
        if keep not in ("ids", "all"):
            raise ValueError(f"keep must be 'ids' or 'all', got {keep!r}")
        stages = Stages(
            as_stage(load, load_source),
            as_stage(chunk, RecursiveSplitter()),
            as_stage(embed, HashingEmbedder()),
            None if store is None else store if isinstance(store, Stage) else Stage(store),
        )
        self._loads_itself = load is None
        use = journal_use(journal, key, stages, version=version, keep_all=keep == "all")
        self._own_paths = (getattr(stages.known, "path", None), use and use.journal.path)
        self._recipe = recipe_of(
            stages,
            Settings(
                max_concurrency,
                batch_size,
                embed_concurrency,
                rate_limiter,
                AsyncRetry(retry_count, retry_delay),
                timeout,
                executor,
                version,
                keep_all=keep == "all",
            ),
        )
        _let_search(stages.known, stages.embed)
        self._batch: AsyncBatchProcessor[Any, ProcessedDocument] = AsyncBatchProcessor(
            _through_the_line,
            max_concurrency=self._recipe.at_once + self._recipe.room,
            retry=AsyncRetry(0, retry_on=ends_the_run),
            max_errors=max_errors,
            journal=cast("Journal | None", use),  # it knows one that is made ready for it
            resources=partial(open_line, self._recipe),
        )

    @property
    def last_result(self) -> BatchResult[ProcessedDocument] | None:
        """The result of the latest run that ended, whole or not."""
        return self._batch.last_result

    async def process(
        self,
        sources: Sources,
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
        items = await asyncio.to_thread(self._items, sources)
        return await self._batch.process(items, progress_callback, total=total, limit=limit)

    def process_sync(
        self,
        sources: Sources,
        progress_callback: ProgressCallback | None = None,
        *,
        total: int | None = None,
        limit: int | None = None,
    ) -> BatchResult[ProcessedDocument]:
        """Do as `process` does, from sync code; see `run_async`."""
        return run_async(self.process(sources, progress_callback, total=total, limit=limit))

    async def stream(
        self, sources: Sources, *, ordered: bool = False, total: int | None = None
    ) -> AsyncGenerator[Outcome[Any, ProcessedDocument], None]:
        """Yield each document's outcome as it comes; see `AsyncBatchProcessor.stream`."""
        items = await asyncio.to_thread(self._items, sources)
        async with aclosing(self._batch.stream(items, ordered=ordered, total=total)) as outcomes:
            async for outcome in outcomes:
                yield outcome

    def start(
        self,
        sources: Sources,
        progress_callback: ProgressCallback | None = None,
        *,
        total: int | None = None,
        limit: int | None = None,
        here: bool = False,
    ) -> Job[Any, ProcessedDocument]:
        """
        Begin in the background and return the Job; see `AsyncBatchProcessor.start`.

        A folder is walked before this returns, so that the job knows its total.
        """
        items = self._items(sources)
        return self._batch.start(items, progress_callback, total=total, limit=limit, here=here)

    def __repr__(self) -> str:
        recipe = self._recipe
        return (
            f"<AsyncDocumentProcessor embed={recipe.embedder}, "
            f"batch_size={recipe.embed.batch_size}, max_concurrency={recipe.at_once}>"
        )

    def _items(self, sources: Sources) -> Iterable[Any] | AsyncIterable[Any]:
        """Return what there is to process."""
        return items_of(sources, as_given=not self._loads_itself, own=self._own_paths)

    async def _process_again(self, items: Iterable[Any]) -> BatchResult[ProcessedDocument]:
        """Process items that were found before, whatever a journal has of them."""
        return await self._batch._process_again(items)


def _let_search(store: Any, embed: Stage) -> None:
    """Give a store that has no embedder this one, so that it can embed what is searched for."""
    if getattr(store, "embedder", embed) is None:
        store.embedder = embed.function


async def _through_the_line(source: object, line: Line) -> ProcessedDocument:
    """Take one source through the stages that its run has opened."""
    return await line.one_document(source)
