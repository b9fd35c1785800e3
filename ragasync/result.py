"""BatchResult: the outcomes of all items of a job, with its errors, counts and reports."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload

from ragasync._outcomes.columns import Columns
from ragasync._outcomes.merge import Merge, items_of, rows_to_rerun
from ragasync._outcomes.outcome import CANCELLED, DONE, FAILED, PENDING, Outcome, SparseSequence
from ragasync._outcomes.stats import NO_STATS, RunStats
from ragasync.arguments import explains_arguments
from ragasync.errors import as_exception
from ragasync.journal.rows import canonical_row
from ragasync.usage import Usage

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BatchResult", "Reprocessor", "RunStats"]

R = TypeVar("R")


class Reprocessor(Protocol):
    """The part of a processor that `retry_failed` uses."""

    async def process(self, items: Any, /) -> BatchResult[Any]:
        """Run the items and return their outcomes."""


@dataclass(repr=False, eq=False)
class BatchResult(Generic[R]):
    """
    The outcome of every item of a job, in input order.

    A result is complete even if the job is not: each item is done, failed, cancelled (in flight
    when the job was cancelled) or pending (not started, or in back-off when the job was stopped),
    and these four counts add up to `total`. `result[i]` and iteration return an `Outcome` for each
    item; `results` and `errors` have one entry per item, which is None for an item without a value
    or without an error.

    Go on with `summary()`, `explain()` (why it was slow), `errors_dataframe()`, `to_dataframe()`,
    `to_series()`, and `await retry_failed(processor)`, which runs only what is not done.

    Example:
        >>> from ragasync import AsyncBatchProcessor
        >>> result = AsyncBatchProcessor(int, retry_count=0).process_sync(["7", "seven"])
        >>> result
        <BatchResult 1 of 2 done, 1 failed in ...>
        >>> result.results
        [7, None]
        >>> result[1].error
        ValueError("invalid literal for int() with base 10: 'seven'")
        >>> result.errors_dataframe()[["item", "error_type", "attempts"]]
                     item  error_type  attempts
        item_index
        1           seven  ValueError         1

    Args:
        results: one value for each item, None for an item without one.
        errors: one exception for each item, None for an item without one.
        success_count: the number of items that succeeded.
        error_count: the number of items that failed.
        seconds: the duration of the job.
        stopped_because: the reason why the job ended before all items had, or None. In a merged
            result, why the latest stopped run did, until what it did not reach has ended.

    Raises:
        ValueError: the counts do not match the entries.
    """

    results: Sequence[R | None]
    errors: Sequence[BaseException | None]
    success_count: int
    error_count: int
    seconds: float = field(default=0.0, kw_only=True)
    stopped_because: str | None = field(default=None, kw_only=True)
    columns: Columns[Any, R] = field(default_factory=lambda: Columns(()), kw_only=True)
    # A factory, because the repr of a default would fill the signature that a notebook shows.
    stats: RunStats = field(default_factory=lambda: NO_STATS, kw_only=True)

    def __post_init__(self) -> None:
        if len(self.results) != len(self.errors):
            raise ValueError(
                f"results and errors must have an entry for every item each, got "
                f"{len(self.results)} results and {len(self.errors)} errors"
            )
        if len(self.columns) != len(self.results):
            self.columns = Columns.from_sequences(self.results, self.errors, self.success_count)
        done, failed = self.columns.status.count(DONE), self.columns.status.count(FAILED)
        if (done, failed) != (self.success_count, self.error_count):
            raise ValueError(
                f"the counts must match the entries: got success_count={self.success_count!r} and "
                f"error_count={self.error_count!r} for {done} values and {failed} errors"
            )

    @classmethod
    def of(
        cls,
        columns: Columns[Any, R],
        *,
        seconds: float = 0.0,
        stopped_because: str | None = None,
        stats: RunStats = NO_STATS,
    ) -> BatchResult[R]:
        """Create a result that shares these columns."""
        return cls(
            columns.results,
            SparseSequence(columns.errors, len(columns)),
            columns.status.count(DONE),
            columns.status.count(FAILED),
            seconds=seconds,
            stopped_because=stopped_because,
            columns=columns,
            stats=stats,
        )

    @property
    def total(self) -> int:
        """The number of items."""
        return len(self.columns)

    @property
    def cancelled_count(self) -> int:
        """The number of items that were in flight when the job was cancelled."""
        return self.columns.status.count(CANCELLED)

    @property
    def pending_count(self) -> int:
        """The number of items that were not reached, or had no final outcome yet."""
        return self.columns.status.count(PENDING)

    @property
    def all_succeeded(self) -> bool:
        """Whether every item is done."""
        return self.success_count == self.total

    @property
    def usage(self) -> Usage:
        """
        The requests, tokens and cost that calls reported with `note_usage`.

        It includes failed attempts, and earlier runs with the same journal.
        """
        return self.stats.usage

    @property
    def unfinished(self) -> list[Any]:
        """
        The items that are not done: failed, cancelled or pending; as `retry_failed(only=)` takes.

        Each is named by its label if the items were a Series or DataFrame of pandas, else by its
        original index.
        """
        rows = self.columns.rows_with(PENDING, FAILED, CANCELLED)
        indices = list(map(self.columns.index_of, rows))
        labels = self.columns.labels
        return indices if labels is None else labels.at_all(indices)

    def get_successful(self) -> list[R]:
        """The values of the items that succeeded, in order, None values included."""
        results: list[Any] = self.columns.results
        return list(compress(results, self.columns.mask(DONE)))

    def get_failed(self) -> list[Outcome[Any, R]]:
        """The outcomes of the items that failed, in order."""
        return [self.columns.outcome(row) for row in self.columns.rows_with(FAILED)]

    def __len__(self) -> int:
        return self.total

    @overload
    def __getitem__(self, index: int) -> Outcome[Any, R]: ...
    @overload
    def __getitem__(self, index: slice) -> list[Outcome[Any, R]]: ...
    def __getitem__(self, index: int | slice) -> Outcome[Any, R] | list[Outcome[Any, R]]:
        try:
            rows = range(self.total)[index]
        except IndexError:
            raise IndexError(f"item {index!r} of a result of {self.total} items") from None
        if isinstance(rows, range):
            return list(map(self.columns.outcome, rows))
        return self.columns.outcome(rows)

    def __iter__(self) -> Iterator[Outcome[Any, R]]:
        return map(self.columns.outcome, range(self.total))

    def raise_for_errors(self) -> None:
        """
        Raise the errors of all failed items as a group, if there are any.

        The group has the original errors. An error that is not an Exception (an unrequested
        CancelledError, a panic in an extension) becomes the cause of a RagasyncError, so that
        `except Exception` catches the group. Secrets in the messages are masked in tables,
        summaries and logs, but not in these objects.

        Raises:
            ExceptionGroup: the errors of all failed items, in order.
        """
        errors = [as_exception(self.columns.errors[row]) for row in self.columns.rows_with(FAILED)]
        if errors:
            raise ExceptionGroup(f"{len(errors)} of {self.total} items failed", errors)

    @explains_arguments
    async def retry_failed(
        self, processor: Reprocessor, *, only: Iterable[Any] | None = None
    ) -> BatchResult[R]:
        """
        Process the failed items again, and return the complete result with their new outcomes.

        Args:
            processor: an AsyncBatchProcessor, the same one or a corrected one.
            only: process these items instead, whatever their status: `frame.index` of a filtered
                frame (after `reset_index`, the column with its labels), or `result.unfinished` for
                all items that a stopped job has not done. Items are named by their labels if they
                were a Series or DataFrame of pandas, else by their original indices. A label that
                several items share stands for those of them that are not done, if there are any.

        Returns:
            A new result of the same length, with the outcomes of the later run for its items.

        Raises:
            IndexError: an index in `only` that this result does not have.
            KeyError: a label in `only` that this result does not have.
            TypeError: `only` is a frame, a mask or another column, or `processor` is not one.
            ValueError: this result was created without its items, so they cannot be processed.
        """
        if not hasattr(processor, "process"):
            raise TypeError(
                f"retry_failed needs a processor with a `process` method, such as "
                f"AsyncBatchProcessor(fn), got {processor!r}"
            )
        rows = rows_to_rerun(self.columns, only)
        items = items_of(self.columns, rows)
        if (rerun := getattr(processor, "_rerun", None)) is None:
            later = await processor.process(items)
        else:  # ignores what its journal has of these items, and knows the finished ones
            rest = set(range(len(self.columns))).difference(rows)
            later = await rerun(items, (self[row] for row in sorted(rest)))
        indices = [self.columns.index_of(row) for row in rows]
        # `processor.last_result` keeps its own indices; only this copy has those of this result.
        with_our_indices = replace(
            later,
            columns=replace(
                later.columns, items=items, source_index=indices, labels=self.columns.labels
            ),
        )
        return self.merge(with_our_indices)

    def merge(self, other: BatchResult[R]) -> BatchResult[R]:
        """
        Merge this result with that of a later run, by the items' original indices.

        For an item in both, the later outcome counts, unless it is less final: any other status
        replaces pending, and done and failed replace cancelled. Both results stay as they are.

        If both runs were over a Series or DataFrame of pandas, and their indexes differ, items
        are matched by label: `result.merge(processor.process_sync(frame[mask]))`.

        Args:
            other: the result of the later run, of all or some of the items.

        Raises:
            ValueError: `other` has labels that this result does not have; or, without labels or
                with duplicate ones, it has the items of this result in another order.
        """
        merge = Merge(self.columns, other.columns, canonical_row)
        return BatchResult.of(
            merge.columns(self.seconds),
            seconds=self.seconds + other.seconds,
            stopped_because=merge.stopped_because(self.stopped_because, other.stopped_because),
            stats=self.stats.merged_with(other.stats, self.seconds),
        )

    def to_dataframe(self) -> pd.DataFrame:
        """
        A DataFrame of pandas with one row per item; see `ragasync.to_dataframe`.

        In polars, `frame.with_columns(pl.Series("value", result.results))` adds the values to the
        frame whose rows were processed, and `pl.from_pandas(result.to_dataframe())` converts a
        whole table.
        """
        from ragasync._reports.dataframes import to_dataframe

        return to_dataframe(self)

    def to_series(self) -> pd.Series[Any]:
        """
        A Series of pandas with the value of each item, aligned with the index of the items.

        The values are objects: None if a call returned None, and pandas.NA if there is no value.

        Example:
            >>> import pandas as pd
            >>> from ragasync import AsyncBatchProcessor
            >>> frame = pd.DataFrame({"text": ["a", "bb", "ccc"]}, index=["x", "y", "z"])
            >>> chosen = frame[frame["text"] != "bb"]
            >>> result = AsyncBatchProcessor(len).process_sync(chosen["text"])
            >>> frame["length"] = result.to_series()
            >>> frame
              text length
            x    a      1
            y   bb    NaN
            z  ccc      3

        Warns:
            UserWarning: labels are not unique, so that pandas cannot align the Series with another
                frame: use `attach`.
        """
        from ragasync._reports.attached import to_series

        return to_series(self)

    def attach(
        self, frame: pd.DataFrame, columns: Collection[str] | None = None, *, prefix: str = ""
    ) -> pd.DataFrame:
        """
        A copy of a DataFrame with the outcomes of its rows as further columns, by position.

        This is correct for any index, also with duplicate labels.

        Example:
            >>> import pandas as pd
            >>> from ragasync import AsyncBatchProcessor
            >>> frame = pd.DataFrame({"text": ["7", "seven"]}, index=["a", "a"])
            >>> result = AsyncBatchProcessor(int, retry_count=0).process_sync(frame["text"])
            >>> result.attach(frame, ["status", "value"])
                text  status value
            a      7    done     7
            a  seven  failed  <NA>

        Args:
            frame: the frame whose rows, or one of whose columns, were processed.
            columns: the names of columns of `to_dataframe`; None for all but `item`.
            prefix: put in front of each new name.

        Raises:
            TypeError: `frame` is not a DataFrame of pandas.
            ValueError: the frame has another number of rows or another index than the items, or
                has a column of a new name.
        """
        from ragasync._reports.attached import attach

        return attach(self, frame, columns, prefix)

    def errors_dataframe(self) -> pd.DataFrame:
        """A DataFrame with one row per failed item; see `ragasync.errors_dataframe`."""
        from ragasync._reports.dataframes import errors_dataframe

        return errors_dataframe(self)

    def error_summary(self) -> pd.DataFrame:
        """A DataFrame with one row per kind of error; see `ragasync.error_summary`."""
        from ragasync._reports.dataframes import error_summary

        return error_summary(self)

    def summary(self) -> str:
        """The counts, times and most common errors as a few lines of text."""
        from ragasync._reports.summary import summary

        return summary(self)

    def explain(self) -> str:
        """An explanation of where the time went and which setting would help, as text."""
        from ragasync._reports.advice import explain

        return explain(self)

    def __repr__(self) -> str:
        from ragasync._reports.summary import title

        return f"<BatchResult {title(self)}>"

    def _repr_html_(self) -> str:
        from ragasync._reports.html import result_html

        return result_html(self)
