from __future__ import annotations

import asyncio
import functools
import inspect
import math
import pickle
import random
import re
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import FrozenInstanceError, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest

from ragasync import FATAL, AsyncBatchProcessor, AsyncRetry, process_with_workers, retry_async
from ragasync.errors import RunAsyncError


class Flaky:
    """An async callable that raises the given errors, one a call, and then returns "done"."""

    def __init__(self, *errors: BaseException, seconds: float = 0.0) -> None:
        self.errors = list(errors)
        self.seconds = seconds
        self.starts: list[float] = []

    async def __call__(self, *args: object, **kwargs: object) -> str:
        """Fail or succeed after `seconds`."""
        self.starts.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.seconds)
        if self.errors:
            raise self.errors.pop(0)
        return "done"


async def later(*_: object) -> bool:
    """Return a coroutine that nobody awaits."""
    return True


def steps(*_: object) -> Iterator[bool]:
    """Return a generator that nobody iterates."""
    yield True


async def later_steps(*_: object) -> AsyncIterator[bool]:
    """Return an async generator that nobody iterates."""
    yield True


ASYNC = (
    *(later, steps, later_steps, functools.partial(later), functools.partial(Flaky())),
    *(Flaky().__call__, functools.partial(functools.partial(Flaky().__call__))),
)


class Clock:
    """A stand-in for `time` in sync tests: sleeping moves it on."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        """Return the time that was slept."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Move on at once."""
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Let sync functions back off on a clock that never waits."""
    clock = Clock()
    monkeypatch.setattr("ragasync._retries.loop.time", clock)
    return clock


class Busy(Exception):
    """A 429 with the given Retry-After."""

    def __init__(self, retry_after: str) -> None:
        super().__init__()
        self.status_code = 429
        self.headers = {"Retry-After": retry_after}


def delays_of(policy: AsyncRetry, error: Exception, count: int) -> list[object]:
    """Return what the policy decides for the first retries."""
    return [policy.decide(error, retries=n, elapsed=0.0) for n in range(count)]


# When attempts are made


async def test_a_call_that_succeeds_is_made_once() -> None:
    """Nothing is repeated without an error."""
    work = Flaky()
    assert await AsyncRetry().call(work) == "done"
    assert work.starts == [0.0]


async def test_attempts_follow_after_exponential_delays() -> None:
    """Without jitter the delays are the bounds themselves."""
    work = Flaky(*(ConnectionError() for _ in range(4)))
    assert await AsyncRetry(4, 1.0, jitter=None).call(work) == "done"
    assert work.starts == [0.0, 1.0, 3.0, 7.0, 15.0]


async def test_the_delay_is_counted_from_the_end_of_the_failed_attempt() -> None:
    """Back-off is time in which the service is left alone."""
    work = Flaky(ConnectionError(), seconds=5.0)
    await AsyncRetry(jitter=None).call(work)
    assert work.starts == [0.0, 6.0]


async def test_arguments_reach_every_attempt() -> None:
    """The same call is made again."""
    seen: list[tuple[object, ...]] = []

    async def work(a: int, /, *, fn: str, self: str) -> int:
        seen.append((a, fn, self))
        if len(seen) < 2:
            raise ConnectionError
        return a

    assert await AsyncRetry().call(work, 1, fn="x", self="y") == 1
    assert seen == [(1, "x", "y")] * 2


async def test_the_last_error_is_raised_itself_when_the_retries_are_used_up() -> None:
    """No wrapper, and no chain of the errors before it."""
    errors = [ConnectionError(str(n)) for n in range(3)]
    work = Flaky(*errors)
    with pytest.raises(ConnectionError) as caught:
        await AsyncRetry(2, 0.0).call(work)
    assert caught.value is errors[2]
    assert caught.value.__context__ is None
    assert len(work.starts) == 3


async def test_without_retries_there_is_one_attempt() -> None:
    """max_retries counts what follows the first attempt."""
    work = Flaky(ConnectionError())
    with pytest.raises(ConnectionError):
        await AsyncRetry(0).call(work)
    assert work.starts == [0.0]


async def test_a_back_off_of_nothing_lets_others_run() -> None:
    """Even a function that never suspends cannot hold the loop while it fails."""
    order: list[str] = []

    async def work() -> None:
        order.append("attempt")
        if len(order) < 3:
            raise ConnectionError

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(AsyncRetry(base_delay=0).call(work))
        tasks.create_task(_append(order))
    assert order == ["attempt", "other", "attempt"]


async def _append(order: list[str]) -> None:
    """Say that another task ran."""
    order.append("other")


# How long the back-off is


def test_the_bound_stops_growing_at_max_delay() -> None:
    """The exponential is cut, not the number of retries."""
    policy = AsyncRetry(9, 1.0, max_delay=5.0, factor=3.0, jitter=None)
    assert delays_of(policy, ConnectionError(), 5) == [1.0, 3.0, 5.0, 5.0, 5.0]


def test_the_defaults_are_one_second_doubled_up_to_a_minute() -> None:
    """The signature's numbers are in force."""
    policy = AsyncRetry(9, jitter=None)
    assert delays_of(policy, ConnectionError(), 8) == [1, 2, 4, 8, 16, 32, 60, 60]


