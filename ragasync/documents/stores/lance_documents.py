"""Documents in a LanceStore: read and listed, with new metadata, and moved to other ids."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ragasync.documents.models import Chunk, Document
from ragasync.documents.store import IdScheme, StoredDocument, StoredEntry, StoredId
from ragasync.documents.stores.lance_filter import EVERY_CHUNK, digest
from ragasync.documents.stores.lance_rows import Columns, as_rows, columns_of, with_vectors
from ragasync.documents.stores.lance_table import embedder_of_column, replace_rows
from ragasync.documents.stores.relocation import Relocation

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
