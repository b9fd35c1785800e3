"""
What is asked of a store, worked out apart from its rows: searches, documents, and moves of files.

Search has the vector and words of a query, and joins rankings. accept_documents decides which
documents of a group are stored; relocation gives documents new ids after their files have moved.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from ragasync._bridge.run_async import run_async
from ragasync.documents.embedders import HashingEmbedder, have_feature_in_common, scaled_to_one
from ragasync.documents.models import Document, IdConflictError
from ragasync.documents.search import (
    Condition,
    Hit,
    Hits,
    keys_to_know,
    matches,
    warn_of_unknown,
)
from ragasync.documents.search_text import is_single, query_words
from ragasync.documents.sources import FileIds, as_id, plain_path
from ragasync.documents.store import (
    EmbedderMismatch,
    IdScheme,
    SearchMode,
    StoredDocument,
    StoredDocuments,
    StoredEmbedder,
    StoredId,
    check_embedder,
    check_id_scheme,
    check_source,
)

Key = TypeVar("Key", bound=Hashable)

JOINED = 50
"""Number of chunks of each ranking that are joined: none below is a good answer."""


_SPARSE = 8
"""A query is sparse if at most one in this number of its entries is not zero."""


def cosines_of_columns(
    columns: NDArray[np.float32], query: NDArray[np.float32]
) -> NDArray[np.float32]:
    """
    Dot product of a query with each column of a matrix.

    Args:
        columns: The vectors, `(dimension, n)`; of length 1, so that the product is the cosine.
        query: One vector of the same dimension.
    """
    entries = np.flatnonzero(query)
    if len(entries) * _SPARSE > len(query):
        return query @ columns
    # The query of a HashingEmbedder has few entries, and only their rows are read.
    cosines = np.zeros(columns.shape[1], dtype=np.float32)
    for entry in entries:
        cosines += query[entry] * columns[entry]
    return cosines


def top_k_cosine(
    cosines: NDArray[np.float32], k: int, among: NDArray[np.int64] | None = None
) -> list[tuple[int, float]]:
    """
    Find the largest cosines.

    Args:
        cosines: The cosines.
        k: The maximum number of results.
        among: The positions that may be returned, ascending; None for all.

    Returns:
        Pairs of a position and its cosine, the largest first; of equals, the earlier first.
    """
    values = cosines if among is None else cosines[among]
    if not len(values):
        return []
    k = min(k, len(values))
    bar = np.partition(values, -k)[-k]
    candidates = np.flatnonzero(values >= bar)
    best = candidates[np.argsort(-values[candidates], kind="stable")[:k]]
    positions = best if among is None else among[best]
    return list(zip(positions.tolist(), values[best].tolist(), strict=True))


def reciprocal_rank_fusion(*rankings: Sequence[Key], k: float = 5) -> list[tuple[Key, float]]:
    """
    Join rankings by reciprocal rank: a key that is high in several of them comes first.

    A key scores the sum of 1 / (k + rank) over the rankings that hold it, ranks counted from 1;
    the scores that the rankings came from, which have no common scale, play no part. Cormack,
    Clarke and Büttcher, Reciprocal Rank Fusion Outperforms Condorcet and Individual Rank Learning
    Methods (SIGIR 2009), set k to 60 for long rankings of a thousand. Of two short ones that puts
    any key that both hold, even in the last place, before the first of one: a small k found more of
    the expected answers, measured in benchmarks/retrieval.py.

    Args:
        rankings: Each a sequence of keys, the best first, no key twice.
        k: How little the first places count beyond the later ones.

    Returns:
        Pairs of a key and its score, the best first; of equals, the one that was met first.
    """
    scores: dict[Key, float] = {}
    for ranking in rankings:
        for rank, key in enumerate(ranking, start=1):
            scores[key] = scores.get(key, 0.0) + 1 / (k + rank)
    return sorted(scores.items(), key=lambda pair: -pair[1])


def fts5_expression(words: Sequence[str]) -> str:
    """
    FTS5 expression that matches any of these words.

    Each is quoted, so that nothing in it is syntax. A single character of a script without spaces
    begins the pairs that are indexed, see `words_of`.
    """
    return " OR ".join(f'"{word}"*' if is_single(word) else f'"{word}"' for word in words)


@dataclass(frozen=True, slots=True)
class Search:
    """
    The query of a search, and the criteria of a hit.

    Args:
        text: The text to search for.
        k: The maximum number of hits.
        mode: The ranking.
        min_score: The minimum cosine of a hit.
        vector: The vector of the text; None if none is needed or none is stored.
        hashed: Whether the vectors are a HashingEmbedder's. Its cosine of texts that have nothing
            in common is noise about 0, so that those are no hits.
        vector_is_given: Whether the vector may be of another text than `text`.
    """

    text: str
    k: int
    mode: SearchMode
    min_score: float | None
    vector: NDArray[np.float32] | None
    hashed: bool
    vector_is_given: bool

    @property
    def words(self) -> list[str]:
        """The words to look for; a text of any length may be searched for, at a bounded cost."""
        return query_words(self.text)

    @property
    def depth(self) -> int:
        """The number of chunks to rank by vectors, and by words."""
        return max(self.k, JOINED)

    def joined(
        self, near: Sequence[tuple[Key, float]], worded: Sequence[tuple[Key, float]]
    ) -> list[tuple[Key, float]]:
        """Ranking of the mode."""
        if self.mode != "hybrid":
            return [*(near if self.mode == "vector" else worded)]
        closer = [key for key, cosine in near if cosine > 0 or not self.hashed]
        return reciprocal_rank_fusion(closer, [key for key, _ in worded])

    def best_hits(
        self, ranking: Sequence[tuple[Key, float]], read: Callable[[list[Key]], list[Hit]]
    ) -> Hits:
        """
        Best hits of a ranking.

        Args:
            ranking: Chunks with their scores, best first.
            read: Reads chunks, each with its cosine and BM25 score, if it has any.
        """
        found = Hits(query=self.text)
        for start in range(0, len(ranking), self.k):  # the first block usually suffices
            block = ranking[start : start + self.k]
            hits = zip(read([key for key, _ in block]), block, strict=True)
            found += [replace(hit, score=score) for hit, (_, score) in hits if self._is_hit(hit)]
            if len(found) >= self.k:
                break
        return found[: self.k]

    def is_near(self, cosine: float | None) -> bool:
        """Whether a cosine is at least the minimum."""
        return self.min_score is None or (cosine is not None and cosine >= self.min_score)

    def _is_hit(self, hit: Hit) -> bool:
        """Whether a chunk has anything in common with the query."""
        if hit.keyword_score is not None or not self.hashed:
            return True
        if hit.vector_score is None or hit.vector_score <= 0:
            return False
        return self.vector_is_given or have_feature_in_common(hit.text, self.text)


Embed: TypeAlias = Callable[[Sequence[str]], Any]
"""
A function that turns texts into vectors, sync or async; its `name`, if it has one, is checked.

