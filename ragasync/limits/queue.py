"""
Queues of waiters at the rate limits: first come, first served, on any number of loops.

A line belongs to one bucket. A waiter stands in the line of every bucket that it needs, and takes
from all of them in one step. It reserves nothing and polls nothing.

Who is granted is decided by one pass over the waiters, oldest first, that keeps no state from one
pass to the next. For each waiter there are three cases:

- It is due in all its lines, and nobody holds one of them: it is granted.
- Nobody holds its lines, but it is due only later. It holds the line that makes it wait longest:
  nobody behind it is granted there. In its other lines it is passed over, so that a slow bucket
  does not slow down the line of a fast one, but only by grants that leave it due when it would
  have been due without them; one other may put it off, once.
- An older waiter holds one of its lines, or this line is held for one that was passed over, which
  a grant would put off further. It is passed over in its other lines.

So every waiter that is not granted stands in at least one line that somebody holds, itself or an
older one. Every loop with waiters in a line that is held keeps an alarm there, set for the moment
when the holder is due. These two sentences are the invariant that nobody sleeps for ever:
whichever alarm rings first grants everybody who is due, on every loop, and a loop that stalls or
closes holds up nobody but its own waiters.

So there is a bound on every wait: pauses aside, it takes at most as long as the costs of this
waiter and of all older ones that lines connect it with would take one after the other, each in its
slowest limit, and for each of them one grant of a younger waiter.

Waking a loop costs more than everything else about a grant. So where the next in line are due
hardly later than the first, the alarm is set for all of them, up to a sixteenth of the line:
nobody's wait gets longer by more. The bound on any window is unchanged.
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

from ragasync.clock import Clock, LoopTimers, current_clock, current_time, running_loop
from ragasync.limits.bucket import RESOLUTION, Bucket

LOCK = threading.Lock()
"""
Guards every line, and is held for arithmetic only, never across an await.

