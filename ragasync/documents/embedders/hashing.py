"""What an embedder is, and the default one: hashed words and character n-grams, without a model."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.search_text import is_function_word, is_single, is_unspaced, words_of

_NAME = re.compile(r"hashing-([1-9]\d*)-v2")

# Pieces of at most 40 characters: a megabyte of base64 stays a few features a piece.
_PIECE = 40
_ASCII_PIECE = re.compile(r"[^\W_]{1,40}")

_HAN = re.compile("[\u3400-\u9fff\U00020000-\U0003ffff]")

# The weights below are the best found for retrieval of docstring bodies by their summaries.
_GRAM = 4
_GRAMS_WEIGHT = 1.5
_FUNCTION_WORD_WEIGHT = 0.2

_TEXTS_AT_ONCE = 256


class Embedder(Protocol):
    """
    Turn texts into vectors, one row a text.

    `name` says which vectors these are: two embedders of one name must give the same vectors,
    and whatever changes the vectors changes the name.

    Example:
        >>> import numpy as np
        >>> from ragasync.documents import Embedder
        >>> class Vowels:
        ...     name, dimension = "vowels-v1", 5
        ...     def __call__(self, texts):
        ...         rows = [[text.count(vowel) for vowel in "aeiou"] for text in texts]
        ...         return np.array(rows, dtype=np.float32)
        >>> embed: Embedder = Vowels()
        >>> embed(["a token bucket"]).tolist()
        [[1.0, 2.0, 0.0, 1.0, 1.0]]
    """

    @property
    def name(self) -> str:
        """The name under which a store remembers whose vectors it holds."""

    @property
    def dimension(self) -> int:
        """The length of each vector."""

    def __call__(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """Return the vectors of the texts: float32, `(len(texts), dimension)`."""


class HashingEmbedder:
    """
    Embed texts by hashing their words and the n-grams within them.

    Each word, lower-cased, has a fixed sparse vector: a signed entry for itself and one for each
    of its 4-grams with the word's ends marked, so that `retry` and `retries` meet. A text is the
    sum over its words, a word that occurs n times counting 1 + ln n and a function word a
    fifth of that, scaled to length 1. Of scripts without spaces, each two neighbouring characters
    are a word, and so is each Chinese character; Cyrillic words are without their endings. Accents,
    Hebrew points and Arabic vowel signs are left out, as people type. There is no model and no
    state: a text has the same vector in every process, whatever else is in its
    batch. It matches words and their forms, not meanings. A text without words is a row of zeros.

    The signed hashing is that of Weinberger et al., Feature Hashing for Large Scale Multitask
    Learning (2009); n-grams in words that of Bojanowski et al., Enriching Word Vectors with
    Subword Information (2017). Safe to call from several threads at once.

    Example:
        >>> from ragasync.documents import HashingEmbedder
        >>> embed = HashingEmbedder()
        >>> question, answer, other = embed(["refill a bucket", "refilling buckets", "a poem"])
        >>> bool(question @ answer > question @ other)
        True
        >>> question.shape
        (1024,)

    Args:
        dimension: The length of a vector; a longer one has fewer collisions.

    Raises:
        ValueError: When `dimension` is not a positive int.
    """

    def __init__(self, dimension: int = 1024) -> None:
        if not isinstance(dimension, int) or dimension < 1:
            raise ValueError(f"dimension must be a positive int, not {dimension!r}")
        self._dimension = dimension

    @classmethod
    def from_name(cls, name: str) -> HashingEmbedder | None:
        """Return the embedder that has this `name`, or None where the name is another kind's."""
        match = _NAME.fullmatch(name)
        return cls(int(match[1])) if match else None

    @property
    def name(self) -> str:
        """The name under which a store remembers whose vectors it holds."""
        return f"hashing-{self._dimension}-v2"

    @property
    def dimension(self) -> int:
        """The length of each vector."""
        return self._dimension

    def __call__(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """
        Return the vectors of the texts.

        Args:
            texts: The texts; a single str is refused, because it is a sequence of characters.

        Returns:
            A float32 array of shape `(len(texts), dimension)`, its rows of length 1 or 0.

        Raises:
            TypeError: When `texts` is a str or bytes, or one of its items is no str.
        """
        check_texts(texts)
        rows = np.empty((len(texts), self._dimension), dtype=np.float32)
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            part = texts[start : start + _TEXTS_AT_ONCE]
            rows[start : start + len(part)] = _embed(part, self._dimension)
        return rows

    def __repr__(self) -> str:
        return f"HashingEmbedder(dimension={self._dimension})"


def check_texts(texts: Sequence[str]) -> None:
    """Refuse what is no sequence of texts."""
    if isinstance(texts, str | bytes):
        raise TypeError(f"expected a list of texts, not one {type(texts).__name__}: pass [text]")
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"text {position} must be a str, not {text!r}")


