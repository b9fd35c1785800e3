"""MemoryStore: a store without a file."""

from __future__ import annotations

import weakref

from ragasync.documents.stores.query import Embed
from ragasync.documents.stores.sqlite import SqliteStore


class MemoryStore(SqliteStore):
    """
    A store in memory, which exists until it is closed or garbage-collected.

    It is a SqliteStore with an in-memory database, so that it behaves like one with a file.

    Example:
        >>> from ragasync import AsyncDocumentProcessor
        >>> from ragasync.documents import MemoryStore
        >>> texts = [("guide", "A bucket refills.")]
        >>> with MemoryStore() as store:
        ...     _ = AsyncDocumentProcessor(store=store).process_sync(texts)
        ...     print(store.search("how does a bucket refill?")[0].text)
        A bucket refills.

    Args:
        embedder: Embeds the text of a search, as for SqliteStore.
    """

    def __init__(self, embedder: Embed | None = None) -> None:
        super().__init__(":memory:", embedder)
        weakref.finalize(self, self._file.close)
