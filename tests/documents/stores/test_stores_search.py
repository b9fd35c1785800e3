"""Every store of this package finds the same: in a file, in memory, in Lance."""

import math
from datetime import UTC, date, datetime

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragasync.documents import Chunk, Document, EmbedderMismatch, HashingEmbedder
from tests.support.store_kinds import KINDS, PAGES, embed, fill, ids, opened, put


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


# Each script has two texts, and words of the first to find it by: its own, or written otherwise.
SCRIPTS = [
    (
        "数据库连接超时后会自动重试。",
        "图书馆下周一闭馆整理。",
        ["数据库", "连接", "我们的数据"],
    ),
    ("猫が好きで、毎朝えさをやる。", "サーバーを再起動する。", ["猫", "毎朝のえさ", "えさ"]),
    ("サーバーを再起動する。", "猫が好きだ。", ["ｻｰﾊﾞｰ", "再起動", "サーバーが"]),
    ("데이터베이스를 다시 연결합니다.", "고양이가 창가에서 잡니다.", ["데이터베이스", "연결"]),
    ("ฐานข้อมูลจะเชื่อมต่อใหม่", "แมวนอนบนโต๊ะ", ["ฐานข้อมูล", "เชื่อมต่อ"]),
    ("डेटाबेस फिर से जुड़ता है", "बिल्ली मेज़ पर सोती है", ["डेटाबेस", "जुड़ता"]),
    ("Le café sert une crème brûlée", "Le chat dort", ["cafe\u0301", "CRÈME", "ｃａｆé"]),
    ("Поезд из Варны опаздывает", "Кошка спит на столе", ["поезда", "ВАРНЕ", "что с поездом"]),
    ("Ѝ и \u0438\u0306од в аптеките", "Котката спи", ["йод", "аптеките"]),
    ("The data\u00adbase of oﬃces", "A cat sleeps", ["database", "offices"]),
    ("ទិន្នន័យត្រូវបានរក្សាទុក", "ឆ្មាដេក", ["ទិន្នន័យ"]),
]


@pytest.mark.parametrize(("text", "other", "queries"), SCRIPTS)
def test_words_of_any_script_are_found(store, text, other, queries):
    """By vectors and by words, and nothing else of that script is."""
    put(store, Document("other", other), made_by=HashingEmbedder())
    put(store, Document("sought", text), made_by=HashingEmbedder())
    put(store, Document("english", "A token bucket refills."), made_by=HashingEmbedder())
    for query in queries:
        for mode in ("hybrid", "vector", "keyword"):
            hits = store.search(query, mode=mode)
            assert ids(hits) == ["sought"], (query, mode)
            assert hits[0].text == text


@pytest.mark.parametrize("mode", ["hybrid", "vector", "keyword"])
@pytest.mark.parametrize("query", ["zebra", "数据库", "what is the zebra of it?", "เสือ", "0", "?!"])
def test_what_has_nothing_in_common_with_the_query_is_no_hit(library, mode, query):
    """Though vectors of unlike words share entries, and function words are everywhere."""
    assert library.search(query, mode=mode) == []


@pytest.mark.parametrize("mode", ["hybrid", "vector", "keyword"])
def test_a_hit_has_both_partial_scores(library, mode):
    """The cosine, except where words alone are asked for, and BM25 of any word in common."""
    hit = library.search("refills tokens", mode=mode)[0]
    cosine = float((embed(["refills tokens"]) @ embed([hit.text]).T)[0, 0])
    expected = None if mode == "keyword" else pytest.approx(cosine, abs=1e-5)
    assert hit.vector_score == expected
    assert hit.keyword_score > 0
    assert hit.score in (hit.vector_score, hit.keyword_score, 2 / 6)


def test_a_hit_that_shares_parts_of_words_alone_has_no_keyword_score(library):
    """Found by its vector."""
    [hit] = library.search("sortable", mode="hybrid")
    assert (hit.document_id, hit.keyword_score) == ("sort", None)
    assert hit.vector_score > 0


