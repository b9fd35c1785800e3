"""The threads of a journal: its own, so that no other work delays it."""

import asyncio
import gc
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from ragasync import AsyncBatchProcessor, Journal, JournaledError, JournalError

# Internals: a writer that waits when the test wants it to.
from ragasync.journal.session import Writer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a journal may be written."""
    return tmp_path / "run.sqlite"


async def same(item: Any) -> Any:
    """Return the item."""
    return item


@pytest.mark.real_time
@pytest.mark.parametrize("kind", ["numbers", "paths"])
async def test_a_busy_default_executor_does_not_hold_up_a_journal(path: Path, kind: str):
    """Opening, looking up and closing have a thread of their own."""
    busy, free = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(pool)

        def hold() -> None:
            busy.set()
            assert free.wait(60)

        held = loop.run_in_executor(None, hold)
        await asyncio.sleep(0)
        busy.wait(30)
        file = path.with_name("a.txt")
        file.write_text("a")  # a small file
        items = [1, 2, 3] if kind == "numbers" else [file]
        call = same if kind == "numbers" else name_of
        result = await AsyncBatchProcessor(call, journal=path).process(items)
        assert result.all_succeeded
        assert not free.is_set()
        free.set()
        await held


async def name_of(item: Path) -> str:
    """Return the name of a file."""
    return item.name


@pytest.mark.real_time
async def test_no_thread_of_a_journal_outlives_its_run(path: Path):
    """Neither after success nor after an error."""
    before = set(threading.enumerate())
    await AsyncBatchProcessor(same, journal=path).process(range(3))
    with pytest.raises(TypeError, match="pass key="):
        await AsyncBatchProcessor(same, journal=path).process([object()])
    for _ in range(1000):
        left = {thread.name for thread in {*threading.enumerate()} - before}
        if not any("journal" in name for name in left):
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"left behind: {left}")


async def until_locked(path: Path) -> None:
    """Wait until a run has begun to open a journal: it locks the file next to it first."""
    for _ in range(3000):
        try:
            with closing(sqlite3.connect(f"{path}-lock", timeout=0)) as connection:
                connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            return
        await asyncio.sleep(0.01)
    pytest.fail("no run has opened the journal")


@pytest.mark.real_time
@pytest.mark.parametrize("cancellations", [1, 3])
async def test_a_run_cancelled_while_its_journal_opens_leaves_it_free(
    path: Path, cancellations: int
):
    """However often it is cancelled, the opened journal is closed again."""
    await AsyncBatchProcessor(same, journal=path).process([1])
    slow = Journal(path, timeout=60)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # opening waits for this writer
        task = asyncio.create_task(AsyncBatchProcessor(same, journal=slow).process([2]))
        await until_locked(path)
        for _ in range(cancellations):
            task.cancel()
            for _ in range(10):
                await asyncio.sleep(0)
        other.rollback()
    with pytest.raises(asyncio.CancelledError):
        await task
    # After several cancellations nobody waits for the thread, which may still be opening.
    for _ in range(1000):
        gc.collect()
        with suppress(JournalError):
            result = await AsyncBatchProcessor(same, journal=path).process([1, 2])
            break
        await asyncio.sleep(0.01)
    assert result.all_succeeded
    assert {file.name for file in path.parent.iterdir()} == {"run.sqlite", "run.sqlite-lock"}


def test_a_writer_that_is_ended_by_any_exception_reports_it():
    """Otherwise entries would wait for a dead thread."""

    def write(_group: object) -> None:
        raise SystemExit("no more")

    reported: list[Exception] = []
    writer: Writer[int] = Writer(write, 0.0, 4, reported.append, lambda: None)
    writer.put(1)
    writer.close()
    assert reported == [writer.error]
    with pytest.raises(JournalError, match="ended by SystemExit: no more"):
        raise reported[0]


class PanicException(BaseException):
    """As PyO3 raises it."""


class Odd(Exception):
    """An error whose message cannot be read."""

    __notes__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        raise RuntimeError("no words")


ERRORS: dict[str, BaseException] = {
    "panic": PanicException("the core is gone"),
    "cancelled": asyncio.CancelledError("by a stranger"),
    "odd": Odd(),
    "huge": ValueError("word " * 1_000_000),
    "group": BaseExceptionGroup("two", [PanicException("a"), ValueError("b")]),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_any_error_is_written_and_read_again(path: Path, kind: str):
    """Errors that are not Exceptions, or whose message is missing or huge."""
    from ragasync.testing import run_on_virtual_clock

    error = ERRORS[kind]
    if kind == "huge":
        error.add_note("note " * 1_000_000)

    async def fail(item: str) -> None:
        raise error

    processor = AsyncBatchProcessor(fail, retry_count=0, journal=path)
    run_on_virtual_clock(processor.process(["item"]))
    (outcome,) = run_on_virtual_clock(processor.process(["item"]))
    assert (outcome.status, outcome.attempts) == ("failed", 0)
    recalled = outcome.error
    assert isinstance(recalled, JournaledError)
    named = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error
    assert type(recalled).__name__ == type(named).__name__
    assert len(str(recalled)) < 5000
    assert sum(map(len, getattr(recalled, "__notes__", ()))) < 20_000
    assert path.stat().st_size < 100_000
    if kind != "odd":
        assert str(recalled).startswith(str(named)[:10])


class NotFound(Exception):
    """A service's answer to a wrong path."""

    status_code = 404


@pytest.mark.parametrize(
    ("earlier", "holds"), [([], False), (["bad"], False), (["bad", "good"], True)]
)
def test_the_first_failures_stop_a_run_unless_its_journal_holds_a_success(
    path: Path, earlier: list[str], holds: bool
):
    """An earlier success shows that the path was right."""
    from ragasync.testing import run_on_virtual_clock

    async def call(item: str) -> str:
        if item == "bad":
            raise ValueError("bad")
        if item != "good":
            raise NotFound("no such path")
        return item

    processor = AsyncBatchProcessor(call, retry_count=0, max_initial_failures=3, journal=path)
    run_on_virtual_clock(processor.process(earlier))
    result = run_on_virtual_clock(processor.process([*earlier, *map(str, range(20))]))
    assert (result.stopped_because is None) is holds
    assert (result.pending_count == 0) is holds
