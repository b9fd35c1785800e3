"""Checks of arguments, and the messages of the errors about wrong ones."""

from __future__ import annotations

import functools
import inspect
import math
import operator
import sys
from collections.abc import Callable
from numbers import Real
from typing import Final

_LONGEST: Final = 200  # characters of a wrong value in the error that refuses it


def check_count(name: str, value: object, *, at_least: int) -> int:
    """
    Return a whole number, such as one of numpy, as an int.

    Raises:
        TypeError: It is no whole number; True is none.
        ValueError: It is too small.
    """
    try:
        count = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        count = None
    if count is None or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, got {shown(value)}")
    if count < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {shown(value)}")
    return count


def check_number(name: str, value: object, *, at_least: float = 0, finite: bool = True) -> float:
    """
    Return a real number, such as one of numpy, as a float or an int.

    Args:
        name: What the argument is called.
        value: What was given for it.
        at_least: The smallest number that is allowed.
        finite: Whether infinity is refused.

    Raises:
        TypeError: It is no number; True is none.
        ValueError: It is too small, infinite or NaN.
    """
    number = as_number(name, value)
    if not at_least <= number <= (sys.float_info.max if finite else math.inf):
        limits = f"finite and at least {at_least}" if finite else f"at least {at_least}"
        raise ValueError(f"{name} must be {limits}, got {shown(value)}")
    return number


def check_positive(name: str, value: object) -> float:
    """
    Return a number that is finite and above 0, as a float or an int.

    Raises:
        TypeError: It is no number; True is none.
        ValueError: It is 0, negative, infinite or NaN.
    """
    number = as_number(name, value)
    if not 0 < number <= sys.float_info.max:
        raise ValueError(f"{name} must be positive and finite, got {shown(value)}")
    return number


def check_callable(fn: object) -> None:
    """Raise a TypeError for what cannot be called once for each attempt, such as a coroutine."""
    if not callable(fn):
        raise TypeError(
            f"expected a function to call for each attempt, got {fn!r}; "
            "pass fetch or lambda: fetch(url), not fetch(url)"
        )


def check_sync(name: str, fn: object) -> None:
    """Raise a TypeError for a callback that is no function, or whose call would not run it."""
    if not callable(fn) or is_async(fn) or _yields(fn):
        raise TypeError(f"{name} must be a function that is not async, got {fn!r}")


def is_async(fn: Callable[..., object]) -> bool:
    """Return whether this function, method, partial or callable object is declared async."""
    return any(map(inspect.iscoroutinefunction, _declared(fn)))


def _yields(fn: Callable[..., object]) -> bool:
    """Return whether calling this makes a generator, sync or async, instead of running it."""
    return any(
        inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each)
        for each in _declared(fn)
    )


def _declared(fn: Callable[..., object]) -> tuple[object, object]:
    """Return the functions that tell what a call does: the one in a partial, and its __call__."""
    inner: object = fn
    while isinstance(inner, functools.partial):
        inner = inner.func
    return inner, getattr(type(inner), "__call__", None)  # noqa: B004 - its function, not whether


def as_number(name: str, value: object) -> float:
    """
    Return a real number of any library as a float, or as the int it is.

    A whole number that is too large for a float becomes infinite.

    Raises:
        TypeError: It is no number; True is none.
    """
    if type(value) is float or type(value) is int:
        return value  # a limiter checks the weight of every call
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {shown(value)}")
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]  # a huge whole one
    except Exception as error:
        raise TypeError(f"{name} must be a number, got {shown(value)}") from error


def shown(value: object) -> str:
    """Return the beginning of a value's repr; a whole number may be too long to have one."""
    try:
        text = repr(value)
    except Exception:
        return f"{type(value).__name__} (its repr raises)"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
