"""The embedding cache: vectors that the store has already are not made again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.document import Chunk

Vector: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Recall:
    """
    Asks the store for the vectors of texts that it has from the same embedder.

    Args:
        store: a store with `vectors_of`.
        embedder: the embedder's name.
    """

    store: Any
    embedder: str

    def __call__(self, chunks: Sequence[Chunk]) -> list[Vector | None] | None:
        """Return the vector of each chunk or None; None alone where the store has none of them."""
        if not chunks:
            return None
        found = list(self.store.vectors_of(self.embedder, [chunk.text for chunk in chunks]))
        if len(found) != len(chunks):
            raise ValueError(
                f"vectors_of must return a vector or None for each text: "
                f"got {len(found)} for {len(chunks)} texts"
            )
        return None if all(vector is None for vector in found) else found


def recall_of(store: object, embedder: str, wanted: bool) -> Recall | None:
    """Return what asks a store for vectors, if it can tell and that is wanted."""
    return Recall(store, embedder) if wanted and hasattr(store, "vectors_of") else None


@dataclass(frozen=True, slots=True)
class VectorMark:
    """
    The part of a document's fingerprint that says what its vectors depend on beside the texts.

    Another `version` may mean another model behind the same name: so a document that was stored
    with another one is embedded anew, and so is a new one among those.

    Args:
        embedder: the embedder's name.
        version: the processor's `version`.
    """

    embedder: str
    version: str

    @property
    def text(self) -> str:
        """The mark: eight digits."""
        return blake2b(repr((self.embedder, self.version)).encode(), digest_size=4).hexdigest()

    def allows(self, stored: str | None) -> bool:
        """Return whether stored vectors may serve, given the fingerprint that is stored."""
        return not self.version if stored is None else stored.startswith(self.text)
