"""Documents on a real Dask cluster: loaded, chunked and embedded by two worker processes."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragasync import AsyncBatchProcessor, AsyncDocumentProcessor, AsyncRetry, note_usage

# Internals: how long a batch waits for more items.
from ragasync._engine import batching
from ragasync.documents import Document, HashingEmbedder, SqliteStore, Stage
from tests.support.dask_cluster import dask_client
from tests.support.requirements import needs

needs("distributed", "loky")

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


@pytest.fixture(params=["dask", "process pool", "loky"])
def executor(request: Any) -> Iterator[Executor]:
    """Each kind of executor."""
    if request.param == "dask":
        yield request.getfixturevalue("client").get_executor()
    elif request.param == "loky":
        import loky

        pool = loky.ProcessPoolExecutor(1)
        yield pool
        pool.shutdown()
    else:
        with ProcessPoolExecutor(1) as pool:
            yield pool


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of 150 files."""
    place = tmp_path / "files"
    place.mkdir()
    for number in range(150):
        (place / f"{number:03}.txt").write_text(f"text of number {number}. " * 20)
    return place


@pytest.fixture
def store() -> Iterator[SqliteStore]:
    """A store in memory."""
    with SqliteStore(":memory:") as store:
        yield store


def until(seen: Callable[[], bool]) -> None:
    """Look again and again; the test's own time limit ends it."""
    while not seen():
        time.sleep(0.01)


def stored_ids(store: SqliteStore) -> list[str]:
    """The ids of the stored documents."""
    return sorted(each.id for each in store.documents())


def ids_of(outcomes: list[Any]) -> list[str]:
    """The ids of the items of outcomes."""
    return sorted(outcome.item.id for outcome in outcomes)


# ── a worker that is killed ─────────────────────────────────────────────────────────────────


async def test_no_document_is_lost_when_a_worker_is_killed(
    client: Any, folder: Path, store: SqliteStore
):
    """Nor stored twice; one that fails anyway fails alone."""
    processes = list(client.run(os.getpid).values())
    killed = []

    def split(text: str) -> list[str]:
        time.sleep(0.005)
        if "number 77." in text:
            raise ValueError("cannot split it")
        return [text]

    def kill(done: int, total: int | None) -> None:
        if done > 20 and not killed:
            os.kill(processes[0], signal.SIGKILL)
            killed.append(done)

    embedded: list[str] = []

    def embed(texts: list[str]) -> Any:
        embedded.extend(texts)
        return np.ones((len(texts), 4), np.float32)

    processor = AsyncDocumentProcessor(
        chunk=split, embed=embed, store=store, executor=client.get_executor()
    )
    result = await processor.process(folder, kill)
    assert killed
    assert (result.total, result.success_count) == (150, 149)
    (failed,) = result.get_failed()
    assert (failed.stage, str(failed.error)) == ("chunk", "cannot split it")
    done = [outcome for outcome in result if outcome.status == "done"]
    assert stored_ids(store) == ids_of(done)
    assert len(embedded) == len(set(embedded)) == 149


async def test_a_document_that_kills_workers_fails_alone(
    client: Any, folder: Path, store: SqliteStore
):
    """All others are stored."""

    def split(text: str) -> list[str]:
        if "number 77." in text:
            os.kill(os.getpid(), signal.SIGKILL)
        return [text]

    processor = AsyncDocumentProcessor(chunk=split, store=store, executor=client.get_executor())
    result = await processor.process(folder)
    assert ids_of(result.get_failed()) == [str(folder / "077.txt")]
    assert len(store.documents()) == 149


# ── the same as on threads ──────────────────────────────────────────────────────────────────


async def test_a_path_that_workers_cannot_read_is_the_failure_of_its_document(
    client: Any, folder: Path, store: SqliteStore
):
    """In the stage "load", with the error and the stack of the worker."""
    here = os.getpid()

    def load(path: Path) -> str:
        if os.getpid() != here and path.name == "077.txt":
            path = Path("/of/another/machine.txt")
        return path.read_text()

    processor = AsyncDocumentProcessor(load=load, store=store, executor=client.get_executor())
    result = await processor.process(folder)
    (failed,) = result.get_failed()
    assert failed.stage == "load"
    assert isinstance(failed.error, FileNotFoundError)
    assert failed.error.filename == "/of/another/machine.txt"
    assert "in load" in str(failed.traceback)
    assert len(store.documents()) == 149


async def test_a_loader_of_a_cell_may_give_several_documents(client: Any, store: SqliteStore):
    """A generator with a closure, whose class workers do not know."""
    factor = 3

    class Row(str):
        pass

    def rows(source: str) -> Iterator[Document]:
        for number in range(factor):
            yield Document(f"{source}{number}", Row(f"row {number} of {source}"), {"row": number})

    processor = AsyncDocumentProcessor(rows, store=store, executor=client.get_executor())
    result = await processor.process(iter("abcd"))
    assert [done.document_count for done in result.results if done] == [3] * 4
    assert {(each.id, each.metadata["row"]) for each in store.documents()} == {
        (f"{source}{number}", number) for source in "abcd" for number in range(3)
    }


