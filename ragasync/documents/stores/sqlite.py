"""SqliteStore and MemoryStore: documents, vectors and keywords in one file, or in memory."""

from __future__ import annotations

import os
import sqlite3
import weakref
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Self, overload

import numpy as np
from numpy.typing import NDArray

from ragasync.arguments import check_seconds, explains_arguments
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
from ragasync.documents.stores.sqlite_schema import (
    StoreFile,
    chunk_count,
    chunk_rows,
    delete_document,
    document_count,
    files,
    fingerprint_of,
    id_scheme,
    relocate,
    stored_document,
    stored_documents,
    stored_embedder,
    stored_entries,
    stored_ids,
    vectors_of,
    with_fingerprints,
    write_embedder,
    write_id_scheme,
    write_metadata,
)
from ragasync.documents.stores.sqlite_search import (
    VectorMatrix,
    known_keys,
    run_search,
    unknown_keys,
)
from ragasync.documents.stores.sqlite_upsert import is_of_one_document, upsert

if TYPE_CHECKING:
    import pandas as pd


@explains_arguments
class SqliteStore:
    """
    A store in one SQLite file, with search by vectors, by keywords, or by both.

    A document is stored in one transaction, so that it is complete or absent even if the process is
    killed; `upsert_many` stores several in one. Searches and lookups never wait for it. Vector
    search is exact, with a matrix in memory (4 bytes x dimension x chunks), which suits up to about
    200,000 chunks; keywords are ranked by BM25, in SQLite's FTS5. The file records the embedder of
    its vectors and refuses vectors of another one. Several processes may read and write it
    concurrently.

    A file of an older version is refused: store its sources again in another file.

    A subclass may override `upsert`, which `upsert_many` then calls for each document, and
    `fingerprint_of`, which `entry_of` and `entries_of` then ask whether a document is stored.

    Example:
        >>> from ragasync import AsyncDocumentProcessor
        >>> from ragasync.documents import SqliteStore
        >>> texts = [("guide", "A bucket refills.")]
        >>> with SqliteStore("library.sqlite") as store:
        ...     _ = AsyncDocumentProcessor(store=store).process_sync(texts)
        >>> with SqliteStore("library.sqlite") as store:
        ...     print(store.search("how does a bucket refill?", k=3)[0].text)
        A bucket refills.

    Args:
        path: The file, created if it is missing; ":memory:" for a store without a file.
        embedder: Embeds the text of a search; it may be set later. None uses the embedder of the
            latest run with this store, or the HashingEmbedder if the file holds its vectors.
        timeout: Seconds to wait for another process that is writing.

    Raises:
        StoreError: If the file is not a store, damaged, or locked.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        embedder: Embed | None = None,
        *,
        timeout: float | timedelta = 10.0,
    ) -> None:
        self._query = QueryEmbedder(embedder)
        self._given = os.fspath(path)
        # A notebook may change its folder; a link stays one.
        self.path = self._given if path == ":memory:" else os.path.abspath(self._given)  # noqa: PTH100
        self._matrix = VectorMatrix()
        self._known_keys: set[str] = set()
        self._file = StoreFile(self.path, check_seconds("timeout", timeout))

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
        """
        Store a document, and replace the one with its id, in one transaction.

        Args:
            document: The document; only the text of its chunks is stored.
            chunks: Its chunks, in order; none for an empty document.
            embeddings: Their vectors, `(len(chunks), dimension)`.
            fingerprint: The result of `fingerprint_of` from now on.
            embedder: The name of the embedder that made the vectors.
            identity: What else identifies the embedder.

        Raises:
            IdConflictError: If its id is stored for another source: delete that one first.
            EmbedderMismatch: If the store holds vectors of another embedder or dimension.
            ValueError: If the embeddings are not one finite row per chunk, or a text or id has a
                lone surrogate, which UTF-8 cannot encode.
            TypeError: If the metadata is not plain data.
            StoreError: If the file cannot be written.
        """
        request = StoreRequest(document, chunks, embeddings, fingerprint)
        [error] = upsert(self._file, [request], StoredEmbedder(embedder, 0, identity))
        if error is not None:
            raise error

    def upsert_many(
        self, requests: Sequence[StoreRequest], *, embedder: str, identity: str = ""
    ) -> list[Exception | None]:
        """
        Store documents in one transaction; each is stored when the call returns.

        A document that cannot be stored fails alone, and the others are stored. In a subclass that
        overrides `upsert`, this calls it for each document, each in a transaction of its own.

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
            StoreError: If the file cannot be written. Nothing is stored then.
        """
        if self._overrides("upsert"):
            upsert_one = partial(self.upsert, embedder=embedder, identity=identity)
            return upsert_each(upsert_one, requests, is_of_one_document)
        return upsert(self._file, requests, StoredEmbedder(embedder, 0, identity))

    def fingerprint_of(self, document_id: str) -> str | None:
        """Fingerprint that a document was stored with, or None if it is not stored."""
        with self._file.reading() as db:
            return fingerprint_of(db, document_id)

    def get(self, document_id: str) -> StoredDocument | None:
        """A stored document with its chunks, or None if it is not stored."""
        check_id(document_id, "get")
        with self._file.reading() as db:
            return stored_document(db, document_id)

    def documents(self, where: Filter | None = None) -> StoredDocuments:
        """
        List the stored documents without their texts, in the order in which they were stored.

        Args:
            where: Conditions on the id, source and metadata of a document; see `Filter`. Fields
                that only chunks have, such as a page or heading, do not apply.

        Raises:
            ValueError: If `where` has an unknown operator.
            TypeError: If `where` is not a dict, or has a value that metadata cannot have.
        """
        condition = condition_of(where)
        with self._file.reading() as db:
            found = stored_documents(db)
            return selected(found, condition, partial(known_keys, db))

    @overload
    def delete(self, document_id: str) -> bool: ...

    @overload
    def delete(self, *, where: Filter) -> int: ...

    def delete(self, document_id: str | None = None, *, where: Filter | None = None) -> int:
        """
        Delete a document with its chunks, or all documents that match conditions.

        Args:
            document_id: The id of one document.
            where: Instead of the id, conditions as for `documents`.

        Returns:
            Whether the document was stored; with `where`, the number of deleted documents.

        Raises:
            TypeError: If both are given, or neither.
            ValueError: If `where` has no condition.
        """
        check_delete(document_id, where)
        if document_id is not None:
            with self._file.writing() as db:
                return delete_document(db, document_id)
        condition = condition_of(where)
        with self._file.writing() as db:
            found = selected(stored_documents(db), condition, partial(known_keys, db))
            return sum(delete_document(db, each.id) for each in found)

    def relocate(self, old: str | os.PathLike[str], new: str | os.PathLike[str]) -> int:
        """
        Change the paths of documents whose folder or file has moved, without embedding again.

        Ids and sources that begin with the old path then begin with the new one. A document that is
        already stored under a new id is kept, and the moved one is dropped, if both have the same
        content, or if the old file is gone and the new one exists. With relative ids, the root
        itself may be moved too; runs under the new root are then accepted.

        Example:
            >>> from ragasync import AsyncDocumentProcessor
            >>> from ragasync.documents import SqliteStore
            >>> store = SqliteStore("library.sqlite")
            >>> texts = [("drafts/guide", "A bucket refills.")]
            >>> _ = AsyncDocumentProcessor(store=store).process_sync(texts)
            >>> store.relocate("drafts", "final")
            1
            >>> [document.id for document in store.documents()]
            ['final/guide']
            >>> store.close()

        Args:
            old: The old path, or a prefix of custom ids up to a slash. File paths are made
                absolute, or relative to the root if ids are relative.
            new: The new path or prefix.

        Returns:
            The number of documents at the new path.

        Raises:
            TypeError: If one of them is not a path.
            ValueError: If both are the same; if one is outside the root of relative ids; or if one
                is an absolute path and the other a prefix of custom ids.
            IdConflictError: If another document has, or would get, one of the new ids.
        """
        with self._file.writing() as db:
            change = relocation(stored_ids(db), id_scheme(db), old, new)
            relocate(db, change)
        return change.count

    def entry_of(self, document_id: str) -> StoredEntry | None:
        """
        Fingerprint, source, file and metadata of a stored document; None if it is not stored.

        A document for which a subclass's `fingerprint_of` returns None is not stored.
        """
        is_filtered = self._overrides("fingerprint_of")
        if is_filtered and self.fingerprint_of(document_id) is None:
            return None
        with self._file.reading() as db:
            return stored_entries(db, [document_id]).get(document_id)

    def entries_of(self, document_ids: Sequence[str]) -> dict[str, StoredEntry]:
        """
        Entries of those documents that are stored, by their ids, as `entry_of` returns them.

        A subclass that overrides `entry_of` or `fingerprint_of` is asked for each document.
        """
        if self._overrides("entry_of", "fingerprint_of"):
            entries = ((id_, self.entry_of(id_)) for id_ in document_ids)
            return {id_: entry for id_, entry in entries if entry is not None}
        with self._file.reading() as db:
            return stored_entries(db, document_ids)

    def with_fingerprints(self, fingerprints: Sequence[str]) -> list[StoredId]:
        """Documents that were stored with any of these fingerprints."""
        with self._file.reading() as db:
            return with_fingerprints(db, fingerprints)

    def update_metadata(self, metadata: Mapping[str, Mapping[str, object]]) -> None:
        """
        Replace the metadata of documents; their chunks and vectors stay.

        Args:
            metadata: The new metadata by the documents' ids.

        Raises:
            TypeError: If it is not plain data.
        """
        with self._file.writing() as db:
            write_metadata(db, metadata)

    def id_scheme(self) -> IdScheme | None:
        """Form of the ids of files, or None while no document of a file is stored."""
        with self._file.reading() as db:
            return id_scheme(db)

    def remember_id_scheme(self, scheme: IdScheme) -> None:
        """Store the form of the ids of files."""
        with self._file.writing() as db:
            write_id_scheme(db, scheme)

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
        Search for the best chunks for a text, best first.

        With vectors of a HashingEmbedder, a chunk that shares no word or part of a word with the
        text, apart from function words, is not a hit. With vectors of other embedders, all chunks
        are ranked, and `min_score` sets a bound.

        Args:
            text: The query, as plain text without any query syntax.
            k: The maximum number of hits.
            mode: "vector" ranks by cosine, "keyword" by common words (BM25 of any of them),
                "hybrid" joins the best 50 of each (or the best k, if k is larger) by reciprocal
                rank fusion.
            where: Conditions on metadata that filter the chunks before they are ranked, such as
                `{"lang": "en", "year": {"$gte": 2020}}`; see `Filter`. A key that no document has
                gives a warning and no hits.
            min_score: The minimum cosine of a hit, in any mode; None for no bound.
            vector: The query's vector, if it is made elsewhere, for instance by an async embedder.
                Otherwise the store's embedder makes it, unless the mode is "keyword" without
                `min_score`.

        Returns:
            At most `k` hits, each with its cosine and its BM25 score. `score` is the one of the
            mode: cosine, BM25, or the sum of reciprocal ranks.

        Raises:
            ValueError: If `mode`, `k` or `min_score` is invalid, or `where` has an unknown
                operator.
            TypeError: If `where` is not a dict, or has a value that metadata cannot have.
            EmbedderMismatch: If the stored vectors are of another embedder, or the store has no
                embedder and needs one.
            StoreError: If the file cannot be read.
        """
        check_search(mode, k, min_score)
        condition = condition_of(where)
        with self._file.reading() as db:
            stored = stored_embedder(db)
            unknown = self._unknown_keys(db, condition)
            known = known_keys(db) if unknown else ()
        if unknown:
            warn_of_unknown(unknown, known, stacklevel=4)
            return Hits(query=text)
        # Outside the lock: an embedder may be a slow service.
        search = search_for(text, k, mode, min_score, vector, self._query, stored)
        with self._file.reading() as db:
            return run_search(db, self._matrix, search, condition)

    @property
    def embedder(self) -> Embed | None:
        """The embedder of queries that the user has set."""
        return self._query.given

    @embedder.setter
    def embedder(self, embedder: Embed | None) -> None:
        self._query.given = embedder

    def search_with(self, name: str, embed: Embed) -> None:
        """Embed queries with this function while the vectors of this name are stored."""
        self._query.learn(name, embed)

    def stored_embedder(self) -> StoredEmbedder | None:
        """Embedder of the stored vectors; None while there are none."""
        with self._file.reading() as db:
            return stored_embedder(db)

    def rename_embedder(self, before: StoredEmbedder, name: str, identity: str) -> None:
        """
        Change the name and identity of the embedder; its vectors stay.

        Raises:
            EmbedderMismatch: If the store has the vectors of another embedder by now.
        """
        with self._file.writing() as db:
            check_embedder(stored_embedder(db), before)
            write_embedder(db, StoredEmbedder(name, before.dimension, identity))

    def check_writable(self) -> None:
        """
        Raise an error if the file is read-only; it is opened again to find out.

        Raises:
            StoreNotWritable: If the file or its folder is not writable.
        """
        self._file.check_writable()

    def check(self, document: Document, chunks: Sequence[Chunk]) -> None:
        """Raise the error that `upsert` would raise for this document with any vectors."""
        check_storable(document, chunks)

    def vectors_of(self, embedder: str, texts: Sequence[str]) -> list[NDArray[np.float32] | None]:
        """
        Look up the stored vectors of texts, of chunks of any document.

        Args:
            embedder: The name of the embedder.
            texts: The texts of chunks.

        Returns:
            For each text its vector as the embedder made it, or None if no chunk with this text by
            this embedder is stored.
        """
        with self._file.reading() as db:
            return vectors_of(db, embedder, texts)

    def sources_within(self, prefix: str) -> list[tuple[str, str]]:
        """
        List the ids and files of the documents that have a file whose id begins with a prefix.

        Args:
            prefix: The prefix, character by character: end a folder with its separator, or "/docs"
                is a prefix of "/docs-old/a.md" too.
        """
        with self._file.reading() as db:
            stored = files(db)
        return [(document_id, file) for document_id, file in stored if file.startswith(prefix)]

    def to_dataframe(self) -> pd.DataFrame:
        """
        DataFrame with one row per chunk: document_id, source, ordinal, start, end, text, metadata.

        Offsets and ordinals are int64, metadata is a dict as in a Hit (`frame.metadata.str["page"]`
        makes a key a column), the rest is pandas' string type; rows are in the order in which
        documents were stored.
        """
        with self._file.reading() as db:
            rows = chunk_rows(db)
        return chunk_frame(rows)

    def __len__(self) -> int:
        """Number of chunks."""
        with self._file.reading() as db:
            return chunk_count(db)

    def close(self) -> None:
        """Close the file. Any other use afterwards is a StoreError; closing again has no effect."""
        self._file.close()

    def __enter__(self) -> Self:
        """The store itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def __repr__(self) -> str:
        try:
            with self._file.reading() as db:
                documents, chunks = document_count(db), chunk_count(db)
                stored = stored_embedder(db)
        except StoreError as error:
            return f"<{type(self).__name__} {self._given!r}: {error.__cause__}>"
        held = f"{documents:,} documents, {chunks:,} chunks"
        of = f" by {stored.name!r}" if stored else ""
        return f"<{type(self).__name__} {self._given!r}: {held}{of}>"

    def _overrides(self, *methods: str) -> bool:
        """Whether a subclass, or this object, has its own version of one of these methods."""
        return any(
            getattr(type(self), name) is not getattr(SqliteStore, name) or name in vars(self)
            for name in methods
        )

    def _unknown_keys(self, db: sqlite3.Connection, condition: Condition | None) -> list[str]:
        """Keys of a condition that no document has, if there are any documents."""
        asked = [key for key in keys_to_know(condition) if key not in self._known_keys]
        if not asked or not document_count(db):
            return []
        unknown = unknown_keys(db, asked)
        self._known_keys.update(set(asked).difference(unknown))
        return unknown


@explains_arguments
class MemoryStore(SqliteStore):
    """
    A store in memory, which exists until it is closed or garbage-collected.

    It is a SqliteStore with an in-memory database, so that it behaves like one with a file.

    Example:
        >>> from ragasync import AsyncDocumentProcessor
        >>> from ragasync.documents import MemoryStore
        >>> texts = [("guide", "A bucket refills.")]
        >>> with MemoryStore() as store:
        ...     _ = AsyncDocumentProcessor(store=store).process_sync(texts)
        ...     print(store.search("how does a bucket refill?")[0].text)
        A bucket refills.

    Args:
        embedder: Embeds the text of a search, as for SqliteStore.
    """

    def __init__(self, embedder: Embed | None = None) -> None:
        super().__init__(":memory:", embedder)
        weakref.finalize(self, self._file.close)
