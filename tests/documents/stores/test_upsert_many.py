"""Groups of documents in one transaction of a SqliteStore, and documents that fail in one."""

import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import numpy as np
import pytest

from ragasync.documents import (
    Chunk,
    Document,
    EmbedderMismatch,
    HashingEmbedder,
    IdConflictError,
    MemoryStore,
    RunRefused,
    SqliteStore,
    StoreError,
    StoreRequest,
)

# Internals: protocols and checks that all stores share, without a store.
from ragasync.documents.store import IdScheme, StoreNotWritable

embed = HashingEmbedder(64)


@pytest.fixture(params=["file", "memory"])
def store(request, tmp_path):
    """An empty store."""
    path = tmp_path / "store.sqlite"
    with SqliteStore(path) if request.param == "file" else MemoryStore() as store:
        yield store


def request_of(name, *texts, fingerprint="first", vectors=None, **facts):
    """A document with one chunk per text, to be stored."""
    chunks = [Chunk(text, 0, len(text)) for text in texts or (f"page {name}",)]
    if vectors is None:
        vectors = embed([chunk.text for chunk in chunks])
    return StoreRequest(Document(name, "", **facts), chunks, vectors, fingerprint)


def put(store, *requests, embedder=embed.name):
    """Store requests, and return the types of the errors."""
    results = store.upsert_many(requests, embedder=embedder)
    return [None if error is None else type(error) for error in results]


def ids(store):
    """Ids of the stored documents, in order."""
    return [document.id for document in store.documents()]


def test_a_group_is_stored_with_its_chunks_vectors_and_words(store):
    """As by `upsert`."""
    assert put(store, request_of("a", "token", "bucket"), request_of("b", "retry")) == [None] * 2
    assert (ids(store), len(store)) == (["a", "b"], 3)
    assert [chunk.text for chunk in store.get("a").chunks] == ["token", "bucket"]
    for mode in ("vector", "keyword", "hybrid"):
        assert [hit.text for hit in store.search("bucket", 1, mode=mode)] == ["bucket"]
    [vector] = store.vectors_of(embed.name, ["retry"])
    assert vector.tolist() == embed(["retry"])[0].tolist()


def test_an_empty_group_stores_nothing(store):
    """Not even the name of the embedder."""
    assert store.upsert_many([], embedder="x") == []
    assert put(store, request_of("a")) == [None]


def test_a_document_without_chunks_is_stored_in_a_group(store):
    """Between others, and alone in a group by an embedder that nothing else is stored by."""
    empty = StoreRequest(Document("empty", ""), [], np.zeros((0, 0)), "f")
    assert put(store, request_of("a"), empty, request_of("b")) == [None] * 3
    assert put(store, empty, embedder="another") == [None]
    assert (sorted(ids(store)), len(store)) == (["a", "b", "empty"], 2)
    assert store.fingerprint_of("empty") == "f"


def test_a_group_replaces_stored_documents(store):
    """And leaves nothing of their former chunks."""
    put(store, request_of("a", "one", "two"), request_of("b", "three"), request_of("c", "four"))
    put(store, request_of("d", "five"), request_of("c", "six"), request_of("a", "seven"))
    assert (ids(store), len(store)) == (["b", "d", "c", "a"], 4)
    assert [len(store.search(word, mode="keyword")) for word in ("one", "two", "four")] == [0] * 3
    assert store.vectors_of(embed.name, ["one"]) == [None]
    assert [hit.document_id for hit in store.search("six", 1, mode="vector")] == ["c"]


def test_of_two_requests_with_one_id_the_last_is_stored(store):
    """Both succeed, as if they had been stored one after the other."""
    first, last = request_of("a", "one"), request_of("a", "two", "three", fingerprint="second")
    assert put(store, first, request_of("b"), last) == [None] * 3
    assert (ids(store), store.fingerprint_of("a"), len(store)) == (["b", "a"], "second", 3)
    assert store.search("one", mode="keyword") == []


def test_of_two_sources_with_one_id_the_first_is_stored(store):
    """The second fails, as if they had been stored one after the other."""
    first, second = request_of("a", source="x"), request_of("a", source="y", fingerprint="second")
    assert put(store, first, second, request_of("b")) == [None, IdConflictError, None]
    assert (ids(store), store.fingerprint_of("a")) == (["a", "b"], "first")


