"""What a LanceStore ranks and finds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.embedders import scaled_to_one
from ragasync.documents.filters import HEADING, Condition, titles_of
from ragasync.documents.hits import Hit, Hits
from ragasync.documents.stores.lance_filter import EVERY_CHUNK, digest, has_key, predicate_of
from ragasync.documents.stores.search import Search

if TYPE_CHECKING:
    from lancedb.table import LanceTable

Row: TypeAlias = Mapping[str, Any]
"""What a search gives of a chunk, by column."""

FRAME = ("document_id", "source", "ordinal", "start", "end", "text", "of_document", "of_chunk")
"""The columns that the table of a store is made of."""

_AT_ONCE = 500


def run_search(table: LanceTable, search: Search, condition: Condition | None) -> Hits:
    """Return the hits of a search."""
    query, words = search.vector, search.words
    predicate = predicate_of(condition, StoredInTable(table))
    near: list[Row] = []
    worded: list[Row] = []
    if query is not None and search.mode != "keyword":
        near = _nearest(table, query, search.depth, predicate)
    if search.mode != "vector":
        worded = _worded(table, search, predicate)
    rows = {row["id"]: row for row in (*near, *worded)}
    cosines = {} if query is None else {name: _cosine(row, query) for name, row in rows.items()}
    ranking = search.joined(
        [(row["id"], cosines[row["id"]]) for row in near if search.is_near(cosines[row["id"]])],
        [(row["id"], row["_score"]) for row in worded if search.is_near(cosines.get(row["id"]))],
    )
    scores = {row["id"]: row["_score"] for row in worded}
    found = Hits(query=search.text)
    for start in range(0, len(ranking), search.k):  # the first part is mostly enough
        part = ranking[start : start + search.k]
        scores |= _word_scores(table, words, [name for name, _ in part if name not in scores])
        for name, score in part:
            cosine, keyword_score = cosines.get(name), scores.get(name)
            if search.is_hit(rows[name]["text"], cosine, keyword_score is not None):
                found.append(_hit_of(rows[name], score, cosine, keyword_score))
            if len(found) == search.k:
                return found
    return found


def unknown_keys(table: LanceTable, keys: Iterable[str]) -> list[str]:
    """Return those of some keys that no chunk has."""
    return [key for key in keys if not table.search().where(has_key(key)).limit(1).to_list()]


def known_keys(table: LanceTable) -> set[str]:
    """Return all keys that chunks have, their documents' included."""
    rows = table.search().where(EVERY_CHUNK).select(["of_document", "of_chunk"]).to_arrow()
    texts = {*rows["of_document"].to_pylist(), *rows["of_chunk"].to_pylist()}
    return {str(key) for text in texts for key in json.loads(text)}


class StoredInTable:
    """The texts of a table that conditions are compared with one by one."""

    def __init__(self, table: LanceTable) -> None:
        self._table = table

    def titles(self) -> set[str]:
        """Return the titles of all headings."""
        rows = self._table.search().where(has_key(HEADING)).select(["of_chunk"]).to_arrow()
        texts = {*rows["of_chunk"].to_pylist()}
        return {title for text in texts for title in titles_of(json.loads(text))}

    def texts(self, key: str, predicate: str) -> set[str]:
        """Return the texts under a key of the chunks that a predicate holds of."""
        found = self._table.search().where(f"{EVERY_CHUNK} AND {predicate}")
        rows = found.select(["of_document", "of_chunk"]).to_arrow().to_pylist()
        pairs = {(row["of_document"], row["of_chunk"]) for row in rows}
        return {(json.loads(whole) | json.loads(part))[key] for whole, part in pairs}


def vectors_of_texts(table: LanceTable, texts: Sequence[str]) -> list[NDArray[np.float32] | None]:
    """Return the vectors of chunks with these texts, None for a text that no chunk has."""
    digests = [digest(text) for text in texts]
    known: dict[str, NDArray[np.float32]] = {}
    for start in range(0, len(digests), _AT_ONCE):
        listed = ", ".join(f"'{one}'" for one in digests[start : start + _AT_ONCE])
        found = table.search().where(f"text_digest IN ({listed})")
        for row in found.select(["text_digest", "vector"]).to_list():
            known[row["text_digest"]] = np.array(row["vector"], dtype=np.float32)
    return [known.get(one) for one in digests]


def _nearest(table: LanceTable, query: NDArray[np.float32], k: int, predicate: str) -> list[Row]:
    """Return the `k` nearest of the chunks that a predicate holds of."""
    if not query.any():
        return []
    found: list[Row] = (
        table.search(query, query_type="vector", vector_column_name="vector")
        .distance_type("cosine")
        .where(predicate, prefilter=True)
        .select(["id", *FRAME, "_distance"])
        .limit(k)
        .to_list()
    )
    return found


def _worded(table: LanceTable, search: Search, predicate: str) -> list[Row]:
    """Return the best chunks by BM25, of those that are near enough and a predicate holds of."""
    if search.min_score is None or search.vector is None:
        columns = ["id", *FRAME, "vector", "_score"]
        return _by_words(table, search.words, search.depth, predicate, columns)
    # Nobody knows how many of the best are not near enough: read on until there are as many.
    ranked = _by_words(table, search.words, table.count_rows(), predicate, ["id", "_score"])
    found: list[Row] = []
    for start in range(0, len(ranked), _AT_ONCE):
        part = ranked[start : start + _AT_ONCE]
        listed = ", ".join(f"'{row['id']}'" for row in part)
        rows = table.search().where(f"id IN ({listed})").select(["id", *FRAME, "vector"]).to_list()
        by_id = {row["id"]: row for row in rows}
        joined = [by_id[row["id"]] | row for row in part]
        found += [row for row in joined if search.is_near(_cosine(row, search.vector))]
        if len(found) >= search.depth:
            break
    return found[: search.depth]


def _word_scores(
    table: LanceTable, words: Sequence[str], chunks: Sequence[str]
) -> dict[str, float]:
    """Return the BM25 scores of some chunks by their ids, of those that have a word."""
    if not chunks:
        return {}
    listed = ", ".join(f"'{name}'" for name in chunks)
    rows = _by_words(table, words, len(chunks), f"id IN ({listed})", ["id", "_score"])
    return {row["id"]: row["_score"] for row in rows}


def _by_words(
    table: LanceTable, words: Sequence[str], k: int, predicate: str, columns: list[str]
) -> list[Row]:
    """Return columns of the `k` best by BM25 of the chunks that a predicate holds of."""
    from lancedb.query import MatchQuery

    if not words:
        return []
    found: list[Row] = (
        table.search(MatchQuery(" ".join(words), "words"), query_type="fts")
        .where(predicate, prefilter=True)
        .select(columns)
        .limit(k)
        .to_list()
    )
    return found


def _cosine(row: Row, query: NDArray[np.float32]) -> float:
    """Return the cosine of a row's vector and the query's, which has length 1."""
    if "_distance" in row:
        return float(1 - row["_distance"])
    vector = scaled_to_one(np.array([row["vector"]], dtype=np.float32))[0]
    return float(vector @ query)


def _hit_of(row: Row, score: float, cosine: float | None, keyword_score: float | None) -> Hit:
    """Return one chunk as a hit."""
    metadata = json.loads(row["of_document"]) | json.loads(row["of_chunk"])
    place = row["document_id"], row["source"], row["text"], row["start"], row["end"]
    return Hit(*place, score, metadata, vector_score=cosine, keyword_score=keyword_score)
