"""
What it costs to show a run, in a real kernel: processor time, of all its threads.

    python benchmarks/drawing.py --seconds 0.1 0.5 2 --rounds 9

The run is one call that sleeps, so that nothing but the drawing costs: what is shown depends on how
long a run takes, not on how many items it has. A run of 100,000 items that suspend once takes half
a second; the table says how long it takes here, to compare.
"""

from __future__ import annotations

import argparse
import logging
from functools import partial
from typing import Any

from measuring import in_turns, installed, table

BEGINNING = """
import asyncio, gc, time
from IPython.display import display
from tqdm.auto import tqdm
from ragasync import AsyncBatchProcessor, TqdmProgress, WidgetProgress

async def once(item):
    await asyncio.sleep(0)

async def measured(run):
    gc.collect()
    await asyncio.sleep(0.05)
    began = time.process_time()
    await run
    await asyncio.sleep(0.05)
    print((time.process_time() - began) * 1e3)

async def unseen(seconds):
    await AsyncBatchProcessor(asyncio.sleep).start([seconds], on_current_loop=True)

async def panel(seconds):
    job = AsyncBatchProcessor(asyncio.sleep).start([seconds], on_current_loop=True)
    display(job)
    await job

async def widget_progress(seconds):
    await AsyncBatchProcessor(asyncio.sleep).process([seconds], WidgetProgress())

async def tqdm_progress(seconds):
    await AsyncBatchProcessor(asyncio.sleep).process([seconds], TqdmProgress())

async def tqdm_by_hand(seconds):
    for _ in tqdm(range(10), leave=True):
        await asyncio.sleep(seconds / 10)
"""

WAYS = {
    "not shown": "unseen",
    "ragasync, the panel of a job": "panel",
    "ragasync, WidgetProgress": "widget_progress",
    "ragasync, TqdmProgress": "tqdm_progress",
    "tqdm.auto around ten steps": "tqdm_by_hand",
}


class Kernel:
    """A kernel, and a client that asks it for figures."""

    def __init__(self) -> None:
        from jupyter_client.manager import start_new_kernel

        logging.getLogger("traitlets").setLevel(logging.ERROR)
        self._manager, self._client = start_new_kernel(startup_timeout=60)
        self._ask(BEGINNING)

    def milliseconds(self, run: str) -> float:
        """Return the processor milliseconds that awaiting this takes, with what it draws."""
        return float(self._ask(f"await measured({run})"))

    def close(self) -> None:
        """End it."""
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)

    def _ask(self, code: str) -> str:
        """Run a cell and return what it prints."""
        printed: list[str] = []

        def take(message: dict[str, Any]) -> None:
            content = message["content"]
            if message["msg_type"] == "error":
                raise RuntimeError("\n".join(content["traceback"]))
            if content.get("name") == "stdout":
                printed.append(content["text"])

        self._client.execute_interactive(code, output_hook=take, timeout=120)
        return "".join(printed)


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Compare what it costs to show a run.")
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.1, 0.5, 2.0])
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    if not installed("ipykernel", "jupyter_client"):
        raise SystemExit("Needs a kernel: pip install 'ragasync[bench]'")
    kernel = Kernel()
    try:
        for way in WAYS.values():
            kernel.milliseconds(f"{way}(1.2)")
        fast = "AsyncBatchProcessor(once, max_concurrency=32).process(range(100_000))"
        took = in_turns({"": partial(kernel.milliseconds, fast)}, given.rounds)[""]
        measured = {
            seconds: in_turns(
                {
                    name: partial(kernel.milliseconds, f"{way}({seconds})")
                    for name, way in WAYS.items()
                },
                given.rounds,
            )
            for seconds in given.seconds
        }
        rows = [[name, *(each[name] for each in measured.values())] for name in WAYS]
        heads = ["", *(f"{seconds:g} s" for seconds in given.seconds)]
        title = "drawing: processor ms of a run that sleeps, median (min-max)"
        print(table(title, heads, rows))
        print(f"100,000 items that suspend once, not shown, in the same kernel: {took} ms")
    finally:
        kernel.close()


if __name__ == "__main__":
    main()
