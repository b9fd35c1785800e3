"""
Where callers stand until their limits let them pass: first come, first served.

A line belongs to one bucket. A waiter stands in the line of every bucket that it has to pass, and
takes from all of them in one step, when it is due at all. Nobody reserves and nobody polls: each
loop with waiters in a line keeps one alarm there, set for the moment when the first of them is
due, and whichever rings first serves everybody who is due, on every loop. So a loop that stalls
or closes holds up nobody but its own.

A waiter that is due here and not elsewhere is passed over and keeps its place, so that a slow
bucket does not slow down the line of a fast one. But where the other is due within the time that
its grant takes here, this line waits for it: two busy lines would never be due for it at once.

To wake a loop costs more than everything else about a grant. So where the next in line are due
hardly later than the first, the alarm is set for all of them, up to a sixteenth of the line:
nobody's wait gets longer by more. What may go in any window stays as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TypeAlias

from ragasync.clock import clock_here, loop_here, time_here
from ragasync.limits.alarms import Alarms
from ragasync.limits.bucket import Bucket

LOCK = threading.Lock()
"""
Guards every line, and is held for arithmetic only, never across an await.

It is one for all because whoever takes from several buckets in one step, or serves one line, has
to look at the others; locks of their own would have to be taken in an order of their own.
"""

_SHARE = 16  # who may be kept for those behind: the first of so many in line


class Waiter:
    """One who stands in line: what it takes from which, and the future that tells it."""

    __slots__ = ("awake", "future", "granted", "loop", "number", "passed", "places")

    def __init__(self, future: asyncio.Future[None], places: Places) -> None:
        self.future = future
        self.loop = future.get_loop()
        self.places = places
        self.number = next(_NUMBERS)  # who has a lower one came before
        self.passed: frozenset[Line] = _NO_LINE  # the lines in which it is passed over
        self.granted: float | None = None  # when
        self.awake = False  # whether it ran again, granted or not

    def unlink(self) -> None:
        """Be in no line any more."""
        for line, _ in self.places:
            if self in line.waiters:
                line.waiters.remove(self)

    def is_gone(self) -> bool:
        """Say whether nobody waits here any more: cancelled, or its loop has closed."""
        return self.future.done() or self.loop.is_closed()

    def tell(self, here: asyncio.AbstractEventLoop) -> bool:
        """Wake whoever waits, on its own loop; False if that has closed. Here runs this loop."""
        if self.loop is here:
            self.future.set_result(None)
            return True
        try:
            self.loop.call_soon_threadsafe(_wake, self.future)
        except RuntimeError:
            return False
        return True


def _wake(future: asyncio.Future[None]) -> None:
    """Set the future of a waiter that another thread granted, unless it was cancelled since."""
    if not future.done():
        future.set_result(None)


class Line:
    """The waiters at one bucket, in order of arrival."""

    __slots__ = ("alarms", "bucket", "last", "waiters")

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.waiters: deque[Waiter] = deque()
        self.last: Waiter | None = None  # the last who was granted after a wait
        self.alarms = Alarms()

    @property
    def wakes_somebody(self) -> bool:
        """Whether one who was granted has yet to run; newcomers to the line go after that one."""
        last = self.last
        return last is not None and not (last.awake or last.loop.is_closed())

    def try_take(self, cost: float) -> bool:
        """Take if it is due and nobody stands in line; say whether it was."""
        with LOCK:
            clock = clock_here()
            now = clock()
            if not (self.is_free() and self.bucket.try_take(cost, now)):
                return False
            usual = clock is time.monotonic and not self.wakes_somebody
            self.bucket.leeway = self.bucket.leeway_at(now) if usual else -math.inf
            return True

    def is_free(self) -> bool:
        """Say whether nobody stands here, but for who is gone at the head. LOCK is held."""
        while self.waiters and self.waiters[0].is_gone():
            self.waiters[0].unlink()
        return not self.waiters

    def append(self, waiter: Waiter) -> bool:
        """Let a waiter stand at the end; say whether it is the first, with nobody yet to run."""
        first = not (self.waiters or self.wakes_somebody)
        self.bucket.leeway = -math.inf
        self.waiters.append(waiter)
        return first

    def attend_to(self, newcomer: Waiter, first: bool) -> None:
        """Attend for a newcomer, but never so that it runs before those granted. LOCK is held."""
        if first:
            self.attend(newcomer.loop)
        # One who stands only here, behind somebody for whom its loop's alarm is set, needs nothing.
        elif len(newcomer.places) > 1 or newcomer.loop not in self.alarms:
            newcomer.loop.call_soon(self._called, newcomer.loop)

    def attend(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve whoever is due and set the alarm of this loop, the running one. LOCK is held."""
        now = time_here()
        wait, shifted = self._serve(now, loop)
        if wait is not None and any(waiter.loop is loop for waiter in self.waiters):
            few = itertools.islice(self.waiters, len(self.waiters) // _SHARE)
            alone = itertools.takewhile(lambda waiter: len(waiter.places) == 1, few)
            costs = [waiter.places[0][1] for waiter in alone]
            self.alarms.set(loop, self.bucket.delay_of_some(costs, wait, now), self._ring)
        else:
            self.alarms.cancel(loop)
        for waiter, blocker in shifted:
            blocker.rouse(waiter.loop)

    def rouse(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have a loop attend to this line at once: somebody may be due sooner. LOCK is held."""
        if loop is loop_here():
            self.attend(loop)
        else:
            with contextlib.suppress(RuntimeError):  # closed: the others go on without it
                loop.call_soon_threadsafe(self._called, loop)

    def change_rate(self, rate: float, burst: float) -> None:
        """Go on at another rate; those in line see it at once."""
        with LOCK:
            self.bucket.leeway = -math.inf
            self.bucket.change(rate, burst, time_here())
            self.rouse_all()

    def close(self, seconds: float) -> None:
        """Grant nothing for so long; alarms that ring meanwhile are only early."""
        with LOCK:
            self.bucket.leeway = -math.inf
            self.bucket.close(time_here() + seconds)

    def rouse_all(self) -> None:
        """Have every loop with waiters attend to this line. LOCK is held."""
        for loop in list(self.alarms):
            self.rouse(loop)

    def _serve(
        self, now: float, here: asyncio.AbstractEventLoop
    ) -> tuple[float | None, list[tuple[Waiter, Line]]]:
        """
        Grant whoever is due, in order.

        Returns the seconds until the first of those left is due (None when this line holds up
        nobody), and the waiters newly passed over, with the line that holds them up most.
        """
        self.bucket.synchronise(now)
        passed = 0
        shifted: list[tuple[Waiter, Line]] = []
        while passed < len(self.waiters):
            waiter = self.waiters[passed]
            if waiter.is_gone():
                waiter.unlink()
                continue
            wait, blocker = self._wait(waiter, now)
            if blocker is not None:
                if self not in waiter.passed:
                    waiter.passed |= {self}
                    shifted.append((waiter, blocker))
                passed += 1
                continue
            if waiter.passed:
                waiter.passed -= {self}
            if wait > 0.0:
                return wait, shifted
            waiter.unlink()
            waiter.granted = now
            if waiter.tell(here):
                for line, cost in waiter.places:
                    line.bucket.take(cost, now)
                    line.last = waiter
        return None, shifted

    def _wait(self, waiter: Waiter, now: float) -> tuple[float, Line | None]:
        """Return the seconds until a waiter is due, and which line to pass it over for, if any."""
        if len(waiter.places) == 1:
            return self.bucket.delay(waiter.places[0][1], now), None
        here = patience = outside = 0.0
        blocker: Line | None = None
        for line, cost in waiter.places:
            if line is self:
                here = self.bucket.delay(cost, now)
                patience = cost * self.bucket.interval
                continue
            wait = math.inf if line._is_ahead_of(waiter) else line.bucket.delay(cost, now)
            if wait > outside:
                outside, blocker = wait, line
        return max(here, outside), blocker if outside > here + patience else None

    def _is_ahead_of(self, waiter: Waiter) -> bool:
        """Say whether somebody before this waiter is held up by this very line."""
        before = itertools.takewhile(lambda other: other is not waiter, self.waiters)
        return any(self not in other.passed for other in before)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        """Attend because the alarm went off; timers may be early, so nobody need be due."""
        with LOCK:
            del self.alarms[loop]
            self.attend(loop)

    def _called(self, loop: asyncio.AbstractEventLoop) -> None:
        """Attend because another thread asked for it, or in an earlier turn."""
        with LOCK:
            self.attend(loop)


_NO_LINE: frozenset[Line] = frozenset()
_NUMBERS = itertools.count()
Places: TypeAlias = Sequence[tuple[Line, float]]
"""What to take from which line; no line twice."""
