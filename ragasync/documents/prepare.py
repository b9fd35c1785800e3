"""Load and cut: from a source to the chunks of a document, on a thread or a worker process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from ragasync.documents.document import Chunk, Document
from ragasync.documents.load import load_source
from ragasync.documents.sources import Source
from ragasync.documents.store import Store
from ragasync.errors import StageFailure


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document that is loaded and cut; `chunks` is None where the store has it already."""

    document: Document
    chunks: Sequence[Chunk] | None
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Load:
    """Loads a source; a document that was given as one needs no loading."""

    fn: Callable[..., Any]

    def __call__(self, source: object) -> Document:
        """Return the document of a source."""
        if isinstance(source, Document):
            return source
        return as_document(self.fn(_argument(self.fn, source)), source)


@dataclass(frozen=True, slots=True)
class AsyncLoad:
    """The same for an async function."""

    fn: Callable[..., Any]

    async def __call__(self, source: object) -> Document:
        """Return the document of a source."""
        if isinstance(source, Document):
            return source
        return as_document(await self.fn(_argument(self.fn, source)), source)


@dataclass(frozen=True, slots=True)
class Cut:
    """
    Cuts a document, unless the store has just this text from just this pipeline.

    Args:
        fn: the splitter: takes a text, and returns texts or Chunks.
        pipeline: the fingerprint of all stages.
        known: the store to ask; None asks nobody.
    """

    fn: Callable[..., Any]
    pipeline: str
    known: Store | None = None

    def __call__(self, document: Document) -> Prepared:
        """Return the document with its chunks."""
        fingerprint = fingerprint_of(document, self.pipeline)
        if self.known is not None and self.known.fingerprint_of(document.id) == fingerprint:
            return Prepared(document, None, fingerprint)
        return Prepared(document, as_chunks(document.text, self.fn(document.text)), fingerprint)


@dataclass(frozen=True, slots=True)
class AsyncCut:
    """The same for an async splitter."""

    fn: Callable[..., Any]
    pipeline: str
    known: Store | None = None

    async def __call__(self, document: Document) -> Prepared:
        """Return the document with its chunks."""
        fingerprint = fingerprint_of(document, self.pipeline)
        if self.known is not None and self.known.fingerprint_of(document.id) == fingerprint:
            return Prepared(document, None, fingerprint)
        pieces = await self.fn(document.text)
        return Prepared(document, as_chunks(document.text, pieces), fingerprint)


@dataclass(frozen=True, slots=True)
class LoadAndCut:
    """Both in one call, so that a document changes threads once; its failures name the stage."""

    load: Load
    cut: Cut

    def __call__(self, source: object) -> Prepared:
        """Return a source's document with its chunks."""
        try:
            document = self.load(source)
        except Exception as error:
            raise StageFailure("load", error) from error
        return self.cut(document)


def fingerprint_of(document: Document, pipeline: str) -> str:
    """Return what changes when the text does, or the stages that it goes through."""
    content = f"{len(pipeline)}:{pipeline}{document.text}".encode(errors="surrogatepass")
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


def as_chunks(text: str, pieces: Iterable[Chunk | str]) -> list[Chunk]:
    """
    Return what a splitter gave as Chunks.

    A piece that is only a text is looked for in the document, from the start of the one before;
    one that the splitter rewrote, so that it is not found, gets that place.
    """
    chunks: list[Chunk] = []
    at = 0
    for piece in pieces:
        if isinstance(piece, Chunk):
            chunks.append(piece)
        elif isinstance(piece, str):
            found = text.find(piece, at)
            at = max(at, found)
            chunks.append(Chunk(piece, at, min(len(text), at + len(piece))))
        else:
            raise TypeError(f"chunk must return Chunks or texts, got {piece!r:.200}")
    return chunks


def _argument(loader: Callable[..., Any], source: object) -> object:
    """Return what a loader gets: ours the Source with its id, any other the path of a file."""
    if isinstance(source, Source) and loader is not load_source:
        return source.path
    return source
