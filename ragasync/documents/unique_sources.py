"""
UniqueSources: each source once per run, and no two with the same id.

OwnFiles recognizes the store and the journal, which are not sources. IdClaims is for ids that only
a custom loader knows: of two sources with one id, the later fails.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from ragasync.documents.document_records import PreparedDocument, ProcessedDocument
from ragasync.documents.loaders import load_source
from ragasync.documents.models import Document, IdConflictError
from ragasync.documents.sources import FileIds, RefusedDocument, Source, as_id, part_id, plain_path
from ragasync.documents.stage import StageFunction, content_digest, without_partials
from ragasync.errors import StageFailure
from ragasync.foreign_errors import guarded

_SUFFIXES = ("", "-wal", "-shm", "-journal", "-lock", "-lock-journal")
"""Suffixes of the further files that SQLite and the journal keep next to a file."""


class OwnFiles:
    """
    Recognizes the files of a pipeline's store and journal, given their paths.

    They are not documents: a store inside the folder would load itself, and grow in each run. And
    opening and closing SQLite's file drops the locks that this process has on it, because POSIX
    keeps them by process and file (sqlite.org/howtocorrupt.html, 2.2).
    """

    def __init__(self, paths: Iterable[object]) -> None:
        own = [os.path.realpath(path) for path in paths if isinstance(path, str | os.PathLike)]
        self._files = {path + suffix for path in own for suffix in _SUFFIXES}
        self._names = {os.path.basename(path) for path in self._files}  # noqa: PTH119
        self._folders = [os.path.join(path, "") for path in own]  # noqa: PTH118  # ends in /
        self._seen: tuple[str, bool] = ("", False)

    def has(self, path: str | os.PathLike[str]) -> bool:
        """Return whether a file is one of these, under any name."""
        if not self._files:
            return False
        text = os.fspath(path)
        folder, name = os.path.split(text)
        if self._is_own_folder(folder):
            return True
        # Most files are excluded by their names; a link may have any name.
        is_like = name in self._names or os.path.islink(text)  # noqa: PTH114
        return is_like and self._is_own(os.path.realpath(text))

    def _is_own(self, real: str) -> bool:
        """Return whether a real path is one of these files or in one of these folders."""
        return real in self._files or os.path.join(real, "").startswith(tuple(self._folders))  # noqa: PTH118

    def _is_own_folder(self, folder: str) -> bool:
        """Return whether a folder is a store's; cached for the files of one folder."""
        if self._seen[0] != folder:
            self._seen = folder, self._is_own(os.path.realpath(folder))
        return self._seen[1]


@dataclass(frozen=True, slots=True, repr=False)
class NamedFile(Source):
    """A file that was passed as the str `text`, which a user's loader gets unchanged."""

    text: str = ""

    def as_given(self) -> str | Path:
        """Return the str; raise as opening the file does."""
        Source.path_to_open(self)
        return self.text


class Claim(NamedTuple):
    """The claim of a source on an id."""

    content: object
    """What tells the source from another one with the same id."""

    description: str


@dataclass(slots=True)
class HeldClaim:
    """
    The same for a source that is in memory anyway: its content is digested if another claims it.

    Args:
        source: the source.
        number: the number of sources before it.
    """

    source: Source | Document
    number: int

    @property
    def content(self) -> object:
        """What tells the source from another one with the same id."""
        return content_of(self.source)

    @property
    def description(self) -> str:
        """A description of the source for errors."""
        return f"{_in_words(self.source)} (item {self.number})"


Taken: TypeAlias = dict[str, Claim | HeldClaim]
"""The claims on the ids of one run."""


