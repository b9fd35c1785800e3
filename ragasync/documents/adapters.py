"""Adapters: users' functions and stores as the calls that the pipeline makes."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import compress
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ragasync._calls.caller import check_values
from ragasync._retries.classify import FATAL, Verdict, verdict_of
from ragasync._retries.policy import AsyncRetry
from ragasync.arguments import check_process_fn
from ragasync.documents.loaders import load_source
from ragasync.documents.loaders.text import refuse_surrogates
from ragasync.documents.models import Chunk, Document
from ragasync.documents.sources import Source, part_id
from ragasync.documents.stage import Stage, StageFunction, declared_async, without_partials
from ragasync.documents.store import EmbedderMismatch, StoreNotWritable, StoreRequest
from ragasync.documents.stored_state import (
    EmbedderInStore,
    as_array,
    supports_embedder_identity,
)
from ragasync.foreign_errors import is_a
from ragasync.settings import BatchSettings

T = TypeVar("T")

MAX_SEARCHES = 32
"""Full-text searches for pieces that a splitter rewrote, as multiples of the text's length."""

NEARBY = 2_000
"""Characters searched for a piece after that, in addition to twice its length."""

GROUP_SIZE = 128
"""The maximum number of documents in one transaction of a store."""

GROUP_BYTES = 64_000_000
"""The size of texts and vectors in one transaction; a single larger document is allowed."""

Check: TypeAlias = Callable[[Document, Sequence[Chunk]], object]
"""Raises the error of a document that a store cannot accept, before it is embedded."""


# ── functions and their outputs ─────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class WrappedOutput:
    """A stage's function whose output is converted in the same call."""

    fn: StageFunction
    convert: Callable[[Any, Any], object]

    @property
    def user_functions(self) -> tuple[Callable[..., Any], ...]:
        """The function, for messages."""
        return (self.fn,)

    def __call__(self, item: object, *resource: object) -> object:
        """Call the function; return an awaitable if it returned one."""
        value = self.fn(_argument(self.fn, item), *resource)
        return (
            self._later(value, item) if hasattr(value, "__await__") else self.convert(value, item)
        )

    def call(self, item: object) -> Any:
        """Call the function within a longer call on a thread, where nothing can be awaited."""
        value = self.fn(_argument(self.fn, item))
        if inspect.iscoroutine(value):
            value.close()
            raise TypeError(f"{self.fn!r} is async and does not say so: pass the async function")
        return self.convert(value, item)

    @property
    def is_ours(self) -> bool:
        """Whether it is the default loader, which leaves no trace in its context."""
        return self.fn is load_source

    async def _later(self, value: Any, item: object) -> object:
        """Await the value of a sync function that returned an awaitable."""
        return self.convert(await value, item)


@dataclass(frozen=True, slots=True)
class WrappedAsyncOutput:
    """The same for an async function."""

    fn: Callable[..., Any]
    convert: Callable[[Any, Any], object]

    @property
    def user_functions(self) -> tuple[Callable[..., Any], ...]:
        """The function, for messages."""
        return (self.fn,)

    async def __call__(self, item: object, *resource: object) -> object:
        """Await the function and convert its output."""
        return self.convert(await self.fn(_argument(self.fn, item), *resource), item)


def wrap_output(fn: StageFunction, convert: Callable[[Any, Any], object]) -> StageFunction:
    """Wrap a function with the conversion of its output; the wrapper is async if it is."""
    kind = WrappedAsyncOutput if declared_async(fn) else WrappedOutput
    return kind(fn, convert)


def _argument(function: StageFunction, item: object) -> object:
    """The path of a file, for any loader except our own, which needs the Source itself."""
    if isinstance(item, Source) and without_partials(function) is not load_source:
        return item.as_given()
    return item


