"""JournalSession: one run's use of a journal, with a reader of earlier outcomes and a writer."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from sqlite3 import Connection
from typing import Any, Generic, TypeVar

from ragasync._outcomes.outcome import Outcome
from ragasync.errors import JournalError
from ragasync.journal.file import JOURNAL, JournalFile, Row
from ragasync.journal.journal import JournalBinding
from ragasync.journal.ownership import JobIdentity
from ragasync.journal.rows import RowKey, check_row, make_key, to_outcome, to_row
from ragasync.journal.serializers import SERIALIZERS, Serializer
from ragasync.sqlite_file import convert_errors
from ragasync.usage import Usage, UsageTotals

E = TypeVar("E")

_FIND = (
    "SELECT status, value, error_module, error_type, error_message, error_notes, stack, stage,"
    " checksum, tokens, cost FROM outcomes WHERE key = ? AND occurrence = ?"
)

_ANY_DONE = "SELECT 1 FROM outcomes WHERE status = 'done' LIMIT 1"

_DONE = "SELECT key, occurrence, value FROM outcomes WHERE status = 'done' ORDER BY rowid"

RecordedOutcome = tuple[Outcome[Any, Any], str | None]
"""The outcome of an earlier run, and the stack of its error."""

_Entry = tuple[RowKey, Outcome[Any, Any], str | None] | None
"""An outcome to write, with the stack of its error; None if only the usage has changed."""


@dataclass(slots=True)
class Lookup:
    """
    The result of looking up items in a journal.

    Args:
        refused: items whose `key=` raised an error, with the error.
        used: what new items have used in earlier runs, by index.
    """

    recorded: list[RecordedOutcome] = field(default_factory=list)
    new: list[tuple[int, Any]] = field(default_factory=list)
    row_keys: list[RowKey] = field(default_factory=list)
    refused: list[tuple[int, Any, Exception]] = field(default_factory=list)
    used: dict[int, Usage] = field(default_factory=dict)


class JournalSession:
    """
    A journal while one run has it to itself: it looks up items, and records their outcomes.

    All methods block on SQLite.

    Raises:
        JournalError: it is another job's, in use, locked, or damaged.

    Attributes:
        warning: a warning for the user, or None.
        id: the random id of the journal.
        usage: what the earlier runs of the journal have used.
        usage_is_queued: whether the usage of this run will be written soon.
        holds_success: whether an earlier run recorded a success.
    """

    def __init__(self, binding: JournalBinding) -> None:
        journal = self._journal = binding.journal
        self._binding = binding
        self._serializer = journal.serializer or binding.serializer or SERIALIZERS["json"]
        self._row_keys: dict[int, RowKey] = {}
        self._writer: Writer[_Entry] | None = None
        self._loss: Exception | None = None
        self._totals: UsageTotals | None = None
        self.usage_is_queued = False
        job = JobIdentity(
            journal.name or binding.name, journal.version, self._serializer.name, binding.functions
        )
        self._file = JournalFile(journal.path, journal.timeout, job)
        try:
            self.warning = _change_warning(binding, job.name, self._file.changes)
            self.id, self.usage = self._file.id, self._file.usage
            self._reader = JournalReader(self._file.reading, binding, self._serializer)
            self.holds_success = self._reader.holds_success
        except BaseException:
            self._file.close()
            raise

    def start_writing(
        self,
        on_error: Callable[[Exception], None],
        on_space: Callable[[], None],
        totals: UsageTotals,
    ) -> None:
        """
        Start the thread that writes outcomes; it calls the functions, see Writer.

        `totals` count the usage of the run; they go on from what the journal has.
        """
        journal, self._totals = self._journal, totals
        self._writer = Writer(
            self._write, journal.flush_seconds, journal.flush_items, on_error, on_space
        )

    @property
    def error(self) -> Exception | None:
        """Why the journal lacks some outcomes of this run, or None."""
        return (None if self._writer is None else self._writer.error) or self._loss

    def lookup_needs_thread(self, items: Sequence[tuple[int, Any]]) -> bool:
        """Whether looking up these items reads files, which would block the loop."""
        return self._binding.has_slow_keys or any(
            type(item) is not str and isinstance(item, os.PathLike) for _, item in items
        )

    @property
    def is_full(self) -> bool:
        """Whether no new item should be started until the disk has caught up."""
        return self._writer is not None and self._writer.is_full

    def look_up(self, items: Sequence[tuple[int, Any]]) -> Lookup:
        """
        Separate the items with a recorded outcome from those to process.

        Raises:
            TypeError: an item has no default key, and there is no `key=`.
            JournalError: the file cannot be read.
        """
        found = self._reader.look_up(items)
        for (index, _), row_key in zip(found.new, found.row_keys, strict=True):
            self._row_keys[index] = row_key
        return found

    def record(self, outcome: Outcome[Any, Any], stack: str | None) -> None:
        """Queue an outcome for writing, if it is final or has used anything."""
        row_key = self._row_keys.pop(outcome.index, None)
        is_kept = outcome.status in ("done", "failed") or outcome.tokens or outcome.cost
        if row_key is None or self._writer is None or not is_kept:
            return
        self._writer.put((row_key, outcome, stack))

    def record_usage(self) -> None:
        """Queue the usage so far for writing; many reports are written together."""
        if self._writer is not None and not self.usage_is_queued:
            self.usage_is_queued = True
            self._writer.put(None)

    def close(self) -> None:
        """Write the queued outcomes and close the file; a failure is in `error`."""
        if self._writer is not None:
            self._writer.close()
        self._reader.close()
        try:
            self._file.close()
        except JournalError as error:
            self._loss = error

    def _write(self, group: Sequence[_Entry]) -> None:
        """Commit a group of outcomes; a value that cannot be kept is an error after that."""
        rows, refusal = [], None
        now = time.time()
        self.usage_is_queued = False  # before the usage is read: a later report queues it again
        for entry in group:
            if entry is None:
                continue
            row_key, outcome, stack = entry
            try:
                value = self._serializer.dumps(outcome.value) if outcome.ok else None
            except Exception as error:
                refusal = refusal or self._refusal(outcome, error)
            else:
                rows.append(to_row(row_key, outcome, stack, value, now))
        self._file.write(rows, self.usage if self._totals is None else self._totals.usage)
        if refusal is not None:
            raise refusal

    def _refusal(self, outcome: Outcome[Any, Any], error: Exception) -> JournalError:
        """Error of a value that the serializer would change."""
        return JournalError(
            f"the value of item {outcome.index} cannot be kept as {self._serializer.name!r}, "
            f"{error}: return plain data, or pass Journal(..., serializer=) 'numpy' for arrays "
            f"or 'pickle' for other objects"
        )


class JournalReader:
    """
    Reads the outcomes of earlier runs from a journal.

    It remembers the digest of every key that it has looked up, to number equal items, and of every
    key in the file, because asking SQLite for a missing key takes longer than everything else. This
    takes about 100 bytes per item. All methods block on SQLite.

    Attributes:
        holds_success: whether an outcome in the file is a success.
    """

    def __init__(
        self, connection: Connection, binding: JournalBinding, serializer: Serializer
    ) -> None:
        self._connection: Connection | None = connection
        self._binding, self._serializer = binding, serializer
        self._path, self._timeout = binding.journal.path, binding.journal.timeout
        self._make_key = binding.make_key or make_key
        self._seen: dict[bytes, int] = {}
        self._stacks: dict[str, str] = {}  # one string for all errors with the same stack
        self._latest: dict[object, tuple[bytes, int]] | None = None
        self._lock = threading.Lock()
        with convert_errors(self._path, JOURNAL, self._timeout):
            keys = connection.execute("SELECT key FROM outcomes")
            self._written = frozenset(key for (key,) in keys)
            self.holds_success = connection.execute(_ANY_DONE).fetchone() is not None

    def look_up(self, items: Sequence[tuple[int, Any]]) -> Lookup:
        """Separate the items with a recorded outcome from the others; see JournalSession."""
        found = Lookup()
        with self._lock:
            for index, item in items:
                try:
                    key = self._make_key(item, self._binding.key)
                except Exception as error:
                    if self._binding.key is None:
                        raise
                    found.refused.append((index, item, error))
                    continue
                row_key, row = self._find(key.digest, key.preview)
                recorded = None if row is None else self._valid(index, item, row, row_key)
                if recorded is None:
                    found.new.append((index, item))
                    found.row_keys.append(row_key)
                    if row is not None and (row[-2] or row[-1]):
                        found.used[index] = Usage(0, row[-2] or 0, row[-1] or 0.0)
                else:
                    found.recorded.append(recorded)
        return found

    def close(self) -> None:
        """Stop reading, after the look-up in progress."""
        with self._lock:
            self._connection = None

    def _find(self, key: bytes, preview: str) -> tuple[RowKey, Row | None]:
        """Row key of the next item with this key, and the recorded row, if there is one."""
        first = self._seen.get(key, 0)
        if key not in self._written:
            self._seen[key] = first + 1
            return RowKey(key, first, preview), None
        with convert_errors(self._path, JOURNAL, self._timeout):
            occurrence, row = self._read(key, first)
            if row is not None:
                check_row(key, occurrence, preview, row[:-2])
        self._seen[key] = occurrence + 1
        return RowKey(key, occurrence, preview), row

    def _read(self, key: bytes, first: int) -> tuple[int, Row | None]:
        """Occurrence and row of an item with this key, the first one or a later one."""
        connection = self._connection
        if connection is None:
            raise JournalError(f"the journal {self._path!r} has been closed")
        occurrence = first
        row: Row | None = connection.execute(_FIND, (key, occurrence)).fetchone()
        while self._binding.rerun_failed and row is not None and row[0] == "done":
            occurrence += 1  # of several equal items, only the failed one runs again
            row = connection.execute(_FIND, (key, occurrence)).fetchone()
        return (first, None) if row is None else (occurrence, row)

    def _valid(self, index: int, item: Any, row: Row, row_key: RowKey) -> RecordedOutcome | None:
        """The recorded outcome of an item, or None if the item has to run again."""
        binding = self._binding
        is_retried = binding.journal.retry_failed or row[3] in binding.transient_errors
        if row[0] not in ("done", "failed"):
            return None  # its run stopped before it was; the row has what it had used
        if binding.rerun_failed or (row[0] == "failed" and is_retried):
            return None
        outcome, stack = to_outcome(index, item, (*row[:-3], *row[-2:]), self._loads)
        if outcome.ok and not self._is_still_valid(item, outcome.value, row_key):
            return None
        return outcome, stack and self._stacks.setdefault(stack, stack)

    def _is_still_valid(self, item: Any, value: Any, row_key: RowKey) -> bool:
        """Whether a recorded value still applies, and no later one has the same subject."""
        binding = self._binding
        if binding.subject is not None:
            if self._latest is None:
                self._latest = self._latest_by_subject(binding.subject)
            if self._latest.get(binding.subject(value)) != (row_key.key, row_key.occurrence):
                return False
        return binding.is_still_valid is None or binding.is_still_valid(item, value)

    def _latest_by_subject(
        self, subject: Callable[[Any], object]
    ) -> dict[object, tuple[bytes, int]]:
        """Key and occurrence of the latest recorded success of each subject."""
        assert self._connection is not None
        with convert_errors(self._path, JOURNAL, self._timeout):
            rows = self._connection.execute(_DONE).fetchall()
        return {subject(self._loads(value)): (key, number) for key, number, value in rows}

    def _loads(self, data: bytes) -> Any:
        """Deserialize a recorded value."""
        try:
            return self._serializer.loads(data)
        except Exception as error:
            raise JournalError(
                f"the journal {self._path!r} has a value that {self._serializer.name!r} "
                f"cannot read: {error}"
            ) from error


def _change_warning(binding: JournalBinding, name: str, changes: Sequence[str]) -> str | None:
    """Warning that a job's functions differ from those that made the recorded outcomes."""
    if not changes:
        return None
    is_code = any(change.startswith("the code") for change in changes)
    subject = f"the source of {name!r} has" if is_code else f"the settings of {name!r} have"
    kept = "earlier outcomes are kept"
    if binding.keys_have_settings:
        kept = "earlier outcomes of the same settings are kept, whatever the code"
    return (
        f"{subject} changed since the journal {binding.journal.path!r} was written "
        f"({'; '.join(changes)}): {kept}; to process everything again, pass another version="
    )