def scaled_to_one(rows: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return each row divided by its length, and rows of zeros as they are."""
    # By the largest entry first: squares of very large or small entries leave the range.
    largest = np.max(np.abs(rows), axis=1, keepdims=True, initial=0)
    rows = np.divide(rows, largest, out=np.zeros_like(rows), where=largest > 0)
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
    np.divide(rows, lengths, out=rows, where=lengths > 0)
    return rows.astype(np.float32, copy=False)


def _embed(texts: Sequence[str], dimension: int) -> NDArray[np.float32]:
    """Return the vectors of a few texts, summed in one pass over all of their features."""
    counts = [Counter(_words(text)) for text in texts]
    features = [_features(word, dimension) for words in counts for word in words]
    if not features:
        return np.zeros((len(texts), dimension), dtype=np.float32)
    occurrences = np.array([n for words in counts for n in words.values()], dtype=np.float64)
    row_of_word = np.repeat(np.arange(len(texts)), [len(words) for words in counts])
    sizes = [len(slots) for slots, _ in features]
    slots = np.concatenate([slots for slots, _ in features])
    weights = np.concatenate([weights for _, weights in features])
    sums = np.bincount(
        np.repeat(row_of_word * dimension, sizes) + slots,
        weights * np.repeat(1 + np.log(occurrences), sizes),
        minlength=len(texts) * dimension,
    )
    return scaled_to_one(np.asarray(sums, dtype=np.float64).reshape(len(texts), dimension))


def have_feature_in_common(text: str, query: str) -> bool:
    """
    Return whether a HashingEmbedder finds in a text anything of what is searched for.

    Two vectors can be near because unlike words share an entry; this looks at the words themselves.
    Function words count only where the query has no others.
    """
    words = _words(query)
    words = [word for word in words if not is_function_word(word)] or words
    wanted = {name for word in words for name in _names(word)}
    return any(not wanted.isdisjoint(_names(word)) for word in set(_words(text)))


def _words(text: str) -> list[str]:
    """Return the words of a text, long ones in pieces."""
    if text.isascii():
        return _ASCII_PIECE.findall(text.lower())
    return [
        word[start : start + _PIECE]
        for word in words_of(text, singles=True)
        if not is_single(word) or _HAN.match(word)  # a letter says nothing
        for start in range(0, len(word), _PIECE)
    ]


@lru_cache(maxsize=50_000)
def _features(word: str, dimension: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return where a word's features lie in the vector and their signed weights."""
    names = _names(word)
    weight_of_word = _FUNCTION_WORD_WEIGHT if is_function_word(word) else 1.0
    grams = len(names) - 1
    weight_of_gram = weight_of_word * _GRAMS_WEIGHT / math.sqrt(grams or 1)
    weights = [weight_of_word] + [weight_of_gram] * grams
    hashes = [_hash(feature) for feature in names]
    slots = np.array([(value >> 1) % dimension for value in hashes], dtype=np.int64)
    signs = np.array([1 if value & 1 else -1 for value in hashes])
    return slots, (signs * weights).astype(np.float32)


def _names(word: str) -> tuple[str, ...]:
    """Return a word's features: itself with its ends marked, and the n-grams of that."""
    marked = f"<{word}>"
    if len(marked) <= _GRAM or is_unspaced(word):
        return (marked,)  # the word as a whole says it all
    return (marked, *(marked[i : i + _GRAM] for i in range(len(marked) - _GRAM + 1)))


def _hash(feature: str) -> int:
    """Return the same 64 bits for a feature in every process and on every machine."""
    return int.from_bytes(blake2b(feature.encode(), digest_size=8).digest(), "little")
