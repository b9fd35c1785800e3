"""Usage: the requests, tokens and cost that calls report, and what they are counted for."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import NamedTuple, TypeAlias, TypedDict

from ragasync.arguments import check_count, check_number, explains_arguments
from ragasync.foreign_errors import field

_ROUNDING = 1 - 1e-9
"""Rounding makes sums of prices such as 0.1 fall short of a bound."""

MAX_TOKENS = 2**53
"""The largest number of tokens that a response or a report may name."""


class Usage(NamedTuple):
    """
    The usage that calls have reported.

    Attributes:
        requests: the number of reports, one per request.
        tokens: input and output tokens together.
        cost: in the unit in which it was reported.

    Example:
        >>> from ragasync import AsyncBatchProcessor, note_usage
        >>> async def ask(question):
        ...     note_usage(tokens=120, cost=0.002)  # from the response
        ...     return "42"
        >>> AsyncBatchProcessor(ask).process_sync(["a", "b"]).usage
        Usage(requests=2, tokens=240, cost=0.004)
    """

    requests: int = 0
    tokens: int = 0
    cost: float = 0.0

    def plus(self, other: Usage) -> Usage:
        """The sum of two usages."""
        return Usage(
            self.requests + other.requests, self.tokens + other.tokens, self.cost + other.cost
        )

    def divided(self, weights: Sequence[float]) -> list[Usage]:
        """
        Divide usage by weights, so that the parts add up to it.

        Each part counts all requests, because each item was part of them.
        """
        total = sum(weights)
        if not 0 < total < float("inf"):
            weights, total = [1.0] * len(weights), float(len(weights))
        tokens = shares(self.tokens, weights)
        return [
            Usage(self.requests, part, self.cost * (weight / total))
            for part, weight in zip(tokens, weights, strict=True)
        ]


NO_USAGE = Usage()
"""The usage of what reported nothing."""


class TokenCounts(TypedDict):
    """The token counts of a response, as keyword arguments of `note_usage`."""

    tokens: int
    input_tokens: int
    output_tokens: int


# ── reports ───────────────────────────────────────────────────────────────────────────────────


@explains_arguments
def note_usage(
    *, tokens: int = 0, cost: float = 0.0, input_tokens: int = 0, output_tokens: int = 0
) -> None:
    """
    Report the usage of a request to the call that made it; outside of a call this does nothing.

    Call it after each response, in any function that a processor calls: async, on a thread or in a
    worker process. The usage is counted for the item of the call, also if the attempt fails, and
    for the run. Of a batched call, each item gets a share. In a nested job it is counted for the
    items of both jobs. A report that comes after its call has ended is counted for the run only.

    From a worker process, reports arrive with the result of the call. If the call has exceeded its
    time limit, they are counted for the run only, when the worker has returned. They are lost if
    the worker dies, or returns after the run has ended: cancelled, or stopped because such calls
    held all of its slots.

    What a call starts belongs to it if it has the call's context variables, as tasks,
    asyncio.to_thread and run_in_executor do in a job. A threading.Thread and the submit of an
    executor start without them, so their reports are lost: report in the function itself, or have
    the thread run `contextvars.copy_context().run(...)`.

    Example:
        >>> from ragasync import AsyncBatchProcessor, note_usage
        >>> async def ask(question):
        ...     note_usage(input_tokens=100, output_tokens=20, cost=0.002)
        ...     return "42"
        >>> result = AsyncBatchProcessor(ask, max_tokens=10_000).process_sync(["What is it?"])
        >>> result[0].tokens, result[0].cost
        (120, 0.002)

    Args:
        tokens: the number of tokens used; by default `input_tokens` plus `output_tokens`.
        cost: the cost, in the same currency as `max_cost`.
        input_tokens: the tokens of the request.
        output_tokens: the tokens of the response.

    Raises:
        TypeError: an argument is not a number, or a number of tokens is not a whole one.
        ValueError: an argument is negative or not finite, or `tokens` is not the sum of the others.
    """
    usage = _checked(tokens, cost, input_tokens, output_tokens)
    if (call := current_call.get()) is not None:
        call.note(usage)


def usage_of(response: object) -> TokenCounts:
    """
    Read the token counts of a response of OpenAI's or Anthropic's, as an object or a dict.

    Input tokens include those that were read from or written to a cache. All counts are 0 if the
    response has no usage, such as a part of a stream. The usage itself (`response.usage`) will do.

    Example:
        >>> from ragasync import usage_of
        >>> response = {"usage": {"prompt_tokens": 100, "completion_tokens": 20}}
        >>> usage_of(response)
        {'tokens': 120, 'input_tokens': 100, 'output_tokens': 20}

        In a call, with a price per token: `note_usage(**usage_of(response), cost=...)`.

    Args:
        response: a chat completion, a completion, an embedding or a response of OpenAI's, or a
            message of Anthropic's; of other services, anything with a `usage` of such names; or
            the usage of one of these.
    """
    usage = field(response, "usage")
    if usage is None:
        usage = response
    read = [
        _count(usage, "prompt_tokens", "input_tokens"),
        _count(usage, "cache_creation_input_tokens"),
        _count(usage, "cache_read_input_tokens"),
    ]
    input_tokens = min(sum(read), MAX_TOKENS)
    output_tokens = _count(usage, "completion_tokens", "output_tokens")
    # Some services leave the tokens of hidden reasoning out of the second number.
    total = max(_count(usage, "total_tokens"), input_tokens + output_tokens)
    if not input_tokens and not output_tokens:
        input_tokens = total
    return TokenCounts(tokens=total, input_tokens=input_tokens, output_tokens=total - input_tokens)


def _checked(tokens: int, cost: float, input_tokens: int, output_tokens: int) -> Usage:
    """Check the numbers of a report."""
    if type(tokens) is not int or not 0 <= tokens <= MAX_TOKENS:
        tokens = _check_tokens("tokens", tokens)
    if type(cost) is not float or not 0.0 <= cost < 1e300:
        cost = float(check_number("cost", cost))
    if input_tokens == 0 == output_tokens:
        return Usage(1, tokens, cost)
    total = _check_tokens("input_tokens", input_tokens) + _check_tokens(
        "output_tokens", output_tokens
    )
    if tokens and input_tokens and output_tokens and tokens != total:
        raise ValueError(
            f"tokens must be input_tokens plus output_tokens ({input_tokens!r} + "
            f"{output_tokens!r} = {total}), got tokens={tokens!r}: leave it out"
        )
    return Usage(1, max(tokens, total), cost)


def _check_tokens(name: str, value: object) -> int:
    """Check a number of tokens."""
    count = check_count(name, value, at_least=0)
    if count > MAX_TOKENS:
        raise ValueError(f"{name} must be at most {MAX_TOKENS:,}, got {value!r:.50}")
    return count


def _count(usage: object, *names: str) -> int:
    """The first of these fields of a response's usage that is a count; 0 if none is."""
    for name in names:
        value = field(usage, name)
        if type(value) is int and 0 < value <= MAX_TOKENS:
            return value
    return 0


