"""LanceStore: documents, vectors and keywords in a LanceDB folder, larger than memory."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from ragasync.arguments import explains_arguments
from ragasync.documents.store import (
    RunRefused,
    StoredEmbedder,
    StoreError,
    StoreNotWritable,
)
from ragasync.documents.stores import LocalStore
from ragasync.documents.stores.lance_rows import (
    LanceRows,
    StoredEntries,
    as_rows_of_each,
    columns_of,
    table_schema,
)
from ragasync.documents.stores.requests import Embed, Result, StorableDocument
from ragasync.documents.stores.sqlite_rows import SpareTables
from ragasync.errors import MissingExtra, RagasyncError
from ragasync.sqlite_file import (
    SqliteFormat,
    convert_errors,
    explain_surrogate,
    open_database,
    transaction,
)

if TYPE_CHECKING:
    from lancedb import DBConnection
    from lancedb.table import LanceTable

if sys.platform != "win32":
    import fcntl


@explains_arguments
class LanceStore(LocalStore):
    """
    A store in a LanceDB folder, with search by vectors, by keywords, or by both.

    It has the methods of SqliteStore, but keeps no vectors in memory, which suits more than about
    200,000 chunks. Each commit writes a file, so `upsert_many` is much faster than many calls of
    `upsert`; small files are merged from time to time. Several processes may read and write it
    concurrently; on Windows, only one may write.

    Example:
        >>> from ragasync import AsyncDocumentProcessor
        >>> from ragasync.documents import LanceStore
        >>> texts = [("guide", "A bucket refills.")]
        >>> with LanceStore("library.lance") as store:
        ...     _ = AsyncDocumentProcessor(store=store).process_sync(texts)
        ...     print(store.search("how does a bucket refill?", k=3)[0].text)
        A bucket refills.

    Args:
        path: The folder, on a local disk; it is created if it is missing.
        embedder: Embeds the text of a search, as for SqliteStore.

    Raises:
        MissingExtra: If lancedb is not installed.
        StoreError: If the folder is not a store, or cannot be used.
    """

    def __init__(self, path: str | os.PathLike[str], embedder: Embed | None = None) -> None:
        full = os.path.abspath(path)  # noqa: PTH100  # a link stays one
        super().__init__(os.fspath(path), LanceFolder(full), embedder)


_SPARE_TIMEOUT = 10.0
_SPARE = SqliteFormat(
    name="file of spare vectors",
    application_id=0x72616776,  # "ragv"
    version=1,
    schema="",
    synchronous="NORMAL",
    error=StoreError,
)

_NAME = "ragasync_chunks"
_VERSION = "4"
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_SPACE = os.strerror(errno.ENOSPC)
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
        # Lance's own errors have no errno, but name the system's.
        if getattr(error, "errno", None) == errno.ENOSPC or _NO_SPACE in str(error):
            raise StoreNotWritable(
                f"the store {path!r} cannot be used ({_NO_SPACE}): free space on the disk and run "
                "again; what was written before is safe"
            ) from error
        raise StoreError(f"the store {path!r} cannot be used: {error}") from error


class LanceFolder:
    """
    A Lance table with one row per chunk and one per document.

    A commit is atomic. Threads and processes take turns to write: if two inserted the same document
    concurrently, both would succeed, and it would be stored twice.

    Args:
        path: The folder, created if it is missing.
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
        self._entries = StoredEntries()
        with clear_lance_errors(path):
            self._folder: DBConnection | None = self._open()

    columns_of = staticmethod(columns_of)

    @contextmanager
    def reading(self) -> Iterator[LanceRows]:
        """Context manager for reads from one version of the table, the newest."""
        with clear_lance_errors(self.path):
            yield LanceRows(self._opened(), self.path, self._entries)

    def searching(self) -> AbstractContextManager[LanceRows]:
        """Read from the newest version of the table, compacted if a search would be slow."""
        if self._may_be_slow and not self._is_read_only:
            with self._lock, clear_lance_errors(self.path):
                self._compact_if_slow(self._opened())
        return self.reading()

    def write(self, documents: Sequence[StorableDocument], given: StoredEmbedder) -> list[Result]:
        """Write documents in one commit; each that cannot be stored fails alone."""
        rows, results = as_rows_of_each([each.columns for each in documents])
        fit = [place for place, result in enumerate(results) if result is None]
        if rows is None:
            return results
        with self.writing(rows.num_rows) as stored:
            written = stored.write([documents[place] for place in fit], rows, given)
        for place, result in zip(fit, written, strict=True):
            results[place] = result
        if self._spare_file.exists():
            new = (documents[place] for place, result in enumerate(results) if result is None)
            # What stays after an error is of no harm, and is dropped when it is stored again.
            with suppress(StoreError), self.spare(writing=True) as spare:
                spare.drop(text for each in new for text in each.columns["text"][1:])
        return results

    @contextmanager
    def spare(self, *, writing: bool = False) -> Iterator[SpareTables]:
        """Transaction on the spare vectors, in a file of their own; few folders have one."""
        self._opened()
        path = str(self._spare_file) if writing or self._spare_file.exists() else ":memory:"
        with (
            convert_errors(path, _SPARE, _SPARE_TIMEOUT),
            closing(open_database(path, _SPARE, _SPARE_TIMEOUT)) as db,
            transaction(db, "BEGIN IMMEDIATE" if writing else "BEGIN"),
        ):
            yield SpareTables(db)

    @property
    def _spare_file(self) -> Path:
        return Path(self.path) / "ragasync-spare.sqlite"

    def is_of_one_document(self, error: StoreError) -> bool:
        """Whether an error of writing is about a document, and not about the folder."""
        return isinstance(error, RunRefused)

    @contextmanager
    def writing(self, rows: int = 0) -> Iterator[LanceRows]:
        """Context manager for a commit of a number of rows, with the write lock held."""
        if self._is_read_only:
            raise self._not_writable()
        with self._lock, clear_lance_errors(self.path), file_lock(self._lock_file):
            table = self._opened()
            yield LanceRows(table, self.path, self._entries)
            self._may_be_slow = True
            self._commits += 1
            self._rows_written += rows
            if self._commits >= _MAX_COMMITS or self._rows_written >= _MAX_ROWS:
                self._compact_if_grown(table)

    def check_writable(self) -> None:
        """Check that the folder can be written to."""
        with self._lock, clear_lance_errors(self.path):
            if self._folder is None:
                return  # each document's own error says that the store is closed
            if self._is_read_only:
                self._is_read_only = False  # it may have become writable
                self._folder = self._open()
            try:
                for folder in (".", f"{_NAME}.lance", f"{_NAME}.lance/_versions"):
                    TemporaryFile(dir=Path(self.path) / folder).close()
            except OSError as error:
                if error.errno in _READ_ONLY:
                    raise self._not_writable() from error

    def _not_writable(self) -> StoreNotWritable:
        return StoreNotWritable(
            f"the store {self.path!r} is read-only: make its "
            "folder and all in it writable, or write to a copy"
        )

    def close(self) -> None:
        """Compact the table if needed, and close it; calling it again has no effect."""
        with self._lock:
            if self._folder is not None and self._commits:
                with suppress(*_LANCE_ERRORS):  # the folder may be gone
                    self._compact_if_slow(self._opened())
            self._folder = None

    def _open(self) -> DBConnection:
        """Connect to the folder; create the table if it is missing, if that is possible."""
        import lancedb

        Path(self.path).mkdir(exist_ok=True)
        folder = lancedb.connect(self.path)
        try:
            with file_lock(self._lock_file):
                _index_words(_table_in(folder, self.path))
        except OSError as error:
            if error.errno not in _READ_ONLY or not Path(self.path, f"{_NAME}.lance").is_dir():
                raise
            self._is_read_only = True
            _table_in(folder, self.path)
        return folder

    def _opened(self) -> LanceTable:
        """The newest version of the table, if the store is not closed."""
        folder = self._folder
        if folder is None:
            raise StoreError(f"the store {self.path!r} is closed: open it again")
        return folder.open_table(_NAME)

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


def _table_in(folder: DBConnection, path: str) -> LanceTable:
    schema = table_schema().with_metadata({"ragasync_store": _VERSION})
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
