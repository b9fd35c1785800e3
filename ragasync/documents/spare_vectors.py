"""SpareVectors: vectors of documents that a run gives up, kept in the store for the next run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ragasync.documents.store import StoredEmbedder, StoreNotWritable, SupportsSpareVectors
from ragasync.documents.stored_state import EmbedderInStore, Vector, supports_spare_vectors

MAX_WAITING = 256
"""The number of texts whose vectors wait in memory, before they are written during the run."""


class SpareVectors:
    """
    Collects the vectors of documents that do not finish: stopped, cancelled, failed or not stored.

    They are paid for. The next run gets them from the store, as it gets the vectors of unchanged
    texts: so a document that costs more than the budget of a run finishes after a few runs. They
    are written when the run has ended, however it ends; only a process that is killed loses them.

    Args:
        store: the store; nothing is kept if it cannot keep them.
        embedder: the embedder as the store knows it.
        is_wanted: whether vectors are reused at all.
        warn: called with a warning if they cannot be written.
    """

    def __init__(
        self,
        store: object,
        embedder: EmbedderInStore,
        *,
        is_wanted: bool,
        warn: Callable[[str], None],
    ) -> None:
        self._store = store if is_wanted and supports_spare_vectors(store) else None
        self._embedder, self._warn = embedder, warn
        self._given_up: list[tuple[Sequence[str], Sequence[Vector | None]]] = []
        self._waiting = 0
        self._are_mixed = False

    def keep(self, texts: Sequence[str], vectors: Sequence[Vector | None]) -> None:
        """
        Keep the vectors of a document that is given up.

        Args:
            texts: the texts that had to be embedded.
            vectors: the vectors so far; calls that are still in flight may fill in more.
        """
        if self._store is None or self._are_mixed or not texts:
            return
        self._given_up.append((texts, vectors))
        self._waiting += len(texts)

    async def write_if_many(self) -> None:
        """Write the collected vectors if they take much memory."""
        if self._waiting >= MAX_WAITING:
            await self.write()

    def refuse(self) -> None:
        """
        Keep nothing, and drop what is kept: the embedder gives vectors of several dimensions.

        Otherwise vectors of a wrong dimension would make their documents fail in every later run.
        """
        self._are_mixed = True

    async def write(self) -> None:
        """Write the collected vectors, on a thread."""
        given_up, self._given_up, self._waiting = self._given_up, [], 0
        if self._store is None or not (given_up or self._are_mixed):
            return
        vectors = {
            text: vector
            for texts, made in given_up
            for text, vector in zip(texts, made, strict=True)
            if vector is not None
        }
        try:
            await asyncio.to_thread(self._write, self._store, vectors)
        except StoreNotWritable:
            return  # the error of each document says so
        except Exception as error:
            self._warn(
                f"the vectors of {len(vectors):,} chunks, whose documents are not finished, could "
                f"not be kept, and the next run embeds them again: {error}"
            )

    def _write(self, store: SupportsSpareVectors, vectors: dict[str, Vector]) -> None:
        """Write vectors of one dimension: the store's, or else that of the first. It blocks."""
        if self._are_mixed:
            store.drop_spare_vectors()
            return
        if not vectors:
            return
        embedder = self._embedder.spare
        if embedder is None:
            dimension = self._embedder.dimension or len(next(iter(vectors.values())))
            name, identity = self._embedder.known_as
            embedder = StoredEmbedder(name, dimension, identity)
        fit = {text: made for text, made in vectors.items() if len(made) == embedder.dimension}
        store.add_spare_vectors(embedder, fit)