def test_full_jitter_is_uniform_below_the_bound() -> None:
    """The delay is the bound times a number in [0, 1)."""
    chances = iter([0.0, 0.5, 0.25, 0.999])
    policy = AsyncRetry(9, 2.0, max_delay=10.0, _random=lambda: next(chances))
    assert delays_of(policy, ConnectionError(), 4) == [0.0, 2.0, 2.0, 9.99]


def test_seeding_the_random_module_repeats_the_jitter() -> None:
    """By default chance is the module's own."""
    policy = AsyncRetry(9)
    random.seed(7)
    first = delays_of(policy, ConnectionError(), 9)
    random.seed(7)
    assert delays_of(policy, ConnectionError(), 9) == first
    assert len(set(first)) == 9


@pytest.mark.parametrize("factor", [1.0, 2, 2.0, 1e300])
@pytest.mark.parametrize("retries", [1_000, 10**9, 10**400])
def test_late_retries_do_not_overflow(factor: float, retries: int) -> None:
    """However far the exponential has grown, the bound is max_delay."""
    policy = AsyncRetry(10**401, 60.0, factor=factor, jitter=None)
    assert policy.decide(ConnectionError(), retries=retries, elapsed=0.0) == 60.0


@pytest.mark.parametrize("retries", [0, 5, 10**6])
def test_a_base_delay_of_zero_is_no_back_off(retries: int) -> None:
    """Zero stays zero, whatever it is multiplied by."""
    policy = AsyncRetry(10**7, 0, factor=1e300)
    assert policy.decide(ConnectionError(), retries=retries, elapsed=0.0) == 0.0


async def test_retry_after_lengthens_the_back_off_past_max_delay() -> None:
    """The service's word counts more than the cap."""
    work = Flaky(Busy("100"))
    await AsyncRetry(max_delay=10.0, _random=lambda: 0.0).call(work)
    assert work.starts == [0.0, 100.0]


async def test_retry_after_never_shortens_the_back_off() -> None:
    """It is a lower bound only."""
    work = Flaky(Busy("0.5"))
    await AsyncRetry(jitter=None).call(work)
    assert work.starts == [0.0, 1.0]


def test_retry_after_lengthens_a_predicates_delay_too() -> None:
    """Nothing undercuts the service."""
    policy = AsyncRetry(retry_on=lambda error: 2.0)
    assert policy.decide(Busy("3"), retries=0, elapsed=0.0) == 3.0
    assert policy.decide(Busy("1"), retries=0, elapsed=0.0) == 2.0


# The deadline


async def test_no_attempt_starts_past_the_deadline_and_none_is_slept_for() -> None:
    """A back-off that would reach the deadline is given up at once."""
    work = Flaky(*(ConnectionError() for _ in range(9)))
    with pytest.raises(ConnectionError):
        await AsyncRetry(9, 1.0, jitter=None, max_elapsed=7.0).call(work)
    assert work.starts == [0.0, 1.0, 3.0]
    assert asyncio.get_running_loop().time() == 3.0


async def test_the_deadline_counts_from_the_start_of_the_first_attempt() -> None:
    """The time inside attempts counts as well as the back-off."""
    work = Flaky(*(ConnectionError() for _ in range(9)), seconds=4.0)
    with pytest.raises(ConnectionError):
        await AsyncRetry(9, 1.0, factor=1.0, jitter=None, max_elapsed=10.0).call(work)
    assert work.starts == [0.0, 5.0]


async def test_the_deadline_counts_anew_for_every_call() -> None:
    """The policy keeps nothing of a call."""
    policy = AsyncRetry(jitter=None, max_elapsed=1.5)
    for _ in range(3):
        await policy.call(Flaky(ConnectionError()))
    assert asyncio.get_running_loop().time() == 3.0


async def test_a_running_attempt_is_not_cut_at_the_deadline() -> None:
    """Only the start of attempts is bounded."""
    assert await AsyncRetry(max_elapsed=1.0).call(Flaky(seconds=60.0)) == "done"


async def test_a_retry_after_past_the_deadline_gives_up_at_once() -> None:
    """Coming earlier would be in vain, and later is too late."""
    with pytest.raises(Busy):
        await AsyncRetry(max_elapsed=30.0).call(Flaky(Busy("60")))
    assert asyncio.get_running_loop().time() == 0.0


# A Retry-After that is too long


@pytest.mark.parametrize(("asked", "waited"), [("119", 119.0), ("120", 120.0)])
async def test_a_retry_after_up_to_the_limit_is_waited_for(asked: str, waited: float) -> None:
    """The default limit is two minutes, inclusive."""
    work = Flaky(Busy(asked))
    await AsyncRetry(_random=lambda: 0.0).call(work)
    assert work.starts == [0.0, waited]


