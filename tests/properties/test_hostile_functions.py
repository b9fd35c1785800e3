"""
Whatever hostile functions do to their task and context: a run that nobody stopped is whole.

No item is pending or cancelled, no call finds anything of another, and each item ends as the
behaviour of its own attempts says. More schedules: see `schedules.py`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragasync import AsyncBatchProcessor, AsyncRetry, RateLimiter
from ragasync.testing import run_on_virtual_clock
from tests.support.random_schedules import examples

Way = Literal["process", "stream", "ordered", "job"]
Source = Literal["list", "generator", "async"]

mark: ContextVar[object] = ContextVar("mark", default=None)


class Panic(BaseException):
    """What an extension module raises when it gives up."""


class Lost(ConnectionError):
    """What may pass."""


@dataclass(frozen=True)
class Act:
    """
    What a call does: something hostile, a rest, and its end.

    Args:
        deed: the hostile part, a method of Hostile.
        before: turns of the loop, or quarters of a second, before it.
        after: the same after it.
        end: how the call ends.
    """

    deed: str
    before: int
    after: int
    end: Literal["value", "lost", "wrong", "panic", "cancelled", "group", "coro"]


DEEDS = (
    *("nothing", "bind", "bind_incomparable", "cancel", "swallow", "uncancel", "late_cancel"),
    *("group", "own_timeout", "swallow_in_timeout", "cancel_child", "spawn", "nested_group"),
    *("wait_for", "shield", "bind_after_spawning", "cancel_twice", "keep_task"),
)

acts = st.builds(
    Act,
    st.sampled_from(DEEDS),
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from(
        ["value", "value", "value", "lost", "lost", "wrong", "panic", "cancelled", "group", "coro"]
    ),
)


class Incomparable:
    """Raises when it is compared."""

    def __eq__(self, other: object) -> bool:
        raise ArithmeticError

    __hash__ = None  # type: ignore[assignment]


class Hostile:
    """A function whose every attempt acts by a script, and looks for traces of others."""

    def __init__(self, scripts: list[list[Act]]) -> None:
        self._scripts = scripts
        self._tries = [0] * len(scripts)
        self._kept: list[object] = []
        self.coroutines: list[Coroutine[Any, Any, None]] = []
        self.found: list[str] = []
        self.last: list[Act | None] = [None] * len(scripts)
        self.interrupted = [False] * len(scripts)

    async def __call__(self, item: int) -> int:
        """Make one attempt."""
        self._look_for_traces(item)
        return await self._attempt(item)

    async def _attempt(self, item: int) -> int:
        """Act by the script of the item."""
        script = self._scripts[item]
        act = script[min(self._tries[item], len(script) - 1)]
        self._tries[item] += 1
        self.last[item] = act
        try:
            await _rest(act.before)
            await getattr(self, act.deed)()
            await _rest(act.after)
        except asyncio.CancelledError:
            self.interrupted[item] = True
            raise
        self.interrupted[item] = False
        return self._end(item, act)

    async def in_batches(self, items: list[int]) -> list[int]:
        """Make attempts for several items, one after the other; the first error ends them."""
        self._look_for_traces(items[0])
        return [await self._attempt(item) for item in items]

    def _look_for_traces(self, item: int) -> None:
        """Note what is there of another call."""
        task = asyncio.current_task()
        assert task is not None
        if task.cancelling():
            self.found.append(f"item {item} began in a task that is being cancelled")
        if mark.get() is not None:
            self.found.append(f"item {item} sees what another bound")

    def _end(self, item: int, act: Act) -> Any:
        """End the call as the script says."""
        match act.end:
            case "lost":
                raise Lost(item)
            case "wrong":
                raise TypeError(item)
            case "panic":
                raise Panic(item)
            case "cancelled":
                raise asyncio.CancelledError(item)
            case "group":
                raise BaseExceptionGroup("some", [Lost(item), ValueError(item)])
            case "coro":
                self.coroutines.append(_rest(1))
                return self.coroutines[-1]
        return item

    async def nothing(self) -> None:
        """Behave."""

    async def bind(self) -> None:
        """Bind a variable for good."""
        mark.set(object())

    async def bind_incomparable(self) -> None:
        """Bind it to what cannot be compared."""
        mark.set(Incomparable())

    async def bind_after_spawning(self) -> None:
        """Bind it when a task has taken a copy of the context."""
        self._kept.append(asyncio.create_task(_rest(3)))
        mark.set(object())

    async def cancel(self) -> None:
        """Be cancelled at the next await, or after the call."""
        _task().cancel()

    async def cancel_twice(self) -> None:
        """Twice."""
        _task().cancel()
        _task().cancel()

    async def swallow(self) -> None:
        """Be cancelled and go on."""
        _task().cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(1)

    async def uncancel(self) -> None:
        """Take the count back, which before 3.13 leaves the cancellation to come."""
        _task().cancel()
        _task().uncancel()

    async def late_cancel(self) -> None:
        """Be cancelled later, perhaps when the call is over."""
        asyncio.get_running_loop().call_later(0.3, _task().cancel)

    async def keep_task(self) -> None:
        """Have somebody else hold the task and cancel it later."""
        victim = _task()

        async def cancel() -> None:
            await asyncio.sleep(0.3)
            victim.cancel()

        self._kept.append(asyncio.create_task(cancel()))

    async def group(self) -> None:
        """Handle a group whose child failed."""
        with suppress(BaseExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(_fail())
                await asyncio.sleep(1)

    async def nested_group(self) -> None:
        """Handle one inside another."""
        with suppress(BaseExceptionGroup):
            async with asyncio.TaskGroup() as outer:
                outer.create_task(asyncio.sleep(0.1))
                async with asyncio.TaskGroup() as inner:
                    inner.create_task(_fail())

    async def own_timeout(self) -> None:
        """Run out of time, and handle it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await asyncio.sleep(1)

    async def swallow_in_timeout(self) -> None:
        """Swallow the cancellation of a timeout of one's own."""
        with suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(1)

    async def cancel_child(self) -> None:
        """Await a task that is cancelled."""
        child = asyncio.create_task(asyncio.sleep(1))
        child.cancel()
        with suppress(asyncio.CancelledError):
            await child

    async def spawn(self) -> None:
        """Leave a task running."""
        self._kept.append(asyncio.create_task(_rest(3)))

    async def wait_for(self) -> None:
        """Run out of time in the older way."""
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(1), 0.1)

    async def shield(self) -> None:
        """Be cancelled while something is shielded."""
        _task().cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.shield(asyncio.sleep(0.1))


