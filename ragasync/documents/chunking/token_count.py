"""How many tokens a text has, counted or estimated, and what it weighs in a batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from ragasync.arguments import check_count
from ragasync.errors import ItemTooLargeError

_REMEMBERED = 4096


def estimated_tokens(text: str) -> int:
    """
    Return about how many tokens a text has, rather too many than too few.

    A token for 3.5 ASCII characters and for 2 bytes of UTF-8 beyond these. By the vocabulary
    cl100k that is 1.1 to 1.7 times the tokens of prose in Latin, Cyrillic, Chinese, Japanese or
    Hindi script and of source code; of columns of digits and of base64 it is half of them.

    Example:
        >>> estimated_tokens("How is a token bucket filled?"), estimated_tokens("令牌桶")
        (9, 5)
    """
    if text.isascii():
        return math.ceil(len(text) / 3.5)
    ascii_alone = len(text.encode("ascii", "ignore"))
    beyond = len(text.encode(errors="replace")) - ascii_alone
    return math.ceil(ascii_alone / 3.5 + beyond / 2)


@dataclass(frozen=True, slots=True)
class Weigher:
    """
    Says what a text weighs in a batch, and refuses what no call can take.

    By a function that counts, a text over `max_tokens` is refused. An estimate refuses only what
    is over twice that; a text between goes alone, so that the service decides, in one call, at no
    other text's cost.

    Args:
        count: how many tokens a text has.
        is_exact: whether it counts, or estimates.
        max_tokens: the most that a text may have; None for no bound.
        max_batch_tokens: the most in one call.
    """

    count: Callable[[str], int]
    is_exact: bool
    max_tokens: int | None
    max_batch_tokens: int

    def __call__(self, text: str) -> int:
        """
        Return the weight of a text.

        Raises:
            ItemTooLargeError: it has more tokens than an input may have.
            ValueError: it is empty, which such services refuse together with all of its batch.
        """
        if not text:
            raise ValueError("expected a text to embed, got an empty one: leave it out")
        tokens = self.count(text)
        if self.max_tokens is None or tokens <= self.max_tokens:
            return min(tokens, self.max_batch_tokens)
        if self.is_exact or tokens > 2 * self.max_tokens:
            about = "" if self.is_exact else "about "
            raise ItemTooLargeError(
                f"this text of {len(text):,} characters has {about}{tokens:,} tokens, and the "
                f"model takes {self.max_tokens:,} (max_tokens=): cut it into smaller chunks"
            )
        return self.max_batch_tokens


def token_budget(
    count: Callable[[str], int] | None, max_tokens: int | None, max_batch_tokens: int
) -> Weigher:
    """
    Return a Weigher by a function that counts, or by `estimated_tokens`.

    A text is counted for its batch, for each limiter and for each attempt, and counting takes
    long: so the latest counts are remembered.
    """
    if max_tokens is not None:
        check_count("max_tokens", max_tokens, at_least=1)
    check_count("max_batch_tokens", max_batch_tokens, at_least=1)
    if count is None:
        return Weigher(estimated_tokens, False, max_tokens, max_batch_tokens)
    if not callable(count):
        raise TypeError(f"count_tokens must be a function of one text, got {count!r}")
    return Weigher(lru_cache(_REMEMBERED)(count), True, max_tokens, max_batch_tokens)
