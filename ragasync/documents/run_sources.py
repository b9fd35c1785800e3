"""RunSources: the sources of one run, the check of their root, and the pruning of missing files."""

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
    Sequence,
    Sized,
)
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any, Literal, TypeAlias, cast

from ragasync.dataframe_items import LabeledItems, Labels
from ragasync.documents.document_records import ProcessedDocument
from ragasync.documents.models import Document, IdConflictError
from ragasync.documents.sources import (
    FileIds,
    FrameSource,
    Origin,
    Source,
    find_sources,
    frame_documents,
    plain_path,
    source_of,
)
from ragasync.documents.store import (
    IdScheme,
    RunRefused,
    Store,
    StoreError,
)
from ragasync.documents.stored_state import supports_identity
from ragasync.documents.unique_sources import OwnFiles, Taken, UniqueSources, claim_earlier
from ragasync.foreign_errors import is_a

Prune: TypeAlias = bool | Literal["force"]
"""Whether to delete documents of missing files; "force" also if a whole folder is missing."""


def pruner_for(store: Any, sources: object, ids: FileIds, *, as_given: bool, force: bool) -> Pruner:
    """
    Make the Pruner of a store for a run over these sources; with `force`, a folder may be missing.

    With `as_given`, the elements of an iterable are loaded as they are, and not walked.

    Raises:
        TypeError: the store cannot list the documents of a folder.
        ValueError: no folder is among the sources.
        RunRefused: a folder is missing, and the store has documents of it.
    """
    if not hasattr(store, "sources_within") or not hasattr(store, "delete"):
        raise TypeError(
            "prune=True needs a store that can list the documents of a folder, with the methods "
            f"sources_within(prefix) and delete(document_id), got {store!r}"
        )
    origins: list[Any] = []
    if isinstance(sources, str | os.PathLike):
        origins = [sources]
    elif isinstance(sources, Sequence) and not as_given:
        origins = list(sources)
    named = [plain_path(each) for each in origins if isinstance(each, str | os.PathLike)]
    folders = [path for path in named if os.path.isdir(path)]  # noqa: PTH112  # never raises
    missing = [path for path in named if not os.path.lexists(path)]
    pruner = Pruner(store, ids, folders + missing * force, missing)
    if not force:
        for path in missing:
            pruner.refuse_if_stored(path, "missing")
    if not folders and not (force and missing):
        raise ValueError(
            "prune=True deletes the documents of files that are no longer in a folder: pass an "
            f"existing folder, or a list with one, got {sources!r:.200}"
        )
    return pruner


