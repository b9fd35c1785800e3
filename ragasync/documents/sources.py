"""
What a run can load: find_sources for paths, folders and texts, FrameSource for rows of DataFrames.

FileIds gives each file its id, an absolute path or one below a root. FolderBoundary decides what
to do about symbolic links, pipes and devices in a folder that is walked.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast
from uuid import UUID

from ragasync.arguments import explains_arguments
from ragasync.dataframe_items import LabeledItems, is_instance_of, labeled_items
from ragasync.documents.models import Document, IdConflictError, LoadError, LoadReason
from ragasync.object_views import object_html


class FileIds:
    """Make the id of a file from its path."""

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        if root is not None and not isinstance(root, str | os.PathLike):
            raise TypeError(f"root must be the path of a folder, or None, got {root!r:.200}")
        self.root = None if root is None else plain_path(root)
        self._real = None if self.root is None else _real(self.root)

    def of(self, path: str | os.PathLike[str]) -> str:
        """Return the id of a file or folder; ValueError if it is not below the root."""
        full = plain_path(path)
        if self.root is None or self._real is None:
            return as_id(full)
        below = _below(full, self.root)
        if below is None:
            # The folder may have another name: its links are followed, but not those of the file.
            folder, name = os.path.split(full)
            below = _below(os.path.join(_real(folder), name), self._real)  # noqa: PTH118
        if below is None:
            raise ValueError(
                f"{full!r} is not below root={self.root!r}, so that it has no id there: pass a "
                "folder that holds all sources as root=, or leave root= out for absolute paths"
            )
        return as_id(below)

    def of_folder(self, path: str | os.PathLike[str]) -> str:
        """Return the prefix of the ids of files in a folder; empty for the root."""
        if self._real is not None and _real(plain_path(path)) == self._real:
            return ""
        return self.of(path).rstrip("/") + "/"

    def is_root(self, path: str | None) -> bool:
        """Return whether a path is that of the root, perhaps through a link."""
        return path == self.root or (path is not None and _real(path) == self._real)

    def has_file(self, source: str) -> bool:
        """Return whether the file of a document exists, given its `source`."""
        path = self._path(source)
        if not os.path.isabs(path):  # noqa: PTH117  # not a path
            return False
        found = _on_disk(path)
        return found is not None and not os.path.isdir(found)  # noqa: PTH112  # never raises

    def has_folder(self, source: str) -> bool:
        """Return whether a folder above the file of a document exists."""
        return _on_disk(self._path(source)) is not None

    def _path(self, source: str) -> str:
        return source if self.root is None else os.path.join(self.root, source)  # noqa: PTH118


def plain_path(path: str | os.PathLike[str]) -> str:
    """
    Return the absolute path without dots; links are kept.

    Only the link in `link/..` is resolved, because the system takes the folder above its target.
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
    # Two slashes at the front are one, except for Windows' shares.
    return full[1:] if os.sep == "/" and full.startswith("//") else full


def as_id(path: str) -> str:
    """Return a path as an id: composed letters, forward slashes, valid UTF-8."""
    if path.isascii():
        return path if os.sep == "/" else path.replace(os.sep, "/")
    try:
        written = os.fsencode(path)
    except UnicodeEncodeError:  # half of a surrogate pair, which no file name has
        written = path.encode("utf-8", "surrogatepass")
    readable = written.decode("utf-8", "backslashreplace")
    if os.sep != "/":
        readable = readable.replace(os.sep, "/")
    return unicodedata.normalize("NFC", readable)


def part_id(file_id: str, key: str) -> str:
    """Return the id of a row or another part of a file; no path has two slashes inside it."""
    return f"{file_id}//#{key}"


def _on_disk(path: str) -> str | None:
    """Find a path on the disk, whose names may be composed or not; None if it is missing."""
    if os.path.lexists(path):
        return path
    folder, name = os.path.split(path)
    if path.isascii() or folder == path or (above := _on_disk(folder)) is None:
        return None
    for spelling in (name, unicodedata.normalize("NFD", name)):
        if os.path.lexists(found := os.path.join(above, spelling)):  # noqa: PTH118
            return found
    if unicodedata.is_normalized("NFD", name):  # also all ASCII names
        return None
    try:
        entries = os.listdir(above)  # noqa: PTH208
    except OSError:
        return None
    # Some of its letters may be composed and some not.
    same = (entry for entry in entries if unicodedata.normalize("NFC", entry) == name)
    return next((os.path.join(above, entry) for entry in same), None)  # noqa: PTH118


