"""A journal in trouble: a slow or full disk, a lock, a broken file; nothing is lost in silence."""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from services import turns

from ragasync import AsyncBatchProcessor, Journal

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
    """Return twice the item, at once."""
    CALLS.append(item)
    await asyncio.sleep(0)
    return 2 * item


def doubling(journal: Journal) -> AsyncBatchProcessor[int, int]:
    """Return a processor of eight calls at once that writes to a journal."""
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
