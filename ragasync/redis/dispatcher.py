"""The desk at which the callers of one loop get their places: it asks Redis for all who wait."""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Collection
from contextvars import Context
from dataclasses import dataclass

from ragasync.errors import RedisUnavailable
from ragasync.lazy_task import create_lazy_task
from ragasync.redis.link import ScriptConnection
from ragasync.redis.memory import LEASE, LocalState
from ragasync.redis.outage import Outage, is_away, refusal

_LINGERS = 1.0
"""Seconds for which an idle desk keeps its connection: for the next call, not for good."""

_MOST_AT_ONCE = 500
"""Places in one request; a larger one would keep Redis from its other work for a millisecond."""

_HEARS_EVERY = 1.0
"""Seconds between two questions in a pause, which another process may end."""

_SILENCE = 0.5
"""Seconds without an answer after which those places are not used that went by meanwhile."""

_RESOLUTION = 1e-9


@dataclass(slots=True, eq=False)
class _Caller:
    """One who asks for a place; `turn` is set when it has come."""

    weight: float
    asked: float
    turn: asyncio.Future[None]


class Dispatcher:
    """
    Gives places to the callers of one loop, in the order in which they came.

    One task asks Redis, for all who wait at once, so that thousands of callers need one connection
    and a caller who is cancelled never leaves an answer behind. It ends, and hangs up, a second
    after the last of them; and with its loop.

    A place is used only if Redis was heard of within LEASE seconds: it may have lost its state, and
    given the same time to others. So the task keeps asking while somebody has a place to come.

    Args:
        link: to Redis.
        memory: what this process knows of the limit.
        outage: what is said when Redis is away, and after how long.
    """

    def __init__(self, link: ScriptConnection, memory: LocalState, outage: Outage) -> None:
        self._link, self._memory, self._outage = link, memory, outage
        self._loop = asyncio.get_running_loop()
        self._callers: deque[_Caller] = deque()  # have no place yet
        self._placed: deque[tuple[float, _Caller]] = deque()  # and when it comes
        self._alarm: asyncio.TimerHandle | None = None
        self._asked = self._holds_until = -math.inf  # when Redis was asked; until when it counts
        self._epoch = ""  # of the state that gave the places
        self._task: asyncio.Task[None] | None = None
        self._bell = asyncio.Event()
        self._to_say = False

    @property
    def waiting(self) -> int:
        """How many wait, with a place or without."""
        return len(self._callers) + len(self._placed)

    async def wait(self, weight: float) -> None:
        """
        Wait for a place, and until it has come.

        Raises:
            RedisUnavailable: Redis is away for too long, or refuses.
        """
        caller = _Caller(weight, self._loop.time(), self._loop.create_future())
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
            self._task = create_lazy_task(
                serving, self._loop, name="ragasync redis", context=Context()
            )

    async def _serve(self) -> None:
        """Ask for all who wait, again and again, until nobody comes for a while."""
        try:
            while await self._is_wanted():
                await self._wait_out()
                await self._ask()
        finally:
            self._task = None
            for caller in (*(each for _, each in self._placed), *self._callers):
                caller.turn.cancel()  # only where the loop ends
            self._placed.clear()
            self._callers.clear()
            await self._link.drop()

    async def _is_wanted(self) -> bool:
        """Wait a while for somebody; say whether somebody came, or waits for a place to come."""
        self._bell.clear()
        if not (self._callers or self._to_say):
            try:
                async with asyncio.timeout(self._until_check(_LINGERS)):
                    await self._bell.wait()
            except TimeoutError:
                pass
        self._to_say = self._to_say or bool(self._placed and not self._until_check())
        return bool(self._callers or self._to_say or self._placed)

    def _until_check(self, longest: float = 1.0) -> float:
        """Return the seconds until Redis is to be asked again for those who have places."""
        if not self._placed:
            return longest
        check = max(self._asked + LEASE / 2, self._placed[0][0] - LEASE / 2)
        return min(max(0.0, check - self._loop.time()), longest)

    async def _wait_out(self) -> None:
        """Let a pause pass, until it is time to ask whether it lasts, or there is news to tell."""
        if not self._memory.pause:
            return
        self._callers = deque(each for each in self._callers if not each.turn.done())
        try:
            async with asyncio.timeout(min(self._memory.pause, self._until_check(_HEARS_EVERY))):
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
        request, version = self._memory.request(tuple(each.weight for each in callers))
        self._asked = sent = self._loop.time()
        try:
            reply = await self._link.ask(request, max(patience, 0.1))
        except Exception as error:
            self._callers.extendleft(reversed(callers))  # they stay at the head of the line
            self._to_say = to_say
            await self._get_over(error)
            return
        now = self._loop.time()
        silent = now - min(sent, self._outage.since(sent))
        self._outage.is_over()
        # Where an answer takes longer than the lease, what it confirms can be used at once.
        self._holds_until = max(sent + LEASE, now)
        self._memory.learn(reply, version)
        weights = request.weights if reply.waits else ()
        places = [(now + wait, weight) for wait, weight in zip(reply.waits, weights, strict=True)]
        was_lost = self._epoch != reply.epoch
        self._epoch = reply.epoch
        if was_lost or silent > _SILENCE:
            held = [(due, caller) for due, caller in self._placed if not caller.turn.done()]
            self._placed.clear()
            callers = [*(caller for _, caller in held), *callers]
            if not was_lost:
                places = [*((due, each.weight) for due, each in held if due >= now), *places]
        self._place(callers, places)

    def _first(self) -> list[_Caller]:
        """Take the first out of the line, without those who have gone."""
        first: list[_Caller] = []
        while self._callers and len(first) < _MOST_AT_ONCE:
            caller = self._callers.popleft()
            if not caller.turn.done():
                first.append(caller)
        return first

    def _place(self, callers: list[_Caller], places: list[tuple[float, float]]) -> None:
        """
        Give these callers these places, in order; those for whom there is none ask again.

        Args:
            callers: in their order.
            places: when each comes, and its weight.
        """
        free = deque(places)
        for number, caller in enumerate(callers):
            due, weight = 0.0, 0.0
            while free and weight < caller.weight:
                due, more = free.popleft()
                weight += more
            if weight < caller.weight:
                self._callers.extendleft(reversed(callers[number:]))
                break
            self._placed.append((due, caller))
        self._call()

    def _call(self) -> None:
        """Call all whose turn has come, in their order, and see to the next."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        now = self._loop.time()
        while self._placed:
            due, caller = self._placed[0]
            if not caller.turn.done():
                if due > now + _RESOLUTION:
                    self._alarm = self._loop.call_at(due, self._call)
                    return
                if now > self._holds_until:
                    self._to_say = True
                    self._ring()
                    return
                caller.turn.set_result(None)
                self._memory.used(caller.weight)
            self._placed.popleft()

    def _patience(self, caller: _Caller) -> float:
        """Return for how many seconds a caller still waits for a Redis that is away."""
        since = max(self._outage.since(self._loop.time()), caller.asked)
        return since + self._outage.timeout - self._loop.time()

    async def _get_over(self, error: Exception) -> None:
        """Wait before the next try; send away those who have waited for too long."""
        self._outage.begins(self._loop.time(), error)
        waiting = [*(caller for _, caller in self._placed), *self._callers]
        if not is_away(error):
            self._send_away(waiting, refusal(self._outage.url, error), error)
            return
        late = {each for each in waiting if self._patience(each) <= 0.0}
        if late or not waiting:
            self._send_away(late, self._outage.words(self._loop.time()), error)
        waiting = [each for each in waiting if each not in late]
        if not waiting:
            self._to_say = False  # it stays in memory, for whoever comes next
            return
        longest = max(0.0, min(self._patience(each) for each in waiting))
        await asyncio.sleep(min(self._outage.delay(random.random()), longest))

    def _send_away(self, callers: Collection[_Caller], why: str, error: Exception) -> None:
        """Tell callers that they get no place."""
        for caller in callers:
            if not caller.turn.done():
                told = RedisUnavailable(why)
                told.__cause__ = error
                caller.turn.set_exception(told)
        self._callers = deque(each for each in self._callers if not each.turn.done())
        self._placed = deque(each for each in self._placed if not each[1].turn.done())
