"""A pause that comes between the grant to a waiter and the moment when its task runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ragasync import RateLimiter

# Internals: single decisions, and numbers that no run reaches.
from ragasync._limits.combined import CombinedLimiter

Held = tuple[Callable[[], Awaitable[None]], Callable[[float], None]]
"""How to pass, and how to pause."""


def through_a_limiter() -> Held:
    """Two at once, ten a second."""
    limiter = RateLimiter(10, burst_size=2)
    return limiter.acquire, limiter.pause


def through_a_combined_limiter(*others: RateLimiter) -> Held:
    """The same with others beside it, all to be passed in one step."""
    combined = CombinedLimiter([RateLimiter(10, burst_size=2), *others])
    return lambda: combined.admit([""]), combined.pause


def through_two() -> Held:
    """The other is wider."""
    return through_a_combined_limiter(RateLimiter(1000, burst_size=10))


def pause_after_grants(pause: Callable[[float], None]) -> None:
    """Pause for 1 s, and again in the loop iteration in which that ends, after the grants."""
    pause(1)
    loop = asyncio.get_running_loop()
    # The virtual clock fires timers of the same time in the order in which they were set: this one
    # is set after those of the limiters.
    loop.call_at(0.5, lambda: loop.call_at(1, pause, 10))


@pytest.mark.parametrize("kind", [through_a_limiter, through_a_combined_limiter, through_two])
async def test_who_was_granted_and_has_not_run_is_held_too(kind: Callable[[], Held]):
    """It gives back what it took and keeps its place: afterwards all is as it was."""
    loop = asyncio.get_running_loop()
    pass_through, pause = kind()
    pause_after_grants(pause)
    passed: list[tuple[int, float]] = []

    async def call(number: int) -> None:
        await pass_through()
        passed.append((number, round(loop.time(), 6)))

    await asyncio.gather(*map(call, range(4)))
    assert passed == [(0, 11), (1, 11), (2, 11.1), (3, 11.2)]


@pytest.mark.parametrize("kind", [through_a_limiter, through_a_combined_limiter, through_two])
async def test_who_is_held_so_and_then_cancelled_leaves_no_trace(
    kind: Callable[[], Held],
):
    """The others go as though it had never come."""
    loop = asyncio.get_running_loop()
    pass_through, pause = kind()
    pause_after_grants(pause)
    first = asyncio.ensure_future(pass_through())
    others = [asyncio.ensure_future(pass_through()) for _ in range(2)]
    await asyncio.sleep(5)
    assert not first.done()
    first.cancel()
    await asyncio.gather(*others)
    assert loop.time() == pytest.approx(11)
    await pass_through()
    assert loop.time() == pytest.approx(11.1)
