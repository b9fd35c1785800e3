"""How a batch that failed is split: into halves, into single items, into those that succeeded."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from ragasync._calls.caller import returned_coroutine
from ragasync._engine.retry_queue import PendingCall, RetryBudget
from ragasync.foreign_errors import is_a, is_error

T = TypeVar("T")


def halves(call: PendingCall[T]) -> tuple[PendingCall[T], PendingCall[T]]:
    """Split a failed batch in two parts, which share its retry budget."""
    middle = len(call) // 2
    first, second = _part(call, 0, middle), _part(call, middle, len(call))
    first.is_part = second.is_part = True
    return first, second


def single_item(call: PendingCall[T], position: int) -> PendingCall[T]:
    """Take one item out of a batch, with the batch's past and a retry budget of its own."""
    return replace(_part(call, position, position + 1), retries=RetryBudget(call.retries.spent))


def subset(call: PendingCall[T], positions: Sequence[int]) -> PendingCall[T]:
    """Keep the items at these positions of a batch, with its past and its retry budget."""
    return replace(
        call,
        indices=[call.indices[at] for at in positions],
        items=[call.items[at] for at in positions],
    )


def _part(call: PendingCall[T], start: int, stop: int) -> PendingCall[T]:
    """Slice a batch; the slice has its past and its retry budget."""
    return replace(call, indices=call.indices[start:stop], items=call.items[start:stop])


def errors_among(values: Sequence[Any], *, batched: bool) -> dict[int, BaseException]:
    """
    Find the values that are errors, by position.

    A coroutine that nobody awaits is always an error. An exception is one only in the list that a
    batched function returns; a function of one item may return an exception as a plain value.
    """
    kinds = set(map(type, values))
    coroutines = any(issubclass(kind, Coroutine) for kind in kinds)
    if not (coroutines or (batched and any(issubclass(kind, BaseException) for kind in kinds))):
        return {}
    errors: dict[int, BaseException] = {}
    for position, value in enumerate(values):
        if is_a(value, Coroutine):
            errors[position] = returned_coroutine(value)
        elif batched and is_error(value):
            errors[position] = value
    return errors
