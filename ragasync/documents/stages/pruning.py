"""Pruning: what is in the store of files that are no longer there is removed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ragasync.documents.document import Document
from ragasync.documents.sources.finding import Source
from ragasync.documents.store import Store


def full_path(path: Path) -> str:
    """Return the path from the root on, without following links, as documents have it."""
    return str(path.absolute()).encode("utf-8", "backslashreplace").decode()


def pruner_for(store: Any, sources: object, *, as_given: bool) -> Pruner:
    """
    Return what prunes a store after a run over these sources.

    Args:
        store: the store.
        sources: what was given to be processed.
        as_given: whether what is in an iterable is not walked, but loaded as it is.

    Raises:
        TypeError: the store cannot tell what it has of a folder.
        ValueError: no folder is among the sources.
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
    folders = [Path(each) for each in origins if isinstance(each, str | os.PathLike)]
    tops = [full_path(folder) for folder in folders if folder.is_dir()]
    if not tops:
        raise ValueError(
            "prune=True removes what is no longer in the folder that is processed: pass an "
            f"existing folder, or a list with one, got {sources!r:.200}"
        )
    return Pruner(store, tops)


class Pruner:
    """
    Knows what a run has found, and removes what the store has besides.

    Nothing outside the folders is touched, nor what lies below something that was found and could
    not be walked, such as a folder that may not be read.

    Args:
        store: the store.
        folders: the full paths of the folders that are walked.
    """

    def __init__(self, store: Store, folders: Sequence[str]) -> None:
        self._store: Any = store
        self._folders = [os.path.join(folder, "") for folder in folders]  # noqa: PTH118  # ends in /
        self._found: set[str] = set()
        self._ended = False

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
                self._found.add(full_path(source.path))
            elif isinstance(source, Document) and source.source is not None:
                self._found.add(source.source)
            yield source
        self._ended = True

    def prune(self, gave: Mapping[str, frozenset[str]]) -> int:
        """
        Delete what is no longer there; return how many documents. It blocks.

        Args:
            gave: of each file that gave several documents in this run, their ids: the store may
                have others from before, of rows that are gone.
        """
        if not self._ended:
            return 0
        stale = {
            document_id
            for folder in self._folders
            for document_id, source in list(self._store.sources_within(folder))
            if source.startswith(folder) and self._is_gone(document_id, source, folder, gave)
        }
        return sum(bool(self._store.delete(document_id)) for document_id in sorted(stale))

    def _is_gone(
        self, document_id: str, source: str, folder: str, gave: Mapping[str, frozenset[str]]
    ) -> bool:
        """Return whether a document's source was not found, or gives it no longer."""
        if source in self._found:
            return source in gave and document_id not in gave[source]
        if os.path.lexists(source):  # passed over, or come since: it is there
            return False
        return not any(str(parent) in self._found for parent in _parents(source, folder))


def _parents(source: str, folder: str) -> Iterator[Path]:
    """Yield the folders above a file, up to the one that was walked."""
    top = Path(folder)
    for parent in Path(source).parents:
        yield parent
        if parent == top:
            return
