"""Errors that cannot be changed, or cannot say what they are, are outcomes like any others."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from ragasync import FATAL, AsyncBatchProcessor, AsyncRetry
from tests.support.services import read_into


@dataclass(frozen=True)
class Frozen(Exception):
    """An error that refuses every change, of its traceback too."""

    item: int


class Mute(Exception):
    """An error whose message cannot be had."""

    def __str__(self) -> str:
        raise ZeroDivisionError


async def refuse(item: int) -> None:
    """Raise what cannot be changed."""
    raise Frozen(item)


async def stay_mute(_: int) -> None:
    """Raise what cannot say what it is."""
    raise Mute


async def refuse_wordlessly(_: int) -> None:
    """Raise what says nothing."""
    raise ValueError


async def same(item: int) -> int:
    """Return the item."""
    return item


def broken_source() -> Iterator[int]:
    """Give one item, then raise what cannot be changed."""
    yield 1
    raise Frozen(2)


async def test_errors_that_cannot_be_changed_end_only_their_items():
    """More of them than keep their live traceback: the others cannot lose theirs."""
    result = await AsyncBatchProcessor(refuse, retry_count=0).process(range(50))
    assert result.error_count == 50
    assert result.errors[49] == Frozen(49)


async def test_a_sources_error_that_cannot_be_changed_is_raised_itself():
    """It goes up without the note."""
    processor = AsyncBatchProcessor(same)
    with pytest.raises(Frozen):
        await processor.process(broken_source())
    assert processor.last_result is not None
    assert processor.last_result.success_count == 1


async def test_a_stream_raises_a_sources_error_that_cannot_be_changed():
    """After the outcome that came before it."""
    seen: list[object] = []
    with pytest.raises(Frozen):
        await read_into(seen, AsyncBatchProcessor(same).stream(broken_source()))
    assert len(seen) == 1


async def test_errors_without_words_are_retried_and_end_only_their_items():
    """The log of attempts names them by their type."""
    processor = AsyncBatchProcessor(stay_mute, retry=AsyncRetry(1))
    result = await processor.process(range(3))
    assert result.error_count == 3
    assert [attempt.error for attempt in result[0].history] == [
        "Mute: <message of Mute cannot be shown>"
    ]


async def test_a_fatal_error_without_words_stops_the_job():
    """The reason has what is known of it."""
    retry = AsyncRetry(1, retry_on=lambda _: FATAL)
    result = await AsyncBatchProcessor(stay_mute, max_concurrency=1, retry=retry).process(range(3))
    assert (result.error_count, result.pending_count) == (1, 2)
    assert result.stopped_because == "a fatal error: Mute: <message of Mute cannot be shown>"


async def test_a_fatal_error_without_a_message_is_named_by_its_type():
    """No colon stands before nothing."""
    retry = AsyncRetry(1, retry_on=lambda _: FATAL)
    result = await AsyncBatchProcessor(refuse_wordlessly, retry=retry).process([1])
    assert result.stopped_because == "a fatal error: ValueError"


def refuse_here(item: int) -> None:
    """Raise what cannot be changed, on the worker."""
    raise Frozen(item)


def stay_mute_here(_: int) -> None:
    """Raise what cannot say what it is, on the worker."""
    raise Mute


@pytest.mark.real_time
@pytest.mark.parametrize("function", [refuse_here, stay_mute_here])
async def test_such_errors_on_a_worker_end_only_their_items(function: Callable[[int], None]):
    """Nothing can be noted on them there."""
    with ThreadPoolExecutor(1) as executor:
        processor = AsyncBatchProcessor(function, 4, 1, 0, executor=executor)
        result = await processor.process(range(4))
    assert result.error_count == 4
