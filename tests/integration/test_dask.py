"""A real Dask cluster: two worker processes, one of which is killed in the middle."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ragasync import AsyncBatchProcessor, AsyncRetry, WorkerDied
from tests.support.dask_cluster import dask_client
from tests.support.requirements import needs

needs("distributed")

pytestmark = [
    pytest.mark.real_time,
    # A nanny that starts a worker again leaves things to the collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """A client of a real cluster, shared by the tests of this file."""
    with dask_client() as client:
        yield client


async def test_closures_and_async_functions_run_on_a_cluster(client: Any):
    """And an item's error comes back with the worker's stack, alone."""
    factor = 3

    async def work(item: int) -> tuple[int, int]:
        await asyncio.sleep(0)
        return factor * (10 // item), os.getpid()

    processor: Any = AsyncBatchProcessor(work, 4, 2, 0, executor=client.get_executor())
    result = await processor.process(iter([1, 0, 5]))
    assert [value and value[0] for value in result.results] == [30, None, 6]
    assert isinstance(result.errors[1], ZeroDivisionError)
    assert "in work" in str(result[1].traceback)
    assert os.getpid() not in {value[1] for value in result.get_successful()}


async def test_equal_items_are_called_for_each(client: Any, tmp_path: Path):
    """Also by an executor without pure=False, for which Dask would compute equal calls once."""
    calls = tmp_path / "calls"

    def note(item: int) -> int:
        with calls.open("a") as file:
            file.write("x")
        return item

    processor = AsyncBatchProcessor(note, 1, 2, executor=client.get_executor())
    result = await processor.process([7] * 6)
    assert result.results == [7] * 6
    assert len(calls.read_text()) == 6


async def test_every_item_has_one_outcome_when_a_worker_is_killed_among_10_000(client: Any):
    """What was on it is done again elsewhere."""
    processes = list(client.run(os.getpid).values())
    killed = asyncio.Event()

    def report(done: int, total: int | None) -> None:
        if 1_000 < done < 9_000 and not killed.is_set():
            os.kill(processes[0], signal.SIGKILL)
            killed.set()

    processor = AsyncBatchProcessor(
        lambda item: 2 * item, 50, 4, executor=client.get_executor(), retry=AsyncRetry(3, 0.1)
    )
    result = await processor.process(range(10_000), report)
    assert killed.is_set()
    assert result.results == [2 * item for item in range(10_000)]
    assert (result.success_count, result.total) == (10_000, 10_000)
    assert [outcome.index for outcome in result] == list(range(10_000))


async def test_an_item_that_kills_workers_fails_alone_on_a_cluster(client: Any):
    """Dask gives up the whole group; its other items are done."""

    def die_of_5(item: int) -> int:
        if item == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    processor = AsyncBatchProcessor(die_of_5, 8, 2, 0, executor=client.get_executor())
    result = await processor.process(iter(range(24)))
    assert [outcome.index for outcome in result.get_failed()] == [5]
    assert isinstance(result.errors[5], WorkerDied)
    assert result.success_count == 23


def test_a_job_that_is_cancelled_stops_what_the_cluster_has_not_begun(client: Any, tmp_path: Path):
    """The workers are busy with the first groups; the others never run."""
    gate = tmp_path / "open"

    def wait(item: int) -> int:
        (tmp_path / f"began {item}").touch()
        while not gate.exists():
            time.sleep(0.01)
        return item

    def has_begun() -> list[Path]:
        return list(tmp_path.glob("began *"))

    def waiting(dask_worker: Any) -> int:
        return len(dask_worker.state.ready)

    processor = AsyncBatchProcessor(wait, 1, 8, 0, executor=client.get_executor())
    job = processor.start(range(100))
    until(lambda: len(has_begun()) == 2 and sum(client.run(waiting).values()) > 0)
    job.cancel()
    result = job.wait()
    until(lambda: sum(client.run(waiting).values()) == 0)
    gate.touch()
    assert (result.cancelled_count, result.pending_count) == (8, 92)
    AsyncBatchProcessor(abs, 1, 2, executor=client.get_executor()).process_sync(range(8))
    assert len(has_begun()) == 2


def until(seen: Callable[[], bool]) -> None:
    """Look again and again; the test's own time limit ends it."""
    while not seen():
        time.sleep(0.01)
