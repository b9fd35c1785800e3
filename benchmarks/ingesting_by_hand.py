"""The job of `ingesting.py` as a plain for loop, as a user would write it without a library."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from ragasync.documents import HashingEmbedder, RecursiveSplitter

DOCUMENTS_PER_COMMIT = 32

TABLES = """
    PRAGMA journal_mode = WAL;
    CREATE TABLE chunks (
        id INTEGER PRIMARY KEY, source TEXT, start INTEGER, stop INTEGER, text TEXT, vector BLOB
    );
    CREATE VIRTUAL TABLE words USING fts5(text, tokenize = 'porter');
"""


def ingest_by_hand(folder: Path, database: Path) -> int:
    """
    Read, split, embed and commit the files of a folder, some documents at a time.

    Returns:
        The number of chunks.
    """
    split, embed = RecursiveSplitter(), HashingEmbedder()
    files = sorted(folder.rglob("*.py"))
    connection = sqlite3.connect(database)
    connection.executescript(TABLES)
    for start in range(0, len(files), DOCUMENTS_PER_COMMIT):
        chunks = [
            (str(path), chunk)
            for path in files[start : start + DOCUMENTS_PER_COMMIT]
            for chunk in split(path.read_text(encoding="utf-8"))
        ]
        vectors = embed([chunk.text for _, chunk in chunks])
        with connection:
            for (source, chunk), vector in zip(chunks, vectors, strict=True):
                row = (source, chunk.start, chunk.end, chunk.text, vector.tobytes())
                added = connection.execute("INSERT INTO chunks VALUES (NULL, ?, ?, ?, ?, ?)", row)
                words = added.lastrowid, chunk.text
                connection.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", words)
    (count,) = connection.execute("SELECT count(*) FROM chunks").fetchone()
    connection.close()
    return int(count)
