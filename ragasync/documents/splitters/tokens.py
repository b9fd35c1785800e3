"""TokenSplitter: chunks of a bounded number of tokens, counted by any tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ragasync.documents.fingerprints import known_function
from ragasync.documents.models import Chunk, Document
from ragasync.documents.splitters.recursive import check_sizes, spans
from ragasync.documents.tokenizers import as_token_counter, estimated_tokens

CHARS_A_TOKEN = 16
"""
Maximum number of characters per token in a chunk.

It bounds chunks of white space, and of text that a counter takes for one long word.
"""

_FULL = 0.9
_MANY = 20  # with fewer tokens, nine tenths would lose the end of a word
_USUAL = 4.0
_GUESSES = 4


@dataclass(frozen=True, slots=True)
class TokenSplitter:
    """
    Split a text into chunks of at most `max_tokens` tokens, at the boundaries of RecursiveSplitter.

    Chunks are filled to at least nine tenths before they are cut back to a good boundary. The
    finished chunk is counted, so that none exceeds the bound, even where a prefix has more tokens
    than the whole text because a merged pair of tokens was cut. The counter is called four to six
    times per chunk; with a real tokenizer, this takes about fifty times as long as splitting by
    characters.

    Example:
        >>> from ragasync.documents import TokenSplitter
        >>> split = TokenSplitter(8, count_tokens=lambda text: len(text.split()))
        >>> for chunk in split("A bucket refills. It never overflows. First come, first served."):
        ...     print(chunk)
        <Chunk 0:37 'A bucket refills. It never overflows.'>
        <Chunk 38:63 'First come, first served.'>

    Args:
        max_tokens: The maximum number of tokens in a chunk, including the overlap.
        chunk_overlap: The approximate number of tokens at the end of a chunk that the next chunk
            repeats.
        count_tokens: A function that counts the tokens of a text, or a tokenizer; see
            `as_token_counter`. The default is an estimate that tends to be too high.

    Raises:
        TypeError: If `count_tokens` is neither.
        ValueError: If `max_tokens` is not positive, or `chunk_overlap` is not between 0 and half
            of it; while splitting, if a single character exceeds the bound.
    """

    max_tokens: int = 256
    chunk_overlap: int = 0
    count_tokens: object = estimated_tokens
    _count: Callable[[str], int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the sizes, and turn `count_tokens` into a token counter."""
        check_sizes(self.max_tokens, self.chunk_overlap, "max_tokens")
        object.__setattr__(self, "_count", as_token_counter(self.count_tokens))

    @property
    def fingerprint(self) -> str:
        """Name, version and parameters, by which a store notices that chunks would change."""
        return (
            f"TokenSplitter/1(max_tokens={self.max_tokens}, chunk_overlap={self.chunk_overlap}, "
            f"count_tokens={known_function(self._count)})"
        )

    def __call__(self, document: Document | str) -> list[Chunk]:
        """Split a document or a text into chunks, in order; a blank text has none."""
        text = document.text if isinstance(document, Document) else document
        rule = _Rule(text, self._count)
        found = spans(
            text,
            lambda start: rule.reach(start, self.max_tokens),
            lambda cut: rule.back(cut, self.chunk_overlap),
            lambda start, end: rule.fits(start, end, self.max_tokens),
        )
        return [Chunk(text[start:end], start, end) for start, end in found]


class _Rule:
    """Finds how far a number of tokens reaches in a text, with few calls of the counter."""

    def __init__(self, text: str, count: Callable[[str], int]) -> None:
        self._text, self._count = text, count
        self._chars_a_token = _USUAL

    def fits(self, start: int, end: int, tokens: int) -> bool:
        """Whether a chunk, without trailing white space, has at most this many tokens."""
        fits = self._count(self._text[start:end].rstrip()) <= tokens
        if not fits and end - start <= 1:
            raise ValueError(
                f"max_tokens={tokens} is too few: {self._text[start:end]!r} alone has "
                f"{self._count(self._text[start:end])}"
            )
        return fits

    def reach(self, start: int, tokens: int) -> int:
        """Furthest offset that this many tokens reach after `start`, at least one character on."""
        room = min(len(self._text) - start, tokens * CHARS_A_TOKEN)
        return start + self._longest(room, tokens, lambda size: self._text[start : start + size])

    def back(self, cut: int, tokens: int) -> int:
        """Earliest offset with at most this many tokens between it and a cut."""
        if not tokens:
            return cut
        room = min(cut, tokens * CHARS_A_TOKEN)
        return cut - self._longest(room, tokens, lambda size: self._text[cut - size : cut], 0)

    def _longest(self, room: int, tokens: int, piece: Callable[[int], str], least: int = 1) -> int:
        """Size of a piece with at least nine tenths of the tokens, but not too many."""
        low, high = 0, room + 1  # the largest size known to fit, the smallest known not to
        size = int(tokens * self._chars_a_token)
        guesses = 0
        while True:
            size = max(low + 1, min(size, high - 1, room))
            if size > room or low + 1 >= high:
                break
            counted = self._count(piece(size))
            if counted <= tokens:
                low = size
                if counted >= _FULL * tokens and tokens >= _MANY:
                    break
            else:
                high = size
            guesses += 1
            typical = size / max(counted, 1)
            size = int(0.97 * tokens * typical) if guesses < _GUESSES else (low + high) // 2
            if guesses >= _GUESSES and high - low <= max(1, low // 20):
                break
        if low:
            self._chars_a_token = max(low / tokens, 0.25)
        return max(low, least)
