"""The table of a LanceStore: documents as rows, commits, and one writing process at a time."""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.models import Chunk, Document
from ragasync.documents.search_text import words_of
from ragasync.documents.store import StoredEmbedder, StoreError, StoreNotWritable, as_json, chunk_id
from ragasync.documents.stores.lance_search import digest, facts_of
from ragasync.errors import MissingExtra, RagasyncError
from ragasync.sqlite_file import explain_surrogate

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import LanceTable

if sys.platform != "win32":
    import fcntl


@contextmanager
def file_lock(path: str) -> Iterator[None]:
    """
    Lock a file; wait until no other process holds its lock.

    The system releases the lock of a process that dies. On Windows nothing is locked.

    Args:
        path: A file of the store, created if it is missing; nothing is ever written to it.

    Raises:
        OSError: If the file cannot be opened.
    """
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


Columns = Mapping[str, Sequence[object]]
"""The values of each column of a document's rows, without the vectors."""

_TEXTS = ("id", "document", "document_id", "source", "file", "fingerprint", "text")
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
    ids = [chunk_id(document.id, n, chunk.text) for n, chunk in enumerate(chunks)]
    return {
        "id": [f"document-{key}", *ids],
        "document": [key] * count,
        "document_id": [document.id] * count,
        "source": [document.source] * count,
        "file": [document.file] * count,
        "fingerprint": [fingerprint] * count,
        "text": [None, *[chunk.text for chunk in chunks]],
        "text_digest": [None, *[digest(chunk.text) for chunk in chunks]],
        "of_document": [of_document] * count,
        "of_chunk": ["{}", *of_chunks],
        "ordinal": range(-1, len(chunks)),
        "start": [0, *[chunk.start for chunk in chunks]],
        "end": [0, *[chunk.end for chunk in chunks]],
        "facts": ["{}", *[facts_of(metadata | json.loads(own)) for own in of_chunks]],
        # Only SQLite searches for words by their beginnings.
        "words": [None, *[" ".join(words_of(chunk.text, singles=True)) for chunk in chunks]],
    }


def as_rows(documents: Sequence[Columns]) -> pa.Table:
    """
    Arrow table of the rows of documents, without their vectors.

    Raises:
        TypeError, ValueError, OverflowError: A value is of another type than its column.
    """
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


