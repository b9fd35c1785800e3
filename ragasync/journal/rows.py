"""Rows of a journal: the keys of items, outcomes written and read back, and a DataFrame."""

from __future__ import annotations

import datetime
import json
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from sqlite3 import Connection
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID
from zlib import crc32

from ragasync._outcomes.outcome import Outcome, Status
from ragasync.error_text import closing_lines, error_text, safe_notes
from ragasync.errors import JournaledError, JournalError
from ragasync.foreign_errors import attribute, leaves_of
from ragasync.journal.file import JOURNAL, Row, open_journal
from ragasync.journal.serializers import SERIALIZERS, Serializer
from ragasync.sqlite_file import convert_errors, corruption_error

if TYPE_CHECKING:
    import pandas as pd

PLAIN = (str, int, float, bool, type(None))

_encoder = json.JSONEncoder(sort_keys=True, separators=(",", ":"))

encode_scalar = _encoder.encode
"""Encodes one text or number."""


def canonical_json(value: object) -> str | None:
    """Plain data as JSON that does not depend on the order of dicts; None for other data."""
    if not _is_plain(value):
        return None
    try:
        return _encoder.encode(value)
    except (ValueError, RecursionError):  # a cycle, or an int with too many digits
        return None


def canonical_row(value: object) -> str | None:
    """
    Data as rows of DataFrames have it, as text; None if a part of it has no canonical form.

    Dates, times, Decimals, UUIDs, bytes, arrays, sets and dicts with other keys than texts are
    tagged with their kind. A Timestamp of pandas is a datetime, and each missing value is None.
    """
    try:
        return _encoder.encode(_tagged(value))
    except Exception:  # of a foreign class, or data that is nested too deeply
        return None


def _is_plain(value: object) -> bool:
    """Whether a value consists of plain data only, without subclasses or other dict keys."""
    kind = type(value)
    if kind in PLAIN:
        return True
    try:
        if isinstance(value, list | tuple) and kind in (list, tuple):
            return all(map(_is_plain, value))
        if isinstance(value, dict) and kind is dict:
            return all(type(name) is str for name in value) and all(map(_is_plain, value.values()))
    except RecursionError:
        return False
    return False


def _tagged(value: Any) -> Any:
    """
    Data as JSON in which everything but scalars and lists is a dict of one tag.

    Raises:
        TypeError: a part of it has no canonical form.
    """
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind in (list, tuple):
        return list(map(_tagged, value))
    if kind is dict:
        pairs = [[_tagged(name), _tagged(each)] for name, each in value.items()]
        return {"dict": sorted(pairs, key=lambda pair: _encoder.encode(pair[0]))}
    if kind in (set, frozenset):
        return {"set": sorted(map(_tagged, value), key=_encoder.encode)}
    if kind in (bytes, bytearray):
        return {"bytes": value.hex()}
    if kind in (Decimal, UUID):
        return {kind.__name__: str(value)}
    library = kind.__module__.partition(".")[0]
    if library == "pandas" and kind.__name__ in ("NAType", "NaTType"):
        return None
    if library == "pandas" and kind.__name__ in ("Period", "Interval"):
        return {kind.__name__: str(value)}
    if library == "numpy" and hasattr(value, "dtype"):
        return _of_numpy(value)
    return _of_time(value)


def _of_time(value: Any) -> Any:
    """A date, a time or a duration, with the nanoseconds of pandas."""
    if isinstance(value, datetime.datetime):
        return {"datetime": value.isoformat()}
    if isinstance(value, datetime.date | datetime.time):
        return {type(value).__name__: value.isoformat()}
    if isinstance(value, datetime.timedelta):
        nanoseconds = getattr(value, "nanoseconds", 0)
        return {"timedelta": [value.days, value.seconds, value.microseconds, nanoseconds]}
    raise TypeError(f"{value!r:.200} has no canonical form")


def _of_numpy(value: Any) -> Any:
    """A scalar or an array of numpy; one of objects by its elements."""
    if value.dtype.kind in "mM":
        return {str(value.dtype): value.astype("int64").tolist()}
    plain = value.tolist()
    return _tagged(plain) if value.ndim == 0 else {"array": _tagged(plain)}


KeyFunction: TypeAlias = Callable[[Any], object]
"""Maps an item to plain data that identifies it."""

PREVIEW = 120
"""How many characters of a key a journal keeps for people to read."""

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Key:
    """
    The key of an item.

    Args:
        digest: 16 bytes: BLAKE2b of the canonical text, or of a file's content.
        preview: the beginning of that text, or the file's path, for people.
    """

    digest: bytes
    preview: str