@pytest.mark.parametrize("asked", ["121", "86400", "1795929333"])
async def test_a_longer_retry_after_raises_the_error_instead_of_waiting(asked: str) -> None:
    """It is neither waited for nor clamped; an epoch is a number of seconds, as the RFC says."""
    work = Flaky(error := Busy(asked))
    with pytest.raises(Busy) as caught:
        await AsyncRetry().call(work)
    assert caught.value is error
    assert work.starts == [0.0]
    assert asyncio.get_running_loop().time() == 0.0


async def test_the_note_names_a_long_wait_and_when_it_ends() -> None:
    """So that a reader knows when to come back."""
    before = datetime.now()
    (note,) = await notes_after(AsyncRetry(max_retry_after=30), Flaky(Busy("86400")))
    after = datetime.now()
    found = re.fullmatch(
        r"AsyncRetry gave up after 1 attempt; the service asked to wait 86,400 s, until "
        r"(\S+ \S+) ?\w*, longer than max_retry_after=30",
        note,
    )
    assert found is not None
    end = datetime.fromisoformat(found[1])
    day = timedelta(days=1)
    assert before + day - timedelta(seconds=1) <= end <= after + day


async def test_the_note_of_an_endless_wait_has_no_date() -> None:
    """No calendar has the year 30,000."""
    (note,) = await notes_after(AsyncRetry(), Flaky(Busy("1e12")))
    assert "1,000,000,000,000 s, longer than max_retry_after=120" in note


def test_a_sync_function_does_not_wait_for_a_long_retry_after_either(clock: Clock) -> None:
    """The rule is the policy's."""

    @AsyncRetry()
    def fetch() -> None:
        raise Busy("121")

    with pytest.raises(Busy):
        fetch()
    assert clock.slept == []


def test_a_limit_of_infinity_waits_for_any_time() -> None:
    """There is then no bound."""
    policy = AsyncRetry(max_retry_after=math.inf)
    assert policy.decide(Busy("86400"), retries=0, elapsed=0.0) == 86400.0


def test_a_limit_of_zero_still_retries_errors_without_a_retry_after() -> None:
    """Only what the service asks for is bounded."""
    policy = AsyncRetry(jitter=None, max_retry_after=0)
    assert policy.decide(Busy("0"), retries=0, elapsed=0.0) == 1.0
    assert policy.decide(Busy("0.1"), retries=0, elapsed=0.0) is None


def test_no_choice_of_errors_waits_for_a_long_retry_after() -> None:
    """Neither a type nor a predicate's own delay lifts the limit."""
    for retry_on in (Busy, lambda error: True, lambda error: 1.0):
        policy = AsyncRetry(retry_on=retry_on)
        assert policy.decide(Busy("121"), retries=0, elapsed=0.0) is None


# Errors that are no Exception


class Panic(BaseException):
    """What PyO3 raises when Rust code panics."""


EVERYTHING: tuple[Any, ...] = (None, Exception, (ConnectionError, KeyError), lambda error: True)


@pytest.mark.parametrize("retry_on", EVERYTHING)
@pytest.mark.parametrize(
    "error",
    [Panic(), BaseExceptionGroup("x", [Panic(), ConnectionError()]), KeyboardInterrupt()],
    ids=repr,
)
def test_a_foreign_base_exception_is_never_retried(error: BaseException, retry_on: Any) -> None:
    """Whatever the policy chooses."""
    assert AsyncRetry(retry_on=retry_on).decide(error, retries=0, elapsed=0.0) is None


@pytest.mark.parametrize("retry_on", [*EVERYTHING, OSError, ConnectionError])
@pytest.mark.parametrize(
    "error",
    [
        asyncio.CancelledError(),
        BaseExceptionGroup("x", [asyncio.CancelledError(), ConnectionResetError()]),
    ],
    ids=repr,
)
def test_a_cancellation_that_nobody_asked_for_is_a_lost_connection(
    error: BaseException, retry_on: Any
) -> None:
    """The engine asks about it; a policy around a function never catches it."""
    policy = AsyncRetry(retry_on=retry_on, jitter=None)
    assert policy.decide(error, retries=0, elapsed=0.0) == 1.0


@pytest.mark.parametrize("retry_on", [TimeoutError, ConnectionResetError, lambda error: False])
def test_a_cancellation_is_not_retried_where_lost_connections_are_not(retry_on: Any) -> None:
    """It counts as the plain ConnectionError."""
    policy = AsyncRetry(retry_on=retry_on)
    assert policy.decide(asyncio.CancelledError(), retries=0, elapsed=0.0) is None


def test_a_predicate_that_raises_the_cancellation_it_was_given_chooses_no_retry() -> None:
    """A judgement of an old error must not cancel anything."""

    def judge(error: Exception) -> bool:
        raise error

    policy = AsyncRetry(retry_on=judge)
    assert policy.decide(asyncio.CancelledError(), retries=0, elapsed=0.0) is None


def test_a_panic_of_the_predicate_is_an_ordinary_error() -> None:
    """It names what happened, and what was being judged."""

    def judge(error: Exception) -> bool:
        raise Panic("index out of bounds")

    original = ConnectionError()
    with pytest.raises(RuntimeError, match="retry_on raised Panic: index out of bounds") as caught:
        AsyncRetry(retry_on=judge).decide(original, retries=0, elapsed=0.0)
    assert caught.value.__cause__ is original


