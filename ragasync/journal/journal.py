"""Journal: the settings of a journal; JournalBinding: how one processor uses it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from ragasync.arguments import check_count, check_seconds, explains_arguments
from ragasync.errors import JournalError
from ragasync.journal.serializers import get_serializer
from ragasync.object_views import object_html

if TYPE_CHECKING:
    from types import FrameType

    import pandas as pd

    from ragasync._function_fingerprint import FunctionFingerprint
    from ragasync.journal.rows import Key, KeyFunction
    from ragasync.journal.serializers import Serializer

_PACKAGE = __name__.partition(".")[0]


@explains_arguments
class Journal:
    """
    A record of every outcome of a job in a SQLite file; when the job runs again, it continues.

    Pass it to a processor. A thread commits outcomes in groups; kill -9 at any moment loses at most
    the calls in flight and one group. A later run with the same journal returns a complete result:
    the outcomes of earlier runs (with `attempts` 0) and its own.

    Items are identified by their content, or by the processor's `key=`; items with equal keys are
    numbered in input order. A journal belongs to one job, identified by name and version; another
    job is refused. A function whose code or settings (such as the model) have changed only causes
    a warning that describes the changes, because users fix a function and resume.

    If the journal file is deleted, renamed, replaced, truncated or taken over while a run writes to
    it, the run stops with a JournalError; finished outcomes are in the result. The file must be on
    a local disk, like any SQLite database with a write-ahead log.

    `to_dataframe()` reads it, also while a job writes to it.

    Example:
        >>> from ragasync import AsyncBatchProcessor, Journal
        >>> processor = AsyncBatchProcessor(str.upper, journal=Journal("run.sqlite"))
        >>> processor.process_sync(["a", "b"]).results
        ['A', 'B']
        >>> result = processor.process_sync(["a", "b", "c"])  # only "c" is processed
        >>> result.results
        ['A', 'B', 'C']
        >>> [outcome.attempts for outcome in result]
        [0, 0, 1]

    Args:
        path: the file, which is created if it is missing.
        name: the job's name; by default the name of the processor's function.
        version: the job's version. Change it to start again with a new file: a journal of another
            version is refused.
        retry_failed: whether to retry items that failed in earlier runs, instead of keeping their
            failures. Items whose errors stopped the run (an invalid key, or one error of all first
            calls) are always retried.
        serializer: how values are stored: "json" (plain data: strings, numbers, lists, dicts),
            "numpy" (arrays), "pickle" (anything; only for files that you trust), or an object
            with `name`, `dumps` and `loads`. A value that would change stops the job with an
            error. None is "json", or a processor's own serializer.
        flush_seconds: the maximum time until an outcome is written.
        flush_items: the maximum number of unwritten outcomes, not counting calls in flight.
            Half of this number is written without waiting for `flush_seconds`; when the disk is
            behind by all of it, no new call is started.
        timeout: seconds to wait for another process that is writing to the file.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        version: str = "",
        retry_failed: bool = False,
        serializer: str | Serializer | None = None,
        flush_seconds: float | timedelta = 0.05,
        flush_items: int = 500,
        timeout: float | timedelta = 5.0,
    ) -> None:
        given = self._given = os.fspath(path)
        if not isinstance(given, str) or given in ("", ":memory:"):
            raise ValueError(f"a journal needs the path of a file, got {path!r}")
        if "\0" in given:
            raise ValueError(f"a path has no null character, got {path!r}")
        self.path = os.path.abspath(given)  # noqa: PTH100  # does not resolve links
        for argument, value in (("name", name or ""), ("version", version)):
            if not isinstance(value, str):
                raise TypeError(f"{argument} must be a str, got {value!r}")
        check_count("flush_items", flush_items, at_least=1)
        self.name, self.version, self.retry_failed = name, version, retry_failed
        self.serializer = None if serializer is None else get_serializer(serializer)
        self.flush_seconds = check_seconds("flush_seconds", flush_seconds)
        self.timeout = check_seconds("timeout", timeout)
        self.flush_items = flush_items

    def to_dataframe(self) -> pd.DataFrame:
        """
        DataFrame with one row per outcome, in the order of writing; also while a job runs.

        Items that are pending or cancelled have a row if their attempts reported any usage.

        Columns: item (the beginning of its key, or its path), occurrence, status, value,
        error_type, error_message, stage, attempts, seconds, waited, backed_off, tokens, cost,
        recorded_at (UTC) and traceback, with the dtypes of `ragasync.to_dataframe`. Pickled values
        are loaded only if the journal has `serializer="pickle"`.

        Raises:
            JournalError: the journal does not exist, is locked, or is damaged.
        """
        from ragasync.journal.rows import journal_dataframe  # loads SQLite

        return journal_dataframe(self.path, self.timeout, self.serializer)

    def __repr__(self) -> str:
        from ragasync.journal.rows import describe_journal  # loads SQLite

        return f"<Journal {self._given!r}: {describe_journal(self.path, self.timeout)}>"

    def _repr_html_(self) -> str:
        """The settings and the state of the file as a table."""
        facts = [
            ("path", str(self.path)),
            ("name", self.name),
            ("version", self.version or None),
            ("retry_failed", self.retry_failed),
        ]
        return object_html(self, facts)


