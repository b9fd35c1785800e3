"""The search of a SqliteStore: its vectors in memory, and its rankings and conditions in SQL."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from sqlite3 import Connection
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.embedders import scaled_to_one
from ragasync.documents.search import (
    HEADING,
    HEADINGS,
    AllOf,
    Comparison,
    Condition,
    Hit,
    Hits,
    comparisons,
    matches,
)
from ragasync.documents.stores.requests import (
    Search,
    cosines_of_columns,
    fts5_expression,
    top_k_cosine,
)

_LENGTH_TOLERANCE = 1e-6
_BLOBS = 16
_NO_NUMBERS = np.zeros(0, dtype=np.int64)
_NO_COLUMNS = np.zeros((0, 0), dtype=np.float32)


class VectorMatrix:
    """
    The matrix of all stored vectors, scaled to length 1, and the number of each one's chunk.

    The first search loads all vectors. After this connection or another process has written, the
    next search drops deleted vectors and loads new ones: the number of a chunk is never used again,
    and its vector never changes. A vector is a column, so that a query with few entries, as those
    of a HashingEmbedder, only needs a few rows.
    """

    def __init__(self) -> None:
        self._version: tuple[sqlite3.Connection, int, int] | None = None
        self._numbers, self._columns = _NO_NUMBERS, _NO_COLUMNS

    def current(
        self, connection: sqlite3.Connection
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """
        Numbers of all chunks, ascending, and their vectors, `(dimension, n)`.

        Args:
            connection: A connection to the file, inside a transaction. A different connection than
                last time may be to a different file.
        """
        if self._version is not None and self._version[0] is not connection:
            self._numbers, self._columns = _NO_NUMBERS, _NO_COLUMNS
        # data_version counts commits of other connections, total_changes those of this one.
        (commits,) = connection.execute("PRAGMA data_version").fetchone()
        version = (connection, commits, connection.total_changes)
        if version != self._version:
            self._update(connection)
            self._version = version
        return self._numbers, self._columns

    def _update(self, connection: sqlite3.Connection) -> None:
        """Drop the vectors of deleted chunks, and load those of new chunks."""
        numbers = _stored_numbers(connection)
        last = int(self._numbers[-1]) if len(self._numbers) else 0
        kept = np.isin(self._numbers, numbers, assume_unique=True)
        added = _load(connection, last, int(np.count_nonzero(numbers > last)))
        columns = self._columns if kept.all() else self._columns[:, kept]
        self._columns = _joined(columns, added)
        self._numbers = numbers


def _stored_numbers(connection: sqlite3.Connection) -> NDArray[np.int64]:
    """Numbers of all chunks, ascending."""
    found = connection.execute(
        "SELECT first_chunk, chunk_count FROM documents WHERE chunk_count > 0 ORDER BY first_chunk"
    ).fetchall()
    if not found:
        return _NO_NUMBERS
    first, counts = np.array(found, dtype=np.int64).T
    ends = np.cumsum(counts)
    numbers: NDArray[np.int64] = np.arange(ends[-1]) + np.repeat(first - ends + counts, counts)
    return numbers


def _load(connection: sqlite3.Connection, last: int, count: int) -> NDArray[np.float32]:
    """The vectors of the chunks with numbers above `last`, of which there are `count`."""
    if not count:
        return _NO_COLUMNS
    (dimension,) = connection.execute("SELECT dimension FROM embedder").fetchone()
    columns = np.empty((dimension, count), dtype=np.float32)
    place = 0
    found = connection.execute(
        "SELECT embeddings FROM vectors WHERE first_chunk > ? ORDER BY first_chunk", (last,)
    )
    # A few at a time, which are scaled and transposed while they are in the processor's cache.
    while blobs := found.fetchmany(_BLOBS):
        joined = bytearray().join(blob for (blob,) in blobs)
        rows = np.frombuffer(joined, dtype="<f4").reshape(-1, dimension)
        _scale(rows)
        columns[:, place : place + len(rows)] = rows.T
        place += len(rows)
    return columns


def _scale(rows: NDArray[np.float32]) -> None:
    """Scale those rows to length 1 that have another length; few embedders make any."""
    off = np.abs(np.einsum("ij,ij->i", rows, rows) - 1) > _LENGTH_TOLERANCE
    if off.any():
        rows[off] = scaled_to_one(rows[off])


def _joined(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """The columns of both; if one is empty, the other without a copy, which may be gigabytes."""
    if not first.size or not second.size:
        return first if first.size else second
    return np.concatenate([first, second], axis=1)


_NOTHING: Mapping[str, object] = {}


def run_search(
    db: Connection, matrix: VectorMatrix, search: Search, condition: Condition | None
) -> Hits:
    """Hits of a search."""
    query, words = search.vector, search.words
    near: list[tuple[int, float]] = []
    worded: list[tuple[int, float]] = []
    numbers, all_cosines = _NO_NUMBERS, np.zeros(0, dtype=np.float32)
    if query is not None:
        numbers, columns = matrix.current(db)
        if len(numbers):
            all_cosines = cosines_of_columns(columns, query)
        if search.mode != "keyword" and query.any():  # one of zeros is near nothing
            among = np.searchsorted(numbers, _numbers_where(db, condition)) if condition else None
            best = top_k_cosine(all_cosines, search.depth, among)
            near = [(int(numbers[position]), cosine) for position, cosine in best]
    if search.mode != "vector":
        depth = search.depth if search.min_score is None else -1
        worded = ranked_by_words(db, words, depth, condition)
    cosines, scores = dict(near), dict(worded)
    if query is not None and (others := list(scores.keys() - cosines.keys())):
        found = all_cosines[np.searchsorted(numbers, others)]
        cosines |= zip(others, found.tolist(), strict=True)
    near, worded = (
        [pair for pair in ranking if search.is_near(cosines.get(pair[0]))]
        for ranking in (near, worded)
    )

    def read(numbers: list[int]) -> list[Hit]:
        scores.update(word_scores(db, words, [each for each in numbers if each not in scores]))
        return [_hit(db, each, cosines.get(each), scores.get(each)) for each in numbers]

    return search.best_hits(search.joined(near, worded[: search.depth]), read)


def ranked_by_words(
    db: Connection, words: Sequence[str], k: int, condition: Condition | None = None
) -> list[tuple[int, float]]:
    """Numbers of the `k` best chunks by BM25, and their scores, best first."""
    if not words:
        return []
    # FTS5's rank is BM25 times -1, so that the best comes first in ascending order.
    if condition is None:
        return db.execute(
            "SELECT rowid, -rank FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?",
            (fts5_expression(words), k),
        ).fetchall()
    _define_holds(db, condition)
    # CROSS keeps SQLite from searching the index once for each chunk.
    return db.execute(
        "SELECT words.rowid, -words.rank FROM words "
        "CROSS JOIN chunks ON chunks.number = words.rowid "
        "CROSS JOIN documents ON documents.number = chunks.document "
        "WHERE words MATCH ? "
        "AND holds(documents.id, source, documents.metadata, chunks.metadata) "
        "ORDER BY words.rank LIMIT ?",
        (fts5_expression(words), k),
    ).fetchall()


def word_scores(db: Connection, words: Sequence[str], chunks: Iterable[int]) -> dict[int, float]:
    """BM25 scores of those of some chunks that have a word, by their numbers."""
    listed = json.dumps([*chunks])
    if not words or listed == "[]":
        return {}
    # The plus keeps SQLite from searching the index once for each chunk.
    found = db.execute(
        "SELECT rowid, -rank FROM words "
        "WHERE words MATCH ? AND +rowid IN (SELECT value FROM json_each(?))",
        (fts5_expression(words), listed),
    )
    return dict(found)


def _hit(db: Connection, number: int, cosine: float | None, keyword_score: float | None) -> Hit:
    """A chunk as a hit with its partial scores."""
    document_id, source, text, start, end, of_document, of_chunk = db.execute(
        'SELECT documents.id, source, text, "start", "end", documents.metadata, chunks.metadata '
        "FROM chunks JOIN documents ON documents.number = document WHERE chunks.number = ?",
        (number,),
    ).fetchone()
    metadata = json.loads(of_document) | json.loads(of_chunk)
    return Hit(document_id, source, text, start, end, 0.0, metadata, cosine, keyword_score)


def _numbers_where(db: Connection, condition: Condition) -> NDArray[np.int64]:
    """Numbers of the chunks that match a condition, ascending."""
    _define_holds(db, condition)
    rows = db.execute(
        "SELECT chunks.number FROM chunks JOIN documents ON documents.number = document "
        "WHERE (:written IS NULL OR instr(chunks.metadata, :written) "
        "OR instr(documents.metadata, :written)) "
        "AND holds(documents.id, source, documents.metadata, chunks.metadata) "
        "ORDER BY chunks.number",
        {"written": _written(condition)},
    )
    return np.fromiter((number for (number,) in rows), dtype=np.int64)


def _define_holds(db: Connection, condition: Condition) -> None:
    """
    Define the SQL function `holds` for a condition.

    SQLite's own JSON functions are three times as fast, 1 µs a chunk, but from one version to the
    next they differ in keys with escapes, texts with NULs and the last digit of a number; and the
    conditions would have to be translated to SQL.
    """
    keys = [json.dumps(one.key) for one in comparisons(condition)]
    if json.dumps(HEADING) in keys:
        keys.append(json.dumps(HEADINGS))
    verdicts: dict[str, bool] = {}

    def holds(document_id: str, source: str | None, of_document: str, of_chunk: str) -> bool:
        for key in keys:
            if key in of_chunk:
                document, chunk = _metadata(of_document), json.loads(of_chunk)
                return matches(condition, document_id, source, document, chunk)
        # A chunk that has none of the keys matches if its document does.
        verdict = verdicts.get(document_id)
        if verdict is None:
            document = _metadata(of_document)
            verdict = matches(condition, document_id, source, document, _NOTHING)
            verdicts[document_id] = verdict
        return verdict

    db.create_function("holds", 4, holds, deterministic=True)


def _written(condition: Condition) -> str | None:
    """
    A text that the metadata of every match of a condition contains, if there is one.

    So SQLite can skip most chunks for a selective condition without calling Python.
    """
    for part in condition.parts if isinstance(condition, AllOf) else (condition,):
        match part:
            case Comparison("id" | "source" | "heading"):
                pass
            # A number may be written as another that equals it: 7 as 7.0, 10**16 as 1e+16.
            case Comparison(key, "in", (str() | bool() as value,), False):
                return json.dumps({key: value})[1:-1]
            case Comparison(key, "in", (int() as value,), False) if abs(value) < 10**15:
                return json.dumps({key: value})[1:-1]
    return None


# A document's chunks come one after the other, and many documents are alike.
@lru_cache(maxsize=1024)
def _metadata(text: str) -> Mapping[str, object]:
    return cast("Mapping[str, object]", json.loads(text))
