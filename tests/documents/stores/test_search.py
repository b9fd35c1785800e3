"""Ranking by exact nearness, joining rankings, and words as expressions of FTS5."""

import sqlite3
from contextlib import closing

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

# Internals: conditions and words of a search, without a store.
from ragasync.documents.search_text import query_words
from ragasync.documents.stores.requests import (
    cosines_of_columns,
    fts5_expression,
    reciprocal_rank_fusion,
    top_k_cosine,
)


def column(values):
    """Values as a float32 array."""
    return np.array(values, dtype=np.float32)


def test_the_largest_cosines_come_first():
    """Each with its position."""
    assert top_k_cosine(column([0, 1, 0.5]), 2) == [(1, 1.0), (2, 0.5)]


def test_of_equal_cosines_the_earlier_comes_first():
    """Ties at the bar go to the lower positions."""
    found = top_k_cosine(column([1, 2, 1, 1]), 3)
    assert [position for position, _ in found] == [1, 0, 2]


def test_fewer_cosines_than_k_are_all_returned():
    """A large k is no error, and neither is an empty array."""
    assert len(top_k_cosine(column([1, 2]), 10)) == 2
    assert top_k_cosine(column([]), 10) == []


def test_only_the_given_positions_are_returned():
    """Positions of the whole array, also if none may be returned."""
    assert top_k_cosine(column([3, 1, 2]), 1, np.array([1, 2])) == [(2, 2.0)]
    assert top_k_cosine(column([3, 1, 2]), 1, np.array([], dtype=np.int64)) == []


@given(st.integers(1, 40), st.integers(1, 45), st.integers(0, 2**32 - 1))
def test_the_largest_are_those_of_a_full_sort(n, k, seed):
    """Selecting agrees with sorting everything."""
    cosines = np.random.default_rng(seed).integers(-9, 9, n).astype(np.float32)
    expected = sorted(range(n), key=lambda position: (-cosines[position], position))[:k]
    assert [position for position, _ in top_k_cosine(cosines, k)] == expected


@given(st.integers(0, 64), st.integers(0, 20), st.integers(0, 2**32 - 1))
def test_cosines_are_products_with_each_column(entries, n, seed):
    """Of a query with any number of entries, few of which are read differently."""
    generator = np.random.default_rng(seed)
    columns = generator.integers(-4, 5, (64, n)).astype(np.float32)
    query = np.zeros(64, dtype=np.float32)
    query[generator.permutation(64)[:entries]] = generator.integers(1, 5, entries)
    assert cosines_of_columns(columns, query).tolist() == (query @ columns).tolist()


def test_fusing_adds_reciprocal_ranks():
    """The sum of 1 / (5 + rank), ranks from 1, over the rankings that hold a key."""
    assert reciprocal_rank_fusion(["a", "b"], ["b", "c"]) == [
        ("b", 1 / 7 + 1 / 6),
        ("a", 1 / 6),
        ("c", 1 / 7),
    ]


def test_fusing_puts_the_first_met_first_among_equals():
    """Ties are stable: the earlier ranking wins."""
    assert [key for key, _ in reciprocal_rank_fusion(["a"], ["b"])] == ["a", "b"]


def test_what_one_ranking_is_sure_of_comes_before_the_last_of_both():
    """First in one of two rankings of fifty beats fiftieth in both."""
    one = ["sure", *range(48), "last"]
    other = [*range(100, 149), "last"]
    joined = [key for key, _ in reciprocal_rank_fusion(one, other)]
    assert joined[0] == "sure"
    assert joined.index("last") > 2


def test_fusing_nothing_gives_nothing():
    """No rankings, or empty ones."""
    assert reciprocal_rank_fusion() == reciprocal_rank_fusion([], []) == []


def expression(text):
    """Return the FTS5 expression of what is searched for."""
    return fts5_expression(query_words(text))


def test_words_are_quoted_and_joined_by_or():
    """Each word counts once; operators are words like others."""
    assert expression('Retry NEAR("back*off") -retry') == '"retry" OR "near" OR "back" OR "off"'


def test_a_single_character_of_a_script_without_spaces_begins_a_pair():
    """The index has pairs, and so whatever follows it."""
    assert expression("猫 and 東京") == '"猫"* OR "東京"'


@given(st.text(st.characters()))
def test_no_text_is_fts5_syntax(text):
    """SQLite understands the expression of any text, NULs, quotes and surrogates included."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE VIRTUAL TABLE words USING fts5 (text)")
        if query_words(text):
            statement = "SELECT rowid FROM words WHERE words MATCH ?"
            db.execute(statement, (expression(text),)).fetchall()
