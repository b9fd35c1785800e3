"""The file of a journal: its tables, whose job it is, and whether it is still where it was."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from itertools import chain
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn
from zlib import crc32

from ragasync.errors import JournalError
from ragasync.function_fingerprint import FunctionFingerprint, differences
from ragasync.journal.claims import Claim, in_use, is_open, lock_file
from ragasync.sqlite_file import (
    SqliteFormat,
    check_integrity,
    connect_read_only,
    convert_errors,
    corruption_error,
    open_database,
    reject_foreign_file,
    transaction,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ragasync.journal.journal import Journal
    from ragasync.journal.rows import Row

_SCHEMA = """
CREATE TABLE job (
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    serializer TEXT NOT NULL,
    functions TEXT NOT NULL,
    begun_at REAL NOT NULL,
    seal INTEGER NOT NULL,  -- of all before it: what follows changes with each run
    claim TEXT NOT NULL,
    commits INTEGER NOT NULL
);
-- Rows are in the order in which they were written: values may be large, keys are random.
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
    recorded_at REAL NOT NULL,
    seal INTEGER NOT NULL,
    PRIMARY KEY (key, occurrence)
);
"""

JOURNAL = SqliteFormat(
    name="journal",
    application_id=0x7261676A,  # "ragj", in the file's header
    version=2,
    schema=_SCHEMA,
    synchronous="FULL",  # it covers power cuts too, and in groups it costs little
    error=JournalError,
)

_INSERT = "INSERT OR REPLACE INTO outcomes VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
"""Writes a row of `rows.row_of`."""

_MARK = "SELECT id, claim, commits FROM job"

_MOST_FUNCTIONS = 8
"""Of how many fingerprints of a function a journal says that outcomes are of them."""

_LOG_HEADER, _FRAME_HEADER = 32, 24
"""Bytes before the frames of a write-ahead log, and before the page in each of them."""

_LOOKS = 3
"""How often a main file is read that another program is writing its log into."""


class Job(NamedTuple):
    """
    Whose journal it is.

    Args:
        name: the job's name.
        version: what the user calls its version.
        serializer: the name of what keeps its values.
        functions: the fingerprints of its functions, by their names.
    """

    name: str
    version: str
    serializer: str
    functions: Mapping[str, FunctionFingerprint]


class _Mark(NamedTuple):
    """What tells one state of one journal from all others: its id, who writes, and how often."""

    id: str
    claim: str
    commits: int


_NOBODY = _Mark("", "", 0)
"""What stands in a database that is no job's journal."""


def open_to_read(journal: Journal) -> sqlite3.Connection:
    """
    Connect to a journal that exists, also while a run is writing to it.

    Raises:
        JournalError: there is none, or it cannot be read.
    """
    if not Path(journal.path).exists():
        raise JournalError(
            f"there is no journal at {journal.path!r} yet: a processor begins it when it runs"
        )
    return open_database(journal.path, JOURNAL, journal.timeout)


