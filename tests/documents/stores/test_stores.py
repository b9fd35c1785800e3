"""Every store of this package keeps the same contract: in a file, in memory, in Lance."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ragasync.documents import (
    Chunk,
    Document,
    EmbedderMismatch,
    HashingEmbedder,
    MemoryStore,
    Store,
    StoreError,
)
from tests.support.store_kinds import KINDS, PAGES, embed, fill, ids, opened, put

BUCKET = "/docs/bucket.md"


@pytest.fixture(params=KINDS)
def store(request, tmp_path):
    """Give an empty store of each kind."""
    with opened(request.param, tmp_path) as store:
        yield store


@pytest.fixture
def library(store):
    """Give a store with the pages, a chunk each."""
    return fill(store)


def test_each_is_a_store_that_tells_all(store):
    """The annotation is what mypy would check."""
    whole: Store = store
    assert whole.search("anything") == []
    assert list(store.sources_within("")) == []
    assert store.vectors_of("x", ["a", "b"]) == [None, None]
    assert store.fingerprint_of("x") is None
    assert store.delete("x") is False


def test_an_empty_store_is_not_taken_for_a_missing_one(store):
    """`store or default` keeps it."""
    assert len(store) == 0
    assert bool(store)


def test_a_stored_document_replaces_its_former_chunks(library):
    """No chunk of a longer former version is left, in no search and no count."""
    chunks = Chunk("ponies", 0, 6), Chunk("two", 6, 9), Chunk("three", 9, 14)
    put(library, Document("bucket", "x", source=BUCKET), *chunks)
    assert len(library) == 7
    put(library, Document("bucket", "four", source=BUCKET), fingerprint="second")
    assert (len(library.documents()), len(library)) == (5, 5)
    assert library.search("ponies", mode="keyword") == []
    assert ids(library.search("four", 1, mode="vector")) == ["bucket"]
    assert library.fingerprint_of("bucket") == "second"


def test_chunks_of_one_text_are_told_apart_by_their_places(store):
    """The same text twice in a document, and in another document."""
    for name in ("a", "b"):
        put(store, Document(name, "samesame"), Chunk("same", 0, 4), Chunk("same", 4, 8))
        put(store, Document(name, "samesame"), Chunk("same", 0, 4), Chunk("same", 4, 8))
    assert (len(store.documents()), len(store)) == (2, 4)
    assert sorted((hit.document_id, hit.start) for hit in store.search("same")) == [
        ("a", 0),
        ("a", 4),
        ("b", 0),
        ("b", 4),
    ]


def test_a_deleted_document_is_gone(library):
    """Once; its neighbours stay."""
    assert library.delete("it's") is True
    assert library.delete("it's") is False
    assert library.fingerprint_of("it's") is None
    assert "it's" not in ids(library.search("bucket quotes"))
    assert (len(library.documents()), len(library)) == (4, 4)


def test_a_document_without_chunks_is_remembered(store):
    """Before there are any vectors, after there are, and instead of chunks."""
    nothing = np.zeros((0, 0))
    store.upsert(Document("empty", ""), [], nothing, fingerprint="f", embedder="x")
    assert store.fingerprint_of("empty") == "f"
    assert (len(store.documents()), len(store)) == (1, 0)
    put(store, Document("page", "token"))
    store.upsert(Document("empty", ""), [], nothing, fingerprint="g", embedder="y")
    assert [len(store.search("token", mode=mode)) for mode in ("hybrid", "vector", "keyword")] == [
        1,
        1,
        1,
    ]
    store.upsert(Document("page", ""), [], nothing, fingerprint="h", embedder="y")
    assert (len(store.documents()), len(store), store.search("token")) == (2, 0, [])
    assert store.fingerprint_of("page") == "h"


def test_vectors_of_texts_are_found_whatever_document_has_them(library):
    """Of this embedder alone; none for a text that is gone."""
    texts = ["unknown", PAGES["sort"][0], PAGES["café"][0], PAGES["sort"][0], "\ud800"]
    found = library.vectors_of(embed.name, texts)
    assert [vector is None for vector in found] == [True, False, False, False, True]
    assert found[1].tolist() == embed([texts[1]])[0].tolist()
    assert library.vectors_of("another", texts) == [None] * 5
    library.delete("sort")
    assert library.vectors_of(embed.name, texts)[1] is None


def test_vectors_come_back_at_the_length_they_had(store):
    """As the embedder gave them, also where that is not 1 and where it is 0."""
    vectors = np.array([[3.0, 4.0], [0.0, 0.0]], dtype=np.float32)
    chunks = Chunk("long", 0, 4), Chunk("zero", 4, 8)
    store.upsert(Document("d", "longzero"), chunks, vectors, fingerprint="", embedder="x")
    found = store.vectors_of("x", ["long", "zero"])
    assert [vector.tolist() for vector in found] == vectors.tolist()
    hits = store.search("", mode="vector", vector=np.array([3.0, 4.0]))
    assert (hits[0].text, hits[0].score) == ("long", pytest.approx(1))
    assert [hit.score for hit in hits[1:]] in ([], [0.0])


def test_nothing_is_near_a_vector_of_zeros(library):
    """It has no direction."""
    assert library.search("", mode="vector", vector=np.zeros(64)) == []


def test_files_are_told_by_their_beginning(library):
    """Character by character; a document that the user made has no file, whatever its source."""
    put(library, Document("loose", "no source"))
    put(library, Document("mine", "no file", source="/docs/a.md"))
    put(library, Document("old", "elsewhere", source="/docs-old/a.md", file="/docs-old/a.md"))
    assert sorted(library.sources_within("/docs/")) == sorted(
        (name, f"/docs/{name}.md") for name in PAGES
    )
    assert library.sources_within("/docs/it's") == [("it's", "/docs/it's.md")]
    assert len(library.sources_within("")) == 6
    assert library.sources_within("/docs/%") == []


def test_another_embedder_is_refused(library):
    """By name and by dimension, in storing and in searching; nothing of the document is stored."""
    with pytest.raises(EmbedderMismatch, match=r"'hashing-64-v2' with 64.*'hashing-32-v2' with 32"):
        put(library, Document("new", "x"), made_by=HashingEmbedder(32))
    assert library.fingerprint_of("new") is None
    with pytest.raises(EmbedderMismatch, match=r"64 dimensions.*has 3"):
        library.search("x", vector=np.ones(3))
    library.embedder = HashingEmbedder(32)
    with pytest.raises(EmbedderMismatch, match=r"'hashing-64-v2'.*'hashing-32-v2'"):
        library.search("x")
    assert ids(library.search("quotes", mode="keyword")) == ["it's"]


@pytest.mark.parametrize("part", ["id", "text", "source"])
def test_a_lone_surrogate_is_refused_with_what_to_do(library, part):
    """Nothing of the document is stored, and the store goes on."""
    parts = {"id": "id", "text": "text", "source": "source"} | {part: "half \ud83d of a pair"}
    with pytest.raises(UnicodeEncodeError, match=r"ud83d.*lone surrogate.*replace"):
        put(library, Document(**parts))
    assert (len(library.documents()), len(library)) == (5, 5)
    put(library, Document("fine", "fine"))


def test_metadata_that_is_no_plain_data_is_refused(library):
    """The old version stays."""
    with pytest.raises(TypeError, match=r"'bucket' must be plain data"):
        put(library, Document("bucket", "new", {"when": object()}, source=BUCKET))
    assert library.fingerprint_of("bucket") == "first"


def test_the_frame_has_a_row_a_chunk_with_its_metadata(store):
    """The same columns and types, rows or not."""
    empty = store.to_dataframe()
    put(store, Document("a", "xy", {"n": 1}, source="/a"), Chunk("x", 0, 1), Chunk("y", 1, 2))
    put(store, Document("b", "z"), Chunk("z", 0, 1, {"page": 3}))
    frame = store.to_dataframe()
    assert frame.drop(columns="source").to_dict("list") == {
        "document_id": ["a", "a", "b"],
        "ordinal": [0, 1, 0],
        "start": [0, 1, 0],
        "end": [1, 2, 1],
        "text": ["x", "y", "z"],
        "metadata": [{"n": 1}, {"n": 1}, {"page": 3}],
    }
    assert frame.source.isna().tolist() == [False, False, True]
    assert frame.metadata.str.get("page").tolist()[2] == 3
    assert empty.dtypes.to_dict() == frame.dtypes.to_dict()
    assert len(empty) == 0


def test_the_repr_tells_what_is_in_it(library):
    """Live numbers, and afterwards that it is closed."""
    name = type(library).__name__
    assert repr(library).startswith(f"<{name} '")
    assert repr(library).endswith("': 5 documents, 5 chunks by 'hashing-64-v2'>")
    library.close()
    library.close()
    assert "closed" in repr(library)
    with pytest.raises(StoreError, match="closed"):
        library.search("bucket")
    with pytest.raises(StoreError, match="closed"):
        put(library, Document("x", "x"))


@pytest.mark.real_time
def test_threads_share_a_store(store):
    """Writers and searchers in four threads see whole documents."""
    together = threading.Barrier(4)

    def work(thread):
        together.wait()
        for n in range(5):
            text = f"token bucket {thread}"
            put(store, Document(f"{thread}-{n}", text), Chunk(text, 0, 1), Chunk("second", 1, 2))
            assert store.search("token bucket", 3)
            assert len(store) % 2 == 0

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert (len(store.documents()), len(store)) == (20, 40)


def test_a_store_in_memory_that_nobody_has_any_more_is_closed():
    """There is no file that somebody would have to close."""
    store = MemoryStore()
    file = store._file
    del store
    with pytest.raises(sqlite3.ProgrammingError):
        file._connection.execute("SELECT 1")
