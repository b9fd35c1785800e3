"""How a document is handed to a store, or to a function that is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragasync._retries.classify import FATAL, Verdict, verdict_of
from ragasync._retries.policy import AsyncRetry
from ragasync.arguments import check_process_fn
from ragasync.documents.embedding_cache import EmbedderInStore, supports_embedder_identity
from ragasync.documents.models import Chunk, Document
from ragasync.documents.stage import Stage
from ragasync.documents.store import EmbedderMismatch, StoreNotWritable
from ragasync.foreign_errors import is_a
from ragasync.settings import BatchSettings


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """What a store gets of one document."""

    document: Document
    chunks: Sequence[Chunk]
    embeddings: NDArray[np.float32]
    fingerprint: str
    embedder: EmbedderInStore


def storing_plan(
    stage: Stage,
    *,
    max_concurrency: int,
    retry: AsyncRetry,
    timeout: float | None,
    max_initial_failures: int | None = None,
) -> BatchSettings[Any, Any]:
    """
    Return the plan for storing; a Store takes one document at a time.

    Args:
        stage: the stage as it was given.
        max_concurrency: the most calls of a function at once.
        retry: when a failed call is tried again.
        timeout: seconds for one attempt.
        max_initial_failures: how many first calls that fail alike stop the run.

    Raises:
        ValueError: a Store is given resources.
    """
    is_store = hasattr(stage.fn, "upsert")
    if is_store and stage.resources is not None:
        raise ValueError("resources are passed to a function, and a Store has its own: leave out")
    plan = stage.plan(
        _upsert_to(stage.fn) if is_store else _handed_to(stage.function),
        max_concurrency=1 if is_store else max_concurrency,
        retry=retry,
        timeout=timeout,
        max_initial_failures=max_initial_failures,
    )
    return replace(plan, retry=replace(plan.retry, retry_on=_unless_refused(plan.retry)))


def _unless_refused(retry: AsyncRetry) -> Callable[[Exception], Verdict]:
    """Return the policy's own judgement, but for a store that refuses all."""

    def verdict(error: Exception) -> Verdict:
        return (
            FATAL
            if is_a(error, (EmbedderMismatch, StoreNotWritable))
            else verdict_of(error, retry.retry_on)
        )

    return verdict


def _upsert_to(store: Any) -> Callable[[StoreRequest], object]:
    """Return the call that stores a request in a Store."""
    takes_identity = supports_embedder_identity(store)

    def put(request: StoreRequest) -> object:
        name, identity = request.embedder.known_as
        return store.upsert(
            request.document,
            request.chunks,
            request.embeddings,
            fingerprint=request.fingerprint,
            embedder=name,
            **({"identity": identity} if takes_identity else {}),
        )

    return put


def _handed_to(function: Callable[..., Any]) -> Callable[..., object]:
    """Return the call that hands a request to a function of document, chunks and embeddings."""

    def call_function(request: StoreRequest, *resource: object) -> object:
        return function(request.document, request.chunks, request.embeddings, *resource)

    async def call_function_async(request: StoreRequest, *resource: object) -> object:
        return await function(request.document, request.chunks, request.embeddings, *resource)

    return call_function_async if check_process_fn(function) else call_function
