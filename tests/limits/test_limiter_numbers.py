"""Numbers at the limiters: of other libraries, wrong ones, and functions that raise."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from ragasync import AsyncBatchProcessor, AsyncRetry, RateLimiter

# Internals: single decisions, and numbers that no run reaches.
from ragasync._limits.combined import CombinedLimiter

HUGE = 10**400
TOO_LONG = 10**6000  # Python refuses to print it
NAN = float("nan")
INF = float("inf")

NOT_NUMBERS = [True, np.True_, "10", None, b"1", [1], np.array([1.0, 2.0]), Decimal(1), 1j]
NOT_POSITIVE = [0, -1, -0.5, NAN, INF, -INF, HUGE, -HUGE, TOO_LONG, np.float32(0), np.int8(-3)]
NUMBERS = [10, 10.0, np.float64(10), np.float32(10), np.float16(10), np.int64(10), np.uint8(10)]


class OddFloat(float):
    """A float that cannot be printed."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def kind_of(value: object) -> str:
    """What a test case is called."""
    return type(value).__name__


def now() -> float:
    """The virtual time."""
    return asyncio.get_running_loop().time()


# ---- rates, bursts, windows


@pytest.mark.parametrize("number", [*NUMBERS, Fraction(10)], ids=kind_of)
def test_numbers_of_any_library_are_rates(number: Any):
    """They are kept as plain floats, with all their digits."""
    limiters = [
        RateLimiter(number),
        RateLimiter(rate=number, per=np.float32(1)),
        RateLimiter.at_most(number, np.int32(1)),
    ]
    limiters[0].rate = number
    combined = CombinedLimiter()
    combined.rate = number
    assert [limiter.rate for limiter in limiters] == [10.0] * 3
    assert all(type(limiter.rate) is float for limiter in [*limiters, combined])
    assert RateLimiter(1, burst_size=number).burst == 10.0


@pytest.mark.parametrize(
    ("word", "seconds"),
    [("minute", 60), ("Minutes", 60), ("min", 60), ("second", 1), ("day", 86400), ("hour", 3600)],
)
def test_a_unit_of_time_in_words_is_answered_with_its_seconds(word, seconds):
    """As other libraries take it."""
    with pytest.raises(TypeError, match=rf"got '{word}': 1 \w+ is per={seconds}$"):
        RateLimiter(rate=10, per=word)


@pytest.mark.parametrize("word", ["", "s s", "fortnight", "ss", "60"])
def test_other_words_are_refused_without_a_guess(word):
    """Only a unit is one."""
    with pytest.raises(TypeError, match=rf"a number of seconds or a timedelta, got '{word}'$"):
        RateLimiter(rate=10, per=word)


@pytest.mark.parametrize("wrong", [*NOT_NUMBERS, *NOT_POSITIVE, OddFloat("nan")], ids=kind_of)
def test_a_wrong_rate_burst_or_window_is_refused_with_what_was_got(wrong: Any):
    """And one that is set leaves the one in force."""
    limiter, combined = RateLimiter(5), CombinedLimiter()
    tries = [
        lambda: RateLimiter(wrong),
        lambda: RateLimiter(rate=1, per=wrong),
        lambda: RateLimiter(1, wrong),
        lambda: RateLimiter.at_most(wrong, 1),
        lambda: RateLimiter.at_most(1, wrong),
        lambda: setattr(limiter, "rate", wrong),
        lambda: setattr(combined, "rate", wrong),
    ]
    if wrong is None:  # that is no burst, no rate of the job's own
        del tries[2], tries[-1]
    for attempt in tries:
        with pytest.raises((TypeError, ValueError), match="must be"):
            attempt()
    assert limiter.rate == 5
    assert combined.rate is None


@pytest.mark.parametrize("rate", [5e-324, 1e-310])
def test_a_rate_so_low_that_its_interval_is_infinite_is_refused(rate: float):
    """It would hold everybody for ever."""
    for attempt in (lambda: RateLimiter(rate), lambda: RateLimiter(rate=1e-300, per=1e10)):
        with pytest.raises(ValueError, match="must be at least"):
            attempt()