def id_conflict(store):
    """A document with the id of a stored document of another source."""
    put(store, request_of("bad", source="another"))
    return request_of("bad", source="this"), IdConflictError


def file_of_other_scheme(store):
    """A file with an absolute id in a store of relative ids."""
    put(store, request_of("kept", file="kept.md", source="kept.md"))
    store.remember_id_scheme(IdScheme(relative=True))
    return request_of("bad", file="/bad.md", source="/bad.md"), RunRefused


def metadata_without_json(_):
    """A document with an object in its metadata."""
    return request_of("bad", metadata={"when": object()}), TypeError


def chunk_metadata_without_json(_):
    """A chunk with an object in its metadata."""
    chunks = [Chunk("fine", 0, 4), Chunk("odd", 4, 7, {"when": object()})]
    return StoreRequest(Document("bad", ""), chunks, embed(["fine", "odd"]), ""), TypeError


def too_few_vectors(_):
    """A document with two chunks and one vector."""
    return request_of("bad", "one", "two", vectors=embed(["one"])), ValueError


def vector_not_finite(_):
    """A document whose vector has an entry that is no number."""
    return request_of("bad", vectors=np.full((1, 64), np.nan)), ValueError


def vector_of_other_dimension(_):
    """A document whose vector is shorter than those of the others."""
    return request_of("bad", vectors=np.ones((1, 3))), EmbedderMismatch


def surrogate_in_a_text(_):
    """A chunk that UTF-8 cannot encode."""
    return request_of("bad", "fine", "\ud800"), UnicodeEncodeError


def surrogate_in_the_id(_):
    """An id that UTF-8 cannot encode."""
    return request_of("bad\ud800"), UnicodeEncodeError


def offset_too_large(_):
    """A chunk that starts beyond SQLite's largest integer, found only when it is written."""
    return StoreRequest(Document("bad", ""), [Chunk("x", 2**70, 2**70)], embed(["x"]), ""), (
        OverflowError
    )


def fingerprint_of_no_type_of_sqlite(_):
    """A value that sqlite3 does not take, found only when it is written."""
    return request_of("bad", fingerprint=object()), StoreError


BAD = [
    id_conflict,
    file_of_other_scheme,
    metadata_without_json,
    chunk_metadata_without_json,
    too_few_vectors,
    vector_not_finite,
    vector_of_other_dimension,
    surrogate_in_a_text,
    surrogate_in_the_id,
    offset_too_large,
    fingerprint_of_no_type_of_sqlite,
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.__name__)
def test_a_document_that_cannot_be_stored_fails_alone(store, bad):
    """In the middle of a group, with the error that `upsert` raises for it."""
    request, error = bad(store)
    before = store.to_dataframe()
    group = [request_of("a", "token"), request, request_of("b", "bucket")]
    assert put(store, *group) == [None, error, None]
    assert [store.fingerprint_of(name) for name in "ab"] == ["first", "first"]
    assert len(store) == len(before) + 2
    assert [hit.document_id for hit in store.search("bucket", 1)] == ["b"]
    with pytest.raises(error) as alone:
        store.upsert(*request[:3], fingerprint=request[3], embedder=embed.name)
    [_, again] = store.upsert_many([group[0], request], embedder=embed.name)
    assert str(again) == str(alone.value)


def test_a_failed_document_keeps_its_former_version(store):
    """Its neighbours are replaced."""
    put(store, request_of("a"), request_of("b"))
    bad = request_of("a", "fine", "\ud800", fingerprint="second")
    assert put(store, bad, request_of("b", fingerprint="second")) == [UnicodeEncodeError, None]
    assert [store.fingerprint_of(name) for name in "ab"] == ["first", "second"]
    assert store.get("a").chunks[0].text == "page a"


def test_another_embedder_is_refused_for_the_whole_group(store):
    """By its name, and by the dimension of all vectors; documents without chunks included."""
    put(store, request_of("a"))
    empty = StoreRequest(Document("empty", ""), [], np.zeros((0, 0)), "f")
    with pytest.raises(EmbedderMismatch, match="'another'"):
        store.upsert_many([empty, request_of("b")], embedder="another")
    short = [request_of(name, vectors=np.ones((1, 3))) for name in "bc"]
    with pytest.raises(EmbedderMismatch, match=r"64 dimensions.* with 3"):
        store.upsert_many([empty, *short], embedder=embed.name)
    assert ids(store) == ["a"]


