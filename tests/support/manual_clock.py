"""An event loop whose clock a test moves by hand: exact times where threads or sockets are real."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, cast


class ManualClockLoop(asyncio.SelectorEventLoop):
    """
    A loop that wakes for threads and sockets, and whose clock stands still between two moves.

    A virtual clock waits for threads, so that none of them can be too slow for it.
    """

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__()

    def time(self) -> float:
        """The time to which a test has moved the clock."""
        return self.now


async def advance(seconds: float) -> None:
    """Move the clock, and let the loop run what is due and what follows from that."""
    loop = cast("ManualClockLoop", asyncio.get_running_loop())
    loop.now = round(loop.now + seconds, 9)
    for _ in range(10):
        await asyncio.sleep(0)


def on_manual_clock(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on a loop whose clock it moves by itself."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=ManualClockLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run
