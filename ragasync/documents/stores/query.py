"""What is searched for, with its vector from the embedder whose vectors are stored."""

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
What turns texts into vectors, sync or async; where it has a `name`, that is checked.

Where it has a method `query`, of one text, that embeds what is searched for: some models do not
embed questions as they embed what answers them.
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
    Return the search to run, with the vector of its text where one is needed.

    Args:
        text: What the user searches for.
        k: The most hits.
        mode: What is ranked by.
        min_score: The least cosine of a hit.
        vector: The text's vector, where the user gives it.
        embedder: What embeds the text otherwise.
        stored: Whose vectors are stored, if any are.

    Raises:
        EmbedderMismatch: When the embedder is another, unknown, or gives another dimension.
        RunAsyncError: When the embedder is async and bound to another event loop.
    """
    is_needed = mode != "keyword" or min_score is not None or vector is not None
    hashed = stored is not None and HashingEmbedder.from_name(stored.name) is not None
    made = embedder.vector(text, stored, vector) if stored and is_needed else None
    return Search(text, int(k), mode, min_score, made, hashed, vector is not None)


class QueryEmbedder:
    """
    Makes the vectors that a store is searched by.

    Args:
        given: what the store's user has given to embed them, or None.
    """

    def __init__(self, given: Embed | None) -> None:
        self.given = given
        self._learned: tuple[str, Embed] | None = None

    def learn(self, name: str, embed: Embed) -> None:
        """Note what a run stores vectors by, for where nothing is given."""
        self._learned = name, embed

    def vector(
        self, text: str, stored: StoredEmbedder, given: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """
        Return the vector to compare the stored ones with, of length 1.

        Args:
            text: What is searched for.
            stored: Whose vectors are stored.
            given: The vector itself, where it was made elsewhere.

        Raises:
            EmbedderMismatch: When the embedder is another, unknown, or gives another dimension.
            ValueError: When the vector has an entry that is not finite.
            RunAsyncError: When the embedder is async and bound to another event loop.
        """
        made: object = given
        if given is None:
            made = _embedded(text, self._embedder_of(stored.name))
        row = np.array(made, dtype=np.float64).reshape(1, -1)
        if not np.isfinite(row).all():
            whose = "that the embedder returned for the text" if given is None else "vector="
            raise ValueError(
                f"the vector to search by, {whose}, must have finite entries, got "
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
        """Return what embeds a text as the stored ones were."""
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
    """Return what an embedder makes of one text."""
    query = getattr(embedder, "query", None)
    made: object = query(text) if callable(query) else embedder([text])
    if hasattr(made, "__await__"):
        made = run_async(cast("Awaitable[object]", made))
    return made
