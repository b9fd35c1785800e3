"""The boundary of a folder: symbolic links out of it, and files that must not be opened."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Literal, TypeAlias

Barred: TypeAlias = Literal["link", "not a file"]

WHY_BARRED: dict[Barred, str] = {
    "link": "a symbolic link out of the given folder: find_sources(folder, follow_symlinks=True) "
    "follows it",
    "not a file": "a pipe, socket or device cannot be loaded",
}
"""The error messages of sources that must not be opened."""


class FolderBoundary:
    """
    The boundary of a folder that is walked.

    Args:
        inside: the real path of the folder.
        follow_symlinks: whether to follow symbolic links that lead out of it.
    """

    def __init__(self, inside: Path, follow_symlinks: bool) -> None:
        self._inside, self._follow_symlinks = inside, follow_symlinks
        self._walked: set[Path] = set()

    def kind_of(self, entry: os.DirEntry[str]) -> Literal["file", "folder"] | Barred:
        """Kind of a folder's entry, or why it must not be opened; only links cost a system call."""
        if not entry.is_symlink():
            if entry.is_dir(follow_symlinks=False):
                return "folder"
            return "file" if entry.is_file(follow_symlinks=False) else "not a file"
        if not self._follow_symlinks and not real_path(entry.path).is_relative_to(self._inside):
            return "link"
        try:
            mode = entry.stat().st_mode
        except OSError:
            return "file"  # opening it raises the same
        return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "not a file"

    def lets_walk(self, folder: Path, is_linked: bool) -> bool:
        """Whether to walk a folder: inside only by its own name, outside only once."""
        if not is_linked:
            return True
        real = real_path(folder)
        is_new = real not in self._walked and not real.is_relative_to(self._inside)
        self._walked.add(real)
        return is_new


def real_path(path: str | os.PathLike[str]) -> Path:
    """Real path, with links resolved; a cycle of links does not raise."""
    return Path(os.path.realpath(path))
