"""From a source to the chunks of its document: what threads and worker processes do."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragasync.calling.calls import checked_values, is_async
from ragasync.documents.document import Chunk, Document
from ragasync.documents.fingerprint import StageFunction
from ragasync.documents.load import load_source
from ragasync.documents.sources import Source
from ragasync.documents.store import Store
from ragasync.errors import StageFailure


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document that is loaded and cut; `chunks` is None where the store has it already."""

    document: Document
    fingerprint: str
    chunks: Sequence[Chunk] | None


@dataclass(frozen=True, slots=True)
class Finished:
    """A function of the user's, and what is made of its value in the same place."""

    fn: StageFunction
    finish: Callable[[Any, Any], object]

    def __call__(self, item: object, *resource: object) -> object:
        """Return the finished value for an item; an awaitable where the function made one."""
        value = self.fn(_argument(self.fn, item), *resource)
        return self._later(value, item) if hasattr(value, "__await__") else self.finish(value, item)

    def at_once(self, item: object) -> Any:
        """Return the finished value, in the middle of a longer call on a thread."""
        value = self.fn(_argument(self.fn, item))
        if inspect.iscoroutine(value):
            value.close()
            raise TypeError(f"{self.fn!r} is async and does not say so: pass the async function")
        return self.finish(value, item)

    async def _later(self, value: Any, item: object) -> object:
        """Finish what a function gives that is async without saying so."""
        return self.finish(await value, item)


@dataclass(frozen=True, slots=True)
class FinishedAsync:
    """The same for an async function."""

    fn: Callable[..., Any]
    finish: Callable[[Any, Any], object]

    async def __call__(self, item: object, *resource: object) -> object:
        """Return the finished value for an item."""
        return self.finish(await self.fn(_argument(self.fn, item), *resource), item)


def finished(fn: StageFunction, finish: Callable[[Any, Any], object]) -> StageFunction:
    """Return a function of an item that does both, async where the first is."""
    return FinishedAsync(fn, finish) if is_async(fn) else Finished(fn, finish)


@dataclass(frozen=True, slots=True)
class Recognise:
    """
    Tells whether the store has just this document from just these stages.

    Args:
        pipeline: the fingerprint of all stages.
        store: the store to ask; it never travels to another process.
    """

    pipeline: str
    store: Store

    def __call__(self, document: Document) -> tuple[str, bool]:
        """Return a document's fingerprint, and whether the store has it."""
        fingerprint = fingerprint_of(document, self.pipeline)
        return fingerprint, self.store.fingerprint_of(document.id) == fingerprint


@dataclass(frozen=True, slots=True)
class LoadAndCut:
    """All of it in one call, so that a document changes threads once; failures name the stage."""

    load: Finished
    recognise: Recognise | None
    cut: Finished

    def __call__(self, source: object) -> Prepared:
        """Return a source's document with its chunks."""
        document = source
        if not isinstance(document, Document):
            document = _staged("load", self.load.at_once, source)
        fingerprint, is_known = "", False
        if self.recognise is not None:
            fingerprint, is_known = _staged("store", self.recognise, document)
        chunks = None if is_known else _staged("chunk", self.cut.at_once, document.text)
        return Prepared(document, fingerprint, chunks)


def fingerprint_of(document: Document, pipeline: str) -> str:
    """Return what changes when a document does, or the stages that it goes through."""
    metadata = sorted(document.metadata.items())
    content = f"{pipeline!r}{metadata!r}{document.text}".encode(errors="surrogatepass")
    return blake2b(content, digest_size=16).hexdigest()


def as_document(loaded: object, source: object) -> Document:
    """Return what a loader gave as a Document; a text gets the id of its source."""
    if isinstance(loaded, Document):
        return loaded
    if isinstance(loaded, str) and isinstance(source, Source):
        return Document(source.id, loaded, source=str(source.path))
    if isinstance(loaded, str) and isinstance(source, str):
        return Document(source, loaded, source=source)
    raise TypeError(
        f"load must return a Document (or a text, for a path or a str), got {loaded!r:.200}"
    )


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
    start, after = 0, 0
    for piece in pieces:
        if isinstance(piece, Chunk):
            chunks.append(piece)
        elif isinstance(piece, str):
            if (found := text.find(piece, after)) >= 0:
                start, after = found, found + 1
            chunks.append(Chunk(piece, start, min(len(text), start + len(piece))))
        else:
            raise TypeError(f"chunk must return Chunks or texts, got {piece!r:.200}")
    return chunks


def as_rows(vectors: Any, texts: Sequence[str]) -> Sequence[NDArray[np.float32] | None]:
    """
    Return what an embedder gave for a batch of texts as rows, None where one is not finite.

    So the document that it belongs to can fail without another call for the others.

    Raises:
        TypeError: it gave no array, nor a list of vectors.
        ValueError: it gave too many or too few, or vectors of different lengths.
    """
    rows = np.asarray(checked_values(vectors, len(texts)), dtype=np.float32)
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


def _staged(stage: str, part: Callable[[Any], Any], item: object) -> Any:
    """Call one part of a longer call; its failure says which."""
    try:
        return part(item)
    except Exception as error:
        raise StageFailure(stage, error) from error


def _argument(function: StageFunction, item: object) -> object:
    """Return what a stage gets: a file's path, but for our own loader, which needs its id too."""
    while isinstance(function, partial):
        function = function.func
    if isinstance(item, Source) and function is not load_source:
        return item.path_to_open()
    return item
