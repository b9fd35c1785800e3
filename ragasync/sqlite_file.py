"""SQLite files of ragasync: created, or checked and rejected with a clear error."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from time import monotonic, sleep

from ragasync.errors import RagasyncError


@dataclass(frozen=True, slots=True)
class SqliteFormat:
    """
    The format of a SQLite file.

    Args:
        name: its name in error messages: "store", "journal".
        application_id: the number in the file's header that identifies the format.
        version: the version of its schema.
        schema: the statements that create its tables.
        synchronous: SQLite's setting for when commits reach the disk, NORMAL or FULL.
        error: the error raised when the file cannot be used.
        pragmas: statements for each connection that may write.
    """

    name: str
    application_id: int
    version: int
    schema: str
    synchronous: str
    error: type[RagasyncError]
    pragmas: str = ""


_RETRY_INTERVAL = 0.01

_MIN_SIZE = 512
"""Bytes of the smallest page, and so of the smallest database that is not empty."""


def open_database(path: str, file_format: SqliteFormat, timeout: float) -> sqlite3.Connection:
    """
    Connect to a database file of this format, and create it if it is missing or empty.

    Args:
        path: the file, or ":memory:".
        file_format: the expected format.
        timeout: seconds to wait for another process that is writing.

    Returns:
        A connection for any thread, in autocommit mode; use `transaction` to group statements.

    Raises:
        RagasyncError: the format's own error: the file is not a database, belongs to another
            program, has another version of the schema, is locked for longer than `timeout`, is
            damaged, or cannot be opened.
    """
    with convert_errors(path, file_format, timeout):
        reject_foreign_file(path, file_format)
        connection = sqlite3.connect(
            path, timeout=timeout, isolation_level=None, check_same_thread=False
        )
        try:
            connection.executescript(file_format.pragmas)
            _create_or_check(connection, path, file_format)
            _use_wal(connection, timeout)
            full = file_format.synchronous == "FULL"
            connection.execute(
                "PRAGMA synchronous = FULL" if full else "PRAGMA synchronous = NORMAL"
            )
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
    return connection


def open_read_only(path: str, file_format: SqliteFormat) -> sqlite3.Connection:
    """
    Connect to a database file of this format that is read-only, and whose folder is too.

    SQLite then takes no locks and does not see later changes; open the file again after a change.

    Raises:
        RagasyncError: the format's own error, as for `open_database`; also if a program that wrote
            to the file left its write-ahead log, which cannot be read without writing.
    """
    with convert_errors(path, file_format, 0):
        if _size(f"{_real(path)}-wal"):
            raise file_format.error(
                f"the {file_format.name} {path!r} has a write-ahead log, and its folder is not "
                "writable: close the program that wrote it, or copy all of its files to a writable "
                "folder"
            )
        connection = connect_read_only(path, log=False)
        try:
            _check_format(connection, path, file_format)
        except BaseException:
            connection.close()
            raise
    return connection


def is_read_only(error: BaseException | None) -> bool:
    """Whether an error of SQLite is about writing to a read-only file."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_READONLY


def is_full(error: BaseException | None) -> bool:
    """Whether an error of SQLite is about a disk without room."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


def is_unwritable(error: BaseException | None) -> bool:
    """Whether an error of SQLite is about a file or folder that is not writable."""
    cannot_open = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CANTOPEN
    return cannot_open or is_read_only(error)


def connect_read_only(path: str, *, log: bool, timeout: float = 5.0) -> sqlite3.Connection:
    """
    Connect to a database without ever writing to it, not even when the connection is closed.

    A file that SQLite has open must be read through SQLite as well: POSIX drops all locks of this
    process on a file as soon as any code closes it.

    Args:
        path: the file.
        log: whether to read the write-ahead log too; without it, the connection shows the state of
            the last checkpoint, and takes no locks.
        timeout: seconds to wait for a lock of another process.

    Raises:
        sqlite3.Error: the file does not exist or cannot be opened.
    """
    address = f"{Path(path).absolute().as_uri()}?{'mode=ro' if log else 'immutable=1'}"
    return sqlite3.connect(
        address, timeout=timeout, uri=True, isolation_level=None, check_same_thread=False
    )


def check_integrity(connection: sqlite3.Connection) -> None:
    """Read the whole database once; raise sqlite3.DatabaseError if a page is damaged."""
    # quick_check trusts the index; items missing from a damaged index would be processed again.
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise corruption_error(verdict)


def corruption_error(reason: str) -> sqlite3.DatabaseError:
    """Error of a damaged file, as SQLite raises it, for damage that SQLite does not detect."""
    return _sqlite_error(reason, sqlite3.SQLITE_CORRUPT)


@contextmanager
def convert_errors(path: str, file_format: SqliteFormat, timeout: float) -> Iterator[None]:
    """Convert SQLite's errors into the format's own error, with advice."""
    try:
        yield
    except UnicodeEncodeError as error:
        explain_surrogate(error)
        raise
    except UnicodeDecodeError as error:  # from a damaged schema, or from the text of SQLite's error
        raise file_format.error(
            f"the {file_format.name} {path!r} {_corruption_text(error)}"
        ) from error
    except sqlite3.Error as error:
        raise file_format.error(
            f"the {file_format.name} {path!r} {_error_text(error, timeout)}"
        ) from error


def explain_surrogate(error: UnicodeEncodeError) -> None:
    """Add advice to the error about a string that cannot be encoded as UTF-8."""
    error.reason = (
        "a lone surrogate, which UTF-8 cannot encode: replace it in the text or id, for instance "
        "by text.encode(errors='replace').decode()"
    )


@contextmanager
def transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    """Run a block in a transaction: commit at its end, roll back if it raises."""
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite itself rolls back when the disk is full.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@lru_cache
def with_rows(statement: str, rows: int, columns: int) -> str:
    """Statement with placeholders for a number of rows of values in place of `$rows`."""
    row = f"({', '.join('?' * columns)})"
    return statement.replace("$rows", f"VALUES {', '.join([row] * rows)}")


def reject_foreign_file(path: str, file_format: SqliteFormat) -> None:
    """
    Reject a file that is neither empty nor of this format, before anything can change it.

    SQLite treats a file of one byte as empty, and closing the database of another program would
    write that program's log into it. So the file is checked through a connection that does not
    write. SQLite also does not notice that the end of a file is missing until it reads it.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110, PTH113  # path may be any string
        raise file_format.error(
            f"the {file_format.name} {path!r} is not a regular file: choose another path"
        )
    size, log = _size(path), _size(f"{_real(path)}-wal")
    if 0 < size < _MIN_SIZE:
        raise _sqlite_error("file is too small for a database", sqlite3.SQLITE_NOTADB)
    if size == 0:
        return
    try:
        with closing(connect_read_only(path, log=log > 0)) as connection:
            is_foreign = _application(connection) != file_format.application_id
            is_foreign = is_foreign and not _is_empty(connection)
            (page,) = connection.execute("PRAGMA page_size").fetchone()
    except sqlite3.DatabaseError:
        return  # opening the database will raise the error
    if is_foreign:
        raise _foreign_error(path, file_format)
    if not log and size % page:  # with a log, the last checkpoint may be incomplete
        raise corruption_error(f"{size} bytes are not whole pages of {page}: it was cut off")


