"""What goes to another process and comes back: pickled so that a notebook's own things travel."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ragasync.errors import CannotTravel
from ragasync.outcomes.tracebacks import whole_text
from ragasync.saying import named, note_on, safe_notes

HINT = (
    "functions and classes of a notebook or script travel with cloudpickle: "
    'pip install "ragasync[processes]"'
)

PLAIN = frozenset({int, float, str, bytes, bool, type(None)})
"""Types whose values hold nothing else."""


def pack(value: object) -> bytes:
    """
    Return a value as bytes, what was defined in a cell and lambdas included.

    By value, that is: a worker that was forked before the cell ran, or that runs elsewhere, does
    not know them by name. Without cloudpickle everything goes by name.
    """
    if type(value) is list and PLAIN.issuperset(map(type, value)):
        return pickle.dumps(value, 5)  # a third of what it takes to look for functions in it
    try:
        import cloudpickle
    except ImportError:
        return pickle.dumps(value, 5)
    packed: bytes = cloudpickle.dumps(value, 5)
    return packed


unpack = pickle.loads


class PackedFunction(NamedTuple):
    """A function on its way, in the forms in which a worker may try to have it."""

    name: str
    forms: tuple[bytes, ...]
    trouble: str = ""

    def unpacked(self) -> Callable[[Any], Any]:
        """Return the function; raise CannotTravel if no form of it is any good here."""
        if self.trouble:
            raise CannotTravel(self.trouble, function=True)
        for form in self.forms:
            try:
                function: Callable[[Any], Any] = unpack(form)
            except Exception as error:
                failed = error
            else:
                return function
        raise CannotTravel(
            f"{self.name} cannot be loaded on the worker: {named(failed)}. What it imports has to "
            f"be installed there{_hint()}",
            function=True,
        )


def packed_function(function: Callable[[Any], Any], *, by_name: bool) -> PackedFunction:
    """
    Return a function as it travels, or with what hinders it.

    Args:
        function: any callable.
        by_name: whether a worker that knows it by name takes its own. So it must be where the
            pool's initializer has set globals that the function reads.
    """
    name = f"the function {getattr(function, '__qualname__', function)!s}"
    forms = []
    if by_name:
        try:
            forms.append(pickle.dumps(function, 5))
        except Exception:
            by_name = False  # a lambda has no name
    try:
        forms.append(pack(function))
    except Exception as error:
        trouble = f"{name} cannot be pickled: {named(error)}"
        return PackedFunction(name, (), f"{trouble}{_to_blame(function)}{_hint()}")
    return PackedFunction(name, tuple(forms))


def _to_blame(function: Callable[[Any], Any]) -> str:
    """Return what of a function's surroundings is not to be pickled, as far as that can be said."""
    try:
        around = inspect.getclosurevars(inspect.unwrap(function))
    except (TypeError, ValueError):
        return ""
    found = {**around.globals, **around.nonlocals}
    bad = [name for name, value in found.items() if hindrance(value)]
    if not bad:
        return ""
    return f". It uses {', '.join(bad)}: make that inside the function, or where the worker starts"


def hindrance(value: object) -> str:
    """Return why a value cannot be pickled, or nothing if it can."""
    try:
        pack(value)
    except Exception as error:
        return named(error)
    return ""


def _hint() -> str:
    """Return what to install, where that may help."""
    try:
        import cloudpickle  # noqa: F401
    except ImportError:
        return f"; {HINT}"
    return ""


class PackedError(NamedTuple):
    """An error on its way back: as it is, and as text for where that does not survive."""

    form: bytes
    text: str
    notes: tuple[str, ...]

    def unpacked(self) -> Exception:
        """Return the error, or a RuntimeError that says what it said."""
        try:
            error = unpack(self.form)
            if isinstance(error, Exception):
                return error
        except Exception:
            pass
        error = RuntimeError(self.text)
        for note in self.notes:
            error.add_note(note)
        return error


def packed_error(error: Exception) -> PackedError:
    """Return an error as it travels: many do not survive, though pickling them goes well."""
    notes = tuple(safe_notes(error))
    try:
        form = pack(error)
    except Exception:
        form = b""
    return PackedError(form, named(error), notes)


def with_stack(error: Exception) -> Exception:
    """Return the error with its stack as a note, which is all of it that comes back."""
    note_on(error, f"On the worker:\n{whole_text(error)}")
    return error


def each_hindrance(values: list[Any]) -> Iterator[tuple[int, str]]:
    """Yield the place of each value that cannot be pickled, and why."""
    for place, value in enumerate(values):
        if why := hindrance(value):
            yield place, why
