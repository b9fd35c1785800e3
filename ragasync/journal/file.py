"""JournalFile: the SQLite file of a journal while one run writes to it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, TypeAlias

from ragasync.errors import JournalError
from ragasync.journal.ownership import (
    JobIdentity,
    JournalLock,
    check_header,
    compare_functions,
    in_use,
    is_open,
    lock_file,
    new_header,
)
from ragasync.sqlite_file import (
    SqliteFormat,
    check_integrity,
    connect_read_only,
    convert_errors,
    open_database,
    reject_foreign_file,
    transaction,
)
from ragasync.usage import NO_USAGE, Usage

Row: TypeAlias = tuple[Any, ...]
"""The columns of an outcome in the table `outcomes`."""

_SCHEMA = """
CREATE TABLE job (
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    serializer TEXT NOT NULL,
    functions TEXT NOT NULL,
    begun_at REAL NOT NULL,
    checksum INTEGER NOT NULL,  -- of the columns above; those below change with each run
    holder TEXT NOT NULL,
    commits INTEGER NOT NULL
);
CREATE TABLE usage (  -- of all runs, one row
    requests INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    cost REAL NOT NULL
);
-- Rows are in the order in which they were written: values may be large, and keys are random.
CREATE TABLE outcomes (
    key BLOB NOT NULL,
    occurrence INTEGER NOT NULL,
    item TEXT NOT NULL,
    status TEXT NOT NULL,
    value BLOB,
    error_module TEXT,
    error_type TEXT,
    error_message TEXT,
    error_notes TEXT,
    stack TEXT,
    stage TEXT,
    attempts INTEGER NOT NULL,
    seconds REAL NOT NULL,
    waited REAL NOT NULL,
    backed_off REAL NOT NULL,
    tokens INTEGER,  -- missing if none were reported
    cost REAL,
    recorded_at REAL NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (key, occurrence)
);
"""

JOURNAL = SqliteFormat(
    name="journal",
    application_id=0x7261676A,  # "ragj", in the file's header
    version=4,
    schema=_SCHEMA,
    synchronous="FULL",  # survives power cuts too, and costs little because commits are grouped
    error=JournalError,
)

_INSERT = "INSERT OR REPLACE INTO outcomes VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
"""Writes a row of `rows.to_row`."""

_STATE = "SELECT id, holder, commits FROM job"

_LOG_HEADER, _FRAME_HEADER = 32, 24
"""Bytes before the frames of a write-ahead log, and before the page in each of them."""

_READ_ATTEMPTS = 3
"""How often a main file is read while another program is writing its log into it."""


class _State(NamedTuple):
    """One state of one journal, different from all others: its id, the holder, the commits."""

    id: str
    holder: str
    commits: int


_NO_JOB = _State("", "", 0)
"""The state of a database without a job."""


def open_journal(path: str, timeout: float) -> sqlite3.Connection:
    """
    Connect to an existing journal to read it, also while a run is writing to it.

    Raises:
        JournalError: it does not exist, or cannot be read.
    """
    if not Path(path).exists():
        raise JournalError(
            f"there is no journal at {path!r} yet: a processor creates it when it runs"
        )
    return open_database(path, JOURNAL, timeout)


class JournalFile:
    """
    The file of a journal while one run writes to it.

    SQLite keeps the file that it has opened, even if the file is renamed or deleted. A run could
    then go on writing to a file that nobody will ever find. So the paths of the file, its log and
    its lock are checked before and after each commit. If a path leads to another file than before,
    or another program has written to it, the content decides: the journal's random id, the holder
    (this run), and the number of commits. All methods block.

    Args:
        timeout: seconds to wait for another process that is writing.

    Raises:
        JournalError: it is another job's, in use, locked, or damaged.

    Attributes:
        reading: a read-only connection, so that a look-up does not wait for a commit.
        changes: how the job's functions differ from those that made the outcomes, for a warning.
        usage: the usage of all runs, as written last.
    """

    def __init__(self, path: str, timeout: float, job: JobIdentity) -> None:
        self._given, self._timeout = path, timeout
        self._path = os.path.abspath(path)  # noqa: PTH100  # does not resolve links
        real = self._real = os.path.realpath(path)
        self._companions = {"log": f"{real}-wal", "index of its log": f"{real}-shm"}
        self._companions["lock"] = lock_file(path)
        self._is_overwritten = self._is_cut = self._is_ended = False
        self.changes: list[str] = []
        self.usage = NO_USAGE
        self._functions: tuple[str, int] | None = None
        with ExitStack() as on_error, self._convert_errors():
            reject_foreign_file(path, JOURNAL)  # before a lock file is created next to it
            lock = self._lock = JournalLock(path, JOURNAL)
            on_error.callback(lock.release)
            if Path(self._real).exists():
                lock.lock_inode(self._stat(self._path))
                self._reject_incomplete()
            self._writing = open_database(path, JOURNAL, timeout)
            on_error.callback(close_quietly, self._writing)
            (page,) = self._writing.execute("PRAGMA page_size").fetchone()
            self._frame = _FRAME_HEADER + int(page)
            self._main = self._stat(self._path)
            lock.lock_inode(self._main)
            self._holder = lock.new_holder()
            with self._transaction("NORMAL"):
                self._state = self._take_over(job)
                self._lock.set_commits(self._state.id, self._state.commits)
                self._state = self._count_commit()
            # The last connection to close writes the log into the file, and this one never does.
            self.reading = connect_read_only(self._path, log=True, timeout=timeout)
            on_error.callback(close_quietly, self.reading)
            self.reading.execute("SELECT count(*) FROM job").fetchone()
            # Write the holder into the main file, so that it shows that this log belongs to it.
            with suppress(sqlite3.Error):  # on a full disk it stays in the log
                self._writing.execute("PRAGMA wal_checkpoint(PASSIVE)")
            self._in_main = self._state_in_main()
            self._main = self._stat(self._path)
            self._others = {path: self._stat(path) for path in self._companions.values()}
            on_error.pop_all()

    @property
    def id(self) -> str:
        """The random id of the journal."""
        return self._state.id

    def write(self, rows: Sequence[Row], usage: Usage = NO_USAGE) -> None:
        """
        Commit some outcomes, and the usage of all runs so far.

        Raises:
            JournalError: they cannot be written, or would be lost: the file was removed or
                replaced, or another run writes to it.
        """
        # Before the commit too: it may write the log into a file that has replaced the journal.
        self.check()
        with self._convert_errors(), self._transaction("FULL"):
            self._state = self._count_commit()
            self._writing.executemany(_INSERT, rows)
            if usage != self.usage:
                self._writing.execute("UPDATE usage SET requests = ?, tokens = ?, cost = ?", usage)
            if self._functions is not None and rows:
                change = "UPDATE job SET functions = ?, checksum = ?"
                self._writing.execute(change, self._functions)
        self.usage = usage
        if rows:
            self._functions = None
        self._lock.set_commits(self._state.id, self._state.commits)
        self.check()

    def check(self, *, thoroughly: bool = False) -> None:
        """
        Check that the journal's path still leads to the file that is written.

        Args:
            thoroughly: whether to read the file even if nothing seems to have changed.

        Raises:
            JournalError: it does not, or the log or the lock file is lost.
        """
        for name, path in self._companions.items():
            companion = self._stat(path)
            if not os.path.samestat(companion, self._others[path]):
                self._fail(f"its {name} {path!r} was replaced")
            if name == "log":
                self._check_log(path, companion)
            self._others[path] = companion
        if os.path.realpath(self._path) != self._real:  # its log is next to another file now
            self._fail("it became a link")
        then, now = self._main, self._stat(self._path)
        is_same = os.path.samestat(then, now)
        if is_same and now.st_mtime_ns == then.st_mtime_ns and not thoroughly:
            return
        if now.st_size < then.st_size or not self._is_as_written():
            # Closing would write our log into the content that somebody has put into the file.
            self._is_overwritten = is_same
            self._fail("it was replaced, or written to by another program")
        if not is_same and not self._is_written_through():
            self._fail("it was replaced, by a copy of itself")
        self._main = self._stat(self._path)

    def _check_log(self, path: str, now: os.stat_result) -> None:
        """Check that the log was not truncated: SQLite would continue to write after the hole."""
        end = self._others[path].st_size
        frames = (end - _LOG_HEADER) // self._frame
        last = _LOG_HEADER + (frames - 1) * self._frame
        is_whole = now.st_size >= end and (frames < 1 or self._is_frame(path, last))
        # Another program may have truncated the log after writing all of it into the main file.
        if not is_whole and self._state_in_main() != self._state:
            self._is_cut = True
            self._fail(f"its log {path!r} was cut off")

    def _is_frame(self, path: str, start: int) -> bool:
        """Whether a frame of the log starts here, with a page number rather than a hole."""
        with open(path, "rb") as log:  # noqa: PTH123  # the log has no locks that closing drops
            log.seek(start)
            return any(log.read(4))

    def close(self) -> None:
        """
        Write the log into the file, close it, and leave it to the next run.

        Raises:
            JournalError: outcomes are lost, or another run has taken the journal over.
        """
        try:
            self.check(thoroughly=True)
            with self._convert_errors():
                if self._writing.execute(_STATE).fetchone() != self._state:
                    self._fail("another run has taken it over")
            with suppress(sqlite3.Error):  # on a full disk, the next run compares the commits
                self._writing.execute("UPDATE job SET holder = ''")
                self._is_ended = True
        finally:
            self._close_connections()

    def _close_connections(self) -> None:
        """Close all connections, in an order that overwrites no file of others."""
        # The last connection to close writes the log into the main file, unless it is read-only.
        connections = [self.reading, self._writing]
        if self._must_not_be_written:
            connections.reverse()
        for connection in connections:
            close_quietly(connection)
        if self._is_overwritten and self._in_main is not None:
            self._remove_log()
        if self._is_ended and not Path(self._companions["log"]).exists():
            # All commits are in the file, and restoring an older copy of it is allowed.
            self._lock.set_commits(self._state.id, 0)
        self._lock.release()

    def _reject_incomplete(self) -> None:
        """
        Reject a journal of a killed run if its log is missing or lacks commits.

        SQLite would take what is left for the whole database, and closing it would write the rest
        of the log into the file. So this check comes first, and writes nothing.
        """
        log = self._companions["log"]
        has_log = Path(log).exists() and Path(log).stat().st_size > 0
        try:
            with closing(connect_read_only(self._real, log=has_log)) as connection:
                state = _State(*connection.execute(_STATE).fetchone())
        except (sqlite3.Error, TypeError):
            return  # new, or not a journal: opening it raises the error
        counted = self._lock.min_commits(state.id)
        is_missing = counted is None and is_open(state.holder) and not has_log
        if is_missing or state.commits < (counted or 0):
            raise JournalError(
                f"the journal {self._given!r} is not complete: a run was killed, and outcomes"
                f" that it wrote are missing, because its log {log!r} is missing or damaged: move"
                " or copy the files of a journal together (itself, -wal and -lock), under their"
                " names; restore them from a copy, or start again with another file"
            )

    def _take_over(self, job: JobIdentity) -> _State:
        """Assign a new journal to this job, or check that it is this job's; in a transaction."""
        row = self._writing.execute("SELECT * FROM job").fetchone()
        if row is None:
            header = new_header(job)
            self._writing.execute(
                "INSERT INTO job VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*header, self._holder, 0)
            )
            self._writing.execute("INSERT INTO usage VALUES (?, ?, ?)", self.usage)
            return _State(str(header[0]), self._holder, 0)
        *header, before, commits = row
        check_header(self._given, header, job)
        if (rival := self._lock.living_rival(before)) is not None:
            raise in_use(self._given, rival)
        check_integrity(self._writing)
        self.usage = Usage(*self._writing.execute("SELECT * FROM usage").fetchone())
        self.changes, self._functions = compare_functions(header, job.functions)
        return _State(row[0], before, commits)

    def _count_commit(self) -> _State:
        """Count a commit of this run, in its transaction, unless another run has taken over."""
        counted = self._writing.execute(
            "UPDATE job SET holder = ?, commits = commits + 1"
            " WHERE id = ? AND holder = ? AND commits = ?",
            (self._holder, *self._state),
        )
        if counted.rowcount != 1:
            self._fail("another run has taken it over")
        return _State(self._state.id, self._holder, self._state.commits + 1)

    @contextmanager
    def _transaction(self, synchronous: Literal["NORMAL", "FULL"]) -> Iterator[None]:
        """Write in one transaction; NORMAL does not wait for the disk."""
        full = synchronous == "FULL"
        self._writing.execute(
            "PRAGMA synchronous = FULL" if full else "PRAGMA synchronous = NORMAL"
        )
        with transaction(self._writing, "BEGIN IMMEDIATE"):
            yield

    def _stat(self, path: str) -> os.stat_result:
        """Stat a file of the journal; its loss is an error."""
        try:
            return os.stat(path)  # noqa: PTH116  # called often, and twice as fast
        except OSError:
            names = (f"its {name} {path!r}" for name, p in self._companions.items() if p == path)
            self._fail(f"{next(names, 'it')} was removed or renamed")

    def _state_in_main(self) -> _State | None:
        """State in the main file at this path, without its log; None if it cannot be read."""
        for _ in range(_READ_ATTEMPTS):
            with (
                suppress(sqlite3.DatabaseError),
                closing(connect_read_only(self._path, log=False)) as connection,
            ):
                # Also reads a file into which a full disk has let only half of the log.
                connection.execute("PRAGMA writable_schema = ON")
                try:
                    row = connection.execute(_STATE).fetchone()
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
                        raise
                    row = None  # no such table
                return _NO_JOB if row is None else _State(*row)
        return None

    def _is_as_written(self) -> bool:
        """Whether the main file at this path has the last state seen, or a later one of ours."""
        before, now = self._in_main, self._state_in_main()
        self._in_main = now
        if now == before or now is None or before is None:
            return now == before
        is_ours = (now.id, now.holder) == (self._state.id, self._state.holder)
        return is_ours and (before.holder != now.holder or before.commits < now.commits)

    def _is_written_through(self) -> bool:
        """Whether a commit of this run appears in the file at this path."""
        with self._convert_errors():
            with self._transaction("NORMAL"):
                self._state = self._count_commit()
            _, pages, written = self._writing.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if written < pages:
            return True  # a reader delays the checkpoint; the next check will find out
        self._in_main = self._state_in_main()
        return self._in_main == self._state

    @property
    def _must_not_be_written(self) -> bool:
        """Whether the log must not be written into the file, because one of them is not ours."""
        log = self._companions["log"]
        return (
            self._is_overwritten
            or self._is_cut
            or (
                os.path.exists(log) and not os.path.samestat(os.stat(log), self._others[log])  # noqa: PTH110, PTH116
            )
        )

    def _remove_log(self) -> None:
        """Remove our log next to a file of others; SQLite would apply it to that file."""
        for path in (self._companions["log"], self._companions["index of its log"]):
            with suppress(OSError):
                if os.path.samestat(os.stat(path), self._others[path]):  # noqa: PTH116
                    os.unlink(path)  # noqa: PTH108

    def _fail(self, reason: str) -> NoReturn:
        """Raise the error of a lost journal."""
        raise JournalError(
            f"the journal {self._given!r} was lost while this run was writing to it: {reason};"
            " finished outcomes are kept in the result: see who else uses the file, and run again"
        )

    def _convert_errors(self) -> AbstractContextManager[None]:
        """Convert SQLite's errors into JournalErrors with advice."""
        return convert_errors(self._given, JOURNAL, self._timeout)


def close_quietly(connection: sqlite3.Connection) -> None:
    """Close a connection whose file may be damaged beyond use."""
    with suppress(sqlite3.Error):
        connection.close()
