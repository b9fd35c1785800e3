"""One run's use of a journal: what it knows of items, and what it is told of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ragasync.errors import JournalError
from ragasync.journal.file import Job, JournalFile
from ragasync.journal.recalling import JournalReader, Lookup
from ragasync.journal.rows import Place, row_of
from ragasync.journal.serializers import BY_NAME
from ragasync.journal.writer import Writer
from ragasync.outcomes.outcome import Outcome

if TYPE_CHECKING:
    from ragasync.journal.journal import Journal
    from ragasync.journal.use import JournalBinding


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
        holds_success: whether the outcome of an earlier run in it is a success.
    """

    def __init__(self, journal: Journal, use: JournalBinding) -> None:
        self._journal, self._use = journal, use
        self._serializer = journal.serializer or use.serializer or BY_NAME["json"]
        self._places: dict[int, Place] = {}
        self._writer: Writer[tuple[Place, Outcome[Any, Any], str | None]] | None = None
        self._lost: Exception | None = None
        job = Job(journal.name or use.name, journal.version, self._serializer.name, use.functions)
        self._file = JournalFile(journal, job)
        try:
            self.warning = _warning_of(journal, job.name, self._file.changes)
            self._recalling = JournalReader(self._file.reading, journal, use, self._serializer)
            self.holds_success = self._recalling.holds_success
        except BaseException:
            self._file.close()
            raise

    def begin(self, on_error: Callable[[Exception], None], on_room: Callable[[], None]) -> None:
        """Take outcomes from now on; see Writer for what is called, in a thread of its own."""
        journal = self._journal
        self._writer = Writer(
            self._write, journal.flush_seconds, journal.flush_items, on_error, on_room
        )

    @property
    def error(self) -> Exception | None:
        """Why not all that was done is in the journal, or None."""
        return (None if self._writer is None else self._writer.error) or self._lost

    def takes_long(self, rows: Sequence[tuple[int, Any]]) -> bool:
        """Return whether looking these items up has to read files, and belongs on a thread."""
        return self._use.on_thread or any(
            type(item) is not str and isinstance(item, os.PathLike) for _, item in rows
        )

    @property
    def is_full(self) -> bool:
        """Whether nothing new should be begun until the disk has caught up."""
        return self._writer is not None and self._writer.is_full

    def look_up(self, rows: Sequence[tuple[int, Any]]) -> Lookup:
        """
        Tell the items that have an outcome from those that have to run.

        Raises:
            TypeError: an item has no key by itself, and none was given.
            JournalError: the file cannot be read.
        """
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
        """Write what is left and let go of the file; `error` says if that has failed."""
        if self._writer is not None:
            self._writer.close()
        self._recalling.close()
        try:
            self._file.close()
        except JournalError as error:
            self._lost = error

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
        self._file.write(rows)
        if refused is not None:
            raise refused

    def _refusal(self, outcome: Outcome[Any, Any], error: Exception) -> JournalError:
        """Return the error of a value that would not come back as it is."""
        return JournalError(
            f"the value of item {outcome.index} cannot be kept as {self._serializer.name!r}, "
            f"{error}: return plain data, or pass Journal(..., serializer=) 'numpy' for arrays "
            f"or 'pickle' for other objects"
        )


def _warning_of(journal: Journal, name: str, changes: Sequence[str]) -> str | None:
    """Return the warning that a job's functions differ from those that wrote its journal."""
    if not changes:
        return None
    is_code = any(change.startswith("the code") for change in changes)
    what = f"the source of {name!r} has" if is_code else f"the settings of {name!r} have"
    return (
        f"{what} changed since the journal {journal.path!r} was written "
        f"({'; '.join(changes)}): outcomes of before are kept as they are; for a fresh start pass "
        f"another version="
    )
