"""What a call leaves on its task or its context reaches no other item and no other attempt."""

from __future__ import annotations

import asyncio
import decimal
import unittest.mock
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from ragasync import (
    AsyncBatchProcessor,
    AsyncDocumentProcessor,
    RateLimiter,
    gather_with_concurrency,
    process_with_workers,
)
from ragasync.documents import Document
from ragasync.testing import run_on_virtual_clock
from tests.support.requirements import needs_eager_tasks

ITEMS = 12

bound: ContextVar[object] = ContextVar("bound", default="unbound")


class Liar:
    """Equal to everything."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


class Panic(BaseException):
    """What an extension module raises."""


class Touchy:
    """Cannot be compared: not even an Exception says so."""

    def __eq__(self, other: object) -> bool:
        raise Panic("not with me")

    __hash__ = None  # type: ignore[assignment]


async def fail() -> None:
    """Fail immediately, as the child of a group."""
    raise ValueError("a child")


async def leave_cancelling() -> None:
    """Handle what the child of a group raised: on 3.11 `cancelling()` stays at 1."""
    with suppress(BaseExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())


async def swallow_a_cancellation() -> None:
    """Be cancelled, and go on."""
    this_task().cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(1)


async def leave_a_cancellation_pending() -> None:
    """Return before the cancellation is delivered."""
    this_task().cancel()


async def leave_one_uncancelled() -> None:
    """Take the count back, but not the cancellation, before 3.13."""
    this_task().cancel()
    this_task().uncancel()


async def uncancel_too_often() -> None:
    """Take back what nobody gave."""
    this_task().cancel()
    this_task().uncancel()
    this_task().uncancel()


async def be_cancelled_by_a_timer() -> None:
    """Leave a timer behind that cancels the task later, when others run in it."""
    asyncio.get_running_loop().call_later(1.5, this_task().cancel)
    await asyncio.sleep(1)


async def be_cancelled_by_another() -> None:
    """Leave a task behind that holds this one and cancels it later."""
    victim = this_task()

    async def cancel() -> None:
        await asyncio.sleep(1.5)
        victim.cancel()

    background.append(asyncio.create_task(cancel()))
    await asyncio.sleep(1)


async def be_remembered_weakly() -> None:
    """Leave a timer behind that finds the task by a weak reference."""
    victim = weakref.ref(this_task())
    later = asyncio.get_running_loop().call_later
    later(1.5, lambda: (task := victim()) is not None and task.cancel())
    await asyncio.sleep(1)


async def be_in_a_registry() -> None:
    """Stand in a set of tasks that somebody cancels later."""
    registry.add(this_task())
    asyncio.get_running_loop().call_later(1.5, lambda: [task.cancel() for task in registry])
    await asyncio.sleep(1)


async def bind_an_equal_behind_a_task() -> None:
    """Bind it to what only looks the same, when a task has taken a copy of the context."""
    background.append(asyncio.create_task(asyncio.sleep(0.1)))
    bound.set(unittest.mock.ANY)


registry: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()

background: list[asyncio.Task[None]] = []


def this_task() -> asyncio.Task[Any]:
    """The running task."""
    task = asyncio.current_task()
    assert task is not None
    return task


async def bind() -> None:
    """Bind a variable to something else."""
    bound.set(object())


async def bind_an_equal() -> None:
    """Bind it to what only looks the same."""
    bound.set("".join(["un", "bound"]) if bound.get() == "unbound" else Liar())


async def bind_a_liar() -> None:
    """Bind it to what says that it equals what was there."""
    bound.set(Liar())


async def bind_the_incomparable() -> None:
    """Bind it to what raises when it is compared."""
    bound.set(Touchy())


async def bind_behind_a_timer() -> None:
    """Bind it after a timer has taken a copy of the context."""
    asyncio.get_running_loop().call_later(100, print)
    bound.set(object())


async def bind_and_reset_another() -> None:
    """Bind one for good and another for a while."""
    token = another.set(1)
    bound.set(2)
    another.reset(token)


another: ContextVar[int] = ContextVar("another")


async def set_a_precision() -> None:
    """As numeric code does."""
    decimal.setcontext(decimal.Context(prec=3))


HOSTILE = [
    leave_cancelling,
    swallow_a_cancellation,
    leave_a_cancellation_pending,
    leave_one_uncancelled,
    uncancel_too_often,
    be_cancelled_by_a_timer,
    be_cancelled_by_another,
    be_remembered_weakly,
    be_in_a_registry,
    bind_an_equal_behind_a_task,
    bind,
    bind_an_equal,
    bind_a_liar,
    bind_the_incomparable,
    bind_behind_a_timer,
    bind_and_reset_another,
    set_a_precision,
]


class Witness:
    """A function whose first call misbehaves; every call notes what it found."""

    def __init__(self, misbehave: Callable[[], Awaitable[None]], *, on: int = 0) -> None:
        self._misbehave, self._on = misbehave, on
        self._expected = bound.get()
        self.calls = 0

    async def __call__(self, item: int) -> int:
        self._look()
        if item == self._on:
            await self._misbehave()
        else:
            await asyncio.sleep(1)
            await asyncio.sleep(1)
        return item

    async def in_batches(self, items: list[int]) -> list[int]:
        """Do the same for several items."""
        return [await self(item) for item in items]

    def _look(self) -> None:
        """See that nothing is there from another call."""
        self.calls += 1
        assert this_task().cancelling() == 0
        assert bound.get() is self._expected
        assert decimal.getcontext().prec == 28
        assert another.get(0) == 0


@pytest.fixture(params=["unbound", "bound", "bound to a liar"])
def outside(request: pytest.FixtureRequest) -> None:
    """What the variable is bound to where the run is started."""
    if request.param == "bound":
        bound.set("".join(["un", "bound"]))  # another object than the default
    elif request.param == "bound to a liar":
        bound.set(Liar())
    else:
        bound.set("unbound")


hostile = pytest.mark.parametrize("misbehave", HOSTILE, ids=lambda each: each.__name__)


@hostile
@pytest.mark.parametrize("timeout", [None, 60.0])
@pytest.mark.parametrize("concurrency", [1, 4])
async def test_no_other_item_sees_what_a_call_left(
    outside: None, misbehave: Any, timeout: float | None, concurrency: int
):
    """With and without a time limit, one at a time and several."""
    witness = Witness(misbehave)
    processor = AsyncBatchProcessor(
        witness, max_concurrency=concurrency, retry_count=0, timeout=timeout
    )
    result = await processor.process(range(ITEMS))
    assert result.errors == [None] * ITEMS
    assert result.results == list(range(ITEMS))
    assert witness.calls == ITEMS


@hostile
async def test_no_item_of_a_stream_sees_what_another_left(outside: None, misbehave: Any):
    """And none is missing."""
    processor = AsyncBatchProcessor(Witness(misbehave), max_concurrency=2, retry_count=0)
    seen = [outcome async for outcome in processor.stream(range(ITEMS))]
    assert sorted(outcome.value for outcome in seen if outcome.ok) == list(range(ITEMS))


@hostile
async def test_no_item_of_a_job_sees_what_another_left(outside: None, misbehave: Any):
    """The job's calls see the context of the code that started it."""
    processor = AsyncBatchProcessor(Witness(misbehave), max_concurrency=2, retry_count=0)
    result = await processor.start(range(ITEMS), on_current_loop=True)
    assert result.results == list(range(ITEMS))


