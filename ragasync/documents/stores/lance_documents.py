"""Documents in a LanceStore: written, read, listed, with new metadata, and moved to other ids."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.models import Chunk, Document
from ragasync.documents.store import (
    IdScheme,
    StoredDocument,
    StoredEmbedder,
    StoredEntry,
    StoredId,
    StoreRequest,
    check_embedder,
    check_id_scheme,
    check_source,
    checked_vectors,
)
from ragasync.documents.stores.lance_search import EVERY_CHUNK, digest
from ragasync.documents.stores.lance_table import (
    Columns,
    LanceRows,
    add_vector_column,
    as_rows,
    columns_of,
    embedder_of_column,
    replace_rows,
    stored_embedder,
    with_vectors,
)
from ragasync.documents.stores.query import Result
from ragasync.documents.stores.relocation import Relocation
from ragasync.sqlite_file import explain_surrogate

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import LanceTable

Change: TypeAlias = Callable[[Document], Document]
"""Function from a stored document to the one that replaces it."""

_EVERY_DOCUMENT = "ordinal < 0"
_EVERY_FILE = f"{_EVERY_DOCUMENT} AND file IS NOT NULL"
_OF_ID = ("document_id", "source", "fingerprint", "file")
_OF_DOCUMENT = (*_OF_ID, "of_document")
_OF_CHUNK = ("text", "start", "end", "of_chunk")
_BLOCK = 200
"""Documents that are rewritten together, which bounds the memory for their chunks."""

_MANY = 1_000
"""Documents whose entries are found sooner by reading all than by a long list in a predicate."""


class StoredEntries:
    """
    Cache of the entries of stored documents, valid until another process or store writes.

    A look-up scans the table. So the second one without a foreign write in between reads all
    entries, some 500 bytes per document; the documents that this store writes are added.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, StoredEntry] = {}
        self._version: int | None = None
        self._searched_version: int | None = None

    def find(self, table: LanceTable, document_ids: Sequence[str]) -> dict[str, StoredEntry]:
        """Entries of those documents that are stored, by their ids."""
        with self._lock:
            version = table.version
            is_known = self._version == version
            if not is_known and (self._searched_version == version or len(document_ids) > _MANY):
                # A write between these two statements makes a later version than the cached one.
                self._entries, self._version = _entries(table, _EVERY_DOCUMENT), version
                is_known = True
            self._searched_version = version
            if is_known:
                found = self._entries
                return {id_: found[id_] for id_ in document_ids if id_ in found}
        if not document_ids:
            return {}
        return _entries(table, f"{_among(document_ids)} AND {_EVERY_DOCUMENT}")

    def add(self, entries: Mapping[str, StoredEntry], before: int, after: int) -> None:
        """Add the entries that this store wrote in a commit, from one version to another."""
        with self._lock:
            if self._searched_version == before:
                self._searched_version = after
            if self._version in (before, after):
                self._entries.update(entries)
                self._version = after


def _entries(table: LanceTable, predicate: str) -> dict[str, StoredEntry]:
    """Entries of the documents that a predicate selects, by their ids."""
    rows = table.search().where(predicate).select([*_OF_DOCUMENT]).to_list()
    return {
        row["document_id"]: StoredEntry(
            row["fingerprint"], row["source"], row["file"], json.loads(row["of_document"])
        )
        for row in rows
    }


def stored_document(table: LanceTable, document_id: str) -> StoredDocument | None:
    """Stored document with its chunks; None if it is not stored."""
    rows = _rows(table, [document_id], (*_OF_DOCUMENT, *_OF_CHUNK, "ordinal"))
    if not rows:
        return None
    return replace(_document(rows[0], len(rows) - 1), chunks=tuple(map(_chunk, rows[1:])))


def stored_documents(table: LanceTable) -> list[StoredDocument]:
    """All documents in the order of their ids, without their chunks."""
    chunks = table.search().where(EVERY_CHUNK).select(["document_id"]).to_arrow()
    counts = Counter(chunks["document_id"].to_pylist())
    rows = table.search().where(_EVERY_DOCUMENT).select([*_OF_DOCUMENT]).to_list()
    rows.sort(key=lambda row: row["document_id"])
    return [_document(row, counts[row["document_id"]]) for row in rows]


def stored_ids(table: LanceTable) -> list[StoredId]:
    """Id, source, fingerprint and file of every document."""
    return _stored_ids(table, _EVERY_DOCUMENT)


def with_fingerprints(table: LanceTable, fingerprints: Sequence[str]) -> list[StoredId]:
    """Documents that were stored with any of these fingerprints."""
    wanted = set(fingerprints)
    if len(wanted) > _BLOCK:
        return [each for each in stored_ids(table) if each.fingerprint in wanted]
    written = ", ".join("'" + each.replace("'", "''") + "'" for each in wanted)
    return _stored_ids(table, f"{_EVERY_DOCUMENT} AND fingerprint IN ({written})") if wanted else []


def write_metadata(table: LanceTable, metadata: Mapping[str, Mapping[str, object]]) -> None:
    """Replace the metadata of documents, by their ids."""

    def changed(document: Document) -> Document:
        return replace(document, metadata=metadata[document.id])

    for rows, documents in _changed_rows(table, list(metadata), changed):
        replace_rows(table, documents, rows)


