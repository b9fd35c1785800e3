"""The sources of one run: each is processed once, and no two of them share an id."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeAlias

from ragasync.documents.document import Document
from ragasync.documents.errors import IdConflictError
from ragasync.documents.sources.file_ids import FileIds, as_id, plain_path
from ragasync.documents.sources.finding import Source
from ragasync.documents.sources.own_files import OwnFiles


@dataclass(frozen=True, slots=True, repr=False)
class RefusedDocument(Document):
    """
    A document whose id another source of the run has; it fails instead of being stored.

    Args:
        taken_by: the source that has its id.
    """

    taken_by: str = ""

    def __reduce__(self) -> tuple[type[Document], tuple[object, ...]]:
        """Travel to another process, as a Document does."""
        return type(self), (*Document.__reduce__(self)[1], self.taken_by)

    def refusal(self) -> IdConflictError:
        """Return the error that it fails with."""
        return IdConflictError.between(self.id, self.taken_by, f"{Document.__repr__(self)}")


Taken: TypeAlias = dict[str, tuple[object, str]]
"""The ids of one run: by each, what tells its source from others, and the source in words."""


class UniqueSources:
    """
    Make items of sources: drop a file that was named before, refuse one whose id is another's.

    A document that is given twice stays an item, so that results fit what was given. The ids of
    files and documents are known before they are loaded; those of other things, which a loader of
    the user's takes, are not looked at here.

    Args:
        ids: makes the ids of files.
        own: the pipeline's own files, which are passed over.

    Attributes:
        taken: the ids that are given so far.
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
        """Yield the items of what is found in sources that come one by one; close these too."""
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
        """Return what is to be processed for a source, or None for a file that was there before."""
        if isinstance(source, Path):
            id_ = self._ids.of(source)
            source = Source(id_, source, source=id_)
        if isinstance(source, Source):
            if self._own.has(source.path):
                return None
            return self._unless_taken(self._of_root(source), plain_path(source.path))
        if isinstance(source, Document):
            return self._unless_taken(source, content_of(source))
        return source

    def _of_root(self, source: Source) -> Source:
        """Return a source with the id and origin of these ids; another id of its own it keeps."""
        place = self._ids.of(source.path)
        if source.source == place:
            return source
        is_own = source.id != as_id(plain_path(source.path))
        return replace(source, id=source.id if is_own else place, source=place)

    def _unless_taken(self, source: Source | Document, content: object) -> Any:
        """Return a source as it is, or refused; None for a file that has its id already."""
        kind = f"the file {content!r}" if isinstance(source, Source) else f"{source!r}"
        mine = content, f"{kind} (item {self._count})"
        found = self.taken.setdefault(source.id, mine)
        if found is mine:
            return source
        if _same(found[0], content):
            return None if isinstance(source, Source) else source
        if isinstance(source, Source):
            return replace(source, taken_by=found[1])
        return RefusedDocument(source.id, source.text, source.metadata, source.source, found[1])


def content_of(document: Document) -> bytes:
    """Return what tells a document from another with the same id."""
    try:
        rest = repr((document.source, sorted(document.metadata.items(), key=repr)))
    except Exception:  # metadata may be of any class
        rest = f"at {id(document)}"
    content = f"{rest}\0{document.text}".encode(errors="surrogatepass")
    return blake2b(content, digest_size=16).digest()


def _same(one: object, other: object) -> bool:
    """Return whether two paths or digests are of the same thing."""
    if one == other:
        return True
    try:  # a file system may take two spellings of a name for one
        return isinstance(one, str) and isinstance(other, str) and os.path.samefile(one, other)  # noqa: PTH121
    except (OSError, ValueError):
        return False
