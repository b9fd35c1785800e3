"""The pipeline's own files, its store and its journal, which a walk must not take for sources."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from ragasync.documents.document import Document
from ragasync.documents.sources.finding import Source

_BESIDE = ("", "-wal", "-shm", "-journal", "-lock", "-lock-journal")
"""What SQLite and the journal add to a file's name for the files that they keep beside it."""


def without_own(
    sources: Iterable[Source | Document], paths: Iterable[object]
) -> Iterator[Source | Document]:
    """
    Pass over the files that SQLite works on for this pipeline.

    They are no documents; and whoever opens and closes one drops the locks that this process has
    on it, because POSIX knows them by process and file (sqlite.org/howtocorrupt.html, 2.2).

    Args:
        sources: what was found.
        paths: the paths of the databases; what is no path counts for nothing.
    """
    databases = [os.path.realpath(path) for path in paths if isinstance(path, str)]
    own = {path + suffix for path in databases for suffix in _BESIDE}
    names = {os.path.basename(path) for path in own}  # noqa: PTH119  # a quick look, for each
    for source in sources:
        is_like = isinstance(source, Source) and source.path.name in names
        if not (is_like and os.path.realpath(source.path) in own):  # type: ignore[union-attr]
            yield source