class Pruner:
    """
    Deletes stored documents whose files a run over their folders has not found.

    Documents outside the folders are kept, and so are those below a folder that could not be
    walked, for instance one without read permission.
    """

    def __init__(
        self, store: Store, ids: FileIds, folders: Sequence[str], missing: Sequence[str]
    ) -> None:
        self._store: Any = store
        self._ids = ids
        self._folders = [(path, ids.of_folder(path)) for path in folders]
        self._missing = frozenset(missing)
        self._found: set[str] = set()
        self._gave: dict[str, frozenset[str]] = {}
        self._kept: set[str] = set()
        self._ended = False

    def without_missing(self, sources: Any) -> Any:
        """The sources without missing folders, whose documents are pruned by force."""
        given = [sources] if isinstance(sources, str | os.PathLike) else sources
        if not self._missing:
            return sources
        return [
            each
            for each in given
            if not (isinstance(each, str | os.PathLike) and plain_path(each) in self._missing)
        ]

    def watch(self, sources: Iterable[Any]) -> Iterable[Any]:
        """Note the files among some sources: of a list immediately, else as they are iterated."""
        if isinstance(sources, list):
            for _ in self._noted(sources):
                pass
            return sources
        return self._noted(sources)

    def _noted(self, sources: Iterable[Any]) -> Iterator[Any]:
        for source in sources:
            if isinstance(source, Source):
                self._found.add(source.source)
            yield source
        self._ended = True

    def refuse_empty(self) -> None:
        """Refuse to prune a folder without files, if the store has documents of it."""
        for path, prefix in self._folders:
            if not any(file.startswith(prefix) for file in self._found):
                self.refuse_if_stored(path, "empty")

    def refuse_if_stored(self, path: str, state: str) -> None:
        """Refuse to prune an empty or missing folder, if the store has documents of it."""
        if stored := len(self._stored_in(self._ids.of_folder(path))):
            raise RunRefused(
                f"the folder {path!r} is {state}, and the store has {stored:,} of its documents, "
                'which prune=True would delete: mount its disk, or pass prune="force"'
            )

    def gave(self, source: object, document_ids: Iterable[str]) -> None:
        """Note all documents of a source; other stored documents of its file will be deleted."""
        given = frozenset(document_ids)
        self._kept |= given
        if isinstance(source, Source):
            self._gave[source.source] = given

    def keep(self, document_id: str) -> None:
        """Note a stored document that another source was not allowed to replace."""
        self._kept.add(document_id)

    def prune(self) -> int:
        """Delete the stale documents; return their number. It blocks."""
        if not self._ended:
            return 0
        return sum(bool(self._store.delete(document_id)) for document_id in self.stale())

    def stale(self) -> list[str]:
        """Ids of the stored documents whose files are gone, as far as the run has seen."""
        return sorted(
            {
                document_id
                for _, prefix in self._folders
                for document_id, file in self._stored_in(prefix)
                if self._is_gone(document_id, file)
            }
        )

    def _stored_in(self, prefix: str) -> list[tuple[str, str]]:
        stored = list(self._store.sources_within(prefix))
        return [(id_, file) for id_, file in stored if file.startswith(prefix)]

    def _is_gone(self, document_id: str, file: str) -> bool:
        """Whether a document's file was not found, or no longer contains it."""
        if document_id in self._kept:
            return False
        if file in self._found:
            return file in self._gave and document_id not in self._gave[file]
        if self._ids.has_file(file):  # excluded, or created during the run
            return False
        # A path that was found and is not a file is a folder that could not be walked.
        return not any(
            parent in self._found and not self._ids.has_file(parent) for parent in _parents(file)
        )


def _parents(file: str) -> Iterator[str]:
    while "/" in file:
        file = file.rpartition("/")[0]
        yield file
    yield "."


SAMPLE = 200
"""Number of files that are compared with stored documents before a run under another root."""

_AHEAD = 1000
"""Number of sources of an iterable that are read ahead for the comparison."""


class RootCheck:
    """
    Refuses a run whose files would replace those of another folder, or be stored a second time.

    If ids are relative, the files of two folders may have the same ids. So the store keeps the root
    of its last run, and a run under another root begins with a comparison: the documents are the
    same if the folder was moved, or copied with its store to another machine. If the run finds less
    than half of the stored documents, every later run is compared too.
    """

    def __init__(self, store: object, ids: FileIds) -> None:
        self._store: Any = None
        self._ids = ids
        self._scheme: IdScheme | None = None
        if supports_identity(store):
            with suppress(StoreError):  # raised again for each document
                self._scheme = store.id_scheme()
                self._store = store
        self._has_begun = self._store is None
        self._files: list[Source] = []
        self._head: AsyncHead | None = None

    @property
    def is_other_root(self) -> bool:
        """Whether ids are relative, and the last run had another root."""
        scheme = self._scheme
        if scheme is None or not scheme.relative or self._ids.root is None:
            return False
        return scheme.is_mixed or not self._ids.is_root(scheme.root)

    def watch(self, items: Iterable[Any] | AsyncIterable[Any]) -> Any:
        """
        Return the items, and check the first file among them: now for a list, else when it comes.
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
        Compare the files of a run with the documents stored under their ids from another root.

        Args:
            compare_file: returns how many stored documents of a file are the same, and how many
                are another version.
            pruner: the pruner of the run, if any.

        Raises:
            RunRefused: more than half of the documents that the run finds would be lost.
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
        """Compare the files, without closing the items that were read ahead."""
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
        """Yield the first items, then the others, and close these if they are a generator."""
        try:
            for item in chain(head, items):
                self._see(item)
                yield item
        finally:
            if (close := getattr(items, "close", None)) is not None:
                close()

    def _see(self, item: object) -> None:
        if isinstance(item, Source) and not self._has_begun:
            self._begin()
            self._has_begun = True

    def _begin(self) -> None:
        """Refuse ids of the other kind; a store without files takes this run's kind."""
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
        old = self._scheme.root if self._scheme is not None else None
        new = self._ids.root
        moved = f"if the folder was moved, call store.relocate({old!r}, {new!r}) first; if it is "
        return RunRefused(
            f"the store has documents of root={old!r}{' and others' * (old == new)}, and under "
            f"root={new!r} this run would replace {replaced:,} and prune {pruned:,} of the {met:,} "
            f"stored documents that it finds: {moved if old != new else 'if they are of '}another "
            "folder, use another store"
        )


