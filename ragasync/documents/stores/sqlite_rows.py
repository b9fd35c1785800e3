"""The rows of a SqliteStore: SqliteRows, of documents; SpareTables, of vectors without one."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import blake2b
from itertools import chain, islice
from sqlite3 import Connection
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.models import Chunk, Document
from ragasync.documents.search import Condition, Hits
from ragasync.documents.search_text import indexed_text
from ragasync.documents.store import (
    IdScheme,
    RunRefused,
    StoredDocument,
    StoredEmbedder,
    StoredEntry,
    StoredId,
    StoreError,
    as_json,
    is_encodable,
)
from ragasync.documents.stores import ChunkRow, StoredRows
from ragasync.documents.stores.requests import (
    Relocation,
    Result,
    Search,
    StorableDocument,
    accept_documents,
)
from ragasync.documents.stores.sqlite_search import VectorMatrix, run_search
from ragasync.sqlite_file import with_rows

VECTORS_PER_ROW = 64
"""Most vectors in a row of the file: reading one of them reads all."""

_VALUES_PER_STATEMENT = 500
_TEXTS_PER_STATEMENT = 64
_ROWS_PER_STATEMENT = (64, 8, 1)

_BAD_VALUE = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)
"""Errors of SQLite about a value: it is too big, or of a type that SQLite does not have."""

_TEXT = 2
"""The position of the text among the columns of a chunk."""

_DOCUMENTS = "SELECT id, source, file, metadata, fingerprint, chunk_count FROM documents"
_IDS = "SELECT id, source, fingerprint, file FROM documents"
_PLACES = "SELECT id, source, number, first_chunk, chunk_count FROM documents WHERE id IN ($rows)"
_ENTRIES = "SELECT id, fingerprint, source, file, metadata FROM documents WHERE id IN ($rows)"
_DOCUMENT = _DOCUMENTS + " WHERE id = ?"
_DOCUMENTS_IN_ORDER = _DOCUMENTS + " ORDER BY number"

_HASHES = "SELECT text_hash FROM chunks WHERE text_hash IN ($rows)"

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


class SqliteRows(StoredRows):
    """The documents of a SqliteStore, in a transaction."""

    def __init__(self, db: Connection, matrix: VectorMatrix) -> None:
        self._db, self._matrix = db, matrix

    # Documents

    def entries(self, ids: Sequence[str]) -> dict[str, StoredEntry]:
        rows = list(self._rows_of(_ENTRIES, ids))
        # In one document: to start the parser takes longer than the few values of a file.
        metadata = json.loads(f"[{','.join([row[-1] for row in rows])}]")
        return {
            id_: StoredEntry(fingerprint, source, file, own)
            for (id_, fingerprint, source, file, _), own in zip(rows, metadata, strict=True)
        }

    def document(self, id_: str) -> StoredDocument | None:
        row = self._db.execute(_DOCUMENT, (id_,)).fetchone()
        if row is None:
            return None
        rows = self._db.execute(
            'SELECT text, "start", "end", chunks.metadata FROM documents JOIN chunks '
            "ON chunks.number BETWEEN first_chunk AND first_chunk + chunk_count - 1 "
            "WHERE id = ? ORDER BY chunks.number",
            (id_,),
        )
        chunks = (Chunk(text, start, end, json.loads(own)) for text, start, end, own in rows)
        return replace(_document(row), chunks=tuple(chunks))

    def documents(self) -> list[StoredDocument]:
        return [_document(row) for row in self._db.execute(_DOCUMENTS_IN_ORDER)]

    def ids(self) -> list[StoredId]:
        return [StoredId(*row) for row in self._db.execute(_IDS)]

    def ids_with(self, fingerprints: Sequence[str]) -> list[StoredId]:
        query = f"{_IDS} WHERE fingerprint = ?"
        return [StoredId(*row) for each in fingerprints for row in self._db.execute(query, (each,))]

    def chunk_rows(self) -> list[ChunkRow]:
        return self._db.execute(
            'SELECT documents.id, source, chunks.number - first_chunk, "start", "end", text, '
            "documents.metadata, chunks.metadata FROM chunks "
            "JOIN documents ON documents.number = document ORDER BY chunks.number"
        ).fetchall()

    def count(self) -> tuple[int, int]:
        query = "SELECT count(*), coalesce(sum(chunk_count), 0) FROM documents"
        documents, chunks = self._db.execute(query).fetchone()
        return documents, chunks

    def delete(self, ids: Sequence[str]) -> bool:
        places = self._places(ids)
        self._delete(places.values())
        return bool(places)

    def relocate(self, change: Relocation) -> None:
        self.delete(change.superseded)
        places = self._places(list(change.moves))
        moved = [
            (new.id, new.source, new.file, places[old].number) for old, new in change.moves.items()
        ]
        # Through ids that no document has, because a new id may be the old one of another document.
        self._db.executemany(
            "UPDATE documents SET id = char(0) || number WHERE number = ?",
            [(number,) for *_, number in moved],
        )
        self._db.executemany(
            "UPDATE documents SET id = ?, source = ?, file = ? WHERE number = ?", moved
        )

    def write_metadata(self, metadata: Mapping[str, Mapping[str, object]]) -> None:
        rows = [(as_json(each, id_), id_) for id_, each in metadata.items()]
        self._db.executemany("UPDATE documents SET metadata = ? WHERE id = ?", rows)

    def _rows_of(self, query: str, values: Sequence[object]) -> Iterator[tuple[Any, ...]]:
        """Rows of a query for some values; a text that UTF-8 cannot hold has none."""
        for start in range(0, len(values), _VALUES_PER_STATEMENT):
            some = [
                value
                for value in values[start : start + _VALUES_PER_STATEMENT]
                if not isinstance(value, str) or is_encodable(value)
            ]
            if some:
                statement = with_rows(query, len(some), 1)
                yield from self._db.execute(statement, some)

    def _places(self, ids: Sequence[str]) -> dict[str, Place]:
        return {row[0]: Place(*row) for row in self._rows_of(_PLACES, ids)}

    def _delete(self, places: Iterable[Place]) -> None:
        """Delete documents with their chunks, vectors and indexed words."""
        db = self._db
        # In ascending order: FTS5 flushes its memory when a number is lower than the one before.
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

    # What the store knows of all of them

    def id_scheme(self) -> IdScheme | None:
        query = "SELECT 1 FROM documents WHERE file IS NOT NULL LIMIT 1"
        return self._remembered_id_scheme() if self._db.execute(query).fetchone() else None

    def _remembered_id_scheme(self) -> IdScheme | None:
        """Form of the ids of files, also before any file is stored."""
        found = self._db.execute("SELECT relative, root, is_mixed FROM id_scheme").fetchone()
        return IdScheme(bool(found[0]), found[1], bool(found[2])) if found else None

    def write_id_scheme(self, scheme: IdScheme) -> None:
        self._db.execute("DELETE FROM id_scheme")
        values = scheme.relative, scheme.root, scheme.is_mixed
        self._db.execute("INSERT INTO id_scheme VALUES (?, ?, ?)", values)

    def embedder(self) -> StoredEmbedder | None:
        found = self._db.execute(
            "SELECT name, dimension, identity FROM embedder WHERE EXISTS (SELECT 1 FROM vectors)"
        ).fetchone()
        return StoredEmbedder(*found) if found else None

    def write_embedder(self, embedder: StoredEmbedder) -> None:
        self._db.execute("DELETE FROM embedder")
        values = embedder.name, embedder.dimension, embedder.identity
        self._db.execute("INSERT INTO embedder VALUES (?, ?, ?)", values)

    def vectors_of(self, embedder: str, texts: Sequence[str]) -> list[NDArray[np.float32] | None]:
        found: list[NDArray[np.float32] | None] = [None] * len(texts)
        stored = self.embedder()
        if stored is None or stored.name != embedder:
            return found
        hashes = {place: _text_hash(text) for place, text in enumerate(texts) if is_encodable(text)}
        # First the checksums alone: most texts of a first run are new, and SQLite copies a text.
        known = {number for (number,) in self._rows_of(_HASHES, list(hashes.values()))}
        asked = [place for place, number in hashes.items() if number in known]
        chunks: list[tuple[int, int]] = []
        for start in range(0, len(asked), _TEXTS_PER_STATEMENT):
            some = asked[start : start + _TEXTS_PER_STATEMENT]
            values = [value for n in some for value in (n, hashes[n], texts[n])]
            statement = with_rows(_CHUNKS_WITH_TEXTS, len(some), 3)
            chunks += self._db.execute(statement, values)
        first, rows = 0, np.zeros((0, stored.dimension), dtype=np.float32)
        for number, place in sorted(chunks):
            if not first <= number < first + len(rows):
                first, blob = self._db.execute(
                    "SELECT first_chunk, embeddings FROM vectors WHERE first_chunk <= ? "
                    "ORDER BY first_chunk DESC LIMIT 1",
                    (number,),
                ).fetchone()
                rows = np.frombuffer(blob, dtype="<f4").reshape(-1, stored.dimension)
            # A copy: a view would be read-only, and keep all vectors of the row in memory.
            found[place] = rows[number - first].astype(np.float32)
        return found

    def known_keys(self) -> set[str]:
        rows = self._db.execute("SELECT metadata FROM documents UNION SELECT metadata FROM chunks")
        return {str(key) for (metadata,) in rows for key in json.loads(metadata)}

    def unknown_keys(self, keys: Iterable[str]) -> list[str]:
        return [key for key in keys if not self._has_key(key)]

    def _has_key(self, key: str) -> bool:
        """Whether the metadata of a document or chunk has a key, and not only a value like it."""
        rows = self._db.execute(
            "SELECT metadata FROM documents WHERE instr(metadata, :key) "
            "UNION SELECT metadata FROM chunks WHERE instr(metadata, :key)",
            {"key": f"{json.dumps(key)}: "},
        )
        return any(key in json.loads(metadata) for (metadata,) in rows)

    def search(self, search: Search, condition: Condition | None) -> Hits:
        return run_search(self._db, self._matrix, search, condition)

    # New documents, and vectors for later ones

    @property
    def spare(self) -> SpareTables:
        """The spare vectors."""
        return SpareTables(self._db)

    def write(self, documents: Sequence[StorableDocument], given: StoredEmbedder) -> list[Result]:
        """Write documents with as few statements as possible; of several with one id, the last."""
        before = self.embedder()
        places = self._places([each.document.id for each in documents])
        sources = {id_: place.source for id_, place in places.items()}
        scheme = self._remembered_id_scheme()
        results, accepted, embedder = accept_documents(documents, sources, scheme, before, given)
        if embedder is not None and embedder != before:
            self.write_embedder(embedder)
        chosen = [documents[place] for place in accepted]
        self._delete(places[each.document.id] for each in chosen if each.document.id in places)
        self._insert_documents(chosen)
        self.spare.drop(row[_TEXT] for each in chosen for row in each.columns[1])
        return results

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo the changes of a block that raises, and keep those before it."""
        self._db.execute("SAVEPOINT document")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:  # SQLite itself rolls back when the disk is full
                self._db.execute("ROLLBACK TO document")
                self._db.execute("RELEASE document")
            raise
        self._db.execute("RELEASE document")

    def _insert_documents(self, documents: Sequence[StorableDocument]) -> None:
        db = self._db
        (last,) = db.execute("SELECT coalesce(max(number), 0) FROM documents").fetchone()
        (first,) = db.execute("SELECT number FROM next_chunk").fetchone()
        chunk = first
        rows: list[tuple[object, ...]] = []
        chunks: list[tuple[object, ...]] = []
        vectors: list[tuple[object, ...]] = []
        for number, each in enumerate(documents, start=last + 1):
            row, of_chunks = each.columns
            rows.append((number, *row, chunk, len(of_chunks)))
            for start in range(0, len(of_chunks), VECTORS_PER_ROW):
                block = each.vectors[start : start + VECTORS_PER_ROW]
                vectors.append((chunk + start, block.data))
            chunks += [(own, number, *values) for own, values in enumerate(of_chunks, start=chunk)]
            chunk += len(of_chunks)
        self._insert("INSERT INTO documents $rows", rows)
        self._insert("INSERT INTO chunks $rows", chunks)
        self._insert("INSERT INTO vectors $rows", vectors)
        db.execute("UPDATE next_chunk SET number = ?", (chunk,))
        db.execute(
            "INSERT INTO words (rowid, text) SELECT number, text FROM searched WHERE number >= ?",
            (first,),
        )

    def _insert(self, insertion: str, rows: Sequence[tuple[object, ...]]) -> None:
        """
        Insert rows, many with one statement.

        sqlite3 releases the interpreter's lock for each statement, and executemany for each row; a
        thread that computes would keep it for milliseconds each time.
        """
        start = 0
        for size in _ROWS_PER_STATEMENT:
            while len(rows) - start >= size:
                values = list(chain.from_iterable(rows[start : start + size]))
                statement = with_rows(insertion, size, len(values) // size)
                self._db.execute(statement, values)
                start += size


def _document(row: tuple[str, str | None, str | None, str, str, int]) -> StoredDocument:
    id_, source, file, metadata, fingerprint, chunk_count = row
    return StoredDocument(id_, source, json.loads(metadata), fingerprint, chunk_count, file=file)


def columns_of(
    document: Document, chunks: Sequence[Chunk], fingerprint: str
) -> tuple[tuple[object, ...], list[tuple[object, ...]]]:
    """
    Columns of a document and of its chunks.

    They are the id, source, file, fingerprint and metadata of the document, and the start, end,
    text, metadata, hash and indexed text of each chunk.
    """
    metadata = as_json(document.metadata, document.id)
    return (document.id, document.source, document.file, fingerprint, metadata), [
        (
            chunk.start,
            chunk.end,
            chunk.text,
            as_json(chunk.metadata, document.id),
            _text_hash(chunk.text),
            indexed_text(chunk.text),
        )
        for chunk in chunks
    ]


def _text_hash(text: str) -> int:
    """
    Checksum of a text, for an index; lookups compare the texts too.

    Raises:
        UnicodeEncodeError: The text has a lone surrogate.
    """
    return crc32(text.encode())


def is_of_one_document(error: Exception) -> bool:
    """Whether an error of writing is about a value of a document, and not about the file."""
    cause = error.__cause__ if isinstance(error, StoreError) else error
    if isinstance(error, RunRefused) or isinstance(cause, _BAD_VALUE):
        return True
    return cause is not None and not isinstance(cause, sqlite3.Error | OSError | MemoryError)


# ── vectors of texts whose documents are not stored yet ─────────────────────────────────────────

SPARE_BYTES = 256_000_000
"""The maximum size of all spare vectors of a store; the oldest make room for new ones."""

# The text itself is not needed, and its document may be confidential. Numbers ascend with time.
_SPARE_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS spare_embedder (
        name TEXT NOT NULL, dimension INTEGER NOT NULL, identity TEXT NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS spare_vectors (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        text_digest BLOB NOT NULL UNIQUE,
        embedding BLOB NOT NULL
    )""",
)

_SPARE_FOUND = "SELECT text_digest, embedding FROM spare_vectors WHERE text_digest IN ($rows)"
_SPARE_DROPPED = "DELETE FROM spare_vectors WHERE text_digest IN ($rows)"


class SpareTables:
    """
    The spare vectors of a store, all of one embedder; to change them, use a write transaction.

    No search and no count looks at them. The tables are made when the first vectors come, so that
    a file without them has the same format as before there were any.
    """

    def __init__(self, db: Connection) -> None:
        self._db = db

    def embedder(self) -> StoredEmbedder | None:
        """Embedder of the spare vectors; None while there are none."""
        if not self._has_any():
            return None
        query = "SELECT name, dimension, identity FROM spare_embedder"
        return StoredEmbedder(*self._db.execute(query).fetchone())

    def vectors_of(
        self, embedder: StoredEmbedder, texts: Sequence[str]
    ) -> list[NDArray[np.float32] | None]:
        """Spare vectors that this very embedder made of texts; None for each unknown text."""
        if self.embedder() != embedder:
            return [None] * len(texts)
        keys = list(map(_digest, texts))
        found: dict[bytes, bytes] = {}
        for some in _parts(dict.fromkeys(keys)):
            statement = with_rows(_SPARE_FOUND, len(some), 1)
            found.update(self._db.execute(statement, some).fetchall())
        # Copies: a view of bytes would be read-only.
        return [np.frombuffer(found[key], "<f4").copy() if key in found else None for key in keys]

    def add(self, embedder: StoredEmbedder, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Add vectors by their texts; those of another embedder make room for them."""
        db = self._db
        for statement in _SPARE_SCHEMA:
            db.execute(statement)
        if self.embedder() != embedder:
            self.clear()
            values = embedder.name, embedder.dimension, embedder.identity
            db.execute("INSERT INTO spare_embedder VALUES (?, ?, ?)", values)
        most = max(1, SPARE_BYTES // (4 * embedder.dimension))
        newest = islice(vectors.items(), max(0, len(vectors) - most), None)
        db.executemany(
            "INSERT OR REPLACE INTO spare_vectors (text_digest, embedding) VALUES (?, ?)",
            ((_digest(text), np.asarray(vector, "<f4").tobytes()) for text, vector in newest),
        )
        (count,) = db.execute("SELECT count(*) FROM spare_vectors").fetchone()
        db.execute(
            "DELETE FROM spare_vectors WHERE number IN "
            "(SELECT number FROM spare_vectors ORDER BY number LIMIT ?)",
            (max(0, count - most),),
        )

    def drop(self, texts: Iterable[str]) -> None:
        """Drop the vectors of texts that are stored now."""
        if self._has_any():
            for some in _parts(map(_digest, texts)):
                statement = with_rows(_SPARE_DROPPED, len(some), 1)
                self._db.execute(statement, some)

    def clear(self) -> None:
        """Drop all spare vectors."""
        if self._exist():
            self._db.execute("DELETE FROM spare_vectors")
            self._db.execute("DELETE FROM spare_embedder")

    def rename_embedder(self, before: StoredEmbedder, name: str, identity: str) -> None:
        """Change the name and identity of the embedder, if the spare vectors are of this one."""
        if self.embedder() == before:
            values = name, identity
            self._db.execute("UPDATE spare_embedder SET name = ?, identity = ?", values)

    def _exist(self) -> bool:
        query = "SELECT 1 FROM sqlite_master WHERE name = 'spare_vectors'"
        return self._db.execute(query).fetchone() is not None

    def _has_any(self) -> bool:
        return (
            self._exist()
            and self._db.execute("SELECT 1 FROM spare_vectors LIMIT 1").fetchone() is not None
        )


def _digest(text: str) -> bytes:
    """Digest of a text, also of one with a lone surrogate, which no store would accept."""
    return blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()


def _parts(keys: Iterable[bytes]) -> Iterable[list[bytes]]:
    """Divide keys into lists that fit into a statement."""
    rest = iter(keys)
    while some := list(islice(rest, _VALUES_PER_STATEMENT)):
        yield some
