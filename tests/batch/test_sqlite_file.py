"""A file that is not ours is refused untouched, whatever is in it and however small it is."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ragasync import AsyncBatchProcessor, Journal, JournalError
from ragasync.documents import SqliteStore, StoreError
from ragasync.testing import run_on_virtual_clock


async def same(item: int) -> int:
    """Return the item."""
    return item


def run_with_journal(path: Path) -> None:
    """Run a job with a journal at this path."""
    run_on_virtual_clock(AsyncBatchProcessor(same, journal=path).process([1]))


def read_journal(path: Path) -> None:
    """Read a journal at this path."""
    Journal(path).to_dataframe()


def open_store(path: Path) -> None:
    """Open a store at this path."""
    SqliteStore(path).close()


OPENED = pytest.mark.parametrize("open_it", [run_with_journal, read_journal, open_store])
Opened = Callable[[Path], None]


@OPENED
@pytest.mark.parametrize("size", [1, 2, 15, 16, 99, 511])
@pytest.mark.parametrize("byte", [b"\0", b"S", b"\n"])
def test_a_file_too_small_for_a_database_is_refused_untouched(
    open_it: Opened, size: int, byte: bytes, tmp_path: Path
):
    """SQLite itself takes a file of one byte for an empty one, and would write over it."""
    path = tmp_path / "notes"
    path.write_bytes(byte * size)
    with pytest.raises((JournalError, StoreError), match="is not a SQLite database"):
        open_it(path)
    assert path.read_bytes() == byte * size


@OPENED
@pytest.mark.parametrize("written", ["CREATE TABLE t (x)", "PRAGMA user_version = 3"])
def test_a_database_of_another_program_keeps_its_log(open_it: Opened, written: str, tmp_path: Path):
    """Nobody but that program writes its log into it, and a database without tables is one too."""
    living, path = tmp_path / "living", tmp_path / "theirs"
    with closing(sqlite3.connect(living, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(written)
        for end in ("", "-wal"):  # as a killed process leaves them
            path.with_name(f"theirs{end}").write_bytes(
                living.with_name(f"living{end}").read_bytes()
            )
    before = {end: path.with_name(f"theirs{end}").read_bytes() for end in ("", "-wal")}
    with pytest.raises((JournalError, StoreError), match="is a database, but not a"):
        open_it(path)
    assert {end: path.with_name(f"theirs{end}").read_bytes() for end in before} == before


@OPENED
def test_an_empty_file_is_taken(open_it: Opened, tmp_path: Path):
    """As tempfile makes one."""
    path = tmp_path / "fresh"
    path.touch()
    open_it(path)
    assert path.read_bytes().startswith(b"SQLite format 3")
