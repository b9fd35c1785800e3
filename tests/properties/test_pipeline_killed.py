"""kill -9 of a process that stores documents: nothing is lost, and nothing is stored twice."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.requirements import needs, only_where
from tests.support.store_job_script import ROOM, command, opened

pytestmark = only_where(os.name == "posix", "there is no kill -9")

LINES = 5
ROOT = Path(__file__).parents[2]


def texts_of(document: str) -> list[str]:
    """Return the chunks of a document."""
    return [f"{document}, line {line}" for line in range(LINES)]


def place_with(tmp_path: Path, documents: int) -> list[str]:
    """Write a number of documents, and get their ids."""
    (tmp_path / "docs").mkdir()
    ids = [f"{number:03}.txt" for number in range(documents)]
    for name in ids:
        (tmp_path / "docs" / name).write_text("\n".join(texts_of(name)))
    return ids


def embedded(place: Path) -> list[str]:
    """Return every text that was ever embedded."""
    notes = place / "embedded.txt"
    return notes.read_text().splitlines() if notes.exists() else []


def read(path: Path, query: str) -> list[tuple]:
    """Content of a store's file, which must be complete."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return connection.execute(query).fetchall()


def stored(place: Path) -> dict[str, str]:
    """Return the documents that the store has, each with all of its chunks, and fingerprints."""
    counts = "SELECT count(*) FROM chunks GROUP BY document"
    assert {count for (count,) in read(place / "store.sqlite", counts)} <= {LINES}
    return dict(read(place / "store.sqlite", "SELECT id, fingerprint FROM documents"))


def journalled(place: Path) -> dict[str, str]:
    """Return the documents that the journal calls done, and their fingerprints."""
    rows = read(place / "run.sqlite", "SELECT value FROM outcomes WHERE status = 'done'")
    values = [json.loads(value) for (value,) in rows]
    return {value["id"]: value["fingerprint"] for value in values}


def run_to_the_end(place: Path, kind: str = "deadly") -> list[list]:
    """Run the job; return id, status, attempts, and whether it was unchanged, of each document."""
    ran = subprocess.run(
        command(place, kind=kind), cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def all_chunks(place: Path) -> list[str]:
    """Return the text of every chunk in the store, sorted."""
    return sorted(text for (text,) in read(place / "store.sqlite", "SELECT text FROM chunks"))


def killed_after(place: Path, more: int, moment: float, kind: str = "deadly") -> bool:
    """Run the job, kill it after a number of further texts; True if it was still alive."""
    goal = len(embedded(place)) + more
    with subprocess.Popen(command(place, kind=kind), cwd=ROOT, stdout=subprocess.DEVNULL) as child:
        while child.poll() is None and len(embedded(place)) < goal:
            time.sleep(0.001)
        time.sleep(moment)
        child.kill()
    return child.returncode == -signal.SIGKILL


def test_kills_at_random_moments_lose_nothing_and_store_nothing_twice(tmp_path):
    """Whatever is done is stored, and what is stored is never embedded again."""
    chance, ids = random.Random(5), place_with(tmp_path, 140)
    kills = 0
    for _ in range(5):
        before = len(embedded(tmp_path))
        kept = stored(tmp_path) if kills else {}
        kills += killed_after(tmp_path, chance.randint(1, 90), chance.uniform(0, 0.03))
        again = {text for name in kept for text in texts_of(name)}
        assert again.isdisjoint(embedded(tmp_path)[before:])
        assert kept.items() <= stored(tmp_path).items()
        assert journalled(tmp_path).items() <= stored(tmp_path).items()
    assert kills >= 4  # a busy machine may let one end before
    recalled, before = journalled(tmp_path), stored(tmp_path)
    rows = run_to_the_end(tmp_path)
    assert [(name, status) for name, status, _, _ in rows] == [(name, "done") for name in ids]
    assert {name for name, _, attempts, _ in rows if attempts == 0} == set(recalled)
    assert {name for name, _, _, unchanged in rows if unchanged} >= before.keys() - recalled.keys()
    assert all_chunks(tmp_path) == sorted(text for name in ids for text in texts_of(name))
    assert len(embedded(tmp_path)) <= LINES * len(ids) + kills * ROOM


def stored_whole(place: Path, kind: str) -> dict[str, str]:
    """Fingerprints of the stored documents, each of which has all of its chunks, in order."""
    with opened(place, kind) as store:
        documents = store.documents()
        for each in documents:
            assert [chunk.text for chunk in store.get(each.id).chunks] == texts_of(each.id)
        return {each.id: each.fingerprint for each in documents}


@pytest.mark.parametrize(
    ("kind", "times"),
    [
        ("sqlite", 3),
        pytest.param("sqlite", 20, marks=[pytest.mark.slow, pytest.mark.timeout(300)]),
        pytest.param("lance", 5, marks=[pytest.mark.slow, pytest.mark.timeout(300)]),
    ],
)
def test_a_group_of_documents_is_stored_whole_or_not_at_all(tmp_path, kind, times):
    """What the journal calls done is in the store, and the next run does the rest."""
    if kind == "lance":
        needs("lancedb")
    chance, ids = random.Random(times), place_with(tmp_path, 45 * times)
    kept: dict[str, str] = {}
    kills = 0
    for _ in range(times):
        before = len(embedded(tmp_path))
        kills += killed_after(tmp_path, chance.randint(1, 250), chance.uniform(0, 0.1), kind)
        again = {text for name in kept for text in texts_of(name)}
        assert again.isdisjoint(embedded(tmp_path)[before:])
        found = stored_whole(tmp_path, kind)
        assert kept.items() <= found.items()
        kept = found
        if (tmp_path / "run.sqlite").exists():
            assert journalled(tmp_path).items() <= kept.items()
    assert kills >= times - 1  # a busy machine may let one end before
    rows = run_to_the_end(tmp_path, kind)
    assert [(name, status) for name, status, _, _ in rows] == [(name, "done") for name in ids]
    assert sorted(stored_whole(tmp_path, kind)) == ids


def test_a_crash_between_store_and_journal_embeds_and_stores_nothing_twice(tmp_path):
    """The store has seven documents of which the journal never heard."""
    ids = place_with(tmp_path, 20)
    died = subprocess.run(
        command(tmp_path, dies_after=7, flush=60.0), cwd=ROOT, timeout=50, check=False
    )
    assert died.returncode == -signal.SIGKILL
    kept = stored(tmp_path)
    assert (len(kept), journalled(tmp_path)) == (7, {})
    before = len(embedded(tmp_path))
    rows = run_to_the_end(tmp_path)
    assert {name for name, _, _, unchanged in rows if unchanged} == kept.keys()
    left = [text for name in ids if name not in kept for text in texts_of(name)]
    assert sorted(embedded(tmp_path)[before:]) == left
    assert all_chunks(tmp_path) == [text for name in ids for text in texts_of(name)]
    assert journalled(tmp_path) == stored(tmp_path)
    before = len(embedded(tmp_path))
    assert [attempts for _, _, attempts, _ in run_to_the_end(tmp_path)] == [0] * 20
    assert len(embedded(tmp_path)) == before
