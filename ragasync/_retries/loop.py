"""The retry loop: calls a function until it succeeds or its policy gives up, async or sync."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Protocol, TypeAlias, TypeVar, cast

from ragasync._retries.classify import FATAL, Fatal
from ragasync._retries.retry_after import describe_wait, retry_after_of
from ragasync.clock import Clock, current_clock
from ragasync.foreign_errors import attribute

T = TypeVar("T")

Args: TypeAlias = tuple[object, ...]
Kwargs: TypeAlias = Mapping[str, object]

_GAVE_UP = "AsyncRetry gave up after "
_LONGEST_SLEEP = 1e9  # 30 years; `time.sleep` overflows at 292


class Policy(Protocol):
    """The part of a retry policy that the loop uses."""

    @property
    def max_elapsed(self) -> float | None:
        """Seconds after the first attempt began; no attempt starts later."""

    @property
    def max_retry_after(self) -> float:
        """Seconds, the longest Retry-After that is waited for."""

    def decide(self, error: BaseException, *, retries: int, elapsed: float) -> float | Fatal | None:
        """Return the back-off in seconds, None to give up, or `FATAL`."""

    def notify(self, attempt: int, error: BaseException, delay: float) -> None:
        """Call `on_retry` before a back-off."""


async def call_async(
    policy: Policy, fn: Callable[..., Awaitable[T]], args: Args, kwargs: Kwargs
) -> T:
    """Await `fn(*args, **kwargs)` with retries, until it succeeds or the policy gives up."""
    # A call that succeeds must cost next to nothing: only `max_elapsed` needs its start time.
    failures = None if policy.max_elapsed is None else _FailedAttempts(policy, current_clock())
    while True:
        try:
            return await fn(*args, **kwargs)
        except Exception as error:
            failures = failures or _FailedAttempts(policy, current_clock())
            delay = failures.backoff_after(error)
            if delay is None:
                raise
        await asyncio.sleep(delay)


def call_sync(policy: Policy, fn: Callable[..., T], args: Args, kwargs: Kwargs) -> T:
    """Call `fn(*args, **kwargs)` with retries, until it succeeds or the policy gives up."""
    failures = None if policy.max_elapsed is None else _FailedAttempts(policy, time.monotonic)
    while True:
        try:
            value = fn(*args, **kwargs)
            break
        except Exception as error:
            failures = failures or _FailedAttempts(policy, time.monotonic)
            delay = failures.backoff_after(error)
            if delay is None:
                raise
        time.sleep(min(delay, _LONGEST_SLEEP))
    if inspect.iscoroutine(value):
        return cast("T", call_async(policy, _starting_with(value, fn), args, kwargs))
    return value


def _starting_with(
    first: Awaitable[object], fn: Callable[..., object]
) -> Callable[..., Awaitable[object]]:
    """Return an async function whose first call returns the coroutine that was already created."""
    created = [first]

    def call(*args: object, **kwargs: object) -> Awaitable[object]:
        return created.pop() if created else cast("Awaitable[object]", fn(*args, **kwargs))

    return call


class _FailedAttempts:
    """The failed attempts of one call so far: decides on the next back-off, explains giving up."""

    __slots__ = ("_clock", "_first", "_kinds", "_policy", "_started")

    def __init__(self, policy: Policy, clock: Clock) -> None:
        self._policy = policy
        self._clock = clock
        self._started = self._first = clock()
        self._kinds: list[str] = []

    def backoff_after(self, error: Exception) -> float | None:
        """Return the seconds to wait before the next attempt, or None to raise the error."""
        retries = len(self._kinds)
        now = self._clock()
        if not retries:
            self._first = now
        delay = self._policy.decide(error, retries=retries, elapsed=now - self._started)
        if delay is None or delay is FATAL:
            self._add_note(error, now - self._first)
            return None
        self._kinds.append(type(error).__name__)
        self._policy.notify(retries + 1, error, delay)
        return delay

    def _add_note(self, error: Exception, seconds: float) -> None:
        """Add a note on the attempts to an error, in place of the note of an inner policy."""
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
        # An error that cannot be changed, such as a frozen dataclass, is raised without a note.
        with suppress(Exception):
            earlier_notes = list(notes) if isinstance(notes, list | tuple) else []
            others = [each for each in earlier_notes if _GAVE_UP not in each]
            error.__notes__ = [*others, note]
