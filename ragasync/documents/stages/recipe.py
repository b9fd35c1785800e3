"""What every run of one document processor does: a plan for each stage."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeAlias

from ragasync.documents.fingerprint import StageFunction
from ragasync.documents.loaders.load import LOADER_VERSION
from ragasync.documents.metering import metering
from ragasync.documents.sources.file_ids import FileIds
from ragasync.documents.stage import Stage
from ragasync.documents.stages.caching import VectorMark, recall_of
from ragasync.documents.stages.failures import Postponed, RunEnding
from ragasync.documents.stages.hops import InOneHop
from ragasync.documents.stages.prepare import Finished, LoadAndCut, Recognise, finished
from ragasync.documents.stages.skipping import Skips
from ragasync.documents.stages.stage_values import as_chunks, as_documents, as_rows
from ragasync.documents.stages.storing import storing_plan
from ragasync.documents.store import Store, WrongEmbedder
from ragasync.errors import JobStopped, StageFailure
from ragasync.foreign_errors import is_a
from ragasync.limits.limiter import Limiter
from ragasync.plan import Plan
from ragasync.retries.causes import FATAL, default_verdict
from ragasync.retries.retry import AsyncRetry
from ragasync.retries.retry_on import Verdict

StagePlan: TypeAlias = Plan[Any, Any]


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

    def pipeline(self, version: str) -> str:
        """Return what changes when any of the stages before the store does."""
        return (
            f"load={self.load.fingerprint(attributes=True)}; "
            f"chunk={self.chunk.fingerprint(attributes=True)}; "
            f"embed={self.embed.fingerprint()}; loaders={LOADER_VERSION}; version={version}"
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
    max_spend: float | None
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
        recall: returns the vectors that the store has of chunks; None where it cannot tell.
        embed: makes vectors of texts.
        store: stores a Parcel, or None to keep everything in the result.
        embedder: the embedder's name.
        at_once: how many documents may be loaded and cut at once.
        room: how many chunks may be on their way: in calls, as many waiting for these, and as
            many for documents that wait for their last chunk or the store.
        keep_all: whether the result keeps texts and vectors.
        max_spend: the money at which the run stops, or None.
        skips: which sources that cannot be read are passed over.
        ids: makes the ids of files.
        known: the store that can tell what it has, if there is one.
        load_function: the function that loads, as it was given.
    """

    prepare: StagePlan | None
    load_and_cut: LoadAndCut | None
    load: StagePlan
    recognise: StagePlan | None
    chunk: StagePlan
    recall: StagePlan | None
    embed: StagePlan
    store: StagePlan | None
    embedder: str
    at_once: int
    room: int
    keep_all: bool
    max_spend: float | None
    skips: Skips
    ids: FileIds
    known: Store | None
    load_function: StageFunction


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
    embedder = stages.embed.fingerprint()
    mark = VectorMark(embedder, settings.version)
    recognise = None if known is None else Recognise(stages.pipeline(settings.version), mark, known)
    recall = recall_of(known, embedder, settings.cache)
    load_and_cut: LoadAndCut | None = None
    if load.is_plain and chunk.is_plain and not (settings.executor or settings.timeout):
        parts = Finished(load.function, as_documents), Finished(chunk.function, as_chunks)
        load_and_cut = LoadAndCut(parts[0], recognise, parts[1], recall)
    return Recipe(
        prepare=None if load_and_cut is None else Plan(InOneHop(load_and_cut), False, **common),
        load_and_cut=load_and_cut,
        load=loading,
        recognise=None if recognise is None else Plan(recognise, False, **common),
        chunk=cutting,
        recall=None if recall is None else Plan(recall, False, **common),
        embed=embedding,
        store=None if stages.store is None else _storing(stages.store, settings),
        embedder=embedder,
        at_once=max(loading.max_concurrency, cutting.max_concurrency),
        room=3 * embedding.max_concurrency * embedding.batch_size,
        keep_all=settings.keep_all or stages.store is None,
        max_spend=settings.max_spend,
        skips=settings.skips,
        ids=settings.ids,
        known=known,
        load_function=load.function,
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
    if is_a(error, RunEnding) or is_a(inner, (WrongEmbedder, JobStopped)):
        return FATAL
    return FATAL if default_verdict(inner) is FATAL else False


def _storing(stage: Stage, settings: Settings) -> StagePlan:
    """Return the plan for storing."""
    return storing_plan(
        stage,
        max_concurrency=settings.embed_concurrency,
        retry=settings.retry,
        timeout=settings.timeout,
        max_initial_failures=settings.max_initial_failures,
    )
