"""Pickling of functions, items, values and errors, and the errors about those that cannot be."""

import asyncio
import builtins
import gc
import threading
import weakref
from typing import Any, ClassVar

import pytest

from ragasync import AsyncBatchProcessor, AsyncRetry, RateLimiter, SerializationError
from tests.support.pickling_executor import ByPost
from tests.support.requirements import needs

needs("cloudpickle")


class StatusError(Exception):
    """An error whose constructor takes more than its message."""

    def __init__(self, item: int, why: str) -> None:
        super().__init__(f"{item}: {why}")


class Unloadable:
    """A value that is pickled without complaint and then cannot be loaded."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


async def test_lambdas_and_closures_are_pickled():
    """By value: a worker does not know them by name."""
    factor = 3
    result = await AsyncBatchProcessor(lambda item: factor * item, executor=ByPost()).process([7])
    assert result.results == [21]


async def test_classes_of_a_cell_are_pickled_both_ways():
    """The value that comes back is an instance of the caller's own class."""

    class Page:
        def __init__(self, text: str) -> None:
            self.text = text

    def shout(page: Page) -> Page:
        return Page(page.text.upper())

    (page,) = (await AsyncBatchProcessor(shout, executor=ByPost()).process([Page("a")])).results
    assert isinstance(page, Page)
    assert page.text == "A"


async def test_an_error_of_a_class_of_a_cell_comes_back_as_itself():
    """So that retry_on= recognizes it."""

    class Busy(Exception):
        pass

    def fails(item: int) -> int:
        raise Busy(item)

    retry = AsyncRetry(2, 0.0, retry_on=Busy)
    result = await AsyncBatchProcessor(fails, executor=ByPost(), retry=retry).process([1])
    assert isinstance(result.errors[0], Busy)
    assert result[0].attempts == 3


async def test_an_error_whose_constructor_needs_more_arguments_keeps_its_class_and_traceback():
    """Unpickling it as pickle does would break a pool."""

    def fails(item: int) -> int:
        raise StatusError(item, "no")

    result = await AsyncBatchProcessor(fails, 4, 1, 0, executor=ByPost()).process([1])
    assert isinstance(result.errors[0], StatusError)
    assert str(result.errors[0]) == "1: no"
    assert "in fails" in str(result[0].traceback)
    assert "in fails" in result.errors_dataframe()["traceback"][0]


async def test_a_function_that_cannot_be_pickled_ends_the_job_and_the_culprit_is_named():
    """No item is to blame, and none could be processed."""
    lock = threading.Lock()

    def work(item: int) -> int:
        with lock:
            return item

    processor = AsyncBatchProcessor(work, 4, 2, executor=ByPost())
    with pytest.raises(SerializationError, match=r"work cannot be pickled: .*It uses lock"):
        await processor.process(range(100))
    assert processor.last_result is not None
    assert processor.last_result.success_count == 0


async def test_without_cloudpickle_the_error_says_what_to_install(monkeypatch):
    """Functions go by name then, and a local one has none."""
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "cloudpickle":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    processor = AsyncBatchProcessor(lambda item: item, executor=ByPost())
    with pytest.raises(SerializationError, match=r'pip install "ragasync\[processes\]"'):
        await processor.process([1])


async def test_an_item_and_a_value_that_cannot_be_pickled_fail_alone_in_the_same_group():
    """Both are named, and nothing is called twice for them."""

    def value(item: Any) -> Any:
        return iter("a").__iter__ if item == 2 else threading.Lock() if item == 3 else item

    executor = ByPost()
    processor: Any = AsyncBatchProcessor(value, 8, 1, executor=executor)
    result = await processor.process(iter([0, threading.Lock(), 2, 3, 4]))
    assert len(executor.groups) == 1
    assert [outcome.status == "done" for outcome in result] == [True, False, True, False, True]
    assert str(result.errors[1]).startswith("item 1 cannot be pickled: ")
    assert str(result.errors[3]).startswith("the value of item 3 cannot be pickled: ")


async def test_a_value_that_cannot_be_loaded_is_found_among_its_neighbours():
    """The group is halved until it stands alone."""
    processor = AsyncBatchProcessor(
        lambda item: Unloadable() if item == 5 else item, 8, 1, executor=ByPost()
    )
    result = await processor.process(iter(range(8)))
    assert [outcome.index for outcome in result.get_failed()] == [5]
    assert str(result.errors[5]).startswith("the value of item 5 came back and cannot be loaded")


