"""What a SqliteStore reads and writes, in SQL."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from sqlite3 import Connection

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.document import Chunk, Document
from ragasync.documents.search import any_word_of
from ragasync.documents.store import Hit, WrongEmbedder, chunk_id


def write_document(
    db: Connection,
    document: Document,
    chunks: Sequence[Chunk],
    vectors: NDArray[np.float32],
    fingerprint: str,
) -> None:
    """Write a document with its chunks and their vectors over what is there under its id."""
    delete_document(db, document.id)
    number = db.execute(
        "INSERT INTO documents (id, source, fingerprint, metadata) VALUES (?, ?, ?, ?)",
        (document.id, document.source, fingerprint, _as_json(document.metadata, document.id)),
    ).lastrowid
    (last,) = db.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = 'chunks'").fetchone()
    first = (last or 0) + 1
    numbered = list(enumerate(chunks, start=first))
    db.executemany(
        "INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                row,
                chunk_id(document.id, ordinal, chunk.text),
                number,
                ordinal,
                chunk.start,
                chunk.end,
                chunk.text,
                _as_json(chunk.metadata, document.id),
            )
            for ordinal, (row, chunk) in enumerate(numbered)
        ],
    )
    db.executemany(
        "INSERT INTO vectors VALUES (?, ?)",
        [(row, vector.tobytes()) for (row, _), vector in zip(numbered, vectors, strict=True)],
    )
    db.execute(
        "INSERT INTO words (rowid, text) SELECT number, text FROM chunks WHERE number >= ?",
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


def document_count(db: Connection) -> int:
    """Return the number of documents."""
    return int(db.execute("SELECT count(*) FROM documents").fetchone()[0])


def chunk_count(db: Connection) -> int:
    """Return the number of chunks."""
    return int(db.execute("SELECT count(*) FROM chunks").fetchone()[0])


def remembered_embedder(db: Connection) -> tuple[str, int] | None:
    """Return the name and dimension of the embedder whose vectors are stored, if any are."""
    found: tuple[str, int] | None = db.execute("SELECT name, dimension FROM embedder").fetchone()
    return found


def remember_embedder(db: Connection, name: str, dimension: int) -> None:
    """Note whose vectors these are at the first, and refuse another's from then on."""
    remembered = remembered_embedder(db)
    if remembered is None:
        db.execute("INSERT INTO embedder VALUES (?, ?)", (name, dimension))
    elif remembered != (name, dimension):
        raise WrongEmbedder(
            f"the store holds vectors of {remembered[0]!r} with {remembered[1]} dimensions, and "
            f"these are of {name!r} with {dimension}: use the former, or store in another file"
        )


def ranked_by_words(db: Connection, text: str, k: int) -> list[tuple[int, float]]:
    """Return the numbers of the `k` best chunks by BM25, and their scores, the best first."""
    words = any_word_of(text)
    if words is None:
        return []
    # FTS5's rank is BM25 times -1, so that the best comes first in ascending order.
    return db.execute(
        "SELECT rowid, -rank FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?", (words, k)
    ).fetchall()


def hits(db: Connection, ranking: Sequence[tuple[int, float]]) -> list[Hit]:
    """Return the chunks of these numbers with their scores."""
    return [_hit(db, number, score) for number, score in ranking]


def chunk_rows(db: Connection) -> list[tuple[str, str | None, int, int, int, str]]:
    """Return document id, source, ordinal, start, end and text of every chunk."""
    return db.execute(
        'SELECT documents.id, source, ordinal, "start", "end", text FROM chunks '
        "JOIN documents ON documents.number = document ORDER BY chunks.number"
    ).fetchall()


def _hit(db: Connection, number: int, score: float) -> Hit:
    """Return one chunk as a hit."""
    document_id, source, text, start, end, of_document, of_chunk = db.execute(
        'SELECT documents.id, source, text, "start", "end", documents.metadata, chunks.metadata '
        "FROM chunks JOIN documents ON documents.number = document WHERE chunks.number = ?",
        (number,),
    ).fetchone()
    metadata = json.loads(of_document) | json.loads(of_chunk)
    return Hit(document_id, source, text, start, end, score, metadata)


def _as_json(metadata: Mapping[str, object], document_id: str) -> str:
    """Return metadata as it is stored."""
    try:
        return json.dumps(dict(metadata))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"the metadata of document {document_id!r} must be plain data that JSON can hold: "
            f"{error}"
        ) from error
