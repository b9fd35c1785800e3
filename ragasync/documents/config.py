"""PipelineConfig: the settings of all stages; PipelineControls: those that can change in a run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeAlias

from ragasync._engine.controls import RunControls
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
from ragasync.documents.document_records import SkipPolicy
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
from ragasync.documents.sources import FileIds
from ragasync.documents.splitters import RecursiveSplitter
from ragasync.documents.stage import (
    EmbedderIdentity,
    Stage,
    StageFunction,
    StagesFingerprint,
    check_parameters,
    embedder_identity,
    stage_fingerprint,
)
from ragasync.documents.store import EmbedderMismatch, Store
from ragasync.documents.stored_state import (
    EmbedderInStore,
    cached_embeddings,
    supports_embedder_identity,
)
from ragasync.documents.thread_batches import MAX_CPU_THREADS, ThreadBatcher
from ragasync.errors import JobStopped, StageFailure
from ragasync.foreign_errors import is_a
from ragasync.journal.journal import caller_location
from ragasync.settings import MAX_WORKERS, BatchSettings, check_concurrency, parse_concurrency

CallSettings: TypeAlias = BatchSettings[Any, Any]
"""The settings of the calls of one stage."""

STORE_ROOM = 512
"""Chunks of documents that wait for the transaction in which they are stored together."""

SOURCES_PER_GROUP = 128
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

    def check_parameters(self) -> None:
        """
        Refuse functions that cannot be called with the arguments of their stage.

        Raises:
            TypeError: one of them takes fewer arguments, or requires more.
        """
        check_parameters(self.load, "source")
        check_parameters(self.chunk, "text")
        check_parameters(self.embed, "texts")
        if self.store is not None and not hasattr(self.store.fn, "upsert"):
            check_parameters(self.store, "document", "chunks", "embeddings")

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
        embed_computes: whether it takes as many calls as there are cores for it, and no more help.
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
    embed_computes: bool
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

        They are those in calls and as many waiting for a call; with a store, as many of documents
        that are being stored, and those of the documents in one transaction. More of them would be
        chunked early, when the processor is busy, and only wait.
        """
        has_store = self.store is not None
        in_groups = self.store is not None and self.store.batched
        room = (2 + has_store) * embed_concurrency * self.embed.batch_size
        return room + STORE_ROOM * in_groups

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
    own_limit = stages.embed.max_concurrency
    computes = own_limit is None and type(stages.embed.function) is HashingEmbedder
    if own_limit is not None:
        limit, adaptive = parse_concurrency(own_limit)
    elif computes:
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
        embed_computes=computes,
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


SETTINGS = {"embed": "embed_concurrency", "store": "store_concurrency"}
"""The settings for concurrent calls of these stages; that of the others is `max_concurrency`."""


