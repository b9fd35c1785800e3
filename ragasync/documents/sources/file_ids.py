"""The ids of files: absolute paths, or paths below a root; and of their rows."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path


class FileIds:
    """
    Make the id of a file from its path.

    Args:
        root: The folder that ids are relative to; None for absolute paths.

    Raises:
        TypeError: If `root` is no path.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        if root is not None and not isinstance(root, str | os.PathLike):
            raise TypeError(f"root must be the path of a folder, or None, got {root!r:.200}")
        self.root = None if root is None else plain_path(root)
        self._real = None if self.root is None else _real(self.root)

    def of(self, path: str | os.PathLike[str]) -> str:
        """
        Return the id of a file or folder.

        Raises:
            ValueError: If it is not below the root.
        """
        full = plain_path(path)
        if self.root is None or self._real is None:
            return as_id(full)
        below = _below(full, self.root)
        if below is None:
            # The same folder under another name: its links are followed, those of the file not.
            folder, name = os.path.split(full)
            below = _below(os.path.join(_real(folder), name), self._real)  # noqa: PTH118
        if below is None:
            raise ValueError(
                f"{full!r} is not below root={self.root!r}, so that it has no id there: pass a "
                "folder that holds all sources as root=, or leave root= out for absolute paths"
            )
        return as_id(below)

    def of_folder(self, path: str | os.PathLike[str]) -> str:
        """Return the prefix of the ids of the files in a folder; empty for the root itself."""
        if self._real is not None and _real(plain_path(path)) == self._real:
            return ""
        return self.of(path).rstrip("/") + "/"

    def is_root(self, path: str | None) -> bool:
        """Return whether a path is that of the root, which may have another through a link."""
        return path == self.root or (path is not None and _real(path) == self._real)

    def has_file(self, source: str) -> bool:
        """Return whether the file is there that a document came from, given its source."""
        path = self._path(source)
        if not os.path.isabs(path):  # noqa: PTH117  # a text of the user's
            return False
        found = _on_disk(path)
        return found is not None and not os.path.isdir(found)  # noqa: PTH112  # never raises

    def has_folder(self, source: str) -> bool:
        """Return whether there is anything at a path above the file of a document."""
        return _on_disk(self._path(source)) is not None

    def _path(self, source: str) -> str:
        """Return the path of a source."""
        return source if self.root is None else os.path.join(self.root, source)  # noqa: PTH118


def plain_path(path: str | os.PathLike[str]) -> str:
    """
    Return the absolute path without dots, whose links are not resolved.

    `link/..` is the folder above the one that the link leads to, as it is for the system; so
    such a link alone is resolved.
    """
    text = os.fsdecode(path)
    if os.pardir in text:
        text, *parts = Path(Path.cwd(), text).parts
        for part in parts:
            if part == os.pardir:
                text = os.path.realpath(text) if os.path.islink(text) else text  # noqa: PTH114
                text = os.path.dirname(text)  # noqa: PTH120
            else:
                text = os.path.join(text, part)  # noqa: PTH118
    full = os.path.abspath(text)  # noqa: PTH100
    # Two slashes at the front are one, but for Windows' shares.
    return full[1:] if os.sep == "/" and full.startswith("//") else full


def as_id(path: str) -> str:
    """Return a path as an id: composed letters, forward slashes, and no bytes but UTF-8."""
    try:
        written = os.fsencode(path)
    except UnicodeEncodeError:  # half of a surrogate pair, which no file name has
        written = path.encode("utf-8", "surrogatepass")
    readable = written.decode("utf-8", "backslashreplace")
    if os.sep != "/":
        readable = readable.replace(os.sep, "/")
    return unicodedata.normalize("NFC", readable)


def part_id(file_id: str, key: str) -> str:
    """
    Return the id of one row, or another part, of a file.

    No file has such an id: paths have no two slashes in a row after their first characters.
    """
    return f"{file_id}//#{key}"


def _on_disk(path: str) -> str | None:
    """
    Return the path of what is there, or None where there is nothing.

    An id has composed letters; on a disk each folder, and each file, may be spelt either way.
    """
    if os.path.lexists(path):
        return path
    folder, name = os.path.split(path)
    if path.isascii() or folder == path or (above := _on_disk(folder)) is None:
        return None
    for spelling in (name, unicodedata.normalize("NFD", name)):
        if os.path.lexists(found := os.path.join(above, spelling)):  # noqa: PTH118
            return found
    return _in_another_spelling(above, name) if not name.isascii() else None


def _in_another_spelling(folder: str, name: str) -> str | None:
    """Return the path of an entry of a folder, some letters of which are composed, some not."""
    if unicodedata.is_normalized("NFD", name):
        return None
    try:
        entries = os.listdir(folder)  # noqa: PTH208
    except OSError:
        return None
    for entry in entries:
        if unicodedata.normalize("NFC", entry) == name:
            return os.path.join(folder, entry)  # noqa: PTH118
    return None


def _real(path: str) -> str:
    """Return where a path leads; a path with a NUL, which leads nowhere, as it is."""
    try:
        return os.path.realpath(path)
    except ValueError:
        return path


def _below(path: str, folder: str) -> str | None:
    """Return a path relative to a folder, or None for the folder itself and all outside."""
    start = folder if folder.endswith(os.sep) else folder + os.sep
    return path[len(start) :] if path.startswith(start) and len(path) > len(start) else None