def test_a_rate_that_overflows_in_its_unit_is_refused():
    """The quotient counts."""
    with pytest.raises(ValueError, match="positive and finite, got inf"):
        RateLimiter(rate=1e300, per=1e-300)


@pytest.mark.parametrize("wrong", [3, "tokens", object()])
def test_what_counts_a_weight_must_be_a_function(wrong: Any):
    """At once, not at the first call."""
    with pytest.raises(TypeError, match="weight must be a function"):
        RateLimiter(1, weight=wrong)
    with pytest.raises(TypeError, match="weight must be a function"):
        RateLimiter.at_most(1, 1, weight=wrong)


def test_an_async_function_cannot_count_a_weight():
    """It is told when the limiter is made."""

    async def count(item: str) -> float:
        return len(item)

    with pytest.raises(TypeError, match="weight must be a function that is not async"):
        RateLimiter(1, weight=count)


# ---- pauses


@pytest.mark.parametrize(
    "wrong",
    [*NOT_NUMBERS, -1, NAN, INF, -INF, HUGE, TOO_LONG],
    ids=kind_of,
)
async def test_a_wrong_pause_is_refused_and_holds_nobody(wrong: Any):
    """By a limiter, and by a combined limiter."""
    limiter, combined = RateLimiter(5), CombinedLimiter([RateLimiter(5)])
    for pausing in (limiter, combined):
        with pytest.raises((TypeError, ValueError), match="seconds must be"):
            pausing.pause(wrong)
    assert limiter.try_acquire()
    assert combined.try_admit([1])


async def test_a_pause_may_be_a_number_of_any_library():
    """It is as long as it says."""
    limiter = RateLimiter(5)
    limiter.pause(np.float32(2.5))
    await limiter.acquire()
    assert now() == 2.5
    assert type(limiter.paused_for) is float


# ---- weights


@pytest.mark.parametrize("wrong", [*NOT_NUMBERS, *NOT_POSITIVE, OddFloat("nan")], ids=kind_of)
async def test_a_wrong_weight_is_refused_and_takes_nothing(wrong: Any):
    """The one who asks is told what was got; whoever waits goes as though it had not come."""
    limiter = RateLimiter(10, burst_size=2)
    with pytest.raises((TypeError, ValueError), match=r"weight must be|weight of .* can never"):
        await limiter.acquire(wrong)
    with pytest.raises((TypeError, ValueError), match=r"weight must be|weight of .* can never"):
        limiter.try_acquire(wrong)
    assert limiter.try_acquire(2)
    waiting = asyncio.create_task(limiter.acquire(2))
    await asyncio.sleep(0.05)
    with pytest.raises((TypeError, ValueError)):
        await limiter.acquire(wrong)
    await waiting
    assert now() == pytest.approx(0.2)


@pytest.mark.parametrize("weight", [*NUMBERS, Fraction(10)], ids=kind_of)
@pytest.mark.real_time
async def test_a_weight_of_any_library_keeps_the_bucket_exact(weight: Any):
    """A float32 would round the clock to milliseconds, and the limiter with it."""
    limiter = RateLimiter(1e6, burst_size=1e6)
    for _ in range(3):
        await limiter.acquire(weight)
        assert limiter.try_acquire(weight)
    assert type(limiter._queue.bucket.tat) is float


async def test_a_weight_that_would_take_the_limiter_decades_is_refused():
    """Who asks for it by mistake holds nobody up."""
    limiter = RateLimiter(10)
    for weight in (1e300, 10**30, np.float64(1e12)):
        with pytest.raises(ValueError, match="block the limiter for"):
            await limiter.acquire(weight)
    await limiter.acquire()
    assert now() == 0


# ---- what a function counts


