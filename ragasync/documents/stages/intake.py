"""What may be given as sources, and the items that become of them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from ragasync.documents.document import Document
from ragasync.documents.sources.finding import Origin, Source, find_sources
from ragasync.documents.sources.own_files import without_own
from ragasync.documents.stages.line import Occasion
from ragasync.documents.stages.pruning import pruner_for
from ragasync.documents.store import Store

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
        own: the paths of the pipeline's own databases, which are passed over.
        store: the store that can tell what it has, if there is one.
    """

    as_given: bool
    own: Sequence[object]
    store: Store | None

    def of(self, sources: Sources, *, prune: bool) -> tuple[Items, Occasion]:
        """
        Return what there is to process, and what a run over it brings.

        Args:
            sources: what was given.
            prune: whether the store is to lose what is no longer there.

        Raises:
            FileNotFoundError: a str names no existing path.
            TypeError: to prune, the store would have to tell what it has of a folder.
            ValueError: to prune, a folder would have to be among the sources.
        """
        pruner = pruner_for(self.store, sources, as_given=self.as_given) if prune else None
        items = self._items(sources)
        if pruner is not None and not isinstance(items, AsyncIterable):
            items = pruner.watch(items)
        return items, Occasion(pruner=pruner)

    def _items(self, sources: Sources) -> Items:
        """Return what there is to process: a list where it is finite anyway, for the progress."""
        if isinstance(sources, AsyncIterable):
            return sources
        if isinstance(sources, str | os.PathLike | Source | Document):
            return list(without_own(find_sources(sources), self.own))
        if self.as_given:
            return sources
        origins = cast("Iterable[Origin]", sources)  # each is checked
        found = without_own(find_sources(origins), self.own)
        return list(found) if isinstance(sources, Sequence) else _closing(found, sources)


def _closing(found: Iterable[Any], sources: object) -> Iterator[Any]:
    """Yield what was found in sources, and close these with it if they are a generator."""
    try:
        yield from found
    finally:
        if isinstance(sources, Generator):
            sources.close()
