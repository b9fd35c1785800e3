"""JournalLock: which run may write a journal, by lock files and a holder in the file's header."""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from secrets import token_hex
from typing import Final, NamedTuple
from zlib import crc32

from ragasync.errors import JournalError
from ragasync.sqlite_file import SqliteFormat, connect_read_only, convert_errors

_OPEN: Final = "open "
"""Prefix of the holder in the header until the run has closed the journal properly."""


class Holder(NamedTuple):
    """
    The run that holds a journal, as named in the journal's header.

    Args:
        token: a random token, unique to the run.
        lock: a file that is locked as long as the run lives.
        pid: the number of its process, for error messages.
    """

    token: str
    lock: str
    pid: int


class JournalLock:
    """
    The lock of one run on a journal, from its beginning to its end.

    A lock file next to the journal excludes a second run. But anyone can delete that file, and a
    second run could then lock a new file of the same name; and a journal may have several names. So
    there is a second lock file in the system's temporary folder, named after the journal's inode;
    and the first commit writes the holder into the journal's header. The system releases both locks
    when the process ends, for whatever reason.

    The lock file next to the journal also counts the commits. The log of a killed run is valid only
    up to its last complete commit, and only a count outside the log can show that there were more.

    Another machine or container does not see the second lock, so that a run there could take over
    from a living one. The living one then finds its holder replaced when it commits, before
    anything is written.

    Args:
        path: the journal.
        file_format: the format of journals, for errors.

    Raises:
        JournalError: another run, in this or another process, holds the journal.
    """

    def __init__(self, path: str, file_format: SqliteFormat) -> None:
        self._path = path
        self._connections = [_lock_next_to(path, file_format)]
        self._inode_lock = ""

    def lock_inode(self, file: os.stat_result) -> None:
        """
        Lock the journal's inode too, as soon as the file exists.

        Raises:
            JournalError: another run holds it, perhaps under another name.
        """
        if self._inode_lock:
            return
        lock = Path(tempfile.gettempdir(), f"ragasync-{file.st_dev:x}-{file.st_ino:x}.lock")
        try:
            self._connections.append(_lock_exclusively(str(lock)))
        except sqlite3.OperationalError as error:
            if _is_busy(error):
                raise in_use(self._path) from error
            return  # not writable, or another user's file: the first lock has to suffice
        self._inode_lock = str(lock)

    def new_holder(self) -> str:
        """The holder to write into the journal's header, with a new token."""
        return _OPEN + json.dumps(Holder(token_hex(8), self._inode_lock, os.getpid()))

    def set_commits(self, journal_id: str, commits: int) -> None:
        """Store the number of commits of a journal in the lock file."""
        with suppress(sqlite3.Error):  # on a full disk, only the comparison is lost
            numbers = {"application_id": _number_of(journal_id), "user_version": commits}
            for pragma, number in numbers.items():
                setting = f"PRAGMA {pragma} = {number:d}"  # a pragma takes no parameters
                self._connections[0].execute(setting)

    def min_commits(self, journal_id: str) -> int | None:
        """The commits that a journal has at least; None if the lock file is of another journal."""
        (number,) = self._connections[0].execute("PRAGMA application_id").fetchone()
        (commits,) = self._connections[0].execute("PRAGMA user_version").fetchone()
        return int(commits) if number == _number_of(journal_id) else None

    def living_rival(self, text: str) -> Holder | None:
        """The holder named in a header, if its run lives as far as this process can see."""
        try:
            holder = Holder(*json.loads(text.removeprefix(_OPEN)))
            if holder.lock == self._inode_lock:
                return None  # the same inode, whose lock this run holds
            with closing(connect_read_only(holder.lock, log=True, timeout=0.0)) as connection:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            return holder if _is_busy(error) else None
        except (TypeError, ValueError, sqlite3.Error):
            return None
        return None

    def release(self) -> None:
        """Release both locks."""
        with suppress(OSError):
            Path(self._inode_lock or ".").unlink()
        for connection in self._connections:
            with suppress(sqlite3.Error):
                connection.close()


def lock_file(path: str) -> str:
    """Path of the lock file next to a journal, the same for all links to the journal."""
    return f"{os.path.realpath(path)}-lock"


def is_open(holder: str) -> bool:
    """Whether a holder is of a run that did not close the journal properly."""
    return holder.startswith(_OPEN)


def in_use(path: str, holder: Holder | None = None) -> JournalError:
    """Error of a second run on a journal."""
    process = "" if holder is None else f" (process {holder.pid})"
    return JournalError(
        f"the journal {path!r} is in use by another run{process}: wait for it to end, or stop it; "
        "two runs of one job would do everything twice"
    )


def _lock_next_to(path: str, file_format: SqliteFormat) -> sqlite3.Connection:
    """Lock a file next to the journal; a lock on the journal itself would exclude readers."""
    with convert_errors(path, file_format, 0.0):
        try:
            connection = _lock_exclusively(lock_file(path))
            connection.execute("ROLLBACK")  # in exclusive locking mode this keeps the lock
            return connection
        except sqlite3.OperationalError as error:
            if not _is_busy(error):
                raise
            raise in_use(path) from error


def _lock_exclusively(path: str) -> sqlite3.Connection:
    """Lock a file, even an empty one, for as long as the connection is open."""
    connection = sqlite3.connect(path, timeout=0.0, isolation_level=None, check_same_thread=False)
    try:
        # The commit count fits in one page: no journal file is left, and no disk is waited for.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = MEMORY")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN EXCLUSIVE")
    except BaseException:
        connection.close()
        raise
    return connection


def _number_of(journal_id: str) -> int:
    """A journal's id as a number that fits into the header of a database."""
    return crc32(journal_id.encode()) >> 1


def _is_busy(error: sqlite3.OperationalError) -> bool:
    """Whether an error of SQLite says that another connection holds the lock."""
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
