"""Conditions on metadata: what they mean, and that no key or value of anybody's misleads them."""

import math
import warnings
from datetime import date, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragasync import AsyncDocumentProcessor
from ragasync.documents import Chunk, Document, MemoryStore

# Internals: conditions and words of a search, without a store.
from ragasync.documents.search import condition_of, matches

METADATA = {"lang": "en", "year": 2024, "rate": 0.5, "draft": False, "note": None, "tags": ["a"]}
METADATA["days"] = ["soon", "2026-06-01", "2026-05-01T08:15+02:00", 3, math.inf, 10**400]
METADATA["when"] = "2026-05-01T12:30:00+02:00"


def holds(where, of_chunk=None):
    """Return whether conditions hold of METADATA, with a chunk's own over it."""
    condition = condition_of(where)
    place = "guide", "/docs/guide.md", METADATA, of_chunk or {}
    return condition is None or matches(condition, *place)


@pytest.mark.parametrize(
    "where",
    [
        None,
        {},
        {"lang": "en"},
        {"lang": ["de", "en"]},
        {"lang": ("de", "en")},
        {"lang": {"en"}},
        {"lang": {"$ne": "de"}},
        {"year": 2024.0},
        {"year": np.int64(2024)},
        {"year": {"$gt": 2023, "$lte": 2024}},
        {"year": {"$lt": math.inf}},
        {"rate": {"$gte": 0.5}},
        {"lang": {"$gt": "de", "$lt": "fr"}},
        {"draft": False},
        {"note": None},
        {"missing": None},
        {"missing": ["x", None]},
        {"missing": {"$ne": "x"}},
        {"tags": {"$ne": "a"}},
        {"id": "guide", "source": "/docs/guide.md"},
        {"lang": "en", "year": 2024},
        {"tags": {"$contains": "a"}},
        {"year": {"$in": (2023, 2024)}},
        {"when": np.datetime64("2026-05-01")},
        {"when": np.datetime64("2026-05-01T10:30:00", "ns")},
        {"when": {"$lt": np.datetime64("2026-05-01T10:30:00.000001", "ns")}},
        {"when": np.array("2026-05-01T10:30", "datetime64[ns]")},
        {"when": {"$gt": pd.Series(pd.to_datetime(["2026-05-01T10:29"])).to_numpy()[0]}},
        {"rate": np.float16(0.5)},
        {"rate": np.longdouble(0.5)},
        {"draft": np.bool_(False)},
        {"lang": np.str_("en")},
        {"days": {"$contains": date(2026, 5, 1)}},
        {"days": {"$contains": np.datetime64("2026-06-01", "ns")}},
        {"days": {"$contains": pd.Timestamp("2026-05-01T08:15", tz="Europe/Berlin")}},
        {"days": {"$not": {"$contains": date(2026, 5, 2)}}},
        {"when": pd.Timestamp("2026-05-01T10:30", tz="UTC")},
        {"when": {"$lt": datetime(2026, 5, 1, 12, 31, tzinfo=timezone(timedelta(hours=2)))}},
        {"$or": [{"lang": "de"}, {"$and": [{"year": {"$gt": 2000}}, {"rate": 0.5}]}]},
        {"$not": {"lang": "en", "year": 2023}},
    ],
)
def test_conditions_hold(where):
    """Of a value, of any of several, of an order; each kind of value."""
    assert holds(where)


@pytest.mark.parametrize(
    "where",
    [
        {"lang": "EN"},
        {"lang": []},
        {"lang": None},
        {"lang": {"$ne": "en"}},
        {"lang": {"$gt": 1}},
        {"year": "2024"},
        {"year": {"$gt": 2024}},
        {"year": {"$gt": 2000, "$lt": 2010}},
        {"year": {"$lt": "3000"}},
        {"draft": 0},
        {"draft": {"$lt": 1}},
        {"note": 0},
        {"note": {"$ne": None}},
        {"missing": {"$gt": 0}},
        {"tags": "a"},
        {"tags": "['a']"},
        {"tags": None},
        {"id": "Guide"},
        {"source": None},
        {"lang": "en", "year": 2023},
    ],
)
def test_conditions_do_not_hold(where):
    """One that fails is enough; numbers, texts and truth are told apart."""
    assert not holds(where)


