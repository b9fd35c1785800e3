"""The SQLite store: what is in it, what is found in it, and what no accident can do to it."""

import asyncio
import random
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragasync.documents import (
    Chunk,
    Document,
    EmbedderMismatch,
    HashingEmbedder,
    SqliteStore,
    Store,
    StoreError,
)

# Internals: protocols and checks that all stores share, without a store.
from ragasync.documents.store import as_json, checked_vectors

embed = HashingEmbedder(256)

TEXTS = {
    "bucket": "A token bucket refills at a fixed rate.",
    "retry": "Failed requests are tried again after a delay.",
    "sort": "Sorting a list keeps equal elements in their order.",
    "café": "The café serves crème brûlée.",
}


@pytest.fixture
def path(tmp_path):
    """Give a place for a store's file."""
    return tmp_path / "store.sqlite"


@pytest.fixture
def store(path):
    """Give an empty store in a file."""
    with SqliteStore(path) as store:
        yield store


@pytest.fixture
def library(store):
    """Give a store with a few documents of one chunk each."""
    for name, text in TEXTS.items():
        put(store, name, text)
    return store


def put(store, name, *texts, fingerprint="first", document=None, made_by=embed):
    """Store a document of these chunks."""
    starts = [sum(map(len, texts[:n])) for n in range(len(texts))]
    chunks = [
        Chunk(text, start, start + len(text)) for start, text in zip(starts, texts, strict=True)
    ]
    document = document or Document(name, "".join(texts), source=f"/docs/{name}.md")
    vectors = made_by(texts)
    store.upsert(document, chunks, vectors, fingerprint=fingerprint, embedder=made_by.name)


def ids(hits):
    """Return the documents' ids of hits."""
    return [hit.document_id for hit in hits]


def counts(path):
    """Return the numbers of documents, chunks, vectors and indexed texts; check the index."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("INSERT INTO words (words) VALUES ('integrity-check')")
        tables = ("documents", "chunks", "words_docsize")
        documents, chunks, words = (
            db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables
        )
        (vectors,) = db.execute(
            "SELECT coalesce(sum(length(embeddings)) / (4 * dimension), 0) FROM vectors, embedder"
        ).fetchone()
        return documents, chunks, vectors, words


def test_a_sqlite_store_is_a_store():
    """It has the protocol's methods; the annotation is what mypy would check."""
    store: Store = SqliteStore(":memory:")
    assert store.search("anything") == []
    store.close()


def test_what_is_stored_is_there_after_opening_again(path):
    """Another store of the same file finds it."""
    with SqliteStore(path) as store:
        put(store, "bucket", *TEXTS.values())
    with SqliteStore(path) as store:
        assert (len(store.documents()), len(store)) == (1, 4)
        assert ids(store.search("token bucket", 1)) == ["bucket"]


def test_a_hit_leads_back_to_its_place(store):
    """It tells document, source, offsets and both metadata, the chunk's over the document's."""
    text = "Preface. A token bucket refills."
    document = Document("book", text, {"title": "On rates", "page": 0}, source="/docs/book.md")
    chunk = Chunk(text[9:], 9, 32, {"page": 7})
    store.upsert(document, [chunk], embed([text]), fingerprint="f", embedder=embed.name)
    [hit] = store.search("token bucket", mode="keyword")
    assert (hit.document_id, hit.source, hit.text) == ("book", "/docs/book.md", text[9:])
    assert text[hit.start : hit.end] == hit.text
    assert hit.metadata == {"title": "On rates", "page": 7}
    with pytest.raises(AttributeError):
        hit.score = 1


def test_a_stored_document_replaces_its_former_chunks(library, path):
    """A shorter version leaves nothing of the longer one, in no table and no search."""
    put(library, "bucket", "one about ponies", "two", "three")
    put(library, "bucket", "four", fingerprint="second")
    assert counts(path) == (4, 4, 4, 4)
    assert library.search("ponies", mode="keyword") == []
    assert library.search("ponies", 1, mode="vector") == []
    assert ids(library.search("four", 1, mode="vector")) == ["bucket"]
    assert library.fingerprint_of("bucket") == "second"


