"""The thread that commits outcomes in groups, so that a job does not wait for the disk."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from ragasync.errors import JournalError

E = TypeVar("E")


class Writer(Generic[E]):
    """
    Writes what is put, in groups: when there are enough, or after so many seconds.

    So many entries are unwritten at most, waiting or on their way to the disk, but for those of
    calls that were in flight already. Half of them make a group that waits no longer: the other
    half gathers while it is written, and a job is held back only where it is faster than its disk.

    Args:
        write: writes one group, in the thread of this writer alone.
        seconds: how long an entry waits for others at most.
        items: how many entries may be unwritten.
        on_error: called once, in the writer's thread, with what `write` raised; nothing is
            written after that.
        on_room: called in the writer's thread when there is room that was asked for in vain.
    """

    def __init__(
        self,
        write: Callable[[Sequence[E]], None],
        seconds: float,
        items: int,
        on_error: Callable[[Exception], None],
        on_room: Callable[[], None],
    ) -> None:
        self._write, self._on_error, self._on_room = write, on_error, on_room
        self._seconds, self._items, self._enough = seconds, items, (items + 1) // 2
        self._entries: deque[E] = deque()
        self._being_written = 0
        self._awaited = False
        self._changed = threading.Condition()
        self._closing = False
        self.error: Exception | None = None
        # A daemon: a process that ends without closing its journal must not hang.
        self._thread = threading.Thread(target=self._live, name="ragasync journal", daemon=True)
        self._thread.start()

    @property
    def is_full(self) -> bool:
        """Whether so much is unwritten that nothing new should begin; who asks waits for room."""
        if self.error is not None:
            return True  # no room is ever made again, and the run is about to hear of the error
        if self._unwritten < self._items:
            return False
        with self._changed:  # once more: room may be made at this moment, for nobody yet
            self._awaited = self._unwritten >= self._items
            return self._awaited

    def put(self, entry: E) -> None:
        """
        Have an entry written soon; after an error it is dropped. One thread may put at a time.

        The thread that writes is told of the first entry and of the last that makes a group:
        a lock for each would cost more than all the rest.
        """
        if self.error is not None:
            return
        self._entries.append(entry)
        if len(self._entries) in (1, self._enough):
            with self._changed:
                self._changed.notify()

    def close(self) -> None:
        """Write what is left, and wait for the end of the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _live(self) -> None:
        """Write group after group; this is the thread's life."""
        try:
            while group := self._next_group():
                self._write(group)
                self._make_room()
        except BaseException as error:  # or entries would wait for a thread that has ended
            if not isinstance(error, Exception):
                because = f"the journal's thread was ended by {type(error).__name__}: {error}"
                error = JournalError(because).with_traceback(error.__traceback__)
            self.error = error
            self._entries.clear()
            self._on_error(error)

    def _next_group(self) -> list[E]:
        """Wait for a group and return it; it is empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._entries or self._closing)
            self._changed.wait_for(
                lambda: self._closing or len(self._entries) >= self._enough, self._seconds
            )
            self._being_written = len(self._entries)
            return [self._entries.popleft() for _ in range(self._being_written)]

    def _make_room(self) -> None:
        """Count the group as written, and say so where the job was held back for it."""
        with self._changed:
            awaited, self._awaited = self._awaited, False
            self._being_written = 0
        if awaited:
            self._on_room()

    @property
    def _unwritten(self) -> int:
        """How many entries wait, or are on their way to the disk."""
        return len(self._entries) + self._being_written
