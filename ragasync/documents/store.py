"""Store: the protocol of stores of embedded chunks, its errors, and its value objects."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from math import isfinite
from typing import (
    TYPE_CHECKING,
    Literal,
    NamedTuple,
    Protocol,
    TypeAlias,
    get_args,
)

import numpy as np
from numpy.typing import NDArray

from ragasync._reports.dataframes import number_array, object_column, string_array
from ragasync._reports.summary import counted
from ragasync.arguments import check_count, check_number
from ragasync.documents.models import Chunk, Document, IdConflictError
from ragasync.documents.search import Filter, Hits
from ragasync.errors import RagasyncError
from ragasync.object_views import object_html
from ragasync.sqlite_file import explain_surrogate

if TYPE_CHECKING:
    import pandas as pd

SearchMode: TypeAlias = Literal["hybrid", "vector", "keyword"]
"""How a search ranks: by cosine, by common words, or by both."""


class StoreError(RagasyncError):
    """
    A store cannot be read or written: it is damaged, foreign, locked or closed.

    Example:
        >>> from ragasync.documents import SqliteStore, StoreError
        >>> store = SqliteStore("library.sqlite")
        >>> store.close()
        >>> try:
        ...     store.search("a bucket")
        ... except StoreError as error:
        ...     print(error)
        the store '/...library.sqlite' is closed: open it again
    """

    _of_whole_call = True


class EmbedderMismatch(StoreError, ValueError):
    """
    A store holds vectors of another embedder than the given one.

    Example:
        >>> from ragasync import AsyncDocumentProcessor
        >>> from ragasync.documents import HashingEmbedder, MemoryStore, EmbedderMismatch
        >>> store = MemoryStore()
        >>> _ = AsyncDocumentProcessor(store=store).process_sync([("guide", "A bucket refills.")])
        >>> store.embedder = HashingEmbedder(64)
        >>> try:
        ...     store.search("a bucket")
        ... except EmbedderMismatch as error:
        ...     print(error)
        the store holds vectors of 'hashing-1024-v2', and its embedder= is 'hashing-64-v2': ...
        >>> store.close()
    """


class StoreNotWritable(StoreError):
    """Nothing can be stored, because the store is read-only, its disk full, or its file gone."""


class RunRefused(StoreError, ValueError):
    """
    A run was refused before it started, because stored documents would be lost.

    Example:
        >>> from pathlib import Path
        >>> from ragasync import AsyncDocumentProcessor
        >>> from ragasync.documents import MemoryStore, RunRefused
        >>> store, folder = MemoryStore(), Path("shared")
        >>> folder.mkdir()
        >>> _ = (folder / "notes.md").write_text("A bucket refills.")
        >>> processor = AsyncDocumentProcessor(store=store)
        >>> _ = processor.process_sync(folder)
        >>> (folder / "notes.md").unlink()
        >>> try:
        ...     processor.process_sync(folder, prune=True)
        ... except RunRefused as error:
        ...     print(error)
        the folder '...shared' is empty, and the store has 1 of its documents, which prune=True ...
        >>> store.close()
    """


@dataclass(frozen=True, slots=True, repr=False)
class StoredDocument:
    """
    A document as stored: its metadata, and its chunks.

    Example:
        >>> from ragasync import AsyncDocumentProcessor
        >>> from ragasync.documents import MemoryStore
        >>> store = MemoryStore()
        >>> _ = AsyncDocumentProcessor(store=store).process_sync([("guide", "A bucket refills.")])
        >>> store.get("guide")
        <StoredDocument 'guide': 1 chunk>
        >>> store.get("guide").text
        'A bucket refills.'
        >>> store.close()

    Args:
        id: Its id.
        source: The `source` of the document, or None.
        metadata: The metadata of the document.
        fingerprint: The fingerprint that it was stored with; see `Store.fingerprint_of`.
        chunk_count: The number of its chunks.
        chunks: Its chunks in order; None in a list of documents, because only `get` loads them.
        file: The id of the file that it was loaded from; None for a document that the user made.
    """

    id: str
    source: str | None
    metadata: Mapping[str, object] = field(hash=False)
    fingerprint: str
    chunk_count: int
    chunks: tuple[Chunk, ...] | None = None
    file: str | None = None

    @property
    def text(self) -> str:
        """
        The text as far as the chunks cover it, with line breaks in the gaps between them.

        Raises:
            ValueError: The document is from a list of documents, which has no chunks.
        """
        if self.chunks is None:
            raise ValueError(f"a list of documents has no texts: call store.get({self.id!r:.200})")
        if any(len(chunk.text) != chunk.end - chunk.start for chunk in self.chunks):
            return "\n\n".join(chunk.text for chunk in self.chunks)  # the splitter rewrote it
        parts, end = [], 0
        for chunk in sorted(self.chunks, key=lambda chunk: chunk.start):
            parts += ["\n" * (chunk.start - end), chunk.text[max(0, end - chunk.start) :]]
            end = max(end, chunk.end)
        return "".join(parts)

    def __repr__(self) -> str:
        return f"<StoredDocument {self.id!r:.200}: {counted(self.chunk_count, 'chunk')}>"

    def _repr_html_(self) -> str:
        """The fields as a table, with the beginning of the text."""
        facts = [("source", self.source), ("metadata", self.metadata or None)]
        text = None if self.chunks is None else "\n".join(c.text for c in self.chunks[:10])
        return object_html(self, facts, text=text)


class StoredDocuments(list[StoredDocument]):
    """
    A list of stored documents; a notebook shows it as a table.

    Example:
        >>> from ragasync import AsyncDocumentProcessor
        >>> from ragasync.documents import Document, MemoryStore
        >>> store = MemoryStore()
        >>> guide = Document("guide", "A bucket refills.", {"lang": "en"})
        >>> _ = AsyncDocumentProcessor(store=store).process_sync(guide)
        >>> store.documents().to_dataframe()[["id", "chunks", "metadata"]]
              id  chunks        metadata
        0  guide       1  {'lang': 'en'}
        >>> store.close()
    """

    def to_dataframe(self) -> pd.DataFrame:
        """DataFrame with one row per document: id, source, chunks, fingerprint and metadata."""
        import pandas as pd

        return pd.DataFrame(
            {
                "id": string_array([each.id for each in self]),
                "source": string_array([each.source for each in self]),
                "chunks": number_array([each.chunk_count for each in self], "int64"),
                "fingerprint": string_array([each.fingerprint for each in self]),
                "metadata": object_column([dict(each.metadata) for each in self]),
            }
        )

    def _repr_html_(self) -> str:
        """The table as HTML with escaped values; pandas leaves out rows in the middle."""
        return str(self.to_dataframe().to_html(max_rows=20, notebook=True))

    def __repr__(self) -> str:
        return f"<StoredDocuments: {len(self):,}>"


class StoredEntry(NamedTuple):
    """The fingerprint, source, file and metadata that a document was stored with."""

    fingerprint: str
    source: str | None
    file: str | None
    metadata: Mapping[str, object]


class StoredId(NamedTuple):
    """The id, source, fingerprint and file of a stored document."""

    id: str
    source: str | None
    fingerprint: str
    file: str | None = None


@dataclass(frozen=True, slots=True)
class IdScheme:
    """
    The form of the ids of files in a store.

    Args:
        relative: whether they are paths below a root; else they are absolute.
        root: the root of the last run, if they are relative: a hint, perhaps from another machine.
        is_mixed: whether a later run under another root has met less than half of the documents.
    """

    relative: bool
    root: str | None = None
    is_mixed: bool = False


class Store(Protocol):
    """
    A store keeps documents as embedded chunks, and searches the chunks.

    The methods are synchronous and may be called from any thread. A document is stored completely
    or not at all; it is stored when `upsert` returns. A store may also have `upsert_many`, which
    takes several documents in one transaction, see `StoreRequest`; `sources_within(prefix)`, which
    `prune=True` needs, the ids and files of the documents that have a file whose id begins with a
    prefix; and `vectors_of(embedder, texts)`, the vectors that an embedder made of texts before,
    None for each unknown one.

    Example:
        >>> from ragasync.documents import Chunk, Document, HashingEmbedder, MemoryStore, Store
        >>> embed = HashingEmbedder()
        >>> store: Store = MemoryStore()
        >>> guide = Document("guide", "A bucket refills.")
        >>> chunks = [Chunk(guide.text, 0, len(guide.text))]
        >>> store.upsert(guide, chunks, embed([guide.text]), fingerprint="1", embedder=embed.name)
        >>> store.fingerprint_of("guide")
        '1'
        >>> store.close()
    """

    def upsert(
        self,
        document: Document,
        chunks: Sequence[Chunk],
        embeddings: NDArray[np.float32],
        *,
        fingerprint: str,
        embedder: str,
    ) -> None:
        """
        Store a document, and replace the one with its id, in one transaction.

        A store that knows the sources of its documents raises an IdConflictError for a document
        whose id is stored for another source.
        """

    def fingerprint_of(self, document_id: str) -> str | None:
        """Fingerprint that a document was stored with, or None if it is not stored."""

    def delete(self, document_id: str) -> bool:
        """Delete a document and its chunks; False if it was not stored."""

    def search(
        self,
        text: str,
        k: int = 10,
        *,
        mode: SearchMode = "hybrid",
        where: Filter | None = None,
        min_score: float | None = None,
        vector: NDArray[np.float32] | None = None,
    ) -> Hits:
        """Search for the `k` best chunks for a text, among those that match `where`."""

    def close(self) -> None:
        """Close files and connections; calling it again has no effect."""


class StoreRequest(NamedTuple):
    """
    A document to store: what `upsert` takes of one document, as an entry of `upsert_many`.

    A Store of your own may have `upsert_many(requests, *, embedder)`. A run then calls it for all
    documents that wait, instead of `upsert` for each. A document that cannot be stored fails alone:
    the call returns None or an error per request. It raises a StoreError if nothing can be stored.

    Example:
        >>> from ragasync.documents import Chunk, Document, HashingEmbedder, MemoryStore
        >>> from ragasync.documents import StoreRequest
        >>> embed, store = HashingEmbedder(), MemoryStore()
        >>> guide = Document("guide", "A bucket refills.")
        >>> chunks = [Chunk(guide.text, 0, len(guide.text))]
        >>> request = StoreRequest(guide, chunks, embed([guide.text]), fingerprint="1")
        >>> store.upsert_many([request], embedder=embed.name)
        [None]
        >>> store.close()

    Args:
        document: the document.
        chunks: its chunks, in order.
        embeddings: their vectors, `(len(chunks), dimension)`.
        fingerprint: the result of `fingerprint_of` from now on.
    """

    document: Document
    chunks: Sequence[Chunk]
    embeddings: NDArray[np.float32]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class StoredEmbedder:
    """
    The embedder of the vectors in a store.

    Args:
        name: the embedder's name.
        dimension: the length of the vectors.
        identity: what else identifies it; empty if nothing was given.
    """

    name: str
    dimension: int
    identity: str = ""


def check_search(mode: str, k: int, min_score: float | None) -> None:
    """Check the arguments of a search."""
    if mode not in get_args(SearchMode):
        raise ValueError(f"mode must be one of {get_args(SearchMode)}, got {mode!r:.200}")
    check_count("k", k, at_least=1)
    if min_score is not None and check_number("min_score", min_score, at_least=-1) > 1:
        raise ValueError(f"min_score is a cosine, at most 1, got {min_score!r}")


def check_embedder(stored: StoredEmbedder | None, given: StoredEmbedder) -> None:
    """Refuse vectors of another embedder than that of the stored vectors, if there are any."""
    if stored is None:
        return
    if (stored.name, stored.dimension) != (given.name, given.dimension):
        raise EmbedderMismatch(
            f"the store holds vectors of {stored.name!r} with {stored.dimension} dimensions, and "
            f"these are of {given.name!r} with {given.dimension}: use the former, or store in "
            "another file"
        )
    if stored.identity and given.identity and stored.identity != given.identity:
        raise EmbedderMismatch(
            f"the store holds vectors of another {stored.name!r}, which another run has stored "
            "since this one began: use that embedder, or store in another file"
        )


def check_source(document: Document, stored: str | None) -> None:
    """Refuse a document with an id that is stored for another source."""
    if stored != document.source:
        raise IdConflictError.with_stored(document.id, stored, document.source)


def check_id_scheme(document: Document, scheme: IdScheme | None) -> None:
    """Refuse a document of a file that has an id of the other form."""
    if document.file is None or scheme is None:
        return
    if os.path.isabs(document.file) is scheme.relative:  # noqa: PTH117  # an id
        raise RunRefused(
            f"expected {'a relative' if scheme.relative else 'an absolute'} path as the id of a "
            "file, as in another run that has started to use this store in the meantime, got "
            f"{document.file!r:.200}: give all runs the same root=, or use another store"
        )


def check_storable(document: Document, chunks: Sequence[Chunk]) -> None:
    """
    Check that SqliteStore and LanceStore can store a document, before it is embedded.

    Raises:
        TypeError: metadata that is not plain data.
        ValueError: a text or an id with a lone surrogate, which UTF-8 cannot hold.
    """
    for text in (document.id, document.source, *(chunk.text for chunk in chunks)):
        if text is not None and not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                explain_surrogate(error)
                raise
    for metadata in (document.metadata, *(chunk.metadata for chunk in chunks)):
        for key, value in metadata.items():
            if type(key) is not str or type(value) not in _PLAIN:
                as_json(metadata, document.id)
                break


def is_encodable(text: str) -> bool:
    """Whether UTF-8 can encode a text, which it cannot if there is a lone surrogate."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


