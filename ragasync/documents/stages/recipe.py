"""What every run of one document processor does: a plan for each stage."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeAlias

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
from ragasync.documents.loaders.load import LOADER_VERSION
from ragasync.documents.metering import metering
from ragasync.documents.sources.file_ids import FileIds
from ragasync.documents.stage import Stage
from ragasync.documents.stages.failures import Postponed, RunEnding
from ragasync.documents.stages.hops import InOneHop
from ragasync.documents.stages.prepare import (
    Check,
    Finished,
    LoadAndCut,
    Recognise,
    check_of,
    finished,
)
from ragasync.documents.stages.skipping import Skips
from ragasync.documents.stages.stage_values import as_chunks, as_documents, as_rows
from ragasync.documents.stages.storing import storing_plan
from ragasync.documents.store import EmbedderMismatch, Store
from ragasync.errors import JobStopped, StageFailure
from ragasync.foreign_errors import is_a
from ragasync.function_code import Sources
from ragasync.journal.use import users_line
from ragasync.limits.limiter import Limiter
from ragasync.retries.classify import FATAL, default_retry
from ragasync.retries.policy import AsyncRetry
from ragasync.retries.retry_on import Verdict
from ragasync.settings import BatchSettings

StagePlan: TypeAlias = BatchSettings[Any, Any]


@dataclass(frozen=True, slots=True)
class Stages:
    """The stages as they were given; `store` is None where the result keeps everything."""

    load: Stage
    chunk: Stage
    embed: Stage
    store: Stage | None

    @property
    def known(self) -> Store | None:
        """The store that can tell what it has, if there is one."""
        store = None if self.store is None else self.store.fn
        return store if hasattr(store, "fingerprint_of") else None  # type: ignore[return-value]

    def fingerprint(
        self, version: str, embedder: EmbedderIdentity, sources: Sources
    ) -> StagesFingerprint:
        """Return what changes when load or chunk does, or, where a store needs it, the embedder."""
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
        """Return whose vectors the embed stage makes."""
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
    """What the stages share that have nothing of their own; see AsyncDocumentProcessor."""

    max_concurrency: int
    batch_size: int
    embed_concurrency: int
    rate_limiter: Limiter | Sequence[Limiter] | None
    retry: AsyncRetry
    timeout: float | None
    executor: Executor | None
    version: str
    keep_all: bool
    cache: bool
    max_cost: float | None
    max_initial_failures: int | None
    skips: Skips
    ids: FileIds


@dataclass(frozen=True, slots=True)
class Recipe:
    """
    What every run of one processor does with a document.

    Args:
        prepare: loads, asks the store and cuts several sources in one call on a thread; None
            where these are stages of their own.
        load_and_cut: what that call calls for each source; None likewise.
        load: makes a Document of a source.
        recognise: tells a document's fingerprint, and whether the store has it; None where no
            store can say.
        chunk: makes Chunks of a text.
        check: raises what the store cannot take, before it is embedded.
        recall: returns the vectors that the store has of chunks; None where it cannot tell.
        embed: makes vectors of texts.
        store: stores a Parcel, or None to keep everything in the result.
        embedder: the embedder as the store knows it.
        fingerprint: what the stages before the store are.
        at_once: how many documents may be loaded and cut at once.
        room: how many chunks may be on their way: in calls, as many waiting for these, and as
            many for documents that wait for their last chunk or the store.
        keep_all: whether the result keeps texts and vectors.
        max_cost: the money at which the run stops, or None.
        skips: which sources that cannot be read are passed over.
        ids: makes the ids of files.
        known: the store that can tell what it has, if there is one.
        load_function: the function that loads, as it was given.
        made_at: the file and the line where the user made the processor.
    """

    prepare: StagePlan | None
    load_and_cut: LoadAndCut | None
    load: StagePlan
    recognise: StagePlan | None
    chunk: StagePlan
    check: Check
    recall: StagePlan | None
    embed: StagePlan
    store: StagePlan | None
    embedder: EmbedderInStore
    fingerprint: StagesFingerprint
    at_once: int
    room: int
    keep_all: bool
    max_cost: float | None
    skips: Skips
    ids: FileIds
    known: Store | None
    load_function: StageFunction
    made_at: tuple[str, int]


def recipe_of(stages: Stages, settings: Settings) -> Recipe:
    """
    Return the recipe for these stages.

    Sync functions for load and chunk with nothing of their own share one hop to a thread; the
    store is asked there too. To other processes they go one by one, because a store cannot
    travel, and with a time limit too, because that is for a call of each.
    """
    load, chunk, known = stages.load, stages.chunk, stages.known
    common: dict[str, Any] = {
        "max_concurrency": settings.max_concurrency,
        "retry": AsyncRetry(0, retry_on=ends_the_run),
        "timeout": settings.timeout,
    }
    hops: dict[str, Any] = {**common, "batch_size": 1, "executor": settings.executor}
    loading = load.plan(finished(load.function, as_documents), **hops)
    cutting = chunk.plan(finished(chunk.function, as_chunks), **hops)
    embedding = _embedding(stages.embed, settings)
    sources = Sources()
    identity = stages.embedder(settings.version, sources)
    embedder = EmbedderInStore(known, identity, stages.embed.function)
    fingerprint = stages.fingerprint(settings.version, identity, sources)
    recognise = None if known is None else Recognise(fingerprint, known, settings.ids)
    check = check_of(known)
    recall = cached_embeddings(known, embedder, settings.cache)
    load_and_cut: LoadAndCut | None = None
    if load.is_plain and chunk.is_plain and not (settings.executor or settings.timeout):
        parts = Finished(load.function, as_documents), Finished(chunk.function, as_chunks)
        load_and_cut = LoadAndCut(parts[0], recognise, parts[1], check, recall)
    return Recipe(
        prepare=None
        if load_and_cut is None
        else BatchSettings(InOneHop(load_and_cut), False, **common),
        load_and_cut=load_and_cut,
        load=loading,
        recognise=None if recognise is None else BatchSettings(recognise, False, **common),
        chunk=cutting,
        recall=None if recall is None else BatchSettings(recall, False, **common),
        embed=embedding,
        store=None if stages.store is None else _storing(stages.store, settings),
        check=check,
        embedder=embedder,
        fingerprint=fingerprint,
        at_once=max(loading.max_concurrency, cutting.max_concurrency),
        room=3 * embedding.max_concurrency * embedding.batch_size,
        keep_all=settings.keep_all or stages.store is None,
        max_cost=settings.max_cost,
        skips=settings.skips,
        ids=settings.ids,
        known=known,
        load_function=load.function,
        made_at=users_line(),
    )


def _embedding(stage: Stage, settings: Settings) -> StagePlan:
    """Return the plan for embedding batches of texts."""
    return stage.plan(
        metering(finished(stage.function, as_rows)),
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
    Return FATAL for what every other document would meet too; nothing is tried again.

    What was postponed would be, if the run did not stop: so it is left undone.
    """
    if is_a(error, Postponed):
        return True
    inner = error.error if is_a(error, StageFailure) else error
    if is_a(error, RunEnding) or is_a(inner, (EmbedderMismatch, JobStopped)):
        return FATAL
    return FATAL if default_retry(inner) is FATAL else False


def _storing(stage: Stage, settings: Settings) -> StagePlan:
    """Return the plan for storing."""
    return storing_plan(
        stage,
        max_concurrency=settings.embed_concurrency,
        retry=settings.retry,
        timeout=settings.timeout,
        max_initial_failures=settings.max_initial_failures,
    )
