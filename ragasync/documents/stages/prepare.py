"""From a source to the chunks of its documents: what threads and worker processes do."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from ragasync.documents.embedding_cache import CachedEmbeddings, Vector
from ragasync.documents.fingerprints import StageFunction, StagesFingerprint
from ragasync.documents.loaders import load_source
from ragasync.documents.loaders.text import refuse_surrogates
from ragasync.documents.locations import add_locations, chunks_at
from ragasync.documents.models import Chunk, Document
from ragasync.documents.sources import FileIds, Source
from ragasync.documents.splitters import RecursiveSplitter
from ragasync.documents.stage import declared_async
from ragasync.documents.stages.stored_state import NOT_STORED, StoredState, stored_state
from ragasync.documents.store import Store
from ragasync.documents.unique_sources import RefusedDocument
from ragasync.errors import StageFailure

INLINE_MAX_CHARS = 50_000
"""Characters of a document whose chunks are cut or located on the loop: a millisecond at most."""


@dataclass(frozen=True, slots=True)
class PreparedDocument:
    """
    A document that is loaded and cut.

    Args:
        document: the document.
        fingerprint: what the store is to know it by.
        chunks: its chunks; None where the store has it already.
        vectors: those that the store has of its chunks; None where it has none of them.
        stored: what the store has of it.
        is_certain: whether it is known that the store has it, where it is taken for known.
    """

    document: Document
    fingerprint: str
    chunks: Sequence[Chunk] | None
    vectors: Sequence[Vector | None] | None = None
    stored: StoredState = NOT_STORED
    is_certain: bool = True


@dataclass(frozen=True, slots=True)
class FailedDocument:
    """One of the documents of a source, which failed before it was cut."""

    document: Document
    failure: StageFailure


@dataclass(frozen=True, slots=True)
class WrappedOutput:
    """A function of the user's, and what is made of its value in the same place."""

    fn: StageFunction
    finish: Callable[[Any, Any], object]

    def __call__(self, item: object, *resource: object) -> object:
        """Return the finished value for an item; an awaitable where the function made one."""
        value = self.fn(_argument(self.fn, item), *resource)
        return self._later(value, item) if hasattr(value, "__await__") else self.finish(value, item)

    def call(self, item: object) -> Any:
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
class WrappedAsyncOutput:
    """The same for an async function."""

    fn: Callable[..., Any]
    finish: Callable[[Any, Any], object]

    async def __call__(self, item: object, *resource: object) -> object:
        """Return the finished value for an item."""
        return self.finish(await self.fn(_argument(self.fn, item), *resource), item)


def wrap_output(fn: StageFunction, finish: Callable[[Any, Any], object]) -> StageFunction:
    """Return a function of an item that does both, async where the first is."""
    return WrappedAsyncOutput(fn, finish) if declared_async(fn) else WrappedOutput(fn, finish)


class Recognised(NamedTuple):
    """
    What a store says of a document before it is cut.

    Args:
        fingerprint: what it would be stored with now.
        is_known: whether that is what is stored, as far as anybody can tell.
        stored: what it has of the document.
        is_certain: whether anybody can.
    """

    fingerprint: str
    is_known: bool
    stored: StoredState = NOT_STORED
    is_certain: bool = True

    def prepared(
        self,
        document: Document,
        chunks: Sequence[Chunk] | None = None,
        vectors: Sequence[Vector | None] | None = None,
    ) -> PreparedDocument:
        """Return the document with its chunks, or without any where it is known."""
        return PreparedDocument(
            document, self.fingerprint, chunks, vectors, self.stored, is_certain=self.is_certain
        )


UNKNOWN = Recognised("", is_known=False)
"""What is known of a document where no store can tell."""


@dataclass(frozen=True, slots=True)
class StoreLookup:
    """
    Tells whether the store has just this document from just these stages.

    Args:
        stages: the fingerprint of the stages before the store.
        store: the store to ask; it never travels to another process.
        ids: makes the ids of files.
    """

    stages: StagesFingerprint
    store: Store
    ids: FileIds

    def __call__(self, document: Document) -> Recognised:
        """Return a document's fingerprint, and what the store has of it."""
        fingerprint = self.stages.of(document)
        stored = stored_state(self.store, document, self.ids)
        holds = self.stages.holds(stored.fingerprint, fingerprint)
        return Recognised(fingerprint, holds is not False, stored, is_certain=holds is not None)


Check: TypeAlias = Callable[[Document, Sequence[Chunk]], object]
"""Raises what a store cannot take of a document, before it is embedded."""


def check_of(store: object) -> Check:
    """Return what checks documents for a store; for one that cannot tell, nothing does."""
    check: Check = getattr(store, "check", lambda *_: None)
    return check


@dataclass(frozen=True, slots=True)
class LoadAndChunk:
    """All of it in one call, so that a document changes threads once; failures name the stage."""

    load: WrappedOutput
    look_up: StoreLookup | None
    chunk: WrappedOutput
    check: Check
    recall: CachedEmbeddings | None

    def is_quick(self, source: object) -> bool:
        """
        Return whether a source takes less than a change of threads, whatever is in it.

        That is known of our own splitter alone, and of a text that nobody has to load or look up.
        """
        return (
            isinstance(source, Document)
            and self.look_up is None
            and type(self.chunk.fn) is RecursiveSplitter
            and len(source.text) <= INLINE_MAX_CHARS
        )

    def __call__(
        self, source: object
    ) -> PreparedDocument | list[PreparedDocument | FailedDocument]:
        """Return a source's document with its chunks, or each of its documents."""
        document = source
        if isinstance(document, Document):
            refuse_given(document)
        else:
            document = _staged("load", self.load.call, source)
        if isinstance(document, Document):
            return self._chunk(document)
        return list(map(self._one_of_many, document))

    def _one_of_many(self, document: Document) -> PreparedDocument | FailedDocument:
        """Return a document with its chunks; its failure is its own."""
        try:
            return self._chunk(document)
        except StageFailure as failure:
            return FailedDocument(document, failure)

    def _chunk(self, document: Document) -> PreparedDocument:
        """Return a document with its chunks, and with what the store has of it."""
        known = UNKNOWN
        if self.look_up is not None:
            known = _staged("store", self.look_up, document)
        if known.is_known:
            return known.prepared(document)
        chunks = _staged("chunk", self._cut_and_locate, document)
        _staged("store", partial(self.check, document), chunks)
        vectors = None if self.recall is None else _staged("store", self.recall, chunks)
        return known.prepared(document, chunks, vectors)

    def _cut_and_locate(self, document: Document) -> list[Chunk]:
        """Return a document's chunks with their places."""
        if type(self.chunk.fn) is RecursiveSplitter:
            return chunks_at(document, self.chunk.fn.spans(document.text))
        return add_locations(document, self.chunk.call(document.text))


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
        return item.as_given()
    return item