def make_key(item: object, key: KeyFunction | None = None) -> Key:
    """
    Make the Key of an item, from the value of `key` or from the item itself.

    Plain data (None, booleans, numbers, strings, and lists, tuples and dicts of these with string
    keys) becomes canonical JSON, so that the order of a dict does not matter. Rows of a DataFrame
    may also have dates, times, Decimals, UUIDs, bytes and missing values of pandas. Bytes are used
    as they are, a path by the content of its file, or by its name if the file cannot be read.

    Raises:
        TypeError: the value is something else.
    """
    given = item if key is None else key(item)
    # Fast path for the most common items, with the same result as below.
    if type(given) is str or (type(given) is int and given.bit_length() <= 64):
        written = encode_scalar(given)
        preview = given if isinstance(given, str) else written
        return Key(_digest(b"json", written.encode()), preview[:PREVIEW])
    if isinstance(given, bytes):
        return Key(_digest(b"bytes", given), repr(given[:PREVIEW]))
    if isinstance(given, os.PathLike):
        return _key_of_file(Path(given))
    kind, text = b"json", canonical_json(given)
    if text is None:
        kind, text = b"row", canonical_row(given)
    if text is None:
        raise TypeError(_advice(item, given, key))
    preview = given if isinstance(given, str) else text
    return Key(_digest(kind, text.encode()), preview[:PREVIEW])


def _key_of_file(path: Path) -> Key:
    """Key of a file by its content, or by its name if it is not a readable regular file."""
    preview = str(path)[-PREVIEW:]
    digest = blake2b(b"file", digest_size=16)
    by_name = Key(_digest(b"name", str(path).encode(errors="surrogatepass")), preview)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would block
            return by_name
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except (OSError, ValueError):  # processing the file will raise the same error
        return by_name
    return Key(digest.digest(), preview)


def _digest(kind: bytes, content: bytes) -> bytes:
    """Digest of some content; the kind makes strings, bytes and files differ."""
    return blake2b(content, digest_size=16, person=kind).digest()


def _advice(item: object, given: object, key: KeyFunction | None) -> str:
    """Error message that says what a key must be."""
    if key is not None:
        return (
            f"key= must return plain data, such as a str, for each item, got {given!r:.200} "
            f"of type {type(given).__name__}"
        )
    return (
        f"a journal identifies items by their content, and that of {item!r:.200} (of type "
        f"{type(item).__name__}) is not plain data: pass key=, a function that returns a str or a "
        f"number for each item, such as key=lambda item: item.id"
    )


_DTYPES = {
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
    "tokens": "Int64",
    "cost": "Float64",
    "recorded_at": "datetime64[ns, UTC]",
    "traceback": "string",
}


@dataclass(frozen=True, slots=True)
class RowKey:
    """
    The key of an outcome's row in a journal.

    Args:
        occurrence: the number of earlier items with the same key in the run.
    """

    key: bytes
    occurrence: int
    preview: str


def to_row(
    row_key: RowKey, outcome: Outcome[Any, Any], stack: str | None, value: bytes | None, now: float
) -> Row:
    """All columns of an outcome, in the order of the table."""
    error = outcome.error
    error_columns = (None,) * 4 if error is None else _error_columns(error)
    stack = None if stack is None else _storable(stack)
    content = (outcome.status, value, *error_columns, stack, outcome.stage)
    return (
        row_key.key,
        row_key.occurrence,
        _storable(row_key.preview),
        *content,
        outcome.attempts,
        outcome.seconds,
        outcome.waited,
        outcome.backed_off,
        *((outcome.tokens, outcome.cost) if outcome.tokens or outcome.cost else (None, None)),
        now,
        _checksum(row_key.key, row_key.occurrence, content),
    )


def check_row(key: bytes, occurrence: int, preview: str, row: Row) -> None:
    """
    Check the content of an outcome against its checksum, the last column.

    SQLite notices pages that make no sense, but not a changed digit in a value.

    Raises:
        sqlite3.DatabaseError: the checksum does not match.
    """
    *content, checksum = row
    if _checksum(key, occurrence, content) != checksum:
        raise corruption_error(f"the checksum of the outcome of {preview!r:.100} does not match")


def _checksum(key: bytes, occurrence: int, content: Sequence[Any]) -> int:
    """Checksum of the content of an outcome: its status, value, and texts."""
    status, value, *texts = content
    checksum = crc32(repr((key, occurrence, status, texts)).encode())
    return crc32(value, checksum) if isinstance(value, bytes) else checksum ^ (value is not None)


def to_outcome(
    index: int, item: Any, row: Row, loads: Callable[[bytes], Any]
) -> tuple[Outcome[Any, Any], str | None]:
    """Rebuild the outcome of an item, and the stack of its error, from the selected columns."""
    status: Status
    status, value, module, kind, message, notes, stack, stage, tokens, cost = row
    error = None if kind is None else journaled_error(module, kind, message, notes)
    outcome: Outcome[Any, Any] = Outcome(
        index=index,
        item=item,
        status=status,
        value=loads(value) if status == "done" else None,
        error=error,
        stage=stage,
        tokens=tokens or 0,
        cost=cost or 0.0,
    )
    return outcome, stack


