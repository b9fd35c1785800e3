"""BatchSettings: the arguments of a processor, checked once and shared by all of its runs."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Generic, Literal, TypeVar

from ragasync._limits.adaptive import FIRST
from ragasync._limits.limiter import Limiter
from ragasync._retries.policy import AsyncRetry
from ragasync.arguments import check_count, check_number, check_positive, check_seconds
from ragasync.journal.journal import JournalBinding

T = TypeVar("T")
R = TypeVar("R")

MAX_WORKERS = 0xFFFF
"""The maximum of `max_concurrency`: columns of outcomes store a worker's number in two bytes."""


@dataclass(frozen=True, slots=True)
class BatchSettings(Generic[T, R]):
    """
    The settings of an AsyncBatchProcessor, which documents them.

    Attributes:
        is_async: whether `process_fn` is async.
        adaptive: whether the concurrency adapts to the service; `max_concurrency` is the start.
        limiters: the rate limiters, in the order in which they are acquired.
        fail_fast: whether the first failed item cancels all other calls, as in a gather.
        reads_on_loop: whether the source is always read on the loop, because it may create tasks;
            otherwise a slow one moves to a thread.
        journal: the journal, bound to `process_fn`.
    """

    process_fn: Callable[..., Any]
    is_async: bool
    batch_size: int = 32
    max_concurrency: int = 4
    adaptive: bool = False
    batched: bool = False
    limiters: Sequence[Limiter] = ()
    retry: AsyncRetry = field(default_factory=lambda: AsyncRetry(0))
    timeout: float | None = None
    executor: Executor | None = None
    max_errors: int | None = None
    max_error_rate: float | None = None
    max_initial_failures: int | None = None
    max_seconds: float | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    fail_fast: bool = False
    reads_on_loop: bool = False
    weight: Callable[[T], float] | None = None
    max_batch_weight: float | None = None
    resources: Callable[[], AbstractAsyncContextManager[Any]] | None = None
    journal: JournalBinding | None = None

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "batch_size", check_count("batch_size", self.batch_size, at_least=1)
        )
        check_concurrency(self.max_concurrency)
        for name in ("timeout", "max_batch_weight", "max_seconds", "max_cost"):
            if (value := getattr(self, name)) is not None:
                check_positive(name, value)
        if self.max_tokens is not None:
            object.__setattr__(
                self, "max_tokens", check_count("max_tokens", self.max_tokens, at_least=1)
            )
        self._check_max_errors()
        if self.max_initial_failures is not None:
            check_count("max_initial_failures", self.max_initial_failures, at_least=1)
        if self.max_batch_weight is not None and self.weight is None:
            raise ValueError(
                "max_batch_weight needs weight=, a function that returns the weight of an item"
            )
        if self.weight is not None and not self.batched:
            raise ValueError("weight= limits the weight of a batch: it needs batched=True")
        if self.executor is not None:
            self._check_executor()
        if self.adaptive:
            self.check_adaptable()
        self._check_kinds()

    @property
    def grouped(self) -> bool:
        """Whether calls go to an executor in groups of several items."""
        return self.executor is not None and not self.batched

    @property
    def items_per_call(self) -> int:
        """The maximum number of items in one call, or in one group for an executor."""
        return self.batch_size if self.batched or self.grouped else 1

    def make_resources(self) -> AbstractAsyncContextManager[Any] | None:
        """Create the context manager with the resources of a run, or None."""
        if self.resources is None:
            return None
        manager = self.resources()
        if not hasattr(manager, "__aenter__"):
            raise TypeError(
                f"resources must return an async context manager, got {manager!r}: decorate an "
                f"async generator with contextlib.asynccontextmanager, or pass a client's class"
            )
        return manager

    def check_adaptable(self) -> None:
        """Raise ValueError if max_concurrency="auto" is combined with an executor."""
        if self.executor is not None:
            raise ValueError(
                'max_concurrency="auto" adapts to a service, but an executor has a fixed number of '
                "workers: pass that number"
            )

    def next_size(self, taken: int, total: int | None, max_concurrency: int) -> int:
        """
        The maximum number of items for the next call, once `taken` items have been taken.

        Groups for an executor shrink towards the end, to a quarter of each worker's share of the
        remaining items, so that all workers finish at about the same time.
        """
        if not self.grouped or total is None:
            return self.items_per_call
        share = math.ceil((total - taken) / (4 * max_concurrency))
        return max(1, min(self.batch_size, share))

    def _check_kinds(self) -> None:
        """Raise an error for arguments that would fail only in the middle of a run."""
        if sys.platform == "emscripten" and not (self.is_async and self.executor is None):
            raise TypeError(
                f"in a browser, Python has neither threads nor processes: write "
                f"{self.process_fn!r} as `async def`, and leave out executor="
            )
        if not isinstance(self.retry, AsyncRetry):
            raise TypeError(
                f"retry must be an AsyncRetry, got {self.retry!r}: "
                f"for 3 retries pass retry_count=3 or AsyncRetry(3)"
            )
        if self.weight is not None and not callable(self.weight):
            raise TypeError(f"weight must be a function of one item, got {self.weight!r}")
        if self.weight is not None and self.max_batch_weight is None:
            raise ValueError(
                "weight= needs max_batch_weight=, the maximum weight of a batch: "
                "to limit the rate by weight, pass RateLimiter(..., weight=) instead"
            )
        if self.resources is not None and not callable(self.resources):
            raise TypeError(
                f"resources must be a function that returns an async context manager, "
                f"got {self.resources!r}: pass the function, not what it returns"
            )

    def _check_executor(self) -> None:
        """Raise an error for an executor that is not one, or that cannot run the function."""
        if not isinstance(self.executor, Executor):
            raise TypeError(
                f"executor must be a concurrent.futures.Executor, got {self.executor!r}"
            )
        if self.resources is not None:
            raise ValueError("resources belong to this loop and cannot be sent to an executor")

    def _check_max_errors(self) -> None:
        """Check that `max_errors` is a count and `max_error_rate` a share, if they are given."""
        limit, rate = self.max_errors, self.max_error_rate
        if isinstance(limit, float) and 0.0 < limit < 1.0:  # type: ignore[unreachable]  # a share
            raise ValueError(
                f"max_errors must be a count of items, got {limit!r}: for a share of the items, "
                f"use max_error_rate={limit!r}"
            )
        if limit is not None:
            object.__setattr__(self, "max_errors", check_count("max_errors", limit, at_least=0))
        if rate is not None and not 0.0 < check_number("max_error_rate", rate) < 1.0:
            raise ValueError(
                f"max_error_rate must be between 0 and 1 (0.05 for 5%), got {rate!r}: for a number "
                "of items, use max_errors="
            )


