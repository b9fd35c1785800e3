"""gather_with_concurrency: a bound, an order, and nothing left running."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from ragasync import RunAsyncError, gather_with_concurrency
from tests.support.services import Service, about, now, other_tasks


async def test_results_come_in_order():
    """Whatever ends first."""
    service = Service([3.0, 1.0, 2.0])
    assert await gather_with_concurrency([service(0), service(1), service(2)]) == [0, 10, 20]
    assert now() == about(3)


async def test_at_most_max_concurrency_are_awaited_concurrently():
    """Ten by default; the window slides."""
    service = Service()
    await gather_with_concurrency(service(item) for item in range(30))
    assert (service.most_in_flight, now()) == (10, about(3))
    service = Service()
    await gather_with_concurrency((service(item) for item in range(6)), 2)
    assert service.most_in_flight == 2


async def test_functions_without_arguments_will_do():
    """They are called when it is their turn."""

    def later(item: int) -> Callable[[], Awaitable[int]]:
        async def call() -> int:
            await asyncio.sleep(1)
            return item

        return call

    assert await gather_with_concurrency([later(1), later(2)], 1) == [1, 2]


async def test_tasks_and_futures_will_do():
    """Any awaitable."""
    service = Service()
    future = asyncio.get_running_loop().create_future()
    future.set_result(7)
    assert await gather_with_concurrency([asyncio.create_task(service(1)), future]) == [10, 7]


async def test_a_generator_makes_its_coroutines_only_when_a_slot_is_free():
    """Never more made than in flight and done."""
    service = Service()
    made: list[int] = []

    def calls() -> Iterator[Awaitable[int]]:
        for item in range(20):
            made.append(item + 1 - len(service.calls) + service.in_flight)
            yield service(item)

    await gather_with_concurrency(calls(), 3)
    assert max(made) == 3


async def test_async_iterables_will_do():
    """Of coroutines or functions."""
    service = Service()

    async def calls() -> AsyncIterator[Awaitable[int]]:
        for item in range(4):
            yield service(item)

    assert await gather_with_concurrency(calls(), 2) == [0, 10, 20, 30]


async def test_nothing_gives_an_empty_list():
    """As asyncio.gather does."""
    assert await gather_with_concurrency([]) == []


async def test_a_result_of_none_is_a_result():
    """None is what the coroutine returned."""
    assert await gather_with_concurrency([asyncio.sleep(1), asyncio.sleep(0, "x")]) == [None, "x"]


async def test_the_first_error_is_raised_as_it_is():
    """The same object, with its traceback to the place."""
    error = OSError("away")
    service = Service([2.0, 1.0, 3.0], {1: error})
    with pytest.raises(OSError, match="away") as caught:
        await gather_with_concurrency([service(item) for item in range(3)])
    assert caught.value is error
    assert caught.traceback[-1].name == "__call__"  # the traceback ends in the service
    assert now() == about(1)


async def test_on_the_first_error_the_others_are_cancelled_and_awaited():
    """With their clean-up; nothing runs on."""
    cleaned: list[float] = []

    async def tidy() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(2)
            cleaned.append(now())

    async def fail() -> None:
        await asyncio.sleep(1)
        raise OSError("away")

    with pytest.raises(OSError, match="away"):
        await gather_with_concurrency([tidy(), fail(), tidy()])
    assert cleaned == about([3, 3])
    assert other_tasks() == set()


async def test_an_error_is_not_tried_again():
    """A coroutine cannot be awaited twice, and a function is not asked to."""
    calls: list[int] = []

    async def fail() -> None:
        calls.append(1)
        raise ConnectionError("reset")

    with pytest.raises(ConnectionError):
        await gather_with_concurrency([fail, fail], 1)
    assert calls == [1]


@pytest.mark.parametrize("lazily", [False, True])
async def test_coroutines_not_started_are_closed_without_a_warning(lazily: bool):
    """Warnings are errors in these tests, "never awaited" among them."""
    service = Service(errors={0: OSError("away")})
    coroutines = [service(item) for item in range(50)]
    with pytest.raises(OSError, match="away"):
        await gather_with_concurrency(iter(coroutines) if lazily else coroutines, 2)
    assert len(service.calls) <= 3
    if lazily:  # the caller owns those that were not taken
        for coroutine in coroutines:
            coroutine.close()
    del coroutines
    gc.collect()


async def test_tasks_not_reached_are_cancelled_and_awaited_too():
    """They are running before they are awaited, and must not run on."""
    service = Service([1.0, 60.0, 60.0, 60.0], {0: OSError("away")})
    tasks = [asyncio.create_task(service(item)) for item in range(4)]
    with pytest.raises(OSError, match="away"):
        await gather_with_concurrency(tasks, 2)
    assert [task.cancelled() for task in tasks] == [False, True, True, True]
    assert other_tasks() == set()


async def test_errors_can_be_returned_in_their_places():
    """return_exceptions: nothing is cancelled, everything is awaited."""
    errors: dict[int, Any] = {1: OSError("away"), 3: TypeError("bug")}
    service = Service(errors=errors)
    results = await gather_with_concurrency(
        (service(item) for item in range(5)), 2, return_exceptions=True
    )
    assert results == [0, errors[1], 20, errors[3], 40]


async def test_a_cancellation_of_its_own_is_the_coroutines_error():
    """Raised, or returned in its place."""

    async def cancelled() -> None:
        raise asyncio.CancelledError("its own")

    with pytest.raises(asyncio.CancelledError, match="its own"):
        await gather_with_concurrency([cancelled()])
    results = await gather_with_concurrency(
        [cancelled(), asyncio.sleep(1, 5)], return_exceptions=True
    )
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1] == 5


async def test_cancelling_the_whole_cancels_and_awaits_the_parts():
    """And closes what was not started."""
    service = Service(60.0)
    running = asyncio.create_task(gather_with_concurrency([service(item) for item in range(9)], 2))
    await asyncio.sleep(1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert sorted(service.cancelled) == [0, 1]
    assert other_tasks() == set()


async def test_a_source_that_raises_lets_what_is_in_flight_finish():
    """And then raises its error."""
    service = Service()

    def calls() -> Iterator[Awaitable[int]]:
        yield service(0)
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        await gather_with_concurrency(calls())
    assert service.cancelled == []


@pytest.mark.parametrize("wrong", [3, "text", None])
async def test_what_cannot_be_awaited_is_a_type_error(wrong: Any):
    """The error shows what came; the others are closed."""
    service = Service()
    with pytest.raises(TypeError, match=f"expected a coroutine.* got {wrong!r}"):
        await gather_with_concurrency([wrong, *(service(item) for item in range(20))], 2)


async def test_a_function_that_gives_no_awaitable_is_a_type_error():
    """A sync function by mistake."""
    with pytest.raises(TypeError):
        await gather_with_concurrency([lambda: 5])  # type: ignore[list-item,return-value]


async def test_a_future_of_another_loop_says_so():
    """With the ways out."""
    other = asyncio.new_event_loop()
    future = other.create_future()
    with pytest.raises(RunAsyncError, match="Three ways out"):
        await gather_with_concurrency([future])
    other.close()


@pytest.mark.parametrize(
    ("wrong", "error"), [(0, ValueError), (-1, ValueError), (2.5, TypeError), (None, TypeError)]
)
async def test_a_wrong_max_concurrency_is_refused(wrong: Any, error: type[Exception]):
    """By its name, with what came; coroutines of a list are closed."""
    service = Service()
    with pytest.raises(error, match=f"max_concurrency must be .* got {wrong!r}"):
        await gather_with_concurrency([service(0)], wrong)
    gc.collect()


async def test_it_can_be_nested():
    """One inside the other, each with its own bound."""
    service = Service()

    async def three(first: int) -> list[int]:
        return await gather_with_concurrency([service(first + n) for n in range(3)], 3)

    assert await gather_with_concurrency([three(0), three(3)], 2) == [[0, 10, 20], [30, 40, 50]]
    assert now() == about(1)
