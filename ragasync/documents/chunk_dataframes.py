"""chunks_dataframe: the chunks of a result or of a store as a pandas DataFrame."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ragasync._outcomes.columns import Columns
from ragasync._outcomes.stats import RunResult
from ragasync._reports.dataframes import number_array, object_column, string_array
from ragasync.documents.dataframes import processed, result_columns
from ragasync.documents.hits import place_columns
from ragasync.documents.models import Chunk
from ragasync.documents.stages.processed import ProcessedDocument

if TYPE_CHECKING:
    import pandas as pd


@runtime_checkable
class Tabled(Protocol):
    """A store with a DataFrame of its chunks, such as SqliteStore."""

    def to_dataframe(self) -> pd.DataFrame:
        """DataFrame with one row per chunk."""


def chunks_dataframe(result_or_store: RunResult | Tabled) -> pd.DataFrame:
    """
    DataFrame with one row per chunk.

    Pass a result if the processor had no store or `keep_content=True`; otherwise pass the store.

    Example:
        >>> from ragasync import AsyncDocumentProcessor
        >>> from ragasync.documents import chunks_dataframe
        >>> result = AsyncDocumentProcessor().process_sync([("guide", "A bucket refills.")])
        >>> chunks_dataframe(result)[["document_id", "start", "end", "line", "text"]]
          document_id  start  end  line               text
        0       guide      0   17     1  A bucket refills.

    Args:
        result_or_store: the result of a document processor, or a store with `to_dataframe`.

    Returns:
        | column | dtype | |
        |---|---|---|
        | index | int64 | results only: the index of the source |
        | document_id, source | string | the source is missing for a Document without one |
        | ordinal | int64 | the chunk's position in its document, from 0 |
        | start, end | int64 | offsets in the document's text |
        | line, page | Int64 | of the first character, from 1; missing if unknown |
        | heading | string | the headings above it; missing if there are none |
        | text | string | |
        | metadata | object | a dict: of the document, overridden by the chunk's own |
        | embedding | object | results only: a float32 array |

    Raises:
        TypeError: the argument is neither a result of a document processor nor such a store.
        ValueError: the result holds no chunks, because the store has them.
    """
    if not hasattr(result_or_store, "columns") and isinstance(result_or_store, Tabled):
        return _of_store(result_or_store)
    columns = result_columns("chunks_dataframe", result_or_store)  # type: ignore[arg-type]
    return _of_result(columns)


def _of_store(store: Tabled) -> pd.DataFrame:
    """DataFrame of a store's chunks, with locations as columns."""
    frame = store.to_dataframe()
    if "metadata" not in frame or "end" not in frame:
        return frame  # a custom store with columns of its own
    after = list(frame.columns).index("end") + 1
    for place, (name, values) in enumerate(
        place_columns(list(frame["metadata"])).items(), start=after
    ):
        frame.insert(place, name, values)
    return frame


def _of_result(columns: Columns[Any, Any]) -> pd.DataFrame:
    """DataFrame of the chunks in a result."""
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
    Yield each chunk as (index of its source, document, ordinal, chunk).

    Raises:
        ValueError: the documents have no chunks in the result.
    """
    found = processed(columns)
    documents = [(row, one) for row, each in found.items() for one in each.documents or (each,)]
    if all(one.chunks is None for _, one in documents) and any(
        one.chunk_count != 0 for _, one in documents
    ):
        raise ValueError(
            "this result holds no chunks, because the store has them: call "
            "chunks_dataframe(store), or pass keep_content=True to the processor"
        )
    for row, one in documents:
        for ordinal, chunk in enumerate(one.chunks or ()):
            yield columns.index_of(row), one, ordinal, chunk


def _vector(document: ProcessedDocument, ordinal: int) -> object:
    """Vector of a chunk, if the result has it."""
    return None if document.embeddings is None else document.embeddings[ordinal]


def _or_missing(text: str | None) -> object:
    """A string, or pandas' missing value for None."""
    import pandas as pd

    return pd.NA if text is None else text
