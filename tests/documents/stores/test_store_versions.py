"""Store files of other versions, and vectors as they come back."""

import sqlite3
from contextlib import closing

import numpy as np
import pytest

from ragasync import sqlite_file
from ragasync.documents import Chunk, Document, SqliteStore, StoreError


class Contended:
    """A connection that finds another one in the way of each change, a few times."""

    def __init__(self, times):
        self.left = times

    def execute(self, statement):
        self.left -= 1
        if self.left >= 0:
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise error


def test_opening_is_retried_when_sqlite_fails_without_waiting(monkeypatch):
    """Of two readers that both want an exclusive lock, SQLite fails one without waiting."""
    waits = []
    monkeypatch.setattr(sqlite_file, "sleep", waits.append)
    connection = Contended(times=3)
    sqlite_file._use_wal(connection, timeout=10)
    assert (len(waits), connection.left) == (3, -1)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        sqlite_file._use_wal(Contended(times=3), timeout=0)


@pytest.mark.parametrize("other", [lambda now: 1, lambda now: now - 1, lambda now: now + 1])
def test_a_file_of_another_version_is_refused(tmp_path, other):
    """It is left as it is, and the error names both versions and what to do."""
    path = tmp_path / "old.sqlite"
    SqliteStore(path).close()
    with closing(sqlite3.connect(path)) as db:
        (now,) = db.execute("PRAGMA user_version").fetchone()
        version = other(now)
        db.execute(f"PRAGMA user_version = {version:d}")
    with pytest.raises(StoreError, match=rf"version {version} .*version {now}.*file"):
        SqliteStore(path)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (version,)


def test_vectors_come_back_as_the_embedder_gave_them():
    """Unscaled, writable, and each time a copy."""
    with SqliteStore(":memory:") as store:
        chunk = Chunk("text", 0, 4)
        store.upsert(
            Document("a", "text"),
            [chunk],
            np.array([[3.0, 4.0]]),
            fingerprint="",
            embedder="x",
        )
        [vector] = store.vectors_of("x", ["text"])
        assert vector.dtype == np.float32
        assert vector.tolist() == [3, 4]
        vector[:] = 0
        assert store.vectors_of("x", ["text"])[0].tolist() == [3, 4]
