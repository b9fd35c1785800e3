"""Incomplete files of a killed run: refused with an error that says so, never started again."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ragasync import AsyncBatchProcessor, Journal, JournalError

# The killed process has its own function of this name, whose source Python 3.13 keeps for `-c` too.
pytestmark = pytest.mark.filterwarnings("ignore:the source of 'double' has changed")

_KILLED = """
import asyncio, os, signal, sys
from ragasync import AsyncBatchProcessor, Journal

async def double(item):
    if item == 20:
        await asyncio.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * item

journal = Journal(sys.argv[1], flush_seconds=0.0, flush_items=1)
AsyncBatchProcessor(double, max_concurrency=1, journal=journal).process_sync(range(21))
"""


async def double(item: int) -> int:
    """Return twice the item."""
    return 2 * item


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what a killed run has left."""
    folder = tmp_path_factory.mktemp("killed")
    subprocess.run([sys.executable, "-c", _KILLED, folder / "run.sqlite"], check=False)
    assert (folder / "run.sqlite-wal").stat().st_size
    return folder


@pytest.fixture
def path(killed: Path, tmp_path: Path) -> Path:
    """Return a journal of which a killed run has written 20 outcomes."""
    shutil.copytree(killed, tmp_path / "copy")
    return tmp_path / "copy" / "run.sqlite"


def flip_a_bit(log: Path) -> None:
    """Damage the middle of a file."""
    content = bytearray(log.read_bytes())
    content[len(content) // 2] ^= 1
    log.write_bytes(content)


def copied_alone(path: Path) -> Path:
    """Return a copy of a journal in an empty folder, without its log."""
    (path.parent / "alone").mkdir()
    return Path(shutil.copy(path, path.parent / "alone"))


def linked(path: Path) -> Path:
    """Another name of a journal, without a log next to it."""
    path.with_name("link").hardlink_to(path)
    return path.with_name("link")


def on_log(act: Callable[[Path], object]) -> Callable[[Path], Path]:
    """A function that changes the log of a journal."""

    def part(path: Path) -> Path:
        act(path.with_name("run.sqlite-wal"))
        return path

    return part


PARTS: dict[str, Callable[[Path], Path]] = {
    "log removed": on_log(Path.unlink),
    "log emptied": on_log(lambda log: os.truncate(log, 0)),
    "log cut to half": on_log(lambda log: os.truncate(log, log.stat().st_size // 2)),
    "end of the log cut off": on_log(lambda log: os.truncate(log, log.stat().st_size - 1)),
    "log with another bit": on_log(flip_a_bit),
    "hard link": linked,
    "renamed": lambda path: path.rename(path.with_name("other")),
    "copied alone": copied_alone,
}


@pytest.mark.parametrize("part", PARTS)
async def test_a_part_of_what_a_killed_run_left_is_refused(path: Path, part: str):
    """Nothing is called, and nothing is written: what is missing can still be put back."""
    whole = {file.name: file.read_bytes() for file in path.parent.glob("run.sqlite*")}
    name = PARTS[part](path)
    for _ in range(2):
        with pytest.raises(JournalError, match=r"is not complete.*copy the files"):
            await AsyncBatchProcessor(double, journal=Journal(name)).process(range(21))
    for file, content in whole.items():
        path.with_name(file).write_bytes(content)
    result = await AsyncBatchProcessor(double, journal=Journal(path)).process(range(21))
    assert [outcome.attempts for outcome in result] == [0] * 20 + [1]


@pytest.mark.parametrize("without", ["", "-lock", "-shm"])
@pytest.mark.parametrize("is_looked_at", [False, True])
async def test_what_a_killed_run_left_is_gone_on_with(path: Path, without: str, is_looked_at: bool):
    """So it is when another program wrote the log into the file; the run after that is as well."""
    if without and path.with_name(path.name + without).exists() and not is_looked_at:
        path.with_name(path.name + without).unlink()
    if is_looked_at:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("SELECT count(*) FROM outcomes").fetchone()
        assert not path.with_name("run.sqlite-wal").exists()
    for attempts in (1, 0):
        result = await AsyncBatchProcessor(double, journal=Journal(path)).process(range(21))
        assert [outcome.attempts for outcome in result] == [0] * 20 + [attempts]


async def test_a_journal_whose_run_has_ended_is_one_file(path: Path):
    """It may be copied, renamed and linked."""
    await AsyncBatchProcessor(double, journal=Journal(path)).process(range(21))
    for name in (copied_alone(path), linked(path)):
        result = await AsyncBatchProcessor(double, journal=Journal(name)).process(range(21))
        assert [outcome.attempts for outcome in result] == [0] * 21
