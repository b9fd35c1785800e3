"""What the pipeline gives back for each source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ragasync.documents.document import Chunk, Document
from ragasync.documents.loaders.records import BAD_ROWS
from ragasync.reports.summary import counted


@dataclass(frozen=True, slots=True, repr=False)
class ProcessedDocument:
    """
    One document that went through the pipeline, or the documents of one source together.

    Example:
        >>> from ragasync import AsyncDocumentProcessor
        >>> result = AsyncDocumentProcessor().process_sync([("guide", "A bucket refills.")])
        >>> guide = result[0].value
        >>> guide.id, guide.chunk_count, guide.embeddings.shape
        ('guide', 1, (1, 1024))
        >>> guide.chunks
        (<Chunk 0:17 'A bucket refills.'>,)

    Args:
        id: the document's id; of several, that of their source.
        source: where it came from, or None.
        chunk_count: how many chunks it has; None where it is unchanged and was not counted. Of
            several the sum, over those that were counted.
        unchanged: whether the store had it already, so that nothing was embedded.
        document: the document; None where a store keeps it, unless `keep="all"`, and for several.
        chunks: its chunks; likewise.
        embeddings: a float32 array of shape (chunks, dimension); likewise.
        fingerprint: what a store that can tell has it under; empty with any other.
        tokens: its chunks' share of the tokens of the calls that embedded them, by the length of
            their texts; None where no call reported any.
        document_count: how many documents its source gave: 0 where it was skipped.
        documents: where its source gave an iterable of documents, each of them; else None.
        skipped: why it was passed over, one of the reasons in `skip_unreadable`; else None.
        encoding: in which it was read, where that is not UTF-8; None likewise for several that
            differ, and for what is no text file.
        encoding_confidence: how likely that is, from 0 to 1, where it was guessed; else None.
        bad_rows: how many rows of its file were left out, where the loader counted any.
    """

    id: str
    source: str | None
    chunk_count: int | None
    unchanged: bool = False
    document: Document | None = None
    chunks: Sequence[Chunk] | None = None
    embeddings: NDArray[Any] | None = None
    fingerprint: str = ""
    tokens: int | None = None
    document_count: int = 1
    documents: Sequence[ProcessedDocument] | None = None
    skipped: str | None = None
    encoding: str | None = None
    encoding_confidence: float | None = None
    bad_rows: int | None = None

    def __repr__(self) -> str:
        if self.skipped is not None:
            return f"<ProcessedDocument {self.id!r}: skipped, {self.skipped}>"
        state = "unchanged" if self.chunk_count is None else f"{self.chunk_count:,} chunks"
        if self.documents is not None:
            state = f"{counted(self.document_count, 'document')}, {state}"
        return f"<ProcessedDocument {self.id!r}: {state}>"


def read_as(document: Document) -> dict[str, Any]:
    """Return in which encoding a document was read, by its metadata, where that says so."""
    encoding = document.metadata.get("encoding")
    if not isinstance(encoding, str):
        return {}
    confidence = document.metadata.get("encoding_confidence")
    known = confidence if isinstance(confidence, float) else None
    return {"encoding": encoding, "encoding_confidence": known}


def _read_alike(documents: Sequence[ProcessedDocument]) -> dict[str, Any]:
    """Return in which encoding the documents of one source were read, if in one."""
    found = {(each.encoding, each.encoding_confidence) for each in documents}
    if len(found) != 1:
        return {}
    encoding, confidence = found.pop()
    return {"encoding": encoding, "encoding_confidence": confidence}


def bad_rows_of(document: Document) -> int | None:
    """Return how many rows of a document's file its loader left out; None for none."""
    count = document.metadata.get(BAD_ROWS)
    return count if type(count) is int else None


def together(
    id_: str, source: str | None, documents: Sequence[ProcessedDocument]
) -> ProcessedDocument:
    """
    Return the documents of one source as one.

    Args:
        id_: the source's id.
        source: where they came from.
        documents: each of them; there may be none.
    """
    bad_rows = [each.bad_rows for each in documents if each.bad_rows is not None]
    chunks = [each.chunk_count for each in documents if each.chunk_count is not None]
    tokens = [each.tokens for each in documents if each.tokens is not None]
    return ProcessedDocument(
        id_,
        source,
        sum(chunks) if chunks or not documents else None,
        unchanged=bool(documents) and all(each.unchanged for each in documents),
        tokens=sum(tokens) if tokens else None,
        document_count=len(documents),
        documents=tuple(documents),
        bad_rows=max(bad_rows, default=None),
        **_read_alike(documents),
    )
