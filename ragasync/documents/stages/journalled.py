"""How a journal keeps processed documents: as JSON, and vectors as they lie in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from ragasync.documents.models import Chunk, Document
from ragasync.documents.stages.processed import ProcessedDocument
from ragasync.journal.serializers import SERIALIZERS

_FACTS = (
    "id",
    "source",
    "chunk_count",
    "unchanged",
    "fingerprint",
    "tokens",
    "document_count",
    "skipped",
    "encoding",
    "encoding_confidence",
    "bad_rows",
)
"""The fields of a ProcessedDocument that are kept whatever it has besides."""


class Documents:
    r"""
    Makes bytes of a ProcessedDocument and reads them again; nothing in them is ever run.

    A line of JSON has ids and counts. Where the document has them, a second one has its text and
    its chunks, followed by the vectors as float32, row by row. Where there are several documents
    of one source, the line has their lengths, and they follow one another.

    Args:
        everything: whether to read texts and vectors too, where they are there.
    """

    name = "documents"

    def __init__(self, *, everything: bool) -> None:
        self._everything = everything

    def dumps(self, value: object) -> bytes:
        """
        Return a document as bytes.

        Raises:
            TypeError: it is none, or its metadata would not come back as it is.
        """
        if not isinstance(value, ProcessedDocument):
            raise TypeError(f"it is no ProcessedDocument but of type {type(value).__name__}")
        facts = {name: getattr(value, name) for name in _FACTS}
        if value.documents is not None:
            parts = [self.dumps(each) for each in value.documents]
            return b"\n".join([_line(**facts, documents=list(map(len, parts))), b"".join(parts)])
        head = _line(**facts)
        return head if value.document is None else b"\n".join([head, *_whole(value)])

    def loads(self, data: bytes) -> ProcessedDocument:
        """Return the document that these bytes were made of."""
        head, _, rest = data.partition(b"\n")
        facts: dict[str, Any] = json.loads(head)
        if (lengths := facts.get("documents")) is not None:
            ends = list(accumulate(lengths, initial=0))
            facts["documents"] = tuple(self.loads(rest[a:b]) for a, b in pairwise(ends))
        elif rest and self._everything:
            facts |= _parts(rest, facts["id"], facts["source"])
        return ProcessedDocument(**facts)


def _whole(value: ProcessedDocument) -> tuple[bytes, bytes]:
    """Return the text and the chunks of a document as JSON, and its vectors."""
    document, chunks = value.document, value.chunks or ()
    assert document is not None  # or there is nothing to keep
    text, known = document.text, f"the metadata of document {document.id!r:.200}"
    vectors = np.ascontiguousarray(value.embeddings, dtype="<f4")
    body = _line(
        text=text,
        metadata=_plain(document.metadata, known),
        # Most chunks are cut from the text, and known by where.
        chunks=[
            (
                None if text[chunk.start : chunk.end] == chunk.text else chunk.text,
                chunk.start,
                chunk.end,
                _plain(chunk.metadata, f"{known}, chunk {number},"),
            )
            for number, chunk in enumerate(chunks, start=1)
        ],
        shape=vectors.shape,
    )
    return body, vectors.tobytes()


def _parts(data: bytes, id_: str, source: str | None) -> dict[str, Any]:
    """Return the fields of a ProcessedDocument that hold texts and vectors."""
    body, _, vectors = data.partition(b"\n")
    found = json.loads(body)
    text = found["text"]
    rows = np.frombuffer(vectors, dtype="<f4").reshape(found["shape"])
    return {
        "document": Document(id_, text, found["metadata"], source),
        "chunks": tuple(
            Chunk(text[start:end] if piece is None else piece, start, end, metadata)
            for piece, start, end, metadata in found["chunks"]
        ),
        "embeddings": rows.astype(np.float32),  # a copy that can be written to
    }


def _line(**facts: object) -> bytes:
    """Return facts as JSON, whose texts have no line's end in them."""
    return json.dumps(facts, separators=(",", ":")).encode()


def _plain(metadata: Mapping[str, object], what: str) -> dict[str, object]:
    """Return metadata as a dict that JSON gives back as it is."""
    plain = dict(metadata)
    try:
        SERIALIZERS["json"].dumps(plain)
    except TypeError as error:
        raise TypeError(
            f"because {what} is not plain data ({error}): make it texts, numbers, lists and dicts"
        ) from None
    return plain
