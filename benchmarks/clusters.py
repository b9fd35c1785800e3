"""
What a tiny function costs an item on a Dask cluster and on processes, beside their own `map`.

    python benchmarks/clusters.py --items 3200 --mapped 400 --rounds 3

Every contender runs the same function on the same two workers, which have started before, and is
checked to have given the right values in order. Dask's own `map` sends each item by itself, so it
gets fewer of them.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

from measuring import Figures, in_turns, ratios, table
from pools import double, warm_processes

from ragasync import AsyncBatchProcessor

WORKERS = 2
DASK_MAP, POOL_MAP = "client.map", "ProcessPoolExecutor.map"

Contender = Callable[[Sequence[int]], Sequence[int | None]]


def processed(
    executor: Executor, batch_size: int, work: Callable[..., Any], items: Sequence[int]
) -> Sequence[int | None]:
    """Process with everything that a run of ragasync does."""
    processor = AsyncBatchProcessor[int, int](work, batch_size, 4, executor=executor)
    return asyncio.run(processor.process(items)).results


async def double_async(item: int) -> int:
    """Return twice the item, on a loop."""
    return 2 * item


def on_pool(executor: Executor) -> dict[str, Contender]:
    """Return what runs on Python's own pool."""
    return {
        POOL_MAP: lambda items: list(executor.map(double, items)),
        f"{POOL_MAP}, chunks of 32": lambda items: list(executor.map(double, items, chunksize=32)),
        "ragasync, groups of 32": partial(processed, executor, 32, double),
        "ragasync, groups of 32, async": partial(processed, executor, 32, double_async),
        "ragasync, one item per group": partial(processed, executor, 1, double),
    }


def on_dask(client: Any) -> dict[str, Contender]:
    """Return what runs on a cluster."""
    executor = client.get_executor()

    def mapped(items: Sequence[int]) -> list[int]:
        given: list[int] = client.gather(client.map(double, items, pure=False))
        return given

    return {
        DASK_MAP: mapped,
        "ragasync, groups of 32": partial(processed, executor, 32, double),
        "ragasync, groups of 100": partial(processed, executor, 100, double),
        "ragasync, one item per group": partial(processed, executor, 1, double),
    }


def measured(contender: Contender, items: Sequence[int]) -> float:
    """Return wall seconds an item of a checked run."""
    began = time.perf_counter()
    values = contender(items)
    seconds = time.perf_counter() - began
    assert list(values) == [2 * item for item in items], "wrong values"
    return seconds / len(items)


def table_of(
    title: str,
    contenders: dict[str, Contender],
    reference: str,
    size: int,
    one_by_one: int,
    rounds: int,
) -> str:
    """Return what each costs an item; those that send each by itself get fewer items."""

    def items(name: str) -> range:
        alone = name in (DASK_MAP, "ragasync, one item per group")
        return range(one_by_one if alone else size)

    for contender in contenders.values():
        contender(range(64))
    figures = in_turns(
        {name: partial(measured, each, items(name)) for name, each in contenders.items()}, rounds
    )
    over = ratios(figures, reference)
    wall = {name: Figures([1e6 * one for one in each.values]) for name, each in figures.items()}
    return table(
        f"{title}, {WORKERS} workers: median (min-max)",
        ["", "wall µs an item", f"x {reference}"],
        [[name, wall[name], f"{over[name]:.3f}"] for name in wall],
    )


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Compare what an item costs on workers.")
    parser.add_argument("--items", type=int, default=3_200)
    parser.add_argument("--mapped", type=int, default=400, help="where each goes by itself")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    sizes = given.items, given.mapped, given.rounds
    with warm_processes(WORKERS) as pool:
        print(table_of("a tiny function on a pool", on_pool(pool), POOL_MAP, *sizes), flush=True)
    try:
        import distributed
    except ImportError:
        print("not installed: distributed")
        return
    # Without types of their own.
    cluster_of: Callable[..., Any] = distributed.LocalCluster
    client_of: Callable[..., Any] = distributed.Client
    with (
        cluster_of(
            n_workers=WORKERS,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        client_of(cluster) as client,
    ):
        print(table_of("a tiny function on Dask", on_dask(client), DASK_MAP, *sizes))


if __name__ == "__main__":
    main()
