"""What a store has already: documents, the same or at another path, and vectors of an embedder."""

from __future__ import annotations

import asyncio
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.models import Chunk, Document
from ragasync.documents.sources import FileIds
from ragasync.documents.stage import EmbedderIdentity, StageFunction
from ragasync.documents.store import (
    EmbedderMismatch,
    Store,
    StoredEmbedder,
    StoredEntry,
    StoreError,
    StoreNotWritable,
    check_source,
)

if TYPE_CHECKING:
    from ragasync.documents.stores import LocalStore

Vector: TypeAlias = NDArray[np.float32]


def as_array(vectors: Sequence[Vector]) -> NDArray[np.float32]:
    """Make an array of vectors of the same length."""
    rows = np.array(vectors, dtype=np.float32)
    return rows if len(rows) else rows.reshape(0, 0)


class EmbedderInStore:
    """
    The identity of a processor's embedder in its store.

    The store keeps the identity that came with its first vectors. As long as the processor's
    embedder is the same one, its vectors are stored under that identity, even if its code changed.

    Args:
        store: the store, or a function that stores.
        now: the identity of the processor's embedder.
        function: the embed function.

    Attributes:
        now: the identity of the processor's embedder.
        known_as: its name and identity in the store.
        dimension: the length of the stored vectors; None while there are none.
        spare: the embedder of the store's spare vectors, if it is this one; else None.
    """

    def __init__(self, store: object, now: EmbedderIdentity, function: StageFunction) -> None:
        self._store, self.now, self._function = store, now, function
        keeps_identity = supports_embedder_identity(store)
        self.known_as = (now.name, now.to_json()) if keeps_identity else (now.for_other_stores, "")
        self.dimension: int | None = None
        self.spare: StoredEmbedder | None = None

    @property
    def name(self) -> str:
        """The name that vectors are stored by."""
        return self.known_as[0]

    def check(self) -> str | None:
        """
        Compare the embedder with that of the stored vectors, before a run. It blocks.

        Returns:
            A warning if they cannot be compared, else None.

        Raises:
            EmbedderMismatch: it is a different one.
        """
        store = self._store
        if not supports_embedder_identity(store):
            return None
        stored = store.stored_embedder()
        if stored is None:
            self.known_as, self.dimension, warning = (self.now.name, self.now.to_json()), None, None
        else:
            warning = self._take_for(stored, store)
            self.dimension = stored.dimension
        self.spare = self._find_spare()
        if self.spare is not None and stored is None:
            self.known_as = self.spare.name, self.spare.identity
        store.search_with(self.name, self._function)
        return warning

    def _find_spare(self) -> StoredEmbedder | None:
        """Find the embedder of the spare vectors, if it is this one without any doubt."""
        if not supports_spare_vectors(self._store):
            return None
        try:
            if (found := self._store.spare_embedder()) is None:
                return None
            before = EmbedderIdentity.from_json(found.name, found.identity)
        except (StoreError, ValueError):  # such as an identity that another version wrote
            return None
        fits = {self.dimension, self.now.dimension} <= {None, found.dimension}
        return found if fits and self.now.changes_since(before) == [] else None

    def _take_for(self, stored: StoredEmbedder, store: LocalStore) -> str | None:
        """Treat the embedder as the stored one, or refuse it."""
        now = self.now
        try:
            before = EmbedderIdentity.from_json(stored.name, stored.identity)
        except ValueError:  # written by another version, or by hand
            before = EmbedderIdentity.from_json(stored.name, "")
        is_named_now = not before.named_by and now.named_by == "stage"
        changes = [] if is_named_now else now.changes_since(before)
        if now.dimension not in (None, stored.dimension):
            changes = [*(changes or ()), f"the dimension: {stored.dimension} -> {now.dimension}"]
        if changes:
            raise EmbedderMismatch(_refusal(store, stored, before, now, changes))
        is_newly_versioned = changes == [] and not before.named_by and now.version
        known_as = stored.name, stored.identity
        if is_named_now or is_newly_versioned:
            known_as = now.name, now.to_json()
            if known_as[1] != stored.identity:
                store.rename_embedder(stored, *known_as)
        self.known_as = known_as
        if changes is None:
            return (
                f"cannot tell whether embed={now.name} is the embedder of the vectors in "
                f"{_place(store)}, because {WHY_UNKNOWN}: it is treated as the same one. To be "
                f"sure, give it a name: Stage(embed, name=...)"
            )
        return None


