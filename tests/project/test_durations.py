"""Every public argument in seconds takes a timedelta too."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Iterator
from datetime import timedelta
from importlib import import_module
from typing import Any

import pandas as pd
import pytest

import ragasync
from ragasync import (
    AsyncBatchProcessor,
    AsyncDocumentProcessor,
    AsyncRetry,
    Journal,
    RateLimiter,
    forecast,
    run_async,
    simulate,
)
from ragasync.documents import OpenAIEmbedder, SqliteStore, Stage
from ragasync.simulation import Latency, ScriptedService
from ragasync.testing import FakeBatchService, FakeService
from tests.support.requirements import needs

MODULES = ("ragasync", "ragasync.documents", "ragasync.simulation", "ragasync.testing")

NAMES = {
    *("timeout", "seconds", "per", "slow_start", "outages", "latency", "width"),
    *("mean", "sd", "median", "low", "high", "max_elapsed", "max_retry_after"),
}
"""Names of durations, besides those that end in _delay, _seconds and _timeout."""

NOT_ARGUMENTS = {
    *("Attempt", "BatchResult", "BatchResult.of", "Outcome", "Progress"),  # made by us
}


async def double(item: int) -> int:
    """Return twice the item, after a while."""
    await asyncio.sleep(0.001)
    return 2 * item


def _redis(make: Callable[[Any, tuple[Any, str], Any], object]) -> Callable[[Any], object]:
    """Return a call with the class RedisRateLimiter, and a client that never connects."""

    def call(value: Any) -> object:
        needs("redis")
        module = import_module("redis.asyncio")
        return make(ragasync.RedisRateLimiter, (module.Redis(), "a limit"), value)

    return call


def wait_for_job(value: Any) -> object:
    """Wait for a job."""
    return AsyncBatchProcessor(double).start([1]).wait(value)


def run_for(value: Any) -> object:
    """Run a coroutine."""
    coro = double(1)
    try:
        return run_async(coro, timeout=value)
    finally:
        coro.close()


def redis_connection(value: Any) -> object:
    """Make a connection, which opens nothing yet."""
    needs("redis")
    return ragasync.AsyncRedisConnection(timeout=value)


CALLS: dict[tuple[str, str], Callable[[Any], object]] = {
    ("AsyncBatchProcessor", "retry_delay"): lambda v: AsyncBatchProcessor(double, retry_delay=v),
    ("AsyncBatchProcessor", "timeout"): lambda v: AsyncBatchProcessor(double, timeout=v),
    ("AsyncBatchProcessor", "max_seconds"): lambda v: AsyncBatchProcessor(double, max_seconds=v),
    ("AsyncDocumentProcessor", "max_seconds"): lambda v: AsyncDocumentProcessor(max_seconds=v),
    ("AsyncDocumentProcessor", "retry_delay"): lambda v: AsyncDocumentProcessor(retry_delay=v),
    ("AsyncDocumentProcessor", "timeout"): lambda v: AsyncDocumentProcessor(timeout=v),
    ("AsyncRedisConnection", "timeout"): redis_connection,
    ("AsyncRetry", "base_delay"): lambda v: AsyncRetry(base_delay=v),
    ("AsyncRetry", "max_delay"): lambda v: AsyncRetry(max_delay=v),
    ("AsyncRetry", "max_elapsed"): lambda v: AsyncRetry(max_elapsed=v),
    ("AsyncRetry", "max_retry_after"): lambda v: AsyncRetry().with_(max_retry_after=v),
    ("Job.wait", "timeout"): wait_for_job,
    ("DocumentJob.wait", "timeout"): lambda v: AsyncDocumentProcessor().start([]).wait(v),
    ("Journal", "flush_seconds"): lambda v: Journal("run.sqlite", flush_seconds=v),
    ("Journal", "timeout"): lambda v: Journal("run.sqlite", timeout=v),
    ("RateLimiter", "per"): lambda v: RateLimiter(rate=10, per=v),
    ("RateLimiter.at_most", "per"): lambda v: RateLimiter.at_most(10, v),
    ("RateLimiter.pause", "seconds"): lambda v: RateLimiter(10).pause(v),
    ("RedisRateLimiter", "unavailable_timeout"): _redis(
        lambda cls, where, v: cls(*where, unavailable_timeout=v)
    ),
    ("RedisRateLimiter.at_most", "unavailable_timeout"): _redis(
        lambda cls, where, v: cls.at_most(*where, 10, 1.0, unavailable_timeout=v)
    ),
    ("RedisRateLimiter.at_most", "per"): _redis(lambda cls, where, v: cls.at_most(*where, 10, v)),
    ("RedisRateLimiter.pause", "seconds"): _redis(lambda cls, where, v: cls(*where).pause(v)),
    ("forecast", "timeout"): lambda v: forecast(simulate(100), 200, timeout=v),
    ("run_async", "timeout"): run_for,
    ("simulate", "latency"): lambda v: simulate(1, latency=v),
    ("simulate", "retry_delay"): lambda v: simulate(1, retry_delay=v),
    ("simulate", "timeout"): lambda v: simulate(1, timeout=v),
    ("OpenAIEmbedder", "timeout"): lambda v: OpenAIEmbedder("a-model", api_key="x", timeout=v),
    ("SqliteStore", "timeout"): lambda v: SqliteStore(":memory:", timeout=v).close(),
    ("Stage", "timeout"): lambda v: Stage(double, timeout=v),
    ("Latency.constant", "seconds"): Latency.constant,
    ("Latency.uniform", "low"): lambda v: Latency.uniform(v, 5.0),
    ("Latency.uniform", "high"): lambda v: Latency.uniform(1.0, v),
    ("Latency.normal", "mean"): lambda v: Latency.normal(v, 0.1),
    ("Latency.normal", "sd"): lambda v: Latency.normal(3.0, v),
    ("Latency.lognormal", "median"): lambda v: Latency.lognormal(v, 0.5),
    ("Latency.exponential", "mean"): Latency.exponential,
    ("Latency.samples", "seconds"): lambda v: Latency.samples([v]),
    ("ScriptedService", "latency"): ScriptedService,
    ("ScriptedService", "slow_start"): lambda v: ScriptedService(slow_start=v),
    ("ScriptedService", "outages"): lambda v: ScriptedService(outages=[(1.0, v)]),
    ("ScriptedService.calls_over_time", "width"): lambda v: ScriptedService().calls_over_time(v),
    ("FakeService", "seconds"): lambda v: FakeService(str, seconds=v),
    ("FakeBatchService", "seconds"): lambda v: FakeBatchService(str, seconds=v),
}
"""How each public argument in seconds is passed."""


def durations() -> Iterator[tuple[str, str, str]]:
    """Yield the function, name and annotation of every public argument in seconds."""
    for module in MODULES:
        for name in import_module(module).__all__:
            thing = getattr(ragasync, name, None) or getattr(import_module(module), name)
            yield from _durations_of(name, thing)
            if inspect.isclass(thing) and not issubclass(thing, asyncio.AbstractEventLoop):
                for method, function in inspect.getmembers(thing, callable):
                    if not method.startswith("_"):
                        yield from _durations_of(f"{name}.{method}", function)


def _durations_of(called: str, function: object) -> Iterator[tuple[str, str, str]]:
    """Yield those of one function or class."""
    if not callable(function) or called in NOT_ARGUMENTS or _is_error(function):
        return
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # built in
        return
    for each in parameters:
        if each.name in NAMES or each.name.endswith(("_delay", "_seconds", "_timeout")):
            yield called, each.name, str(each.annotation)


def _is_error(thing: object) -> bool:
    """Tell whether something is a class of errors."""
    return isinstance(thing, type) and issubclass(thing, BaseException)


def test_the_type_of_every_duration_says_that_it_may_be_a_timedelta():
    """Found by name, so that a new argument is not forgotten; those in CALLS are all there are."""
    found = {(called, name): kind for called, name, kind in durations()}
    assert found.keys() == CALLS.keys()
    plain = {key: kind for key, kind in found.items() if not _allows_timedelta(kind)}
    assert plain == {}


def _allows_timedelta(annotation: str) -> bool:
    """Tell whether an annotation allows a timedelta, also in the alias for latencies."""
    return "timedelta" in annotation or annotation == "LatencyLike"


@pytest.mark.real_time
@pytest.mark.parametrize(("called", "name"), CALLS)
def test_a_timedelta_is_accepted_and_other_objects_are_refused(
    called: str, name: str, tmp_path, monkeypatch
):
    """The error names the argument and both types."""
    monkeypatch.chdir(tmp_path)
    call = CALLS[called, name]
    call(2.0)
    call(timedelta(seconds=2))
    call(pd.Timedelta(seconds=2))
    if name != "latency":  # also a number, a distribution, samples or a function
        with pytest.raises(TypeError, match=r"must be .*seconds") as caught:
            call(object())
        assert {"outages": "outage"}.get(name, name) in str(caught.value) or "samples" in called


# A timedelta means what as many seconds mean


async def test_a_processor_waits_as_long_as_a_timedelta_says():
    """For a slow attempt, and before a retry."""
    processor = AsyncBatchProcessor(
        asyncio.sleep,
        timeout=timedelta(seconds=3),
        retry=AsyncRetry(1, timedelta(minutes=1), jitter=None),
    )
    result = await processor.process([9.0])
    assert str(result.errors[0]) == "the attempt took longer than 3 s"
    assert asyncio.get_running_loop().time() == pytest.approx(66.0)


async def test_a_policy_has_its_delays_in_seconds():
    """Whatever they were made of."""
    policy = AsyncRetry(
        5,
        timedelta(milliseconds=500),
        max_delay=timedelta(minutes=2),
        max_elapsed=timedelta(hours=1),
    )
    assert policy == AsyncRetry(5, 0.5, max_delay=120.0, max_elapsed=3600.0)
    assert (
        AsyncRetry(retry_on=lambda error: timedelta(seconds=7)).decide(
            OSError(), retries=0, elapsed=0.0
        )
        == 7.0
    )


async def test_a_limiter_counts_per_timedelta():
    """And pauses for one."""
    limiter = RateLimiter(rate=600, per=timedelta(minutes=1))
    assert limiter.rate == 10.0
    limiter.pause(timedelta(seconds=30))
    assert limiter.paused_for == 30.0
    assert RateLimiter.at_most(10, timedelta(minutes=1)).window == 60.0


@pytest.mark.parametrize("wrong", [timedelta(seconds=-1), timedelta(0), math.nan, True, "1"])
def test_what_is_no_duration_is_refused(wrong: Any):
    """With what it was."""
    with pytest.raises((TypeError, ValueError), match="timeout must be"):
        AsyncBatchProcessor(double, timeout=wrong)
