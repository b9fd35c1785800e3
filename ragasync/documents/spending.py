"""What an embedder has asked for, and what that costs."""

from __future__ import annotations

import threading

from ragasync.arguments import check_number
from ragasync.documents.metering import note_usage


class Spending:
    """
    Counts calls, tokens and money, from any thread, and tells the run that a call was made in.

    Args:
        price: of a million tokens.
    """

    def __init__(self, price: float) -> None:
        check_number("price_per_million_tokens", price)
        self._price = price
        self._lock = threading.Lock()
        self.calls = 0
        self.tokens = 0

    @property
    def cost(self) -> float:
        """The price of all tokens."""
        return self.tokens * self._price / 1e6

    def call(self) -> None:
        """Count a request that is sent."""
        with self._lock:
            self.calls += 1

    def answered(self, tokens: int) -> None:
        """Count the tokens of an answer, which are paid for whether it is of use or not."""
        with self._lock:
            self.tokens += tokens
        note_usage(tokens=tokens, cost=tokens * self._price / 1e6)
