"""One run of the pipeline: its stages, open, and the way of a document through them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragasync.calling.calls import Calls
from ragasync.documents.document import Chunk, Document
from ragasync.documents.failures import RunEnding, note_place, places_of
from ragasync.documents.hops import Hops
from ragasync.documents.prepare import Prepared
from ragasync.documents.processed import ProcessedDocument
from ragasync.documents.recipe import Parcel, Recipe
from ragasync.documents.room import Room
from ragasync.engine.service import ItemError, Service
from ragasync.engine.steering import Steering, current_run
from ragasync.errors import AttemptTimeout, StageFailure
from ragasync.outcomes.facts import StageFacts

STAGES = ("load", "recognise", "chunk", "embed", "store")
"""The stages in the order of a document's way."""


class Line:
    """
    The stages of one run, open at the same time, each with its own window.

    A document passes through them as one coroutine that awaits a stage after the other; the
    chunks of many documents meet in the batches of the embedding stage. The run draws a further
    document when one of the few that may be loaded at once has found room for its chunks.
    """

    def __init__(self, recipe: Recipe, prepare: Hops[object, Prepared] | None) -> None:
        self._recipe = recipe
        self._prepare = prepare
        self.services: dict[str, Service[Any, Any]] = {}
        self._run: Steering[Any, Any] | None = None
        self._room = Room(recipe.room)
        self._loading = 0
        self._dimension: int | None = None

    async def one_document(self, source: object) -> ProcessedDocument:
        """
        Take one source through all stages.

        Raises:
            StageFailure: the error of the stage that failed.
        """
        self._count_loading(1)
        try:
            prepared = await self._prepared(source)
            document, chunks = prepared.document, prepared.chunks
            if chunks is None:
                return _in_short(prepared)
            weight = await self._room.enter(len(chunks))
        finally:
            self._count_loading(-1)
        try:
            embeddings = await self._embedded(document, chunks)
            await self._stored(prepared, embeddings)
        finally:
            self._room.leave(weight)
        if not self._recipe.keep_all:
            return _in_short(prepared)
        return replace(
            _in_short(prepared), document=document, chunks=tuple(chunks), embeddings=embeddings
        )

    def facts(self) -> tuple[StageFacts, ...]:
        """Return how busy each stage was so far, in the order of a document's way."""
        found = {name: service.facts(name) for name, service in self.services.items()}
        if (hops := self._prepare) is not None:
            found["load"] = StageFacts("load and chunk", self._recipe.at_once, hops.seconds)
        return tuple(found[stage] for stage in STAGES if stage in found)

    def _count_loading(self, more: int) -> None:
        """Count the documents before the room, and have no further one drawn when they are many."""
        self._loading += more
        if self._run is None:
            self._run = current_run.get()
            self._run.stages = self.facts
        ahead = self._recipe.at_once if self._prepare is None else self._prepare.ahead
        self._run.hold_back(self._loading >= ahead)

    def no_more_to_embed(self) -> bool:
        """Return whether every document of the run has handed its chunks on."""
        return self._loading == 0 and self._run is not None and self._run.source_ended

    async def _prepared(self, source: object) -> Prepared:
        """Return the document of a source with its chunks."""
        if self._prepare is not None:
            try:
                return await self._prepare(source)
            except StageFailure as failed:
                note_place(failed.error, failed.stage, repr(getattr(source, "id", source)))
                raise
        document = source
        if not isinstance(document, Document):
            document = await self._pass("load", source, source)
        fingerprint, is_known = "", False
        if "recognise" in self.services:
            fingerprint, is_known = await self._pass("recognise", document, source)
        chunks = None if is_known else await self._pass("chunk", document.text, source)
        return Prepared(document, fingerprint, chunks)

    async def _embedded(self, document: Document, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        """Return the vectors of a document's chunks."""
        try:
            vectors = await self.services["embed"]([chunk.text for chunk in chunks])
        except ItemError as failed:
            place = f"{places_of(failed.places, chunks)} of {document.id!r}"
            raise self._failure("embed", failed, place) from failed.error
        for number, vector in enumerate(vectors):
            if vector is None or len(vector) != self._dimension:
                self._check(vector, f"{places_of([number], chunks)} of {document.id!r}")
        rows = np.array(vectors, dtype=np.float32)
        return rows if len(rows) else rows.reshape(0, 0)

    def _check(self, vector: NDArray[np.float32] | None, place: str) -> None:
        """Raise what is wrong with a vector; its dimension must be that of the first."""
        if vector is not None and self._dimension is None:
            self._dimension = len(vector)
            return
        error = ValueError(
            "expected finite numbers, got a vector with others: mend the embedder, which may "
            "divide by the length of an empty text's vector"
            if vector is None
            else f"expected a vector of {self._dimension} dimensions, as the first of this run, "
            f"got one of {len(vector)}: an embedder must give one dimension"
        )
        note_place(error, "embed", place)
        raise StageFailure("embed", error)

    async def _stored(self, prepared: Prepared, embeddings: NDArray[np.float32]) -> None:
        """Wait until the store has acknowledged a document."""
        if "store" in self.services and prepared.chunks is not None:
            parcel = Parcel(
                prepared.document,
                prepared.chunks,
                embeddings,
                prepared.fingerprint,
                self._recipe.embedder,
            )
            await self._pass("store", parcel, prepared.document)

    async def _pass(self, stage: str, item: object, source: object) -> Any:
        """Take one item through a stage."""
        try:
            (value,) = await self.services[stage]([item])
        except ItemError as failed:
            place = repr(getattr(source, "id", source))
            raise self._failure(stage, failed, place) from failed.error
        return value

    def _failure(self, stage: str, failed: ItemError, place: str) -> BaseException:
        """Return the envelope that names the stage; what is no failure goes as it is."""
        if not isinstance(failed.error, Exception):
            return failed.error
        # Of calls that hang no single one is the reason: who comes next hears it from the stage.
        ends = self.services[stage].has_stopped and not isinstance(failed.error, AttemptTimeout)
        kind = RunEnding if ends else StageFailure
        stage = "store" if stage == "recognise" else stage
        note_place(failed.error, stage, place)
        return kind(stage, failed.error)


def _in_short(prepared: Prepared) -> ProcessedDocument:
    """Return what a result keeps of a document that a store has: ids and counts."""
    document, chunks = prepared.document, prepared.chunks
    return ProcessedDocument(
        document.id,
        document.source,
        None if chunks is None else len(chunks),
        unchanged=chunks is None,
        fingerprint=prepared.fingerprint,
    )


@asynccontextmanager
async def open_line(recipe: Recipe) -> AsyncIterator[Line]:
    """Open the stages of a run on its own loop; close them when it ends, however it ends."""
    plans = {"embed": recipe.embed, "store": recipe.store}
    prepare = None
    async with AsyncExitStack() as stack:
        if recipe.prepare is None:
            plans |= {"load": recipe.load, "recognise": recipe.recognise, "chunk": recipe.chunk}
        else:
            calls = Calls(recipe.prepare, asyncio.get_running_loop(), None)
            stack.callback(calls.close)
            prepare = Hops(calls.one, recipe.at_once)
            stack.push_async_callback(prepare.close)
        line = Line(recipe, prepare)
        for stage, plan in plans.items():
            if plan is not None:
                waits_in_vain = {"nothing_soon": line.no_more_to_embed} if stage == "embed" else {}
                service: Service[Any, Any] = Service(plan, **waits_in_vain)
                line.services[stage] = await stack.enter_async_context(service)
        yield line