async def test_an_item_that_a_worker_cannot_load_is_found_among_its_neighbours():
    """Where it would break a pool if the pool unpickled it."""
    processor: Any = AsyncBatchProcessor(lambda item: item, 8, 1, executor=ByPost())
    result = await processor.process(iter([0, 1, Unloadable(), 3]))
    assert [outcome.index for outcome in result.get_failed()] == [2]
    assert str(result.errors[2]).startswith("item 2 cannot be loaded on the worker: ValueError")


async def test_a_batch_with_an_item_that_cannot_be_pickled_is_split():
    """The others are done; the error names the item."""
    processor: Any = AsyncBatchProcessor(
        lambda items: list(map(str, items)), 4, 1, batched=True, executor=ByPost()
    )
    result = await processor.process([0, 1, threading.Lock(), 3])
    assert result.results == ["0", "1", None, "3"]
    assert str(result.errors[2]).startswith("item 2 cannot be pickled")


class Counting:
    """A function that counts its calls, and each time that it is loaded."""

    loaded: ClassVar[list[weakref.ref[Any]]] = []

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, item: int) -> int:
        """Return how many calls this object has had."""
        self.calls += 1
        return self.calls

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.loaded.append(weakref.ref(self))


async def test_a_worker_loads_a_function_once_and_keeps_its_state():
    """It is the same object from group to group, and not that of the caller."""
    Counting.loaded.clear()
    counting = Counting()
    result = await AsyncBatchProcessor(counting, 2, 1, executor=ByPost()).process(iter(range(6)))
    assert result.results == [1, 2, 3, 4, 5, 6]
    assert counting.calls == 0
    assert len(Counting.loaded) == 1


async def test_a_worker_forgets_the_functions_of_old_runs():
    """Each may hold much; the last four are kept."""
    Counting.loaded.clear()
    for _ in range(7):
        await AsyncBatchProcessor(Counting(), executor=ByPost()).process([1])
    gc.collect()
    assert [loaded() is None for loaded in Counting.loaded] == [True] * 3 + [False] * 4


async def test_no_more_groups_are_outstanding_than_calls_are_allowed_concurrently():
    """A million items do not become a million futures: nothing is drawn that cannot be sent."""
    executor = ByPost(is_open=False)
    drawn = 0

    def items() -> Any:
        nonlocal drawn
        for drawn in range(1, 1_000_001):  # noqa: UP028  # it counts
            yield drawn

    job = asyncio.create_task(
        AsyncBatchProcessor(lambda item: item, 10, 3, executor=executor).process(items())
    )
    for _ in range(50):
        await asyncio.sleep(0)
    assert (len(executor.waiting), drawn) == (3, 30)
    executor.answer()
    await asyncio.sleep(1)
    assert (len(executor.waiting), drawn) == (3, 60)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert all(future.cancelled() for future, _ in executor.waiting)


async def test_groups_that_have_not_begun_are_cancelled_with_the_job():
    """Its items are cancelled, the rest pending."""
    executor = ByPost(is_open=False)
    processor = AsyncBatchProcessor(lambda item: item, 5, 2, executor=executor)
    job = processor.start(range(1000), on_current_loop=True)
    await asyncio.sleep(1)
    job.cancel()
    result = await job
    assert [future.cancelled() for future, _ in executor.waiting] == [True, True]
    assert (result.cancelled_count, result.pending_count) == (10, 990)


async def test_the_rate_is_kept_where_the_caller_is():
    """Four a second, although groups of four are sent together."""
    executor = ByPost()
    processor = AsyncBatchProcessor(
        lambda item: item, 4, 3, executor=executor, rate_limiter=RateLimiter(4, burst_size=4)
    )
    result = await processor.process(iter(range(16)))
    assert result.results == list(range(16))
    assert executor.starts == pytest.approx([0, 1, 2, 3], abs=0.01)


async def test_back_off_is_waited_for_where_the_caller_is():
    """No slot is held meanwhile, and the worker knows nothing of it."""
    executor = ByPost()

    def fails(item: int) -> int:
        raise ConnectionError(item)

    retry = AsyncRetry(2, 10.0, jitter=None)
    await AsyncBatchProcessor(fails, 1, 1, executor=executor, retry=retry).process([1])
    assert executor.starts == pytest.approx([0, 10, 30])
