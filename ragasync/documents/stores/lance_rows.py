"""A document as the rows of a LanceStore's table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.models import Chunk, Document
from ragasync.documents.search_text import words_of
from ragasync.documents.store import as_json, chunk_id
from ragasync.documents.stores.lance_filter import digest, facts_of

if TYPE_CHECKING:
    import pyarrow as pa

Columns = dict[str, "Sequence[object] | pa.Array"]
"""The values of each column of a few rows."""


def columns_of(document: Document, chunks: Sequence[Chunk], fingerprint: str) -> Columns:
    """
    Return the rows of a document without their vectors: one for itself, then one a chunk.

    The first tells the fingerprint also where there are no chunks; it has ordinal -1.
    """
    count = len(chunks) + 1
    key = digest(document.id)
    of_document = as_json(document.metadata, document.id)
    of_chunks = [as_json(chunk.metadata, document.id) for chunk in chunks]
    metadata = json.loads(of_document)
    ids = [chunk_id(document.id, n, chunk.text) for n, chunk in enumerate(chunks)]
    return {
        "id": [f"document-{key}", *ids],
        "document": [key] * count,
        "document_id": [document.id] * count,
        "source": [document.source] * count,
        "file": [document.file] * count,
        "fingerprint": [fingerprint] * count,
        "text": [None, *[chunk.text for chunk in chunks]],
        "text_digest": [None, *[digest(chunk.text) for chunk in chunks]],
        "of_document": [of_document] * count,
        "of_chunk": ["{}", *of_chunks],
        "ordinal": range(-1, len(chunks)),
        "start": [0, *[chunk.start for chunk in chunks]],
        "end": [0, *[chunk.end for chunk in chunks]],
        "facts": _json([facts_of(metadata | json.loads(own)) for own in of_chunks]),
        "words": [None, *[_indexed(chunk.text) for chunk in chunks]],
    }


def _indexed(text: str) -> str:
    """Return the words to index; only SQLite looks for the beginnings of words."""
    return " ".join(words_of(text, singles=True))


def _json(chunks: Sequence[str]) -> pa.Array:
    """Return a column of JSON: that of each chunk, after nothing of the document itself."""
    import pyarrow as pa

    # Of this type, Lance stores it in parts; of the type that its schema tells, as it is.
    return pa.array(["{}", *chunks], type=pa.json_())


def vector_column(vectors: NDArray[np.float32], dimension: int) -> pa.Array:
    """Return the vectors of a document's rows: zeros for itself, which no search looks at."""
    import pyarrow as pa

    rows = np.zeros((len(vectors) + 1, dimension), dtype=np.float32)
    if len(vectors):
        rows[1:] = vectors
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), dimension)
