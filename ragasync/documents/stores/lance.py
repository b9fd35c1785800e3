"""Documents, vectors and words in a LanceDB folder: for more than fits into memory."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Self, overload

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.filters import (
    Condition,
    Filter,
    condition_of,
    keys_to_know,
    warn_of_unknown,
)
from ragasync.documents.hits import Hits
from ragasync.documents.models import Chunk, Document
from ragasync.documents.store import (
    IdScheme,
    SearchMode,
    StoredDocument,
    StoredDocuments,
    StoredEmbedder,
    StoredEntry,
    StoredId,
    StoreError,
    as_json,
    check_embedder,
    check_id_scheme,
    check_search,
    check_source,
    check_storable,
    checked_vectors,
)
from ragasync.documents.stores.lance_documents import (
    StoredEntries,
    delete_documents,
    files,
    read_id_scheme,
    relocate,
    remembered_id_scheme,
    stored_document,
    stored_documents,
    stored_ids,
    with_fingerprints,
    write_id_scheme,
    write_metadata,
)
from ragasync.documents.stores.lance_filter import EVERY_CHUNK, digest
from ragasync.documents.stores.lance_rows import columns_of, vector_column
from ragasync.documents.stores.lance_search import (
    FRAME,
    known_keys,
    run_search,
    unknown_keys,
    vectors_of_texts,
)
from ragasync.documents.stores.lance_table import (
    LanceRows,
    as_rows,
    clear_lance_errors,
    embedder_of_column,
    make_room_for_vectors,
    replace_rows,
    stored_embedder,
    write_embedder,
)
from ragasync.documents.stores.query import Embed, QueryEmbedder, search_for
from ragasync.documents.stores.relocation import relocation
from ragasync.documents.stores.selection import check_delete, check_id, selected
from ragasync.documents.stores.store_dataframe import chunk_frame

if TYPE_CHECKING:
    import pandas as pd
    from lancedb.table import LanceTable


class LanceStore:
    """
    A store in a LanceDB folder, with search by vectors, by keywords, or by both.

    It has the methods of SqliteStore, but keeps no vectors in memory, which suits more than about
    200,000 chunks. A document is stored in one commit, which writes a file; small files are merged
    from time to time. Several processes may read and write it concurrently; on Windows, only one
    may write.

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
        """Store a document and replace the one with its id, as in SqliteStore."""
        vectors = checked_vectors(embeddings, len(chunks))
        with clear_lance_errors(self.path):
            columns = columns_of(document, chunks, fingerprint)
            of_document = as_json(document.metadata, document.id)
        with self._rows.writing(len(chunks) + 1) as table:
            check_id_scheme(document, remembered_id_scheme(self.path))
            before = table.version
            if (found := self._entries.of(table, document.id)) is not None:
                check_source(document, found.source)
            given = StoredEmbedder(embedder, vectors.shape[1], identity)
            if len(chunks) and embedder_of_column(table) != given:
                stored = stored_embedder(table)
                check_embedder(stored, given)
                if stored is None:
                    make_room_for_vectors(table, given)
            if (column := embedder_of_column(table)) is not None:
                columns["vector"] = vector_column(vectors, column.dimension)
            replace_rows(table, [digest(document.id)], as_rows(table, columns))
            entry = StoredEntry(
                fingerprint, document.source, document.file, json.loads(of_document)
            )
            self._entries.add(document.id, entry, before, table.version)

    def fingerprint_of(self, document_id: str) -> str | None:
        """Fingerprint that a document was stored with, or None if it is not stored."""
        found = self.entry_of(document_id)
        return None if found is None else found.fingerprint

    def get(self, document_id: str) -> StoredDocument | None:
        """A stored document with its chunks, or None, as in SqliteStore."""
        check_id(document_id, "get")
        with self._rows.reading() as table:
            return stored_document(table, document_id)

    def documents(self, where: Filter | None = None) -> StoredDocuments:
        """Return the stored documents by their ids, without their texts; as SqliteStore's does."""
        condition = condition_of(where)
        with self._rows.reading() as table:
            found = stored_documents(table)
            return selected(found, condition, partial(known_keys, table))

    @overload
    def delete(self, document_id: str) -> bool: ...

    @overload
    def delete(self, *, where: Filter) -> int: ...

    def delete(self, document_id: str | None = None, *, where: Filter | None = None) -> int:
        """Remove a document, or all documents that conditions hold of; as SqliteStore's does."""
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
        Move the documents of a folder or file that has moved; as SqliteStore's does.

        It is one commit, whose rows wait in a file in the store's folder.
        """
        with self._rows.reading() as table:
            version = table.version
            stored, scheme = stored_ids(table), read_id_scheme(table, self.path)
        change = relocation(stored, scheme, old, new)
        with self._rows.writing() as table:
            if table.version != version:
                raise StoreError(
                    f"the store {self.path!r} has been written to in the meantime, and nothing "
                    "was moved: call relocate again"
                )
            relocate(table, self.path, change)
            if change.scheme is not None:
                write_id_scheme(self.path, change.scheme)
        return change.count

    def entry_of(self, document_id: str) -> StoredEntry | None:
        """Return what a document was stored with, or None where it is not stored."""
        with self._rows.reading() as table:
            return self._entries.of(table, document_id)

    def with_fingerprints(self, fingerprints: Sequence[str]) -> list[StoredId]:
        """Return the documents that were stored with any of these fingerprints."""
        with self._rows.reading() as table:
            return with_fingerprints(table, fingerprints)

    def update_metadata(self, metadata: Mapping[str, Mapping[str, object]]) -> None:
        """Replace the metadata of documents; as SqliteStore's does."""
        with self._rows.writing() as table:
            write_metadata(table, metadata)

    def id_scheme(self) -> IdScheme | None:
        """Return what the ids of files are, or None while no document of a file is stored."""
        with self._rows.reading() as table:
            return read_id_scheme(table, self.path)

    def remember_id_scheme(self, scheme: IdScheme) -> None:
        """Remember what the ids of files are."""
        with self._rows.writing():
            write_id_scheme(self.path, scheme)

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
        Return the best chunks for a text, the best first; arguments as for SqliteStore's.

        The scores of BM25 are Lance's own, which differ in scale from SQLite's; a chunk whose
        vector is all zeros is near nothing, and only words find it.
        """
        check_search(mode, k, min_score)
        condition = condition_of(where)
        self._rows.tidy_for_searches()
        with self._rows.reading() as table:
            stored = embedder_of_column(table)
            unknown = self._unknown_keys(table, condition)
            known = known_keys(table) if unknown else ()
        if unknown:
            warn_of_unknown(unknown, known)
        if unknown or stored is None:
            return Hits(query=text)
        search = search_for(text, k, mode, min_score, vector, self._query, stored)
        with self._rows.reading() as table:
            return run_search(table, search, condition)

    @property
    def embedder(self) -> Embed | None:
        """What was given to embed the texts that are searched for."""
        return self._query.given

    @embedder.setter
    def embedder(self, embedder: Embed | None) -> None:
        self._query.given = embedder

    def search_with(self, name: str, embed: Embed) -> None:
        """Embed what is searched for by this, as long as the vectors of this name are stored."""
        self._query.learn(name, embed)

    def stored_embedder(self) -> StoredEmbedder | None:
        """Return whose vectors are stored; None while there are none."""
        with self._rows.reading() as table:
            return stored_embedder(table)

    def rename_embedder(self, before: StoredEmbedder, name: str, identity: str) -> None:
        """Know the embedder by another name and identity from now on; its vectors stay."""
        with self._rows.writing() as table:
            check_embedder(stored_embedder(table), before)
            write_embedder(table, StoredEmbedder(name, before.dimension, identity))

    def check_writable(self) -> None:
        """Raise an error where the folder can only be read; as SqliteStore's does."""
        self._rows.check_writable()

    def check(self, document: Document, chunks: Sequence[Chunk]) -> None:
        """Raise what `upsert` would raise for this document, whatever its vectors are."""
        check_storable(document, chunks)

    def vectors_of(self, embedder: str, texts: Sequence[str]) -> list[NDArray[np.float32] | None]:
        """Return the vectors that are stored for texts, None for others; as SqliteStore's does."""
        with self._rows.reading() as table:
            stored = embedder_of_column(table)
            if stored is None or stored.name != embedder:
                return [None for _ in texts]
            return vectors_of_texts(table, texts)

    def sources_within(self, prefix: str) -> list[tuple[str, str]]:
        """Return the ids and files of the documents that have a file whose id begins so."""
        with self._rows.reading() as table:
            stored = files(table)
        return [(document_id, file) for document_id, file in stored if file.startswith(prefix)]

    def to_dataframe(self) -> pd.DataFrame:
        """Return a row a chunk, by document id and ordinal; columns as SqliteStore's."""
        with self._rows.reading() as table:
            rows = table.search().where(EVERY_CHUNK).select([*FRAME]).to_list()
        rows.sort(key=lambda row: (row["document_id"], row["ordinal"]))
        return chunk_frame([tuple(row[name] for name in FRAME) for row in rows])

    def __len__(self) -> int:
        """Return the number of chunks."""
        with self._rows.reading() as table:
            return int(table.count_rows(EVERY_CHUNK))

    def close(self) -> None:
        """Let go of the folder; once more does no harm, anything else is a StoreError then."""
        self._rows.close()

    def __enter__(self) -> Self:
        """Return the store itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the folder."""
        self.close()

    def _unknown_keys(self, table: LanceTable, condition: Condition | None) -> list[str]:
        """Return the keys of a condition that no chunk has, if there are any chunks."""
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