class Writer(Generic[E]):
    """
    Writes entries in groups, on a thread: when half of `items` are queued, or after `seconds`.

    At most `items` entries are unwritten, in the queue or in the group that is being written, not
    counting those of calls that were in flight already. While one half is written, the other half
    is filled, so that input is paused only if the job is faster than its disk.

    Args:
        write: writes one group; called on the writer's thread only.
        on_error: called once, on the writer's thread, with an error of `write`; nothing is written
            after that.
        on_space: called on the writer's thread when there is space again after `is_full` was True.
    """

    def __init__(
        self,
        write: Callable[[Sequence[E]], None],
        seconds: float,
        items: int,
        on_error: Callable[[Exception], None],
        on_space: Callable[[], None],
    ) -> None:
        self._write, self._on_error, self._on_space = write, on_error, on_space
        self._seconds, self._items, self._enough = seconds, items, (items + 1) // 2
        self._entries: deque[E] = deque()
        self._being_written = 0
        self._is_awaited = False
        self._changed = threading.Condition()
        self._closing = False
        self.error: Exception | None = None
        # A daemon: a process that ends without closing its journal must not hang.
        self._thread = threading.Thread(target=self._run, name="ragasync journal", daemon=True)
        self._thread.start()

    @property
    def is_full(self) -> bool:
        """Whether no new call should start; if so, `on_space` is called when there is space."""
        if self.error is not None:
            return True  # nothing is ever written again, and the run is about to stop
        if self._unwritten < self._items:
            return False
        with self._changed:  # check again under the lock, or `on_space` could be missed
            self._is_awaited = self._unwritten >= self._items
            return self._is_awaited

    def put(self, entry: E) -> None:
        """
        Queue an entry; after an error it is dropped. Only one thread may put at a time.

        The writer's thread is notified of the first entry and of the one that completes a group: a
        lock for each entry would cost more than everything else.
        """
        if self.error is not None:
            return
        self._entries.append(entry)
        if len(self._entries) in (1, self._enough):
            with self._changed:
                self._changed.notify()

    def close(self) -> None:
        """Write the queued entries, and wait for the thread to end."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        """Write groups until the end; the target of the thread."""
        try:
            while group := self._next_group():
                self._write(group)
                self._free_space()
        except BaseException as error:  # otherwise entries would wait for a dead thread
            if not isinstance(error, Exception):
                because = f"the journal's thread was ended by {type(error).__name__}: {error}"
                error = JournalError(because).with_traceback(error.__traceback__)
            self.error = error
            self._entries.clear()
            self._on_error(error)

    def _next_group(self) -> list[E]:
        """Wait for the next group; an empty one is the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._entries or self._closing)
            self._changed.wait_for(
                lambda: self._closing or len(self._entries) >= self._enough, self._seconds
            )
            self._being_written = len(self._entries)
            return [self._entries.popleft() for _ in range(self._being_written)]

    def _free_space(self) -> None:
        """Count the group as written, and notify a job that waits for space."""
        with self._changed:
            is_awaited, self._is_awaited = self._is_awaited, False
            self._being_written = 0
        if is_awaited:
            self._on_space()

    @property
    def _unwritten(self) -> int:
        """Number of entries that are queued or being written."""
        return len(self._entries) + self._being_written
