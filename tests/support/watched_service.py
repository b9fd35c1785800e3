"""A service that follows a random schedule and records each promise that a job breaks."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from ragasync import AttemptTimeout, Outcome
from tests.support.random_schedules import RETRY_AFTER, JobOptions, Source, Try
from tests.support.services import StatusError, about, now

A_MOMENT = 1e-6
"""Seconds that floats may lose."""


class SourceBroke(Exception):
    """What a source raises."""


@dataclass
class Call:
    """One call as the service saw it; its end is an answer, `late` or `cancelled`."""

    item: int
    began: float
    ended: float = -1.0
    end: str = "open"
    error: BaseException | None = None
    resumed: float = float("inf")  # when the job first was, after its end

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.began

    @property
    def rest(self) -> float:
        """Seconds that its Retry-After held: to its end, or until the job was resumed."""
        return min(RETRY_AFTER, self.resumed - self.ended) if self.end == "busy" else 0.0

    def is_too_soon_after(self, other: "Call") -> bool:
        """Whether the other's end asked for a longer rest."""
        return other.end == "busy" and self.began - other.ended < other.rest - A_MOMENT


class Watched:
    """
    An async function of one item that does as a schedule says, and returns ten times the item.

    A test that uses a control of the job sets it here too; a call that starts against it breaks
    a promise.
    """

    def __init__(self, script: list[list[Try]], options: JobOptions) -> None:
        self.script, self.options = script, options
        self.calls: list[Call] = []
        self.broken: list[str] = []
        self.in_flight = 0
        self.limit = options.max_concurrency
        self.paused = self.cancelled = self.has_fatal = False
        self.failures = 0
        self.closed_until = float("-inf")
        self.rates: list[tuple[float, float | None]] = []

    async def __call__(self, item: int) -> int:
        """Answer as the schedule says."""
        earlier = self.calls_with(item)
        call = Call(item, now())
        self.calls.append(call)
        self.in_flight += 1
        self._look_at(call)
        answers = self.script[item]
        step = answers[min(len(earlier), len(answers) - 1)]
        try:
            if step.seconds is not None:
                await asyncio.sleep(step.seconds)
            call.end = step.answer
        except asyncio.CancelledError:
            limit = self.options.timeout
            late = limit is not None and now() - call.began > limit - A_MOMENT
            call.end = "late" if late and not self.was_stopped_at_once else "cancelled"
            raise
        finally:
            self.in_flight -= 1
            call.ended = now()
            self._note(call, len(earlier))
        if call.error is not None:
            raise call.error
        return 10 * item

    def resume(self) -> None:
        """Go on, whatever the calls that have ended asked for."""
        self.paused = False
        self.closed_until = float("-inf")
        for call in self.calls:
            if call.ended >= 0.0:
                call.resumed = min(call.resumed, now())

    def calls_with(self, item: int) -> list[Call]:
        """The calls with this item, in order."""
        return [call for call in self.calls if call.item == item]

    @property
    def was_stopped_at_once(self) -> bool:
        """Whether what is in flight is being cancelled."""
        return self.cancelled or self.has_fatal

    @property
    def had_enough(self) -> bool:
        """Whether more items failed than `max_errors` allows."""
        return self.options.max_errors is not None and self.failures > self.options.max_errors

    def is_final(self, end: str, attempts: int) -> bool:
        """Whether an item whose last attempt ended so has its outcome."""
        if end in ("passing", "busy", "late"):
            return attempts > self.options.retries
        return end != "cancelled"

    def _look_at(self, call: Call) -> None:
        """Note what forbids that this call begins."""
        reasons = {
            f"{self.in_flight} calls where {self.limit} may be": self.in_flight > self.limit,
            "paused": self.paused,
            "cancelled": self.cancelled,
            "after a fatal error": self.has_fatal,
            "after too many errors": self.had_enough,
            "within Retry-After": any(map(call.is_too_soon_after, self.calls)),
        }
        for reason, holds in reasons.items():
            if holds:
                self.broken.append(f"item {call.item} at {call.began}: {reason}")

    def _note(self, call: Call, retries: int) -> None:
        """Note what follows from the end of a call."""
        if call.end == "busy":
            call.error = StatusError(429, RETRY_AFTER)
            self.closed_until = max(self.closed_until, call.ended + RETRY_AFTER)
        elif call.end == "fatal":
            call.error = StatusError(401)
            self.has_fatal = True
        elif call.end in ("passing", "wrong"):
            call.error = ConnectionError("away") if call.end == "passing" else KeyError("no")
        if call.end != "value" and self.is_final(call.end, retries + 1):
            self.failures += 1

    def error_fits(self, call: Call, error: BaseException | None) -> bool:
        """Whether an item whose last call was this one has the right error."""
        return isinstance(error, AttemptTimeout) if call.end == "late" else error is call.error

    def gaps_too_short(self, item: int) -> list[float]:
        """The back-offs of an item that were shorter than its policy or the service asked for."""
        short = []
        for retry, (before, after) in enumerate(pairwise(self.calls_with(item))):
            asked = max(self.options.delay * 2**retry, before.rest)
            if after.began - before.ended < asked - A_MOMENT:
                short.append(after.began - before.ended)
        return short


def check_outcome(outcome: Outcome[int, int], service: Watched) -> None:
    """Find in an outcome what the service saw of its item."""
    calls = service.calls_with(outcome.index)
    assert service.gaps_too_short(outcome.index) == []
    if outcome.status == "pending":
        assert not any(service.is_final(call.end, n) for n, call in enumerate(calls, 1))
        return
    assert outcome.attempts == len(calls)
    if not calls:  # no limiter would ever admit it
        assert (outcome.status, type(outcome.error)) == ("failed", ValueError)
        return
    status = {"value": "done", "cancelled": "cancelled"}.get(calls[-1].end, "failed")
    assert outcome.status == status
    assert outcome.value == (10 * outcome.index if status == "done" else None)
    assert service.error_fits(calls[-1], outcome.error)
    assert [service.is_final(call.end, n) for n, call in enumerate(calls, 1)] == [
        *[False] * (len(calls) - 1),
        status != "cancelled",
    ]
    assert outcome.seconds == about(sum(call.seconds for call in calls))
    assert [entry.seconds for entry in outcome.history] == about(
        [call.seconds for call in calls[:-1]]
    )


def is_refused(options: JobOptions) -> bool:
    """Whether no call can ever pass the limiters."""
    return any(burst is not None and weight > burst for _, burst, weight in options.limiters)


def most_owed(grants: Iterable[tuple[float, float]], rate: float) -> tuple[float, float]:
    """Return the most that a bucket without a bound owed after a grant, and what it owed last."""
    owed = most = 0.0
    before = float("-inf")
    for when, weight in grants:
        owed = max(0.0, owed - rate * (when - before)) + weight
        most, before = max(most, owed), when
    return most, owed


def items_from(source: Source, count: int) -> Iterable[int] | AsyncIterator[int]:
    """Return the items, given by a source of this kind."""
    if source.kind == "list":
        return list(range(count))
    return _one_by_one(source, count) if source.kind == "generator" else _in_time(source, count)


def _one_by_one(source: Source, count: int) -> Iterator[int]:
    """Yield the items until the source raises."""
    for item in range(count):
        if item == source.raises_after:
            raise SourceBroke
        yield item


async def _in_time(source: Source, count: int) -> AsyncIterator[int]:
    """Yield the items, each third of them late."""
    for item in _one_by_one(source, count):
        if source.kind == "late" and item % 3 == 2:
            await asyncio.sleep(0.75)
        yield item
