"""LanceStore.upsert_many: several documents in one commit, each of which may fail alone."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragasync.documents import (
    Chunk,
    Document,
    EmbedderMismatch,
    IdConflictError,
    LanceStore,
    MemoryStore,
    RunRefused,
    StoreError,
    StoreRequest,
)

# Internals: protocols and checks that all stores share, without a store.
from ragasync.documents.store import IdScheme, StoreNotWritable
from tests.support.requirements import needs
from tests.support.store_kinds import embed, ids

needs("lancedb")


@pytest.fixture
def path(tmp_path):
    """Path of a store's folder."""
    return tmp_path / "store.lance"


@pytest.fixture
def store(path):
    """Open an empty LanceStore."""
    with LanceStore(path) as store:
        yield store


def request(name, *texts, fingerprint="first", vectors=None, **details):
    """Request to store a document with a chunk for each text."""
    chunks = [Chunk(text, 0, len(text)) for text in texts]
    made = embed([*texts]) if vectors is None else vectors
    return StoreRequest(Document(name, "", **details), chunks, made, fingerprint)


def at(start, end):
    """Request to store a document with a chunk at a position."""
    return request("bad", "x")._replace(chunks=[Chunk("x", start, end)])


def upsert(store, *requests):
    """Store documents with vectors of the tests' embedder."""
    return store.upsert_many(requests, embedder=embed.name)


def texts_in(store):
    """Texts of the chunks of each stored document, with every document checked to be whole."""
    found = {each.id: store.get(each.id) for each in store.documents()}
    assert len(store) == sum(len(each.chunks) for each in found.values())
    frame = store.to_dataframe()
    for name, each in found.items():
        ordinals = frame[frame.document_id == name].ordinal.tolist()
        assert ordinals == list(range(len(each.chunks)))
    return {name: [chunk.text for chunk in each.chunks] for name, each in found.items()}


def version(path):
    """Version of the table, which each commit increments."""
    import lancedb

    return lancedb.connect(path).open_table("ragasync_chunks").version


def test_a_group_is_stored_in_one_commit(store, path):
    """New documents are appended; others replace the stored ones with their chunks."""
    assert upsert(store, request("a", "red", "blue"), request("b", "green")) == [None, None]
    before = version(path)
    group = [request("c", "gold"), request("a", "grey", fingerprint="second"), request("d", "pink")]
    assert upsert(store, *group) == [None, None, None]
    assert version(path) == before + 1
    assert texts_in(store) == {"a": ["grey"], "b": ["green"], "c": ["gold"], "d": ["pink"]}
    assert ids(store.search("grey", mode="keyword")) == ["a"]
    assert store.search("red", mode="keyword") == []
    assert (store.fingerprint_of("a"), store.fingerprint_of("b")) == ("second", "first")
    before = version(path)
    assert upsert(store, request("e", "white"), request("f")) == [None, None]
    assert version(path) == before + 1


BAD = {
    "one vector too few": (request("bad", "x", "y", vectors=embed(["x"])), ValueError),
    "not a number": (request("bad", "x", vectors=np.full((1, 64), math.nan)), ValueError),
    "no numbers": (request("bad", "x", vectors=[["many"] * 64]), ValueError),
    "another dimension": (request("bad", "x", vectors=np.ones((1, 32))), EmbedderMismatch),
    "metadata": (request("bad", "x", metadata={"function": print}), TypeError),
    "surrogate in a text": (request("bad", "\ud800"), UnicodeEncodeError),
    "surrogate in the id": (request("bad\ud800"), UnicodeEncodeError),
    "surrogate in the source": (request("bad", source="\ud800"), UnicodeEncodeError),
    "surrogate in the file": (request("bad", source="x", file="x\ud800"), UnicodeEncodeError),
    "position": (at(0, 2**70), OverflowError),
    "id of another source": (request("taken", "x", source="elsewhere"), IdConflictError),
    "absolute file": (request("bad", "x", source="/docs/x", file="/docs/x"), RunRefused),
    "no request": ("bad", ValueError),
    "no document": (StoreRequest(None, [], np.ones((0, 0)), ""), AttributeError),
}