def journaled_error(module: str, kind: str, message: str, notes: str | None) -> JournaledError:
    """Stand-in for an error of an earlier process, with its class name, message and notes."""
    error = _class_named(module, kind)(message)
    for note in (notes or "").splitlines():
        error.add_note(note)
    return error


@lru_cache(maxsize=1024)
def _class_named(module: str, kind: str) -> type[JournaledError]:
    """Subclass of JournaledError with the name of the original class."""
    return type(kind, (JournaledError,), {"__module__": module, "__qualname__": kind})


def _error_columns(error: BaseException) -> tuple[str, str, str, str | None]:
    """Module, type, message and notes of an error, as in result tables."""
    notes = "\n".join(safe_notes(error))
    kind, message, _ = error_text(error)
    module = attribute(type(leaves_of(error)[0]), "__module__")
    texts = module if isinstance(module, str) else "builtins", kind, message
    module, kind, message = map(_storable, texts)
    return module, kind, message, _storable(notes) or None


def _storable(text: str) -> str:
    """Replace lone surrogates by question marks, because UTF-8 cannot encode them."""
    return text.encode("utf-8", "replace").decode()


def journal_dataframe(path: str, timeout: float, serializer: Serializer | None) -> pd.DataFrame:
    """DataFrame with one row per outcome; see Journal.to_dataframe."""
    import pandas as pd

    rows = _read_rows(path, timeout, serializer)
    frame = pd.DataFrame(rows, columns=list(_DTYPES))
    frame["recorded_at"] = pd.to_datetime(frame["recorded_at"], unit="s", utc=True)
    return frame.astype(_DTYPES)


def describe_journal(path: str, timeout: float) -> str:
    """Job name and counts of a journal, or why it cannot be read, for a repr."""
    try:
        with _opened(path, timeout) as connection:
            header = connection.execute("SELECT name FROM job").fetchone()
            counted = connection.execute(
                "SELECT status, count(*) FROM outcomes GROUP BY status"
            ).fetchall()
    except JournalError as error:
        return str(error).replace(f" at {path!r}", "")  # the repr begins with the path
    counts = dict(counted)
    name = "no job yet" if header is None else repr(header[0])
    return f"{name}, {counts.get('done', 0):,} done, {counts.get('failed', 0):,} failed"


def _read_rows(path: str, timeout: float, serializer: Serializer | None) -> list[tuple[Any, ...]]:
    """Rows of the DataFrame."""
    with _opened(path, timeout) as connection:
        loader = _value_loader(connection, serializer)
        found = connection.execute(
            "SELECT item, occurrence, status, value, error_type, error_message, stage,"
            " attempts, seconds, waited, backed_off, tokens, cost, recorded_at,"
            " error_module, error_notes, stack, key, checksum FROM outcomes ORDER BY rowid"
        )
        return [(*_with_value(_checked(row)[:14], loader), _traceback(row)) for row in found]


@contextmanager
def _opened(path: str, timeout: float) -> Iterator[Connection]:
    """Connect to an existing journal for the length of a block."""
    with closing(open_journal(path, timeout)) as connection, convert_errors(path, JOURNAL, timeout):
        yield connection


def _with_value(row: tuple[Any, ...], loader: Serializer | None) -> tuple[Any, ...]:
    """A row with its value deserialized, or its size if there is no serializer for it."""
    data = row[3]
    if data is None:
        return row
    value = f"<{len(data):,} bytes>" if loader is None else loader.loads(data)
    return (*row[:3], value, *row[4:])


def _checked(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A row whose checksum matches."""
    item, occurrence, status, value, kind, message, stage, *_ = row
    module, notes, stack, key, checksum = row[14:]
    content = (status, value, module, kind, message, notes, stack, stage)
    check_row(key, occurrence, item, (*content, checksum))
    return row


def _traceback(row: tuple[Any, ...]) -> str | None:
    """Traceback of an error as text."""
    kind, message, module, notes, stack = row[4], row[5], *row[14:17]
    if kind is None or stack is None:
        return None
    return f"{stack}{closing_lines(journaled_error(module, kind, message, notes))}"


def _value_loader(connection: Connection, serializer: Serializer | None) -> Serializer | None:
    """The given serializer if the journal has it, else JSON or numpy, which run no code."""
    (name,) = connection.execute("SELECT serializer FROM job").fetchone() or ("json",)
    if serializer is not None and serializer.name == name:
        return serializer
    return None if name == "pickle" else SERIALIZERS.get(name)