def test_storing_the_same_again_changes_nothing_that_can_be_seen(library):
    """The documents and chunks are the same, each once."""

    def content():
        documents = sorted(library.documents(), key=lambda document: document.id)
        return documents, library.get("bucket"), sorted(library.to_dataframe().text)

    before = content()
    put(library, "bucket", TEXTS["bucket"])
    assert content() == before


def test_fingerprints_are_of_what_was_stored_last(library):
    """A document that is not there has none."""
    assert library.fingerprint_of("bucket") == "first"
    assert library.fingerprint_of("nowhere") is None


def test_a_deleted_document_is_gone_from_every_table(library, path):
    """Chunks, vectors and words go with it; deleting it again finds nothing."""
    assert library.delete("bucket") is True
    assert library.delete("bucket") is False
    assert counts(path) == (3, 3, 3, 3)
    assert library.fingerprint_of("bucket") is None
    assert "bucket" not in ids(library.search(TEXTS["bucket"]))


def test_a_document_without_chunks_is_remembered(store):
    """An empty file has a fingerprint, so that it is skipped the next time."""
    store.upsert(Document("empty", ""), [], np.zeros((0, 0)), fingerprint="f", embedder="x")
    assert store.fingerprint_of("empty") == "f"
    assert (len(store.documents()), len(store)) == (1, 0)
    assert store.search("anything") == []
    put(store, "bucket", TEXTS["bucket"])


def test_a_document_that_fails_leaves_its_old_version(library, path):
    """What goes wrong half-way through the chunks rolls all of it back."""
    chunks = [Chunk("fine", 0, 4), Chunk("odd", 4, 7, {"when": object()})]
    with pytest.raises(TypeError, match="plain data"):
        library.upsert(
            Document("bucket", "fineodd", source="/docs/bucket.md"),
            chunks,
            embed(["fine", "odd"]),
            fingerprint="second",
            embedder=embed.name,
        )
    assert library.fingerprint_of("bucket") == "first"
    assert counts(path) == (4, 4, 4, 4)


@pytest.mark.parametrize("mode", ["hybrid", "vector", "keyword"])
def test_every_way_of_searching_finds_the_text(library, mode):
    """The chunk with the words comes first."""
    assert ids(library.search("how does the token bucket refill?", mode=mode))[0] == "bucket"


def test_at_most_k_hits_come_back(library):
    """The number asked for, and fewer where there are fewer."""
    assert len(library.search("token requests list", 2)) == 2
    assert len(library.search("token requests list", 2, mode="vector")) == 2
    assert len(library.search("token requests list", 100)) == 3


def test_vectors_are_scored_by_their_cosine(library):
    """The very same text has cosine 1, though vectors of any length may be stored."""
    vectors = 7 * embed(["purple ponies"])
    chunk = Chunk("purple ponies", 0, 13)
    library.upsert(
        Document("long", chunk.text), [chunk], vectors, fingerprint="f", embedder=embed.name
    )
    [hit] = library.search("purple ponies", 1, mode="vector")
    assert (hit.document_id, hit.score) == ("long", pytest.approx(1))


def test_exact_search_agrees_with_all_cosines(store):
    """The ranking is that of a product with every vector."""
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(40, 8)).astype(np.float32)
    for n, vector in enumerate(vectors):
        chunk = Chunk(f"text {n}", 0, 6)
        store.upsert(
            Document(str(n), chunk.text), [chunk], vector[None], fingerprint="", embedder="x"
        )
    query = generator.normal(size=8).astype(np.float32)
    cosines = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    found = store.search("", 5, mode="vector", vector=query)
    assert ids(found) == [str(n) for n in np.argsort(-cosines)[:5]]
    assert [hit.score for hit in found] == pytest.approx(
        sorted(cosines, reverse=True)[:5], abs=1e-5
    )


