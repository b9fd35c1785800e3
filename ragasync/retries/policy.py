"""When to try a failed call again, after how long a back-off, and when to give up."""

from __future__ import annotations

import functools
import inspect
import random
import sys
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal, ParamSpec, TypeVar, cast

from ragasync.arguments import check_callable, check_count, check_number, check_sync, is_async
from ragasync.error_text import describe
from ragasync.foreign_errors import INTERRUPTS
from ragasync.redact import redact
from ragasync.retries.classify import FATAL, Fatal, default_retry
from ragasync.retries.http import retry_after_of
from ragasync.retries.loop import awaiting, blocking
from ragasync.retries.retry_on import RetryOn, Verdict, check_retry_on, verdict_of

__all__ = ["FATAL", "AsyncRetry", "Fatal", "Retry", "retry_async"]

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Retry:
    """
    Tell `on_retry` what failed and how long the back-off is.

    Attributes:
        attempt: The attempt that failed, from 1.
        error: What it raised; in a processor it may be a CancelledError that nobody asked for.
        delay: Seconds until the next attempt.
    """

    attempt: int
    error: BaseException
    delay: float


@dataclass(frozen=True, slots=True)
class AsyncRetry:
    """
    Call a function again after an error that may pass.

    A frozen value that says when to try again. It holds nothing of a running call, so one policy
    serves any number of functions, loops and threads. It decorates async and sync functions.

    Before retry n, counted from 1, it waits a uniformly random time in
    `[0, min(max_delay, base_delay * factor**(n - 1))]`: full jitter, which spreads clients that
    failed together (Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
    A Retry-After of the service is never undercut, and may exceed `max_delay`; one that is longer
    than `max_retry_after` is not waited for: that error is raised, with a note of the time.

    Giving up raises the last error itself, with a note. CancelledError, KeyboardInterrupt and
    SystemExit always pass.

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

    Args:
        max_retries: Retries after the first attempt.
        base_delay: Seconds, the bound of the first back-off.
        max_delay: Seconds, the most that any bound grows to.
        factor: What the bound is multiplied by from retry to retry, at least 1.
        jitter: "full", or None to wait the bound itself.
        retry_on: None for `default_retry`; the type or types to retry; or a predicate that
            takes the error and returns True, False, a delay in seconds, or `FATAL`. None of these
            can retry an object bound to another event loop.
        max_elapsed: Seconds from the start of the first attempt, past which no further one starts.
            A back-off that would reach it is not slept. A running attempt is not cut short: that
            is what `asyncio.timeout` and the processor's `timeout` are for.
        max_retry_after: Seconds, the longest Retry-After that is waited for; `math.inf` for any.
        on_retry: Called with a `Retry` before each back-off. The first error it raises becomes a
            RuntimeWarning, the others pass in silence, and the retries continue.

    Raises:
        TypeError: An argument of the wrong kind.
        ValueError: An argument out of range.
    """

    max_retries: int = 3
    base_delay: float = 1.0
    max_delay: float = field(default=60.0, kw_only=True)
    factor: float = field(default=2.0, kw_only=True)
    jitter: Literal["full"] | None = field(default="full", kw_only=True)
    retry_on: RetryOn = field(default=None, kw_only=True)
    max_elapsed: float | None = field(default=None, kw_only=True)
    max_retry_after: float = field(default=120.0, kw_only=True)
    on_retry: Callable[[Retry], object] | None = field(default=None, kw_only=True)
    # A simulation's own chance; None is the module's, which `random.seed` makes repeatable.
    _random: Callable[[], float] | None = field(
        default=None, kw_only=True, repr=False, compare=False
    )
    _has_warned: bool = field(default=False, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Numbers of numpy become Python's own: the policy is compared, shown and pickled.
        settings: dict[str, float] = {
            "max_retries": check_count("max_retries", self.max_retries, at_least=0),
            "base_delay": check_number("base_delay", self.base_delay),
            "max_delay": check_number("max_delay", self.max_delay),
            "factor": check_number("factor", self.factor, at_least=1),
            "max_retry_after": check_number("max_retry_after", self.max_retry_after, finite=False),
        }
        if self.max_elapsed is not None:
            settings["max_elapsed"] = check_number("max_elapsed", self.max_elapsed)
        for name, number in settings.items():
            object.__setattr__(self, name, number)
        if self.jitter not in ("full", None):
            raise ValueError(f"jitter must be 'full' or None, got {self.jitter!r}")
        check_retry_on(self.retry_on)
        if self.on_retry is not None:
            check_sync("on_retry", self.on_retry)

    def __call__(self, fn: Callable[P, T]) -> Callable[P, T]:
        """
        Return the function with this policy around every call.

        What is async stays async; a sync function blocks its thread while it backs off.

        Raises:
            TypeError: `fn` cannot be called, or makes a generator.
        """
        check_callable(fn)
        if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise TypeError(
                f"expected a function that returns its value, got {fn!r}, which makes a generator: "
                "its errors come when it is iterated. Retry the calls inside it instead"
            )
        if not is_async(fn):

            @functools.wraps(fn)
            def attempts(*args: P.args, **kwargs: P.kwargs) -> T:
                return blocking(self, fn, args, kwargs)

            return attempts

        async_fn = cast("Callable[P, Awaitable[object]]", fn)

        @functools.wraps(async_fn)
        async def async_attempts(*args: P.args, **kwargs: P.kwargs) -> object:
            return await awaiting(self, async_fn, args, kwargs)

        return cast("Callable[P, T]", async_attempts)

    async def call(self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """
        Await `fn(*args, **kwargs)`, and again after each error that may pass.

        Raises:
            TypeError: `fn` cannot be called; often it is a coroutine instead of its function.
            Exception: The last attempt's error, with a note of what was tried.
        """
        check_callable(fn)
        return await awaiting(self, fn, args, kwargs)

    def decide(
        self, error: BaseException, *, retries: int, elapsed: float, held: bool = False
    ) -> float | Fatal | None:
        """
        Return the seconds to wait before the next attempt, None to give up, or `FATAL`.

        Args:
            error: What the last attempt raised. A CancelledError counts as a lost connection, so
                only one that nobody asked for may come here.
            retries: How many retries were made already.
            elapsed: Seconds since the first attempt began; only a `max_elapsed` asks.
            held: Whether others, such as paused limiters, hold the next attempt for as long as
                the error asks by Retry-After, so that only the policy's own back-off remains.

        Raises:
            Exception: What the predicate raises, or TypeError or ValueError for an answer that
                is none; from `error`.
        """
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
        return delay if held else wait

    def announce(self, attempt: int, error: BaseException, delay: float) -> None:
        """Call `on_retry` for a back-off that is about to begin; its own failure is a warning."""
        if self.on_retry is None:
            return
        try:
            answer = self.on_retry(Retry(attempt, error, delay))
            if inspect.iscoroutine(answer):
                answer.close()
                raise TypeError("it returned a coroutine, which nothing awaits")
        except INTERRUPTS:
            raise
        except BaseException as problem:  # a panic of PyO3, say
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
        """Return the seconds to wait before a retry, counted from 1."""
        bound = _bound(retry, self.base_delay, self.factor, self.max_delay)
        if self.jitter is None:
            return bound
        return (self._random or random.random)() * bound


async def retry_async(
    func: Callable[[], Awaitable[T]], max_attempts: int = 3, backoff_factor: float = 2.0
) -> T:
    """
    Await `func()` until it succeeds, at most `max_attempts` times.

    The short form of `AsyncRetry`, with the same judgement of errors and without jitter: the
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
        max_attempts: Attempts, with the first.
        backoff_factor: The base of the delays; 1 waits a second each time.

    Raises:
        TypeError: An argument of the wrong kind; often a coroutine instead of its function.
        ValueError: An argument out of range.
        Exception: The last attempt's error, with a note of what was tried.
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


def _bound(retry: int, base: float, factor: float, cap: float) -> float:
    """Return the longest back-off before a retry, counted from 1; never an overflow."""
    try:
        return min(cap, base * float(factor) ** (retry - 1))
    except OverflowError:
        return cap if base else 0.0