async def test_unreadable_files_are_skipped(client: Any, folder: Path, store: SqliteStore):
    """The reason is an error of the worker."""
    (folder / "binary.txt").write_bytes(b"\0\1\2\3" * 100)
    processor = AsyncDocumentProcessor(
        store=store, on_unreadable="skip", executor=client.get_executor()
    )
    result = await processor.process(folder)
    assert result.all_succeeded
    assert [done.skipped for done in result.results if done and done.skipped] == ["binary"]


async def test_a_second_run_skips_what_is_stored_and_prunes_what_is_gone(
    client: Any, folder: Path, store: SqliteStore
):
    """And processes what has changed."""
    processor = AsyncDocumentProcessor(store=store, executor=client.get_executor())
    assert (await processor.process(folder)).success_count == 150
    (folder / "001.txt").write_text("something else")
    (folder / "002.txt").unlink()
    result = await processor.process(folder, prune=True)
    changed = [done.id for done in result.results if done and not done.unchanged]
    assert changed == [str(folder / "001.txt")]
    assert len(store.documents()) == 149
    assert str(folder / "002.txt") not in stored_ids(store)


def test_a_cancelled_job_leaves_no_task_on_the_cluster(
    client: Any, folder: Path, store: SqliteStore, tmp_path: Path
):
    """Those that run cannot be interrupted; the others never begin."""
    gate = tmp_path / "open"

    def split(text: str) -> list[str]:
        (tmp_path / f"began {os.getpid()}").touch()
        while not gate.exists():
            time.sleep(0.01)
        return [text]

    def tasks(dask_scheduler: Any) -> set[str]:
        return set(dask_scheduler.tasks)

    # Dask moves no short task to a worker that starts again after the tests that have killed it.
    client.wait_for_workers(2)
    before = client.run_on_scheduler(tasks)
    processor = AsyncDocumentProcessor(chunk=split, store=store, executor=client.get_executor())
    job = processor.start(folder)
    until(lambda: len(list(tmp_path.glob("began *"))) == 2)
    job.cancel()
    result = job.wait()
    assert result.success_count == 0
    assert result.cancelled_count + result.pending_count == 150
    assert not store.documents()
    gate.touch()
    until(lambda: client.run_on_scheduler(tasks) <= before)


async def test_a_value_is_pickled_once_whatever_text_is_in_it(client: Any, tmp_path: Path):
    """Dask pickles again what mentions the main module, as many Python files do."""
    pickled = tmp_path / "pickled"

    class Value:
        def __reduce__(self) -> tuple[type[str], tuple[str]]:
            with pickled.open("a") as file:
                file.write("once\n")
            return str, ('if __name__ == "__main__":',)

    processor: Any = AsyncBatchProcessor(lambda _: Value(), executor=client.get_executor())
    result = await processor.process([1])
    assert result.results == ['if __name__ == "__main__":']
    assert pickled.read_text() == "once\n"


# ── a model on the workers ──────────────────────────────────────────────────────────────────


async def test_documents_are_prepared_and_embedded_on_any_executor(
    executor: Executor, folder: Path, store: SqliteStore
):
    """As on threads; limits, retries and the store stay here."""
    expected = await AsyncDocumentProcessor().process(folder)
    processor = AsyncDocumentProcessor(
        embed=Stage(HashingEmbedder(), executor=executor),
        store=store,
        executor=executor,
        keep_content=True,
    )
    result = await processor.process(folder)
    assert result.all_succeeded
    assert len(store.documents()) == 150
    for mine, other in zip(result.results, expected.results, strict=True):
        assert mine is not None
        assert other is not None
        assert mine.chunks == other.chunks
        assert np.array_equal(mine.embeddings, other.embeddings)


async def test_an_embedder_on_workers_gets_batches_of_many_documents(
    executor: Executor, folder: Path, tmp_path: Path, monkeypatch
):
    """A call that failed is retried; usage that is noted on a worker travels back."""
    # On a busy machine, reading files pauses for longer than a batch waits to be filled.
    monkeypatch.setattr(batching, "FILL_TIMEOUT", 60.0)
    calls, failed, here = tmp_path / "calls", tmp_path / "failed", os.getpid()

    def embed(texts: list[str]) -> list[list[float]]:
        note_usage(tokens=len(texts), cost=1.0)
        if not failed.exists():
            failed.touch()
            raise ConnectionError("the model is still loading")
        with calls.open("a") as file:
            file.write(f"{len(texts)} {os.getpid() != here}\n")
        return [[len(text), 1.0] for text in texts]

    processor = AsyncDocumentProcessor(
        chunk=lambda text: [text],
        embed=Stage(embed, executor=executor, batch_size=50, retry=AsyncRetry(2, 0.01)),
    )
    result = await processor.process(folder)
    result.raise_for_errors()
    assert [done.embeddings[0, 0] for done in result.results if done] == [
        len(done.document.text) for done in result.results if done and done.document
    ]
    assert calls.read_text().splitlines() == ["50 True"] * 3
    assert result.usage.requests >= 4  # the failed ones count, too
    assert result.usage.tokens == 50 * result.usage.requests
    assert sum(done.tokens or 0 for done in result.results if done) == result.usage.tokens
    assert sum(stage.cost for stage in result.stats.stages) == result.usage.cost
