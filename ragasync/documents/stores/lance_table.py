"""The table of a LanceStore: its columns, and how it is opened, written and tidied."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from ragasync.documents.store import StoredEmbedder, StoreError, StoreNotWritable
from ragasync.documents.stores.file_lock import file_lock
from ragasync.errors import MissingExtra, RagasyncError
from ragasync.sqlite_file import explain_surrogate

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import LanceTable

_NAME = "ragasync_chunks"
_VERSION = "3"
_WHOSE, _IDENTITY = b"embedder", b"identity"
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)

# Each document is a commit, which leaves a small file, and its words wait for their index: after
# so many of either, and when the rows have grown by a fifth, files are joined and words indexed.
# Both, because joining copies what was joined before.
_COMMITS = 100
_ROWS = 5_000
_GROWTH = 0.2

# A search compares the words of rows that are not indexed one by one: 500 take some milliseconds.
_UNINDEXED = 500
_SHARE_UNINDEXED = 0.02

# Another process may still be reading what was joined an hour ago; nobody searches for as long.
_KEPT_FOR = timedelta(hours=1)


@contextmanager
def clear_lance_errors(path: str) -> Iterator[None]:
    """Turn Lance's errors into the store's own."""
    try:
        yield
    except UnicodeEncodeError as error:
        explain_surrogate(error)
        raise
    except RagasyncError:
        raise
    except (RuntimeError, OSError, ValueError) as error:
        raise StoreError(f"the store {path!r} cannot be used: {error}") from error


class LanceRows:
    """
    One Lance table with a row a chunk, and a row a document.

    A commit is whole or not at all. Threads and processes take turns at writing: two that insert
    the same document at the same time would both succeed, and leave it there twice.

    Args:
        path: The folder, created where it is missing.

    Raises:
        MissingExtra: When lancedb is not installed.
        StoreError: When the folder cannot be used, or its table is none of ours.
    """

    def __init__(self, path: str) -> None:
        if find_spec("lancedb") is None:
            raise MissingExtra("LanceStore", "lancedb", "lance")
        self.path = path
        self._lock = threading.Lock()
        self._commits = 0
        self._written = 0
        self._tidied_at = 0
        self._may_be_untidy = False
        self._lock_file = str(Path(path) / "ragasync.lock")
        self._is_read_only = False
        with clear_lance_errors(path):
            self._table: LanceTable | None = self._open()

    @contextmanager
    def reading(self) -> Iterator[LanceTable]:
        """Give the table as it is now."""
        with clear_lance_errors(self.path):
            yield self._opened()

    @contextmanager
    def writing(self, rows: int = 0) -> Iterator[LanceTable]:
        """Give the table to one thread at a time for one commit of so many rows."""
        if self._is_read_only:
            raise self._not_writable()
        with self._lock, clear_lance_errors(self.path), file_lock(self._lock_file):
            table = self._opened()
            yield table
            self._may_be_untidy = True
            self._commits += 1
            self._written += rows
            if self._commits >= _COMMITS or self._written >= _ROWS:
                self._tidy(table)

    def check_writable(self) -> None:
        """
        Raise an error where the folder can only be read.

        Raises:
            StoreNotWritable: it may not be written to.
        """
        with self._lock, clear_lance_errors(self.path):
            if self._table is None:
                return  # each document will say so
            if self._is_read_only:
                self._is_read_only = False  # it may have been made writable since
                self._table = self._open()
            try:
                for folder in (".", f"{_NAME}.lance", f"{_NAME}.lance/_versions"):
                    TemporaryFile(dir=Path(self.path) / folder).close()
            except OSError as error:
                if error.errno in _READ_ONLY:
                    raise self._not_writable() from error

    def _not_writable(self) -> StoreNotWritable:
        """Return the error about a folder that can only be read."""
        return StoreNotWritable(
            f"the store {self.path!r} is read-only: make its "
            "folder and all in it writable, or write to a copy"
        )

    def tidy_for_searches(self) -> None:
        """Tidy what this process has written, where searches would be slow otherwise."""
        if self._may_be_untidy:
            with self._lock, clear_lance_errors(self.path), file_lock(self._lock_file):
                self._tidy_if_slow(self._opened())

    def close(self) -> None:
        """Tidy what was written last, and let go of the table; once more does no harm."""
        with self._lock, clear_lance_errors(self.path):
            table, self._table = self._table, None
            if table is not None and self._may_be_untidy:
                with file_lock(self._lock_file):
                    self._tidy_if_slow(table)

    def _open(self) -> LanceTable:
        """Open the table, or make it where there is none; for reading alone where it has to be."""
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
        """Return the table, or say that it is closed."""
        if self._table is None:
            raise StoreError(f"the store {self.path!r} is closed: open it again")
        return self._table

    def _tidy(self, table: LanceTable) -> None:
        """Join small files and index new words, where enough has come since the last time."""
        grown = self._written >= _GROWTH * self._tidied_at
        if grown or self._commits >= 10 * _COMMITS:
            self._optimize(table)

    def _tidy_if_slow(self, table: LanceTable) -> None:
        """Do the same where a search reads many rows without the index, or many files."""
        self._may_be_untidy = False
        rows, files = table.count_rows(), table.stats()["fragment_stats"]["num_fragments"]
        [index] = table.list_indices()
        found = table.index_stats(index.name)
        unindexed = rows if found is None else found.num_unindexed_rows
        if files > _COMMITS or unindexed > max(_UNINDEXED, _SHARE_UNINDEXED * rows):
            self._optimize(table)

    def _optimize(self, table: LanceTable) -> None:
        """Join small files and index new words."""
        table.optimize(cleanup_older_than=_KEPT_FOR)
        self._commits, self._written, self._tidied_at = 0, 0, table.count_rows()


def embedder_of_column(table: LanceTable) -> StoredEmbedder | None:
    """Return whose vectors the column of vectors is for, even while there are none."""
    if "vector" not in table.schema.names:
        return None
    field = table.schema.field("vector")
    identity = field.metadata.get(_IDENTITY, b"").decode()
    return StoredEmbedder(field.metadata[_WHOSE].decode(), field.type.list_size, identity)


def stored_embedder(table: LanceTable) -> StoredEmbedder | None:
    """Return whose vectors are in it; None while there are none."""
    return embedder_of_column(table) if table.count_rows("ordinal >= 0") else None


def make_room_for_vectors(table: LanceTable, given: StoredEmbedder) -> None:
    """Add the column of vectors, which says whose they are, in place of one without any."""
    import pyarrow as pa

    if "vector" in table.schema.names:
        table.drop_columns(["vector"])
    kind = pa.list_(pa.float32(), given.dimension)
    table.add_columns(pa.field("vector", kind, metadata=_metadata_of(given)))


def write_embedder(table: LanceTable, given: StoredEmbedder) -> None:
    """Write whose vectors are stored over what is there."""
    texts = {key.decode(): value.decode() for key, value in _metadata_of(given).items()}
    table.update_field_metadata({"path": "vector", "metadata": texts})


def _metadata_of(given: StoredEmbedder) -> dict[bytes, bytes]:
    """Return what the column of vectors says of them."""
    return {_WHOSE: given.name.encode(), _IDENTITY: given.identity.encode()}


def as_rows(table: LanceTable, columns: Mapping[str, Sequence[Any] | pa.Array]) -> pa.Table:
    """Return columns as rows of the table."""
    import pyarrow as pa

    arrays = {
        field.name: column
        if isinstance(column := columns[field.name], pa.Array)
        else pa.array(column, field.type)
        for field in table.schema
    }
    return pa.table(arrays)


def replace_rows(
    table: LanceTable, documents: Iterable[str], rows: pa.Table | pa.RecordBatchReader
) -> None:
    """Write rows over those of the documents with these digests, in one commit."""
    digests = ", ".join(f"'{document}'" for document in documents)
    (
        table.merge_insert("id")
        .when_matched_update_all()
        .when_not_matched_insert_all()
        .when_not_matched_by_source_delete(f"document IN ({digests})")
        .execute(rows)
    )


def _table_in(path: str) -> LanceTable:
    """Open the table in a folder, or make it."""
    import lancedb
    import pyarrow as pa

    texts = ["id", "document", "document_id", "source", "file", "fingerprint", "text"]
    texts += ["text_digest", "of_document", "of_chunk", "words"]
    fields = [pa.field(name, pa.string()) for name in texts]
    fields += [pa.field(name, pa.int64()) for name in ("ordinal", "start", "end")]
    fields.append(pa.field("facts", pa.json_()))
    schema = pa.schema(fields, metadata={"ragasync_store": _VERSION})
    # Nothing is read from memory that another process may have changed.
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
    """Make the index of words, which are split and in lower case already; once a table."""
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
