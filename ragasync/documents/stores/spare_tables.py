"""SpareTables: vectors of texts whose documents are not stored yet, in a SQLite file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from sqlite3 import Connection

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.store import StoredEmbedder
from ragasync.sqlite_file import with_rows

SPARE_BYTES = 256_000_000
"""The maximum size of all spare vectors of a store; the oldest make room for new ones."""

_PER_STATEMENT = 500

# The text itself is not needed, and its document may be confidential. Numbers ascend with time.
_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS spare_embedder (
        name TEXT NOT NULL, dimension INTEGER NOT NULL, identity TEXT NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS spare_vectors (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        text_digest BLOB NOT NULL UNIQUE,
        embedding BLOB NOT NULL
    )""",
)

_FOUND = "SELECT text_digest, embedding FROM spare_vectors WHERE text_digest IN ($rows)"
_DROPPED = "DELETE FROM spare_vectors WHERE text_digest IN ($rows)"


class SpareTables:
    """
    The spare vectors of a store, all of one embedder; to change them, use a write transaction.

    No search and no count looks at them. The tables are made when the first vectors come, so that
    a file without them has the same format as before there were any.
    """

    def __init__(self, db: Connection) -> None:
        self._db = db

    def embedder(self) -> StoredEmbedder | None:
        """Embedder of the spare vectors; None while there are none."""
        if not self._has_any():
            return None
        query = "SELECT name, dimension, identity FROM spare_embedder"
        return StoredEmbedder(*self._db.execute(query).fetchone())

    def vectors_of(
        self, embedder: StoredEmbedder, texts: Sequence[str]
    ) -> list[NDArray[np.float32] | None]:
        """Spare vectors that this very embedder made of texts; None for each unknown text."""
        if self.embedder() != embedder:
            return [None] * len(texts)
        keys = list(map(_digest, texts))
        found: dict[bytes, bytes] = {}
        for some in _parts(dict.fromkeys(keys)):
            statement = with_rows(_FOUND, len(some), 1)
            found.update(self._db.execute(statement, some).fetchall())
        # Copies: a view of bytes would be read-only.
        return [np.frombuffer(found[key], "<f4").copy() if key in found else None for key in keys]

    def add(self, embedder: StoredEmbedder, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Add vectors by their texts; those of another embedder make room for them."""
        db = self._db
        for statement in _SCHEMA:
            db.execute(statement)
        if self.embedder() != embedder:
            self.clear()
            values = embedder.name, embedder.dimension, embedder.identity
            db.execute("INSERT INTO spare_embedder VALUES (?, ?, ?)", values)
        most = max(1, SPARE_BYTES // (4 * embedder.dimension))
        newest = islice(vectors.items(), max(0, len(vectors) - most), None)
        db.executemany(
            "INSERT OR REPLACE INTO spare_vectors (text_digest, embedding) VALUES (?, ?)",
            ((_digest(text), np.asarray(vector, "<f4").tobytes()) for text, vector in newest),
        )
        (count,) = db.execute("SELECT count(*) FROM spare_vectors").fetchone()
        db.execute(
            "DELETE FROM spare_vectors WHERE number IN "
            "(SELECT number FROM spare_vectors ORDER BY number LIMIT ?)",
            (max(0, count - most),),
        )

    def drop(self, texts: Iterable[str]) -> None:
        """Drop the vectors of texts that are stored now."""
        if self._has_any():
            for some in _parts(map(_digest, texts)):
                statement = with_rows(_DROPPED, len(some), 1)
                self._db.execute(statement, some)

    def clear(self) -> None:
        """Drop all spare vectors."""
        if self._exist():
            self._db.execute("DELETE FROM spare_vectors")
            self._db.execute("DELETE FROM spare_embedder")

    def rename_embedder(self, before: StoredEmbedder, name: str, identity: str) -> None:
        """Change the name and identity of the embedder, if the spare vectors are of this one."""
        if self.embedder() == before:
            values = name, identity
            self._db.execute("UPDATE spare_embedder SET name = ?, identity = ?", values)

    def _exist(self) -> bool:
        query = "SELECT 1 FROM sqlite_master WHERE name = 'spare_vectors'"
        return self._db.execute(query).fetchone() is not None

    def _has_any(self) -> bool:
        return (
            self._exist()
            and self._db.execute("SELECT 1 FROM spare_vectors LIMIT 1").fetchone() is not None
        )


def _digest(text: str) -> bytes:
    """Digest of a text, also of one with a lone surrogate, which no store would accept."""
    return blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()


def _parts(keys: Iterable[bytes]) -> Iterable[list[bytes]]:
    """Divide keys into lists that fit into a statement."""
    rest = iter(keys)
    while some := list(islice(rest, _PER_STATEMENT)):
        yield some
