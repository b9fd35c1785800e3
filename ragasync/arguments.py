"""Checks of arguments, and the error messages about wrong ones."""

from __future__ import annotations

import functools
import inspect
import math
import operator
import sys
from collections.abc import Callable
from numbers import Real
from typing import Final

_LONGEST: Final = 200  # characters of a wrong value that an error message shows


def check_count(name: str, value: object, *, at_least: int) -> int:
    """
    Check a count, such as one of numpy, and convert it to an int.

    Raises:
        TypeError: the value is not a whole number; True is not one.
        ValueError: it is too small.
    """
    try:
        count = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        count = None
    if count is None or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, got {short_repr(value)}")
    if count < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {short_repr(value)}")
    return count


def check_number(name: str, value: object, *, at_least: float = 0, finite: bool = True) -> float:
    """
    Check a real number, such as one of numpy, and convert it to a float or an int.

    Args:
        name: the argument's name, for the error.
        value: the argument.
        at_least: the smallest number allowed.
        finite: whether infinity is refused.

    Raises:
        TypeError: the value is not a number; True is not one.
        ValueError: it is too small, infinite or NaN.
    """
    number = as_number(name, value)
    if not at_least <= number <= (sys.float_info.max if finite else math.inf):
        limits = f"finite and at least {at_least}" if finite else f"at least {at_least}"
        raise ValueError(f"{name} must be {limits}, got {short_repr(value)}")
    return number


def check_positive(name: str, value: object) -> float:
    """
    Check a finite number above 0, and convert it to a float or an int.

    Raises:
        TypeError: the value is not a number; True is not one.
        ValueError: it is 0, negative, infinite or NaN.
    """
    number = as_number(name, value)
    if not 0 < number <= sys.float_info.max:
        raise ValueError(f"{name} must be positive and finite, got {short_repr(value)}")
    return number


def check_callable(fn: object) -> None:
    """Raise a TypeError for what cannot be called once per attempt, such as a coroutine."""
    if not callable(fn):
        raise TypeError(
            f"expected a function to call for each attempt, got {fn!r}; "
            "pass fetch or lambda: fetch(url), not fetch(url)"
        )


def check_sync(name: str, fn: object) -> None:
    """Raise a TypeError for a callback that is not a function, or is async or a generator."""
    if not callable(fn) or is_async(fn) or _yields(fn):
        raise TypeError(f"{name} must be a function that is not async, got {fn!r}")


def check_process_fn(function: Callable[..., object]) -> bool:
    """
    Check a function that is called once per item or batch; return whether it is async.

    Raises:
        TypeError: it is not callable, or it yields instead of returning.
    """
    if not callable(function):
        raise TypeError(f"process_fn must be callable, got {function!r}")
    if _yields(function):
        raise TypeError(
            f"process_fn must return one value, but {function!r} yields: return a list instead"
        )
    return is_async(function)


def is_async(fn: Callable[..., object]) -> bool:
    """Whether this function, method, partial or callable object is declared async."""
    return any(map(inspect.iscoroutinefunction, _declared(fn)))


def _yields(fn: Callable[..., object]) -> bool:
    """Whether calling this function makes a generator, sync or async."""
    return any(
        inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each)
        for each in _declared(fn)
    )


def _declared(fn: Callable[..., object]) -> tuple[object, object]:
    """The two functions that decide what a call does: the one in a partial, and its __call__."""
    inner: object = fn
    while isinstance(inner, functools.partial):
        inner = inner.func
    return inner, getattr(type(inner), "__call__", None)  # noqa: B004 - its function, not whether


def as_number(name: str, value: object) -> float:
    """
    Convert a real number of any library to a float; an int stays an int.

    A whole number too large for a float becomes infinite.

    Raises:
        TypeError: the value is not a number; True is not one.
    """
    if type(value) is float or type(value) is int:
        return value  # a limiter checks the weight of every call
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {short_repr(value)}")
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]  # a huge whole one
    except Exception as error:
        raise TypeError(f"{name} must be a number, got {short_repr(value)}") from error


def short_repr(value: object) -> str:
    """The beginning of a value's repr, which may fail: a huge whole number has none."""
    try:
        text = repr(value)
    except Exception:
        return f"{type(value).__name__} (its repr raises)"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
