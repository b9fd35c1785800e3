"""QueryEmbedder: the vector of a query, made by the embedder of the stored vectors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from ragasync._bridge.run_async import run_async
from ragasync.documents.embedders import HashingEmbedder, scaled_to_one
from ragasync.documents.store import EmbedderMismatch, SearchMode, StoredEmbedder
from ragasync.documents.stores.search import Search

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
        """Embedder of the stored vectors."""
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
    """Vector that an embedder makes of one text."""
    query = getattr(embedder, "query", None)
    made: object = query(text) if callable(query) else embedder([text])
    if hasattr(made, "__await__"):
        made = run_async(cast("Awaitable[object]", made))
    return made
