"""The vectors of a store's file as one matrix in memory, kept up to date with the file."""

from __future__ import annotations

import sqlite3

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.embedders import scaled_to_one

_LENGTH_TOLERANCE = 1e-6
_BLOBS = 16
_NO_NUMBERS = np.zeros(0, dtype=np.int64)
_NO_COLUMNS = np.zeros((0, 0), dtype=np.float32)


class VectorMatrix:
    """
    The matrix of all stored vectors, scaled to length 1, and the number of each one's chunk.

    The first search loads all vectors. After this connection or another process has written, the
    next search drops deleted vectors and loads new ones: the number of a chunk is never used again,
    and its vector never changes. A vector is a column, so that a query with few entries, as those
    of a HashingEmbedder, only needs a few rows.
    """

    def __init__(self) -> None:
        self._version: tuple[sqlite3.Connection, int, int] | None = None
        self._numbers, self._columns = _NO_NUMBERS, _NO_COLUMNS

    def current(
        self, connection: sqlite3.Connection
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """
        Numbers of all chunks, ascending, and their vectors, `(dimension, n)`.

        Args:
            connection: A connection to the file, inside a transaction. A different connection than
                last time may be to a different file.
        """
        if self._version is not None and self._version[0] is not connection:
            self._numbers, self._columns = _NO_NUMBERS, _NO_COLUMNS
        # data_version counts commits of other connections, total_changes those of this one.
        (commits,) = connection.execute("PRAGMA data_version").fetchone()
        version = (connection, commits, connection.total_changes)
        if version != self._version:
            self._update(connection)
            self._version = version
        return self._numbers, self._columns

    def _update(self, connection: sqlite3.Connection) -> None:
        """Drop the vectors of deleted chunks, and load those of new chunks."""
        numbers = _stored_numbers(connection)
        last = int(self._numbers[-1]) if len(self._numbers) else 0
        kept = np.isin(self._numbers, numbers, assume_unique=True)
        added = _load(connection, last, int(np.count_nonzero(numbers > last)))
        columns = self._columns if kept.all() else self._columns[:, kept]
        self._columns = _joined(columns, added)
        self._numbers = numbers


def _stored_numbers(connection: sqlite3.Connection) -> NDArray[np.int64]:
    """Numbers of all chunks, ascending."""
    found = connection.execute(
        "SELECT first_chunk, chunk_count FROM documents WHERE chunk_count > 0 ORDER BY first_chunk"
    ).fetchall()
    if not found:
        return _NO_NUMBERS
    first, counts = np.array(found, dtype=np.int64).T
    ends = np.cumsum(counts)
    numbers: NDArray[np.int64] = np.arange(ends[-1]) + np.repeat(first - ends + counts, counts)
    return numbers


def _load(connection: sqlite3.Connection, last: int, count: int) -> NDArray[np.float32]:
    """The vectors of the chunks with numbers above `last`, of which there are `count`."""
    if not count:
        return _NO_COLUMNS
    (dimension,) = connection.execute("SELECT dimension FROM embedder").fetchone()
    columns = np.empty((dimension, count), dtype=np.float32)
    place = 0
    found = connection.execute(
        "SELECT embeddings FROM vectors WHERE first_chunk > ? ORDER BY first_chunk", (last,)
    )
    # A few at a time, which are scaled and transposed while they are in the processor's cache.
    while blobs := found.fetchmany(_BLOBS):
        joined = bytearray().join(blob for (blob,) in blobs)
        rows = np.frombuffer(joined, dtype="<f4").reshape(-1, dimension)
        _scale(rows)
        columns[:, place : place + len(rows)] = rows.T
        place += len(rows)
    return columns


def _scale(rows: NDArray[np.float32]) -> None:
    """Scale those rows to length 1 that have another length; few embedders make any."""
    off = np.abs(np.einsum("ij,ij->i", rows, rows) - 1) > _LENGTH_TOLERANCE
    if off.any():
        rows[off] = scaled_to_one(rows[off])


def _joined(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """The columns of both; if one is empty, the other without a copy, which may be gigabytes."""
    if not first.size or not second.size:
        return first if first.size else second
    return np.concatenate([first, second], axis=1)
