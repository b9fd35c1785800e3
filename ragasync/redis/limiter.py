"""Rate limiter whose state is kept in Redis: one rate for many processes and machines."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from ragasync.arguments import check_positive, check_sync
from ragasync.clock import running_loop
from ragasync.limits.bucket import smoothest_burst
from ragasync.limits.limiter import check_pause, check_rate, check_weight
from ragasync.redis.dispatcher import Dispatcher
from ragasync.redis.link import ConnectionFactory, ScriptConnection, key_of
from ragasync.redis.memory import LocalState
from ragasync.redis.outage import Outage
from ragasync.redis.script import Terms

if TYPE_CHECKING:
    from redis.asyncio import Redis


class RedisRateLimiter:
    """
    Admit at most `burst + rate * T` calls in every window of T seconds, of all processes together.

    The bucket of `RateLimiter`, kept in Redis under a name: everybody who uses that name shares
    it. Redis gives each caller a place in time, by its own clock, so that those of the machines
    need not agree.

    Example:
        >>> from redis.asyncio import Redis
        >>> from ragasync import AsyncBatchProcessor, RedisRateLimiter
        >>> client = Redis.from_url("redis://localhost:6379/0")
        >>> limiter = RedisRateLimiter(client, "openai", requests_per_second=50)
        >>> processor = AsyncBatchProcessor(str.upper, rate_limiter=limiter)
        >>> limiter
        <RedisRateLimiter 'openai' at redis://localhost:6379/0: rate=50, burst=2, waiting=0>

    What differs from a `RateLimiter`:

    - Places are given in order of arrival at Redis. In one process that is the order of the calls
      on a loop; among processes, that of their requests.
    - The place of a caller that is cancelled is lost, once Redis has given it.
    - A new rate and a pause hold for places given from then on. During a pause none are given;
      when it ends, each process asks again for its callers, in their order.
    - The bound is that of the places. A call begins as late as its loop wakes, and without an
      explicit burst up to 20 ms of that are allowed for.
    - Under a name that Redis does not know the bucket begins empty: the first call goes after
      0.1 s and 1 / rate, the rest at the rate; `at_most` with weights gives nothing for a whole
      window. Nobody can tell a new name from one whose state was lost. What has rested for an
      hour is forgotten.

    The terms (rate, burst, window) belong to the name. A limiter says its own when it first asks,
    and again when `rate` is set; the last to say them counts, for all.

    Where Redis is away, callers wait and it is tried again, after 10 ms to a second, for
    `unavailable_timeout` seconds; then they get RedisUnavailable, which stops a job and keeps what
    is done.

    The bound holds where Redis loses its state: flushed, restarted, evicted, or replaced by a
    replica that lagged behind. A place is used only by a process that has heard within 0.1 s of
    the state that gave it, and a new state gives nothing before that time is over; callers whose
    places have lapsed ask again, in their order. Only a weight above the burst may be forgotten
    with the process that took it.

    Args:
        client: says where Redis is, and how one gets in. A `redis.asyncio` client of one server,
            of any loop: the limiter opens a connection of its own on each loop that it is used
            on, and closes it after a second without callers.
        name: whoever gives the same shares the rate; the key is `ragasync:rate:{name}`.
        requests_per_second: the rate.
        burst_size: how much may go at once after a rest. None as in RateLimiter; a larger weight
            then waits for a full bucket and leaves a debt.
        weight: what an item weighs (its tokens, say), as in RateLimiter; a call weighs 1 without
            it.
        unavailable_timeout: seconds for which a caller waits for a Redis that is away.

    Raises:
        TypeError: `client` is not a client of `redis.asyncio`, or `name` no text.
        ValueError: a rate, burst or timeout is not positive and finite, or the name is empty.
    """

    def __init__(
        self,
        client: Redis,
        name: str,
        requests_per_second: float = 10.0,
        burst_size: float | None = None,
        *,
        weight: Callable[..., float] | None = None,
        unavailable_timeout: float = 30.0,
    ) -> None:
        rate = check_rate("requests_per_second", requests_per_second)
        if burst_size is not None:
            burst_size = check_positive("burst_size", burst_size)
        if weight is not None:
            check_sync("weight", weight)
        self._address = ConnectionFactory(client)
        self._name, self._key = name, key_of(name)
        self._timeout = check_positive("unavailable_timeout", unavailable_timeout)
        self._explicit_burst = burst_size
        self._memory = LocalState(Terms(rate, self._burst_at(rate)), weighs=weight is not None)
        self._max_weight = sys.float_info.max if burst_size is None else burst_size
        self._weight = weight
        self._desks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Dispatcher] = (
            weakref.WeakKeyDictionary()
        )

    @classmethod
    def at_most(
        cls,
        client: Redis,
        name: str,
        limit: float,
        per: float,
        *,
        weight: Callable[..., float] | None = None,
        unavailable_timeout: float = 30.0,
    ) -> RedisRateLimiter:
        """
        Return a limiter that never gives more than `limit` places in any window of `per` seconds.

        As `RateLimiter.at_most`; the windows are kept 20 ms longer, for calls that begin late.
        With a `weight`, or once any call weighs something else than 1, a name that Redis does not
        know gives nothing for `per` seconds: the whole limit may have gone just before.

        Args:
            client: as in RedisRateLimiter.
            name: as there.
            limit: the most, in calls or in what `weight` counts.
            per: the length of the window in seconds.
            weight: as in RedisRateLimiter.
            unavailable_timeout: as there.

        Raises:
            TypeError: as in RedisRateLimiter.
            ValueError: `limit` or `per` is not positive and finite.
        """
        limit, per = check_positive("limit", limit), check_positive("per", per)
        rate = check_rate("limit / per", limit / per)
        limiter = cls(client, name, rate, weight=weight, unavailable_timeout=unavailable_timeout)
        limiter._memory = LocalState(
            Terms(rate, limiter._burst_at(rate), per), weighs=weight is not None
        )
        limiter._max_weight = limit
        return limiter

    @property
    def rate(self) -> float:
        """The rate a second, as last known; set it, and it holds for all from then on."""
        return self._memory.terms.rate

    @rate.setter
    def rate(self, rate: float) -> None:
        rate = check_rate("rate", rate)
        per = self._memory.terms.per
        self._memory.terms = Terms(rate, self._burst_at(rate), per)
        if per:
            self._max_weight = rate * per
        self._say()

    @property
    def burst(self) -> float:
        """
        How much may go at once, as last known: `burst_size`, or `max(1 + 0.02 rate, 0.04 rate)`.

        Of the latter Redis gives at most half (or 1); the rest is for calls that begin late.
        """
        given = self._memory.terms.burst
        return given if self._explicit_burst else max(given, smoothest_burst(self.rate))

    @property
    def window(self) -> float | None:
        """The length of the window of `at_most`, in seconds; None for a limiter without one."""
        return self._memory.terms.per or None

    @property
    def weight(self) -> Callable[..., float] | None:
        """What an item weighs; None where a call weighs 1."""
        return self._weight

    @property
    def max_weight(self) -> float:
        """The most that can be granted at once: a `burst_size`, or a limit; else no bound."""
        return self._max_weight

    @property
    def paused_for(self) -> float:
        """Seconds until the pause in force ends, as last known; 0.0 without one."""
        return self._memory.pause

    async def acquire(self, weight: float = 1.0) -> None:
        """
        Wait until `weight` is granted.

        Args:
            weight: how much to take from the bucket.

        Raises:
            TypeError: `weight` is not a number.
            ValueError: `weight` is not positive and finite, or can never be granted.
            RedisUnavailable: Redis was away for `unavailable_timeout` seconds, or refuses.
        """
        await self._desk().wait(check_weight(weight, self._max_weight))

    def pause(self, seconds: float) -> None:
        """
        Give nobody a place before so many seconds are over, in any process; the later pause wins.

        Callers who have a place keep it.

        Args:
            seconds: how long from now.

        Raises:
            TypeError: `seconds` is not a number.
            ValueError: `seconds` is negative or not finite.
        """
        self._memory.close(check_pause(seconds))
        self._say()

    def resume(self) -> None:
        """
        End a pause now, whoever made it; the callers of other processes hear of it in a second.

        Without a pause this changes nothing. It may be called from any thread.
        """
        self._memory.reopen()
        self._say()
        here = running_loop()
        for loop, desk in list(self._desks.items()):
            if loop is not here:
                with contextlib.suppress(RuntimeError):  # it has closed
                    loop.call_soon_threadsafe(desk.say)

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        pass

    def __repr__(self) -> str:
        waiting = sum(desk.waiting for desk in list(self._desks.values()))
        pause = self.paused_for
        return (
            f"<RedisRateLimiter {self._name!r} at {self._address}: rate={self.rate:g}, "
            f"burst={self.burst:g}, waiting={waiting}"
            f"{f', paused for {pause:.1f} s' if pause else ''}>"
        )

    def _desk(self) -> Dispatcher:
        """Return the desk of the running loop."""
        loop = asyncio.get_running_loop()
        desk = self._desks.get(loop)
        if desk is None:
            outage = Outage(str(self._address), self._timeout)
            desk = Dispatcher(ScriptConnection(self._address, self._key), self._memory, outage)
            self._desks[loop] = desk
        return desk

    def _say(self) -> None:
        """Tell Redis what was set here: from this loop, or from the background where none runs."""
        if running_loop() is not None:
            self._desk().say()
        else:
            from ragasync.bridge.run_async import background_loop

            background_loop().call_soon_threadsafe(lambda: self._desk().say())

    def _burst_at(self, rate: float) -> float:
        """Return what Redis is to give at once at a rate."""
        return max(1.0, 0.02 * rate) if self._explicit_burst is None else self._explicit_burst
