"""Functions that count tokens, made of the tokenizers that people have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any


@dataclass(frozen=True, slots=True)
class TokenizerCount:
    """Counts the tokens of a text by a tokenizer's own method, without the special ones."""

    encode: Callable[[str], Any]
    name: str

    def __call__(self, text: str) -> int:
        """Return how many tokens a text has."""
        return len(self.encode(text))


def as_token_counter(tokenizer: object) -> Callable[[str], int]:
    """
    Return a function that counts the tokens of a text, by whatever a tokenizer is.

    Known are a `tokenizers.Tokenizer`, an Encoding of tiktoken, a tokenizer of transformers, and
    any function of a text that returns a number. Truncation and padding are off: with them every
    long text would count as many tokens as the model takes, and chunks would have no bound. The
    special tokens that a model adds are not counted; leave room for them.

    Raises:
        TypeError: If it is none of these.
    """
    given: Any = tokenizer
    if hasattr(given, "encode_ordinary"):
        return TokenizerCount(given.encode_ordinary, f"tiktoken:{given.name}")
    if hasattr(given, "no_truncation"):
        written = given.to_str()
        digest = blake2b(written.encode(), digest_size=8).hexdigest()
        return TokenizerCount(_Plain(without_truncation(given)), f"tokenizers:{digest}")
    if hasattr(given, "encode") and hasattr(given, "name_or_path"):
        return TokenizerCount(_Untruncated(given), f"transformers:{given.name_or_path}")
    if callable(given):
        return given  # type: ignore[no-any-return]
    raise TypeError(
        f"count_tokens must be a function of a text or a tokenizer, got {tokenizer!r:.200}"
    )


def without_truncation(tokenizer: Any) -> Any:
    """Return a copy of a `tokenizers.Tokenizer` that neither cuts texts nor fills them up."""
    whole = type(tokenizer).from_str(tokenizer.to_str())
    whole.no_truncation()
    whole.no_padding()
    return whole


@dataclass(frozen=True, slots=True)
class _Plain:
    """The encoding of a `tokenizers.Tokenizer` without special tokens."""

    tokenizer: Any

    def __call__(self, text: str) -> Any:
        return self.tokenizer.encode(text, add_special_tokens=False)


@dataclass(frozen=True, slots=True)
class _Untruncated:
    """The encoding of a tokenizer of transformers, without special tokens and whole."""

    tokenizer: Any

    def __call__(self, text: str) -> Any:
        return self.tokenizer.encode(
            text, add_special_tokens=False, truncation=False, verbose=False
        )
