"""The stored state of documents: the same, of another source, or at another path."""

from __future__ import annotations

import asyncio
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain

from ragasync.documents.models import Document
from ragasync.documents.sources import FileIds
from ragasync.documents.store import (
    Store,
    StoredEntry,
    SupportsIdentity,
    check_source,
    supports_identity,
)

REFRESHED = ("mtime", "size")
"""The metadata keys of a file that may change while its document does not."""

_PER_TRANSACTION = 500
"""The number of documents whose metadata is updated in one transaction."""

_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class StoredState:
    """
    The state of a document in a store.

    Args:
        fingerprint: the fingerprint that it was stored with; None if it is not stored.
        is_outdated: whether the date or size of its file has changed since.
    """

    fingerprint: str | None
    is_outdated: bool = False


NOT_STORED = StoredState(None)


def stored_states(
    store: Store, documents: Sequence[Document], ids: FileIds
) -> list[StoredState | Exception]:
    """
    Look up documents in a store, in one query if it can. It blocks.

    A document whose file has moved counts as another version, so that its new file is stored.

    Returns:
        The state of each document, or the error of looking it up: an IdConflictError if its id is
        stored for another source.
    """
    entries = None
    if supports_identity(store) and hasattr(store, "entries_of"):
        with suppress(Exception):  # of one of them: ask for each alone
            entries = store.entries_of([document.id for document in documents])
    return [_stored_state(store, document, ids, entries) for document in documents]


def _stored_state(
    store: Store,
    document: Document,
    ids: FileIds,
    entries: Mapping[str, StoredEntry] | None,
) -> StoredState | Exception:
    """Look up one document, among the entries that were found together if there are any."""
    try:
        if not supports_identity(store):
            return StoredState(store.fingerprint_of(document.id))
        found = store.entry_of(document.id) if entries is None else entries.get(document.id)
        if found is None:
            return NOT_STORED
        check_source(document, found.source)
    except Exception as error:
        return error
    if document.file not in (None, found.file) and not (found.file and ids.has_file(found.file)):
        return StoredState("")
    new, old = document.metadata, found.metadata
    return StoredState(found.fingerprint, any(new.get(key) != old.get(key) for key in REFRESHED))


class StoredChanges:
    """
    Collects updates of stored documents' metadata, and warns of documents that have moved.

    Args:
        store: the store, if it keeps the documents of different sources apart.
    """

    def __init__(self, store: object) -> None:
        self._store = store if supports_identity(store) else None
        self._metadata: dict[str, dict[str, object]] = {}
        self._new: dict[str, str] = {}

    async def refresh(self, document: Document) -> None:
        """Update the metadata of an unchanged document, together with that of others."""
        self._metadata[document.id] = dict(document.metadata)
        if len(self._metadata) >= _PER_TRANSACTION:
            await self.write()

    async def write(self) -> None:
        """Write the collected metadata."""
        metadata, self._metadata = self._metadata, {}
        if metadata and self._store is not None:
            await asyncio.to_thread(self._store.update_metadata, metadata)

    def has_new(self, document: Document, fingerprint: str) -> None:
        """Note a document of a file that was not stored before; its content may have been."""
        if self._store is not None and document.file is not None:
            self._new[fingerprint] = document.file

    async def warn_of_moved(self, ids: FileIds) -> None:
        """Warn of contents that are now stored twice, also under paths that no longer exist."""
        if self._new and self._store is not None:
            await asyncio.to_thread(self._warn_of_moved, self._store, ids)

    def _warn_of_moved(self, store: SupportsIdentity, ids: FileIds) -> None:
        """Compare the new documents with those stored before, after pruning. It blocks."""
        moved: dict[str, str] = {}
        count = 0
        for stored in store.with_fingerprints(list(self._new)):
            old, new = stored.file, self._new[stored.fingerprint]
            if old is not None and old != new and ids.has_file(new) and not ids.has_file(old):
                moved[old] = new
                count += 1
        if not moved:
            return
        folders = _moved_folders(moved, {file for _, file in store.sources_within("")}, ids)
        example = next(iter(moved.items()))
        calls = [f"store.relocate({old!r}, {new!r})" for old, new in folders[:_EXAMPLES]]
        more = f" and {len(folders) - _EXAMPLES:,} more" if len(folders) > _EXAMPLES else ""
        warnings.warn(
            f"{count:,} documents are stored whose files are gone and whose contents this run "
            f"found under new paths, as {example[0]!r:.200} at {example[1]!r:.200}: if they were "
            f"moved or renamed, call {', '.join(calls)}{more}; otherwise both stay in the store",
            UserWarning,
            stacklevel=2,
        )


def _moved_folders(
    moved: Mapping[str, str], stored: Iterable[str], ids: FileIds
) -> list[tuple[str, str]]:
    """
    Find the topmost folders that have moved, or the files if no folder has.

    A folder has moved if it no longer exists and more than half of its stored files were found
    under one other folder: two projects may share a file, such as a licence.

    Args:
        moved: the new paths of files, by the old ones.
        stored: the paths of all files.
        ids: tells which folders exist.
    """
    held = Counter(chain.from_iterable(map(_above, stored)))
    found = Counter(chain.from_iterable(_same_above(old, new) for old, new in moved.items()))
    folders: dict[tuple[str, str], None] = {}
    for pair in moved.items():
        uppermost = pair
        for old, new in _same_above(*pair):
            if ids.has_folder(old):
                break
            if found[old, new] > held[old] / 2:
                uppermost = old, new
        folders[uppermost] = None
    return list(folders)


def _above(path: str) -> Iterator[str]:
    """Yield the folders above a path, the nearest first."""
    while path := path.rpartition("/")[0]:
        yield path


def _same_above(old: str, new: str) -> Iterator[tuple[str, str]]:
    """Yield the folders above two paths, as long as what is in them has the same name."""
    for before, after in zip(_above(old), _above(new), strict=False):
        if before == after or old.rpartition("/")[2] != new.rpartition("/")[2]:
            return
        yield before, after
        old, new = before, after
