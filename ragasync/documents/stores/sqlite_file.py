"""The file of a SqliteStore: its tables, how it is opened, and how threads take turns at it."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import blake2b

from ragasync.documents.store import StoreError, StoreNotWritable
from ragasync.sqlite_file import (
    SqliteFormat,
    connect_read_only,
    convert_errors,
    is_read_only,
    is_unwritable,
    open_database,
    open_read_only,
    transaction,
)

# Stems, so that "threads" finds "thread": of English words, and others are left as they are.
# Marks (M*) are parts of words, as the vowels of Hindi are.
_WORDS = """
CREATE VIEW searched (number, text) AS SELECT number, coalesce(indexed, text) FROM chunks;
CREATE VIRTUAL TABLE words USING fts5 (
    text, content = 'searched', content_rowid = 'number',
    tokenize = "porter unicode61 remove_diacritics 2 categories 'L* M* N* Co'"
);
"""

_SCHEMA = """
CREATE TABLE embedder (name TEXT NOT NULL, dimension INTEGER NOT NULL, identity TEXT NOT NULL);
-- What the ids of files are: one row, once there are any.
CREATE TABLE id_scheme (relative INTEGER NOT NULL, root TEXT, is_mixed INTEGER NOT NULL);
CREATE TABLE documents (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    source TEXT,
    -- The file that it was loaded from; NULL for a document that the user made.
    file TEXT,
    fingerprint TEXT NOT NULL,
    metadata TEXT NOT NULL
);
CREATE INDEX documents_by_file ON documents (file) WHERE file IS NOT NULL;
-- A file that moved is known by its content.
CREATE INDEX documents_by_fingerprint ON documents (fingerprint);
-- AUTOINCREMENT never gives a number twice: vectors in memory are known by it.
CREATE TABLE chunks (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    document INTEGER NOT NULL REFERENCES documents (number) ON DELETE CASCADE,
    ordinal INTEGER NOT NULL,
    "start" INTEGER NOT NULL,
    "end" INTEGER NOT NULL,
    text TEXT NOT NULL,
    metadata TEXT NOT NULL,
    text_hash BLOB NOT NULL,
    -- What is indexed in place of the text: of scripts without spaces, of letters in two parts.
    indexed TEXT,
    UNIQUE (document, ordinal)
);
-- A text that is stored anywhere need not be embedded again.
CREATE INDEX chunks_by_text ON chunks (text_hash);
-- Apart from the texts, so that reading a hit's text does not step over vectors.
CREATE TABLE vectors (
    chunk INTEGER PRIMARY KEY REFERENCES chunks (number) ON DELETE CASCADE,
    embedding BLOB NOT NULL
);
-- Adding has no such trigger: it would flush FTS5's memory at each row, a third of the time.
CREATE TRIGGER chunk_removed AFTER DELETE ON chunks BEGIN
    INSERT INTO words (words, rowid, text)
    VALUES ('delete', old.number, coalesce(old.indexed, old.text));
END;
"""


def text_hash(text: str) -> bytes:
    """Return 16 bytes by which a text is found again."""
    return blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()


_STATE = ("SELECT max(number), count(*) FROM documents", "SELECT seq FROM sqlite_sequence")
"""What differs between a file that was just written to, and a copy of it that was not."""

STORE = SqliteFormat(
    name="store",
    application_id=0x72616773,  # "rags", in the file's header
    version=4,
    schema=_SCHEMA + _WORDS,
    synchronous="NORMAL",
    error=StoreError,
)


class StoreFile:
    """
    One connection to a store's file, that all threads take turns at.

    SQLite lets one writer in at a time anyway, and ":memory:" is then the same store from every
    thread. Commits are synchronised by SQLite's NORMAL: kill -9 loses nothing that was committed;
    a power cut may lose the last commits, never half of one and never the file, and the next run
    stores those documents again, because their fingerprints are gone with them. FULL would make
    each document wait for the disk. A file in a folder that is not writable can be read.

    Args:
        path: The file, created where it is missing or empty, or ":memory:".
        timeout: Seconds to wait for another process that is writing.

    Raises:
        StoreError: When the file cannot be used; see `open_database`.
    """

    def __init__(self, path: str, timeout: float) -> None:
        self.path = path
        self._timeout = timeout
        self._lock = threading.Lock()
        self._unwritable: tuple[int, ...] | None = None
        self._status: os.stat_result | None = None
        self._connection = self._open()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give the connection for one transaction that sees one state of the file."""
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Give the connection for one transaction that is committed whole or not at all."""
        try:
            with self._transaction("BEGIN IMMEDIATE") as connection:
                yield connection
        except StoreError as error:
            if not is_read_only(error.__cause__):
                raise
            raise StoreNotWritable(*error.args) from error.__cause__

    def check_writable(self) -> None:
        """
        Raise an error where the file can only be read; wait for nobody who is writing.

        Raises:
            StoreNotWritable: it or its folder may not be written to.
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
        """Return whether the file can be written to, as far as can be told without writing."""
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
            return not is_read_only(error)  # others, such as a closed store, each document meets
        return True

    def close(self) -> None:
        """Close the file; once more does no harm."""
        with self._lock:
            self._unwritable = None
            self._connection.close()

    def _open(self) -> sqlite3.Connection:
        """Open the file, for reading alone where that is all that can be done."""
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

    def _reopen_if_changed(self) -> None:
        """Open a file again that somebody else has changed while we can only read it."""
        if self._unwritable is not None and self._unwritable != _state_of(self.path):
            self._connection.close()
            self._connection = self._open()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        """Give the connection for one transaction, to one thread at a time."""
        with (
            self._lock,
            convert_errors(self.path, STORE, self._timeout),
        ):
            self._reopen_if_changed()
            with transaction(self._connection, begin):
                yield self._connection
            if begin != "BEGIN" and self._status is not None:
                self._status = self._checked_status(self._status)

    def _checked_status(self, before: os.stat_result) -> os.stat_result:
        """
        Return what the system says of the file that the path stands for, if it is still this one.

        Raises:
            StoreNotWritable: it is not, so that what was written goes with this connection.
        """
        try:
            now = os.stat(self.path)  # noqa: PTH116
        except FileNotFoundError:
            raise self._lost("deleted or renamed") from None
        if os.path.samestat(before, now):
            return now
        # Some shares number their files again, so what was written is looked for under the path.
        _, logged, moved = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if logged != moved:  # somebody reads: after the next commit then
            return before
        with closing(connect_read_only(self.path, log=False)) as there:
            if any(
                there.execute(state).fetchall() != self._connection.execute(state).fetchall()
                for state in _STATE
            ):
                raise self._lost("replaced")
        return now

    def _lost(self, how: str) -> StoreNotWritable:
        """Return the error about a file that others can no longer see."""
        return StoreNotWritable(
            f"the file of the store {self.path!r} was {how} while it was open, so that what is "
            "stored now would be lost: put it back or open a new store, and run again"
        )


def _state_of(path: str) -> tuple[int, ...] | None:
    """Return the date, size and number of a file, or None where it is missing or empty."""
    try:
        status = os.stat(path)  # noqa: PTH116  # any text, as SQLite takes it
    except (OSError, ValueError):
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino) if status.st_size else None
