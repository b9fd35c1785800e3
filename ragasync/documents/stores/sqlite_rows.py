"""What a SqliteStore writes and tells, in SQL."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from sqlite3 import Connection

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.models import Chunk, Document
from ragasync.documents.search_text import indexed_text
from ragasync.documents.store import (
    IdScheme,
    StoredDocument,
    StoredEmbedder,
    StoredEntry,
    StoredId,
    as_json,
    check_embedder,
    check_id_scheme,
    check_source,
    chunk_id,
)
from ragasync.documents.stores.relocation import Relocation
from ragasync.documents.stores.sqlite_file import text_hash

_ALL_DOCUMENTS = (
    "SELECT id, source, file, metadata, fingerprint, "
    "(SELECT count(*) FROM chunks WHERE document = documents.number) FROM documents"
)
_IDS = "SELECT id, source, fingerprint, file FROM documents"
_ONE_DOCUMENT = _ALL_DOCUMENTS + " WHERE id = ?"


def write_document(
    db: Connection,
    document: Document,
    chunks: Sequence[Chunk],
    vectors: NDArray[np.float32],
    fingerprint: str,
) -> None:
    """
    Write a document with its chunks and their vectors over what is there under its id.

    Raises:
        IdConflictError: that is of another source.
        RunRefused: the ids of files are of the other kind.
    """
    check_id_scheme(document, _remembered_id_scheme(db))
    id_, source = document.id, document.source
    for (stored,) in db.execute("SELECT source FROM documents WHERE id = ?", (id_,)).fetchall():
        check_source(document, stored)
        delete_document(db, id_)
    number = db.execute(
        "INSERT INTO documents (id, source, file, fingerprint, metadata) VALUES (?, ?, ?, ?, ?)",
        (id_, source, document.file, fingerprint, as_json(document.metadata, id_)),
    ).lastrowid
    (last,) = db.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = 'chunks'").fetchone()
    first = (last or 0) + 1
    numbered = list(enumerate(chunks, start=first))
    db.executemany(
        "INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                row,
                chunk_id(document.id, ordinal, chunk.text),
                number,
                ordinal,
                chunk.start,
                chunk.end,
                chunk.text,
                as_json(chunk.metadata, document.id),
                text_hash(chunk.text),
                indexed_text(chunk.text),
            )
            for ordinal, (row, chunk) in enumerate(numbered)
        ],
    )
    db.executemany(
        "INSERT INTO vectors VALUES (?, ?)",
        [(row, vector.tobytes()) for (row, _), vector in zip(numbered, vectors, strict=True)],
    )
    db.execute(
        "INSERT INTO words (rowid, text) SELECT number, text FROM searched WHERE number >= ?",
        (first,),
    )


def delete_document(db: Connection, document_id: str) -> bool:
    """Delete a document and, by cascade and trigger, its chunks, vectors and words."""
    return db.execute("DELETE FROM documents WHERE id = ?", (document_id,)).rowcount > 0


def fingerprint_of(db: Connection, document_id: str) -> str | None:
    """Return the fingerprint that a document was stored with, if it is there."""
    statement = "SELECT fingerprint FROM documents WHERE id = ?"
    found: tuple[str] | None = db.execute(statement, (document_id,)).fetchone()
    return found[0] if found else None


def stored_entry(db: Connection, document_id: str) -> StoredEntry | None:
    """Return what a document was stored with, or None where it is not stored."""
    statement = "SELECT fingerprint, source, file, metadata FROM documents WHERE id = ?"
    row = db.execute(statement, (document_id,)).fetchone()
    if row is None:
        return None
    fingerprint, source, file, metadata = row
    return StoredEntry(fingerprint, source, file, json.loads(metadata))


def stored_document(db: Connection, document_id: str) -> StoredDocument | None:
    """Return what is stored of a document, with its chunks; None where it is not stored."""
    row = db.execute(_ONE_DOCUMENT, (document_id,)).fetchone()
    if row is None:
        return None
    rows = db.execute(
        'SELECT text, "start", "end", metadata FROM chunks WHERE document = '
        "(SELECT number FROM documents WHERE id = ?) ORDER BY ordinal",
        (document_id,),
    )
    pieces = (Chunk(text, start, end, json.loads(own)) for text, start, end, own in rows)
    return replace(_document(row), chunks=tuple(pieces))


def stored_documents(db: Connection) -> list[StoredDocument]:
    """Return all documents in the order in which they were stored, without their chunks."""
    return [_document(row) for row in db.execute(_ALL_DOCUMENTS)]


def _document(row: tuple[str, str | None, str | None, str, str, int]) -> StoredDocument:
    """Return what is stored of a document, without its chunks."""
    id_, source, file, metadata, fingerprint, chunk_count = row
    return StoredDocument(id_, source, json.loads(metadata), fingerprint, chunk_count, file=file)


def with_fingerprints(db: Connection, fingerprints: Sequence[str]) -> list[StoredId]:
    """Return the documents that were stored with any of these fingerprints."""
    statement = f"{_IDS} WHERE fingerprint = ?"
    return [StoredId(*row) for one in fingerprints for row in db.execute(statement, (one,))]


def write_metadata(db: Connection, metadata: Mapping[str, Mapping[str, object]]) -> None:
    """Replace the metadata of documents, by their ids."""
    rows = [(as_json(each, id_), id_) for id_, each in metadata.items()]
    db.executemany("UPDATE documents SET metadata = ? WHERE id = ?", rows)


def stored_ids(db: Connection) -> list[StoredId]:
    """Return the id, source, fingerprint and file of every document."""
    return [StoredId(*row) for row in db.execute(_IDS)]


def id_scheme(db: Connection) -> IdScheme | None:
    """Return what the ids of files are, or None while no document of a file is stored."""
    has_files = db.execute("SELECT 1 FROM documents WHERE file IS NOT NULL LIMIT 1").fetchone()
    return _remembered_id_scheme(db) if has_files else None


def _remembered_id_scheme(db: Connection) -> IdScheme | None:
    """Return what the ids of files are, or will be."""
    found = db.execute("SELECT relative, root, is_mixed FROM id_scheme").fetchone()
    return IdScheme(bool(found[0]), found[1], bool(found[2])) if found else None


def write_id_scheme(db: Connection, scheme: IdScheme) -> None:
    """Write what the ids of files are over what was known of them."""
    db.execute("DELETE FROM id_scheme")
    values = scheme.relative, scheme.root, scheme.is_mixed
    db.execute("INSERT INTO id_scheme VALUES (?, ?, ?)", values)


def relocate(db: Connection, change: Relocation) -> None:
    """Give documents their new ids and sources, and delete those that are there already."""
    db.executemany("DELETE FROM documents WHERE id = ?", [(id_,) for id_ in change.superseded])
    numbers = dict(db.execute("SELECT id, number FROM documents"))
    moved = [(*new, numbers[old]) for old, new in change.moves.items()]
    only_numbers = [(number,) for *_, number in moved]
    # Through ids that nobody has, because one's new id may be another's old one.
    db.executemany("UPDATE documents SET id = char(0) || number WHERE number = ?", only_numbers)
    db.executemany("UPDATE chunks SET id = char(0) || number WHERE document = ?", only_numbers)
    db.executemany("UPDATE documents SET id = ?, source = ?, file = ? WHERE number = ?", moved)
    # A chunk's id has its document's in it.
    db.create_function("chunk_id", 3, chunk_id, deterministic=True)
    db.executemany(
        "UPDATE chunks SET id = chunk_id(?, ordinal, text) WHERE document = ?",
        [(new, number) for new, *_, number in moved],
    )
    if change.scheme is not None:
        write_id_scheme(db, change.scheme)


def document_count(db: Connection) -> int:
    """Return the number of documents."""
    return int(db.execute("SELECT count(*) FROM documents").fetchone()[0])


def chunk_count(db: Connection) -> int:
    """Return the number of chunks."""
    return int(db.execute("SELECT count(*) FROM chunks").fetchone()[0])


def stored_embedder(db: Connection) -> StoredEmbedder | None:
    """Return whose vectors are stored; None while there are none."""
    found = db.execute(
        "SELECT name, dimension, identity FROM embedder WHERE EXISTS (SELECT 1 FROM vectors)"
    ).fetchone()
    return StoredEmbedder(*found) if found else None


def remember_embedder(db: Connection, given: StoredEmbedder) -> None:
    """Note whose vectors these are at the first, and refuse another's from then on."""
    stored = stored_embedder(db)
    check_embedder(stored, given)
    if stored is None:
        write_embedder(db, given)


