"""Retry policies: which errors and values are retried, after what back-off, and when to give up."""

from __future__ import annotations

import functools
import inspect
import random
import sys
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from typing import Any, Literal, ParamSpec, TypedDict, TypeVar, Unpack, cast

from ragasync._retries.classify import (
    FATAL,
    Fatal,
    RetryOn,
    Verdict,
    check_retry_on,
    default_retry,
    verdict_of,
)
from ragasync._retries.loop import RetryBlock, call_async, call_sync
from ragasync._retries.retry_after import retry_after_of
from ragasync.arguments import (
    check_callable,
    check_count,
    check_number,
    check_seconds,
    check_sync,
    explains_arguments,
    is_async,
    short_repr,
)
from ragasync.error_text import describe
from ragasync.errors import ResultRejected
from ragasync.foreign_errors import INTERRUPTS, is_a
from ragasync.object_views import duration, object_html, short_view
from ragasync.redact import redact

__all__ = ["FATAL", "AsyncRetry", "Fatal", "RetryEvent", "retry_async"]

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryEvent:
    """
    One failed attempt and the back-off that follows; the argument of `on_retry`.

    Attributes:
        attempt: The number of the failed attempt, from 1.
        error: The error it raised, or a ResultRejected with the value that it returned; in a
            processor also a CancelledError without a cancellation.
        delay: Seconds until the next attempt.
        backed_off: Seconds of back-off before this attempt, over all earlier ones.
    """

    attempt: int
    error: BaseException
    delay: float
    backed_off: float = 0.0


class RetrySettings(TypedDict, total=False):
    """The settings of a retry policy, for `AsyncRetry.with_`."""

    max_retries: int
    base_delay: float | timedelta
    max_delay: float | timedelta
    factor: float
    jitter: Literal["full"] | None
    retry_on: RetryOn
    retry_on_result: Callable[[Any], bool] | None
    max_elapsed: float | timedelta | None
    max_retry_after: float | timedelta
    on_retry: Callable[[RetryEvent], object] | None