A method `query`, if there is one, embeds the text of a search: some models embed queries in another
way than documents.
"""


def search_for(
    text: str,
    k: int,
    mode: SearchMode,
    min_score: float | None,
    vector: NDArray[np.float32] | None,
    stored: StoredEmbedder,
    embedder: Embed | None,
    of_runs: Mapping[str, Embed],
) -> Search:
    """
    Make the search to run, with the vector of its text if one is needed; see Search.

    `embedder` is the store's own embedder of queries, and `of_runs` has those of runs by name.

    Raises:
        EmbedderMismatch: If the embedder is another, unknown, or gives another dimension.
        ValueError: If the vector has an entry that is not finite.
        RunAsyncError: If the embedder is async and bound to another event loop.
    """
    made = None
    if vector is not None:
        made = _query_vector(vector, stored, "vector=")
    elif mode != "keyword" or min_score is not None:
        found = _embedded(text, _query_embedder(stored.name, embedder, of_runs))
        made = _query_vector(found, stored, "that the embedder returned for the text")
    hashed = HashingEmbedder.from_name(stored.name) is not None
    return Search(text, int(k), mode, min_score, made, hashed, vector is not None)


def _query_vector(given: object, stored: StoredEmbedder, origin: str) -> NDArray[np.float32]:
    """Check the vector of a query, and scale it to length 1."""
    row = np.array(given, dtype=np.float64).reshape(1, -1)
    if not np.isfinite(row).all():
        raise ValueError(
            f"the vector to search by, {origin}, must have finite entries, got "
            f"{row[~np.isfinite(row)][0]}: correct what made it"
        )
    if row.shape[1] != stored.dimension:
        raise EmbedderMismatch(
            f"the store holds vectors of {stored.name!r} with {stored.dimension} dimensions, and "
            f"that of the text has {row.shape[1]}: pass embedder= the one that made the former"
        )
    scaled: NDArray[np.float32] = scaled_to_one(row)[0]
    return scaled


def _query_embedder(name: str, given: Embed | None, of_runs: Mapping[str, Embed]) -> Embed:
    """The embedder of a query, for stored vectors of this name."""
    if given is not None:
        own_name = getattr(given, "name", name)
        if own_name != name:
            raise EmbedderMismatch(
                f"the store holds vectors of {name!r}, and its embedder= is {own_name!r}: pass the "
                "one that made them, or store in another file"
            )
        return given
    embedder = of_runs.get(name, HashingEmbedder.from_name(name))
    if embedder is None:
        raise EmbedderMismatch(
            f"the store holds vectors of {name!r}, which has to embed the text too: pass embedder= "
            'to the store or vector= to the search, or search with mode="keyword"'
        )
    return embedder


def _embedded(text: str, embedder: Embed) -> object:
    query = getattr(embedder, "query", None)
    made: object = query(text) if callable(query) else embedder([text])
    if hasattr(made, "__await__"):
        made = run_async(cast("Awaitable[object]", made))
    return made


def selected(
    documents: Sequence[StoredDocument],
    condition: Condition | None,
    all_keys: Callable[[], Collection[str]],
) -> StoredDocuments:
    """
    Documents that match a condition, which does not apply to the metadata of their chunks.

    If the condition has a key that no document has, there is a warning, and no document matches.

    Args:
        documents: All stored documents.
        condition: The condition; None for all.
        all_keys: Returns the metadata keys of documents and of chunks.
    """
    if condition is None:
        return StoredDocuments(documents)
    known = {key for document in documents for key in document.metadata}
    unknown = [key for key in keys_to_know(condition) if key not in known] if documents else []
    if unknown:
        warn_of_unknown(unknown, known, all_keys(), stacklevel=4)
        return StoredDocuments()
    return StoredDocuments(
        each for each in documents if matches(condition, each.id, each.source, each.metadata, {})
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


@dataclass(frozen=True, slots=True)
class Relocation:
    """
    Changes of a store after files have moved.

    Args:
        moves: by their ids, documents with their new ids, sources and files.
        superseded: the ids of those to delete, because they are stored under the new id already.
        scheme: the form of the ids of files afterwards, if it changes.
        count: the number of documents at the new path.
    """

    moves: Mapping[str, StoredId] = field(default_factory=dict)
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
    """
    for name, given in (("old", old), ("new", new)):
        if not isinstance(given, str | os.PathLike):
            raise TypeError(f"{name} must be a path or a prefix of ids, got {given!r:.200}")
    documents = list(stored)
    root = scheme.root if scheme is not None and scheme.relative else None
    ids = FileIds(root)
    # As they were given, without a slash at the end.
    written = as_id(os.fsdecode(old)).rstrip("/"), as_id(os.fsdecode(new)).rstrip("/")
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
    moves: dict[str, StoredId] = {}
    for each in documents:
        for old, new in pairs:
            if _moves(each, old):
                moves[each.id] = _placed(each, old, new)
                break
    moving = [each for each in documents if each.id in moves]
    there = {each.id: each for each in documents if moves.get(each.id, each).id == each.id}
    superseded = []
    for each in moving:
        moved = moves[each.id]
        standing = there.setdefault(moved.id, each)
        if standing is each:
            continue
        is_same = each.fingerprint == standing.fingerprint
        if not (is_same or _is_moved_file(each, moved, standing, ids)):
            raise IdConflictError(
                f"the store has {each.id!r:.200} and {standing.id!r:.200} with different contents, "
                "and no file is known to have moved from the one to the other: delete one of "
                "these documents first, or give other paths",
                moved.id,
                each.id,
                standing.id,
            )
        superseded.append(each.id)
    for id_ in superseded:
        del moves[id_]
    return Relocation(moves, superseded, count=len(moving))