@pytest.mark.parametrize("kind", BAD)
def test_one_bad_document_fails_alone(store, kind):
    """The others of its group are stored, and what was stored under its id stays."""
    bad, error_class = BAD[kind]
    store.remember_id_scheme(IdScheme(relative=True))
    upsert(store, request("bad", "old"), request("taken", "old"))
    result = upsert(store, request("before", "red"), bad, request("after", "blue"))
    assert [type(each) for each in (result[0], result[2])] == [type(None)] * 2
    assert isinstance(result[1], error_class)
    assert texts_in(store) == {
        "bad": ["old"],
        "taken": ["old"],
        "before": ["red"],
        "after": ["blue"],
    }
    if isinstance(bad, StoreRequest):
        with pytest.raises(type(result[1])) as raised:
            store.upsert(*bad[:3], fingerprint=bad.fingerprint, embedder=embed.name)
        assert str(raised.value) == str(result[1])


def test_a_group_of_bad_documents_stores_nothing(store, path):
    """Each has its own error, and no commit is made."""
    before = version(path)
    bad = [BAD["metadata"][0], BAD["surrogate in a text"][0], BAD["position"][0]]
    assert all(isinstance(error, Exception) for error in upsert(store, *bad))
    assert (version(path), texts_in(store)) == (before, {})


def test_an_empty_group_stores_nothing(store, path):
    """Without a commit."""
    before = version(path)
    assert upsert(store) == []
    assert version(path) == before


def test_documents_without_chunks_are_stored(store):
    """Before there are any vectors, with some, and in place of a document with chunks."""
    assert upsert(store, request("a"), request("b")) == [None, None]
    assert store.stored_embedder() is None
    assert upsert(store, request("c"), request("d", "blue"), request("e")) == [None] * 3
    assert upsert(store, request("d", fingerprint="second"), request("f")) == [None] * 2
    assert texts_in(store) == {name: [] for name in "abcdef"}
    assert store.fingerprint_of("d") == "second"


def test_of_several_with_one_id_the_last_is_stored(store):
    """As if they had been stored one after the other, whether the id is stored or not."""
    for fingerprint in ("first", "second"):
        group = [
            request("a", "red", "green", fingerprint=fingerprint),
            request("b", "gold", fingerprint=fingerprint),
            request("a", "blue", fingerprint=fingerprint),
        ]
        assert upsert(store, *group) == [None] * 3
        assert texts_in(store) == {"a": ["blue"], "b": ["gold"]}
        assert store.fingerprint_of("a") == fingerprint


def test_the_last_good_one_of_an_id_is_stored(store):
    """The one after it fails, for its metadata, or its source, or the type of a value."""
    for n, kind in enumerate(("metadata", "position", "another dimension")):
        bad = BAD[kind][0]
        bad = bad._replace(document=replace(bad.document, id=f"{n}"))
        result = upsert(store, request(f"{n}", "good"), bad)
        assert result[0] is None
        assert isinstance(result[1], BAD[kind][1])
    result = upsert(store, request("x", "good", source="here"), request("x", "x", source="there"))
    assert isinstance(result[1], IdConflictError)
    assert texts_in(store) == {name: ["good"] for name in "012x"}


def test_vectors_of_another_embedder_are_an_error_of_the_whole_group(store):
    """By name or dimension; nothing of the group is stored, not even without chunks."""
    upsert(store, request("a", "red"))
    group = [request("b", "blue"), request("c")]
    with pytest.raises(EmbedderMismatch, match=r"'hashing-64-v2' with 64 dim.*'other'"):
        store.upsert_many(group, embedder="other")
    small = [request("b", "blue", vectors=np.ones((1, 8))), request("c")]
    with pytest.raises(EmbedderMismatch, match="are of 'hashing-64-v2' with 8"):
        upsert(store, *small)
    assert texts_in(store) == {"a": ["red"]}


def test_the_first_document_with_vectors_determines_the_dimension(store):
    """Of an empty store, even if other embedders had vectors in it before."""
    upsert(store, request("a", "red"))
    store.delete("a")
    group = [request("b"), *(request(f"{n}", "x", vectors=np.ones((1, n))) for n in (3, 2, 3))]
    result = store.upsert_many(group, embedder="other", identity="x")
    assert [type(error) for error in result] == [
        type(None),
        type(None),
        EmbedderMismatch,
        type(None),
    ]
    assert store.stored_embedder().dimension == 3
    with pytest.raises(EmbedderMismatch, match="another 'other'"):
        store.upsert_many(group[1:2], embedder="other", identity="y")