def test_types_choose_a_group_all_of_whose_members_they_choose() -> None:
    """As `except*` would leave nothing of it."""
    policy = AsyncRetry(retry_on=(ConnectionError, KeyError), jitter=None)
    lost = ExceptionGroup("x", [ConnectionResetError(), ExceptionGroup("y", [KeyError()])])
    mixed = ExceptionGroup("x", [ConnectionResetError(), TimeoutError()])
    assert policy.decide(lost, retries=0, elapsed=0.0) == 1.0
    assert policy.decide(mixed, retries=0, elapsed=0.0) is None


async def test_a_panic_passes_through_a_decorated_function() -> None:
    """Only an Exception is retried."""
    work = Flaky(Panic())
    with pytest.raises(Panic):
        await AsyncRetry(retry_on=lambda error: True).call(work)
    assert work.starts == [0.0]


# Which errors are tried again


async def test_what_must_fail_the_same_way_is_raised_at_once() -> None:
    """By default a TypeError is final."""
    work = Flaky(TypeError())
    with pytest.raises(TypeError):
        await AsyncRetry().call(work)
    assert work.starts == [0.0]


@pytest.mark.parametrize("retry_on", [KeyError, (KeyError, ValueError)])
async def test_types_choose_what_is_tried_again(retry_on: type[Exception]) -> None:
    """The chosen types replace the default judgement in both directions."""
    policy = AsyncRetry(base_delay=0, retry_on=retry_on)
    assert await policy.call(Flaky(KeyError())) == "done"
    with pytest.raises(ConnectionError):
        await policy.call(Flaky(ConnectionError()))


@pytest.mark.parametrize(
    ("answer", "decision"),
    [(True, 1.0), (False, None), (FATAL, FATAL), (5, 5.0), (0, 0.0), (0.25, 0.25), (90.0, 90.0)],
)
def test_a_predicate_answers_yes_no_a_delay_or_fatal(answer: Any, decision: object) -> None:
    """A delay of its own takes the place of the computed one, max_delay included."""
    policy = AsyncRetry(jitter=None, retry_on=lambda error: answer)
    assert policy.decide(ConnectionError(), retries=0, elapsed=0.0) == decision


@pytest.mark.parametrize("answer", [True, 5.0])
def test_a_predicate_cannot_ask_for_more_retries_than_there_are(answer: Any) -> None:
    """The count is the policy's."""
    policy = AsyncRetry(2, retry_on=lambda error: answer)
    assert policy.decide(ConnectionError(), retries=2, elapsed=0.0) is None


def test_fatal_is_fatal_even_when_no_retries_are_left() -> None:
    """A batch must hear that the job should stop."""
    policy = AsyncRetry(0, retry_on=lambda error: FATAL)
    assert policy.decide(ConnectionError(), retries=0, elapsed=9.0) is FATAL


async def test_a_fatal_error_is_raised_without_a_retry() -> None:
    """For a single call, stopping the job is giving up."""
    work = Flaky(ConnectionError())
    with pytest.raises(ConnectionError):
        await AsyncRetry(retry_on=lambda error: FATAL).call(work)
    assert work.starts == [0.0]


@pytest.mark.parametrize("retry_on", [None, RuntimeError, (Exception,), lambda error: True])
@pytest.mark.parametrize("kind", [RuntimeError, RunAsyncError])
def test_no_choice_retries_an_object_of_another_loop(retry_on: Any, kind: Any) -> None:
    """It would fail again, and so would every other item of the job."""
    policy = AsyncRetry(retry_on=retry_on)
    assert policy.decide(kind("Event loop is closed"), retries=0, elapsed=0.0) is FATAL


async def test_an_error_of_the_predicate_is_raised_from_the_original() -> None:
    """A broken judgement must not hide what it judged."""
    original, broken = ConnectionError(), ZeroDivisionError()

    def judge(error: Exception) -> bool:
        raise broken

    with pytest.raises(ZeroDivisionError) as caught:
        await AsyncRetry(retry_on=judge).call(Flaky(original))
    assert caught.value is broken
    assert caught.value.__cause__ is original


async def test_a_predicate_may_raise_the_error_it_was_given() -> None:
    """It is then no cause of itself."""

    def judge(error: Exception) -> bool:
        raise error

    with pytest.raises(ConnectionError) as caught:
        await AsyncRetry(retry_on=judge).call(Flaky(ConnectionError()))
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("answer", "kind"),
    [(None, TypeError), ("1", TypeError), (-1, ValueError), (float("nan"), ValueError)],
)
def test_an_answer_that_is_none_is_refused_with_its_value(
    answer: Any, kind: type[Exception]
) -> None:
    """A predicate that forgot to return is told so."""
    original = ConnectionError()
    policy = AsyncRetry(retry_on=lambda error: answer)
    with pytest.raises(kind, match="retry_on returns") as caught:
        policy.decide(original, retries=0, elapsed=0.0)
    assert repr(answer) in str(caught.value)
    assert caught.value.__cause__ is original


