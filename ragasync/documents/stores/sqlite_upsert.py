"""Documents written to a SqliteStore, several in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from sqlite3 import Connection

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.models import Document
from ragasync.documents.search_text import indexed_text
from ragasync.documents.store import (
    RunRefused,
    StoredEmbedder,
    StoreError,
    StoreRequest,
    as_json,
    check_embedder,
    check_id_scheme,
    check_source,
    checked_vectors,
)
from ragasync.documents.stores.query import Result
from ragasync.documents.stores.sqlite_schema import (
    VECTORS_PER_ROW,
    StoreFile,
    delete_documents,
    remembered_id_scheme,
    stored_embedder,
    stored_places,
    text_hash,
    with_rows,
    write_embedder,
)
from ragasync.sqlite_file import explain_surrogate

_ROWS_PER_STATEMENT = (64, 8, 1)

_BAD_VALUE = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)
"""Errors of SQLite about a value: it is too big, or of a type that SQLite does not have."""


def upsert(
    file: StoreFile, requests: Sequence[StoreRequest], given: StoredEmbedder
) -> list[Result]:
    """
    Write documents in one transaction; each that cannot be stored fails alone.

    Args:
        file: The file of the store.
        requests: The documents; of several with one id, the last is stored.
        given: The embedder of their vectors; its dimension is not used.

    Returns:
        One entry per document: None if it is stored, else its error.

    Raises:
        EmbedderMismatch: If the store holds vectors of another embedder, or no document has
            vectors of the stored dimension.
        StoreError: If the file cannot be written.
    """
    results: list[Result] = [None] * len(requests)
    prepared: dict[int, StorableDocument] = {}
    for place, request in enumerate(requests):
        try:
            prepared[place] = prepare(request)
        except Exception as error:  # of this document
            results[place] = error
    if not prepared:
        return results
    documents = list(prepared.values())
    try:
        with file.writing() as db:
            written = _write_together(db, documents, given)
    except Exception as error:
        if not is_of_one_document(error):
            raise
        # Which document has the bad value is only known when each is written by itself.
        with file.writing() as db:
            written = _write_separately(file, db, documents, given)
    for place, result in zip(prepared, written, strict=True):
        results[place] = result
    return results


@dataclass(frozen=True, slots=True)
class StorableDocument:
    """
    A document with the values of its columns, complete before the file is locked for it.

    Args:
        document: The document.
        row: Its id, source, file, fingerprint and metadata.
        chunks: The start, end, text, metadata, hash and indexed text of each chunk.
        vectors: The vectors of the chunks, as finite float32 rows.
    """

    document: Document
    row: tuple[object, ...]
    chunks: Sequence[tuple[object, ...]]
    vectors: NDArray[np.float32]


def prepare(request: StoreRequest) -> StorableDocument:
    """
    Convert a document, its chunks and vectors to the values of their columns.

    Raises:
        ValueError: The vectors are not one finite row per chunk, or a text has a lone surrogate.
        TypeError: The metadata is not plain data.
    """
    document, chunks, embeddings, fingerprint = request
    vectors = checked_vectors(embeddings, len(chunks))
    id_ = document.id
    row = (id_, document.source, document.file, fingerprint, as_json(document.metadata, id_))
    try:
        for text in row:
            if isinstance(text, str):
                text.encode()
        columns = [
            (
                chunk.start,
                chunk.end,
                chunk.text,
                as_json(chunk.metadata, id_),
                text_hash(chunk.text),
                indexed_text(chunk.text),
            )
            for chunk in chunks
        ]
    except UnicodeEncodeError as error:
        explain_surrogate(error)
        raise
    return StorableDocument(document, row, columns, vectors)


def _write_together(
    db: Connection, documents: Sequence[StorableDocument], given: StoredEmbedder
) -> list[Result]:
    """Write documents with as few statements as possible; of several with one id, the last."""
    embedder = _check_embedders(db, documents, given)
    scheme = remembered_id_scheme(db)
    places = stored_places(db, [each.document.id for each in documents])
    sources = {id_: place.source for id_, place in places.items()}
    accepted: dict[str, StorableDocument] = {}
    results: list[Result] = []
    for prepared in documents:
        document = prepared.document
        try:
            if prepared.chunks:
                check_embedder(embedder, replace(given, dimension=prepared.vectors.shape[1]))
            check_id_scheme(document, scheme)
            check_source(document, sources.setdefault(document.id, document.source))
        except Exception as error:  # of this document
            results.append(error)
            continue
        results.append(None)
        accepted.pop(document.id, None)
        accepted[document.id] = prepared
    delete_documents(db, [places[id_] for id_ in accepted if id_ in places])
    _insert_documents(db, list(accepted.values()))
    return results


def _write_separately(
    file: StoreFile,
    db: Connection,
    documents: Sequence[StorableDocument],
    given: StoredEmbedder,
) -> list[Result]:
    """Write each document in a savepoint of its own, so that one with a bad value fails alone."""
    results: list[Result] = []
    for prepared in documents:
        try:
            with file.converting_errors(), _savepoint(db):
                results += _write_together(db, [prepared], given)
        except Exception as error:
            if not is_of_one_document(error):
                raise
            results.append(error)
    return results


def is_of_one_document(error: Exception) -> bool:
    """Whether an error of writing is about a value of a document, and not about the file."""
    cause = error.__cause__ if isinstance(error, StoreError) else error
    if isinstance(error, RunRefused) or isinstance(cause, _BAD_VALUE):
        return True
    return cause is not None and not isinstance(cause, sqlite3.Error | OSError | MemoryError)


def _check_embedders(
    db: Connection, documents: Sequence[StorableDocument], given: StoredEmbedder
) -> StoredEmbedder | None:
    """Check the embedder against the stored one; write the first one."""
    dimensions = [each.vectors.shape[1] for each in documents if each.chunks]
    if not dimensions:
        return None
    stored = stored_embedder(db)
    fits = stored is not None and stored.dimension in dimensions
    found = replace(given, dimension=stored.dimension if stored and fits else dimensions[0])
    check_embedder(stored, found)
    if stored is None:
        write_embedder(db, found)
    return found


def _insert_documents(db: Connection, documents: Sequence[StorableDocument]) -> None:
    """Insert the rows of documents that are not stored."""
    (last,) = db.execute("SELECT coalesce(max(number), 0) FROM documents").fetchone()
    (first,) = db.execute("SELECT number FROM next_chunk").fetchone()
    chunk = first
    rows: list[tuple[object, ...]] = []
    chunks: list[tuple[object, ...]] = []
    vectors: list[tuple[object, ...]] = []
    for number, each in enumerate(documents, start=last + 1):
        rows.append((number, *each.row, chunk, len(each.chunks)))
        for start in range(0, len(each.chunks), VECTORS_PER_ROW):
            block = each.vectors[start : start + VECTORS_PER_ROW]
            vectors.append((chunk + start, block.data))
        chunks += [(own, number, *values) for own, values in enumerate(each.chunks, start=chunk)]
        chunk += len(each.chunks)
    _insert(db, "INSERT INTO documents $rows", rows)
    _insert(db, "INSERT INTO chunks $rows", chunks)
    _insert(db, "INSERT INTO vectors $rows", vectors)
    db.execute("UPDATE next_chunk SET number = ?", (chunk,))
    db.execute(
        "INSERT INTO words (rowid, text) SELECT number, text FROM searched WHERE number >= ?",
        (first,),
    )


def _insert(db: Connection, insertion: str, rows: Sequence[tuple[object, ...]]) -> None:
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
            db.execute(statement, values)
            start += size


@contextmanager
def _savepoint(db: Connection) -> Iterator[None]:
    """Undo the changes of a block that raises, and keep those before it."""
    db.execute("SAVEPOINT document")
    try:
        yield
    except BaseException:
        if db.in_transaction:  # SQLite itself rolls back when the disk is full
            db.execute("ROLLBACK TO document")
            db.execute("RELEASE document")
        raise
    db.execute("RELEASE document")