def test_both_joins_the_two_rankings(library):
    """What both find outranks what one finds, by the sum of reciprocal ranks."""
    best = library.search("fixed requests of the bucket", 4)
    assert ids(best) == ["bucket", "retry"]
    assert best[0].score == pytest.approx(2 / 6)
    assert best[1].score == pytest.approx(2 / 7)


def test_accents_do_not_hide_a_word(library):
    """Words are found with their accents, without, and with accents as characters of their own."""
    for query in ("creme brulee", "crème brûlée", "cre\u0300me"):
        assert ids(library.search(query, mode="keyword")) == ["café"]


def test_words_are_found_in_their_other_forms(library):
    """Of English ones: by their stems."""
    for query in ("refilling", "buckets", "tokens refill"):
        assert ids(library.search(query, mode="keyword")) == ["bucket"]


@pytest.mark.parametrize("query", ["", "   ", '"*()^:-+{}', "?!"])
def test_a_query_without_words_finds_nothing(library, query):
    """Punctuation is not an error."""
    for mode in ("hybrid", "vector", "keyword"):
        assert library.search(query, mode=mode) == []


@pytest.mark.parametrize(
    "query", ['text:token OR "', "token AND NOT bucket", "NEAR(token)", "tok\0en"]
)
def test_query_syntax_is_data(library, query):
    """Operators, columns and quotes in a query are words like others."""
    assert isinstance(library.search(query, mode="keyword"), list)
    assert library.search(query + " bucket", mode="keyword")[0].document_id == "bucket"


def test_any_text_can_be_searched_for():
    """No text whatever makes a search fail."""
    with SqliteStore(":memory:") as library:
        put(library, "bucket", TEXTS["bucket"])

        @settings(max_examples=200)
        @given(st.text(st.characters()), st.sampled_from(["hybrid", "vector", "keyword"]))
        def search(text, mode):
            assert len(library.search(text, mode=mode)) <= 1

        search()


@pytest.mark.parametrize("k", [0, -1])
def test_a_search_for_no_hits_is_refused(library, k):
    """Such a k is a mistake."""
    with pytest.raises(ValueError, match="at least 1"):
        library.search("x", k)


def test_a_search_by_something_else_is_refused(library):
    """The error names what there is."""
    with pytest.raises(ValueError, match="'hybrid', 'vector', 'keyword'"):
        library.search("x", mode="magic")


def test_a_search_sees_what_was_stored_and_deleted_meanwhile(library):
    """The matrix in memory follows this store's own writing."""
    assert "pony" not in ids(library.search("purple ponies", mode="vector"))
    put(library, "pony", "purple ponies")
    assert ids(library.search("purple ponies", 1, mode="vector")) == ["pony"]
    library.delete("pony")
    assert "pony" not in ids(library.search("purple ponies", mode="vector"))
    for name in TEXTS:
        library.delete(name)
    assert library.search("token bucket", mode="vector") == []


def test_a_search_sees_what_another_process_wrote(library, path):
    """The matrix in memory follows other connections' writing too."""
    library.search("token bucket")
    with SqliteStore(path) as other:
        put(other, "pony", "purple ponies")
        other.delete("bucket")
    assert ids(library.search("purple ponies", 1, mode="vector")) == ["pony"]
    assert "bucket" not in ids(library.search("token bucket"))


def test_a_store_refuses_another_embedder(library):
    """By name and by dimension, saying both and what to do; nothing of the document is stored."""
    for made_by in (HashingEmbedder(128), embed):
        vectors = made_by(["x"])[:, :100]
        with pytest.raises(
            EmbedderMismatch, match=f"'hashing-256-v2' with 256.*{made_by.name}.* 100"
        ):
            library.upsert(
                Document("new", "x"),
                [Chunk("x", 0, 1)],
                vectors,
                fingerprint="f",
                embedder=made_by.name,
            )
    assert library.fingerprint_of("new") is None