@pytest.mark.parametrize("failing", ["add", "merge_insert"])
def test_an_error_of_the_table_is_raised_and_nothing_is_stored(store, monkeypatch, failing):
    """The same group can be stored afterwards."""
    from lancedb.table import LanceTable

    def no_space(*_):
        raise OSError(28, "No space left on device")

    upsert(store, request("a", "red"))
    group = [request("b", "blue")] if failing == "add" else [request("a", "blue"), request("b")]
    with monkeypatch.context() as patched:
        patched.setattr(LanceTable, failing, no_space)
        with pytest.raises(StoreNotWritable, match=r"cannot be used.*No space left.*free space"):
            upsert(store, *group)
    assert texts_in(store) == {"a": ["red"]}
    assert store.entries_of(["a", "b"]).keys() == {"a"}
    assert upsert(store, *group) == [None] * len(group)


def test_a_closed_store_stores_nothing(store):
    """The error says so, and is raised for the whole group."""
    store.close()
    with pytest.raises(StoreError, match="is closed"):
        upsert(store, request("a", "red"), request("b"))


class Checked(LanceStore):
    """A store that refuses some documents, and hides others."""

    def upsert(self, document, chunks, embeddings, **details):
        if document.id == "refused":
            raise PermissionError("refused")
        super().upsert(document, chunks, embeddings, **details)

    def fingerprint_of(self, document_id):
        return None if document_id == "hidden" else super().fingerprint_of(document_id)


def test_an_overridden_upsert_stores_each_document(path):
    """An error of one document is its result; that of the store is raised."""
    with Checked(path) as store:
        result = upsert(store, request("a", "red"), request("refused"), request("b", "blue"))
        assert [type(error) for error in result] == [type(None), PermissionError, type(None)]
        assert texts_in(store) == {"a": ["red"], "b": ["blue"]}
        with pytest.raises(EmbedderMismatch):
            store.upsert_many([request("c", "x")], embedder="other")
    with pytest.raises(StoreError, match="is closed"):
        upsert(store, request("c"))


def test_an_overridden_look_up_is_used_for_many_entries(path):
    """A document without a fingerprint is not stored."""
    with Checked(path) as store:
        upsert(store, request("a"), request("hidden"))
        assert store.entry_of("hidden") is None
        assert store.entries_of(["hidden", "a", "b"]) == {"a": store.entry_of("a")}


def test_entries_and_vectors_of_many_are_read_together(path, monkeypatch):
    """With a few scans of the table, and the same values as one by one."""
    from lancedb.table import LanceTable

    names = [f"d{n}" for n in range(1_500)]
    group = [
        request(name, f"word{n % 1_000}", metadata={"n": n}, fingerprint=f"{n}")
        for n, name in enumerate(names)
    ]
    with LanceStore(path) as store:
        assert upsert(store, *group) == [None] * len(group)
    scans = []
    search = LanceTable.search
    monkeypatch.setattr(LanceTable, "search", lambda *args: scans.append(1) or search(*args))
    texts = [f"word{n}" for n in range(1_005)] * 2
    with LanceStore(path) as store:
        vectors = store.vectors_of(embed.name, texts)
        few = store.entries_of([*names[:300], "missing"])
        assert len(scans) <= 4
    with LanceStore(path) as store:
        scans.clear()
        many = store.entries_of([*names, "missing"])
        assert len(scans) == 1
        assert store.entries_of([]) == {}
    assert [*few] == names[:300]
    assert [*many] == names
    for n, name in enumerate(names):
        assert (many[name].fingerprint, many[name].metadata) == (f"{n}", {"n": n})
    assert [vector is None for vector in vectors[:1_005]] == [False] * 1_000 + [True] * 5
    assert np.array_equal(np.array(vectors[:1_000]), embed(texts[:1_000]))
    assert np.array_equal(np.array(vectors[1_005:2_005]), embed(texts[:1_000]))


