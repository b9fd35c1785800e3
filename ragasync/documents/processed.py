"""What the pipeline gives back for each document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ragasync.documents.document import Chunk, Document


@dataclass(frozen=True, slots=True, repr=False)
class ProcessedDocument:
    """
    One document that went through the pipeline.

    Args:
        id: the document's id.
        source: where it came from, or None.
        chunk_count: how many chunks it has; None where it is unchanged and was not counted.
        unchanged: whether the store had it already, so that nothing was embedded.
        document: the document; None where a store keeps it, unless `keep="all"`.
        chunks: its chunks; likewise.
        embeddings: a float32 array of shape (chunks, dimension); likewise.
        fingerprint: what a store that can tell has it under; empty with any other.
    """

    id: str
    source: str | None
    chunk_count: int | None
    unchanged: bool = False
    document: Document | None = None
    chunks: Sequence[Chunk] | None = None
    embeddings: NDArray[Any] | None = None
    fingerprint: str = ""

    def __repr__(self) -> str:
        state = "unchanged" if self.chunk_count is None else f"{self.chunk_count:,} chunks"
        return f"<ProcessedDocument {self.id!r}: {state}>"
