"""Every store of this package finds the same: in a file, in memory, in Lance."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragasync.documents.document import Chunk, Document
from tests.store_kinds import KINDS, PAGES, fill, ids, opened, put


@pytest.fixture(params=KINDS)
def store(request, tmp_path):
    """Give an empty store of each kind."""
    with opened(request.param, tmp_path) as store:
        yield store


@pytest.fixture
def library(store):
    """Give a store with the pages, a chunk each."""
    return fill(store)


@pytest.mark.parametrize("mode", ["hybrid", "vector", "keyword"])
def test_the_text_is_found(library, mode):
    """With its place and its metadata."""
    hit = library.search("does the token bucket refill?", mode=mode)[0]
    assert (hit.document_id, hit.source) == ("bucket", "/docs/bucket.md")
    assert (hit.text, hit.start, hit.end) == (PAGES["bucket"][0], 0, len(PAGES["bucket"][0]))
    assert hit.metadata == {"lang": "en", "year": 2020}


def test_vectors_are_scored_by_the_cosine_and_both_by_ranks(library):
    """The very same text has cosine 1, and is first in both rankings."""
    text = PAGES["retry"][0]
    assert library.search(text, 1, mode="vector")[0].score == pytest.approx(1, abs=1e-6)
    assert library.search(text, 1)[0].score == pytest.approx(2 / 6)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("refilling tokens", ["bucket"]),
        ("creme brulee", ["café"]),
        ("cre\u0300me", ["café"]),
        ("nowhere", []),
        ("?!", []),
        ('text:words OR "', ["it's"]),
    ],
)
def test_words_are_found_by_stems_and_without_accents_and_never_as_syntax(library, query, found):
    """The same in each store."""
    assert ids(library.search(query, mode="keyword")) == found


@pytest.mark.parametrize(("k", "mode"), [(0, "hybrid"), (1, "magic")])
def test_a_search_for_nothing_or_by_magic_is_refused(library, k, mode):
    """The same errors everywhere."""
    with pytest.raises(ValueError, match=r"at least 1|'hybrid', 'vector', 'keyword'"):
        library.search("x", k, mode=mode)


@pytest.mark.filterwarnings("ignore:no document has")
@pytest.mark.parametrize("mode", ["hybrid", "vector", "keyword"])
@pytest.mark.parametrize(
    ("where", "found"),
    [
        ({"lang": "fr"}, {"café"}),
        ({"lang": ["fr", "de"]}, {"café"}),
        ({"lang": {"$ne": "en"}}, {"café"}),
        ({"year": {"$gte": 2022}, "lang": "en"}, {"sort", "it's"}),
        ({"year": 2024.0}, {"it's"}),
        ({"year": "2024"}, set()),
        ({"id": "it's"}, {"it's"}),
        ({"source": ["/docs/it's.md", "/docs/café.md"]}, {"it's", "café"}),
        ({"missing": None, "year": {"$lt": 2021}}, {"bucket"}),
        ({"missing": {"$gt": 0}}, set()),
        ({"lang": []}, set()),
    ],
)
def test_conditions_leave_out_the_others_before_ranking(library, mode, where, found):
    """Every chunk that is allowed is found, by any way of searching."""
    words = " ".join(text for text, _, _ in PAGES.values())
    assert set(ids(library.search(words, mode=mode, where=where))) == found


@pytest.mark.parametrize("mode", ["hybrid", "vector", "keyword"])
def test_a_filter_that_keeps_one_in_a_hundred_still_fills_the_hits(store, mode):
    """Although what it leaves out would all rank higher."""
    near = [Chunk("token bucket", n, n, {"kept": False}) for n in range(297)]
    far = [Chunk(f"bucket of water {n}", 300 + n, 300 + n, {"kept": True}) for n in range(3)]
    put(store, Document("d", ""), *near, *far)
    hits = store.search("token bucket", 3, mode=mode, where={"kept": True})
    assert sorted(hit.start for hit in hits) == [300, 301, 302]


def test_a_chunks_metadata_goes_over_its_documents(store):
    """In what is found and in what it is found by."""
    chunks = Chunk("one", 0, 3, {"page": 1}), Chunk("two", 3, 6)
    put(store, Document("d", "onetwo", {"page": 0, "title": "t"}), *chunks)
    assert [hit.start for hit in store.search("one two", where={"page": 1})] == [0]
    assert [hit.start for hit in store.search("one two", where={"page": 0})] == [3]
    assert store.search("one", 1, mode="keyword")[0].metadata == {"page": 1, "title": "t"}


def test_a_condition_that_is_none_is_refused(library):
    """Before anything is embedded or read."""
    with pytest.raises(ValueError, match=r"\$regex"):
        library.search("x", where={"lang": {"$regex": "x"}})
    with pytest.raises(TypeError, match="must be a dict"):
        library.search("x", where="lang")


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
VALUE = TEXT | st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none()


def conditions_on(key, value):
    """Return one condition of each sort with a value."""
    yield from ({key: value}, {key: [value, None]}, {key: {"$ne": value}})
    if value is not None and not isinstance(value, bool):
        yield from ({key: {"$gt": value}}, {key: {"$lte": value}})


def refill(store, pages):
    """Put these pages of two chunks into a store, in place of those before."""
    for n, (of_document, of_chunk) in enumerate(pages):
        chunks = [Chunk("word", 0, 4, of_chunk), Chunk("word", 4, 8)]
        document = Document(str(n), "word", of_document)
        store.upsert(document, chunks, np.ones((2, 2)), fingerprint="", embedder="x")
    for n in range(len(pages), 3):
        store.delete(str(n))


@pytest.mark.filterwarnings("ignore:no document has")
def test_lance_and_sqlite_find_the_same_by_any_conditions(tmp_path):
    """What a hash of a value says is what comparing it says."""
    metadata = st.dictionaries(st.sampled_from("ab'"), VALUE, max_size=3)
    pages = st.lists(st.tuples(metadata, metadata), min_size=1, max_size=3)

    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    @given(pages, st.sampled_from("ab'"), st.data())
    def agree(pages, key, data):
        stored = [value for page in pages for part in page for value in part.values()]
        value = data.draw(st.sampled_from(stored) if stored else VALUE)
        for store in stores:
            refill(store, pages)
        for where in conditions_on(key, value):
            one, other = (
                store.search("", mode="vector", where=where, vector=np.ones(2)) for store in stores
            )
            assert {(hit.document_id, hit.start) for hit in one} == {
                (hit.document_id, hit.start) for hit in other
            }

    with opened("memory", tmp_path) as memory, opened("lance", tmp_path) as lance:
        stores = [memory, lance]
        agree()
