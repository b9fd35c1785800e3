"""A splitter from the extra `ingest` that knows the Unicode rules for sentences and words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ragasync.documents.chunk import check_sizes
from ragasync.documents.document import Chunk, Document
from ragasync.errors import MissingExtra

if TYPE_CHECKING:
    from semantic_text_splitter import TextSplitter


@dataclass(frozen=True, slots=True)
class SemanticSplitter:
    """
    Cut a text with the package semantic-text-splitter, counting characters.

    It ends a few more chunks at sentences than `RecursiveSplitter` does, knows languages that put
    no spaces between words, and takes over ten times as long.

    Args:
        max_chars: The most characters in a chunk, overlap included.
        overlap: The most characters of a chunk's end that the next one repeats.

    Raises:
        MissingExtra: If semantic-text-splitter is not installed.
        ValueError: If `max_chars` is not positive, or `overlap` not within 0 and half of it.
    """

    max_chars: int = 1000
    overlap: int = 0
    _splitter: TextSplitter = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the sizes, and that the package is there before a long run begins."""
        check_sizes(self.max_chars, self.overlap)
        try:
            from semantic_text_splitter import TextSplitter
        except ImportError:
            raise MissingExtra("SemanticSplitter", "semantic-text-splitter", "ingest") from None
        object.__setattr__(self, "_splitter", TextSplitter(self.max_chars, overlap=self.overlap))

    def __reduce__(self) -> tuple[type[SemanticSplitter], tuple[int, int]]:
        """Travel to another process by its sizes."""
        return type(self), (self.max_chars, self.overlap)

    @property
    def fingerprint(self) -> str:
        """Name, version and parameters: what a store has to know to see that chunks changed."""
        return f"SemanticSplitter/1(max_chars={self.max_chars}, overlap={self.overlap})"

    def __call__(self, document: Document | str) -> list[Chunk]:
        """Return the chunks of a document or a text, in order; none for a blank one."""
        text = document.text if isinstance(document, Document) else document
        pieces = self._splitter.chunk_indices(text)
        # What Python counts as white space is wider than what the package trims.
        kept = ((start, piece) for start, piece in pieces if not piece.isspace())
        return [Chunk(piece, start, start + len(piece)) for start, piece in kept]
