"""Progress of a job: a frozen snapshot, the rate meter behind it, and the guarded callback."""

from __future__ import annotations

import inspect
import warnings
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

from ragasync.clock import Clock
from ragasync.error_text import describe
from ragasync.foreign_errors import attribute, guarded, is_a, text_of
from ragasync.object_views import object_html
from ragasync.redact import redact

ProgressCallback: TypeAlias = Callable[[int, int | None], object]
"""A function of the number of items that have ended and the total, which is None if unknown."""

LimitedBy: TypeAlias = Literal["rate", "concurrency", "retries", "input", "paused", "last calls"]
"""What limits the speed of a job."""

StageName: TypeAlias = Literal["load and chunk", "load", "chunk", "embed", "store"]
"""The stages of a pipeline; by default, documents are loaded and chunked in one."""

RATE_WINDOW = 5.0
"""Seconds over which the current rate is measured."""


@dataclass(frozen=True, slots=True, repr=False)
class Progress:
    """
    The progress of a job, as a snapshot.

    Attributes:
        done, failed: the items that are done, and that failed.
        total: all items; None if unknown.
        retried: the items with more than one attempt.
        in_flight: the calls in progress.
        rate: items per second over the last 5 s while the job runs; over the whole run once it has
            ended.
        eta: the estimated seconds left; None if unknown.
        limited_by: what limited the job most in the last second: the rate limit, the maximum
            number of concurrent calls, items in back-off, the source, a pause, or the last calls,
            when no other is left to start. In a job over documents, the stage that held the others
            back in the last 5 s, if one did.
        max_concurrency: the maximum number of concurrent calls, or of documents that are loaded and
            chunked concurrently.
        seconds: the time since the job started.
        recalled: the items whose outcome a journal had from an earlier run; `rate` does not count
            them.
        tokens, cost: the usage that calls have reported so far; with a journal, in all of its runs.
        paused_for: the seconds for which nothing is sent, because of a Retry-After or a limiter's
            pause.
        pause: who asked for that pause, and until when.
        halt: why the workers of an executor start nothing, if they do not.
        finished_cost: the part of the cost that finished items have, from which `projected_cost`
            is extended to all.

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
    limited_by: LimitedBy | StageName
    max_concurrency: int
    seconds: float
    recalled: int = 0
    tokens: int = 0
    cost: float = 0.0
    paused_for: float = 0.0
    pause: str = ""
    halt: str = ""
    finished_cost: float = 0.0

    @property
    def projected_cost(self) -> float | None:
        """The cost of all items at the cost of each finished one; None if it is not known yet."""
        if not self.finished_cost or not self.finished or self.total is None:
            return None
        # What calls in flight have reported is a part of the cost of items that are not finished.
        return max(self.cost, self.finished_cost * self.total / self.finished)

    @property
    def finished(self) -> int:
        """The items that have ended, done or failed."""
        return self.done + self.failed

    def __repr__(self) -> str:
        total = "?" if self.total is None else f"{self.total:,}"
        left = "" if self.eta is None else f", {self.eta:,.0f} s left"
        waits = self.in_flight or self.limited_by != "concurrency"  # or nothing has begun
        limit = f", limited by {self.limited_by}" if waits else ""
        return (
            f"<Progress {self.finished:,} of {total}, {self.failed:,} failed, "
            f"{self.in_flight:,} in flight, {self.rate:.3g} items/s{left}{limit}>"
        )

    def _repr_html_(self) -> str:
        """The fields as a table, without those that are empty."""
        fields = ((name, getattr(self, name)) for name in self.__slots__)
        return object_html(self, ((name, value) for name, value in fields if value != ""))


class RateMeter:
    """Measures items per second over the last RATE_WINDOW seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque([(clock(), 0)])

    def update(self, finished: int) -> None:
        """Record the number of items that have ended by now."""
        now = self._clock()
        self._samples.append((now, finished))
        # The oldest sample kept is the last one outside the window, so that the rate always spans
        # the whole window.
        while len(self._samples) > 2 and self._samples[1][0] < now - RATE_WINDOW:
            self._samples.popleft()

    def rate(self, finished: int) -> float:
        """Compute the items per second, given the number of items that have ended by now."""
        since, before = self._samples[0]
        elapsed = self._clock() - since
        return (finished - before) / elapsed if elapsed > 0 else 0.0


class SafeCallback:
    """
    Calls a progress callback, and drops it after its first error; the job runs without it.

    A callback may run the loop (`run_async(..., nested=True)`), so that the next report comes
    before it has returned. It gets that report afterwards; of several, only the last one.

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
        # A bar shows the speed from the start of the run, and its display in the current output.
        self._is_bar = callable(begin_run := attribute(callback, "begin_run"))
        self._call(begin_run if callable(begin_run) else None)

    def __call__(self, done: int, total: int | None, recalled: int = 0) -> None:
        """
        Report progress to the callback, if there is one left.

        Args:
            done: the items that have ended.
            total: all items, None if unknown.
            recalled: how many of `done` a journal had, which a bar's speed does not count.
        """
        if recalled and self._is_bar:
            with suppress(Exception):  # the bar has been dropped, or is a class of the user's
                self._callback.recalled = recalled  # type: ignore[union-attr]
        self._next = done, total
        if self._calling:
            return
        self._calling = True
        try:
            while self._next is not None:
                report, self._next = self._next, None
                self._call(self._callback, *report)
        finally:
            self._calling = False
        if self._closing:
            self.close()

    def close(self) -> None:
        """Close a callback that has a `close` method, such as a progress bar."""
        self._closing = True
        if not self._calling:
            close = attribute(self._callback, "close")
            self._call(close if callable(close) else None)
            self._callback = None

    def _call(self, function: Callable[..., object] | None, *args: int | None) -> None:
        """Call a function of the user's, if there is one, and drop the callback on an error."""
        if function is None:
            return
        try:
            returned = function(*args)
            if inspect.iscoroutine(returned):
                returned.close()  # or Python would warn that it was never awaited
                raise TypeError("it returned a coroutine, which nothing awaits")
        except (KeyboardInterrupt, SystemExit):
            self._callback = None
            raise
        except BaseException as error:
            self._drop(error)

    def _drop(self, error: BaseException) -> None:
        """Drop the callback with a warning."""
        callback, self._callback = self._callback, None
        warnings.warn(
            redact(f"progress_callback={text_of(callback) or type(callback).__name__} raised ")
            + f"{describe(error)}: the job runs without it",
            RuntimeWarning,
            stacklevel=4,
        )


def _is_plain(callback: object) -> bool:
    """Whether a callback is a plain function, which neither awaits nor yields."""
    while is_a(callback, partial):
        callback = callback.func
    if not callable(callback):
        return False
    # Guarded: inspect reads attributes of the object, and its `__getattr__` may raise.
    return not any(
        guarded(yields, kind)
        for kind in (callback, type(callback).__call__)
        for yields in (
            inspect.iscoroutinefunction,
            inspect.isasyncgenfunction,
            inspect.isgeneratorfunction,
        )
    )
