"""AsyncDocumentProcessor: loads, chunks, embeds and stores documents."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from ragasync._bridge.run_async import run_async
from ragasync._engine.job_run import JobRun
from ragasync._engine.stream import stream_outcomes
from ragasync._limits.limiter import Limiter
from ragasync._outcomes.outcome import Outcome
from ragasync._retries.classify import FATAL
from ragasync._retries.policy import AsyncRetry
from ragasync.arguments import check_positive, explains_arguments
from ragasync.batch import (
    DEFAULT_RETRY_COUNT,
    DEFAULT_RETRY_DELAY,
    AsyncBatchProcessor,
    loop_for_job,
    retry_given,
)
from ragasync.documents.config import Settings, Stages, ends_the_run, pipeline_config
from ragasync.documents.document_records import ProcessedDocument, SkipPolicy
from ragasync.documents.embedders import HashingEmbedder
from ragasync.documents.loaders import load_source
from ragasync.documents.pipeline import Pipeline
from ragasync.documents.resume import bind_document_journal
from ragasync.documents.run_sources import Prune, RunSources, SourceResolver, Sources
from ragasync.documents.sources import FileIds
from ragasync.documents.splitters import RecursiveSplitter
from ragasync.documents.stage import Stage, StageFunction, as_stage, check_version
from ragasync.documents.store import Store
from ragasync.documents.unique_sources import OwnFiles, claim
from ragasync.estimate import Estimate, TokenCounter
from ragasync.job import Job
from ragasync.journal import Journal
from ragasync.progress_callbacks import Progress, ProgressCallback
from ragasync.result import BatchResult
from ragasync.settings import BatchSettings, as_timeout, check_concurrency, parse_concurrency

if TYPE_CHECKING:
    from ragasync.notebook.panel_view import ConcurrencySetting, JobView


class DocumentJob(Job[Any, ProcessedDocument]):
    """
    A Job over documents; each stage of its pipeline has a setting of its own.

    `AsyncDocumentProcessor.start` creates it. `progress.limited_by` names the stage that holds the
    others back, as does its line in the panel: raise its setting first. All settings can be changed
    while the job runs, from any thread, and the panel has a slider for each:

    - `max_concurrency`: documents loaded and chunked concurrently
    - `embed_concurrency`: concurrent calls of `embed`, or "auto"
    - `store_concurrency`: concurrent calls of a `store` function
    - `rate`: calls of `embed` per second

    Example:
        >>> import time
        >>> from ragasync import AsyncDocumentProcessor
        >>> def embed(texts):
        ...     time.sleep(0.001)
        ...     return [[float(len(text))] for text in texts]
        >>> documents = [(f"note {number}", "A bucket refills.") for number in range(50)]
        >>> job = AsyncDocumentProcessor(embed=embed, batch_size=1).start(documents)
        >>> job.embed_concurrency = 16  # while it runs
        >>> job.rate = 2_000
        >>> job.wait().success_count  # in a cell: await job
        50
    """

    def __init__(
        self,
        job_run: JobRun[Any, ProcessedDocument],
        loop: asyncio.AbstractEventLoop,
        pipeline: Pipeline,
    ) -> None:
        self._pipeline, self._controls = pipeline, pipeline.controls
        super().__init__(job_run, loop)

    @property
    def max_concurrency(self) -> int:
        """
        The maximum number of documents that are loaded and chunked concurrently.

        If `load` and `chunk` are Stages with a limit each, this is the higher one; setting it sets
        both.
        """
        return self._controls.max_concurrency

    @max_concurrency.setter
    def max_concurrency(self, value: int | Literal["auto"]) -> None:
        self._controls.max_concurrency = check_concurrency(value)
        self._on_loop(self._pipeline.apply_settings)

    @property
    def embed_concurrency(self) -> int:
        """
        The maximum number of concurrent calls of `embed`; can also be set to "auto".

        With "auto" this is the limit in force now; setting a number turns "auto" off. The number of
        chunks in memory grows with it: those of three rounds of calls.
        """
        return self._controls.embed_concurrency

    @embed_concurrency.setter
    def embed_concurrency(self, value: int | Literal["auto"]) -> None:
        limit, adaptive = parse_concurrency(value, "embed_concurrency")
        if adaptive:
            self._controls.adapt_embed_concurrency()
        else:
            self._controls.embed_concurrency = limit
        self._on_loop(self._pipeline.apply_settings)

    @property
    def store_concurrency(self) -> int:
        """
        The maximum number of concurrent calls of a `store` function.

        Of a Store it is 1, and setting it has no effect: a Store is called once at a time, one with
        `upsert_many` for all documents that wait to be stored.
        """
        return self._controls.store_concurrency

    @store_concurrency.setter
    def store_concurrency(self, value: int) -> None:
        self._controls.store_concurrency = check_concurrency(value, "store_concurrency")
        self._on_loop(self._pipeline.apply_settings)

    @property
    def rate(self) -> float | None:
        """The job's own rate limit in calls of `embed` per second; its limiters apply as well."""
        return self._controls.rate

    @rate.setter
    def rate(self, value: float | None) -> None:
        if value is not None:
            check_positive("rate", value)
        self._controls.rate = value
        self._on_loop(self._pipeline.apply_settings)

    @property
    def progress(self) -> Progress:
        """The progress of the job, as a frozen snapshot."""
        return replace(super().progress, max_concurrency=self.max_concurrency)

    def pause(self) -> None:
        """Load no further documents; those in progress are still embedded and stored."""
        super().pause()

    # ── display ──────────────────────────────────────────────────────────────────────────────────

    def _view(self) -> JobView:
        """The state of the job as its panel and its repr show it."""
        view = super()._view()
        calls = sum(stage.calls for stage in view.stages if stage.name == "embed")
        speed = calls / view.stage_seconds if view.stage_seconds > 0 else 0.0
        return replace(view, speed=speed, rate_noun="embed call", rate_label="embed calls/s")

    def _concurrency_settings(self) -> tuple[ConcurrencySetting, ...]:
        """The settings for the number of concurrent calls, as they are shown."""
        from ragasync.notebook.panel_view import ConcurrencySetting

        controls = self._controls
        load = ConcurrencySetting(
            self.max_concurrency, label="load and chunk", noun="load", is_rated=False
        )
        embed = ConcurrencySetting(
            self.embed_concurrency,
            controls.embed_is_adaptive,
            "embed_concurrency",
            label="embed",
            noun="embed call",
            css="embed-",
        )
        store = ConcurrencySetting(
            self.store_concurrency,
            name="store_concurrency",
            label="store",
            noun="store call",
            css="store-",
            is_rated=False,
        )
        return (load, embed, store) if controls.has_store_function else (load, embed)


