"""A journal that is no journal, or no longer: an error, or every outcome as it was written."""

import os
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ragasync import AsyncBatchProcessor, BatchResult, Journal, JournalError
from ragasync.testing import run_on_virtual_clock

ITEMS = range(120)
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


async def spell(item: int) -> str:
    """Return a text of an item; every ninth fails."""
    CALLS.append(item)
    if item % 9 == 4:
        raise ValueError(f"{item} cannot be spelled")
    return f"item {item} " * 20


def spelling(path: Path) -> AsyncBatchProcessor[int, str]:
    """Return a processor that writes to a journal."""
    return AsyncBatchProcessor(spell, retry_count=0, journal=path)


def run(path: Path) -> BatchResult[str]:
    """Run the job to its end."""
    return run_on_virtual_clock(spelling(path).process(ITEMS))


def content_of_a_whole_journal(path: Path) -> bytes:
    """Run the job, and return the file; it has no write-ahead log any more."""
    run(path)
    assert not path.with_name(f"{path.name}-wal").exists()
    assert len(CALLS) == len(ITEMS)
    CALLS.clear()
    return path.read_bytes()


def check_right(result: BatchResult[str]) -> None:
    """See that each outcome is what the job gives."""
    for outcome in result:
        if outcome.index % 9 == 4:
            assert str(outcome.error) == f"{outcome.index} cannot be spelled"
        else:
            assert outcome.value == f"item {outcome.index} " * 20


def what_becomes_of(path: Path, content: bytes) -> str:
    """Run the job on a journal of this content: an error, or a result that must be right."""
    path.write_bytes(content)
    CALLS.clear()
    try:
        result = run(path)
    except JournalError:
        return "refused"
    check_right(result)
    return "done again" if CALLS else "right"


def test_a_journal_cut_off_anywhere_is_refused(path: Path):
    """No length passes for a journal with fewer outcomes; an empty file is a new journal."""
    content = content_of_a_whole_journal(path)
    lengths = [2, 15, 16, 17, 99, 100, 101, 511, 512, 1000, *range(4095, len(content), 701)]
    ends = Counter([what_becomes_of(path, content[:length]) for length in lengths])
    assert ends == {"refused": len(lengths)}
    assert what_becomes_of(path, b"") == "done again"


@pytest.mark.slow
def test_a_flipped_bit_is_noticed_or_changes_nothing(path: Path):
    """In a value, a key, an error or SQLite's own pages: 150 of them."""
    content = content_of_a_whole_journal(path)
    chance = random.Random(5)
    ends: Counter[str] = Counter()
    for _ in range(150):
        broken = bytearray(content)
        broken[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        ends[what_becomes_of(path, bytes(broken))] += 1
    assert ends.keys() == {"refused", "right"}
    assert ends["refused"] > 75


def test_another_digit_in_a_value_is_no_value_of_the_table(path: Path):
    """The table of a journal is checked like its outcomes."""
    content = content_of_a_whole_journal(path)
    path.write_bytes(content.replace(b"item 7 ", b"item 8 ", 1))
    with pytest.raises(JournalError, match=r"damaged \(the checksum of the outcome of '7'"):
        Journal(path).to_dataframe()


def files_after_a_crash(path: Path, outcomes: int) -> tuple[bytes, bytes]:
    """A journal and its log as a crash leaves them after a number of outcomes."""
    copies: list[bytes] = []

    def items() -> Iterator[int]:
        yield from ITEMS[:outcomes]
        with closing(sqlite3.connect(path)) as connection:
            while connection.execute("SELECT count(*) FROM outcomes").fetchone()[0] < outcomes - 1:
                pass  # its thread writes meanwhile
        copies.extend(path.with_name(name).read_bytes() for name in (path.name, f"{path.name}-wal"))

    journal = Journal(path, flush_items=1, flush_seconds=0.0)
    processor = AsyncBatchProcessor(spell, max_concurrency=1, retry_count=0, journal=journal)
    run_on_virtual_clock(processor.process(items()))
    return copies[0], copies[1]


@pytest.mark.slow
def test_a_log_cut_off_leaves_the_outcomes_before_it(path: Path):
    """As after a power cut, without the lock: what was not whole is done again, nothing else."""
    file, log = files_after_a_crash(path, 60)
    crashed = path.with_name("crashed.sqlite")
    done_again = []
    for length in range(1, len(log), len(log) // 40):
        crashed.write_bytes(file)
        crashed.with_name("crashed.sqlite-wal").write_bytes(log[:length])
        CALLS.clear()
        check_right(run(crashed))
        assert [*ITEMS[-len(CALLS) :]] == CALLS
        done_again.append(len(CALLS))
    assert done_again == sorted(done_again, reverse=True)
    assert done_again[0] == len(ITEMS)
    assert done_again[-1] <= len(ITEMS) - 50


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"These are my notes of last week.\n" * 100,
            "is not a SQLite database: choose another path",
        ),
        (b"\x00" * 5000, "is not a SQLite database: choose another path"),
        (b"SQLite format 3\x00" + b"\xff" * 5000, "is not a SQLite database|is damaged"),
    ],
    ids=["text", "zeros", "header"],
)
def test_what_is_no_database_is_left_as_it_is(path: Path, content: bytes, message: str):
    """Somebody may have named the wrong file."""
    path.write_bytes(content)
    with pytest.raises(JournalError, match=message):
        run(path)
    assert path.read_bytes() == content
    assert CALLS == []
    assert "run.sqlite" in repr(Journal(path))


