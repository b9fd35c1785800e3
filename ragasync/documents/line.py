"""One run of the pipeline: its stages, open, and the way of a document through them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.document import Chunk, Document
from ragasync.documents.prepare import Prepared
from ragasync.documents.processed import ProcessedDocument
from ragasync.documents.store import checked_vectors
from ragasync.engine.service import ItemError, Service
from ragasync.errors import RunAsyncError, StageFailure
from ragasync.plan import Plan


@dataclass(frozen=True, slots=True)
class Recipe:
    """
    What every run of one processor does with a document.

    Args:
        load: loads a source; None where `prepare` does that too.
        prepare: the plan that makes a Prepared of what was loaded, or of a source.
        embed: the plan that makes vectors of texts.
        store: the plan that stores a Parcel, or None to keep documents in the result.
        embedder: the embedder's name.
        keep_all: whether the result keeps texts and vectors that a store has.
        backlog: how many chunks may wait before no further document is begun.
    """

    load: Plan[Any, Any] | None
    prepare: Plan[Any, Any]
    embed: Plan[Any, Any]
    store: Plan[Any, Any] | None
    embedder: str
    keep_all: bool
    backlog: int


@dataclass(frozen=True, slots=True)
class Parcel:
    """What a store gets of one document."""

    document: Document
    chunks: Sequence[Chunk]
    embeddings: NDArray[np.float32]
    fingerprint: str
    embedder: str


class Line:
    """
    The stages of one run, open at the same time, each with its own window.

    A document passes through them as one coroutine that awaits a stage after the other; the
    chunks of many documents meet in the batches of the embedding stage.
    """

    def __init__(self, recipe: Recipe, services: dict[str, Service[Any, Any]]) -> None:
        self._recipe = recipe
        self._services = services
        self._room = asyncio.Condition()

    async def one_document(self, source: object) -> ProcessedDocument:
        """
        Take one source through all stages.

        Raises:
            StageFailure: the error of the stage that failed.
        """
        await self._wait_for_room()
        loaded: Any = source
        if "load" in self._services:
            loaded = await self._pass("load", source, source)
        prepared: Prepared = await self._pass("chunk", loaded, source)
        document, chunks = prepared.document, prepared.chunks
        if chunks is None:
            return ProcessedDocument(document.id, document.source, None, unchanged=True)
        embeddings = await self._embedded(document, chunks)
        if "store" in self._services:
            parcel = Parcel(
                document, chunks, embeddings, prepared.fingerprint, self._recipe.embedder
            )
            await self._pass("store", parcel, source)
            if not self._recipe.keep_all:
                return ProcessedDocument(document.id, document.source, len(chunks))
        return ProcessedDocument(
            document.id,
            document.source,
            len(chunks),
            document=document,
            chunks=tuple(chunks),
            embeddings=embeddings,
        )

    async def _embedded(self, document: Document, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        """Return the vectors of a document's chunks."""
        try:
            vectors = await self._services["embed"]([chunk.text for chunk in chunks])
            return checked_vectors(_stacked(vectors), len(chunks))
        except ItemError as failed:
            chunk = chunks[failed.place]
            where = (
                f"chunk {failed.place + 1} of {len(chunks)} of {document.id!r} "
                f"(characters {chunk.start} to {chunk.end})"
            )
            raise _staged("embed", failed.error, where) from failed.error
        except ValueError as error:
            raise _staged("embed", error, repr(document.id)) from error
        finally:
            async with self._room:
                self._room.notify_all()

    async def _pass(self, stage: str, item: object, source: object) -> Any:
        """Take one item through a stage."""
        try:
            (value,) = await self._services[stage]([item])
        except ItemError as failed:
            where = repr(getattr(source, "id", source))
            raise _staged(failed.stage or stage, failed.error, where) from failed.error
        return value

    async def _wait_for_room(self) -> None:
        """Wait until the embedding stage has not too much before it."""
        embed = self._services["embed"]
        if embed.backlog >= self._recipe.backlog:
            async with self._room:
                await self._room.wait_for(lambda: embed.backlog < self._recipe.backlog)


@asynccontextmanager
async def open_line(recipe: Recipe) -> AsyncIterator[Line]:
    """Open the stages of a run on its own loop; close them when it ends, however it ends."""
    plans = {
        "load": recipe.load,
        "chunk": recipe.prepare,
        "embed": recipe.embed,
        "store": recipe.store,
    }
    async with AsyncExitStack() as stack:
        services = {
            stage: await stack.enter_async_context(Service(plan))
            for stage, plan in plans.items()
            if plan is not None
        }
        yield Line(recipe, services)


def _staged(stage: str, error: BaseException, where: str) -> BaseException:
    """Return the envelope that names the stage; what ends the whole run goes as it is."""
    if isinstance(error, RunAsyncError) or not isinstance(error, Exception):
        return error
    note = f"in stage {stage}: {where}"
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)
    return StageFailure(stage, error)


def _stacked(vectors: Sequence[Any]) -> NDArray[np.float32]:
    """Return rows as one array; rows of different lengths are a ValueError."""
    lengths = {len(vector) for vector in vectors}
    if len(lengths) > 1:
        raise ValueError(f"the embedder gave vectors of different lengths: {sorted(lengths)}")
    return np.asarray(vectors, dtype=np.float32)
