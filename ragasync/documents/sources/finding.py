"""find_sources: paths, folders, documents and texts become one lazy stream of sources."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeAlias

from ragasync.documents.errors import IdConflictError, LoadError
from ragasync.documents.models import Document
from ragasync.documents.sources.file_ids import FileIds, as_id, plain_path
from ragasync.documents.sources.folder_boundary import WHY_BARRED, Barred, FolderBoundary, real_path

ALWAYS_EXCLUDED = (".*", "__pycache__", "*.pyc", "*.pyo", "CVS", "_darcs")
"""Name patterns that are always excluded: hidden files, Python's caches, version control."""


@dataclass(frozen=True, slots=True, repr=False)
class Source:
    """
    A file to load.

    Example:
        >>> from pathlib import Path
        >>> from ragasync.documents import find_sources
        >>> _ = Path("notes.md").write_text("A bucket refills.")
        >>> [source] = find_sources(".", root=".")
        >>> source.id
        'notes.md'

    Args:
        id: The id of its document, with forward slashes on every system.
        path: The path of the file.
        barred: Why the file must not be opened; None if it may be. Loading it then fails, so that
            the reason is visible.
        source: The `source` of its documents; by default the absolute path.
        taken_by: Another source with the same id, if there is one; this one then fails unopened.
    """

    id: str
    path: Path
    barred: Barred | None = None
    source: str = ""
    taken_by: str = ""

    def __post_init__(self) -> None:
        """Fix the absolute path now, because the working folder may change."""
        if not self.source:
            object.__setattr__(self, "source", as_id(plain_path(self.path)))

    def __repr__(self) -> str:
        return f"<Source {self.id!r}>"

    def path_to_open(self) -> Path:
        """
        Path of the file, if it may be opened.

        Raises:
            LoadError: If it must not be opened.
            IdConflictError: If another source has its id.
        """
        if self.taken_by:
            raise IdConflictError.between(self.id, self.taken_by, f"the file {str(self.path)!r}")
        if self.barred is not None:
            raise LoadError(self.barred, WHY_BARRED[self.barred])
        return self.path

    def as_given(self) -> str | Path:
        """
        Return the path as a loader of the user's own takes it.

        Raises:
            LoadError: If it must not be opened.
            IdConflictError: If another source has its id.
        """
        return self.path_to_open()


Origin: TypeAlias = str | os.PathLike[str] | Source | Document | tuple[str, str]
"""One thing to load: a path, a source, a document, or a text with its id in front."""


def find_sources(
    sources: Origin | Iterable[Origin],
    *,
    exclude: Collection[str] = (),
    follow_symlinks: bool = False,
    root: str | os.PathLike[str] | None = None,
) -> Iterator[Source | Document]:
    """
    Find the files and documents to load, one after the other, without opening any file.

    Folders are walked in sorted order, files before subfolders. Files are not filtered by suffix:
    a binary file is found here and fails in `load_source`, so that the failure is visible. Hidden
    files and folders, caches and version control are excluded.

    The given folder is the boundary. A symbolic link that leads out of it is found as a source
    that fails, unless `follow_symlinks` is set. A link to a file inside the folder is followed;
    a link to a folder inside is not, because that folder is walked anyway. A folder outside is
    walked only once. Pipes, sockets and devices are found as sources that fail and are never
    opened.

    The id of a file is its absolute path, so that it does not depend on the working folder or on
    the form in which the path was given: dots are removed, links are kept, and accented letters
    are composed (Unicode NFC). With `root`, the id is the path below that folder, the same on any
    machine.

    Example:
        >>> from pathlib import Path
        >>> from ragasync.documents import find_sources
        >>> for name in ("notes.md", "picture.png", ".hidden"):
        ...     Path(name).touch()
        >>> [source.id for source in find_sources(".", exclude=["*.png"], root=".")]
        ['notes.md']
        >>> [source.id for source in find_sources([Path("notes.md"), ("b", "a text")], root=".")]
        ['notes.md', 'b']
        >>> [source] = find_sources("notes.md")
        >>> source.id == Path("notes.md").absolute().as_posix()
        True

    Args:
        sources: A path to a file or a folder, a Document, a Source, or an iterable of these and
            of `(id, text)` pairs. A str must name an existing path, because any other str is
            probably a text. A Path may be missing; loading it then fails.
        exclude: Further files and folders to exclude, as `fnmatch` patterns of names.
        follow_symlinks: Whether to follow symbolic links that lead out of the given folder.
        root: The folder that ids are relative to; None for absolute paths. A Source or Document
            keeps its id.

    Raises:
        FileNotFoundError: If a str names no existing path.
        TypeError: If a source is none of these.
        ValueError: If a path is not below `root`.
    """
    ids = FileIds(root)
    if isinstance(sources, str | os.PathLike):
        yield from _walk(_existing(sources), exclude, follow_symlinks, ids)
    elif isinstance(sources, Source | Document):
        yield sources
    elif isinstance(sources, Iterable):
        for origin in sources:
            if isinstance(origin, str | os.PathLike):
                yield from _walk(_existing(origin), exclude, follow_symlinks, ids)
            else:
                yield source_of(origin, ids)
    else:
        raise TypeError(_expected(sources))


