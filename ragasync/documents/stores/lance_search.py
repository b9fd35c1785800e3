"""Search in a LanceStore: chunks ranked by vectors and by keywords."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.embedders import scaled_to_one
from ragasync.documents.filters import HEADING, Condition, titles_of
from ragasync.documents.hits import Hit, Hits
from ragasync.documents.stores.lance_filter import EVERY_CHUNK, digest, has_key, predicate_of
from ragasync.documents.stores.lance_rows import vectors_in
from ragasync.documents.stores.search import Search

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import LanceTable

Row: TypeAlias = dict[str, Any]
"""The columns of a chunk that a search reads, with its cosine if it has been computed."""

FRAME = ("document_id", "source", "ordinal", "start", "end", "text", "of_document", "of_chunk")
"""The columns of a store's DataFrame."""

_IN_PREDICATE = 500
"""Values listed in one predicate."""


def run_search(table: LanceTable, search: Search, condition: Condition | None) -> Hits:
    """Run a search, and return its hits."""
    query, words = search.vector, search.words
    predicate = predicate_of(condition, StoredInTable(table))
    near: list[Row] = []
    worded: list[Row] = []
    if query is not None and search.mode != "keyword":
        near = _nearest(table, query, search.depth, predicate)
    if search.mode != "vector":
        worded = _worded(table, search, predicate)
    rows = {row["id"]: row for row in (*near, *worded)}
    nearest = [(row["id"], rows[row["id"]]["cosine"]) for row in near]
    ranking = search.joined(
        [(id_, cosine) for id_, cosine in nearest if search.is_near(cosine)],
        [(row["id"], row["_score"]) for row in worded if search.is_near(row.get("cosine"))],
    )
    scores = {row["id"]: row["_score"] for row in worded}
    found = Hits(query=search.text)
    for start in range(0, len(ranking), search.k):  # the first block usually suffices
        block = ranking[start : start + search.k]
        scores |= _word_scores(table, words, [id_ for id_, _ in block if id_ not in scores])
        for id_, score in block:
            row, keyword_score = rows[id_], scores.get(id_)
            if search.is_hit(row["text"], row.get("cosine"), keyword_score is not None):
                found.append(_hit_of(row, score, keyword_score))
            if len(found) == search.k:
                return found
    return found


def unknown_keys(table: LanceTable, keys: Iterable[str]) -> list[str]:
    """Those of some metadata keys that no chunk has."""
    return [key for key in keys if not table.search().where(has_key(key)).limit(1).to_list()]


def known_keys(table: LanceTable) -> set[str]:
    """All metadata keys of chunks and their documents."""
    rows = table.search().where(EVERY_CHUNK).select(["of_document", "of_chunk"]).to_arrow()
    texts = {*rows["of_document"].to_pylist(), *rows["of_chunk"].to_pylist()}
    return {str(key) for text in texts for key in json.loads(text)}


class StoredInTable:
    """Stored texts that have to be compared with a condition one by one."""

    def __init__(self, table: LanceTable) -> None:
        self._table = table

    def titles(self) -> set[str]:
        """Titles of all headings."""
        rows = self._table.search().where(has_key(HEADING)).select(["of_chunk"]).to_arrow()
        texts = {*rows["of_chunk"].to_pylist()}
        return {title for text in texts for title in titles_of(json.loads(text))}

    def texts(self, key: str, predicate: str) -> set[str]:
        """Texts under a metadata key of the chunks that a predicate selects."""
        found = self._table.search().where(f"{EVERY_CHUNK} AND {predicate}")
        rows = found.select(["of_document", "of_chunk"]).to_arrow().to_pylist()
        pairs = {(row["of_document"], row["of_chunk"]) for row in rows}
        return {(json.loads(whole) | json.loads(part))[key] for whole, part in pairs}


