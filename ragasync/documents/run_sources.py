"""RunSources: the sources of one run, and what the run notes about them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Generator, Iterable, Iterator, Sized
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from ragasync.documents.errors import IdConflictError
from ragasync.documents.id_claims import claim_earlier
from ragasync.documents.models import Document
from ragasync.documents.processed import ProcessedDocument
from ragasync.documents.pruning import Prune, Pruner, pruner_for
from ragasync.documents.root_check import RootCheck
from ragasync.documents.sources import FileIds, Origin, Source, find_sources, source_of
from ragasync.documents.store import Store
from ragasync.documents.unique_sources import OwnFiles, Taken, UniqueSources
from ragasync.foreign_errors import is_a

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