class JournalFile:
    """
    The file of a journal while one run writes to it.

    SQLite holds on to the file that it has opened, whatever becomes of its name: a run could go on
    writing into a file that nobody will ever find. So around each commit the names are looked up
    again, of the file, its log and its lock. Where a name stands for another file than before, or
    somebody else has written to it, what is in there decides: the journal's random id, the claim
    of this run, and the number of its commits. All methods block.

    Args:
        journal: the settings.
        job: whose journal it has to be.

    Raises:
        JournalError: it is another job's, in use, locked, or damaged.

    Attributes:
        reading: a connection that cannot write; a look-up must not wait for a commit.
        changes: what is different about the job's functions from those that outcomes are of.
    """

    def __init__(self, journal: Journal, job: Job) -> None:
        self._journal = journal
        self._path = os.path.abspath(journal.path)  # noqa: PTH100  # a link stays one
        real = self._real = os.path.realpath(journal.path)
        self._beside = {"log": f"{real}-wal", "index of its log": f"{real}-shm"}
        self._beside["lock"] = lock_file(journal.path)
        self._is_overwritten = self._is_cut = self._is_ended = False
        self.changes: list[str] = []
        self._functions: tuple[str, int] | None = None
        with ExitStack() as on_error, self._clear_errors():
            reject_foreign_file(journal.path, JOURNAL)  # before there is a lock beside it
            claim = self._claim = Claim(journal.path, JOURNAL)
            on_error.callback(claim.drop)
            if Path(self._real).exists():
                claim.hold(self._stat(self._path))
                self._refuse_part()
            self._writing = open_database(journal.path, JOURNAL, journal.timeout)
            on_error.callback(close_quietly, self._writing)
            (page,) = self._writing.execute("PRAGMA page_size").fetchone()
            self._frame = _FRAME_HEADER + int(page)
            self._main = self._stat(self._path)
            claim.hold(self._main)
            self._holder = claim.text()
            with self._transaction("NORMAL"):
                self._mark = self._take_over(job)
                self._claim.count(self._mark.id, self._mark.commits)
                self._mark = self._count_commit()
            # The last to be closed writes the log into the file, unless it cannot write at all.
            self.reading = connect_read_only(self._path, log=True, timeout=journal.timeout)
            on_error.callback(close_quietly, self.reading)
            self.reading.execute("SELECT count(*) FROM job").fetchone()
            # So that the file itself says that its log belongs to it, whatever becomes of that.
            with suppress(sqlite3.Error):  # without room it stays in the log
                self._writing.execute("PRAGMA wal_checkpoint(PASSIVE)")
            self._in_main = self._mark_in_main()
            self._main = self._stat(self._path)
            self._others = {path: self._stat(path) for path in self._beside.values()}
            on_error.pop_all()

    def write(self, rows: Sequence[Row]) -> None:
        """
        Commit some outcomes.

        Raises:
            JournalError: they cannot be written, or would be lost: the file was removed or
                replaced, or another run writes to it.
        """
        # Before, because a commit may write the log into whatever has taken the file's place.
        self.check()
        with self._clear_errors(), self._transaction("FULL"):
            self._mark = self._count_commit()
            self._writing.executemany(_INSERT, rows)
            if self._functions is not None and rows:
                change = "UPDATE job SET functions = ?, seal = ?"
                self._writing.execute(change, self._functions)
        if rows:
            self._functions = None
        self._claim.count(self._mark.id, self._mark.commits)
        self.check()

    def check(self, *, thoroughly: bool = False) -> None:
        """
        See that the file's name still stands for the file that is written.

        Args:
            thoroughly: whether to look into it even where nothing seems to have changed.

        Raises:
            JournalError: it does not, or its log or its lock is lost.
        """
        for what, path in self._beside.items():
            beside = self._stat(path)
            if not os.path.samestat(beside, self._others[path]):
                self._refuse(f"its {what} {path!r} was replaced")
            if what == "log":
                self._check_log(path, beside)
            self._others[path] = beside
        if os.path.realpath(self._path) != self._real:  # and its log is beside another name
            self._refuse("it became a link")
        then, now = self._main, self._stat(self._path)
        is_same = os.path.samestat(then, now)
        if is_same and now.st_mtime_ns == then.st_mtime_ns and not thoroughly:
            return
        if now.st_size < then.st_size or not self._is_as_written():
            # To close it would write our log into what somebody has put into the file.
            self._is_overwritten = is_same
            self._refuse("it was replaced, or written to by another program")
        if not is_same and not self._is_written_through():
            self._refuse("it was replaced, by a copy of itself")
        self._main = self._stat(self._path)

    def _check_log(self, path: str, now: os.stat_result) -> None:
        """See that nobody has cut the log off: SQLite would write on behind the hole."""
        end = self._others[path].st_size
        frames = (end - _LOG_HEADER) // self._frame
        last = _LOG_HEADER + (frames - 1) * self._frame
        is_whole = now.st_size >= end and (frames < 1 or self._is_frame(path, last))
        # Another program may have cut it that has written all of it into the file before.
        if not is_whole and self._mark_in_main() != self._mark:
            self._is_cut = True
            self._refuse(f"its log {path!r} was cut off")

    def _is_frame(self, path: str, start: int) -> bool:
        """Return whether a frame of the log begins here, with a page's number, not in a hole."""
        with open(path, "rb") as log:  # noqa: PTH123  # no lock is on the log, so none is dropped
            log.seek(start)
            return any(log.read(4))

    def close(self) -> None:
        """
        Close the file, with its log written into it, and leave it to the next run.

        Raises:
            JournalError: what was written is lost, or another run has taken the journal over.
        """
        try:
            self.check(thoroughly=True)
            with self._clear_errors():
                if self._writing.execute(_MARK).fetchone() != self._mark:
                    self._refuse("another run has taken it over")
            with suppress(sqlite3.Error):  # without room the next run compares the commits
                self._writing.execute("UPDATE job SET claim = ''")
                self._is_ended = True
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Close all connections, in an order in which nothing of others is written over."""
        connections = [self.reading, self._writing]
        if self._must_not_be_written:
            connections.reverse()
        for connection in connections:
            close_quietly(connection)
        if self._is_overwritten and self._in_main is not None:
            self._remove_log()
        if self._is_ended and not Path(self._beside["log"]).exists():
            self._claim.count(self._mark.id, 0)  # all is in the file: an older copy may be put back
        self._claim.drop()

    def _refuse_part(self) -> None:
        """
        Refuse what a killed run has left if its log is missing or lacks commits.

        SQLite would take what is left for all there was; and to close it would write into the
        file what is left of the log. So this is the first look, and writes nothing.
        """
        log = self._beside["log"]
        has_log = Path(log).exists() and Path(log).stat().st_size > 0
        try:
            with closing(connect_read_only(self._real, log=has_log)) as connection:
                mark = _Mark(*connection.execute(_MARK).fetchone())
        except (sqlite3.Error, TypeError):
            return  # new, or not a journal: that is said when it is opened in full
        counted = self._claim.counted(mark.id)
        is_missing = counted is None and is_open(mark.claim) and not has_log
        if is_missing or mark.commits < (counted or 0):
            raise JournalError(
                f"the journal {self._journal.path!r} is not whole: a run was killed, and outcomes"
                f" that it wrote are missing, because its log {log!r} is missing or damaged: move"
                " or copy the files of a journal together (itself, -wal and -lock), under their"
                " names; restore them from a copy, or start again with another file"
            )

    def _take_over(self, job: Job) -> _Mark:
        """Make a new journal this job's, or see that it is; in a transaction."""
        row = self._writing.execute("SELECT * FROM job").fetchone()
        if row is None:
            header = (
                token_hex(16),
                *job[:3],
                _to_json({name: [one] for name, one in job.functions.items()}),
                time.time(),
            )
            row = (*header, _seal_of(header), self._holder, 0)
            self._writing.execute("INSERT INTO job VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            return _Mark(str(row[0]), self._holder, 0)
        *header, seal, before, commits = row
        if seal != _seal_of(header):
            raise corruption_error("its header is not what was written")
        _check_job(self._journal, header[1:4], job[:3])
        if (holder := self._claim.rival(before)) is not None:
            raise in_use(self._journal.path, holder)
        check_integrity(self._writing)
        self._functions = self._compared(header, job.functions)
        return _Mark(row[0], before, commits)

    def _compared(
        self, header: list[Any], now: Mapping[str, FunctionFingerprint]
    ) -> tuple[str, int] | None:
        """
        Note what is different about functions, against all that outcomes are of.

        Returns:
            The fingerprints and the seal to write with the first outcome, or None.
        """
        written = _from_json(header[4])
        changes: dict[str, None] = {}
        for name, fingerprint in now.items():
            known = [one for one in written.get(name, []) if one.is_known]
            found = [differences(one, fingerprint) for one in known]
            changes.update(dict.fromkeys(chain.from_iterable(found)))
            if not known or (all(found) and fingerprint.is_known):
                written[name] = [*known[: _MOST_FUNCTIONS - 1], fingerprint]
        self.changes = list(changes)
        functions = _to_json(written)
        return (
            None
            if functions == header[4]
            else (functions, _seal_of([*header[:4], functions, header[5]]))
        )

    def _count_commit(self) -> _Mark:
        """Count a commit of this run, in its transaction; nothing is written over another run."""
        counted = self._writing.execute(
            "UPDATE job SET claim = ?, commits = commits + 1"
            " WHERE id = ? AND claim = ? AND commits = ?",
            (self._holder, *self._mark),
        )
        if counted.rowcount != 1:
            self._refuse("another run has taken it over")
        return _Mark(self._mark.id, self._holder, self._mark.commits + 1)

    @contextmanager
    def _transaction(self, synchronous: Literal["NORMAL", "FULL"]) -> Iterator[None]:
        """Write in one transaction, in NORMAL without waiting for the disk."""
        full = synchronous == "FULL"
        self._writing.execute(
            "PRAGMA synchronous = FULL" if full else "PRAGMA synchronous = NORMAL"
        )
        with transaction(self._writing, "BEGIN IMMEDIATE"):
            yield

    def _stat(self, path: str) -> os.stat_result:
        """Return what the system says of a file."""
        try:
            return os.stat(path)  # noqa: PTH116  # twice as fast, and often
        except OSError:
            what = next(
                (f"its {what} {path!r}" for what, p in self._beside.items() if p == path), "it"
            )
            self._refuse(f"{what} was removed or renamed")

    def _mark_in_main(self) -> _Mark | None:
        """Return the mark in the file of this name, without its log; None: it cannot be read."""
        for _ in range(_LOOKS):
            with (
                suppress(sqlite3.DatabaseError),
                closing(connect_read_only(self._path, log=False)) as connection,
            ):
                # So that a file is read too whose log a full disk has let in only half.
                connection.execute("PRAGMA writable_schema = ON")
                try:
                    row = connection.execute(_MARK).fetchone()
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
                        raise
                    row = None  # no such table
                return _NOBODY if row is None else _Mark(*row)
        return None

    def _is_as_written(self) -> bool:
        """Return whether the file of this name holds what was last seen in it, or more of ours."""
        before, now = self._in_main, self._mark_in_main()
        self._in_main = now
        if now == before or now is None or before is None:
            return now == before
        is_ours = (now.id, now.claim) == (self._mark.id, self._mark.claim)
        return is_ours and (before.claim != now.claim or before.commits < now.commits)

    def _is_written_through(self) -> bool:
        """Return whether what is committed now appears in the file of this name."""
        with self._clear_errors():
            with self._transaction("NORMAL"):
                self._mark = self._count_commit()
            _, pages, written = self._writing.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if written < pages:
            return True  # held up by a reader; the next look will tell
        self._in_main = self._mark_in_main()
        return self._in_main == self._mark

    @property
    def _must_not_be_written(self) -> bool:
        """Whether the log has no place to go to, or what has its name is not ours to remove."""
        log = self._beside["log"]
        return (
            self._is_overwritten
            or self._is_cut
            or (
                os.path.exists(log) and not os.path.samestat(os.stat(log), self._others[log])  # noqa: PTH110, PTH116
            )
        )

    def _remove_log(self) -> None:
        """Remove our log from beside a file of others, which it would be taken for part of."""
        for path in (self._beside["log"], self._beside["index of its log"]):
            with suppress(OSError):
                if os.path.samestat(os.stat(path), self._others[path]):  # noqa: PTH116
                    os.unlink(path)  # noqa: PTH108

    def _refuse(self, what: str) -> NoReturn:
        """Raise the error of a journal that is lost."""
        raise JournalError(
            f"the journal {self._journal.path!r} was lost while this run was writing to it: {what};"
            " what is done is kept in the result: see who else uses the file, and run again"
        )

    def _clear_errors(self) -> AbstractContextManager[None]:
        """Turn SQLite's errors into ones that say what to do."""
        return convert_errors(self._journal.path, JOURNAL, self._journal.timeout)


def _to_json(functions: Mapping[str, Sequence[FunctionFingerprint]]) -> str:
    """Return fingerprints as text."""
    return json.dumps({name: [one.to_json() for one in each] for name, each in functions.items()})


def _from_json(text: str) -> dict[str, list[FunctionFingerprint]]:
    """Return the fingerprints that were written; an older version of ours wrote the last one."""
    functions: dict[str, str | list[str]] = json.loads(text)
    return {
        name: [
            FunctionFingerprint.from_json(one)
            for one in ([each] if isinstance(each, str) else each)
        ]
        for name, each in functions.items()
    }


def _seal_of(header: Sequence[object]) -> int:
    """Return a checksum of what a header says of its job; SQLite would not notice another digit."""
    return crc32(repr(tuple(header)).encode(errors="replace"))


def _check_job(journal: Journal, theirs: Sequence[str], ours: Sequence[str]) -> None:
    """Refuse a journal whose header says something else."""
    if tuple(theirs[:2]) != tuple(ours[:2]):
        raise JournalError(
            f"the journal {journal.path!r} is of the job {theirs[0]!r}, version {theirs[1]!r}, and "
            f"this is the job {ours[0]!r}, version {ours[1]!r}: pass another path, or the name= "
            f"and version= that it has, if it is the same job"
        )
    if theirs[2] != ours[2]:
        raise JournalError(
            f"the journal {journal.path!r} keeps its values by the serializer {theirs[2]!r}, and "
            f"this run would by {ours[2]!r}: pass Journal(..., serializer={theirs[2]!r})"
            + (" if you trust where the file is from" if theirs[2] == "pickle" else "")
        )


def close_quietly(connection: sqlite3.Connection) -> None:
    """Close a connection whose file may be beyond help."""
    with suppress(sqlite3.Error):
        connection.close()
