"""The ids that a loader of the user's own gives: of two sources with one id the later fails."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from ragasync.documents.errors import IdConflictError
from ragasync.documents.fingerprints import StageFunction
from ragasync.documents.loaders import load_source
from ragasync.documents.models import Document
from ragasync.documents.sources import Source, part_id
from ragasync.documents.stages.prepare import FailedDocument, PreparedDocument
from ragasync.documents.stages.processed import ProcessedDocument
from ragasync.documents.unique_sources import Taken, content_of
from ragasync.errors import StageFailure
from ragasync.foreign_errors import guarded

E = TypeVar("E", bound="Document | PreparedDocument | FailedDocument")


class IdClaims:
    """
    Gives ids to documents in the order of their sources, where only loading tells the ids.

    A source that is loaded waits until the earlier ones are: else it would depend on their speed
    which of two gets the id. It waits for a few others at most, because one may take very long.

    Args:
        taken: the ids that are given, shared with what finds the sources.
        load: the function that loads.
        most: how many sources wait for an earlier one; one more, and the first goes before it.
        has_store: whether there is a store, in which one would replace the other; else none waits.
    """

    def __init__(self, taken: Taken, load: StageFunction, most: int, *, has_store: bool) -> None:
        self._taken, self._most = taken, most
        self._has_store = has_store
        while isinstance(load, partial):
            load = load.func
        self._is_ours = load is load_source
        self._order: deque[int] = deque()
        self._settled: set[int] = set()
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._next = 0

    @contextmanager
    def place_of(self, source: object) -> Iterator[int | None]:
        """Give a source its place in the order; None where its id is known without loading."""
        if isinstance(source, Document) or (self._is_ours and isinstance(source, Source)):
            yield None
            return
        place = self._next
        self._next += 1
        self._order.append(place)
        try:
            yield place
        finally:
            self._settle(place)

    async def turn_of(self, place: int) -> None:
        """Wait until all earlier sources are loaded, or too many wait for one of them."""
        if self._first() == place or not self._has_store:
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting[place] = future
        if len(self._waiting) > self._most:
            self._wake(min(self._waiting))
        try:
            await future
        finally:
            self._waiting.pop(place, None)

    def claimed(self, source: object, entries: Sequence[E]) -> list[E | FailedDocument]:
        """Return the documents of a source; those whose ids are another source's are lost."""
        checked: list[E | FailedDocument] = []
        for entry in entries:
            document = entry if isinstance(entry, Document) else entry.document
            error = None if isinstance(entry, FailedDocument) else self._conflict(source, document)
            checked.append(
                entry if error is None else FailedDocument(document, StageFailure("load", error))
            )
        return checked

    def _conflict(self, source: object, document: Document) -> IdConflictError | None:
        """Return the error of a document whose id another source has; else it has it now."""
        mine = content_of(document), f"{document!r} of {_shown(source)}"
        owner = _owner_else(self._taken, source, document.id, mine)
        return None if owner is None else IdConflictError.between(document.id, owner, mine[1])

    def _settle(self, place: int) -> None:
        """Note that the ids of a source are given; the next in the order may go on."""
        self._settled.add(place)
        if (first := self._first()) is not None:
            self._wake(first)

    def _first(self) -> int | None:
        """Return the first source whose ids are not given."""
        while self._order and self._order[0] in self._settled:
            self._settled.discard(self._order.popleft())
        return self._order[0] if self._order else None

    def _wake(self, place: int) -> None:
        """Let a source go on that waits."""
        future = self._waiting.pop(place, None)
        if future is not None and not future.done():
            future.set_result(None)


def claim_earlier(taken: Taken, source: object, done: ProcessedDocument) -> bool:
    """
    Give the documents that an earlier run made of a source their ids, as if this run had made them.

    Args:
        taken: the ids that are given.
        source: the source.
        done: what became of it.

    Returns:
        Whether no other source of this run has any of these ids.
    """
    for each in (done,) if done.documents is None else done.documents:
        if each.document is not None:
            content = content_of(each.document)
        elif each.fingerprint:
            content = each.source, each.fingerprint.partition("/")[0]
        else:
            continue  # in a store that cannot tell what it has
        mine = content, f"{each!r} of {_shown(source)}"
        if _owner_else(taken, source, each.id, mine) is not None:
            return False
    return True


def _owner_else(
    taken: Taken, source: object, document_id: str, mine: tuple[object, str]
) -> str | None:
    """Return the other source that has an id, in words; None where this one has it now."""
    if isinstance(source, Source) and _is_of(document_id, source.id):
        return None
    content, owner = taken.setdefault(document_id, mine)
    return None if content == mine[0] else owner


def _is_of(document_id: str, source_id: str) -> bool:
    """Return whether an id is that of a source, or of one of its parts."""
    return document_id == source_id or document_id.startswith(part_id(source_id, ""))


def _shown(source: object) -> str:
    """Return a source of any class in a few words."""
    said = guarded(repr, source)
    return f"{said:.200}" if isinstance(said, str) else f"a {type(source).__name__}"


class DocumentsInFlight:
    """Has a document wait for an equal one, which another source of the run gave, to be stored."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}

    async def begin(self, document_id: str) -> bool:
        """Return whether a document is the only one of its id; else wait for the other one."""
        waiting = self._waiting.get(document_id)
        if waiting is None:
            self._waiting[document_id] = []
            return True
        future = asyncio.get_running_loop().create_future()
        waiting.append(future)
        await future
        return False

    def end(self, document_id: str) -> None:
        """Let those go on that wait for a document."""
        for future in self._waiting.pop(document_id, ()):
            if not future.done():
                future.set_result(None)