# ── what reports are counted for ──────────────────────────────────────────────────────────────


Limiters: TypeAlias = tuple[object, ...]
"""Limiters of tokens; usage says nothing about them, so any object will do."""


class UsageTotals:
    """
    Adds up the usage of one run, from any thread, and reports that a bound is reached.

    Args:
        max_tokens: the number of tokens at which the run stops, or None.
        max_cost: the cost at which it stops, or None.
        on_reached: called once with the reason, on the thread that made the report.
        within: the totals of the run that this one is a stage of, if it is.

    Attributes:
        usage: the usage so far, with that of earlier runs of the same journal.
        earlier: the part of it that a journal had from earlier runs.
        journal: the id of that journal; empty without one.
        on_report: called after each report, if somebody writes the usage down.
        on_reached: as given; it is dropped when it was called.
        reached: the reason with which it was called, or None.
        lock: held while the numbers change.
    """

    def __init__(
        self,
        max_tokens: int | None = None,
        max_cost: float | None = None,
        on_reached: Callable[[str], None] | None = None,
        within: UsageTotals | None = None,
    ) -> None:
        self.usage = self.earlier = NO_USAGE
        self.journal = ""
        self.on_report: Callable[[], None] | None = None
        self._max_tokens, self._max_cost = max_tokens, max_cost
        self.on_reached = on_reached
        self.reached: str | None = None
        self._surrounding: Callable[[Usage, Limiters], None] | None = None
        if within is not None:
            self._surrounding = within.add_covered
        self._process_id = os.getpid()
        self.lock = threading.Lock()

    def attach(self) -> None:
        """Count everything for the call, of another run, that the current code runs in too."""
        call = current_call.get()
        if self._surrounding is None and call is not None:
            self._surrounding = call.note

    def take(self) -> Usage:
        """Take the usage so far, which somebody else counts from now on."""
        with self.lock:
            usage, self.usage = self.usage, NO_USAGE
        return usage

    def close(self) -> None:
        """Reach no bound from now on: the run is over, but late reports still count."""
        self.on_reached = None

    def recall(self, journal: str, earlier: Usage) -> None:
        """Count the usage of earlier runs of the same journal."""
        with self.lock:
            self.journal, self.earlier, self.usage = journal, earlier, self.usage.plus(earlier)
        self._check_bounds()

    def add_covered(self, usage: Usage, covered: Limiters) -> None:
        """Count usage for the run that these limiters count already."""
        self.add(usage, None, covered)

    def add(self, usage: Usage, call: CallUsage | None = None, covered: Limiters = ()) -> None:
        """
        Count usage for the run, and for one of its calls if that has not ended.

        Args:
            usage: what was reported.
            call: the call that reported it, if that is known.
            covered: the limiters at which an inner call holds a place for this usage.
        """
        if os.getpid() != self._process_id:
            return  # a forked copy, whose run goes on in the other process
        with self.lock:
            self.usage = self.usage.plus(usage)
            if call is not None and not call.ended:
                call.reported = usage if call.reported is None else call.reported.plus(usage)
                if covered:
                    call.add_covered(dict.fromkeys(covered, usage.tokens))
                if call.limiters:
                    covered = (*covered, *call.limiters)
        if self.on_report is not None:
            self.on_report()
        if self._surrounding is not None:
            self._surrounding(usage, covered)
        self._check_bounds()

    def _check_bounds(self) -> None:
        """Report the first bound that is reached, once."""
        if self.on_reached is None:
            return
        _, tokens, cost = self.usage
        if self._max_tokens is not None and tokens >= self._max_tokens:
            reason = f"{tokens:,} tokens were used, which reaches max_tokens={self._max_tokens}"
        elif self._max_cost is not None and cost >= self._max_cost * _ROUNDING:
            reason = f"{cost:.6g} was spent, which reaches max_cost={self._max_cost:g}"
        else:
            return
        self.reach(reason)

    def reach(self, reason: str) -> None:
        """Report that a bound is reached, unless that was reported before."""
        with self.lock:
            report, self.on_reached = self.on_reached, None
        if report is not None:
            self.reached = reason
            report(reason)