async def _rest(amount: int) -> None:
    """Return at once, let the loop turn, or sleep."""
    if amount == 1:
        await asyncio.sleep(0)
    elif amount:
        await asyncio.sleep(amount / 4)


async def _fail() -> None:
    """Fail."""
    raise ValueError("a child")


def _task() -> asyncio.Task[Any]:
    """The running task."""
    task = asyncio.current_task()
    assert task is not None
    return task


@dataclass(frozen=True)
class JobOptions:
    """The options of a run."""

    way: Way
    source: Source
    at_once: int
    retries: int
    timeout: float | None
    limited: bool
    batch: int


tellings = st.builds(
    JobOptions,
    st.sampled_from(["process", "stream", "ordered", "job"]),
    st.sampled_from(["list", "generator", "async"]),
    st.integers(1, 3),
    st.integers(0, 2),
    st.sampled_from([None, 0.6, 60.0]),
    st.booleans(),
    st.sampled_from([0, 0, 2, 3]),
)


def _items(source: Source, count: int) -> Any:
    """Return the items in one of the forms in which they may come."""

    def generated() -> Iterator[int]:
        yield from range(count)

    async def generated_async() -> AsyncIterator[int]:
        for number in range(count):
            await asyncio.sleep(number % 2 / 8)
            yield number

    if source == "list":
        return list(range(count))
    return generated() if source == "generator" else generated_async()


async def _outcomes(function: Hostile, options: JobOptions, count: int) -> list[Any]:
    """Run the function over so many items; return an outcome for each, in order."""
    processor: AsyncBatchProcessor[int, int] = AsyncBatchProcessor(
        function.in_batches if options.batch else function,
        options.batch or 32,
        options.at_once,
        batched=bool(options.batch),
        retry=AsyncRetry(options.retries, 0.25, jitter=None),
        timeout=options.timeout,
        rate_limiter=RateLimiter(20) if options.limited else None,
    )
    items = _items(options.source, count)
    if options.way in ("stream", "ordered"):
        ordered = options.way == "ordered"
        seen = [outcome async for outcome in processor.stream(items, ordered=ordered)]
        return sorted(seen, key=lambda outcome: outcome.index)
    if options.way == "job":
        return list(await processor.start(items, on_current_loop=True))
    return list(await processor.process(items))


def _check(outcome: Any, function: Hostile, options: JobOptions) -> None:
    """See that an item ended as its last attempt says."""
    act = function.last[outcome.index]
    assert outcome.status in ("done", "failed")
    assert outcome.attempts >= 1
    if options.batch:
        assert outcome.status == "failed" or act is not None
        return  # which of the items of a batch was tried last, others decide
    assert act is not None, "it was never tried"
    assert outcome.attempts <= options.retries + 1
    if outcome.status == "done":
        assert act.end == "value"
        assert outcome.value == outcome.index
        return
    error = outcome.error
    if isinstance(error, TimeoutError):
        assert options.timeout is not None
    elif function.interrupted[outcome.index] or act.end == "cancelled":
        assert isinstance(error, asyncio.CancelledError)
    else:
        kinds = {"lost": Lost, "wrong": TypeError, "panic": Panic, "coro": TypeError}
        assert isinstance(error, kinds.get(act.end, BaseExceptionGroup))
    if isinstance(error, Panic | TypeError):
        return
    passes = isinstance(error, Lost | asyncio.CancelledError | TimeoutError)
    assert not passes or outcome.attempts == options.retries + 1


@pytest.mark.timeout(600)
@examples(150)
@given(st.lists(st.lists(acts, min_size=1, max_size=3), min_size=1, max_size=8), tellings)
def test_a_run_of_hostile_calls_is_whole(scripts: list[list[Act]], options: JobOptions):
    """All items have their outcome, by what they did themselves."""

    async def main() -> None:
        function = Hostile(scripts)
        outcomes = await _outcomes(function, options, len(scripts))
        assert function.found == []
        assert [outcome.index for outcome in outcomes] == list(range(len(scripts)))
        for outcome in outcomes:
            _check(outcome, function, options)
        task = _task()
        assert task.cancelling() == 0
        assert mark.get() is None
        for coroutine in function.coroutines:
            coroutine.close()  # of a batch that raised, where nobody has seen it
        leftover = [each for each in asyncio.all_tasks() if "ragasync" in each.get_name()]
        assert leftover == []

    run_on_virtual_clock(main())


def test_the_deeds_are_all_there():
    """A name that is misspelt would be no deed."""
    for deed in DEEDS:
        assert inspect.iscoroutinefunction(getattr(Hostile, deed))
