"""Records: which fields of rows are text, id and metadata; and JSONLinesLoader."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

from ragasync.documents.loaders.text import Loaded, Record, load_text, passing
from ragasync.documents.models import LoadError

OnBadRows: TypeAlias = Literal["fail", "skip"]
"""Whether a row that cannot be read fails its file, or is skipped."""

BAD_ROWS = "bad_rows"
"""The key of metadata that says how many rows of a document's file were skipped, if any were."""

_WHOLE = re.compile(r"-?(?:0|[1-9]\d{0,17})")
_DECIMAL = re.compile(r"-?(?:0|[1-9]\d{0,17})(?:\.\d{1,17})?(?:[eE][+-]?\d{1,2})?")
_LOST = "\x1a"  # replaces NUL bytes; the end-of-file mark of old files, which no row may have


class Row(NamedTuple):
    """One row of a table or line of JSON: its number, the line where it starts, its fields."""

    number: int
    line: int
    fields: Mapping[str, object]


class BadRow(NamedTuple):
    """A row that cannot be read: its number, the line where it starts, and the reason."""

    number: int
    line: int
    message: str


Rows: TypeAlias = Callable[[], Iterable[Row | BadRow]]
"""A function that reads the rows of a file from the start."""


@dataclass(frozen=True, slots=True)
class FieldMapping:
    """The fields of a row that make its record's text, id and metadata."""

    reason: str  # of a LoadError
    text: Sequence[str] | None  # None for all
    id: str | None  # None for the row's number
    metadata: Sequence[str] | None  # None for those not in the text

    @property
    def names_fields(self) -> bool:
        """Whether there is more to a row than a text of all its fields."""
        return not (self.text is self.id is self.metadata is None)

    def record(self, row: Row) -> Record:
        """Return the record of a row; its text may be blank. LoadError without a field or an id."""
        named = row.fields if self.text is None else self._picked(row, self.text)
        if not (text := text_of(named)).strip():
            return Record("", "", {})
        key = str(row.number)
        if self.id is not None and not (
            key := as_text(self._picked(row, [self.id])[self.id]).strip()
        ):
            raise LoadError(self.reason, f"no id in {self.id!r} of row {row.number}")
        place = {"row": row.number, "line": row.line}
        if self.metadata is not None:
            rest = self._picked(row, self.metadata)
        else:
            rest = {name: value for name, value in row.fields.items() if name not in named}
        renamed = {f"field_{name}" if name in place else name: rest[name] for name in rest}
        return Record(key, text, {**place, **renamed})

    def _picked(self, row: Row, names: Sequence[str]) -> Mapping[str, object]:
        if missing := [name for name in names if name not in row.fields]:
            raise LoadError(
                self.reason,
                f"no {missing[0]!r} in row {row.number}, which has {', '.join(row.fields)[:200]}",
            )
        return {name: row.fields[name] for name in names}


class Records(Iterable[Record]):
    """
    The records of a file, read row by row in each iteration.

    A first pass over the file counts the bad rows and finds the columns of numbers, so that only
    the ids, if a column holds them, grow with the number of rows.

    Args:
        rows: reads the rows.
        layout: maps their fields.
        on_bad_rows: "fail" or "skip"; a file with bad rows alone fails.
        read_as: metadata of the file; a field of the same name replaces it.
        has_numbers: whether metadata columns in which all cells are numbers hold numbers.
    """

    def __init__(
        self,
        rows: Rows,
        layout: FieldMapping,
        on_bad_rows: OnBadRows,
        *,
        read_as: Mapping[str, object],
        has_numbers: bool = False,
    ) -> None:
        self._rows = rows
        self._layout = layout
        self._on_bad_rows = on_bad_rows
        self._read_as = read_as
        self._numbers: Mapping[str, type[int | float]] = {}
        self.bad_rows = 0
        numbers = _NumberColumns()
        first: BadRow | None = None
        good = 0
        for row in self._checked():
            if isinstance(row, BadRow):
                first = first or row
                self.bad_rows += 1
            else:
                good += 1
                if has_numbers and isinstance(row, Record):
                    numbers.see(row.metadata)
        if first is not None and not good:
            raise LoadError(
                layout.reason, f"none of its {self.bad_rows:,} rows can be read: {first.message}"
            )
        self._numbers = numbers.kinds()

    def __iter__(self) -> Iterator[Record]:
        """Yield the records that have a text."""
        skipped = {BAD_ROWS: self.bad_rows} if self.bad_rows else {}
        for row in self._checked():
            record = self._layout.record(row) if isinstance(row, Row) else row
            if isinstance(record, BadRow) or not record.text:
                continue
            if skipped or self._numbers or self._read_as:
                metadata = {
                    **self._read_as,
                    **record.metadata,
                    **self._typed(record.metadata),
                    **skipped,
                }
                record = Record(record.key, record.text, metadata)
            yield record

    def _checked(self) -> Iterator[Row | Record | BadRow]:
        """Yield rows, as records if their fields are named; raise for a bad one."""
        keys: dict[str, int] = {}
        for row in self._rows():
            result = self._judged(row, keys) if isinstance(row, Row) else row
            if isinstance(result, BadRow) and self._on_bad_rows == "fail":
                raise LoadError(self._layout.reason, result.message)
            yield result

    def _judged(self, row: Row, keys: dict[str, int]) -> Row | Record | BadRow:
        """Return a row, its record if fields are named, or what is wrong with it."""
        if not self._layout.names_fields:
            return row
        try:
            record = self._layout.record(row)
        except LoadError as error:
            return BadRow(row.number, row.line, error.message)
        if self._layout.id is None or not record.text:
            return record  # numbers of rows are never there twice
        if (first := keys.setdefault(record.key, row.number)) != row.number:
            message = f"rows {first} and {row.number} share the id {record.key!r}"
            return BadRow(row.number, row.line, message)
        return record

    def _typed(self, metadata: Mapping[str, object]) -> dict[str, object]:
        """Return the numbers in a record's metadata, None for empty cells."""
        return {
            name: kind(cell) if (cell := str(metadata[name])) else None
            for name, kind in self._numbers.items()
        }


