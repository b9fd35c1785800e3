"""100,000 errors: their tracebacks are texts that they share, and hold no frames."""

import asyncio
import gc
import tracemalloc
import weakref
from pathlib import Path
from typing import ClassVar

import pytest

from ragasync import AsyncBatchProcessor, BatchResult

ERRORS, WRITTEN = 100_000, 20_000
KEPT = 20
"""How many errors of a kind keep their frames."""


class Payload:
    """A local variable of a call, which only a frame could keep alive."""

    alive: ClassVar[weakref.WeakSet["Payload"]] = weakref.WeakSet()

    def __init__(self) -> None:
        self.alive.add(self)


@pytest.fixture(autouse=True)
def _no_payload_yet() -> None:
    """Begin each test with none alive."""
    gc.collect()
    Payload.alive.clear()


async def look_up(item: int, payload: Payload) -> None:
    """Raise a KeyError."""
    raise KeyError(item)


async def fail(item: int) -> None:
    """Raise one of two kinds of error from another, with a note, out of a frame with a payload."""
    payload = Payload()
    try:
        await look_up(item, payload)
    except KeyError as cause:
        error = ValueError("odd", item) if item % 2 else OSError("even", item)
        error.add_note("a note that all share")
        raise error from cause


def run(count: int, journal: Path | None = None) -> BatchResult[None]:
    """Run a job of failing calls."""
    processor: AsyncBatchProcessor[int, None] = AsyncBatchProcessor(
        fail, max_concurrency=32, retry_count=0, journal=journal
    )
    return asyncio.run(processor.process(range(count)))


def check(result: BatchResult[None], count: int) -> None:
    """Check that every error has its full text, and only the first of each kind keep frames."""
    assert result.error_count == count
    assert len({id(stack) for stack in result.columns.tracebacks.values()}) == 2
    live = [error for error in result.errors if error is not None and error.__traceback__]
    assert len(live) == 2 * KEPT
    gc.collect()
    assert len(Payload.alive) == 2 * KEPT
    last = result[count - 1].traceback
    assert last is not None
    for words in ("KeyError", "direct cause", f"('odd', {count - 1})", "a note that all share"):
        assert words in last


@pytest.mark.slow
@pytest.mark.real_time
def test_100_000_errors_hold_no_frames_but_those_of_the_first_twenty_of_a_kind():
    """With their causes and notes; the texts of their stacks are two."""
    check(run(ERRORS), ERRORS)


@pytest.mark.slow
@pytest.mark.real_time
def test_20_000_errors_are_written_and_recalled(tmp_path: Path):
    """Each with its message, its notes and its stack, of which a result holds one text a kind."""
    path = tmp_path / "run.sqlite"
    check(run(WRITTEN, path), WRITTEN)
    recalled = run(WRITTEN, path)
    assert {outcome.attempts for outcome in recalled} == {0}
    assert len({id(stack) for stack in recalled.columns.tracebacks.values()}) == 2
    last = recalled[WRITTEN - 1].traceback
    assert last is not None
    for words in ("KeyError", "direct cause", f"('odd', {WRITTEN - 1})", "a note that all share"):
        assert words in last


@pytest.mark.slow
@pytest.mark.real_time
def test_an_error_costs_no_more_than_its_objects():
    """A thousand bytes each: itself, its cause, their arguments, a note and its dictionary."""

    def held(count: int) -> int:
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        result = run(count)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        assert result.error_count == count
        return after - before

    tracemalloc.start()
    try:
        held(1000)
        assert (held(5000) - held(1000)) / 4000 < 1500
    finally:
        tracemalloc.stop()


@pytest.mark.real_time
def test_a_stream_of_errors_keeps_none():
    """Whoever reads it decides what to keep."""

    async def read() -> int:
        processor: AsyncBatchProcessor[int, None] = AsyncBatchProcessor(fail, retry_count=0)
        count = 0
        async for outcome in processor.stream(range(5000)):
            count += outcome.status == "failed"
        return count

    assert asyncio.run(read()) == 5000
    gc.collect()
    assert len(Payload.alive) == 0
