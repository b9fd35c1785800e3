"""Errors that lie about their class, or do not let anybody look at them, fail their own item."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ragasync import AsyncBatchProcessor, AsyncRetry, BatchResult


class Hidden(Exception):
    """An error whose class cannot be read."""

    @property
    def __class__(self) -> Any:
        raise ZeroDivisionError

    @__class__.setter
    def __class__(self, _: Any) -> None: ...


class Pretender(Exception):
    """An error that calls itself an interrupt."""

    @property
    def __class__(self) -> Any:
        return KeyboardInterrupt

    @__class__.setter
    def __class__(self, _: Any) -> None: ...


class Unreadable(Exception):
    """An error that does not let anything of it be read."""

    def __getattribute__(self, name: str) -> Any:
        raise ZeroDivisionError(name)


KINDS = pytest.mark.parametrize("kind", [Hidden, Pretender, Unreadable])


def check(result: BatchResult[Any], kind: type[Exception]) -> None:
    """Check that only the second of three items has failed, and that its error can be shown."""
    assert (result.success_count, result.error_count, result.pending_count) == (2, 1, 0)
    assert type(result.errors[1]) is kind
    assert kind.__name__ in result.summary()
    assert repr(result)
    assert result._repr_html_()
    assert len(result.errors_dataframe()) == 1
    with pytest.raises(ExceptionGroup):
        result.raise_for_errors()


@KINDS
@pytest.mark.parametrize("retry", [AsyncRetry(1, 0.0), AsyncRetry(1, 0.0, retry_on=ValueError)])
async def test_an_async_call_may_raise_it(kind: type[Exception], retry: AsyncRetry):
    """The others are done, and so is the run."""

    async def call(item: int) -> int:
        if item == 1:
            raise kind("no")
        return item

    check(await AsyncBatchProcessor(call, retry=retry).process(range(3)), kind)


@KINDS
async def test_a_sync_call_may_raise_it(kind: type[Exception]):
    """The thread that ran it serves the next call."""

    def call(item: int) -> int:
        if item == 1:
            raise kind("no")
        return item

    check(await AsyncBatchProcessor(call, retry_count=0).process(range(3)), kind)


@KINDS
async def test_a_call_on_an_executor_may_raise_it(kind: type[Exception]):
    """The others of its group are done."""

    def call(item: int) -> int:
        if item == 1:
            raise kind("no")
        return item

    with ThreadPoolExecutor(1) as pool:
        check(await AsyncBatchProcessor(call, retry_count=0, executor=pool).process(range(3)), kind)


@KINDS
async def test_a_batched_call_may_return_it(kind: type[Exception]):
    """In the place of its item."""

    async def call(items: list[int]) -> list[object]:
        return [kind("no") if item == 1 else item for item in items]

    check(await AsyncBatchProcessor(call, 3, batched=True, retry_count=0).process(range(3)), kind)


@KINDS
async def test_a_source_may_raise_it(kind: type[Exception]):
    """It is raised itself."""

    def source() -> Any:
        yield 1
        raise kind("no")

    async def call(item: int) -> int:
        return item

    with pytest.raises(kind):
        await AsyncBatchProcessor(call).process(source())
