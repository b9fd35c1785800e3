"""Rank by exact nearness of vectors, and join rankings into one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.embedding.embed import COMMON_WORDS

Key = TypeVar("Key", bound=Hashable)

JOINED = 50
"""So many of each ranking are joined: what neither places higher is not a good answer."""

_WORD = re.compile(r"[^\W_]+")

# A text of any length may be searched for; beyond this many words it costs time and finds nothing.
_MOST_WORDS = 64


def nearest(
    rows: NDArray[np.float32],
    query: NDArray[np.float32],
    k: int,
    among: NDArray[np.int64] | None = None,
) -> list[tuple[int, float]]:
    """
    Return the rows with the largest dot product with the query: exact, by one matrix product.

    Args:
        rows: The vectors, `(n, dimension)`; of length 1, so that the product is the cosine.
        query: One vector of the same dimension; a vector of zeros is near nothing.
        k: The most rows to return.
        among: The positions that may be returned, ascending; None for all.

    Returns:
        Pairs of a row's position and its product, the best first; of equals, the earlier first.
    """
    if not len(rows) or not query.any() or (among is not None and not len(among)):
        return []
    # Multiplying all rows is quicker than copying those that may be returned.
    products = rows @ query if among is None else (rows @ query)[among]
    k = min(k, len(products))
    bar = np.partition(products, -k)[-k]
    candidates = np.flatnonzero(products >= bar)
    best = candidates[np.argsort(-products[candidates], kind="stable")[:k]]
    positions = best if among is None else among[best]
    return list(zip(positions.tolist(), products[best].tolist(), strict=True))


def fuse(*rankings: Sequence[Key], k: float = 5) -> list[tuple[Key, float]]:
    """
    Join rankings by reciprocal rank: what several place high comes first.

    A key scores the sum of 1 / (k + rank) over the rankings that hold it, ranks counted from 1;
    the scores that the rankings came from, which have no common scale, play no part. Cormack,
    Clarke and Büttcher, Reciprocal Rank Fusion Outperforms Condorcet and Individual Rank Learning
    Methods (SIGIR 2009), set k to 60 for long rankings of a thousand. Of two short ones that puts
    whatever both hold at all, the last place of both included, before what one is sure of: a small
    k found more of what was asked for, measured in benchmarks/retrieval.py.

    Args:
        rankings: Each a sequence of keys, the best first, no key twice.
        k: How little the first places count beyond the later ones.

    Returns:
        Pairs of a key and its score, the best first; of equals, the one that was met first.
    """
    scores: dict[Key, float] = {}
    for ranking in rankings:
        for rank, key in enumerate(ranking, start=1):
            scores[key] = scores.get(key, 0.0) + 1 / (k + rank)
    return sorted(scores.items(), key=lambda pair: -pair[1])


def any_word_of(text: str) -> str | None:
    """
    Return the FTS5 expression that matches any word of a text, or None where it has no words.

    Each word is quoted, so that nothing in the text is syntax.
    """
    return " OR ".join(f'"{word}"' for word in telling_words(text)) or None


def telling_words(text: str) -> list[str]:
    """
    Return the words of a text to search for.

    Common English words are left out unless there are no others: nearly every chunk has them, and
    ranking them all takes long.

    Args:
        text: Whatever was searched for; its first 64 different words count.
    """
    # Composed, because FTS5 takes a letter and its accent for one character.
    words = dict.fromkeys(_WORD.findall(unicodedata.normalize("NFC", text).lower()))
    telling = [word for word in words if word not in COMMON_WORDS] or list(words)
    return telling[:_MOST_WORDS]
