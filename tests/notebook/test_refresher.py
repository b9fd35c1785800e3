"""Refreshes up to ten times per second, and less often if they cost too much."""

import asyncio

import pytest

# Internals: states of a view that a live job passes too quickly.
from ragasync.notebook.panel import MAX_THREAD_SHARE, Refresher


@pytest.mark.parametrize(("cost", "refreshes"), [(0.0, 10), (0.001, 10), (0.004, 5), (0.02, 1)])
async def test_refreshes_take_a_small_share_of_a_threads_time(cost: float, refreshes: int):
    """Ten per second if they are cheap, fewer on a slow machine."""
    spent = 0.0
    times: list[float] = []

    def refresh() -> bool:
        nonlocal spent
        spent += cost
        times.append(asyncio.get_running_loop().time())
        return True

    refresher = Refresher(refresh, lambda: spent)
    refresher.start()
    await asyncio.sleep(1.05)
    refresher.stop()
    assert len(times) == refreshes
    assert cost * len(times) <= MAX_THREAD_SHARE * 1.05 + cost


async def test_no_refresh_follows_the_last_one():
    """The function returns whether to go on."""
    came = []

    def refresh() -> bool:
        came.append(1)
        return len(came) < 3

    Refresher(refresh, lambda: 0.0).start()
    await asyncio.sleep(2)
    assert len(came) == 3
