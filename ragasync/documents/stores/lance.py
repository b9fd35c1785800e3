"""LanceStore: documents, vectors and keywords in a LanceDB folder, larger than memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Self, overload

import numpy as np
from numpy.typing import NDArray

from ragasync.arguments import explains_arguments
from ragasync.documents.models import Chunk, Document
from ragasync.documents.search import (
    Condition,
    Filter,
    Hits,
    condition_of,
    keys_to_know,
    warn_of_unknown,
)
from ragasync.documents.store import (
    IdScheme,
    RunRefused,
    SearchMode,
    StoredDocument,
    StoredDocuments,
    StoredEmbedder,
    StoredEntry,
    StoredId,
    StoreError,
    StoreRequest,
    check_embedder,
    check_search,
    check_storable,
)
from ragasync.documents.stores.lance_documents import (
    StoredEntries,
    delete_documents,
    files,
    read_id_scheme,
    relocate,
    stored_document,
    stored_documents,
    stored_ids,
    upsert,
    with_fingerprints,
    write_id_scheme,
    write_metadata,
)
from ragasync.documents.stores.lance_search import (
    EVERY_CHUNK,
    FRAME,
    digest,
    known_keys,
    run_search,
    unknown_keys,
    vectors_of_texts,
)
from ragasync.documents.stores.lance_table import (
    LanceRows,
    embedder_of_column,
    stored_embedder,
    write_embedder,
)
from ragasync.documents.stores.query import (
    Embed,
    QueryEmbedder,
    check_delete,
    check_id,
    chunk_frame,
    search_for,
    selected,
    upsert_each,
)
from ragasync.documents.stores.relocation import relocation

if TYPE_CHECKING:
    import pandas as pd
    from lancedb.table import LanceTable


@explains_arguments
class LanceStore:
    """
    A store in a LanceDB folder, with search by vectors, by keywords, or by both.

    It has the methods of SqliteStore, but keeps no vectors in memory, which suits more than about
    200,000 chunks. Each commit writes a file, so `upsert_many` is much faster than many calls of
    `upsert`; small files are merged from time to time. Several processes may read and write it
    concurrently; on Windows, only one may write.

    Example:
        >>> from ragasync import AsyncDocumentProcessor
        >>> from ragasync.documents import LanceStore
        >>> texts = [("guide", "A bucket refills.")]
        >>> with LanceStore("library.lance") as store:
        ...     _ = AsyncDocumentProcessor(store=store).process_sync(texts)
        ...     print(store.search("how does a bucket refill?", k=3)[0].text)
        A bucket refills.

    Args:
        path: The folder, on a local disk; it is created if it is missing.
        embedder: Embeds the text of a search, as for SqliteStore.

    Raises:
        MissingExtra: If lancedb is not installed.
        StoreError: If the folder is not a store, or cannot be used.
    """

    def __init__(self, path: str | os.PathLike[str], embedder: Embed | None = None) -> None:
        self._query = QueryEmbedder(embedder)
        self._given = os.fspath(path)
        self.path = os.path.abspath(self._given)  # noqa: PTH100  # a link stays one
        self._rows = LanceRows(self.path)
        self._known_keys: set[str] = set()
        self._entries = StoredEntries()

    def upsert(
        self,
        document: Document,
        chunks: Sequence[Chunk],
        embeddings: NDArray[np.float32],
        *,
        fingerprint: str,
        embedder: str,
        identity: str = "",
    ) -> None:
        """Store a document, and replace the one with its id, in one commit; as in SqliteStore."""
        request = StoreRequest(document, chunks, embeddings, fingerprint)
        given = StoredEmbedder(embedder, 0, identity)
        [error] = upsert(self._rows, self._entries, [request], given)
        if error is not None:
            raise error

    def upsert_many(
        self, requests: Sequence[StoreRequest], *, embedder: str, identity: str = ""
    ) -> list[Exception | None]:
        """
        Store documents in one commit; each is stored when the call returns. As in SqliteStore.

        A document that cannot be stored fails alone, and the others are stored. In a subclass that
        overrides `upsert`, this calls it for each document, each in a commit of its own.

        Args:
            requests: The documents; of several with one id and source, the last is stored.
            embedder: The name of the embedder that made the vectors.
            identity: What else identifies the embedder.

        Returns:
            One entry per request: None for a stored document, else the error that `upsert` would
            raise for it.

        Raises:
            EmbedderMismatch: If the store holds vectors of another embedder, or no document has
                vectors of the stored dimension.
            StoreError: If the folder cannot be written. Nothing is stored then.
        """
        if self._overrides("upsert"):
            upsert_one = partial(self.upsert, embedder=embedder, identity=identity)
            return upsert_each(upsert_one, requests, lambda error: isinstance(error, RunRefused))
        given = StoredEmbedder(embedder, 0, identity)
        return upsert(self._rows, self._entries, requests, given)

    def fingerprint_of(self, document_id: str) -> str | None:
        """Fingerprint that a document was stored with, or None if it is not stored."""
        with self._rows.reading() as table:
            found = self._entries.find(table, [document_id]).get(document_id)
        return None if found is None else found.fingerprint

    def get(self, document_id: str) -> StoredDocument | None:
        """A stored document with its chunks, or None, as in SqliteStore."""
        check_id(document_id, "get")
        with self._rows.reading() as table:
            return stored_document(table, document_id)

    def documents(self, where: Filter | None = None) -> StoredDocuments:
        """List the stored documents by their ids, without their texts; see SqliteStore."""
        condition = condition_of(where)
        with self._rows.reading() as table:
            found = stored_documents(table)
            return selected(found, condition, partial(known_keys, table))

    @overload
    def delete(self, document_id: str) -> bool: ...

    @overload
    def delete(self, *, where: Filter) -> int: ...

    def delete(self, document_id: str | None = None, *, where: Filter | None = None) -> int:
        """Delete a document, or all documents that match conditions; see SqliteStore."""
        check_delete(document_id, where)
        if document_id is not None:
            with self._rows.writing() as table:
                return bool(table.delete(f"document = '{digest(document_id)}'").num_deleted_rows)
        condition = condition_of(where)
        with self._rows.writing() as table:
            found = [
                each.id
                for each in selected(stored_documents(table), condition, partial(known_keys, table))
            ]
            delete_documents(table, found)
        return len(found)

    def relocate(self, old: str | os.PathLike[str], new: str | os.PathLike[str]) -> int:
        """
        Move the documents of a folder or file that has moved; see SqliteStore.

        It is one commit, whose rows are first written to a file in the store's folder.
        """
        with self._rows.reading() as table:
            version = table.version
            stored, scheme = stored_ids(table), read_id_scheme(table, self.path)
        change = relocation(stored, scheme, old, new)
        with self._rows.writing() as table:
            if table.version != version:
                raise StoreError(
                    f"the store {self.path!r} was written to in the meantime, and nothing was "
                    "moved: call relocate again"
                )
            relocate(table, self.path, change)
            if change.scheme is not None:
                write_id_scheme(self.path, change.scheme)
        return change.count

    def entry_of(self, document_id: str) -> StoredEntry | None:
        """
        Fingerprint, source, file and metadata of a stored document; None if it is not stored.

        A document for which a subclass's `fingerprint_of` returns None is not stored.
        """
        if self._overrides("fingerprint_of") and self.fingerprint_of(document_id) is None:
            return None
        with self._rows.reading() as table:
            return self._entries.find(table, [document_id]).get(document_id)

    def entries_of(self, document_ids: Sequence[str]) -> dict[str, StoredEntry]:
        """
        Entries of those documents that are stored, by their ids, as `entry_of` returns them.

        A subclass that overrides `entry_of` or `fingerprint_of` is asked for each document.
        """
        if self._overrides("entry_of", "fingerprint_of"):
            entries = ((id_, self.entry_of(id_)) for id_ in document_ids)
            return {id_: entry for id_, entry in entries if entry is not None}
        with self._rows.reading() as table:
            return self._entries.find(table, document_ids)

    def with_fingerprints(self, fingerprints: Sequence[str]) -> list[StoredId]:
        """Documents that were stored with any of these fingerprints."""
        with self._rows.reading() as table:
            return with_fingerprints(table, fingerprints)

    def update_metadata(self, metadata: Mapping[str, Mapping[str, object]]) -> None:
        """Replace the metadata of documents, by their ids; chunks and vectors stay."""
        with self._rows.writing() as table:
            write_metadata(table, metadata)

    def id_scheme(self) -> IdScheme | None:
        """Scheme of the ids of files; None while no document of a file is stored."""
        with self._rows.reading() as table:
            return read_id_scheme(table, self.path)

    def remember_id_scheme(self, scheme: IdScheme) -> None:
        """Remember the scheme of the ids of files."""
        with self._rows.writing():
            write_id_scheme(self.path, scheme)

    @explains_arguments
    def search(
        self,
        text: str,
        k: int = 10,
        *,
        mode: SearchMode = "hybrid",
        where: Filter | None = None,
        min_score: float | None = None,
        vector: NDArray[np.float32] | None = None,
    ) -> Hits:
        """
        Search for the best chunks for a text; the arguments are those of SqliteStore.

        The BM25 scores are Lance's own, which differ in scale from SQLite's. A chunk with a vector
        of zeros has no nearest neighbours; it is found by its words only.
        """
        check_search(mode, k, min_score)
        condition = condition_of(where)
        self._rows.compact_for_searches()
        with self._rows.reading() as table:
            stored = embedder_of_column(table)
            unknown = self._unknown_keys(table, condition)
            known = known_keys(table) if unknown else ()
        if unknown:
            warn_of_unknown(unknown, known, stacklevel=4)
        if unknown or stored is None:
            return Hits(query=text)
        search = search_for(text, k, mode, min_score, vector, self._query, stored)
        with self._rows.reading() as table:
            return run_search(table, search, condition)

    @property
    def embedder(self) -> Embed | None:
        """The embedder of search texts that the user gave."""
        return self._query.given

    @embedder.setter
    def embedder(self, embedder: Embed | None) -> None:
        self._query.given = embedder

    def search_with(self, name: str, embed: Embed) -> None:
        """Embed search texts with this function while the store holds vectors of this embedder."""
        self._query.learn(name, embed)

    def stored_embedder(self) -> StoredEmbedder | None:
        """Embedder of the stored vectors; None if there are none."""
        with self._rows.reading() as table:
            return stored_embedder(table)

    def rename_embedder(self, before: StoredEmbedder, name: str, identity: str) -> None:
        """Rename the embedder of the stored vectors."""
        with self._rows.writing() as table:
            check_embedder(stored_embedder(table), before)
            write_embedder(table, StoredEmbedder(name, before.dimension, identity))

    def check_writable(self) -> None:
        """Raise a StoreNotWritable error if the folder is read-only."""
        self._rows.check_writable()

    def check(self, document: Document, chunks: Sequence[Chunk]) -> None:
        """Raise the error that `upsert` would raise for this document, whatever its vectors are."""
        check_storable(document, chunks)

    def vectors_of(self, embedder: str, texts: Sequence[str]) -> list[NDArray[np.float32] | None]:
        """Stored vectors of chunks with these texts; None for a text that no chunk has."""
        with self._rows.reading() as table:
            stored = embedder_of_column(table)
            if stored is None or stored.name != embedder:
                return [None for _ in texts]
            return vectors_of_texts(table, texts)

    def sources_within(self, prefix: str) -> list[tuple[str, str]]:
        """Ids and files of the documents whose file begins with a prefix."""
        with self._rows.reading() as table:
            stored = files(table)
        return [(document_id, file) for document_id, file in stored if file.startswith(prefix)]

    def to_dataframe(self) -> pd.DataFrame:
        """DataFrame with one row per chunk, by document id and ordinal; see SqliteStore."""
        with self._rows.reading() as table:
            rows = table.search().where(EVERY_CHUNK).select([*FRAME]).to_list()
        rows.sort(key=lambda row: (row["document_id"], row["ordinal"]))
        return chunk_frame([tuple(row[name] for name in FRAME) for row in rows])

    def __len__(self) -> int:
        """Number of chunks."""
        with self._rows.reading() as table:
            return int(table.count_rows(EVERY_CHUNK))

    def close(self) -> None:
        """Close the store; calling it again has no effect, other methods raise a StoreError."""
        self._rows.close()

    def __enter__(self) -> Self:
        """Enter a context that closes the store at its end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the store."""
        self.close()

    def _overrides(self, *methods: str) -> bool:
        """Whether a subclass, or this object, has its own version of one of these methods."""
        return any(
            getattr(type(self), name) is not getattr(LanceStore, name) or name in vars(self)
            for name in methods
        )

    def _unknown_keys(self, table: LanceTable, condition: Condition | None) -> list[str]:
        """Keys of a condition that no chunk has, if there are any chunks."""
        asked = [key for key in keys_to_know(condition) if key not in self._known_keys]
        if not asked or not table.count_rows(EVERY_CHUNK):
            return []
        unknown = unknown_keys(table, asked)
        self._known_keys.update(set(asked).difference(unknown))
        return unknown

    def __repr__(self) -> str:
        try:
            with self._rows.reading() as table:
                stored = stored_embedder(table)
                documents = int(table.count_rows("ordinal < 0"))
            held = f"{documents:,} documents, {len(self):,} chunks"
        except StoreError as error:
            return f"<LanceStore {self._given!r}: {error}>"
        of = f" by {stored.name!r}" if stored else ""
        return f"<LanceStore {self._given!r}: {held}{of}>"