def relocate(table: LanceTable, folder: str, change: Relocation) -> None:
    """
    Replace the ids and sources of documents, and delete the superseded documents.

    It is one commit, because a second call could not know which documents the first one moved: a
    new id may be the old id of another document. The rows are first written to a file, since they
    may not fit into memory.
    """
    import pyarrow as pa

    def changed(document: Document) -> Document:
        id_, source, file = change.moves[document.id]
        return replace(document, id=id_, source=source, file=file)

    moved = _changed_rows(table, list(change.moves), changed)
    first = next(moved, None)
    if first is None:
        delete_documents(table, change.superseded)
        return
    new = (id_ for id_, *_ in change.moves.values())
    documents = {digest(each) for each in (*change.moves, *new, *change.superseded)}
    with TemporaryDirectory(prefix="moving-", dir=folder, ignore_cleanup_errors=True) as waiting:
        path = str(Path(waiting) / "rows.arrow")
        with pa.OSFile(path, "wb") as file, pa.ipc.new_stream(file, first[0].schema) as writer:
            for rows, _ in chain([first], moved):
                writer.write_table(rows)
        with pa.memory_map(path) as file:
            replace_rows(table, documents, pa.ipc.open_stream(file))


def delete_documents(table: LanceTable, document_ids: Sequence[str]) -> None:
    """Delete documents with their chunks, by their ids."""
    for start in range(0, len(document_ids), _BLOCK):
        table.delete(_among(document_ids[start : start + _BLOCK]))


def read_id_scheme(table: LanceTable, folder: str) -> IdScheme | None:
    """Scheme of the ids of files; None while no document of a file is stored."""
    found = table.search().where(_EVERY_FILE).select(["file"]).limit(1).to_list()
    if not found:
        return None
    is_relative = not os.path.isabs(found[0]["file"])  # noqa: PTH117  # an id
    return remembered_id_scheme(folder) or IdScheme(is_relative, is_mixed=True)


def remembered_id_scheme(folder: str) -> IdScheme | None:
    """Scheme of the ids of files, as last written; None if it is not known."""
    try:
        return IdScheme(**json.loads(_scheme_file(folder).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def write_id_scheme(folder: str, scheme: IdScheme) -> None:
    """Write the scheme of the ids of files, atomically."""
    whole = _scheme_file(folder)
    part = whole.with_suffix(".part")
    part.write_text(json.dumps(asdict(scheme)), encoding="utf-8")
    os.replace(part, whole)  # noqa: PTH105  # also replaces an existing file


def _scheme_file(folder: str) -> Path:
    """Path of the file with the scheme, next to the table."""
    return Path(folder) / "ragasync-ids.json"


def files(table: LanceTable) -> list[tuple[str, str]]:
    """Id and file of every document that was loaded from a file."""
    rows = table.search().where(_EVERY_FILE).select(["document_id", "file"]).to_list()
    return [(row["document_id"], row["file"]) for row in rows]


def _stored_ids(table: LanceTable, predicate: str) -> list[StoredId]:
    """Id, source, fingerprint and file of the documents that a predicate selects."""
    rows = table.search().where(predicate).select([*_OF_ID]).to_list()
    return [StoredId(*(row[name] for name in _OF_ID)) for row in rows]


def _changed_rows(
    table: LanceTable, document_ids: Sequence[str], change: Change
) -> Iterator[tuple[pa.Table, list[str]]]:
    """Yield the rows of changed documents, with their chunks and vectors, and the old digests."""
    embedder = embedder_of_column(table)
    names = (*_OF_DOCUMENT, *_OF_CHUNK, "ordinal", *(("vector",) if embedder else ()))
    for start in range(0, len(document_ids), _BLOCK):
        of_document: dict[str, list[Any]] = {}
        for row in _rows(table, document_ids[start : start + _BLOCK], names):
            of_document.setdefault(row["document_id"], []).append(row)
        columns: list[Columns] = []
        vectors = []
        for own, *chunks in of_document.values():
            metadata = json.loads(own["of_document"])
            before = Document(own["document_id"], "", metadata, own["source"], file=own["file"])
            after = change(before)
            columns.append(columns_of(after, list(map(_chunk, chunks)), own["fingerprint"]))
            if embedder is not None:
                vectors.append(np.array([row["vector"] for row in chunks], dtype=np.float32))
        if columns:
            rows = as_rows(columns)
            if embedder is not None:
                rows = with_vectors(rows, vectors, embedder.dimension)
            yield rows, [digest(each) for each in of_document]


def _rows(table: LanceTable, document_ids: Sequence[str], names: Sequence[str]) -> list[Any]:
    """Rows of documents, each document's own row first."""
    found = table.search().where(_among(document_ids)).select([*names]).to_list()
    return sorted(found, key=lambda row: (row["document_id"], row["ordinal"]))


def _among(document_ids: Sequence[str]) -> str:
    """Predicate of the rows of some documents."""
    digests = ", ".join(f"'{digest(each)}'" for each in document_ids)
    return f"document IN ({digests})"


def _document(row: Mapping[str, Any], chunk_count: int) -> StoredDocument:
    """Stored document without its chunks."""
    metadata = json.loads(row["of_document"])
    return StoredDocument(
        row["document_id"],
        row["source"],
        metadata,
        row["fingerprint"],
        chunk_count,
        file=row["file"],
    )


def _chunk(row: Mapping[str, Any]) -> Chunk:
    """Chunk of a row."""
    return Chunk(row["text"], row["start"], row["end"], json.loads(row["of_chunk"]))


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
    prepared: dict[int, StorableDocument] = {}
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


@dataclass(frozen=True, slots=True)
class StorableDocument:
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


def prepare(request: StoreRequest) -> StorableDocument:
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
    return StorableDocument(document, columns, vectors, entry)


def _convert(
    prepared: Mapping[int, StorableDocument],
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
    documents: Sequence[StorableDocument],
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
    documents: Sequence[StorableDocument],
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
    rows: pa.Table, documents: Sequence[StorableDocument], places: Sequence[int]
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