def test_a_chunks_own_metadata_goes_over_its_documents():
    """With None too; the document's id and source are nobody else's."""
    own = {"lang": "de", "year": None, "id": "x", "source": "x"}
    assert holds({"lang": "de", "year": None, "id": "guide", "source": "/docs/guide.md"}, own)
    assert not holds({"lang": "en"}, own)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ([("lang", "en")], "must be a dict"),
        ({1: "en"}, r"keys of where must be texts, got 1"),
        ({"lang": object()}, r"key 'lang' with <object"),
        ({"lang": [["en"]]}, r"key 'lang' with \['en'\]"),
        ({"year": np.timedelta64(5, "ns")}, "key 'year' with np.timedelta64"),
        ({"year": np.timedelta64("NaT", "s")}, "key 'year' with np.timedelta64"),
        ({"year": pd.Timedelta(5)}, "key 'year' with Timedelta"),
        ({"year": pd.NA}, "key 'year' with <NA>"),
        ({"year": np.complex64(1)}, "key 'year' with"),
        ({"lang": {"$gt": None}}, r"only texts, numbers and dates have an order.*'lang' got None"),
        ({"lang": {"$gt": True}}, "only texts, numbers and dates"),
        ({"lang": {"$ne": ["en"]}}, r"key 'lang' with \['en'\]"),
        ({"lang": {"$in": "en"}}, r"\$in of 'lang' needs a list of values, got 'en'"),
        ({"$or": {"lang": "en"}}, r"\$or needs a list of conditions, got \{'lang'"),
        ({"$and": []}, r"\$and needs a list of conditions, got \[\]"),
        ({"$or": ["lang"]}, r"each entry of \$or must be a dict .*got 'lang'"),
        ({"$not": "lang"}, r"\$not must be a dict .*got 'lang'"),
    ],
)
def test_what_metadata_can_never_equal_is_a_mistake(where, said):
    """The error names the key and what was given."""
    with pytest.raises(TypeError, match=said):
        condition_of(where)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"year": {"$regex": "x"}}, r"'\$regex' for 'year': use one of \$eq, \$ne, \$gt"),
        ({"year": {"gt": 1}}, "'gt'"),
        ({"$nor": [{"year": 1}]}, r"'\$nor' in place of a metadata key: use one of \$and, \$or"),
        ({"$gte": 3}, r"'\$gte' in place of a metadata key"),
        ({"year": {"$gt": pd.NaT}}, "NaT"),
        ({"year": np.datetime64("NaT", "D")}, "NaT"),
        ({"year": {"$ne": np.datetime64("NaT", "ns")}}, "NaT"),
        ({"year": {"$contains": np.array("NaT", "datetime64[D]")}}, "NaT"),
        ({"year": {"$lt": np.datetime64(10**17, "s")}}, "years 1 to 9999"),
        ({"year": np.float32("nan")}, "NaN"),
        ({"year": math.nan}, "NaN"),
        ({"year": [1, math.nan]}, "NaN"),
    ],
)
def test_an_operator_that_is_unknown_or_out_of_place_is_refused(where, said):
    """The error names those that there are; a NaN equals nothing."""
    with pytest.raises(ValueError, match=said):
        condition_of(where)


@pytest.mark.parametrize(
    "where",
    [
        {"lang": {}},
        {"$and": [{}]},
        {"$or": [{"lang": "en"}, {}]},
        {"$not": {}},
        {"lang": {"$not": {}}},
        {"year": 2024, "lang": {}},
    ],
)
def test_an_empty_condition_within_others_is_refused(where):
    """It would hold of everything, and a deletion by it would empty the store."""
    store = MemoryStore()
    AsyncDocumentProcessor(store=store).process_sync([Document("a", "bucket", {"lang": "en"})])
    for act in (store.delete, store.documents):
        with pytest.raises(ValueError, match="is empty and would hold of everything"):
            act(where=where)
    with pytest.raises(ValueError, match="is empty and would hold of everything"):
        store.search("bucket", where=where)
    assert len(store.documents(where={})) == 1
    store.close()


