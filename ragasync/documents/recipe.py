"""What every run of one document processor does: a plan for each stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragasync.calling.calls import is_async
from ragasync.documents.document import Chunk, Document
from ragasync.documents.failures import RunEnding
from ragasync.documents.hops import InOneHop
from ragasync.documents.load import LOADER_VERSION
from ragasync.documents.prepare import (
    Finished,
    LoadAndCut,
    Recognise,
    as_chunks,
    as_document,
    as_rows,
    finished,
)
from ragasync.documents.stage import Stage
from ragasync.documents.store import Store, WrongEmbedder
from ragasync.errors import JobStopped, StageFailure
from ragasync.limits.limiter import Limiter
from ragasync.plan import Plan
from ragasync.retries.causes import FATAL, default_verdict
from ragasync.retries.retry import AsyncRetry
from ragasync.retries.retry_on import Verdict, verdict_of

StagePlan: TypeAlias = Plan[Any, Any]


@dataclass(frozen=True, slots=True)
class Parcel:
    """What a store gets of one document."""

    document: Document
    chunks: Sequence[Chunk]
    embeddings: NDArray[np.float32]
    fingerprint: str
    embedder: str


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


@dataclass(frozen=True, slots=True)
class Recipe:
    """
    What every run of one processor does with a document.

    Args:
        prepare: loads, asks the store and cuts several sources in one call on a thread; None
            where these are stages of their own.
        load: makes a Document of a source.
        recognise: tells a document's fingerprint, and whether the store has it; None where no
            store can say.
        chunk: makes Chunks of a text.
        embed: makes vectors of texts.
        store: stores a Parcel, or None to keep everything in the result.
        embedder: the embedder's name.
        at_once: how many documents may be loaded and cut at once.
        room: how many chunks may be on their way: in calls, as many waiting for these, and as
            many for documents that wait for their last chunk or the store.
        keep_all: whether the result keeps texts and vectors.
    """

    prepare: StagePlan | None
    load: StagePlan
    recognise: StagePlan | None
    chunk: StagePlan
    embed: StagePlan
    store: StagePlan | None
    embedder: str
    at_once: int
    room: int
    keep_all: bool


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
    loading = load.plan(finished(load.function, as_document), **hops)
    cutting = chunk.plan(finished(chunk.function, as_chunks), **hops)
    embedding = _embedding(stages.embed, settings)
    recognise = None if known is None else Recognise(stages.pipeline(settings.version), known)
    prepare: StagePlan | None = None
    if load.is_plain and chunk.is_plain and not (settings.executor or settings.timeout):
        parts = Finished(load.function, as_document), Finished(chunk.function, as_chunks)
        prepare = Plan(InOneHop(LoadAndCut(parts[0], recognise, parts[1])), False, **common)
    return Recipe(
        prepare=prepare,
        load=loading,
        recognise=None if recognise is None else Plan(recognise, False, **common),
        chunk=cutting,
        embed=embedding,
        store=None if stages.store is None else _storing(stages.store, settings),
        embedder=stages.embed.fingerprint(),
        at_once=max(loading.max_concurrency, cutting.max_concurrency),
        room=3 * embedding.max_concurrency * embedding.batch_size,
        keep_all=settings.keep_all or stages.store is None,
    )


def _embedding(stage: Stage, settings: Settings) -> StagePlan:
    """Return the plan for embedding batches of texts."""
    return stage.plan(
        finished(stage.function, as_rows),
        max_concurrency=settings.embed_concurrency,
        batched=True,
        batch_size=settings.batch_size,
        rate_limiter=settings.rate_limiter,
        retry=settings.retry,
        timeout=settings.timeout,
    )


def ends_the_run(error: Exception) -> Verdict:
    """Return FATAL for what every other document would meet too; nothing is tried again."""
    inner = error.error if isinstance(error, StageFailure) else error
    if isinstance(error, RunEnding) or isinstance(inner, WrongEmbedder | JobStopped):
        return FATAL
    return FATAL if default_verdict(inner) is FATAL else False


def _storing(stage: Stage, settings: Settings) -> StagePlan:
    """Return the plan for storing; a Store takes one document at a time."""
    is_store = hasattr(stage.fn, "upsert")
    if is_store and stage.resources is not None:
        raise ValueError("resources are passed to a function, and a Store has its own: leave out")
    plan = stage.plan(
        _upsert_to(stage.fn) if is_store else _handed_to(stage.function),
        max_concurrency=1 if is_store else settings.embed_concurrency,
        retry=settings.retry,
        timeout=settings.timeout,
    )
    return replace(plan, retry=replace(plan.retry, retry_on=_unless_refused(plan.retry)))


def _unless_refused(retry: AsyncRetry) -> Callable[[Exception], Verdict]:
    """Return the policy's own judgement, but for a store that refuses the embedder."""

    def verdict(error: Exception) -> Verdict:
        return FATAL if isinstance(error, WrongEmbedder) else verdict_of(error, retry.retry_on)

    return verdict


def _upsert_to(store: Any) -> Callable[[Parcel], object]:
    """Return the call that stores a parcel in a Store."""

    def put(parcel: Parcel) -> object:
        return store.upsert(
            parcel.document,
            parcel.chunks,
            parcel.embeddings,
            fingerprint=parcel.fingerprint,
            embedder=parcel.embedder,
        )

    return put


def _handed_to(function: Callable[..., Any]) -> Callable[..., object]:
    """Return the call that hands a parcel to a function of document, chunks and embeddings."""

    def hand_over(parcel: Parcel, *resource: object) -> object:
        return function(parcel.document, parcel.chunks, parcel.embeddings, *resource)

    async def hand_over_async(parcel: Parcel, *resource: object) -> object:
        return await function(parcel.document, parcel.chunks, parcel.embeddings, *resource)

    return hand_over_async if is_async(function) else hand_over
