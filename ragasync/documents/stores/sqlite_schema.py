"""The file of a SqliteStore: tables, connections, and documents read and changed in SQL."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from functools import lru_cache
from sqlite3 import Connection
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.models import Chunk
from ragasync.documents.store import (
    IdScheme,
    StoredDocument,
    StoredEmbedder,
    StoredEntry,
    StoredId,
    StoreError,
    StoreNotWritable,
    as_json,
    is_encodable,
)
from ragasync.documents.stores.relocation import Relocation
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
        self._connection = self._open()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Transaction that sees one state of the file."""
        with self.converting_errors(), self._read_lock:
            reader = self._reader = self._reader or self._open_reader()
            if reader is not None:
                with transaction(reader, "BEGIN"):
                    yield reader
                return
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Transaction that is committed completely or not at all."""
        try:
            with self._transaction("BEGIN IMMEDIATE") as connection:
                yield connection
        except StoreError as error:
            if not is_read_only(error.__cause__):
                raise
            raise StoreNotWritable(*error.args) from error.__cause__

    def converting_errors(self) -> AbstractContextManager[None]:
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
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        """Transaction on the writing connection, of one thread at a time."""
        with self._lock, self.converting_errors():
            self._reopen_if_changed()
            with transaction(self._connection, begin):
                yield self._connection
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
        """Error about a file that is no longer at its path."""
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


VECTORS_PER_ROW = 64
"""Most vectors in a row of the file: reading one of them reads all."""

_IDS_PER_STATEMENT = 500
_TEXTS_PER_STATEMENT = 64

_DOCUMENTS = "SELECT id, source, file, metadata, fingerprint, chunk_count FROM documents"
_DOCUMENT = _DOCUMENTS + " WHERE id = ?"
_DOCUMENTS_IN_ORDER = _DOCUMENTS + " ORDER BY number"
_IDS = "SELECT id, source, fingerprint, file FROM documents"
_IDS_WITH_FINGERPRINT = _IDS + " WHERE fingerprint = ?"
_PLACES = "SELECT id, source, number, first_chunk, chunk_count FROM documents WHERE id IN ($rows)"
_ENTRIES = "SELECT id, fingerprint, source, file, metadata FROM documents WHERE id IN ($rows)"

# The number of any one chunk of each text, given with its place and its hash.
_CHUNKS_WITH_TEXTS = """
WITH asked (place, hash, text) AS ($rows) SELECT found, place FROM (
    SELECT place, (
        SELECT number FROM chunks WHERE text_hash = asked.hash AND chunks.text = asked.text LIMIT 1
    ) AS found FROM asked
) WHERE found IS NOT NULL
"""


class Place(NamedTuple):
    """The rows of a stored document, and its source."""

    id: str
    source: str | None
    number: int
    first_chunk: int
    chunk_count: int


def text_hash(text: str) -> int:
    """
    Checksum of a text, for an index; lookups compare the texts too.

    Raises:
        UnicodeEncodeError: The text has a lone surrogate.
    """
    return crc32(text.encode())


def stored_places(db: Connection, ids: Sequence[str]) -> dict[str, Place]:
    """Rows of those documents that are stored, by their ids."""
    found = _rows_in(db, _PLACES, ids)
    return {row[0]: Place(*row) for row in found}


def delete_documents(db: Connection, places: Iterable[Place]) -> None:
    """Delete documents with their chunks, vectors and indexed words."""
    # In ascending order: FTS5 flushes its memory when a row's number is lower than the last one.
    for place in sorted(places, key=lambda place: place.first_chunk):
        chunks = place.first_chunk, place.first_chunk + place.chunk_count - 1
        if place.chunk_count:
            db.execute(
                "INSERT INTO words (words, rowid, text) "
                "SELECT 'delete', number, text FROM searched WHERE number BETWEEN ? AND ?",
                chunks,
            )
            db.execute("DELETE FROM chunks WHERE number BETWEEN ? AND ?", chunks)
            db.execute("DELETE FROM vectors WHERE first_chunk BETWEEN ? AND ?", chunks)
        db.execute("DELETE FROM documents WHERE number = ?", (place.number,))


def delete_document(db: Connection, document_id: str) -> bool:
    """Delete a document; False if it is not stored."""
    places = stored_places(db, [document_id])
    delete_documents(db, places.values())
    return bool(places)


def fingerprint_of(db: Connection, document_id: str) -> str | None:
    """Fingerprint that a document was stored with, or None if it is not stored."""
    statement = "SELECT fingerprint FROM documents WHERE id = ?"
    found: tuple[str] | None = db.execute(statement, (document_id,)).fetchone()
    return found[0] if found else None


def stored_entries(db: Connection, ids: Sequence[str]) -> dict[str, StoredEntry]:
    """Entries of those documents that are stored, by their ids."""
    found = _rows_in(db, _ENTRIES, ids)
    return {
        id_: StoredEntry(fingerprint, source, file, json.loads(metadata))
        for id_, fingerprint, source, file, metadata in found
    }


def _rows_in(db: Connection, query: str, ids: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Rows of a query of documents for some ids; an id that UTF-8 cannot hold has none."""
    for start in range(0, len(ids), _IDS_PER_STATEMENT):
        some = [id_ for id_ in ids[start : start + _IDS_PER_STATEMENT] if is_encodable(id_)]
        if some:
            statement = with_rows(query, len(some), 1)
            yield from db.execute(statement, some)