def source_of(origin: Origin, ids: FileIds | None = None) -> Source | Document:
    """
    Make a Source of a path, or a Document of a text with its id.

    Args:
        origin: a path, a Source, a Document, or an (id, text) pair.
        ids: makes the ids of files; None for absolute paths.

    Raises:
        TypeError: If it is none of these.
    """
    match origin:
        case Source() | Document():
            return origin
        case (str(id_), str(text)):
            return Document(id_, text)
        case str() | os.PathLike():
            return _file(plain_path(origin), ids or FileIds())
        case _:
            raise TypeError(_expected(origin))


def _file(path: str, ids: FileIds) -> Source:
    """Source of the file at an absolute path."""
    id_ = ids.of(path)
    return Source(id_, Path(path), source=id_)


def _existing(path: str | os.PathLike[str]) -> str:
    """Absolute path of an existing file; the error for a str says how to pass texts."""
    # os.path answers False where pathlib raises: for a text that is too long for a name.
    if isinstance(path, str) and not os.path.lexists(path):
        raise FileNotFoundError(
            f"no file or folder at {path[:200]!r}: texts are given as Document(id, text) or as "
            "(id, text) pairs, and patterns as Path(folder).glob(pattern)"
        )
    return plain_path(path)


def _walk(
    top: str, exclude: Collection[str], follow_symlinks: bool, ids: FileIds
) -> Iterator[Source]:
    """Yield a Source for a file, or for every file below a folder."""
    if not os.path.isdir(top):  # noqa: PTH112  # never raises
        yield _file(top, ids)
        return
    patterns = (*ALWAYS_EXCLUDED, *exclude)
    boundary = FolderBoundary(real_path(top), follow_symlinks)
    folders = [(Path(top), ids.of_folder(top), False)]
    while folders:
        folder, prefix, is_linked = folders.pop()
        try:
            with os.scandir(folder) as entries:
                kept = sorted(
                    (entry for entry in entries if not _matches(entry.name, patterns)),
                    key=lambda entry: entry.name,
                )
        except OSError:
            # Opening it when it is loaded raises the same, as a row of its own.
            name = prefix.rstrip("/") or "."
            yield Source(name, folder, source=name)
            continue
        below: list[tuple[Path, str, bool]] = []
        for entry in kept:
            path, sort = folder / entry.name, boundary.kind_of(entry)
            id_ = prefix + as_id(entry.name)
            if sort != "folder":
                yield Source(id_, path, None if sort == "file" else sort, id_)
            elif boundary.lets_walk(path, is_linked or entry.is_symlink()):
                below.append((path, f"{id_}/", is_linked or entry.is_symlink()))
        folders += reversed(below)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a file name matches one of the patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _expected(got: object) -> str:
    """Error message that lists the kinds of sources."""
    return (
        "a source is a path, a Document, a Source or an (id, text) pair, "
        f"got {got!r:.200} ({type(got).__name__})"
    )