def _real(path: str | Path) -> str:
    """Return the real path; a path with a NUL, which leads nowhere, unchanged."""
    try:
        return os.path.realpath(path)
    except ValueError:
        return os.fspath(path)


def _below(path: str, folder: str) -> str | None:
    """Return a path relative to a folder; None for the folder itself and paths outside."""
    start = folder if folder.endswith(os.sep) else folder + os.sep
    return path[len(start) :] if path.startswith(start) and len(path) > len(start) else None


Barred: TypeAlias = Literal["link", "not a file"]

WHY_BARRED: dict[Barred, str] = {
    "link": "a symbolic link out of the given folder: find_sources(folder, follow_symlinks=True) "
    "follows it",
    "not a file": "a pipe, socket or device cannot be loaded",
}
"""The error messages of sources that must not be opened."""


class FolderBoundary:
    """The boundary of a folder that is walked, and whether links may lead out of it."""

    def __init__(self, inside: Path, follow_symlinks: bool) -> None:
        self._inside, self._follow_symlinks = inside, follow_symlinks
        self._walked: set[Path] = set()

    def kind_of(self, entry: os.DirEntry[str]) -> Literal["file", "folder"] | Barred:
        """Kind of a folder's entry, or why it must not be opened; only links cost a system call."""
        if not entry.is_symlink():
            if entry.is_dir(follow_symlinks=False):
                return "folder"
            return "file" if entry.is_file(follow_symlinks=False) else "not a file"
        if not self._follow_symlinks and not Path(_real(entry.path)).is_relative_to(self._inside):
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
        real = Path(_real(folder))
        is_new = real not in self._walked and not real.is_relative_to(self._inside)
        self._walked.add(real)
        return is_new


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
        return f"<Source {self.id!r:.200}>"

    def _repr_html_(self) -> str:
        """The fields as a table."""
        barred = self.barred and WHY_BARRED[self.barred]
        facts = [("path", str(self.path)), ("source", self.source), ("not opened", barred)]
        return object_html(self, facts)

    @property
    def _table_name_(self) -> str:
        """The path, by which tables of results show a file."""
        return os.fspath(self.path)

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
        """Path in the form that a user's loader gets; raises as `path_to_open` does."""
        return self.path_to_open()


@dataclass(frozen=True, slots=True, repr=False)
class RefusedDocument(Document):
    """
    A document that fails: another source of the run has its id, or its row has no id or text.

    Args:
        why: the other source, or the message of a LoadError.
        reason: the reason of the LoadError; None for an IdConflictError.
    """

    why: str = ""
    reason: LoadReason | None = None

    def __reduce__(self) -> tuple[type[Document], tuple[object, ...]]:
        return type(self), (*Document.__reduce__(self)[1], self.why, self.reason)

    def refusal(self) -> IdConflictError | LoadError:
        """Return the error of this document."""
        if self.reason is not None:
            return LoadError(self.reason, self.why)
        return IdConflictError.between(self.id, self.why, Document.__repr__(self))


Origin: TypeAlias = str | os.PathLike[str] | Source | Document | tuple[str, str]
"""One thing to load: a path, a source, a document, or a text with its id in front."""


@explains_arguments
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
    if isinstance(sources, str | os.PathLike | Source | Document):
        sources = [sources]
    elif isinstance(cast("object", sources), bytes) or not isinstance(sources, Iterable):
        raise TypeError(_expected(sources))
    elif isinstance(sources, Mapping):
        raise TypeError(f"sources are several, got a {type(sources).__name__}: pass its .items()")
    for origin in sources:
        if type(origin) is tuple:  # first, because asking for a PathLike takes longer than the rest
            yield source_of(origin, ids)
        elif isinstance(origin, str | os.PathLike):
            yield from _walk(_existing(origin), exclude, follow_symlinks, ids)
        else:
            yield source_of(origin, ids)


def source_of(origin: Origin, ids: FileIds | None = None) -> Source | Document:
    """Make a Source of a path, or a Document of an (id, text) pair; ids are absolute by default."""
    if type(origin) is tuple and len(origin) == 2:  # what the first case of `match` finds, faster
        id_, text = origin
        if type(id_) is str and type(text) is str:
            return Document._of_pair(id_, text)
    match origin:
        case (str(id_), str(text)):
            return Document(id_, text)
        case Source() | Document():
            return origin
        case str() | os.PathLike():
            return _file(plain_path(origin), ids or FileIds())
        case _:
            raise TypeError(_expected(origin))


def _file(path: str, ids: FileIds) -> Source:
    id_ = ids.of(path)
    return Source(id_, Path(path), source=id_)