def raising(error: BaseException) -> Any:
    """Return a function that raises for item 3."""

    def count(item: int) -> float:
        if item == 3:
            raise error
        return 1.0

    count.raised = error  # type: ignore[attr-defined]
    return count


def returning(value: Any) -> Any:
    """Return a function that returns this for item 3."""
    return lambda item: value if item == 3 else np.float32(1)


async def a_coroutine() -> float:
    """A count that nobody awaits."""
    return 1.0


class Panic(BaseException):
    """What an extension in another language raises."""


WRONG_COUNTS = [
    *(pytest.param(lambda v=v: returning(v), id=str(type(v))) for v in [*NOT_NUMBERS]),
    *(pytest.param(lambda v=v: returning(v), id=str(v)) for v in [-1, NAN, INF, -INF]),
    pytest.param(lambda: returning(OddFloat(-1)), id="odd"),
    pytest.param(lambda: returning(HUGE), id="huge"),
    pytest.param(lambda: returning(TOO_LONG), id="too long"),
    pytest.param(lambda: lambda item: a_coroutine() if item == 3 else 1, id="coroutine"),
    *(
        pytest.param(lambda error=error: raising(error), id=type(error).__name__)
        for error in [
            KeyError("x"),
            RecursionError(),
            ZeroDivisionError(),
            Panic("rust"),
            asyncio.CancelledError(),
            ExceptionGroup("two", [ValueError("a"), OSError("b")]),
        ]
    ),
]


@pytest.mark.parametrize("make", WRONG_COUNTS)
async def test_a_count_that_fails_is_told_to_the_caller_concerned_and_takes_nothing(make: Any):
    """At every limiter of the job."""
    plain, weighed = RateLimiter(10, 1), RateLimiter(10, 5, weight=make())
    combined = CombinedLimiter([plain, weighed])
    with pytest.raises(ValueError, match=r"weight= r.*Check <function"):
        combined.try_admit([3])
    with pytest.raises(ValueError, match=r"weight= r.*Check <function"):
        await combined.admit([3])
    assert plain.try_acquire()
    assert weighed.try_acquire(5)


@pytest.mark.parametrize("make", WRONG_COUNTS)
@pytest.mark.parametrize("batched", [False, True])
async def test_an_item_whose_weight_cannot_be_counted_fails_alone(make: Any, batched: bool):
    """Also in a batch with others, and without a call; the message quotes its error."""
    count = make()
    asked: list[int] = []

    async def call(given: Any) -> Any:
        asked.extend(given if batched else [given])
        return given

    result = await AsyncBatchProcessor(
        call,
        batched=batched,
        batch_size=8,
        max_concurrency=2,
        rate_limiter=[RateLimiter(1000), RateLimiter(1000, 100, weight=count)],
        retry=AsyncRetry(2, 0.1),
    ).process(range(8))
    assert sorted(asked) == [0, 1, 2, 4, 5, 6, 7]
    assert [outcome.item for outcome in result.get_failed()] == [3]
    raised = getattr(count, "raised", None)
    expected = type(raised) if isinstance(raised, Exception) else ValueError
    assert isinstance(result.errors[3], expected)


async def test_a_negative_count_is_not_made_good_by_another_item():
    """The sum of the batch would be fine."""
    with pytest.raises(ValueError, match="not negative, got -5"):
        await CombinedLimiter([RateLimiter(10, 100, weight=float)]).admit([10, -5])


async def test_counts_whose_sum_overflows_are_refused():
    """Each of them is finite."""
    with pytest.raises(ValueError, match="positive and finite, got inf"):
        await CombinedLimiter([RateLimiter(10, weight=float)]).admit([1e308] * 3)


async def test_an_interrupt_in_a_count_is_not_swallowed():
    """It is no item's failure."""
    with pytest.raises(KeyboardInterrupt):
        CombinedLimiter([RateLimiter(10, weight=raising(KeyboardInterrupt()))]).try_admit([3])
