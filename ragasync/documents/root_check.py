"""Whether the ids of a run fit the store: absolute or relative, of this root or of another."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import chain, islice
from typing import Any, cast

from ragasync.documents.pruning import Pruner
from ragasync.documents.sources import FileIds, Source
from ragasync.documents.store import (
    IdScheme,
    RunRefused,
    StoreError,
    supports_identity,
)

SAMPLE = 200
"""How many files are compared with what is stored before a run under another root begins."""

_AHEAD = 1000
"""How many sources of an iterable are looked at for that."""


class RootCheck:
    """
    Refuses a run whose files would replace those of another folder, or be stored a second time.

    Where ids are relative, the files of two folders may have the same ids. So the store knows the
    root of its last run, and a run under another root begins with a comparison: the documents are
    the same where the folder was moved, or copied with its store to another machine. Where the run
    meets less than half of what is stored, every run is compared from then on.

    Args:
        store: the store.
        ids: makes the ids of files.
    """

    def __init__(self, store: object, ids: FileIds) -> None:
        self._store: Any = None
        self._ids = ids
        self._scheme: IdScheme | None = None
        if supports_identity(store):
            with suppress(StoreError):  # each document will say so
                self._scheme = store.id_scheme()
                self._store = store
        self._has_begun = self._store is None
        self._files: list[Source] = []
        self._head: AsyncHead | None = None

    @property
    def is_other_root(self) -> bool:
        """Whether ids are relative, to another root than those of the last run."""
        scheme = self._scheme
        if scheme is None or not scheme.relative or self._ids.root is None:
            return False
        return scheme.is_mixed or not self._ids.is_root(scheme.root)

    def watch(self, items: Iterable[Any] | AsyncIterable[Any]) -> Any:
        """
        Return items, the first file among which is checked: at once where they are a list.

        Raises:
            RunRefused: ids are absolute in the store and relative in the run, or the reverse.
        """
        if self._has_begun:
            return items
        if isinstance(items, AsyncIterable):
            self._head = AsyncHead(items, self._see)
            return self._head
        is_list = isinstance(items, list)
        head = items if is_list else list(islice(items, _AHEAD)) if self.is_other_root else []
        for item in head:
            self._see(item)
        self._files = _files_of(head)
        return items if is_list else self._watched(head, iter(items))

    async def compare(
        self, compare_file: Callable[[Source], Awaitable[tuple[int, int]]], pruner: Pruner | None
    ) -> None:
        """
        Compare the files of a run with what is stored under their ids, from another root.

        Args:
            compare_file: returns of how many stored documents a file gives the same, and of how
                many another version.
            pruner: what will remove documents that are gone, if anything does.

        Raises:
            RunRefused: more than half of the documents that the run meets would be lost.
        """
        try:
            await self._compare(compare_file, pruner)
        except BaseException:
            if self._head is not None:
                await self._head.close()
            raise

    async def _compare(
        self, compare_file: Callable[[Source], Awaitable[tuple[int, int]]], pruner: Pruner | None
    ) -> None:
        """Do so; what was read of the files is not closed."""
        if self._head is not None:
            self._files = _files_of(await self._head.read(_AHEAD))
        stored = await asyncio.to_thread(self._store.sources_within, "")
        documents = Counter(file for _, file in stored)
        met = [file for file in self._files if documents[file.source]]
        sample = met[:: max(1, -(-len(met) // SAMPLE))]
        compared = await asyncio.gather(*map(compare_file, sample))
        same, other = (sum(counts) for counts in zip((0, 0), *compared, strict=True))
        kept = sum(documents[file.source] for file in met)
        replaced = kept * other / (same + other) if other else 0
        pruned = 0 if pruner is None else len(await asyncio.to_thread(pruner.stale))
        if replaced + pruned > (kept + pruned) / 2:
            raise self._refusal(round(replaced), pruned, kept + pruned)
        assert self._scheme is not None  # ids are relative to another root
        is_known = 2 * kept > len(stored)
        scheme = (
            IdScheme(True, self._ids.root) if is_known else replace(self._scheme, is_mixed=True)
        )
        await asyncio.to_thread(self._store.remember_id_scheme, scheme)

    def _watched(self, head: Iterable[Any], items: Iterator[Any]) -> Iterator[Any]:
        """Yield the first items and the others; close these if they are a generator."""
        try:
            for item in chain(head, items):
                self._see(item)
                yield item
        finally:
            if (close := getattr(items, "close", None)) is not None:
                close()

    def _see(self, item: object) -> None:
        """Check the first file."""
        if isinstance(item, Source) and not self._has_begun:
            self._begin()
            self._has_begun = True

    def _begin(self) -> None:
        """Refuse ids of the other kind; in a store without files, say what ids are from now on."""
        root = self._ids.root
        if self._scheme is None:  # unless another run has stored a file meanwhile
            self._scheme = self._store.id_scheme()
        if self._scheme is None:
            self._store.remember_id_scheme(IdScheme(root is not None, root))
            return
        if self._scheme.relative and root is None:
            raise RunRefused(
                f"the store's ids are paths relative to a root, last {self._scheme.root!r}, and "
                "this run's are absolute, so that every file would be stored a second time: pass "
                "root=, or use another store"
            )
        if not self._scheme.relative and root is not None:
            raise RunRefused(
                f"the store's ids are absolute paths, and this run's are relative to {root!r}, so "
                "that every file would be stored a second time: leave root= out, or use another "
                "store"
            )

    def _refusal(self, replaced: int, pruned: int, met: int) -> RunRefused:
        """Return the error about a run under another root."""
        old = self._scheme.root if self._scheme is not None else None
        new = self._ids.root
        moved = f"if the folder was moved, call store.relocate({old!r}, {new!r}) first; if it is "
        return RunRefused(
            f"the store has documents of root={old!r}{' and others' * (old == new)}, and under "
            f"root={new!r} this run would replace {replaced:,} and prune {pruned:,} of the {met:,} "
            f"stored documents that it meets: {moved if old != new else 'if they are of '}another "
            "folder, use another store"
        )


class AsyncHead:
    """
    An async iterable of which the first items may be read before the others.

    Args:
        items: the items.
        see: called with each of them.
    """

    def __init__(self, items: AsyncIterable[Any], see: Callable[[Any], None]) -> None:
        self._all = cast("AsyncGenerator[Any, None]", aiter(items))
        self._head: list[Any] = []
        self._see = see

    async def read(self, count: int) -> list[Any]:
        """Return the first items."""
        while len(self._head) < count:
            try:
                self._head.append(await anext(self._all))
            except StopAsyncIteration:
                break
        return self._head

    async def close(self) -> None:
        """Close the items."""
        await self._all.aclose()

    async def __aiter__(self) -> AsyncGenerator[Any, None]:
        """Yield the first items and the others, and close these."""
        try:
            while self._head:
                item = self._head.pop(0)
                await asyncio.to_thread(self._see, item)
                yield item
            async for item in self._all:
                self._see(item)
                yield item
        finally:
            await self.close()


def _files_of(items: Iterable[object]) -> list[Source]:
    """Return those items that are files to load."""
    return [item for item in items if isinstance(item, Source)]
