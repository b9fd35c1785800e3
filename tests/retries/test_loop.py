"""The retry loop: rejected values, and retry blocks. Errors around a function: test_retry.py."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from ragasync import AsyncRetry, ResultRejected, process_with_workers


class Sequenced:
    """An async callable that returns the given values, one a call; an exception is raised."""

    def __init__(self, *values: Any) -> None:
        self.values = iter(values)
        self.starts: list[float] = []

    async def __call__(self) -> Any:
        """Return or raise the next value."""
        self.starts.append(asyncio.get_running_loop().time())
        value = next(self.values)
        if isinstance(value, BaseException):
            raise value
        return value


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let sync code back off on a clock that never waits; the list has the delays."""
    delays: list[float] = []

    class Clock:
        """In place of `time`."""

        sleep = staticmethod(delays.append)
        monotonic = staticmethod(lambda: sum(delays))

    monkeypatch.setattr("ragasync._retries.loop.time", Clock)
    return delays


def is_queued(value: object) -> bool:
    """Reject the state in which there is no answer yet."""
    return value == "queued"


# Rejected values


async def test_a_rejected_value_is_retried_like_an_error() -> None:
    """With the same back-off."""
    work = Sequenced("queued", "queued", "done")
    policy = AsyncRetry(jitter=None, retry_on_result=is_queued)
    assert await policy.call(work) == "done"
    assert work.starts == [0.0, 1.0, 3.0]


async def test_giving_up_on_a_value_raises_an_error_that_has_it() -> None:
    """The note counts errors and rejected values together."""
    work = Sequenced("queued", ConnectionError(), "queued")
    with pytest.raises(ResultRejected) as caught:
        await AsyncRetry(2, jitter=None, retry_on_result=is_queued).call(work)
    assert str(caught.value) == "retry_on_result rejected the value 'queued'"
    assert caught.value.value == "queued"
    (note,) = caught.value.__notes__
    assert note == (
        "AsyncRetry gave up after 3 attempts and 3.00 s of back-off, the last 3.00 s after the "
        "first had failed; before this error: 1 × ResultRejected, 1 × ConnectionError"
    )


async def test_values_are_retried_whatever_errors_are() -> None:
    """`retry_on` chooses errors only, and is not asked about a value."""
    policy = AsyncRetry(base_delay=0, retry_on=KeyError, retry_on_result=is_queued)
    assert await policy.call(Sequenced("queued", "done")) == "done"


async def test_a_rejection_of_an_inner_policy_is_an_error_like_any_other() -> None:
    """An outer policy retries it if it retries such errors."""
    inner = AsyncRetry(0, retry_on_result=is_queued)
    work = Sequenced("queued", "done")
    assert await AsyncRetry(base_delay=0).call(inner(work)) == "done"
    with pytest.raises(ResultRejected):
        await AsyncRetry(base_delay=0, retry_on=KeyError).call(inner(Sequenced("queued", "done")))


async def test_no_value_is_retried_past_max_elapsed() -> None:
    """The time limit is that of errors."""
    work = Sequenced(*["queued"] * 9)
    with pytest.raises(ResultRejected):
        await AsyncRetry(9, jitter=None, max_elapsed=4.0, retry_on_result=is_queued).call(work)
    assert work.starts == [0.0, 1.0, 3.0]


class Response:
    """What an HTTP client returns instead of raising."""

    def __init__(self, status_code: int, retry_after: str | None = None) -> None:
        self.status_code = status_code
        self.headers = {} if retry_after is None else {"Retry-After": retry_after}


async def test_the_retry_after_of_a_rejected_response_is_waited_for() -> None:
    """A client that returns a 429 is no reason to come back too early."""
    work = Sequenced(Response(429, "40"), ok := Response(200))
    policy = AsyncRetry(jitter=None, retry_on_result=lambda response: response.status_code != 200)
    assert await policy.call(work) is ok
    assert work.starts == [0.0, 40.0]


def test_a_sync_function_is_retried_after_a_rejected_value(slept: list[float]) -> None:
    """Its thread sleeps."""
    values = iter(["queued", "done"])
    poll = AsyncRetry(jitter=None, retry_on_result=is_queued)(lambda: next(values))
    assert poll() == "done"
    assert slept == [1.0]


async def test_the_value_of_an_async_function_in_disguise_is_judged_when_it_is_there() -> None:
    """The predicate never sees a coroutine."""
    work = Sequenced("queued", "done")
    assert await AsyncRetry(base_delay=0, retry_on_result=is_queued)(lambda: work())() == "done"


