"""Rows of a LanceStore's table: one for each document, and one for each of its chunks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.models import Chunk, Document
from ragasync.documents.search_text import words_of
from ragasync.documents.store import as_json, chunk_id
from ragasync.documents.stores.lance_filter import digest, facts_of

if TYPE_CHECKING:
    import pyarrow as pa

Columns = Mapping[str, Sequence[object]]
"""The values of each column of a document's rows, without the vectors."""

_TEXTS = ("id", "document", "document_id", "source", "file", "fingerprint", "text")
_MORE_TEXTS = ("text_digest", "of_document", "of_chunk", "words")
_NUMBERS = ("ordinal", "start", "end")


def table_schema() -> pa.Schema:
    """Schema of the table before vectors are stored, whose length the first one determines."""
    import pyarrow as pa

    fields = [pa.field(name, pa.string()) for name in (*_TEXTS, *_MORE_TEXTS)]
    fields += [pa.field(name, pa.int64()) for name in _NUMBERS]
    fields.append(pa.field("facts", pa.json_()))
    return pa.schema(fields)


def columns_of(document: Document, chunks: Sequence[Chunk], fingerprint: str) -> Columns:
    """
    Columns of a document's rows: first the document's own row, then one row per chunk.

    The document's row, with ordinal -1, keeps the fingerprint of a document without chunks, too.

    Raises:
        TypeError: The metadata is not plain data.
        UnicodeEncodeError: A text of a chunk has a lone surrogate.
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
        "facts": ["{}", *[facts_of(metadata | json.loads(own)) for own in of_chunks]],
        # Only SQLite searches for words by their beginnings.
        "words": [None, *[" ".join(words_of(chunk.text, singles=True)) for chunk in chunks]],
    }


def as_rows(documents: Sequence[Columns]) -> pa.Table:
    """
    Arrow table of the rows of documents, without their vectors.

    Raises:
        TypeError, ValueError, OverflowError: A value is of another type than its column.
    """
    import pyarrow as pa

    # With these types and not those of the stored table: only from the type json_ does Lance
    # convert JSON to the binary form that its filters read.
    return pa.table(
        {
            field.name: pa.array(
                list(chain.from_iterable(columns[field.name] for columns in documents)), field.type
            )
            for field in table_schema()
        }
    )


def with_vectors(
    rows: pa.Table, vectors: Sequence[NDArray[np.float32]], dimension: int
) -> pa.Table:
    """
    Rows of documents with the column of vectors.

    Args:
        rows: The rows of the documents.
        vectors: The vectors of each document's chunks. A document's own row, which no search
            reads, has a vector of zeros.
        dimension: The length of a vector.
    """
    import pyarrow as pa

    matrix = np.zeros((rows.num_rows, dimension), dtype=np.float32)
    start = 0
    for each in vectors:
        if len(each):
            matrix[start + 1 : start + 1 + len(each)] = each
        start += 1 + len(each)
    column = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), dimension)
    return rows.append_column("vector", column)


def vectors_in(rows: pa.Table) -> NDArray[np.float32]:
    """Vectors of rows that were read, `(number of rows, dimension)`."""
    column = rows["vector"].combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    matrix: NDArray[np.float32] = flat.reshape(len(column), column.type.list_size)
    return matrix