def _existing(path: str | os.PathLike[str]) -> str:
    """Absolute path of an existing file; the error for a str says how to pass texts."""
    # os.path answers False where pathlib raises: for a text that is too long for a name.
    if isinstance(path, str) and not os.path.lexists(path):
        home = "a path with ~ is given as Path(...).expanduser(), " if path.startswith("~") else ""
        raise FileNotFoundError(
            f"no file or folder at {path[:200]!r}: {home}texts are given as Document(id, text) or "
            "as (id, text) pairs in a list, and patterns as Path(folder).glob(pattern). A file "
            "that may be missing is given as a Path, and then fails alone"
        )
    return plain_path(path)


def _walk(
    top: str, exclude: Collection[str], follow_symlinks: bool, ids: FileIds
) -> Iterator[Source]:
    """Yield a Source for a file, or for every file below a folder."""
    if not os.path.isdir(top):  # noqa: PTH112  # never raises
        yield _file(top, ids)
        return
    is_excluded = _pattern_of((*ALWAYS_EXCLUDED, *exclude)).match
    boundary = FolderBoundary(Path(_real(top)), follow_symlinks)
    folders = [(Path(top), ids.of_folder(top), False)]
    while folders:
        folder, prefix, is_linked = folders.pop()
        try:
            with os.scandir(folder) as entries:
                kept = sorted(
                    (entry for entry in entries if not is_excluded(entry.name)),
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


@lru_cache(maxsize=64)
def _pattern_of(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """One pattern that matches the names that any of these `fnmatch` patterns match."""
    return re.compile("|".join(map(translate, patterns)))


def _expected(got: object) -> str:
    match got:
        case (_, _):
            advice = ": both id and text are of type str"
        case bytes():
            advice = f": pass {os.fsdecode(got)!r:.200}"
        case {"id": _, "text": _}:
            advice = ": pass Document(id, text, metadata), or a DataFrame of such rows"
        case _:
            advice = ""
    return (
        "a source is a path, a Document, a Source or an (id, text) pair, "
        f"got {got!r:.200} ({type(got).__name__}){advice}"
    )


# ── rows of DataFrames ──────────────────────────────────────────────────────────────────────────

EXACT_FLOATS = 2**53
"""Whole numbers below this are exact as floats; larger ids may have been rounded to another's."""


class FrameSource:
    """
    The rows of a pandas or polars DataFrame as documents, for columns of other names.

    `processor.process(frame)` itself uses the columns `id` and `text`. All other columns become the
    metadata of a document, without missing values. The id of a row is all that identifies it, so a
    second run skips unchanged rows and replaces those whose text or metadata have changed. The
    result has the index of the frame.

    A row that is no document is a failed item with a LoadError. Its reason is `no id` or `missing`
    (no text), or `wrong type` if there is a value that is no id or no text. Of two rows with one id
    and different contents, the later fails with an IdConflictError.

    Example:
        >>> import pandas as pd
        >>> from ragasync import AsyncDocumentProcessor
        >>> from ragasync.documents import FrameSource, MemoryStore
        >>> frame = pd.DataFrame({"ticket": [17, 18], "body": ["A bucket refills.", None]})
        >>> frame["team"] = ["limits", "ops"]
        >>> store = MemoryStore()
        >>> processor = AsyncDocumentProcessor(store=store)
        >>> result = processor.process_sync(FrameSource(frame, id="ticket", text="body"))
        >>> result.errors_dataframe()[["item", "error_type", "stage"]]
          item error_type stage
        1   18  LoadError  load
        >>> print(result[1].error)
        missing: the row 1 has no text in the column 'body': fill it in or drop the row, or pass ...
        >>> store.search("bucket", where={"team": "limits"})[0].document_id
        '17'
        >>> store.close()

    Args:
        frame: the DataFrame.
        id: the name of the column with the ids, which are texts, whole numbers or UUIDs. A float
            that is a whole number counts as one, because a missing id makes a column of whole
            numbers in pandas one of floats.
        text: the name of the column with the texts.
        metadata: the names of the columns that become metadata; None for all others.

    Raises:
        TypeError: `frame` is not a DataFrame.
        ValueError: a column is missing, or two have the same name.
    """

    def __init__(
        self,
        frame: Any,
        *,
        id: str = "id",  # noqa: A002  # the name of the column that it replaces
        text: str = "text",
        metadata: Collection[str] | None = None,
    ) -> None:
        if not _is_frame(frame):
            raise TypeError(
                f"FrameSource takes a DataFrame of pandas or polars, got {frame!r:.200}"
            )
        available = list(frame.columns)
        chosen = [name for name in available if name not in (id, text)]
        if metadata is not None:
            chosen = [metadata] if isinstance(metadata, str) else list(metadata)
        missing = [name for name in (id, text, *chosen) if name not in available]
        if missing:
            raise ValueError(
                f"expected columns named {[id, text]!r}, which hold the ids and the texts of "
                f"documents{' and the metadata' if metadata is not None else ''}; {missing!r} of "
                f"these are not in {available!r:.500}: name yours with "
                f"FrameSource(frame, id=..., text=...), or call frame.reset_index() if the index "
                f"holds the ids"
            )
        self._frame, self._id, self._text, self._metadata = frame, id, text, chosen

    def documents(self) -> LabeledItems:
        """The documents of all rows, with the labels of the frame's index."""
        wanted = dict.fromkeys([self._id, self._text, *self._metadata])
        rows = labeled_items(self._frame[list(wanted)])
        assert rows is not None  # a part of a DataFrame is one
        labels = rows.labels
        found = [
            self._document(row, place if labels is None else labels.at(place))
            for place, row in enumerate(rows.items)
        ]
        return LabeledItems(found, labels)

    def _document(self, row: Mapping[Any, Any], label: object) -> Document:
        """The document of one row."""
        given, text = row[self._id], row[self._text]
        id_, problem = _id_of(given), None
        if not id_:
            problem = _unusable_id(given, self._id)
        elif not isinstance(text, str):
            problem = _unusable_text(text, self._text)
        if problem is not None:
            reason, what = problem
            id_ = id_ or f"row {label!r:.100} of a frame"
            return RefusedDocument(id_, "", why=f"the row {label!r:.100} has {what}", reason=reason)
        metadata = {str(name): row[name] for name in self._metadata if not _is_missing(row[name])}
        return Document(id_, text, metadata)

    def __repr__(self) -> str:
        return f"<FrameSource of {len(self._frame):,} rows, id={self._id!r}, text={self._text!r}>"


def _id_of(given: object) -> str:
    """The id that a value of a row stands for; empty if it stands for none."""
    if type(given) is float and given.is_integer() and abs(given) < EXACT_FLOATS:
        return str(int(given))
    return str(given) if type(given) in (str, int, UUID) else ""


def _unusable_id(given: object, column: str) -> tuple[LoadReason, str]:
    """Reason and description of a value that is no id."""
    keep = f"frame.astype({{{column!r}: 'Int64'}}) when it is made keeps whole numbers as they are"
    if _is_missing(given) or given == "":
        text = (
            f"no id in the column {column!r}: fill it in or drop the row, or pass "
            f"on_unreadable={{'no id'}} to skip such rows"
        )
        if isinstance(given, float):
            text += f" (the column holds floats: {keep})"
        return "no id", text
    text = (
        f"the id {given!r:.100} in the column {column!r}: an id is a text, a whole number or a UUID"
    )
    if isinstance(given, float):
        rounded = "; as a float this one may be rounded" if abs(given) >= EXACT_FLOATS else ""
        text += f"{rounded}: {keep}"
    return "wrong type", text


def _unusable_text(given: object, column: str) -> tuple[LoadReason, str]:
    """Reason and description of a value that is no text."""
    if _is_missing(given):
        return "missing", (
            f"no text in the column {column!r}: fill it in or drop the row, or pass "
            f"on_unreadable={{'missing'}} to skip such rows"
        )
    return "wrong type", (
        f"the value {given!r:.100} in the column {column!r}: a text is a str, as in "
        f"frame.astype({{{column!r}: str}})"
    )


def frame_documents(sources: object) -> LabeledItems | None:
    """
    The documents of a DataFrame or FrameSource; None for other sources.

    Raises:
        TypeError: a Series, whose values have no ids.
        ValueError: a DataFrame without the columns `id` and `text`.
    """
    if any(is_instance_of(sources, library, "Series") for library in ("pandas", "polars")):
        raise TypeError(
            "sources must have ids, got a Series: pass a DataFrame with the columns 'id' and "
            "'text', or series.items() for (label, text) pairs"
        )
    if _is_frame(sources):
        sources = FrameSource(sources)
    return sources.documents() if isinstance(sources, FrameSource) else None


def _is_frame(value: object) -> bool:
    """Whether a value is a DataFrame."""
    return any(is_instance_of(value, library, "DataFrame") for library in ("pandas", "polars"))


def _is_missing(value: object) -> bool:
    """Whether a plain value of a row is missing."""
    return value is None or (isinstance(value, float) and value != value)
