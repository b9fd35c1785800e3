"""The combined limiter of a job: all limits that a call needs, acquired in one step."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

from ragasync._limits.acquire import (
    abandon,
    enqueue,
    refund,
    replace_waiters,
    requeue_if_paused,
    try_acquire_all,
)
from ragasync._limits.bucket import Bucket, smoothest_burst, total_weight
from ragasync._limits.limiter import (
    Correctable,
    Limiter,
    RateLimiter,
    Resumable,
    check_pause,
    check_rate,
)
from ragasync._limits.queue import Claims, Waiter, WaitQueue
from ragasync.clock import current_time


class _Caller:
    """A waiting caller: its claims on local limiters, and the future of its grant."""

    __slots__ = ("calls", "claims", "future", "number", "waiter")

    def __init__(self, claims: Claims, calls: int) -> None:
        self.claims = claims
        self.calls = calls
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiter: Waiter | None = None  # once it is in the limiters' queues
        self.number = -1  # its waiter's, kept when it moves to other queues

    def grant(self) -> tuple[Claims, float] | None:
        """Return the granted claims and the time, or None if a pause made it wait again."""
        assert self.waiter is not None
        if (requeued := requeue_if_paused(self.waiter)) is not None:
            self.waiter, self.future = requeued, requeued.future
            return None
        assert self.waiter.granted is not None
        return self.waiter.claims, self.waiter.granted


class TokenGrant:
    """
    The places of one attempt at limiters of tokens, which its reported usage corrects once.

    Args:
        taken: Each limiter with the weight that the attempt took from it.

    Attributes:
        limiters: These limiters.
    """

    __slots__ = ("_covered", "_taken", "_tokens", "limiters")

    def __init__(self, taken: Sequence[tuple[Correctable, float]]) -> None:
        self._taken = taken
        self._tokens = 0
        self._covered: dict[object, int] = {}
        self.limiters = tuple(limiter for limiter, _ in taken)

    def add(self, tokens: int, covered: Mapping[object, int]) -> None:
        """
        Count tokens that the attempt reported.

        Args:
            tokens: The number of tokens.
            covered: The part of them by which the places of inner calls correct a limiter.
        """
        self._tokens += tokens
        for limiter, part in covered.items():
            self._covered[limiter] = self._covered.get(limiter, 0) + part

    def correct(self) -> None:
        """Correct the places to what was reported; without a report of tokens they stay."""
        if not self._tokens:
            return
        for limiter, weight in self._taken:
            limiter.correct(weight, max(0, self._tokens - self._covered.get(limiter, 0)))


class CombinedLimiter:
    """
    All rate limits of a job: each call acquires them together, in order of arrival.

    It combines the user's limiters (none, one or several; shared with other jobs or not) and one
    of the job's own, whose rate can be set while the job runs. With a single limit, all callers
    wait in its queue, first come, first served among all jobs. With several, callers wait in a
    queue of this object, and only its head is in the limiters' queues; it takes from all of them in
    one step, or from none. Remote limiters are asked last, after the local ones have granted.

    Use it on one loop; the limiters may be used on any.

    Args:
        limiters: The user's limiters. A duplicate counts once.
    """

    def __init__(self, limiters: Sequence[Limiter] = ()) -> None:
        self._limiters = limiters = tuple(dict.fromkeys(limiters))
        self._local = tuple(each for each in limiters if isinstance(each, RateLimiter))
        self._remote = tuple(each for each in limiters if not isinstance(each, RateLimiter))
        self._of_tokens = tuple(
            each for each in limiters if isinstance(each, Correctable) and each.unit == "tokens"
        )
        self._own = WaitQueue(Bucket(math.inf, 1.0))  # an infinite rate delays no call
        self._limited = bool(limiters)
        self._uses_own = not limiters  # without other limiters, a pause needs it
        plain = [limiter for limiter in self._local if limiter.weight is None]
        self._single = plain[0] if len(plain) == len(limiters) == 1 else None
        self._is_paused = False
        self._callers: deque[_Caller] = deque()

    @property
    def is_open(self) -> bool:
        """Whether there is no limit at all: no limiter, no rate and no pause."""
        if self._is_paused and self._own.bucket.paused_until <= current_time():
            self._is_paused = False
        return not (self._limited or self._is_paused)

    @property
    def rate(self) -> float | None:
        """The rate per second of the job's own limiter; None removes it, effective immediately."""
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
        self._uses_own = not self._limiters or rate is not None
        self._requeue_all()

    def pause(self, seconds: float | timedelta) -> None:
        """
        Pause every limiter of the job, also if there is none but its own.

        The later of two pauses wins; `seconds` count from now.

        Raises:
            TypeError: `seconds` is not a number.
            ValueError: `seconds` is negative or not finite.
        """
        seconds = check_pause(seconds)
        for limiter in self._limiters:
            limiter.pause(seconds)
        if self._uses_own:
            self._own.pause(seconds)
            self._is_paused = True  # from now on `is_open` compares the time

    @property
    def paused_for(self) -> float:
        """Seconds until the last pause of a limiter ends, 0.0 without; readable in any thread."""
        pauses = [each.paused_for for each in self._limiters if isinstance(each, Resumable)]
        return max([*pauses, self._own.paused_for if self._uses_own else 0.0])

    def resume(self) -> None:
        """End the pauses of all limiters now, including those that other jobs made."""
        for limiter in self._limiters:
            if isinstance(limiter, Resumable):
                limiter.resume()
        self._own.resume()

    def try_admit(self, items: Sequence[object], calls: int = 1) -> bool:
        """
        Acquire all limits for a call if each grants it now and no other caller waits.

        Args:
            items: The items of the call, for limiters with a `weight`.
            calls: The weight of the call for the other limiters.

        Returns:
            Whether it was granted. If not, nothing was taken; `admit` waits.

        Raises:
            ValueError: The items weigh more than a limiter can ever grant.
        """
        if self._remote or self._callers:
            return False
        if self._single is not None and not self._uses_own:
            return calls <= self._single.max_weight and self._single.try_acquire(calls)
        (claims, part), *more = self._portions(self._weigh(items), calls)
        return not more and try_acquire_all(self._with_own(claims, part)) is not None

    async def admit(
        self, items: Sequence[object], calls: int = 1, *, wanted: Callable[[], bool] | None = None
    ) -> TokenGrant | None:
        """
        Wait until every limiter has granted a call, behind all earlier callers.

        If `calls` exceeds a limiter's burst, it is taken in portions. If the caller is cancelled,
        or no longer wants the call after the wait, its grants are refunded.

        Args:
            items: The items of the call, for limiters with a `weight`.
            calls: The weight of the call for the other limiters.
            wanted: Returns, after a wait, whether the call is still wanted.

        Returns:
            The places at limiters of tokens, to be corrected by the usage; None if there are none.

        Raises:
            ValueError: The items weigh more than a limiter can ever grant.
        """
        if self._single is not None and self.try_admit(items, calls):
            return self._grant(calls, {}) if self._of_tokens else None
        weights = self._weigh(items)
        grants: list[tuple[Claims, float]] = []
        try:
            for claims, part in self._portions(weights, calls):
                grants.append(await self._acquire(claims, part))
            for limiter in self._remote:
                for weight in _weights(limiter, weights, calls):
                    await limiter.acquire(weight)
        except (Exception, asyncio.CancelledError):
            for grant in grants:
                refund(*grant)
            raise
        if wanted is not None and not wanted():
            for grant in grants:
                refund(*grant)
            return None
        return self._grant(calls, weights) if self._of_tokens else None

    def _grant(self, calls: int, weights: Mapping[object, float]) -> TokenGrant:
        """Return the places of a call that was admitted at the limiters of tokens."""
        return TokenGrant([(each, weights.get(each, calls)) for each in self._of_tokens])

    def _weigh(self, items: Sequence[object]) -> dict[object, float]:
        """Return the weight of items for each limiter that weighs them."""
        return {
            limiter: total_weight(limiter.weight, items)
            for limiter in self._limiters
            if limiter.weight is not None
        }

    def _with_own(self, claims: Claims, calls: int) -> Claims:
        """Return the claims, with one on the job's own limiter if that is in use."""
        return [*claims, (self._own, calls)] if self._uses_own else claims

    def _portions(self, weights: Mapping[object, float], calls: int) -> list[tuple[Claims, int]]:
        """
        Return the claims on local limiters in portions, each with its number of calls.

        A portion is as large as the smallest burst. The claims of limiters with a `weight` are in
        the first one.
        """
        plain = [limiter for limiter in self._local if limiter.weight is None]
        claims = [
            limiter.claim(weight)
            for limiter in self._local
            if limiter.weight is not None
            for weight in _weights(limiter, weights, calls)
        ]
        step = min([calls, *(_max_calls(limiter) for limiter in plain)])
        portions: list[tuple[Claims, int]] = []
        for start in range(0, calls, step):
            part = min(step, calls - start)
            portions.append(([*claims, *(limiter.claim(part) for limiter in plain)], part))
            claims = []
        return portions

    async def _acquire(self, claims: Claims, calls: int) -> tuple[Claims, float]:
        """Wait until one portion is granted; return its claims and the time of the grant."""
        if not self._callers:
            everything = self._with_own(claims, calls)
            granted = try_acquire_all(everything)
            if granted is not None:
                return everything, granted
        caller = _Caller(claims, calls)
        self._callers.append(caller)
        grant = None
        try:
            self._enqueue_if_next(caller)
            while grant is None:
                await caller.future
                grant = caller.grant()
        except (Exception, asyncio.CancelledError):
            if caller.waiter is not None:
                abandon(caller.waiter)
            self._remove(caller)
            raise
        self._remove(caller)
        return grant

    def _enqueue_if_next(self, caller: _Caller) -> None:
        """Put a caller into the limiters' queues, if it is the next."""
        if self._is_next(caller):
            enqueue(self._new_waiter(caller))

    def _is_next(self, caller: _Caller) -> bool:
        """Return whether a caller should be in the limiters' queues and is not yet."""
        is_only_limit = len(self._local) + self._uses_own <= 1  # of several, only the head waits
        return caller.waiter is None and (is_only_limit or caller is self._callers[0])

    def _new_waiter(self, caller: _Caller) -> Waiter:
        """Return a new waiter of a caller."""
        claims = self._with_own(caller.claims, caller.calls)
        caller.waiter = Waiter(caller.future, claims, caller.number)
        return caller.waiter

    def _remove(self, caller: _Caller) -> None:
        """Remove a caller, and put the next one into the limiters' queues."""
        self._callers.remove(caller)
        if self._callers:
            self._enqueue_if_next(self._callers[0])

    def _requeue_all(self) -> None:
        """Move all callers to the queues of the limits now in use, at their old positions."""

        def new(removed: Sequence[Waiter]) -> list[Waiter]:
            numbers = {waiter: waiter.number for waiter in removed}
            for caller in self._callers:
                if caller.waiter is not None and caller.waiter in numbers:
                    caller.number, caller.waiter = numbers[caller.waiter], None
            return [self._new_waiter(each) for each in self._callers if self._is_next(each)]

        replace_waiters([each.waiter for each in self._callers if each.waiter is not None], new)


def _weights(limiter: Limiter, weights: Mapping[object, float], calls: int) -> list[float]:
    """Return the weights to take from a limiter, in portions; none for a total weight of 0."""
    if limiter.weight is not None:
        return [weights[limiter]] if weights[limiter] else []
    step = min(calls, _max_calls(limiter))
    return [min(step, calls - start) for start in range(0, calls, step)]


def _max_calls(limiter: Limiter) -> int:
    """Return the number of calls a limiter can grant together, at least 1 (it may then refuse)."""
    return max(1, math.floor(limiter.max_weight))