NAMES = "abcd"
REQUESTS = st.builds(
    lambda name, source, texts, fault, mark: request(
        name,
        *texts,
        source=source,
        fingerprint=mark,
        metadata={"x": print} if fault == "metadata" else {"x": mark},
        vectors=np.ones((3, 64)) if fault == "vectors" else None,
    ),
    st.sampled_from(NAMES),
    st.sampled_from([None, None, None, "elsewhere"]),
    st.lists(st.sampled_from(["red", "green", "blue"]), max_size=2),
    st.sampled_from([None, None, None, "metadata", "vectors"]),
    st.sampled_from("123456789"),
)


def test_groups_store_what_single_documents_store(tmp_path):
    """The same documents fail or are stored as one after the other in a MemoryStore."""

    @settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.lists(REQUESTS, max_size=6), min_size=1, max_size=3))
    def agree(groups):
        for each in lance.entries_of(NAMES):
            lance.delete(each)
        with MemoryStore() as memory:
            for group in groups:
                expected = [error_of(memory, each) for each in group]
                errors = upsert(lance, *group)
                assert [each is None for each in errors] == [each is None for each in expected]
            stored = {name: memory.entry_of(name) for name in NAMES if memory.entry_of(name)}
            assert lance.entries_of(NAMES) == stored
            assert texts_in(lance) == texts_in(memory)

    with LanceStore(tmp_path / "store.lance") as lance:
        agree()


def error_of(store, each):
    """Store one document, and return its error."""
    document, chunks, vectors, fingerprint = each
    try:
        store.upsert(document, chunks, vectors, fingerprint=fingerprint, embedder=embed.name)
    except (ValueError, TypeError) as error:
        return error


WRITER = """
import sys
from ragasync.documents import Chunk, Document, HashingEmbedder, LanceStore
from ragasync.documents.store import StoreRequest
embed, store = HashingEmbedder(64), LanceStore(sys.argv[1])
for line in sys.stdin:
    group, me = line.split()
    requests = []
    for n in range(20):
        texts = [f"{me} {i}" for i in range(int(me))]
        chunks = [Chunk(text, i, i + 1) for i, text in enumerate(texts)]
        requests.append(StoreRequest(Document(f"{group}-{n}", ""), chunks, embed(texts), me))
    assert store.upsert_many(requests, embedder=embed.name) == [None] * 20
    print(group, flush=True)
"""


def writer(path: Path) -> subprocess.Popen[str]:
    """Start a process that stores a group of 20 documents for each line `group writer`."""
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def start_group(process, group, me):
    """Let a process store a group, without waiting for it."""
    process.stdin.write(f"{group} {me}\n")
    process.stdin.flush()


def writers(path):
    """The writer of each stored group, whose 20 documents must all be whole and its own."""
    found: dict[str, set[int]] = {}
    counts: dict[str, int] = {}
    with LanceStore(path) as store:
        for name, texts in texts_in(store).items():
            me = len(texts)
            assert texts == [f"{me} {i}" for i in range(me)]
            assert store.fingerprint_of(name) == f"{me}"
            group = name.partition("-")[0]
            found.setdefault(group, set()).add(me)
            counts[group] = counts.get(group, 0) + 1
    assert {*counts.values()} <= {20}
    assert all(len(each) == 1 for each in found.values())
    return {group: min(each) for group, each in found.items()}


@pytest.mark.real_time
@pytest.mark.timeout(180)
def test_a_killed_process_leaves_whole_groups(path):
    """Of new documents and of replaced ones: a group is stored as a whole or not at all."""
    stored: dict[str, int] = {}
    for me in (1, 2, 3):
        with writer(path) as process:
            for group in range(30):
                start_group(process, group, me)
            acknowledged = {process.stdout.readline().strip() for _ in range(2 + 3 * me)}
            process.kill()
            acknowledged |= {line.strip() for line in process.stdout}
        found = writers(path)
        assert {group for group, by in found.items() if by == me} >= acknowledged
        assert found.keys() >= stored.keys()
        stored = found


@pytest.mark.real_time
@pytest.mark.timeout(180)
def test_two_processes_store_the_same_documents(path):
    """Each group is that of one of them."""
    with writer(path) as one, writer(path) as other:
        for group in range(10):
            start_group(one, group, 1)
            start_group(other, group, 2)
        for process in (one, other):
            assert [process.stdout.readline() for _ in range(10)] == [f"{n}\n" for n in range(10)]
            process.stdin.close()
    assert writers(path).keys() == {f"{n}" for n in range(10)}