class CallUsage:
    """
    The usage that one call after the other reports in a worker's task.

    A context variable names it, so the tasks and threads that a call starts report to it too.

    Attributes:
        reported: the usage that the current call has reported so far, or None.
        ended: whether what it stands for is over, so that reports count for the run only.
        limiters: the limiters at which the current call holds a place that its usage will correct.
    """

    __slots__ = ("_covered", "_totals", "ended", "limiters", "reported")

    def __init__(self, totals: UsageTotals, limiters: Limiters = ()) -> None:
        self._totals = totals
        self._covered: dict[object, int] | None = None
        self.reported: Usage | None = None
        self.ended = False
        self.limiters = limiters

    def note(self, usage: Usage, covered: Limiters = ()) -> None:
        """Count a report for the call and its run."""
        self._totals.add(usage, self, covered)

    def add_covered(self, tokens: Mapping[object, int]) -> None:
        """Note tokens by which inner calls correct limiters; the lock of the totals is held."""
        covered = self._covered = self._covered or {}
        for limiter, part in tokens.items():
            covered[limiter] = covered.get(limiter, 0) + part

    def merge_covered(self, part: CallUsage) -> None:
        """Take over what inner calls of a part of this call correct."""
        covered = part.take_covered()
        with self._totals.lock:
            self.add_covered(covered)

    def part(self) -> CallUsage:
        """What reports of a part of this call, for one of its items, are counted for."""
        return CallUsage(self._totals, self.limiters)

    def attribute(self, usage: Usage) -> None:
        """Count usage that its run has counted already for the call too."""
        with self._totals.lock:
            if not self.ended:
                self.reported = usage if self.reported is None else self.reported.plus(usage)

    def take(self) -> Usage | None:
        """Take what the current call has reported: the next call begins."""
        with self._totals.lock:
            usage, self.reported = self.reported, None
        return usage

    def take_covered(self) -> dict[object, int]:
        """Take the tokens of the current call by which inner calls correct each limiter."""
        with self._totals.lock:
            covered, self._covered = self._covered or {}, None
        return covered

    def end(self) -> None:
        """Count everything that is still reported to it for the run only."""
        with self._totals.lock:
            self.ended = True


current_call: ContextVar[CallUsage | None] = ContextVar("ragasync_call_usage", default=None)
"""The call that the current code runs in."""


def shares(whole: int, weights: Sequence[float]) -> list[int]:
    """
    Divide a whole number by weights, so that the parts add up to it exactly.

    A part is the rounded-down share of all weights up to its own, minus the parts before it: each
    is off by less than 1, and none is negative.

    Args:
        whole: the number to divide.
        weights: the weights; if all are 0, the parts are equal.
    """
    if not any(weights):
        weights = [1] * len(weights)
    total, parts = sum(weights), []
    so_far: float = 0
    given = 0
    for weight in weights[:-1]:
        so_far += weight
        due = min(whole, int(whole * so_far // total))
        parts.append(due - given)
        given = due
    return [*parts, whole - given]


def warn_of_unreported(max_tokens: int | None, max_cost: float | None, usage: Usage) -> None:
    """Warn of a budget that had no effect, because no call reported what it limits."""
    idle = []
    if max_tokens is not None and not usage.tokens:
        idle.append((f"max_tokens={max_tokens}", "no tokens were", "tokens"))
    if max_cost is not None and not usage.cost:
        idle.append((f"max_cost={max_cost:g}", "no cost was", "cost"))
    for bound, nothing, name in idle:
        warnings.warn(
            f"{bound} had no effect: {nothing} reported. Call note_usage({name}=...) after each "
            f"request",
            RuntimeWarning,
            stacklevel=3,
        )
