"""Writer: the thread that writes outcomes in groups, so that a job does not wait for the disk."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from ragasync.errors import JournalError

E = TypeVar("E")


class Writer(Generic[E]):
    """
    Writes entries in groups, on a thread: when half of `items` are queued, or after `seconds`.

    At most `items` entries are unwritten, in the queue or in the group that is being written, not
    counting those of calls that were in flight already. While one half is written, the other half
    is filled, so that input is paused only if the job is faster than its disk.

    Args:
        write: writes one group; called on the writer's thread only.
        seconds: the maximum time that an entry waits for others.
        items: the maximum number of unwritten entries.
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
