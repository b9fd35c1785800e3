"""SqliteStore and MemoryStore: documents, vectors and keywords in one file, or in memory."""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import timedelta

from ragasync.arguments import check_seconds, explains_arguments
from ragasync.documents.store import StoredEmbedder, StoreError, StoreNotWritable
from ragasync.documents.stores import LocalStore
from ragasync.documents.stores.requests import Embed, Result, StorableDocument
from ragasync.documents.stores.sqlite_rows import (
    SpareTables,
    SqliteRows,
    columns_of,
    is_of_one_document,
)
from ragasync.documents.stores.sqlite_search import VectorMatrix
from ragasync.sqlite_file import (
    SqliteFormat,
    connect_read_only,
    convert_errors,
    is_full,
    is_read_only,
    is_unwritable,
    open_database,
    open_read_only,
    transaction,
)


@explains_arguments
class SqliteStore(LocalStore):
    """
    A store in one SQLite file, with search by vectors, by keywords, or by both.

    A document is stored in one transaction, so that it is complete or absent even if the process is
    killed; `upsert_many` stores several in one. Searches and lookups never wait for it. Vector
    search is exact, with a matrix in memory (4 bytes x dimension x chunks), which suits up to about
    200,000 chunks; keywords are ranked by BM25, in SQLite's FTS5. The file records the embedder of
    its vectors and refuses vectors of another one. Several processes may read and write it
    concurrently.

    Go on with `search(text, k=10, where=...)`, `documents()`, `get(id)` and `delete(id)`. A file of
    an older version is refused: store its sources again in another file.

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
        name = os.fspath(path)
        full = name if name == ":memory:" else os.path.abspath(name)  # noqa: PTH100  # a link stays one
        super().__init__(name, StoreFile(full, check_seconds("timeout", timeout)), embedder)


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


_SCHEMA = """
CREATE TABLE embedder (name TEXT NOT NULL, dimension INTEGER NOT NULL, identity TEXT NOT NULL);
-- The form of the ids of files: one row, once there are any.
CREATE TABLE id_scheme (relative INTEGER NOT NULL, root TEXT, is_mixed INTEGER NOT NULL);
CREATE TABLE documents (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    source TEXT,
    -- The file that it was loaded from; NULL for a document that the user made.
    file TEXT,
    fingerprint TEXT NOT NULL,
    metadata TEXT NOT NULL,
    -- Its chunks have the numbers from first_chunk on, in their order.
    first_chunk INTEGER NOT NULL,
    chunk_count INTEGER NOT NULL
);
-- A file that moved is recognised by its content.
CREATE INDEX documents_by_fingerprint ON documents (fingerprint);
CREATE TABLE chunks (
    number INTEGER PRIMARY KEY,
    document INTEGER NOT NULL,
    "start" INTEGER NOT NULL,
    "end" INTEGER NOT NULL,
    text TEXT NOT NULL,
    metadata TEXT NOT NULL,
    text_hash INTEGER NOT NULL,
    -- What is indexed in place of the text: of scripts without spaces, of letters in two parts.
    indexed TEXT
);
-- A text that is stored anywhere need not be embedded again.
CREATE INDEX chunks_by_text ON chunks (text_hash);
-- A number is never used twice: vectors in memory are identified by it.
CREATE TABLE next_chunk (number INTEGER NOT NULL);
INSERT INTO next_chunk VALUES (1);
-- Of several consecutive chunks of one document, because a row per vector costs twice the time;
-- and not with the texts, because reading a hit would step over vectors.
CREATE TABLE vectors (first_chunk INTEGER PRIMARY KEY, embeddings BLOB NOT NULL);
"""

# Porter stems, so that "threads" finds "thread": of English words, and others are left as they are.
# Marks (M*) are parts of words, as the vowels of Hindi are. No triggers keep the index up to date:
# they would flush FTS5's memory at each row, a third of the time.
_WORDS = """
CREATE VIEW searched (number, text) AS SELECT number, coalesce(indexed, text) FROM chunks;
CREATE VIRTUAL TABLE words USING fts5 (
    text, content = 'searched', content_rowid = 'number',
    tokenize = "porter unicode61 remove_diacritics 2 categories 'L* M* N* Co'"
);
"""

# Vectors fill pages of a new file, and fewer, larger pages are read faster. A commit that finds
# 2000 pages in the log copies them to the file, which waits for the disk; SQLite's 1000 pages of
# 4 KB are the log of two groups of documents.
_PRAGMAS = "PRAGMA page_size = 8192; PRAGMA wal_autocheckpoint = 2000;"

_STATE = ("SELECT max(number), count(*) FROM documents", "SELECT number FROM next_chunk")
"""Queries that differ between a file that was just written to and a copy of it before."""

STORE = SqliteFormat(
    name="store",
    application_id=0x72616773,  # "rags", in the file's header
    version=5,
    schema=_SCHEMA + _WORDS,
    synchronous="NORMAL",
    error=StoreError,
    pragmas=_PRAGMAS,
)


class StoreFile:
    """
    The connections to a store's file: one for writing, and one for reading, which never waits.

    Threads take turns at each of them. SQLite has one writer at a time anyway, and a reader sees
    the last commit while somebody writes. ":memory:" and a file that is read-only have one
    connection for both.

    Commits are synchronised by SQLite's NORMAL: kill -9 loses nothing that was committed; a power
    cut may lose the last commits, never half of one and never the file, and the next run stores
    those documents again, because their fingerprints are lost with them. FULL would make each
    commit wait for the disk. A file in a folder that is not writable can be read.

    Args:
        path: The file, created if it is missing or empty, or ":memory:".
        timeout: Seconds to wait for another process that is writing.

    Raises:
        StoreError: If the file cannot be used; see `open_database`.
    """

    def __init__(self, path: str, timeout: float) -> None:
        self.path = path
        self._timeout = timeout
        self._lock, self._read_lock = threading.Lock(), threading.Lock()
        self._unwritable: tuple[int, ...] | None = None
        self._status: os.stat_result | None = None
        self._reader: sqlite3.Connection | None = None
        self._is_closed = False
        self._matrix = VectorMatrix()
        self._connection = self._open()

    columns_of = staticmethod(columns_of)
    is_of_one_document = staticmethod(is_of_one_document)

    @contextmanager
    def reading(self) -> Iterator[SqliteRows]:
        """Transaction that sees one state of the file."""
        with self._converting_errors(), self._read_lock:
            reader = self._reader = self._reader or self._open_reader()
            if reader is not None:
                with transaction(reader, "BEGIN"):
                    yield SqliteRows(reader, self._matrix)
                return
        with self._transaction("BEGIN") as rows:
            yield rows

    searching = reading

    @contextmanager
    def writing(self) -> Iterator[SqliteRows]:
        """Transaction that is committed completely or not at all."""
        try:
            with self._transaction("BEGIN IMMEDIATE") as rows:
                yield rows
        except StoreError as error:
            if not (is_read_only(error.__cause__) or is_full(error.__cause__)):
                raise
            raise StoreNotWritable(*error.args) from error.__cause__

    @contextmanager
    def spare(self, *, writing: bool = False) -> Iterator[SpareTables]:
        """Transaction on the spare vectors, which are in the same file."""
        with self.writing() if writing else self.reading() as rows:
            yield rows.spare

    def write(self, documents: Sequence[StorableDocument], given: StoredEmbedder) -> list[Result]:
        """Write documents in one transaction; each that cannot be stored fails alone."""
        try:
            with self.writing() as rows:
                return rows.write(documents, given)
        except Exception as error:
            if not is_of_one_document(error):
                raise
        # Which document has the bad value is only known when each is written by itself.
        results: list[Result] = []
        with self.writing() as rows:
            for each in documents:
                try:
                    with self._converting_errors(), rows.savepoint():
                        results += rows.write([each], given)
                except Exception as error:
                    if not is_of_one_document(error):
                        raise
                    results.append(error)
        return results

    def _converting_errors(self) -> AbstractContextManager[None]:
        """Convert SQLite's errors into StoreError, with advice."""
        return convert_errors(self.path, STORE, self._timeout)

    def check_writable(self) -> None:
        """
        Raise an error if the file is read-only; this does not wait for other processes that write.

        Raises:
            StoreNotWritable: If the file or its folder is not writable.
        """
        with self._lock:
            if self._is_writable():
                return
            self._connection.close()
            self._connection = self._open()  # it may have been made writable since
            if not self._is_writable():
                raise StoreNotWritable(
                    f"the store {self.path!r} is read-only: make "
                    "its file and its folder writable, or write to a copy"
                )

    def _is_writable(self) -> bool:
        """Whether the file is writable, as far as is known without writing."""
        if self._unwritable is not None:
            return False
        timeout = f"PRAGMA busy_timeout = {self._timeout * 1000:.0f}"  # it takes no parameters
        try:
            self._connection.execute("PRAGMA busy_timeout = 0")
            try:
                self._connection.execute("DELETE FROM embedder WHERE false")
            finally:
                self._connection.execute(timeout)
        except sqlite3.Error as error:
            # Other errors, as of a closed store, are raised when something is stored.
            return not is_read_only(error)
        return True

    def close(self) -> None:
        """Close both connections; calling it again has no effect."""
        with self._lock, self._read_lock:
            self._unwritable, self._is_closed = None, True
            # The last one to be closed must be able to write: it removes the log.
            if self._reader is not None:
                self._reader.close()
            self._connection.close()

    def _open(self) -> sqlite3.Connection:
        """Open the file; read-only if it is not writable."""
        self._unwritable = self._status = None
        try:
            connection = open_database(self.path, STORE, self._timeout)
            self._status = None if self.path == ":memory:" else os.stat(self.path)  # noqa: PTH116
            return connection
        except StoreError as error:
            if not is_unwritable(error.__cause__) or (state := _state_of(self.path)) is None:
                raise
        self._unwritable = state
        return open_read_only(self.path, STORE)

    def _open_reader(self) -> sqlite3.Connection | None:
        """Open the reading connection; None if there is one connection, or the file has moved."""
        if self._is_closed or self._status is None or not self._is_at_path(self._status):
            return None
        reader = connect_read_only(self.path, log=True, timeout=self._timeout)
        try:
            reader.execute("SELECT 1 FROM documents LIMIT 1")
        except BaseException:
            reader.close()
            raise
        if self._is_at_path(self._status):
            return reader
        reader.close()  # of another file, which replaced this one in between
        return None

    def _is_at_path(self, status: os.stat_result) -> bool:
        """Whether the path still stands for the file that was opened."""
        try:
            return os.path.samestat(status, os.stat(self.path))  # noqa: PTH116
        except OSError:
            return False

    def _reopen_if_changed(self) -> None:
        """Open a read-only file again if another process has changed it."""
        if self._unwritable is not None and self._unwritable != _state_of(self.path):
            self._connection.close()
            self._connection = self._open()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[SqliteRows]:
        """Transaction on the writing connection, of one thread at a time."""
        with self._lock, self._converting_errors():
            self._reopen_if_changed()
            with transaction(self._connection, begin):
                yield SqliteRows(self._connection, self._matrix)
            if begin != "BEGIN" and self._status is not None:
                self._status = self._checked_status(self._status)

    def _checked_status(self, before: os.stat_result) -> os.stat_result:
        """
        Status of the file at the path, if it is still the file that is open.

        Raises:
            StoreNotWritable: It is another file or none: what was written is lost with this one.
        """
        try:
            now = os.stat(self.path)  # noqa: PTH116
        except FileNotFoundError:
            raise self._lost("deleted or renamed") from None
        if os.path.samestat(before, now):
            return now
        # Some network shares renumber files: look for the last commit in the file at the path.
        _, logged, moved = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if logged != moved:  # somebody is reading: check after the next commit
            return before
        with closing(connect_read_only(self.path, log=False)) as there:
            if any(
                there.execute(state).fetchall() != self._connection.execute(state).fetchall()
                for state in _STATE
            ):
                raise self._lost("replaced")
        return now

    def _lost(self, how: str) -> StoreNotWritable:
        return StoreNotWritable(
            f"the file of the store {self.path!r} was {how} while it was open, so that what is "
            "stored now would be lost: put it back or open a new store, and run again"
        )


def _state_of(path: str) -> tuple[int, ...] | None:
    """Date, size and inode number of a file, or None if it is missing or empty."""
    try:
        status = os.stat(path)  # noqa: PTH116  # any text, as SQLite takes it
    except (OSError, ValueError):
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino) if status.st_size else None