@dataclass(frozen=True, slots=True)
class JournalBinding:
    """
    A journal and how one processor uses it.

    Args:
        name: the job's name, if the journal has none.
        functions: the fingerprints of the job's functions by name, to notice changes.
        made_at: the file and line where the user made the processor.
        key: the user's `key=`; None for the content of items.
        make_key: makes the Key of an item; None for `rows.make_key`.
        has_slow_keys: whether making a key may take long, and belongs on a thread.
        serializer: how values are stored, if the journal does not say; None for JSON.
        is_still_valid: checks whether a recorded value still applies to an item; None for always.
        transient_errors: class names of errors with a cause outside the item; it runs again.
        subject: maps a recorded value to its subject: of several values with the same subject only
            the latest applies. None if every value has its own.
        rerun_failed: whether failed items run again whatever the journal says.
        keys_have_settings: whether outcomes of other settings do not count, and the warning of a
            change says so.

    Raises:
        JournalError: there are no threads here to write a journal.
    """

    journal: Journal
    name: str
    functions: Mapping[str, FunctionFingerprint] = field(default_factory=dict)
    made_at: tuple[str, int] = ("<unknown>", 1)
    key: KeyFunction | None = None
    make_key: Callable[[Any, KeyFunction | None], Key] | None = None
    has_slow_keys: bool = False
    serializer: Serializer | None = None
    is_still_valid: Callable[[Any, Any], bool] | None = None
    transient_errors: frozenset[str] = frozenset()
    subject: Callable[[Any], object] | None = None
    rerun_failed: bool = False
    keys_have_settings: bool = False

    def __post_init__(self) -> None:
        if sys.platform == "emscripten":
            raise JournalError(
                f"the journal {self.journal.path!r} cannot be used in a browser, because a thread "
                "writes it and Python has no threads there: leave out journal="
            )


def bind_journal(
    function: Callable[..., Any], journal: object, key: KeyFunction | None
) -> JournalBinding | None:
    """
    Bind a journal to a processor of this function; without a journal, the result is None.

    Args:
        function: the processor's function.
        journal: a Journal, the path of one, a binding made by another processor, or None.
        key: makes an item's key; None for the item itself.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: there is a key, but no journal.
    """
    if key is not None and not callable(key):
        raise TypeError(f"key must be a function of one item, got {key!r}")
    if isinstance(journal, JournalBinding):
        return journal  # from the document processor, which is built on a batch processor
    if journal is None:
        if key is not None:
            raise ValueError("key= identifies items in a journal: it needs journal=")
        return None
    if isinstance(journal, str | os.PathLike):
        journal = Journal(journal)
    if not isinstance(journal, Journal):
        raise TypeError(f"journal must be a Journal or the path of one, got {journal!r}")
    from ragasync._function_fingerprint import fingerprint_of  # loads ast and dis

    name = definition_of(function).__qualname__.rpartition("<locals>.")[2]
    functions = {"function": fingerprint_of(function)}
    return JournalBinding(journal, name, functions, caller_location(), key)


def definition_of(function: Callable[..., Any]) -> Any:
    """The object with the definition's name: a function, a partial's function, or a class."""
    inner = function
    while isinstance(inner, partial):
        inner = inner.func
    return inner if hasattr(inner, "__qualname__") else type(inner)


def caller_location() -> tuple[str, int]:
    """File and line of the call into this package that led here."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] != _PACKAGE:
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
    return "<unknown>", 1
