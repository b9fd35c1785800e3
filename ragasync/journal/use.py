"""A journal as one processor uses it: the job's name, its keys, and the values it knows."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ragasync.errors import JournalError
from ragasync.journal.journal import Journal

if TYPE_CHECKING:
    from ragasync.journal.keys import Key, KeyFunction
    from ragasync.journal.run import JournalRun
    from ragasync.journal.serializers import Serializer


@dataclass(frozen=True, slots=True)
class JournalUse:
    """
    A journal, and what a processor brings to it.

    Args:
        journal: the settings.
        name: the job's name, where the journal has none of its own.
        source: a digest of the function's source, to notice that it was changed; or a line each
            of several functions, as "name=digest".
        key: the caller's `key=`, or None for the content of items.
        keying: makes the Key of an item; None: `key_of`.
        on_thread: whether making a key may take long, and belongs on a thread.
        serializer: how values are kept, where the journal does not say; None: as JSON.
        still_holds: says of an earlier value whether it is still true; None: always.
        subject: says what an earlier value is about: of several about one thing only the one that
            was written last holds; None: each is about a thing of its own.
        again: whether items that failed are to run again whatever the journal says.

    Raises:
        JournalError: there are no threads here, one of which would have to write it.
    """

    journal: Journal
    name: str
    source: str = ""
    key: KeyFunction | None = None
    keying: Callable[[Any, KeyFunction | None], Key] | None = None
    on_thread: bool = False
    serializer: Serializer | None = None
    still_holds: Callable[[Any], bool] | None = None
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
        from ragasync.journal.run import JournalRun  # which loads SQLite

        return JournalRun(self.journal, self)


def used_by(
    function: Callable[..., Any], journal: object, key: KeyFunction | None
) -> JournalUse | None:
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
    if isinstance(journal, JournalUse):
        return journal  # of a processor that is built on this one, and brings more of its own
    if journal is None:
        if key is not None:
            raise ValueError("key= tells items apart in a journal: it needs journal=")
        return None
    if isinstance(journal, str | os.PathLike):
        journal = Journal(journal)
    if not isinstance(journal, Journal):
        raise TypeError(f"journal must be a Journal, or the path of one, got {journal!r}")
    name = definition_of(function).__qualname__.rpartition("<locals>.")[2]
    return JournalUse(journal, name, digest_of_source(function), key)


def definition_of(function: Callable[..., Any]) -> Any:
    """Return what was written for a function: itself, a partial's function, an object's class."""
    inner = function
    while isinstance(inner, partial):
        inner = inner.func
    return inner if hasattr(inner, "__qualname__") else type(inner)


def digest_of_source(function: Callable[..., Any]) -> str:
    """Return a digest of a function's or class's source, empty where it cannot be had."""
    try:
        source = inspect.getsource(definition_of(function))
    except (OSError, TypeError):
        return ""
    from hashlib import blake2b

    return blake2b(source.encode(errors="replace"), digest_size=8).hexdigest()