class PipelineControls:
    """
    The settings of a pipeline that can change while it runs, and the stages that follow them.

    A setting may be assigned from any thread, at any time. It takes effect in `apply`, which is
    called on the run's loop: a limit that is lowered lets calls in flight finish.

    Args:
        config: the settings that the run begins with.

    Attributes:
        rate: the maximum number of calls of `embed` per second, on top of its limiters.
        budget: the bound on chunks in progress, which follows `embed_concurrency`.
    """

    def __init__(self, config: PipelineConfig) -> None:
        self._config = config
        self._max_concurrency: int | None = None  # while it is unset, stages may differ in theirs
        self._embed_concurrency = config.embed.max_concurrency
        self._store_concurrency = 1 if config.store is None else config.store.max_concurrency
        self.embed_is_adaptive = config.embed.adaptive
        self.rate: float | None = None
        self.budget = ChunkBudget(config.room)
        self._run: RunControls | None = None
        self._threads: list[ThreadBatcher[Any, Any]] = []
        self._stages: dict[str, RunControls] = {}

    # ── the settings ──────────────────────────────────────────────────────────────────────────

    @property
    def max_concurrency(self) -> int:
        """The maximum number of documents that are loaded and chunked concurrently."""
        return self._max_concurrency or self._config.max_concurrency

    @max_concurrency.setter
    def max_concurrency(self, value: int) -> None:
        self._max_concurrency = value

    @property
    def embed_concurrency(self) -> int:
        """The maximum number of concurrent calls of `embed`; if adaptive, the limit in force."""
        embed = self._stages.get("embed")
        if self.embed_is_adaptive and embed is not None:
            return embed.max_concurrency
        return self._embed_concurrency

    @embed_concurrency.setter
    def embed_concurrency(self, value: int) -> None:
        self._embed_concurrency, self.embed_is_adaptive = value, False

    def adapt_embed_concurrency(self) -> None:
        """
        Adapt the number of concurrent calls of `embed` to its service.

        Raises:
            ValueError: these calls run on an executor, which has a fixed number of workers.
        """
        self._config.embed.check_adaptable()
        self.embed_is_adaptive = True

    @property
    def store_concurrency(self) -> int:
        """The maximum number of concurrent calls of a `store` function; of a Store, always 1."""
        return self._store_concurrency

    @store_concurrency.setter
    def store_concurrency(self, value: int) -> None:
        if self.has_store_function:
            self._store_concurrency = value

    @property
    def has_store_function(self) -> bool:
        """Whether documents are stored by a function; a Store is called once at a time."""
        return self._config.has_store_function

    def setting_of(self, stage: str) -> str:
        """The name of the setting for concurrent calls of a stage; empty if none would help."""
        if stage == "store" and not self.has_store_function:
            return ""
        if stage == "embed" and self._config.embed_computes:
            return ""
        return SETTINGS.get(stage, "max_concurrency")

    # ── what follows them ─────────────────────────────────────────────────────────────────────

    def attach_run(self, run: RunControls) -> None:
        """Have the run whose items are the sources take as many as the pipeline has room for."""
        self._run = run
        self.resize_room()

    def attach_threads(self, threads: ThreadBatcher[Any, Any]) -> None:
        """Have the threads that load and chunk follow `max_concurrency`."""
        self._threads.append(threads)

    def attach_stage(self, name: str, stage: RunControls) -> None:
        """Have a stage follow its setting."""
        self._stages[name] = stage
        self.apply()

    def apply(self) -> None:
        """Apply the settings to all stages; on the run's loop."""
        for threads in self._threads:
            threads.resize(self.max_concurrency)
        for name, stage in self._stages.items():
            if name == "embed":
                self._apply_to_embed(stage)
            elif name == "store":
                _resize(stage, self._store_concurrency)
            elif self._max_concurrency is not None:
                _resize(stage, self._max_concurrency)
        self.resize_room()

    def _apply_to_embed(self, stage: RunControls) -> None:
        """Apply the settings of `embed`."""
        if not self.embed_is_adaptive:
            _resize(stage, self._embed_concurrency)
        elif not stage.adaptive:
            stage.adapt()
        if stage.rate != self.rate:
            stage.set_rate(self.rate)

    def resize_room(self) -> None:
        """Let the room for chunks and documents follow the concurrency of `embed`."""
        self.budget.resize(self._config.room_for(self.embed_concurrency))
        if self._run is not None:
            most = self._config.most_documents(self.max_concurrency, self.embed_concurrency)
            _resize(self._run, most)


def _resize(run: RunControls, max_concurrency: int) -> None:
    """Allow a run this number of concurrent calls, unless it does already."""
    if run.adaptive or run.max_concurrency != max_concurrency:
        run.resize(max_concurrency)


class ChunkBudget:
    """
    Bounds the chunks in progress; documents enter first come, first served.

    A document of any size enters, because none counts for more than half of the budget; so the
    stages are never idle between two large ones.

    Args:
        size: the maximum number of chunks.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._taken = 0
        self._entrance = asyncio.Lock()
        self._left = asyncio.Event()

    def enter_now(self, chunks: int) -> int | None:
        """Let a document in if there is room; return the room that it takes, else None."""
        weight = self._weight_of(chunks)
        if self._entrance.locked() or self._taken + weight > self._size:
            return None
        self._taken += weight
        return weight

    def enter_last(self, chunks: int) -> int:
        """Let a document in that may fill the room beyond its bound; return what it takes."""
        weight = self._weight_of(chunks)
        self._taken += weight
        return weight

    @property
    def free(self) -> int:
        """The room that is left; negative if the last document exceeded it."""
        return self._size - self._taken

    @property
    def is_full(self) -> bool:
        """Whether a document would have to wait."""
        return self._taken >= self._size or self._entrance.locked()

    async def enter(self, chunks: int) -> int:
        """Wait until there is room for a document; return the room that it takes."""
        async with self._entrance:
            while self._taken + (weight := self._weight_of(chunks)) > self._size:
                self._left.clear()
                await self._left.wait()
            self._taken += weight
        return weight

    def leave(self, weight: int) -> None:
        """Give room back."""
        self._taken -= weight
        self._left.set()

    def resize(self, size: int) -> None:
        """Allow more or fewer chunks; those in progress stay."""
        self._size = size
        self._left.set()

    def _weight_of(self, chunks: int) -> int:
        """The room that a document takes now: a smaller budget gives it no more than half."""
        most = self._size // 2
        return min(chunks, most) or 1
