"""Fake embedders: with a latency, counted calls, and errors for given words."""

import asyncio

import numpy as np


class CountingEmbedder:
    """
    An async embedder whose vectors contain the length of each text.

    Args:
        seconds: how long a call takes.
        poison: what a call raises that has a text with one of these words.
        name: the name that a store remembers.
    """

    def __init__(
        self,
        seconds: float = 1.0,
        poison: dict[str, Exception] | None = None,
        name: str = "counting",
    ) -> None:
        self.seconds = seconds
        self.poison = poison or {}
        self.name = name
        self.calls: list[list[str]] = []
        self.called = asyncio.Event()
        self.in_flight = 0
        self.most_in_flight = 0

    async def __call__(self, texts: list[str]) -> np.ndarray:
        """Answer for all after a while."""
        self.calls.append(list(texts))
        self.called.set()
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.in_flight -= 1
        for word, error in self.poison.items():
            if any(word in text for text in texts):
                raise error
        return np.array([[len(text), 1.0] for text in texts], dtype=np.float32)

    @property
    def sizes(self) -> list[int]:
        """The number of texts in each call."""
        return [len(texts) for texts in self.calls]

    @property
    def texts(self) -> list[str]:
        """All texts, in the order in which they came."""
        return [text for texts in self.calls for text in texts]


async def words(text: str) -> list[str]:
    """Cut a text into its words: an async splitter takes no thread, so that times are exact."""
    return text.split()


async def given(source: object) -> object:
    """Load what is a document already, or a text that is its own id."""
    return source
