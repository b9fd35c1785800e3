"""
Call a loopback HTTP service that is slow, answers 500, and closes with 429 and Retry-After.

    python benchmarks/flaky.py --calls 5000 --rounds 5

The service (see flaky_service.py) runs in a process of its own, a new one for every run; processor
time is that of the client alone. Every text has a value in the end: a contender that has none for
it has lost it. To add a contender, see flaky_callers.py.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import aiohttp
from flaky_callers import CALLERS, REFERENCE, Caller, StatusError, silenced
from flaky_service import value_of
from measuring import in_turns, installed, ratios, table

SERVICE = Path(__file__).with_name("flaky_service.py")


@dataclass(frozen=True)
class Run:
    """The cost of one run of a contender, and its outcomes."""

    wall: float
    lost: int
    wrong: int
    counts: Mapping[str, int]

    @property
    def calls(self) -> int:
        """How many requests the service has seen."""
        return self.counts["accepted"] + self.counts["refused"]


@contextmanager
def service() -> Iterator[str]:
    """Run the service, and yield its URL."""
    command = [sys.executable, str(SERVICE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


async def make_calls(caller: Caller, url: str, calls: int, at_once: int) -> tuple[float, Run]:
    """Return the processor seconds of a run, and the rest of its account."""
    texts = [f"text {number}" for number in range(calls)]
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(url, connector=connector) as client:

        async def call(text: str) -> int:
            async with client.post("/", data=text) as reply:
                if reply.status != 200:
                    raise StatusError(reply)
                value: int = await reply.json()
                return value

        processor, began = time.process_time(), time.monotonic()
        with silenced():
            values = await caller.run(call, texts, at_once)
        wall, took = time.monotonic() - began, time.process_time() - processor
        async with client.get("/counts") as reply:
            counts = await reply.json()
    assert len(values) == calls
    pairs = [(text, value) for text, value in zip(texts, values, strict=True) if value is not None]
    wrong = sum(value != value_of(text) for text, value in pairs)
    return took, Run(wall, calls - len(pairs), wrong, counts)


def processor_seconds(caller: Caller, calls: int, at_once: int, runs: list[Run]) -> float:
    """Return the processor seconds of a run on a new service, and note the run."""
    with service() as url:
        took, run = asyncio.run(make_calls(caller, url, calls, at_once))
    runs.append(run)
    return took


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Compare ways to call a flaky service.")
    parser.add_argument("--calls", type=int, default=5_000)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()

    here = {name: each for name, each in CALLERS.items() if installed(*each.needs)}
    for caller in here.values():  # imports, off the clock
        processor_seconds(caller, 10, 4, [])
    runs: dict[str, list[Run]] = {name: [] for name in here}
    figures = in_turns(
        {
            name: partial(processor_seconds, caller, given.calls, given.at_once, runs[name])
            for name, caller in here.items()
        },
        given.rounds,
    )
    over = ratios(figures, REFERENCE)
    rows = []
    for name, caller in here.items():
        walls = sorted(run.wall for run in runs[name])
        rows.append(
            [
                name,
                f"{statistics.median(walls):.2f} ({walls[0]:.2f}-{walls[-1]:.2f})",
                f"{figures[name]} x{over[name]:.2f}",
                max(run.lost for run in runs[name]),
                max(run.wrong for run in runs[name]),
                f"{statistics.median(run.calls for run in runs[name]):,.0f}",
                f"{statistics.median(run.counts['refused'] for run in runs[name]):,.0f}",
                caller.lines,
            ]
        )
    columns = ["", "wall s", "processor s", "lost", "wrong", "requests", "refused", "lines of code"]
    title = (
        f"{given.calls:,} calls to a service with 429s, 500s and slow replies, {given.at_once}"
        " concurrently: median (min-max), the most items lost and wrong"
    )
    print(table(title, columns, rows), flush=True)
    if left_out := CALLERS.keys() - here.keys():
        print(f"Left out: {', '.join(sorted(left_out))}; pip install 'ragasync[bench]'\n")


if __name__ == "__main__":
    main()
