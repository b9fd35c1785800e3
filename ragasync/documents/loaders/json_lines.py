"""JSONLinesLoader: lines of JSON as documents, one per line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from ragasync.documents.loaders import Record, passing
from ragasync.documents.loaders.records import (
    BadRow,
    FieldMapping,
    OnBadRows,
    Records,
    Row,
    check_on_bad_rows,
    is_damaged,
    lines_of,
    load_rows,
)

MAX_DEPTH = 200
"""The most lists and objects within each other; what has more is no record of anybody's."""

_ADVICE = "correct the line, or leave such lines out, " + passing(
    ".jsonl", 'JSONLinesLoader(on_bad_rows="skip")'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JSONLinesLoader:
    """
    Load each line of JSON as a document, with an id such as `data.jsonl//#17` for line 17.

    The text of an object is its fields as lines of `name: value`, or one field unchanged; any other
    value is the text itself. `metadata["line"]` is the line number; fields with the names `row` and
    `line` become `field_row` and `field_line`.

    Example:
        >>> from pathlib import Path
        >>> from ragasync.documents import LOADERS, JSONLinesLoader, load_source
        >>> _ = Path("pages.jsonl").write_text('{"url": "/limits", "body": "A bucket refills."}')
        >>> fields = JSONLinesLoader(text_fields=["body"], id_field="url")
        >>> for document in load_source("pages.jsonl", loaders={**LOADERS, ".jsonl": fields}):
        ...     print(document.id, document.text)
        /...pages.jsonl//#/limits A bucket refills.

    Args:
        text_fields: The fields that form the text; by default all.
        id_field: The field that gives the id, instead of the line number.
        metadata_fields: The fields that become metadata; by default those not in the text.
        encoding: The encoding of the file, if it is known.
        on_bad_rows: "fail" to refuse a file with a bad line, or "skip" to skip such lines. Then
            `metadata["bad_rows"]` of the other lines, and the column `bad_rows` of
            `documents_dataframe`, hold their number.

    Raises:
        LoadError: "json lines" for a line that is not JSON (such as the last line, if a program was
            stopped while writing it), is nested too deeply, lacks a named field, or has an empty or
            repeated id, unless bad lines are skipped and others are left; "binary" or "encoding".
        ValueError: If `on_bad_rows` is something else.
    """

    text_fields: Sequence[str] | None = None
    id_field: str | None = None
    metadata_fields: Sequence[str] | None = None
    encoding: str | None = None
    on_bad_rows: OnBadRows = "fail"

    def __post_init__(self) -> None:
        """Check `on_bad_rows` before a long run begins."""
        check_on_bad_rows(self.on_bad_rows)

    def __call__(self, data: bytes) -> Iterable[Record]:
        """Records of the lines with text, made lazily."""
        text, read_as = load_rows(data, self.on_bad_rows, self.encoding)
        layout = FieldMapping("json lines", self.text_fields, self.id_field, self.metadata_fields)
        return Records(partial(_rows, text), layout, self.on_bad_rows, read_as=read_as)


def _rows(text: str) -> Iterator[Row | BadRow]:
    """Yield the lines that are not blank."""
    has_damage = is_damaged(text)
    for number, line in enumerate(lines_of(text), start=1):
        if line.isspace():
            continue
        if has_damage and is_damaged(line):
            yield BadRow(number, number, f"line {number} has NUL bytes")
            continue
        try:
            value = _parsed(line)
        except (ValueError, RecursionError) as error:
            yield BadRow(number, number, f"line {number} is not JSON: {error}; {_ADVICE}")
            continue
        if "\\u" in line:
            value = _clean(value)
        yield Row(number, number, value if isinstance(value, dict) else {"value": value})


def _parsed(line: str) -> object:
    """
    Return the value of a line.

    Raises:
        ValueError: it is not JSON, or nested too deep.
        RecursionError: it is nested deeper than Python can follow.
    """
    if line.count("[") + line.count("{") > MAX_DEPTH and _is_deep(line):
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} lists and objects")
    try:
        return _DECODER.decode(line)
    except json.JSONDecodeError:
        raise
    except ValueError:  # Python's bound on the digits of a number
        return _DECODER_OF_LONG_NUMBERS.decode(line)


def _is_deep(line: str) -> bool:
    """Return whether more than MAX_DEPTH lists and objects are within each other in a line."""
    depth = 0
    for mark in _NESTING.finditer(line):
        if mark[0] in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif mark[0] in "]}":
            depth -= 1
    return False


def _number(digits: str) -> int | str:
    """Return a whole number, or its digits where Python takes so many for an attack."""
    return int(digits) if len(digits) <= _MAX_DIGITS else digits


_MAX_DIGITS = 4000
_NESTING = re.compile(r'[\[\]{}]|"(?:[^"\\]|\\.)*"?')  # a text as a whole
# NaN is not JSON, but Python writes it.
_DECODER = json.JSONDecoder(parse_constant=lambda _: None)
_DECODER_OF_LONG_NUMBERS = json.JSONDecoder(parse_constant=lambda _: None, parse_int=_number)


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
