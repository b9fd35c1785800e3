"""PreparedDocument: the record of a document on its way to the embedder, and its pickled form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from ragasync._calls.remote_errors import PickledError, aborted_call, pickle_error, unpickle_error
from ragasync.documents.models import Chunk, Document
from ragasync.documents.splitters import on_line
from ragasync.documents.stored_state import NOT_STORED, StoredState, Vector
from ragasync.errors import StageFailure


@dataclass(slots=True)
class PreparedDocument:
    """
    The record of a document on its way to the embedder.

    A worker process returns it in columns: see `ChunkColumns`.

    Attributes:
        document: the document.
        chunks: its chunks, with locations.
        fingerprint: the fingerprint to store it with; empty if no store can look it up.
        stored: what the store has under its id.
        unchanged: whether that is this very document, so that nothing has to be embedded.
        is_certain: whether that can be told; otherwise it counts as unchanged.
        vectors: the vectors that the store has of its chunks; None if it has none.
        failure: the error that ended its preparation, in the envelope of its stage.
        without_text: whether a worker has found the stored fingerprint and returned no text.
    """

    document: Document
    chunks: Sequence[Chunk] = ()
    fingerprint: str = ""
    stored: StoredState = NOT_STORED
    unchanged: bool = False
    is_certain: bool = True
    vectors: Sequence[Vector | None] | None = None
    failure: BaseException | None = None
    without_text: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it goes on to the embedder."""
        return self.failure is None and not self.unchanged

    @property
    def places_to_embed(self) -> Sequence[int]:
        """Positions of the chunks whose vectors the store does not have."""
        if self.vectors is None:
            return range(len(self.chunks))
        return [place for place, vector in enumerate(self.vectors) if vector is None]

    def with_embeddings(self, made: Sequence[Any]) -> Sequence[Any]:
        """Vectors of all chunks, given those that the store did not have."""
        if self.vectors is None:
            return made
        given = iter(made)
        return [next(given) if vector is None else vector for vector in self.vectors]

    def __reduce__(self) -> tuple[Callable[..., PreparedDocument], tuple[Any, ...]]:
        """Pickle what the steps without the store have found out; no other step leaves here."""
        document = self.document
        chunks = ChunkColumns.of(document, self.chunks) or list(self.chunks)
        failure = None if self.failure is None else _pickle_failure(self.failure)
        return _unpickle, (document, chunks, self.fingerprint, self.without_text, failure)


Prepared: TypeAlias = PreparedDocument | list[PreparedDocument]
"""The document of a source, or the list of its documents if the loader returned an iterable."""


def as_list(prepared: Prepared) -> list[PreparedDocument]:
    """The documents of a source as a list."""
    return prepared if isinstance(prepared, list) else [prepared]


# ── the pickled form ────────────────────────────────────────────────────────────────────────────


class ChunkColumns(NamedTuple):
    """
    The chunks of a document as columns of plain data.

    Texts that are slices of the document's text are left out, which halves the data; a pickled
    object per chunk would take ten times as long.

    Args:
        starts: the offset of each chunk.
        ends: the offset after each chunk.
        texts: the texts that are no slices, by position.
        lines: the line of each chunk, if that is all of its metadata; else None.
        metadata: the metadata of each chunk, if it has more.
    """

    starts: list[int]
    ends: list[int]
    texts: dict[int, str]
    lines: list[int] | None
    metadata: list[dict[str, object]]

    @classmethod
    def of(cls, document: Document, chunks: Sequence[Chunk]) -> ChunkColumns | None:
        """Make columns of chunks; None if some are of a class of the user's."""
        if not all(type(chunk) is Chunk for chunk in chunks):
            return None
        text = document.text
        lines = _lines_of([chunk.metadata for chunk in chunks])
        return cls(
            [chunk.start for chunk in chunks],
            [chunk.end for chunk in chunks],
            {
                place: chunk.text
                for place, chunk in enumerate(chunks)
                if chunk.text != text[chunk.start : chunk.end]
            },
            lines,
            [dict(chunk.metadata) for chunk in chunks] if lines is None else [],
        )

    def chunks_of(self, document: Document) -> list[Chunk]:
        """Make the chunks of the document again."""
        metadata: Iterable[Mapping[str, object]]
        if self.lines is None:
            metadata = map(MappingProxyType, self.metadata)
        else:
            metadata = map(on_line, self.lines)
        text = document.text
        chunks = [
            Chunk._at(text[start:end], start, end, place)
            for start, end, place in zip(self.starts, self.ends, metadata, strict=True)
        ]
        for place, own in self.texts.items():
            found = chunks[place]
            chunks[place] = Chunk._at(own, found.start, found.end, found.metadata)
        return chunks


def _lines_of(metadata: Iterable[Mapping[str, object]]) -> list[int] | None:
    """The line of each chunk, if its metadata has nothing else; otherwise None."""
    lines = []
    for each in metadata:
        line = each.get("line")
        if len(each) != 1 or type(line) is not int:
            return None
        lines.append(line)
    return lines


def _pickle_failure(failure: BaseException) -> tuple[str, PickledError]:
    """The stage of a failure, and its error in the form in which errors leave a worker."""
    if isinstance(failure, StageFailure):
        stage, error = failure.stage, failure.error
    else:
        stage, error = "chunk", failure  # such as SystemExit; it must not end this process
    return stage, pickle_error(error if isinstance(error, Exception) else aborted_call(error))


def _unpickle(
    document: Document,
    chunks: ChunkColumns | list[Chunk],
    fingerprint: str,
    without_text: bool,
    failure: tuple[str, PickledError] | None,
) -> PreparedDocument:
    """Make a document that a worker has prepared."""
    made = chunks.chunks_of(document) if isinstance(chunks, ChunkColumns) else chunks
    prepared = PreparedDocument(document, made, fingerprint, without_text=without_text)
    if failure is not None:
        stage, pickled = failure
        error = unpickle_error(pickled)
        prepared.failure = StageFailure(stage, error)
        prepared.failure.__cause__ = error
    return prepared
