"""The file of a journal: its tables, whose job it is, and who may use it now."""

from __future__ import annotations

import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ragasync.errors import JournalError
from ragasync.own_database import Kind, check_pages, clear_errors, open_own, transaction

if TYPE_CHECKING:
    from ragasync.journal.journal import Journal

_SCHEMA = """
CREATE TABLE job (
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    serializer TEXT NOT NULL,
    source TEXT NOT NULL,
    begun_at REAL NOT NULL
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

JOURNAL = Kind(
    what="journal",
    application_id=0x7261676A,  # "ragj", in the file's header
    version=1,
    schema=_SCHEMA,
    synchronous="FULL",  # it covers power cuts too, and in groups it costs little
    error=JournalError,
)

INSERT = "INSERT OR REPLACE INTO outcomes VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
"""Writes a row of `rows.row_of`."""


def claim(path: str) -> sqlite3.Connection:
    """
    Take a journal for one run, for as long as the connection that is returned stays open.

    SQLite locks a file beside it, because a lock on the journal itself would keep readers out;
    the system drops it when the process ends, however it ends.

    Raises:
        JournalError: another run, here or in another process, has it.
    """
    beside = f"{path}-lock"
    with clear_errors(beside, JOURNAL, 0.0):
        connection = sqlite3.connect(
            beside, timeout=0.0, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            connection.close()
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
            raise JournalError(
                f"the journal {path!r} is in use by another run: wait for its end, or stop it; "
                "two runs of one job would do everything twice"
            ) from error
    return connection


def open_journal(journal: Journal) -> sqlite3.Connection:
    """Connect to a journal, creating it where it is missing."""
    return open_own(journal.path, JOURNAL, journal.timeout)


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
    return open_journal(journal)


def settle_whose(
    connection: sqlite3.Connection, journal: Journal, name: str, source: str, serializer: str
) -> str | None:
    """
    Make a new journal this job's, or see that it is; return what to warn of, if anything.

    Raises:
        JournalError: it is of another job, another version, or keeps values in another way.
    """
    with clear_errors(journal.path, JOURNAL, journal.timeout):
        check_pages(connection)
        with transaction(connection, "BEGIN IMMEDIATE"):
            header = connection.execute("SELECT name, version, serializer, source FROM job")
            row = header.fetchone()
            if row is None:
                mine = (name, journal.version, serializer, source, time.time())
                connection.execute("INSERT INTO job VALUES (?, ?, ?, ?, ?)", mine)
                return None
            _check_header(journal, row[:3], (name, journal.version, serializer))
            connection.execute("UPDATE job SET source = ?", (source or row[3],))
    if not _has_changed(row[3], source):
        return None
    return (
        f"the source of {name!r} has changed since the journal {journal.path!r} was written: "
        f"outcomes of before are kept as they are; for a fresh start pass another version="
    )


def _check_header(
    journal: Journal, theirs: tuple[str, str, str], ours: tuple[str, str, str]
) -> None:
    """Refuse a journal whose header says something else."""
    if theirs[:2] != ours[:2]:
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


def _has_changed(before: str, now: str) -> bool:
    """Return whether a function that was there before has another source now; unknown is none."""
    earlier, later = (
        {name: digest for name, _, digest in (line.rpartition("=") for line in text.split("\n"))}
        for text in (before, now)
    )
    return any(
        digest and later.get(name) and digest != later[name] for name, digest in earlier.items()
    )


def close_quietly(connection: sqlite3.Connection) -> None:
    """Close a connection whose file may be beyond help."""
    with suppress(sqlite3.Error):
        connection.close()
