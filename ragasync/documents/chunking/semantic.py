"""A splitter from the extra `ingest` that knows the Unicode rules for sentences and words."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING

from ragasync.documents.chunking.chunk import check_sizes
from ragasync.documents.chunking.counting import as_token_counter
from ragasync.documents.chunking.token_count import estimated_tokens
from ragasync.documents.document import Chunk, Document
from ragasync.documents.fingerprints import known_function
from ragasync.errors import MissingExtra

if TYPE_CHECKING:
    from semantic_text_splitter import TextSplitter


@dataclass(frozen=True, slots=True)
class SemanticTextSplitter:
    """
    Cut a text with the package semantic-text-splitter, counting characters or tokens.

    It ends a few more chunks at sentences than `RecursiveSplitter` does, knows languages that put
    no spaces between words, and takes over ten times as long; by tokens hundreds of times.

    Example:
        >>> from ragasync.documents import SemanticTextSplitter
        >>> split = SemanticTextSplitter(32)
        >>> for chunk in split("A bucket refills. It never overflows. First come, first served."):
        ...     print(chunk)
        <Chunk 0:17 'A bucket refills.'>
        <Chunk 18:37 'It never overflows.'>
        <Chunk 38:63 'First come, first served.'>

    Args:
        max_chars: The most characters in a chunk, overlap included.
        overlap: The most characters of a chunk's end that the next one repeats; tokens where
            these are counted.
        max_tokens: The most tokens in a chunk instead of `max_chars`.
        count_tokens: A function that says how many tokens a text has, a tokenizer (see
            `as_token_counter`), or the name of a model of OpenAI, whose vocabulary the package has
            inside. By default an estimate, rather too many than too few.

    Raises:
        MissingExtra: If semantic-text-splitter is not installed.
        TypeError: If `count_tokens` is none of these.
        ValueError: If a size is not positive, or `overlap` not within 0 and half of it, or no
            model of OpenAI has that name.
    """

    max_chars: int = 1000
    overlap: int = 0
    _: KW_ONLY
    max_tokens: int | None = None
    count_tokens: object = estimated_tokens
    _splitter: TextSplitter = field(init=False, repr=False, compare=False)
    _counter: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the sizes, and that the package is there before a long run begins."""
        if self.max_tokens is None:
            check_sizes(self.max_chars, self.overlap)
        else:
            check_sizes(self.max_tokens, self.overlap, "max_tokens")
        try:
            from semantic_text_splitter import TextSplitter
        except ImportError:
            raise MissingExtra("SemanticTextSplitter", "semantic-text-splitter", "ingest") from None
        counter = ""
        if self.max_tokens is None:
            splitter = TextSplitter(self.max_chars, overlap=self.overlap)
        else:
            splitter, counter = _by_tokens(
                TextSplitter, self.max_tokens, self.overlap, self.count_tokens
            )
        object.__setattr__(self, "_splitter", splitter)
        object.__setattr__(self, "_counter", counter)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Travel to another process by what it was made with."""
        return _made, (self.max_chars, self.overlap, self.max_tokens, self.count_tokens)

    @property
    def fingerprint(self) -> str:
        """Name, version and parameters: what a store has to know to see that chunks changed."""
        size = f"max_chars={self.max_chars}, overlap={self.overlap}"
        if self.max_tokens is not None:
            size = (
                f"max_tokens={self.max_tokens}, overlap={self.overlap}, "
                f"count_tokens={self._counter}"
            )
        return f"SemanticTextSplitter/1({size})"

    def __call__(self, document: Document | str) -> list[Chunk]:
        """Return the chunks of a document or a text, in order; none for a blank one."""
        text = document.text if isinstance(document, Document) else document
        pieces = self._splitter.chunk_indices(text)
        # What Python counts as white space is wider than what the package trims.
        kept = ((start, piece) for start, piece in pieces if not piece.isspace())
        return [Chunk(piece, start, start + len(piece)) for start, piece in kept]


def _made(
    max_chars: int, overlap: int, max_tokens: int | None, count_tokens: object
) -> SemanticTextSplitter:
    """Return a splitter in another process."""
    return SemanticTextSplitter(
        max_chars, overlap, max_tokens=max_tokens, count_tokens=count_tokens
    )


def _by_tokens(
    kind: type[TextSplitter], max_tokens: int, overlap: int, count_tokens: object
) -> tuple[TextSplitter, str]:
    """Return the package's splitter by tokens, and the name of what counts them."""
    if not isinstance(count_tokens, str):
        count = as_token_counter(count_tokens)
        return kind.from_callback(count, max_tokens, overlap=overlap), known_function(count)
    try:
        splitter = kind.from_tiktoken_model(count_tokens, max_tokens, overlap=overlap)
    except Exception as error:  # the package's own, which it does not export
        raise ValueError(f"no vocabulary for {count_tokens!r}: {error}") from None
    return splitter, count_tokens