# What always passes


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_interrupts_pass_through_a_sync_function(kind: type[BaseException], clock: Clock) -> None:
    """Only an Exception is tried again."""
    calls = []

    @AsyncRetry(retry_on=lambda error: True)
    def work() -> None:
        calls.append(1)
        raise kind

    with pytest.raises(kind):
        work()
    assert (calls, clock.slept) == ([1], [])


async def test_cancellation_inside_an_attempt_passes() -> None:
    """A cancelled call is not repeated."""
    work = Flaky(seconds=10.0)
    task = asyncio.create_task(AsyncRetry(retry_on=lambda error: True).call(work))
    await asyncio.sleep(4.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.starts == [0.0]
    assert asyncio.get_running_loop().time() == 4.0


async def test_cancellation_inside_the_back_off_passes() -> None:
    """No further attempt is made, and the wait ends at once."""
    work = Flaky(ConnectionError())
    task = asyncio.create_task(AsyncRetry(3, 10.0, jitter=None).call(work))
    await asyncio.sleep(4.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.starts == [0.0]
    assert asyncio.get_running_loop().time() == 4.0


# What is said when it gives up


@pytest.mark.parametrize("notes", [None, 3, "AsyncRetry"])
async def test_notes_that_are_no_list_are_replaced(notes: object) -> None:
    """Some library sets them to None."""
    error = ConnectionError()
    error.__dict__["__notes__"] = notes
    assert (await notes_after(AsyncRetry(0), Flaky(error)))[-1] == (
        "AsyncRetry gave up after 1 attempt"
    )


async def notes_after(policy: AsyncRetry, work: Callable[..., Any]) -> list[str]:
    """Return the notes of the error that a call ends with."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whichever error the test made
        await policy.call(work)
    return getattr(caught.value, "__notes__", [])


async def test_giving_up_notes_attempts_seconds_and_the_errors_before() -> None:
    """The last error alone would hide what was tried."""
    work = Flaky(ConnectionError(), TimeoutError(), ConnectionError(), OSError())
    (note,) = await notes_after(AsyncRetry(jitter=None), work)
    assert note == (
        "AsyncRetry gave up after 4 attempts and 7.00 s of back-off, the last 7.00 s after the "
        "first had failed; before this error: 2 × ConnectionError, 1 × TimeoutError"
    )


async def test_giving_up_at_once_notes_the_single_attempt() -> None:
    """The note tells that nothing was repeated."""
    assert await notes_after(AsyncRetry(), Flaky(TypeError())) == [
        "AsyncRetry gave up after 1 attempt"
    ]


async def test_nested_policies_leave_one_note() -> None:
    """The outermost tells the whole story."""
    shared = ConnectionError()

    async def work() -> None:
        raise shared

    outer = AsyncRetry(2, 10.0, factor=1.0, jitter=None)
    notes = await notes_after(outer, AsyncRetry(1, 0.0)(work))
    assert len(notes) == 1
    assert notes[0].startswith(
        "AsyncRetry gave up after 3 attempts and 20.0 s of back-off, the last 20.0 s"
    )


async def test_notes_of_others_stay() -> None:
    """Only a note of our own is replaced."""
    error = ConnectionError()
    error.add_note("the service was in Lyon")
    notes = await notes_after(AsyncRetry(0), Flaky(error))
    assert notes == ["the service was in Lyon", "AsyncRetry gave up after 1 attempt"]


async def test_an_error_that_takes_no_note_is_raised_without_one() -> None:
    """A frozen error is not hidden by another about being frozen."""

    @dataclass(frozen=True)
    class Frozen(Exception):
        """An error that refuses attributes."""

    with pytest.raises(Frozen):
        await AsyncRetry(0).call(Flaky(Frozen()))


# on_retry


async def test_on_retry_is_called_before_each_back_off() -> None:
    """Once per retry, with the failed attempt, its error, the delay and the back-off so far."""
    seen: list[tuple[float, int, BaseException, float, float]] = []

    def listen(event: Any) -> None:
        now = asyncio.get_running_loop().time()
        seen.append((now, event.attempt, event.error, event.delay, event.backed_off))

    errors = [ConnectionError(), TimeoutError()]
    await AsyncRetry(jitter=None, on_retry=listen).call(Flaky(*errors))
    assert seen == [(0.0, 1, errors[0], 1.0, 0.0), (1.0, 2, errors[1], 2.0, 1.0)]


async def test_on_retry_is_not_called_on_giving_up() -> None:
    """There is no back-off."""
    seen: list[object] = []
    with pytest.raises(ConnectionError):
        await AsyncRetry(0, on_retry=seen.append).call(Flaky(ConnectionError()))
    assert seen == []


async def test_an_on_retry_that_raises_is_a_warning_once_and_the_retries_go_on() -> None:
    """A broken callback costs no work."""

    def listen(event: object) -> None:
        raise ZeroDivisionError("oops")

    policy = AsyncRetry(base_delay=0, on_retry=listen)
    with pytest.warns(RuntimeWarning, match="oops") as caught:
        await policy.call(Flaky(ConnectionError(), ConnectionError()))
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        await policy.call(Flaky(ConnectionError()))


@pytest.mark.parametrize("kind", [Panic, ZeroDivisionError, asyncio.CancelledError, GeneratorExit])
async def test_whatever_on_retry_raises_is_a_warning(kind: type[BaseException]) -> None:
    """A panic too."""

    def listen(event: object) -> None:
        raise kind("oops")

    with pytest.warns(RuntimeWarning, match=f"{kind.__name__}: oops"):
        assert await AsyncRetry(base_delay=0, on_retry=listen).call(Flaky(OSError())) == "done"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_interrupts_pass_through_on_retry(kind: type[BaseException]) -> None:
    """They are meant for the program."""

    def listen(event: object) -> None:
        raise kind

    with pytest.raises(kind):
        await AsyncRetry(base_delay=0, on_retry=listen).call(Flaky(OSError()))


async def test_a_callback_that_turns_out_to_be_async_is_a_warning() -> None:
    """A lambda hides it until it is called; its coroutine is closed, and nothing else warns."""
    policy = AsyncRetry(base_delay=0, on_retry=lambda info: later())
    with pytest.warns(RuntimeWarning, match="coroutine, which nothing awaits") as caught:
        assert await policy.call(Flaky(OSError())) == "done"
    assert len(caught) == 1


async def test_a_predicate_that_turns_out_to_be_async_is_an_error() -> None:
    """Its coroutine is closed."""
    policy = AsyncRetry(retry_on=lambda error: later())  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match="retry_on returns"):
        await policy.call(Flaky(OSError()))


async def test_a_retry_event_is_frozen() -> None:
    """It is a value: a callback cannot change the back-off."""
    events: list[Any] = []
    await AsyncRetry(base_delay=0, on_retry=events.append).call(Flaky(OSError()))
    with pytest.raises(FrozenInstanceError):
        events[0].delay = 2.0


# The decorator


async def test_a_decorated_async_function_is_retried_and_stays_async() -> None:
    """Its name, its docstring and its kind are kept."""
    calls: list[int] = []

    @AsyncRetry(base_delay=0)
    async def fetch(n: int) -> int:
        """Fetch."""
        calls.append(n)
        if len(calls) < 3:
            raise ConnectionError
        return n

    assert await fetch(7) == 7
    assert calls == [7, 7, 7]
    assert inspect.iscoroutinefunction(fetch)
    assert (fetch.__name__, fetch.__doc__) == ("fetch", "Fetch.")
    assert str(inspect.signature(fetch)) == "(n: 'int') -> 'int'"


def test_a_decorated_sync_function_backs_off_in_its_thread(clock: Clock) -> None:
    """The same policy without a loop."""
    errors: list[Exception] = [ConnectionError(), ConnectionError()]

    @AsyncRetry(jitter=None)
    def fetch(n: int) -> int:
        if errors:
            raise errors.pop()
        return n

    assert fetch(7) == 7
    assert clock.slept == [1.0, 2.0]
    assert not inspect.iscoroutinefunction(fetch)


def test_a_sync_function_is_held_to_the_deadline_too(clock: Clock) -> None:
    """The clock starts with the first attempt, and the note says what was tried."""
    starts: list[float] = []

    @AsyncRetry(9, jitter=None, max_elapsed=6.5)
    def fetch() -> None:
        starts.append(clock.now)
        clock.now += 2.0
        raise ConnectionError

    with pytest.raises(ConnectionError) as caught:
        fetch()
    assert starts == [0.0, 3.0]
    assert clock.now == 5.0
    assert "2 attempts and 1.00 s of back-off, the last 3.00 s" in caught.value.__notes__[0]


def test_a_sync_function_can_be_asked_to_wait_longer_than_sleep_can(clock: Clock) -> None:
    """`time.sleep` overflows at 292 years; 30 are as good."""
    errors: list[Exception] = [Busy("1e12")]

    @AsyncRetry(max_retry_after=math.inf)
    def fetch() -> str:
        if errors:
            raise errors.pop()
        return "done"

    assert fetch() == "done"
    assert clock.slept == [1e9]
    with pytest.raises(OverflowError):
        time.sleep(1e12)


@pytest.mark.real_time
def test_a_sync_function_really_sleeps() -> None:
    """The clock of sync functions is the machine's."""
    errors: list[Exception] = [ConnectionError()]

    @AsyncRetry(1, 0.02, jitter=None)
    def fetch() -> None:
        if errors:
            raise errors.pop()

    began = time.monotonic()
    fetch()
    assert time.monotonic() - began >= 0.02


class Client:
    """Has methods to decorate."""

    def __init__(self) -> None:
        self.calls = 0

    @AsyncRetry(base_delay=0)
    async def fetch(self, n: int) -> int:
        """Fail once."""
        self.calls += 1
        if self.calls < 2:
            raise ConnectionError
        return n

    @AsyncRetry(base_delay=0)
    def read(self, n: int) -> int:
        """Fail once."""
        self.calls += 1
        if self.calls < 2:
            raise ConnectionError
        return n

    @classmethod
    @AsyncRetry(base_delay=0)
    async def make(cls, n: int) -> tuple[type[Client], int]:
        """Return the class."""
        return cls, n


async def test_methods_are_bound_and_retried() -> None:
    """What is decorated in a class is a method of it."""
    async_client, sync_client = Client(), Client()
    assert await async_client.fetch(1) == 1
    assert sync_client.read(2) == 2
    assert (async_client.calls, sync_client.calls) == (2, 2)
    assert await Client.make(3) == (Client, 3)


async def test_partials_and_callable_objects_are_decorated() -> None:
    """They have no name, but they are async or not."""
    work, other = Flaky(ConnectionError()), Flaky(ConnectionError())
    policy = AsyncRetry(base_delay=0)
    assert await policy(work)() == "done"
    assert await policy(functools.partial(other.__call__, 1))() == "done"
    assert inspect.iscoroutinefunction(policy(work))


async def test_an_async_function_in_disguise_is_retried() -> None:
    """A wrapper that is not async itself may hand back a coroutine; its errors come later."""
    work = Flaky(ConnectionError(), ConnectionError())
    fetch = AsyncRetry(jitter=None)(lambda: work())
    assert await fetch() == "done"
    assert work.starts == [0.0, 1.0, 3.0]


def test_generator_functions_are_refused() -> None:
    """Calling one raises nothing, so that a retry would never happen."""

    def numbers() -> Iterator[int]:
        yield 1

    async def later() -> AsyncIterator[int]:
        yield 1

    for fn in (numbers, later):
        with pytest.raises(TypeError, match="generator"):
            AsyncRetry()(fn)


async def test_a_coroutine_in_place_of_its_function_is_refused() -> None:
    """A coroutine runs once; the message shows what to pass."""
    coroutine: Any = Flaky()()
    with pytest.raises(TypeError, match="not fetch"):
        await AsyncRetry().call(coroutine)
    with pytest.raises(TypeError, match="not fetch"):
        await retry_async(coroutine)
    with pytest.raises(TypeError, match="not fetch"):
        AsyncRetry()(coroutine)
    coroutine.close()


async def test_one_policy_serves_many_calls_at_once() -> None:
    """It holds nothing of a running call."""
    policy = AsyncRetry(jitter=None)
    works = [Flaky(*(ConnectionError() for _ in range(n))) for n in range(4)]
    async with asyncio.TaskGroup() as tasks:
        for work in works:
            tasks.create_task(policy.call(work))
    assert [work.starts[-1] for work in works] == [0.0, 1.0, 3.0, 7.0]


# The value


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"max_retries": -1}, ValueError),
        ({"max_retries": 1.0}, TypeError),
        ({"max_retries": True}, TypeError),
        ({"base_delay": -0.1}, ValueError),
        ({"base_delay": float("nan")}, ValueError),
        ({"base_delay": 10**400}, ValueError),
        ({"base_delay": "1"}, TypeError),
        ({"max_delay": float("inf")}, ValueError),
        ({"factor": 0.5}, ValueError),
        ({"factor": None}, TypeError),
        ({"jitter": "equal"}, ValueError),
        ({"max_elapsed": -1.0}, ValueError),
        ({"max_elapsed": float("inf")}, ValueError),
        ({"max_retry_after": None}, TypeError),
        ({"max_retry_after": -1}, ValueError),
        ({"max_retry_after": float("nan")}, ValueError),
        ({"retry_on": 3}, TypeError),
        ({"retry_on": int}, TypeError),
        ({"retry_on": (ValueError, "x")}, TypeError),
        ({"retry_on": Flaky()}, TypeError),
        ({"on_retry": "x"}, TypeError),
        ({"on_retry": Flaky()}, TypeError),
        *(
            ({name: fn}, TypeError)
            for name in ("on_retry", "retry_on", "retry_on_result")
            for fn in ASYNC
        ),
    ],
    ids=lambda given: re.sub(" at 0x[0-9a-f]+", "", str(given)),
)
def test_wrong_arguments_are_refused_with_their_value(
    arguments: dict[str, Any], kind: type[Exception]
) -> None:
    """The constructor says which argument and what came."""
    (name,) = arguments
    with pytest.raises(kind, match=name) as caught:
        AsyncRetry(**arguments)
    assert "got " in str(caught.value)


