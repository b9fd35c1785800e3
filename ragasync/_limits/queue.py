"""
Wait queues of rate limiters: first come, first served, on any number of loops.

A wait queue belongs to one bucket. A waiter is in the queue of every bucket that it needs, and
takes from all of them in one step. It reserves nothing and polls nothing.

Grants are decided by one scan over the waiters, oldest first, that keeps no state from one scan to
the next. For each waiter there are three cases:

- It is due in all its queues, and none of them is reserved: it is granted.
- None of its queues is reserved, but it is due only later. The queue with its longest delay is
  reserved for it: no younger waiter is granted there. In its other queues it is skipped, so that
  a slow bucket does not slow down the queue of a fast one. A younger waiter may pass it there if
  that does not delay it; one younger waiter may delay it, once.
- One of its queues is reserved for an older waiter, or for a skipped one that a grant would delay
  again. It is skipped in its other queues.

So every waiter that is not granted is in at least one reserved queue, reserved for itself or for
an older waiter. Every loop with waiters in a reserved queue has a timer there, set for the time
when the reserving waiter is due. These two sentences are the invariant that no waiter sleeps
forever: whichever timer fires first grants everyone who is due, on every loop, and a loop that
stalls or closes delays only its own waiters.

This bounds every wait: pauses aside, a waiter waits at most as long as its own weight and those of
all older waiters that share queues with it would take one after the other, each in its slowest
limit, plus one grant of a younger waiter for each of them.

Waking a loop costs more than everything else about a grant. So if the next waiters are due hardly
later than the first, the timer is set for all of them, up to a sixteenth of the queue: no wait
gets longer by more than that. The bound on every window is unchanged.
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
from operator import attrgetter
from typing import TypeAlias

from ragasync._limits.bucket import RESOLUTION, Bucket
from ragasync.clock import Clock, LoopTimers, current_clock, current_time, running_loop

LOCK = threading.Lock()
"""
Guards every queue and bucket; held for arithmetic only, never across an await.

There is one lock for all queues because a scan looks at every queue that shares waiters with
another. One lock per queue would need a lock order.
"""

_GROUP_SHARE = 16
"""At most this fraction (1 / 16) of a queue's waiters is delayed to be granted as a group."""


class Waiter:
    """A caller in wait queues: its claims (queue and weight), and the future that wakes it."""

    __slots__ = ("claims", "future", "granted", "has_run", "loop", "number", "was_delayed")

    def __init__(self, future: asyncio.Future[None], claims: Claims, number: int = -1) -> None:
        self.future = future
        self.loop = future.get_loop()
        self.claims = claims
        self.number = number  # lower for older waiters; negative until it is first enqueued
        self.granted: float | None = None  # the time of its grant
        self.has_run = False  # whether its task has run since, granted or not
        self.was_delayed = False  # by a younger waiter that passed it in a queue

    def enqueue(self) -> bool:
        """
        Enter the queue of every claim, behind all older waiters. LOCK is held.

        Returns:
            Whether all of them were empty, and no granted waiter of theirs has yet to run.
        """
        if self.number < 0:
            self.number = next(_NUMBERS)
        first = True
        for queue, _ in self.claims:
            first = first and not (queue.waiters or queue.has_pending_wakeup)
            queue.bucket.fast_path_slack = -math.inf
            # Searched from the end: only requeued waiters are older than some in the queue.
            younger = itertools.takewhile(
                lambda other: other.number > self.number, reversed(queue.waiters)
            )
            queue.waiters.insert(len(queue.waiters) - sum(1 for _ in younger), self)
            if len(self.claims) > 1:
                queue.shared[self] = None
        return first

    def dequeue(self) -> None:
        """Leave the queue of every claim. LOCK is held."""
        for queue, _ in self.claims:
            if self in queue.waiters:
                queue.waiters.remove(self)
                queue.shared.pop(self, None)

    def is_gone(self) -> bool:
        """Return whether the waiter no longer waits: granted, cancelled, or its loop has closed."""
        return self.future.done() or self.loop.is_closed()

    def grant(self, now: float, here: asyncio.AbstractEventLoop) -> None:
        """Leave every queue, wake the caller, and take its claims unless its loop has closed."""
        self.dequeue()
        self.granted = now
        if self.loop is here:
            self.future.set_result(None)
        else:
            try:
                self.loop.call_soon_threadsafe(_set_result, self.future)
            except RuntimeError:  # its loop has closed
                return
        for queue, weight in self.claims:
            queue.bucket.take(weight, now)
            queue.last_granted = self