def directions(store):
    """Store four chunks whose learned vectors have cosines 1, 0.8, 0 and -1 with [1, 0]."""
    vectors = np.array([[1, 0], [0.8, 0.6], [0, 2], [-1, 0]], dtype=np.float32)
    chunks = [Chunk(f"chunk {word}", n, n) for n, word in enumerate(("a", "b", "c", "d"))]
    store.upsert(Document("d", ""), chunks, vectors, fingerprint="", embedder="learned")


@pytest.mark.parametrize(
    ("min_score", "starts"), [(None, [0, 1, 2, 3]), (-1, [0, 1, 2, 3]), (0.5, [0, 1]), (0.9, [0])]
)
@pytest.mark.parametrize("mode", ["hybrid", "vector"])
def test_learned_vectors_are_all_ranked_and_cut_by_the_least_cosine(store, mode, min_score, starts):
    """However far they are, unless a least cosine is asked for."""
    directions(store)
    hits = store.search("x", mode=mode, min_score=min_score, vector=np.array([5.0, 0.0]))
    assert [hit.start for hit in hits] == starts
    assert [hit.vector_score for hit in hits] == pytest.approx([1, 0.8, 0, -1][: len(starts)])


@pytest.mark.parametrize("mode", ["hybrid", "vector", "keyword"])
def test_a_least_cosine_cuts_what_words_alone_find(store, mode):
    """In every mode, and however many better words there are."""
    directions(store)
    vector = np.array([0.0, 1.0])
    hits = store.search("chunk a", 1, mode=mode, min_score=0.9, vector=vector)
    assert [(hit.start, hit.keyword_score is None) for hit in hits] == [(2, False)]
    assert hits[0].vector_score == pytest.approx(1)


def test_words_are_searched_for_without_an_embedder_unless_a_cosine_is_asked_for(store):
    """An embedder may be a service that costs something."""
    directions(store)
    assert [hit.vector_score for hit in store.search("a", mode="keyword")] == [None]
    with pytest.raises(EmbedderMismatch, match=r'vector= to the search, .* mode="keyword"'):
        store.search("a", mode="keyword", min_score=0.1)


@pytest.mark.parametrize(
    ("min_score", "error"), [(1.1, ValueError), (float("nan"), ValueError), ("high", TypeError)]
)
def test_a_least_cosine_that_is_none_is_refused(library, min_score, error):
    """It is from -1 to 1."""
    with pytest.raises(error, match="min_score"):
        library.search("x", min_score=min_score)


@pytest.fixture
def shelf(store):
    """Give a store of three documents with lists, dates, headings and pages."""
    facts = {
        "a": ({"tags": ["x", "y"], "day": "2026-05-01", "mtime": 1777636800.5}, "Rates"),
        "b": ({"tags": ["y", 1], "day": "2026-05-01T23:30:00-05:00", "n": 3}, "Retries"),
        "c": ({"tags": [], "day": "May", "mtime": 1777723200, "n": None}, None),
    }
    for name, (metadata, title) in facts.items():
        own = {"heading": f"Guide > {title}", "headings": ["Guide", title]} if title else {}
        put(store, Document(name, "word", metadata), Chunk("word", 0, 4, own))
    return store


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ({"tags": {"$contains": "y"}}, "ab"),
        ({"tags": {"$contains": 1}}, "b"),
        ({"tags": {"$not": {"$contains": "y"}}}, "c"),
        ({"tags": "y"}, ""),
        ({"n": {"$in": [3, 4]}}, "b"),
        ({"n": {"$nin": [3]}}, "ac"),
        ({"n": {"$eq": 3}}, "b"),
        ({"n": {"$in": []}}, ""),
        ({"n": {"$nin": []}}, "abc"),
        ({"n": {"$not": {"$gte": 3}}}, "ac"),
        ({"n": None}, "ac"),
        ({"$or": [{"n": 3}, {"tags": {"$contains": "x"}}]}, "ab"),
        ({"$and": [{"tags": {"$contains": "y"}}, {"n": 3}]}, "b"),
        ({"$not": {"$or": [{"n": 3}, {"id": "c"}]}}, "a"),
        ({"id": {"$lt": "b"}, "$or": [{"n": 3}, {"n": None}]}, "a"),
        ({"day": date(2026, 5, 1)}, "a"),
        ({"day": {"$gt": date(2026, 5, 1)}}, "b"),
        ({"day": {"$lte": date(2026, 5, 2)}}, "ab"),
        ({"day": [date(2026, 5, 2), "May"]}, "bc"),
        ({"day": datetime(2026, 5, 2, 4, 30, tzinfo=UTC)}, "b"),
        ({"day": {"$gte": "2026-05-01T"}}, "bc"),
        ({"mtime": date(2026, 5, 1)}, "a"),
        ({"mtime": {"$gte": datetime(2026, 5, 2, 12)}}, "c"),
        ({"mtime": {"$ne": date(2026, 5, 1)}}, "bc"),
        ({"heading": "Retries"}, "b"),
        ({"heading": "Guide"}, "ab"),
        ({"heading": {"$ne": "Rates"}}, "bc"),
        ({"heading": {"$gt": "Guide > S", "$lt": "Rf"}}, "ab"),
        ({"headings": {"$contains": "Rates"}}, "a"),
    ],
)
def test_conditions_of_each_sort_find_the_same_in_each_store(shelf, where, found):
    """Lists, dates, headings, and conditions joined or negated."""
    for mode in ("hybrid", "vector", "keyword"):
        hits = shelf.search("word", mode=mode, where=where)
        assert "".join(sorted(ids(hits))) == found


