"""Something done up to ten times a second, and less often where that would cost too much."""

import asyncio

import pytest

from ragasync.notebook.ticker import SHARE, Refresher


@pytest.mark.parametrize(("cost", "ticks"), [(0.0, 10), (0.001, 10), (0.004, 5), (0.02, 1)])
async def test_ticks_take_a_small_share_of_a_threads_time(cost: float, ticks: int):
    """Ten a second where they are cheap, and on a slow machine as few as it bears."""
    spent = 0.0
    came: list[float] = []

    def tick() -> bool:
        nonlocal spent
        spent += cost
        came.append(asyncio.get_running_loop().time())
        return True

    ticker = Refresher(tick, lambda: spent)
    ticker.begin()
    await asyncio.sleep(1.05)
    ticker.stop()
    assert len(came) == ticks
    assert cost * len(came) <= SHARE * 1.05 + cost


async def test_no_tick_comes_after_the_last():
    """A tick that says so is the last."""
    came = []

    def tick() -> bool:
        came.append(1)
        return len(came) < 3

    Refresher(tick, lambda: 0.0).begin()
    await asyncio.sleep(2)
    assert len(came) == 3
