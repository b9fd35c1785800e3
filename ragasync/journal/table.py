"""What a journal holds, as a table and as one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from sqlite3 import Connection
from typing import TYPE_CHECKING, Any

from ragasync.error_text import closing_lines
from ragasync.errors import JournalError
from ragasync.journal.file import JOURNAL, open_to_read
from ragasync.journal.rows import check_seal, recalled_error
from ragasync.journal.serializers import BY_NAME, Serializer
from ragasync.sqlite_file import convert_errors

if TYPE_CHECKING:
    import pandas as pd

    from ragasync.journal.journal import Journal

_COLUMNS = {
    "item": "string",
    "occurrence": "int64",
    "status": "category",
    "value": "object",
    "error_type": "category",
    "error_message": "string",
    "stage": "category",
    "attempts": "Int64",
    "seconds": "float64",
    "waited": "float64",
    "backed_off": "float64",
    "recorded_at": "datetime64[ns, UTC]",
    "traceback": "string",
}


def journal_table(journal: Journal) -> pd.DataFrame:
    """Return a row an outcome; see Journal.to_dataframe."""
    import pandas as pd

    rows = _read(journal)
    frame = pd.DataFrame(rows, columns=list(_COLUMNS))
    frame["recorded_at"] = pd.to_datetime(frame["recorded_at"], unit="s", utc=True)
    return frame.astype(_COLUMNS)


def repr_line(journal: Journal) -> str:
    """Return whose journal it is and what it holds."""
    try:
        with _reading(journal) as connection:
            header = connection.execute("SELECT name FROM job").fetchone()
            counted = connection.execute(
                "SELECT status, count(*) FROM outcomes GROUP BY status"
            ).fetchall()
    except JournalError as error:
        return str(error)
    counts = dict(counted)
    named = "no job yet" if header is None else repr(header[0])
    return f"{named}, {counts.get('done', 0):,} done, {counts.get('failed', 0):,} failed"


def _read(journal: Journal) -> list[tuple[Any, ...]]:
    """Return the rows of the table."""
    with _reading(journal) as connection:
        loads = _reader_of(connection, journal)
        found = connection.execute(
            "SELECT item, occurrence, status, value, error_type, error_message, stage,"
            " attempts, seconds, waited, backed_off, recorded_at,"
            " error_module, error_notes, stack, key, seal FROM outcomes ORDER BY rowid"
        )
        return [(*_shown(_checked(row)[:12], loads), _traceback(row)) for row in found]


@contextmanager
def _reading(journal: Journal) -> Iterator[Connection]:
    """Give a connection to a journal that exists."""
    with (
        closing(open_to_read(journal)) as connection,
        convert_errors(journal.path, JOURNAL, journal.timeout),
    ):
        yield connection


def _shown(row: tuple[Any, ...], loads: Serializer | None) -> tuple[Any, ...]:
    """Return a row with its value read, as far as it may be."""
    data = row[3]
    if data is None:
        return row
    value = f"<{len(data):,} bytes>" if loads is None else loads.loads(data)
    return (*row[:3], value, *row[4:])


def _checked(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a row that is what was written."""
    item, occurrence, status, value, kind, message, stage, *_ = row
    module, notes, stack, key, seal = row[12:]
    kept = (status, value, module, kind, message, notes, stack, stage)
    check_seal(key, occurrence, item, (*kept, seal))
    return row


def _traceback(row: tuple[Any, ...]) -> str | None:
    """Return an error's traceback as text."""
    kind, message, module, notes, stack = row[4], row[5], *row[12:15]
    if kind is None or stack is None:
        return None
    return f"{stack}{closing_lines(recalled_error(module, kind, message, notes))}"


def _reader_of(connection: Connection, journal: Journal) -> Serializer | None:
    """Return what reads the values: what was asked for, or JSON and numpy, which run no code."""
    (name,) = connection.execute("SELECT serializer FROM job").fetchone() or ("json",)
    if journal.serializer is not None and journal.serializer.name == name:
        return journal.serializer
    return None if name == "pickle" else BY_NAME.get(name)
