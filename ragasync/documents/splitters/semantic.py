"""SemanticTextSplitter: the package semantic-text-splitter, from the extra `ingest`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING

from ragasync.documents.fingerprints import known_function
from ragasync.documents.models import Chunk, Document
from ragasync.documents.splitters.recursive import check_sizes
from ragasync.documents.tokenizers import as_token_counter, estimated_tokens
from ragasync.errors import MissingExtra

if TYPE_CHECKING:
    from semantic_text_splitter import TextSplitter


@dataclass(frozen=True, slots=True)
class SemanticTextSplitter:
    """
    Split a text with the package semantic-text-splitter, by characters or tokens.

    It follows the Unicode rules for sentences and words. Compared with `RecursiveSplitter`, a few
    more chunks end at sentences, languages without spaces between words are supported, and
    splitting takes more than ten times as long by characters and hundreds of times by tokens.

    Example:
        >>> from ragasync.documents import SemanticTextSplitter
        >>> split = SemanticTextSplitter(32)
        >>> for chunk in split("A bucket refills. It never overflows. First come, first served."):
        ...     print(chunk)
        <Chunk 0:17 'A bucket refills.'>
        <Chunk 18:37 'It never overflows.'>
        <Chunk 38:63 'First come, first served.'>

    Args:
        chunk_size: The maximum number of characters in a chunk, including the overlap.
        chunk_overlap: The maximum number of characters at the end of a chunk that the next chunk
            repeats; with `max_tokens`, the number of tokens.
        max_tokens: The maximum number of tokens in a chunk, in place of `chunk_size`.
        count_tokens: A function that counts the tokens of a text, a tokenizer (see
            `as_token_counter`), or the name of an OpenAI model whose vocabulary the package
            contains. The default is an estimate that tends to be too high.

    Raises:
        MissingExtra: If semantic-text-splitter is not installed.
        TypeError: If `count_tokens` is none of these.
        ValueError: If a size is not positive, `chunk_overlap` is not between 0 and half of it, or
            no OpenAI model has that name.
    """

    chunk_size: int = 1000
    chunk_overlap: int = 0
    _: KW_ONLY
    max_tokens: int | None = None
    count_tokens: object = estimated_tokens
    _splitter: TextSplitter = field(init=False, repr=False, compare=False)
    _counter: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the sizes, and that the package is installed, before a long run begins."""
        if self.max_tokens is None:
            check_sizes(self.chunk_size, self.chunk_overlap)
        else:
            check_sizes(self.max_tokens, self.chunk_overlap, "max_tokens")
        try:
            from semantic_text_splitter import TextSplitter
        except ImportError:
            raise MissingExtra("SemanticTextSplitter", "semantic-text-splitter", "ingest") from None
        counter = ""
        if self.max_tokens is None:
            splitter = TextSplitter(self.chunk_size, overlap=self.chunk_overlap)
        else:
            splitter, counter = _by_tokens(
                TextSplitter, self.max_tokens, self.chunk_overlap, self.count_tokens
            )
        object.__setattr__(self, "_splitter", splitter)
        object.__setattr__(self, "_counter", counter)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Pickle the arguments, because the package's splitter cannot be pickled."""
        return _rebuild, (self.chunk_size, self.chunk_overlap, self.max_tokens, self.count_tokens)

    @property
    def fingerprint(self) -> str:
        """Name, version and parameters, by which a store notices that chunks would change."""
        size = f"chunk_size={self.chunk_size}, chunk_overlap={self.chunk_overlap}"
        if self.max_tokens is not None:
            size = (
                f"max_tokens={self.max_tokens}, chunk_overlap={self.chunk_overlap}, "
                f"count_tokens={self._counter}"
            )
        return f"SemanticTextSplitter/1({size})"

    def __call__(self, document: Document | str) -> list[Chunk]:
        """Split a document or a text into chunks, in order; a blank text has none."""
        text = document.text if isinstance(document, Document) else document
        pieces = self._splitter.chunk_indices(text)
        # Python counts more characters as white space than the package trims.
        kept = ((start, piece) for start, piece in pieces if not piece.isspace())
        return [Chunk(piece, start, start + len(piece)) for start, piece in kept]


def _rebuild(
    chunk_size: int, chunk_overlap: int, max_tokens: int | None, count_tokens: object
) -> SemanticTextSplitter:
    """Build a splitter again after pickling."""
    return SemanticTextSplitter(
        chunk_size, chunk_overlap, max_tokens=max_tokens, count_tokens=count_tokens
    )


def _by_tokens(
    kind: type[TextSplitter], max_tokens: int, overlap: int, count_tokens: object
) -> tuple[TextSplitter, str]:
    """The package's splitter by tokens, and the name of its token counter."""
    if not isinstance(count_tokens, str):
        count = as_token_counter(count_tokens)
        return kind.from_callback(count, max_tokens, overlap=overlap), known_function(count)
    try:
        splitter = kind.from_tiktoken_model(count_tokens, max_tokens, overlap=overlap)
    except Exception as error:  # the package does not export its error class
        raise ValueError(f"no vocabulary for {count_tokens!r}: {error}") from None
    return splitter, count_tokens