@pytest.mark.parametrize("kind", [BaseException, KeyboardInterrupt, asyncio.CancelledError])
def test_types_that_always_pass_are_refused(kind: Any) -> None:
    """Asking to retry a cancellation is a mistake worth an error."""
    with pytest.raises(TypeError, match="are never retried"):
        AsyncRetry(retry_on=(ConnectionError, kind))


def test_a_policy_is_a_frozen_value() -> None:
    """Equal by its settings, hashable, and changed only by making another."""
    policy = AsyncRetry(5)
    with pytest.raises(FrozenInstanceError):
        policy.max_retries = 6  # type: ignore[misc]
    assert policy == AsyncRetry(max_retries=5)
    assert hash(policy) == hash(AsyncRetry(5))
    assert replace(policy, base_delay=2.0) == AsyncRetry(5, 2.0)
    assert pickle.loads(pickle.dumps(policy)) == policy


def test_numbers_of_numpy_are_settings_like_any_others() -> None:
    """They become Python's own, so that the policy reads and compares as usual."""
    policy = AsyncRetry(
        np.int64(5), np.float32(0.5), max_delay=np.int8(9), max_retry_after=np.float64(7)
    )
    assert policy == AsyncRetry(5, 0.5, max_delay=9, max_retry_after=7)
    assert (type(policy.max_retries), type(policy.base_delay)) == (int, float)
    assert type(policy.max_retry_after) is float


