"""
How close max_concurrency="auto" comes to the best fixed setting, on services that hide their limit.

    python benchmarks/adaptive.py --items 5000

On the virtual clock: the figures are items a second of virtual time that succeeded, the same on
every machine. Each service takes 0.2 s a call, the latencies a lognormal's with a sigma of 0.3.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Literal

from measuring import table

from ragasync import AsyncBatchProcessor
from ragasync.simulation import Latency, ScriptedService
from ragasync.testing import run_on_virtual_clock

SETTINGS: tuple[int | Literal["auto"], ...] = (4, 8, 16, 32, 64, 128, "auto")

SERVICES: dict[str, Callable[[], ScriptedService]] = {
    "capacity 12": lambda: ScriptedService(latency=Latency.lognormal(0.2, 0.3), capacity=12),
    "capacity 32": lambda: ScriptedService(latency=Latency.lognormal(0.2, 0.3), capacity=32),
    "capacity 64": lambda: ScriptedService(latency=Latency.lognormal(0.2, 0.3), capacity=64),
    "100 a second": lambda: ScriptedService(latency=Latency.lognormal(0.2, 0.3), rate=100),
}


def a_second(service: ScriptedService, at_once: int | Literal["auto"], items: int) -> float:
    """Return how many items succeeded in a second."""
    processor: AsyncBatchProcessor[int, object] = AsyncBatchProcessor(
        service, max_concurrency=at_once, retry_count=8, retry_delay=0.5
    )
    result = run_on_virtual_clock(processor.process(range(items)))
    return result.success_count / result.seconds


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Compare auto with fixed settings.")
    parser.add_argument("--items", type=int, default=5_000)
    items = parser.parse_args().items
    figures = {
        name: [a_second(make(), setting, items) for setting in SETTINGS]
        for name, make in SERVICES.items()
    }
    rows = [
        [f"ragasync, {setting if setting != 'auto' else 'auto'} at once"]
        + [f"{each[place]:.0f} ({each[place] / max(each[:-1]):.0%})" for each in figures.values()]
        for place, setting in enumerate(SETTINGS)
    ]
    columns = ["items a second (share of the best fixed)", *SERVICES]
    print(table(f"{items:,} items on services that hide their limit", columns, rows))


if __name__ == "__main__":
    main()
