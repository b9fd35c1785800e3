"""kill -9 at any moment of a job with a journal: nothing that was written is lost or done again."""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

import pytest

from ragasync import Journal
from tests.support import journal_job_script
from tests.support.journal_job_script import LINE, Record, records_of, value_of

pytestmark = pytest.mark.real_time

KILLS = 50
ITEMS = 400
IN_FLIGHT = 8
FLUSH_ITEMS = 16


class Jobs:
    """Runs the job in processes, one at a time."""

    def __init__(self, folder: Path, commands: IO[str], answers: IO[str]) -> None:
        self._pipe = folder / "pipe"
        os.mkfifo(self._pipe)
        self._commands, self._answers = commands, answers
        self._child = 0
        self._records = b""
        self._reading = -1

    def begin(self, journal: Path) -> None:
        """Have the job run on this journal."""
        print(journal, self._pipe, file=self._commands, flush=True)
        self._child = int(self._answers.readline())
        self._reading = os.open(self._pipe, os.O_RDONLY)
        self._records = b""

    def read_until(self, count: int) -> None:
        """Wait until this many calls have begun and ended, or until the end of the job."""
        while len(self._records) < count * LINE and (came := os.read(self._reading, LINE)):
            self._records += came

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        os.kill(self._child, number)

    def end(self) -> tuple[int, list[Record]]:
        """Wait for the process; return how it ended, and all that was done in it."""
        while came := os.read(self._reading, 1 << 16):
            self._records += came
        os.close(self._reading)
        print(file=self._commands, flush=True)
        return int(self._answers.readline()), records_of(self._records)


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    """Give what runs the job."""
    command = [
        sys.executable,
        journal_job_script.__file__,
        *map(str, (ITEMS, IN_FLIGHT, FLUSH_ITEMS)),
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        yield Jobs(tmp_path, server.stdin, server.stdout)


@contextmanager
def copied(journal: Path) -> Iterator[sqlite3.Connection]:
    """Open a copy of a journal as a killed process has left it; the original stays as it lies."""
    copy = journal.with_name("copy")
    copy.mkdir()
    for file in journal.parent.glob(f"{journal.name}*"):
        if not file.name.endswith("-shm"):
            shutil.copy(file, copy)
    with closing(sqlite3.connect(copy / journal.name)) as connection:
        yield connection
    shutil.rmtree(copy)


def written(journal: Path) -> dict[int, int]:
    """Return the items and values of a journal, in which each item stands once, unharmed."""
    if not journal.exists():
        return {}
    with copied(journal) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return {}  # killed before its tables were made
        rows = connection.execute("SELECT item, value, status FROM outcomes").fetchall()
    assert {status for *_, status in rows} <= {"done"}
    values = {int(item): json.loads(value) for item, value, _ in rows}
    assert len(values) == len(rows)
    return values


@pytest.mark.slow
def test_fifty_kills_lose_at_most_the_calls_in_flight_and_one_group(jobs: Jobs, tmp_path: Path):
    """What is in the file is not done again, and what is not was in flight or in the group."""
    chance = random.Random(9)
    kills, number = 0, 0
    while kills < KILLS:
        number += 1
        journal = tmp_path / f"{number}.sqlite"  # of a job of its own: one may end unkilled
        calls, ended, lost, done = Counter[int](), set[int](), 0, 0
        while done < ITEMS:
            jobs.begin(journal)
            if kills < KILLS:
                # From before the file is opened to after the last outcome was put into it.
                left = 2 * (ITEMS - done)
                jobs.read_until(chance.choice((0, 1, left, *chance.choices(range(left // 2), k=5))))
                time.sleep(chance.uniform(0.0, 0.01))
                jobs.signal(signal.SIGKILL)
            status, records = jobs.end()
            begun = [item for what, item in records if what == "begins"]
            calls.update(begun)
            ended |= {item for what, item in records if what == "ends"}
            values = written(journal)
            assert values == {item: value_of(item) for item in values}
            assert values.keys() <= ended
            again = set(begun) - values.keys()
            assert len(again) <= IN_FLIGHT + FLUSH_ITEMS
            assert len(values) >= done
            lost, done = lost + len(again), len(values)
            assert status == (0 if status == 0 else -signal.SIGKILL)
            kills += status != 0
            assert status != 0 or done == ITEMS
        assert set(calls) == set(range(ITEMS))
        assert calls.total() == ITEMS + lost
    assert kills == KILLS


def test_the_table_of_a_job_in_another_process_can_be_read_while_it_runs(
    jobs: Jobs, tmp_path: Path
):
    """Each look finds whole rows, and no fewer than the last; the job goes on."""
    path = tmp_path / "run.sqlite"
    jobs.begin(path)
    seen = []
    for count in range(100, 2 * ITEMS, 100):
        jobs.read_until(count)
        jobs.signal(signal.SIGSTOP)  # at whatever it was doing, a transaction perhaps
        table = Journal(path).to_dataframe()
        jobs.signal(signal.SIGCONT)
        assert [10 * int(item) for item in table["item"]] == list(table["value"])
        seen.append(len(table))
    status, _ = jobs.end()
    assert status == 0
    assert seen == sorted(seen)
    assert seen[0] < seen[-1] <= ITEMS
    assert len(Journal(path).to_dataframe()) == ITEMS
