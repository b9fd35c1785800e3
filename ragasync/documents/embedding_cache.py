"""The embedding cache: the vectors in a store, and the embedder that they are from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.fingerprints import EmbedderIdentity, StageFunction
from ragasync.documents.models import Chunk
from ragasync.documents.store import EmbedderMismatch, StoredEmbedder, SupportsEmbedderIdentity

Vector: TypeAlias = NDArray[np.float32]


class EmbedderInStore:
    """
    The identity of a processor's embedder in its store.

    The store keeps the identity that came with its first vectors. As long as the processor's
    embedder is the same one, its vectors are stored under that identity, even if its code changed.

    Args:
        store: the store, or a function that stores.
        now: the identity of the processor's embedder.
        function: the embed function.

    Attributes:
        now: the identity of the processor's embedder.
        known_as: its name and identity in the store.
        dimension: the length of the stored vectors; None while there are none.
    """

    def __init__(self, store: object, now: EmbedderIdentity, function: StageFunction) -> None:
        self._store, self.now, self._function = store, now, function
        keeps_identity = supports_embedder_identity(store)
        self.known_as = (now.name, now.to_json()) if keeps_identity else (now.for_other_stores, "")
        self.dimension: int | None = None

    @property
    def name(self) -> str:
        """The name that vectors are stored by."""
        return self.known_as[0]

    def check(self) -> str | None:
        """
        Compare the embedder with that of the stored vectors, before a run. It blocks.

        Returns:
            A warning if they cannot be compared, else None.

        Raises:
            EmbedderMismatch: it is a different one.
        """
        store = self._store
        if not supports_embedder_identity(store):
            return None
        stored = store.stored_embedder()
        if stored is None:
            self.known_as, self.dimension, warning = (self.now.name, self.now.to_json()), None, None
        else:
            warning = self._take_for(stored, store)
            self.dimension = stored.dimension
        store.search_with(self.name, self._function)
        return warning

    def _take_for(self, stored: StoredEmbedder, store: SupportsEmbedderIdentity) -> str | None:
        """Treat the embedder as the stored one, or refuse it."""
        now = self.now
        try:
            before = EmbedderIdentity.from_json(stored.name, stored.identity)
        except ValueError:  # written by another version, or by hand
            before = EmbedderIdentity.from_json(stored.name, "")
        is_named_now = not before.named_by and now.named_by == "stage"
        changes = [] if is_named_now else now.changes_since(before)
        if now.dimension not in (None, stored.dimension):
            changes = [*(changes or ()), f"the dimension: {stored.dimension} -> {now.dimension}"]
        if changes:
            raise EmbedderMismatch(_refusal(store, stored, before, now, changes))
        is_newly_versioned = changes == [] and not before.named_by and now.version
        known_as = stored.name, stored.identity
        if is_named_now or is_newly_versioned:
            known_as = now.name, now.to_json()
            if known_as[1] != stored.identity:
                store.rename_embedder(stored, *known_as)
        self.known_as = known_as
        if changes is None:
            return (
                f"cannot tell whether embed={now.name} is the embedder of the vectors in "
                f"{_place(store)}, because {WHY_UNKNOWN}: it is treated as the same one. To be "
                f"sure, give it a name: Stage(embed, name=...)"
            )
        return None


WHY_UNKNOWN = "it is written in C, or its source cannot be read"
"""The reason why the code of a function cannot be compared."""


def supports_embedder_identity(store: object) -> TypeGuard[SupportsEmbedderIdentity]:
    """Whether a store keeps the identity of its embedder, not only the name."""
    names = ("stored_embedder", "rename_embedder", "search_with")
    return all(hasattr(store, name) for name in names)


def _place(store: object) -> str:
    """The place of a store, for messages."""
    return repr(getattr(store, "path", type(store).__name__))


def _refusal(
    store: object,
    stored: StoredEmbedder,
    before: EmbedderIdentity,
    now: EmbedderIdentity,
    changes: Sequence[str],
) -> str:
    """The message for a refused embedder, with advice."""
    version = f", version={before.version!r}" if before.named_by and before.version else ""
    if not before.named_by:
        way = (
            "if it makes the same vectors as before, pass embed=Stage(embed, name=...) with a name "
            "of your choice, and the store takes on the name and keeps its vectors"
        )
    elif (now.named_by and now.name == before.name) or (
        now.dimension not in (None, stored.dimension)
    ):
        way = "use that one, as it was then"
    else:
        way = f"if it is the same one, pass embed=Stage(embed, name={before.name!r}{version})"
    return (
        f"the store {_place(store)} holds vectors of {before.name!r}, and embed= is another one or "
        f"has changed ({'; '.join(changes)}), so nothing was embedded: {way}; otherwise use "
        f"another store, where everything is embedded again"
    )


@dataclass(frozen=True, slots=True)
class CachedEmbeddings:
    """
    Gets stored vectors of texts, made by the same embedder.

    Args:
        store: a store with `vectors_of`.
        embedder: the embedder as the store knows it.
    """

    store: Any
    embedder: EmbedderInStore

    def __call__(self, documents: Sequence[Sequence[Chunk]]) -> list[list[Vector | None] | None]:
        """
        Get the stored vectors of the chunks of several documents, in one query.

        Returns:
            For each document a vector or None per chunk; None if the store has none of them.
        """
        texts = [chunk.text for chunks in documents for chunk in chunks]
        found = list(self.store.vectors_of(self.embedder.name, texts)) if texts else []
        if len(found) != len(texts):
            raise ValueError(
                f"vectors_of must return a vector or None for each text: "
                f"got {len(found)} for {len(texts)} texts"
            )
        vectors = iter(found)
        split = [list(islice(vectors, len(chunks))) for chunks in documents]
        return [part if any(vector is not None for vector in part) else None for part in split]


def cached_embeddings(
    store: object, embedder: EmbedderInStore, wanted: bool
) -> CachedEmbeddings | None:
    """The cache of a store, if it has one and it is wanted."""
    return CachedEmbeddings(store, embedder) if wanted and hasattr(store, "vectors_of") else None
