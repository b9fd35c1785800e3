"""Pruning: what is in the store of files that are no longer there is removed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, TypeAlias

from ragasync.documents.sources import FileIds, Source, plain_path
from ragasync.documents.store import RunRefused, Store

Prune: TypeAlias = bool | Literal["force"]
"""Whether a run removes what is gone; "force" does where the whole folder is empty or missing."""


def pruner_for(store: Any, sources: object, ids: FileIds, *, as_given: bool, force: bool) -> Pruner:
    """
    Return what prunes a store after a run over these sources.

    Args:
        store: the store.
        sources: what was given to be processed.
        ids: makes the ids of files.
        as_given: whether what is in an iterable is not walked, but loaded as it is.
        force: whether a folder may be missing or empty.

    Raises:
        TypeError: the store cannot tell what it has of a folder.
        ValueError: no folder is among the sources.
        RunRefused: a folder that the store has documents of is missing.
    """
    if not hasattr(store, "sources_within") or not hasattr(store, "delete"):
        raise TypeError(
            "prune=True needs a store that can tell what it has of a folder, with the methods "
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
            "prune=True removes what is no longer in the folder that is processed: pass an "
            f"existing folder, or a list with one, got {sources!r:.200}"
        )
    return pruner


class Pruner:
    """
    Knows what a run has found, and removes what the store has besides.

    Nothing outside the folders is touched, nor what lies below something that was found and could
    not be walked, such as a folder that may not be read.

    Args:
        store: the store.
        ids: makes the ids of files.
        folders: the paths of the folders that are walked.
        missing: the named paths that nothing is at.
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
        """Return the sources without the folders that are missing, which are pruned by force."""
        given = [sources] if isinstance(sources, str | os.PathLike) else sources
        if not self._missing:
            return sources
        return [
            each
            for each in given
            if not (isinstance(each, str | os.PathLike) and plain_path(each) in self._missing)
        ]

    def watch(self, sources: Iterable[Any]) -> Iterable[Any]:
        """Note what is found, to the end; return it as it is, or as it comes."""
        if isinstance(sources, list):
            for _ in self._noted(sources):
                pass
            return sources
        return self._noted(sources)

    def _noted(self, sources: Iterable[Any]) -> Iterator[Any]:
        """Yield what is found, and note it."""
        for source in sources:
            if isinstance(source, Source):
                self._found.add(source.source)
            yield source
        self._ended = True

    def refuse_empty(self) -> None:
        """
        Refuse to prune a folder in which nothing was found, but of which the store has documents.

        Raises:
            RunRefused: most likely its disk is not mounted.
        """
        for path, prefix in self._folders:
            if not any(file.startswith(prefix) for file in self._found):
                self.refuse_if_stored(path, "empty")

    def refuse_if_stored(self, path: str, state: str) -> None:
        """Refuse to prune a folder that is empty or missing, if anything of it is stored."""
        if stored := len(self._stored_in(self._ids.of_folder(path))):
            raise RunRefused(
                f"the folder {path!r} is {state}, and the store has {stored:,} of its documents, "
                'which prune=True would delete: mount its disk, or pass prune="force"'
            )

    def gave(self, source: object, document_ids: Iterable[str]) -> None:
        """Note all that a source gives: of a file, others that are stored are gone."""
        given = frozenset(document_ids)
        self._kept |= given
        if isinstance(source, Source):
            self._gave[source.source] = given

    def keep(self, document_id: str) -> None:
        """Note a stored document that a source was not allowed to replace."""
        self._kept.add(document_id)

    def prune(self) -> int:
        """Delete what is no longer there; return how many documents. It blocks."""
        if not self._ended:
            return 0
        return sum(bool(self._store.delete(document_id)) for document_id in self.stale())

    def stale(self) -> list[str]:
        """Return the ids of what is stored, and is no longer there as far as the run has seen."""
        return sorted(
            {
                document_id
                for _, prefix in self._folders
                for document_id, file in self._stored_in(prefix)
                if self._is_gone(document_id, file)
            }
        )

    def _stored_in(self, prefix: str) -> list[tuple[str, str]]:
        """Return the ids and files of what is stored of a folder."""
        stored = list(self._store.sources_within(prefix))
        return [(id_, file) for id_, file in stored if file.startswith(prefix)]

    def _is_gone(self, document_id: str, file: str) -> bool:
        """Return whether a document's file was not found, or gives it no longer."""
        if document_id in self._kept:
            return False
        if file in self._found:
            return file in self._gave and document_id not in self._gave[file]
        if self._ids.has_file(file):  # passed over, or come since: it is there
            return False
        # What was found and is no file is a folder that could not be walked.
        return not any(
            parent in self._found and not self._ids.has_file(parent) for parent in _parents(file)
        )


def _parents(file: str) -> Iterator[str]:
    """Yield the folders above a file."""
    while "/" in file:
        file = file.rpartition("/")[0]
        yield file
    yield "."
