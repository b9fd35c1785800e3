"""The file of a SqliteStore: its tables, and how it is opened."""

from __future__ import annotations

import sqlite3

from ragasync.documents.store import StoreError
from ragasync.own_database import Kind, open_own

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

STORE = Kind(
    what="store",
    application_id=0x72616773,  # "rags", in the file's header
    version=1,
    schema=_SCHEMA,
    synchronous="NORMAL",
    error=StoreError,
)


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
        StoreError: When the file cannot be used; see `open_own`.
    """
    return open_own(path, STORE, timeout)