LONG = "x" * 199
LONG_TEXTS = [LONG, *(LONG + end for end in ("x", "xa", "xb", "xé", "é", "ж" * 9, "y", "z" * 300))]


@pytest.mark.parametrize("operator", ["$lt", "$lte", "$gt", "$gte"])
def test_texts_are_compared_to_their_ends(store, operator):
    """However many of their first characters are alike, and also the other way round."""
    for number, text in enumerate(LONG_TEXTS):
        put(store, Document(str(number), "bucket", {"path": text, "n": 1}))
    put(store, Document("none", "bucket", {"path": 7}))
    for bound in (*LONG_TEXTS, LONG + "xaa", LONG[:-1], LONG + "\U0001f388" * 3):
        where = {"path": {operator: bound}}
        listed = {each.id for each in store.documents(where=where)}
        assert {hit.document_id for hit in store.search("bucket", 99, where=where)} == listed
        held = {"$lt": str.__lt__, "$lte": str.__le__, "$gt": str.__gt__, "$gte": str.__ge__}
        wanted = {str(n) for n, text in enumerate(LONG_TEXTS) if held[operator](text, bound)}
        assert listed == wanted
        others = {hit.document_id for hit in store.search("bucket", 99, where={"$not": where})}
        assert others == {*map(str, range(len(LONG_TEXTS))), "none"} - wanted


def test_dates_in_metadata_are_stored_as_texts_and_compared_with_dates(store):
    """Of a document and of a chunk; alone and in lists."""
    own = {"at": datetime(2026, 5, 3, 12, tzinfo=UTC)}
    put(store, Document("a", "word", {"day": date(2026, 5, 1)}), Chunk("word", 0, 4, own))
    put(store, Document("b", "word", {"days": [date(2026, 5, 2), 7]}))
    [hit] = store.search("word", where={"day": {"$gte": date(2026, 5, 1)}})
    assert hit.metadata == {"day": "2026-05-01", "at": "2026-05-03T12:00:00+00:00"}
    assert ids(store.search("word", where={"at": date(2026, 5, 3)})) == ["a"]
    assert ids(store.search("word", where={"days": {"$contains": "2026-05-02"}})) == ["b"]
    with pytest.raises(TypeError, match=r"'c' must be plain data .* is of object"):
        put(store, Document("c", "word", {"day": object()}))


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"tagz": {"$contains": "y"}}, r"key 'tagz': did you mean 'tags'\?"),
        ({"zzz": 1}, r"key 'zzz': there are 'day', 'heading', .*'tags'"),
        ({"$or": [{"dey": 1}, {"n": 3}]}, "key 'dey': did you mean 'day'"),
        ({"dey": {"$ne": 1}}, "key 'dey'"),
        ({"$not": {"dey": 1}}, "key 'dey'"),
    ],
)
def test_a_key_that_no_document_has_gives_a_warning_and_no_hits(shelf, where, said):
    """With the keys that may be meant; the warning is where the search is called."""
    with pytest.warns(UserWarning, match=said) as warned:
        hits = shelf.search("word", where=where)
    assert [each.filename for each in warned] == [__file__]
    assert hits == []