def test_a_search_refuses_another_embedder(library):
    """The query must be embedded by what embedded the chunks."""
    library.embedder = HashingEmbedder(128)
    with pytest.raises(EmbedderMismatch, match=r"'hashing-256-v2'.*'hashing-128-v2'"):
        library.search("x")
    assert ids(library.search("bucket", mode="keyword")) == ["bucket"]


def test_a_search_refuses_a_vector_of_another_dimension(library):
    """It says both dimensions."""
    with pytest.raises(EmbedderMismatch, match=r"256 dimensions.*has 3"):
        library.search("x", vector=np.ones(3))


def test_an_embedder_that_the_name_does_not_tell_must_be_passed(path):
    """A function of the user's own is asked for, and used once it is there."""

    def ours(texts):
        return [[text.count("a"), text.count("b")] for text in texts]

    with SqliteStore(path) as store:
        for text in ("aaa", "bbb"):
            chunk = Chunk(text, 0, 3)
            vectors = np.array(ours([text]))
            store.upsert(Document(text, text), [chunk], vectors, fingerprint="", embedder="ours")
        with pytest.raises(EmbedderMismatch, match=r"'ours'.*embedder="):
            store.search("ab")
    with SqliteStore(path, embedder=ours) as store:
        assert ids(store.search("bab", 1, mode="vector")) == ["bbb"]


@pytest.mark.real_time
def test_an_async_embedder_is_awaited_by_a_search(library):
    """Also inside a running loop, whose thread waits meanwhile; its vector can be passed too."""

    async def remote(texts):
        return embed(texts)

    async def search_here():
        return library.search("token bucket", 1, mode="vector")

    library.embedder = remote
    assert ids(library.search("token bucket", 1, mode="vector")) == ["bucket"]
    assert ids(asyncio.run(search_here())) == ["bucket"]
    vector = asyncio.run(remote(["token bucket"]))[0]
    assert ids(library.search("token bucket", 1, mode="vector", vector=vector)) == ["bucket"]


def test_an_embedder_may_embed_questions_in_another_way(path):
    """Its `query` is used where it has one: here it looks for the opposite."""

    class Contrary:
        name = "contrary"

        def __call__(self, texts):
            raise AssertionError("a question is no text to store")

        def query(self, text):
            return np.array([0.0, 1.0]) if text == "left" else np.array([1.0, 0.0])

    with SqliteStore(path, embedder=Contrary()) as store:
        for text, vector in (("left", [1.0, 0.0]), ("right", [0.0, 1.0])):
            store.upsert(
                Document(text, text),
                [Chunk(text, 0, len(text))],
                np.array([vector]),
                fingerprint="",
                embedder="contrary",
            )
        assert ids(store.search("left", 1, mode="vector")) == ["right"]
        assert ids(store.search("right", 1, mode="vector")) == ["left"]


@pytest.mark.parametrize("shape", [(1, 4), (3, 4), (2,), (2, 0), (2, 2, 2)])
def test_embeddings_must_be_a_row_a_chunk(shape):
    """Any other shape is an error that says it."""
    with pytest.raises(ValueError, match=r"each of 2 chunks, got an array of shape"):
        checked_vectors(np.ones(shape), 2)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_embeddings_must_be_finite(poison):
    """The error names the chunk."""
    with pytest.raises(ValueError, match="embedding of chunk 1"):
        checked_vectors(np.array([[1, 2], [3, poison]]), 2)


@pytest.mark.parametrize(
    "text", ["nul \0 in it", "🎈 emoji", "x" * 1_000_000, " ", "'; DROP TABLE chunks"]
)
def test_texts_come_back_as_they_were(store, text):
    """As text, id, source and metadata."""
    document = Document(text, text, {text[:9]: text}, source=text)
    vectors = embed(["word"])
    store.upsert(document, [Chunk(text, 0, len(text))], vectors, fingerprint=text, embedder="x")
    [hit] = store.search("", vector=vectors[0], mode="vector")
    assert (hit.text, hit.document_id, hit.source) == (text, text, text)
    assert hit.metadata == {text[:9]: text}
    assert store.fingerprint_of(text) == text


