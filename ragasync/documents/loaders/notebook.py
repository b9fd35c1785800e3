"""Jupyter notebooks to text: what was written in their cells, without what came out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from ragasync.documents.errors import LoadError
from ragasync.documents.loaders import Loaded, join_parts
from ragasync.documents.loaders.embedded_data import without_embedded_data
from ragasync.documents.loaders.headings import markdown_headings

# Base64 as mail and keys have it, in lines that are all as long.
_WRAPPED_BASE64 = re.compile(r"(?m)^(?:[A-Za-z0-9+/]{60,}\n){10,}[A-Za-z0-9+/]*={0,2}")


def load_notebook(data: bytes) -> Loaded:
    """
    Return the sources of a notebook's cells, joined by blank lines.

    Outputs are left out. Of a picture that a cell has inside itself, as a `data:` URI, its kind is
    left, and of any other base64 of a thousand characters and more a `…`: nobody searches for it,
    and it would fill chunk after chunk.

    `metadata["cell_starts"]` holds the offset at which each cell that is not empty starts,
    `metadata["headings"]` the offset and level of each heading in its Markdown cells, and
    `metadata["language"]` the kernel's language where the notebook names it.

    Raises:
        LoadError: "notebook" where it is not the JSON of one (nbformat 3 and 4 are known).
    """
    try:
        notebook = json.loads(data)
        cells = [(is_words, text) for is_words, text in _sources(notebook) if text.strip()]
        language = _language(notebook.get("metadata", {}))
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        raise LoadError("notebook", f"not a notebook's JSON: {error!r:.200}") from None
    text, starts = join_parts([text for _, text in cells])
    metadata: dict[str, object] = {"cell_starts": starts}
    headings = tuple(
        (start + offset, level)
        for start, (is_words, words) in zip(starts, cells, strict=True)
        if is_words
        for offset, level in markdown_headings(words)
    )
    if headings:
        metadata["headings"] = headings
    if language:
        metadata["language"] = language
    return text, metadata


def _sources(notebook: dict[str, object]) -> Iterator[tuple[bool, str]]:
    """Yield whether it is Markdown and the source of each cell but the raw ones."""
    match notebook:
        case {"cells": list(cells)}:
            pass
        case {"worksheets": list(sheets)}:
            cells = [cell for sheet in sheets for cell in sheet["cells"]]
        case _:
            raise TypeError("it has neither cells nor worksheets")
    for cell in cells:
        if cell["cell_type"] != "raw":
            source = cell["source"] if "source" in cell else cell["input"]
            # JSON can spell half a surrogate pair or a NUL, which no store takes.
            text = "".join(source).replace("\0", "")
            text = _WRAPPED_BASE64.sub("…", text.encode("utf-8", "replace").decode())
            yield cell["cell_type"] == "markdown", without_embedded_data(text)


def _language(metadata: dict[str, dict[str, object]]) -> str | None:
    """Return the language that the metadata names, if it does."""
    named = metadata.get("language_info", {}).get("name")
    named = named or metadata.get("kernelspec", {}).get("language")
    return named if isinstance(named, str) else None
