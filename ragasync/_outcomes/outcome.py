"""The outcome of an item, and of a call that succeeded for all of its items."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Generic, Literal, TypeAlias, TypeVar, overload

from ragasync.error_text import describe
from ragasync.object_views import duration, object_html, one_line_of, short_view, three_digits
from ragasync.usage import NO_USAGE, Usage

T = TypeVar("T")
R = TypeVar("R")

Status: TypeAlias = Literal["pending", "done", "failed", "cancelled"]
STATUSES: tuple[Status, ...] = ("pending", "done", "failed", "cancelled")
_TIMES = ("started", "seconds", "waited", "backed_off")

PENDING, DONE, FAILED, CANCELLED = range(4)


@dataclass(frozen=True, slots=True)
class Attempt:
    """
    A failed attempt, as logged for an item that was retried.

    Times are in seconds; `started` counts from the start of the job. `waited` is the time spent
    waiting for the rate limit before this attempt, `backed_off` the delay planned after it, and
    `worker` the number of the worker that made the call.

    Example:
        >>> from ragasync import AsyncBatchProcessor
        >>> replies = iter([False, True])
        >>> def fetch(url):
        ...     if not next(replies):
        ...         raise ConnectionError("the network is away")
        >>> result = AsyncBatchProcessor(fetch, retry_delay=0.01).process_sync(["a.html"])
        >>> [attempt.error for attempt in result[0].history]
        ['ConnectionError: the network is away']
    """

    started: float
    seconds: float
    error: str
    backed_off: float
    waited: float = 0.0
    worker: int = 0


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T, R]):
    """
    The outcome of one item.

    Times are in seconds, and 0.0 for an item that was not started. `started` counts from the start
    of the job; `seconds` is the time in calls, over all attempts; `waited` the time waiting for the
    rate limit; `backed_off` the time between attempts. `attempts` includes the first. `tokens` and
    `cost` are what its calls reported, failed attempts included (see `note_usage`). `history`
    holds the earlier, failed attempts of an item that was retried. A pending item that was to be
    retried when its run stopped has all of these, but no error. `index` is the position of the
    item, and `label` its label, if the items were a pandas Series or DataFrame; else None.

    Example:
        >>> from ragasync import AsyncBatchProcessor
        >>> result = AsyncBatchProcessor(int, retry_count=0).process_sync(["7", "seven"])
        >>> [(outcome.item, outcome.status, outcome.value) for outcome in result]
        [('7', 'done', 7), ('seven', 'failed', None)]
        >>> result[1].error
        ValueError("invalid literal for int() with base 10: 'seven'")

    The repr is one line, with secrets masked and without the fields that are empty.
    """

    index: int
    item: T | None
    status: Status
    value: R | None = None
    error: BaseException | None = None
    attempts: int = 0
    started: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0
    backed_off: float = 0.0
    batch: int | None = None
    stage: str | None = None
    worker: int | None = None
    traceback: str | None = None
    history: tuple[Attempt, ...] = ()
    label: Any = None
    tokens: int = 0
    cost: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the item succeeded."""
        return self.status == "done"

    def __repr__(self) -> str:
        label = [] if self.label is None else [f"label={short_view(self.label)}"]
        fields = [f"index={self.index}", *label, f"item={short_view(self.item)}"]
        fields.append(f"status={self.status!r}")
        if self.value is not None:
            fields.append(f"value={short_view(self.value)}")
        if self.error is not None:
            fields.append(f"error=<{one_line_of(describe(self.error))}>")
        fields += [f"attempts={self.attempts}"] if self.attempts else []
        times = ((name, getattr(self, name)) for name in _TIMES)
        fields += (f"{name}={three_digits(seconds)}" for name, seconds in times if seconds)
        usage = (("tokens", self.tokens), ("cost", self.cost))
        fields += (f"{name}={amount:.6g}" for name, amount in usage if amount)
        places = ((name, getattr(self, name)) for name in ("batch", "stage", "worker"))
        fields += (f"{name}={place!r}" for name, place in places if place is not None)
        return f"Outcome({', '.join(fields)})"

    def _repr_html_(self) -> str:
        """The fields that are not empty, as a table with the traceback."""
        times = ((name, getattr(self, name)) for name in _TIMES)
        facts: list[tuple[str, object]] = [
            ("index", self.index),
            ("label", None if self.label is None else short_view(self.label)),
            ("item", short_view(self.item)),
            ("status", self.status),
            ("value", None if self.value is None else short_view(self.value)),
            ("error", None if self.error is None else describe(self.error)),
            ("attempts", self.attempts),
            *((f"attempt {n}", each.error) for n, each in enumerate(self.history[-5:], 1)),
            *((name, duration(seconds)) for name, seconds in times if seconds),
            ("tokens", self.tokens or None),
            ("cost", self.cost or None),
            ("stage", self.stage),
        ]
        return object_html(self, facts, text=self.traceback, text_name="traceback")


@dataclass(slots=True)
class CallSuccess(Generic[T, R]):
    """
    A call that returned a value for each of its items, recorded as one.

    The fields are those of Outcome, shared by all items. `seconds` is one number where one call
    served all items, and one number per item where they ran one after another (an ItemGroup).
    `usage` is that of each item, or None.
    """

    indices: Sequence[int]
    items: Sequence[T]
    values: Sequence[R]
    attempts: int
    started: float
    seconds: float | Sequence[float]
    waited: float
    backed_off: float
    batch: int | None
    worker: int
    history: tuple[Attempt, ...]
    usage: Sequence[Usage] | None = None

    @property
    def rows(self) -> slice | None:
        """The rows of the items, if they are contiguous; else None."""
        first, count = self.indices[0], len(self.indices)
        if self.indices[-1] - first != count - 1:  # indices ascend without repetition
            return None
        return slice(first, first + count)

    def outcomes(self) -> Iterator[Outcome[T, R]]:
        """Yield the outcomes of the single items."""
        each = repeat(self.seconds) if isinstance(self.seconds, float) else self.seconds
        usage = repeat(NO_USAGE) if self.usage is None else self.usage
        rows = zip(self.indices, self.items, self.values, strict=True)
        for (index, item, value), seconds, used in zip(rows, each, usage, strict=False):
            yield Outcome(
                index=index,
                item=item,
                status="done",
                value=value,
                attempts=self.attempts,
                started=self.started,
                seconds=seconds,
                waited=self.waited,
                backed_off=self.backed_off,
                batch=self.batch,
                worker=self.worker,
                history=self.history,
                tokens=used.tokens,
                cost=used.cost,
            )


RecordSuccess: TypeAlias = Callable[[int, R, float, float], None]
"""A fast-path recorder of successes: takes index, value, and the start and end of the call."""


class SparseSequence(Sequence[T | None]):
    """A read-only sequence that is None except at a few indices."""

    __slots__ = ("_filled", "_length")

    def __init__(self, filled: Mapping[int, T], length: int) -> None:
        self._filled = filled
        self._length = length

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> T | None: ...
    @overload
    def __getitem__(self, index: slice) -> list[T | None]: ...
    def __getitem__(self, index: int | slice) -> T | list[T | None] | None:
        at = range(self._length)[index]
        if isinstance(at, range):
            return [self._filled.get(i) for i in at]
        return self._filled.get(at)

    def __iter__(self) -> Iterator[T | None]:
        return map(self._filled.get, range(self._length))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # compares by content, like a list

    def __repr__(self) -> str:
        return (
            repr(list(self))
            if self._length <= 20
            else (f"<{self._length} entries, {len(self._filled)} of them not None>")
        )
