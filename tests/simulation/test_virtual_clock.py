"""The virtual clock that the other tests stand on."""

import asyncio
import threading
import time

import pytest


async def test_a_sleep_moves_the_clock_and_takes_no_time():
    """An hour passes on the loop's clock, and next to nothing on ours."""
    loop, began = asyncio.get_running_loop(), time.monotonic()
    await asyncio.sleep(3600)
    assert loop.time() == pytest.approx(3600)
    assert time.monotonic() - began < 60


async def test_timers_fire_in_the_order_of_their_times():
    """What is due first runs first, whatever the order in which it was scheduled."""
    seen: list[float] = []

    async def note(delay: float) -> None:
        await asyncio.sleep(delay)
        seen.append(delay)

    await asyncio.gather(note(3), note(1), note(2))
    assert seen == [1, 2, 3]


async def test_a_thread_can_wake_the_loop():
    """Work in another thread ends although no timer is scheduled."""
    assert await asyncio.to_thread(lambda: 42) == 42


async def test_the_clock_stands_still_while_a_thread_works():
    """A timer does not fire before a thread that was begun earlier has returned."""
    gate, loop = threading.Event(), asyncio.get_running_loop()
    loop.call_soon(gate.set)
    timer = asyncio.create_task(asyncio.sleep(10))
    assert await asyncio.to_thread(gate.wait, 30)
    assert loop.time() == 0
    await timer


async def test_no_timer_overtakes_a_thread_on_a_slow_machine():
    """It has a second for its work, and takes no time of this clock."""
    timer = asyncio.create_task(asyncio.sleep(10))
    assert not await asyncio.to_thread(threading.Event().wait, 0.2)
    assert asyncio.get_running_loop().time() == 0
    await timer


async def test_a_thread_that_waits_for_a_timer_gets_it():
    """So the clock does go on when a thread takes long."""
    gate, loop = threading.Event(), asyncio.get_running_loop()
    loop.call_later(10, gate.set)
    assert await asyncio.to_thread(gate.wait, 30)
    assert loop.time() == 10
