"""What tests of the tables of documents share: documents, their columns, and a metered embedder."""

from typing import Any

import numpy as np
import pandas as pd

from ragasync import note_usage
from ragasync.documents import AsyncDocumentProcessor, Document
from tests.support.embedders import CountingEmbedder, given, words

DOCUMENTS = {
    "id": "string",
    "source": "string",
    "status": "category",
    "stage": "category",
    "chunks": "Int32",
    "documents": "Int32",
    "bad_rows": "Int32",
    "tokens": "Int64",
    "unchanged": "bool",
    "skipped": "category",
    "encoding": "category",
    "encoding_confidence": "float64",
    "recalled": "bool",
    "seconds": "float64",
    "error_type": "category",
    "error_message": "string",
}
CHUNKS = {
    "index": "int64",
    "document_id": "string",
    "source": "string",
    "ordinal": "int64",
    "start": "int64",
    "end": "int64",
    "line": "Int64",
    "page": "Int64",
    "heading": "string",
    "text": "string",
    "metadata": "object",
    "embedding": "object",
}
STAGES = {
    "stage": "string",
    "max_concurrency": "int64",
    "calls": "int64",
    "items": "int64",
    "failed": "int64",
    "worked": "float64",
    "waited": "float64",
    "busy": "float64",
    "tokens": "int64",
    "cost": "float64",
}


class MeteredEmbedder(CountingEmbedder):
    """An embedder that reports ten tokens a text, at a hundredth each."""

    async def __call__(self, texts: list[str]) -> np.ndarray:
        """Answer, and report."""
        note_usage(tokens=10 * len(texts), cost=0.1 * len(texts))
        return await super().__call__(texts)


def dtypes_of(frame: pd.DataFrame) -> dict[str, str]:
    """Return the names of the columns' types."""
    return {name: str(dtype) for name, dtype in frame.dtypes.items()}


def exact(**settings: Any) -> AsyncDocumentProcessor:
    """Return a processor without threads, whose times are exact."""
    return AsyncDocumentProcessor(load=given, chunk=words, **settings)


def texts(*contents: str) -> list[Document]:
    """Return documents named a, b, c."""
    return [Document(name, text) for name, text in zip("abcdef", contents, strict=False)]


def rows(frame: pd.DataFrame, *names: str) -> list[tuple[Any, ...]]:
    """Return some columns as tuples, None for what is missing."""
    chosen = frame[list(names)].astype(object)
    return list(chosen.where(chosen.notna(), None).itertuples(index=False, name=None))