@lru_cache
def with_rows(statement: str, rows: int, columns: int) -> str:
    """Statement with placeholders for a number of rows of values in place of `$rows`."""
    row = f"({', '.join('?' * columns)})"
    return statement.replace("$rows", f"VALUES {', '.join([row] * rows)}")


def stored_document(db: Connection, document_id: str) -> StoredDocument | None:
    """A stored document with its chunks; None if it is not stored."""
    row = db.execute(_DOCUMENT, (document_id,)).fetchone()
    if row is None:
        return None
    rows = db.execute(
        'SELECT text, "start", "end", chunks.metadata FROM documents JOIN chunks '
        "ON chunks.number BETWEEN first_chunk AND first_chunk + chunk_count - 1 "
        "WHERE id = ? ORDER BY chunks.number",
        (document_id,),
    )
    pieces = (Chunk(text, start, end, json.loads(own)) for text, start, end, own in rows)
    return replace(_document(row), chunks=tuple(pieces))


def stored_documents(db: Connection) -> list[StoredDocument]:
    """All documents in the order in which they were stored, without their chunks."""
    return [_document(row) for row in db.execute(_DOCUMENTS_IN_ORDER)]


def _document(row: tuple[str, str | None, str | None, str, str, int]) -> StoredDocument:
    """A stored document without its chunks, from its row."""
    id_, source, file, metadata, fingerprint, chunk_count = row
    return StoredDocument(id_, source, json.loads(metadata), fingerprint, chunk_count, file=file)


def with_fingerprints(db: Connection, fingerprints: Sequence[str]) -> list[StoredId]:
    """Documents that were stored with any of these fingerprints."""
    found = (db.execute(_IDS_WITH_FINGERPRINT, (each,)) for each in fingerprints)
    return [StoredId(*row) for rows in found for row in rows]


def write_metadata(db: Connection, metadata: Mapping[str, Mapping[str, object]]) -> None:
    """Replace the metadata of documents, by their ids."""
    rows = [(as_json(each, id_), id_) for id_, each in metadata.items()]
    db.executemany("UPDATE documents SET metadata = ? WHERE id = ?", rows)


def stored_ids(db: Connection) -> list[StoredId]:
    """Id, source, fingerprint and file of every document."""
    return [StoredId(*row) for row in db.execute(_IDS)]


def id_scheme(db: Connection) -> IdScheme | None:
    """Form of the ids of files, or None while no document of a file is stored."""
    has_files = db.execute("SELECT 1 FROM documents WHERE file IS NOT NULL LIMIT 1").fetchone()
    return remembered_id_scheme(db) if has_files else None


def remembered_id_scheme(db: Connection) -> IdScheme | None:
    """Form of the ids of files, also before any file is stored."""
    found = db.execute("SELECT relative, root, is_mixed FROM id_scheme").fetchone()
    return IdScheme(bool(found[0]), found[1], bool(found[2])) if found else None


