"""RedisRateLimiter: one rate limit for many processes and machines, kept in Redis."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import weakref
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from ragasync._bridge.run_async import background_loop
from ragasync._limits.bucket import check_weight, smoothest_burst
from ragasync._limits.limiter import Unit, check_pause, check_rate, check_unit
from ragasync.arguments import (
    check_number,
    check_positive,
    check_seconds,
    check_sync,
    explains_arguments,
)
from ragasync.clock import running_loop
from ragasync.object_views import object_html
from ragasync.redis.connection import ConnectionFactory, ScriptConnection, key_of
from ragasync.redis.dispatcher import Dispatcher, Outage
from ragasync.redis.script import LocalState, Terms

if TYPE_CHECKING:
    from redis.asyncio import Redis


@explains_arguments
class RedisRateLimiter:
    """
    Admit at most `burst + rate * T` calls in every window of T seconds, of all processes together.

    The bucket of `RateLimiter`, kept in Redis under a name and shared by everyone who uses that
    name. Redis assigns each caller a slot in time, by its own clock, so the clocks of the machines
    need not agree.

    Example:
        >>> from redis.asyncio import Redis
        >>> from ragasync import AsyncBatchProcessor, RedisRateLimiter
        >>> client = Redis.from_url("redis://localhost:6379/0")
        >>> limiter = RedisRateLimiter(client, "openai", requests_per_second=50)
        >>> processor = AsyncBatchProcessor(str.upper, rate_limiter=limiter)
        >>> limiter
        <RedisRateLimiter 'openai' at redis://localhost:6379/0: rate=50, burst=2, waiting=0>

    Differences from `RateLimiter`:

    - Slots are assigned in order of arrival at Redis. On one loop that is the order of the calls;
      among processes, the order of their requests.
    - The slot of a cancelled caller is lost once Redis has assigned it.
    - A new rate and a pause apply to slots assigned from then on. During a pause none are
      assigned; when it ends, each process requests slots for its callers, in their order.
    - The bound applies to the slots. A call starts when its loop wakes, which may be later; without
      an explicit burst up to 20 ms of that are allowed for.
    - Under a name that is new to Redis the bucket starts empty: the first call starts after 0.1 s
      and 1 / rate, the rest at the rate; `at_most` with weights assigns nothing for a whole window.
      The reason is that a new name looks like one whose state was lost. A state that has not been
      used for an hour is deleted.

    The terms (rate, burst, window) belong to the name. A limiter sends its own with its first
    request, and when `rate` is set; the last terms sent apply to everyone.

    If Redis is away, callers wait while it is tried again every 10 ms to a second, for
    `unavailable_timeout` seconds. Then they get RedisUnavailable, which stops a job and keeps its
    finished items.

    The bound also holds if Redis loses its state: flushed, restarted, evicted, or replaced by a
    replica that lagged behind. A process uses a slot only if it has heard within 0.1 s of the state
    that assigned it, and a new state assigns no slot during that time. Callers whose slots have
    become void request new ones, in their order. Only a weight above the burst may be forgotten
    with the process that took it.

    Args:
        client: A `redis.asyncio` client of one server, of any loop, for the address and
            credentials of Redis. The limiter opens a connection of its own on each loop that it is
            used on, and closes it after a second without callers.
        name: The name of the limit; all limiters with this name share it. Its key in Redis is
            `ragasync:rate:{name}`.
        requests_per_second: The rate.
        burst_size: The weight that can be granted together after an idle time. None as in
            RateLimiter; a larger weight then waits for a full bucket and leaves a debt.
        weight: The weight of an item (its tokens, say), as in RateLimiter; without it, a call
            weighs 1.
        unit: "tokens" if it counts tokens, as in RateLimiter: places are corrected by the usage
            that calls report, for callers that have no slot yet.
        unavailable_timeout: Seconds for which a caller waits for a Redis that is away.

    Raises:
        TypeError: `client` is not a `redis.asyncio` client, or `name` is not a str.
        ValueError: A rate, burst or timeout is not positive and finite, or the name is empty.
    """

    def __init__(
        self,
        client: Redis,
        name: str,
        requests_per_second: float = 10.0,
        burst_size: float | None = None,
        *,
        weight: Callable[..., float] | None = None,
        unit: Unit = "requests",
        unavailable_timeout: float | timedelta = 30.0,
    ) -> None:
        rate = check_rate("requests_per_second", requests_per_second)
        if burst_size is not None:
            burst_size = check_positive("burst_size", burst_size)
        if weight is not None:
            check_sync("weight", weight)
        self._unit = check_unit(unit)
        self._connections = ConnectionFactory(client)
        self._name, self._key = name, key_of(name)
        self._timeout = check_seconds("unavailable_timeout", unavailable_timeout, positive=True)
        self._explicit_burst = burst_size
        self._state = LocalState(Terms(rate, self._burst_at(rate)), weighted=weight is not None)
        self._max_weight = sys.float_info.max if burst_size is None else burst_size
        self._weight = weight
        self._dispatchers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Dispatcher] = (
            weakref.WeakKeyDictionary()
        )

    @classmethod
    def at_most(
        cls,
        client: Redis,
        name: str,
        limit: float,
        per: float | timedelta,
        *,
        weight: Callable[..., float] | None = None,
        unit: Unit = "requests",
        unavailable_timeout: float | timedelta = 30.0,
    ) -> RedisRateLimiter:
        """
        Return a limiter that never assigns more than `limit` slots in any window of `per` seconds.

        Like `RateLimiter.at_most`; windows are 20 ms longer, for calls that start late. With a
        `weight`, or once a call has a weight other than 1, a name that is new to Redis assigns
        nothing for `per` seconds, because the whole limit may have been used just before.

        Args:
            client: As in RedisRateLimiter.
            name: As in RedisRateLimiter.
            limit: The most in a window, in calls or in the units of `weight`.
            per: The length of the window in seconds.
            weight: As in RedisRateLimiter.
            unit: As in RedisRateLimiter.
            unavailable_timeout: As in RedisRateLimiter.

        Raises:
            TypeError: As in RedisRateLimiter.
            ValueError: `limit` or `per` is not positive and finite.
        """
        limit, per = check_positive("limit", limit), check_seconds("per", per, positive=True)
        rate = check_rate("limit / per", limit / per)
        limiter = cls(
            client, name, rate, weight=weight, unit=unit, unavailable_timeout=unavailable_timeout
        )
        limiter._state = LocalState(
            Terms(rate, limiter._burst_at(rate), per), weighted=weight is not None
        )
        limiter._max_weight = limit
        return limiter

    @property
    def rate(self) -> float:
        """The rate per second, as last known; set it to change it for all processes."""
        return self._state.terms.rate

    @rate.setter
    def rate(self, rate: float) -> None:
        rate = check_rate("rate", rate)
        per = self._state.terms.per
        self._state.terms = Terms(rate, self._burst_at(rate), per)
        if per:
            self._max_weight = rate * per
        self._sync()

    @property
    def burst(self) -> float:
        """
        The burst, as last known: `burst_size`, or `max(1 + 0.02 rate, 0.04 rate)`.

        Of the latter Redis assigns at most half (or 1) together; the rest is for calls that start
        late.
        """
        in_redis = self._state.terms.burst
        return in_redis if self._explicit_burst else max(in_redis, smoothest_burst(self.rate))

    @property
    def window(self) -> float | None:
        """The length of the window of `at_most` in seconds; None for other limiters."""
        return self._state.terms.per or None

    @property
    def weight(self) -> Callable[..., float] | None:
        """The weight of one item; None if each call weighs 1."""
        return self._weight

    @property
    def unit(self) -> Unit:
        """What it counts: "requests", or "tokens", which are corrected by the reported usage."""
        return self._unit

    @property
    def max_weight(self) -> float:
        """The largest weight that can be granted: `burst_size`, or a limit, or unbounded."""
        return self._max_weight

    @property
    def paused_for(self) -> float:
        """Seconds until the pause in force ends, as last known; 0.0 without a pause."""
        return self._state.paused_for

    async def acquire(self, weight: float = 1.0) -> None:
        """
        Wait until `weight` is granted.

        Args:
            weight: The weight to take from the bucket.

        Raises:
            TypeError: `weight` is not a number.
            ValueError: `weight` is not positive and finite, or can never be granted.
            RedisUnavailable: Redis was away for `unavailable_timeout` seconds, or refuses.
        """
        await self._dispatcher().wait(check_weight(weight, self._max_weight))

    def correct(self, weight: float, used: float) -> None:
        """
        Replace the weight of an earlier place by what its call used, as in RateLimiter.

        Callers that have a slot keep it. If Redis is away, a surplus may be lost, a debt is not.

        Args:
            weight: The weight that was granted; 0 for a call that was not counted.
            used: The weight that the call turned out to have.

        Raises:
            TypeError: One of them is not a number.
            ValueError: One of them is negative or not finite.
        """
        weight, used = check_number("weight", weight), check_number("used", used)
        if weight != used:
            self._state.correct(weight, used)
            self._sync()

    def pause(self, seconds: float | timedelta) -> None:
        """
        Pause the limit in all processes for a number of seconds; the later of two pauses wins.

        Callers that have a slot keep it.

        Args:
            seconds: The length of the pause, from now.

        Raises:
            TypeError: `seconds` is not a number.
            ValueError: `seconds` is negative or not finite.
        """
        self._state.pause(check_pause(seconds))
        self._sync()

    def resume(self) -> None:
        """
        End a pause now, also one made elsewhere; other processes notice within a second.

        Without a pause this changes nothing. It may be called from any thread.
        """
        self._state.resume()
        self._sync()
        here = running_loop()
        for loop, dispatcher in list(self._dispatchers.items()):
            if loop is not here:
                with contextlib.suppress(RuntimeError):  # it has closed
                    loop.call_soon_threadsafe(dispatcher.sync)

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        pass

    def __repr__(self) -> str:
        waiting = sum(each.waiting for each in list(self._dispatchers.values()))
        pause = self.paused_for
        return (
            f"<RedisRateLimiter {self._name!r} at {self._connections}: rate={self.rate:g}, "
            f"burst={self.burst:g}, waiting={waiting}"
            f"{f', paused for {pause:.1f} s' if pause else ''}>"
        )

    def _repr_html_(self) -> str:
        """The settings and the state as a table."""
        facts = [
            ("rate", f"{self.rate:g} per second"),
            ("burst", f"{self.burst:g}"),
            ("weight", self.weight),
            ("paused", f"for another {self.paused_for:.1f} s" if self.paused_for else None),
        ]
        return object_html(self, facts)

    def _dispatcher(self) -> Dispatcher:
        """Return the dispatcher of the running loop."""
        loop = asyncio.get_running_loop()
        dispatcher = self._dispatchers.get(loop)
        if dispatcher is None:
            outage = Outage(str(self._connections), self._timeout)
            connection = ScriptConnection(self._connections, self._key)
            dispatcher = Dispatcher(connection, self._state, outage)
            self._dispatchers[loop] = dispatcher
        return dispatcher

    def _sync(self) -> None:
        """Send the local changes to Redis, from this loop or else from the background loop."""
        if running_loop() is not None:
            self._dispatcher().sync()
        else:
            background_loop().call_soon_threadsafe(lambda: self._dispatcher().sync())

    def _burst_at(self, rate: float) -> float:
        """Return the burst that Redis assigns together at a rate."""
        return max(1.0, 0.02 * rate) if self._explicit_burst is None else self._explicit_burst