async def test_an_answer_of_numpy_counts() -> None:
    """Predicates on arrays return it."""
    policy = AsyncRetry(base_delay=0, retry_on_result=lambda row: np.isnan(row).any())
    row = await policy.call(Sequenced(np.array([1.0, np.nan]), np.array([1.0, 2.0])))
    assert row.tolist() == [1.0, 2.0]


async def later(_: object) -> bool:
    """Return a coroutine that nobody awaits."""
    return True


@pytest.mark.parametrize("answer", [None, 1, "yes", later])
async def test_an_answer_that_is_not_true_or_false_is_an_error(answer: Any) -> None:
    """A predicate that forgot to return would otherwise accept everything."""
    predicate = (lambda value: later(value)) if answer is later else (lambda value: answer)
    work = Sequenced("queued", "done")
    with pytest.raises(TypeError, match="retry_on_result must return True or False, got"):
        await AsyncRetry(base_delay=0, retry_on_result=predicate).call(work)
    assert work.starts == [0.0]


class Panic(BaseException):
    """What PyO3 raises when Rust code panics."""


@pytest.mark.parametrize(
    ("raised", "expected"), [(ValueError("oops"), ValueError), (Panic("oops"), RuntimeError)]
)
async def test_an_error_of_the_predicate_is_raised_without_a_retry(
    raised: BaseException, expected: type[Exception]
) -> None:
    """The call itself has succeeded."""

    def predicate(value: object) -> bool:
        raise raised

    work = Sequenced("queued", "done")
    with pytest.raises(expected, match="oops"):
        await AsyncRetry(base_delay=0, retry_on_result=predicate).call(work)
    assert work.starts == [0.0]


async def test_a_rejected_value_is_shown_in_short_and_without_secrets() -> None:
    """A value may be a reply of a megabyte with the key in it."""
    value = {"api_key": "sk-ant-api03-" + "aB3" * 30, "vector": [0.5] * 100_000}
    with pytest.raises(ResultRejected) as caught:
        await AsyncRetry(0, retry_on_result=lambda value: True).call(Sequenced(value))
    assert "aB3aB3" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert caught.value.value is value


def test_a_rejection_is_pickled_with_its_value() -> None:
    """Without the policy, whose predicates need not be picklable."""
    rejected = AsyncRetry(retry_on_result=lambda value: True).reject([1])
    copy = pickle.loads(pickle.dumps(rejected))
    assert (str(copy), copy.value) == ("retry_on_result rejected the value [1]", [1])


# Retry blocks


async def in_block(policy: AsyncRetry, body: Callable[[Any], object]) -> None:
    """Run a body in a retry block."""
    async for attempt in policy.attempts():
        with attempt:
            body(attempt)


def fail(attempt: Any) -> None:
    """Raise in every attempt."""
    raise ConnectionError


async def test_a_block_is_retried_until_it_raises_nothing() -> None:
    """Each attempt knows its number and the back-off before it."""
    work = Sequenced(ConnectionError(), ConnectionError(), "done")
    seen: list[tuple[int, float]] = []
    async for attempt in AsyncRetry(jitter=None).attempts():
        with attempt:
            seen.append((attempt.number, attempt.backed_off))
            value = await work()
    assert value == "done"
    assert seen == [(1, 0.0), (2, 1.0), (3, 3.0)]
    assert work.starts == [0.0, 1.0, 3.0]


async def test_a_block_may_return_from_its_function() -> None:
    """As tenacity's users write it."""
    work = Sequenced(ConnectionError(), "done")

    async def fetch() -> Any:
        async for attempt in AsyncRetry(base_delay=0).attempts():
            with attempt:
                return await work()
        raise AssertionError("the block ended without a value or an error")

    assert await fetch() == "done"


async def test_the_last_error_of_a_block_is_raised_itself() -> None:
    """With the note of a function."""
    errors = [ConnectionError(), TimeoutError()]

    def body(attempt: Any) -> None:
        raise errors[attempt.number - 1]

    with pytest.raises(TimeoutError) as caught:
        await in_block(AsyncRetry(1, jitter=None), body)
    assert caught.value is errors[1]
    assert "2 attempts and 1.00 s of back-off" in caught.value.__notes__[0]


