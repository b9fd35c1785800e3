"""LanceRows: the documents of a LanceStore, read, written and changed in its table."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import accumulate, chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.models import Chunk, Document
from ragasync.documents.search import Condition, Hits
from ragasync.documents.search_text import words_of
from ragasync.documents.store import (
    IdScheme,
    StoredDocument,
    StoredEmbedder,
    StoredEntry,
    StoredId,
    as_json,
)
from ragasync.documents.stores import ChunkRow, StoredRows
from ragasync.documents.stores.lance_search import (
    EVERY_CHUNK,
    FRAME,
    digest,
    facts_of,
    has_key,
    run_search,
    vectors_of_texts,
)
from ragasync.documents.stores.requests import (
    Relocation,
    Result,
    Search,
    StorableDocument,
    accept_documents,
)

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
_EMBEDDER, _IDENTITY = b"embedder", b"identity"
_BLOCK = 200
"""Documents that are rewritten together, which bounds the memory for their chunks."""

_MANY = 1_000
"""Documents whose entries are found sooner by reading all than by a long list in a predicate."""


class LanceRows(StoredRows):
    """The documents of a LanceStore; to change them, the caller must hold the write lock."""

    def __init__(self, table: LanceTable, folder: str, entries: StoredEntries) -> None:
        self._table, self._folder, self._entries = table, folder, entries

    # Documents

    def entries(self, ids: Sequence[str]) -> dict[str, StoredEntry]:
        return self._entries.find(self._table, ids)

    def document(self, id_: str) -> StoredDocument | None:
        rows = self._rows_of([id_], (*_OF_DOCUMENT, *_OF_CHUNK, "ordinal"))
        if not rows:
            return None
        return replace(_document(rows[0], len(rows) - 1), chunks=tuple(map(_chunk, rows[1:])))

    def documents(self) -> list[StoredDocument]:
        chunks = self._table.search().where(EVERY_CHUNK).select(["document_id"]).to_arrow()
        counts = Counter(chunks["document_id"].to_pylist())
        rows = _selected(self._table, _EVERY_DOCUMENT, _OF_DOCUMENT)
        rows.sort(key=lambda row: row["document_id"])
        return [_document(row, counts[row["document_id"]]) for row in rows]

    def ids(self) -> list[StoredId]:
        return self._ids_where(_EVERY_DOCUMENT)

    def ids_with(self, fingerprints: Sequence[str]) -> list[StoredId]:
        wanted = set(fingerprints)
        if len(wanted) > _BLOCK:
            return [each for each in self.ids() if each.fingerprint in wanted]
        if not wanted:
            return []
        written = ", ".join("'" + each.replace("'", "''") + "'" for each in wanted)
        return self._ids_where(f"{_EVERY_DOCUMENT} AND fingerprint IN ({written})")

    def chunk_rows(self) -> Iterator[ChunkRow]:
        rows = _selected(self._table, EVERY_CHUNK, FRAME)
        rows.sort(key=lambda row: (row["document_id"], row["ordinal"]))
        return (tuple(row[name] for name in FRAME) for row in rows)

    def count(self) -> tuple[int, int]:
        documents, chunks = map(self._table.count_rows, (_EVERY_DOCUMENT, EVERY_CHUNK))
        return documents, chunks

    def delete(self, ids: Sequence[str]) -> bool:
        deleted = 0
        for start in range(0, len(ids), _BLOCK):
            deleted += self._table.delete(_among(ids[start : start + _BLOCK])).num_deleted_rows
        return deleted > 0

    def relocate(self, change: Relocation) -> None:
        """
        Replace the ids and sources of documents, and delete the superseded documents.

        It is one commit, because a second call could not know which documents the first one moved:
        a new id may be the old id of another document. The rows are first written to a file, since
        they may not fit into memory.
        """
        import pyarrow as pa

        def changed(document: Document) -> Document:
            new = change.moves[document.id]
            return replace(document, id=new.id, source=new.source, file=new.file)

        moved = self._changed_rows(list(change.moves), changed)
        first = next(moved, None)
        if first is None:
            self.delete(change.superseded)
            return
        new = (each.id for each in change.moves.values())
        documents = {digest(each) for each in (*change.moves, *new, *change.superseded)}
        with TemporaryDirectory(
            prefix="moving-", dir=self._folder, ignore_cleanup_errors=True
        ) as waiting:
            path = str(Path(waiting) / "rows.arrow")
            with pa.OSFile(path, "wb") as file, pa.ipc.new_stream(file, first[0].schema) as writer:
                for rows, _ in chain([first], moved):
                    writer.write_table(rows)
            with pa.memory_map(path) as file:
                self._replace(documents, pa.ipc.open_stream(file))

    def write_metadata(self, metadata: Mapping[str, Mapping[str, object]]) -> None:
        def changed(document: Document) -> Document:
            return replace(document, metadata=metadata[document.id])

        for rows, documents in self._changed_rows(list(metadata), changed):
            self._replace(documents, rows)

    def _ids_where(self, predicate: str) -> list[StoredId]:
        rows = _selected(self._table, predicate, _OF_ID)
        return [StoredId(*(row[name] for name in _OF_ID)) for row in rows]

    def _rows_of(self, ids: Sequence[str], names: Sequence[str]) -> list[Any]:
        """Rows of documents, each document's own row first."""
        found = _selected(self._table, _among(ids), names)
        return sorted(found, key=lambda row: (row["document_id"], row["ordinal"]))

    def _changed_rows(
        self, ids: Sequence[str], change: Change
    ) -> Iterator[tuple[pa.Table, list[str]]]:
        """Yield the rows of changed documents, with chunks and vectors, and the old digests."""
        embedder = self._embedder_of_column()
        names = (*_OF_DOCUMENT, *_OF_CHUNK, "ordinal", *(("vector",) if embedder else ()))
        for start in range(0, len(ids), _BLOCK):
            of_document: dict[str, list[Any]] = {}
            for row in self._rows_of(ids[start : start + _BLOCK], names):
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
                rows = _as_rows(columns)
                if embedder is not None:
                    rows = _with_vectors(rows, vectors, embedder.dimension)
                yield rows, [digest(each) for each in of_document]

    def _replace(self, documents: Iterable[str], rows: pa.Table | pa.RecordBatchReader) -> None:
        """Replace the rows of the documents with these digests by other rows, in one commit."""
        digests = ", ".join(f"'{document}'" for document in documents)
        (
            self._table.merge_insert(["document", "ordinal"])
            .when_matched_update_all()
            .when_not_matched_insert_all()
            .when_not_matched_by_source_delete(f"document IN ({digests})")
            .execute(rows)
        )

    # What the store knows of all of them

    def id_scheme(self) -> IdScheme | None:
        found = self._table.search().where(_EVERY_FILE).select(["file"]).limit(1).to_list()
        if not found:
            return None
        is_relative = not os.path.isabs(found[0]["file"])  # noqa: PTH117  # an id
        return self._remembered_id_scheme() or IdScheme(is_relative, is_mixed=True)

    def _remembered_id_scheme(self) -> IdScheme | None:
        """Form of the ids of files, as last written; None if it is not known."""
        try:
            return IdScheme(**json.loads(self._scheme_file.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def write_id_scheme(self, scheme: IdScheme) -> None:
        whole = self._scheme_file
        part = whole.with_suffix(".part")
        part.write_text(json.dumps(asdict(scheme)), encoding="utf-8")
        os.replace(part, whole)  # noqa: PTH105  # also replaces an existing file

    @property
    def _scheme_file(self) -> Path:
        return Path(self._folder) / "ragasync-ids.json"

    def embedder(self) -> StoredEmbedder | None:
        column = self._embedder_of_column()
        return column if column is not None and self._entries.has_chunks(self._table) else None

    def _embedder_of_column(self) -> StoredEmbedder | None:
        """Embedder that the column of vectors is for, which may be empty; None without it."""
        schema = self._table.schema
        if "vector" not in schema.names:
            return None
        field = schema.field("vector")
        identity = field.metadata.get(_IDENTITY, b"").decode()
        return StoredEmbedder(field.metadata[_EMBEDDER].decode(), field.type.list_size, identity)

    def write_embedder(self, embedder: StoredEmbedder) -> None:
        texts = {key.decode(): value.decode() for key, value in _metadata_of(embedder).items()}
        self._table.update_field_metadata({"path": "vector", "metadata": texts})

    def _add_vector_column(self, embedder: StoredEmbedder) -> None:
        """Add the column of vectors, with its embedder, in place of one without vectors."""
        import pyarrow as pa

        if "vector" in self._table.schema.names:
            self._table.drop_columns(["vector"])
        kind = pa.list_(pa.float32(), embedder.dimension)
        self._table.add_columns(pa.field("vector", kind, metadata=_metadata_of(embedder)))

    def vectors_of(self, embedder: str, texts: Sequence[str]) -> list[NDArray[np.float32] | None]:
        column = self._embedder_of_column()
        if column is None or column.name != embedder:
            return [None for _ in texts]
        return vectors_of_texts(self._table, texts)

    def known_keys(self) -> set[str]:
        query = self._table.search().where(EVERY_CHUNK).select(["of_document", "of_chunk"])
        rows = query.to_arrow()
        texts = {*rows["of_document"].to_pylist(), *rows["of_chunk"].to_pylist()}
        return {str(key) for text in texts for key in json.loads(text)}

    def unknown_keys(self, keys: Iterable[str]) -> list[str]:
        table = self._table
        return [key for key in keys if not table.search().where(has_key(key)).limit(1).to_list()]

    def search(self, search: Search, condition: Condition | None) -> Hits:
        return run_search(self._table, search, condition)

    # New documents

    def write(
        self, documents: Sequence[StorableDocument], rows: pa.Table, given: StoredEmbedder
    ) -> list[Result]:
        """
        Write documents in one commit; of several with one id, the last.

        The commit writes the rows of all documents and removes those that they replace: a process
        that dies leaves the table as it was before or after it.

        Args:
            documents: The documents.
            rows: Their rows without vectors.
            given: The embedder of their vectors; its dimension is not used.
        """
        import pyarrow as pa

        table, column = self._table, self._embedder_of_column()
        dimensions = {each.vectors.shape[1] for each in documents if len(each.vectors)}
        fits = column in [replace(given, dimension=each) for each in dimensions]  # no need to count
        version = table.version
        stored = self.entries([each.document.id for each in documents])
        results, accepted, embedder = accept_documents(
            documents,
            {id_: entry.source for id_, entry in stored.items()},
            self._remembered_id_scheme(),
            column if fits else self.embedder(),
            given,
        )
        if not accepted:
            return results
        if embedder is not None and embedder != column:
            self._add_vector_column(embedder)
            column = embedder
        chosen = [documents[place] for place in accepted]
        if len(accepted) < len(documents):
            counts = [len(each.vectors) + 1 for each in documents]
            starts = [0, *accumulate(counts)]
            rows = pa.concat_tables([rows.slice(starts[n], counts[n]) for n in accepted])
        if column is not None:
            rows = _with_vectors(rows, [each.vectors for each in chosen], column.dimension)
        new = {each.document.id: _entry_of(each) for each in chosen}
        if replaced := stored.keys() & new.keys():
            self._replace(map(digest, replaced), rows)
        else:
            # The same as replacing no rows, but without joining the rows with the whole table.
            table.add(rows)
        self._entries.add(new, version, table.version)
        return results


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
        self._counted_version: int | None = None
        self._has_chunks = False

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

    def has_chunks(self, table: LanceTable) -> bool:
        """Whether any chunks are stored; counted once for each version of the table."""
        with self._lock:
            version = table.version
            if self._counted_version != version:
                self._has_chunks = bool(table.count_rows(EVERY_CHUNK))
                self._counted_version = version
            return self._has_chunks

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
    return {
        row["document_id"]: StoredEntry(
            row["fingerprint"], row["source"], row["file"], json.loads(row["of_document"])
        )
        for row in _selected(table, predicate, _OF_DOCUMENT)
    }


def _selected(table: LanceTable, predicate: str, names: Sequence[str]) -> list[Any]:
    found: list[Any] = table.search().where(predicate).select([*names]).to_list()
    return found


def _among(document_ids: Sequence[str]) -> str:
    digests = ", ".join(f"'{digest(each)}'" for each in document_ids)
    return f"document IN ({digests})"


def _document(row: Mapping[str, Any], chunk_count: int) -> StoredDocument:
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
    return Chunk(row["text"], row["start"], row["end"], json.loads(row["of_chunk"]))


def _entry_of(stored: StorableDocument) -> StoredEntry:
    document, columns = stored.document, stored.columns
    metadata = json.loads(columns["of_document"][0])
    return StoredEntry(columns["fingerprint"][0], document.source, document.file, metadata)


def _metadata_of(given: StoredEmbedder) -> dict[bytes, bytes]:
    return {_EMBEDDER: given.name.encode(), _IDENTITY: given.identity.encode()}


def as_rows_of_each(documents: Sequence[Columns]) -> tuple[pa.Table | None, list[Result]]:
    """
    Convert documents to rows without vectors, None if there are none; also return their errors.

    A document with a value of the wrong type, such as a chunk whose start is a text, fails alone.
    Which one has it is only known when each is converted by itself.
    """
    results: list[Result] = [None] * len(documents)
    try:
        return _as_rows(documents), results
    except Exception:
        for place, columns in enumerate(documents):
            try:
                _as_rows([columns])
            except Exception as error:
                results[place] = error
        if not any(results):
            raise
    fit = [columns for columns, error in zip(documents, results, strict=True) if error is None]
    return (_as_rows(fit) if fit else None), results


Columns = Mapping[str, Sequence[object]]
"""The values of each column of a document's rows, without the vectors."""

_TEXTS = ("document", "document_id", "source", "file", "fingerprint", "text")
_MORE_TEXTS = ("text_digest", "of_document", "of_chunk", "words")
_NUMBERS = ("ordinal", "start", "end")


def table_schema() -> pa.Schema:
    """Schema of the table before vectors are stored, whose length the first one determines."""
    import pyarrow as pa

    fields = [pa.field(name, pa.string()) for name in (*_TEXTS, *_MORE_TEXTS)]
    fields += [pa.field(name, pa.int64()) for name in _NUMBERS]
    fields.append(pa.field("facts", pa.json_()))
    return pa.schema(fields)


def columns_of(document: Document, chunks: Sequence[Chunk], fingerprint: str) -> Columns:
    """
    Columns of a document's rows: first the document's own row, then one row per chunk.

    The document's row, with ordinal -1, keeps the fingerprint of a document without chunks, too.

    Raises:
        TypeError: The metadata is not plain data.
        UnicodeEncodeError: A text of a chunk has a lone surrogate.
    """
    count = len(chunks) + 1
    key = digest(document.id)
    of_document = as_json(document.metadata, document.id)
    of_chunks = [as_json(chunk.metadata, document.id) for chunk in chunks]
    metadata = json.loads(of_document)
    return {
        "document": [key] * count,
        "document_id": [document.id] * count,
        "source": [document.source] * count,
        "file": [document.file] * count,
        "fingerprint": [fingerprint] * count,
        "text": [None, *[chunk.text for chunk in chunks]],
        "text_digest": [None, *[digest(chunk.text, "strict") for chunk in chunks]],
        "of_document": [of_document] * count,
        "of_chunk": ["{}", *of_chunks],
        "ordinal": range(-1, len(chunks)),
        "start": [0, *[chunk.start for chunk in chunks]],
        "end": [0, *[chunk.end for chunk in chunks]],
        "facts": ["{}", *[facts_of(metadata | json.loads(own)) for own in of_chunks]],
        # Only SQLite searches for words by their beginnings.
        "words": [None, *[" ".join(words_of(chunk.text, singles=True)) for chunk in chunks]],
    }


def _as_rows(documents: Sequence[Columns]) -> pa.Table:
    """Arrow table of the rows of documents, without their vectors."""
    import pyarrow as pa

    # With these types and not those of the stored table: only from the type json_ does Lance
    # convert JSON to the binary form that its filters read.
    return pa.table(
        {
            field.name: pa.array(
                list(chain.from_iterable(columns[field.name] for columns in documents)), field.type
            )
            for field in table_schema()
        }
    )


def _with_vectors(
    rows: pa.Table, vectors: Sequence[NDArray[np.float32]], dimension: int
) -> pa.Table:
    """
    Rows of documents with the column of vectors.

    Args:
        rows: The rows of the documents.
        vectors: The vectors of each document's chunks. A document's own row, which no search
            reads, has a vector of zeros.
        dimension: The length of a vector.
    """
    import pyarrow as pa

    matrix = np.zeros((rows.num_rows, dimension), dtype=np.float32)
    start = 0
    for each in vectors:
        if len(each):
            matrix[start + 1 : start + 1 + len(each)] = each
        start += 1 + len(each)
    column = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), dimension)
    return rows.append_column("vector", column)
