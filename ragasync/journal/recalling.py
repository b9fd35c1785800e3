"""What a journal knows of items: their outcomes of earlier runs, as far as these still hold."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from sqlite3 import Connection
from typing import TYPE_CHECKING, Any

from ragasync.errors import JournalError
from ragasync.journal.file import JOURNAL
from ragasync.journal.keys import key_of
from ragasync.journal.rows import Place, Row, check_seal, recalled
from ragasync.journal.serializers import Serializer
from ragasync.outcomes.outcome import Outcome
from ragasync.sqlite_file import convert_errors

if TYPE_CHECKING:
    from ragasync.journal.journal import Journal
    from ragasync.journal.use import JournalBinding

_FIND = (
    "SELECT status, value, error_module, error_type, error_message, error_notes, stack, stage,"
    " seal FROM outcomes WHERE key = ? AND occurrence = ?"
)

_ANY_DONE = "SELECT 1 FROM outcomes WHERE status = 'done' LIMIT 1"

_DONE = "SELECT key, occurrence, value FROM outcomes WHERE status = 'done' ORDER BY rowid"

Known = tuple[Outcome[Any, Any], str | None]
"""The outcome of an earlier run, and the stack of its error."""


@dataclass(slots=True)
class Lookup:
    """
    What a journal says of some items.

    Args:
        known: the outcomes that it has.
        new: the items that have to be processed.
        places: where the outcome of each of these belongs.
        refused: items whose `key=` raised, with what it raised.
    """

    known: list[Known] = field(default_factory=list)
    new: list[tuple[int, Any]] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    refused: list[tuple[int, Any, Exception]] = field(default_factory=list)


class JournalReader:
    """
    Answers for items from the file of a journal.

    It remembers the digest of every key that came, to tell equal ones apart, and of those that are
    in the file, because asking SQLite for what is not there takes longer than all the rest: about
    100 bytes an item each. All methods block, for as long as SQLite needs.

    Args:
        connection: what it reads by.
        journal: the settings.
        use: what the processor brings.
        serializer: reads the values.

    Attributes:
        holds_success: whether any outcome in the file is a success.
    """

    def __init__(
        self, connection: Connection, journal: Journal, use: JournalBinding, serializer: Serializer
    ) -> None:
        self._connection: Connection | None = connection
        self._journal, self._use, self._serializer = journal, use, serializer
        self._keying = use.keying or key_of
        self._seen: dict[bytes, int] = {}
        self._stacks: dict[str, str] = {}  # one text for all errors of one kind and place
        self._latest: dict[object, tuple[bytes, int]] | None = None
        self._lock = threading.Lock()
        with convert_errors(journal.path, JOURNAL, journal.timeout):
            keys = connection.execute("SELECT key FROM outcomes")
            self._written = frozenset(key for (key,) in keys)
            self.holds_success = connection.execute(_ANY_DONE).fetchone() is not None

    def look_up(self, rows: Sequence[tuple[int, Any]]) -> Lookup:
        """
        Tell the items that have an outcome from those that have to run.

        Raises:
            TypeError: an item has no key by itself, and none was given.
            JournalError: the file cannot be read.
        """
        found = Lookup()
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
                known = None if row is None else self._still_true(index, item, row, place)
                if known is None:
                    found.new.append((index, item))
                    found.places.append(place)
                else:
                    found.known.append(known)
        return found

    def close(self) -> None:
        """Read nothing any more; who is reading now comes to its end first."""
        with self._lock:
            self._connection = None

    def _find(self, key: bytes, shown: str) -> tuple[Place, Row | None]:
        """Return where the next item of this key has its place, and what is written there."""
        first = self._seen.get(key, 0)
        if key not in self._written:
            self._seen[key] = first + 1
            return Place(key, first, shown), None
        with convert_errors(self._journal.path, JOURNAL, self._journal.timeout):
            occurrence, row = self._read(key, first)
            if row is not None:
                check_seal(key, occurrence, shown, row)
        self._seen[key] = occurrence + 1
        return Place(key, occurrence, shown), row

    def _read(self, key: bytes, first: int) -> tuple[int, Row | None]:
        """Return the outcome of an item of this key, the first or a later one, and which it is."""
        connection = self._connection
        if connection is None:
            raise JournalError(f"the journal {self._journal.path!r} was closed meanwhile")
        occurrence = first
        row: Row | None = connection.execute(_FIND, (key, occurrence)).fetchone()
        while self._use.again and row is not None and row[0] == "done":
            occurrence += 1  # of several equal items it is the failed one that runs again
            row = connection.execute(_FIND, (key, occurrence)).fetchone()
        return (first, None) if row is None else (occurrence, row)

    def _still_true(self, index: int, item: Any, row: Row, place: Place) -> Known | None:
        """Return the outcome of an earlier run, or None where the item has to run."""
        runs_again = self._journal.retry_failed or row[3] in self._use.passing
        if self._use.again or (row[0] == "failed" and runs_again):
            return None
        outcome, stack = recalled(index, item, row[:-1], self._loads)
        if outcome.ok and not self._holds(item, outcome.value, place):
            return None
        return outcome, stack and self._stacks.setdefault(stack, stack)

    def _holds(self, item: Any, value: Any, place: Place) -> bool:
        """Return whether an earlier value is still true, and no later one is about the same."""
        use = self._use
        if use.subject is not None:
            if self._latest is None:
                self._latest = self._latest_of_each(use.subject)
            if self._latest.get(use.subject(value)) != (place.key, place.occurrence):
                return False
        return use.still_holds is None or use.still_holds(item, value)

    def _latest_of_each(self, subject: Callable[[Any], object]) -> dict[object, tuple[bytes, int]]:
        """Return which outcome about each thing was written last, in earlier runs."""
        assert self._connection is not None
        with convert_errors(self._journal.path, JOURNAL, self._journal.timeout):
            rows = self._connection.execute(_DONE).fetchall()
        return {subject(self._loads(value)): (key, number) for key, number, value in rows}

    def _loads(self, data: bytes) -> Any:
        """Return a value that was written."""
        try:
            return self._serializer.loads(data)
        except Exception as error:
            raise JournalError(
                f"the journal {self._journal.path!r} has a value that {self._serializer.name!r} "
                f"cannot read: {error}"
            ) from error
