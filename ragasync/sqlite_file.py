"""A SQLite file of our own: created, recognised, or refused with a reason."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from ragasync.errors import RagasyncError


@dataclass(frozen=True, slots=True)
class Kind:
    """
    What sort of file it is.

    Args:
        what: what messages call it: "store", "journal".
        application_id: the number in the file's header that it is recognised by.
        version: the version of its schema.
        schema: the statements that make its tables.
        synchronous: how commits reach the disk, SQLite's NORMAL or FULL.
        error: what is raised when the file cannot be used.
    """

    what: str
    application_id: int
    version: int
    schema: str
    synchronous: str
    error: type[RagasyncError]


_BETWEEN_TRIES = 0.01

_SMALLEST = 512
"""Bytes of the smallest page, and so of the smallest database that is not empty."""


def open_database(path: str, kind: Kind, timeout: float) -> sqlite3.Connection:
    """
    Connect to a file of this kind, creating it where it is missing or empty.

    Args:
        path: the file, or ":memory:".
        kind: what it is to be.
        timeout: seconds to wait for another process that is writing.

    Returns:
        A connection for any thread, in autocommit mode: transactions are begun by hand.

    Raises:
        RagasyncError: of the kind's own class: the file is no database, another program's, of
            another version of the schema, locked for longer than `timeout`, damaged, or cannot
            be opened.
    """
    with clear_errors(path, kind, timeout):
        refuse_foreign_file(path, kind)
        connection = sqlite3.connect(
            path, timeout=timeout, isolation_level=None, check_same_thread=False
        )
        try:
            _create_or_recognise(connection, path, kind)
            _switch_to_wal(connection, timeout)
            full = kind.synchronous == "FULL"
            connection.execute(
                "PRAGMA synchronous = FULL" if full else "PRAGMA synchronous = NORMAL"
            )
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
    return connection


def open_unwritable(path: str, kind: Kind) -> sqlite3.Connection:
    """
    Connect to a file of this kind that cannot be written to, nor its folder, to read it.

    SQLite takes no locks then and sees no later change: where the file changes, open it again.

    Raises:
        RagasyncError: of the kind's own class, as `open_database`; also where a program that wrote
            to the file has left its log beside it, which cannot be read without writing.
    """
    with clear_errors(path, kind, 0):
        if _size(f"{_real(path)}-wal"):
            raise kind.error(
                f"the {kind.what} {path!r} has a log of changes beside it, and its folder is not "
                "writable: close it where it was written, or copy all of its files to a folder "
                "that is"
            )
        connection = open_unchanged(path, log=False)
        try:
            _recognise(connection, path, kind)
        except BaseException:
            connection.close()
            raise
    return connection


def is_read_only(error: BaseException | None) -> bool:
    """Return whether SQLite has failed to write to what can only be read."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_READONLY


def is_unwritable(error: BaseException | None) -> bool:
    """Return whether SQLite has failed because a file or its folder may not be written to."""
    cannot_open = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CANTOPEN
    return cannot_open or is_read_only(error)


def open_unchanged(path: str, *, log: bool, timeout: float = 5.0) -> sqlite3.Connection:
    """
    Connect to a database without writing to it, not even when it is closed.

    Only SQLite may open a file that it has open already: any other code that closes the file
    drops the locks that this process has on it.

    Args:
        path: the file.
        log: whether to read the write-ahead log too; without it, the connection shows what the
            last checkpoint left in the file of this name, and takes no locks.
        timeout: seconds to wait for a lock of another process.

    Raises:
        sqlite3.Error: there is no such file, or it cannot be opened.
    """
    address = f"{Path(path).absolute().as_uri()}?{'mode=ro' if log else 'immutable=1'}"
    return sqlite3.connect(
        address, timeout=timeout, uri=True, isolation_level=None, check_same_thread=False
    )


def check_pages(connection: sqlite3.Connection) -> None:
    """Read the whole file once; raise sqlite3.DatabaseError where pages of it are damaged."""
    # Not quick_check: it believes the index, and what that has lost would be done again.
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise damage(verdict)


def damage(what: str) -> sqlite3.DatabaseError:
    """Return the error that SQLite raises of a damaged file, for damage that it does not see."""
    return _sqlite_error(what, sqlite3.SQLITE_CORRUPT)


@contextmanager
def clear_errors(path: str, kind: Kind, timeout: float) -> Iterator[None]:
    """Turn SQLite's errors into the kind's own, and say of any what to do."""
    try:
        yield
    except UnicodeEncodeError as error:
        explain_surrogate(error)
        raise
    except UnicodeDecodeError as error:  # a damaged schema, or what SQLite says of it
        raise kind.error(f"the {kind.what} {path!r} {_damaged(error)}") from error
    except sqlite3.Error as error:
        raise kind.error(f"the {kind.what} {path!r} {_explained(error, timeout)}") from error


def explain_surrogate(error: UnicodeEncodeError) -> None:
    """Have the error about a text that UTF-8 cannot hold say what to do."""
    error.reason = (
        "a lone surrogate, which no file in UTF-8 can hold: mend the text or id, for instance "
        "by text.encode(errors='replace').decode()"
    )


