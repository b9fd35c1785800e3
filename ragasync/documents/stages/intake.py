"""What may be given as sources, and the items that become of them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Generator, Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from ragasync.documents.models import Document
from ragasync.documents.sources import FileIds, Origin, Source, find_sources, source_of
from ragasync.documents.stages.pipeline import Occasion
from ragasync.documents.stages.pruning import Prune, pruner_for
from ragasync.documents.stages.root_check import RootCheck
from ragasync.documents.store import Store
from ragasync.documents.unique_sources import OwnFiles, UniqueSources

Sources: TypeAlias = (
    str | os.PathLike[str] | Source | Document | Iterable[object] | AsyncIterable[object]
)
"""What may be processed; see `AsyncDocumentProcessor.process`."""

Items: TypeAlias = Iterable[Any] | AsyncIterable[Any]


@dataclass(frozen=True, slots=True)
class Intake:
    """
    Makes items of what is given as sources.

    Args:
        as_given: whether a `load` of the caller's own takes what is in an iterable: then only a
            single path is walked.
        ids: makes the ids of files.
        own: the pipeline's own files, which are passed over.
        store: the store that can tell what it has, if there is one.
    """

    as_given: bool
    ids: FileIds
    own: OwnFiles
    store: Store | None

    def of(self, sources: Sources, *, prune: Prune) -> tuple[Items, Occasion]:
        """
        Return what there is to process, and what a run over it brings.

        Args:
            sources: what was given.
            prune: whether the store is to lose what is no longer there.

        Raises:
            FileNotFoundError: a str names no existing path.
            TypeError: to prune, the store would have to tell what it has of a folder.
            ValueError: to prune, a folder would have to be among the sources.
            RunRefused: documents that are stored would be lost.
            StoreNotWritable: the store can only be read.
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
        return items, Occasion(pruner=pruner, root_check=check, taken=unique.taken)

    def _items(self, sources: Sources, unique: UniqueSources) -> Items:
        """Return what there is to process: a list where it is finite anyway, for the progress."""
        if isinstance(sources, AsyncIterable):
            return unique.of_async(sources, self._found_in)
        if isinstance(sources, str | os.PathLike | Source | Document):
            return list(unique.of(find_sources(sources, root=self.ids.root)))
        given: Iterable[Any] = sources
        if not self.as_given:
            origins = cast("Iterable[Origin]", sources)  # each is checked
            given = find_sources(origins, root=self.ids.root)
        items = unique.of(given)
        return list(items) if isinstance(sources, Sized) else _closing(items, sources)

    def _found_in(self, item: Any) -> Iterable[Any]:
        """Return what there is to load in one item; what names nothing fails when it is loaded."""
        if self.as_given:
            return [item]
        if isinstance(item, str | os.PathLike) and os.path.isdir(item):  # noqa: PTH112
            return find_sources(item, root=self.ids.root)
        try:
            return [source_of(item, self.ids)]
        except TypeError:
            return [item]


def _closing(found: Iterable[Any], sources: object) -> Iterator[Any]:
    """Yield what was found in sources, and close these with it if they are a generator."""
    try:
        yield from found
    finally:
        if isinstance(sources, Generator):
            sources.close()