@pytest.mark.parametrize(
    "where",
    [
        {},
        {"lang": {"$nin": []}},
        {"$not": {"lang": []}},
        {"$or": [{"lang": "de"}, {"lang": {"$nin": ()}}]},
        {"lang": {"$nin": []}, "year": {"$not": {"$in": []}}},
        {"$not": {"$and": [{"lang": "en"}, {"lang": []}]}},
    ],
)
def test_a_deletion_whose_condition_holds_of_everything_is_refused(where):
    """Code that had nothing to leave out made it; a search may well ask for that."""
    store = MemoryStore()
    document = Document("a", "bucket", {"lang": "en", "year": 2024})
    AsyncDocumentProcessor(store=store).process_sync([document])
    with pytest.raises(ValueError, match="holds of every document"):
        store.delete(where=where)
    assert len(store.search("bucket", where=where)) == len(store.documents(where=where)) == 1
    assert store.delete(where={"lang": {"$nin": ["de"]}}) == 1
    store.close()


def test_conditions_that_hold_themselves_are_refused():
    """Rather than that Python runs out of its stack."""
    where = {"lang": "en"}
    where["$not"] = where
    with pytest.raises(ValueError, match="nested more than 50 deep"):
        condition_of(where)


# Hard on files, SQL and JSON: quotes, dollars, NULs, escapes, halves of pairs, long numbers.
TEXT = st.one_of(
    st.sampled_from(
        ["", '"', "'", "$", "$.a", '$."a"', "a.b", "[0]", "\\", "\\u0000", "\0", "a\0b", "é", "🎈"]
    ),
    st.text(max_size=5),
    st.text(st.characters(codec=None), max_size=3),
)
VALUE = st.one_of(
    TEXT,
    st.integers(),
    st.integers(-3, 3),
    st.just(2**70),
    st.floats(allow_nan=False),
    st.booleans(),
    st.none(),
)
STORED = st.dictionaries(TEXT, st.one_of(VALUE, st.just(math.nan), st.lists(VALUE, max_size=2)))
WHERE = st.dictionaries(
    TEXT.filter(lambda key: not key.startswith("$")),  # which begins an operator
    st.one_of(
        VALUE,
        st.lists(VALUE, max_size=3),
        st.fixed_dictionaries({"$ne": VALUE}),
        st.fixed_dictionaries({"$gte": TEXT | st.integers() | st.floats(allow_nan=False)}),
    ),
    max_size=2,
)


def one_that_holds(metadata):
    """Return a condition that some of this metadata meets: any other hardly ever holds."""
    plain = [
        (key, value)
        for key, value in metadata.items()
        if not isinstance(value, list) and not key.startswith("$")
    ]
    return dict([pair for pair in plain if pair[1] == pair[1]][:1])  # a NaN is not


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(STORED, STORED), min_size=1, max_size=4), WHERE, st.integers(0, 1))
def test_any_metadata_is_stored_and_found_by_any_conditions(stored, where, kind):
    """Both rankings are of just the chunks of which the conditions hold; nothing breaks them."""
    if kind == 0:
        where = one_that_holds(stored[0][0] | stored[0][1])
    expected = []
    with MemoryStore() as store:
        for n, (of_document, of_chunk) in enumerate(stored):
            document = Document(str(n), "word", of_document, source=f"/{n}")
            chunks = [Chunk("word", 0, 4, of_chunk), Chunk("word", 4, 8)]
            store.upsert(document, chunks, np.ones((2, 2)), fingerprint="", embedder="x")
            condition = condition_of(where)
            expected += [
                (str(n), chunk.start)
                for chunk in chunks
                if condition is None
                or matches(condition, str(n), f"/{n}", of_document, chunk.metadata)
            ]
        for mode in ("vector", "keyword"):
            with warnings.catch_warnings(record=True) as unknown:  # of keys that none of them has
                warnings.simplefilter("always")
                hits = store.search("word", 100, mode=mode, where=where, vector=np.ones(2))
            found = sorted((hit.document_id, hit.start) for hit in hits)
            assert found == ([] if unknown else expected)