def _is_moved_file(old: StoredId, new: StoredId, standing: StoredId, ids: FileIds) -> bool:
    """Whether a file is at its new path, which another document has, and not at the old one."""
    # A source that is an absolute path is a file.
    before, after, other = (
        each.file or (each.source if os.path.isabs(each.source or "") else None)  # noqa: PTH117
        for each in (old, new, standing)
    )
    if before is None or after is None or after != other:
        return False
    return ids.has_file(after) and not ids.has_file(before)


def _placed(document: StoredId, old: str, new: str) -> StoredId:
    """A document whose id, source and file have another prefix."""
    id_ = _replaced(document.id, old, new)
    if not id_:
        raise ValueError(
            f"a document needs an id, and {document.id!r:.200} would have none at {new!r:.200}"
        )
    source, file = (each and _replaced(each, old, new) for each in (document.source, document.file))
    return StoredId(id_, source, document.fingerprint, file)


def _moves(document: StoredId, path: str) -> bool:
    """Whether a document is at a path, or below it."""
    return any(_begins(text, path) for text in (document.id, document.source, document.file))


def _is_absolute(path: str | os.PathLike[str]) -> bool:
    """Whether a path is absolute, or a URL."""
    return os.path.isabs(path) or "://" in os.fsdecode(path)  # noqa: PTH117


def _begins(text: str | None, prefix: str) -> bool:
    return text is not None and (text == prefix or text.startswith(f"{prefix}/"))


def _replaced(text: str, old: str, new: str) -> str:
    """An id or source with another prefix; unchanged if it does not have the old one."""
    if not _begins(text, old):
        return text
    rest = text[len(old) :]
    return f"{new}{rest}" if new or text.startswith("/") else rest.removeprefix("/")
