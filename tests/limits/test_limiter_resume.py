"""Pauses that end early: `resume` of a limiter and of a combined limiter, and `paused_for`."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from ragasync import AsyncBatchProcessor, RateLimiter

# Internals: single decisions, and numbers that no run reaches.
from ragasync._limits.combined import CombinedLimiter


def now() -> float:
    """The virtual time."""
    return asyncio.get_running_loop().time()


async def times_of(calls: int, pass_through: Callable[[int], object]) -> list[tuple[int, float]]:
    """Send callers; return who passed when, in the order in which they passed."""
    passed: list[tuple[int, float]] = []

    async def call(number: int) -> None:
        await pass_through(number)
        passed.append((number, round(now(), 6)))

    await asyncio.gather(*map(call, range(calls)))
    return passed


# ---- a limiter


@pytest.mark.parametrize("length", [5.0, 86_400.0, 1e9])
async def test_waiters_go_on_in_order_when_a_pause_is_ended(length: float):
    """At the limiter's rate, with the burst that a rest gives."""
    limiter = RateLimiter(10, burst_size=2)
    limiter.pause(length)
    asyncio.get_running_loop().call_later(3, limiter.resume)
    passed = await times_of(4, lambda _: limiter.acquire())
    assert passed == [(0, 3.0), (1, 3.0), (2, 3.1), (3, 3.2)]


async def test_tokens_refill_during_a_pause_as_in_any_other_rest():
    """What was taken before it is paid back while it lasts, and no more than that."""
    limiter = RateLimiter(1, burst_size=5)
    limiter.try_acquire(5)
    limiter.pause(60)
    asyncio.get_running_loop().call_later(2, limiter.resume)
    passed = await times_of(4, lambda _: limiter.acquire())
    assert passed == [(0, 2.0), (1, 2.0), (2, 3.0), (3, 4.0)]


async def test_a_window_that_is_full_stays_full_after_a_pause_was_ended():
    """`at_most` counts what it admitted before the pause."""
    limiter = RateLimiter.at_most(2, 10)
    await limiter.acquire(2)
    limiter.pause(60)
    asyncio.get_running_loop().call_later(1, limiter.resume)
    await limiter.acquire()
    assert now() == pytest.approx(10)


async def test_to_end_a_pause_that_is_not_there_changes_nothing():
    """Before the first, after one that is over, and twice."""
    limiter = RateLimiter(10, burst_size=1)
    limiter.resume()
    await limiter.acquire()
    limiter.pause(0.5)
    await asyncio.sleep(1)
    limiter.resume()
    limiter.resume()
    assert limiter.try_acquire()
    assert not limiter.try_acquire()


async def test_newcomers_after_the_end_of_a_pause_go_behind_those_who_waited():
    """They would be admitted were nobody there."""
    limiter = RateLimiter(10, burst_size=2)
    limiter.pause(60)
    waiting = asyncio.create_task(times_of(2, lambda _: limiter.acquire()))
    await asyncio.sleep(1)
    limiter.resume()
    assert not limiter.try_acquire()
    await limiter.acquire()
    assert now() == pytest.approx(1.1)
    assert await waiting == [(0, 1.0), (1, 1.0)]


async def test_who_was_granted_when_a_pause_came_and_ended_in_the_same_turn_goes():
    """The grant is good again."""
    limiter = RateLimiter(10, burst_size=1)
    limiter.try_acquire()
    waiting = asyncio.create_task(times_of(1, lambda _: limiter.acquire()))
    loop = asyncio.get_running_loop()
    loop.call_at(0.1, lambda: (limiter.pause(60), limiter.resume()))
    async with asyncio.timeout(5):
        assert await waiting == [(0, 0.1)]


async def test_a_pause_after_an_end_holds_again():
    """As the first did."""
    limiter = RateLimiter(10, burst_size=1)
    limiter.pause(60)
    limiter.resume()
    limiter.pause(2)
    await limiter.acquire()
    assert now() == pytest.approx(2)


async def test_a_pause_that_a_service_asked_for_is_ended_too():
    """The job that it held goes on."""
    limiter = RateLimiter(100)

    class Busy(Exception):
        status_code = 429
        headers = {"retry-after": "100"}  # noqa: RUF012

    calls = 0

    async def refuse_once(item: int) -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise Busy
        return item

    processor = AsyncBatchProcessor(refuse_once, rate_limiter=limiter, max_concurrency=1)
    job = processor.start([1, 2, 3], on_current_loop=True)
    await asyncio.sleep(1)
    assert limiter.paused_for == pytest.approx(99)
    limiter.resume()
    result = await job
    assert result.success_count == 3


