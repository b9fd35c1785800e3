"""Weights: what a call takes from a rate limiter, checked, and computed by the user's function."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterable

from ragasync.arguments import as_number, short_repr
from ragasync.foreign_errors import text_of


class WeightError(ValueError):
    """The user's `weight=` function raised the error that is the cause of this one."""


def check_weight(weight: object, highest: float) -> float:
    """
    Return a weight as a Python number, or raise ValueError if it can never be granted.

    A numpy float32 would turn the bucket's times into float32 too.
    """
    number = as_number("weight", weight)
    if 0.0 < number <= highest:
        return number
    if not 0.0 < number <= sys.float_info.max:
        raise ValueError(f"weight must be positive and finite, got {short_repr(weight)}")
    raise ValueError(
        f"a weight of {short_repr(weight)} can never be granted: at most {highest:g} fits. "
        "Split the call, or give the limiter a larger burst_size (or limit)."
    )


def total_weight(weight: Callable[..., float], items: Iterable[object]) -> float:
    """
    Return the total weight of items, by the user's function.

    Raises:
        WeightError: The function raises.
        ValueError: It returns no finite number of at least 0. A WeightError is a ValueError too, so
            that splitting the batch finds the item, which then fails alone.
    """
    try:
        return math.fsum([_weight_of(weight, item) for item in items])
    except OverflowError:
        return math.inf


def _weight_of(weight: Callable[..., float], item: object) -> float:
    """Return the weight of one item, checked."""
    try:
        got: object = weight(item)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a PyO3 panic, say
        problem = f"{type(error).__name__}: {text_of(error)}"
        raise WeightError(f"weight= raised {problem}. Check {short_repr(weight)}") from error
    number = _as_count(weight, got)
    if not 0.0 <= number <= sys.float_info.max:
        raise ValueError(
            f"what weight= returns must be finite and not negative, got {short_repr(got)}. "
            f"Check {short_repr(weight)}"
        )
    return number


def _as_count(weight: Callable[..., float], got: object) -> float:
    """Return the result of a weight function as a float, if it is a number."""
    if inspect.iscoroutine(got):
        got.close()  # avoids the "never awaited" warning
    try:
        return as_number("what weight= returns", got)
    except TypeError as error:
        raise ValueError(f"{error}. Check {short_repr(weight)}") from None
