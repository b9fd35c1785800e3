"""Which documents of a store move to other ids when their folder or file has moved."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ragasync.documents.errors import IdConflictError
from ragasync.documents.sources.file_ids import FileIds, as_id, plain_path
from ragasync.documents.store import IdScheme, StoredId


@dataclass(frozen=True, slots=True)
class Relocation:
    """
    What a store has to change.

    Args:
        moves: by their ids, the new ids, sources and files of documents.
        superseded: the ids of those to delete, because they are stored under the new id already.
        scheme: what the ids of files are afterwards, where that changes.
        count: how many documents are at the new path.
    """

    moves: Mapping[str, tuple[str, str | None, str | None]] = field(default_factory=dict)
    superseded: Sequence[str] = ()
    scheme: IdScheme | None = None
    count: int = 0


def relocation(
    stored: Iterable[StoredId],
    scheme: IdScheme | None,
    old: str | os.PathLike[str],
    new: str | os.PathLike[str],
) -> Relocation:
    """
    Return what changes in a store when a folder or file has moved.

    Args:
        stored: its documents.
        scheme: what the ids of files are.
        old: where it was: a path, or the beginning of ids up to a slash.
        new: where it is, likewise.

    Raises:
        TypeError: one of them is no path.
        ValueError: both are the same; or one is outside the root that ids are relative to.
        IdConflictError: other documents are stored at the new path.
    """
    for name, given in (("old", old), ("new", new)):
        if not isinstance(given, str | os.PathLike):
            raise TypeError(f"{name} must be a path or the beginning of ids, got {given!r:.200}")
    documents = list(stored)
    before, after = _as_written(old), _as_written(new)
    if not any(_moves(each, before) for each in documents):
        if scheme is not None and scheme.relative and plain_path(old) == scheme.root:
            moved = sum(each.file is not None for each in documents)
            return Relocation(scheme=replace(scheme, root=plain_path(new)), count=moved)
        ids = FileIds(scheme.root if scheme is not None and scheme.relative else None)
        before, after = ids.of_folder(old).rstrip("/"), ids.of_folder(new).rstrip("/")
    if before == after:
        raise ValueError(f"relocate needs two different paths, got {old!r:.200} twice")
    return _moved(documents, before, after, scheme)


def _moved(
    documents: Sequence[StoredId], old: str, new: str, scheme: IdScheme | None
) -> Relocation:
    """Return which of the documents begin with one path, and what they are with the other."""
    root = scheme.root if scheme is not None and scheme.relative else None
    ids = FileIds(root)
    moving = [each for each in documents if _moves(each, old)]
    moves = {
        each.id: (
            _replaced(each.id, old, new),
            each.source and _replaced(each.source, old, new),
            each.file and _replaced(each.file, old, new),
        )
        for each in moving
    }
    if not all(id_ for id_, *_ in moves.values()):
        raise ValueError(
            f"a document needs an id, and {old!r:.200} would have none at {new!r:.200}"
        )
    there = {each.id: each for each in documents if moves.get(each.id, (each.id,))[0] == each.id}
    superseded = []
    for each in moving:
        standing = there.setdefault(moves[each.id][0], each)
        if standing is each:
            continue
        if each.fingerprint != standing.fingerprint and not _has_moved(each, standing, ids):
            raise IdConflictError(
                f"the store has {each.id!r:.200} and {standing.id!r:.200} with different contents, "
                "and no file is known to have moved from the one to the other: delete one of "
                "these documents first, or give other paths",
                moves[each.id][0],
                each.id,
                standing.id,
            )
        superseded.append(each.id)
    for id_ in superseded:
        del moves[id_]
    return Relocation(moves, superseded, count=len(moving))


def _has_moved(old: StoredId, new: StoredId, ids: FileIds) -> bool:
    """Return whether there is a file at the new path of a document, and none at the old one."""
    if old.source is None or new.source is None:
        return False
    return ids.has_file(new.source) and not ids.has_file(old.source)


def _moves(document: StoredId, path: str) -> bool:
    """Return whether a document is at a path, or below it."""
    return any(_begins(text, path) for text in (document.id, document.source, document.file))


def _as_written(path: str | os.PathLike[str]) -> str:
    """Return the beginning of ids as it was given, without a slash at its end."""
    return as_id(os.fspath(path)).rstrip("/")


def _begins(text: str | None, prefix: str) -> bool:
    """Return whether an id or source is a path, or lies below it."""
    return text is not None and (text == prefix or text.startswith(f"{prefix}/"))


def _replaced(text: str, old: str, new: str) -> str:
    """Return an id or source with another beginning, or as it is where it begins otherwise."""
    if not _begins(text, old):
        return text
    rest = text[len(old) :]
    return f"{new}{rest}" if new or text.startswith("/") else rest.removeprefix("/")
