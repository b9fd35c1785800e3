"""Fields with names to records: which make the text, which the id, which the metadata."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from ragasync.documents.errors import LoadError
from ragasync.documents.loaders import Loaded, Record
from ragasync.documents.loaders.decode import load_text

OnBadRows: TypeAlias = Literal["fail", "skip"]
"""What becomes of a file with a row that cannot be read: it fails, or only that row is left out."""

BAD_ROWS = "bad_rows"
"""The key of metadata that says how many rows of a document's file were skipped, if any were."""

_WHOLE = re.compile(r"-?(?:0|[1-9]\d{0,17})")
_DECIMAL = re.compile(r"-?(?:0|[1-9]\d{0,17})(?:\.\d{1,17})?(?:[eE][+-]?\d{1,2})?")
_LOST = "\x1a"  # stands for NUL bytes, as at the end of old files; no row may have it


class Row(NamedTuple):
    """One row of a table or line of JSON: its number, the line where it starts, its fields."""

    number: int
    line: int
    fields: Mapping[str, object]


class BadRow(NamedTuple):
    """A row that cannot be read: its number, the line where it starts, and what is wrong."""

    number: int
    line: int
    message: str


Rows: TypeAlias = Callable[[], Iterable[Row | BadRow]]
"""What reads the rows of a file from the first on, each time that it is called."""


@dataclass(frozen=True, slots=True)
class FieldMapping:
    """
    Says what each field of a row is for.

    Args:
        reason: the reason of a failure.
        text: the fields that make the text; None for all.
        id: the field that makes the id; None for the row's number.
        metadata: the fields that become metadata; None for those that are not in the text.
    """

    reason: str
    text: Sequence[str] | None
    id: str | None
    metadata: Sequence[str] | None

    @property
    def names_fields(self) -> bool:
        """Whether there is more to a row than a text of all its fields."""
        return not (self.text is self.id is self.metadata is None)

    def record(self, row: Row) -> Record:
        """
        Return a row's record, which may have a blank text.

        Raises:
            LoadError: A field that was named is missing, or an id is empty.
        """
        named = row.fields if self.text is None else self._picked(row, self.text)
        if not (text := text_of(named)).strip():
            return Record("", "", {})
        key = str(row.number) if self.id is None else self._key(row, self.id)
        place = {"row": row.number, "line": row.line}
        rest = {f"field_{n}" if n in place else n: v for n, v in self._rest(row, named).items()}
        return Record(key, text, {**place, **rest})

    def _rest(self, row: Row, in_text: Mapping[str, object]) -> Mapping[str, object]:
        """Return the fields of a row that become metadata."""
        if self.metadata is not None:
            return self._picked(row, self.metadata)
        return {name: value for name, value in row.fields.items() if name not in in_text}

    def _picked(self, row: Row, names: Sequence[str]) -> Mapping[str, object]:
        """Return some fields of a row."""
        if missing := [name for name in names if name not in row.fields]:
            raise LoadError(
                self.reason,
                f"no {missing[0]!r} in row {row.number}, which has {', '.join(row.fields)[:200]}",
            )
        return {name: row.fields[name] for name in names}

    def _key(self, row: Row, name: str) -> str:
        """Return the id of a row."""
        key = as_text(self._picked(row, [name])[name]).strip()
        if not key:
            raise LoadError(self.reason, f"no id in {name!r} of row {row.number}")
        return key


class Records(Iterable[Record]):
    """
    The records of a file, read row by row each time that they are asked for.

    A first pass over the file counts the bad rows and finds the columns of numbers; so nothing
    grows with the number of rows but the ids, where a column holds these.

    Args:
        rows: reads the rows.
        layout: what their fields are for.
        on_bad_rows: whether a bad row fails the file, or is skipped and counted.
        read_as: how the file was read; a field of that name goes over it.
        has_numbers: whether columns of texts that are all numbers are to hold numbers.

    Raises:
        LoadError: a row is bad and may not be, or all of them are.
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
        """Yield the records of the rows that have a text."""
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
        """Yield rows whose texts are all of them, others as records; raise for a bad one."""
        keys: dict[str, int] = {}
        for row in self._rows():
            result = self._judged(row, keys) if isinstance(row, Row) else row
            if isinstance(result, BadRow) and self._on_bad_rows == "fail":
                raise LoadError(self._layout.reason, result.message)
            yield result

    def _judged(self, row: Row, keys: dict[str, int]) -> Row | Record | BadRow:
        """Return a row, or its record where that has to be looked at."""
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
        """Return the numbers that a record's texts stand for."""
        return {
            name: kind(cell) if (cell := str(metadata[name])) else None
            for name, kind in self._numbers.items()
        }


class _NumberColumns:
    """Find the columns in which every cell is a number, or empty; 007 is none."""

    def __init__(self) -> None:
        self._kinds: dict[str, type[int | float] | None] | None = None
        self._filled: set[str] = set()

    def see(self, metadata: Mapping[str, object]) -> None:
        """Take the metadata of one more row, whose first two entries are its place."""
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
        """Return the kind of number of each such column that is not empty."""
        kinds = self._kinds or {}
        return {name: kind for name, kind in kinds.items() if kind and name in self._filled}


def check_on_bad_rows(given: object) -> None:
    """
    Check what a loader is told to do with bad rows.

    Raises:
        ValueError: It is neither "fail" nor "skip".
    """
    if given not in ("fail", "skip"):
        raise ValueError(f'on_bad_rows must be "fail" or "skip", got {given!r:.200}')


def load_rows(data: bytes, on_bad_rows: OnBadRows, encoding: str | None = None) -> Loaded:
    """
    Decode a file of rows, and say how; where bad ones are skipped, NUL bytes spoil only their own.

    A file system that lost its power fills the end of a file with them.

    Raises:
        LoadError: "binary" or "encoding".
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
    """Return whether a row had NUL bytes, where these are replaced."""
    return _LOST in text


def lines_of(text: str, start: int = 0) -> Iterator[str]:
    """Yield the lines of a text from an offset on, without a list of all of them."""
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield text[start:end]
        start = end


def text_of(fields: Mapping[str, object]) -> str:
    """Return the text of some fields: one as it stands, several as lines with their names."""
    if len(fields) == 1:
        return as_text(*fields.values())
    named = ((name, as_text(value)) for name, value in fields.items())
    return "\n".join(f"{name}: {value}" for name, value in named if value.strip())


def as_text(value: object) -> str:
    """Return a value as it is read: a text itself, nothing for None, else its JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)
