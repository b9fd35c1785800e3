"""CSVLoader, JSONLinesLoader: rows as documents, by their fields of text, id and metadata."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
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
    """A row that cannot be read, and the reason."""

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


@dataclass(slots=True)
class Records(Iterable[Record]):
    """
    The records of a file, read row by row in each iteration.

    A first pass over the file counts the bad rows and finds the columns of numbers, so that only
    the ids, if a column holds them, grow with the number of rows. A file with bad rows alone fails.
    """

    rows: Rows
    layout: FieldMapping
    on_bad_rows: OnBadRows
    read_as: Mapping[str, object]  # metadata of the file; a field of the same name replaces it
    has_numbers: bool = False  # whether metadata columns of numbers alone hold numbers
    bad_rows: int = field(default=0, init=False)
    _numbers: Mapping[str, type[int | float]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Read the rows for the first time."""
        numbers = _NumberColumns()
        first: BadRow | None = None
        good = 0
        for row in self._checked():
            if isinstance(row, BadRow):
                first = first or row
                self.bad_rows += 1
            else:
                good += 1
                if self.has_numbers and isinstance(row, Record):
                    numbers.see(row.metadata)
        if first is not None and not good:
            raise LoadError(
                self.layout.reason,
                f"none of its {self.bad_rows:,} rows can be read: {first.message}",
            )
        self._numbers = numbers.kinds()

    def __iter__(self) -> Iterator[Record]:
        skipped = {BAD_ROWS: self.bad_rows} if self.bad_rows else {}
        for row in self._checked():
            record = self.layout.record(row) if isinstance(row, Row) else row
            if isinstance(record, BadRow) or not record.text:
                continue
            if skipped or self._numbers or self.read_as:
                typed = self._typed(record.metadata)
                metadata = {**self.read_as, **record.metadata, **typed, **skipped}
                record = Record(record.key, record.text, metadata)
            yield record

    def _checked(self) -> Iterator[Row | Record | BadRow]:
        """Yield rows, as records if their fields are named; raise for a bad one."""
        keys: dict[str, int] = {}
        for row in self.rows():
            result = self._judged(row, keys) if isinstance(row, Row) else row
            if isinstance(result, BadRow) and self.on_bad_rows == "fail":
                raise LoadError(self.layout.reason, result.message)
            yield result

    def _judged(self, row: Row, keys: dict[str, int]) -> Row | Record | BadRow:
        """Return a row, its record if fields are named, or what is wrong with it."""
        if not self.layout.names_fields:
            return row
        try:
            record = self.layout.record(row)
        except LoadError as error:
            return BadRow(error.message)
        if self.layout.id is None or not record.text:
            return record  # numbers of rows are never there twice
        if (first := keys.setdefault(record.key, row.number)) != row.number:
            return BadRow(f"rows {first} and {row.number} share the id {record.key!r}")
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
        self._kinds: dict[str, type[int | float] | None] = {}
        self._has_names = False

    def see(self, metadata: Mapping[str, object]) -> None:
        """Add the metadata of a row, whose first two entries are its place; none of a blank one."""
        if metadata and not self._has_names:
            self._kinds, self._has_names = dict.fromkeys(list(metadata)[2:]), True
        for name, kind in list(self._kinds.items()):
            if not (cell := str(metadata.get(name, ""))):
                continue
            if kind is not float and _WHOLE.fullmatch(cell):
                self._kinds[name] = int
            elif _DECIMAL.fullmatch(cell):
                self._kinds[name] = float
            else:
                del self._kinds[name]

    def kinds(self) -> dict[str, type[int | float]]:
        """Return int or float for each such column that is not empty."""
        return {name: kind for name, kind in self._kinds.items() if kind is not None}


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


class Place(NamedTuple):
    """A position in a text: offset, row number, line number."""

    offset: int = 0
    number: int = 1
    line: int = 1


_START = Place()


class Lines:
    """Iterator over the lines of a text from a place on, which can be set to another place."""

    def __init__(self, text: str, start: Place = _START) -> None:
        self._text = text
        self.offset, self.line = start.offset, start.line

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        start = self.offset
        if start >= len(self._text):
            raise StopIteration
        self.offset = self._text.find("\n", start) + 1 or len(self._text)
        self.line += 1
        return self._text[start : self.offset]


