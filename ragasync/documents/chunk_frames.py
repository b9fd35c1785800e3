"""Chunks as a pandas table, of a result that kept them or of a store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ragasync.documents.document import Chunk
from ragasync.documents.frames import processed, result_columns
from ragasync.documents.hits import place_columns
from ragasync.documents.stages.processed import ProcessedDocument
from ragasync.outcomes.columns import Columns
from ragasync.outcomes.stats import RunResult
from ragasync.reports.reading import number_array, object_column, string_array

if TYPE_CHECKING:
    import pandas as pd


@runtime_checkable
class Tabled(Protocol):
    """A store that gives its chunks as a table, as `SqliteStore.to_dataframe` does."""

    def to_dataframe(self) -> pd.DataFrame:
        """Return a row a chunk."""


def chunks_dataframe(result_or_store: RunResult | Tabled) -> pd.DataFrame:
    """
    Return one row for each chunk.

    A result holds chunks where there was no store, or with `keep="all"`; else the store has them.

    Example:
        >>> from ragasync import AsyncDocumentProcessor, chunks_dataframe
        >>> result = AsyncDocumentProcessor().process_sync([("guide", "A bucket refills.")])
        >>> chunks_dataframe(result)[["document_id", "start", "end", "line", "text"]]
          document_id  start  end  line               text
        0       guide      0   17     1  A bucket refills.

    Args:
        result_or_store: what a document processor gave back, or a store with a `to_dataframe`.

    Returns:
        | column | dtype | |
        |---|---|---|
        | index | int64 | of a result: its source's place among the sources |
        | document_id, source | string | missing where a document is from nowhere |
        | ordinal | int64 | its place among the document's chunks, from 0 |
        | start, end | int64 | offsets in the document's text |
        | line, page | Int64 | where it starts, from 1; missing where that is not known |
        | heading | string | the headings above it; missing where there is none |
        | text | string | |
        | metadata | object | of the document, with the chunk's own over it: a dict |
        | embedding | object | of a result: a float32 array |

    Raises:
        TypeError: neither a result of a document processor nor such a store was given.
        ValueError: the result holds no chunks, because a store has them.
    """
    if not hasattr(result_or_store, "columns") and isinstance(result_or_store, Tabled):
        return _of_store(result_or_store)
    columns = result_columns("chunks_dataframe", result_or_store)  # type: ignore[arg-type]
    return _of_result(columns)


def _of_store(store: Tabled) -> pd.DataFrame:
    """Return a store's chunks, with their places as columns."""
    frame = store.to_dataframe()
    if "metadata" not in frame or "end" not in frame:
        return frame  # another store's own
    after = list(frame.columns).index("end") + 1
    for place, (name, values) in enumerate(
        place_columns(list(frame["metadata"])).items(), start=after
    ):
        frame.insert(place, name, values)
    return frame


def _of_result(columns: Columns[Any, Any]) -> pd.DataFrame:
    """Return the chunks that a result holds."""
    import pandas as pd

    rows = list(_chunks(columns))
    metadata = [
        {**(each.document.metadata if each.document else {}), **chunk.metadata}
        for _, each, _, chunk in rows
    ]
    return pd.DataFrame(
        {
            "index": number_array([index for index, *_ in rows], "int64"),
            "document_id": string_array([each.id for _, each, _, _ in rows]),
            "source": string_array([_or_missing(each.source) for _, each, _, _ in rows]),
            "ordinal": number_array([ordinal for *_, ordinal, _ in rows], "int64"),
            "start": number_array([chunk.start for *_, chunk in rows], "int64"),
            "end": number_array([chunk.end for *_, chunk in rows], "int64"),
            **place_columns(metadata),
            "text": string_array([chunk.text for *_, chunk in rows]),
            "metadata": object_column(metadata),
            "embedding": object_column([_vector(each, at) for _, each, at, _ in rows]),
        }
    )


def _chunks(columns: Columns[Any, Any]) -> Iterator[tuple[int, ProcessedDocument, int, Chunk]]:
    """
    Yield the chunks of all documents: the source's index, the document, ordinal and chunk.

    Raises:
        ValueError: there are documents, and none has its chunks.
    """
    found = processed(columns)
    documents = [(row, one) for row, each in found.items() for one in each.documents or (each,)]
    if all(one.chunks is None for _, one in documents) and any(
        one.chunk_count != 0 for _, one in documents
    ):
        raise ValueError(
            "this result holds no chunks, for the store has them: pass the store, as in "
            'chunks_dataframe(store), or have the processor keep them too by keep="all"'
        )
    for row, one in documents:
        for ordinal, chunk in enumerate(one.chunks or ()):
            yield columns.index_of(row), one, ordinal, chunk


def _vector(document: ProcessedDocument, ordinal: int) -> object:
    """Return the vector of a chunk, if it was kept."""
    return None if document.embeddings is None else document.embeddings[ordinal]


def _or_missing(text: str | None) -> object:
    """Return a text, or what pandas has for none."""
    import pandas as pd

    return pd.NA if text is None else text
