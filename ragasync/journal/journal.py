"""Journal: which file keeps the outcomes of a job, which job it is, and how values are kept."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ragasync.arguments import check_count, check_number

if TYPE_CHECKING:
    import pandas as pd

    from ragasync.journal.serializers import Serializer


class Journal:
    """
    Write every outcome of a job to a SQLite file, and skip what is done when it runs again.

    Give it to a processor. Outcomes are committed in groups by a thread; kill -9 at any moment
    loses at most the calls in flight and one group, and a run with the same journal goes on from
    there: its result is whole, with the outcomes of earlier runs (`attempts` is 0) and its own.

    Items are told apart by their content, or by what the processor's `key=` makes of them; items
    of equal keys by their order. A journal is of one job, known by its name and version: another
    job is refused. A function whose code or settings have changed (another model, say) only warns
    and says what is different, because people fix it and go on.

    A journal that is removed, renamed, replaced, cut off or taken over while a run writes to it
    stops that run with a JournalError; what is done is in the result. It belongs on a local disk,
    as any database of SQLite's with a write-ahead log.

    Example:
        >>> from ragasync import AsyncBatchProcessor, Journal
        >>> processor = AsyncBatchProcessor(str.upper, journal=Journal("run.sqlite"))
        >>> processor.process_sync(["a", "b"]).results
        ['A', 'B']
        >>> result = processor.process_sync(["a", "b", "c"])  # run again: only the rest is called
        >>> result.results
        ['A', 'B', 'C']
        >>> [outcome.attempts for outcome in result]
        [0, 0, 1]

    Args:
        path: the file, created where it is missing.
        name: the job's name; by default the name of the processor's function.
        version: change it where earlier outcomes are to count no more; a journal of another
            version is refused.
        retry_failed: try again what failed in earlier runs, instead of keeping it as it was.
        serializer: how values are kept: "json" (plain data: texts, numbers, lists, dicts),
            "numpy" (arrays), "pickle" (anything; only for files that you trust), or an object
            with `name`, `dumps` and `loads`. A value that would not come back as it is stops the
            job with an error. None is "json", or what suits the processor.
        flush_seconds: outcomes are written after so many seconds at the latest.
        flush_items: the most that may be unwritten beside the calls in flight: half of them are
            written at once, and when the disk is behind with all of them nothing new is begun.
        timeout: seconds to wait for a file that another process is writing.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        version: str = "",
        retry_failed: bool = False,
        serializer: str | Serializer | None = None,
        flush_seconds: float = 0.05,
        flush_items: int = 500,
        timeout: float = 5.0,
    ) -> None:
        given = self._given = os.fspath(path)
        if not isinstance(given, str) or given in ("", ":memory:"):
            raise ValueError(f"a journal is a file, and needs its path, got {path!r}")
        if "\0" in given:
            raise ValueError(f"a path has no null character, got {path!r}")
        self.path = os.path.abspath(given)  # noqa: PTH100  # a link stays one
        for argument, value in (("name", name or ""), ("version", version)):
            if not isinstance(value, str):
                raise TypeError(f"{argument} must be a text, got {value!r}")
        check_number("flush_seconds", flush_seconds)
        check_count("flush_items", flush_items, at_least=1)
        check_number("timeout", timeout)
        self.name, self.version, self.retry_failed = name, version, retry_failed
        self.serializer = None if serializer is None else _as_serializer(serializer)
        self.flush_seconds, self.flush_items, self.timeout = flush_seconds, flush_items, timeout

    def to_dataframe(self) -> pd.DataFrame:
        """
        Return a row an outcome, in the order in which they were written; also while a job runs.

        Columns: item (the beginning of its key, or its path), occurrence, status, value,
        error_type, error_message, stage, attempts, seconds, waited, backed_off, recorded_at (UTC)
        and traceback; dtypes as in `ragasync.to_dataframe`. Pickled values are read only where
        `serializer="pickle"` was asked for.

        Raises:
            JournalError: there is no such journal, or it is locked or damaged.
        """
        from ragasync.journal.table import journal_table

        return journal_table(self)

    def __repr__(self) -> str:
        from ragasync.journal.table import repr_line

        return f"<Journal {self._given!r}: {repr_line(self)}>"


def _as_serializer(given: str | Serializer) -> Serializer:
    """Return what keeps values; only whoever asks for one loads them all."""
    from ragasync.journal.serializers import as_serializer

    return as_serializer(given)
