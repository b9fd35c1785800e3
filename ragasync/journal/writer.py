"""The thread that commits outcomes in groups, so that a job does not wait for the disk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

E = TypeVar("E")

MOST_GROUPS = 4
"""How many groups may wait: a job that is faster than its disk is held back from there on."""


class Writer(Generic[E]):
    """
    Writes what is put, in groups: when there are so many, or after so many seconds.

    Args:
        write: writes one group, in the thread of this writer alone.
        seconds: how long an entry waits at most.
        items: how many entries make a group that waits no longer.
        on_error: called once, in the writer's thread, with what `write` raised; nothing is
            written after that.
        on_room: called in the writer's thread when it was full and is no more.
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
        self._seconds, self._items = seconds, items
        self._entries: list[E] = []
        self._changed = threading.Condition()
        self._closing = False
        self.error: Exception | None = None
        # A daemon: a process that ends without closing its journal must not hang.
        self._thread = threading.Thread(target=self._live, name="ragasync journal", daemon=True)
        self._thread.start()

    @property
    def is_full(self) -> bool:
        """Whether so much waits to be written that nothing new should be begun."""
        return self.error is None and len(self._entries) >= MOST_GROUPS * self._items

    def put(self, entry: E) -> None:
        """Have an entry written soon; after an error it is dropped."""
        if self.error is not None:
            return
        with self._changed:
            self._entries.append(entry)
            if len(self._entries) in (1, self._items):
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
        except Exception as error:
            self.error = error
            self._entries = []
            self._on_error(error)

    def _next_group(self) -> list[E]:
        """Wait for a group and return it; it is empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._entries or self._closing)
            self._changed.wait_for(
                lambda: self._closing or len(self._entries) >= self._items, self._seconds
            )
            group, was_full = self._entries, self.is_full
            self._entries = []
        if was_full:
            self._on_room()
        return group
