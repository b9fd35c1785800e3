"""Grants that are corrected to what their calls used, and the limits of a service per minute."""

from __future__ import annotations

import asyncio
import math
import threading
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragasync import AsyncBatchProcessor, RateLimiter
from ragasync.testing import run_on_virtual_clock
from tests.support.random_schedules import examples

A_MOMENT = 1e-6


def now() -> float:
    """Return the virtual time."""
    return asyncio.get_running_loop().time()


# What a correction does


@pytest.mark.parametrize(
    ("taken", "seconds", "corrections", "left"),
    [
        pytest.param(500, 0, [120], 380, id="an estimate of 500 that used 120 gives 380 back"),
        pytest.param(100, 0, [0, 0], 500, id="a full bucket stays full"),
        pytest.param(500, 50, [120], 430, id="a long call loses nothing of what was refilled"),
    ],
)
async def test_a_surplus_is_returned(
    taken: int, seconds: float, corrections: list[int], left: int
) -> None:
    """In full, unlike the place of a cancelled caller, and never above the burst."""
    limiter = RateLimiter(1, burst_size=500)
    await limiter.acquire(taken)
    await asyncio.sleep(seconds)
    for used in corrections:
        limiter.correct(taken, used=used)
    assert limiter.try_acquire(left)
    assert not limiter.try_acquire(1)


async def test_a_shortfall_is_a_debt_that_the_next_caller_waits_for() -> None:
    """The bucket is 200 below empty."""
    limiter = RateLimiter(10, burst_size=500)
    await limiter.acquire(100)
    limiter.correct(100, used=700)
    await limiter.acquire(1)
    assert now() == pytest.approx(20.1)


@pytest.mark.parametrize(
    ("used", "granted"),
    [
        pytest.param(120, 10.0, id="now, because of a surplus"),
        pytest.param(520, 320.0, id="later, because of a shortfall"),
    ],
)
async def test_a_waiting_caller_is_granted_at_the_corrected_time(used: int, granted: float) -> None:
    """The timer that it had set was for second 300."""
    limiter = RateLimiter(1, burst_size=500)
    await limiter.acquire(500)
    waiting = asyncio.create_task(limiter.acquire(300))
    await asyncio.sleep(10)
    limiter.correct(500, used=used)
    await waiting
    assert now() == pytest.approx(granted)


async def test_the_order_of_arrival_is_kept_by_corrections() -> None:
    """A small request does not overtake a large one that is not due yet."""
    limiter = RateLimiter(1, burst_size=500)
    await limiter.acquire(500)
    order: list[int] = []

    async def take(weight: int) -> None:
        await limiter.acquire(weight)
        order.append(weight)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(take(400))
        tasks.create_task(take(10))
        await asyncio.sleep(1)
        limiter.correct(500, used=400)
        assert order == []
    assert order == [400, 10]


async def test_a_call_that_was_not_counted_can_be_charged() -> None:
    """Its estimate was 0."""
    limiter = RateLimiter(10, burst_size=100)
    limiter.correct(0, used=100)
    assert not limiter.try_acquire(1)


async def test_calls_run_at_the_rate_of_what_they_use() -> None:
    """Ten estimates of 500 that use 120 take ten times 120."""
    limiter = RateLimiter(100, burst_size=500)
    for _ in range(10):
        await limiter.acquire(500)
        limiter.correct(500, used=120)
    assert now() == pytest.approx(9 * 1.2)


async def test_a_window_counts_what_was_used() -> None:
    """The grant in its log is replaced; a shortfall is logged when it is known."""
    limiter = RateLimiter.at_most(100, 60.0)
    await limiter.acquire(90)
    limiter.correct(90, used=10)
    await limiter.acquire(90)
    assert now() < 60.0
    limiter.correct(90, used=95)
    charged = now()
    await limiter.acquire(100)
    assert now() >= charged + 60.0


@pytest.mark.real_time
def test_a_correction_from_another_thread_wakes_a_waiting_caller() -> None:
    """The limiter belongs to no loop."""
    limiter = RateLimiter(1e-3, burst_size=500)
    waits = threading.Event()

    async def wait() -> None:
        await limiter.acquire(500)
        asyncio.get_running_loop().call_soon(waits.set)
        await limiter.acquire(300)

    thread = threading.Thread(target=lambda: asyncio.run(wait()))
    thread.start()
    assert waits.wait(60)
    limiter.correct(500, used=0)
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize("wrong", [-1, math.nan, math.inf, "120", None, True])
@pytest.mark.parametrize("name", ["weight", "used"])
def test_a_correction_by_what_is_no_amount_is_refused(name: str, wrong: Any) -> None:
    """And changes nothing."""
    limiter = RateLimiter(1, burst_size=500)
    amounts = {"weight": 1, "used": 1} | {name: wrong}
    with pytest.raises((TypeError, ValueError), match=f"{name} must be"):
        limiter.correct(**amounts)
    assert limiter.try_acquire(500)


# The bound, in usage


