"""One call and its attempts: the loop that a policy directs, awaiting or blocking."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Protocol, TypeAlias, TypeVar, cast

from ragasync.clock import Clock, current_clock
from ragasync.foreign_errors import attribute
from ragasync.retries.classify import FATAL, Fatal
from ragasync.retries.http import describe_wait, retry_after_of

T = TypeVar("T")

Args: TypeAlias = tuple[object, ...]
Kwargs: TypeAlias = Mapping[str, object]

_GAVE_UP = "AsyncRetry gave up after "
_LONGEST_SLEEP = 1e9  # 30 years; `time.sleep` overflows at 292


class Policy(Protocol):
    """What the attempts ask."""

    @property
    def max_elapsed(self) -> float | None:
        """Seconds after the start at which no further attempt starts."""

    @property
    def max_retry_after(self) -> float:
        """Seconds, the longest Retry-After that is waited for."""

    def decide(self, error: BaseException, *, retries: int, elapsed: float) -> float | Fatal | None:
        """Return the seconds to wait, None to give up, or `FATAL`."""

    def announce(self, attempt: int, error: BaseException, delay: float) -> None:
        """Hear of a back-off that is about to begin."""


async def awaiting(
    policy: Policy, fn: Callable[..., Awaitable[T]], args: Args, kwargs: Kwargs
) -> T:
    """Await `fn(*args, **kwargs)` until it succeeds or the policy gives up."""
    # A call that succeeds should cost next to nothing: only a deadline has to see its start.
    failures = None if policy.max_elapsed is None else _Failures(policy, current_clock())
    while True:
        try:
            return await fn(*args, **kwargs)
        except Exception as error:
            failures = failures or _Failures(policy, current_clock())
            delay = failures.delay_after(error)
            if delay is None:
                raise
        await asyncio.sleep(delay)


def blocking(policy: Policy, fn: Callable[..., T], args: Args, kwargs: Kwargs) -> T:
    """Call `fn(*args, **kwargs)` until it succeeds or the policy gives up."""
    failures = None if policy.max_elapsed is None else _Failures(policy, time.monotonic)
    while True:
        try:
            value = fn(*args, **kwargs)
            break
        except Exception as error:
            failures = failures or _Failures(policy, time.monotonic)
            delay = failures.delay_after(error)
            if delay is None:
                raise
        time.sleep(min(delay, _LONGEST_SLEEP))
    if inspect.iscoroutine(value):
        return cast("T", awaiting(policy, _beginning_with(value, fn), args, kwargs))
    return value


def _beginning_with(
    first: Awaitable[object], fn: Callable[..., object]
) -> Callable[..., Awaitable[object]]:
    """Return a function that was async in disguise, whose first call was made already."""
    at_hand = [first]

    def call(*args: object, **kwargs: object) -> Awaitable[object]:
        return at_hand.pop() if at_hand else cast("Awaitable[object]", fn(*args, **kwargs))

    return call


class _Failures:
    """What went wrong in one call so far."""

    __slots__ = ("_clock", "_first", "_kinds", "_policy", "_started")

    def __init__(self, policy: Policy, clock: Clock) -> None:
        self._policy = policy
        self._clock = clock
        self._started = self._first = clock()
        self._kinds: list[str] = []

    def delay_after(self, error: Exception) -> float | None:
        """Return the seconds to wait before the next attempt, or None to raise the error."""
        retries = len(self._kinds)
        now = self._clock()
        if not retries:
            self._first = now
        delay = self._policy.decide(error, retries=retries, elapsed=now - self._started)
        if delay is None or delay is FATAL:
            self._explain(error, now - self._first)
            return None
        self._kinds.append(type(error).__name__)
        self._policy.announce(retries + 1, error, delay)
        return delay

    def _explain(self, error: Exception, seconds: float) -> None:
        """Note on the error what was tried, in place of what a policy within this one noted."""
        if self._kinds:
            earlier = ", ".join(f"{n} × {kind}" for kind, n in Counter(self._kinds).items())
            note = (
                f"{_GAVE_UP}{len(self._kinds) + 1} attempts, the last {seconds:.2f} s after the "
                f"first had failed; before this error: {earlier}"
            )
        else:
            note = f"{_GAVE_UP}1 attempt"
        wait = retry_after_of(error)
        if wait is not None and wait > self._policy.max_retry_after:
            note += (
                f"; the service asked to wait {describe_wait(wait)}, longer than "
                f"max_retry_after={self._policy.max_retry_after:g}"
            )
        notes = attribute(error, "__notes__")
        # An error that cannot be changed, such as a frozen dataclass, goes up without a note.
        with suppress(Exception):
            earlier_notes = list(notes) if isinstance(notes, list | tuple) else []
            others = [said for said in earlier_notes if _GAVE_UP not in said]
            error.__notes__ = [*others, note]
