"""The vectors of a store's file as one matrix in memory, kept in step with the file."""

from __future__ import annotations

import sqlite3

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.embedding.embed import scaled_to_one

_ROWS_AT_ONCE = 1000
_NONE = np.zeros((0, 0), dtype=np.float32)


class VectorMatrix:
    """
    Hold every stored vector, scaled to length 1, and the number of its chunk.

    What is there is loaded on first use; afterwards, when this connection or another process has
    written, what was deleted is dropped and only what is new is read: a chunk's number is never
    given twice and its vector never changes.
    """

    def __init__(self) -> None:
        self._as_of: tuple[int, int] | None = None
        self._numbers = np.zeros(0, dtype=np.int64)
        self._rows = _NONE

    def current(
        self, connection: sqlite3.Connection
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """
        Return the numbers of all chunks, ascending, and their vectors, row by row.

        Args:
            connection: A connection to the file, always the same one, inside a transaction.
        """
        # The first counts what others have committed, the second what this connection wrote.
        (by_others,) = connection.execute("PRAGMA data_version").fetchone()
        as_of = (by_others, connection.total_changes)
        if as_of != self._as_of:
            self._catch_up(connection)
            self._as_of = as_of
        return self._numbers, self._rows

    def _catch_up(self, connection: sqlite3.Connection) -> None:
        """Drop the vectors that are gone and load the new ones."""
        rows = connection.execute("SELECT chunk FROM vectors ORDER BY chunk")
        numbers = np.fromiter((number for (number,) in rows), dtype=np.int64)
        kept = np.isin(self._numbers, numbers, assume_unique=True)
        last = int(self._numbers[-1]) if len(self._numbers) else 0
        added = _load(connection, last, int((numbers > last).sum()))
        self._rows = _joined(self._rows if kept.all() else self._rows[kept], added)
        self._numbers = numbers


def _load(connection: sqlite3.Connection, after: int, count: int) -> NDArray[np.float32]:
    """Return the vectors of the chunks with numbers above `after`, scaled to length 1."""
    cursor = connection.execute(
        "SELECT embedding FROM vectors WHERE chunk > ? ORDER BY chunk", (after,)
    )
    rows = _NONE
    filled = 0
    while blobs := cursor.fetchmany(_ROWS_AT_ONCE):
        part = np.frombuffer(b"".join(blob for (blob,) in blobs), dtype="<f4")
        part = scaled_to_one(part.reshape(len(blobs), -1))
        if not filled:
            rows = np.empty((count, part.shape[1]), dtype=np.float32)
        rows[filled : filled + len(part)] = part
        filled += len(part)
    return rows


def _joined(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the rows of both; one alone as it is, because a second copy may be gigabytes."""
    if not len(first) or not len(second):
        return first if len(first) else second
    return np.concatenate([first, second])
