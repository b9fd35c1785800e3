"""What a store has of a document already: the same, another source's, or under another path."""

from __future__ import annotations

import asyncio
import warnings
from dataclasses import dataclass
from typing import Any

from ragasync.documents.document import Document
from ragasync.documents.errors import IdConflictError
from ragasync.documents.sources.file_ids import FileIds
from ragasync.documents.store import Store, SupportsIdentity

REFRESHED = ("mtime", "size")
"""The metadata of a file that may change where its document does not."""

_TOGETHER = 500
"""How many documents get their new metadata in one transaction."""

_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class StoredState:
    """
    What a store has of a document.

    Args:
        fingerprint: what it was stored with; None where it is not stored.
        is_outdated: whether its file's date or size are others by now.
        moved_from: the id and source of the same content under a path that is gone; None for none.
    """

    fingerprint: str | None
    is_outdated: bool = False
    moved_from: tuple[str, str] | None = None


NOT_STORED = StoredState(None)


def stored_state(store: Store, ids: FileIds, document: Document, fingerprint: str) -> StoredState:
    """
    Return what a store has of a document. It blocks.

    Args:
        store: the store.
        ids: makes the ids of files.
        document: the document.
        fingerprint: what it would be stored with.

    Raises:
        IdConflictError: its id is stored for another source.
    """
    known = store.fingerprint_of(document.id)
    if not isinstance(store, SupportsIdentity):
        return StoredState(known)
    found = None if known is None else store.get(document.id, chunks=False)
    if found is None:
        if document.source is None:
            return NOT_STORED
        return StoredState(None, moved_from=_moved_from(store, ids, document, fingerprint))
    if found.source != document.source:
        raise IdConflictError.with_stored(document.id, found.source, document.source)
    new, old = document.metadata, found.metadata
    return StoredState(known, any(new.get(key) != old.get(key) for key in REFRESHED))


def _moved_from(
    store: SupportsIdentity, ids: FileIds, document: Document, fingerprint: str
) -> tuple[str, str] | None:
    """Return where the store has a new document's content from, if that file is gone."""
    for id_, source in store.ids_with(fingerprint):
        if source not in (None, document.source) and not ids.has_file(source):
            return id_, source
    return None


class StoredChanges:
    """
    Collects what a run has to change in, or to say of, documents that are stored already.

    Args:
        store: the store, if there is one that keeps the documents of sources apart.
    """

    def __init__(self, store: object) -> None:
        self._store = store if isinstance(store, SupportsIdentity) else None
        self._metadata: dict[str, dict[str, object]] = {}
        self._moved: list[tuple[str, str, str]] = []

    async def refresh(self, document: Document) -> None:
        """Have the metadata of an unchanged document stored, together with that of others."""
        self._metadata[document.id] = dict(document.metadata)
        if len(self._metadata) >= _TOGETHER:
            await self.write()

    async def write(self) -> None:
        """Store the metadata that has come together."""
        metadata, self._metadata = self._metadata, {}
        if metadata and self._store is not None:
            await asyncio.to_thread(self._store.update_metadata, metadata)

    def has_moved(self, document: Document, moved_from: tuple[str, str]) -> None:
        """Note a document whose content is stored under a path that is gone."""
        if document.source is not None:
            self._moved.append((*moved_from, document.source))

    async def warn_of_moved(self, ids: FileIds) -> None:
        """Warn of contents that are stored twice now, under paths that are gone; say what to do."""
        if self._moved and self._store is not None:
            await asyncio.to_thread(self._warn_of_moved, self._store, ids)

    def _warn_of_moved(self, store: Any, ids: FileIds) -> None:
        """Warn of those that were not pruned meanwhile. It blocks."""
        left = [(old, new) for id_, old, new in self._moved if store.fingerprint_of(id_)]
        if not left:
            return
        folders = dict.fromkeys(_moved_folder(ids, old, new) for old, new in left)
        calls = [f"store.relocate({old!r}, {new!r})" for old, new in [*folders][:_EXAMPLES]]
        more = f" and {len(folders) - _EXAMPLES:,} more" if len(folders) > _EXAMPLES else ""
        warnings.warn(
            f"{len(left):,} documents of this run have the contents of stored ones whose files are "
            f"gone, as {left[0][1]!r:.200} that of {left[0][0]!r:.200}: if these were moved or "
            f"renamed, call {', '.join(calls)}{more}; otherwise both stay in the store",
            UserWarning,
            stacklevel=2,
        )


def _moved_folder(ids: FileIds, old: str, new: str) -> tuple[str, str]:
    """Return the uppermost folders that were one and the same, of which the old one is gone."""
    before, after = old.split("/"), new.split("/")
    moved = old, new
    while len(before) > 1 and len(after) > 1 and before[-1] == after[-1]:
        del before[-1], after[-1]
        upper = "/".join(before)
        if not upper or before == after or ids.has_folder(upper):
            break
        moved = upper, "/".join(after)
    return moved
