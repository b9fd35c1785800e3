"""What a SqliteStore ranks and finds, in SQL."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from sqlite3 import Connection
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.store import Hit
from ragasync.documents.stores.search import any_word_of, nearest
from ragasync.documents.stores.vectors import VectorMatrix
from ragasync.documents.where import HEADING, HEADINGS, Condition, matches

_NOTHING: Mapping[str, object] = {}


def nearest_chunks(
    db: Connection,
    matrix: VectorMatrix,
    query: NDArray[np.float32],
    k: int,
    conditions: tuple[Condition, ...] = (),
) -> list[tuple[int, float]]:
    """Return the numbers of the `k` nearest chunks and their cosines, the best first."""
    numbers, rows = matrix.current(db)
    among = np.searchsorted(numbers, _numbers_where(db, conditions)) if conditions else None
    return [(int(numbers[row]), cosine) for row, cosine in nearest(rows, query, k, among)]


def ranked_by_words(
    db: Connection, text: str, k: int, conditions: tuple[Condition, ...] = ()
) -> list[tuple[int, float]]:
    """Return the numbers of the `k` best chunks by BM25, and their scores, the best first."""
    words = any_word_of(text)
    if words is None:
        return []
    # FTS5's rank is BM25 times -1, so that the best comes first in ascending order.
    if not conditions:
        return db.execute(
            "SELECT rowid, -rank FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?", (words, k)
        ).fetchall()
    _teach(db, conditions)
    # CROSS keeps SQLite from asking the words about each chunk in turn.
    return db.execute(
        "SELECT words.rowid, -words.rank FROM words "
        "CROSS JOIN chunks ON chunks.number = words.rowid "
        "CROSS JOIN documents ON documents.number = chunks.document "
        "WHERE words MATCH ? "
        "AND holds(documents.id, source, documents.metadata, chunks.metadata) "
        "ORDER BY words.rank LIMIT ?",
        (words, k),
    ).fetchall()


def hits(db: Connection, ranking: Sequence[tuple[int, float]]) -> list[Hit]:
    """Return the chunks of these numbers with their scores."""
    return [_hit(db, number, score) for number, score in ranking]


def _numbers_where(db: Connection, conditions: tuple[Condition, ...]) -> NDArray[np.int64]:
    """Return the numbers of the chunks of which all conditions hold, ascending."""
    _teach(db, conditions)
    rows = db.execute(
        "SELECT chunks.number FROM chunks JOIN documents ON documents.number = document "
        "WHERE (:written IS NULL OR instr(chunks.metadata, :written) "
        "OR instr(documents.metadata, :written)) "
        "AND holds(documents.id, source, documents.metadata, chunks.metadata) "
        "ORDER BY chunks.number",
        {"written": _written(conditions)},
    )
    return np.fromiter((number for (number,) in rows), dtype=np.int64)


def _hit(db: Connection, number: int, score: float) -> Hit:
    """Return one chunk as a hit."""
    document_id, source, text, start, end, of_document, of_chunk = db.execute(
        'SELECT documents.id, source, text, "start", "end", documents.metadata, chunks.metadata '
        "FROM chunks JOIN documents ON documents.number = document WHERE chunks.number = ?",
        (number,),
    ).fetchone()
    metadata = json.loads(of_document) | json.loads(of_chunk)
    return Hit(document_id, source, text, start, end, score, metadata)


def _teach(db: Connection, conditions: tuple[Condition, ...]) -> None:
    """
    Give SQLite the function `holds` for these conditions.

    SQLite's own JSON functions are three times as fast, 1 µs a chunk, but from one version to the
    next they differ in keys with escapes, texts with NULs and the last digit of a number; and a
    statement would have to be made of the conditions.
    """
    keys = [json.dumps(condition.key) for condition in conditions]
    if json.dumps(HEADING) in keys:
        keys.append(json.dumps(HEADINGS))
    verdicts: dict[str, bool] = {}

    def holds(document_id: str, source: str | None, of_document: str, of_chunk: str) -> bool:
        for key in keys:
            if key in of_chunk:
                document, chunk = _metadata(of_document), json.loads(of_chunk)
                return matches(conditions, document_id, source, document, chunk)
        # A chunk that has none of the keys is as its document.
        verdict = verdicts.get(document_id)
        if verdict is None:
            document = _metadata(of_document)
            verdict = matches(conditions, document_id, source, document, _NOTHING)
            verdicts[document_id] = verdict
        return verdict

    db.create_function("holds", 4, holds, deterministic=True)


def _written(conditions: tuple[Condition, ...]) -> str | None:
    """
    Return what stands in all metadata of which the conditions hold, if anything does.

    So SQLite can leave out most chunks of a selective condition without a call of ours.
    """
    for condition in conditions:
        if condition.key in ("id", "source", HEADING) or condition.operator != "in":
            continue
        if len(condition.values) == 1:
            [value] = condition.values
            # A number may be written as another that equals it: 7 as 7.0, 10**16 as 1e+16.
            if isinstance(value, str | bool) or (isinstance(value, int) and abs(value) < 10**15):
                return json.dumps({condition.key: value})[1:-1]
    return None


# A document's chunks come one after the other, and many documents are alike.
@lru_cache(maxsize=1024)
def _metadata(text: str) -> Mapping[str, object]:
    """Return the metadata of a document."""
    return cast("Mapping[str, object]", json.loads(text))