There is one lock for all lines because a pass looks at every line that shares a waiter with
another; with a lock for each line they would have to be taken in an order of their own.
"""

_SHARE = 16  # the first of so many in line may be delayed for those behind


class Waiter:
    """A caller in line: what it takes from which line, and the future that wakes it."""

    __slots__ = ("awake", "future", "granted", "loop", "number", "places", "was_put_off")

    def __init__(self, future: asyncio.Future[None], places: Claims, number: int = -1) -> None:
        self.future = future
        self.loop = future.get_loop()
        self.places = places
        self.number = number  # the older, the lower; below 0 until it first stands in line
        self.granted: float | None = None  # when
        self.awake = False  # whether it ran again, granted or not
        self.was_put_off = False  # by a younger one that passed it in a line

    def enter(self) -> bool:
        """
        Stand in every line, behind all older waiters. LOCK is held.

        Returns:
            Whether nobody else stands in any of them, or was granted and has yet to run.
        """
        if self.number < 0:
            self.number = next(_NUMBERS)
        first = True
        for line, _ in self.places:
            first = first and not (line.waiters or line.wakes_somebody)
            line.bucket.leeway = -math.inf
            # From the end: all but those who stand again are the youngest.
            younger = itertools.takewhile(
                lambda other: other.number > self.number, reversed(line.waiters)
            )
            line.waiters.insert(len(line.waiters) - sum(1 for _ in younger), self)
            if len(self.places) > 1:
                line.shared[self] = None
        return first

    def unlink(self) -> None:
        """Leave every line. LOCK is held."""
        for line, _ in self.places:
            if self in line.waiters:
                line.waiters.remove(self)
                line.shared.pop(self, None)

    def is_gone(self) -> bool:
        """Return whether nobody waits here any more: cancelled, or its loop has closed."""
        return self.future.done() or self.loop.is_closed()

    def grant(self, now: float, here: asyncio.AbstractEventLoop) -> None:
        """Leave every line and wake the caller; take, unless its loop has closed."""
        self.unlink()
        self.granted = now
        if self.tell(here):
            for line, weight in self.places:
                line.bucket.take(weight, now)
                line.last = self

    def tell(self, here: asyncio.AbstractEventLoop) -> bool:
        """Wake the caller on its own loop; False if that has closed. `here` is the running loop."""
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
    """
    The queue of waiters at one bucket, oldest first.

    Attributes:
        bucket: what it takes.
        waiters: who is not granted yet.
        shared: those of them who stand in other lines too.
        alarms: by loop; each has this line looked at when its holder is due.
        last: who was granted last after a wait.
    """

    __slots__ = ("_clock", "_roused", "alarms", "bucket", "last", "shared", "waiters")

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.waiters: deque[Waiter] = deque()
        self.shared: dict[Waiter, None] = {}
        self.alarms = LoopTimers()
        self.last: Waiter | None = None
        self._clock: Clock = time.monotonic  # by which it is closed
        self._roused: set[asyncio.AbstractEventLoop] = set()  # other loops that will attend

    @property
    def wakes_somebody(self) -> bool:
        """Whether a granted waiter has yet to run; newcomers to the line go after that one."""
        last = self.last
        return last is not None and not (last.awake or last.loop.is_closed())

    @property
    def closed_for(self) -> float:
        """Seconds until the pause in force ends, 0.0 without one; readable from any thread."""
        opens = self.bucket.opens
        if opens == -math.inf:
            return 0.0
        # A thread without a loop cannot know the clock of the loops that wait, a virtual one, say.
        clock = self._clock if running_loop() is None else current_clock()
        return max(0.0, opens - clock())

    def try_take(self, weight: float) -> bool:
        """Take if it is due and nobody stands in line; return whether it was."""
        with LOCK:
            clock = current_clock()
            now = clock()
            if not (self.is_free() and self.bucket.try_take(weight, now)):
                return False
            usual = clock is time.monotonic and not self.wakes_somebody
            self.bucket.leeway = self.bucket.leeway_at(now) if usual else -math.inf
            return True

    def is_free(self) -> bool:
        """Return whether nobody stands here; waiters at the head that are gone do not count."""
        while self.waiters and self.waiters[0].is_gone():
            self.waiters[0].unlink()
        return not self.waiters

    def attend_soon(self, newcomer: Waiter) -> None:
        """Attend for a newcomer in a later turn of its loop, if need be. LOCK is held."""
        # In this line only, behind a waiter for which its loop has an alarm, it needs nothing.
        last = len(newcomer.places) == 1 and self.waiters[-1] is newcomer
        if not (last and newcomer.loop in self.alarms):
            newcomer.loop.call_soon(self._called, newcomer.loop)

    def attend(self, here: asyncio.AbstractEventLoop) -> None:
        """Grant all who are due, and set the alarms of this loop, the running one. LOCK is held."""
        now = current_time()
        if not self.shared:
            self._watch(here, self._serve(now, here), now)
            return
        for line, wait in grant_together(self, now, here).items():
            due = line._watch(here, wait, now)
            if due is not None:
                line._rouse_late(here, due)

    def rouse_all(self) -> None:
        """Have every loop with waiters attend: somebody may be due sooner. LOCK is held."""
        for loop in self._loops():
            self._rouse(loop)

    def change_rate(self, rate: float, burst: float) -> None:
        """Go on at another rate; those in line see it immediately."""
        with LOCK:
            self.bucket.leeway = -math.inf
            self.bucket.change(rate, burst, current_time())
            self.rouse_all()

    def close(self, seconds: float) -> None:
        """Grant nothing for so long; a pause in force that ends later stays as it is."""
        with LOCK:
            clock = current_clock()
            now = clock()
            if now + seconds <= max(now, self.bucket.opens):
                return
            self.bucket.leeway = -math.inf
            self.bucket.close(now + seconds)
            self._clock = clock
            # Alarms that ring meanwhile are only early. But a line that somebody held who now
            # waits for this one is free for others.
            if self.shared:
                self.rouse_all()

    def reopen(self) -> None:
        """End a pause now, and grant all who are due, in order, on every loop."""
        with LOCK:
            self.bucket.opens = -math.inf
            self.rouse_all()

    def _serve(self, now: float, here: asyncio.AbstractEventLoop) -> float | None:
        """Grant all who are due, in a line without shared waiters; return as `grant_together`."""
        self.bucket.synchronise(now)
        while self.waiters:
            waiter = self.waiters[0]
            if waiter.is_gone():
                waiter.unlink()
                continue
            wait = self.bucket.delay(waiter.places[0][1], now)
            if wait > 0.0:
                return wait
            waiter.grant(now, here)
        return None

    def _watch(
        self, here: asyncio.AbstractEventLoop, wait: float | None, now: float
    ) -> float | None:
        """Set or cancel the alarm of this loop, by the wait of the holder; return its wait."""
        if wait is None:
            self.alarms.cancel(here)
            return None
        few = itertools.islice(self.waiters, len(self.waiters) // _SHARE)
        alone = itertools.takewhile(lambda waiter: len(waiter.places) == 1, few)
        wait = self.bucket.delay_of_some([each.places[0][1] for each in alone], wait, now)
        if any(waiter.loop is here for waiter in self.waiters):
            self.alarms.set(here, wait, self._ring)
        else:
            self.alarms.cancel(here)
        return wait

    def _loops(self) -> set[asyncio.AbstractEventLoop]:
        """
        Return the loops with waiters here.

        Those of waiters that stand only here have an alarm, or a call that will set it: without a
        holder, such a waiter is granted.
        """
        return {*self.alarms, *(waiter.loop for waiter in self.shared)}

    def _rouse_late(self, here: asyncio.AbstractEventLoop, wait: float) -> None:
        """Have the other loops attend whose alarm here rings too late, or is not set."""
        for loop in self._loops():
            if loop is not here and not self.alarms.due_within(wait, loop):
                self._rouse(loop)

    def _rouse(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have a loop attend to this line immediately."""
        if loop is running_loop():
            self.attend(loop)
        elif loop not in self._roused:  # a stalled loop would find thousands of calls
            with contextlib.suppress(RuntimeError):  # closed: the others go on without it
                loop.call_soon_threadsafe(self._called, loop)
                self._roused = {loop, *(each for each in self._roused if not each.is_closed())}

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        """Attend because the alarm went off; timers may be early, so nobody need be due."""
        with LOCK:
            del self.alarms[loop]
            self.attend(loop)

    def _called(self, loop: asyncio.AbstractEventLoop) -> None:
        """Attend because another thread asked for it, or in an earlier turn."""
        with LOCK:
            self._roused.discard(loop)
            self.attend(loop)


