"""Documents, vectors and words in one SQLite file: the embedded store."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from sqlite3 import Connection
from types import TracebackType
from typing import TYPE_CHECKING, Self, get_args

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.document import Chunk, Document
from ragasync.documents.query import Embed, query_vector
from ragasync.documents.search import fuse, nearest
from ragasync.documents.sqlite_file import STORE, open_store_file
from ragasync.documents.sqlite_rows import (
    chunk_count,
    chunk_rows,
    delete_document,
    document_count,
    fingerprint_of,
    hits,
    ranked_by_words,
    remember_embedder,
    remembered_embedder,
    write_document,
)
from ragasync.documents.store import Hit, SearchBy, StoreError, checked_vectors
from ragasync.documents.vectors import VectorMatrix
from ragasync.own_database import clear_errors, transaction

if TYPE_CHECKING:
    import pandas as pd

# So many of each ranking are joined: what neither places higher is not a good answer.
_JOINED = 50


class SqliteStore:
    """
    Keep documents in one SQLite file and find their chunks by vectors, by words, or by both.

    One transaction a document: it is there whole or not at all, whatever kills the process.
    Vectors are compared exactly, in a matrix that stays in memory (4 bytes x dimension x chunks),
    good to some 200,000 chunks; words are ranked by BM25 in SQLite's own FTS5. The file remembers
    whose vectors it holds and refuses another embedder's. Several processes may read and write it
    at once.

        with SqliteStore("library.sqlite") as store:
            for hit in store.search("how does a token bucket refill?", k=3):
                print(hit.source, hit.text)

    All threads share one connection and take turns at it: SQLite lets one writer in at a time
    anyway, and ":memory:" is then the same store from every thread.

    Args:
        path: The file, created where it is missing; ":memory:" keeps nothing.
        embedder: What embeds the texts that are searched for; may be set later. None uses the
            HashingEmbedder where the file holds its vectors.
        timeout: Seconds to wait for another process that is writing.

    Raises:
        StoreError: When the file is no store's, broken, or locked.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        embedder: Embed | None = None,
        *,
        timeout: float = 10.0,
    ) -> None:
        self.embedder = embedder
        self.path = os.fspath(path)
        self._timeout = timeout
        self._lock = threading.Lock()
        self._matrix = VectorMatrix()
        self._connection = open_store_file(self.path, timeout)

    def upsert(
        self,
        document: Document,
        chunks: Sequence[Chunk],
        embeddings: NDArray[np.float32],
        *,
        fingerprint: str,
        embedder: str,
    ) -> None:
        """
        Store a document in place of what was stored under its id, in one transaction.

        Args:
            document: The document; its text is kept as far as the chunks cover it.
            chunks: Its chunks, in order; none for an empty document.
            embeddings: Their vectors, `(len(chunks), dimension)`.
            fingerprint: What `fingerprint_of` is to return from now on.
            embedder: The name of the embedder that made the vectors.

        Raises:
            WrongEmbedder: When the store holds vectors of another name or dimension.
            ValueError: When the embeddings are not one finite row a chunk, or a text or an id has
                a lone surrogate, which UTF-8 cannot hold.
            TypeError: When the metadata is not plain data.
            StoreError: When the file cannot be written.
        """
        vectors = checked_vectors(embeddings, len(chunks))
        with self._transaction("BEGIN IMMEDIATE") as db:
            if len(chunks):
                remember_embedder(db, embedder, vectors.shape[1])
            write_document(db, document, chunks, vectors, fingerprint)

    def fingerprint_of(self, document_id: str) -> str | None:
        """Return the fingerprint that a document was stored with, or None without one."""
        with self._transaction("BEGIN") as db:
            return fingerprint_of(db, document_id)

    def delete(self, document_id: str) -> bool:
        """Remove a document and its chunks; return whether it was there."""
        with self._transaction("BEGIN IMMEDIATE") as db:
            return delete_document(db, document_id)

    def search(
        self,
        text: str,
        k: int = 10,
        *,
        by: SearchBy = "both",
        vector: NDArray[np.float32] | None = None,
    ) -> list[Hit]:
        """
        Return the best chunks for a text, the best first.

        Args:
            text: What to search for; it is data, never query syntax.
            k: The most hits.
            by: "vectors" ranks by the cosine, "bm25" by the words in common (any of them), "both"
                joins the first 50 of each, or k where that is more, by reciprocal rank.
            vector: The text's own vector, where it is made elsewhere, by an async embedder for
                instance; otherwise the store's embedder makes it.

        Returns:
            At most `k` hits; `score` is the cosine, BM25 or the sum of reciprocal ranks.

        Raises:
            ValueError: When `by` or `k` is none of these.
            WrongEmbedder: When the vectors stored are another embedder's, or one is needed.
            StoreError: When the file cannot be read.
        """
        if by not in get_args(SearchBy):
            raise ValueError(f"by must be one of {get_args(SearchBy)}, not {by!r}")
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k!r}")
        # Outside the lock: an embedder may be a slow service.
        query = None if by == "bm25" else self._query_vector(text, vector)
        depth = max(k, _JOINED) if by == "both" else k
        with self._transaction("BEGIN") as db:
            near = [] if query is None else self._nearest(db, query, depth)
            worded = [] if by == "vectors" else ranked_by_words(db, text, depth)
            if by == "both":
                joined = fuse([number for number, _ in near], [number for number, _ in worded])
                return hits(db, joined[:k])
            return hits(db, near or worded)

    def to_dataframe(self) -> pd.DataFrame:
        """
        Return a row a chunk: document_id, source, ordinal, start, end and text.

        Offsets and ordinals are int64, the rest is pandas' string type; rows are in the order in
        which documents were stored.
        """
        import pandas as pd

        types = {"document_id": "string", "source": "string", "text": "string"}
        types |= dict.fromkeys(["ordinal", "start", "end"], "int64")
        columns = ["document_id", "source", "ordinal", "start", "end", "text"]
        with self._transaction("BEGIN") as db:
            rows = chunk_rows(db)
        return pd.DataFrame(rows, columns=columns).astype(types)

    @property
    def documents(self) -> int:
        """The number of documents, those without chunks included."""
        with self._transaction("BEGIN") as db:
            return document_count(db)

    def __len__(self) -> int:
        """Return the number of chunks."""
        with self._transaction("BEGIN") as db:
            return chunk_count(db)

    def close(self) -> None:
        """Close the file; once more does no harm, anything else afterwards is a StoreError."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        """Return the store itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()

    def __repr__(self) -> str:
        try:
            with self._transaction("BEGIN") as db:
                documents, chunks = document_count(db), chunk_count(db)
                stored = remembered_embedder(db)
        except StoreError as error:
            return f"<SqliteStore {self.path!r}: {error.__cause__}>"
        of = f" by {stored[0]!r}" if stored else ""
        return f"<SqliteStore {self.path!r}: {documents:,} documents, {chunks:,} chunks{of}>"

    def _query_vector(
        self, text: str, given: NDArray[np.float32] | None
    ) -> NDArray[np.float32] | None:
        """Return the vector to search by, or None while none is stored to compare it with."""
        with self._transaction("BEGIN") as db:
            stored = remembered_embedder(db)
        return query_vector(text, self.embedder, stored, given) if stored else None

    def _nearest(
        self, db: Connection, query: NDArray[np.float32], k: int
    ) -> list[tuple[int, float]]:
        """Return the numbers of the `k` nearest chunks and their cosines, the best first."""
        numbers, rows = self._matrix.current(db)
        return [(int(numbers[row]), cosine) for row, cosine in nearest(rows, query, k)]

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Connection]:
        """Give the connection for one transaction, to one thread at a time."""
        connection = self._connection
        with (
            self._lock,
            clear_errors(self.path, STORE, self._timeout),
            transaction(connection, begin),
        ):
            yield connection
