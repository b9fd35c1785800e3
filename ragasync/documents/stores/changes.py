"""
Changes of a store: which documents of a group are stored, and their new ids after files have moved.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.models import Document, IdConflictError
from ragasync.documents.sources import FileIds, as_id, plain_path
from ragasync.documents.store import (
    IdScheme,
    StoredEmbedder,
    StoredId,
    check_embedder,
    check_id_scheme,
    check_source,
)

Result: TypeAlias = Exception | None
"""The error of a document that could not be stored, or None."""


@dataclass(frozen=True, slots=True)
class StorableDocument:
    """
    A document with the values of its columns, complete before the store is locked for it.

    Args:
        document: The document.
        vectors: The vectors of its chunks, as finite float32 rows.
        columns: The values of its columns, as its store needs them.
    """

    document: Document
    vectors: NDArray[np.float32]
    columns: Any


def accept_documents(
    documents: Sequence[StorableDocument],
    sources: Mapping[str, str | None],
    scheme: IdScheme | None,
    stored: StoredEmbedder | None,
    given: StoredEmbedder,
) -> tuple[list[Result], list[int], StoredEmbedder | None]:
    """
    Check documents against those that are stored; of several with one id, accept the last.

    Args:
        documents: The documents to store together.
        sources: The sources of stored documents, by their ids.
        scheme: The form of the ids of files.
        stored: The embedder of the stored vectors, if there are any.
        given: The embedder of the new vectors; its dimension is not used.

    Returns:
        The error of each document, or None; the places of the accepted ones, ascending; and the
        embedder of the vectors after they are stored.

    Raises:
        EmbedderMismatch: No document with vectors can be stored.
    """
    dimensions = [each.vectors.shape[1] for each in documents if len(each.vectors)]
    if dimensions:
        fits = stored is not None and stored.dimension in dimensions
        own = stored.dimension if stored is not None and fits else dimensions[0]
        check_embedder(stored, replace(given, dimension=own))
    sources = dict(sources)
    embedder = stored
    accepted: dict[str, int] = {}
    results: list[Result] = []
    for place, each in enumerate(documents):
        id_, source = each.document.id, each.document.source
        try:
            check_id_scheme(each.document, scheme)
            check_source(each.document, sources.get(id_, source))
            if len(each.vectors):
                of_this = replace(given, dimension=each.vectors.shape[1])
                check_embedder(embedder, of_this)
                embedder = embedder or of_this
        except Exception as error:  # of this document
            results.append(error)
            continue
        results.append(None)
        sources[id_], accepted[id_] = source, place
    return results, sorted(accepted.values()), embedder


Place: TypeAlias = tuple[str, str | None, str | None]
"""The id, source and file of a document."""


@dataclass(frozen=True, slots=True)
class Relocation:
    """
    Changes of a store after files have moved.

    Args:
        moves: by their ids, the new ids, sources and files of documents.
        superseded: the ids of those to delete, because they are stored under the new id already.
        scheme: the form of the ids of files afterwards, if it changes.
        count: the number of documents at the new path.
    """

    moves: Mapping[str, Place] = field(default_factory=dict)
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
    Find the changes of a store after a folder or file has moved.

    Files are found by their path, which is written as their ids are: absolute, or below the root.
    Documents that the user made are found by a prefix of their ids.

    Args:
        stored: its documents.
        scheme: the form of the ids of files.
        old: the old path, or a prefix of ids up to a slash.
        new: the new path or prefix.

    Raises:
        TypeError: one of them is not a path.
        ValueError: both are the same; one is empty, or outside the root that ids are relative to;
            or one is absolute and the other a prefix of ids that are not paths.
        IdConflictError: other documents are stored at the new path.
    """
    for name, given in (("old", old), ("new", new)):
        if not isinstance(given, str | os.PathLike):
            raise TypeError(f"{name} must be a path or a prefix of ids, got {given!r:.200}")
    documents = list(stored)
    root = scheme.root if scheme is not None and scheme.relative else None
    ids = FileIds(root)
    written = _as_written(old), _as_written(new)
    are_alike = _is_absolute(old) == _is_absolute(new)
    is_written = any(_moves(each, written[0]) for each in documents)
    if scheme is not None and not is_written and ids.is_root(os.fsdecode(old)):
        moved = sum(each.file is not None for each in documents)
        return Relocation(scheme=replace(scheme, root=plain_path(new)), count=moved)
    try:
        paths = _as_paths(documents, ids, old, new)
    except ValueError:  # outside the root, where the user's own documents may be
        if not (is_written and are_alike):
            raise
        paths = None
    if paths is None and is_written and not are_alike:
        raise ValueError(
            f"the ids that begin with {written[0]!r:.200} are not paths of files, and cannot begin "
            f"with {written[1]!r:.200}: give two absolute paths, or two prefixes of ids"
        )
    if written[0] == written[1] or (paths is not None and paths[0] == paths[1]):
        raise ValueError(f"relocate needs two different paths, got {old!r:.200} twice")
    pairs = [] if paths is None else [paths]
    if are_alike:
        pairs.append(written)
    return _moved(documents, pairs, ids)


