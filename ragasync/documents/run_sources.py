"""RunSources: the sources of one run, whose ids must fit the store, for instance its root."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Sized,
)
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any, TypeAlias, cast

from ragasync.documents.errors import IdConflictError
from ragasync.documents.models import Document
from ragasync.documents.processed import ProcessedDocument
from ragasync.documents.pruning import Prune, Pruner, pruner_for
from ragasync.documents.sources import FileIds, Origin, Source, find_sources, source_of
from ragasync.documents.store import (
    IdScheme,
    RunRefused,
    Store,
    StoreError,
    supports_identity,
)
from ragasync.documents.unique_sources import OwnFiles, Taken, UniqueSources, claim_earlier
from ragasync.foreign_errors import is_a

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


Sources: TypeAlias = (
    str | os.PathLike[str] | Source | Document | Iterable[object] | AsyncIterable[object]
)
"""What may be processed; see `AsyncDocumentProcessor.process`."""

Items: TypeAlias = Iterable[Any] | AsyncIterable[Any]


@dataclass(slots=True)
class RunSources:
    """
    The sources of one run.

    Args:
        items: the items of the run; a list if they are finite anyway.
        pruner: removes stored documents that the run has not found; None if it does not prune.
        root_check: compares files with stored documents of another root, if that is necessary.
        taken: the ids of the sources so far.
    """

    items: Items = ()
    pruner: Pruner | None = None
    root_check: RootCheck | None = None
    taken: Taken = field(default_factory=dict)

    def recall(self, source: object, done: ProcessedDocument) -> bool:
        """Take a source's result from an earlier run; False if another source has its ids now."""
        if done.skipped is None and not claim_earlier(self.taken, source, done):
            return False
        self.note_done(source, done)
        return True

    def note_done(self, source: object, done: ProcessedDocument) -> ProcessedDocument:
        """Note the documents of a source, all of which are stored, for pruning; return them."""
        if self.pruner is not None and done.skipped in (None, "empty"):
            documents = (done,) if done.documents is None else done.documents
            self.pruner.gave(source, [each.id for each in documents if each.skipped is None])
        return done

    def note_failed(self, error: BaseException) -> None:
        """Note the stored document that a failed one could not replace, for pruning."""
        if self.pruner is not None and is_a(error, IdConflictError):
            self.pruner.keep(error.id)


@dataclass(frozen=True, slots=True)
class SourceResolver:
    """
    Resolves what was passed as sources to the items of a run.

    Args:
        as_given: whether a custom `load` takes the elements of an iterable as they are; then only a
            single path is walked.
        ids: makes the ids of files.
        own: the pipeline's own files, which are excluded.
        store: the store, if it is one that can report what it holds.
    """

    as_given: bool
    ids: FileIds
    own: OwnFiles
    store: Store | None

    def resolve(self, sources: Sources, *, prune: Prune) -> RunSources:
        """
        Resolve the sources of a run. It blocks: folders are walked.

        Args:
            sources: the sources as given.
            prune: whether to remove stored documents that no longer exist.

        Raises:
            FileNotFoundError: a str names no existing path.
            TypeError: pruning needs a store that can list the documents of a folder.
            ValueError: pruning needs a folder among the sources.
            RunRefused: stored documents would be lost.
            StoreNotWritable: the store is read-only.
        """
        if prune not in (True, False, "force"):
            raise ValueError(f'prune must be True, False or "force", got {prune!r:.200}')
        getattr(self.store, "check_writable", lambda: None)()
        pruner = None
        if prune:
            force = prune == "force"
            pruner = pruner_for(self.store, sources, self.ids, as_given=self.as_given, force=force)
            sources = pruner.without_missing(sources) if force else sources
        root_check = RootCheck(self.store, self.ids)
        unique = UniqueSources(self.ids, self.own)
        items = root_check.watch(self._items(sources, unique))
        if pruner is not None and not isinstance(items, AsyncIterable):
            items = pruner.watch(items)
            if prune != "force":
                pruner.refuse_empty()
        check = root_check if root_check.is_other_root else None
        return RunSources(items, pruner, check, unique.taken)

    def _items(self, sources: Sources, unique: UniqueSources) -> Items:
        """The items: a list if they are finite anyway, so that progress knows the total."""
        if isinstance(sources, AsyncIterable):
            return unique.of_async(sources, self._expand)
        if isinstance(sources, str | os.PathLike | Source | Document):
            return list(unique.of(find_sources(sources, root=self.ids.root)))
        given: Iterable[Any] = sources
        if not self.as_given:
            origins = cast("Iterable[Origin]", sources)  # each is checked
            given = find_sources(origins, root=self.ids.root)
        items = unique.of(given)
        return list(items) if isinstance(sources, Sized) else _closing(items, sources)

    def _expand(self, item: Any) -> Iterable[Any]:
        """The sources in one element; a path that does not exist fails when it is loaded."""
        if self.as_given:
            return [item]
        if isinstance(item, str | os.PathLike) and os.path.isdir(item):  # noqa: PTH112
            return find_sources(item, root=self.ids.root)
        try:
            return [source_of(item, self.ids)]
        except TypeError:
            return [item]


def _closing(found: Iterable[Any], sources: object) -> Iterator[Any]:
    """Yield the items of sources, and close the sources with them if they are a generator."""
    try:
        yield from found
    finally:
        if isinstance(sources, Generator):
            sources.close()
