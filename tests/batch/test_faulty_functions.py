"""Functions that misbehave: each item ends with an honest status, in the journal too."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ragasync import AsyncBatchProcessor, AsyncRetry, BatchResult, Journal
from ragasync.testing import run_on_virtual_clock
from tests.support.services import about, now, other_tasks, turns


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a journal may be written."""
    return tmp_path / "run.sqlite"


def written(path: Path) -> dict[int, str]:
    """Return the status of each item in a journal."""
    table = Journal(path).to_dataframe()
    assert table["item"].is_unique
    return dict(zip(map(int, table["item"]), table["status"], strict=True))


async def test_a_call_that_hangs_ends_at_its_timeout_and_is_written_as_failed(path: Path):
    """It holds its slot for that long only; the others are done."""

    async def hang(item: int) -> int:
        await asyncio.Event().wait() if item == 3 else await asyncio.sleep(1)
        return item

    processor = AsyncBatchProcessor(hang, 1, 2, 0, timeout=5, journal=path)
    result = await processor.process(range(8))
    assert [outcome.index for outcome in result.get_failed()] == [3]
    assert result[3].seconds == about(5)
    table = Journal(path).to_dataframe().set_index("item")
    assert table.loc["3", "error_type"] == "AttemptTimeout"
    assert written(path) == {item: "failed" if item == 3 else "done" for item in range(8)}


def generator(items: list[int]) -> Iterator[int]:
    """Return what yields the values, and has no length."""
    return (item for item in items)


@pytest.mark.parametrize(
    "garbage",
    [
        lambda items: None,
        generator,
        lambda items: {item: item for item in items},
        lambda items: items[1:],
        lambda items: [*items, 0],
        lambda items: "x" * len(items),
        lambda items: object(),
    ],
    ids=["None", "generator", "dict", "too few", "too many", "text", "object"],
)
async def test_garbage_of_a_batched_function_is_never_written_as_done(
    garbage: Callable[[list[int]], Any], path: Path
):
    """No item is given a value that may be another's; the other batches are done."""

    async def batched(items: list[int]) -> Any:
        return garbage(items) if 5 in items else items

    processor: AsyncBatchProcessor[int, int] = AsyncBatchProcessor(
        batched, 4, 2, 0, batched=True, journal=path
    )
    result = await processor.process(range(12))
    failed = {outcome.index for outcome in result.get_failed()}
    assert 5 in failed
    assert failed <= {4, 5, 6, 7}
    assert result.results == [None if item in failed else item for item in range(12)]
    assert written(path) == {item: "failed" if item in failed else "done" for item in range(12)}


class Unforeseen(BaseException):
    """Not an Exception, and nobody's in particular."""


@pytest.mark.parametrize("threads", [False, True], ids=["loop", "threads"])
def test_a_foreign_base_exception_is_the_failure_of_its_item_and_never_retried(
    threads: bool, path: Path
):
    """A panic of somebody's extension module, say: the journal keeps it like any other error."""

    def at_once(item: int) -> int:
        if item == 9:
            raise Unforeseen("a panic")
        return item

    async def on_the_loop(item: int) -> int:
        return at_once(item)

    processor: AsyncBatchProcessor[int, int] = AsyncBatchProcessor(
        at_once if threads else on_the_loop, max_concurrency=1, journal=Journal(path, name="job")
    )
    result = run_on_virtual_clock(processor.process(range(20)))
    assert [outcome.status for outcome in result] == ["done"] * 9 + ["failed"] + ["done"] * 10
    assert isinstance(result.errors[9], Unforeseen)
    assert result[9].attempts == 1
    assert written(path) == {item: "failed" if item == 9 else "done" for item in range(20)}


@pytest.mark.parametrize("threads", [False, True], ids=["loop", "threads"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupt_or_exit_goes_up_with_everything_done_in_the_journal(
    kind: type[BaseException], threads: bool, path: Path
):
    """It is no failure of an item: the next run begins with it again."""
    raising = [True]

    def at_once(item: int) -> int:
        if item == 9 and raising:
            raise kind
        return item

    async def on_the_loop(item: int) -> int:
        return at_once(item)

    processor: AsyncBatchProcessor[int, int] = AsyncBatchProcessor(
        at_once if threads else on_the_loop, max_concurrency=1, journal=Journal(path, name="job")
    )
    with pytest.raises(kind):
        run_on_virtual_clock(processor.process(range(20)))
    kept = processor.last_result
    assert kept is not None
    assert [outcome.status for outcome in kept] == ["done"] * 9 + ["cancelled"] + ["pending"] * 10
    assert written(path) == dict.fromkeys(range(9), "done")
    raising.clear()
    result = run_on_virtual_clock(processor.process(range(20)))
    assert [outcome.attempts for outcome in result] == [0] * 9 + [1] * 11


async def test_a_job_ends_though_its_calls_swallow_their_cancellation(path: Path):
    """They are waited for, none follows, and what they say counts; in the journal too."""

    async def swallow(item: int) -> str:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            await asyncio.sleep(2)
            if item == 1:
                raise OSError("half done") from None
            return "saved"
        return "done"

    processor = AsyncBatchProcessor(swallow, max_concurrency=3, journal=path)
    job = processor.start(range(9), on_current_loop=True)
    await asyncio.sleep(15)
    job.cancel()
    result = await job
    assert now() == about(17)
    expected = ["done"] * 3 + ["saved", "saved", "saved"] + [None] * 3
    assert result.results == expected
    assert result.pending_count == 3
    assert written(path) == dict.fromkeys(range(6), "done")
    assert other_tasks() == set()


async def test_calls_that_never_heed_a_cancellation_are_left_behind_at_the_second(path: Path):
    """No task can be killed: who asks twice does not wait, and what is not over is not done."""
    let_go = asyncio.Event()

    async def deaf(item: int) -> int:
        while item > 1 and not let_go.is_set():
            with suppress(asyncio.CancelledError):
                await let_go.wait()
        return item

    processor = AsyncBatchProcessor(deaf, max_concurrency=2, journal=path)
    running = asyncio.create_task(processor.process(range(9)))
    await asyncio.sleep(1)
    running.cancel()
    await asyncio.sleep(1)
    assert not running.done()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    kept = processor.last_result
    assert kept is not None
    before = [outcome.status for outcome in kept]
    let_go.set()
    await turns(20)
    assert before == ["done"] * 2 + ["pending"] * 7
    assert written(path) == {0: "done", 1: "done"}
    assert other_tasks() == set()


def kill_own_process_once(item: tuple[str, int]) -> int:
    """Return the number of an item; the first to come by the 17th is killed like by kill -9."""
    folder, number = item
    if number == 17:
        with suppress(FileExistsError):
            (Path(folder) / "was here").touch(exist_ok=False)
            os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.real_time
def test_a_killed_worker_process_costs_a_retry_and_each_item_is_written_once(path: Path):
    """With a journal as without; the next run calls for nothing."""
    items = [(str(path.parent), number) for number in range(60)]

    def run() -> BatchResult[int]:
        with ProcessPoolExecutor(2) as executor:
            processor: AsyncBatchProcessor[tuple[str, int], int] = AsyncBatchProcessor(
                kill_own_process_once,
                4,
                2,
                executor=executor,
                retry=AsyncRetry(2, 0.0),
                journal=path,
                key=lambda item: item[1],
            )
            return asyncio.run(processor.process(items))

    result = run()
    assert result.results == [*range(60)]
    assert result[17].attempts == 2
    assert written(path) == dict.fromkeys(range(60), "done")
    assert {outcome.attempts for outcome in run()} == {0}