def vectors_of_texts(table: LanceTable, texts: Sequence[str]) -> list[NDArray[np.float32] | None]:
    """Vectors of chunks with these texts; None for a text that no chunk has."""
    digests = [digest(text) for text in texts]
    unique = list(dict.fromkeys(digests))
    known: dict[str, NDArray[np.float32]] = {}
    for start in range(0, len(unique), _IN_PREDICATE):
        listed = ", ".join(f"'{each}'" for each in unique[start : start + _IN_PREDICATE])
        found = table.search().where(f"text_digest IN ({listed})")
        rows = found.select(["text_digest", "vector"]).to_arrow()
        known.update(zip(rows["text_digest"].to_pylist(), vectors_in(rows), strict=True))
    return [known.get(each) for each in digests]


def _nearest(table: LanceTable, query: NDArray[np.float32], k: int, predicate: str) -> list[Row]:
    """The `k` chunks nearest to a vector, of those that a predicate selects."""
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
    return [row | {"cosine": float(1 - row["_distance"])} for row in found]


def _worded(table: LanceTable, search: Search, predicate: str) -> list[Row]:
    """The best chunks by BM25, of those that are near enough and that a predicate selects."""
    if search.min_score is None or search.vector is None:
        columns = ["id", *FRAME, "vector", "_score"]
        rows = _by_words(table, search.words, search.depth, predicate, columns)
        return [] if rows is None else _with_cosines(rows, search.vector)
    # How many of the best are not near enough is unknown: read until there are enough that are.
    ranked = _by_words(table, search.words, table.count_rows(), predicate, ["id", "_score"])
    scores = [] if ranked is None else ranked.to_pylist()
    found: list[Row] = []
    for start in range(0, len(scores), _IN_PREDICATE):
        block = scores[start : start + _IN_PREDICATE]
        listed = ", ".join(f"'{row['id']}'" for row in block)
        rows = table.search().where(f"id IN ({listed})").select(["id", *FRAME, "vector"]).to_arrow()
        by_id = {row["id"]: row for row in _with_cosines(rows, search.vector)}
        joined = [by_id[row["id"]] | row for row in block if row["id"] in by_id]
        found += [row for row in joined if search.is_near(row["cosine"])]
        if len(found) >= search.depth:
            break
    return found[: search.depth]


def _word_scores(
    table: LanceTable, words: Sequence[str], chunks: Sequence[str]
) -> dict[str, float]:
    """BM25 scores of chunks by their ids, of those that contain one of the words."""
    if not chunks:
        return {}
    listed = ", ".join(f"'{id_}'" for id_ in chunks)
    rows = _by_words(table, words, len(chunks), f"id IN ({listed})", ["id", "_score"])
    return {} if rows is None else dict(zip(*rows.to_pydict().values(), strict=True))


def _by_words(
    table: LanceTable, words: Sequence[str], k: int, predicate: str, columns: list[str]
) -> pa.Table | None:
    """Columns of the `k` best chunks by BM25 that a predicate selects; None without words."""
    from lancedb.query import MatchQuery

    if not words:
        return None
    return (
        table.search(MatchQuery(" ".join(words), "words"), query_type="fts")
        .where(predicate, prefilter=True)
        .select(columns)
        .limit(k)
        .to_arrow()
    )


def _with_cosines(rows: pa.Table, query: NDArray[np.float32] | None) -> list[Row]:
    """Rows with the cosine of their vector and the query's, if there is one, for the vector."""
    found: list[Row] = rows.drop_columns(["vector"]).to_pylist()
    if query is None:
        return found
    cosines = (scaled_to_one(vectors_in(rows)) @ query).tolist()
    return [row | {"cosine": cosine} for row, cosine in zip(found, cosines, strict=True)]


def _hit_of(row: Row, score: float, keyword_score: float | None) -> Hit:
    """Hit of a row."""
    metadata = json.loads(row["of_document"]) | json.loads(row["of_chunk"])
    place = row["document_id"], row["source"], row["text"], row["start"], row["end"]
    cosine = row.get("cosine")
    return Hit(*place, score, metadata, vector_score=cosine, keyword_score=keyword_score)
