"""Store files of older versions, and what is found in them by text and by source."""

import gzip
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from ragasync import own_database
from ragasync.documents.document import Chunk, Document
from ragasync.documents.embedding.embed import HashingEmbedder
from ragasync.documents.store import StoreError
from ragasync.documents.stores.sqlite import SqliteStore
from ragasync.documents.stores.sqlite_file import STORE

embed = HashingEmbedder(16)

# Five chunks of "bucket" (two), "café", "copy"; "empty" has none; written before version 2.
VERSION_1 = Path(__file__).parent / "data" / "store_version_1.sqlite.gz"


@pytest.fixture
def old(tmp_path):
    """Give a file that a ragasync of version 1 of the schema wrote."""
    path = tmp_path / "old.sqlite"
    path.write_bytes(gzip.decompress(VERSION_1.read_bytes()))
    return path


def layout(path):
    """Return the version of a file, its columns, indices and triggers, without their wording."""
    with closing(sqlite3.connect(path)) as db:
        [version] = db.execute("PRAGMA user_version").fetchone()
        tables = db.execute(
            "SELECT m.name, c.name, c.type FROM sqlite_master m, pragma_table_info(m.name) c "
            "WHERE m.type = 'table'"
        )
        others = db.execute("SELECT type, name, tbl_name FROM sqlite_master WHERE type != 'table'")
        return version, set(tables), set(others)


def test_an_old_file_is_brought_to_the_present_version(old, tmp_path):
    """It has what a new file has afterwards, and its index of words is whole."""
    assert layout(old)[0] == 1
    SqliteStore(old).close()
    SqliteStore(tmp_path / "new.sqlite").close()
    assert layout(old) == layout(tmp_path / "new.sqlite")
    assert layout(old)[0] == STORE.version
    with closing(sqlite3.connect(old)) as db:
        db.execute("INSERT INTO words (words) VALUES ('integrity-check')")
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_an_old_file_keeps_all_that_is_in_it(old):
    """Documents, places, metadata and vectors are as they were, and found as in a new one."""
    with SqliteStore(old) as store:
        assert (store.documents, len(store)) == (4, 4)
        assert store.fingerprint_of("empty") == "empty-1"
        [hit] = store.search("refills", by="bm25")
        assert (hit.document_id, hit.start, hit.end) == ("bucket", 0, 24)
        assert hit.metadata == {"lang": "en", "year": 2024, "page": 1}
        assert [hit.text for hit in store.search("café", where={"lang": "français"})] == [
            "Le café sert une crème brûlée."
        ]
        text = "It never overflows."
        [vector, unknown] = store.vectors_of(embed.name, [text, "never seen"])
        assert vector.tolist() == embed([text])[0].tolist()
        assert unknown is None
        store.upsert(
            Document("copy", "new"),
            [Chunk("new", 0, 3)],
            embed(["new"]),
            fingerprint="copy-2",
            embedder=embed.name,
        )
        assert store.delete("bucket")
        assert store.vectors_of(embed.name, [text]) == [None]


def test_an_upgrade_that_fails_leaves_the_old_file(old):
    """All of it is one transaction."""
    with closing(sqlite3.connect(old)) as db:
        db.execute("CREATE TABLE chunks_by_text (x)")  # in the way of the last step but some
    before = layout(old)
    with pytest.raises(StoreError, match="chunks_by_text"):
        SqliteStore(old)
    assert layout(old) == before


@pytest.mark.real_time
def test_an_old_file_is_upgraded_once_by_many(old):
    """Those that open it at the same time wait for the first and find it done."""
    together = threading.Barrier(4)

    def open_it(_):
        together.wait()
        with SqliteStore(old) as store:
            return len(store)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(open_it, range(4))) == [4] * 4


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


def test_opening_tries_again_where_sqlite_gives_up_at_once(monkeypatch):
    """Of two that both read and want the file for themselves it sends one away without waiting."""
    waits = []
    monkeypatch.setattr(own_database, "sleep", waits.append)
    connection = Contended(times=3)
    own_database._switch_to_wal(connection, timeout=10)
    assert (len(waits), connection.left) == (3, -1)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        own_database._switch_to_wal(Contended(times=3), timeout=0)


def test_a_file_of_a_newer_version_is_refused(old):
    """No upgrade leads back."""
    with closing(sqlite3.connect(old)) as db:
        db.execute("PRAGMA user_version = 3")
    with pytest.raises(StoreError, match=r"version 3 .* version 2"):
        SqliteStore(old)


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