def _as_paths(
    documents: Sequence[StoredId],
    ids: FileIds,
    old: str | os.PathLike[str],
    new: str | os.PathLike[str],
) -> tuple[str, str] | None:
    """
    Convert two paths to prefixes of the ids of files; None if no document is at the old one.

    If ids are relative, paths may be too: to the root, or else to the current folder.
    """
    for base in ("",) if ids.root is None else (ids.root, ""):
        before = ids.of_folder(os.path.join(base, os.fspath(old))).rstrip("/")  # noqa: PTH118
        if any(_moves(each, before) for each in documents):
            if not os.fspath(new) and ids.root is None:
                raise ValueError("new must be the path where the files are now, got ''")
            after = ids.of_folder(os.path.join(base, os.fspath(new))).rstrip("/")  # noqa: PTH118
            return before, after
    return None


def _moved(
    documents: Sequence[StoredId], pairs: Sequence[tuple[str, str]], ids: FileIds
) -> Relocation:
    """New places of the documents that begin with the first prefix of a pair."""
    moves: dict[str, Place] = {}
    for each in documents:
        for old, new in pairs:
            if _moves(each, old):
                moves[each.id] = _placed(each, old, new)
                break
    moving = [each for each in documents if each.id in moves]
    there = {each.id: each for each in documents if moves.get(each.id, (each.id,))[0] == each.id}
    superseded = []
    for each in moving:
        id_ = moves[each.id][0]
        standing = there.setdefault(id_, each)
        if standing is each:
            continue
        moved = StoredId(id_, moves[each.id][1], each.fingerprint, moves[each.id][2])
        if each.fingerprint != standing.fingerprint and not _is_moved_file(
            _file_of(each), _file_of(moved), _file_of(standing), ids
        ):
            raise IdConflictError(
                f"the store has {each.id!r:.200} and {standing.id!r:.200} with different contents, "
                "and no file is known to have moved from the one to the other: delete one of "
                "these documents first, or give other paths",
                id_,
                each.id,
                standing.id,
            )
        superseded.append(each.id)
    for id_ in superseded:
        del moves[id_]
    return Relocation(moves, superseded, count=len(moving))


def _file_of(document: StoredId) -> str | None:
    """File that a document came from; a source that is an absolute path is one."""
    source = document.source
    is_path = source is not None and os.path.isabs(source)  # noqa: PTH117
    return document.file or (source if is_path else None)


def _is_moved_file(old: str | None, new: str | None, standing: str | None, ids: FileIds) -> bool:
    """Whether a file is at its new path, which another document has, and not at the old one."""
    if old is None or new is None or new != standing:
        return False
    return ids.has_file(new) and not ids.has_file(old)


def _placed(document: StoredId, old: str, new: str) -> Place:
    """Id, source and file of a document with another prefix."""
    id_ = _replaced(document.id, old, new)
    if not id_:
        raise ValueError(
            f"a document needs an id, and {document.id!r:.200} would have none at {new!r:.200}"
        )
    source, file = document.source, document.file
    return id_, source and _replaced(source, old, new), file and _replaced(file, old, new)


def _moves(document: StoredId, path: str) -> bool:
    """Whether a document is at a path, or below it."""
    return any(_begins(text, path) for text in (document.id, document.source, document.file))


def _is_absolute(path: str | os.PathLike[str]) -> bool:
    """Whether a path is absolute, or a URL."""
    return os.path.isabs(path) or "://" in os.fsdecode(path)  # noqa: PTH117


def _as_written(path: str | os.PathLike[str]) -> str:
    """Prefix of ids as it was given, without a slash at its end."""
    return as_id(os.fsdecode(path)).rstrip("/")


def _begins(text: str | None, prefix: str) -> bool:
    return text is not None and (text == prefix or text.startswith(f"{prefix}/"))


def _replaced(text: str, old: str, new: str) -> str:
    """An id or source with another prefix; unchanged if it does not have the old one."""
    if not _begins(text, old):
        return text
    rest = text[len(old) :]
    return f"{new}{rest}" if new or text.startswith("/") else rest.removeprefix("/")
