"""A journal as one processor uses it: the job's name, its keys, and the values it knows."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from ragasync.errors import JournalError
from ragasync.journal.journal import Journal

if TYPE_CHECKING:
    from types import FrameType

    from ragasync.function_fingerprint import FunctionFingerprint
    from ragasync.journal.keys import Key, KeyFunction
    from ragasync.journal.serializers import Serializer
    from ragasync.journal.session import JournalRun

_PACKAGE = __name__.partition(".")[0]


@dataclass(frozen=True, slots=True)
class JournalBinding:
    """
    A journal, and what a processor brings to it.

    Args:
        journal: the settings.
        name: the job's name, where the journal has none of its own.
        functions: the fingerprints of the job's functions by name, to notice changes.
        made_at: the file and the line where the user made the processor.
        key: the caller's `key=`, or None for the content of items.
        keying: makes the Key of an item; None: `key_of`.
        on_thread: whether making a key may take long, and belongs on a thread.
        serializer: how values are kept, where the journal does not say; None: as JSON.
        still_holds: says of an item and its earlier value whether that is still true; None: always.
        passing: the names of errors that come of more than the item, which runs again after them.
        subject: says what an earlier value is about: of several about one thing only the one that
            was written last holds; None: each is about a thing of its own.
        again: whether items that failed are to run again whatever the journal says.

    Raises:
        JournalError: there are no threads here, one of which would have to write it.
    """

    journal: Journal
    name: str
    functions: Mapping[str, FunctionFingerprint] = field(default_factory=dict)
    made_at: tuple[str, int] = ("<unknown>", 1)
    key: KeyFunction | None = None
    keying: Callable[[Any, KeyFunction | None], Key] | None = None
    on_thread: bool = False
    serializer: Serializer | None = None
    still_holds: Callable[[Any, Any], bool] | None = None
    passing: frozenset[str] = frozenset()
    subject: Callable[[Any], object] | None = None
    again: bool = False

    def __post_init__(self) -> None:
        if sys.platform == "emscripten":
            raise JournalError(
                f"the journal {self.journal.path!r} cannot be kept in a browser: a thread writes "
                "it, and Python has none there: leave out journal="
            )

    def open(self) -> JournalRun:
        """
        Begin a run; it blocks, and belongs on a thread.

        Raises:
            JournalError: the journal is another job's, in use by another run, locked, or damaged.
        """
        from ragasync.journal.session import JournalRun  # which loads SQLite

        return JournalRun(self.journal, self)


def bind_journal(
    function: Callable[..., Any], journal: object, key: KeyFunction | None
) -> JournalBinding | None:
    """
    Return a journal as a processor of this function uses it, or None without one.

    Args:
        function: what the processor calls.
        journal: a Journal, a path for one, or None.
        key: makes an item's key; None: the item itself.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: there is a key, but no journal.
    """
    if key is not None and not callable(key):
        raise TypeError(f"key must be a function of one item, got {key!r}")
    if isinstance(journal, JournalBinding):
        return journal  # of a processor that is built on this one, and brings more of its own
    if journal is None:
        if key is not None:
            raise ValueError("key= tells items apart in a journal: it needs journal=")
        return None
    if isinstance(journal, str | os.PathLike):
        journal = Journal(journal)
    if not isinstance(journal, Journal):
        raise TypeError(f"journal must be a Journal, or the path of one, got {journal!r}")
    from ragasync.function_fingerprint import fingerprint_of  # which loads compilers

    name = definition_of(function).__qualname__.rpartition("<locals>.")[2]
    functions = {"function": fingerprint_of(function)}
    return JournalBinding(journal, name, functions, users_line(), key)


def definition_of(function: Callable[..., Any]) -> Any:
    """Return what was written for a function: itself, a partial's function, an object's class."""
    inner = function
    while isinstance(inner, partial):
        inner = inner.func
    return inner if hasattr(inner, "__qualname__") else type(inner)


def users_line() -> tuple[str, int]:
    """Return the file and the line of the call into this package that led here."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] != _PACKAGE:
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
    return "<unknown>", 1
