"""What a hostile service does to each text, drawn from a seed, so that each end is known."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

Trouble: TypeAlias = (
    int | Literal["reset", "cut off", "cut json", "too few", "too many", "drip", "hang", "endless"]
)
"""
What can happen to a request.

A number: that status, without Retry-After. "reset": the connection, before any answer. "cut off":
the connection ends in the middle of the body. "cut json": the body itself is half of one. "too
few", "too many": values. "drip": the right answer, a few bytes at a time. "hang": no answer at
all. "endless": a body that comes byte by byte and never ends.
"""

PASSING: Sequence[Trouble] = (
    *(500, 502, 503, 429),
    *("reset", "cut off", "cut json", "too few", "too many"),
)
"""What a text may meet once or twice."""

NEVER_ANSWERED: Sequence[Trouble] = ("hang", "endless")
"""What only a timeout ends."""

FOR_EVER: Sequence[Trouble] = (
    *(400, 404, 422, 500),
    *("reset", "cut off", "cut json", "too few", "drip", "drip"),
)
"""The permanent errors of a text: it fails, unless its response only drips."""


class Fate(NamedTuple):
    """The errors that the requests with a text get: first these in order, then always the same."""

    first: tuple[Trouble, ...] = ()
    then: Trouble | None = None

    @property
    def is_good(self) -> bool:
        """Whether the text has its value in the end."""
        return self.then in (None, "drip")


def draw_fates(
    texts: Sequence[str], seed: int, *, passing: float, lasting: float, unanswered: int = 0
) -> dict[str, Fate]:
    """
    Draw the errors that each text will get.

    Args:
        texts: all different.
        seed: the same gives the same.
        passing: the share of texts that first get one or two passing errors.
        lasting: the share of texts that always get the same error.
        unanswered: how many of the texts (of the first half, so that nobody waits for them at the
            end) have a first request that is never answered.
    """
    chance = random.Random(seed)
    fates = {}
    for text in texts:
        troubles = chance.choices(PASSING, k=chance.randint(1, 2))
        first = tuple(troubles) if chance.random() < passing else ()
        fates[text] = Fate(first, chance.choice(FOR_EVER) if chance.random() < lasting else None)
    for text in chance.sample(texts[: len(texts) // 2], unanswered):
        fates[text] = Fate((chance.choice(NEVER_ANSWERED), *fates[text].first), fates[text].then)
    return fates


def embedding_of(text: str) -> int:
    """The value of a text, different from those of all others."""
    return zlib.crc32(text.encode())