@pytest.mark.parametrize("value", [np.float64(2), np.True_, np.array([1, 2])])
def test_numbers_of_numpy_that_are_not_whole_are_no_count(value: Any) -> None:
    """As with Python's own."""
    with pytest.raises(TypeError, match="max_retries must be a whole number"):
        AsyncRetry(value)


def test_what_follows_the_base_delay_is_keyword_only() -> None:
    """The order of the contract's two positional arguments is all there is to remember."""
    with pytest.raises(TypeError):
        AsyncRetry(3, 1.0, 60.0)  # type: ignore[misc]


def test_the_repr_is_one_line_with_every_setting() -> None:
    """What is in force is seen at a glance."""
    assert repr(AsyncRetry(5, max_elapsed=30.0)) == (
        "AsyncRetry(max_retries=5, base_delay=1.0, max_delay=60.0, factor=2.0, jitter='full', "
        "retry_on=None, retry_on_result=None, max_elapsed=30.0, max_retry_after=120.0, "
        "on_retry=None)"
    )


# retry_async


async def test_retry_async_waits_powers_of_the_factor() -> None:
    """factor**0, factor**1 and so on, without jitter."""
    work = Flaky(*(ConnectionError() for _ in range(3)))
    assert await retry_async(work, max_attempts=4, backoff_factor=3.0) == "done"
    assert work.starts == [0.0, 1.0, 4.0, 13.0]


