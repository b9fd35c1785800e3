"""
simulate: the real engine against a scripted service, on a virtual clock.

The virtual clock is an event loop that moves its time to the next timer instead of waiting.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import selectors
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from contextvars import Context
from dataclasses import replace
from datetime import timedelta
from heapq import heappop, heappush
from typing import Any, Literal, TypeAlias, TypeVar, TypeVarTuple

from ragasync._bridge.interrupts import InterruptibleWait
from ragasync._engine.controls import RunControls
from ragasync._engine.job_run import limit_of, run_stats
from ragasync._engine.run import execute
from ragasync._limits.limiter import Limiter, RateLimiter
from ragasync._outcomes.columns import Columns
from ragasync._outcomes.stats import Limit
from ragasync._retries.policy import AsyncRetry
from ragasync.arguments import check_count, check_number, check_seconds, explains_arguments
from ragasync.result import BatchResult
from ragasync.settings import BatchSettings, as_limiters, as_timeout, parse_concurrency
from ragasync.simulation.latency import LatencyLike, random_bits, scramble, unit_interval
from ragasync.simulation.service import ScriptedService

R = TypeVar("R")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

PATIENCE = 1.0
"""Real seconds without news from threads after which one of them may be waiting for a timer."""

IMPATIENCE = 0.05
"""Real seconds between timers from then on, until a thread reports."""

Weight: TypeAlias = Callable[[int], float]
"""A function that returns the weight of an item, by its number."""


@explains_arguments
def simulate(
    n_items: int,
    *,
    max_concurrency: int | Literal["auto"] = 4,
    rate_limiter: Limiter | Sequence[Limiter] | None = None,
    latency: LatencyLike = 1.0,
    error_rate: float | Mapping[int, float] = 0.0,
    permanent_error_rate: float = 0.0,
    retry: AsyncRetry | None = None,
    retry_count: int = 3,
    retry_delay: float | timedelta = 1.0,
    batch_size: int = 32,
    batched: bool = False,
    timeout: float | timedelta | None = None,
    max_errors: int | None = None,
    max_error_rate: float | None = None,
    weight: float | Sequence[float] | None = None,
    service: ScriptedService | None = None,
    seed: int = 0,
) -> BatchResult[int]:
    """
    Run the real engine against a scripted service on a virtual clock.

    An hour of calls takes about a second. The result is like that of `process`, with virtual
    times: `to_dataframe`, `explain` and the plots show where the time would go. The items are the
    numbers from 0, and none of your functions or limiters is called. The same seed gives the same
    result, however busy the machine is.

        >>> from ragasync import RateLimiter, simulate
        >>> simulate(100, max_concurrency=10)
        <BatchResult 100 of 100 done in 10.0 s>
        >>> simulate(100, max_concurrency=10, rate_limiter=RateLimiter(5, burst_size=1))
        <BatchResult 100 of 100 done in 20.8 s>

    It may be called anywhere, also in a cell, whose event loop waits for it. A million items take
    about half a minute.

    Args:
        n_items: the number of items.
        max_concurrency: the highest number of calls in flight; "auto" adapts it to the service.
        rate_limiter: one limiter or several, of which copies with the same rate and burst are used.
        latency: seconds per call: a number, a `Latency` such as `Latency.lognormal(0.8, 0.5)`,
            measured seconds to draw from, or a function of a random.Random.
        error_rate: the share of calls that fail with the transient error 503; or shares by
            status, as in {503: 0.02, 429: 0.01}.
        permanent_error_rate: the share of items whose calls always fail.
        retry: an AsyncRetry, instead of `retry_count` and `retry_delay`. Its counts and delays are
            used, its predicates and `on_retry` are not.
        retry_count: retries after the first attempt.
        retry_delay: the base of the exponential back-off, in seconds.
        batch_size: with `batched`, the maximum number of items in one call.
        batched: whether a call takes several items; `latency` is then that of a whole call.
        timeout: seconds for one attempt.
        max_errors: the number of failed items allowed; one more stops the run.
        max_error_rate: the share of the last 100 items that may fail.
        weight: the weight of an item (in tokens, say) for limiters that weigh items: a number, or
            a sequence of weights to draw from.
        service: a ScriptedService, which may have a rate limit, a capacity or outages, instead of
            `latency`, `error_rate` and `permanent_error_rate`. A copy with this `seed` is used.
        seed: the seed of latencies, errors and jitter.

    Returns:
        The outcomes, whose values are the items, with times in virtual seconds.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: an argument out of range.
    """
    check_count("n_items", n_items, at_least=0)
    check_count("retry_count", retry_count, at_least=0)
    check_seconds("retry_delay", retry_delay)
    if retry is None:
        retry = AsyncRetry(retry_count, retry_delay)
    if service is None:
        service = ScriptedService(
            latency, error_rate, permanent_error_rate=permanent_error_rate, seed=seed
        )
    else:
        _check_service(service, latency, error_rate, permanent_error_rate)
    at_once, adaptive = parse_concurrency(max_concurrency)
    plan: BatchSettings[int, int] = BatchSettings(
        service.fresh(seed),
        is_async=True,
        batch_size=batch_size,
        max_concurrency=at_once,
        adaptive=adaptive,
        batched=batched,
        limiters=copy_limiters(rate_limiter, _weight_of(weight, seed)),
        retry=_copy_retry(retry, seed),
        timeout=as_timeout(timeout),
        max_errors=max_errors,
        max_error_rate=max_error_rate,
    )
    return run_on_virtual_clock(run_simulation(plan, n_items))


async def run_simulation(settings: BatchSettings[int, R], n_items: int) -> BatchResult[R]:
    """
    Run a job over the numbers from 0 on the running loop, whose clock is virtual.

    No heartbeat wakes the loop and no worker yields to it, because a simulation has no stop button
    and no progress bar, and the clock moves only when all workers wait. That halves its time.
    """
    clock, items = asyncio.get_running_loop().time, range(n_items)
    columns: Columns[int, R] = Columns(items)
    run = RunControls(settings)
    started = clock()
    await execute(run, items, columns, total=n_items, never_yield=True)
    seconds = clock() - started
    columns.close(None)
    return BatchResult.of(
        columns,
        seconds=seconds,
        stopped_because=run.stopped_because,
        stats=run_stats(run, "list", None),
    )


def copy_limiters(
    limiters: Limiter | Sequence[Limiter] | None, weight: Weight | None
) -> tuple[RateLimiter, ...]:
    """
    Make limiters with the same rates and bursts, full and without waiters.

    Args:
        limiters: one limiter or several.
        weight: replaces the `weight` of those that have one, which takes the job's real items.

    Raises:
        TypeError: an argument is not a limiter, or a limiter without a rate.
        ValueError: a limiter has a weight, and `weight` is None.
    """
    return tuple(_copy_limiter(limiter, weight) for limiter in as_limiters(limiters))


def _copy_limiter(limiter: Limiter, weight: Weight | None) -> RateLimiter:
    """Make a limiter with the same rate and burst."""
    if limiter.weight is not None and weight is None:
        raise ValueError(
            f"{limiter!r} weighs items, but the items of a simulation are numbers: pass "
            "weight=, the weight of an item: a number, or a sequence of weights to draw from"
        )
    limit = limit_of(limiter)
    if limit.rate is None:
        raise TypeError(
            f"a simulation copies limiters by their rate, and {limiter!r} has none: "
            "pass a RateLimiter(...) with its rate and burst"
        )
    return limiter_of(limit, weight)


def limiter_of(limit: Limit, weight: Callable[..., float] | None) -> RateLimiter:
    """Make a new limiter for a limit."""
    assert limit.rate is not None
    weight = weight if limit.weighs else None
    if limit.window is None:
        return RateLimiter(limit.rate, limit.burst, weight=weight)
    return RateLimiter.at_most(round(limit.rate * limit.window, 9), limit.window, weight=weight)


def _copy_retry(retry: AsyncRetry, seed: int) -> AsyncRetry:
    """
    Make a retry policy with the same counts and delays, whose jitter depends on the seed.

    It classifies errors in the default way, because `retry_on` was written for other errors than
    those of a scripted service, and it has no `on_retry`.
    """
    if not isinstance(retry, AsyncRetry):
        raise TypeError(
            f"retry must be an AsyncRetry, got {retry!r}: "
            f"for 3 retries pass retry_count=3 or AsyncRetry(3)"
        )
    jitter = random.Random(f"jitter {seed}").random
    return replace(retry, retry_on=None, retry_on_result=None, on_retry=None, _random=jitter)


def _check_service(
    service: object, latency: object, error_rate: object, permanent_error_rate: object
) -> None:
    """Check that a service is a ScriptedService, and that its settings are not given twice."""
    if not isinstance(service, ScriptedService):
        raise TypeError(f"service must be a ScriptedService, got {service!r}")
    given = ((latency, 1.0), (error_rate, 0.0), (permanent_error_rate, 0.0))
    if not all(isinstance(value, int | float) and value == usual for value, usual in given):
        raise ValueError(
            "pass either service= or latency, error_rate and permanent_error_rate, not both: "
            "these are arguments of ScriptedService too"
        )


def _weight_of(weight: float | Sequence[float] | None, seed: int) -> Weight | None:
    """A function that returns the weight of an item, by its number."""
    if weight is None:
        return None
    weights = list(weight) if isinstance(weight, Iterable) else [weight]
    if not weights:
        raise ValueError("weight must be a number or a sequence of weights, got an empty one")
    for each in weights:
        check_number("weight", each)
    count, weight_seed = len(weights), scramble(seed ^ 0xC057)
    return lambda item: weights[int(unit_interval(random_bits(weight_seed, item)) * count)]


# ── the virtual clock ───────────────────────────────────────────────────────────────────────────


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """
    An event loop whose clock starts at 0 and never waits for a timer.

    `asyncio.sleep(3600)` returns immediately, with `loop.time()` an hour later; events happen in
    the order in which they would on the real clock. Work on threads takes no virtual time: the
    clock stands still until the thread is done. Sockets are polled between timers.

    Example:
        >>> import asyncio
        >>> from ragasync.testing import VirtualClockLoop
        >>> with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        ...     runner.run(asyncio.sleep(3600))
        ...     print(runner.get_loop().time())
        3600.0

    Attributes:
        threads_at_work: how many calls run on threads for this loop; thread pools update it.
    """

    # asyncio's own, which its type stubs leave out.
    _ready: deque[asyncio.Handle]
    _selector: selectors.BaseSelector
    _signal_handlers: dict[int, asyncio.Handle]
    _stopping: bool

    def __init__(self) -> None:
        self.threads_at_work = 0
        self._now = 0.0
        self._patience = PATIENCE
        # Tuples, because asyncio's own heap compares timers in Python, which takes longer than
        # all the rest of a turn. The number keeps timers of one instant in their order.
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = itertools.count()
        super().__init__()
        self._watched = self._selector.get_map()
        self._own_sockets = len(self._watched)

    def time(self) -> float:
        """The virtual time in seconds."""
        return self._now

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Schedule a callback at a virtual time."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run a function on an executor while the clock stands still."""
        future = super().run_in_executor(executor, func, *args)
        self.threads_at_work += 1
        future.add_done_callback(self._thread_returned)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ARG002
        """Join the executor's threads without a timeout, which would expire immediately."""
        await super().shutdown_default_executor()

    def _run_once(self) -> None:
        """Run the callbacks that are ready; with none ready, move the clock to the next timer."""
        ready, timers = self._ready, self._timers
        # Other threads append to `ready` themselves, so a program that only sleeps, as a
        # simulation does, never polls.
        is_watching = len(self._watched) > self._own_sockets or self._signal_handlers
        has_news = False
        if self.threads_at_work or is_watching or not (ready or timers):
            has_news = self._poll()
        if timers and not has_news and not self._stopping:
            self._expire_timers()
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()

    def _poll(self) -> bool:
        """Poll the sockets, and wait for threads while they work; return whether any reported."""
        is_busy = self.threads_at_work > 0
        if self._ready or self._stopping:
            timeout: float | None = 0.0
        elif not self._timers:
            timeout = None  # only another thread or a socket can wake the loop
        else:
            timeout = self._patience if is_busy else 0.0
        events = self._selector.select(timeout)
        if events or not is_busy:
            self._patience = PATIENCE
        elif timeout:
            self._patience = IMPATIENCE
        self._process_events(events)  # type: ignore[attr-defined]
        return bool(events)

    def _expire_timers(self) -> None:
        """Make the timers ready that are due; with nothing else ready, those that are due next."""
        ready, timers = self._ready, self._timers
        while timers and (timers[0][0] <= self._now or not ready):
            when, _, timer = heappop(timers)
            if not timer.cancelled():
                self._now = max(self._now, when)
                ready.append(timer)

    def _make_self_pipe(self) -> None:
        """Open the sockets by which threads wake the loop; a browser has neither."""
        if sys.platform == "emscripten":
            self._ssock = self._csock = None
        else:
            super()._make_self_pipe()  # type: ignore[misc]  # private, and asyncio's only way

    def _close_self_pipe(self) -> None:
        """Close these sockets, where they were opened."""
        if sys.platform != "emscripten":
            super()._close_self_pipe()  # type: ignore[misc]

    def _thread_returned(self, _: asyncio.Future[Any]) -> None:
        """Let the clock move again."""
        self.threads_at_work -= 1