def _real(path: str) -> str:
    """Real path of a file, next to which SQLite keeps the log."""
    return path if "\0" in path else os.path.realpath(path)


def _size(path: str) -> int:
    """Size of a file in bytes; 0 if it is missing or not accessible."""
    try:
        return os.stat(path).st_size  # noqa: PTH116  # path may be any string that SQLite accepts
    except (OSError, ValueError):
        return 0


def _create_or_check(connection: sqlite3.Connection, path: str, file_format: SqliteFormat) -> None:
    """Create the tables in an empty file, and check the format of the file."""
    # Write nothing before the file is known to be empty.
    if _is_empty(connection):
        with transaction(connection, "BEGIN IMMEDIATE"):
            # Check again in the transaction: another process may have been first.
            if _is_empty(connection):
                for statement in _schema_statements(file_format):
                    connection.execute(statement)
    _check_format(connection, path, file_format)


def _check_format(connection: sqlite3.Connection, path: str, file_format: SqliteFormat) -> None:
    """Reject a database of another format or version."""
    if _application(connection) != file_format.application_id:
        raise _foreign_error(path, file_format)
    version = _version(connection)
    if version != file_format.version:
        raise file_format.error(
            f"the {file_format.name} {path!r} has version {version} of the schema, and this "
            f"ragasync reads version {file_format.version}: use the ragasync that wrote it, or "
            "start again with another file"
        )


def _use_wal(connection: sqlite3.Connection, timeout: float) -> None:
    """Turn on the write-ahead log; wait for other processes that are opening the file."""
    deadline = monotonic() + timeout
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            # Of two readers that both want an exclusive lock, SQLite fails one without waiting.
            is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or monotonic() >= deadline:
                raise
        sleep(_RETRY_INTERVAL)


def _version(connection: sqlite3.Connection) -> int:
    """Schema version in the file's header."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _application(connection: sqlite3.Connection) -> int:
    """Application id in the file's header, which identifies the program that wrote it."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    return int(application)


def _is_empty(connection: sqlite3.Connection) -> bool:
    """Whether a database has no tables, application id or version."""
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return not tables and not _application(connection) and not _version(connection)


def _foreign_error(path: str, file_format: SqliteFormat) -> RagasyncError:
    """Error of a database of another program."""
    return file_format.error(
        f"{path!r} is a database, but not a {file_format.name} of ragasync: choose another path"
    )


def _sqlite_error(message: str, code: int) -> sqlite3.DatabaseError:
    """Error as SQLite raises it, with an error code."""
    error = sqlite3.DatabaseError(message)
    error.sqlite_errorcode = code
    return error


def _schema_statements(file_format: SqliteFormat) -> Iterator[str]:
    """Statements of the schema one by one, because `executescript` would commit first."""
    statement = ""
    for line in file_format.schema.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    # Pragmas take no parameters; both values are constants of ours.
    yield f"PRAGMA application_id = {file_format.application_id:d}"
    yield f"PRAGMA user_version = {file_format.version:d}"


def _corruption_text(error: Exception) -> str:
    """Error message, with advice, of a damaged file."""
    return f"is damaged ({error}): restore it from a copy, or start again with another file"


def _error_text(error: sqlite3.Error, timeout: float) -> str:
    """Error message, with advice, for an error of SQLite."""
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return (
                f"has been locked by another process for more than {timeout:g} s: wait for it to "
                "finish, or pass a longer timeout="
            )
        case sqlite3.SQLITE_NOTADB:
            return "is not a SQLite database: choose another path"
        case sqlite3.SQLITE_CORRUPT:
            return _corruption_text(error)
        case sqlite3.SQLITE_CANTOPEN:
            return f"cannot be opened ({error}): the folder must exist and be writable"
        case sqlite3.SQLITE_READONLY:
            return (
                f"is read-only ({error}): make the file and its folder writable, or write to a copy"
            )
        case sqlite3.SQLITE_FULL | sqlite3.SQLITE_IOERR:
            return (
                f"cannot be written ({error}): free space on the disk and run again; what was "
                "written before is safe"
            )
        case _ if isinstance(error, sqlite3.ProgrammingError) and "closed" in str(error):
            return "is closed: open it again"
        case _:
            return f"cannot be used: {error}"