def as_documents(loaded: object, source: object) -> Document | list[Document]:
    """
    Convert the output of a loader to a Document, or to a list of them for an iterable.

    A text gets the id of its source; the texts of an iterable get that id and their number. A
    Document gets the file that it was loaded from, also as its source if it has none.

    Raises:
        TypeError: it is something else.
        ValueError: two of its documents have the same id, so that one would replace the other.
        LoadError: a text has half of a surrogate pair, which no store accepts.
    """
    if isinstance(loaded, Document | str):
        return _document_of(loaded, source, None)
    is_pair = (
        isinstance(loaded, tuple)
        and len(loaded) == 2
        and all(isinstance(each, str) for each in loaded)
    )
    if is_pair or isinstance(loaded, bytes | Mapping) or not isinstance(loaded, Iterable):
        raise TypeError(
            f"load must return a Document (or a text, for a path or a str), or an iterable of "
            f"these, got {loaded!r:.200}"
        )
    documents = [_document_of(each, source, number) for number, each in enumerate(loaded, start=1)]
    counts = Counter(document.id for document in documents)
    if twins := [id_ for id_, count in counts.items() if count > 1]:
        raise ValueError(
            f"load gave two documents with the id {twins[0]!r:.200}, of which one would replace "
            "the other: give each an id of its own"
        )
    return documents


