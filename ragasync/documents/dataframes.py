"""DataFrames of the results of a run: by source, by stage, and by chunk."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ragasync._outcomes.columns import Columns
from ragasync._outcomes.outcome import DONE, FAILED, PENDING
from ragasync._outcomes.stats import RunResult, StageStats
from ragasync._reports.dataframes import DataFrameBuilder, number_array, object_column, string_array
from ragasync._reports.summary import counted
from ragasync._reports.time_breakdown import stage_index, utilization
from ragasync.documents.document_records import ProcessedDocument, id_of, source_path
from ragasync.documents.models import Chunk
from ragasync.documents.search import place_columns
from ragasync.errors import JournaledError

if TYPE_CHECKING:
    import pandas as pd


def documents_dataframe(result: RunResult) -> pd.DataFrame:
    """
    DataFrame with one row per source of a run.

    The index is that of `to_dataframe`: the labels of a DataFrame's rows, or else `item_index`, the
    original indices of the sources. So a selection of rows can be run again:
    `result.retry_failed(processor, only=frame.index)`.

    Example:
        >>> from pathlib import Path
        >>> from ragasync import AsyncDocumentProcessor
        >>> from ragasync.documents import documents_dataframe
        >>> for name, text in [("good.md", "A bucket refills."), ("bad.md", "")]:
        ...     _ = Path(name).write_text(text)
        >>> result = AsyncDocumentProcessor(root=".").process_sync(".")
        >>> documents_dataframe(result)[["id", "status", "stage", "chunks", "error_message"]]
                         id  status stage  chunks             error_message
        item_index
        0            bad.md  failed  load    <NA>  empty: a file of 0 bytes
        1           good.md    done   NaN       1                      <NA>

    Args:
        result: the result of a document processor.

    Returns:
        | column | dtype | |
        |---|---|---|
        | id, source | string | from the source itself until it is done; may be missing |
        | status | category | pending, done, failed, cancelled: always all four categories |
        | stage | category | the stage that failed; missing if none did |
        | chunks | Int32 | missing if not counted, as for unchanged documents |
        | documents | Int32 | documents loaded from the source; missing if it is not done |
        | bad_rows | Int32 | rows of the file that were skipped; missing if there were none |
        | tokens | Int64 | tokens of its calls, also failed ones; missing if none were reported |
        | unchanged | bool | whether the store had it already |
        | skipped | category | the reason why it was skipped; missing if it was not |
        | encoding | category | the encoding of the file; missing for UTF-8 and ASCII |
        | encoding_confidence | float64 | of a guessed encoding, 0 to 1; else NaN |
        | recalled | bool | whether the outcome comes from the journal of an earlier run |
        | seconds | float64 | time in the stages; NaN if not started |
        | error_type | category | class name without module; missing if nothing failed |
        | error_message | string | the full message; missing if nothing failed |

    Raises:
        TypeError: `result` is not a result of a document processor.
    """
    import pandas as pd

    columns = _result_columns("documents_dataframe", result)
    taken = DataFrameBuilder(columns, range(len(columns)))
    errors = {row: columns.error_text(row) for row in taken.sparse(columns.errors)}
    found = _processed(columns)
    skipped = {row: each.skipped for row, each in found.items() if each.skipped is not None}
    encodings = {row: each.encoding for row, each in found.items() if each.encoding is not None}
    return pd.DataFrame(
        {
            "id": taken.strings(_ids(columns, found)),
            "source": taken.strings(_sources(columns, found)),
            "status": taken.status(),
            "stage": taken.categories(taken.sparse(columns.stages)),
            "chunks": _numbers(columns, found, "chunk_count", "Int32"),
            "documents": _numbers(columns, found, "document_count", "Int32"),
            "bad_rows": _numbers(columns, found, "bad_rows", "Int32"),
            "tokens": taken.tokens(),
            "unchanged": _flags(columns, {row: each.unchanged for row, each in found.items()}),
            "skipped": taken.categories(skipped),
            "encoding": taken.categories(encodings),
            "encoding_confidence": _numbers(columns, found, "encoding_confidence", "float64"),
            "recalled": _flags(columns, _recalled(columns)),
            "seconds": taken.seconds(columns.seconds),
            "error_type": taken.categories({at: text.kind for at, text in errors.items()}),
            "error_message": taken.strings({at: text.message for at, text in errors.items()}),
        },
        index=taken.index,
        copy=False,  # each column was made for this frame
    )


def stages_dataframe(result: RunResult) -> pd.DataFrame:
    """
    DataFrame with one row per stage of a run, in data-flow order.

    Example:
        >>> from ragasync import AsyncDocumentProcessor
        >>> from ragasync.documents import stages_dataframe
        >>> result = AsyncDocumentProcessor().process_sync([("guide", "A bucket refills.")])
        >>> stages_dataframe(result)[["stage", "calls", "items", "failed"]]
                    stage  calls  items  failed
        0  load and chunk      1      1       0
        1           embed      1      1       0

    Args:
        result: the result of a document processor, also that of a running job.

    Returns:
        | column | dtype | |
        |---|---|---|
        | stage | string | its name; "load and chunk" if one call does both |
        | max_concurrency | int64 | maximum number of concurrent calls |
        | calls | int64 | finished calls, including retries |
        | items | int64 | finished or failed items: chunks for embed, else documents |
        | failed | int64 | sources that failed in this stage |
        | worked | float64 | total seconds in its calls |
        | waited | float64 | total seconds its calls waited for the rate limit |
        | busy | float64 | share of the time in either, 1 if all its calls always were |
        | tokens | int64 | tokens reported by its calls |
        | cost | float64 | cost reported by its calls |

    Raises:
        TypeError: `result` is not a result of a document processor.
    """
    import pandas as pd

    columns, stages = _result_columns("stages_dataframe", result), result.stats.stages
    failed = _failures(columns, stages)

    return pd.DataFrame(
        {
            "stage": string_array([stage.name for stage in stages]),
            "max_concurrency": number_array([stage.max_concurrency for stage in stages], "int64"),
            "calls": number_array([stage.calls for stage in stages], "int64"),
            "items": number_array([stage.ended for stage in stages], "int64"),
            "failed": number_array(failed, "int64"),
            "worked": number_array([stage.worked for stage in stages], "float64"),
            "waited": number_array([stage.limiter_waited for stage in stages], "float64"),
            "busy": number_array(
                [utilization(stage, result.seconds) for stage in stages], "float64"
            ),
            "tokens": number_array([stage.tokens for stage in stages], "int64"),
            "cost": number_array([stage.cost for stage in stages], "float64"),
        }
    )


def _result_columns(what: str, result: RunResult) -> Columns[Any, Any]:
    """Columns of a result of a document processor; TypeError for anything else."""
    columns = getattr(result, "columns", None)
    if not isinstance(columns, Columns):
        raise TypeError(
            f"{what} needs the result of a document processor (of a Job: job.result), got "
            f"{result!r:.200}"
        )
    for row in columns.rows_with(DONE):
        if not isinstance(columns.results[row], ProcessedDocument):
            raise TypeError(
                f"{what} needs the result of a document processor, got one with the value "
                f"{columns.results[row]!r:.200}: see to_dataframe"
            )
    return columns


def _processed(columns: Columns[Any, Any]) -> dict[int, ProcessedDocument]:
    """ProcessedDocument of each successful source, by row."""
    results: Sequence[Any] = columns.results
    return {row: results[row] for row in columns.rows_with(DONE)}


def _ids(columns: Columns[Any, Any], found: Mapping[int, ProcessedDocument]) -> dict[int, str]:
    """Id of each row's document, or else of its source."""
    ids = {row: id_of(item) for row, item in enumerate(columns.items) if item is not None}
    return ids | {row: each.id for row, each in found.items()}