def with_vectors(
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


_NAME = "ragasync_chunks"
_VERSION = "3"
_EMBEDDER, _IDENTITY = b"embedder", b"identity"
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
_LANCE_ERRORS = (RuntimeError, OSError, ValueError)

# Each commit adds a file (Lance: a fragment) and a version of the list of files, and its words are
# not in the index yet. `optimize` merges the files, indexes the words and removes old versions. It
# copies all rows, so it runs when it pays:
# - after a write: 100 commits or 5,000 rows after the last time, if the table has grown by a fifth
#   since, or 1,000 commits after it in any case;
# - before a search and when the store is closed: if that would be slow because of many files or
#   words that are not indexed, or to remove old versions. Another process may have died before it.
_MAX_COMMITS = 100
_MAX_ROWS = 5_000
_MIN_GROWTH = 0.2

# Rows that are not indexed are searched one by one: 500 take some milliseconds.
_MAX_UNINDEXED = 500
_MAX_UNINDEXED_SHARE = 0.02

# Another process may still be reading an old version. A read takes seconds, and the next one
# starts with the newest version.
_KEPT_FOR = timedelta(minutes=5)
_MAX_OLD_VERSIONS = 10


@contextmanager
def clear_lance_errors(path: str) -> Iterator[None]:
    """Convert Lance's errors to a StoreError that names the folder."""
    try:
        yield
    except UnicodeEncodeError as error:
        explain_surrogate(error)
        raise
    except RagasyncError:
        raise
    except _LANCE_ERRORS as error:
        raise StoreError(f"the store {path!r} cannot be used: {error}") from error


class LanceRows:
    """
    A Lance table with one row per chunk and one per document.

    A commit is atomic. Threads and processes take turns to write: if two inserted the same document
    concurrently, both would succeed, and it would be stored twice.

    Args:
        path: The folder, created if it is missing.

    Raises:
        MissingExtra: lancedb is not installed.
        StoreError: The folder cannot be used, or its table is not a store's.
    """

    def __init__(self, path: str) -> None:
        if find_spec("lancedb") is None:
            raise MissingExtra("LanceStore", "lancedb", "lance")
        self.path = path
        self._lock = threading.Lock()
        self._commits = 0
        self._rows_written = 0
        self._rows_when_compacted = 0
        self._may_be_slow = True  # a process that died has compacted nothing
        self._lock_file = str(Path(path) / "ragasync.lock")
        self._is_read_only = False
        with clear_lance_errors(path):
            self._table: LanceTable | None = self._open()

    @contextmanager
    def reading(self) -> Iterator[LanceTable]:
        """Context manager for a read from the newest version of the table."""
        with clear_lance_errors(self.path):
            yield self._opened()

    @contextmanager
    def writing(self, rows: int = 0) -> Iterator[LanceTable]:
        """Context manager for a commit of a number of rows, with the write lock held."""
        if self._is_read_only:
            raise self._not_writable()
        with self._lock, clear_lance_errors(self.path), file_lock(self._lock_file):
            table = self._opened()
            yield table
            self._may_be_slow = True
            self._commits += 1
            self._rows_written += rows
            if self._commits >= _MAX_COMMITS or self._rows_written >= _MAX_ROWS:
                self._compact_if_grown(table)

    def check_writable(self) -> None:
        """
        Check that the folder can be written to.

        Raises:
            StoreNotWritable: The folder, or one in it, is read-only.
        """
        with self._lock, clear_lance_errors(self.path):
            if self._table is None:
                return  # each document's own error says that the store is closed
            if self._is_read_only:
                self._is_read_only = False  # it may have become writable
                self._table = self._open()
            try:
                for folder in (".", f"{_NAME}.lance", f"{_NAME}.lance/_versions"):
                    TemporaryFile(dir=Path(self.path) / folder).close()
            except OSError as error:
                if error.errno in _READ_ONLY:
                    raise self._not_writable() from error

    def _not_writable(self) -> StoreNotWritable:
        """Error about a read-only folder."""
        return StoreNotWritable(
            f"the store {self.path!r} is read-only: make its "
            "folder and all in it writable, or write to a copy"
        )

    def compact_for_searches(self) -> None:
        """Compact the table if a search would be slow otherwise."""
        if self._may_be_slow and not self._is_read_only:
            with self._lock, clear_lance_errors(self.path):
                self._compact_if_slow(self._opened())

    def close(self) -> None:
        """Compact the table if needed, and close it; calling it again has no effect."""
        with self._lock:
            table, self._table = self._table, None
            if table is not None and self._commits:
                self._compact_if_slow(table)

    def _open(self) -> LanceTable:
        """Open the table, create it if it is missing, or open it for reading only."""
        folder = Path(self.path)
        folder.mkdir(exist_ok=True)
        try:
            with file_lock(self._lock_file):
                table = _table_in(self.path)
                _index_words(table)
        except OSError as error:
            if error.errno not in _READ_ONLY or not (folder / f"{_NAME}.lance").is_dir():
                raise
            self._is_read_only = True
            table = _table_in(self.path)
        return table

    def _opened(self) -> LanceTable:
        """Table, if the store is not closed."""
        if self._table is None:
            raise StoreError(f"the store {self.path!r} is closed: open it again")
        return self._table

    def _compact_if_grown(self, table: LanceTable) -> None:
        """Compact the table if that does not copy many old rows for a few new ones."""
        has_grown = self._rows_written >= _MIN_GROWTH * self._rows_when_compacted
        if has_grown or self._commits >= 10 * _MAX_COMMITS:
            self._compact(table)

    def _compact_if_slow(self, table: LanceTable) -> None:
        """Compact the table if a search reads many rows without the index, or many files."""
        self._may_be_slow = False
        # A search works without it, and a write has to fail by itself where no file can be made.
        with suppress(*_LANCE_ERRORS), file_lock(self._lock_file):
            rows, files = table.count_rows(), table.stats()["fragment_stats"]["num_fragments"]
            [index] = table.list_indices()
            found = table.index_stats(index.name)
            unindexed = rows if found is None else found.num_unindexed_rows
            if (
                files > _MAX_COMMITS
                or unindexed > max(_MAX_UNINDEXED, _MAX_UNINDEXED_SHARE * rows)
                or self._has_old_versions()
            ):
                self._compact(table)

    def _compact(self, table: LanceTable) -> None:
        """Merge small files, index new words, and remove old versions."""
        self._commits, self._rows_written = 0, 0
        # It changes no contents: after an error, the rows are as they were.
        with suppress(*_LANCE_ERRORS):
            table.optimize(cleanup_older_than=_KEPT_FOR)
            self._rows_when_compacted = table.count_rows()

    def _has_old_versions(self) -> bool:
        """Whether many versions are old enough to be removed."""
        folder = Path(self.path, f"{_NAME}.lance", "_versions")
        until = time.time() - _KEPT_FOR.total_seconds()
        times = (file.stat().st_mtime for file in folder.glob("*.manifest"))
        return sum(at < until for at in times) > _MAX_OLD_VERSIONS


def embedder_of_column(table: LanceTable) -> StoredEmbedder | None:
    """Embedder that the column of vectors is for, which may be empty; None without the column."""
    schema = table.schema
    if "vector" not in schema.names:
        return None
    field = schema.field("vector")
    identity = field.metadata.get(_IDENTITY, b"").decode()
    return StoredEmbedder(field.metadata[_EMBEDDER].decode(), field.type.list_size, identity)


def stored_embedder(table: LanceTable) -> StoredEmbedder | None:
    """Embedder of the stored vectors; None if there are none."""
    return embedder_of_column(table) if table.count_rows("ordinal >= 0") else None


def add_vector_column(table: LanceTable, given: StoredEmbedder) -> None:
    """Add the column of vectors, with its embedder, in place of one without vectors."""
    import pyarrow as pa

    if "vector" in table.schema.names:
        table.drop_columns(["vector"])
    kind = pa.list_(pa.float32(), given.dimension)
    table.add_columns(pa.field("vector", kind, metadata=_metadata_of(given)))


def write_embedder(table: LanceTable, given: StoredEmbedder) -> None:
    """Replace the name and identity of the embedder."""
    texts = {key.decode(): value.decode() for key, value in _metadata_of(given).items()}
    table.update_field_metadata({"path": "vector", "metadata": texts})


def _metadata_of(given: StoredEmbedder) -> dict[bytes, bytes]:
    """Metadata of the column of vectors."""
    return {_EMBEDDER: given.name.encode(), _IDENTITY: given.identity.encode()}


def replace_rows(
    table: LanceTable, documents: Iterable[str], rows: pa.Table | pa.RecordBatchReader
) -> None:
    """Replace the rows of the documents with these digests by other rows, in one commit."""
    digests = ", ".join(f"'{document}'" for document in documents)
    (
        table.merge_insert("id")
        .when_matched_update_all()
        .when_not_matched_insert_all()
        .when_not_matched_by_source_delete(f"document IN ({digests})")
        .execute(rows)
    )


def _table_in(path: str) -> LanceTable:
    """Open the table in a folder, or create it."""
    import lancedb

    schema = table_schema().with_metadata({"ragasync_store": _VERSION})
    # Each operation looks for versions that another process has written.
    folder = lancedb.connect(path, read_consistency_interval=timedelta(0))
    if _NAME not in folder.list_tables().tables:
        folder.create_table(_NAME, schema=schema, exist_ok=True)
    table = folder.open_table(_NAME)
    if (table.schema.metadata or {}).get(b"ragasync_store") != _VERSION.encode():
        raise StoreError(
            f"the table {_NAME!r} in {path!r} is of another version: use the ragasync that wrote "
            "it, or start again with another folder"
        )
    return table


def _index_words(table: LanceTable) -> None:
    """Create the index of words, if there is none; they are already split and in lower case."""
    from lancedb.index import FTS

    if not table.list_indices():
        words = FTS(
            base_tokenizer="whitespace",
            stem=True,
            remove_stop_words=False,
            ascii_folding=True,
            with_position=False,
        )
        table.create_index("words", config=words)
