"""What a LanceStore ranks and finds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.store import Hit
from ragasync.documents.stores.lance_filter import digest, has_key
from ragasync.documents.stores.search import telling_words
from ragasync.documents.where import HEADING, titles_of, value_of

if TYPE_CHECKING:
    from lancedb.table import LanceTable

Row: TypeAlias = Mapping[str, Any]
"""What a search gives of a chunk, by column."""

FRAME = ("document_id", "source", "ordinal", "start", "end", "text", "of_document", "of_chunk")
"""The columns that the table of a store is made of."""

_AT_ONCE = 500


def nearest_rows(
    table: LanceTable, query: NDArray[np.float32], k: int, predicate: str
) -> list[tuple[Row, float]]:
    """Return the `k` nearest of the chunks that a predicate holds of, with their cosines."""
    if not query.any():
        return []
    found = (
        table.search(query, query_type="vector", vector_column_name="vector")
        .distance_type("cosine")
        .where(predicate, prefilter=True)
        .select(["id", *FRAME, "_distance"])
        .limit(k)
        .to_list()
    )
    return [(row, 1 - row["_distance"]) for row in found]


def rows_by_words(table: LanceTable, text: str, k: int, predicate: str) -> list[tuple[Row, float]]:
    """Return the `k` best by BM25 of the chunks that a predicate holds of, with their scores."""
    from lancedb.query import MatchQuery

    words = telling_words(text)
    if not words:
        return []
    found = (
        table.search(MatchQuery(" ".join(words), "text"), query_type="fts")
        .where(predicate, prefilter=True)
        .select(["id", *FRAME, "_score"])
        .limit(k)
        .to_list()
    )
    return [(row, row["_score"]) for row in found]


def hit_of(row: Row, score: float) -> Hit:
    """Return one chunk as a hit."""
    metadata = json.loads(row["of_document"]) | json.loads(row["of_chunk"])
    place = row["start"], row["end"]
    return Hit(row["document_id"], row["source"], row["text"], *place, score, metadata)


def values_under(table: LanceTable, key: str) -> Iterator[object]:
    """Give the values that chunks have under a key, some of them often."""
    columns = ["document_id", "source", "of_document", "of_chunk"]
    rows = table.search().where(has_key(key)).select(columns).to_arrow()
    for name, source, *metadata in set(zip(*(rows[c].to_pylist() for c in columns), strict=True)):
        of_document, of_chunk = map(json.loads, metadata)
        yield value_of(key, name, source, of_document, of_chunk)
        if key == HEADING:
            yield from titles_of(of_chunk)


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
