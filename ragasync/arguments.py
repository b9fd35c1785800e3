"""What is asked of an argument, and what a wrong one is told."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable


def check_count(name: str, value: object, *, at_least: int) -> None:
    """Refuse what is not a whole number or is too small."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {value!r}")


def check_number(name: str, value: object, *, at_least: float = 0) -> None:
    """Refuse what is not a finite number or is too small."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not at_least <= value <= sys.float_info.max:
        raise ValueError(f"{name} must be finite and at least {at_least}, got {value!r}")


def check_callable(fn: object) -> None:
    """Refuse what cannot be called again for another attempt."""
    if not callable(fn):
        raise TypeError(
            f"expected a function to call for each attempt, got {fn!r}; "
            "pass fetch or lambda: fetch(url), not fetch(url)"
        )


def check_sync(name: str, fn: object) -> None:
    """Refuse what is not a function that answers at once."""
    if not callable(fn) or is_async(fn):
        raise TypeError(f"{name} must be a function that is not async, got {fn!r}")


def is_async(fn: Callable[..., object]) -> bool:
    """Return whether this function, method, partial or callable object is declared async."""
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__)


def check_positive(name: str, value: float) -> float:
    """Return a number that is finite and above 0; refuse everything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not 0 < value <= sys.float_info.max:
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    return value
