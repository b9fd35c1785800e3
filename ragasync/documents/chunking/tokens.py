"""A splitter that fills its chunks by tokens, whatever counts them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ragasync.documents.chunking.chunk import check_sizes, spans
from ragasync.documents.chunking.counting import as_token_counter
from ragasync.documents.chunking.token_count import estimated_tokens
from ragasync.documents.document import Chunk, Document
from ragasync.documents.fingerprints import known_function

CHARS_A_TOKEN = 16
"""
No chunk has more characters a token than this.

It bounds chunks of white space, and of what a counter takes for one long word.
"""

_FULL = 0.9
_MANY = 20  # of fewer tokens, nine tenths are the end of a word less
_USUAL = 4.0
_GUESSES = 4


@dataclass(frozen=True, slots=True)
class TokenSplitter:
    """
    Cut a text as `RecursiveSplitter` does, into chunks of at most `max_tokens` tokens.

    Chunks are filled to nine tenths and more before they are taken back to a good place. Each is
    counted as it is, so that none is over the bound: not even where a beginning has more tokens
    than the whole, as happens at the border of a merged pair. A counter is called four to six times
    a chunk; by a real tokenizer this takes some fifty times as long as by characters.

    Example:
        >>> from ragasync.documents import TokenSplitter
        >>> split = TokenSplitter(8, count_tokens=lambda text: len(text.split()))
        >>> for chunk in split("A bucket refills. It never overflows. First come, first served."):
        ...     print(chunk)
        <Chunk 0:37 'A bucket refills. It never overflows.'>
        <Chunk 38:63 'First come, first served.'>

    Args:
        max_tokens: The most tokens in a chunk, overlap included.
        overlap: About how many tokens of a chunk's end are repeated at the start of the next.
        count_tokens: A function that says how many tokens a text has, or a tokenizer: see
            `as_token_counter`. By default an estimate, rather too many than too few.

    Raises:
        TypeError: If `count_tokens` is neither.
        ValueError: If `max_tokens` is not positive, or `overlap` not within 0 and half of it; when
            it cuts, if a single character is over the bound.
    """

    max_tokens: int = 256
    overlap: int = 0
    count_tokens: object = estimated_tokens
    _count: Callable[[str], int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the sizes, and make a counter of what was given."""
        check_sizes(self.max_tokens, self.overlap, "max_tokens")
        object.__setattr__(self, "_count", as_token_counter(self.count_tokens))

    @property
    def fingerprint(self) -> str:
        """Name, version and parameters: what a store has to know to see that chunks changed."""
        return (
            f"TokenSplitter/1(max_tokens={self.max_tokens}, overlap={self.overlap}, "
            f"count_tokens={known_function(self._count)})"
        )

    def __call__(self, document: Document | str) -> list[Chunk]:
        """Return the chunks of a document or a text, in order; none for a blank one."""
        text = document.text if isinstance(document, Document) else document
        rule = _Rule(text, self._count)
        found = spans(
            text,
            lambda start: rule.reach(start, self.max_tokens),
            lambda cut: rule.back(cut, self.overlap),
            lambda start, end: rule.fits(start, end, self.max_tokens),
        )
        return [Chunk(text[start:end], start, end) for start, end in found]


class _Rule:
    """Finds how far so many tokens go in a text, by as few counts as it can."""

    def __init__(self, text: str, count: Callable[[str], int]) -> None:
        self._text, self._count = text, count
        self._chars_a_token = _USUAL

    def fits(self, start: int, end: int, tokens: int) -> bool:
        """Return whether a chunk, without the white space at its end, has at most so many."""
        fits = self._count(self._text[start:end].rstrip()) <= tokens
        if not fits and end - start <= 1:
            raise ValueError(
                f"max_tokens={tokens} is too few: {self._text[start:end]!r} alone has "
                f"{self._count(self._text[start:end])}"
            )
        return fits

    def reach(self, start: int, tokens: int) -> int:
        """Return how far at most so many tokens go from an offset on, one character at least."""
        room = min(len(self._text) - start, tokens * CHARS_A_TOKEN)
        return start + self._longest(room, tokens, lambda size: self._text[start : start + size])

    def back(self, cut: int, tokens: int) -> int:
        """Return from where on there are at most so many tokens before a cut."""
        if not tokens:
            return cut
        room = min(cut, tokens * CHARS_A_TOKEN)
        return cut - self._longest(room, tokens, lambda size: self._text[cut - size : cut], 0)

    def _longest(self, room: int, tokens: int, piece: Callable[[int], str], least: int = 1) -> int:
        """Return a size of which a piece has nine tenths of the tokens, but not too many."""
        low, high = 0, room + 1  # what is known to fit, and what not
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