def as_timeout(value: float | timedelta | None, name: str = "timeout") -> float | None:
    """Return a time limit in seconds, or None; raise TypeError or ValueError."""
    return None if value is None else check_seconds(name, value, positive=True)


def check_concurrency(value: object, name: str = "max_concurrency") -> int:
    """Return a number of concurrent calls as an int, or raise TypeError or ValueError."""
    limit = check_count(name, value, at_least=1)
    if limit > MAX_WORKERS:
        raise ValueError(f"{name} must be at most {MAX_WORKERS:,}, got {value!r}")
    return limit


def parse_concurrency(
    value: int | Literal["auto"], name: str = "max_concurrency"
) -> tuple[int, bool]:
    """
    Return the concurrency to start with, and whether to adapt it to the service.

    Raises:
        TypeError: `value` is neither a whole number nor "auto".
        ValueError: `value` is out of range.
    """
    if isinstance(value, str) and value == "auto":
        return FIRST, True
    try:
        return check_concurrency(value, name), False
    except TypeError:
        raise TypeError(f'{name} must be a whole number or "auto", got {value!r}') from None


def as_limiters(given: Limiter | Sequence[Limiter] | None) -> Sequence[Limiter]:
    """Return the rate limiters as a tuple, or raise TypeError."""
    limiters = () if given is None else given if isinstance(given, Sequence) else (given,)
    for limiter in limiters:
        if not all(hasattr(limiter, name) for name in ("acquire", "pause", "max_weight")):
            raise TypeError(
                f"rate_limiter must be a RateLimiter or a sequence of them, got {limiter!r}: "
                f"for 10 calls a second pass RateLimiter(10)"
            )
    return tuple(limiters)
