"""A disk that runs full under a journal: a clear error, and everything done in memory."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.requirements import go_without
from tests.support.scripts import printed_by

pytestmark = pytest.mark.real_time

JOB = """
import asyncio, resource, signal, sys
from ragasync import AsyncBatchProcessor, Journal, JournalError

calls = []

async def text(item):
    calls.append(item)
    await asyncio.sleep(0)
    return f"{item} " * 500

def run(path, items):
    calls.clear()
    processor = AsyncBatchProcessor(
        text, max_concurrency=8, journal=Journal(path, flush_items=20)
    )
    try:
        result = asyncio.run(processor.process(range(items)))
    except JournalError as error:
        print(error, *error.__notes__, sep="\\n")
        result = processor.last_result
    good = all(one.value == f"{one.index} " * 500 for one in result if one.status == "done")
    print(len(calls), result.success_count, good, result.stopped_because is not None)

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a journal may be written."""
    return tmp_path / "run.sqlite"


def test_a_full_disk_stops_the_job_with_everything_done_in_memory(path: Path):
    """The error says what to do; with room again the next run goes on from what was written."""
    limited = f"limit(1_500_000)\nrun({str(path)!r}, 5000)\nlimit(-1)\nrun({str(path)!r}, 5000)"
    message, note, stopped, went_on = printed_by(JOB, limited)
    assert message.startswith(f"the journal {str(path)!r} cannot be written (")
    assert message.endswith("free space on the disk and run again; what was written before is safe")
    called, done = map(int, stopped.split()[:2])
    assert note.startswith(f"ragasync: {done:,} of 5,000 items were done")
    assert stopped == f"{called} {done} True True"
    assert called == done < 2500
    called_again = int(went_on.split()[0])
    written = 5000 - called_again
    assert went_on == f"{called_again} 5000 True False"
    assert done - (20 + 8) <= written <= done


def test_a_disk_that_is_full_from_the_start_is_an_error_before_any_call(path: Path):
    """Nothing that could not be kept is begun; with room it runs as if nothing had been."""
    script = f"limit(2000)\ntry:\n    run({str(path)!r}, 10)\nexcept Exception: print('?')\n"
    script += f"limit(-1)\nrun({str(path)!r}, 10)"
    message, _, stopped, went_on = printed_by(JOB, script)
    assert "cannot be written" in message
    assert stopped == "0 0 True False"
    assert went_on == "10 10 True False"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a disk of half a megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        go_without("only root may mount a small disk, and not in every container")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_small_disk_that_runs_full_stops_the_job(small_disk: Path):
    """What was written is whole, and with a little more room it is known again."""
    path = small_disk / "run.sqlite"
    message, _, stopped = printed_by(JOB, f"run({str(path)!r}, 5000)")
    assert "cannot be written" in message
    assert stopped.endswith("True True")
    # To begin a run is a commit too, which the full disk has room for only by chance.
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    (known,) = printed_by(JOB, f"run({str(path)!r}, 40)")
    assert known == "0 40 True False"