@contextmanager
def transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    """Begin by this statement; commit at the end of the block, roll back if it raises."""
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk has rolled back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def refuse_foreign_file(path: str, kind: Kind) -> None:
    """
    Refuse a file that is neither empty nor of this kind while nothing can have changed it.

    SQLite takes a file of one byte for an empty one, and to close the database of another program
    would write its log into it: so the first look is through a connection that writes nothing.
    Nor does SQLite miss the last bytes of a file before it reads them.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110, PTH113  # any text
        raise kind.error(f"the {kind.what} {path!r} is no regular file: choose another path")
    size, log = _size(path), _size(f"{_real(path)}-wal")
    if 0 < size < _SMALLEST:
        raise _sqlite_error("file is too small for a database", sqlite3.SQLITE_NOTADB)
    if size == 0:
        return
    try:
        with closing(open_unchanged(path, log=log > 0)) as connection:
            is_foreign = _application(connection) != kind.application_id
            is_foreign = is_foreign and not _is_empty(connection)
            (page,) = connection.execute("PRAGMA page_size").fetchone()
    except sqlite3.DatabaseError:
        return  # what it is worth, it says when it is opened in full
    if is_foreign:
        raise _not_ours(path, kind)
    if not log and size % page:  # with a log, a checkpoint may have been killed
        raise damage(f"{size} bytes are not whole pages of {page}: it was cut off")


def _real(path: str) -> str:
    """Return the path of the file itself, beside which SQLite keeps the log."""
    return path if "\0" in path else os.path.realpath(path)


def _size(path: str) -> int:
    """Return the size of a file in bytes; 0 where there is none, or none that can be looked at."""
    try:
        return os.stat(path).st_size  # noqa: PTH116  # any text, as SQLite takes it
    except (OSError, ValueError):
        return 0


def _create_or_recognise(connection: sqlite3.Connection, path: str, kind: Kind) -> None:
    """Create the tables in an empty file; refuse any other file but one of this kind."""
    # Nothing is written before the file is known to be ours or empty.
    if _is_empty(connection):
        with transaction(connection, "BEGIN IMMEDIATE"):
            # Once more: another process may have come first.
            if _is_empty(connection):
                for statement in _statements(kind):
                    connection.execute(statement)
    _recognise(connection, path, kind)


def _recognise(connection: sqlite3.Connection, path: str, kind: Kind) -> None:
    """Refuse any file but one of this kind."""
    if _application(connection) != kind.application_id:
        raise _not_ours(path, kind)
    version = _version(connection)
    if version != kind.version:
        raise kind.error(
            f"the {kind.what} {path!r} has version {version} of the schema, and this ragasync "
            f"reads version {kind.version}: use the ragasync that wrote it, or begin anew in "
            "another file"
        )


def _switch_to_wal(connection: sqlite3.Connection, timeout: float) -> None:
    """Have readers and a writer get along; wait for others that are opening the file as well."""
    deadline = monotonic() + timeout
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            # Of two that read and both want the file for themselves, SQLite sends one away at once.
            is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or monotonic() >= deadline:
                raise
        sleep(_BETWEEN_TRIES)


def _version(connection: sqlite3.Connection) -> int:
    """Return the version of the schema that a file says of itself."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _application(connection: sqlite3.Connection) -> int:
    """Return the number in a file's header that says which program's it is."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    return int(application)


def _is_empty(connection: sqlite3.Connection) -> bool:
    """Tell whether nobody has put anything into the file."""
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return not tables and not _application(connection) and not _version(connection)


def _not_ours(path: str, kind: Kind) -> RagasyncError:
    """Return the error about a database of another program."""
    return kind.error(
        f"{path!r} is a database, but not a {kind.what} of ragasync's: choose another path"
    )


def _sqlite_error(what: str, code: int) -> sqlite3.DatabaseError:
    """Return an error as SQLite raises it, with its code."""
    error = sqlite3.DatabaseError(what)
    error.sqlite_errorcode = code
    return error


def _statements(kind: Kind) -> Iterator[str]:
    """Give the statements of the schema one by one: `executescript` would commit before them."""
    statement = ""
    for line in kind.schema.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    # A pragma takes no parameters; both are numbers of our own.
    yield f"PRAGMA application_id = {kind.application_id:d}"
    yield f"PRAGMA user_version = {kind.version:d}"


def _damaged(error: Exception) -> str:
    """Say what is to be done about a file that cannot be trusted."""
    return f"is damaged ({error}): restore it from a copy, or begin anew in another file"


def _explained(error: sqlite3.Error, timeout: float) -> str:
    """Say what an error of SQLite's means for the user of the file."""
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return (
                f"is locked by another process for more than {timeout:g} s: wait for it, "
                "or pass a longer timeout="
            )
        case sqlite3.SQLITE_NOTADB:
            return "is no SQLite database: choose another path"
        case sqlite3.SQLITE_CORRUPT:
            return _damaged(error)
        case sqlite3.SQLITE_CANTOPEN:
            return f"cannot be opened ({error}): the folder must exist and be writable"
        case sqlite3.SQLITE_READONLY:
            return (
                f"can only be read ({error}): make its file and its folder writable, or write to "
                "a copy"
            )
        case sqlite3.SQLITE_FULL | sqlite3.SQLITE_IOERR:
            return (
                f"cannot be written ({error}): make room on the disk and run again; "
                "what was written before is safe"
            )
        case _:
            return f"cannot be used: {error}"