def _sources(columns: Columns[Any, Any], found: Mapping[int, ProcessedDocument]) -> dict[int, str]:
    """The `source` of each row's document, if it has one."""
    given = {row: source_path(item) for row, item in enumerate(columns.items) if row not in found}
    sources = given | {row: each.source for row, each in found.items()}
    return {row: source for row, source in sources.items() if source is not None}


def _numbers(
    columns: Columns[Any, Any],
    found: Mapping[int, ProcessedDocument],
    field: str,
    dtype: str,
) -> pd.api.extensions.ExtensionArray:
    """Column of one count per document, missing where it was not counted."""
    values = [getattr(found.get(row), field, None) for row in range(len(columns))]
    return number_array(values, dtype)


def _flags(
    columns: Columns[Any, Any], flags: Mapping[int, bool]
) -> pd.api.extensions.ExtensionArray:
    """Boolean column from the flags of some rows."""
    return number_array([flags.get(row, False) for row in range(len(columns))], "bool")


def _recalled(columns: Columns[Any, Any]) -> dict[int, bool]:
    """Rows whose outcomes come from a journal."""
    done = {row: not columns.attempts[row] for row in columns.rows_with(DONE)}
    errors = columns.errors.items()
    return done | {
        row: isinstance(error, JournaledError)
        for row, error in errors
        if columns.status[row] != PENDING
    }