def test_no_key_is_warned_of_that_a_document_has_or_may_lack(shelf, store):
    """Nor in an empty store, which has none."""
    for where in ({"n": None}, {"missing": None}, {"id": "z"}, {"source": "z"}, {"mtime": "z"}):
        shelf.search("word", where=where)
    for name in "abc":
        store.delete(name)
    assert store.search("word", where={"anything": 1}) == []


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
PLAIN = TEXT | st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none()
VALUE = PLAIN | st.dates().map(str) | st.datetimes().map(str)


def conditions_on(key, value):
    """Return one condition of each sort with a value."""
    yield from ({key: value}, {key: [value, None]}, {key: {"$ne": value}})
    yield {"$or": [{key: {"$contains": value}}, {"$not": {"b": value}}]}
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
    values = VALUE | st.lists(VALUE, max_size=3)
    metadata = st.dictionaries(st.sampled_from("ab'"), values, max_size=3)
    pages = st.lists(st.tuples(metadata, metadata), min_size=1, max_size=3)

    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    @given(pages, st.sampled_from("ab'"), st.data())
    def agree(pages, key, data):
        stored = [value for page in pages for part in page for value in part.values()]
        stored = [each for one in stored for each in (one if isinstance(one, list) else [one])]
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


@pytest.mark.parametrize("mode", ["hybrid", "vector", "keyword"])
@pytest.mark.parametrize(
    ("text", "queries"),
    [
        ("قَرَأْتُ كِتَابًا جَدِيدًا", ["قرات", "جديدا", "كِتابا"]),
        ("أهـــلاً وسهلاً", ["اهلا", "أهلا"]),
        ("בְּרֵאשִׁית", ["בראשית", "בְּראשית"]),
        ("Mon résumé naïf", ["resume", "RÉSUMÉ", "naif"]),
        ("Die größte Straße", ["grosste", "STRASSE", "straße"]),
        ("Η Αθήνα", ["αθηνα", "ΑΘΗΝΑ"]),
        ("Стари\u0301нный за\u0301мок", ["старинный", "ЗАМОК"]),
    ],
)
def test_a_word_is_found_as_people_type_it(store, mode, text, queries):
    """Without points, vowel signs, tatweel and accents, whatever the text has, and the reverse."""
    put(store, Document("it", text), made_by=HashingEmbedder())
    put(store, Document("plain", queries[0]), made_by=HashingEmbedder())
    put(store, Document("other", "a token bucket"), made_by=HashingEmbedder())
    for query in queries:
        assert {*ids(store.search(query, mode=mode))} >= {"it"}, query
    words = ids(store.search(text, mode=mode))
    assert {*words} == {"it", "plain"}


@pytest.mark.parametrize("mode", ["hybrid", "keyword"])
def test_a_least_cosine_finds_what_many_better_words_are_in_front_of(store, mode):
    """However many of those there are, by words alone."""
    starts = range(1300)
    chunks = [Chunk("bucket" if n < 1290 else f"bucket {'word ' * n}", n, n + 1) for n in starts]
    vectors = np.array([[1, 0.1 * (n >= 1290)] if n >= 1290 else [0, 1] for n in starts], "f4")
    store.upsert(Document("a", "x"), chunks, vectors, fingerprint="1", embedder="mine")
    hits = store.search("bucket", 20, mode=mode, min_score=0.9, vector=np.array([1, 0], "f4"))
    assert sorted(hit.start for hit in hits) == [*range(1290, 1300)]
    assert all(hit.keyword_score for hit in hits)


