"""A journal in trouble: a slow disk, a lock, a clock set back; nothing is lost in silence."""

import asyncio
import itertools
import json
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ragasync import AsyncBatchProcessor, BatchResult, Journal, JournalError, RateLimiter
from ragasync.testing import run_on_virtual_clock
from tests.support.services import turns

CALLS: list[int] = []
"""The items of all calls of a test, in order."""


@pytest.fixture(autouse=True)
def _no_calls_yet() -> None:
    """Begin each test with an empty list of calls."""
    CALLS.clear()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a journal may be written."""
    return tmp_path / "run.sqlite"


async def double(item: int) -> int:
    """Twice the item, without waiting."""
    CALLS.append(item)
    await asyncio.sleep(0)
    return 2 * item


def doubling(journal: Journal) -> AsyncBatchProcessor[int, int]:
    """A processor with a journal and eight concurrent calls."""
    return AsyncBatchProcessor(double, max_concurrency=8, retry_count=0, journal=journal)


class Slow:
    """Keeps values as JSON, and stops at the first until it is let go."""

    name = "json"

    def __init__(self) -> None:
        self.begun, self.release = threading.Event(), threading.Event()

    def dumps(self, value: object) -> bytes:
        """Return a value as JSON, in time."""
        self.begun.set()
        assert self.release.wait(30)
        return json.dumps(value).encode()

    def loads(self, data: bytes) -> Any:
        """Return a value."""
        return json.loads(data)


@pytest.mark.real_time
@pytest.mark.parametrize("group", [1, 2, 15])
async def test_a_slow_disk_holds_the_job_back_at_one_group(path: Path, group: int):
    """So that no crash, and no power cut, can undo more than that and the calls in flight."""
    slow = Slow()
    journal = Journal(path, flush_items=group, flush_seconds=0.0, serializer=slow)
    running = asyncio.create_task(doubling(journal).process(range(200)))
    await asyncio.to_thread(slow.begun.wait, 30)
    await turns(1000)
    called = len(CALLS)
    slow.release.set()
    assert group <= called < group + 8
    assert (await running).all_succeeded
    assert len(CALLS) == len(Journal(path).to_dataframe()) == 200


# ── locks ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.real_time
def test_a_run_in_another_process_keeps_others_out_until_it_dies(path: Path):
    """Immediately, with advice; the lock ends with its process, however that ends."""
    script = f"""
    import asyncio
    from ragasync import AsyncBatchProcessor, Journal

    async def hang(item):
        print("begun", flush=True)
        await asyncio.sleep(600)

    journal = Journal({str(path)!r}, name="double")
    asyncio.run(AsyncBatchProcessor(hang, journal=journal).process([1]))
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(JournalError, match="by another run: wait for it to end, or stop"):
            asyncio.run(doubling(Journal(path)).process(range(10)))
        assert CALLS == []
        other.kill()
    # The source of what was passed on a command line is known from Python 3.13 on.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the source of 'double' has changed", UserWarning)
        assert asyncio.run(doubling(Journal(path)).process(range(10))).all_succeeded


def test_a_file_that_another_program_is_writing_is_waited_for_and_given_up(path: Path):
    """The error names the seconds, and the argument."""
    run_on_virtual_clock(doubling(Journal(path)).process(range(10)))
    CALLS.clear()
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        locked = r"locked by another process for more than 0.05 s: .* longer timeout="
        with pytest.raises(JournalError, match=locked):
            run_on_virtual_clock(doubling(Journal(path, timeout=0.05)).process(range(20)))
        assert CALLS == []
        other.rollback()
        result = run_on_virtual_clock(doubling(Journal(path, timeout=0.05)).process(range(20)))
    assert (result.success_count, CALLS) == (20, [*range(10, 20)])


@pytest.mark.real_time
async def test_a_lock_that_comes_while_the_job_runs_stops_it_with_all_kept(path: Path):
    """No call is begun whose outcome could not be written."""
    with closing(sqlite3.connect(path)) as other:

        def items() -> Iterator[int]:
            yield from range(100)
            other.execute("BEGIN IMMEDIATE")
            yield from range(100, 100_000)

        processor = doubling(Journal(path, timeout=0.05, flush_items=10, name="double"))
        with pytest.raises(JournalError, match="locked by another process") as caught:
            await processor.process(items())
        other.rollback()
    kept = processor.last_result
    assert kept is not None
    assert kept.stopped_because is not None
    assert "locked by another process" in kept.stopped_because
    assert [outcome.value for outcome in kept][: len(CALLS)] == [2 * item for item in CALLS]
    assert 100 <= len(CALLS) <= 100 + 2 * (10 + 8)
    assert any("items were done" in note for note in caught.value.__notes__)


# ── the clock ───────────────────────────────────────────────────────────────────────────────────


def test_a_clock_set_back_changes_only_when_outcomes_were_recorded(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    """All lengths of time are measured by a clock that only goes forward."""
    jumping = itertools.count(2_000_000_000.0, -86_400.0)  # a day back at every look
    monkeypatch.setattr(time, "time", lambda: next(jumping))

    async def slow(item: int) -> int:
        await asyncio.sleep(2.0)
        return item

    def run(items: int) -> BatchResult[int]:
        journal = Journal(path, flush_seconds=0.0)
        processor: AsyncBatchProcessor[int, int] = AsyncBatchProcessor(
            slow, max_concurrency=1, journal=journal, rate_limiter=RateLimiter(0.25), timeout=3.0
        )
        return run_on_virtual_clock(processor.process(range(items)))

    result = run(4)
    assert [outcome.seconds for outcome in result] == pytest.approx([2.0] * 4)
    # A slow disk may take longer to open the journal than the virtual clock stands still for it.
    began = result[0].started
    starts = [outcome.started - began for outcome in result]
    assert starts == pytest.approx([0.0, 4.0, 8.0, 12.0], abs=0.1)
    table = Journal(path).to_dataframe()
    assert list(table["seconds"]) == pytest.approx([2.0] * 4)
    assert table["recorded_at"].is_monotonic_decreasing
    again = run(6)
    assert again.results == [*range(6)]
    assert [outcome.attempts for outcome in again] == [0, 0, 0, 0, 1, 1]
