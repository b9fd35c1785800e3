"""A rate limiter as one would write it on paper, and loops whose clock is moved by hand."""

import asyncio
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import note

from ragasync import RateLimiter

# Internals: single decisions, and numbers that no run reaches.
from ragasync._limits.queue import Waiter

A_MOMENT = 1e-6


@dataclass
class Clock:
    """The time that all loops of a test follow."""

    now: float = 0.0


class SteppedLoop(asyncio.SelectorEventLoop):
    """A loop that follows a clock moved by hand, and never waits."""

    def __init__(self, clock: Clock) -> None:
        self._by_hand = clock
        super().__init__()

    def time(self) -> float:
        """Return the time by the clock."""
        return self._by_hand.now

    def settle(self) -> None:
        """Run until nothing moves without the clock; a few turns are enough."""
        self.run_until_complete(_turns())

    def do(self, order: Callable[[], object]) -> object:
        """Call a function while this loop runs."""

        async def call() -> object:
            return order()

        return self.run_until_complete(call())

    def next_timer(self) -> float:
        """Return when the first timer is due; asyncio keeps them in a private heap."""
        timers = getattr(self, "_scheduled", [])
        return min((timer.when() for timer in timers if not timer.cancelled()), default=math.inf)


async def _turns() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


_ARRIVALS = itertools.count()


class Caller:
    """Somebody who asks a limiter on a loop."""

    def __init__(self, limiter: RateLimiter, loop: SteppedLoop, weight: float) -> None:
        self.loop, self.weight = loop, weight
        before = set(limiter._queue.waiters)
        self.task = loop.create_task(limiter.acquire(weight))
        loop.settle()
        came = [waiter for waiter in limiter._queue.waiters if waiter not in before]
        self.waiter: Waiter | None = came[0] if came else None
        self.granted_immediately = loop.time() if self.task.done() else None
        self.gave_up = False
        self.flowed = 0.0
        self.came = next(_ARRIVALS)

    @property
    def granted(self) -> float | None:
        """When it was granted, though it may not know yet."""
        return self.granted_immediately if self.waiter is None else self.waiter.granted

    def is_requeued(self, limiter: RateLimiter) -> bool:
        """Whether a pause came between its grant and its hearing of it, so that it is requeued."""
        if self.waiter is None or not self.waiter.has_run or self.task.done():
            return False
        number = self.waiter.number
        self.waiter = next(each for each in limiter._queue.waiters if each.number == number)
        return True

    @property
    def is_gone(self) -> bool:
        """Whether its loop has closed, or it gave up."""
        return self.gave_up or self.loop.is_closed()


@dataclass
class PaperLimiter:
    """
    What a limiter must do: a bucket that owes what it granted and pays back at its rate.

    Attributes:
        flowed: what has flowed in, had there always been room.
        queue: The waiting callers, in order of arrival.
        grants: times and weights granted at the present rate and not given back.
    """

    rate: float
    burst: float
    owed: float = 0.0
    flowed: float = 0.0
    at: float = 0.0
    paused_until: float = 0.0
    queue: list[Caller] = field(default_factory=list)
    grants: list[tuple[float, float]] = field(default_factory=list)

    def move_to(self, now: float) -> None:
        """Pay back."""
        self.owed = max(0.0, self.owed - self.rate * (now - self.at))
        self.flowed += self.rate * (now - self.at)
        self.at = now

    def delay(self, weight: float) -> float:
        """Return the seconds until a weight is due; one above the burst waits for a full bucket."""
        over = self.owed - max(0.0, self.burst - weight)
        return max(over / self.rate, self.paused_until - self.at, 0.0)

    def take(self, weight: float) -> None:
        """Grant a weight, which must be due."""
        assert self.delay(weight) < A_MOMENT, f"granted {self.delay(weight)} s too early"
        self.owed += weight
        self.grants.append((self.at, weight))
        self._check_windows()

    def refund(self, caller: Caller, taken: float) -> None:
        """Undo a grant, but for what may have been paid back since."""
        left = caller.weight - (self.flowed - caller.flowed)
        self.owed = max(0.0, self.owed - max(0.0, left))
        self.grants = [grant for grant in self.grants if grant != (taken, caller.weight)]

    def requeue(self, caller: Caller, granted: float) -> None:
        """Give back what was granted, and put a caller before all who came after it."""
        self.refund(caller, granted)
        self.queue.append(caller)
        self.queue.sort(key=lambda each: each.came)

    def change(self, rate: float, burst: float) -> None:
        """Go on at another rate."""
        self.rate, self.burst, self.grants = rate, burst, []

    def first_due(self) -> float:
        """Return when the first waiter that still waits must be granted."""
        ghosts = list(itertools.takewhile(lambda caller: caller.is_gone, self.queue))
        heads = self.queue[: len(ghosts) + 1]
        # A closed loop tells nobody that it closed: who stood there is found gone when due.
        return self.at + max((self.delay(caller.weight) for caller in heads), default=math.inf)

    def serve(self) -> None:
        """Take in what the limiter has granted by now, which must be in order."""
        for caller in list(self.queue):
            if caller.granted is None:
                if caller.is_gone:
                    continue
                assert all(later.granted is None for later in self.queue), "somebody was overtaken"
                break
            note(f"{self.at}: granted {caller.weight}")
            assert abs(caller.granted - self.at) < A_MOMENT
            del self.queue[: self.queue.index(caller) + 1]  # and who was gone before it
            caller.flowed = self.flowed
            self.take(caller.weight)

    def _check_windows(self) -> None:
        """Find no window up to now that holds more than burst and rate allow."""
        total, most = 0.0, self.burst
        for when, weight in reversed(self.grants):
            total, most = total + weight, max(most, weight)
            assert total <= most + self.rate * (self.at - when) + A_MOMENT