@pytest.mark.parametrize("where", ["id", "text", "source"])
def test_a_lone_surrogate_is_refused_with_what_to_do(store, where):
    """It is never replaced in silence; the rest of the document is not stored either."""
    parts = {"id": "id", "text": "text", "source": "source"} | {where: "half \ud83d of a pair"}
    document = Document(**parts)
    chunks = [Chunk("fine", 0, 4), Chunk(parts["text"], 0, 4)]
    with pytest.raises(UnicodeEncodeError, match=r"ud83d.*position 5.*lone surrogate.*replace"):
        store.upsert(document, chunks, embed(["a", "b"]), fingerprint="f", embedder=embed.name)
    assert (len(store.documents()), len(store)) == (0, 0)


def test_the_frame_has_a_row_a_chunk(store):
    """In the order of storing, with offsets as integers."""
    put(store, "two", "first. ", "second.")
    put(store, "one", "third.", document=Document("one", "third."))
    frame = store.to_dataframe()
    assert frame.to_dict("list") | {"source": None} == {
        "document_id": ["two", "two", "one"],
        "source": None,
        "ordinal": [0, 1, 0],
        "start": [0, 7, 0],
        "end": [7, 14, 6],
        "text": ["first. ", "second.", "third."],
        "metadata": [{}, {}, {}],
    }
    assert frame.source[0] == "/docs/two.md"
    assert frame.source.isna().tolist() == [False, False, True]


def test_an_empty_frame_has_the_same_types(store):
    """Columns and their types do not depend on there being rows."""
    empty = store.to_dataframe()
    put(store, "one", "text")
    assert len(empty) == 0
    assert empty.dtypes.to_dict() == store.to_dataframe().dtypes.to_dict()


def test_the_repr_tells_what_is_in_it(library, path):
    """Live numbers while it is open, and that it is closed afterwards."""
    assert repr(library) == (
        f"<SqliteStore {str(path)!r}: 4 documents, 4 chunks by 'hashing-256-v2'>"
    )
    library.close()
    assert "closed" in repr(library)


def test_a_hit_is_one_line():
    """A hit shows its score, place and the beginning of its text."""
    with SqliteStore(":memory:") as store:
        put(store, "lines", "first line\n" * 20)
        assert repr(store.search("line", mode="vector")[0]).startswith("<Hit 0.")
        assert "\n" not in repr(store.search("line")[0])


def test_a_closed_store_says_so(library):
    """Closing twice does no harm; using it is an error."""
    library.close()
    library.close()
    with pytest.raises(StoreError, match="closed"):
        library.search("bucket")


def test_a_file_that_is_no_database_is_refused(path):
    """It is left as it is."""
    content = b"not a database, but long enough to have a header" * 50
    path.write_bytes(content)
    with pytest.raises(StoreError, match="is not a SQLite database"):
        SqliteStore(path)
    assert path.read_bytes() == content


