"""A search: exact ranking by cosine, fusion of rankings, and the criteria of a hit."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.embedders import have_feature_in_common
from ragasync.documents.search_text import is_single, query_words
from ragasync.documents.store import SearchMode

Key = TypeVar("Key", bound=Hashable)

JOINED = 50
"""Number of chunks of each ranking that are joined: none below is a good answer."""


_SPARSE = 8
"""A query is sparse if at most one in this number of its entries is not zero."""


def cosines_of_columns(
    columns: NDArray[np.float32], query: NDArray[np.float32]
) -> NDArray[np.float32]:
    """
    Dot product of a query with each column of a matrix.

    Args:
        columns: The vectors, `(dimension, n)`; of length 1, so that the product is the cosine.
        query: One vector of the same dimension.
    """
    entries = np.flatnonzero(query)
    if len(entries) * _SPARSE > len(query):
        return query @ columns
    # The query of a HashingEmbedder has few entries, and only their rows are read.
    cosines = np.zeros(columns.shape[1], dtype=np.float32)
    for entry in entries:
        cosines += query[entry] * columns[entry]
    return cosines


def top_k_cosine(
    cosines: NDArray[np.float32], k: int, among: NDArray[np.int64] | None = None
) -> list[tuple[int, float]]:
    """
    Find the largest cosines.

    Args:
        cosines: The cosines.
        k: The maximum number of results.
        among: The positions that may be returned, ascending; None for all.

    Returns:
        Pairs of a position and its cosine, the largest first; of equals, the earlier first.
    """
    values = cosines if among is None else cosines[among]
    if not len(values):
        return []
    k = min(k, len(values))
    bar = np.partition(values, -k)[-k]
    candidates = np.flatnonzero(values >= bar)
    best = candidates[np.argsort(-values[candidates], kind="stable")[:k]]
    positions = best if among is None else among[best]
    return list(zip(positions.tolist(), values[best].tolist(), strict=True))


def reciprocal_rank_fusion(*rankings: Sequence[Key], k: float = 5) -> list[tuple[Key, float]]:
    """
    Join rankings by reciprocal rank: a key that is high in several of them comes first.

    A key scores the sum of 1 / (k + rank) over the rankings that hold it, ranks counted from 1;
    the scores that the rankings came from, which have no common scale, play no part. Cormack,
    Clarke and Büttcher, Reciprocal Rank Fusion Outperforms Condorcet and Individual Rank Learning
    Methods (SIGIR 2009), set k to 60 for long rankings of a thousand. Of two short ones that puts
    any key that both hold, even in the last place, before the first of one: a small k found more of
    the expected answers, measured in benchmarks/retrieval.py.

    Args:
        rankings: Each a sequence of keys, the best first, no key twice.
        k: How little the first places count beyond the later ones.

    Returns:
        Pairs of a key and its score, the best first; of equals, the one that was met first.
    """
    scores: dict[Key, float] = {}
    for ranking in rankings:
        for rank, key in enumerate(ranking, start=1):
            scores[key] = scores.get(key, 0.0) + 1 / (k + rank)
    return sorted(scores.items(), key=lambda pair: -pair[1])


def fts5_expression(words: Sequence[str]) -> str:
    """
    FTS5 expression that matches any of these words.

    Each is quoted, so that nothing in it is syntax. A single character of a script without spaces
    begins the pairs that are indexed, see `words_of`.
    """
    return " OR ".join(f'"{word}"*' if is_single(word) else f'"{word}"' for word in words)


@dataclass(frozen=True, slots=True)
class Search:
    """
    The query of a search, and the criteria of a hit.

    Args:
        text: The text to search for.
        k: The maximum number of hits.
        mode: The ranking.
        min_score: The minimum cosine of a hit.
        vector: The vector of the text; None if none is needed or none is stored.
        hashed: Whether the vectors are a HashingEmbedder's. Its cosine of texts that have nothing
            in common is noise about 0, so that those are no hits.
        vector_is_given: Whether the vector may be of another text than `text`.
    """

    text: str
    k: int
    mode: SearchMode
    min_score: float | None
    vector: NDArray[np.float32] | None
    hashed: bool
    vector_is_given: bool

    @property
    def words(self) -> list[str]:
        """The words to look for; a text of any length may be searched for, at a bounded cost."""
        return query_words(self.text)

    @property
    def depth(self) -> int:
        """The number of chunks to rank by vectors, and by words."""
        return max(self.k, JOINED)

    def joined(
        self, near: Sequence[tuple[Key, float]], worded: Sequence[tuple[Key, float]]
    ) -> list[tuple[Key, float]]:
        """Ranking of the mode."""
        if self.mode != "hybrid":
            return [*(near if self.mode == "vector" else worded)]
        closer = [key for key, cosine in near if cosine > 0 or not self.hashed]
        return reciprocal_rank_fusion(closer, [key for key, _ in worded])

    def is_near(self, cosine: float | None) -> bool:
        """Whether a cosine is at least the minimum."""
        return self.min_score is None or (cosine is not None and cosine >= self.min_score)

    def is_hit(self, text: str, cosine: float | None, has_word: bool) -> bool:
        """Whether a chunk has anything in common with the query."""
        if has_word or not self.hashed:
            return True
        if cosine is None or cosine <= 0:
            return False
        return self.vector_is_given or have_feature_in_common(text, self.text)
