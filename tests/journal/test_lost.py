"""A journal that is lost while a run writes to it: an error, with finished work in the result."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest

from ragasync import AsyncBatchProcessor, BatchResult, Journal, JournalError

pytestmark = pytest.mark.real_time

BEFORE, AFTER = 30, 30
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


def lock_file(path: Path) -> Path:
    """The lock file next to a journal."""
    return Path(f"{path.resolve()}-lock")


async def double(item: int) -> int:
    """Return twice the item."""
    CALLS.append(item)
    return 2 * item


def doubling(path: Path) -> AsyncBatchProcessor[int, int]:
    """Return a processor that commits each outcome as soon as it can."""
    journal = Journal(path, flush_seconds=0.0, flush_items=4)
    return AsyncBatchProcessor(double, max_concurrency=2, journal=journal)


def rows_in(path: Path) -> int:
    """Number of outcomes in a journal, opened by its name."""
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM outcomes").fetchone()[0])


async def committed(path: Path, count: int) -> None:
    """Wait until this many outcomes are committed."""
    while await asyncio.to_thread(rows_in, path) < count:  # noqa: ASYNC110  # a thread commits
        await asyncio.sleep(0.001)


async def run_around(
    path: Path, act: Callable[[], object], after: int = AFTER
) -> tuple[BatchResult[int], JournalError | None]:
    """Run a job, do something when its first part is committed, and go on with its second."""

    async def items() -> AsyncIterator[int]:
        for item in range(BEFORE):
            yield item
        await committed(path, BEFORE)
        await asyncio.to_thread(act)
        for item in range(BEFORE, BEFORE + after):
            yield item
            await asyncio.sleep(0)

    processor = doubling(path)
    error = None
    try:
        await processor.process(items())
    except JournalError as raised:
        error = raised
    result = processor.last_result
    assert result is not None
    done = [one for one in result if one.status == "done"]
    assert [one.value for one in done] == [2 * one.index for one in done]
    assert {one.index for one in done} == set(CALLS) - {*range(1000, 1010)}  # of another journal
    return result, error


def another_journal(path: Path, name: str = "other") -> Path:
    """Return a whole journal of another run of the same job."""
    other = path.with_name(name)
    asyncio.run(doubling(other).process(range(1000, 1010)))
    return other


def small_database(path: Path) -> Path:
    """Return a database of another program."""
    other = path.with_name("other.db")
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(5000)])
        connection.commit()
    return other


def copy_of(path: Path) -> Path:
    """Return a copy of a file as it is."""
    return Path(shutil.copy(path, path.with_name("copy")))


# Each takes a journal away, and is given its path. Those named "into" keep the file's inode.
LOSSES: dict[str, Callable[[Path], object]] = {
    "removed": lambda path: path.unlink(),
    "renamed": lambda path: path.rename(path.with_name("moved")),
    "renamed with its log": lambda path: [
        file.rename(file.with_name(f"moved{file.name.removeprefix('run.sqlite')}"))
        for file in path.parent.glob("run.sqlite*")
    ],
    "a copy of itself": lambda path: copy_of(path).replace(path),
    "a link in its place": lambda path: path.symlink_to(path.rename(path.with_name("moved"))),
    "a text in its place": lambda path: (path.unlink(), path.write_text("notes\n" * 5000)),
    "an empty file in its place": lambda path: (path.unlink(), path.touch()),
    "a folder in its place": lambda path: (path.unlink(), path.mkdir()),
    "another journal": lambda path: another_journal(path).replace(path),
    "another journal into it": lambda path: shutil.copy(another_journal(path), path),
    "another database": lambda path: small_database(path).replace(path),
    "another database into it": lambda path: shutil.copy(small_database(path), path),
    "a text into it": lambda path: path.write_text("notes\n" * 5000),
    "emptied": lambda path: os.truncate(path, 0),
    "cut off": lambda path: os.truncate(path, path.stat().st_size - 4096),
    "log removed": lambda path: path.with_name("run.sqlite-wal").unlink(),
    "log replaced": lambda path: copy_of(path.with_name("run.sqlite-wal")).replace(
        path.with_name("run.sqlite-wal")
    ),
    "log emptied": lambda path: os.truncate(path.with_name("run.sqlite-wal"), 0),
    "log cut off": lambda path: os.truncate(
        log := path.with_name("run.sqlite-wal"), log.stat().st_size // 2
    ),
    "lock removed": lambda path: lock_file(path).unlink(),
    "lock replaced": lambda path: copy_of(lock_file(path)).replace(lock_file(path)),
}


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_journal_lost_while_the_job_runs_stops_it_with_all_kept(path: Path, loss: str):
    """At the next commit; nothing goes on into a file that nobody will find."""
    result, error = await run_around(path, lambda: LOSSES[loss](path), after=100_000)
    assert error is not None
    assert str(path) in str(error)
    assert any("items were done" in note for note in error.__notes__)
    assert result.stopped_because is not None
    assert BEFORE <= result.success_count < 100_000


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_journal_lost_at_the_end_of_a_job_is_an_error_too(path: Path, loss: str):
    """When nothing is left to be committed, the file is looked for all the same."""
    result, error = await run_around(path, lambda: LOSSES[loss](path), after=0)
    assert error is not None
    assert result.success_count == BEFORE == result.total


@pytest.mark.parametrize(
    "make", [another_journal, small_database, lambda path: path.with_name("notes")]
)
@pytest.mark.parametrize("after", [0, AFTER])
async def test_what_is_put_into_the_file_stays_as_it_is(
    path: Path, make: Callable[[Path], Path], after: int
):
    """To close a journal writes its log into its file: not into what somebody else put there."""
    path.with_name("notes").write_text("notes\n" * 5000)
    other = await asyncio.to_thread(make, path)
    content = other.read_bytes()
    _, error = await run_around(path, lambda: shutil.copy(other, path), after)
    assert error is not None
    assert path.read_bytes() == content  # noqa: ASYNC240  # a small file
    if other.name != "notes":
        with closing(sqlite3.connect(path)) as connection:  # nor is our log next to it
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_log_that_is_cut_off_does_no_harm_to_the_journal(path: Path):
    """What reached the file itself stays readable: SQLite would write the hole into it."""
    await doubling(path).process(range(1000, 1010))
    log = path.with_name("run.sqlite-wal")
    _, error = await run_around(path, lambda: os.truncate(log, log.stat().st_size // 2))
    assert error is not None
    assert "was cut off" in str(error)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("put_back", [shutil.copy, os.replace])
async def test_an_older_copy_of_the_journal_is_not_taken_for_it(
    path: Path, put_back: Callable[[Path, Path], object]
):
    """It has the same id, and fewer outcomes."""
    await doubling(path).process(range(500))
    backup = path.with_name("backup")
    shutil.copy(path, backup)
    await doubling(path).process(range(1000))
    CALLS.clear()

    async def items() -> AsyncIterator[int]:
        for item in range(1000, 1010):
            yield item
        await committed(path, 1010)
        await asyncio.to_thread(put_back, backup, path)
        for item in range(1010, 1020):
            yield item

    processor = doubling(path)
    with pytest.raises(JournalError, match="was lost while this run was writing to it"):
        await processor.process(items())
    assert processor.last_result is not None
    assert set(CALLS) <= set(range(1000, 1020))


@pytest.mark.parametrize("by", ["name", "hard link"])
async def test_a_journal_moved_away_and_back_is_the_same(path: Path, by: str):
    """What counts is what is there when it is committed."""

    def there_and_back() -> None:
        away = path.with_name("away")
        if by == "hard link":
            os.link(path, away)
            path.unlink()
        else:
            path.rename(away)
        away.rename(path)

    result, error = await run_around(path, there_and_back)
    assert error is None
    assert result.all_succeeded
    assert rows_in(path) == BEFORE + AFTER


async def test_a_reader_and_a_checkpoint_of_others_do_no_harm(path: Path):
    """Other programs may look into a journal, and write its log into it."""

    def look() -> None:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("SELECT count(*) FROM outcomes").fetchone()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        path.read_bytes()
        Journal(path).to_dataframe()

    result, error = await run_around(path, look)
    assert error is None
    assert result.all_succeeded
    assert rows_in(path) == BEFORE + AFTER


async def test_a_job_may_change_its_folder(path: Path, monkeypatch: pytest.MonkeyPatch):
    """A relative path means what it meant when the run began."""
    monkeypatch.chdir(path.parent)
    elsewhere = path.with_name("elsewhere")
    elsewhere.mkdir()
    absolute = path
    relative = Path(path.name)

    async def items() -> AsyncIterator[int]:
        for item in range(40):
            if item == 20:
                await committed(absolute, 10)
                monkeypatch.chdir(elsewhere)
            yield item

    assert (await doubling(relative).process(items())).all_succeeded
    assert rows_in(absolute) == 40
    assert not any(elsewhere.iterdir())


async def test_long_values_through_many_checkpoints_are_no_loss(path: Path):
    """The file changes by our own hand as its log is written into it."""

    async def long(item: int) -> str:
        return f"{item} " * 20_000

    processor = AsyncBatchProcessor(long, journal=Journal(path, flush_items=8))
    assert (await processor.process(range(300))).all_succeeded
    assert rows_in(path) == 300


async def test_a_cancelled_run_whose_journal_is_lost_says_so(path: Path):
    """The interrupt goes on, with a note of what it means for the journal."""
    begun = asyncio.Event()

    async def hang(item: int) -> int:
        if item == 3:
            begun.set()
            await asyncio.sleep(3600)
        return item

    processor = AsyncBatchProcessor(hang, max_concurrency=1, journal=path)
    task = asyncio.create_task(processor.process(range(10)))
    await begun.wait()
    path.unlink()  # noqa: ASYNC240  # a small file
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert any("was lost while this run was writing" in note for note in caught.value.__notes__)


# ── a second run ────────────────────────────────────────────────────────────────────────────────

HANGING = """
import asyncio, sys
from ragasync import AsyncBatchProcessor, Journal

