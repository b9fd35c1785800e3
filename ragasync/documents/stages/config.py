"""PipelineConfig: the plan of each stage, and the settings, of a document processor."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeAlias

from ragasync._calls.thread_batches import BatchCall
from ragasync._function_fingerprint import Sources
from ragasync._limits.limiter import Limiter
from ragasync._retries.classify import FATAL, Verdict, default_retry
from ragasync._retries.policy import AsyncRetry
from ragasync.documents.embedding_cache import (
    EmbedderInStore,
    cached_embeddings,
    supports_embedder_identity,
)
from ragasync.documents.fingerprints import (
    EmbedderIdentity,
    StageFunction,
    StagesFingerprint,
    embedder_identity,
    stage_fingerprint,
)
from ragasync.documents.loaders import LOADER_VERSION
from ragasync.documents.metering import metering
from ragasync.documents.sources import FileIds
from ragasync.documents.stage import Stage
from ragasync.documents.stages.failures import DocumentDeferred, FatalStageError
from ragasync.documents.stages.prepare import (
    Check,
    LoadAndChunk,
    StoreLookup,
    WrappedOutput,
    check_of,
    wrap_output,
)
from ragasync.documents.stages.skip_policy import SkipPolicy
from ragasync.documents.stages.stage_values import as_chunks, as_documents, to_embedding_matrix
from ragasync.documents.stages.storing import storing_plan
from ragasync.documents.store import EmbedderMismatch, Store
from ragasync.errors import JobStopped, StageFailure
from ragasync.foreign_errors import is_a
from ragasync.journal.journal import caller_location
from ragasync.settings import BatchSettings

StagePlan: TypeAlias = BatchSettings[Any, Any]


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

    def embedder(self, version: str, sources: Sources) -> EmbedderIdentity:
        """Identity of the embedder in the embed stage."""
        stage = self.embed
        return embedder_identity(
            stage.function,
            name=stage.name,
            version=stage.version,
            version_of_all=version,
            sources=sources,
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """Defaults for stages without settings of their own; see AsyncDocumentProcessor."""

    max_concurrency: int
    batch_size: int
    embed_concurrency: int
    rate_limiter: Limiter | Sequence[Limiter] | None
    retry: AsyncRetry
    timeout: float | None
    executor: Executor | None
    version: str
    keep_content: bool
    cache: bool
    max_cost: float | None
    max_initial_failures: int | None
    skip_policy: SkipPolicy
    ids: FileIds


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """
    The stages of a processor, as plans of calls, and the settings of its runs.

    Args:
        prepare: loads several sources, looks them up in the store and chunks them, in one call on
            a thread; None if these are separate stages.
        load_and_chunk: does this for one source; None if these are separate stages.
        load: loads the Document of a source.
        look_up: computes a document's fingerprint and looks it up in the store; None without a
            store that can look it up.
        chunk: splits a text into Chunks.
        check: raises the error of a document that the store cannot accept, before it is embedded.
        recall: gets the stored vectors of unchanged chunks; None if the store has no cache.
        embed: embeds texts.
        store: stores a StoreRequest; None to keep everything in the result.
        embedder: the embedder's identity in the store.
        fingerprint: the fingerprint of the stages before the store.
        at_once: the number of documents loaded and chunked concurrently.
        room: the maximum number of chunks in progress: those in calls, as many waiting for a call,
            and as many of documents that wait for their last chunk or the store.
        keep_content: whether the result keeps texts and vectors.
        max_cost: the budget at which the run stops, or None.
        skip_policy: which unreadable sources are skipped.
        ids: makes the ids of files.
        known: the store, if it is one that can report what it holds.
        load_function: the load function as given.
        made_at: the file and line where the user made the processor.
    """

    prepare: StagePlan | None
    load_and_chunk: LoadAndChunk | None
    load: StagePlan
    look_up: StagePlan | None
    chunk: StagePlan
    check: Check
    recall: StagePlan | None
    embed: StagePlan
    store: StagePlan | None
    embedder: EmbedderInStore
    fingerprint: StagesFingerprint
    max_concurrency: int
    room: int
    keep_content: bool
    max_cost: float | None
    skip_policy: SkipPolicy
    ids: FileIds
    known: Store | None
    load_function: StageFunction
    made_at: tuple[str, int]


def pipeline_config(stages: Stages, settings: Settings) -> PipelineConfig:
    """
    Build the configuration for these stages.

    Sync load and chunk functions without settings of their own share one call on a thread, in which
    the store is looked up too. With an executor they are separate calls, because a store cannot be
    pickled; with a time limit too, because the limit applies to each call.
    """
    load, chunk, known = stages.load, stages.chunk, stages.known
    common: dict[str, Any] = {
        "max_concurrency": settings.max_concurrency,
        "retry": AsyncRetry(0, retry_on=ends_the_run),
        "timeout": settings.timeout,
    }
    in_groups: dict[str, Any] = {**common, "batch_size": 1, "executor": settings.executor}
    loading = load.plan(wrap_output(load.function, as_documents), **in_groups)
    chunking = chunk.plan(wrap_output(chunk.function, as_chunks), **in_groups)
    embedding = _embedding(stages.embed, settings)
    sources = Sources()
    identity = stages.embedder(settings.version, sources)
    embedder = EmbedderInStore(known, identity, stages.embed.function)
    fingerprint = stages.fingerprint(settings.version, identity, sources)
    look_up = None if known is None else StoreLookup(fingerprint, known, settings.ids)
    check = check_of(known)
    recall = cached_embeddings(known, embedder, settings.cache)
    load_and_chunk: LoadAndChunk | None = None
    if load.is_plain and chunk.is_plain and not (settings.executor or settings.timeout):
        parts = WrappedOutput(load.function, as_documents), WrappedOutput(chunk.function, as_chunks)
        load_and_chunk = LoadAndChunk(parts[0], look_up, parts[1], check, recall)
    return PipelineConfig(
        prepare=None
        if load_and_chunk is None
        else BatchSettings(BatchCall(load_and_chunk), False, **common),
        load_and_chunk=load_and_chunk,
        load=loading,
        look_up=None if look_up is None else BatchSettings(look_up, False, **common),
        chunk=chunking,
        recall=None if recall is None else BatchSettings(recall, False, **common),
        embed=embedding,
        store=None if stages.store is None else _storing(stages.store, settings),
        check=check,
        embedder=embedder,
        fingerprint=fingerprint,
        max_concurrency=max(loading.max_concurrency, chunking.max_concurrency),
        room=3 * embedding.max_concurrency * embedding.batch_size,
        keep_content=settings.keep_content or stages.store is None,
        max_cost=settings.max_cost,
        skip_policy=settings.skip_policy,
        ids=settings.ids,
        known=known,
        load_function=load.function,
        made_at=caller_location(),
    )


def _embedding(stage: Stage, settings: Settings) -> StagePlan:
    """Plan of the embed stage, for batches of texts."""
    return stage.plan(
        metering(wrap_output(stage.function, to_embedding_matrix)),
        max_concurrency=settings.embed_concurrency,
        batched=True,
        batch_size=settings.batch_size,
        rate_limiter=settings.rate_limiter,
        retry=settings.retry,
        timeout=settings.timeout,
        max_initial_failures=settings.max_initial_failures,
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


def _storing(stage: Stage, settings: Settings) -> StagePlan:
    """Plan of the store stage."""
    return storing_plan(
        stage,
        max_concurrency=settings.embed_concurrency,
        retry=settings.retry,
        timeout=settings.timeout,
        max_initial_failures=settings.max_initial_failures,
    )