def as_chunks(pieces: Iterable[Chunk | str], text: str) -> list[Chunk]:
    """
    Convert the output of a splitter to Chunks.

    A piece that is only a text is searched for in the document, after the start of the previous
    one. A piece that the splitter rewrote is not found and gets the position of the previous one.
    """
    if isinstance(pieces, str | Mapping) or not isinstance(pieces, Iterable):
        got = "one text " if isinstance(pieces, str) else ""
        raise TypeError(f"chunk must return a list of Chunks or texts, got {got}{pieces!r:.200}")
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
    Searches a text for its pieces, in order, in linear time even if none is found.

    A piece that is missing costs a search of the whole rest. Once these searches have covered
    MAX_SEARCHES times the text, further ones are limited to where the piece can be if the text
    in between was rewritten too.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._start = self._after = 0
        self._missed = 0  # characters of missing pieces since the last one that was found
        self._patience = MAX_SEARCHES * len(text)

    def start_of(self, piece: str) -> int:
        """The start of a piece, or of the previous one if it is not found."""
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
    Convert the output of an embedder to one row per text; None for a row that is not finite.

    The document of such a row can then fail without another call for the other documents.

    Raises:
        TypeError: it is neither an array nor a list of vectors, or has texts instead of numbers.
        ValueError: it has a wrong number of vectors, or vectors of different lengths.
    """
    given = np.asarray(check_values(vectors, len(texts), "embed"))
    if given.dtype == object and given.ndim == 1:  # of vectors, as from a Series
        given = np.asarray(given.tolist())
    if given.dtype.kind in "bcSU":  # numpy would take true, 1j and "1.0" for numbers
        raise TypeError(f"embed must return real numbers, got {given.dtype} in {vectors!r:.200}")
    # A copy, unless it is one already: the embedder may fill the same array in its next call.
    rows = np.array(given, dtype=np.float32, copy=None if isinstance(vectors, list) else True)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise TypeError(
            f"embed must return a vector for each of {len(texts)} texts, "
            f"got {type(vectors).__name__} of shape {rows.shape}"
        )
    # The sum is not finite if an entry is not, and costs a tenth of checking each entry.
    if math.isfinite(np.add.reduce(rows, axis=None)):
        return list(rows)
    finite = np.logical_and.reduce(np.isfinite(rows), axis=1)
    return [row if is_finite else None for row, is_finite in zip(rows, finite, strict=True)]


def _document_of(loaded: object, source: object, number: int | None) -> Document:
    """The Document of one loaded value."""
    file = source.source if isinstance(source, Source) else None
    if isinstance(loaded, Document | str):
        refuse_surrogates(loaded if isinstance(loaded, str) else loaded.text)
    if isinstance(loaded, Document):
        return loaded._of_file(file) if file else loaded
    name, origin = (source.id, source.source) if isinstance(source, Source) else (source, source)
    if isinstance(loaded, str) and isinstance(name, str) and isinstance(origin, str):
        id_ = name if number is None else part_id(name, str(number))
        return Document(id_, loaded, {}, origin, file)
    raise TypeError(
        f"load must return Documents (or texts, for a path or a str), got {loaded!r:.200}"
        f"{f' as number {number}' if number else ''}"
    )


# ── stores ──────────────────────────────────────────────────────────────────────────────────────


class EmbeddedDocument(NamedTuple):
    """A document with the vectors of its chunks, on its way to the store."""

    document: Document
    chunks: Sequence[Chunk]
    vectors: Sequence[NDArray[np.float32]]
    fingerprint: str
    claim: StoreClaim

    @property
    def embeddings(self) -> NDArray[np.float32]:
        """
        The vectors as an array of shape (chunks, dimension).

        It is made where the store is called: to copy them, numpy gives up the interpreter lock, and
        the loop would wait for it.
        """
        return as_array(self.vectors)

    def for_store(self) -> StoreRequest:
        """The request for a Store."""
        return StoreRequest(self.document, self.chunks, self.embeddings, self.fingerprint)


def check_of(store: object) -> Check:
    """The check of documents for a store; no check if the store has none."""
    check: Check = getattr(store, "check", lambda *_: None)
    return check


def store_settings(
    stage: Stage,
    embedder: EmbedderInStore,
    *,
    max_concurrency: int,
    retry: AsyncRetry,
    timeout: float | None,
    max_initial_failures: int | None,
) -> BatchSettings[EmbeddedDocument, Any]:
    """
    Settings of the calls that store documents.

    A store with `upsert_many` takes all waiting documents in one call, another Store one document
    after the other, and a function several concurrently. The processor's time limit is not for a
    Store: its call goes on after the limit, and stores what would have been counted as failed.

    Args:
        stage: the stage as it was given.
        embedder: the embedder as the store knows it.
        max_concurrency: the maximum number of concurrent calls of a function.
        retry: the retry policy.
        timeout: seconds for one attempt of a function.
        max_initial_failures: the number of first calls that fail alike and so stop the run.

    Raises:
        ValueError: a Store is given resources.
    """
    store: Any = stage.fn
    is_store = hasattr(store, "upsert")
    if is_store and stage.resources is not None:
        raise ValueError("resources are passed to a function, and a Store has its own: leave out")
    in_groups = is_store and _takes_groups(store)
    calls = StoreCalls(store, embedder)
    call: StageFunction = calls.upsert_many if in_groups else calls.upsert
    if not is_store:
        call = _call_function(stage.function)
    settings = stage.plan(
        call,
        max_concurrency=1 if is_store else max_concurrency,
        batched=in_groups,
        batch_size=GROUP_SIZE,
        retry=retry,
        timeout=None if is_store else timeout,
        max_initial_failures=max_initial_failures,
    )
    return replace(
        settings, retry=replace(settings.retry, retry_on=_fatal_if_refused(settings.retry))
    )


def _takes_groups(store: object) -> bool:
    """Whether a store has `upsert_many`, and no subclass or caller has replaced `upsert` alone."""
    if "upsert" in getattr(store, "__dict__", ()):
        return False
    for kind in type(store).__mro__:
        if "upsert_many" in vars(kind):
            return True
        if "upsert" in vars(kind):
            return False
    return False


def _fatal_if_refused(retry: AsyncRetry) -> Callable[[Exception], Verdict]:
    """The verdict of a policy, except that a store that accepts no document ends the run."""

    def verdict(error: Exception) -> Verdict:
        if is_a(error, (EmbedderMismatch, StoreNotWritable)):
            return FATAL
        return verdict_of(error, retry.retry_on)

    return verdict


@dataclass(frozen=True, slots=True)
class StoreCalls:
    """The calls of a Store that store documents: one, or several in a transaction."""

    store: Any
    embedder: EmbedderInStore

    @property
    def _named(self) -> dict[str, str]:
        """The embedder as arguments of `upsert` and `upsert_many`."""
        name, identity = self.embedder.known_as
        takes_identity = supports_embedder_identity(self.store)
        return {"embedder": name, "identity": identity} if takes_identity else {"embedder": name}

    def upsert(self, request: EmbeddedDocument) -> object:
        """Store one document."""

        def upsert() -> object:
            document, chunks, embeddings, fingerprint = request.for_store()
            names = {"fingerprint": fingerprint, **self._named}
            return self.store.upsert(document, chunks, embeddings, **names)

        return request.claim.attempt(upsert)

    def upsert_many(self, requests: Sequence[EmbeddedDocument]) -> list[Exception | None]:
        """Store documents in one transaction, or in several if they are large."""
        outcomes: list[Exception | None] = []
        for group in _groups_by_size(requests):
            begun = [request.claim.begin() for request in group]
            found = iter(self._upsert_group(list(compress(group, begun))))
            outcomes += [next(found) if has_begun else None for has_begun in begun]
        return outcomes

    def _upsert_group(self, requests: Sequence[EmbeddedDocument]) -> Sequence[Exception | None]:
        """Store documents in one transaction, and note for each whether it is stored."""
        outcomes: Sequence[Exception | None] = ()
        try:
            if requests:
                given = [each.for_store() for each in requests]
                found = list(self.store.upsert_many(given, **self._named))
                outcomes = check_values(found, len(requests), "upsert_many")
        finally:
            for place, request in enumerate(requests):
                request.claim.end(stored=bool(outcomes) and outcomes[place] is None)
        return outcomes


def _groups_by_size(requests: Sequence[EmbeddedDocument]) -> list[list[EmbeddedDocument]]:
    """Divide requests into groups of at most GROUP_BYTES; a larger one is alone."""
    groups: list[list[EmbeddedDocument]] = [[]]
    size = 0
    for request in requests:
        # The texts of the chunks are about as long as the document.
        own = 4 * len(request.document.text) + sum(vector.nbytes for vector in request.vectors)
        if groups[-1] and size + own > GROUP_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(request)
        size += own
    return groups


def _call_function(function: Callable[..., Any]) -> StageFunction:
    """A function of document, chunks and embeddings as a function of an EmbeddedDocument."""

    def call(request: EmbeddedDocument, *resource: object) -> object:
        parts = request.document, request.chunks, request.embeddings
        return request.claim.attempt(lambda: function(*parts, *resource))

    async def call_async(request: EmbeddedDocument, *resource: object) -> object:
        if not request.claim.begin():
            return None
        stored = False
        try:
            value = await function(request.document, request.chunks, request.embeddings, *resource)
            stored = True
        finally:
            request.claim.end(stored=stored)
        return value

    return call_async if check_process_fn(function) else call


# ── which of a call and a cancellation goes ahead ──────────────────────────────────────────────


class StoreClaim:
    """
    The right to store a document, which a call on a thread and a cancellation compete for.

    A thread cannot be interrupted, so a call that has begun may commit its transaction after the
    run was cancelled. A cancelled document therefore withdraws its claim, and no call begins; if
    one has begun, the document waits for it and has its outcome. So no document is stored and
    counted as cancelled, or as failed after a timeout.

    Attributes:
        stored: whether a call has stored the document.
    """

    __slots__ = ("_claims", "_on_end", "stored")

    def __init__(self) -> None:
        self._claims = [None]  # of two threads, one gets what `list.pop` removes
        self._on_end: Callable[[], object] | None = None
        self.stored = False

    def begin(self) -> bool:
        """Take the claim for a call; False if the document is stored or withdrawn."""
        try:
            self._claims.pop()
        except IndexError:
            return False
        return True

    def end(self, *, stored: bool) -> None:
        """Note the end of a call; after a failure, another attempt may begin."""
        self.stored = stored
        if not stored:
            self._claims.append(None)
        if self._on_end is not None:
            with suppress(RuntimeError):  # the loop is closed, so nobody waits any longer
                self._on_end()

    def attempt(self, store: Callable[[], T]) -> T | None:
        """Call a function that stores the document, unless it is stored or withdrawn."""
        if not self.begin():
            return None
        stored = False
        try:
            value = store()
            stored = not hasattr(type(value), "__await__")  # else the run's loop awaits it
        finally:
            self.end(stored=stored)
        return value

    async def settle(self, grace: float) -> bool:
        """
        Withdraw the claim, or wait for the call that has begun.

        Args:
            grace: seconds to wait; a call that takes longer is abandoned.

        Returns:
            Whether the document is stored.
        """
        ended = asyncio.Event()
        self._on_end = partial(asyncio.get_running_loop().call_soon_threadsafe, ended.set)
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                while not (self.begin() or self.stored):
                    ended.clear()
                    await ended.wait()
        return self.stored
