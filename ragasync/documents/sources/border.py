"""The border of a folder that is walked: what leads out of it, and what must not be opened."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Literal, TypeAlias

Barred: TypeAlias = Literal["link", "not a file"]

WHY_BARRED: dict[Barred, str] = {
    "link": "a link out of the folder that was named: find_sources(folder, links=True) follows it",
    "not a file": "a pipe, socket or device cannot be loaded",
}
"""What the failure of a source says that must not be opened."""


class Border:
    """
    Knows what lies in the folder that was named, and whether links may lead out of it.

    Args:
        inside: the folder's real path.
        links: whether they may.
    """

    def __init__(self, inside: Path, links: bool) -> None:
        self._inside, self._links = inside, links
        self._walked: set[Path] = set()

    def sort_of(self, entry: os.DirEntry[str]) -> Literal["file", "folder"] | Barred:
        """Return what an entry is, or why it must not be opened; only links cost a look."""
        if not entry.is_symlink():
            if entry.is_dir(follow_symlinks=False):
                return "folder"
            return "file" if entry.is_file(follow_symlinks=False) else "not a file"
        if not self._links and not real_path(entry.path).is_relative_to(self._inside):
            return "link"
        try:
            mode = entry.stat().st_mode
        except OSError:
            return "file"  # opening it raises the same
        return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "not a file"

    def lets_walk(self, folder: Path, is_linked: bool) -> bool:
        """Return whether to walk a folder: inside by its own name only, beyond the border once."""
        if not is_linked:
            return True
        real = real_path(folder)
        is_new = real not in self._walked and not real.is_relative_to(self._inside)
        self._walked.add(real)
        return is_new


def real_path(path: str | os.PathLike[str]) -> Path:
    """Return where a path leads; a circle of links leads somewhere too."""
    return Path(os.path.realpath(path))
