"""
Random schedules: the fate of each item's calls, the options of a job, and steps of its controls.

Everything happens at virtual times on a grid of quarters of a second, so that events often
coincide; timeouts lie off the grid, so that it is certain which calls time out.

The same schedules are tried in each run, so that a change does not fail because of a schedule that
has nothing to do with it. To try other ones, any number of times more:

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
"""Seconds of a call so short that a worker stays on the fast path."""

RETRY_AFTER = 1.5
"""Seconds that a busy service asks for."""

FAULTS: list[Answer] = ["passing", "passing", "busy", "wrong"]


def examples(count: int) -> settings:
    """Hypothesis settings for this number of examples, times RAGASYNC_EXAMPLES if that is set."""
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
    """The fate of a call: its seconds (None: no turn of the loop at all) and its answer."""

    seconds: float | None
    answer: Answer


@dataclass(frozen=True)
class JobOptions:
    """The options of a job, with descriptions of its limiters, because each run needs new ones."""

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
class ControlStep:
    """A use of a control at a time: pause, resume, cancel, resize or rate, with its value."""

    at: float
    action: str
    value: Any = None


@st.composite
def tries(draw: st.DrawFn, answers: list[Answer]) -> list[Try]:
    """Draw the fate of one item, call by call; the last answer is repeated."""
    long = st.one_of(st.none(), st.just(A_TURN), seconds(2))
    faults = draw(st.lists(st.builds(Try, long, st.sampled_from(answers)), max_size=3))
    return [*faults, Try(draw(long), "value")]


def services(most: int = 20) -> st.SearchStrategy[list[list[Try]]]:
    """The fates of some items, call by call; now and then the service rejects the key."""
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

options = st.builds(
    JobOptions,
    max_concurrency=st.integers(1, 5),
    retries=st.integers(0, 3),
    delay=st.sampled_from([0.0, 0.5, 1.0]),
    timeout=st.sampled_from([None, None, 0.6, 1.1]),
    max_errors=st.sampled_from([None, None, None, 0, 2]),
    limiters=limiters,
)

_times = st.one_of(seconds(6), st.integers(1, 12).map(lambda count: count * A_TURN))
_turns = st.one_of(
    st.builds(ControlStep, _times, st.sampled_from(["pause", "pause", "resume"])),
    st.builds(ControlStep, _times, st.just("resize"), st.integers(1, 6)),
    st.builds(ControlStep, _times, st.just("rate"), st.sampled_from([None, 1.0, 4.0])),
)


@st.composite
def control_steps(draw: st.DrawFn) -> list[ControlStep]:
    """Draw steps of the controls, in order; the last one resumes the job."""
    steps = draw(st.lists(_turns, max_size=6))
    if draw(st.integers(0, 2)) == 0:
        steps.append(ControlStep(draw(_times), "cancel"))
    steps.sort(key=lambda step: step.at)
    return [*steps, ControlStep(steps[-1].at if steps else 0.0, "resume")]


SourceKind = Literal["list", "generator", "async", "late"]


@dataclass(frozen=True)
class Source:
    """The source of items: its kind, and after how many items it raises, if at all."""

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
