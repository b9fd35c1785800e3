"""The gate of a job: all the limits that one call has to pass, taken in one step."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence

from ragasync.clock import current_time
from ragasync.limits.bucket import Bucket, smoothest_burst
from ragasync.limits.limiter import (
    Limiter,
    RateLimiter,
    Resumable,
    check_pause,
    check_rate,
    total_weight,
)
from ragasync.limits.queue import Claims, Line, Waiter
from ragasync.limits.taking import exchange, give_back, join, leave, stand_again, take_now


class _Caller:
    """One who wants to pass: what it takes from the near limiters, and the future that tells it."""

    __slots__ = ("calls", "number", "places", "turn", "waiter")

    def __init__(self, places: Claims, calls: int) -> None:
        self.places = places
        self.calls = calls
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiter: Waiter | None = None  # once it stands in the lines of the limiters
        self.number = -1  # of its waiter, kept when it has to stand in other lines

    def ran(self) -> tuple[Claims, float] | None:
        """Return what was taken, and when; None where a pause came first, for a new turn."""
        assert self.waiter is not None
        if (again := stand_again(self.waiter)) is not None:
            self.waiter, self.turn = again, again.future
            return None
        assert self.waiter.granted is not None
        return self.waiter.places, self.waiter.granted


class CombinedLimiter:
    """
    Let a job's calls through, in order, as its limits allow.

    At the gate stand the limiters that the user gave (none, one or several; shared with other
    jobs or not) and one of the job's own, which can be set while it runs. With one of them, the
    callers stand in its own line, first come, first served among all jobs. With several they
    stand in the gate's, and its head takes from all in one step when all would admit, else from
    none. A limiter kept elsewhere is asked last, when the others have granted.

    Use it on one loop; the limiters may be used on any.

    Args:
        limiters: The job's limiters. The same one twice counts once.
    """

    def __init__(self, limiters: Sequence[Limiter] = ()) -> None:
        self._limiters = limiters = tuple(dict.fromkeys(limiters))
        self._near = tuple(each for each in limiters if isinstance(each, RateLimiter))
        self._far = tuple(each for each in limiters if not isinstance(each, RateLimiter))
        self._own = Line(Bucket(math.inf, 1.0))  # at this rate it holds nobody, unless closed
        self._limited = bool(limiters)
        self._own_counts = not limiters  # without others, it is the one that closes the gate
        plain = [limiter for limiter in self._near if limiter.weight is None]
        self._lone = plain[0] if len(plain) == len(limiters) == 1 else None
        self._closed = False
        self._queue: deque[_Caller] = deque()

    @property
    def is_open(self) -> bool:
        """Whether nothing limits at all: there is no limiter, and the gate is not closed."""
        if self._closed and self._own.bucket.opens <= current_time():
            self._closed = False
        return not (self._limited or self._closed)

    @property
    def rate(self) -> float | None:
        """The rate a second of the job's own limiter; None removes it. Callers see it at once."""
        rate = self._own.bucket.rate
        return None if rate == math.inf else rate

    @rate.setter
    def rate(self, rate: float | None) -> None:
        if rate is None:
            self._own.change_rate(math.inf, 1.0)
        else:
            rate = check_rate("rate", rate)
            self._own.change_rate(rate, smoothest_burst(rate))
        self._limited = bool(self._limiters) or rate is not None
        self._own_counts = not self._limiters or rate is not None
        self._stand_anew()

    def pause(self, seconds: float) -> None:
        """
        Pause every limiter of the job; without any, close the gate itself.

        Args:
            seconds: How long from now; the later of two pauses wins.

        Raises:
            TypeError: `seconds` is not a number.
            ValueError: `seconds` is negative or not finite.
        """
        seconds = check_pause(seconds)
        for limiter in self._limiters:
            limiter.pause(seconds)
        if self._own_counts:
            self._own.close(seconds)
            self._closed = True  # `is_open` looks at the time from now on

    @property
    def paused_for(self) -> float:
        """Seconds until the last pause of a limiter of the job ends, 0.0 without; in any thread."""
        pauses = [each.paused_for for each in self._limiters if isinstance(each, Resumable)]
        return max([*pauses, self._own.closed_for if self._own_counts else 0.0])

    def resume(self) -> None:
        """End the pauses of all limiters of the job now, whoever made them."""
        for limiter in self._limiters:
            if isinstance(limiter, Resumable):
                limiter.resume()
        self._own.reopen()

    def try_admit(self, items: Sequence[object], calls: int = 1) -> bool:
        """
        Let a call through if every limiter admits it now and nobody stands in line.

        Args:
            items: The items of the call, for limiters that count their weight.
            calls: What the call weighs at the others.

        Returns:
            Whether it may go. A False has taken nothing; `admit` waits.

        Raises:
            ValueError: The items weight more than a limiter can ever grant.
        """
        if self._far or self._queue:
            return False
        if self._lone is not None and not self._own_counts:
            return calls <= self._lone.max_weight and self._lone.try_acquire(calls)
        (places, part), *more = self._portions(items, calls)
        return not more and take_now(self._with_own(places, part)) is not None

    async def admit(
        self, items: Sequence[object], calls: int = 1, *, wanted: Callable[[], bool] | None = None
    ) -> None:
        """
        Wait until every limiter has let a call through, behind those who came before.

        More calls than a limiter's burst are taken in portions. Cancelled, or not wanted any more
        after a wait, it gives back what it has taken, as far as that still counts.

        Args:
            items: The items of the call, for limiters that count their weight.
            calls: What the call weighs at the others.
            wanted: Says, after a wait, whether the call is to begin.

        Raises:
            ValueError: The items weight more than a limiter can ever grant.
        """
        if self._lone is not None and self.try_admit(items, calls):
            return
        taken: list[tuple[Claims, float]] = []
        try:
            for places, part in self._portions(items, calls):
                taken.append(await self._turn(places, part))
            for limiter in self._far:
                for weight in _weights(limiter, items, calls):
                    await limiter.acquire(weight)
        except (Exception, asyncio.CancelledError):
            for grant in taken:
                give_back(*grant)
            raise
        if wanted is not None and not wanted():
            for grant in taken:
                give_back(*grant)

    @property
    def _stands_as_one(self) -> bool:
        """Whether there are several limits, so that only the gate's head stands in their lines."""
        return len(self._near) + self._own_counts > 1

    def _with_own(self, places: Claims, calls: int) -> Claims:
        """Return what to take now, at the job's own limiter too."""
        return [*places, (self._own, calls)] if self._own_counts else places

    def _portions(self, items: Sequence[object], calls: int) -> list[tuple[Claims, int]]:
        """
        Return what to take from the near limiters, and for how many calls, step by step.

        The steps are as large as the smallest burst; what counts items is taken with the first.
        """
        plain = [limiter for limiter in self._near if limiter.weight is None]
        places = [
            limiter.place(weight)
            for limiter in self._near
            if limiter.weight is not None
            for weight in _weights(limiter, items, calls)
        ]
        step = min([calls, *(_step(limiter) for limiter in plain)])
        portions: list[tuple[Claims, int]] = []
        for start in range(0, calls, step):
            part = min(step, calls - start)
            portions.append(([*places, *(limiter.place(part) for limiter in plain)], part))
            places = []
        return portions

    async def _turn(self, places: Claims, calls: int) -> tuple[Claims, float]:
        """Wait until one portion is granted; return what was taken, and when."""
        if not self._queue:
            everywhere = self._with_own(places, calls)
            granted = take_now(everywhere)
            if granted is not None:
                return everywhere, granted
        caller = _Caller(places, calls)
        self._queue.append(caller)
        taken = None
        try:
            self._let_stand(caller)
            while taken is None:
                await caller.turn
                taken = caller.ran()
        except (Exception, asyncio.CancelledError):
            if caller.waiter is not None:
                leave(caller.waiter)
            self._leave_queue(caller)
            raise
        self._leave_queue(caller)
        return taken

    def _let_stand(self, caller: _Caller) -> None:
        """Have a caller stand in the lines of the limiters, if it is its turn."""
        if self._is_next(caller):
            join(self._waiter(caller))

    def _is_next(self, caller: _Caller) -> bool:
        """Return whether it is the turn of a caller that does not stand in the lines yet."""
        return caller.waiter is None and (caller is self._queue[0] or not self._stands_as_one)

    def _waiter(self, caller: _Caller) -> Waiter:
        """Return a new waiter that stands for a caller."""
        places = self._with_own(caller.places, caller.calls)
        caller.waiter = Waiter(caller.turn, places, caller.number)
        return caller.waiter

    def _leave_queue(self, caller: _Caller) -> None:
        """Make way for the next."""
        self._queue.remove(caller)
        if self._queue:
            self._let_stand(self._queue[0])

    def _stand_anew(self) -> None:
        """Have all callers stand in the lines that count now, in the places that they had."""

        def new(left: Sequence[Waiter]) -> list[Waiter]:
            numbers = {waiter: waiter.number for waiter in left}
            for caller in self._queue:
                if caller.waiter is not None and caller.waiter in numbers:
                    caller.number, caller.waiter = numbers[caller.waiter], None
            return [self._waiter(caller) for caller in self._queue if self._is_next(caller)]

        exchange([each.waiter for each in self._queue if each.waiter is not None], new)


def _weights(limiter: Limiter, items: Sequence[object], calls: int) -> list[float]:
    """Return what to take from a limiter, in portions; items without weight take nothing."""
    if limiter.weight is not None:
        weight = total_weight(limiter.weight, items)
        return [weight] if weight else []
    step = min(calls, _step(limiter))
    return [min(step, calls - start) for start in range(0, calls, step)]


def _step(limiter: Limiter) -> int:
    """Return how many calls a limiter can admit at once; one that admits none says so itself."""
    return max(1, math.floor(limiter.max_weight))