_PLAIN = (str, int, float, bool, type(None))
"""Types whose values JSON can always hold."""


def as_json(metadata: Mapping[str, object], document_id: str) -> str:
    """Metadata as JSON, with dates as texts, which conditions compare with dates."""
    try:
        return _flat_json(metadata) or _encode_json(dict(metadata))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"the metadata of document {document_id!r} must be plain data that JSON can hold: "
            f"{error}"
        ) from error


def _flat_json(metadata: Mapping[str, object]) -> str | None:
    """JSON of metadata with only numbers and texts, as most have, in a quarter of the time."""
    parts = []
    for key, value in metadata.items():
        if type(key) is not str:
            return None
        if type(value) is int:
            parts.append(f"{_quoted_key(key)}: {value}")
        elif type(value) is str:
            parts.append(f"{_quoted_key(key)}: {encode_basestring_ascii(value)}")
        elif type(value) is float and isfinite(value):
            parts.append(f"{_quoted_key(key)}: {value!r}")
        else:
            return None
    return f"{{{', '.join(parts)}}}"


@lru_cache
def _quoted_key(key: str) -> str:
    return encode_basestring_ascii(key)


def _date_as_text(value: object) -> str | None:
    """A date as an ISO 8601 text, and NaT as None."""
    if isinstance(value, date):
        return value.isoformat() if value == value else None  # pandas.NaT is a date
    way = "value.item() or value.tolist()" if hasattr(value, "tolist") else "str(value)"
    raise TypeError(
        f"{value!r:.200} is of {type(value).__name__}, which JSON cannot hold: pass {way}"
    )


