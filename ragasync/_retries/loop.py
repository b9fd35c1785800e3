"""The retry loop: around a function, and as a block whose attempts a `for` statement makes."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self, TypeAlias, TypeVar, cast

from ragasync._retries.classify import FATAL, Fatal
from ragasync._retries.retry_after import describe_wait, retry_after_of
from ragasync.clock import Clock, current_clock
from ragasync.errors import ResultRejected
from ragasync.foreign_errors import attribute
from ragasync.object_views import duration

T = TypeVar("T")

Args: TypeAlias = tuple[object, ...]
Kwargs: TypeAlias = Mapping[str, object]

_GAVE_UP = "AsyncRetry gave up after "
_LONGEST_SLEEP = 1e9  # 30 years; `time.sleep` overflows at 292


class RetryPolicy(Protocol):
    """The part of AsyncRetry that the retry loop uses."""

    @property
    def max_elapsed(self) -> float | None:
        """Seconds from the start of the first attempt, after which no attempt starts."""

    @property
    def max_retry_after(self) -> float:
        """Seconds, the longest Retry-After that is waited for."""

    @property
    def retry_on_result(self) -> Callable[..., bool] | None:
        """The predicate on values, if there is one."""

    @property
    def on_retry(self) -> Callable[..., object] | None:
        """The callback before each back-off, if there is one."""

    def decide(self, error: BaseException, *, retries: int, elapsed: float) -> float | Fatal | None:
        """Return the back-off before the next attempt in seconds, None to give up, or `FATAL`."""

    def reject(self, value: object) -> ResultRejected | None:
        """Return the error of a value that `retry_on_result` rejects, None for any other value."""

    def notify(self, attempt: int, error: BaseException, delay: float, backed_off: float) -> None:
        """Call `on_retry` before a back-off."""


# ── around a function ───────────────────────────────────────────────────────────────────────────


async def call_async(
    policy: RetryPolicy, fn: Callable[..., Awaitable[T]], args: Args, kwargs: Kwargs
) -> T:
    """Await `fn(*args, **kwargs)` with retries, until it succeeds or the policy gives up."""
    # A call that succeeds must cost next to nothing: only `max_elapsed` needs its start time.
    failures = None if policy.max_elapsed is None else FailedAttempts(policy, current_clock())
    while True:
        try:
            value = await fn(*args, **kwargs)
        except Exception as error:
            failures = failures or FailedAttempts(policy, current_clock())
            delay = failures.backoff_after(error)
            if delay is None:
                raise
        else:
            if policy.retry_on_result is None:
                return value
            failures = failures or FailedAttempts(policy, current_clock())
            delay = failures.backoff_after_value(value)
            if delay is None:
                return value
        await asyncio.sleep(delay)


def call_sync(policy: RetryPolicy, fn: Callable[..., T], args: Args, kwargs: Kwargs) -> T:
    """Call `fn(*args, **kwargs)` with retries, until it succeeds or the policy gives up."""
    failures = None if policy.max_elapsed is None else FailedAttempts(policy, time.monotonic)
    while True:
        try:
            value = fn(*args, **kwargs)
        except Exception as error:
            failures = failures or FailedAttempts(policy, time.monotonic)
            delay = failures.backoff_after(error)
            if delay is None:
                raise
        else:
            if inspect.iscoroutine(value):
                return cast("T", call_async(policy, _starting_with(value, fn), args, kwargs))
            if policy.retry_on_result is None:
                return value
            failures = failures or FailedAttempts(policy, time.monotonic)
            delay = failures.backoff_after_value(value)
            if delay is None:
                return value
        _sleep(delay)


def _starting_with(
    first: Awaitable[object], fn: Callable[..., object]
) -> Callable[..., Awaitable[object]]:
    """Return an async function whose first call returns the coroutine that was already created."""
    created = [first]

    def call(*args: object, **kwargs: object) -> Awaitable[object]:
        return created.pop() if created else cast("Awaitable[object]", fn(*args, **kwargs))

    return call


def _sleep(delay: float) -> None:
    """Block this thread for a back-off."""
    time.sleep(min(delay, _LONGEST_SLEEP))


# ── as a block ──────────────────────────────────────────────────────────────────────────────────


class RetryBlock:
    """
    The attempts of a retry block, as `AsyncRetry.attempts` returns them: an iterator, used once.

    It ends after the first attempt whose `with` block raised nothing and passed no rejected value.
    """

    __slots__ = ("_attempt", "_delay", "_failures", "_policy")

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._failures: FailedAttempts | None = None
        self._attempt: RetryAttempt | None = None
        self._delay = 0.0

    def __aiter__(self) -> Self:
        self._start(current_clock())
        return self

    async def __anext__(self) -> RetryAttempt:
        if (attempt := self._next_attempt()) is None:
            raise StopAsyncIteration
        if attempt.number > 1:
            await asyncio.sleep(self._delay)
        return attempt

    def __iter__(self) -> Self:
        self._start(time.monotonic)
        return self

    def __next__(self) -> RetryAttempt:
        if (attempt := self._next_attempt()) is None:
            raise StopIteration
        if attempt.number > 1:
            _sleep(self._delay)
        return attempt

    def _start(self, clock: Clock) -> None:
        """Begin the block, whose first attempt starts now."""
        if self._failures is not None:
            raise RuntimeError("these attempts were used before: call policy.attempts() each time")
        self._failures = FailedAttempts(self._policy, clock)

    def _next_attempt(self) -> RetryAttempt | None:
        """Return the next attempt, or None after one that succeeded."""
        last, failures = self._attempt, self._failures
        if failures is None:
            raise RuntimeError("iterate with `async for attempt in policy.attempts():`, or `for`")
        if last is not None and not last.has_ended:
            raise RuntimeError(
                f"attempt {last.number} was not used: write `with attempt:` around the call"
            )
        if last is not None and not last.has_failed:
            return None
        self._attempt = RetryAttempt(self, failures.count + 1, failures.backed_off)
        return self._attempt

    def rejection(self, value: object) -> ResultRejected | None:
        """Return the error of a value that the policy rejects, or None."""
        return self._policy.reject(value)

    def check_needs_no_value(self) -> None:
        """
        Check that an attempt that ends without a value need not be judged by one.

        Raises:
            RuntimeError: The policy judges values.
        """
        if self._policy.retry_on_result is not None:
            raise RuntimeError(
                "retry_on_result expects the value of each attempt, but the `with` block ended "
                "without passing one: call attempt.set_result(value) in it, or use the attempts "
                "of policy.with_(retry_on_result=None)"
            )

    def backoff_after(self, error: Exception) -> float | None:
        """Return the back-off after an attempt that failed; None if its error is raised."""
        assert self._failures is not None  # an attempt comes from an iteration
        delay = self._failures.backoff_after(error)
        self._delay = delay or 0.0
        return delay


class RetryAttempt:
    """
    One attempt of a retry block; use it as a context manager around the call.

    Attributes:
        number: The number of the attempt, from 1.
        backed_off: Seconds of back-off before it, over all earlier attempts.
        has_ended: Whether its `with` block has ended.
        has_failed: Whether another attempt follows.
    """

    __slots__ = (
        "_block",
        "_has_begun",
        "_has_value",
        "_rejected",
        "backed_off",
        "has_ended",
        "has_failed",
        "number",
    )

    def __init__(self, block: RetryBlock, number: int, backed_off: float) -> None:
        self._block = block
        self._has_begun = self._has_value = False
        self._rejected: ResultRejected | None = None
        self.number = number
        self.backed_off = backed_off
        self.has_ended = self.has_failed = False

    def set_result(self, value: T) -> T:
        """
        Return the attempt's value, or end the attempt if `retry_on_result` rejects it.

        Nothing after this call in the `with` block runs then, so that a `return` or `break` cannot
        leave the block with a rejected value. The block retries it, or raises ResultRejected.

        Raises:
            RuntimeError: The call is not in the `with` block of the attempt.
        """
        if not self._has_begun or self.has_ended:
            raise RuntimeError(
                f"the value of attempt {self.number} must be passed in its `with` block: write "
                "`with attempt:` around attempt.set_result(value)"
            )
        self._has_value = True
        if (rejected := self._block.rejection(value)) is not None:
            self._rejected = rejected
            raise _LeaveBlock(f"retry_on_result rejected the value of attempt {self.number}")
        return value

    def __enter__(self) -> Self:
        self._has_begun = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self.has_ended = True
        rejected = self._rejected
        if error is None:
            if rejected is not None:
                # The block has caught `_LeaveBlock`, and may be leaving by a `return`, which can
                # be replaced by an error only, and not by another attempt.
                raise rejected
            if not self._has_value:
                self._block.check_needs_no_value()
        elif rejected is not None and _is_leaving(error):
            self.has_failed = self._block.backoff_after(rejected) is not None
            if not self.has_failed:
                raise rejected from None
        elif isinstance(error, Exception):
            self.has_failed = self._block.backoff_after(error) is not None
        return self.has_failed

    def __repr__(self) -> str:
        return f"<RetryAttempt {self.number}, backed off {duration(self.backed_off)}>"


class _LeaveBlock(BaseException):
    """
    Leaves the `with` block of an attempt whose value is rejected.

    It is not an Exception, so an `except Exception` in the block does not catch it.
    """


def _is_leaving(error: BaseException) -> bool:
    """Whether an error is only `_LeaveBlock`, alone or in the group of a TaskGroup."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(_LeaveBlock)[1] is None
    return isinstance(error, _LeaveBlock)