@pytest.mark.real_time
def test_a_pause_is_ended_for_waiters_on_every_loop_from_a_thread_without_one():
    """Each is woken on its own loop, hours before the pause would have ended."""
    limiter = RateLimiter(10_000, burst_size=1)
    limiter.pause(3600)
    passed: list[int] = []

    async def wait(number: int) -> None:
        await asyncio.gather(*(limiter.acquire() for _ in range(3)))
        passed.append(number)

    threads = [
        threading.Thread(target=lambda n=n: asyncio.run(wait(n)), daemon=True) for n in range(3)
    ]
    for thread in threads:
        thread.start()
    while "waiting=9" not in repr(limiter):
        time.sleep(0.001)
    limiter.resume()
    for thread in threads:
        thread.join(30)
    assert sorted(passed) == [0, 1, 2]


# ---- how long it lasts


async def test_a_limiter_says_how_long_its_pause_lasts():
    """To the instant, and in its repr."""
    limiter = RateLimiter(10)
    assert limiter.paused_for == 0.0
    assert "paused" not in repr(limiter)
    limiter.pause(10)
    await asyncio.sleep(4)
    assert limiter.paused_for == pytest.approx(6)
    assert "paused for 6.0 s" in repr(limiter)
    limiter.resume()
    assert limiter.paused_for == 0.0
    assert "paused" not in repr(limiter)


@pytest.mark.parametrize("shorter", [0, 0.0, 5, 9.9])
async def test_a_shorter_pause_than_the_one_in_force_changes_nothing(shorter: float):
    """Nor does one of no length, which holds nobody."""
    limiter = RateLimiter(10)
    limiter.pause(10)
    limiter.pause(shorter)
    assert limiter.paused_for == pytest.approx(10)
    free = RateLimiter(10)
    free.pause(0)
    assert free.paused_for == 0.0
    assert free.try_acquire()


async def test_another_thread_reads_a_pause_by_the_clock_of_those_who_wait():
    """It has no loop, and this loop's clock is a virtual one."""
    limiter, combined = RateLimiter(10), CombinedLimiter()
    for paused in (limiter, combined):
        paused.pause(10)
    await asyncio.sleep(4)
    read = await asyncio.to_thread(lambda: (limiter.paused_for, combined.paused_for, repr(limiter)))
    assert read[:2] == pytest.approx((6, 6))
    assert "paused for 6.0 s" in read[2]


# ---- a combined limiter


async def test_a_gate_is_paused_until_the_last_of_its_limiters_is_not():
    """Whoever paused them; its own counts where it stands in the way."""
    one, two = RateLimiter(10), RateLimiter(10)
    combined = CombinedLimiter([one, two])
    assert combined.paused_for == 0.0
    one.pause(3)
    assert combined.paused_for == pytest.approx(3)
    two.pause(8)
    assert combined.paused_for == pytest.approx(8)
    combined.rate = 5.0
    combined.pause(12)
    assert combined.paused_for == pytest.approx(12)
    await asyncio.sleep(20)
    assert combined.paused_for == 0.0


async def test_a_gate_ends_the_pauses_of_all_its_limiters_and_its_own():
    """Its callers go on in order, and those of others at the limiters too."""
    one, two = RateLimiter(10, 2), RateLimiter(1000, 10)
    combined = CombinedLimiter([one, two])
    combined.rate = 1000.0
    combined.pause(60)
    two.pause(3600)
    other = asyncio.create_task(two.acquire())
    asyncio.get_running_loop().call_later(3, combined.resume)
    passed = await times_of(4, lambda n: combined.admit([n]))
    assert [number for number, _ in passed] == [0, 1, 2, 3]
    assert [when for _, when in passed] == pytest.approx([3, 3, 3.1, 3.2], abs=0.01)
    assert other.done()
    assert combined.paused_for == 0.0


async def test_a_gate_without_limiters_opens_again():
    """It is closed by itself."""
    combined = CombinedLimiter()
    combined.pause(3600)
    assert not combined.is_open
    asyncio.get_running_loop().call_later(2, combined.resume)
    assert await times_of(2, lambda n: combined.admit([n])) == [(0, 2.0), (1, 2.0)]
    assert combined.is_open


async def test_a_limiter_kept_elsewhere_that_cannot_resume_is_left_alone():
    """It need not know how."""

    class Elsewhere:
        weight = None
        max_weight = 1.0

        async def acquire(self, weight: float = 1.0) -> None:
            pass

        def pause(self, seconds: float) -> None:
            pass

    combined = CombinedLimiter([Elsewhere(), near := RateLimiter(1)])
    combined.pause(9)
    assert combined.paused_for == pytest.approx(9)
    combined.resume()
    assert (combined.paused_for, near.paused_for) == (0.0, 0.0)


async def test_a_limiter_kept_elsewhere_is_resumed_with_the_others():
    """And counts for how long the job is paused."""

    class Elsewhere:
        weight = None
        max_weight = 1.0
        paused_for = 0.0

        async def acquire(self, weight: float = 1.0) -> None:
            pass

        def pause(self, seconds: float) -> None:
            self.paused_for = seconds

        def resume(self) -> None:
            self.paused_for = 0.0

    far = Elsewhere()
    combined = CombinedLimiter([far])
    combined.pause(7)
    assert combined.paused_for == 7
    combined.resume()
    assert combined.paused_for == 0.0
