"""JSON lines to documents, one a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ragasync.documents.errors import LoadError
from ragasync.documents.loaders import Record
from ragasync.documents.loaders.decode import load_text
from ragasync.documents.loaders.records import Layout, Row, marked


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonLines:
    """
    Load each line of JSON as a document of its own, `data.jsonl#17` by the number of its line.

    An object's text is its fields as lines of `name: value`, or one field as it stands; any other
    value is a text by itself. `metadata["line"]` is the line, as an editor shows it.

    Example:
        >>> from pathlib import Path
        >>> from ragasync.documents import LOADERS, JsonLines, load_source
        >>> _ = Path("pages.jsonl").write_text('{"url": "/limits", "body": "A bucket refills."}')
        >>> fields = JsonLines(text_fields=["body"], id_field="url")
        >>> for document in load_source("pages.jsonl", loaders={**LOADERS, ".jsonl": fields}):
        ...     print(document.id, document.text)
        pages.jsonl#/limits A bucket refills.

    Args:
        text_fields: The fields that make the text; by default all.
        id_field: The field that makes the id instead of the line's number.
        metadata_fields: The fields that become metadata; by default those that make no text.
        encoding: The encoding of the file, where that is known.

    Raises:
        LoadError: "json lines" for a line that is not JSON, that lacks a field which was named,
            or whose id is empty or there before; "binary" or "encoding".
    """

    text_fields: Sequence[str] | None = None
    id_field: str | None = None
    metadata_fields: Sequence[str] | None = None
    encoding: str | None = None

    def __call__(self, data: bytes) -> Iterable[Record]:
        """Return a record for each line that holds a text."""
        text, read_as = load_text(data, encoding=self.encoding)
        layout = Layout("json lines", self.text_fields, self.id_field, self.metadata_fields)
        return marked(layout.records(_rows(text)), read_as)


def _rows(text: str) -> Iterator[Row]:
    """Yield the lines that are not blank."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line and not line.isspace():
            try:
                # NaN is not JSON, but Python writes it.
                value = json.loads(line, parse_constant=lambda name: None)  # noqa: ARG005
            except (ValueError, RecursionError) as error:
                raise LoadError("json lines", f"line {number} is not JSON: {error}") from None
            if "\\u" in line:
                value = _clean(value)
            yield Row(number, number, value if isinstance(value, dict) else {"value": value})


def _clean(value: object) -> object:
    """Return a value without NULs and halves of surrogate pairs, which no store takes."""
    match value:
        case str():
            return value.replace("\0", "").encode("utf-8", "replace").decode()
        case dict():
            return {_clean(key): _clean(inner) for key, inner in value.items()}
        case list():
            return [_clean(inner) for inner in value]
        case _:
            return value