# ── decisions and notes ─────────────────────────────────────────────────────────────────────────


class FailedAttempts:
    """
    The failed attempts of one call so far: decides on the next back-off, explains giving up.

    Attributes:
        backed_off: Seconds of back-off between these attempts, including the one that follows.
    """

    __slots__ = ("_clock", "_first", "_kinds", "_policy", "_started", "backed_off")

    def __init__(self, policy: RetryPolicy, clock: Clock) -> None:
        self._policy = policy
        self._clock = clock
        self._started = self._first = clock()
        self._kinds: list[str] = []
        self.backed_off = 0.0

    @property
    def count(self) -> int:
        """The number of attempts that a further one follows."""
        return len(self._kinds)

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
        if self._policy.on_retry is not None:
            self._policy.notify(retries + 1, error, delay, self.backed_off)
        self.backed_off += delay
        return delay

    def backoff_after_value(self, value: object) -> float | None:
        """
        Return the seconds to wait before the next attempt, or None to return the value.

        Raises:
            ResultRejected: The value is rejected, and the policy gives up.
        """
        rejected = self._policy.reject(value)
        if rejected is None:
            return None
        delay = self.backoff_after(rejected)
        if delay is None:
            raise rejected
        return delay

    def _add_note(self, error: Exception, seconds: float) -> None:
        """Add a note on the attempts to an error, in place of the note of an inner policy."""
        if self._kinds:
            earlier = ", ".join(f"{n} × {kind}" for kind, n in Counter(self._kinds).items())
            note = (
                f"{_GAVE_UP}{len(self._kinds) + 1} attempts and {duration(self.backed_off)} of "
                f"back-off, the last {duration(seconds)} after the first had failed; "
                f"before this error: {earlier}"
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
