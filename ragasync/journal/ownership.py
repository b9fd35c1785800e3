"""
Ownership of a journal: the job that it belongs to, and the lock of the run that may write it.

The file's header names the job, with fingerprints of its functions, and the run that holds the
journal; lock files show whether that run still lives.
"""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from itertools import chain
from pathlib import Path
from secrets import token_hex
from typing import Any, Final, NamedTuple
from zlib import crc32

from ragasync._function_fingerprint import FunctionFingerprint, differences
from ragasync.errors import JournalError
from ragasync.sqlite_file import SqliteFormat, connect_read_only, convert_errors, corruption_error

_MAX_FINGERPRINTS = 8
"""How many fingerprints of one function, by which outcomes were made, a header keeps."""

Header = Sequence[Any]
"""The columns of the table `job` that identify it: id, name, version, ..., checksum."""


class JobIdentity(NamedTuple):
    """The job that a journal belongs to."""

    name: str
    version: str
    serializer: str
    functions: Mapping[str, FunctionFingerprint]


def new_header(job: JobIdentity) -> Header:
    """The header of a new journal, with a random id."""
    functions = _to_json({name: [one] for name, one in job.functions.items()})
    header = (token_hex(16), *job[:3], functions, time.time())
    return (*header, _checksum(header))


def check_header(path: str, header: Header, job: JobIdentity) -> None:
    """
    Check that a journal belongs to this job.

    Raises:
        JournalError: it belongs to another job, or has another serializer.
        sqlite3.DatabaseError: the checksum does not match.
    """
    *fields, checksum = header
    if checksum != _checksum(fields):
        raise corruption_error("the checksum of its header does not match")
    _, name, version, serializer, *_ = fields
    if (name, version) != (job.name, job.version):
        raise JournalError(
            f"the journal {path!r} is of the job {name!r}, version {version!r}, and "
            f"this is the job {job.name!r}, version {job.version!r}: pass another path, or the "
            "name= and version= that it has, if it is the same job"
        )
    if serializer != job.serializer:
        raise JournalError(
            f"the journal {path!r} has the serializer {serializer!r}, and "
            f"this run has {job.serializer!r}: pass Journal(..., serializer={serializer!r})"
            + (" if you trust the source of the file" if serializer == "pickle" else "")
        )


def compare_functions(
    header: Header, functions: Mapping[str, FunctionFingerprint]
) -> tuple[list[str], tuple[str, int] | None]:
    """
    Compare a job's functions with all those that made the outcomes of a journal.

    Returns:
        The changes, for a warning; and the `functions` and `checksum` to write with the first
        outcome, or None.
    """
    identity, written, begun_at = header[:4], header[4], header[5]
    recorded = {
        name: list(map(FunctionFingerprint.from_json, each))
        for name, each in json.loads(written).items()
    }
    described: dict[str, None] = {}
    for name, fingerprint in functions.items():
        known = [one for one in recorded.get(name, []) if one.is_known]
        found = [differences(one, fingerprint) for one in known]
        described.update(dict.fromkeys(chain.from_iterable(found)))
        if not known or (all(found) and fingerprint.is_known):
            recorded[name] = [*known[: _MAX_FINGERPRINTS - 1], fingerprint]
    now = _to_json(recorded)
    update = None if now == written else (now, _checksum([*identity, now, begun_at]))
    return list(described), update


def _checksum(fields: Header) -> int:
    """Checksum of a header; SQLite would not notice a changed digit."""
    return crc32(repr(tuple(fields)).encode(errors="replace"))


def _to_json(functions: Mapping[str, Sequence[FunctionFingerprint]]) -> str:
    """Fingerprints as JSON."""
    return json.dumps({name: [one.to_json() for one in each] for name, each in functions.items()})


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