WHY_UNKNOWN = "it is written in C, or its source cannot be read"
"""The reason why the code of a function cannot be compared."""


# A user's store may have these methods of LocalStore too; isinstance with a protocol would take
# 20 µs for each document.


def supports_identity(store: object) -> TypeGuard[LocalStore]:
    """Whether a store keeps the documents of different sources separate."""
    names = ("with_fingerprints", "id_scheme", "sources_within")
    return all(hasattr(store, name) for name in names)


def supports_embedder_identity(store: object) -> TypeGuard[LocalStore]:
    """Whether a store keeps the identity of its embedder, which `upsert` takes, and not a name."""
    names = ("stored_embedder", "rename_embedder", "search_with")
    return all(hasattr(store, name) for name in names)


def supports_spare_vectors(store: object) -> TypeGuard[LocalStore]:
    """Whether a store keeps vectors of documents that are not stored yet."""
    names = ("vectors_of", "spare_embedder", "spare_vectors_of", "add_spare_vectors")
    return all(hasattr(store, name) for name in (*names, "drop_spare_vectors"))


def _place(store: object) -> str:
    return repr(getattr(store, "path", type(store).__name__))


def _refusal(
    store: object,
    stored: StoredEmbedder,
    before: EmbedderIdentity,
    now: EmbedderIdentity,
    changes: Sequence[str],
) -> str:
    version = f", version={before.version!r}" if before.named_by and before.version else ""
    if not before.named_by:
        way = (
            "if it makes the same vectors as before, pass embed=Stage(embed, name=...) with a name "
            "of your choice, and the store takes on the name and keeps its vectors"
        )
    elif (now.named_by and now.name == before.name) or (
        now.dimension not in (None, stored.dimension)
    ):
        way = "use that one, as it was then"
    else:
        way = f"if it is the same one, pass embed=Stage(embed, name={before.name!r}{version})"
    return (
        f"the store {_place(store)} holds vectors of {before.name!r}, and embed= is another one or "
        f"has changed ({'; '.join(changes)}), so nothing was embedded: {way}; otherwise use "
        f"another store, where everything is embedded again"
    )


@dataclass(frozen=True, slots=True)
class CachedEmbeddings:
    """Gets vectors of texts, made by the same embedder: of stored chunks, or else spare ones."""

    store: Any
    embedder: EmbedderInStore

    def __call__(self, documents: Sequence[Sequence[Chunk]]) -> list[list[Vector | None] | None]:
        """
        Get the stored vectors of the chunks of several documents, in one query.

        Returns:
            For each document a vector or None per chunk; None if the store has none of them.
        """
        texts = [chunk.text for chunks in documents for chunk in chunks]
        found = list(self.store.vectors_of(self.embedder.name, texts)) if texts else []
        if len(found) != len(texts):
            raise ValueError(
                f"vectors_of must return a vector or None for each text: "
                f"got {len(found)} for {len(texts)} texts"
            )
        if self.embedder.spare is not None:
            missing = [place for place, vector in enumerate(found) if vector is None]
            spare = self.store.spare_vectors_of(
                self.embedder.spare, [texts[place] for place in missing]
            )
            for place, vector in zip(missing, spare, strict=True):
                found[place] = vector
        vectors = iter(found)
        split = [list(islice(vectors, len(chunks))) for chunks in documents]
        return [part if any(vector is not None for vector in part) else None for part in split]


def cached_embeddings(
    store: object, embedder: EmbedderInStore, wanted: bool
) -> CachedEmbeddings | None:
    """The cache of a store, if it has one and it is wanted."""
    return CachedEmbeddings(store, embedder) if wanted and hasattr(store, "vectors_of") else None


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
    identifying = store if supports_identity(store) else None
    if identifying is not None and hasattr(identifying, "entries_of"):
        with suppress(Exception):  # of one of them: ask for each alone
            entries = identifying.entries_of([document.id for document in documents])
    return [_stored_state(store, identifying, document, ids, entries) for document in documents]


