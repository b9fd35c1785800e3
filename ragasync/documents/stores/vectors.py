"""The vectors of a store's file as one matrix in memory, kept in step with the file."""

from __future__ import annotations

import sqlite3

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.embedders import scaled_to_one

_ROWS_AT_ONCE = 1000
_ALMOST_NOTHING = 1e-6
_NONE = np.zeros((0, 0), dtype=np.float32)


class VectorMatrix:
    """
    Hold every stored vector, scaled to length 1, and the number of its chunk.

    What is there is loaded on first use; afterwards, when this connection or another process has
    written, what was deleted is dropped and only what is new is read: a chunk's number is never
    given twice and its vector never changes.
    """

    def __init__(self) -> None:
        self._as_of: tuple[sqlite3.Connection, int, int] | None = None
        self._numbers = np.zeros(0, dtype=np.int64)
        self._rows = _NONE

    def current(
        self, connection: sqlite3.Connection
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """
        Return the numbers of all chunks, ascending, and their vectors, row by row.

        Args:
            connection: A connection to the file, inside a transaction. Another one than before is
                to a file that may be another.
        """
        if self._as_of is not None and self._as_of[0] is not connection:
            self._numbers, self._rows = self._numbers[:0], _NONE
        # The first counts what others have committed, the second what this connection wrote.
        (by_others,) = connection.execute("PRAGMA data_version").fetchone()
        as_of = (connection, by_others, connection.total_changes)
        if as_of != self._as_of:
            self._catch_up(connection)
            self._as_of = as_of
        return self._numbers, self._rows

    def _catch_up(self, connection: sqlite3.Connection) -> None:
        """Drop the vectors that are gone and load the new ones."""
        if not len(self._numbers):
            self._numbers, self._rows = _load(connection, 0)
            return
        found = connection.execute("SELECT chunk FROM vectors ORDER BY chunk")
        numbers = np.fromiter((number for (number,) in found), dtype=np.int64)
        kept = np.isin(self._numbers, numbers, assume_unique=True)
        _, added = _load(connection, int(self._numbers[-1]))
        self._rows = _joined(self._rows if kept.all() else self._rows[kept], added)
        self._numbers = numbers


def _load(
    connection: sqlite3.Connection, after: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the chunks with numbers above `after`, ascending, and their vectors of length 1."""
    (count,) = connection.execute(
        "SELECT count(*) FROM vectors WHERE chunk > ?", (after,)
    ).fetchone()
    if not count:
        return np.zeros(0, dtype=np.int64), _NONE
    (size,) = connection.execute("SELECT length(embedding) FROM vectors LIMIT 1").fetchone()
    numbers = np.empty(count, dtype=np.int64)
    rows = np.empty((count, size // 4), dtype="<f4")
    # Blob by blob into its place: to join many first takes twice the time.
    memory = rows.data.cast("B")
    blobs = connection.execute(
        "SELECT chunk, embedding FROM vectors WHERE chunk > ? ORDER BY chunk", (after,)
    )
    for place, (number, blob) in enumerate(blobs):
        numbers[place] = number
        memory[place * size : (place + 1) * size] = blob
    for start in range(0, count, _ROWS_AT_ONCE):
        _scale(rows[start : start + _ROWS_AT_ONCE])
    return numbers, rows.astype(np.float32, copy=False)


def _scale(rows: NDArray[np.float32]) -> None:
    """Give rows length 1 that have another; most embedders' have it already."""
    off = np.abs(np.einsum("ij,ij->i", rows, rows) - 1) > _ALMOST_NOTHING
    if off.any():
        rows[off] = scaled_to_one(rows[off])


def _joined(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the rows of both; one alone as it is, because a second copy may be gigabytes."""
    if not len(first) or not len(second):
        return first if len(first) else second
    return np.concatenate([first, second])