def _failures(columns: Columns[Any, Any], stages: Sequence[StageStats]) -> list[int]:
    """Number of sources that failed in each stage."""
    names = [stage.name for stage in stages]
    failed = (columns.stages.get(row, "") for row in columns.rows_with(FAILED))
    places = Counter(stage_index(name, names) for name in failed)
    return [places[place] for place in range(len(stages))]


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
        | index | int64 | results only: the index of the source, or its label if it has one |
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
    columns = _result_columns("chunks_dataframe", result_or_store)  # type: ignore[arg-type]

    import pandas as pd

    rows = list(_chunks(columns))
    vectors = [None if each.embeddings is None else each.embeddings[at] for _, each, at, _ in rows]
    metadata = [
        {**(each.document.metadata if each.document else {}), **chunk.metadata}
        for _, each, _, chunk in rows
    ]
    return pd.DataFrame(
        {
            "index": DataFrameBuilder(columns, [row for row, *_ in rows]).index_column(),
            "document_id": string_array([each.id for _, each, _, _ in rows]),
            "source": string_array([each.source for _, each, _, _ in rows]),
            "ordinal": number_array([ordinal for *_, ordinal, _ in rows], "int64"),
            "start": number_array([chunk.start for *_, chunk in rows], "int64"),
            "end": number_array([chunk.end for *_, chunk in rows], "int64"),
            **place_columns(metadata),
            "text": string_array([chunk.text for *_, chunk in rows]),
            "metadata": object_column(metadata),
            "embedding": object_column(vectors),
        }
    )


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


def _chunks(columns: Columns[Any, Any]) -> Iterator[tuple[int, ProcessedDocument, int, Chunk]]:
    """Yield each chunk as (row of its source, document, ordinal, chunk)."""
    found = _processed(columns)
    documents = [(row, one) for row, each in found.items() for one in each.documents or (each,)]
    elsewhere = sum(one.chunks is None and one.chunk_count != 0 for _, one in documents)
    if elsewhere and all(one.chunks is None for _, one in documents):
        raise ValueError(
            "this result holds no chunks, because the store has them: call "
            "chunks_dataframe(store), or pass keep_content=True to the processor, which then "
            "keeps those of new and changed documents"
        )
    if elsewhere:
        warnings.warn(
            f"the chunks of {counted(elsewhere, 'document')} are left out, because only the store "
            "has them: call chunks_dataframe(store) for all",
            stacklevel=3,
        )
    for row, one in documents:
        for ordinal, chunk in enumerate(one.chunks or ()):
            yield row, one, ordinal, chunk