@hostile
async def test_no_batch_sees_what_another_left(outside: None, misbehave: Any):
    """Batched calls are calls."""
    witness = Witness(misbehave, on=2)  # the last of its batch
    processor = AsyncBatchProcessor(
        witness.in_batches, 3, max_concurrency=1, retry_count=0, batched=True
    )
    result = await processor.process(range(ITEMS))
    assert result.results == list(range(ITEMS))


@hostile
@pytest.mark.parametrize("limited", [False, True])
async def test_no_attempt_sees_what_an_earlier_one_left(
    outside: None, misbehave: Any, limited: bool
):
    """Though it is about the same item."""
    witness, failed = Witness(misbehave), []

    async def call(item: int) -> int:
        if item == 0 and len(failed) < 3:
            failed.append(item)
            await witness(item)
            raise ConnectionError("try again")
        return await witness(item + 1)

    processor = AsyncBatchProcessor(
        call,
        max_concurrency=1,
        retry_delay=0.0,
        rate_limiter=RateLimiter(100) if limited else None,
    )
    result = await processor.process(range(3))
    assert result.results == [1, 2, 3]
    assert result[0].attempts == 4


@hostile
async def test_no_awaitable_of_a_gather_sees_what_another_left(outside: None, misbehave: Any):
    """As in asyncio.gather."""
    witness = Witness(misbehave)
    results = await gather_with_concurrency(map(witness, range(ITEMS)), 2)
    assert results == list(range(ITEMS))


@hostile
async def test_no_item_of_workers_sees_what_another_left(outside: None, misbehave: Any):
    """The queue and workers pattern."""
    result = await process_with_workers(range(ITEMS), Witness(misbehave), num_workers=2)
    assert result.results == list(range(ITEMS))


