"""IdClaims: ids that only a custom loader knows; of two sources with one id, the later fails."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from ragasync.documents.errors import IdConflictError
from ragasync.documents.fingerprints import StageFunction
from ragasync.documents.loaders import load_source
from ragasync.documents.models import Document
from ragasync.documents.prepared import PreparedDocument
from ragasync.documents.processed import ProcessedDocument
from ragasync.documents.sources import Source, part_id
from ragasync.documents.unique_sources import Taken, content_of
from ragasync.errors import StageFailure
from ragasync.foreign_errors import guarded


class IdClaims:
    """
    Lets sources claim the ids of their documents in input order, if only loading reveals the ids.

    A loaded source waits for the earlier ones, because otherwise their speed would decide which of
    two gets an id. Only a few sources wait, because an earlier one may take very long.

    Args:
        taken: the ids claimed so far, shared with UniqueSources.
        load: the load function.
        most: the number of sources that may wait; with one more, the first goes ahead.
        has_store: whether there is a store, in which one document would replace the other; without
            a store no source waits.
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

    def knows_id_of(self, source: object) -> bool:
        """Whether the id of a source is known without loading it."""
        return isinstance(source, Document) or (self._is_ours and isinstance(source, Source))

    @contextmanager
    def place(self) -> Iterator[int]:
        """Take the next place in the order, for a source whose id only loading reveals."""
        place = self._next
        self._next += 1
        self._order.append(place)
        try:
            yield place
        finally:
            self._settle(place)

    async def turn_of(self, place: int) -> None:
        """Wait until all earlier sources have claimed their ids, or too many sources wait."""
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

    def claim(self, source: object, documents: Sequence[PreparedDocument]) -> None:
        """Claim the ids of a source's documents; a document fails if another source has its id."""
        for prepared in documents:
            if prepared.failure is None and (error := self._conflict(source, prepared.document)):
                prepared.failure = StageFailure("load", error)

    def _conflict(self, source: object, document: Document) -> IdConflictError | None:
        """The error of a document whose id another source has; else this source has it now."""
        mine = content_of(document), f"{document!r} of {_shown(source)}"
        owner = _other_owner(self._taken, source, document.id, mine)
        return None if owner is None else IdConflictError.between(document.id, owner, mine[1])

    def _settle(self, place: int) -> None:
        """Note that a source has claimed its ids; the next one in the order may continue."""
        self._settled.add(place)
        if (first := self._first()) is not None:
            self._wake(first)

    def _first(self) -> int | None:
        """The first source that has not claimed its ids."""
        while self._order and self._order[0] in self._settled:
            self._settled.discard(self._order.popleft())
        return self._order[0] if self._order else None

    def _wake(self, place: int) -> None:
        """Wake the source that waits at a place."""
        future = self._waiting.pop(place, None)
        if future is not None and not future.done():
            future.set_result(None)


def claim_earlier(taken: Taken, source: object, done: ProcessedDocument) -> bool:
    """
    Claim the ids of documents that an earlier run has processed, as if this run had done so.

    Args:
        taken: the ids claimed so far.
        source: the source.
        done: its result in the earlier run.

    Returns:
        Whether no other source of this run has any of these ids.
    """
    for each in (done,) if done.documents is None else done.documents:
        if each.document is not None:
            content = content_of(each.document)
        elif each.fingerprint:
            content = each.source, each.fingerprint.partition("/")[0]
        else:
            continue  # its store cannot report what it holds
        mine = content, f"{each!r} of {_shown(source)}"
        if _other_owner(taken, source, each.id, mine) is not None:
            return False
    return True


def _other_owner(
    taken: Taken, source: object, document_id: str, mine: tuple[object, str]
) -> str | None:
    """Description of the other source that has an id; None if this source has it now."""
    if isinstance(source, Source) and _is_of(document_id, source.id):
        return None
    content, owner = taken.setdefault(document_id, mine)
    return None if content == mine[0] else owner


def _is_of(document_id: str, source_id: str) -> bool:
    """Whether an id is that of a source, or of one of its parts."""
    return document_id == source_id or document_id.startswith(part_id(source_id, ""))


def _shown(source: object) -> str:
    """Short description of a source of any class."""
    said = guarded(repr, source)
    return f"{said:.200}" if isinstance(said, str) else f"a {type(source).__name__}"
