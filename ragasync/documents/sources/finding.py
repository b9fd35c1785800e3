"""What there is to load: paths, folders, documents and texts become one lazy stream."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeAlias

from ragasync.documents.document import Document
from ragasync.documents.errors import LoadError
from ragasync.documents.sources.border import WHY_BARRED, Barred, Border, real_path

ALWAYS_SKIPPED = (".*", "__pycache__", "*.pyc", "*.pyo", "CVS", "_darcs")
"""Names that a walk passes over: hidden ones, Python's caches, folders of version control."""


@dataclass(frozen=True, slots=True, repr=False)
class Source:
    """
    Name a file that is yet to be loaded.

    Example:
        >>> from pathlib import Path
        >>> from ragasync.documents import find_sources
        >>> _ = Path("notes.md").write_text("A bucket refills.")
        >>> [source] = find_sources(".")
        >>> source.id
        'notes.md'

    Args:
        id: The id of its document, with forward slashes on every system.
        path: Where the file is.
        barred: Why it must not be opened; it is found all the same, so that it is seen to fail.
    """

    id: str
    path: Path
    barred: Barred | None = None

    def __repr__(self) -> str:
        return f"<Source {self.id!r}>"

    def path_to_open(self) -> Path:
        """
        Return where the file is.

        Raises:
            LoadError: If it must not be opened.
        """
        if self.barred is not None:
            raise LoadError(self.barred, WHY_BARRED[self.barred])
        return self.path


Origin: TypeAlias = str | os.PathLike[str] | Source | Document | tuple[str, str]
"""One thing to load: a path, a source, a document, or a text with its id in front."""


def find_sources(
    sources: Origin | Iterable[Origin], *, skip: Collection[str] = (), links: bool = False
) -> Iterator[Source | Document]:
    """
    Yield one source or document after the other, without opening any.

    A folder is walked in sorted order, its files before its subfolders. Nothing is judged by its
    suffix: a binary file is found here and fails in `load_source`, so that it is seen. Hidden
    files and folders, caches and version control are passed over.

    What was named is the border: a link that leads out of the folder is found as a source that
    fails, unless `links` allows it. A link to a file inside is followed; one to a folder inside
    is not, since that folder is walked anyway. Each folder beyond the border is walked once.
    Pipes, sockets and devices fail likewise and are never opened.

    The id of a file is its path relative to the folder, so that it is the same on another
    machine. Inside an iterable, where two folders could hold the same names, the folder's path
    as given goes in front.

    Example:
        >>> from pathlib import Path
        >>> from ragasync.documents import find_sources
        >>> for name in ("notes.md", "picture.png", ".hidden"):
        ...     Path(name).touch()
        >>> [source.id for source in find_sources(".", skip=["*.png"])]
        ['notes.md']
        >>> [source.id for source in find_sources([Path("a.md"), ("b", "a text")])]
        ['a.md', 'b']

    Args:
        sources: A path to a file or a folder, a Document, a Source, or an iterable of these and
            of `(id, text)` pairs. A str has to name an existing path, because otherwise it is
            most often a text; a Path that does not exist is found missing by `load_source`.
        skip: Further names to pass over, as patterns of `fnmatch` for the name alone.
        links: Whether links may lead out of the folder that was named.

    Raises:
        FileNotFoundError: If a str names no existing path.
        TypeError: If something is neither of these.
    """
    if isinstance(sources, str | os.PathLike):
        yield from _walk(_existing(sources), skip, links, prefix="")
    elif isinstance(sources, Source | Document):
        yield sources
    elif isinstance(sources, Iterable):
        for origin in sources:
            if isinstance(origin, str | os.PathLike):
                path = _existing(origin)
                yield from _walk(path, skip, links, prefix=f"{_readable(path).rstrip('/')}/")
            else:
                yield source_of(origin)
    else:
        raise TypeError(_expected(sources))


def source_of(origin: Origin) -> Source | Document:
    """
    Return what one origin names: a Source for a path, a Document for a text.

    Raises:
        TypeError: If it is neither.
    """
    match origin:
        case Source() | Document():
            return origin
        case (str(id_), str(text)):
            return Document(id_, text)
        case str() | os.PathLike():
            path = Path(origin)
            return Source(_readable(path), path)
        case _:
            raise TypeError(_expected(origin))


def _existing(path: str | os.PathLike[str]) -> Path:
    """Return the path, or say how texts are given where a str names nothing."""
    # os.path answers False where pathlib raises: for a text that is too long for a name.
    if isinstance(path, str) and not os.path.lexists(path):
        raise FileNotFoundError(
            f"no file or folder at {path[:200]!r}: "
            "texts are given as Document(id, text) or as (id, text) pairs"
        )
    return Path(path)


def _walk(top: Path, skip: Collection[str], links: bool, prefix: str) -> Iterator[Source]:
    """Yield the file itself, or every file below a folder, with ids that start with `prefix`."""
    if not os.path.isdir(top):  # noqa: PTH112  # never raises
        yield Source(_readable(top), top)
        return
    patterns = (*ALWAYS_SKIPPED, *skip)
    border = Border(real_path(top), links)
    folders = [(top, False)]
    while folders:
        folder, is_linked = folders.pop()
        try:
            with os.scandir(folder) as entries:
                kept = sorted(
                    (entry for entry in entries if not _matches(entry.name, patterns)),
                    key=lambda entry: entry.name,
                )
        except OSError:
            # Opening it when it is loaded raises the same, as a row of its own.
            yield Source(prefix + _readable(folder.relative_to(top)), folder)
            continue
        below: list[tuple[Path, bool]] = []
        for entry in kept:
            path, sort = folder / entry.name, border.sort_of(entry)
            if sort != "folder":
                barred = None if sort == "file" else sort
                yield Source(prefix + _readable(path.relative_to(top)), path, barred)
            elif border.lets_walk(path, is_linked or entry.is_symlink()):
                below.append((path, is_linked or entry.is_symlink()))
        folders += reversed(below)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    """Say whether a name is one to pass over."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _readable(path: Path) -> str:
    """Return a path as an id: bytes of a name that are not UTF-8 are written out."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def _expected(got: object) -> str:
    """Say what can be loaded."""
    return (
        "a source is a path, a Document, a Source or an (id, text) pair, "
        f"got {got!r:.200} ({type(got).__name__})"
    )