async def double(item):
    if item == 5:
        print("begun", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
    return 2 * item

journal = Journal(PATH, name="double", flush_seconds=0.0)
processor = AsyncBatchProcessor(double, max_concurrency=1, journal=journal)
try:
    print(asyncio.run(processor.process(range(8))).all_succeeded)
except Exception as error:
    print(type(error).__name__, error)
"""


def other_run(path: Path) -> subprocess.Popen[str]:
    """Return a process that runs the job up to its sixth item, and there waits for a line."""
    script = textwrap.dedent(HANGING).replace("PATH", repr(str(path)))
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    asyncio.run(committed(path, 5))
    return process


def taken(path: Path, end: str) -> Path:
    """Delete the lock file, or rename the journal; returns the path to open."""
    if end == "lock":
        lock_file(path).unlink()
        return path
    other = path.with_name("other name")
    (os.link if end == "hard link" else os.symlink)(path, other)
    return other


# The other process has its own function of this name, whose source Python 3.13 keeps for `-c` too.
@pytest.mark.filterwarnings("ignore:the source of 'double' has changed")
@pytest.mark.parametrize("end", ["lock", "hard link", "symbolic link"])
def test_no_second_run_begins_without_the_lock_or_by_another_name(path: Path, end: str):
    """In this process or in another, while the first one lives, and not a moment longer."""
    with other_run(path) as first:
        other = taken(path, end)
        journal = Journal(other, name="double")
        for _ in range(2):
            with pytest.raises(JournalError, match="is in use by another run"):
                AsyncBatchProcessor(double, journal=journal).process_sync(range(8))
        assert CALLS == []
        first.kill()
        first.wait()
    if end == "hard link":
        other.unlink()
        journal = Journal(path, name="double")
    result = AsyncBatchProcessor(double, journal=journal).process_sync(range(8))
    assert result.results == [2 * item for item in range(8)]
    assert CALLS == [5, 6, 7]


def test_a_run_that_is_taken_over_writes_nothing_more(path: Path):
    """As on another machine, which sees no lock of this one: the first run stops."""
    with other_run(path) as first:
        lock_file(path).unlink()
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("UPDATE job SET holder = 'another machine', commits = commits + 1")
        lock_file(path).touch()
        said, _ = first.communicate("\n", timeout=30)
    assert said.startswith("JournalError the journal")
    assert rows_in(path) == 5


def test_a_run_whose_header_was_taken_over_stops(path: Path):
    """The lock is where it was, and yet another run has written."""
    with other_run(path) as first:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("UPDATE job SET holder = 'another machine', commits = commits + 1")
        said, _ = first.communicate("\n", timeout=30)
    assert "another run has taken it over" in said
    assert rows_in(path) == 5


def test_at_the_end_only_the_lock_file_is_left_next_to_the_journal(path: Path):
    """The log is in the file, the lock is free, and no lock is left elsewhere."""
    doubling(path).process_sync(range(10))
    assert sorted(file.name for file in path.parent.iterdir()) == ["run.sqlite", "run.sqlite-lock"]
    with closing(sqlite3.connect(lock_file(path), timeout=0.0)) as connection:
        connection.execute("BEGIN EXCLUSIVE")


@pytest.mark.parametrize("end", ["stopped", "cancelled", "failed", "closed stream"])
async def test_however_a_run_ends_its_file_is_closed(path: Path, end: str):
    """A stop, a cancellation, an error of the source, a stream that nobody reads on."""

    async def items() -> AsyncIterator[int]:
        for item in range(20):
            if item == 10:
                if end == "failed":
                    raise OSError("the source broke")
                if end == "cancelled":
                    task.cancel()
            yield item
            await asyncio.sleep(0)

    async def run() -> None:
        if end == "closed stream":
            async for _ in doubling(path).stream(items()):
                return
        await doubling(path).process(items(), max_items=10 if end == "stopped" else None)

    task = asyncio.create_task(run())
    await asyncio.wait([task])
    assert (end == "cancelled") == task.cancelled()
    if not task.cancelled() and end == "failed":
        assert isinstance(task.exception(), OSError)
    for _ in range(1000):  # a stream is closed by the loop, a turn later
        if len(list(path.parent.iterdir())) == 2:
            break
        await asyncio.sleep(0.01)
    assert sorted(file.name for file in path.parent.iterdir()) == ["run.sqlite", "run.sqlite-lock"]
    assert (await doubling(path).process(range(5))).all_succeeded