@hostile
@pytest.mark.parametrize("stage", ["load", "chunk", "embed", "store"])
async def test_no_document_sees_what_another_left(outside: None, misbehave: Any, stage: str):
    """In any stage of the pipeline."""
    witness = Witness(misbehave)

    async def load(source: int) -> Document:
        await looking("load", source)
        return Document(str(source), f"text {source}")

    async def chunk(text: str) -> list[str]:
        await looking("chunk", int(text.split()[1]))
        return [text]

    async def embed(texts: list[str]) -> list[list[float]]:
        await looking("embed", int(texts[0].split()[1]))
        return [[1.0, 0.0] for _ in texts]

    async def store(document: Document, chunks: Any, vectors: Any) -> None:
        await looking("store", int(document.id))

    async def looking(here: str, number: int) -> None:
        await (witness(number) if here == stage else asyncio.sleep(0.1))

    processor = AsyncDocumentProcessor(
        load, chunk, embed, store, max_concurrency=2, batch_size=1, retry_count=0
    )
    result = await processor.process(range(6))
    assert result.errors == [None] * 6
    assert result.all_succeeded


@pytest.mark.real_time
@pytest.mark.parametrize("asynchronous", [False, True])
def test_no_item_on_an_executor_sees_what_another_bound(asynchronous: bool):
    """Each call sees the context of the code that started the run, on a thread of a pool too."""
    here = object()
    bound.set(here)

    def call(item: int) -> bool:
        seen = bound.get() is here and decimal.getcontext().prec == 28
        bound.set(item)
        decimal.setcontext(decimal.Context(prec=3))
        return seen

    async def in_a_task(item: int) -> bool:
        return call(item)

    with ThreadPoolExecutor(1) as executor:
        for _ in range(2):
            processor = AsyncBatchProcessor(in_a_task if asynchronous else call, executor=executor)
            assert all(processor.process_sync(range(ITEMS)).results)


async def test_a_source_does_not_bind_for_the_calls():
    """A generator runs in a context of its own, which lasts from item to item."""
    seen: list[object] = []

    def items() -> Any:
        for number in range(6):
            bound.set(number)
            yield number
            assert bound.get() == number

    async def more_items() -> AsyncIterator[int]:
        for number in items():
            yield number

    async def call(item: int) -> None:
        seen.append(bound.get())

    before = bound.get()
    processor = AsyncBatchProcessor(call, retry_count=0)
    for source in (items(), more_items()):
        assert (await processor.process(source)).all_succeeded
    assert seen == [before] * 12


async def test_what_resources_bind_is_seen_by_every_call():
    """They are opened by the run, for its calls."""
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def opened() -> AsyncIterator[str]:
        bound.set("by the resources")
        yield "client"

    async def call(item: int, client: str) -> object:
        return bound.get()

    result = await AsyncBatchProcessor(call, resources=opened).process(range(3))
    assert result.results == ["by the resources"] * 3


async def test_a_replaced_worker_keeps_its_number():
    """So that a timeline keeps its rows."""

    async def call(item: int) -> int:
        bound.set(item)
        await asyncio.sleep(1)
        return item

    result = await AsyncBatchProcessor(call, max_concurrency=3).process(range(30))
    assert {outcome.worker for outcome in result} == {0, 1, 2}


async def test_a_clean_function_keeps_its_workers():
    """Timeouts, groups and bindings that are taken back weight no worker."""
    tasks = set()

    async def call(item: int) -> None:
        tasks.add(id(this_task()))
        token = bound.set(item)
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0.1))
        await asyncio.wait_for(asyncio.sleep(0.1), 5)
        await asyncio.gather(asyncio.sleep(0.1), asyncio.sleep(0.1))
        asyncio.get_running_loop().call_later(3, tasks.__len__)
        bound.reset(token)

    processor = AsyncBatchProcessor(call, max_concurrency=2)
    assert (await processor.process(range(20))).all_succeeded
    assert len(tasks) == 2


async def test_a_timeout_counts_in_a_task_that_a_group_has_left_cancelling():
    """A group failed before, in the same call, and its error was handled."""

    async def call(item: int) -> int:
        await leave_cancelling()
        if item == 3:
            await asyncio.sleep(60)
        return item

    processor = AsyncBatchProcessor(call, timeout=0.2, max_concurrency=1, retry_count=0)
    result = await processor.process(range(10))
    assert (result.success_count, result.error_count) == (9, 1)
    assert "longer than 0.2 s" in str(result.errors[3])


