"""Why a source could not be turned into a text."""

from __future__ import annotations

from ragasync.errors import RagasyncError


class LoadError(RagasyncError, ValueError):
    """
    A source exists but holds no text that can be read.

    Args:
        reason: A few words that failures group by: "binary", "encoding", "too large".
        message: What was expected, what came, what to do.
    """

    def __init__(self, reason: str, message: str) -> None:
        # Both stay in `args`, so that the error can be pickled.
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"
