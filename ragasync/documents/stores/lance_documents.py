"""The documents of a LanceStore: read, given new metadata, and moved to other ids."""

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
from ragasync.documents.stores.lance_rows import Columns, columns_of, vector_column
from ragasync.documents.stores.lance_table import (
    as_rows,
    embedder_of_column,
    replace_rows,
)
from ragasync.documents.stores.relocation import Relocation

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import LanceTable

Change: TypeAlias = Callable[[Document], Document]
"""Makes of a stored document what is to be stored in its place."""

_EVERY_DOCUMENT = "ordinal < 0"
_EVERY_FILE = f"{_EVERY_DOCUMENT} AND file IS NOT NULL"
_OF_ID = ("document_id", "source", "fingerprint", "file")
_OF_DOCUMENT = (*_OF_ID, "of_document")
_OF_CHUNK = ("text", "start", "end", "of_chunk")
_TOGETHER = 200
"""How many documents are rewritten at a time."""


class StoredEntries:
    """
    What documents were stored with, read from the table once as long as nobody else writes to it.

    To look one document up takes a scan of the table. So the second look-up in the same version of
    the table reads all entries, some 500 bytes a document; what this process writes is added.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, StoredEntry] = {}
        self._version: int | None = None
        self._asked_of: int | None = None

    def of(self, table: LanceTable, document_id: str) -> StoredEntry | None:
        """Return what a document was stored with, or None where it is not stored."""
        with self._lock:
            version = table.version
            if self._version != version and self._asked_of == version:
                # Whoever writes between these two leaves a later version, and is read again.
                self._entries, self._version = _entries(table, _EVERY_DOCUMENT), version
            self._asked_of = version
            if self._version == version:
                return self._entries.get(document_id)
        one = f"{_among([document_id])} AND {_EVERY_DOCUMENT}"
        return _entries(table, one).get(document_id)

    def add(self, document_id: str, entry: StoredEntry, before: int, after: int) -> None:
        """Add what this process has written, between two versions that nobody else wrote to."""
        with self._lock:
            if self._version in (before, after):
                self._entries[document_id], self._version = entry, after


def _entries(table: LanceTable, predicate: str) -> dict[str, StoredEntry]:
    """Return what the documents that a predicate holds of were stored with, by their ids."""
    rows = table.search().where(predicate).select([*_OF_DOCUMENT]).to_list()
    return {
        row["document_id"]: StoredEntry(
            row["fingerprint"], row["source"], row["file"], json.loads(row["of_document"])
        )
        for row in rows
    }


def stored_document(table: LanceTable, document_id: str) -> StoredDocument | None:
    """Return what is stored of a document, with its chunks; None where it is not stored."""
    rows = _rows(table, [document_id], (*_OF_DOCUMENT, *_OF_CHUNK, "ordinal"))
    if not rows:
        return None
    return replace(_document(rows[0], len(rows) - 1), chunks=tuple(map(_chunk, rows[1:])))


def stored_documents(table: LanceTable) -> list[StoredDocument]:
    """Return all documents by their ids, without their chunks."""
    chunks = table.search().where(EVERY_CHUNK).select(["document_id"]).to_arrow()
    counts = Counter(chunks["document_id"].to_pylist())
    rows = table.search().where(_EVERY_DOCUMENT).select([*_OF_DOCUMENT]).to_list()
    rows.sort(key=lambda row: row["document_id"])
    return [_document(row, counts[row["document_id"]]) for row in rows]


def stored_ids(table: LanceTable) -> list[StoredId]:
    """Return the id, source, fingerprint and file of every document."""
    return _stored_ids(table, _EVERY_DOCUMENT)


def with_fingerprints(table: LanceTable, fingerprints: Sequence[str]) -> list[StoredId]:
    """Return the documents that were stored with any of these fingerprints."""
    wanted = set(fingerprints)
    if len(wanted) > _TOGETHER:
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
    Give documents their new ids and sources, and delete those that are there already.

    It is one commit, because a second call could not tell what the first one had moved: one's new
    id may be another's old one. The rows wait in a file, as they may be more than memory holds.
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
    """Delete documents with their chunks."""
    for start in range(0, len(document_ids), _TOGETHER):
        table.delete(_among(document_ids[start : start + _TOGETHER]))


def read_id_scheme(table: LanceTable, folder: str) -> IdScheme | None:
    """Return what the ids of files are, or None while no document of a file is stored."""
    found = table.search().where(_EVERY_FILE).select(["file"]).limit(1).to_list()
    if not found:
        return None
    is_relative = not os.path.isabs(found[0]["file"])  # noqa: PTH117  # an id
    return remembered_id_scheme(folder) or IdScheme(is_relative, is_mixed=True)


def remembered_id_scheme(folder: str) -> IdScheme | None:
    """Return what the ids of files are, or will be; None where that is not known."""
    try:
        return IdScheme(**json.loads(_scheme_file(folder).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def write_id_scheme(folder: str, scheme: IdScheme) -> None:
    """Write what the ids of files are over what was known of them, all of it or nothing."""
    whole = _scheme_file(folder)
    part = whole.with_suffix(".part")
    part.write_text(json.dumps(asdict(scheme)), encoding="utf-8")
    os.replace(part, whole)  # noqa: PTH105  # the same for a file that is there


def _scheme_file(folder: str) -> Path:
    """Return the path of the file, beside the table, that says what the ids of files are."""
    return Path(folder) / "ragasync-ids.json"


def files(table: LanceTable) -> list[tuple[str, str]]:
    """Return the id and the file of every document that was loaded from one."""
    rows = table.search().where(_EVERY_FILE).select(["document_id", "file"]).to_list()
    return [(row["document_id"], row["file"]) for row in rows]


def _stored_ids(table: LanceTable, predicate: str) -> list[StoredId]:
    """Return what the documents are known by that a predicate holds of."""
    rows = table.search().where(predicate).select([*_OF_ID]).to_list()
    return [StoredId(*(row[name] for name in _OF_ID)) for row in rows]


def _changed_rows(
    table: LanceTable, document_ids: Sequence[str], change: Change
) -> Iterator[tuple[pa.Table, list[str]]]:
    """Yield the rows of changed documents, with their chunks and vectors, and their old digests."""
    import pyarrow as pa

    whose = embedder_of_column(table)
    names = (*_OF_DOCUMENT, *_OF_CHUNK, "ordinal", *(("vector",) if whose else ()))
    for start in range(0, len(document_ids), _TOGETHER):
        of_document: dict[str, list[Any]] = {}
        for row in _rows(table, document_ids[start : start + _TOGETHER], names):
            of_document.setdefault(row["document_id"], []).append(row)
        columns: list[Columns] = []
        for own, *pieces in of_document.values():
            metadata = json.loads(own["of_document"])
            before = Document(own["document_id"], "", metadata, own["source"], file=own["file"])
            after = change(before)
            columns.append(columns_of(after, list(map(_chunk, pieces)), own["fingerprint"]))
            if whose is not None:
                vectors = np.array([row["vector"] for row in pieces], dtype=np.float32)
                vectors = vectors.reshape(len(pieces), whose.dimension)
                columns[-1]["vector"] = vector_column(vectors, whose.dimension)
        if columns:
            yield (
                as_rows(table, _together(columns, pa)),
                [digest(each) for each in of_document],
            )


def _together(columns: Sequence[Columns], pa: Any) -> Columns:
    """Return the rows of several documents one after the other."""
    joined: Columns = {}
    for name, first in columns[0].items():
        parts = [each[name] for each in columns]
        if isinstance(first, pa.Array):
            joined[name] = pa.concat_arrays(parts)
        else:
            joined[name] = [value for part in parts for value in part]
    return joined


def _rows(table: LanceTable, document_ids: Sequence[str], names: Sequence[str]) -> list[Any]:
    """Return the rows of documents, each document's own row first."""
    found = table.search().where(_among(document_ids)).select([*names]).to_list()
    return sorted(found, key=lambda row: (row["document_id"], row["ordinal"]))


def _among(document_ids: Sequence[str]) -> str:
    """Return the predicate of the rows of some documents."""
    digests = ", ".join(f"'{digest(each)}'" for each in document_ids)
    return f"document IN ({digests})"


def _document(row: Mapping[str, Any], chunk_count: int) -> StoredDocument:
    """Return what is stored of a document, without its chunks."""
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
    """Return a chunk as it was stored."""
    return Chunk(row["text"], row["start"], row["end"], json.loads(row["of_chunk"]))
