"""
Search, QueryEmbedder: a search in any store, from the query's vector to the fusion of rankings.

Here are also the selection of documents by conditions, and other functions that stores share.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from ragasync._bridge.run_async import run_async
from ragasync.documents.embedders import HashingEmbedder, have_feature_in_common, scaled_to_one
from ragasync.documents.search import (
    Condition,
    keys_to_know,
    matches,
    warn_of_unknown,
)
from ragasync.documents.search_text import is_single, query_words
from ragasync.documents.store import (
    EmbedderMismatch,
    SearchMode,
    StoredDocument,
    StoredDocuments,
    StoredEmbedder,
)

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


Embed: TypeAlias = Callable[[Sequence[str]], Any]
"""
A function that turns texts into vectors, sync or async; its `name`, if it has one, is checked.

A method `query`, if there is one, embeds the text of a search: some models embed queries in another
way than documents.
"""


def search_for(
    text: str,
    k: int,
    mode: SearchMode,
    min_score: float | None,
    vector: NDArray[np.float32] | None,
    embedder: QueryEmbedder,
    stored: StoredEmbedder | None,
) -> Search:
    """
    Make the search to run, with the vector of its text if one is needed.

    Args:
        text: The text to search for.
        k: The maximum number of hits.
        mode: The ranking.
        min_score: The least cosine of a hit.
        vector: The text's vector, if the user gives it.
        embedder: It embeds the text otherwise.
        stored: The embedder of the stored vectors, if there are any.

    Raises:
        EmbedderMismatch: If the embedder is another, unknown, or gives another dimension.
        RunAsyncError: If the embedder is async and bound to another event loop.
    """
    is_needed = mode != "keyword" or min_score is not None or vector is not None
    hashed = stored is not None and HashingEmbedder.from_name(stored.name) is not None
    made = embedder.vector(text, stored, vector) if stored and is_needed else None
    return Search(text, int(k), mode, min_score, made, hashed, vector is not None)


class QueryEmbedder:
    """
    The embedder of queries of a store.

    Args:
        given: the embedder that the user of the store has set, or None.
    """

    def __init__(self, given: Embed | None) -> None:
        self.given = given
        self._learned: tuple[str, Embed] | None = None

    def learn(self, name: str, embed: Embed) -> None:
        """Remember the embedder of a run, for a store without one."""
        self._learned = name, embed

    def vector(
        self, text: str, stored: StoredEmbedder, given: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """
        Vector of a query, of length 1.

        Args:
            text: The text to search for.
            stored: The embedder of the stored vectors.
            given: The vector itself, if it was made elsewhere.

        Raises:
            EmbedderMismatch: If the embedder is another, unknown, or gives another dimension.
            ValueError: If the vector has an entry that is not finite.
            RunAsyncError: If the embedder is async and bound to another event loop.
        """
        made: object = given
        if given is None:
            made = _embedded(text, self._embedder_of(stored.name))
        row = np.array(made, dtype=np.float64).reshape(1, -1)
        if not np.isfinite(row).all():
            origin = "that the embedder returned for the text" if given is None else "vector="
            raise ValueError(
                f"the vector to search by, {origin}, must have finite entries, got "
                f"{row[~np.isfinite(row)][0]}: correct what made it"
            )
        if row.shape[1] != stored.dimension:
            raise EmbedderMismatch(
                f"the store holds vectors of {stored.name!r} with {stored.dimension} dimensions, "
                f"and that of the text has {row.shape[1]}: pass embedder= the one that made the "
                "former"
            )
        scaled: NDArray[np.float32] = scaled_to_one(row)[0]
        return scaled

    def _embedder_of(self, name: str) -> Embed:
        if self.given is not None:
            own_name = getattr(self.given, "name", name)
            if own_name != name:
                raise EmbedderMismatch(
                    f"the store holds vectors of {name!r}, and its embedder= is {own_name!r}: "
                    "pass the one that made them, or store in another file"
                )
            return self.given
        if self._learned is not None and self._learned[0] == name:
            return self._learned[1]
        if (embedder := HashingEmbedder.from_name(name)) is None:
            raise EmbedderMismatch(
                f"the store holds vectors of {name!r}, which has to embed the text too: pass "
                'embedder= to the store or vector= to the search, or search with mode="keyword"'
            )
        return embedder


def _embedded(text: str, embedder: Embed) -> object:
    query = getattr(embedder, "query", None)
    made: object = query(text) if callable(query) else embedder([text])
    if hasattr(made, "__await__"):
        made = run_async(cast("Awaitable[object]", made))
    return made


def selected(
    documents: Sequence[StoredDocument],
    condition: Condition | None,
    all_keys: Callable[[], Collection[str]],
) -> StoredDocuments:
    """
    Documents that match a condition, which does not apply to the metadata of their chunks.

    If the condition has a key that no document has, there is a warning, and no document matches.

    Args:
        documents: All stored documents.
        condition: The condition; None for all.
        all_keys: Returns the metadata keys of documents and of chunks.
    """
    if condition is None:
        return StoredDocuments(documents)
    known = {key for document in documents for key in document.metadata}
    unknown = [key for key in keys_to_know(condition) if key not in known] if documents else []
    if unknown:
        warn_of_unknown(unknown, known, all_keys(), stacklevel=4)
        return StoredDocuments()
    return StoredDocuments(
        each for each in documents if matches(condition, each.id, each.source, each.metadata, {})
    )