@pytest.mark.parametrize("entry", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mode", ["hybrid", "vector", "keyword"])
def test_a_vector_to_search_by_is_finite(library, mode, entry):
    """One that is not is near nothing, which would look like no hits."""
    vector = [0.0] * 63 + [entry]
    with pytest.raises(ValueError, match=r"vector=, must have finite entries, got (nan|-?inf)"):
        library.search("bucket", mode=mode, vector=vector)


def test_large_numbers_are_no_less_of_a_direction(library):
    """Beyond float32, too: a vector counts by its direction."""
    vector = embed(["bucket"])[0]
    [small, large] = (
        ids(library.search("bucket", mode="vector", vector=vector.astype("f8") * scale))
        for scale in (1, 1e60)
    )
    assert small == large != []


def test_a_key_within_a_value_is_no_key_of_a_document(store):
    """Neither in a dict nor in a text that looks like metadata."""
    put(store, Document("a", "bucket", {"meta": {"lang": "en"}, "note": '"kind": 1'}))
    put(store, Document("b", "bucket"))
    for key in ("lang", "kind"):
        for where in ({key: "en"}, {key: {"$ne": "en"}}, {"$not": {key: "en"}}):
            with pytest.warns(UserWarning, match=f"no document has the metadata key '{key}'"):
                assert store.search("bucket", where=where) == []


@pytest.mark.parametrize("number", [10**400, -(10**400), 2**63, 10**309 + 1])
def test_whole_numbers_of_any_size_are_stored_and_compared_exactly(store, number):
    """No float holds them."""
    put(store, Document("it", "bucket", {"n": number}))
    put(store, Document("next", "bucket", {"n": number + 1}))
    assert ids(store.search("bucket", where={"n": number})) == ["it"]
    assert ids(store.search("bucket", where={"n": {"$gt": number}})) == ["next"]
    assert ids(store.search("bucket", where={"n": {"$lt": float("inf"), "$lte": number}})) == ["it"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (date(2026, 5, 1), ["day", "moment"]),
        (date(2026, 6, 1), ["day"]),
        (date(1970, 1, 1), ["numbers"]),
        (datetime(2026, 5, 1), ["day"]),
        (datetime(2026, 5, 1, 23, 30, tzinfo=UTC), ["moment"]),
        (np.datetime64("2026-05-01T23:30", "ns"), ["moment"]),
        (datetime(1970, 1, 1, 0, 0, 7), ["numbers"]),
        (date(2026, 5, 2), []),
        ("2026-06-01", ["day"]),
    ],
)
def test_a_list_is_searched_for_a_date(store, wanted, found):
    """A date is a whole day of UTC, a datetime is that moment."""
    put(store, Document("day", "bucket", {"dates": ["2026-05-01", "2026-06-01", "later"]}))
    put(store, Document("moment", "bucket", {"dates": ["2026-05-02T01:30:00+02:00"]}))
    put(store, Document("numbers", "bucket", {"dates": [7, float("inf"), True, None]}))
    put(store, Document("no list", "bucket", {"dates": "2026-05-01"}))
    where = {"dates": {"$contains": wanted}}
    assert sorted(ids(store.search("bucket", where=where))) == found
    assert sorted(each.id for each in store.documents(where=where)) == found


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_the_dates_of_numpy_are_dates_in_conditions(store, unit):
    """Of whatever unit: a column of pandas' has nanoseconds."""
    put(store, Document("it", "bucket", {"mtime": 1_600_000_000.5}))
    day = np.datetime64("2020-01-01", unit)
    assert ids(store.search("bucket", where={"mtime": {"$gte": day}})) == ["it"]
    assert ids(store.search("bucket", where={"mtime": {"$lt": day}})) == []
    with pytest.raises(ValueError, match="NaT"):
        store.delete(where={"expires": np.datetime64("NaT", unit)})
    assert len(store.documents()) == 1