@explains_arguments
@dataclass(frozen=True, slots=True, init=False)
class AsyncRetry:
    """
    Retry a function after transient errors, with exponential back-off.

    A frozen value without any state of a running call, so one policy serves any number of
    functions, loops and threads. It decorates async and sync functions.

    Before retry n, counted from 1, it waits a uniformly random time in
    `[0, min(max_delay, base_delay * factor**(n - 1))]`: full jitter, which spreads clients that
    failed together (Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
    It always waits at least as long as a Retry-After asks, which may exceed `max_delay`. If that
    is longer than `max_retry_after`, the error is raised immediately, with a note of the time.

    Giving up raises the last error itself, with a note on the attempts and the back-off.
    CancelledError, KeyboardInterrupt and SystemExit are never retried.

    Use it as a decorator, by `await policy.call(...)`, for a block by `policy.attempts()`, or in a
    processor by `retry=`; `policy.with_(...)` derives another one.

    Example:
        >>> from ragasync import AsyncRetry, run_async
        >>> replies = iter([503, 503, 200])
        >>> @AsyncRetry(max_retries=5, base_delay=0.01, max_elapsed=60)
        ... async def fetch(url):
        ...     if (status := next(replies)) != 200:
        ...         raise ConnectionError(f"status {status}")
        ...     return f"page {url}"
        >>> run_async(fetch("a"))
        'page a'

    A value can be retried as well as an error, and a block as well as a function:

        >>> states = iter(["queued", "running", "done"])
        >>> poll = AsyncRetry(5, 0.01, retry_on_result=lambda state: state != "done")
        >>> for attempt in poll.attempts():  # in async code: async for
        ...     with attempt:
        ...         state = attempt.set_result(next(states))
        >>> state, attempt.number
        ('done', 3)

    Args:
        max_retries: Retries after the first attempt.
        base_delay: Seconds, the upper bound of the first back-off.
        max_delay: Seconds, the upper bound of every back-off.
        factor: The growth of the bound from retry to retry, at least 1.
        jitter: "full", or None to wait the bound itself.
        retry_on: None for `default_retry`; the type or types to retry; or a predicate that
            takes the error and returns True, False, a delay in seconds, or `FATAL`. An object
            bound to another event loop is never retried.
        retry_on_result: A predicate that takes the value of an attempt that raised nothing; True
            rejects the value, and the attempt is retried as after an error. Giving up raises
            ResultRejected with the value. A processor asks about the value of each item.
        max_elapsed: Seconds from the start of the first attempt, after which no attempt starts.
            A back-off that would reach it is not slept. A running attempt is not cut short: use
            `asyncio.timeout` or the processor's `timeout` for that.
        max_retry_after: Seconds, the longest Retry-After that is waited for; `math.inf` for any.
        on_retry: A callback that gets a `RetryEvent` before each back-off. If it raises, the
            retries continue: the first error becomes a RuntimeWarning, later ones are dropped.

    Raises:
        TypeError: An argument of the wrong kind.
        ValueError: An argument out of range.
    """

    max_retries: int
    base_delay: float
    max_delay: float
    factor: float
    jitter: Literal["full"] | None
    retry_on: RetryOn
    retry_on_result: Callable[[Any], bool] | None
    max_elapsed: float | None
    max_retry_after: float
    on_retry: Callable[[RetryEvent], object] | None
    # A simulation's own random numbers; None is the module's, which `random.seed` controls.
    _random: Callable[[], float] | None = field(repr=False, compare=False)
    _has_warned: bool = field(init=False, repr=False, compare=False)

    def __init__(
        self,
        max_retries: int = 3,
        base_delay: float | timedelta = 1.0,
        *,
        max_delay: float | timedelta = 60.0,
        factor: float = 2.0,
        jitter: Literal["full"] | None = "full",
        retry_on: RetryOn = None,
        retry_on_result: Callable[[Any], bool] | None = None,
        max_elapsed: float | timedelta | None = None,
        max_retry_after: float | timedelta = 120.0,
        on_retry: Callable[[RetryEvent], object] | None = None,
        _random: Callable[[], float] | None = None,
    ) -> None:
        if jitter not in ("full", None):
            raise ValueError(f"jitter must be 'full' or None, got {jitter!r}")
        check_retry_on(retry_on)
        if retry_on_result is not None:
            check_sync("retry_on_result", retry_on_result)
        if on_retry is not None:
            check_sync("on_retry", on_retry)
        if max_elapsed is not None:
            max_elapsed = check_seconds("max_elapsed", max_elapsed)
        # numpy numbers become Python's, because a policy is compared, shown and pickled.
        settings: dict[str, object] = {
            "max_retries": check_count("max_retries", max_retries, at_least=0),
            "base_delay": check_seconds("base_delay", base_delay),
            "max_delay": check_seconds("max_delay", max_delay),
            "factor": check_number("factor", factor, at_least=1),
            "jitter": jitter,
            "retry_on": retry_on,
            "retry_on_result": retry_on_result,
            "max_elapsed": max_elapsed,
            "max_retry_after": check_seconds("max_retry_after", max_retry_after, finite=False),
            "on_retry": on_retry,
            "_random": _random,
            "_has_warned": False,
        }
        for name, value in settings.items():
            object.__setattr__(self, name, value)

    def _repr_html_(self) -> str:
        """The settings as a table."""
        public = (each.name for each in fields(self) if each.repr)
        values = ((name, getattr(self, name)) for name in public)
        times = ("base_delay", "max_delay", "max_elapsed", "max_retry_after")
        return object_html(
            self,
            (
                (name, duration(value) if name in times and value is not None else value)
                for name, value in values
            ),
        )

    def __call__(self, fn: Callable[P, T]) -> Callable[P, T]:
        """
        Return the function with retries around every call.

        An async function stays async; a sync function blocks its thread during back-offs.

        Raises:
            TypeError: `fn` cannot be called, or makes a generator.
        """
        check_callable(fn)
        if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise TypeError(
                f"expected a function that returns its value, got {fn!r}, which is a generator: "
                "its errors are raised when it is iterated. Retry the calls inside it instead"
            )
        if not is_async(fn):

            @functools.wraps(fn)
            def attempts(*args: P.args, **kwargs: P.kwargs) -> T:
                return call_sync(self, fn, args, kwargs)

            return attempts

        async_fn = cast("Callable[P, Awaitable[object]]", fn)

        @functools.wraps(async_fn)
        async def async_attempts(*args: P.args, **kwargs: P.kwargs) -> object:
            return await call_async(self, async_fn, args, kwargs)

        return cast("Callable[P, T]", async_attempts)

    async def call(self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """
        Await `fn(*args, **kwargs)`, with retries after transient errors.

        Raises:
            TypeError: `fn` cannot be called; often it is a coroutine instead of its function.
            Exception: The last attempt's error, with a note on the attempts.
        """
        check_callable(fn)
        return await call_async(self, fn, args, kwargs)

    def attempts(self) -> RetryBlock:
        """
        Return the attempts of a retry block, for code that is not a function of its own.

        An error in the `with` block is retried like that of a function; the last one is raised.
        With `retry_on_result`, each attempt has to pass its value to `attempt.set_result`, as in
        `return attempt.set_result(value)`: a rejected one is retried. `attempt.number` and
        `attempt.backed_off` say how often and how long it has tried.

        Example:
            >>> from ragasync import AsyncRetry, run_async
            >>> replies = iter([503, 200])
            >>> async def fetch():
            ...     async for attempt in AsyncRetry(base_delay=0.01).attempts():
            ...         with attempt:
            ...             if (status := next(replies)) != 200:
            ...                 raise ConnectionError(f"status {status}")
            ...             return f"status {status} in attempt {attempt.number}"
            >>> run_async(fetch())
            'status 200 in attempt 2'
        """
        return RetryBlock(self)

    def with_(self, **changes: Unpack[RetrySettings]) -> AsyncRetry:
        """
        Return a copy of the policy with some settings changed.

        Example:
            >>> from ragasync import AsyncRetry
            >>> patient = AsyncRetry(max_elapsed=60)
            >>> patient.with_(max_retries=0) == AsyncRetry(0, max_elapsed=60)
            True

        Raises:
            TypeError: An argument of the wrong kind or name.
            ValueError: An argument out of range.
        """
        return replace(self, **cast("Any", changes))

    def decide(
        self, error: BaseException, *, retries: int, elapsed: float, limiters_paused: bool = False
    ) -> float | Fatal | None:
        """
        Return the back-off before the next attempt in seconds, None to give up, or `FATAL`.

        Args:
            error: The last attempt's error. A CancelledError counts as a lost connection, so pass
                only one without a cancellation.
            retries: The number of retries made so far.
            elapsed: Seconds since the first attempt began; used only with `max_elapsed`.
            limiters_paused: Whether paused limiters already delay the next attempt, so
                that only the policy's own back-off remains.

        Raises:
            Exception: The predicate's own error, or TypeError or ValueError for an invalid
                verdict; from `error`.
        """
        if type(error) is ResultRejected and error.rejected_by is self:
            if error.__cause__ is not None:
                raise error.__cause__
            verdict: bool | float | Fatal = True
        else:
            verdict = verdict_of(error, self.retry_on)
        if verdict is FATAL:
            return FATAL
        if verdict is False or retries >= self.max_retries:
            return None
        delay = self._backoff(retries + 1) if verdict is True else float(verdict)
        retry_after = retry_after_of(error) or 0.0
        if retry_after > self.max_retry_after:
            return None
        wait = max(delay, retry_after)
        if self.max_elapsed is not None and elapsed + wait >= self.max_elapsed:
            return None
        return delay if limiters_paused else wait

    def reject(self, value: object) -> ResultRejected | None:
        """
        Return the error of a value that `retry_on_result` rejects, None for any other value.

        `decide` retries it, whatever `retry_on` says; or it raises what the predicate raised, so
        that a broken predicate is handled where a broken `retry_on` is.
        """
        if self.retry_on_result is None:
            return None
        problem: Exception | None = None
        try:
            if not _is_rejected(self.retry_on_result, value):
                return None
        except Exception as error:
            problem = error
        rejected = ResultRejected(f"retry_on_result rejected the value {short_view(value)}", value)
        rejected.rejected_by, rejected.__cause__ = self, problem
        return rejected

    def notify(
        self, attempt: int, error: BaseException, delay: float, backed_off: float = 0.0
    ) -> None:
        """Call `on_retry` before a back-off; an error it raises becomes a warning."""
        if self.on_retry is None:
            return
        try:
            returned = self.on_retry(RetryEvent(attempt, error, delay, backed_off))
            if inspect.iscoroutine(returned):
                returned.close()
                raise TypeError("it returned a coroutine, which nothing awaits")
        except INTERRUPTS:
            raise
        except BaseException as problem:  # a PyO3 panic, say
            if not self._has_warned:
                object.__setattr__(self, "_has_warned", True)
                warnings.warn(
                    redact(f"on_retry={self.on_retry!r} raised ")
                    + f"{describe(problem)}; the retries continue, "
                    "and further errors of it are not reported",
                    RuntimeWarning,
                    stacklevel=2,
                )

    def _backoff(self, retry: int) -> float:
        """Return the back-off before a retry in seconds; retries are counted from 1."""
        bound = _bound(retry, self.base_delay, self.factor, self.max_delay)
        if self.jitter is None:
            return bound
        return (self._random or random.random)() * bound


@explains_arguments
async def retry_async(
    func: Callable[[], Awaitable[T]], max_attempts: int = 3, backoff_factor: float = 2.0
) -> T:
    """
    Await `func()` until it succeeds, at most `max_attempts` times.

    The short form of `AsyncRetry`, with the same classification of errors and without jitter: the
    delays are `backoff_factor**attempt` seconds, attempt counted from 0, so 1, 2, 4 and so on.

    Example:
        >>> from ragasync import retry_async
        >>> from ragasync.testing import run_on_virtual_clock  # waits for no timer
        >>> replies = iter([503, 200])
        >>> async def fetch(url):
        ...     if (status := next(replies)) != 200:
        ...         raise ConnectionError(f"status {status}")
        ...     return f"page {url}"
        >>> run_on_virtual_clock(retry_async(lambda: fetch("a")))
        'page a'

    Args:
        func: An async function without arguments.
        max_attempts: Attempts, including the first.
        backoff_factor: The base of the delays; 1 waits a second each time.

    Raises:
        TypeError: An argument of the wrong kind; often a coroutine instead of its function.
        ValueError: An argument out of range.
        Exception: The last attempt's error, with a note on the attempts.
    """
    max_attempts = check_count("max_attempts", max_attempts, at_least=1)
    backoff_factor = check_number("backoff_factor", backoff_factor)
    retries = 0

    def verdict(error: Exception) -> Verdict:
        nonlocal retries
        retries += 1
        usual = default_retry(error)
        return _bound(retries, 1.0, backoff_factor, sys.float_info.max) if usual is True else usual

    return await AsyncRetry(max_attempts - 1, retry_on=verdict).call(func)


def _is_rejected(predicate: Callable[[Any], object], value: object) -> bool:
    """Return the answer of `retry_on_result`, checked."""
    try:
        answer = predicate(value)
    except INTERRUPTS:
        raise
    except BaseException as error:
        if is_a(error, Exception):
            raise
        raise RuntimeError(f"retry_on_result raised {describe(error)}") from None  # a PyO3 panic
    if inspect.iscoroutine(answer):
        answer.close()
    if type(answer).__name__ not in ("bool", "bool_"):  # the latter is numpy's
        raise TypeError(f"retry_on_result must return True or False, got {short_repr(answer)}")
    return bool(answer)


def _bound(retry: int, base: float, factor: float, cap: float) -> float:
    """Return the upper bound of the back-off before a retry, counted from 1, without overflow."""
    try:
        return min(cap, base * float(factor) ** (retry - 1))
    except OverflowError:
        return cap if base else 0.0
