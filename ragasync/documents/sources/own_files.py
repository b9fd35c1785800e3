"""The pipeline's own files, its store and its journal, which a walk must not take for sources."""

from __future__ import annotations

import os
from collections.abc import Iterable

_BESIDE = ("", "-wal", "-shm", "-journal", "-lock", "-lock-journal")
"""What SQLite and the journal add to a file's name for the files that they keep beside it."""


class OwnFiles:
    """
    Knows the files that the store and the journal of one pipeline consist of.

    They are no documents: a store inside the folder would take itself in, and grow at each run.
    And whoever opens and closes SQLite's file drops the locks that this process has on it, because
    POSIX knows them by process and file (sqlite.org/howtocorrupt.html, 2.2).

    Args:
        paths: the paths of files, and of folders with all that is in them; what is no path counts
            for nothing.
    """

    def __init__(self, paths: Iterable[object]) -> None:
        own = [os.path.realpath(path) for path in paths if isinstance(path, str | os.PathLike)]
        self._files = {path + suffix for path in own for suffix in _BESIDE}
        self._names = {os.path.basename(path) for path in self._files}  # noqa: PTH119
        self._folders = [os.path.join(path, "") for path in own]  # noqa: PTH118  # ends in /
        self._seen: tuple[str, bool] = ("", False)

    def has(self, path: str | os.PathLike[str]) -> bool:
        """Return whether a file is one of these, under whichever name."""
        if not self._files:
            return False
        text = os.fspath(path)
        if self._is_own_folder(os.path.dirname(text)):  # noqa: PTH120
            return True
        # A quick look at its name, for each file; a link may have any.
        is_like = os.path.basename(text) in self._names or os.path.islink(text)  # noqa: PTH119, PTH114
        return is_like and self._is_own(os.path.realpath(text))

    def _is_own(self, real: str) -> bool:
        """Return whether a real path is one of these, or in one of these folders."""
        return real in self._files or os.path.join(real, "").startswith(tuple(self._folders))  # noqa: PTH118

    def _is_own_folder(self, folder: str) -> bool:
        """Return whether a folder is a store's; asked of the files of one folder in a row."""
        if self._seen[0] != folder:
            self._seen = folder, self._is_own(os.path.realpath(folder))
        return self._seen[1]
