"""
Random schedules: what a service does with each item, how a job is told, and who turns its knobs.

Everything happens at virtual times on a grid of quarters of a second, so that events often fall on
the same instant; time limits lie beside the grid, so that what must time out is certain.

The same schedules are tried each time, so that no change fails for a schedule that it has nothing
to do with. To look for new ones, as many times more as you like:

    RAGASYNC_EXAMPLES=20 pytest --timeout 0 tests/properties
"""

import os
from dataclasses import dataclass
from typing import Any, Literal

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from ragasync import AsyncRetry, RateLimiter

TIMES_MORE = int(os.environ.get("RAGASYNC_EXAMPLES", "0"))

Answer = Literal["value", "passing", "busy", "wrong", "fatal"]

A_TURN = 2**-10
"""Seconds of a call that is over within the moment that a worker goes on without looking up."""

RETRY_AFTER = 1.5
"""Seconds that a busy service asks for."""

FAULTS: list[Answer] = ["passing", "passing", "busy", "wrong"]


def examples(count: int) -> settings:
    """Return settings for so many examples, or as many times more as the environment says."""
    return settings(
        max_examples=count * max(1, TIMES_MORE),
        deadline=None,  # the machine is shared; the tests look at virtual time only
        derandomize=not TIMES_MORE,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def seconds(most: float) -> st.SearchStrategy[float]:
    """Return quarters of a second, up to this many seconds."""
    return st.integers(0, int(4 * most)).map(lambda quarters: quarters / 4)


@dataclass(frozen=True)
class Try:
    """What a service does with a call: it takes a while (None: not even a turn) and answers."""

    seconds: float | None
    answer: Answer


@dataclass(frozen=True)
class Told:
    """How a job is told; the limiters are described, because each run needs fresh ones."""

    max_concurrency: int
    retries: int
    delay: float
    timeout: float | None
    max_errors: int | None
    limiters: tuple[tuple[float, float | None, float], ...]

    def fresh_limiters(self) -> list[RateLimiter]:
        """Return new limiters: rate, burst, and what an item weighs."""
        return [
            RateLimiter(rate, burst, weight=None if weight == 1.0 else lambda _, w=weight: w)
            for rate, burst, weight in self.limiters
        ]

    def arguments(self, limiters: list[RateLimiter]) -> dict[str, Any]:
        """Return the arguments of a processor; without jitter every back-off is known."""
        return {
            "max_concurrency": self.max_concurrency,
            "retry": AsyncRetry(self.retries, self.delay, jitter=None),
            "timeout": self.timeout,
            "max_errors": self.max_errors,
            "rate_limiter": limiters,
        }


@dataclass(frozen=True)
class Turn:
    """A knob that is turned at a time: pause, resume, cancel, resize or rate, with its value."""

    at: float
    knob: str
    value: Any = None


@st.composite
def tries(draw: st.DrawFn, answers: list[Answer]) -> list[Try]:
    """Draw what a service does with one item, call by call; the last answer stays."""
    long = st.one_of(st.none(), st.just(A_TURN), seconds(2))
    faults = draw(st.lists(st.builds(Try, long, st.sampled_from(answers)), max_size=3))
    return [*faults, Try(draw(long), "value")]


def services(most: int = 20) -> st.SearchStrategy[list[list[Try]]]:
    """Return what a service does with each of some items; now and then it refuses the key."""
    usual, fatal = tries(FAULTS), tries([*FAULTS, "fatal"])
    return st.one_of(
        st.lists(usual, max_size=most), st.lists(usual, max_size=most), st.lists(fatal, max_size=8)
    )


limiters = st.lists(
    st.tuples(
        st.sampled_from([0.25, 1.0, 3.0, 20.0]),
        st.sampled_from([None, 1.0, 2.5, 6.0]),
        st.sampled_from([1.0, 1.0, 0.5, 2.0]),
    ),
    max_size=2,
).map(tuple)

told = st.builds(
    Told,
    max_concurrency=st.integers(1, 5),
    retries=st.integers(0, 3),
    delay=st.sampled_from([0.0, 0.5, 1.0]),
    timeout=st.sampled_from([None, None, 0.6, 1.1]),
    max_errors=st.sampled_from([None, None, None, 0, 2]),
    limiters=limiters,
)

_times = st.one_of(seconds(6), st.integers(1, 12).map(lambda turns: turns * A_TURN))
_turns = st.one_of(
    st.builds(Turn, _times, st.sampled_from(["pause", "pause", "resume"])),
    st.builds(Turn, _times, st.just("resize"), st.integers(1, 6)),
    st.builds(Turn, _times, st.just("rate"), st.sampled_from([None, 1.0, 4.0])),
)


@st.composite
def steering(draw: st.DrawFn) -> list[Turn]:
    """Return the knobs that are turned, in order; the last thing, a paused job is resumed."""
    turned = draw(st.lists(_turns, max_size=6))
    if draw(st.integers(0, 2)) == 0:
        turned.append(Turn(draw(_times), "cancel"))
    turned.sort(key=lambda turn: turn.at)
    return [*turned, Turn(turned[-1].at if turned else 0.0, "resume")]


SourceKind = Literal["list", "generator", "async", "late"]


@dataclass(frozen=True)
class Source:
    """How items come: from a list, or one by one; after how many the source raises, if it does."""

    kind: SourceKind
    raises_after: int | None = None


sources = st.one_of(
    st.builds(Source, st.sampled_from(["list", "generator", "async", "late"])),
    st.builds(
        Source,
        st.sampled_from(["generator", "async", "late"]),
        st.one_of(st.none(), st.integers(0, 9)),
    ),
)