def _set_result(future: asyncio.Future[None]) -> None:
    """Set the future of a waiter granted in another thread, unless it was cancelled meanwhile."""
    if not future.done():
        future.set_result(None)


class WaitQueue:
    """
    The wait queue of one bucket, oldest waiter first.

    Attributes:
        bucket: The bucket that grants are taken from.
        waiters: Waiters that are not granted yet.
        shared: The waiters that are in other queues too.
        timers: One timer per loop, set for the time when the next waiter is due.
        last_granted: The waiter that was granted last.
    """

    __slots__ = ("_clock", "_notified", "bucket", "last_granted", "shared", "timers", "waiters")

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.waiters: deque[Waiter] = deque()
        self.shared: dict[Waiter, None] = {}
        self.timers = LoopTimers()
        self.last_granted: Waiter | None = None
        self._clock: Clock = time.monotonic  # the clock of the pause in force
        self._notified: set[asyncio.AbstractEventLoop] = set()  # loops that will dispatch soon

    @property
    def has_pending_wakeup(self) -> bool:
        """Whether a granted waiter's task has yet to run; newcomers must not overtake it."""
        last = self.last_granted
        return last is not None and not (last.has_run or last.loop.is_closed())

    @property
    def paused_for(self) -> float:
        """Seconds until the pause in force ends, 0.0 without a pause; readable from any thread."""
        paused_until = self.bucket.paused_until
        if paused_until == -math.inf:
            return 0.0
        # A thread without a loop cannot know the clock of the waiters' loops, which may be virtual.
        clock = self._clock if running_loop() is None else current_clock()
        return max(0.0, paused_until - clock())

    def try_take(self, weight: float) -> bool:
        """Take `weight` from the bucket if it is due and the queue is empty; return whether."""
        with LOCK:
            clock = current_clock()
            now = clock()
            if not (self.is_empty() and self.bucket.try_take(weight, now)):
                return False
            # From now on the fast path of RateLimiter.acquire may grant without looking at the
            # queue, until a waiter, a pause or a new rate sets the slack to -inf again.
            is_plain = clock is time.monotonic and not self.has_pending_wakeup
            slack = self.bucket.fast_path_slack_at(now) if is_plain else -math.inf
            self.bucket.fast_path_slack = slack
            return True

    def is_empty(self) -> bool:
        """Return whether the queue is empty, after removing waiters at the head that are gone."""
        while self.waiters and self.waiters[0].is_gone():
            self.waiters[0].dequeue()
        return not self.waiters

    def dispatch_soon(self, newcomer: Waiter) -> None:
        """Dispatch for a newcomer in a later loop iteration, if needed. LOCK is held."""
        # At the end of this queue alone, behind a waiter for whom its loop has a timer, a newcomer
        # needs no dispatch: that timer will fire first.
        is_last = len(newcomer.claims) == 1 and self.waiters[-1] is newcomer
        if not (is_last and newcomer.loop in self.timers):
            newcomer.loop.call_soon(self._on_notified, newcomer.loop)

    def dispatch(self, here: asyncio.AbstractEventLoop) -> None:
        """Grant all due waiters, and set the timers of `here`, the running loop. LOCK is held."""
        now = current_time()
        if not self.shared:
            self._set_timer(here, self._grant_due(now, here), now)
            return
        for queue, wait in grant_across(self, now, here).items():
            due = queue._set_timer(here, wait, now)
            if due is not None:
                queue._notify_late_loops(here, due)

    def notify_all(self) -> None:
        """Make every loop with waiters dispatch: one may be due sooner. LOCK is held."""
        for loop in self._loops():
            self.notify_loop(loop)

    def change_rate(self, rate: float, burst: float) -> None:
        """Change the bucket's rate; waiters see it immediately."""
        with LOCK:
            self.bucket.fast_path_slack = -math.inf
            self.bucket.change_rate(rate, burst, current_time())
            self.notify_all()

    def correct(self, weight: float, used: float) -> None:
        """Replace the weight of an earlier grant; waiters may be due sooner or later."""
        with LOCK:
            self.bucket.correct(weight, used, current_time())
            if used < weight:  # a timer that fires too early for a debt is set again
                self.notify_all()

    def pause(self, seconds: float) -> None:
        """Pause grants for a number of seconds; a pause in force that ends later stays."""
        with LOCK:
            clock = current_clock()
            now = clock()
            if now + seconds <= max(now, self.bucket.paused_until):
                return
            self.bucket.fast_path_slack = -math.inf
            self.bucket.pause(now + seconds)
            self._clock = clock
            # Timers that fire meanwhile are only early. But a shared waiter that now waits longest
            # here may have reserved another queue, which is free for others from now on.
            if self.shared:
                self.notify_all()

    def resume(self) -> None:
        """End a pause now, and grant all due waiters, in order, on every loop."""
        with LOCK:
            self.bucket.paused_until = -math.inf
            self.notify_all()

    def _grant_due(self, now: float, here: asyncio.AbstractEventLoop) -> float | None:
        """Grant all due waiters of a queue without shared ones; return the next one's delay."""
        self.bucket.sync_clock(now)
        while self.waiters:
            waiter = self.waiters[0]
            if waiter.is_gone():
                waiter.dequeue()
                continue
            wait = self.bucket.delay(waiter.claims[0][1], now)
            if wait > 0.0:
                return wait
            waiter.grant(now, here)
        return None

    def _set_timer(
        self, here: asyncio.AbstractEventLoop, wait: float | None, now: float
    ) -> float | None:
        """Set the timer of `here` for the next due waiter, or cancel it; return the delay in s."""
        if wait is None:
            self.timers.cancel(here)
            return None
        few = itertools.islice(self.waiters, len(self.waiters) // _GROUP_SHARE)
        alone = itertools.takewhile(lambda waiter: len(waiter.claims) == 1, few)
        wait = self.bucket.group_delay([each.claims[0][1] for each in alone], wait, now)
        if any(waiter.loop is here for waiter in self.waiters):
            self.timers.set(here, wait, self._on_timer)
        else:
            self.timers.cancel(here)
        return wait

    def _loops(self) -> set[asyncio.AbstractEventLoop]:
        """
        Return the loops with waiters in this queue.

        The loop of a waiter that is only in this queue has a timer, or a scheduled call that will
        set it: if the queue is not reserved, such a waiter is granted.
        """
        return {*self.timers, *(waiter.loop for waiter in self.shared)}

    def _notify_late_loops(self, here: asyncio.AbstractEventLoop, wait: float) -> None:
        """Make other loops dispatch whose timer is set too late, or not at all."""
        for loop in self._loops():
            if loop is not here and not self.timers.due_within(wait, loop):
                self.notify_loop(loop)

    def notify_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make a loop dispatch this queue immediately; the running loop does so synchronously."""
        if loop is running_loop():
            self.dispatch(loop)
        elif loop not in self._notified:  # else thousands of calls would pile up on a stalled loop
            with contextlib.suppress(RuntimeError):  # it has closed; other loops do not need it
                loop.call_soon_threadsafe(self._on_notified, loop)
                self._notified = {loop, *(each for each in self._notified if not each.is_closed())}

    def _on_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        """Dispatch because the timer fired; it may be early, so perhaps no waiter is due yet."""
        with LOCK:
            del self.timers[loop]
            self.dispatch(loop)

    def _on_notified(self, loop: asyncio.AbstractEventLoop) -> None:
        """Dispatch because another thread, or an earlier loop iteration, asked for it."""
        with LOCK:
            self._notified.discard(loop)
            self.dispatch(loop)


class _QueueScan:
    """The position of a scan in one queue, and whether the queue is reserved."""

    __slots__ = ("position", "queue", "skipped", "wait")

    def __init__(self, queue: WaitQueue) -> None:
        self.queue = queue
        self.position = 0  # the number of waiters at the head that were skipped
        self.skipped: list[tuple[Waiter, float, float]] = []  # waiter, weight, delay
        self.wait: float | None = None  # if reserved: seconds until the reserving waiter is due

    def next(self, scans: dict[WaitQueue, _QueueScan]) -> Waiter | None:
        """Return the oldest waiter that may be granted; None at the end and if reserved."""
        waiters = self.queue.waiters
        while self.wait is None and self.position < len(waiters):
            waiter = waiters[self.position]
            # In a reserved queue it is behind the reserving waiter, because the scan looks at
            # older waiters first.
            if all(scans[queue].wait is None for queue, _ in waiter.claims):
                return waiter
            self.position += 1
        return None

    def reserve_for_skipped(self, weight: float, now: float) -> list[Waiter]:
        """
        Reserve the queue if a grant of `weight` now would delay a skipped waiter too much.

        Returns:
            The skipped waiters that the grant would delay acceptably. Each may be delayed once,
            and only if it is not due within the time that its own grant takes here: otherwise two
            busy queues would never be due for it at the same time.
        """
        bucket, delayed = self.queue.bucket, []
        for waiter, its_weight, due in self.skipped:
            if bucket.delay_behind(weight, its_weight, now) <= due + RESOLUTION:
                continue
            soon = bucket.delay(its_weight, now) + its_weight * bucket.interval
            if waiter.was_delayed or due <= soon:
                self.wait = due if self.wait is None else min(self.wait, due)
            else:
                delayed.append(waiter)
        return delayed

    def skip_or_reserve(self, waiter: Waiter, weight: float, due: float, now: float) -> None:
        """Reserve the queue if it has the waiter's longest delay, else skip the waiter here."""
        if self.queue.bucket.delay(weight, now) < due - RESOLUTION:
            self.position += 1
            self.skipped.append((waiter, weight, due))
        else:
            self.wait = due


def grant_across(
    start: WaitQueue, now: float, here: asyncio.AbstractEventLoop
) -> dict[WaitQueue, float | None]:
    """
    Grant all due waiters of a queue and of the queues it shares waiters with. LOCK is held.

    Returns:
        The delay in seconds of the waiter that each queue is reserved for; None if it is not.
    """
    scans = {queue: _QueueScan(queue) for queue in _connected(start)}
    for queue in scans:
        queue.bucket.sync_clock(now)
    number = attrgetter("number")  # lower for older waiters
    while heads := [head for each in scans.values() if (head := each.next(scans)) is not None]:
        waiter = min(heads, key=number)
        if waiter.is_gone():
            waiter.dequeue()
            continue
        claims = [(scans[queue], weight) for queue, weight in waiter.claims]
        due = max(each.queue.bucket.delay(weight, now) for each, weight in claims)
        if due > 0.0:
            for each, weight in claims:
                each.skip_or_reserve(waiter, weight, due, now)
        elif not _would_delay_older(claims, now):
            waiter.grant(now, here)
    return {queue: each.wait for queue, each in scans.items()}


def _would_delay_older(claims: Sequence[tuple[_QueueScan, float]], now: float) -> bool:
    """Reserve the queues where a grant would delay older waiters too much; return if any."""
    delayed: list[Waiter] = []
    for each, weight in claims:
        delayed += each.reserve_for_skipped(weight, now)
    if any(each.wait is not None for each, _ in claims):
        return True
    for older in delayed:
        older.was_delayed = True
    return False


def _connected(start: WaitQueue) -> list[WaitQueue]:
    """Return a queue and all queues connected with it by shared waiters."""
    found = {start: None}
    queues = [start]
    for queue in queues:
        for waiter in queue.shared:
            for other, _ in waiter.claims:
                if other not in found:
                    found[other] = None
                    queues.append(other)
    return queues


_NUMBERS = itertools.count()
Claims: TypeAlias = Sequence[tuple[WaitQueue, float]]
"""Weights to take from queues, each queue at most once."""
