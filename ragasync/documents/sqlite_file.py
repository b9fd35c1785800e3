"""The file of a SqliteStore: created, recognised, or refused with a reason."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from ragasync.documents.store import StoreError

_APPLICATION_ID = 0x72616773  # "rags", in the file's header
_SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE embedder (name TEXT NOT NULL, dimension INTEGER NOT NULL);
CREATE TABLE documents (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    source TEXT,
    fingerprint TEXT NOT NULL,
    metadata TEXT NOT NULL
);
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
    UNIQUE (document, ordinal)
);
-- Apart from the texts, so that reading a hit's text does not step over vectors.
CREATE TABLE vectors (
    chunk INTEGER PRIMARY KEY REFERENCES chunks (number) ON DELETE CASCADE,
    embedding BLOB NOT NULL
);
CREATE VIRTUAL TABLE words USING fts5 (
    text, content = 'chunks', content_rowid = 'number', tokenize = 'unicode61 remove_diacritics 2'
);
-- Adding has no such trigger: it would flush FTS5's memory at each row, a third of the time.
CREATE TRIGGER chunk_removed AFTER DELETE ON chunks BEGIN
    INSERT INTO words (words, rowid, text) VALUES ('delete', old.number, old.text);
END;
"""


def open_store_file(path: str, timeout: float) -> sqlite3.Connection:
    """
    Connect to the file of a store, creating it where it is missing or empty.

    Commits are synchronised by SQLite's NORMAL: kill -9 loses nothing that was committed; a power
    cut may lose the last commits, never half of one and never the file, and the next run stores
    those documents again, because their fingerprints are gone with them. FULL would make each
    document wait for the disk.

    Args:
        path: The file, or ":memory:".
        timeout: Seconds to wait for another process that is writing.

    Returns:
        A connection for any thread, in autocommit mode: transactions are begun by hand.

    Raises:
        StoreError: When the file is no database, another program's, of another version of the
            schema, locked for longer than `timeout`, or cannot be opened.
    """
    with clear_errors(path, timeout):
        connection = sqlite3.connect(
            path, timeout=timeout, isolation_level=None, check_same_thread=False
        )
        try:
            _create_or_recognise(connection, path)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def clear_errors(path: str, timeout: float) -> Iterator[None]:
    """Turn SQLite's errors into a StoreError, and say of any what to do."""
    try:
        yield
    except UnicodeEncodeError as error:
        error.reason = (
            "a lone surrogate, which no file in UTF-8 can hold: mend the text or id, for instance "
            "by text.encode(errors='replace').decode()"
        )
        raise
    except sqlite3.Error as error:
        raise StoreError(f"the store {path!r} {_explained(error, timeout)}") from error


@contextmanager
def transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    """Begin by this statement; commit at the end of the block, roll back if it raises."""
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk has rolled back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _create_or_recognise(connection: sqlite3.Connection, path: str) -> None:
    """Create the tables in an empty file; refuse any other file but a store's own."""
    # Nothing is written before the file is known to be ours or empty.
    if _is_empty(connection):
        with transaction(connection, "BEGIN IMMEDIATE"):
            # Once more: another process may have come first.
            if _is_empty(connection):
                for statement in _statements():
                    connection.execute(statement)
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION_ID:
        raise StoreError(
            f"{path!r} is a database, but not a store of ragasync's: choose another path"
        )
    if version != _SCHEMA_VERSION:
        raise StoreError(
            f"the store {path!r} has version {version} of the schema, and this ragasync reads "
            f"version {_SCHEMA_VERSION}: use the ragasync that wrote it, or store anew in "
            "another file"
        )


def _is_empty(connection: sqlite3.Connection) -> bool:
    """Tell whether nobody has put anything into the file."""
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    return not tables and not application


def _statements() -> Iterator[str]:
    """Give the statements of the schema one by one: `executescript` would commit before them."""
    statement = ""
    for line in _SCHEMA.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    yield f"PRAGMA application_id = {_APPLICATION_ID}"
    yield f"PRAGMA user_version = {_SCHEMA_VERSION}"


def _explained(error: sqlite3.Error, timeout: float) -> str:
    """Say what an error of SQLite's means for the user of a store."""
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return (
                f"is locked by another process for more than {timeout:g} s: wait for it, "
                "or pass a longer timeout="
            )
        case sqlite3.SQLITE_NOTADB:
            return "is no SQLite database: choose another path"
        case sqlite3.SQLITE_CORRUPT:
            return f"is damaged ({error}): restore it from a copy, or store anew in another file"
        case sqlite3.SQLITE_CANTOPEN:
            return f"cannot be opened ({error}): the folder must exist and be writable"
        case _:
            return f"cannot be used: {error}"
