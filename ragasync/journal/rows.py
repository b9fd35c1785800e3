"""What a journal writes of an outcome, and the outcome that it reads again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias
from zlib import crc32

from ragasync.error_text import error_text, safe_notes
from ragasync.errors import JournaledError
from ragasync.foreign_errors import attribute, leaves_of
from ragasync.outcomes.outcome import Outcome, Status
from ragasync.sqlite_file import corruption_error

Row: TypeAlias = tuple[Any, ...]
"""An outcome as columns of the file's table."""


@dataclass(frozen=True, slots=True)
class Place:
    """
    Where a journal keeps the outcome of an item.

    Args:
        key: the digest of its key.
        occurrence: how many items of the same key came before it in its run.
        shown: what people see of its key.
    """

    key: bytes
    occurrence: int
    shown: str


def row_of(
    place: Place, outcome: Outcome[Any, Any], stack: str | None, value: bytes | None, now: float
) -> Row:
    """Return all columns of an outcome that is done or failed, in the table's order."""
    error = outcome.error
    failed = (None,) * 4 if error is None else _error_columns(error)
    stack = None if stack is None else _storable(stack)
    kept = (outcome.status, value, *failed, stack, outcome.stage)
    return (
        place.key,
        place.occurrence,
        _storable(place.shown),
        *kept,
        outcome.attempts,
        outcome.seconds,
        outcome.waited,
        outcome.backed_off,
        now,
        _seal_of(place.key, place.occurrence, kept),
    )


def check_seal(key: bytes, occurrence: int, shown: str, row: Row) -> None:
    """
    See that an outcome, the last of whose columns is the seal, is the one that was written.

    SQLite notices pages that make no sense, but not another digit in a value.

    Raises:
        sqlite3.DatabaseError: it is another.
    """
    *kept, seal = row
    if _seal_of(key, occurrence, kept) != seal:
        raise corruption_error(f"the outcome of {shown!r:.100} is not what was written")


def _seal_of(key: bytes, occurrence: int, kept: Sequence[Any]) -> int:
    """Return a checksum of what will be recalled of an outcome: status, value, and texts."""
    status, value, *texts = kept
    seal = crc32(repr((key, occurrence, status, texts)).encode())
    return crc32(value, seal) if isinstance(value, bytes) else seal ^ (value is not None)


def recalled(
    index: int, item: Any, row: Row, loads: Callable[[bytes], Any]
) -> tuple[Outcome[Any, Any], str | None]:
    """Return the outcome that was written for an item, from the columns selected, and its stack."""
    status: Status
    status, value, module, kind, message, notes, stack, stage = row
    error = None if kind is None else recalled_error(module, kind, message, notes)
    outcome: Outcome[Any, Any] = Outcome(
        index=index,
        item=item,
        status=status,
        value=loads(value) if status == "done" else None,
        error=error,
        stage=stage,
    )
    return outcome, stack


def recalled_error(module: str, kind: str, message: str, notes: str | None) -> JournaledError:
    """Return what stands for an error of an earlier process: its name, its message, its notes."""
    error = _class_named(module, kind)(message)
    for note in (notes or "").splitlines():
        error.add_note(note)
    return error


@lru_cache(maxsize=1024)
def _class_named(module: str, kind: str) -> type[JournaledError]:
    """Return a class that reads as the one that an error had."""
    return type(kind, (JournaledError,), {"__module__": module, "__qualname__": kind})


def _error_columns(error: BaseException) -> tuple[str, str, str, str | None]:
    """Return module, type, message and notes of what tables say of an error."""
    notes = "\n".join(safe_notes(error))
    kind, message, _ = error_text(error)
    module = attribute(type(leaves_of(error)[0]), "__module__")
    texts = module if isinstance(module, str) else "builtins", kind, message
    module, kind, message = map(_storable, texts)
    return module, kind, message, _storable(notes) or None


def _storable(text: str) -> str:
    """Return a text as any file can hold it: lone surrogates become question marks."""
    return text.encode("utf-8", "replace").decode()