async def test_a_permanent_error_ends_a_block_immediately() -> None:
    """The decisions are those of the policy."""
    attempts: list[int] = []

    def body(attempt: Any) -> None:
        attempts.append(attempt.number)
        raise KeyError("wrong")

    with pytest.raises(KeyError):
        await in_block(AsyncRetry(), body)
    assert attempts == [1]


async def test_a_cancellation_leaves_a_block() -> None:
    """It is not retried."""

    def body(attempt: Any) -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await in_block(AsyncRetry(retry_on=lambda error: True), body)
    assert asyncio.get_running_loop().time() == 0.0


async def test_the_time_limit_of_a_block_counts_from_its_first_attempt() -> None:
    """As for a function."""
    starts: list[float] = []

    def body(attempt: Any) -> None:
        starts.append(asyncio.get_running_loop().time())
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await in_block(AsyncRetry(9, jitter=None, max_elapsed=7.0), body)
    assert starts == [0.0, 1.0, 3.0]


async def test_a_block_judges_the_value_that_it_is_given() -> None:
    """And raises it when it gives up."""
    policy = AsyncRetry(2, base_delay=0, retry_on_result=is_queued)
    work = Sequenced("queued", "done")
    async for attempt in policy.attempts():
        with attempt:
            value = attempt.set_result(await work())
    assert (value, attempt.number) == ("done", 2)
    with pytest.raises(ResultRejected) as caught:
        await in_block(policy, lambda attempt: attempt.set_result("queued"))
    assert caught.value.value == "queued"


@pytest.mark.parametrize("states", [["queued", "done"], ["queued", "queued", "done"]])
async def test_a_block_that_returns_or_breaks_does_not_leave_with_a_rejected_value(
    states: list[str],
) -> None:
    """The rest of the attempt does not run; the next one begins."""
    policy = AsyncRetry(4, 0.01, retry_on_result=lambda value: value != "done")

    async def poll(replies: Iterator[str]) -> str:
        async for attempt in policy.attempts():
            with attempt:
                return attempt.set_result(next(replies))
        raise AssertionError("a block that gives up raises")

    assert await poll(iter(states)) == "done"
    with pytest.raises(ResultRejected, match="queued"):
        await poll(iter(["queued"] * 9))
    replies, seen = iter(states), []
    for attempt in policy.attempts():
        with attempt:
            seen.append(attempt.set_result(next(replies)))
            break
    assert (seen, attempt.number) == (["done"], len(states))


async def test_none_is_a_value_too() -> None:
    """A block passes it like any other."""
    seen: list[object] = []
    policy = AsyncRetry(retry_on_result=lambda value: bool(seen.append(value)))
    await in_block(policy, lambda attempt: attempt.set_result(None))
    assert seen == [None]


def test_a_rejected_value_is_no_error_of_its_block(slept: list[float]) -> None:
    """The block may handle all of its own errors around it."""

    def poll(policy: AsyncRetry, states: list[str]) -> str:
        replies = iter(states)
        for attempt in policy.attempts():
            with attempt:
                try:
                    return attempt.set_result(next(replies))
                except Exception:
                    return "handled"
        raise AssertionError("a block that gives up raises")

    policy = AsyncRetry(1, jitter=None, retry_on_result=is_queued)
    assert poll(policy, ["queued", "done"]) == "done"
    with pytest.raises(ResultRejected) as caught:
        poll(policy, ["queued", "queued"])
    assert caught.value.value == "queued"
    assert "2 attempts and 1.00 s of back-off" in caught.value.__notes__[0]
    assert slept == [1.0, 1.0]


async def test_a_value_may_be_passed_in_a_task_of_the_block() -> None:
    """The group of a TaskGroup is no other error."""
    work = Sequenced("queued", "done")

    async def call(attempt: Any) -> Any:
        return attempt.set_result(await work())

    async def fetch() -> Any:
        async for attempt in AsyncRetry(jitter=None, retry_on_result=is_queued).attempts():
            with attempt:
                async with asyncio.TaskGroup() as group:
                    task = group.create_task(call(attempt))
                return task.result()
        raise AssertionError("a block that gives up raises")

    assert await fetch() == "done"
    assert work.starts == [0.0, 1.0]


def test_a_block_that_catches_everything_returns_no_rejected_value() -> None:
    """Its `return` cannot be undone for another attempt, so this is an error."""

    def poll() -> str:
        for attempt in AsyncRetry(base_delay=0, retry_on_result=is_queued).attempts():
            with attempt:
                try:
                    attempt.set_result("queued")
                except BaseException:
                    return "queued"
        return "the block ended"

    with pytest.raises(ResultRejected):
        poll()


