"""How far a job is: a frozen snapshot, and the callback that hears of it."""

from __future__ import annotations

import inspect
import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

from ragasync.clock import Clock
from ragasync.error_text import describe
from ragasync.foreign_errors import attribute, guarded, is_a, text_of
from ragasync.redact import redact

ProgressCallback: TypeAlias = Callable[[int, int | None], object]
"""Called with the number of items that ended and the total, None while that is unknown."""

LimitedBy: TypeAlias = Literal["rate", "concurrency", "retries", "input", "paused"]

WINDOW = 5.0
"""Seconds over which the present speed is measured."""


@dataclass(frozen=True, slots=True)
class Progress:
    """
    How far a job is.

    `done` and `failed` count items; `retried` those whose first attempt was not their last;
    `in_flight` the calls being made now; `rate` is items a second of late, after the end over the
    whole time; `eta` the seconds that are left at that speed, None while nobody can tell.
    `limited_by` says what has held the job back most in the last second: the rate limit, the
    number of calls allowed at once, items in back-off, the source, or a pause. `paused_for` is how
    many seconds nothing is sent because a service has asked for it by Retry-After, or because a
    limiter was paused; `pause` says who asked, and until when. `halt` says why the workers of an
    executor start nothing, while they do not. `recalled` counts the items
    whose outcome a journal had from an earlier run; they are no part of the speed. `tokens` and
    `cost` are what the calls of a pipeline's embedder reported so far.

    Example:
        >>> from ragasync import AsyncBatchProcessor
        >>> job = AsyncBatchProcessor(int, retry_count=0).start(["1", "two", "3"])
        >>> _ = job.wait()
        >>> progress = job.progress
        >>> print(f"{progress.finished} of {progress.total}, {progress.failed} failed")
        3 of 3, 1 failed
    """

    done: int
    failed: int
    total: int | None
    retried: int
    in_flight: int
    rate: float
    eta: float | None
    limited_by: LimitedBy
    max_concurrency: int
    seconds: float
    recalled: int = 0
    tokens: int = 0
    cost: float = 0.0
    paused_for: float = 0.0
    pause: str = ""
    halt: str = ""

    @property
    def finished(self) -> int:
        """The items that ended, well or not."""
        return self.done + self.failed


class RateMeter:
    """Measures items a second over the last WINDOW seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._marks: deque[tuple[float, int]] = deque([(clock(), 0)])

    def update(self, finished: int) -> None:
        """Note how many items have ended by now."""
        now = self._clock()
        self._marks.append((now, finished))
        while len(self._marks) > 2 and self._marks[1][0] < now - WINDOW:
            self._marks.popleft()

    def at(self, finished: int) -> float:
        """Return the items a second, given how many have ended by now."""
        since, before = self._marks[0]
        elapsed = self._clock() - since
        return (finished - before) / elapsed if elapsed > 0 else 0.0


class SafeCallback:
    """
    Calls a progress callback, and drops it after its first error: the job goes on without.

    A callback may run the loop meanwhile (`run_async(..., nested=True)`), so that the next report
    comes before it has returned. It gets that one afterwards, and of several only the last.

    Raises:
        TypeError: the callback is not a plain function.
    """

    def __init__(self, callback: ProgressCallback | None) -> None:
        if callback is not None and not _is_plain(callback):
            raise TypeError(
                f"progress_callback must be a plain function of (done, total), got {callback!r}"
            )
        self._callback = callback
        self._calling = self._closing = False
        self._next: tuple[int, int | None] | None = None

    def __call__(self, done: int, total: int | None) -> None:
        """Report, if there is still somebody to report to."""
        self._next = done, total
        if self._calling:
            return
        self._calling = True
        try:
            while self._next is not None:
                call, self._next = self._next, None
                self._guarded(self._callback, *call)
        finally:
            self._calling = False
        if self._closing:
            self.close()

    def close(self) -> None:
        """Tell a callback that has a `close`, as a bar has, that the run is over."""
        self._closing = True
        if not self._calling:
            close = attribute(self._callback, "close")
            self._guarded(close if callable(close) else None)
            self._callback = None

    def _guarded(self, call: Callable[..., object] | None, *args: int | None) -> None:
        """Make a call, if there is one to make; after an error there is none any more."""
        if call is None:
            return
        try:
            returned = call(*args)
            if inspect.iscoroutine(returned):
                returned.close()  # or Python would complain that it was never awaited
                raise TypeError("it returned a coroutine, which nobody awaits")
        except (KeyboardInterrupt, SystemExit):
            self._callback = None
            raise
        except BaseException as error:
            self._drop(error)

    def _drop(self, error: BaseException) -> None:
        """Go on without the callback, and say so."""
        callback, self._callback = self._callback, None
        warnings.warn(
            redact(f"progress_callback={text_of(callback) or type(callback).__name__} raised ")
            + f"{describe(error)}: the job goes on without it",
            RuntimeWarning,
            stacklevel=4,
        )


def _is_plain(callback: object) -> bool:
    """Return whether calling this does something by itself: it neither awaits nor yields."""
    while is_a(callback, partial):
        callback = callback.func
    if not callable(callback):
        return False
    # Guarded, because inspect asks an object for attributes that its `__getattr__` may choke on.
    return not any(
        guarded(yields, kind)
        for kind in (callback, type(callback).__call__)
        for yields in (
            inspect.iscoroutinefunction,
            inspect.isasyncgenfunction,
            inspect.isgeneratorfunction,
        )
    )