@dataclass(frozen=True, slots=True, kw_only=True)
class _RowLoader:
    """The options of the loaders of rows."""

    encoding: str | None = None
    on_bad_rows: OnBadRows = "fail"

    def __post_init__(self) -> None:
        """Check `on_bad_rows` before a long run begins."""
        if self.on_bad_rows not in ("fail", "skip"):
            raise ValueError(f'on_bad_rows must be "fail" or "skip", got {self.on_bad_rows!r:.200}')


MAX_DEPTH = 200
"""The most lists and objects within each other; what has more is no record of anybody's."""

_JSON_ADVICE = "correct the line, or leave such lines out, " + passing(
    ".jsonl", 'JSONLinesLoader(on_bad_rows="skip")'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JSONLinesLoader(_RowLoader):
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

    def __call__(self, data: bytes) -> Iterable[Record]:
        """Records of the lines with text, made lazily."""
        text, read_as = load_rows(data, self.on_bad_rows, self.encoding)
        layout = FieldMapping("json lines", self.text_fields, self.id_field, self.metadata_fields)
        return Records(partial(_json_rows, text), layout, self.on_bad_rows, read_as)


def _json_rows(text: str) -> Iterator[Row | BadRow]:
    """Yield the lines of JSON that are not blank."""
    has_damage = is_damaged(text)
    for number, line in enumerate(Lines(text), start=1):
        if line.isspace():
            continue
        if has_damage and is_damaged(line):
            yield BadRow(f"line {number} has NUL bytes")
            continue
        try:
            value = _parsed(line)
        except (ValueError, RecursionError) as error:
            yield BadRow(f"line {number} is not JSON: {error}; {_JSON_ADVICE}")
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


DELIMITERS = (",", ";", "\t", "|")
"""The delimiters that are tried if none is given."""

MAX_COLUMNS = 200_000
"""The maximum number of columns of a table."""

MAX_CELL = 10_000_000
"""The maximum number of characters in a cell; a longer one has an open quote."""

_LOOKED_AT = 20
_LOOKED_AT_CHARS = 1_000_000
_MAX_TITLES = 10
_COMMENT = "#"
_SEPARATOR_LINE = re.compile(r"""["']?sep=(.)["']?[ \t]*\n""")
_NAME = re.compile(r"\S(?:.{0,58}\S)?")
_YEAR = re.compile(r"(?:19|20)\d\d")
_NUMBER = re.compile(r"[-+]?[\d.,' %]*\d[\d.,' %]*")
_SKIPPING = passing(".csv", 'CSVLoader(on_bad_rows="skip")')
_ADVICE = (
    f"correct the row, or leave such rows out: {_SKIPPING}; in the same way, pass the delimiter, "
    'CSVLoader(delimiter=","), or load the file as one text, load_text'
)


class _Cells(NamedTuple):
    """The cells of a row, with its number, the line where it starts, its offset, and its end."""

    number: int
    line: int
    values: list[str]
    offset: int
    end: int
    end_line: int

    @property
    def start(self) -> Place:
        return Place(self.offset, self.number, self.line)

    @property
    def after(self) -> Place:
        return Place(self.end, self.number + 1, self.end_line)


@dataclass(frozen=True, slots=True, kw_only=True)
class CSVLoader(_RowLoader):
    r"""
    Load each row of a table as a document, with an id such as `data.csv//#17` for row 17.

    Rows are numbered as in a spreadsheet: the header is row 1. The text of a row is its cells as
    lines of `column: value`, or one column unchanged. `metadata["row"]` is the number of the row,
    and `metadata["line"]` the line number at which it starts; columns with these names become
    `field_row` and `field_line`. A metadata column holds numbers if every cell is a number or
    empty.

    The delimiter is a comma, semicolon, tab or bar: the one by which all or most of the first 20
    rows are as long as the header, and of several the one with the most columns.

    Above the header, lines that begin with `#` are comments, and lines with only one filled cell
    are titles; they count as rows but are not documents. Below the header, a row that begins with
    `# ` or `##` and does not fit is a comment too. A row may have one extra delimiter at its end.
    Any other row that does not fit the header, or has wrong quotes, is a bad row; see
    `on_bad_rows`.

    Example:
        >>> from pathlib import Path
        >>> from ragasync.documents import LOADERS, CSVLoader, load_source
        >>> _ = Path("books.csv").write_text("isbn,title,year\n111,Limits,2020\n222,Retries,2024")
        >>> rows = CSVLoader(text_columns=["title"], id_column="isbn")
        >>> for document in load_source("books.csv", loaders={**LOADERS, ".csv": rows}):
        ...     print(document.id, document.text, document.metadata["year"])
        /...books.csv//#111 Limits 2020
        /...books.csv//#222 Retries 2024

    Args:
        text_columns: The columns that form the text; by default all.
        id_column: The column that gives the id, instead of the row number.
        metadata_columns: The columns that become metadata; by default those not in the text.
        columns: The column names of a file without a header.
        delimiter: The delimiter of cells, if it is known.
        encoding: The encoding of the file, if it is known.
        on_bad_rows: "fail" to refuse a file with a bad row, or "skip" to skip such rows. Then
            `metadata["bad_rows"]` of the other rows, and the column `bad_rows` of
            `documents_dataframe`, hold their number.

    Raises:
        LoadError: "csv" for a row that is longer or shorter than the header, has an open quote, or
            has an empty or repeated id, unless bad rows are skipped and others are left; for a
            missing column, or too many columns; "binary" or "encoding".
        ValueError: If `on_bad_rows` is something else.
    """

    text_columns: Sequence[str] | None = None
    id_column: str | None = None
    metadata_columns: Sequence[str] | None = None
    columns: Sequence[str] | None = None
    delimiter: str | None = None

    def __call__(self, data: bytes) -> Iterable[Record]:
        """Records of the rows with text, made lazily."""
        text, read_as = load_rows(data, self.on_bad_rows, self.encoding)
        # The limit is the process's, and meant for streams: here the whole text is in memory.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL))
        table = _table_of(text, self.delimiter, self.columns)
        layout = FieldMapping("csv", self.text_columns, self.id_column, self.metadata_columns)
        rows = partial(_csv_rows, table, recover=self.on_bad_rows == "skip")
        return Records(rows, layout, self.on_bad_rows, read_as, has_numbers=True)


@dataclass(frozen=True, slots=True)
class _Table:
    """A text with its dialect: the delimiter, the first row of data, the column names."""

    text: str
    delimiter: str
    start: Place
    columns: Sequence[str]
    unnamed: int = 0  # number of last columns without a name of their own: rows may lack them


def _table_of(text: str, delimiter: str | None, columns: Sequence[str] | None) -> _Table:
    """Find the delimiter and the header of a table in its first rows."""
    start = _START
    if delimiter is None and (said := _SEPARATOR_LINE.match(text)):
        delimiter, start = said[1], Place(said.end(), 2, 2)
    comments = _comments(text, start)
    after = comments[-1] if comments else start
    delimiter = delimiter or _delimiter_of(text, after)
    if columns is not None:  # what begins with "#" may be a row of data; see `_csv_rows`
        return _Table(text, delimiter, start, list(columns))
    sample = _sample(text, delimiter, after)
    headers = len(comments) - 1
    while headers > 0 and _is_header(text, delimiter, comments[headers - 1 : headers + 1], sample):
        headers -= 1
    if headers < len(comments) - 1:
        after = comments[headers]
    elif titles := _title_count(sample):
        after = sample[titles].start
    header = next(_cells(text, delimiter, after, recover=False), None)
    if header is None:
        return _Table(text, delimiter, after, [])
    if isinstance(header, BadRow):
        raise LoadError("csv", f"{header.message}; that is its header")
    if len(header.values) > MAX_COLUMNS:
        raise LoadError(
            "csv",
            f"its header has {len(header.values):,} columns, and {MAX_COLUMNS:,} are the most; "
            f"if {delimiter!r} is not the delimiter, pass it: CSVLoader(delimiter=...)",
        )
    names = [name.strip() for name in header.values]
    unnamed = len(names) - max((n for n, name in enumerate(names, 1) if name), default=0)
    columns = _unique(names)
    return _Table(text, delimiter, header.after, columns, min(unnamed, len(names) - 1))


def _comments(text: str, start: Place) -> list[Place]:
    """Return the place of each leading comment, and of the row after the last of them."""
    places: list[Place] = []
    place = start
    lines = Lines(text, start)
    for line in lines:
        if not line.startswith(_COMMENT):
            if line.strip():
                break
        elif not places or places[-1] != place:
            places.append(place)
        place = Place(lines.offset, place.number + 1, lines.line)
    return [*places, place] if places else []


def _is_header(
    text: str, delimiter: str, places: Sequence[Place], sample: Sequence[_Cells]
) -> bool:
    """Return whether a leading comment is the header or a row, as in `#chrom,start,end`."""
    line = text[places[0].offset : places[1].offset].strip().removeprefix(_COMMENT)
    names = next(csv.reader([line], delimiter=delimiter), [])
    if len(names) < 2 or not sample or any(not _NAME.fullmatch(name) for name in names):
        return False
    fitting = [cells for cells in sample if _fits(cells.values, len(names))]
    has_spaces = any(" " in name for name in names)
    return len(fitting) == len(sample) and not has_spaces and not _reads_as_header(sample)


def _reads_as_header(sample: Sequence[_Cells]) -> bool:
    """Return whether the first of some rows has no number where those below have one."""
    first, *others = sample
    return _is_named(first.values) and any(
        not _NUMBER.fullmatch(name) and _NUMBER.fullmatch(cell.strip())
        for row in others
        for name, cell in zip(first.values, row.values, strict=False)
    )


def _differs_in_case(sample: Sequence[_Cells]) -> bool:
    """Return whether the first of some rows has a small letter where all below have capitals."""
    first, *others = sample
    return any(
        name[:1].islower() and all(cell[:1].isupper() for cell in column)
        for name, *column in zip(first.values, *(row.values for row in others), strict=False)
    )


def _title_count(sample: Sequence[_Cells]) -> int:
    """Return the number of titles above a table in its first rows."""
    if len(sample) < 3:
        return 0
    width, _ = Counter(len(row.values) for row in sample).most_common(1)[0]
    for count, row in enumerate(sample[:_MAX_TITLES]):
        if len(row.values) == width and not _is_padded_title(row.values):
            return count if count and _begins_table(sample, count) else 0
        if not (_is_padded_title(row.values) or _is_title(row.values, width)):
            return 0
    return 0


def _begins_table(sample: Sequence[_Cells], count: int) -> bool:
    """Return whether the rows below some titles are a header and its rows."""
    title, header = sample[count - 1], sample[count]
    if count + 1 == len(sample) or not _is_named(header.values):
        return False
    rows = sample[count:]
    if header.line > title.line + 1 or _reads_as_header(rows) or _differs_in_case(rows):
        return True
    # Without proof, it may as well be a header that names too few columns, above its first row.
    return (
        len(header.values) > 2
        and " " in title.values[0].strip()
        and not any(_NUMBER.fullmatch(name) for name in header.values if not _YEAR.fullmatch(name))
    )


def _is_title(cells: Sequence[str], width: int) -> bool:
    """Return whether a row is a line of words: one cell, or few of a wide table."""
    is_words = all(cell.startswith(" ") for cell in cells[1:])
    return is_words and (len(cells) == 1 < width or len(cells) <= width - 2)


def _is_padded_title(cells: Sequence[str]) -> bool:
    """Return whether a row has only its first cell, or none, as spreadsheets pad a title."""
    return len(cells) >= 3 and not any(cell.strip() for cell in cells[1:])


def _is_named(cells: Sequence[str]) -> bool:
    """Return whether cells may be column names: short, unique, not all numbers; " a" is a word."""
    names = [cell for cell in cells if cell]
    return (
        len(names) >= 2
        and len(set(names)) == len(names)
        and all(_NAME.fullmatch(name) for name in names)
        and not all(_NUMBER.fullmatch(name) for name in names)
    )


def _csv_rows(table: _Table, *, recover: bool) -> Iterator[Row | BadRow]:
    """Yield the rows of a table with their cells by name."""
    columns, count = table.columns, len(table.columns)
    for row in _cells(table.text, table.delimiter, table.start, recover=recover):
        if isinstance(row, BadRow):
            yield row
            continue
        cells = row.values
        if len(cells) != count and not _fits(cells, count, table.unnamed):
            # A row such as `#2` is data with a cell too few or too many.
            is_comment = cells[0].startswith(_COMMENT) and (
                len(cells) == 1 or cells[0][1:2] in ("", " ", "#")
            )
            if not is_comment:
                yield BadRow(
                    f"row {row.number}, on line {row.line}, has {len(cells)} cells, and there are "
                    f"{count} columns; {_ADVICE}"
                )
            continue
        cells += [""] * (count - len(cells))
        yield Row(row.number, row.line, dict(zip(columns, cells, strict=False)))


def _fits(cells: Sequence[str], count: int, unnamed: int = 0) -> bool:
    """Return whether a row has `count` cells, or more if empty, or fewer by the unnamed ones."""
    return count - unnamed <= len(cells) <= count or (len(cells) > count and not any(cells[count:]))


def _cells(text: str, delimiter: str, start: Place, *, recover: bool) -> Iterator[_Cells | BadRow]:
    """
    Yield the cells of each row that is not blank.

    With `recover`, reading goes on after a row whose quotes do not fit, on the line after the one
    where it starts; a line that was taken for part of it is bad if its quotes are odd. So many open
    quotes that the text would be read over and over are a LoadError.
    """
    lines = Lines(text, start)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    number, suspect, read_again = start.number - 1, 0, 0
    has_damage = is_damaged(text)
    while True:
        number += 1
        line, offset = lines.line, lines.offset
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadRow(f"row {number}, from line {line} on: {error}; {_ADVICE}")
            if not recover:
                return
            suspect = max(suspect, lines.offset)
            end = text.find("\n", offset) + 1 or len(text)
            read_again += lines.offset - end
            if read_again > len(text) + _LOOKED_AT_CHARS:
                raise LoadError(
                    "csv", f"too many quotes are open up to line {line}; {_ADVICE}"
                ) from None
            lines.offset, lines.line = end, line + 1
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            continue
        if not values:
            continue
        if has_damage and is_damaged(text[offset : lines.offset]):
            yield BadRow(f"row {number}, on line {line}, has NUL bytes")
        elif offset < suspect and text.count('"', offset, lines.offset) % 2:
            yield BadRow(f"row {number}, on line {line}, has an open quote")
        else:
            yield _Cells(number, line, values, offset, lines.offset, lines.line)


def _sample(text: str, delimiter: str, start: Place) -> list[_Cells]:
    """Return the first rows that can be read; the last may be cut off."""
    part = text[: start.offset + _LOOKED_AT_CHARS]
    rows = _cells(part, delimiter, start, recover=True)
    return [row for row in islice(rows, _LOOKED_AT) if isinstance(row, _Cells)]


def _delimiter_of(text: str, start: Place) -> str:
    """Return the delimiter that gives the first rows as many cells as the header, or most."""

    def fitness(delimiter: str) -> tuple[bool, float, int]:
        sample = _sample(text, delimiter, start)
        widths = [len(row.values) for row in sample]
        if not widths:
            return False, 0, 0
        width, count = Counter(widths).most_common(1)[0]
        # Without the delimiter in the header, texts with one each are a column, unless titled.
        is_table = width > 1 and (widths[0] > 1 or _title_count(sample) > 0)
        return is_table and count == len(widths), is_table * count / len(widths), widths[0]

    return max(DELIMITERS, key=fitness)


def _unique(names: Sequence[str]) -> list[str]:
    """Return unique column names: `column 3` for none, `x.2` for the second `x`."""
    unique: dict[str, None] = {}
    latest: dict[str, int] = {}  # from where on to try, so that the time is linear
    for place, given in enumerate(names, start=1):
        name = first = given or f"column {place}"
        again = latest.get(first, 1)
        while name in unique:
            again += 1
            name = f"{first}.{again}"
        latest[first] = again
        unique[name] = None
    return list(unique)