Given: TypeAlias = StageFunction | Stage | None
"""A stage argument: a function, a Stage, or None for the default."""


@explains_arguments
class AsyncDocumentProcessor:
    """
    Process documents through four stages: load, chunk, embed and store. Each document is an item.

    Each stage has its own concurrency, and chunks of many documents share embedding batches. A
    document is done when all its chunks are stored. A failed document affects no other; its outcome
    names the stage. Unchanged documents are skipped: the store has them with the same text, from
    the same stages.

    Go on with `process`, `process_sync`, `start` (a `DocumentJob` with a live panel) or `stream`;
    `ragasync.documents` has `documents_dataframe`, `chunks_dataframe` and `stages_dataframe` for
    the result, and the store has `search`.

    Example:
        >>> from ragasync import AsyncDocumentProcessor
        >>> from ragasync.documents import MemoryStore
        >>> store = MemoryStore()
        >>> texts = [("limits", "A bucket refills."), ("retries", "Wait, then try again.")]
        >>> AsyncDocumentProcessor(store=store).process_sync(texts).success_count
        2
        >>> store.search("how is a bucket refilled?", k=1)[0].text
        'A bucket refills.'
        >>> store.close()

    Args:
        load: a function from a path (or any item of `sources`) to a Document or a text; the
            default loads by file type. A `sources` item of type str that names a file is a path.
        chunk: a function from a text to texts or Chunks; the default is RecursiveSplitter().
        embed: a function from a list of texts to one vector per text; the default is
            HashingEmbedder(), which computes. With the default load and chunk, and without settings
            of their own, a large run calls it in worker processes of its own, also if it has an
            `executor`; the environment variable RAGASYNC_WORKER_PROCESSES=0 turns that off.
        store: a Store, or a function of (document, chunks, embeddings). None keeps documents,
            chunks and embeddings in the result.
        max_concurrency: the number of documents that are loaded and chunked concurrently; short
            ones share a call on a thread.
        batch_size: the maximum number of chunks in one call of `embed`.
        embed_concurrency: the number of concurrent calls of `embed`, or "auto", which finds out
            how many the service can take, as in AsyncBatchProcessor. A HashingEmbedder begins with
            two at most, because more would only wait for the interpreter lock.
        store_concurrency: the number of concurrent calls of a `store` function. A Store is called
            once at a time, for all documents that wait to be stored.
        rate_limiter: one limiter or several for the calls of `embed`.
        retry_count: the number of retries of `embed` and `store`; load and chunk are not retried.
        retry_delay: the base of their exponential back-off, in seconds.
        timeout: the time limit of one call of `load`, `chunk`, `embed` or a `store` function, in
            seconds. A Store has one of its own, or one in Stage(store, timeout=...).
        executor: where sync load and chunk functions run, instead of on threads. Quick sources
            travel in groups, slow ones alone. Stage(embed, executor=...) embeds there too.
        max_errors: as for AsyncBatchProcessor.
        max_error_rate: as for AsyncBatchProcessor.
        max_initial_failures: stop the run if the first calls of `embed`, or of a `store` function,
            this many in number, all fail with the same status of 400, 401, 403, 404 or 405, as they
            do for a wrong model or path. None turns the rule off.
        max_seconds: the duration at which the run stops, in seconds or as a timedelta.
        max_tokens: the number of tokens at which the run stops, as reported by `note_usage` in any
            stage. Calls in flight finish, and may exceed the budget, as may a job that one of them
            runs, which stops only at bounds of its own. Documents with all chunks embedded are
            stored; the rest are pending, and the next run reuses the vectors they have (`cache`).
            With a journal, its earlier runs count too.
        max_cost: the cost at which the run stops in the same way, in the unit in which it is
            reported.
        on_unreadable: "fail" makes a source that cannot be loaded a failure. "skip", or a
            collection of reasons such as {"binary", "empty"} (see LoadError), makes it a success
            with `skipped` set.
        cache: whether to reuse the vectors that the store has of unchanged texts, from the same
            embedder. They include those of documents that an earlier run has stopped, cancelled or
            failed at: a SqliteStore, MemoryStore or LanceStore keeps them until their texts are
            stored. Only a process that is killed loses them.
        keep_content: whether the result keeps documents, chunks and embeddings when there is a
            store.
        root: the folder that ids and sources of files are relative to, so that the store works on
            another machine or after the folder moved; None for absolute paths.
        version: replaces the code of `load`, `chunk` and of an unnamed `embed` function in deciding
            what has changed: edited code is ignored while the version stays the same, and a new
            version chunks everything again. Settings always count. Vectors of unchanged texts are
            kept; for another model under the same name, pass Stage(embed, version=...).
        key: a function from a source to the text (or other plain data) by which the journal
            identifies it; the default is its id and content, for which a file is read once more.
        journal: a Journal or its path. A source with a recorded outcome is not loaded again as
            long as the settings of the stages are unchanged and the store still has its documents;
            edited code only causes a warning, and a store that cannot tell is trusted. A file with
            a new modification time is loaded again, so that the store has it. A failure is kept,
            unless the journal has `retry_failed`, the error stopped the run, it was an id conflict
            with another source, which may be gone, or it is a LoadError and `on_unreadable` skips
            some.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range; or `retry_count` or `retry_delay` is given although
            `embed` and `store` are both Stages with a `retry`.
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
        embed_concurrency: int | Literal["auto"] = 4,
        store_concurrency: int = 1,
        rate_limiter: Limiter | Sequence[Limiter] | None = None,
        retry_count: int = DEFAULT_RETRY_COUNT,
        retry_delay: float | timedelta = DEFAULT_RETRY_DELAY,
        timeout: float | timedelta | None = None,
        executor: Executor | None = None,
        max_errors: int | None = None,
        max_error_rate: float | None = None,
        max_initial_failures: int | None = 20,
        max_seconds: float | timedelta | None = None,
        max_tokens: int | None = None,
        max_cost: float | None = None,
        on_unreadable: Literal["fail", "skip"] | Collection[str] = "fail",
        cache: bool = True,
        keep_content: bool = False,
        root: str | os.PathLike[str] | None = None,
        version: str = "",
        key: Callable[[Any], object] | None = None,
        journal: Journal | str | os.PathLike[str] | None = None,
    ) -> None:
        if not isinstance(keep_content, bool):
            raise TypeError(f"keep_content must be True or False, got {keep_content!r}")
        check_version(version)
        stages = Stages(
            as_stage(load, load_source, may_yield=True),
            as_stage(chunk, RecursiveSplitter(), may_yield=True),
            as_stage(embed, HashingEmbedder()),
            None if store is None else store if isinstance(store, Stage) else Stage(store),
        )
        stages.check_parameters()
        given = retry_given(retry_count, retry_delay)
        retried = [stage for stage in (stages.embed, stages.store) if stage is not None]
        if given and all(stage.retry is not None for stage in retried):
            raise ValueError(
                f"{given} would have no effect: embed and store both have a retry= of their own"
            )
        self._loading: dict[str, Any] = {
            "load": load,
            "chunk": chunk,
            "timeout": timeout,
            "executor": executor,
            "max_concurrency": max_concurrency,
            "on_unreadable": on_unreadable,
            "root": root,
        }
        skip_policy, ids = SkipPolicy.of(on_unreadable), FileIds(root)
        config = pipeline_config(
            stages,
            Settings(
                max_concurrency,
                batch_size,
                embed_concurrency,
                store_concurrency,
                rate_limiter,
                AsyncRetry(int(retry_count), retry_delay),
                as_timeout(timeout),
                executor,
                version,
                has_journal=journal is not None,
                keep_content=keep_content,
                cache=cache,
                max_initial_failures=max_initial_failures,
                skip_policy=skip_policy,
                ids=ids,
            ),
        )
        use = bind_document_journal(
            journal,
            key,
            stages,
            config.fingerprint,
            config.embedder.now,
            keep_content=keep_content,
            skip_policy=skip_policy,
        )
        own = OwnFiles((getattr(stages.known, "path", None), use and use.journal.path))
        self._config = config
        self._resolver = SourceResolver(load is not None, ids, own, stages.known)
        self._processor: AsyncBatchProcessor[Any, ProcessedDocument] = AsyncBatchProcessor(
            _process,
            max_concurrency=config.most_documents(
                config.max_concurrency, config.embed.max_concurrency
            ),
            retry=AsyncRetry(1, 0.0, retry_on=ends_the_run),  # a deferred document is never retried
            max_errors=max_errors,
            max_error_rate=max_error_rate,
            max_seconds=max_seconds,
            max_tokens=max_tokens,
            max_cost=max_cost,
            max_initial_failures=None,  # the embedding stage has its own; loading never counts
            journal=cast("Journal | None", use),  # it accepts a binding as well
        )

    @explains_arguments
    def estimate(
        self,
        sources: Sources,
        *,
        price_per_million: float | None = None,
        count_tokens: Callable[[str], int] | None = None,
        max_items: int | None = None,
    ) -> Estimate:
        """
        Count the documents of a run, their chunks and tokens, and the cost of embedding them.

        The sources are loaded and chunked; nothing is embedded or stored. Documents that a store
        or a journal already has are counted too.

        Args:
            sources: as for `process`.
            price_per_million: the price of a million tokens.
            count_tokens: counts the tokens of a chunk's text, as your model does; by default they
                are estimated, and tend to be too many.
            max_items: the number of sources of a pilot.

        Example:
            >>> from ragasync import AsyncDocumentProcessor
            >>> processor = AsyncDocumentProcessor()
            >>> notes = [("a", "A bucket refills."), ("b", "A queue is fair.")]
            >>> processor.estimate(notes, price_per_million=20.0)
            Estimate(items=2, requests=1, tokens=10, cost=0.0002, chunks=2)

        Raises:
            FileNotFoundError: a str names no existing path.
            TypeError: an argument has the wrong type.
            ValueError: an argument is out of range.
            Exception: the error that `count_tokens` raised.
        """
        chunks, counter = 0, TokenCounter(count_tokens, price_per_million)
        of_counter: list[Exception] = []

        async def count(texts: list[str]) -> list[list[float]]:
            nonlocal chunks
            chunks += len(texts)
            for text in texts:
                try:
                    counter.add(text)
                except Exception as error:
                    of_counter.append(error)
                    raise
            return [[0.0]] * len(texts)

        no_retry = AsyncRetry(0, retry_on=lambda _: FATAL)
        embed = Stage(count, name="estimate", retry=no_retry)
        only_counting = AsyncDocumentProcessor(**self._loading, embed=embed)
        result = only_counting.process_sync(sources, max_items=max_items)
        if of_counter:  # it is no document's, and its tokens are unknown
            raise of_counter[0]
        return Estimate(
            result.success_count + result.error_count,
            math.ceil(chunks / self._config.embed.batch_size),
            counter.tokens,
            counter.cost,
            chunks,
            result.error_count,
        )

    @property
    def last_result(self) -> BatchResult[ProcessedDocument] | None:
        """The result of the latest run that ended, complete or not."""
        return self._processor.last_result

    @explains_arguments
    async def process(
        self,
        sources: Sources,
        progress_callback: ProgressCallback | None = None,
        *,
        total: int | None = None,
        max_items: int | None = None,
        prune: Prune = False,
    ) -> BatchResult[ProcessedDocument]:
        """
        Process every source through all stages and return all outcomes, in input order.

        Args:
            sources: a folder (which is walked), a file, a Document, or an iterable or async
                iterable of these and of (id, text) pairs; with a custom `load`, of whatever it
                accepts. Or a DataFrame of pandas or polars: its columns `id` and `text` become
                Documents, with the other columns as metadata (see FrameSource).
            progress_callback: as for `AsyncBatchProcessor.process`.
            total: as for `AsyncBatchProcessor.process`.
            max_items: process only the first sources, as a pilot; the rest stay pending.
            prune: at the end, remove stored documents whose file is no longer in the folders among
                `sources`, or whose row is no longer in its file. Documents of other folders stay,
                and so do Documents passed as sources. A document that failed keeps its old
                version, unless it is an empty file that `on_unreadable` skips. Nothing is removed
                if the run did not finish or had `max_items`. If a folder is empty or missing while
                the store has documents of it, the run is refused, because its disk is probably not
                mounted; "force" removes these documents too.

        Raises:
            FileNotFoundError: a str names no existing path.
            TypeError: `prune` needs a store that can list the documents of a folder.
            ValueError: `prune` needs a folder among the sources; or a file is not below `root`.
            RunRefused: stored documents would be lost.
            RunAsyncError: a stage uses an object of another event loop.
        """
        resolved = await asyncio.to_thread(self._resolver.resolve, sources, prune=prune)
        job_run, _ = self._new_run(resolved, progress_callback, total, max_items)
        return await job_run.complete()

    @explains_arguments
    def process_sync(
        self,
        sources: Sources,
        progress_callback: ProgressCallback | None = None,
        *,
        total: int | None = None,
        max_items: int | None = None,
        prune: Prune = False,
    ) -> BatchResult[ProcessedDocument]:
        """Run `process` from sync code; see `run_async`."""
        return run_async(
            self.process(sources, progress_callback, total=total, max_items=max_items, prune=prune)
        )

    @explains_arguments
    async def stream(
        self, sources: Sources, *, ordered: bool = False, total: int | None = None
    ) -> AsyncGenerator[Outcome[Any, ProcessedDocument], None]:
        """Yield the outcome of each document when it is done; see `AsyncBatchProcessor.stream`."""
        resolved = await asyncio.to_thread(self._resolver.resolve, sources, prune=False)
        settings, pipeline = self._settings_of(resolved)
        outcomes = stream_outcomes(
            settings, resolved.labeled_items, ordered=ordered, total=total, inner=pipeline
        )
        async with aclosing(outcomes):
            async for outcome in outcomes:
                yield outcome

    @explains_arguments
    def start(
        self,
        sources: Sources,
        progress_callback: ProgressCallback | None = None,
        *,
        total: int | None = None,
        max_items: int | None = None,
        on_current_loop: bool = False,
        prune: Prune = False,
    ) -> DocumentJob:
        """
        Start a background DocumentJob; see `AsyncBatchProcessor.start`.

        Folders are walked before this returns, so that the job knows its total.
        """
        resolved = self._resolver.resolve(sources, prune=prune)
        job_run, pipeline = self._new_run(resolved, progress_callback, total, max_items)
        return DocumentJob(job_run, loop_for_job(on_current_loop), pipeline)

    def _new_run(
        self,
        sources: RunSources,
        progress_callback: ProgressCallback | None,
        total: int | None,
        max_items: int | None,
    ) -> tuple[JobRun[Any, ProcessedDocument], Pipeline]:
        """Create a run over sources, and its pipeline."""
        if max_items is not None:
            sources.pruner = None  # a pilot has not seen all files
            sources.max_items = max_items  # checked when the run is made
        settings, pipeline = self._settings_of(sources)
        job_run = self._processor._new_run(
            sources.labeled_items, progress_callback, total, max_items, settings, pipeline
        )
        return job_run, pipeline

    def _settings_of(
        self, sources: RunSources
    ) -> tuple[BatchSettings[Any, ProcessedDocument], Pipeline]:
        """The settings of a run over sources, and its pipeline."""
        pipeline = Pipeline(self._config, sources)
        settings = replace(self._processor._settings, process_fn=pipeline.process)
        if settings.journal is None or (holds := settings.journal.is_still_valid) is None:
            return settings, pipeline

        def is_still_valid(source: object, done: ProcessedDocument) -> bool:
            return holds(source, done) and sources.recall(source, done)

        journal = replace(settings.journal, is_still_valid=is_still_valid)
        return replace(settings, journal=journal), pipeline

    async def _rerun(
        self, items: Sequence[Any], kept: Iterable[Outcome[Any, ProcessedDocument]] = ()
    ) -> BatchResult[ProcessedDocument]:
        """Process items of an earlier result again; `kept` are the outcomes that stay."""
        sources = RunSources()
        for outcome in kept:
            claim(sources.taken, outcome.item)
            if isinstance(outcome.value, ProcessedDocument):
                sources.recall(outcome.item, outcome.value)
        for item in items:
            claim(sources.taken, item)
        settings, pipeline = self._settings_of(sources)
        return await self._processor._rerun(items, settings=settings, inner=pipeline)

    def __repr__(self) -> str:
        config = self._config
        return (
            f"<AsyncDocumentProcessor embed={config.embedder.name}, "
            f"batch_size={config.embed.batch_size}, max_concurrency={config.max_concurrency}>"
        )


async def _process(source: object) -> ProcessedDocument:
    """Stand in for the `process` of a run's pipeline, of which each run has its own."""
    raise NotImplementedError