def run_on_virtual_clock(coro: Coroutine[Any, Any, T]) -> T:
    """
    Run a coroutine to its end on a virtual clock and return its value.

    It may be called anywhere: where an event loop runs in this thread, as in a notebook's cell,
    the coroutine runs in a thread of its own while this one waits. An interrupt cancels the
    coroutine and is raised here.

    Example:
        >>> import asyncio
        >>> from ragasync.testing import run_on_virtual_clock
        >>> async def slow():
        ...     await asyncio.sleep(3600)
        ...     return "an hour later"
        >>> run_on_virtual_clock(slow())
        'an hour later'

    Raises:
        BaseException: what the coroutine raises, or the interrupt.
    """
    if sys.platform == "emscripten" or asyncio._get_running_loop() is None:
        return _run_here(coro)
    return _run_in_thread(coro)


def _run_here(coro: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a virtual clock in this thread."""
    # A browser has no other thread, so there the loop that runs in this one stands still.
    outer = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
            return runner.run(coro)
    finally:
        asyncio._set_running_loop(outer)


def _run_in_thread(coro: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a virtual clock in a thread of its own, and wait for it."""
    loop = VirtualClockLoop()
    task = loop.create_task(coro)

    def cancel() -> None:
        with suppress(RuntimeError):  # the loop is closed: the coroutine has just ended
            loop.call_soon_threadsafe(task.cancel)

    with InterruptibleWait(cancel) as waiting:

        def run() -> None:
            try:
                # What it raises stays with the task.
                with suppress(BaseException), asyncio.Runner(loop_factory=lambda: loop) as runner:
                    runner.get_loop().run_until_complete(task)
            finally:
                waiting.done()

        threading.Thread(target=run, name="ragasync-simulation", daemon=True).start()
        waiting.wait()
    return task.result()