def write_embedder(db: Connection, given: StoredEmbedder) -> None:
    """Write whose vectors are stored over what is there."""
    db.execute("DELETE FROM embedder")
    values = given.name, given.dimension, given.identity
    db.execute("INSERT INTO embedder VALUES (?, ?, ?)", values)


def vectors_of(
    db: Connection, embedder: str, texts: Iterable[str]
) -> list[NDArray[np.float32] | None]:
    """Return the vectors that an embedder made of texts, None for each that is not stored."""
    stored = stored_embedder(db)
    if stored is None or stored.name != embedder:
        return [None for _ in texts]
    return [_vector_of(db, text_hash(text)) for text in texts]


def files(db: Connection) -> list[tuple[str, str]]:
    """Return the id and the file of every document that was loaded from one."""
    return db.execute("SELECT id, file FROM documents WHERE file IS NOT NULL").fetchall()


def chunk_rows(db: Connection) -> list[tuple[str, str | None, int, int, int, str, str, str]]:
    """Return a row a chunk: its document's id and source, its place, text and both metadata."""
    return db.execute(
        'SELECT documents.id, source, ordinal, "start", "end", text, documents.metadata, '
        "chunks.metadata FROM chunks JOIN documents ON documents.number = document "
        "ORDER BY chunks.number"
    ).fetchall()


def _vector_of(db: Connection, hashed: bytes) -> NDArray[np.float32] | None:
    """Return the vector of any one chunk whose text has this hash."""
    found: tuple[bytes] | None = db.execute(
        "SELECT embedding FROM chunks JOIN vectors ON chunk = number WHERE text_hash = ? LIMIT 1",
        (hashed,),
    ).fetchone()
    # A copy, because nobody can write to what lies over bytes.
    return np.frombuffer(found[0], dtype="<f4").astype(np.float32) if found else None
