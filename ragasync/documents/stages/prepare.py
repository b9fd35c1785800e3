"""From a source to the chunks of its documents: what threads and worker processes do."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any, NamedTuple

from ragasync.documents.chunking.chunk import RecursiveSplitter
from ragasync.documents.chunking.located import chunks_at, located
from ragasync.documents.document import Chunk, Document
from ragasync.documents.fingerprint import StageFunction
from ragasync.documents.loaders.decode import refuse_surrogates
from ragasync.documents.loaders.load import load_source
from ragasync.documents.sources.finding import Source
from ragasync.documents.sources.unique import RefusedDocument
from ragasync.documents.stage import declared_async
from ragasync.documents.stages.caching import Recall, Vector, VectorMark
from ragasync.documents.stages.stored_state import NOT_STORED, StoredState, stored_state
from ragasync.documents.store import Store
from ragasync.errors import StageFailure

QUICK = 50_000
"""Characters of a document whose chunks are cut or located on the loop: a millisecond at most."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """
    A document that is loaded and cut.

    Args:
        document: the document.
        fingerprint: what the store is to know it by.
        chunks: its chunks; None where the store has it already.
        vectors: those that the store has of its chunks; None where it has none of them.
        stored: what the store has of it.
    """

    document: Document
    fingerprint: str
    chunks: Sequence[Chunk] | None
    vectors: Sequence[Vector | None] | None = None
    stored: StoredState = NOT_STORED


@dataclass(frozen=True, slots=True)
class Lost:
    """One of the documents of a source, which failed before it was cut."""

    document: Document
    failure: StageFailure


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
    return FinishedAsync(fn, finish) if declared_async(fn) else Finished(fn, finish)


class Recognised(NamedTuple):
    """
    What a store says of a document before it is cut.

    Args:
        fingerprint: what it would be stored with now.
        is_known: whether it is stored with just that.
        may_recall: whether vectors that are stored may serve for its chunks.
        stored: what it has of the document.
    """

    fingerprint: str
    is_known: bool
    may_recall: bool
    stored: StoredState = NOT_STORED


UNKNOWN = Recognised("", is_known=False, may_recall=False)
"""What is known of a document where no store can tell."""


@dataclass(frozen=True, slots=True)
class Recognise:
    """
    Tells whether the store has just this document from just these stages.

    Args:
        pipeline: the fingerprint of all stages.
        mark: what vectors depend on.
        store: the store to ask; it never travels to another process.
    """

    pipeline: str
    mark: VectorMark
    store: Store

    def __call__(self, document: Document) -> Recognised:
        """Return a document's fingerprint, and what the store has of it."""
        fingerprint = self.mark.text + fingerprint_of(document, self.pipeline)
        stored = stored_state(self.store, document)
        is_known = stored.fingerprint == fingerprint
        return Recognised(fingerprint, is_known, self.mark.allows(stored.fingerprint), stored)


@dataclass(frozen=True, slots=True)
class LoadAndCut:
    """All of it in one call, so that a document changes threads once; failures name the stage."""

    load: Finished
    recognise: Recognise | None
    cut: Finished
    recall: Recall | None

    def is_quick(self, source: object) -> bool:
        """
        Return whether a source takes less than a change of threads, whatever is in it.

        That is known of our own splitter alone, and of a text that nobody has to load or look up.
        """
        return (
            isinstance(source, Document)
            and self.recognise is None
            and type(self.cut.fn) is RecursiveSplitter
            and len(source.text) <= QUICK
        )

    def __call__(self, source: object) -> Prepared | list[Prepared | Lost]:
        """Return a source's document with its chunks, or each of its documents."""
        document = source
        if isinstance(document, Document):
            refuse_given(document)
        else:
            document = _staged("load", self.load.at_once, source)
        if isinstance(document, Document):
            return self._cut(document)
        return list(map(self._one_of_many, document))

    def _one_of_many(self, document: Document) -> Prepared | Lost:
        """Return a document with its chunks; its failure is its own."""
        try:
            return self._cut(document)
        except StageFailure as failure:
            return Lost(document, failure)

    def _cut(self, document: Document) -> Prepared:
        """Return a document with its chunks, and with what the store has of it."""
        known = UNKNOWN
        if self.recognise is not None:
            known = _staged("store", self.recognise, document)
        if known.is_known:
            return Prepared(document, known.fingerprint, None, stored=known.stored)
        chunks = _staged("chunk", self._cut_and_locate, document)
        vectors = None
        if known.may_recall and self.recall is not None:
            vectors = _staged("store", self.recall, chunks)
        return Prepared(document, known.fingerprint, chunks, vectors, known.stored)

    def _cut_and_locate(self, document: Document) -> list[Chunk]:
        """Return a document's chunks with their places."""
        if type(self.cut.fn) is RecursiveSplitter:
            return chunks_at(document, self.cut.fn.spans(document.text))
        return located(document, self.cut.at_once(document.text))


def fingerprint_of(document: Document, pipeline: str) -> str:
    """Return what changes when a document does, or the stages that it goes through."""
    metadata = sorted(_lasting(document).items())
    content = f"{pipeline!r}{metadata!r}{document.text}".encode(errors="surrogatepass")
    return blake2b(content, digest_size=16).hexdigest()


def _lasting(document: Document) -> Mapping[str, object]:
    """Return metadata without its file's date and size, which change where the content does not."""
    match document.metadata:
        case {"mtime": float(), "size": int(), **rest} if document.source is not None:
            return rest
        case metadata:
            return metadata


def refuse_given(document: Document) -> None:
    """
    Raise for a document of the user's that no store would take, as if it had been loaded.

    Raises:
        StageFailure: of the stage "load", because of a LoadError, or of an IdConflictError.
    """
    if isinstance(document, RefusedDocument):
        raise StageFailure("load", document.refusal())
    _staged("load", refuse_surrogates, document.text)


def _staged(stage: str, part: Callable[[Any], Any], item: object) -> Any:
    """Call one part of a longer call, in a context of its own; its failure says which."""
    try:
        return copy_context().run(part, item)
    except Exception as error:
        raise StageFailure(stage, error) from error


def _argument(function: StageFunction, item: object) -> object:
    """Return what a stage gets: a file's path, but for our own loader, which needs its id too."""
    while isinstance(function, partial):
        function = function.func
    if isinstance(item, Source) and function is not load_source:
        return item.path_to_open()
    return item