def test_another_identity_is_refused_for_the_whole_group(store):
    """An embedder of the same name that was known by something else."""
    store.upsert_many([request_of("a")], embedder=embed.name, identity="1")
    with pytest.raises(EmbedderMismatch, match="another run"):
        store.upsert_many([request_of("b")], embedder=embed.name, identity="2")
    assert ids(store) == ["a"]


def test_a_locked_file_fails_the_whole_group(tmp_path):
    """Nothing of it is stored; the same group can be stored afterwards."""
    path, group = tmp_path / "store.sqlite", [request_of("a"), request_of("b")]
    with SqliteStore(path, timeout=0.05) as store, closing(sqlite3.connect(path)) as other:
        other.isolation_level = None
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            store.upsert_many(group, embedder=embed.name)
        other.execute("ROLLBACK")
        assert ids(store) == []
        assert put(store, *group) == [None] * 2


def test_a_full_file_fails_the_whole_group(tmp_path):
    """At any statement: nothing of the group is stored, and what was there stays."""
    path = tmp_path / "store.sqlite"
    with SqliteStore(path) as store:
        put(store, request_of("a"))
        connection = store._file._connection
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 2:d}")
        texts = [f"{n} " * 500 for n in range(50)]
        with pytest.raises(StoreNotWritable, match="free space"):
            store.upsert_many([request_of("b"), request_of("c", *texts)], embedder=embed.name)
        assert (ids(store), len(store)) == (["a"], 1)


def test_a_closed_store_fails_the_whole_group(store):
    """As any other use of it."""
    store.close()
    with pytest.raises(StoreError, match="is closed: open it again"):
        store.upsert_many([request_of("a")], embedder=embed.name)


def test_a_deleted_file_fails_the_whole_group(tmp_path):
    """What is written is not reported as stored."""
    path = tmp_path / "store.sqlite"
    with SqliteStore(path) as store:
        put(store, request_of("a"))
        path.unlink()
        with pytest.raises(StoreError, match="deleted or renamed"):
            store.upsert_many([request_of("b")], embedder=embed.name)


WRITER = """
import sys
from tests.documents.stores.test_upsert_many import put, request_of
from ragasync.documents import SqliteStore
path, name, groups = sys.argv[1:]
with SqliteStore(path) as store:
    for group in range(int(groups)):
        texts = [f"chunk {n} of {name} {group}" for n in range(3)]
        names = [f"{name}-{group}-{n}" for n in range(5)]
        same = request_of("same", *texts, fingerprint=f"{name}-{group}")
        errors = put(store, same, *(request_of(each, *texts) for each in names))
        assert errors == [None] * 6, errors
        print(group, flush=True)
"""


