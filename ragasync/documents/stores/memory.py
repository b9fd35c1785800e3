"""A store without a file, gone with the process."""

from __future__ import annotations

import weakref

from ragasync.documents.stores.query import Embed
from ragasync.documents.stores.sqlite import SqliteStore


class MemoryStore(SqliteStore):
    """
    Keep documents in memory and find their chunks, until it is closed or nobody has it any more.

    It is a SqliteStore on SQLite's own memory, so that it finds and refuses what a file would.

    Example:
        >>> from ragasync import AsyncDocumentProcessor
        >>> from ragasync.documents import MemoryStore
        >>> texts = [("guide", "A bucket refills.")]
        >>> with MemoryStore() as store:
        ...     _ = AsyncDocumentProcessor(store=store).process_sync(texts)
        ...     print(store.search("how does a bucket refill?")[0].text)
        A bucket refills.

    Args:
        embedder: What embeds the texts that are searched for, as for SqliteStore.
    """

    def __init__(self, embedder: Embed | None = None) -> None:
        super().__init__(":memory:", embedder)
        weakref.finalize(self, self._file.close)
