"""The virtual clock on which the other tests run."""

import asyncio
import socket
import threading

import pytest

from ragasync.testing import run_on_virtual_clock


async def test_a_sleep_moves_the_clock_without_waiting():
    """A day passes on the loop's clock; the test's timeout would end a real one."""
    await asyncio.sleep(86_400)
    assert asyncio.get_running_loop().time() == 86_400


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


async def test_a_cancelled_timer_does_not_move_the_clock():
    """The clock stops at the next timer that still has something to call."""
    loop = asyncio.get_running_loop()
    loop.call_later(5, lambda: None).cancel()
    await asyncio.to_thread(lambda: None)
    assert loop.time() == 0
    await asyncio.sleep(10)
    assert loop.time() == 10


async def test_timers_of_one_instant_fire_in_the_order_in_which_they_were_set():
    """Unlike those of asyncio, whose heap leaves that open."""
    loop, seen = asyncio.get_running_loop(), list[int]()
    for number in range(100):
        loop.call_at(7, seen.append, number)
    await asyncio.sleep(7)
    assert seen == list(range(100))


async def test_sockets_are_served_before_the_clock_moves():
    """Also while callbacks are ready all the time."""
    here, there = socket.socketpair()
    with here, there:
        loop, heard = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(here, heard.set)
        timer = loop.call_later(10, lambda: None)
        there.send(b"x")
        while not heard.is_set():  # noqa: ASYNC110  # a loop that is never idle is the point
            await asyncio.sleep(0)
        loop.remove_reader(here)
        assert (loop.time(), timer.cancelled()) == (0, False)
        timer.cancel()


def test_an_exception_of_the_coroutine_is_raised_to_the_caller():
    """With its own type."""
    with pytest.raises(LookupError, match="in there"):
        run_on_virtual_clock(fail())


async def test_an_exception_is_raised_to_a_caller_whose_loop_runs():
    """There the coroutine runs in a thread of its own."""
    with pytest.raises(LookupError, match="in there"):
        run_on_virtual_clock(fail())


async def test_virtual_clocks_can_be_nested():
    """Each has its own time, and the outer one stands still meanwhile."""
    await asyncio.sleep(1)

    async def inner() -> float:
        await asyncio.sleep(100)
        return asyncio.get_running_loop().time()

    assert run_on_virtual_clock(inner()) == 100
    assert asyncio.get_running_loop().time() == 1


async def fail() -> None:
    """Raise an exception, after a while."""
    await asyncio.sleep(1)
    raise LookupError("in there")