class UniqueSources:
    """
    Make items of sources: drop a repeated file, refuse a source with another's id.

    A repeated document stays an item, so that results match the input. The ids of files and
    documents are known before they are loaded; other sources, for a user's loader, pass unchanged.

    Args:
        ids: makes the ids of files.
        own: the pipeline's own files, which are dropped.

    Attributes:
        taken: the ids so far.
    """

    def __init__(self, ids: FileIds, own: OwnFiles) -> None:
        self._ids, self._own = ids, own
        self.taken: Taken = {}
        self._count = 0

    def of(self, sources: Iterable[Any], *, are_held: bool = False) -> Iterator[Any]:
        """Yield the items of some sources, which `are_held` in memory during the run or not."""
        for source in sources:
            if (item := self._item(source, are_held)) is not None:
                self._count += 1
                yield item

    async def of_async(
        self, sources: AsyncIterable[Any], found_in: Callable[[Any], Iterable[Any]]
    ) -> AsyncGenerator[Any, None]:
        """Yield the items of sources that come asynchronously; close their iterator too."""
        iterator = aiter(sources)
        try:
            async for source in iterator:
                found = found_in(source)
                if not isinstance(found, list):  # a folder, which is walked
                    found = await asyncio.to_thread(list, found)
                for item in self.of(found):
                    yield item
        finally:
            if (close := getattr(iterator, "aclose", None)) is not None:
                await close()

    def _item(self, source: Any, is_held: bool) -> Any:
        """Return the item of a source; None for a file that was there before."""
        if isinstance(source, Document):
            return self._unless_taken(source, is_held)
        if isinstance(source, Path):
            id_ = self._ids.of(source)
            source = Source(id_, source, source=id_)
        elif isinstance(source, str) and os.path.isfile(source):  # noqa: PTH113  # never raises
            id_ = self._ids.of(source)
            source = NamedFile(id_, Path(source), source=id_, text=source)
        if isinstance(source, Source):
            if self._own.has(source.path):
                return None
            return self._unless_taken(self._of_root(source), is_held)
        return source

    def _of_root(self, source: Source) -> Source:
        """Return a source with id and `source` by these ids; a custom id is kept."""
        place = self._ids.of(source.path)
        if source.source == place:
            return source
        is_own = source.id != as_id(plain_path(source.path))
        return replace(source, id=source.id if is_own else place, source=place)

    def _unless_taken(self, source: Source | Document, is_held: bool) -> Any:
        """Return a source, refused if its id is another's; None for a repeated file."""
        held = HeldClaim(source, self._count)
        mine = held if is_held else Claim(held.content, held.description)
        found = self.taken.setdefault(source.id, mine)
        if found is mine:
            return source
        if _same(found.content, mine.content):
            return None if isinstance(source, Source) else source
        if isinstance(source, Source):
            return replace(source, taken_by=found.description)
        return RefusedDocument(
            source.id, source.text, source.metadata, source.source, why=found.description
        )


def content_of(source: Source | Document) -> object:
    """Return the content that tells a source from another with the same id."""
    if isinstance(source, Source):
        return plain_path(source.path)
    try:
        return source.source, content_digest(source)
    except Exception:  # metadata may be of any class
        return source.source, source.text, id(source.metadata)


def claim(taken: Taken, source: object) -> None:
    """Claim the id of a file or document of an earlier run, unless another has it."""
    if isinstance(source, Source | Document):
        taken.setdefault(source.id, Claim(content_of(source), _in_words(source)))


def _in_words(source: Source | Document) -> str:
    return repr(source) if isinstance(source, Document) else f"the file {plain_path(source.path)!r}"


def _same(one: object, other: object) -> bool:
    """Return whether two paths or digests are of the same source."""
    if one == other:
        return True
    try:  # a file system may take two spellings of a name for one
        return isinstance(one, str) and isinstance(other, str) and os.path.samefile(one, other)  # noqa: PTH121
    except (OSError, ValueError):
        return False


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
        self._is_ours = without_partials(load) is load_source
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
        mine = Claim(content_of(document), f"{document!r} of {_shown(source)}")
        owner = _other_owner(self._taken, source, document.id, mine)
        if owner is None:
            return None
        return IdConflictError.between(document.id, owner, mine.description)

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
        mine = Claim(content, f"{each!r} of {_shown(source)}")
        if _other_owner(taken, source, each.id, mine) is not None:
            return False
    return True


def _other_owner(taken: Taken, source: object, document_id: str, mine: Claim) -> str | None:
    """Description of the other source that has an id; None if this source has it now."""
    if isinstance(source, Source) and _is_of(document_id, source.id):
        return None
    first = taken.setdefault(document_id, mine)
    return None if first.content == mine.content else first.description


def _is_of(document_id: str, source_id: str) -> bool:
    """Whether an id is that of a source, or of one of its parts."""
    return document_id == source_id or document_id.startswith(part_id(source_id, ""))


def _shown(source: object) -> str:
    """Short description of a source of any class."""
    said = guarded(repr, source)
    return f"{said:.200}" if isinstance(said, str) else f"a {type(source).__name__}"
