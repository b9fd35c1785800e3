"""The desk at which the callers of one loop get their places: it asks Redis for all who wait."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from contextvars import Context
from dataclasses import dataclass

from ragasync.errors import RedisUnavailable
from ragasync.own_task import own_task
from ragasync.redis.link import Link
from ragasync.redis.memory import Memory
from ragasync.redis.outage import Outage, is_away, refusal

_LINGERS = 1.0
"""Seconds for which an idle desk keeps its connection: for the next call, not for good."""

_MOST_AT_ONCE = 500
"""Places in one request; a larger one would keep Redis from its other work for a millisecond."""

_HEARS_EVERY = 1.0
"""Seconds between two questions in a pause, which another process may end."""

_RESOLUTION = 1e-9


@dataclass(slots=True, eq=False)
class _Caller:
    """One who asks for a place; `turn` is set when it has come."""

    cost: float
    asked: float
    turn: asyncio.Future[None]


class Desk:
    """
    Gives places to the callers of one loop, in the order in which they came.

    One task asks Redis, for all who wait at once, so that thousands of callers need one connection
    and a caller who is cancelled never leaves an answer behind. It ends, and hangs up, a second
    after the last of them; and with its loop.

    Args:
        link: to Redis.
        memory: what this process knows of the limit.
        outage: what is said when Redis is away, and after how long.
    """

    def __init__(self, link: Link, memory: Memory, outage: Outage) -> None:
        self._link, self._memory, self._outage = link, memory, outage
        self._loop = asyncio.get_running_loop()
        self._callers: deque[_Caller] = deque()  # have no place yet
        self._placed: deque[tuple[float, _Caller]] = deque()  # and when it comes
        self._alarm: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._bell = asyncio.Event()
        self._to_say = False

    @property
    def waiting(self) -> int:
        """How many wait, with a place or without."""
        return len(self._callers) + len(self._placed)

    async def wait(self, cost: float) -> None:
        """
        Wait for a place, and until it has come.

        Raises:
            RedisUnavailable: Redis is away for too long, or refuses.
        """
        caller = _Caller(cost, self._loop.time(), self._loop.create_future())
        self._callers.append(caller)
        self._ring()
        await caller.turn

    def say(self) -> None:
        """Tell Redis what there is to tell, before any place is asked for."""
        self._to_say = True
        self._ring()

    def _ring(self) -> None:
        """See to it that somebody serves."""
        self._bell.set()
        if self._task is None:
            # In a context of its own: it serves others than whoever came first.
            serving = self._serve()
            self._task = own_task(serving, self._loop, name="ragasync redis", context=Context())

    async def _serve(self) -> None:
        """Ask for all who wait, again and again, until nobody comes for a while."""
        try:
            while await self._is_wanted():
                await self._wait_out()
                await self._ask()
        finally:
            self._task = None
            while self._callers:  # only where the loop ends
                self._callers.popleft().turn.cancel()
            await self._link.drop()

    async def _is_wanted(self) -> bool:
        """Wait a while for somebody; say whether somebody came."""
        self._bell.clear()
        if not (self._callers or self._to_say):
            try:
                async with asyncio.timeout(_LINGERS):
                    await self._bell.wait()
            except TimeoutError:
                pass
        return bool(self._callers or self._to_say)

    async def _wait_out(self) -> None:
        """Let a pause pass, until it is time to ask whether it lasts, or there is news to tell."""
        if not self._memory.pause:
            return
        self._callers = deque(each for each in self._callers if not each.turn.done())
        try:
            async with asyncio.timeout(min(self._memory.pause, _HEARS_EVERY)):
                while self._memory.pause and not self._to_say:
                    self._bell.clear()
                    await self._bell.wait()
        except TimeoutError:
            self._to_say = True  # there may be no more to tell than that callers wait

    async def _ask(self) -> None:
        """Ask for the first in line, and give them their places."""
        callers = [] if self._memory.pause else self._first()
        self._to_say, to_say = False, self._to_say
        if not (callers or to_say):
            return
        patience = min((self._patience(each) for each in callers), default=self._outage.timeout)
        request, version = self._memory.request(tuple(each.cost for each in callers))
        try:
            reply = await self._link.ask(request, max(patience, 0.1))
        except Exception as error:
            self._callers.extendleft(reversed(callers))  # they stay at the head of the line
            self._to_say = to_say
            await self._get_over(error)
            return
        self._outage.is_over()
        self._memory.learn(reply, version)
        if reply.closed:
            self._callers.extendleft(reversed(callers))  # they ask again when the pause is over
        else:
            self._place(callers, reply.waits)

    def _first(self) -> list[_Caller]:
        """Take the first out of the line, without those who have gone."""
        first: list[_Caller] = []
        while self._callers and len(first) < _MOST_AT_ONCE:
            caller = self._callers.popleft()
            if not caller.turn.done():
                first.append(caller)
        return first

    def _place(self, callers: list[_Caller], waits: tuple[float, ...]) -> None:
        """Note when the turn of each comes; never before that of whoever has a place already."""
        now = self._loop.time()
        for caller, wait in zip(callers, waits, strict=True):
            self._placed.append((now + wait, caller))
        if self._alarm is None:
            self._call()

    def _call(self) -> None:
        """Call all whose turn has come, in their order, and see to the next."""
        self._alarm = None
        now = self._loop.time()
        while self._placed:
            due, caller = self._placed[0]
            if due > now + _RESOLUTION and not caller.turn.done():
                self._alarm = self._loop.call_at(due, self._call)
                return
            self._placed.popleft()
            if not caller.turn.done():
                caller.turn.set_result(None)

    def _patience(self, caller: _Caller) -> float:
        """Return for how many seconds a caller still waits for a Redis that is away."""
        since = max(self._outage.since(self._loop.time()), caller.asked)
        return since + self._outage.timeout - self._loop.time()

    async def _get_over(self, error: Exception) -> None:
        """Wait before the next try; send away those who have waited for too long."""
        self._outage.begins(self._loop.time(), error)
        if not is_away(error):
            self._send_away(list(self._callers), refusal(self._outage.url, error), error)
            return
        late = [each for each in self._callers if self._patience(each) <= 0.0]
        if late or not self._callers:
            self._send_away(late, self._outage.words(self._loop.time()), error)
        if not self._callers:
            self._to_say = False  # it stays in memory, for whoever comes next
            return
        longest = max(0.0, min(self._patience(each) for each in self._callers))
        await asyncio.sleep(min(self._outage.delay(random.random()), longest))

    def _send_away(self, callers: list[_Caller], why: str, error: Exception) -> None:
        """Tell callers that they get no place."""
        for caller in callers:
            self._callers.remove(caller)
            if not caller.turn.done():
                told = RedisUnavailable(why)
                told.__cause__ = error
                caller.turn.set_exception(told)