@pytest.mark.parametrize("leave", ["return", "break", "continue", "end"])
def test_a_block_that_passes_no_value_to_its_predicate_is_an_error(leave: str) -> None:
    """Otherwise the predicate would have no effect."""

    def block() -> None:
        for attempt in AsyncRetry(retry_on_result=is_queued).attempts():
            with attempt:
                if leave == "return":
                    return
                if leave == "break":
                    break
                if leave == "continue":
                    continue

    with pytest.raises(RuntimeError, match=r"call attempt\.set_result\(value\) in it"):
        block()


def test_a_value_is_passed_in_the_with_block_only() -> None:
    """Before and after it, no attempt could follow."""
    attempt = next(iter(AsyncRetry(retry_on_result=is_queued).attempts()))
    with pytest.raises(RuntimeError, match="write `with attempt:`"):
        attempt.set_result("done")
    with attempt:
        attempt.set_result("done")
    with pytest.raises(RuntimeError, match="write `with attempt:`"):
        attempt.set_result("queued")


async def test_an_error_of_the_predicate_leaves_a_block() -> None:
    """Without a retry, as for a function."""

    def broken(value: object) -> bool:
        raise KeyError(value)

    with pytest.raises(KeyError):
        await in_block(
            AsyncRetry(retry_on_result=broken), lambda attempt: attempt.set_result("done")
        )


def test_a_sync_block_sleeps_in_its_thread(slept: list[float]) -> None:
    """The same policy without a loop."""
    errors = iter([ConnectionError(), ConnectionError(), None])
    numbers = []
    for attempt in AsyncRetry(jitter=None).attempts():
        with attempt:
            numbers.append(attempt.number)
            if (error := next(errors)) is not None:
                raise error
    assert (numbers, slept) == ([1, 2, 3], [1.0, 2.0])


async def test_a_listener_hears_of_the_attempts_of_a_block() -> None:
    """`on_retry` belongs to the policy."""
    events: list[Any] = []
    with pytest.raises(ConnectionError):
        await in_block(AsyncRetry(2, jitter=None, on_retry=events.append), fail)
    assert [(each.attempt, each.delay, each.backed_off) for each in events] == [
        (1, 1.0, 0.0),
        (2, 2.0, 1.0),
    ]


async def test_a_block_without_its_with_statement_is_an_error() -> None:
    """It would run again and again, or not be retried at all."""
    with pytest.raises(RuntimeError, match="write `with attempt:`"):
        async for _ in AsyncRetry().attempts():
            pass


def _once(block: Any) -> None:
    """Use a block."""
    for attempt in block:
        with attempt:
            pass


@pytest.mark.parametrize("use", [_once, next])
def test_a_block_is_iterated_once(use: Callable[[Any], object]) -> None:
    """Its attempts and its time limit belong to one call."""
    block = AsyncRetry().attempts()
    if use is _once:
        use(block)
    with pytest.raises(RuntimeError, match=r"attempts\(\)"):
        use(block)


async def test_one_policy_serves_concurrent_blocks() -> None:
    """Each has a count of its own."""
    policy = AsyncRetry(jitter=None)

    async def block(failures: int) -> int:
        async for attempt in policy.attempts():
            with attempt:
                if attempt.number <= failures:
                    raise ConnectionError
        return attempt.number

    result = await process_with_workers(range(4), block, 4)
    assert result.results == [1, 2, 3, 4]


# Variants of a policy


def test_a_variant_differs_in_the_settings_that_are_named() -> None:
    """All others are kept, private ones too."""
    chances: Callable[[], float] = lambda: 0.5  # noqa: E731
    policy = AsyncRetry(5, 2.0, max_elapsed=60, _random=chances)
    variant = policy.with_(max_retries=0, base_delay=4.0)
    assert variant == AsyncRetry(0, 4.0, max_elapsed=60)
    assert variant.with_(max_retries=1).decide(OSError(), retries=0, elapsed=0.0) == 2.0
    assert policy == AsyncRetry(5, 2.0, max_elapsed=60)


def test_a_variant_is_checked() -> None:
    """As its constructor checks."""
    with pytest.raises(ValueError, match="max_retries"):
        AsyncRetry().with_(max_retries=-1)
    with pytest.raises(TypeError, match="retries"):
        AsyncRetry().with_(retries=1)  # type: ignore[call-arg]
