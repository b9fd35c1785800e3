"""What a journal does on threads: its own, so that nobody else's work holds it up."""

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ragasync import AsyncBatchProcessor, Journal, JournalError
from ragasync.engine.journalling import JournalSink
from ragasync.journal.use import JournalBinding, bind_journal
from ragasync.journal.writer import Writer


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
    """Whatever the run came to."""
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


class Opening(JournalBinding):
    """A journal that stops while it is being opened until it is let go."""

    begun, go_on = threading.Event(), threading.Event()

    def open(self) -> Any:
        """Open the journal, in time."""
        self.begun.set()
        assert self.go_on.wait(30)
        return super().open()


@pytest.mark.real_time
@pytest.mark.parametrize("cancellations", [1, 3])
async def test_a_run_cancelled_while_its_journal_opens_leaves_it_free(
    path: Path, cancellations: int
):
    """However often it is cancelled: what was opened is closed again."""
    use = bind_journal(same, path, None)
    assert use is not None
    slow = Opening(*(getattr(use, name) for name in JournalBinding.__dataclass_fields__))
    Opening.begun.clear()
    Opening.go_on.clear()
    task = asyncio.create_task(AsyncBatchProcessor(same, journal=slow).process([1]))
    await asyncio.to_thread(Opening.begun.wait, 30)
    for _ in range(cancellations):
        task.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
    Opening.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    # After several cancellations nobody waits for the thread, which may still be at it.
    for _ in range(1000):
        gc.collect()
        with suppress(JournalError):
            result = await AsyncBatchProcessor(same, journal=path).process([1])
            break
        await asyncio.sleep(0.01)
    assert result.all_succeeded
    assert {file.name for file in path.parent.iterdir()} == {"run.sqlite", "run.sqlite-lock"}


def test_a_writer_that_is_ended_by_anything_says_so():
    """A thread that just ended would let entries wait for ever."""

    def write(_group: object) -> None:
        raise SystemExit("no more")

    told: list[Exception] = []
    writer: Writer[int] = Writer(write, 0.0, 4, told.append, lambda: None)
    writer.put(1)
    writer.close()
    assert told == [writer.error]
    with pytest.raises(JournalError, match="ended by SystemExit: no more"):
        raise told[0]


class PanicException(BaseException):
    """As PyO3 raises it."""


class Odd(Exception):
    """An error that breaks whoever looks at it."""

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
def test_whatever_failed_is_written_and_read_again(path: Path, kind: str):
    """Errors that are no Exceptions, that have no words, or too many."""
    from ragasync.outcomes.outcome import Outcome

    error = ERRORS[kind]
    if kind == "huge":
        error.add_note("note " * 1_000_000)
    use = bind_journal(same, path, None)
    assert use is not None
    for turn in range(2):
        run = use.open()
        run.begin(lambda error: None, lambda: None)
        found = run.look_up([(0, "item")])
        if turn == 0:
            assert found.known == []
            run.note(Outcome(index=0, item="item", status="failed", error=error), None)
        run.close()
        assert run.error is None
    ((outcome, _),) = found.known
    recalled = outcome.error
    assert recalled is not None
    named = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error
    assert type(recalled).__name__ == type(named).__name__
    assert len(str(recalled)) < 5000
    assert sum(map(len, getattr(recalled, "__notes__", ()))) < 20_000
    assert path.stat().st_size < 100_000
    if kind != "odd":
        assert str(recalled).startswith(str(named)[:10])


@pytest.mark.parametrize(
    ("outcomes", "holds"), [([], False), ([False], False), ([False, True], True)]
)
def test_a_run_knows_whether_its_journal_holds_a_success(
    path: Path, outcomes: list[bool], holds: bool
):
    """Of an earlier run, whatever it does itself."""
    from ragasync.testing import run_on_virtual_clock

    async def call(item: bool) -> bool:
        if not item:
            raise ValueError("no")
        return item

    def processor() -> AsyncBatchProcessor[bool, bool]:
        return AsyncBatchProcessor(call, retry_count=0, journal=Journal(path, name="call"))

    run_on_virtual_clock(processor().process(outcomes))
    use = bind_journal(call, Journal(path, name="call"), None)
    assert use is not None
    opened = use.open()
    try:
        assert opened.holds_success is holds
        thread: Any = None
        sink: Any = None
        assert JournalSink(sink, opened, lambda *_: None, thread).holds_success is holds
    finally:
        opened.close()
