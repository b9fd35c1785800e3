"""Dispatcher: requests slots from Redis for the callers of one loop, also through an outage."""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Collection
from contextvars import Context
from dataclasses import dataclass
from datetime import datetime

from ragasync.cancellation import create_lazy_task
from ragasync.error_text import safe_message, type_name
from ragasync.errors import RedisUnavailable
from ragasync.redis.connection import ScriptConnection, is_away, refusal_message
from ragasync.redis.script import LEASE, LocalState

_IDLE_TIMEOUT = 1.0
"""Seconds for which an idle dispatcher keeps its connection for the next call."""

_MAX_SLOTS_PER_REQUEST = 500
"""Slots in one request; a larger one would block Redis for a millisecond."""

_PAUSE_CHECK = 1.0
"""Seconds between two requests in a pause, which another process may end."""

_MAX_SILENCE = 0.5
"""Seconds without a reply after which slots that have passed meanwhile are not used."""

_FIRST_DELAY, _LONGEST_DELAY = 0.05, 1.0
"""Seconds: the bounds of the delays between attempts in an outage, which double (full jitter)."""

_RESOLUTION = 1e-9


class Outage:
    """An outage of Redis as one dispatcher sees it: its start, its attempts, its error message."""

    def __init__(self, url: str, timeout: float) -> None:
        self.url, self.timeout = url, timeout
        self._began: float | None = None
        self._began_at = ""  # by the wall clock, for the message
        self._attempts = 0
        self._last_error = ""

    def record_failure(self, now: float, error: Exception) -> None:
        """Record a failed attempt, which may begin the outage."""
        if self._began is None:
            self._began = now
            self._began_at = datetime.now().astimezone().isoformat(" ", "seconds")
        self._attempts += 1
        self._last_error = f"{type_name(error)}: {safe_message(error)}"

    def end(self) -> None:
        """Record a reply, which ends the outage."""
        self._began, self._attempts = None, 0

    def since(self, now: float) -> float:
        """Return the time at which the outage began, or `now` without one."""
        return now if self._began is None else self._began

    def delay(self, share: float) -> float:
        """Return the delay before the next attempt: a share of its bound."""
        bound = min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** min(self._attempts, 10))
        return max(0.01, share * bound)

    def message(self, now: float) -> str:
        """Return the error message for a caller whose time is over."""
        return (
            f"the rate limit is kept in Redis at {self.url}, which has not answered for "
            f"{now - self.since(now):.1f} s, since {self._began_at}, in {self._attempts} attempts "
            f"(the latest: {self._last_error}). Start it, or check that this machine reaches it; "
            "then run the rest. To wait for longer than "
            f"{self.timeout:g} s, set unavailable_timeout="
        )


@dataclass(slots=True, eq=False)
class _Caller:
    """A waiting caller; the future is set at the time of its slot."""

    weight: float
    arrived: float
    future: asyncio.Future[None]


