"""Tracebacks of many errors: texts that are shared, and live ones for the first of each kind."""

import asyncio

from ragasync import AsyncBatchProcessor, BatchResult


async def fail(item: int) -> None:
    """Raise an OSError from a KeyError for even items, else a ValueError."""
    if item % 2:
        raise ValueError(f"{item} is odd")
    try:
        raise KeyError(item)
    except KeyError as inner:
        raise OSError(f"{item} is even") from inner


async def fail_in_a_group(_: int) -> None:
    """Raise a group of two."""
    async with asyncio.TaskGroup() as group:
        group.create_task(fail(0))
        group.create_task(fail(0))


async def failed(count: int) -> BatchResult[None]:
    """Return a result of so many failures, half of each kind."""
    return await AsyncBatchProcessor(fail, retry_count=0).process(range(count))


async def test_the_first_twenty_of_each_kind_keep_their_live_traceback():
    """They are for a debugger; the others hold no frames."""
    result = await failed(60)
    live = [error is not None and error.__traceback__ is not None for error in result.errors]
    assert live == [True] * 40 + [False] * 20


async def test_causes_and_contexts_lose_theirs_too():
    """Each would keep its own frames alive."""
    result = await failed(60)
    error = result.errors[58]
    assert error is not None
    assert isinstance(error.__cause__, KeyError)
    assert error.__cause__.__traceback__ is None
    assert error.__context__ is error.__cause__


async def test_members_of_a_group_lose_theirs_too():
    """They hang on it like causes."""
    result = await AsyncBatchProcessor(fail_in_a_group, retry_count=0).process(range(21))
    group = result.errors[20]
    assert isinstance(group, ExceptionGroup)
    assert [member.__traceback__ for member in group.exceptions] == [None, None]


async def test_errors_of_one_kind_and_place_share_one_text():
    """However many there are."""
    result = await failed(60)
    assert len({id(text) for text in result.columns.tracebacks.values()}) == 2


async def test_every_error_has_its_traceback_as_text_with_its_own_message():
    """Also those that lost the live one."""
    text = (await failed(60))[58].traceback
    assert text is not None
    assert text.startswith("Traceback (most recent call last):")
    assert "raise KeyError(item)" in text
    assert text.endswith("OSError: 58 is even\n")
