"""
UniqueSources: each source once per run, and no two with the same id.

OwnFiles recognizes the store and the journal, which are not sources.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from ragasync.documents.errors import IdConflictError
from ragasync.documents.fingerprints import content_digest
from ragasync.documents.models import Document
from ragasync.documents.sources import FileIds, Source, as_id, plain_path

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
        if self._is_own_folder(os.path.dirname(text)):  # noqa: PTH120
            return True
        # Most files are excluded by their names; a link may have any name.
        is_like = os.path.basename(text) in self._names or os.path.islink(text)  # noqa: PTH119, PTH114
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
class RefusedDocument(Document):
    """A document that fails because another source of the run, `taken_by`, has its id."""

    taken_by: str = ""

    def __reduce__(self) -> tuple[type[Document], tuple[object, ...]]:
        return type(self), (*Document.__reduce__(self)[1], self.taken_by)

    def refusal(self) -> IdConflictError:
        """Return the error of this document."""
        return IdConflictError.between(self.id, self.taken_by, f"{Document.__repr__(self)}")


@dataclass(frozen=True, slots=True, repr=False)
class NamedFile(Source):
    """A file that was passed as the str `text`, which a user's loader gets unchanged."""

    text: str = ""

    def as_given(self) -> str | Path:
        """Return the str; raise as opening the file does."""
        Source.path_to_open(self)
        return self.text


Taken: TypeAlias = dict[str, tuple[object, str]]
"""The ids of one run, each with the content that identifies its source and a description."""


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

    def of(self, sources: Iterable[Any]) -> Iterator[Any]:
        """Yield the items of some sources."""
        for source in sources:
            if (item := self._item(source)) is not None:
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

    def _item(self, source: Any) -> Any:
        """Return the item of a source; None for a file that was there before."""
        if isinstance(source, Path):
            id_ = self._ids.of(source)
            source = Source(id_, source, source=id_)
        elif isinstance(source, str) and os.path.isfile(source):  # noqa: PTH113  # never raises
            id_ = self._ids.of(source)
            source = NamedFile(id_, Path(source), source=id_, text=source)
        if isinstance(source, Source):
            if self._own.has(source.path):
                return None
            source = self._of_root(source)
        return self._unless_taken(source) if isinstance(source, Source | Document) else source

    def _of_root(self, source: Source) -> Source:
        """Return a source with id and `source` by these ids; a custom id is kept."""
        place = self._ids.of(source.path)
        if source.source == place:
            return source
        is_own = source.id != as_id(plain_path(source.path))
        return replace(source, id=source.id if is_own else place, source=place)

    def _unless_taken(self, source: Source | Document) -> Any:
        """Return a source, refused if its id is another's; None for a repeated file."""
        content = _content_of(source)
        mine = content, f"{_in_words(source)} (item {self._count})"
        found = self.taken.setdefault(source.id, mine)
        if found is mine:
            return source
        if _same(found[0], content):
            return None if isinstance(source, Source) else source
        if isinstance(source, Source):
            return replace(source, taken_by=found[1])
        return RefusedDocument(
            source.id, source.text, source.metadata, source.source, taken_by=found[1]
        )


def content_of(document: Document) -> object:
    """Return the content that tells a document from another with the same id."""
    try:
        return document.source, content_digest(document)
    except Exception:  # metadata may be of any class
        return document.source, document.text, id(document.metadata)


def claim(taken: Taken, source: object) -> None:
    """Claim the id of a file or document of an earlier run, unless another has it."""
    if isinstance(source, Source | Document):
        taken.setdefault(source.id, (_content_of(source), _in_words(source)))


def _content_of(source: Source | Document) -> object:
    """Return the content that tells a source from another with the same id."""
    return plain_path(source.path) if isinstance(source, Source) else content_of(source)


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
