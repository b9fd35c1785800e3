"""Documents written to a LanceStore, several in one commit."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.models import Document
from ragasync.documents.store import (
    RunRefused,
    StoredEmbedder,
    StoredEntry,
    StoreError,
    StoreRequest,
    check_embedder,
    check_id_scheme,
    check_source,
    checked_vectors,
)
from ragasync.documents.stores.lance_documents import StoredEntries, remembered_id_scheme
from ragasync.documents.stores.lance_filter import digest
from ragasync.documents.stores.lance_rows import Columns, as_rows, columns_of, with_vectors
from ragasync.documents.stores.lance_table import (
    LanceRows,
    add_vector_column,
    embedder_of_column,
    replace_rows,
    stored_embedder,
)
from ragasync.sqlite_file import explain_surrogate

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import LanceTable

Result: TypeAlias = Exception | None
"""The error of a document, or None if it is stored."""


def upsert(
    store: LanceRows,
    entries: StoredEntries,
    requests: Sequence[StoreRequest],
    given: StoredEmbedder,
) -> list[Result]:
    """
    Write documents in one commit; each that cannot be stored fails alone.

    The commit writes the rows of all documents and removes those that they replace: a process that
    dies leaves the table as it was before or after it.

    Args:
        store: The table.
        entries: The known entries of stored documents.
        requests: The documents; of several with one id, the last is stored.
        given: The embedder of their vectors; its dimension is not used.

    Returns:
        One entry per document: None if it is stored, else its error.

    Raises:
        EmbedderMismatch: The store holds vectors of another embedder, or no document has vectors
            of the stored dimension.
        StoreError: The folder cannot be written; nothing is stored.
    """
    results: list[Result] = [None] * len(requests)
    prepared: dict[int, PreparedDocument] = {}
    for place, request in enumerate(requests):
        try:
            prepared[place] = prepare(request)
        except Exception as error:  # of this document
            results[place] = error
    rows, unfit = _convert(prepared)
    for place in unfit:
        results[place] = unfit[place]
        del prepared[place]
    if rows is None:
        return results
    documents = list(prepared.values())
    with store.writing(rows.num_rows) as table:
        written = _write(table, store.path, entries, documents, rows, given)
    for place, result in zip(prepared, written, strict=True):
        results[place] = result
    return results


def upsert_each(
    upsert_one: Callable[..., object], requests: Sequence[StoreRequest]
) -> list[Result]:
    """
    Store documents one by one with an `upsert` method, and collect the errors of documents.

    Raises:
        StoreError: The folder cannot be written; the documents before that are stored.
    """
    results: list[Result] = []
    for document, chunks, embeddings, fingerprint in requests:
        try:
            upsert_one(document, chunks, embeddings, fingerprint=fingerprint)
        except Exception as error:
            if isinstance(error, StoreError) and not isinstance(error, RunRefused):
                raise
            results.append(error)
        else:
            results.append(None)
    return results


@dataclass(frozen=True, slots=True)
class PreparedDocument:
    """
    A document with the values of its columns, complete before the table is locked for it.

    Args:
        document: The document.
        columns: The columns of its rows, without the vectors.
        vectors: The vectors of its chunks, as finite float32 rows.
        entry: What `entry_of` returns for it once it is stored.
    """

    document: Document
    columns: Columns
    vectors: NDArray[np.float32]
    entry: StoredEntry


def prepare(request: StoreRequest) -> PreparedDocument:
    """
    Convert a document, its chunks and vectors to the values of their columns.

    Raises:
        ValueError: The vectors are not one finite row per chunk, or a text has a lone surrogate.
        TypeError: The metadata is not plain data.
    """
    document, chunks, embeddings, fingerprint = request
    vectors = checked_vectors(embeddings, len(chunks))
    try:
        for text in (document.id, document.source, document.file, fingerprint):
            if text is not None:
                text.encode()
        columns = columns_of(document, chunks, fingerprint)
    except UnicodeEncodeError as error:
        explain_surrogate(error)
        raise
    metadata = json.loads(str(columns["of_document"][0]))
    entry = StoredEntry(fingerprint, document.source, document.file, metadata)
    return PreparedDocument(document, columns, vectors, entry)


def _convert(
    prepared: Mapping[int, PreparedDocument],
) -> tuple[pa.Table | None, dict[int, Exception]]:
    """
    Convert documents to rows without vectors; None if there are none.

    Also returns the errors of documents with a value of the wrong type, such as a chunk whose
    start is a text. Which document has it is only known when each is converted by itself.
    """
    if not prepared:
        return None, {}
    try:
        return as_rows([each.columns for each in prepared.values()]), {}
    except Exception:
        errors: dict[int, Exception] = {}
        for place, each in prepared.items():
            try:
                as_rows([each.columns])
            except Exception as error:
                errors[place] = error
        if not errors:
            raise
        fit = [each.columns for place, each in prepared.items() if place not in errors]
        return (as_rows(fit) if fit else None), errors


def _write(
    table: LanceTable,
    folder: str,
    entries: StoredEntries,
    documents: Sequence[PreparedDocument],
    rows: pa.Table,
    given: StoredEmbedder,
) -> list[Result]:
    """Check documents against the stored ones, and commit the last accepted one of each id."""
    column = embedder_of_column(table)
    embedder = _expected_embedder(table, column, documents, given)
    scheme = remembered_id_scheme(folder)
    version = table.version
    stored = entries.find(table, [each.document.id for each in documents])
    sources = {id_: entry.source for id_, entry in stored.items()}
    accepted: dict[str, int] = {}
    results: list[Result] = []
    for place, each in enumerate(documents):
        id_, source = each.document.id, each.document.source
        try:
            check_id_scheme(each.document, scheme)
            check_source(each.document, sources.get(id_, source))
            if len(each.vectors):
                own = replace(given, dimension=each.vectors.shape[1])
                check_embedder(embedder, own)
                embedder = embedder or own
        except Exception as error:  # of this document
            results.append(error)
            continue
        results.append(None)
        sources[id_], accepted[id_] = source, place
    if accepted:
        if embedder is not None and embedder != column:
            add_vector_column(table, embedder)
            column = embedder
        places = sorted(accepted.values())
        chosen = [documents[place] for place in places]
        rows = _rows_of(rows, documents, places)
        if column is not None:
            rows = with_vectors(rows, [each.vectors for each in chosen], column.dimension)
        _commit(table, rows, stored.keys() & accepted.keys())
        written = {each.document.id: each.entry for each in chosen}
        entries.add(written, version, table.version)
    return results


def _expected_embedder(
    table: LanceTable,
    column: StoredEmbedder | None,
    documents: Sequence[PreparedDocument],
    given: StoredEmbedder,
) -> StoredEmbedder | None:
    """
    Embedder of the stored vectors, None if there are none, after a check against the given one.

    Raises:
        EmbedderMismatch: No document with vectors can be stored.
    """
    dimensions = [each.vectors.shape[1] for each in documents if len(each.vectors)]
    if not dimensions or column in [replace(given, dimension=each) for each in dimensions]:
        return column
    stored = stored_embedder(table)
    fits = stored is not None and stored.dimension in dimensions
    check_embedder(
        stored, replace(given, dimension=stored.dimension if stored and fits else dimensions[0])
    )
    return stored


def _rows_of(
    rows: pa.Table, documents: Sequence[PreparedDocument], places: Sequence[int]
) -> pa.Table:
    """Rows of the documents at some places, of the rows of all."""
    import pyarrow as pa

    if len(places) == len(documents):
        return rows
    counts = [len(each.vectors) + 1 for each in documents]
    starts = [0, *accumulate(counts)]
    return pa.concat_tables([rows.slice(starts[place], counts[place]) for place in places])


def _commit(table: LanceTable, rows: pa.Table, replaced: set[str]) -> None:
    """Write rows, and delete those of the documents that they replace."""
    if replaced:
        replace_rows(table, map(digest, replaced), rows)
    else:
        # The same as replacing no rows, but without joining the rows with the whole table.
        table.add(rows)
