"""Token counts of texts: exact by a tokenizer, or estimated; and token budgets of batches."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Any

from ragasync.arguments import check_count
from ragasync.errors import ItemTooLargeError

_REMEMBERED = 4096


def estimated_tokens(text: str) -> int:
    """
    Estimate the number of tokens in a text; the estimate tends to be too high.

    It counts one token per 3.5 ASCII characters and one per 2 bytes of UTF-8 beyond ASCII.
    Compared with the vocabulary cl100k, this is 1.1 to 1.7 times the tokens of prose in Latin,
    Cyrillic, Chinese, Japanese or Hindi script and of source code, but only half of the tokens of
    columns of digits and of base64.

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
class TokenizerCount:
    """Counts the tokens of a text with a tokenizer, without special tokens."""

    encode: Callable[[str], Any]
    name: str

    def __call__(self, text: str) -> int:
        """Count the tokens of a text."""
        return len(self.encode(text))


def as_token_counter(tokenizer: object) -> Callable[[str], int]:
    """
    Turn a tokenizer into a token counter, a function from text to number of tokens.

    It accepts a `tokenizers.Tokenizer`, a tiktoken Encoding, a transformers tokenizer, or any
    function that takes a text and returns a number. Truncation and padding are turned off: with
    truncation, no long text would count more tokens than the model's limit, and chunks would have
    no bound. Special tokens that a model adds are not counted; leave room for them.

    Raises:
        TypeError: If it is none of these.
    """
    given: Any = tokenizer
    if hasattr(given, "encode_ordinary"):
        return TokenizerCount(given.encode_ordinary, f"tiktoken:{given.name}")
    if hasattr(given, "no_truncation"):
        written = given.to_str()
        digest = blake2b(written.encode(), digest_size=8).hexdigest()
        whole = type(given).from_str(written)  # a copy
        whole.no_truncation()
        whole.no_padding()
        encode = partial(whole.encode, add_special_tokens=False)
        return TokenizerCount(encode, f"tokenizers:{digest}")
    if hasattr(given, "encode") and hasattr(given, "name_or_path"):
        encode = partial(given.encode, add_special_tokens=False, truncation=False, verbose=False)
        return TokenizerCount(encode, f"transformers:{given.name_or_path}")
    if callable(given):
        return given  # type: ignore[no-any-return]
    raise TypeError(
        f"count_tokens must be a function of a text or a tokenizer, got {tokenizer!r:.200}"
    )


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """
    The weight of a text in a batch, in tokens; a text too large for any call is refused.

    With an exact count, a text over `max_tokens` is refused. With an estimate, only a text over
    twice `max_tokens` is refused; a text between the two gets a call of its own, so that the
    service decides, and a refusal affects no other text.

    Args:
        count: counts the tokens of a text.
        is_exact: whether `count` is exact rather than an estimate.
        max_tokens: the maximum number of tokens in one text; None for no bound.
        max_batch_tokens: the maximum number of tokens in one call.
    """

    count: Callable[[str], int]
    is_exact: bool
    max_tokens: int | None
    max_batch_tokens: int

    def __call__(self, text: str) -> int:
        """Weigh a text; ValueError if it is empty: a service would refuse the whole batch."""
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
) -> TokenBudget:
    """
    Build a TokenBudget from an exact counter, or from `estimated_tokens` without one.

    A text is counted for its batch, for each limiter and for each attempt. Exact counts are slow,
    so the latest are cached.
    """
    if max_tokens is not None:
        check_count("max_tokens", max_tokens, at_least=1)
    check_count("max_batch_tokens", max_batch_tokens, at_least=1)
    if count is None:
        return TokenBudget(estimated_tokens, False, max_tokens, max_batch_tokens)
    if not callable(count):
        raise TypeError(f"count_tokens must be a function of one text, got {count!r}")
    return TokenBudget(lru_cache(_REMEMBERED)(count), True, max_tokens, max_batch_tokens)