def _stored_state(
    store: Store,
    identifying: LocalStore | None,
    document: Document,
    ids: FileIds,
    entries: Mapping[str, StoredEntry] | None,
) -> StoredState | Exception:
    """Look up one document, among the entries that were found together if there are any."""
    try:
        if identifying is None:
            return StoredState(store.fingerprint_of(document.id))
        found = identifying.entry_of(document.id) if entries is None else entries.get(document.id)
        if found is None:
            return NOT_STORED
        check_source(document, found.source)
    except Exception as error:
        return error
    if document.file not in (None, found.file) and not (found.file and ids.has_file(found.file)):
        return StoredState("")
    new, old = document.metadata, found.metadata
    is_outdated = [new.get(key) for key in REFRESHED] != [old.get(key) for key in REFRESHED]
    return StoredState(found.fingerprint, is_outdated)


class StoredChanges:
    """Collects updates of stored documents' metadata, and warns of documents that have moved."""

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

    def _warn_of_moved(self, store: LocalStore, ids: FileIds) -> None:
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


# ── the vectors of documents that are given up ──────────────────────────────────────────────────

MAX_WAITING = 256
"""The number of texts whose vectors wait in memory, before they are written during the run."""


class SpareVectors:
    """
    Collects the vectors of documents that do not finish: stopped, cancelled, failed or not stored.

    They are paid for. The next run gets them from the store, as it gets the vectors of unchanged
    texts: so a document that costs more than the budget of a run finishes after a few runs. They
    are written when the run has ended, however it ends; only a process that is killed loses them.

    Args:
        store: the store; nothing is kept if it cannot keep them.
        embedder: the embedder as the store knows it.
        is_wanted: whether vectors are reused at all.
        warn: called with a warning if they cannot be written.
    """

    def __init__(
        self,
        store: object,
        embedder: EmbedderInStore,
        *,
        is_wanted: bool,
        warn: Callable[[str], None],
    ) -> None:
        self._store = store if is_wanted and supports_spare_vectors(store) else None
        self._embedder, self._warn = embedder, warn
        self._given_up: list[tuple[Sequence[str], Sequence[Vector | None]]] = []
        self._waiting = 0
        self._are_mixed = False

    def keep(self, texts: Sequence[str], vectors: Sequence[Vector | None]) -> None:
        """
        Keep the vectors of a document that is given up.

        Args:
            texts: the texts that had to be embedded.
            vectors: the vectors so far; calls that are still in flight may fill in more.
        """
        if self._store is None or self._are_mixed or not texts:
            return
        self._given_up.append((texts, vectors))
        self._waiting += len(texts)

    async def write_if_many(self) -> None:
        """Write the collected vectors if they take much memory."""
        if self._waiting >= MAX_WAITING:
            await self.write()

    def refuse(self) -> None:
        """
        Keep nothing, and drop what is kept: the embedder gives vectors of several dimensions.

        Otherwise vectors of a wrong dimension would make their documents fail in every later run.
        """
        self._are_mixed = True

    async def write(self) -> None:
        """Write the collected vectors, on a thread."""
        given_up, self._given_up, self._waiting = self._given_up, [], 0
        if self._store is None or not (given_up or self._are_mixed):
            return
        vectors = {
            text: vector
            for texts, made in given_up
            for text, vector in zip(texts, made, strict=True)
            if vector is not None
        }
        try:
            await asyncio.to_thread(self._write, self._store, vectors)
        except StoreNotWritable:
            return  # the error of each document says so
        except Exception as error:
            self._warn(
                f"the vectors of {len(vectors):,} chunks, whose documents are not finished, could "
                f"not be kept, and the next run embeds them again: {error}"
            )

    def _write(self, store: LocalStore, vectors: dict[str, Vector]) -> None:
        """Write vectors of one dimension: the store's, or else that of the first. It blocks."""
        if self._are_mixed:
            store.drop_spare_vectors()
            return
        if not vectors:
            return
        embedder = self._embedder.spare
        if embedder is None:
            dimension = self._embedder.dimension or len(next(iter(vectors.values())))
            name, identity = self._embedder.known_as
            embedder = StoredEmbedder(name, dimension, identity)
        fit = {text: made for text, made in vectors.items() if len(made) == embedder.dimension}
        store.add_spare_vectors(embedder, fit)
