"""
Classes that break whatever looks at them, only while a test has armed them.

A class cannot be taken back: it stays among the subclasses of its base, and among the objects of
the garbage collector, for as long as the process lives. Other code walks over both (tblib over
all classes of errors, for Dask), so a class that always raised would break the tests after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_armed = False


@contextmanager
def armed() -> Iterator[None]:
    """Let the metaclasses below break things while the context lasts."""
    global _armed
    _armed = True
    try:
        yield
    finally:
        _armed = False


def strike(error: Exception) -> None:
    """Raise this, if armed."""
    if _armed:
        raise error


class Silent(type):
    """A metaclass of classes that answer nothing, not even what their name is."""

    def __getattribute__(cls, name: str) -> Any:
        strike(ZeroDivisionError(name))
        return super().__getattribute__(name)


class Nameless(type):
    """A metaclass of classes without a hash and without a name."""

    def __eq__(cls, other: object) -> bool:
        strike(ZeroDivisionError())
        return cls is other

    def __hash__(cls) -> int:
        strike(TypeError("unhashable"))
        return super().__hash__()

    @property
    def __name__(cls) -> Any:  # type: ignore[override]
        strike(ZeroDivisionError())
        return super().__name__


class Hidden(type):
    """A metaclass of classes that do not say what they are."""

    @property
    def __mro__(cls) -> Any:
        strike(RuntimeError("no"))
        return super().__mro__
