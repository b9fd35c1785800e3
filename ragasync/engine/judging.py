"""What follows from a failed attempt: try again, try in halves, give up, or stop the job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ragasync.retries.classify import FATAL, may_split, should_split
from ragasync.retries.policy import AsyncRetry


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Make the same call once more after `delay` seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class Split:
    """Call each half of the batch by itself, at once."""


@dataclass(frozen=True, slots=True)
class Fail:
    """The error is the outcome of every item of the call."""

    stops_the_job: bool = False


HALVE: Final = Split()
GIVE_UP: Final = Fail()
STOP: Final = Fail(stops_the_job=True)


def judge(
    error: BaseException,
    policy: AsyncRetry,
    *,
    items: int,
    retries: int,
    elapsed: float,
    held: bool = False,
) -> TryAgain | Split | Fail:
    """
    Return what is to be done about a call that raised.

    A batch is halved at once when the service refused its content (400, 413, 422), when a value
    was wrong or their number was; when other errors outlast the retries; never when smaller
    batches cannot help (a bug in the function, a bad key, a rate limit).

    Args:
        error: what the call raised.
        policy: the processor's retry policy.
        items: how many items the call had.
        retries: how many retries this call and the calls it was split from have spent.
        elapsed: seconds since the first attempt began.
        held: whether the limiters hold the next attempt for as long as a Retry-After asks.
    """
    decision = policy.decide(error, retries=retries, elapsed=elapsed, held=held)
    if decision is FATAL:
        return STOP
    if items > 1 and should_split(error):
        return HALVE
    if decision is not None:
        return TryAgain(decision)
    return HALVE if items > 1 and may_split(error) else GIVE_UP