@pytest.mark.parametrize("retries", [0, 2])
async def test_a_cancelled_error_nobody_asked_for_is_in_every_table(retries: int):
    """Failed, counted, named, and tried again like a lost connection."""

    async def call(item: int) -> int:
        if item == 2:
            await leave_a_cancellation_pending()
            await asyncio.sleep(1)
        return item

    processor = AsyncBatchProcessor(call, retry_count=retries, retry_delay=0.0)
    result = await processor.process(range(5))
    assert (result.success_count, result.error_count, result.cancelled_count) == (4, 1, 0)
    assert result[2].attempts == retries + 1
    assert list(result.errors_dataframe()["error_type"]) == ["CancelledError"]
    assert "CancelledError" in result.summary()
    with pytest.raises(ExceptionGroup) as raised:
        result.raise_for_errors()
    assert "CancelledError" in repr(raised.value.exceptions[0].__cause__)


async def test_cancelled_errors_count_for_max_errors():
    """They are errors."""

    async def call(item: int) -> int:
        raise asyncio.CancelledError

    processor = AsyncBatchProcessor(call, retry_count=0, max_errors=3, max_concurrency=1)
    result = await processor.process(range(10))
    assert (result.error_count, result.pending_count) == (4, 6)


async def test_gather_raises_a_cancelled_error_of_a_call_immediately():
    """As asyncio.gather does, and the other calls are cancelled."""
    ended: list[int] = []

    async def call(item: int) -> int:
        try:
            if item == 1:
                await asyncio.sleep(1)
                raise asyncio.CancelledError("of its own")
            await asyncio.sleep(60)
        finally:
            ended.append(item)
        return item

    with pytest.raises(asyncio.CancelledError, match="of its own"):
        await gather_with_concurrency(map(call, range(8)), 3)
    assert asyncio.get_running_loop().time() == pytest.approx(1)
    assert sorted(ended) == [0, 1, 2]
    assert this_task().cancelling() == 0


async def test_workers_that_somebody_cancels_between_two_calls_are_replaced():
    """All idle or waiting workers of a run: nothing is lost, and nothing fails."""

    async def items() -> AsyncIterator[int]:
        for number in range(10):
            await asyncio.sleep(1)
            yield number

    async def call(item: int) -> int:
        return item

    async def disturb() -> None:
        for _ in range(12):
            await asyncio.sleep(0.7)
            for task in asyncio.all_tasks():
                if task.get_name().startswith("ragasync worker"):
                    task.cancel()

    disturbing = asyncio.create_task(disturb())
    batched = AsyncBatchProcessor(
        lambda items: list(items), 3, batched=True, max_concurrency=2, retry_count=5
    )
    limited = AsyncBatchProcessor(call, rate_limiter=RateLimiter(1, 1), retry_count=5)
    first, second, third = await asyncio.gather(
        AsyncBatchProcessor(call).process(items()),
        batched.process(items()),
        limited.process(range(10)),
    )
    for result in (first, second, third):
        assert result.results == list(range(10))
    await disturbing


@pytest.mark.real_time
@needs_eager_tasks
def test_a_job_over_an_async_source_runs_where_tasks_are_eager():
    """The source begins last, when the run is complete."""

    async def items() -> AsyncIterator[int]:
        for number in range(5):
            yield number

    async def call(item: int) -> int:
        return item

    async def main() -> list[int | None]:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
        processor = AsyncBatchProcessor(call)
        streamed = [outcome.value async for outcome in processor.stream(items())]
        result = await processor.process(items())
        gathered = await gather_with_concurrency([call(5)])
        job = await processor.start(items(), on_current_loop=True)
        assert streamed == result.results == job.results
        return [*result.results, *gathered]

    assert asyncio.run(main()) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("replaces", [False, True])
def test_a_binding_is_seen_beside_a_copy_of_the_context_wherever_it_is_kept(batched, replaces):
    """A context is a hash trie, so it depends on the addresses of variables which share a node."""
    variables: list[ContextVar[object]] = []  # all are kept: each has an address of its own

    def found_in(others: int) -> list[int]:
        mark: ContextVar[object] = ContextVar("mark", default=None)
        more: list[ContextVar[object]] = [ContextVar(f"other {n}") for n in range(others)]
        variables.extend([mark, *more])
        for variable in more:
            variable.set(object())
        if replaces:
            mark.set(None)
        tasks, found = [], []

        async def call(given):
            items = given if batched else [given]
            if mark.get() is not None:
                found.append(items[0])
            if 2 in items:
                tasks.append(asyncio.create_task(asyncio.sleep(0)))
                mark.set(object())
            return given

        options = {"batch_size": 3, "max_concurrency": 1, "retry_count": 0, "batched": batched}
        run_on_virtual_clock(AsyncBatchProcessor(call, **options).process(range(5)))
        return found

    found = [copy_context().run(found_in, layout % 40) for layout in range(200)]
    assert [layout for layout in found if layout] == []