class _NumberColumns:
    """The columns in which every cell is a number, or empty; 007 is none."""

    def __init__(self) -> None:
        self._kinds: dict[str, type[int | float] | None] | None = None
        self._filled: set[str] = set()

    def see(self, metadata: Mapping[str, object]) -> None:
        """Add the metadata of a row, whose first two entries are its place."""
        if self._kinds is None:
            if not metadata:
                return  # a row without a text
            self._kinds = dict.fromkeys(list(metadata)[2:], int)
        for name, kind in list(self._kinds.items()):
            if not (cell := str(metadata.get(name, ""))):
                continue
            self._filled.add(name)
            if kind is int and not _WHOLE.fullmatch(cell):
                self._kinds[name] = kind = float
            if kind is float and not _DECIMAL.fullmatch(cell):
                del self._kinds[name]

    def kinds(self) -> dict[str, type[int | float]]:
        """Return int or float for each such column that is not empty."""
        kinds = self._kinds or {}
        return {name: kind for name, kind in kinds.items() if kind and name in self._filled}


def check_on_bad_rows(given: object) -> None:
    """Raise ValueError unless it is "fail" or "skip"."""
    if given not in ("fail", "skip"):
        raise ValueError(f'on_bad_rows must be "fail" or "skip", got {given!r:.200}')


def load_rows(data: bytes, on_bad_rows: OnBadRows, encoding: str | None = None) -> Loaded:
    """
    Decode a file of rows; if bad ones are skipped, NUL bytes spoil only their own row.

    A file system that lost its power fills the end of a file with NUL bytes.
    """
    try:
        return load_text(data, encoding=encoding)
    except LoadError as error:
        if on_bad_rows == "fail" or error.reason != "binary":
            raise
        whole = data.rstrip(b"\0")
        if whole.count(b"\0") > len(whole) // 100:
            raise  # no table with a few bad bytes, but another format
        lost = b"\n" + _LOST.encode() if len(whole) < len(data) else b""
        return load_text(whole.replace(b"\0", _LOST.encode()) + lost, encoding=encoding)


def is_damaged(text: str) -> bool:
    """Return whether a row of a text had NUL bytes."""
    return _LOST in text


def lines_of(text: str, start: int = 0) -> Iterator[str]:
    """Yield the lines of a text from an offset on, lazily."""
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield text[start:end]
        start = end


def text_of(fields: Mapping[str, object]) -> str:
    """Return the text of some fields: one as it is, several as lines with their names."""
    if len(fields) == 1:
        return as_text(*fields.values())
    named = ((name, as_text(value)) for name, value in fields.items())
    return "\n".join(f"{name}: {value}" for name, value in named if value.strip())


def as_text(value: object) -> str:
    """Return a value as text: a str itself, nothing for None, else its JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


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
    """Yield the lines of JSON that are not blank."""
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
    """Return the value of a line; ValueError or RecursionError if it is no JSON."""
    if line.count("[") + line.count("{") > MAX_DEPTH and _is_deep(line):
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} lists and objects")
    try:
        return _DECODER.decode(line)
    except json.JSONDecodeError:
        raise
    except ValueError:  # Python's bound on the digits of a number
        return _DECODER_OF_LONG_NUMBERS.decode(line)


def _is_deep(line: str) -> bool:
    """Return whether lists and objects of a line are nested deeper than MAX_DEPTH."""
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
    """Return a whole number, or its digits if they are more than Python converts."""
    return int(digits) if len(digits) <= _MAX_DIGITS else digits


_MAX_DIGITS = 4000
_NESTING = re.compile(r'[\[\]{}]|"(?:[^"\\]|\\.)*"?')  # a text as a whole
# NaN is not JSON, but Python writes it.
_DECODER = json.JSONDecoder(parse_constant=lambda _: None)
_DECODER_OF_LONG_NUMBERS = json.JSONDecoder(parse_constant=lambda _: None, parse_int=_number)


def _clean(value: object) -> object:
    """Return a value without NULs and lone surrogates, which no store takes."""
    match value:
        case str():
            return value.replace("\0", "").encode("utf-8", "replace").decode()
        case dict():
            return {_clean(key): _clean(inner) for key, inner in value.items()}
        case list():
            return [_clean(inner) for inner in value]
        case _:
            return value