class AsyncHead:
    """An async iterable that can read items ahead."""

    def __init__(self, items: AsyncIterable[Any], see: Callable[[Any], None]) -> None:
        self._all = cast("AsyncGenerator[Any, None]", aiter(items))
        self._head: list[Any] = []
        self._see = see

    async def read(self, count: int) -> list[Any]:
        """Read ahead to a number of items, and return them."""
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
        """Yield the items read ahead, then the others, and close these."""
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
    return [item for item in items if isinstance(item, Source)]


Sources: TypeAlias = (
    str
    | os.PathLike[str]
    | Source
    | Document
    | FrameSource
    | Iterable[object]
    | AsyncIterable[object]
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
        labels: the labels of rows of a DataFrame; None for other sources.
        max_items: the number of sources of a pilot; None for all.
    """

    items: Items = ()
    pruner: Pruner | None = None
    root_check: RootCheck | None = None
    taken: Taken = field(default_factory=dict)
    labels: Labels | None = None
    max_items: int | None = None

    @property
    def count(self) -> int | None:
        """The number of sources that the run will read, if it is known."""
        if not isinstance(self.items, list):
            return None
        count = len(self.items)
        return min(count, self.max_items) if isinstance(self.max_items, int) else count

    @property
    def labeled_items(self) -> Items:
        """The items with their labels, as a run takes them."""
        if self.labels is None or not isinstance(self.items, list):
            return self.items
        return LabeledItems(self.items, self.labels)

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

        Raises:
            FileNotFoundError: a str names no existing path.
            TypeError: pruning needs a store that can list the documents of a folder; or the sources
                are a Series.
            ValueError: pruning needs a folder among the sources; or a DataFrame has no columns `id`
                and `text`.
            RunRefused: stored documents would be lost.
            StoreNotWritable: the store is read-only.
        """
        if prune not in (True, False, "force"):
            raise ValueError(f'prune must be True, False or "force", got {prune!r:.200}')
        getattr(self.store, "check_writable", lambda: None)()
        labels = None
        if (rows := frame_documents(sources)) is not None:
            sources, labels = rows
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
        return RunSources(items, pruner, check, unique.taken, labels)

    def _items(self, sources: Sources, unique: UniqueSources) -> Items:
        """The items: a list if they are finite anyway, so that progress knows the total."""
        if isinstance(sources, AsyncIterable):
            return unique.of_async(sources, self._expand)
        if isinstance(sources, str | os.PathLike | Source | Document):
            return list(unique.of(find_sources(sources, root=self.ids.root), are_held=True))
        assert not isinstance(sources, FrameSource)  # `resolve` takes its rows
        given: Iterable[Any] = sources
        if not self.as_given:
            origins = cast("Iterable[Origin]", sources)  # each is checked
            given = find_sources(origins, root=self.ids.root)
        if isinstance(sources, Sized):
            return list(unique.of(given, are_held=True))
        return _closing(unique.of(given), sources)

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
