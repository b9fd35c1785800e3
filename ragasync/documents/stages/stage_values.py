"""What the functions of the stages give, in the pipeline's own terms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragasync._calls.caller import check_values
from ragasync.documents.loaders.text import refuse_surrogates
from ragasync.documents.models import Chunk, Document
from ragasync.documents.sources import Source, part_id

PATIENCE = 32
"""How often a text may be searched in vain as a whole for the pieces that a splitter gave."""

NEARBY = 2_000
"""How many characters are searched for a piece once that is used up, and its own length twice."""


def as_documents(loaded: object, source: object) -> Document | list[Document]:
    """
    Return what a loader gave: a Document, or a list of them where it gave an iterable.

    A text gets the id of its source, and the texts of an iterable that id with their numbers. A
    Document knows the file that it was loaded from, which is its source where it has none.

    Raises:
        TypeError: it gave something else.
        ValueError: two of its documents have the same id, so that one would replace the other.
        LoadError: a text has half of a surrogate pair, which no store takes.
    """
    documents = _documents_of(loaded, source)
    for document in [documents] if isinstance(documents, Document) else documents:
        refuse_surrogates(document.text)
    return documents


def _documents_of(loaded: object, source: object) -> Document | list[Document]:
    """Return what a loader gave as a Document, or as a list of them."""
    if isinstance(loaded, Document | str):
        return _document_of(loaded, source, None)
    is_pair = isinstance(loaded, tuple) and len(loaded) == 2 and all(map(_is_text, loaded))
    if is_pair or isinstance(loaded, bytes | Mapping) or not isinstance(loaded, Iterable):
        raise TypeError(
            f"load must return a Document (or a text, for a path or a str), or an iterable of "
            f"these, got {loaded!r:.200}"
        )
    documents = [_document_of(each, source, number) for number, each in enumerate(loaded, start=1)]
    _refuse_twins(documents)
    return documents


def as_chunks(pieces: Iterable[Chunk | str], text: str) -> list[Chunk]:
    """
    Return what a splitter gave as Chunks.

    A piece that is only a text is looked for in the document, after the start of the one before;
    one that the splitter rewrote, so that it is not found, gets the place of that.
    """
    if isinstance(pieces, str):
        raise TypeError(
            f"chunk must return a list of Chunks or texts, got one text {pieces!r:.200}"
        )
    chunks: list[Chunk] = []
    search = _PieceSearch(text)
    for piece in pieces:
        if isinstance(piece, Chunk):
            chunks.append(piece)
        elif isinstance(piece, str):
            start = search.start_of(piece)
            chunks.append(Chunk(piece, start, min(len(text), start + len(piece))))
        else:
            raise TypeError(f"chunk must return Chunks or texts, got {piece!r:.200}")
    return chunks


class _PieceSearch:
    """
    Finds the pieces of a text in their order, in linear time also where none is found.

    A piece that is not there costs a look at the whole rest. Once these looks have taken as long as
    PATIENCE times the text, the next ones go only as far as the piece can be if what is between
    was rewritten too.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._start = self._after = 0
        self._missed = 0  # characters of the pieces that were not found since the latest that was
        self._patience = PATIENCE * len(text)

    def start_of(self, piece: str) -> int:
        """Return where a piece starts, or the one before where it is not found."""
        reach = len(self._text)
        if self._patience <= 0:
            reach = min(reach, self._after + NEARBY + min(self._missed, NEARBY) + 2 * len(piece))
        found = self._text.find(piece, self._after, reach)
        if found >= 0:
            self._start, self._after, self._missed = found, found + 1, 0
        else:
            self._patience -= reach - self._after
            self._missed += 2 * len(piece)
        return self._start


def to_embedding_matrix(vectors: Any, texts: Sequence[str]) -> Sequence[NDArray[np.float32] | None]:
    """
    Return what an embedder gave for a batch of texts as rows, None where one is not finite.

    So the document that it belongs to can fail without another call for the others.

    Raises:
        TypeError: it gave no array, nor a list of vectors, or texts in place of numbers.
        ValueError: it gave too many or too few, or vectors of different lengths.
    """
    given = np.asarray(check_values(vectors, len(texts)))
    if given.dtype.kind in "bSU":  # numpy would take true and "1.0" for numbers
        raise TypeError(f"embed must return numbers, got {given.dtype} in {vectors!r:.200}")
    rows = np.asarray(given, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise TypeError(
            f"embed must return a vector for each of {len(texts)} texts, "
            f"got {type(vectors).__name__} of shape {rows.shape}"
        )
    # The sum has what is not finite in it, and costs a tenth of looking at each entry.
    if np.isfinite(rows.sum()):
        return list(rows)
    finite = np.logical_and.reduce(np.isfinite(rows), axis=1)
    return [row if is_finite else None for row, is_finite in zip(rows, finite, strict=True)]


def _document_of(loaded: object, source: object, number: int | None) -> Document:
    """Return what was loaded as a Document of its source."""
    file = source.source if isinstance(source, Source) else None
    if isinstance(loaded, Document):
        return replace(loaded, source=loaded.source or file, file=file) if file else loaded
    name, origin = source, source
    if isinstance(source, Source):
        name, origin = source.id, source.source
    if isinstance(loaded, str) and isinstance(name, str) and isinstance(origin, str):
        id_ = name if number is None else part_id(name, str(number))
        return Document(id_, loaded, {}, origin, file)
    raise TypeError(
        f"load must return Documents (or texts, for a path or a str), got {loaded!r:.200}"
        f"{f' as number {number}' if number else ''}"
    )


def _refuse_twins(documents: Sequence[Document]) -> None:
    """Raise if two documents of one source would replace each other."""
    seen: set[str] = set()
    for document in documents:
        if document.id in seen:
            raise ValueError(
                f"load gave two documents with the id {document.id!r:.200}, of which one would "
                f"replace the other: give each an id of its own"
            )
        seen.add(document.id)


def _is_text(value: object) -> bool:
    """Return whether this is a text."""
    return isinstance(value, str)
