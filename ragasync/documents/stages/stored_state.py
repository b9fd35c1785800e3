"""What a store has of a document already: the same, another source's, or at another path."""

from __future__ import annotations

import asyncio
import warnings
from dataclasses import dataclass

from ragasync.documents.document import Document
from ragasync.documents.sources.file_ids import FileIds
from ragasync.documents.store import Store, SupportsIdentity, check_source, supports_identity

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
    """

    fingerprint: str | None
    is_outdated: bool = False


NOT_STORED = StoredState(None)


def stored_state(store: Store, document: Document, ids: FileIds) -> StoredState:
    """
    Return what a store has of a document. It blocks.

    A document whose file has moved counts as another version, so that its new file is stored.

    Raises:
        IdConflictError: its id is stored for another source.
    """
    if not supports_identity(store):
        return StoredState(store.fingerprint_of(document.id))
    found = store.entry_of(document.id)
    if found is None:
        return NOT_STORED
    check_source(document, found.source)
    if document.file not in (None, found.file) and not (found.file and ids.has_file(found.file)):
        return StoredState("")
    new, old = document.metadata, found.metadata
    return StoredState(found.fingerprint, any(new.get(key) != old.get(key) for key in REFRESHED))


class StoredChanges:
    """
    Collects what a run has to change in, or to say of, documents that are stored already.

    Args:
        store: the store, if there is one that keeps the documents of sources apart.
    """

    def __init__(self, store: object) -> None:
        self._store = store if supports_identity(store) else None
        self._metadata: dict[str, dict[str, object]] = {}
        self._new: dict[str, str] = {}

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

    def has_new(self, document: Document, fingerprint: str) -> None:
        """Note a document of a file that was not stored before; its content may have been."""
        if self._store is not None and document.file is not None:
            self._new[fingerprint] = document.file

    async def warn_of_moved(self, ids: FileIds) -> None:
        """Warn of contents that are stored twice now, under paths that are gone; say what to do."""
        if self._new and self._store is not None:
            await asyncio.to_thread(self._warn_of_moved, self._store, ids)

    def _warn_of_moved(self, store: SupportsIdentity, ids: FileIds) -> None:
        """Do so after pruning. It blocks."""
        moved = []
        for stored in store.with_fingerprints(list(self._new)):
            old, new = stored.file, self._new[stored.fingerprint]
            if old not in (None, new) and ids.has_file(new) and not ids.has_file(old):
                moved.append((old, new))
        if not moved:
            return
        folders = dict.fromkeys(_moved_folder(ids, old, new) for old, new in moved)
        calls = [f"store.relocate({old!r}, {new!r})" for old, new in [*folders][:_EXAMPLES]]
        more = f" and {len(folders) - _EXAMPLES:,} more" if len(folders) > _EXAMPLES else ""
        warnings.warn(
            f"{len(moved):,} documents are stored whose files are gone and whose contents this run "
            f"found under new paths, as {moved[0][0]!r:.200} at {moved[0][1]!r:.200}: if they were "
            f"moved or renamed, call {', '.join(calls)}{more}; otherwise both stay in the store",
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
