"""FrameSource: rows of a DataFrame as documents, with an id, a text and metadata."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from ragasync.dataframe_items import LabeledItems, is_instance_of, labeled_items
from ragasync.documents.models import Document, LoadError
from ragasync.documents.unique_sources import RefusedDocument


@dataclass(frozen=True, slots=True, repr=False)
class UnreadableRow(RefusedDocument):
    """A row without a usable id or text, which fails as a file does that cannot be read."""

    def refusal(self) -> LoadError:
        """The error of this row."""
        return LoadError("missing", self.taken_by)

    def __repr__(self) -> str:
        return f"<UnreadableRow {self.id!r}>"


class FrameSource:
    """
    The rows of a pandas or polars DataFrame as documents, for columns of other names.

    `processor.process(frame)` itself uses the columns `id` and `text`. All other columns become the
    metadata of a document, without missing values. The id of a row is all that identifies it, so a
    second run skips unchanged rows and replaces those whose text or metadata have changed. The
    result has the index of the frame.

    A row without an id or a text is a failed item with a LoadError of the reason `missing`; of two
    rows with one id and different contents, the later fails with an IdConflictError.

    Example:
        >>> import pandas as pd
        >>> from ragasync import AsyncDocumentProcessor
        >>> from ragasync.documents import FrameSource, MemoryStore
        >>> frame = pd.DataFrame({"ticket": [17, 18], "body": ["A bucket refills.", None]})
        >>> frame["team"] = ["limits", "ops"]
        >>> store = MemoryStore()
        >>> processor = AsyncDocumentProcessor(store=store)
        >>> result = processor.process_sync(FrameSource(frame, id="ticket", text="body"))
        >>> result.errors_dataframe()[["item", "error_type", "stage"]]
          item error_type stage
        1   18  LoadError  load
        >>> print(result[1].error)
        missing: the row 1 has no text in the column 'body': fill it in or drop the row, or pass ...
        >>> store.search("bucket", where={"team": "limits"})[0].document_id
        '17'
        >>> store.close()

    Args:
        frame: the DataFrame.
        id: the name of the column with the ids, which are texts, whole numbers or UUIDs.
        text: the name of the column with the texts.
        metadata: the names of the columns that become metadata; None for all others.

    Raises:
        TypeError: `frame` is not a DataFrame.
        ValueError: a column is missing, or two have the same name.
    """

    def __init__(
        self,
        frame: Any,
        *,
        id: str = "id",  # noqa: A002  # the name of the column that it replaces
        text: str = "text",
        metadata: Collection[str] | None = None,
    ) -> None:
        if not _is_frame(frame):
            raise TypeError(
                f"FrameSource takes a DataFrame of pandas or polars, got {frame!r:.200}"
            )
        available = list(frame.columns)
        chosen = [name for name in available if name not in (id, text)]
        if metadata is not None:
            chosen = [metadata] if isinstance(metadata, str) else list(metadata)
        missing = [name for name in (id, text, *chosen) if name not in available]
        if missing:
            raise ValueError(
                f"expected columns named {[id, text]!r}, which hold the ids and the texts of "
                f"documents{' and the metadata' if metadata is not None else ''}; {missing!r} of "
                f"these are not in {available!r:.500}: name yours with "
                f"FrameSource(frame, id=..., text=...), or call frame.reset_index() if the index "
                f"holds the ids"
            )
        self._frame, self._id, self._text, self._metadata = frame, id, text, chosen

    def documents(self) -> LabeledItems:
        """The documents of all rows, with the labels of the frame's index."""
        wanted = dict.fromkeys([self._id, self._text, *self._metadata])
        rows = labeled_items(self._frame[list(wanted)])
        assert rows is not None  # a part of a DataFrame is one
        labels = rows.labels
        found = [
            self._document(row, place if labels is None else labels.at(place))
            for place, row in enumerate(rows.items)
        ]
        return LabeledItems(found, labels)

    def _document(self, row: Mapping[Any, Any], label: object) -> Document:
        """The document of one row."""
        given, text = row[self._id], row[self._text]
        id_ = str(given) if type(given) in (str, int, UUID) else ""
        if not id_:
            why = "no id" if _is_missing(given) or given == "" else f"the id {given!r:.100}"
            return UnreadableRow(
                f"row {label!r:.100} of a frame",
                "",
                taken_by=f"the row {label!r:.100} has {why} in the column {self._id!r}: an id is a "
                f"text, a whole number or a UUID",
            )
        if not isinstance(text, str):
            why = "no text" if _is_missing(text) else f"the value {text!r:.100}"
            return UnreadableRow(
                id_,
                "",
                taken_by=f"the row {label!r:.100} has {why} in the column {self._text!r}: fill it "
                f"in or drop the row, or pass on_unreadable={{'missing'}} to skip such rows",
            )
        metadata = {str(name): row[name] for name in self._metadata if not _is_missing(row[name])}
        return Document(id_, text, metadata)

    def __repr__(self) -> str:
        return f"<FrameSource of {len(self._frame):,} rows, id={self._id!r}, text={self._text!r}>"


def frame_documents(sources: object) -> LabeledItems | None:
    """
    The documents of a DataFrame or FrameSource; None for other sources.

    Raises:
        TypeError: a Series, whose values have no ids.
        ValueError: a DataFrame without the columns `id` and `text`.
    """
    if any(is_instance_of(sources, library, "Series") for library in ("pandas", "polars")):
        raise TypeError(
            "sources must have ids, got a Series: pass a DataFrame with the columns 'id' and "
            "'text', or series.items() for (label, text) pairs"
        )
    if _is_frame(sources):
        sources = FrameSource(sources)
    return sources.documents() if isinstance(sources, FrameSource) else None


def _is_frame(value: object) -> bool:
    """Whether a value is a DataFrame."""
    return any(is_instance_of(value, library, "DataFrame") for library in ("pandas", "polars"))


def _is_missing(value: object) -> bool:
    """Whether a plain value of a row is missing."""
    return value is None or (isinstance(value, float) and value != value)