def test_a_database_of_another_program_is_left_as_it_is(path: Path):
    """Its tables are not ours to change."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE outcomes (key, occurrence)")
    content = path.read_bytes()
    with pytest.raises(JournalError, match="is a database, but not a journal of ragasync"):
        run(path)
    assert (path.read_bytes(), CALLS) == (content, [])


def test_a_journal_of_a_newer_ragasync_is_refused(path: Path):
    """The error names both versions of the schema."""
    content_of_a_whole_journal(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 7")
    with pytest.raises(JournalError, match=r"version 7 .* reads version 4: use the ragasync that"):
        run(path)
    assert CALLS == []


@pytest.mark.parametrize("folder", ["missing", "a file"])
def test_a_missing_folder_is_an_error_immediately(tmp_path: Path, folder: str):
    """Before any call."""
    (tmp_path / "a file").write_text("no folder")
    with pytest.raises(JournalError, match="the folder must exist and be writable"):
        run(tmp_path / folder / "run.sqlite")
    assert CALLS == []


def test_a_folder_in_place_of_the_file_is_an_error_immediately(path: Path):
    """Before any call, and it stays a folder."""
    path.mkdir()
    with pytest.raises(JournalError, match=r"is not a regular file"):
        run(path)
    assert path.is_dir()
    assert CALLS == []


@pytest.mark.parametrize("count", [1, 10, 4096])
async def test_a_journal_without_its_last_bytes_is_refused(tmp_path: Path, count: int):
    """Whether or not what is missing would be read."""
    path = tmp_path / "run.sqlite"
    processor = AsyncBatchProcessor(str, journal=path)
    await processor.process(range(100))
    os.truncate(path, path.stat().st_size - count)
    with pytest.raises(JournalError, match="is damaged"):
        await processor.process([])


async def test_a_journal_in_a_folder_that_is_not_there_is_named(tmp_path: Path):
    """Not the lock file next to it, which the user did not choose."""
    with pytest.raises(JournalError, match=r"run\.sqlite' cannot be opened .*folder must exist"):
        await AsyncBatchProcessor(str, journal=tmp_path / "no" / "run.sqlite").process([1])


@pytest.mark.parametrize("name", [os.devnull, "pipe"])
async def test_what_is_no_regular_file_is_refused(tmp_path: Path, name: str):
    """No other file is left."""
    path = tmp_path / name
    if name == "pipe":
        os.mkfifo(path)
    with pytest.raises(JournalError, match="is not a regular file"):
        await AsyncBatchProcessor(str, journal=path).process([1])
    assert not path.with_name(f"{path.name}-lock").exists()
