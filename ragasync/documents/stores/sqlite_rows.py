"""Documents and chunks of a SqliteStore, read, deleted and changed in SQL."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    as_json,
    is_encodable,
)
from ragasync.documents.stores.relocation import Relocation

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
