"""
Stores: documents as embedded chunks in a file or a folder, and the search for them.

    requests.py       what is asked of any store: searches, documents to store, moves of files
    sqlite.py         SqliteStore, MemoryStore, and StoreFile: tables and connections
    sqlite_rows.py    SqliteRows: documents read, written and changed in a transaction; SpareTables
    sqlite_search.py  VectorMatrix: all vectors of a file in memory; rankings and conditions
    lance.py          LanceStore, and LanceFolder: a table, locked by one writing process at a time
    lance_rows.py     LanceRows: documents read, written and changed in a table
    lance_search.py   its rankings, and conditions as predicates of LanceDB

Documents are written with their chunks and vectors, several in one transaction. A search embeds the
text, ranks the chunks that match the conditions by cosine and by BM25, and joins both rankings. The
best chunks are read as Hits. Here is LocalStore: the methods that these stores have in common.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from ragasync._reports.summary import counted
from ragasync.arguments import explains_arguments
from ragasync.documents.models import Chunk, Document
from ragasync.documents.search import (
    Condition,
    Filter,
    Hits,
    condition_of,
    holds_always,
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
    checked_vectors,
)
from ragasync.documents.stores.requests import (
    Embed,
    Relocation,
    Result,
    Search,
    StorableDocument,
    relocation,
    search_for,
    selected,
)
from ragasync.object_views import object_html
from ragasync.sqlite_file import explain_surrogate

if TYPE_CHECKING:
    import pandas as pd

    from ragasync.documents.stores.sqlite_rows import SpareTables

ChunkRow: TypeAlias = tuple[str, str | None, int, int, int, str, str, str]
"""A chunk in a DataFrame: `_COLUMNS`, and the metadata of its document and its own as JSON."""

_COLUMNS = ("document_id", "source", "ordinal", "start", "end", "text")
_DTYPES = dict.fromkeys(("document_id", "source", "text"), "string") | dict.fromkeys(
    ("ordinal", "start", "end"), "int64"
)


class StoredRows(Protocol):
    """The rows of a store, as one transaction reads and changes them."""

    def entries(self, ids: Sequence[str]) -> dict[str, StoredEntry]:
        """Entries of those documents that are stored, by their ids."""

    def document(self, id_: str) -> StoredDocument | None:
        """A stored document with its chunks; None if it is not stored."""

    def documents(self) -> list[StoredDocument]:
        """All documents in the order of the store, without their chunks."""

    def ids(self) -> list[StoredId]:
        """Id, source, fingerprint and file of every document."""

    def ids_with(self, fingerprints: Sequence[str]) -> list[StoredId]:
        """Documents that were stored with any of these fingerprints."""

    def chunk_rows(self) -> Iterable[ChunkRow]:
        """All chunks in the order of the store."""

    def count(self) -> tuple[int, int]:
        """Number of documents, and of chunks."""

    def delete(self, ids: Sequence[str]) -> bool:
        """Delete documents with their chunks; False if none of them is stored."""

    def relocate(self, change: Relocation) -> None:
        """Replace the ids and sources of documents, and delete the superseded documents."""

    def write_metadata(self, metadata: Mapping[str, Mapping[str, object]]) -> None:
        """Replace the metadata of documents, by their ids."""

    def id_scheme(self) -> IdScheme | None:
        """Form of the ids of files; None while no document of a file is stored."""

    def write_id_scheme(self, scheme: IdScheme) -> None:
        """Replace the form of the ids of files."""

    def embedder(self) -> StoredEmbedder | None:
        """Embedder of the stored vectors; None while there are none."""

    def write_embedder(self, embedder: StoredEmbedder) -> None:
        """Replace the name and identity of the embedder."""

    def vectors_of(self, embedder: str, texts: Sequence[str]) -> list[NDArray[np.float32] | None]:
        """Vectors that an embedder of this name made of texts; None for each unknown text."""

    def known_keys(self) -> set[str]:
        """All metadata keys of documents and chunks."""

    def unknown_keys(self, keys: Iterable[str]) -> list[str]:
        """Those of some metadata keys that no chunk or its document has."""

    def search(self, search: Search, condition: Condition | None) -> Hits:
        """Hits of a search among the chunks that match a condition."""


class Backend(Protocol):
    """The file or folder of a store, which threads and processes may use concurrently."""

    path: str

    def reading(self) -> AbstractContextManager[StoredRows]:
        """Transaction that sees one state of the store."""

    def searching(self) -> AbstractContextManager[StoredRows]:
        """Transaction like `reading`, before a search."""

    def writing(self) -> AbstractContextManager[StoredRows]:
        """Transaction that is committed completely or not at all."""

    def spare(self, *, writing: bool = False) -> AbstractContextManager[SpareTables]:
        """Transaction on the spare vectors."""

    def columns_of(self, document: Document, chunks: Sequence[Chunk], fingerprint: str, /) -> Any:
        """Values of the columns of a document and its chunks, without their vectors."""

    def write(self, documents: Sequence[StorableDocument], given: StoredEmbedder) -> list[Result]:
        """Write documents in one transaction, and return the error of each, or None."""

    def is_of_one_document(self, error: StoreError, /) -> bool:
        """Whether an error is about a document, and not about the file or folder."""

    def check_writable(self) -> None:
        """Raise StoreNotWritable if it is read-only; it is opened again to find out."""

    def close(self) -> None:
        """Close it; calling it again has no effect, other methods raise a StoreError."""


class LocalStore:
    """
    The methods of SqliteStore, MemoryStore and LanceStore.

    Attributes:
        path: the absolute path of the file or folder.
        embedder: the embedder of queries that the user has set.
    """

    def __init__(self, path: str, file: Backend, embedder: Embed | None) -> None:
        self._given, self.path = path, file.path  # a notebook may change its folder
        self._file = file
        self.embedder = embedder
        self._run_embedders: dict[str, Embed] = {}
        self._known_keys: set[str] = set()

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
            StoreError: If the file or folder cannot be written.
        """
        request = StoreRequest(document, chunks, embeddings, fingerprint)
        [error] = self._upsert([request], StoredEmbedder(embedder, 0, identity))
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
            StoreError: If the file or folder cannot be written. Nothing is stored then.
        """
        if not self._overrides("upsert"):
            return self._upsert(requests, StoredEmbedder(embedder, 0, identity))
        results: list[Result] = []
        for document, chunks, embeddings, fingerprint in requests:
            names = {"fingerprint": fingerprint, "embedder": embedder, "identity": identity}
            try:
                self.upsert(document, chunks, embeddings, **names)
            except Exception as error:
                if isinstance(error, StoreError) and not self._file.is_of_one_document(error):
                    raise
                results.append(error)
            else:
                results.append(None)
        return results

    def fingerprint_of(self, document_id: str) -> str | None:
        """Fingerprint that a document was stored with, or None if it is not stored."""
        with self._file.reading() as rows:
            entry = rows.entries([document_id]).get(document_id)
        return None if entry is None else entry.fingerprint

    def get(self, document_id: str) -> StoredDocument | None:
        """A stored document with its chunks, or None if it is not stored."""
        _check_id(document_id, "get")
        with self._file.reading() as rows:
            return rows.document(document_id)

    def documents(self, where: Filter | None = None) -> StoredDocuments:
        """
        List the stored documents without their texts.

        A SqliteStore lists them in the order in which they were stored, a LanceStore by their ids.

        Args:
            where: Conditions on the id, source and metadata of a document; see `Filter`. Fields
                that only chunks have, such as a page or heading, do not apply.

        Raises:
            ValueError: If `where` has an unknown operator.
            TypeError: If `where` is not a dict, or has a value that metadata cannot have.
        """
        condition = condition_of(where)
        with self._file.reading() as rows:
            return selected(rows.documents(), condition, rows.known_keys)

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
        if (document_id is None) == (where is None):
            raise TypeError(
                "delete takes a document's id, or where= with conditions: pass one of them"
            )
        if document_id is not None:
            _check_id(document_id, "delete")
            with self._file.writing() as rows:
                return rows.delete([document_id])
        condition = condition_of(where)
        if condition is None or holds_always(condition):
            raise ValueError(
                f"delete needs at least one condition, got where={where!r}, which holds of every "
                "document: to start again, open another store"
            )
        with self._file.writing() as rows:
            found = selected(rows.documents(), condition, rows.known_keys)
            rows.delete([each.id for each in found])
        return len(found)

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
        while True:
            with self._file.reading() as rows:
                stored, scheme = rows.ids(), rows.id_scheme()
            change = relocation(stored, scheme, old, new)
            with self._file.writing() as rows:
                if rows.ids() != stored:
                    continue  # another thread or process has written in between
                rows.relocate(change)
                if change.scheme is not None:
                    rows.write_id_scheme(change.scheme)
                return change.count

    def entry_of(self, document_id: str) -> StoredEntry | None:
        """
        Fingerprint, source, file and metadata of a stored document; None if it is not stored.

        A document for which a subclass's `fingerprint_of` returns None is not stored.
        """
        if self._overrides("fingerprint_of") and self.fingerprint_of(document_id) is None:
            return None
        with self._file.reading() as rows:
            return rows.entries([document_id]).get(document_id)

    def entries_of(self, document_ids: Sequence[str]) -> dict[str, StoredEntry]:
        """
        Entries of those documents that are stored, by their ids, as `entry_of` returns them.

        A subclass that overrides `entry_of` or `fingerprint_of` is asked for each document.
        """
        if self._overrides("entry_of", "fingerprint_of"):
            entries = ((id_, self.entry_of(id_)) for id_ in document_ids)
            return {id_: entry for id_, entry in entries if entry is not None}
        with self._file.reading() as rows:
            return rows.entries(document_ids)

    def with_fingerprints(self, fingerprints: Sequence[str]) -> list[StoredId]:
        """Documents that were stored with any of these fingerprints."""
        with self._file.reading() as rows:
            return rows.ids_with(fingerprints)

    def update_metadata(self, metadata: Mapping[str, Mapping[str, object]]) -> None:
        """
        Replace the metadata of documents; their chunks and vectors stay.

        Args:
            metadata: The new metadata by the documents' ids.

        Raises:
            TypeError: If it is not plain data.
        """
        with self._file.writing() as rows:
            rows.write_metadata(metadata)

    def id_scheme(self) -> IdScheme | None:
        """Form of the ids of files, or None while no document of a file is stored."""
        with self._file.reading() as rows:
            return rows.id_scheme()

    def remember_id_scheme(self, scheme: IdScheme) -> None:
        """Store the form of the ids of files."""
        with self._file.writing() as rows:
            rows.write_id_scheme(scheme)

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
            StoreError: If the file or folder cannot be read.
        """
        check_search(mode, k, min_score)
        condition = condition_of(where)
        with self._file.searching() as rows:
            stored = rows.embedder()
            unknown = self._unknown_keys(rows, condition)
            known = rows.known_keys() if unknown else ()
        if unknown:
            warn_of_unknown(unknown, known, stacklevel=4)
        if unknown or stored is None:
            return Hits(query=text)
        # Outside the lock: an embedder may be a slow service.
        search = search_for(
            text, k, mode, min_score, vector, stored, self.embedder, self._run_embedders
        )
        with self._file.reading() as rows:
            return rows.search(search, condition)

    def search_with(self, name: str, embed: Embed) -> None:
        """Embed queries with this function while the vectors of this name are stored."""
        self._run_embedders = {name: embed}

    def stored_embedder(self) -> StoredEmbedder | None:
        """Embedder of the stored vectors; None while there are none."""
        with self._file.reading() as rows:
            return rows.embedder()

    def rename_embedder(self, before: StoredEmbedder, name: str, identity: str) -> None:
        """
        Change the name and identity of the embedder; its vectors stay.

        Raises:
            EmbedderMismatch: If the store has the vectors of another embedder by now.
        """
        with self._file.writing() as rows:
            check_embedder(rows.embedder(), before)
            rows.write_embedder(StoredEmbedder(name, before.dimension, identity))
        if self.spare_embedder() == before:
            with self._file.spare(writing=True) as spare:
                spare.rename_embedder(before, name, identity)

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
        with self._file.reading() as rows:
            return rows.vectors_of(embedder, texts)

    def spare_embedder(self) -> StoredEmbedder | None:
        """Embedder of the spare vectors; None while there are none."""
        with self._file.spare() as spare:
            return spare.embedder()

    def spare_vectors_of(
        self, embedder: StoredEmbedder, texts: Sequence[str]
    ) -> list[NDArray[np.float32] | None]:
        """
        Look up the vectors of texts that a run has paid for, but whose documents are not stored.

        Args:
            embedder: The embedder; vectors of another identity or dimension do not count.
            texts: The texts of chunks.

        Returns:
            For each text its vector, or None.
        """
        with self._file.spare() as spare:
            return spare.vectors_of(embedder, texts)

    def add_spare_vectors(
        self, embedder: StoredEmbedder, vectors: Mapping[str, NDArray[np.float32]]
    ) -> None:
        """
        Keep vectors of texts whose documents a run did not finish.

        A run does this when it ends, so that the next one need not pay for them again. Searches,
        lists and counts do not see them. A vector is dropped when a chunk of its text is stored;
        `delete` and pruning leave it. All together have at most SPARE_BYTES: the oldest go first.

        Args:
            embedder: The embedder; spare vectors of another one are dropped.
            vectors: The vectors by their texts.

        Raises:
            StoreError: If the file or folder cannot be written.
        """
        stored = self.vectors_of(embedder.name, list(vectors))
        new = {
            text: vector
            for (text, vector), found in zip(vectors.items(), stored, strict=True)
            if found is None  # another document may have stored the same text meanwhile
        }
        if new:
            with self._file.spare(writing=True) as spare:
                spare.add(embedder, new)

    def drop_spare_vectors(self) -> None:
        """Drop all spare vectors, for instance if their documents will never be stored."""
        if self.spare_embedder() is not None:
            with self._file.spare(writing=True) as spare:
                spare.clear()

    def sources_within(self, prefix: str) -> list[tuple[str, str]]:
        """
        List the ids and files of the documents that have a file whose id begins with a prefix.

        Args:
            prefix: The prefix, character by character: end a folder with its separator, or "/docs"
                is a prefix of "/docs-old/a.md" too.
        """
        with self._file.reading() as rows:
            stored = rows.ids()
        return [
            (each.id, each.file) for each in stored if each.file and each.file.startswith(prefix)
        ]

    def to_dataframe(self) -> pd.DataFrame:
        """
        DataFrame with one row per chunk: document_id, source, ordinal, start, end, text, metadata.

        Offsets and ordinals are int64, metadata is a dict as in a Hit (`frame.metadata.str["page"]`
        makes a key a column), the rest is pandas' string type; rows are in the order of
        `documents`.
        """
        import pandas as pd

        with self._file.reading() as stored:
            rows = list(stored.chunk_rows())
        frame = pd.DataFrame([row[:6] for row in rows], columns=list(_COLUMNS)).astype(_DTYPES)
        metadata = [json.loads(of_document) | json.loads(own) for *_, of_document, own in rows]
        return frame.assign(metadata=pd.Series(metadata, index=frame.index, dtype="object"))

    def __len__(self) -> int:
        """Number of chunks."""
        with self._file.reading() as rows:
            return rows.count()[1]

    def __bool__(self) -> bool:
        """Always True: `store or another` must not replace a store because it is empty."""
        return True

    def check_writable(self) -> None:
        """
        Raise an error if the store is read-only; it is opened again to find out.

        Raises:
            StoreNotWritable: If the file, or its folder, is not writable.
        """
        self._file.check_writable()

    def close(self) -> None:
        """Close the store. Any other use afterwards is a StoreError; closing again does nothing."""
        self._file.close()

    def __enter__(self) -> Self:
        """The store itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the store."""
        self.close()

    def __repr__(self) -> str:
        try:
            with self._file.reading() as rows:
                documents, chunks = rows.count()
                stored = rows.embedder()
        except StoreError as error:
            return f"<{type(self).__name__} {self._given!r}: {error.__cause__ or error}>"
        held = f"{counted(documents, 'document')}, {counted(chunks, 'chunk')}"
        of = f" by {stored.name!r}" if stored else ""
        return f"<{type(self).__name__} {self._given!r}: {held}{of}>"

    def _repr_html_(self) -> str:
        """The path and the contents as a table, with what to call next."""
        then = "search(text), get(id), documents(), to_dataframe()"
        return object_html(self, [("path", self._given), ("call next", then)])

    def _upsert(self, requests: Sequence[StoreRequest], given: StoredEmbedder) -> list[Result]:
        """Write documents in one transaction; each that cannot be stored fails alone."""
        results: list[Result] = [None] * len(requests)
        prepared: dict[int, StorableDocument] = {}
        for place, request in enumerate(requests):
            try:
                prepared[place] = self._prepared(request)
            except Exception as error:  # of this document
                results[place] = error
        if prepared:
            written = self._file.write(list(prepared.values()), given)
            for place, result in zip(prepared, written, strict=True):
                results[place] = result
        return results

    def _prepared(self, request: StoreRequest) -> StorableDocument:
        """Check a document, and convert it to the values of its columns."""
        document, chunks, embeddings, fingerprint = request
        vectors = checked_vectors(embeddings, len(chunks))
        try:
            for text in (document.id, document.source, document.file, fingerprint):
                if isinstance(text, str):  # the store refuses other types
                    text.encode()
            columns = self._file.columns_of(document, chunks, fingerprint)
        except UnicodeEncodeError as error:
            explain_surrogate(error)
            raise
        return StorableDocument(document, vectors, columns)

    def _overrides(self, *methods: str) -> bool:
        """Whether a subclass, or this object, has its own version of one of these methods."""
        return any(
            getattr(type(self), name) is not getattr(LocalStore, name) or name in vars(self)
            for name in methods
        )

    def _unknown_keys(self, rows: StoredRows, condition: Condition | None) -> list[str]:
        """Keys of a condition that no document has, if there are any documents."""
        asked = [key for key in keys_to_know(condition) if key not in self._known_keys]
        if not asked or not rows.count()[0]:
            return []
        unknown = rows.unknown_keys(asked)
        self._known_keys.update(set(asked).difference(unknown))
        return unknown


def _check_id(document_id: object, method: str) -> None:
    if not isinstance(document_id, str):
        raise TypeError(
            f"{method} takes a document's id, which is a text, got {document_id!r:.200}: of a "
            "file, it is the absolute path, or the path below root="
        )
