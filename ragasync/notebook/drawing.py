"""When a progress bar is drawn: seldom, and always at the end."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from ragasync.clock import Clock, running_loop
from ragasync.notebook.throttle import Throttle

INTERVAL = 0.1
"""Seconds between two drawings: the front end drops messages that come much faster."""

ECHO = 1.0
"""Seconds within which the end, reported once more, is not the end of another run."""


@dataclass(frozen=True, slots=True)
class ProgressState:
    """How far a run is: items that ended, the total if known, seconds and items since the start."""

    done: int
    total: int | None
    seconds: float
    counted: int

    @property
    def rate(self) -> float | None:
        """Items a second, None while nobody can tell."""
        return self.counted / self.seconds if self.seconds > 0 and self.counted > 0 else None

    @property
    def left(self) -> float | None:
        """The seconds that are left, None while nobody can tell."""
        rate = self.rate
        return None if self.total is None or rate is None else (self.total - self.done) / rate


class ProgressDrawing(ABC):
    """
    A progress callback that draws at most ten times a second and flushes at the end.

    The end is `done == total`, `close()`, or leaving the `with` block. A later call begins
    another run with a new bar, and so does one whose count goes back. A report that comes too
    early to be drawn is drawn by the running loop a moment later, so that the bar of a job that
    stops early shows its last count.

    A run whose first report is of items that ended already may be over at any moment, and to
    begin a bar costs more than many such runs: it gets one a moment later, if it still runs then,
    else only its last state.

    Args:
        clock: what tells the seconds.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._throttle = Throttle(INTERVAL, clock)
        self._running = False
        self._shown = False
        self._done = 0
        self._total: int | None = None
        self._began, self._began_at, self._ended = 0.0, 0, float("-inf")
        self._later: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        state = "running" if self._running else "idle"
        return f"<{type(self).__name__} {self._done:,} of {_number(self._total)}, {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.close()

    def __call__(self, done: int, total: int | None = None) -> None:
        """
        Report how far the job is.

        Args:
            done: the items that have ended.
            total: all items, None while that is unknown.
        """
        if self._is_echo(done, total):
            return
        if self._running and done < self._done:
            self.close()
        begins = not self._running
        if begins:
            self._begin(done)
        self._done, self._total = done, total
        if done == total:
            self.close()
        elif (begins and self._must_show_now()) or self._throttle.due():
            self._show()
        else:
            self._show_later()

    def close(self) -> None:
        """Draw the last state and end this run's bar; does nothing between two runs."""
        if not self._running:
            return
        self._running = False
        self._forget_later()
        self._ended = self._clock()
        if self._shown:
            self._end(self._reading())
        else:
            self._leave(self._reading())

    @abstractmethod
    def _start(self, reading: ProgressState) -> None:
        """Show a new bar."""

    @abstractmethod
    def _draw(self, reading: ProgressState) -> None:
        """Bring the bar up to date."""

    @abstractmethod
    def _end(self, reading: ProgressState) -> None:
        """Leave the bar in its last state."""

    def _leave(self, reading: ProgressState) -> None:
        """Show the last state of a run that was over before it had a bar."""
        self._start(reading)
        self._end(reading)

    def _begin(self, done: int) -> None:
        """Begin a run."""
        self._running, self._shown = True, False
        self._began, self._began_at = self._clock(), done
        self._throttle = Throttle(INTERVAL, self._clock)
        self._throttle.due()

    def _must_show_now(self) -> bool:
        """Return whether the first report is to be seen at once: none ended, or no loop waits."""
        return self._done == 0 or running_loop() is None

    def _show(self) -> None:
        """Show how far the run is: on its bar, or on a new one."""
        self._forget_later()
        show = self._draw if self._shown else self._start
        show(self._reading())
        self._shown = True

    def _is_echo(self, done: int, total: int | None) -> bool:
        """Return whether this is the end of the last run, told once more."""
        known = (done, total) == (self._done, self._total)
        return not self._running and known and self._clock() - self._ended < ECHO

    def _reading(self) -> ProgressState:
        """Return how far the run is now."""
        seconds = self._clock() - self._began
        return ProgressState(self._done, self._total, seconds, self._done - self._began_at)

    def _show_later(self) -> None:
        """Have the running loop show what came too early, if there is a loop."""
        if self._later is None and (loop := running_loop()) is not None:
            self._later = loop.call_later(INTERVAL, self._catch_up)

    def _catch_up(self) -> None:
        """Show what no later report has shown."""
        self._later = None
        if self._running and self._throttle.due():
            self._show()

    def _forget_later(self) -> None:
        """Let the loop draw nothing any more."""
        if self._later is not None:
            self._later.cancel()
            self._later = None


def _number(count: int | None) -> str:
    """Return a count to be read."""
    return "?" if count is None else f"{count:,}"
