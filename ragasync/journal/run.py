"""One run's use of a journal: what it knows of items, and what it is told of them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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
from ragasync.journal.keys import key_of
from ragasync.journal.rows import Place, Row, check_seal, recalled, row_of
from ragasync.journal.serializers import BY_NAME
from ragasync.journal.writer import Writer
from ragasync.outcomes.outcome import Outcome
from ragasync.own_database import clear_errors, transaction

if TYPE_CHECKING:
    from ragasync.journal.journal import Journal
    from ragasync.journal.use import JournalUse

_FIND = (
    "SELECT status, value, error_module, error_type, error_message, error_notes, stack, stage,"
    " seal FROM outcomes WHERE key = ? AND occurrence = ?"
)

Known = tuple[Outcome[Any, Any], str | None]
"""The outcome of an earlier run, and the stack of its error."""


@dataclass(slots=True)
class LookedUp:
    """
    What a journal says of some items.

    Args:
        known: the outcomes that it has.
        new: the items that have to be processed.
        refused: items whose `key=` raised, with what it raised.
    """

    known: list[Known] = field(default_factory=list)
    new: list[tuple[int, Any]] = field(default_factory=list)
    refused: list[tuple[int, Any, Exception]] = field(default_factory=list)


class JournalRun:
    """
    A journal that one run has to itself.

    It remembers the digest of every key that came, to tell equal ones apart, and of those that are
    in the file, because asking SQLite for what is not there takes longer than all the rest: about
    100 bytes an item each. All methods block, for as long as SQLite needs.

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
        self._keying = use.keying or key_of
        self._seen: dict[bytes, int] = {}
        self._places: dict[int, Place] = {}
        self._stacks: dict[str, str] = {}  # one text for all errors of one kind and place
        self._lock = threading.Lock()
        self._writer: Writer[tuple[Place, Outcome[Any, Any], str | None]] | None = None
        self._claim = claim(journal.path)
        # One to read and one to write: a look-up must not wait for the disk to sync a group.
        self._to_read: Connection | None = None
        self._to_write: Connection | None = None
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
            with clear_errors(journal.path, JOURNAL, journal.timeout):
                keys = self._to_read.execute("SELECT key FROM outcomes")
                self._written = frozenset(key for (key,) in keys)
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
        found = LookedUp()
        with self._lock:
            for index, item in rows:
                try:
                    key = self._keying(item, self._use.key)
                except Exception as error:
                    if self._use.key is None:
                        raise
                    found.refused.append((index, item, error))
                    continue
                place, row = self._find(key.digest, key.shown)
                known = None if row is None else self._still_true(index, item, row)
                if known is None:
                    self._places[index] = place
                    found.new.append((index, item))
                else:
                    found.known.append(known)
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
        with self._lock:
            self._let_go()

    def _find(self, key: bytes, shown: str) -> tuple[Place, Row | None]:
        """Return where the next item of this key has its place, and what is written there."""
        first = self._seen.get(key, 0)
        if key not in self._written:
            self._seen[key] = first + 1
            return Place(key, first, shown), None
        with clear_errors(self._journal.path, JOURNAL, self._journal.timeout):
            occurrence, row = self._read(key, first)
            if row is not None:
                check_seal(key, occurrence, shown, row)
        self._seen[key] = occurrence + 1
        return Place(key, occurrence, shown), row

    def _read(self, key: bytes, first: int) -> tuple[int, Row | None]:
        """Return the outcome of an item of this key, the first or a later one, and which it is."""
        connection = self._to_read
        if connection is None:
            raise JournalError(f"the journal {self._journal.path!r} was closed meanwhile")
        occurrence = first
        row: Row | None = connection.execute(_FIND, (key, occurrence)).fetchone()
        while self._use.again and row is not None and row[0] == "done":
            occurrence += 1  # of several equal items it is the failed one that runs again
            row = connection.execute(_FIND, (key, occurrence)).fetchone()
        return (first, None) if row is None else (occurrence, row)

    def _still_true(self, index: int, item: Any, row: Row) -> Known | None:
        """Return the outcome of an earlier run, or None where the item has to run."""
        if self._use.again or (row[0] == "failed" and self._journal.retry_failed):
            return None
        outcome, stack = recalled(index, item, row[:-1], self._loads)
        holds = self._use.still_holds
        if holds is not None and outcome.ok and not holds(outcome.value):
            return None
        return outcome, stack and self._stacks.setdefault(stack, stack)

    def _loads(self, data: bytes) -> Any:
        """Return a value that was written."""
        try:
            return self._serializer.loads(data)
        except Exception as error:
            raise JournalError(
                f"the journal {self._journal.path!r} has a value that {self._serializer.name!r} "
                f"cannot read: {error}"
            ) from error

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
        for connection in (self._to_read, self._to_write, self._claim):
            if connection is not None:
                close_quietly(connection)
        self._to_read = self._to_write = None