@dataclass
class Call:
    """One call: its estimate and its usage, and when it was granted and reported."""

    weight: float
    used: float
    seconds: float
    pause: float
    granted: float = -1.0
    ended: float = -1.0

    def in_flight_at(self, time: float) -> bool:
        """Tell whether it was granted and had not reported yet."""
        return self.granted <= time < self.ended


calls = st.builds(
    Call,
    weight=st.integers(1, 50),
    used=st.integers(0, 120),
    seconds=st.sampled_from([0.0, 0.5, 3.0, 40.0]),
    pause=st.sampled_from([0.0, 0.1, 5.0, 30.0]),
)


@examples(60)
@given(jobs=st.lists(st.lists(calls, max_size=8), min_size=1, max_size=4))
def test_usage_stays_within_the_bound_and_what_was_in_flight(jobs: list[list[Call]]) -> None:
    """In every window, for several jobs at one limiter, whatever was estimated."""
    limiter = RateLimiter(2.0, burst_size=50, unit="tokens")

    async def run(job: list[Call]) -> None:
        for call in job:
            await asyncio.sleep(call.pause)
            await limiter.acquire(call.weight)
            call.granted = now()
            await asyncio.sleep(call.seconds)
            limiter.correct(call.weight, call.used)
            call.ended = now()

    async def run_all() -> None:
        async with asyncio.TaskGroup() as tasks:
            for job in jobs:
                tasks.create_task(run(job))

    run_on_virtual_clock(run_all())
    check_usage([call for job in jobs for call in job], burst=50, rate=2.0)


def check_usage(made: list[Call], *, burst: float, rate: float) -> None:
    """
    Check the usage that was reported in every window between two events.

    It may exceed the bound by the estimates of calls in flight at the window's beginning, which
    were taken before it, and by the shortfalls of calls in flight at the last grant, which nobody
    could know then.
    """
    times = sorted({time for call in made for time in (call.granted, call.ended)})
    for begin in [-1.0, *times]:
        before = sum(call.weight for call in made if call.in_flight_at(begin))
        for end in times:
            used = sum(call.used for call in made if begin < call.ended <= end)
            last_grant = max((call.granted for call in made if call.granted <= end), default=-1.0)
            unknown = sum(
                max(0.0, call.used - call.weight)
                for call in made
                if call.granted <= last_grant <= call.ended <= end
            )
            bound = burst + rate * max(0.0, end - begin) + before + unknown
            assert used <= bound + A_MOMENT, (begin, end)


# Limits per minute


def test_the_limits_of_a_service_are_a_pair() -> None:
    """As providers state them, in the order in which they are passed."""
    requests, tokens = RateLimiter.per_minute(requests=600, tokens=60_000, weight=len)
    assert (requests.rate, requests.unit, requests.weight) == (10.0, "requests", None)
    assert (tokens.rate, tokens.unit, tokens.weight) == (1000.0, "tokens", len)


def test_only_the_limits_that_are_given_are_made() -> None:
    """A service may state one of them."""
    (requests,) = RateLimiter.per_minute(requests=60)
    (tokens,) = RateLimiter.per_minute(tokens=60, weight=len)
    assert (requests.unit, tokens.unit) == ("requests", "tokens")


async def test_a_processor_keeps_both_limits_of_a_service() -> None:
    """Ready for `rate_limiter=`."""

    async def call(text: str) -> None:
        pass

    limits = RateLimiter.per_minute(requests=60, tokens=600, weight=len)
    processor = AsyncBatchProcessor(call, max_concurrency=50, rate_limiter=limits)
    await processor.process(["x" * 20] * 31)
    assert now() == pytest.approx(60.0, abs=1.0)  # 20 tokens every two seconds
    await processor.process(["x"] * 60)
    assert now() == pytest.approx(120.0, abs=3.0)  # a request every second


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "expected requests=, tokens= or both, got neither"),
        ({"tokens": 100}, ValueError, "tokens= needs weight=.*function that estimates"),
        ({"requests": 9, "weight": len}, ValueError, "weight= needs tokens="),
        ({"requests": 0}, ValueError, "requests must be positive and finite, got 0"),
        ({"requests": "500"}, TypeError, "requests must be a number, got '500'"),
        ({"tokens": -1, "weight": len}, ValueError, "tokens must be positive and finite, got -1"),
        ({"tokens": 1, "weight": 3}, TypeError, "weight must be a function"),
    ],
)
def test_wrong_limits_are_refused_with_what_to_pass(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Before anything is sent."""
    with pytest.raises(error, match=message):
        RateLimiter.per_minute(**arguments)


@pytest.mark.parametrize("unit", ["token", "", None, 3])
def test_an_unknown_unit_is_refused(unit: Any) -> None:
    """There are two."""
    with pytest.raises(ValueError, match='unit must be "requests" or "tokens", got'):
        RateLimiter(10, unit=unit)


def test_a_limiter_of_tokens_says_so() -> None:
    """One line, as for all."""
    assert repr(RateLimiter.at_most(100, 60, unit="tokens")).endswith("unit=tokens>")
    assert "unit" not in repr(RateLimiter(10))
