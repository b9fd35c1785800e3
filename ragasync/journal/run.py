"""One run's use of a journal: what it knows of items, and what it is told of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from sqlite3 import Connection
from typing import TYPE_CHECKING, Any

from ragasync.errors import JournalError
from ragasync.journal.file import (
    INSERT,
    JOURNAL,
    claim,
    close_quietly,
    open_journal,
    settle_whose,
)
from ragasync.journal.recalling import LookedUp, Recalling
from ragasync.journal.rows import Place, row_of
from ragasync.journal.serializers import BY_NAME
from ragasync.journal.writer import Writer
from ragasync.outcomes.outcome import Outcome
from ragasync.own_database import clear_errors, transaction

if TYPE_CHECKING:
    from ragasync.journal.journal import Journal
    from ragasync.journal.use import JournalUse


class JournalRun:
    """
    A journal that one run has to itself.

    What it reads is in Recalling. All methods block, for as long as SQLite needs.

    Args:
        journal: the settings.
        use: what the processor brings.

    Raises:
        JournalError: it is another job's, in use, locked, or damaged.

    Attributes:
        warning: what the caller should be warned of, or None.
    """

    def __init__(self, journal: Journal, use: JournalUse) -> None:
        self._journal, self._use = journal, use
        self._serializer = journal.serializer or use.serializer or BY_NAME["json"]
        self._places: dict[int, Place] = {}
        self._writer: Writer[tuple[Place, Outcome[Any, Any], str | None]] | None = None
        self._claim = claim(journal.path)
        # One to read and one to write: a look-up must not wait for the disk to sync a group.
        self._to_read: Connection | None = None
        self._to_write: Connection | None = None
        self._recalling: Recalling | None = None
        try:
            self._to_write = open_journal(journal)
            self.warning = settle_whose(
                self._to_write,
                journal,
                journal.name or use.name,
                use.source,
                self._serializer.name,
            )
            self._to_read = open_journal(journal)
            self._recalling = Recalling(self._to_read, journal, use, self._serializer)
        except BaseException:
            self._let_go()
            raise

    def begin(self, on_error: Callable[[Exception], None], on_room: Callable[[], None]) -> None:
        """Take outcomes from now on; see Writer for what is called, in a thread of its own."""
        journal = self._journal
        self._writer = Writer(
            self._write, journal.flush_seconds, journal.flush_items, on_error, on_room
        )

    @property
    def error(self) -> Exception | None:
        """Why nothing more can be written, or None."""
        return None if self._writer is None else self._writer.error

    holds_success = False

    def takes_long(self, rows: Sequence[tuple[int, Any]]) -> bool:
        """Return whether looking these items up has to read files, and belongs on a thread."""
        return self._use.on_thread or any(
            type(item) is not str and isinstance(item, os.PathLike) for _, item in rows
        )

    @property
    def is_full(self) -> bool:
        """Whether nothing new should be begun until the disk has caught up."""
        return self._writer is not None and self._writer.is_full

    def look_up(self, rows: Sequence[tuple[int, Any]]) -> LookedUp:
        """
        Tell the items that have an outcome from those that have to run.

        Raises:
            TypeError: an item has no key by itself, and none was given.
            JournalError: the file cannot be read.
        """
        assert self._recalling is not None
        found = self._recalling.look_up(rows)
        for (index, _), place in zip(found.new, found.places, strict=True):
            self._places[index] = place
        return found

    def note(self, outcome: Outcome[Any, Any], stack: str | None) -> None:
        """Have an outcome written, if it is final."""
        place = self._places.pop(outcome.index, None)
        if place is None or self._writer is None or outcome.status not in ("done", "failed"):
            return
        self._writer.put((place, outcome, stack))

    def close(self) -> None:
        """Write what is left and let go of the file."""
        if self._writer is not None:
            self._writer.close()
        self._let_go()

    def _write(self, group: Sequence[tuple[Place, Outcome[Any, Any], str | None]]) -> None:
        """Commit a group of outcomes; those whose value cannot be kept are named after that."""
        rows, refused = [], None
        now = time.time()
        for place, outcome, stack in group:
            try:
                value = self._serializer.dumps(outcome.value) if outcome.ok else None
            except Exception as error:
                refused = refused or self._refusal(outcome, error)
            else:
                rows.append(row_of(place, outcome, stack, value, now))
        with clear_errors(self._journal.path, JOURNAL, self._journal.timeout):
            assert self._to_write is not None
            with transaction(self._to_write, "BEGIN IMMEDIATE"):
                self._to_write.executemany(INSERT, rows)
        if refused is not None:
            raise refused

    def _refusal(self, outcome: Outcome[Any, Any], error: Exception) -> JournalError:
        """Return the error of a value that would not come back as it is."""
        return JournalError(
            f"the value of item {outcome.index} cannot be kept as {self._serializer.name!r}, "
            f"{error}: return plain data, or pass Journal(..., serializer=) 'numpy' for arrays "
            f"or 'pickle' for other objects"
        )

    def _let_go(self) -> None:
        """Close the file, and leave the journal to the next run."""
        if self._recalling is not None:
            self._recalling.close()
        for connection in (self._to_read, self._to_write, self._claim):
            if connection is not None:
                close_quietly(connection)
        self._to_read = self._to_write = None
