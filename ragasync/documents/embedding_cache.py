"""The vectors that a store has: whose they are, and which of them need not be made again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.fingerprints import EmbedderIdentity, StageFunction
from ragasync.documents.models import Chunk
from ragasync.documents.store import EmbedderMismatch, StoredEmbedder, SupportsEmbedderIdentity

Vector: TypeAlias = NDArray[np.float32]


class EmbedderInStore:
    """
    A processor's embedder as a store knows it.

    The store keeps what it was given with its first vectors. As long as the embedder at hand is the
    same one, its vectors are stored under that, whatever has become of its code.

    Args:
        store: the store, or what else takes vectors.
        now: the embedder at hand.
        function: what embeds.

    Attributes:
        now: the embedder at hand.
        known_as: how the store knows it, or is to know it.
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
        Compare the embedder with that of the stored vectors, before a run; it blocks.

        Returns:
            A warning that nobody can tell whether it is the same, or None.

        Raises:
            EmbedderMismatch: it is another one.
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
        """Take the embedder for the stored one, or refuse it."""
        now = self.now
        try:
            before = EmbedderIdentity.from_json(stored.name, stored.identity)
        except ValueError:  # of another version of ours, or of nobody
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
"""Why the code of a function cannot be compared."""


def supports_embedder_identity(store: object) -> TypeGuard[SupportsEmbedderIdentity]:
    """Return whether a store remembers by more than a name whose vectors it holds."""
    names = ("stored_embedder", "rename_embedder", "search_with")
    return all(hasattr(store, name) for name in names)


def _place(store: object) -> str:
    """Return where a store is, for people."""
    return repr(getattr(store, "path", type(store).__name__))


def _refusal(
    store: object,
    stored: StoredEmbedder,
    before: EmbedderIdentity,
    now: EmbedderIdentity,
    changes: Sequence[str],
) -> str:
    """Return why an embedder is refused, and the ways out."""
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
    Asks the store for the vectors of texts that it has from the same embedder.

    Args:
        store: a store with `vectors_of`.
        embedder: the embedder as the store knows it.
    """

    store: Any
    embedder: EmbedderInStore

    def __call__(self, chunks: Sequence[Chunk]) -> list[Vector | None] | None:
        """Return the vector of each chunk or None; None alone where the store has none of them."""
        if not chunks:
            return None
        found = list(self.store.vectors_of(self.embedder.name, [chunk.text for chunk in chunks]))
        if len(found) != len(chunks):
            raise ValueError(
                f"vectors_of must return a vector or None for each text: "
                f"got {len(found)} for {len(chunks)} texts"
            )
        return None if all(vector is None for vector in found) else found


def cached_embeddings(
    store: object, embedder: EmbedderInStore, wanted: bool
) -> CachedEmbeddings | None:
    """Return what asks a store for vectors, if it can tell and that is wanted."""
    return CachedEmbeddings(store, embedder) if wanted and hasattr(store, "vectors_of") else None
