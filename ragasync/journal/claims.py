"""Who may write a journal: a lock beside its file, and a claim in its header."""

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
"""Before the claim of a run that has not ended, or was killed: part of the journal is its log."""


class Holder(NamedTuple):
    """
    The run that a journal's header names.

    Args:
        token: what no other run has.
        lock: a file that is locked while the run lives.
        pid: the number of its process, for people.
    """

    token: str
    lock: str
    pid: int


class Claim:
    """
    The claim of one run on a journal, from its beginning to its end.

    A lock beside the journal keeps a second run out. But anybody can remove that file, and then
    lock another of the same name; and a journal may have several names. So there is a second lock,
    for the file itself whatever it is called, in a place where nobody cleans up by hand; and the
    first commit writes into the journal's header who holds it. The system drops both locks when
    the process ends, however it ends.

    The lock beside the journal also counts the commits. The log of a killed run is as good as
    its last whole commit; only from elsewhere can it be known that there were more.

    Another machine or container does not see the second lock. There a run may take over from one
    that lives; which then finds its name gone when it commits, before anything is written.

    Args:
        path: the journal.
        kind: what errors call it.

    Raises:
        JournalError: another run, here or in another process, has it.
    """

    def __init__(self, path: str, kind: SqliteFormat) -> None:
        self._path = path
        self._locks = [_locked_beside(path, kind)]
        self._lock = ""

    def hold(self, file: os.stat_result) -> None:
        """
        Lock the journal's file too, as soon as there is one.

        Raises:
            JournalError: another run has it, by another name perhaps.
        """
        if self._lock:
            return
        lock = Path(tempfile.gettempdir(), f"ragasync-{file.st_dev:x}-{file.st_ino:x}.lock")
        try:
            self._locks.append(_locked(str(lock)))
        except sqlite3.OperationalError as error:
            if _is_busy(error):
                raise in_use(self._path) from error
            return  # no place for it, or another user's: the other has to do
        self._lock = str(lock)

    def text(self) -> str:
        """Return the claim as the journal's header has it, until the run has ended."""
        return _OPEN + json.dumps(Holder(token_hex(8), self._lock, os.getpid()))

    def count(self, journal: str, commits: int) -> None:
        """Note how many commits the journal of this id has."""
        with suppress(sqlite3.Error):  # on a full disk: there is less to compare with
            numbers = {"application_id": _number_of(journal), "user_version": commits}
            for pragma, number in numbers.items():
                setting = f"PRAGMA {pragma} = {number:d}"  # a pragma takes no parameters
                self._locks[0].execute(setting)

    def counted(self, journal: str) -> int | None:
        """Return how many commits there were at least; None: the lock is of another journal."""
        (number,) = self._locks[0].execute("PRAGMA application_id").fetchone()
        (commits,) = self._locks[0].execute("PRAGMA user_version").fetchone()
        return int(commits) if number == _number_of(journal) else None

    def rival(self, text: str) -> Holder | None:
        """Return the run that a header names, if it lives as far as this process can see."""
        try:
            holder = Holder(*json.loads(text.removeprefix(_OPEN)))
            if holder.lock == self._lock:
                return None  # by this very file, which is locked by nobody else
            with closing(connect_read_only(holder.lock, log=True, timeout=0.0)) as connection:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            return holder if _is_busy(error) else None
        except (TypeError, ValueError, sqlite3.Error):
            return None
        return None

    def drop(self) -> None:
        """Hold the journal no longer."""
        with suppress(OSError):
            Path(self._lock or ".").unlink()
        for connection in self._locks:
            with suppress(sqlite3.Error):
                connection.close()


def lock_file(path: str) -> str:
    """Return the name of the lock beside a journal, one for all links to it."""
    return f"{os.path.realpath(path)}-lock"


def is_open(claim: str) -> bool:
    """Return whether a claim is of a run that has not ended properly."""
    return claim.startswith(_OPEN)


def in_use(path: str, by: Holder | None = None) -> JournalError:
    """Return the error of a second run."""
    who = "" if by is None else f" (process {by.pid})"
    return JournalError(
        f"the journal {path!r} is in use by another run{who}: wait for its end, or stop it; "
        "two runs of one job would do everything twice"
    )


def _locked_beside(path: str, kind: SqliteFormat) -> sqlite3.Connection:
    """Lock the file beside a journal, because a lock on the journal would keep readers out."""
    beside = lock_file(path)
    with convert_errors(path, kind, 0.0):
        try:
            connection = _locked(beside)
            connection.execute("ROLLBACK")  # which keeps the lock
            return connection
        except sqlite3.OperationalError as error:
            if not _is_busy(error):
                raise
            raise in_use(path) from error


def _locked(path: str) -> sqlite3.Connection:
    """Lock a file, empty or not, for as long as the connection is open."""
    connection = sqlite3.connect(path, timeout=0.0, isolation_level=None, check_same_thread=False)
    try:
        # What it counts is one page: no file beside it is left, and no disk waited for.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = MEMORY")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN EXCLUSIVE")
    except BaseException:
        connection.close()
        raise
    return connection


def _number_of(journal: str) -> int:
    """Return a journal's id as a number that fits into the header of a database."""
    return crc32(journal.encode()) >> 1


def _is_busy(error: sqlite3.OperationalError) -> bool:
    """Return whether an error of SQLite's says that somebody else has the lock."""
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
