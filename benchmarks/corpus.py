"""What `documents.py` has embedded, and the service that it pretends to call."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Pair: TypeAlias = tuple[str, str]
"""A document: its id and its text."""

Vectors: TypeAlias = NDArray[np.float32]

LATENCY = 0.015
"""Seconds that a call of the service takes."""

FAILING = 0.01
"""The share of its calls that fail."""

DIMENSION = 64

SYLLABLES = ("ba", "con", "der", "en", "for", "ing", "la", "men", "o", "per", "re", "ti", "us")


def made(count: int, seed: int = 3) -> list[Pair]:
    """Return documents of paragraphs: 3,500 characters in the mean, a few of ten times that."""
    chance = random.Random(seed)
    words = ["the", "of", "and", "to", "a", "in", "is", "that", "for", "it"]
    words += ["".join(chance.choices(SYLLABLES, k=chance.randint(1, 4))) for _ in range(3_000)]
    frequencies = [1 / rank for rank in range(1, len(words) + 1)]  # Zipf's law

    def sentence() -> str:
        drawn = chance.choices(words, frequencies, k=chance.randint(5, 25))
        return " ".join(drawn).capitalize() + "."

    sentences = [sentence() for _ in range(4_000)]

    def text() -> str:
        left = chance.lognormvariate(math.log(2_250), 0.75)
        paragraphs = []
        while left > 0:
            paragraphs.append(" ".join(chance.choices(sentences, k=chance.randint(1, 9))))
            left -= len(paragraphs[-1])
        return "\n\n".join(paragraphs)

    return [(f"document {number}", text()) for number in range(count)]


def mark_of(text: str) -> tuple[int, int]:
    """Return the first entries of a text's vector, which no other text is likely to have."""
    return len(text), hash(text) & 0xFFFFF


class FakeService:
    """Embeds after a while, fails now and then, and refuses what it was not to be asked."""

    dimension = DIMENSION

    def __init__(self, at_once: int, batch: int) -> None:
        self.calls = 0
        self._in_flight = 0
        self._at_once = at_once
        self._batch = batch
        self._chance = random.Random(5)

    async def __call__(self, texts: Sequence[str]) -> Vectors:
        """
        Return a row a text.

        Raises:
            ConnectionError: one call in a hundred.
        """
        assert 0 < len(texts) <= self._batch, f"a batch of {len(texts)}"
        assert self._in_flight < self._at_once, "too many calls at once"
        self.calls += 1
        fails = self._chance.random() < FAILING
        self._in_flight += 1
        await asyncio.sleep(LATENCY)
        self._in_flight -= 1
        if fails:
            raise ConnectionError("the service hung up")
        rows = np.zeros((len(texts), DIMENSION), np.float32)
        rows[:, :2] = [mark_of(text) for text in texts]
        return rows
