"""How many chunks may be on their way at once."""

from __future__ import annotations

import asyncio


class ChunkBudget:
    """
    Lets documents in, first come, first served, while their chunks are few enough together.

    A document of any size gets in: no one counts for more than half of the room, so that the
    stages never stand idle between two big ones.

    Args:
        chunks: the most chunks inside.
    """

    def __init__(self, chunks: int) -> None:
        self._size = chunks
        self._taken = 0
        self._entrance = asyncio.Lock()
        self._left = asyncio.Event()

    def enter_now(self, chunks: int) -> int | None:
        """Let a document in if there is room; return what it has to give back, else None."""
        weight = self._weight(chunks)
        if self._entrance.locked() or self._taken + weight > self._size:
            return None
        self._taken += weight
        return weight

    async def enter(self, chunks: int) -> int:
        """Wait until there is room for a document; return what it has to give back."""
        if (entered := self.enter_now(chunks)) is not None:
            return entered
        weight = self._weight(chunks)
        async with self._entrance:
            while self._taken + weight > self._size:
                self._left.clear()
                await self._left.wait()
            self._taken += weight
        return weight

    def _weight(self, chunks: int) -> int:
        """Return what a document counts."""
        return max(1, min(chunks, self._size // 2))

    def leave(self, weight: int) -> None:
        """Give room back."""
        self._taken -= weight
        self._left.set()
