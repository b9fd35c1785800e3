"""PipelineConfig: the settings of the stages of a document processor."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeAlias

from ragasync._function_fingerprint.code import Sources
from ragasync._limits.limiter import Limiter
from ragasync._retries.classify import FATAL, Verdict, default_retry
from ragasync._retries.policy import AsyncRetry
from ragasync.documents.adapters import (
    WrappedOutput,
    as_chunks,
    as_documents,
    check_of,
    store_settings,
    to_embedding_matrix,
    wrap_output,
)
from ragasync.documents.embedders import (
    CALLS_PER_WORKER,
    EmbeddingProcesses,
    HashingEmbedder,
    embed_in_processes,
    max_workers,
)
from ragasync.documents.loaders import LOADER_VERSION, load_source
from ragasync.documents.models import DocumentDeferred, FatalStageError
from ragasync.documents.prepare import LoadAndChunk, PrepareBlock, PrepareOnWorker, StoreSteps
from ragasync.documents.processed import SkipPolicy
from ragasync.documents.sources import FileIds
from ragasync.documents.splitters import RecursiveSplitter
from ragasync.documents.stage import (
    EmbedderIdentity,
    Stage,
    StageFunction,
    StagesFingerprint,
    embedder_identity,
    stage_fingerprint,
)
from ragasync.documents.store import EmbedderMismatch, Store
from ragasync.documents.stored_state import (
    EmbedderInStore,
    cached_embeddings,
    supports_embedder_identity,
)
from ragasync.documents.thread_batches import MAX_CPU_THREADS
from ragasync.errors import JobStopped, StageFailure
from ragasync.foreign_errors import is_a
from ragasync.journal.journal import caller_location
from ragasync.settings import MAX_WORKERS, BatchSettings, check_concurrency, parse_concurrency

CallSettings: TypeAlias = BatchSettings[Any, Any]
"""The settings of the calls of one stage."""

STORE_ROOM = 512
"""Chunks of documents that wait for the transaction in which they are stored together."""

SOURCES_PER_GROUP = 32
"""The maximum number of sources in one hand-over to an executor."""


@dataclass(frozen=True, slots=True)
class Stages:
    """The four stages as given; without a store, the result keeps everything."""

    load: Stage
    chunk: Stage
    embed: Stage
    store: Stage | None

    @property
    def known(self) -> Store | None:
        """The store, if it is one that can report what it holds."""
        store = None if self.store is None else self.store.fn
        return store if hasattr(store, "fingerprint_of") else None  # type: ignore[return-value]

    def fingerprint(
        self, version: str, embedder: EmbedderIdentity, sources: Sources
    ) -> StagesFingerprint:
        """Fingerprint of load and chunk, and of the embedder if the store does not keep its own."""
        load, chunk = (
            stage_fingerprint(
                stage.function,
                name=stage.name,
                version=stage.version or version,
                sources=sources,
            )
            for stage in (self.load, self.chunk)
        )
        keeps_identity = self.known is None or supports_embedder_identity(self.known)
        digest = "" if keeps_identity else embedder.digest
        return StagesFingerprint(load, chunk, LOADER_VERSION, digest)

    def embedder(self, version: str, sources: Sources, *, has_journal: bool) -> EmbedderIdentity:
        """Identity of the embedder in the embed stage, which a store or a journal compares."""
        stage = self.embed
        return embedder_identity(
            stage.function,
            name=stage.name,
            version=stage.version,
            version_of_all=version,
            sources=sources,
            is_compared=has_journal or self.store is not None,
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """Defaults for stages without settings of their own; see AsyncDocumentProcessor."""

    max_concurrency: int
    batch_size: int
    embed_concurrency: int | Literal["auto"]
    store_concurrency: int
    rate_limiter: Limiter | Sequence[Limiter] | None
    retry: AsyncRetry
    timeout: float | None
    executor: Executor | None
    version: str
    has_journal: bool
    keep_content: bool
    cache: bool
    max_initial_failures: int | None
    skip_policy: SkipPolicy
    ids: FileIds


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """
    The stages of a processor, as settings of calls, and the settings of its runs.

    Sources are prepared in one of three ways. Plain load and chunk functions share one call on a
    thread for a block of sources (`prepare_block`), or one call on the executor for each source
    (`prepare`). Functions that are async, or have settings of their own, are stages of their own
    (`load` and `chunk`), and so they are with a time limit, which applies to each call.

    Args:
        prepare_block: prepares a block of sources on a thread, or None.
        prepare: loads and chunks a source on the executor, or None.
        load: loads the Documents of a source, or None.
        chunk: splits a text into Chunks, or None.
        store_steps: the steps before embedding that ask the store.
        embed: embeds texts.
        store: stores StoreRequests; None to keep everything in the result.
        embedder: the embedder's identity in the store.
        fingerprint: the fingerprint of the stages before the store.
        max_concurrency: the number of documents loaded and chunked concurrently.
        keep_content: whether the result keeps texts and vectors.
        skip_policy: which unreadable sources are skipped.
        ids: makes the ids of files.
        known: the store, if it is one that can report what it holds.
        load_function: the load function as given.
        has_store_function: whether documents are stored by a function; a Store is called once at a
            time.
        made_at: the file and line where the user made the processor.
    """

    prepare_block: CallSettings | None
    prepare: CallSettings | None
    load: CallSettings | None
    chunk: CallSettings | None
    store_steps: StoreSteps
    embed: CallSettings
    store: CallSettings | None
    embedder: EmbedderInStore
    fingerprint: StagesFingerprint
    max_concurrency: int
    keep_content: bool
    skip_policy: SkipPolicy
    ids: FileIds
    known: Store | None
    load_function: StageFunction
    has_store_function: bool
    made_at: tuple[str, int]

    @property
    def room(self) -> int:
        """The room for chunks that a run begins with."""
        return self.room_for(self.embed.max_concurrency)

    def room_for(self, embed_concurrency: int) -> int:
        """
        The maximum number of chunks in progress, for a number of concurrent calls of `embed`.

        They are those in calls, as many waiting for a call, as many of documents that wait for
        their last chunk, and those of the documents that are stored in one transaction.
        """
        in_groups = self.store is not None and self.store.batched
        return 3 * embed_concurrency * self.embed.batch_size + STORE_ROOM * in_groups

    def most_documents(self, max_concurrency: int, embed_concurrency: int) -> int:
        """The maximum number of documents in the pipeline, each with at least one chunk."""
        return min(MAX_WORKERS, max_concurrency + self.room_for(embed_concurrency))


def pipeline_config(stages: Stages, settings: Settings) -> PipelineConfig:
    """Build the configuration for these stages."""
    load, chunk, known = stages.load, stages.chunk, stages.known
    common: dict[str, Any] = {
        "max_concurrency": settings.max_concurrency,
        "retry": AsyncRetry(0, retry_on=ends_the_run),
        "timeout": settings.timeout,
    }
    on_workers: dict[str, Any] = {**common, "batch_size": 1, "executor": settings.executor}
    loading = load.plan(wrap_output(load.function, as_documents), **on_workers)
    chunking = chunk.plan(wrap_output(chunk.function, as_chunks), **on_workers)
    check_concurrency(settings.store_concurrency, "store_concurrency")
    limit, adaptive = parse_concurrency(settings.embed_concurrency, "embed_concurrency")
    if (own_limit := stages.embed.max_concurrency) is not None:
        limit, adaptive = parse_concurrency(own_limit)
    elif type(stages.embed.function) is HashingEmbedder:
        limit = min(limit, max(MAX_CPU_THREADS, 1 + CALLS_PER_WORKER * max_workers()))
    embed: StageFunction = stages.embed.function
    processes: dict[str, Any] = {}
    if isinstance(embed, HashingEmbedder) and _may_use_processes(stages, settings):
        processes["resources"] = partial(EmbeddingProcesses.open, embed)
        embed = embed_in_processes
    embedding = replace(stages.embed, max_concurrency=limit).plan(
        wrap_output(embed, to_embedding_matrix),
        adaptive=adaptive,
        **processes,
        batched=True,
        batch_size=settings.batch_size,
        rate_limiter=settings.rate_limiter,
        retry=settings.retry,
        timeout=settings.timeout,
        max_initial_failures=settings.max_initial_failures,
    )
    sources = Sources()
    identity = stages.embedder(settings.version, sources, has_journal=settings.has_journal)
    embedder = EmbedderInStore(known, identity, stages.embed.function)
    fingerprint = stages.fingerprint(settings.version, identity, sources)
    cached = cached_embeddings(known, embedder, settings.cache)
    steps = StoreSteps(fingerprint, known, settings.ids, check_of(known), cached)
    prepare_block: CallSettings | None = None
    prepare: CallSettings | None = None
    if load.is_plain and chunk.is_plain and settings.timeout is None:
        both = LoadAndChunk(
            WrappedOutput(load.function, as_documents), WrappedOutput(chunk.function, as_chunks)
        )
        if settings.executor is None:
            prepare_block = BatchSettings(PrepareBlock(both, steps), False, **common)
        else:
            on_workers["batch_size"] = SOURCES_PER_GROUP
            on_worker = PrepareOnWorker(both, None if known is None else fingerprint.text)
            prepare = BatchSettings(on_worker, False, **on_workers)
    is_separate = prepare_block is None and prepare is None
    storing = None
    if stages.store is not None:
        storing = store_settings(
            stages.store,
            embedder,
            max_concurrency=settings.store_concurrency,
            retry=settings.retry,
            timeout=settings.timeout,
            max_initial_failures=settings.max_initial_failures,
        )
    return PipelineConfig(
        prepare_block=prepare_block,
        prepare=prepare,
        load=loading if is_separate else None,
        chunk=chunking if is_separate else None,
        store_steps=steps,
        embed=embedding,
        store=storing,
        embedder=embedder,
        fingerprint=fingerprint,
        max_concurrency=max(loading.max_concurrency, chunking.max_concurrency),
        keep_content=settings.keep_content or stages.store is None,
        skip_policy=settings.skip_policy,
        ids=settings.ids,
        known=known,
        load_function=load.function,
        has_store_function=stages.store is not None and not hasattr(stages.store.fn, "upsert"),
        made_at=caller_location(),
    )


def _may_use_processes(stages: Stages, settings: Settings) -> bool:
    """Whether worker processes may embed: the functions are our own, without settings."""
    functions = stages.load.fn, type(stages.chunk.fn), type(stages.embed.fn)
    return (
        functions == (load_source, RecursiveSplitter, HashingEmbedder)
        and all(stage.is_plain for stage in (stages.load, stages.chunk, stages.embed))
        and settings.executor is None
        and settings.timeout is None
    )


def ends_the_run(error: BaseException) -> Verdict:
    """
    FATAL for an error that every other document would meet too; other documents are not retried.

    The exception is a deferred document: it counts as one to retry, and because the run stops
    first, it stays pending.
    """
    if is_a(error, DocumentDeferred):
        return True
    inner = error.error if is_a(error, StageFailure) else error
    if is_a(error, FatalStageError) or is_a(inner, (EmbedderMismatch, JobStopped)):
        return FATAL
    return FATAL if default_retry(inner) is FATAL else False