def test_another_programs_database_is_refused(path):
    """Not a table of it is touched."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (x)")
    content = path.read_bytes()
    with pytest.raises(StoreError, match="not a store of ragasync"):
        SqliteStore(path)
    assert path.read_bytes() == content


def test_a_store_of_another_schema_is_refused(path):
    """The error says both versions."""
    SqliteStore(path).close()
    with closing(sqlite3.connect(path)) as db:
        (now,) = db.execute("PRAGMA user_version").fetchone()
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match=rf"version 99 .* version {now}:"):
        SqliteStore(path)


def test_a_damaged_file_is_an_error(path):
    """A store whose pages are overwritten is not begun anew."""
    with SqliteStore(path) as store:
        put(store, "bucket", *TEXTS.values())
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    with pytest.raises(StoreError, match="damaged"), SqliteStore(path) as store:
        store.search("bucket", mode="keyword")


def test_a_path_that_cannot_be_opened_is_an_error(tmp_path):
    """A folder, and a folder that is not there."""
    with pytest.raises(StoreError, match="is not a regular file: choose another path"):
        SqliteStore(tmp_path)
    with pytest.raises(StoreError, match="folder must exist"):
        SqliteStore(tmp_path / "nowhere" / "store.sqlite")


@pytest.mark.real_time
def test_a_file_locked_for_too_long_is_an_error(path):
    """Writing names the time it waited; reading goes on meanwhile; afterwards all is well."""
    with SqliteStore(path, timeout=0.05) as store, closing(sqlite3.connect(path)) as other:
        put(store, "bucket", TEXTS["bucket"])
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"locked .* 0\.05 s.*timeout="):
            put(store, "retry", TEXTS["retry"])
        assert ids(store.search("bucket")) == ["bucket"]
        other.rollback()
        put(store, "retry", TEXTS["retry"])
        assert len(store.documents()) == 2


@pytest.mark.real_time
@pytest.mark.parametrize("where", ["file", ":memory:"])
def test_threads_share_one_store(path, where):
    """Writers and searchers in eight threads at once see whole documents."""
    with SqliteStore(path if where == "file" else where) as store:
        together = threading.Barrier(8)

        def work(thread):
            together.wait()
            for n in range(10):
                put(store, f"{thread}-{n}", f"token bucket {thread}", "second chunk")
                assert store.search("token bucket", 3)
                assert len(store) % 2 == 0

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(work, range(8)))
        assert (len(store.documents()), len(store)) == (80, 160)


WRITER = """
import itertools, sys
from ragasync.documents.models import Chunk, Document
from ragasync.documents.embedders import HashingEmbedder
from ragasync.documents.stores.sqlite import SqliteStore
embed, store = HashingEmbedder(256), SqliteStore(sys.argv[1])
for n in itertools.count():
    texts = [f"chunk {i} of round {n}" for i in range(7)]
    chunks = [Chunk(text, 0, len(text)) for text in texts]
    document = Document(f"document {n % 50}", "")
    store.upsert(document, chunks, embed(texts), fingerprint=str(n), embedder=embed.name)
    print(n, flush=True)
"""


@pytest.mark.real_time
def test_killing_a_writer_leaves_whole_documents_only(path):
    """After kill -9, all that was acknowledged is there, and each document with all its chunks."""
    generator = random.Random(0)
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        ) as writer:
            for _ in range(generator.randrange(60, 120)):
                acknowledged = int(writer.stdout.readline())
            writer.kill()
            acknowledged = max([acknowledged, *map(int, writer.stdout.read().splitlines())])
        with SqliteStore(path) as store:
            assert len(store.documents()) == 50
            for listed in store.documents():
                chunks = store.get(listed.id).chunks
                rounds = [chunk.text.rpartition(" ")[2] for chunk in chunks]
                assert rounds == [listed.fingerprint] * 7
            stored = store.fingerprint_of(f"document {acknowledged % 50}")
            assert int(stored) >= acknowledged
        assert counts(path) == (50, 350, 350, 350)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_vectors_near_the_end_of_float32_are_stored_without_a_warning(dtype):
    """Their sum is beyond it, and they are not."""
    rows = np.full((20, 4), [3e38, 3e38, 3e38, -3e38], dtype)
    assert checked_vectors(rows, 20).tolist() == rows.astype("f4").tolist()


def test_vectors_beyond_float32_are_refused_without_a_warning():
    """As what is not finite there."""
    with pytest.raises(ValueError, match="chunk 1 has entries that are not finite"):
        checked_vectors(np.array([[1, 2], [1e39, -1e39]]), 2)


def test_a_date_that_is_missing_is_stored_as_none():
    """NaT is how pandas says so."""
    assert as_json({"due": pd.NaT, "day": pd.Timestamp("2026-05-01")}, "a") == (
        '{"due": null, "day": "2026-05-01T00:00:00"}'
    )
