"""The way of a document that is cut: room for its chunks, then the embedder, then the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragasync._engine.request_batcher import RequestBatcher, RequestFailed
from ragasync.documents.embedding_cache import Vector
from ragasync.documents.metering import Meter, Metered
from ragasync.documents.models import Chunk, Document
from ragasync.documents.stages.chunk_budget import ChunkBudget
from ragasync.documents.stages.config import PipelineConfig
from ragasync.documents.stages.failures import FatalStageError, note_place, places_of
from ragasync.documents.stages.prepare import PreparedDocument
from ragasync.documents.stages.processed import ProcessedDocument, bad_rows_of, read_as
from ragasync.documents.stages.storing import StoreRequest
from ragasync.documents.store import EmbedderMismatch
from ragasync.errors import AttemptTimeout, StageFailure
from ragasync.foreign_errors import is_a


class Way:
    """
    The stages of one run as a document meets them, one after the other.

    Args:
        config: the stages and their settings.
        meter: adds up what the embedder's calls use.

    Attributes:
        services: the open stages by their names.
    """

    def __init__(self, config: PipelineConfig, meter: Meter) -> None:
        self.services: dict[str, RequestBatcher[Any, Any]] = {}
        self._config = config
        self._meter = meter
        self._room = ChunkBudget(config.room)
        self._dimension: int | None = None

    def enter_now(self, prepared: PreparedDocument) -> int | None:
        """Return what a document has to give back, if there is room for its chunks; else None."""
        return self._room.enter_now(len(prepared.chunks or ()))

    async def enter(self, prepared: PreparedDocument) -> int:
        """Wait until there is room for a document's chunks; return what it has to give back."""
        return await self._room.enter(len(prepared.chunks or ()))

    async def go(self, prepared: PreparedDocument, weight: int) -> ProcessedDocument:
        """
        Have a document embedded and stored, and give its room back.

        Raises:
            StageFailure: the error of the stage that failed.
        """
        document, chunks = prepared.document, prepared.chunks or ()
        tokens = None
        try:
            if prepared.vectors is None:
                vectors = await self._embedded(document, chunks, range(len(chunks)))
            else:
                vectors = await self._vectors(document, chunks, prepared.vectors)
            if self._meter.tokens:
                vectors, tokens = _unwrapped(vectors)
            embeddings = self._checked(document, chunks, vectors)
            if "store" in self.services:
                request = StoreRequest(
                    document, chunks, embeddings, prepared.fingerprint, self._config.embedder
                )
                await self.take("store", request, document)
        finally:
            self._room.leave(weight)
        keep = self._config.keep_content
        return ProcessedDocument(
            document.id,
            document.source,
            len(chunks),
            document=document if keep else None,
            chunks=tuple(chunks) if keep else None,
            embeddings=embeddings if keep else None,
            fingerprint=prepared.fingerprint,
            tokens=tokens,
            bad_rows=bad_rows_of(document),
            **read_as(document),
        )

    async def take(self, stage: str, item: object, source: object) -> Any:
        """Take one item through a stage."""
        try:
            (value,) = await self.services[stage]([item])
        except RequestFailed as failed:
            place = repr(getattr(source, "id", source))
            raise self._failure(stage, failed, place) from failed.error
        return value

    async def _vectors(
        self, document: Document, chunks: Sequence[Chunk], known: Sequence[Vector | None]
    ) -> Sequence[Any]:
        """Return the vectors of a document's chunks, of which the store knows some."""
        missing = [place for place, vector in enumerate(known) if vector is None]
        vectors = list(known)
        if missing:
            made = await self._embedded(document, chunks, missing)
            for place, vector in zip(missing, made, strict=True):
                vectors[place] = vector
        return vectors

    async def _embedded(
        self, document: Document, chunks: Sequence[Chunk], places: Sequence[int]
    ) -> Sequence[Any]:
        """Have the chunks at these places embedded."""
        try:
            return await self.services["embed"]([chunks[place].text for place in places])
        except RequestFailed as failed:
            which = places_of([places[position] for position in failed.positions], chunks)
            raise self._failure("embed", failed, f"{which} of {document.id!r}") from failed.error

    def _checked(
        self, document: Document, chunks: Sequence[Chunk], vectors: Sequence[Vector | None]
    ) -> NDArray[np.float32]:
        """Return the vectors as an array, if all of them are finite and of one dimension."""
        for number, vector in enumerate(vectors):
            if vector is None or len(vector) != self._dimension:
                self._check(vector, f"{places_of([number], chunks)} of {document.id!r}")
        rows = np.array(vectors, dtype=np.float32)
        return rows if len(rows) else rows.reshape(0, 0)

    def _check(self, vector: Vector | None, place: str) -> None:
        """Raise what is wrong with a vector; its dimension must be that of the first."""
        stored = self._config.embedder.dimension
        if vector is not None and self._dimension is None and stored in (None, len(vector)):
            self._dimension = len(vector)
            return
        error: Exception
        if vector is None:
            error = ValueError(
                "expected finite numbers, got a vector with others: mend the embedder, which may "
                "divide by the length of an empty text's vector"
            )
        elif self._dimension is None:
            error = EmbedderMismatch(
                f"the store holds vectors of {self._config.embedder.name!r} with {stored} "
                f"dimensions, and embed= gives vectors of {len(vector)}: use the embedder that "
                "made the former, or another store"
            )
        else:
            error = ValueError(
                f"expected a vector of {self._dimension} dimensions, as the first of this run, "
                f"got one of {len(vector)}: an embedder must give one dimension"
            )
        note_place(error, "embed", place)
        raise StageFailure("embed", error)

    def _failure(self, stage: str, failed: RequestFailed, place: str) -> BaseException:
        """Return the envelope that names the stage; what is no failure goes as it is."""
        if is_a(failed.error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
            return failed.error
        service = self.services[stage]
        # Of calls that hang no single one is the reason: who comes next hears it from the stage.
        ends = service.has_stopped and not (
            service.run.stopped_early or is_a(failed.error, AttemptTimeout)
        )
        kind = FatalStageError if ends else StageFailure
        stage = "store" if stage in ("look up", "recall") else stage
        note_place(failed.error, stage, place)
        return kind(stage, failed.error)


def unchanged(prepared: PreparedDocument) -> ProcessedDocument:
    """Return what a result says of a document that the store has already."""
    document = prepared.document
    return ProcessedDocument(
        document.id,
        document.source,
        None,
        unchanged=True,
        fingerprint=prepared.fingerprint,
        bad_rows=bad_rows_of(document),
        **read_as(document),
    )


def _unwrapped(vectors: Sequence[Any]) -> tuple[list[Vector | None], int | None]:
    """Return vectors out of what a metered call gave, and the tokens that they took."""
    took = [each.tokens for each in vectors if isinstance(each, Metered)]
    rows = [each.row if isinstance(each, Metered) else each for each in vectors]
    return rows, sum(took) if took else None
