"""Something done up to ten times a second, and less often where that would cost too much."""

import asyncio

import pytest

from ragasync.notebook.panel import MAX_THREAD_SHARE, Refresher


@pytest.mark.parametrize(("cost", "ticks"), [(0.0, 10), (0.001, 10), (0.004, 5), (0.02, 1)])
async def test_ticks_take_a_small_share_of_a_threads_time(cost: float, ticks: int):
    """Ten a second where they are cheap, and on a slow machine as few as it bears."""
    spent = 0.0
    came: list[float] = []

    def refresh() -> bool:
        nonlocal spent
        spent += cost
        came.append(asyncio.get_running_loop().time())
        return True

    refresher = Refresher(refresh, lambda: spent)
    refresher.start()
    await asyncio.sleep(1.05)
    refresher.stop()
    assert len(came) == ticks
    assert cost * len(came) <= MAX_THREAD_SHARE * 1.05 + cost


async def test_no_tick_comes_after_the_last():
    """A tick that says so is the last."""
    came = []

    def refresh() -> bool:
        came.append(1)
        return len(came) < 3

    Refresher(refresh, lambda: 0.0).start()
    await asyncio.sleep(2)
    assert len(came) == 3