_encode_json = json.JSONEncoder(default=_date_as_text).encode


def checked_vectors(embeddings: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """
    Convert embeddings to finite float32 rows, one per chunk.

    Args:
        embeddings: The result of an embedder, `(count, dimension)`; ignored if `count` is 0.
        count: The number of chunks.

    Returns:
        A float32 array `(count, dimension)`, little-endian and contiguous.

    Raises:
        ValueError: If the shape is another or an entry is not finite.
    """
    if count == 0:
        return np.zeros((0, 0), dtype="<f4")
    # Entries out of range become infinite, and are refused below.
    with np.errstate(over="ignore", invalid="ignore"):
        rows = np.ascontiguousarray(embeddings, dtype="<f4")
        # An entry that is not finite makes the sum so: a third of the time of checking each entry.
        is_finite = bool(np.isfinite(rows.sum()))
    if rows.ndim != 2 or len(rows) != count or rows.shape[1] == 0:
        raise ValueError(
            f"expected a row of numbers for each of {count} chunks, got an array of shape "
            f"{rows.shape}: the embedder must return (number of texts, dimension)"
        )
    if not (is_finite or np.isfinite(rows).all()):
        bad = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise ValueError(
            f"the embedding of chunk {bad} has entries that are not finite: correct the embedder, "
            "which may divide by the length of an empty text's vector"
        )
    return rows