def writer(path, name, groups):
    """A process that stores groups of six documents, and prints the number of each."""
    command = [sys.executable, "-c", WRITER, str(path), name, str(groups)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def checked(path):
    """The documents of a file, each with its three chunks, vectors and words."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        db.execute("INSERT INTO words (words, rank) VALUES ('integrity-check', 1)")
    with SqliteStore(path) as store:
        names = ids(store)
        frame = store.to_dataframe()
        assert frame.groupby("document_id").size().to_dict() == dict.fromkeys(names, 3)
        for text, vector in zip(
            frame.text, store.vectors_of(embed.name, list(frame.text)), strict=True
        ):
            assert vector.tolist() == embed([text])[0].tolist()
        return names


@pytest.mark.real_time
@pytest.mark.parametrize("groups", [1, 5, 17])
def test_kill_9_leaves_whole_groups(tmp_path, groups):
    """All that were acknowledged, and at most one more."""
    path = tmp_path / "store.sqlite"
    with writer(path, "a", 10_000) as process:
        for _ in range(groups):
            process.stdout.readline()
        process.kill()
        acknowledged = groups + len(process.stdout.read().splitlines())
    names = checked(path)
    assert (len(names) - 1) / 5 in (acknowledged, acknowledged + 1)


@pytest.mark.real_time
def test_two_processes_store_groups_in_one_file(tmp_path):
    """No document is lost, and one that both store is whole."""
    path = tmp_path / "store.sqlite"
    with writer(path, "a", 40) as first, writer(path, "b", 40) as second:
        assert [first.wait(), second.wait()] == [0, 0]
    assert len(checked(path)) == 2 * 40 * 5 + 1


def test_readers_do_not_wait_for_a_transaction_of_this_store(tmp_path):
    """They see the last commit; the transaction waits meanwhile for a test to let it go on."""
    with SqliteStore(tmp_path / "store.sqlite") as store:
        put(store, request_of("a", "token"))
        is_writing, may_commit = threading.Event(), threading.Event()

        def write():
            with store._file.writing() as rows:
                rows._db.execute("UPDATE documents SET fingerprint = 'second'")
                is_writing.set()
                assert may_commit.wait(30)

        thread = threading.Thread(target=write)
        thread.start()
        assert is_writing.wait(30)
        try:
            assert store.fingerprint_of("a") == "first"
            assert store.entry_of("a").fingerprint == "first"
            assert list(store.entries_of(["a", "b"])) == ["a"]
            assert store.vectors_of(embed.name, ["token"])[0] is not None
            assert len(store.search("token")) == 1
        finally:
            may_commit.set()
            thread.join()
        assert store.fingerprint_of("a") == "second"


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_file_deleted_or_replaced_before_the_first_read_is_still_read(tmp_path, is_replaced):
    """The file that was opened, although reading opens a second connection."""
    path, other = tmp_path / "store.sqlite", tmp_path / "other.sqlite"
    with SqliteStore(path) as store:
        put(store, request_of("a"))
        with SqliteStore(other) as another:
            put(another, request_of("b"))
        other.replace(path) if is_replaced else path.unlink()
        assert ids(store) == ["a"]
        assert [hit.document_id for hit in store.search("page")] == ["a"]


def test_entries_of_many_documents_are_read_together(store):
    """Those of documents that are stored, as `entry_of` has them."""
    group = [request_of(f"{n}", source=f"s{n}", metadata={"n": n}) for n in range(1_100)]
    put(store, *group)
    asked = [f"{n}" for n in range(0, 1_200, 2)]
    found = store.entries_of([*asked, "\ud800"])
    assert sorted(found) == sorted(asked[:550])
    assert found["86"] == store.entry_of("86") == ("first", "s86", None, {"n": 86})
    assert store.entries_of([]) == {}


def test_vectors_of_many_texts_are_read_together(store):
    """Of documents with more chunks than a row of vectors has, in any order."""
    texts = [f"text {n}" for n in range(150)]
    put(store, request_of("a", *texts), request_of("b", *texts[::-1], "last"))
    asked = [*texts[::-1], "unknown", "last", "text 7"]
    found = store.vectors_of(embed.name, asked)
    expected = embed(asked)
    assert [vector is None for vector in found] == [text == "unknown" for text in asked]
    for vector, row in zip(found, expected, strict=True):
        assert vector is None or vector.tolist() == row.tolist()


class Noting(SqliteStore):
    """A store that notes its calls, and refuses a document."""

    def __init__(self):
        super().__init__(":memory:")
        self.calls = []

    def upsert(self, document, *args, **kwargs):
        self.calls.append(document.id)
        if document.id == "refused":
            raise LookupError("refused")
        super().upsert(document, *args, **kwargs)

    def fingerprint_of(self, document_id):
        return None if document_id == "hidden" else super().fingerprint_of(document_id)


def test_a_subclass_that_overrides_upsert_stores_each_document_of_a_group():
    """Its own errors are those of single documents; those of the whole store are raised."""
    with Noting() as store:
        group = request_of("a"), request_of("refused"), request_of("b", "\ud800"), request_of("c")
        assert put(store, *group) == [None, LookupError, UnicodeEncodeError, None]
        assert store.calls == ["a", "refused", "b", "c"]
        assert ids(store) == ["a", "c"]
        with pytest.raises(EmbedderMismatch):
            put(store, request_of("d"), embedder="another")


def test_a_subclass_that_overrides_fingerprint_of_decides_which_entries_exist():
    """For one document and for many."""
    with Noting() as store:
        put(store, request_of("a"), request_of("hidden"))
        assert store.entry_of("hidden") is None
        assert list(store.entries_of(["a", "hidden"])) == ["a"]
