"""What became of one item."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeAlias, TypeVar, overload

from ragasync.error_text import cut, describe, safe_text
from ragasync.foreign_errors import guarded

T = TypeVar("T")
R = TypeVar("R")

Status: TypeAlias = Literal["pending", "done", "failed", "cancelled"]
STATUSES: tuple[Status, ...] = ("pending", "done", "failed", "cancelled")
_LONGEST_SHOWN = 200
"""Characters of an item, a value or an error in the repr of an outcome."""

_NUMBERS = ("attempts", "started", "seconds", "waited", "backed_off")

PENDING, DONE, FAILED, CANCELLED = range(4)


@dataclass(frozen=True, slots=True)
class Attempt:
    """
    One failed try of an item, as the log of a retried item keeps it.

    All times are in seconds, `started` since the job began. `waited` is the time for the rate
    limit before this attempt, `backed_off` the delay that was to follow it, `worker` where it ran.

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
    What became of one item.

    `started` counts from the job's beginning; `seconds` is the time in the call, over all
    attempts; `waited` the time for the rate limit; `backed_off` the time between attempts. Times
    are in seconds, and 0.0 for an item that was not started. `attempts` counts with the first.
    `history` holds the earlier, failed attempts of an item that was tried more than once.

    Example:
        >>> from ragasync import AsyncBatchProcessor
        >>> result = AsyncBatchProcessor(int, retry_count=0).process_sync(["7", "seven"])
        >>> [(outcome.item, outcome.status, outcome.value) for outcome in result]
        [('7', 'done', 7), ('seven', 'failed', None)]
        >>> result[1].error
        ValueError("invalid literal for int() with base 10: 'seven'")

    Its repr is one line without secrets, with the fields that say something.
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

    @property
    def ok(self) -> bool:
        """Whether the item succeeded."""
        return self.status == "done"

    def __repr__(self) -> str:
        facts = [f"index={self.index}", f"item={_shown(self.item)}", f"status={self.status!r}"]
        if self.value is not None:
            facts.append(f"value={_shown(self.value)}")
        if self.error is not None:
            facts.append(f"error=<{_in_one_line(describe(self.error))}>")
        numbers = ((name, getattr(self, name)) for name in _NUMBERS)
        facts += (f"{name}={number:.6g}" for name, number in numbers if number)
        places = ((name, getattr(self, name)) for name in ("batch", "stage", "worker"))
        facts += (f"{name}={place!r}" for name, place in places if place is not None)
        return f"Outcome({', '.join(facts)})"


def _shown(value: object) -> str:
    """Return the repr of what belongs to the user in a few words, or that it has none."""
    text = guarded(repr, value)
    if not isinstance(text, str):
        return f"<{type(value).__name__} without a repr>"
    return _in_one_line(safe_text(text))


def _in_one_line(text: str) -> str:
    """Return a text of a few words, without line breaks."""
    line = " ".join(text.split())
    return cut(line, len(line), _LONGEST_SHOWN)


class SparseSequence(Sequence[T | None]):
    """A read-only sequence that is None except at a few places."""

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
        places = range(self._length)[index]
        if isinstance(places, range):
            return [self._filled.get(place) for place in places]
        return self._filled.get(places)

    def __iter__(self) -> Iterator[T | None]:
        return map(self._filled.get, range(self._length))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # it compares by content, like a list

    def __repr__(self) -> str:
        return (
            repr(list(self))
            if self._length <= 20
            else (f"<{self._length} entries, {len(self._filled)} of them not None>")
        )