async def test_retry_async_makes_three_attempts_by_default() -> None:
    """The first, one after a second, one after two more; then the last error itself."""
    errors = [ConnectionError() for _ in range(3)]
    work = Flaky(*errors)
    with pytest.raises(ConnectionError) as caught:
        await retry_async(work)
    assert caught.value is errors[2]
    assert work.starts == [0.0, 1.0, 3.0]
    assert "3 attempts" in caught.value.__notes__[0]


async def test_retry_async_takes_a_factor_below_one() -> None:
    """The delays then shrink."""
    work = Flaky(ConnectionError(), ConnectionError())
    await retry_async(work, 3, 0.5)
    assert work.starts == [0.0, 1.0, 1.5]


async def test_retry_async_is_not_capped_at_a_minute() -> None:
    """Its delays are the powers themselves."""
    work = Flaky(ConnectionError(), ConnectionError())
    await retry_async(work, 3, 1000.0)
    assert work.starts == [0.0, 1.0, 1001.0]


async def test_retry_async_does_not_overflow() -> None:
    """A power beyond what a float holds is a wait without end, not an error."""
    work = Flaky(*(ConnectionError() for _ in range(4)))
    task = asyncio.create_task(retry_async(work, 9, 1e200))
    await asyncio.sleep(2.0)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_retry_async_does_not_repeat_what_must_fail_the_same_way() -> None:
    """It judges as AsyncRetry does."""
    work = Flaky(TypeError())
    with pytest.raises(TypeError):
        await retry_async(work)
    assert work.starts == [0.0]


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"max_attempts": 0}, ValueError),
        ({"max_attempts": 2.0}, TypeError),
        ({"backoff_factor": -1.0}, ValueError),
        ({"backoff_factor": float("inf")}, ValueError),
    ],
    ids=str,
)
async def test_retry_async_refuses_wrong_arguments_before_any_call(
    arguments: dict[str, Any], kind: type[Exception]
) -> None:
    """Nothing is attempted with settings that make no sense."""
    work = Flaky()
    (name,) = arguments
    with pytest.raises(kind, match=name):
        await retry_async(work, **arguments)
    assert work.starts == []


# Numbers of numpy everywhere


async def _same(item: int) -> int:
    """Return the item."""
    return item


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.uint16])
async def test_a_processor_takes_numbers_of_numpy(kind: Any) -> None:
    """A row of a DataFrame of settings brings them."""
    processor = AsyncBatchProcessor(
        _same, kind(4), kind(3), kind(2), np.float32(0.1), timeout=np.float64(3), max_errors=kind(1)
    )
    assert (await processor.process(range(10))).all_succeeded
    assert (await process_with_workers(range(5), _same, kind(2))).all_succeeded
    job = processor.start(range(5), on_current_loop=True)
    job.max_concurrency = kind(2)
    assert (job.max_concurrency, type(job.max_concurrency)) == (2, int)
    assert (await job).all_succeeded


@pytest.mark.parametrize("value", [np.float64(3), np.True_, "3", None])
def test_a_processor_refuses_what_is_no_count(value: Any) -> None:
    """Whoever made the number."""
    with pytest.raises(TypeError, match="max_concurrency"):
        AsyncBatchProcessor(_same, max_concurrency=value)