class _Pass:
    """How far a pass has come in one line, and who holds the line."""

    __slots__ = ("line", "reserved", "skipped", "wait")

    def __init__(self, line: Line) -> None:
        self.line = line
        self.skipped = 0  # waiters at the head that are passed over
        self.reserved: list[tuple[Waiter, float, float]] = []  # of these: its weight, seconds to go
        self.wait: float | None = None  # seconds until the holder is due

    def next(self, passes: dict[Line, _Pass]) -> Waiter | None:
        """Return the oldest waiter that may be due; None at the end, and in a line that is held."""
        waiters = self.line.waiters
        while self.wait is None and self.skipped < len(waiters):
            waiter = waiters[self.skipped]
            for line, _ in waiter.places:
                # In a held line it stands behind the holder: older ones were looked at before.
                if passes[line].wait is not None:
                    break
            else:
                return waiter
            self.skipped += 1
        return None

    def hold_for_those_passed(self, weight: float, now: float) -> list[Waiter]:
        """
        Hold the line if a grant of `weight` now would put off a waiter that was passed over.

        Returns:
            Those whom it may put off. That is allowed once for each, and only while it is not
            due within the time that its own grant takes here: else two busy lines would never be
            due for it at the same time.
        """
        bucket, may_wait = self.line.bucket, []
        for waiter, reserved, due in self.reserved:
            if bucket.delay_behind(weight, reserved, now) <= due + RESOLUTION:
                continue
            patience = bucket.delay(reserved, now) + reserved * bucket.interval
            if waiter.was_put_off or due <= patience:
                self.wait = due if self.wait is None else min(self.wait, due)
            else:
                may_wait.append(waiter)
        return may_wait

    def skip_or_hold(self, waiter: Waiter, weight: float, due: float, now: float) -> None:
        """Hold the line for a waiter that it makes wait longest; pass over all others."""
        if self.line.bucket.delay(weight, now) < due - RESOLUTION:
            self.skipped += 1
            self.reserved.append((waiter, weight, due))
        else:
            self.wait = due


def grant_together(
    start: Line, now: float, here: asyncio.AbstractEventLoop
) -> dict[Line, float | None]:
    """
    Grant all who are due in a line and in those that it shares waiters with. LOCK is held.

    Returns:
        For each of these lines the seconds until its holder is due; None where nobody holds it.
    """
    passes = {line: _Pass(line) for line in _connected(start)}
    for line in passes:
        line.bucket.synchronise(now)
    while heads := [head for each in passes.values() if (head := each.next(passes)) is not None]:
        waiter = min(heads, key=_age)
        if waiter.is_gone():
            waiter.unlink()
            continue
        stands = [(passes[line], weight) for line, weight in waiter.places]
        due = max(each.line.bucket.delay(weight, now) for each, weight in stands)
        if due > 0.0:
            for each, weight in stands:
                each.skip_or_hold(waiter, weight, due, now)
        elif not _would_put_off(stands, now):
            waiter.grant(now, here)
    return {line: each.wait for line, each in passes.items()}


def _age(waiter: Waiter) -> int:
    """Return a number that is lower for older waiters."""
    return waiter.number


def _would_put_off(stands: Sequence[tuple[_Pass, float]], now: float) -> bool:
    """Hold the lines in which a grant would put off older waiters too far; return if there are."""
    put_off: list[Waiter] = []
    for each, weight in stands:
        put_off += each.hold_for_those_passed(weight, now)
    if any(each.wait is not None for each, _ in stands):
        return True
    for older in put_off:
        older.was_put_off = True
    return False


def _connected(start: Line) -> list[Line]:
    """Return a line and all that are connected with it by waiters who stand in several."""
    found = {start: None}
    lines = [start]
    for line in lines:
        for waiter in line.shared:
            for other, _ in waiter.places:
                if other not in found:
                    found[other] = None
                    lines.append(other)
    return lines


_NUMBERS = itertools.count()
Claims: TypeAlias = Sequence[tuple[Line, float]]
"""What to take from which line; no line twice."""
