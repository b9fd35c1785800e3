"""A real Dask cluster that starts nothing: the job says so, and goes on when it does again."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ragasync import AsyncBatchProcessor, AsyncDocumentProcessor
from tests.support.requirements import needs

needs("distributed")

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of one worker, which is paused at 200 MB."""
    import dask
    from distributed import LocalCluster

    memory = {"target": False, "spill": False, "pause": 0.5, "terminate": False}
    settings = {f"distributed.worker.memory.{name}": value for name, value in memory.items()}
    settings["distributed.worker.memory.monitor-interval"] = "50ms"
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            memory_limit="400MB",
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
    ):
        yield cluster


@pytest.fixture
def client(cluster: Any) -> Iterator[Any]:
    """A client of the cluster, whose worker has its memory again."""
    from distributed import Client

    with Client(cluster) as client:
        client.run(free)
        until(lambda: "running" in str(http_status(client)))
        yield client


def http_status(client: Any) -> list[str]:
    """The status of each worker."""
    return [worker["status"] for worker in client.scheduler_info()["workers"].values()]


def free() -> None:
    """Let go of what `keep` has kept on this worker."""
    vars(sys).pop("_kept", None)


def keep(item: int) -> int:
    """Keep 40 MB for good, as a cache without a bound does."""
    vars(sys).setdefault("_kept", []).append(bytearray(40_000_000))
    return item


@contextmanager
def heard() -> Iterator[list[warnings.WarningMessage]]:
    """Collect the warnings of all threads that are for users."""
    with warnings.catch_warnings(record=True, category=UserWarning) as caught:
        warnings.simplefilter("always", UserWarning)
        yield caught


def until(seen: Callable[[], bool]) -> None:
    """Look again and again; the test's own time limit ends it."""
    while not seen():
        time.sleep(0.02)


def test_a_job_says_that_the_workers_are_paused(client: Any):
    """In a warning, in its repr, in its progress, and in what explains the result."""
    processor = AsyncBatchProcessor(keep, 1, 2, executor=client.get_executor())
    with heard() as caught:
        job = processor.start(range(40))
        until(lambda: bool(job.progress.halt))
        time.sleep(2.5)  # another question, and no second warning
        said, progress = repr(job), job.progress
        job.cancel()
        result = job.wait()
    (warning,) = caught
    assert "1 of 1 Dask workers is paused" in str(warning.message)
    assert "1 of 1 Dask workers is paused, out of memory" in said
    assert " of 381 MiB" in progress.halt
    assert "client.restart()" in progress.halt
    assert progress.limited_by == "paused"
    assert "Dask workers is paused" in " ".join(result.explain().split())
    assert result.stats.halt.seconds > 2
    assert not job.progress.halt


def test_a_job_goes_on_when_the_memory_is_freed(client: Any):
    """Nothing is lost, and the result still says what held it up."""
    processor = AsyncBatchProcessor(keep, 1, 2, executor=client.get_executor())
    with heard() as caught:
        job = processor.start(range(8))
        until(lambda: bool(job.progress.halt))
        client.run(free)
        until(lambda: not job.progress.halt)
        while not job.done:
            client.run(free)
            time.sleep(0.1)
        result = job.wait()
    assert result.results == list(range(8))
    assert "paused" in str(caught[0].message)
    assert "Nothing came back from the executor for" in " ".join(result.explain().split())


def load(source: str) -> str:
    """Keep 40 MB for good, and give a text."""
    keep(0)
    return f"the text of {source}"


def test_a_pipeline_says_that_the_workers_of_its_stages_are_paused(client: Any):
    """The time counts once, though loading and cutting wait for the same worker."""
    processor = AsyncDocumentProcessor(load, executor=client.get_executor())
    with heard():
        job = processor.start(f"source {number}" for number in range(40))
        until(lambda: job.progress.done > 0 and bool(job.progress.halt))
        time.sleep(1.5)
        said, limited_by = repr(job), job.progress.limited_by
        job.cancel()
        result = job.wait()
    assert "1 of 1 Dask workers is paused" in said
    assert limited_by == "paused"
    assert "Dask workers is paused" in " ".join(result.explain().split())
    assert result.stats.halt.seconds < result.seconds


def test_a_cluster_without_workers_is_reported(cluster: Any, client: Any):
    """It would wait for one for good."""
    processor = AsyncBatchProcessor(abs, 1, 2, executor=client.get_executor())
    cluster.scale(0)
    until(lambda: not http_status(client))
    with heard() as caught:
        job = processor.start(range(4))
        until(lambda: "has no workers" in repr(job))
        cluster.scale(1)
        result = job.wait()
    assert result.results == [0, 1, 2, 3]
    assert "has no workers" in str(caught[0].message)


def test_slow_calls_on_workers_that_are_well_are_no_halt(client: Any):
    """Nobody is warned of a call that takes its time."""
    with heard() as caught:
        processor = AsyncBatchProcessor(time.sleep, 1, 1, executor=client.get_executor())
        result = processor.process_sync([5.0])
    assert result.all_succeeded
    assert caught == []
    assert "Dask" not in result.explain()


def test_other_executors_are_not_asked(tmp_path: Path):
    """They have no workers that could be paused."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        result = AsyncBatchProcessor(time.sleep, 1, 1, executor=pool).process_sync([2.5])
    assert result.all_succeeded
    assert not result.stats.halt.why
