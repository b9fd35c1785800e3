"""The DataFrame of a store's chunks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_TEXTS = ("document_id", "source", "text")
_WHOLE_NUMBERS = ("ordinal", "start", "end")
_COLUMNS = ("document_id", "source", "ordinal", "start", "end", "text")


def chunk_frame(
    rows: Iterable[tuple[str, str | None, int, int, int, str, str, str]],
) -> pd.DataFrame:
    """
    DataFrame with one row per chunk: document_id, source, ordinal, start, end, text and metadata.

    Args:
        rows: The first six of these columns, and the document's and the chunk's metadata as JSON.
    """
    import pandas as pd

    rows = list(rows)
    frame = pd.DataFrame([row[:6] for row in rows], columns=list(_COLUMNS))
    frame = frame.astype(dict.fromkeys(_TEXTS, "string") | dict.fromkeys(_WHOLE_NUMBERS, "int64"))
    metadata = [json.loads(of_document) | json.loads(own) for *_, of_document, own in rows]
    return frame.assign(metadata=pd.Series(metadata, index=frame.index, dtype="object"))
