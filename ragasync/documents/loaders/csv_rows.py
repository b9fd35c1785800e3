"""The rows of a CSV file to documents, one a row."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from ragasync.documents.errors import LoadError
from ragasync.documents.loaders import Record
from ragasync.documents.loaders.decode import load_text
from ragasync.documents.loaders.records import Layout, Row, marked

DELIMITERS = (",", ";", "\t", "|")
"""What may stand between cells where nothing else is said."""

_LOOKED_AT = 20
_WHOLE = re.compile(r"-?(?:0|[1-9]\d{0,17})")
_DECIMAL = re.compile(r"-?(?:0|[1-9]\d{0,17})(?:\.\d{1,17})?(?:[eE][+-]?\d{1,2})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvRows:
    r"""
    Load each row of a table as a document of its own, `data.csv#17` by the number of the row.

    Rows are counted as a spreadsheet does: the header is row 1. A row's text is its cells as
    lines of `column: value`, or one column as it stands. `metadata["row"]` is the row's number,
    `metadata["line"]` the line on which it starts, as an editor shows it; a column of metadata
    where every cell is a number, or empty, holds numbers.

    The delimiter is the one of comma, semicolon, tab and bar by which the first 20 rows are all
    as long as the header; of several, the one that makes most columns.

    Example:
        >>> from pathlib import Path
        >>> from ragasync.documents import LOADERS, CsvRows, load_source
        >>> _ = Path("books.csv").write_text("isbn,title,year\n111,Limits,2020\n222,Retries,2024")
        >>> rows = CsvRows(text_columns=["title"], id_column="isbn")
        >>> for document in load_source("books.csv", loaders={**LOADERS, ".csv": rows}):
        ...     print(document.id, document.text, document.metadata["year"])
        books.csv#111 Limits 2020
        books.csv#222 Retries 2024

    Args:
        text_columns: The columns that make the text; by default all.
        id_column: The column that makes the id instead of the row's number.
        metadata_columns: The columns that become metadata; by default those that make no text.
        columns: The names of the columns of a file that has no header.
        delimiter: What stands between cells.
        encoding: The encoding of the file, where that is known.

    Raises:
        LoadError: "csv" for a row that is longer or shorter than the header, that has an open
            quote, or whose id is empty or there before, and for a column that is not there;
            "binary" or "encoding".
    """

    text_columns: Sequence[str] | None = None
    id_column: str | None = None
    metadata_columns: Sequence[str] | None = None
    columns: Sequence[str] | None = None
    delimiter: str | None = None
    encoding: str | None = None

    def __call__(self, data: bytes) -> Iterable[Record]:
        """Return a record for each row that has a text."""
        text, read_as = load_text(data, encoding=self.encoding)
        # The limit is the process's, and meant for streams: here the whole text is in memory.
        csv.field_size_limit(max(csv.field_size_limit(), len(text)))
        rows = list(_rows(text, self.delimiter or _delimiter_of(text)))
        if self.columns is None and rows:
            columns = _unique([name.strip() for name in rows.pop(0)[2]])
        else:
            columns = list(self.columns or ())
        _refuse_ragged(rows, columns)
        layout = Layout("csv", self.text_columns, self.id_column, self.metadata_columns)
        return marked(self._typed(layout.records(_named(rows, columns))), read_as)

    def _typed(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yield the records with numbers in those columns of their metadata that hold numbers."""
        kept = list(records)
        names = list(kept[0].metadata)[2:] if kept else []
        numbers = {
            name: kind
            for name in names
            if (kind := _kind_of([str(record.metadata[name]) for record in kept]))
        }
        for record in kept:
            values = {
                name: kind(cell) if (cell := str(record.metadata[name])) else None
                for name, kind in numbers.items()
            }
            yield Record(record.key, record.text, {**record.metadata, **values})


def _rows(text: str, delimiter: str) -> Iterator[tuple[int, int, list[str]]]:
    """Yield the number, the first line and the cells of each row that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    number, line = 0, 1
    while True:
        number += 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise LoadError("csv", f"row {number}, from line {line} on: {error}") from None
        if cells:
            yield number, line, cells
        line = reader.line_num + 1


def _delimiter_of(text: str) -> str:
    """Return the delimiter by which the first rows are as long as the header, and long."""

    def fitness(delimiter: str) -> tuple[bool, int]:
        widths: list[int] = []
        try:
            widths.extend(len(cells) for _, _, cells in islice(_rows(text, delimiter), _LOOKED_AT))
        except LoadError:
            return False, widths[0] if widths else 0
        return len(set(widths)) == 1 and widths[0] > 1, widths[0] if widths else 0

    return max(DELIMITERS, key=fitness)


def _unique(names: Sequence[str]) -> list[str]:
    """Return names for columns: those without one by their place, the second `x` as `x.2`."""
    unique: dict[str, None] = {}
    for place, given in enumerate(names, start=1):
        name = first = given or f"column {place}"
        again = 1
        while name in unique:
            again += 1
            name = f"{first}.{again}"
        unique[name] = None
    return list(unique)


def _refuse_ragged(rows: Iterable[tuple[int, int, list[str]]], columns: Sequence[str]) -> None:
    """Raise for the first row that is not as long as the header."""
    for number, line, cells in rows:
        if len(cells) != len(columns):
            raise LoadError(
                "csv",
                f"row {number}, on line {line}, has {len(cells)} cells, and there are "
                f'{len(columns)} columns; {{**LOADERS, ".csv": load_text}} loads it as one text',
            )


def _named(rows: Iterable[tuple[int, int, list[str]]], columns: Sequence[str]) -> Iterator[Row]:
    """Yield the rows with their cells by name."""
    for number, line, cells in rows:
        yield Row(number, line, dict(zip(columns, cells, strict=True)))


def _kind_of(cells: Sequence[str]) -> type[int | float] | None:
    """Return which numbers all cells of a column hold, if they do; 007 is none."""
    if not any(cells):
        return None
    for kind, written in ((int, _WHOLE), (float, _DECIMAL)):
        if all(not cell or written.fullmatch(cell) for cell in cells):
            return kind
    return None
