"""
What a call from sync code to a coroutine costs: from a script, and inside a running loop.

    python benchmarks/bridging.py --calls 5000 --rounds 5

The coroutine returns at once. Every contender is measured in a process of its own, with the
threads and loops that it keeps, because one of them patches asyncio for good.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from measuring import Figures, in_turns, installed, ratios, table

from ragasync import run_async

Bridge: TypeAlias = Callable[[Coroutine[Any, Any, int]], int]


async def answer(number: int) -> int:
    """Return the number."""
    return number


def loop_in_a_thread() -> asyncio.AbstractEventLoop:
    """Return a loop that runs in a thread for good."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


def kept_thread() -> Bridge:
    """Hand each coroutine to a loop in a thread, and wait for a lock to be released."""
    loop = loop_in_a_thread()

    def bridge(coro: Coroutine[Any, Any, int]) -> int:
        ended = threading.Lock()
        ended.acquire()
        tasks: list[asyncio.Task[int]] = []

        def start() -> None:
            task = loop.create_task(coro)
            tasks.append(task)
            task.add_done_callback(lambda _: ended.release())

        loop.call_soon_threadsafe(start)
        ended.acquire()
        return tasks[0].result()

    return bridge


def threadsafe() -> Bridge:
    """Hand each coroutine to a loop in a thread, as asyncio's documentation does."""
    loop = loop_in_a_thread()
    return lambda coro: asyncio.run_coroutine_threadsafe(coro, loop).result()


def kept_runner() -> Bridge:
    """Keep a runner, which runs its loop in the calling thread."""
    return asyncio.Runner().run


def new_thread() -> Bridge:
    """Start a thread for each call, and a loop in it."""

    def bridge(coro: Coroutine[Any, Any, int]) -> int:
        with ThreadPoolExecutor(max_workers=1) as pool:
            return pool.submit(asyncio.run, coro).result()

    return bridge


def nested() -> Bridge:
    """Patch the loop of this thread, and run it within itself."""
    import nest_asyncio2

    running = asyncio._get_running_loop()
    loop = running or asyncio.new_event_loop()
    nest_asyncio2.apply(loop)
    return loop.run_until_complete


def llama_index() -> Bridge:
    """Take LlamaIndex's bridge, with the loop that a new process has for it."""
    from llama_index.core.async_utils import asyncio_run

    if asyncio._get_running_loop() is None:
        asyncio.set_event_loop(asyncio.new_event_loop())
    bridge: Bridge = asyncio_run
    return bridge


@dataclass(frozen=True)
class Contender:
    """Makes a bridge, and says where that works and what it needs."""

    make: Callable[[], Bridge]
    needs: str | None = None
    in_a_loop: bool = True


REFERENCE = "a kept thread, by hand"

CONTENDERS = {
    REFERENCE: Contender(kept_thread),
    "run_coroutine_threadsafe": Contender(threadsafe),
    "ragasync": Contender(lambda: run_async),
    "ragasync, nested=True": Contender(lambda: partial(run_async, nested=True)),
    "nest-asyncio2": Contender(nested, "nest_asyncio2"),
    "LlamaIndex asyncio_run": Contender(llama_index, "llama_index"),
    "a kept asyncio.Runner": Contender(kept_runner, in_a_loop=False),
    "asyncio.run": Contender(lambda: asyncio.run, in_a_loop=False),
    "a new thread and asyncio.run": Contender(new_thread),
}

SCRIPT, LOOP = "script", "inside a running loop"


def microseconds(contender: Contender, calls: int) -> float:
    """Return the processor microseconds of all threads a call; each must give its answer."""
    bridge = contender.make()
    for number in range(10):  # threads and caches, off the clock
        bridge(answer(number))
    began = time.process_time()
    given = [bridge(answer(number)) for number in range(calls)]
    took = time.process_time() - began
    assert given == list(range(calls)), f"{contender.make} gave wrong answers"
    return took * 1e6 / calls


async def microseconds_in_a_loop(contender: Contender, calls: int) -> float:
    """Return the same, measured where a loop already runs."""
    return microseconds(contender, calls)


def measured_alone(name: str, place: str, calls: int) -> float:
    """Return what a process of its own measures."""
    command = [sys.executable, __file__, "--calls", str(calls), "--alone", name, place]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(ran.stdout)


def measure_here(name: str, place: str, calls: int) -> float:
    """Measure one contender in this process."""
    contender = CONTENDERS[name]
    if place == SCRIPT:
        return microseconds(contender, calls)
    return asyncio.run(microseconds_in_a_loop(contender, calls))


def compared(place: str, names: Sequence[str], calls: int, rounds: int) -> dict[str, Figures]:
    """Return the figures of these contenders."""
    return in_turns({name: partial(measured_alone, name, place, calls) for name in names}, rounds)


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Compare bridges from sync code to a coroutine.")
    parser.add_argument("--calls", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--alone", nargs=2, metavar=("NAME", "PLACE"), help="measure one, and print its figure"
    )
    given = parser.parse_args()
    if given.alone:
        name, place = given.alone
        print(measure_here(name, place, given.calls))
        return
    here = {n: each for n, each in CONTENDERS.items() if not each.needs or installed(each.needs)}
    working = {
        SCRIPT: list(here),
        LOOP: [name for name, contender in here.items() if contender.in_a_loop],
    }
    figures = {
        place: compared(place, names, given.calls, given.rounds) for place, names in working.items()
    }
    over = {place: ratios(each, REFERENCE) for place, each in figures.items()}

    def cell(name: str, place: str) -> str:
        if name not in figures[place]:
            return "an error"
        return f"{figures[place][name]} x{over[place][name]:.2f}"

    rows = [[name, cell(name, SCRIPT), cell(name, LOOP)] for name in here]
    title = "run_async a call: processor µs of all threads, median (min-max) xratio"
    print(table(title, ["", SCRIPT, LOOP], rows))
    if left_out := CONTENDERS.keys() - here.keys():
        print(f"Left out: {', '.join(sorted(left_out))}; pip install 'ragasync[bench]'")


if __name__ == "__main__":
    main()