class Dispatcher:
    """
    Requests slots from Redis for the callers of one loop, in the order of their arrival.

    One task sends the requests for all callers, so that thousands of callers need one connection
    and a cancelled caller never leaves a reply behind. The task ends and closes the connection a
    second after the last caller, or with its loop.

    A slot is used only if Redis has replied within the last LEASE seconds: otherwise it may have
    lost its state and assigned the same time to others. So the task keeps sending requests while a
    caller waits for its slot.
    """

    def __init__(self, connection: ScriptConnection, state: LocalState, outage: Outage) -> None:
        self._connection, self._state, self._outage = connection, state, outage
        self._loop = asyncio.get_running_loop()
        self._callers: deque[_Caller] = deque()  # without a slot
        self._slots: deque[tuple[float, _Caller]] = deque()  # callers with the time of their slot
        self._timer: asyncio.TimerHandle | None = None
        self._last_request = self._lease_until = -math.inf
        self._epoch = ""  # of the state that assigned the slots
        self._task: asyncio.Task[None] | None = None
        self._wakeup = asyncio.Event()
        self._must_sync = False

    @property
    def waiting(self) -> int:
        """The number of waiting callers, with or without a slot."""
        return len(self._callers) + len(self._slots)

    async def wait(self, weight: float) -> None:
        """
        Wait for a slot, and until its time has come.

        Raises:
            RedisUnavailable: Redis was away for too long, or refuses the request.
        """
        caller = _Caller(weight, self._loop.time(), self._loop.create_future())
        self._callers.append(caller)
        self._wake()
        await caller.future

    def sync(self) -> None:
        """Send the local changes to Redis, also without a caller."""
        self._must_sync = True
        self._wake()

    def _wake(self) -> None:
        """Wake the task, or start it."""
        self._wakeup.set()
        if self._task is None:
            # In an empty context, because it works for all callers, not only for the first one.
            run = self._run()
            self._task = create_lazy_task(run, self._loop, name="ragasync redis", context=Context())

    async def _run(self) -> None:
        """Send requests until no caller comes for a while."""
        try:
            while await self._has_work():
                await self._wait_for_pause()
                await self._request_slots()
        finally:
            self._task = None
            for caller in (*(each for _, each in self._slots), *self._callers):
                caller.future.cancel()  # there are some only if the loop ends
            self._slots.clear()
            self._callers.clear()
            await self._connection.disconnect()

    async def _has_work(self) -> bool:
        """Wait a while for callers; return whether there are some, or changes to send."""
        self._wakeup.clear()
        if not (self._callers or self._must_sync):
            try:
                async with asyncio.timeout(self._until_renewal(_IDLE_TIMEOUT)):
                    await self._wakeup.wait()
            except TimeoutError:
                pass
        self._must_sync = self._must_sync or bool(self._slots and not self._until_renewal())
        return bool(self._callers or self._must_sync or self._slots)

    def _until_renewal(self, longest: float = 1.0) -> float:
        """Return the seconds until the lease of assigned slots must be renewed by a request."""
        if not self._slots:
            return longest
        renewal = max(self._last_request + LEASE / 2, self._slots[0][0] - LEASE / 2)
        return min(max(0.0, renewal - self._loop.time()), longest)

    async def _wait_for_pause(self) -> None:
        """Wait until a pause ends, or until a request is due, to send changes or to check it."""
        if not self._state.paused_for:
            return
        self._callers = deque(each for each in self._callers if not each.future.done())
        seconds = min(self._state.paused_for, self._until_renewal(_PAUSE_CHECK))
        try:
            async with asyncio.timeout(seconds):
                while self._state.paused_for and not self._must_sync:
                    self._wakeup.clear()
                    await self._wakeup.wait()
        except TimeoutError:
            self._must_sync = True  # even without changes, to learn whether the pause lasts

    async def _request_slots(self) -> None:
        """Request slots for the first callers, and assign them."""
        callers = [] if self._state.paused_for else self._pop_callers()
        self._must_sync, must_sync = False, self._must_sync
        if not (callers or must_sync):
            return
        timeout = min((self._time_left(each) for each in callers), default=self._outage.timeout)
        request, version = self._state.request(tuple(each.weight for each in callers))
        self._last_request = sent = self._loop.time()
        try:
            reply = await self._connection.ask(request, max(timeout, 0.1))
        except Exception as error:
            self._state.restore(request)
            self._callers.extendleft(reversed(callers))  # they stay at the head of the queue
            self._must_sync = must_sync
            await self._back_off(error)
            return
        now = self._loop.time()
        silence = now - min(sent, self._outage.since(sent))
        self._outage.end()
        # If a reply takes longer than the lease, the slots it confirms can be used immediately.
        self._lease_until = max(sent + LEASE, now)
        self._state.update(reply, version)
        weights = request.weights if reply.waits else ()
        slots = [(now + wait, weight) for wait, weight in zip(reply.waits, weights, strict=True)]
        was_lost = self._epoch != reply.epoch
        self._epoch = reply.epoch
        if was_lost or silence > _MAX_SILENCE:
            # Slots of a lost state are void, and slots that passed in a long silence would be used
            # all together. Their callers get the next slots, before the callers of this request.
            former = [(due, caller) for due, caller in self._slots if not caller.future.done()]
            self._slots.clear()
            callers = [*(caller for _, caller in former), *callers]
            if not was_lost:
                slots = [*((due, each.weight) for due, each in former if due >= now), *slots]
        self._assign(callers, slots)

    def _pop_callers(self) -> list[_Caller]:
        """Remove the first callers from the queue and return those that still wait."""
        first: list[_Caller] = []
        while self._callers and len(first) < _MAX_SLOTS_PER_REQUEST:
            caller = self._callers.popleft()
            if not caller.future.done():
                first.append(caller)
        return first

    def _assign(self, callers: list[_Caller], slots: list[tuple[float, float]]) -> None:
        """
        Assign slots to callers, in order; callers without one go back to the head of the queue.
        """
        free = deque(slots)
        for number, caller in enumerate(callers):
            due, weight = 0.0, 0.0
            while free and weight < caller.weight:
                due, more = free.popleft()
                weight += more
            if weight < caller.weight:
                self._callers.extendleft(reversed(callers[number:]))
                break
            self._slots.append((due, caller))
        self._grant_due()

    def _grant_due(self) -> None:
        """Wake all callers whose slot has come, in their order, and set the timer for the next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._loop.time()
        while self._slots:
            due, caller = self._slots[0]
            if not caller.future.done():
                if due > now + _RESOLUTION:
                    self._timer = self._loop.call_at(due, self._grant_due)
                    return
                if now > self._lease_until:
                    self._must_sync = True
                    self._wake()
                    return
                caller.future.set_result(None)
                self._state.record_use(caller.weight)
            self._slots.popleft()

    def _time_left(self, caller: _Caller) -> float:
        """Return the seconds for which a caller still waits for a Redis that is away."""
        since = max(self._outage.since(self._loop.time()), caller.arrived)
        return since + self._outage.timeout - self._loop.time()

    async def _back_off(self, error: Exception) -> None:
        """Wait before the next attempt, and reject the callers whose time is over."""
        self._outage.record_failure(self._loop.time(), error)
        waiting = [*(caller for _, caller in self._slots), *self._callers]
        if not is_away(error):
            self._reject(waiting, refusal_message(self._outage.url, error), error)
            return
        late = {each for each in waiting if self._time_left(each) <= 0.0}
        if late or not waiting:
            self._reject(late, self._outage.message(self._loop.time()), error)
        waiting = [each for each in waiting if each not in late]
        if not waiting:
            self._must_sync = False  # the changes stay in the state, for the next request
            return
        longest = max(0.0, min(self._time_left(each) for each in waiting))
        await asyncio.sleep(min(self._outage.delay(random.random()), longest))

    def _reject(self, callers: Collection[_Caller], message: str, error: Exception) -> None:
        """Raise RedisUnavailable in callers, with its cause."""
        for caller in callers:
            if not caller.future.done():
                unavailable = RedisUnavailable(message)
                unavailable.__cause__ = error
                caller.future.set_exception(unavailable)
        self._callers = deque(each for each in self._callers if not each.future.done())
        self._slots = deque(each for each in self._slots if not each[1].future.done())