def write_id_scheme(db: Connection, scheme: IdScheme) -> None:
    """Replace the form of the ids of files."""
    db.execute("DELETE FROM id_scheme")
    values = scheme.relative, scheme.root, scheme.is_mixed
    db.execute("INSERT INTO id_scheme VALUES (?, ?, ?)", values)


def relocate(db: Connection, change: Relocation) -> None:
    """Change the ids and sources of documents, and delete those that are stored already."""
    delete_documents(db, stored_places(db, change.superseded).values())
    places = stored_places(db, list(change.moves))
    moved = [(*new, places[old].number) for old, new in change.moves.items()]
    # Through ids that no document has, because a new id may be the old one of another document.
    db.executemany(
        "UPDATE documents SET id = char(0) || number WHERE number = ?",
        [(number,) for *_, number in moved],
    )
    db.executemany("UPDATE documents SET id = ?, source = ?, file = ? WHERE number = ?", moved)
    if change.scheme is not None:
        write_id_scheme(db, change.scheme)


def document_count(db: Connection) -> int:
    """Number of documents."""
    return int(db.execute("SELECT count(*) FROM documents").fetchone()[0])


def chunk_count(db: Connection) -> int:
    """Number of chunks."""
    return int(db.execute("SELECT coalesce(sum(chunk_count), 0) FROM documents").fetchone()[0])


def stored_embedder(db: Connection) -> StoredEmbedder | None:
    """Embedder of the stored vectors; None while there are none."""
    found = db.execute(
        "SELECT name, dimension, identity FROM embedder WHERE EXISTS (SELECT 1 FROM vectors)"
    ).fetchone()
    return StoredEmbedder(*found) if found else None


def write_embedder(db: Connection, given: StoredEmbedder) -> None:
    """Replace the embedder of the stored vectors."""
    db.execute("DELETE FROM embedder")
    values = given.name, given.dimension, given.identity
    db.execute("INSERT INTO embedder VALUES (?, ?, ?)", values)


def vectors_of(
    db: Connection, embedder: str, texts: Sequence[str]
) -> list[NDArray[np.float32] | None]:
    """Vectors that an embedder made of texts, None for each text that is not stored."""
    found: list[NDArray[np.float32] | None] = [None] * len(texts)
    stored = stored_embedder(db)
    if stored is None or stored.name != embedder:
        return found
    asked = [place for place, text in enumerate(texts) if is_encodable(text)]
    chunks: list[tuple[int, int]] = []
    for start in range(0, len(asked), _TEXTS_PER_STATEMENT):
        some = asked[start : start + _TEXTS_PER_STATEMENT]
        values = [value for n in some for value in (n, text_hash(texts[n]), texts[n])]
        statement = with_rows(_CHUNKS_WITH_TEXTS, len(some), 3)
        chunks += db.execute(statement, values)
    first, rows = 0, np.zeros((0, stored.dimension), dtype=np.float32)
    for number, place in sorted(chunks):
        if not first <= number < first + len(rows):
            first, blob = db.execute(
                "SELECT first_chunk, embeddings FROM vectors WHERE first_chunk <= ? "
                "ORDER BY first_chunk DESC LIMIT 1",
                (number,),
            ).fetchone()
            rows = np.frombuffer(blob, dtype="<f4").reshape(-1, stored.dimension)
        # A copy: a view would be read-only, and keep all vectors of the row in memory.
        found[place] = rows[number - first].astype(np.float32)
    return found


def files(db: Connection) -> list[tuple[str, str]]:
    """Id and file of every document that was loaded from a file."""
    return db.execute("SELECT id, file FROM documents WHERE file IS NOT NULL").fetchall()


def chunk_rows(db: Connection) -> list[tuple[str, str | None, int, int, int, str, str, str]]:
    """One row per chunk: its document's id and source, its place, its text and both metadata."""
    return db.execute(
        'SELECT documents.id, source, chunks.number - first_chunk, "start", "end", text, '
        "documents.metadata, chunks.metadata FROM chunks "
        "JOIN documents ON documents.number = document ORDER BY chunks.number"
    ).fetchall()
