"""One call and its attempts: the loop that a policy directs, awaiting or blocking."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from ragasync.causes import Fatal
from ragasync.clock import Clock, running_clock

P = ParamSpec("P")
T = TypeVar("T")

_GAVE_UP = "AsyncRetry gave up after "
_LONGEST_SLEEP = 1e9  # 30 years; `time.sleep` overflows at 292


class Policy(Protocol):
    """What the attempts ask."""

    @property
    def deadline(self) -> float | None:
        """Seconds after the start at which no further attempt starts."""

    def decide(self, error: Exception, *, retries: int, elapsed: float) -> float | Fatal | None:
        """Return the seconds to wait, None to give up, or `FATAL`."""

    def announce(self, attempt: int, error: Exception, delay: float) -> None:
        """Hear of a back-off that is about to begin."""


def awaiting(policy: Policy, fn: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Return the async function that calls `fn` until it succeeds or the policy gives up."""

    async def attempt(*args: P.args, **kwargs: P.kwargs) -> T:
        # A call that succeeds should cost next to nothing: what a failure needs is made then.
        started = None if policy.deadline is None else running_clock()()
        failures = None
        while True:
            try:
                return await fn(*args, **kwargs)
            except Exception as error:
                failures = failures or _Failures(policy, running_clock(), started)
                delay = failures.delay_after(error)
                if delay is None:
                    raise
            await asyncio.sleep(delay)

    return attempt


def blocking(policy: Policy, fn: Callable[P, T]) -> Callable[P, T]:
    """Return the function that calls `fn` until it succeeds or the policy gives up."""

    def attempt(*args: P.args, **kwargs: P.kwargs) -> T:
        started = None if policy.deadline is None else time.monotonic()
        failures = None
        while True:
            try:
                value = fn(*args, **kwargs)
            except Exception as error:
                failures = failures or _Failures(policy, time.monotonic, started)
                delay = failures.delay_after(error)
                if delay is None:
                    raise
            else:
                break
            time.sleep(min(delay, _LONGEST_SLEEP))
        if inspect.iscoroutine(value):
            return cast("T", _going_on(policy, fn, value)(*args, **kwargs))
        return value

    return attempt


def _going_on(
    policy: Policy, fn: Callable[P, object], first: Awaitable[object]
) -> Callable[P, Coroutine[Any, Any, object]]:
    """Return the attempts of an async function in disguise, whose first call was made already."""
    at_hand = [first]

    def attempt(*args: P.args, **kwargs: P.kwargs) -> Awaitable[object]:
        return at_hand.pop() if at_hand else cast("Awaitable[object]", fn(*args, **kwargs))

    return awaiting(policy, attempt)


class _Failures:
    """What went wrong in one call so far."""

    __slots__ = ("_clock", "_first", "_kinds", "_policy", "_started")

    def __init__(self, policy: Policy, clock: Clock, started: float | None) -> None:
        self._policy = policy
        self._clock = clock
        self._first = clock()
        self._started = self._first if started is None else started
        self._kinds: Counter[str] = Counter()

    def delay_after(self, error: Exception) -> float | None:
        """Return the seconds to wait before the next attempt, or None to raise the error."""
        retries = self._kinds.total()
        elapsed = self._clock() - self._started
        delay = self._policy.decide(error, retries=retries, elapsed=elapsed)
        if delay is None or isinstance(delay, Fatal):
            self._explain(error, retries + 1)
            return None
        self._kinds[type(error).__name__] += 1
        self._policy.announce(retries + 1, error, delay)
        return delay

    def _explain(self, error: Exception, attempts: int) -> None:
        """Note on the error what was tried, in place of what a policy within this one noted."""
        note = f"{_GAVE_UP}{attempts} attempt{'s' * (attempts > 1)}"
        if attempts > 1:
            seconds = self._clock() - self._first
            earlier = ", ".join(f"{count} × {kind}" for kind, count in self._kinds.items())
            note += f", the last {seconds:.2f} s after the first had failed; before it: {earlier}"
        # An error that cannot be changed, such as a frozen dataclass, goes up without a note.
        with suppress(Exception):
            others = [said for said in getattr(error, "__notes__", ()) if _GAVE_UP not in said]
            error.__notes__ = [*others, note]
