"""What there is to load: paths, folders, documents and texts become one lazy stream."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeAlias

from ragasync.documents.document import Document
from ragasync.documents.errors import IdConflictError, LoadError
from ragasync.documents.sources.border import WHY_BARRED, Barred, Border, real_path
from ragasync.documents.sources.file_ids import FileIds, as_id, plain_path

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
        >>> [source] = find_sources(".", root=".")
        >>> source.id
        'notes.md'

    Args:
        id: The id of its document, with forward slashes on every system.
        path: Where the file is.
        barred: Why it must not be opened; it is found all the same, so that it is seen to fail.
        source: Where its documents say that they came from; by default the absolute path.
        taken_by: The source that has its id already; then it fails without being opened.
    """

    id: str
    path: Path
    barred: Barred | None = None
    source: str = ""
    taken_by: str = ""

    def __post_init__(self) -> None:
        """Fix the absolute path, as long as the working folder is the one that was meant."""
        if not self.source:
            object.__setattr__(self, "source", as_id(plain_path(self.path)))

    def __repr__(self) -> str:
        return f"<Source {self.id!r}>"

    def path_to_open(self) -> Path:
        """
        Return where the file is.

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
    skip: Collection[str] = (),
    links: bool = False,
    root: str | os.PathLike[str] | None = None,
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

    The id of a file is its absolute path: it is the same however the file is named and from
    whichever folder that is done. Dots are removed, links are kept, and letters with accents are
    composed (Unicode's NFC). With `root` it is the path below that folder, the same on another
    machine.

    Example:
        >>> from pathlib import Path
        >>> from ragasync.documents import find_sources
        >>> for name in ("notes.md", "picture.png", ".hidden"):
        ...     Path(name).touch()
        >>> [source.id for source in find_sources(".", skip=["*.png"], root=".")]
        ['notes.md']
        >>> [source.id for source in find_sources([Path("notes.md"), ("b", "a text")], root=".")]
        ['notes.md', 'b']
        >>> [source] = find_sources("notes.md")
        >>> source.id == Path("notes.md").absolute().as_posix()
        True

    Args:
        sources: A path to a file or a folder, a Document, a Source, or an iterable of these and
            of `(id, text)` pairs. A str has to name an existing path, because otherwise it is
            most often a text; a Path that does not exist is found missing by `load_source`.
        skip: Further names to pass over, as patterns of `fnmatch` for the name alone.
        links: Whether links may lead out of the folder that was named.
        root: The folder that ids are relative to; None for absolute paths. A Source or Document
            keeps the id that it has.

    Raises:
        FileNotFoundError: If a str names no existing path.
        TypeError: If something is neither of these.
        ValueError: If a path is not below `root`.
    """
    ids = FileIds(root)
    if isinstance(sources, str | os.PathLike):
        yield from _walk(_existing(sources), skip, links, ids)
    elif isinstance(sources, Source | Document):
        yield sources
    elif isinstance(sources, Iterable):
        for origin in sources:
            if isinstance(origin, str | os.PathLike):
                yield from _walk(_existing(origin), skip, links, ids)
            else:
                yield source_of(origin, ids)
    else:
        raise TypeError(_expected(sources))


def source_of(origin: Origin, ids: FileIds | None = None) -> Source | Document:
    """
    Return what one origin names: a Source for a path, a Document for a text.

    Args:
        origin: what was given.
        ids: makes the ids of files; None for absolute paths.

    Raises:
        TypeError: If it is neither.
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
    """Return the source of a file at an absolute path."""
    id_ = ids.of(path)
    return Source(id_, Path(path), source=id_)


def _existing(path: str | os.PathLike[str]) -> str:
    """Return the absolute path, or say how texts are given where a str names nothing."""
    # os.path answers False where pathlib raises: for a text that is too long for a name.
    if isinstance(path, str) and not os.path.lexists(path):
        raise FileNotFoundError(
            f"no file or folder at {path[:200]!r}: texts are given as Document(id, text) or as "
            "(id, text) pairs, and patterns as Path(folder).glob(pattern)"
        )
    return plain_path(path)


def _walk(top: str, skip: Collection[str], links: bool, ids: FileIds) -> Iterator[Source]:
    """Yield the file itself, or every file below a folder."""
    if not os.path.isdir(top):  # noqa: PTH112  # never raises
        yield _file(top, ids)
        return
    patterns = (*ALWAYS_SKIPPED, *skip)
    border = Border(real_path(top), links)
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
            path, sort = folder / entry.name, border.sort_of(entry)
            id_ = prefix + as_id(entry.name)
            if sort != "folder":
                yield Source(id_, path, None if sort == "file" else sort, id_)
            elif border.lets_walk(path, is_linked or entry.is_symlink()):
                below.append((path, f"{id_}/", is_linked or entry.is_symlink()))
        folders += reversed(below)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    """Say whether a name is one to pass over."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _expected(got: object) -> str:
    """Say what can be loaded."""
    return (
        "a source is a path, a Document, a Source or an (id, text) pair, "
        f"got {got!r:.200} ({type(got).__name__})"
    )
