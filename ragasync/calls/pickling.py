"""What goes to another process and comes back: pickled so that a notebook's own things travel."""

from __future__ import annotations

import inspect
import io
import linecache
import pickle
import threading
from collections import ChainMap
from collections.abc import Callable, Iterator
from functools import cache
from types import CodeType, ModuleType
from typing import Any, NamedTuple

from ragasync.error_text import describe
from ragasync.errors import SerializationError
from ragasync.foreign_errors import is_a

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
    packed = io.BytesIO()
    _pickler_of(cloudpickle)(packed, 5).dump(value)
    return packed.getvalue()


unpack = pickle.loads


def attempted(work: Callable[..., Any], *arguments: Any) -> tuple[Any, BaseException | None]:
    """
    Return what a function gives and None, or None and whatever it raised.

    Pickling runs code of the objects that are pickled, and mostly on a thread of the executor:
    one that dies of a SystemExit, or of a panic in an extension module, answers nobody ever again.
    An interrupt of the main thread is the user's, and passes.
    """
    try:
        return work(*arguments), None
    except BaseException as raised:
        is_main = threading.current_thread() is threading.main_thread()
        if is_a(raised, KeyboardInterrupt) and is_main:
            raise
        return None, raised


@cache
def _pickler_of(cloudpickle: ModuleType) -> Any:
    """Return cloudpickle's pickler, made to carry where each function's code was written."""
    pickler: Any = cloudpickle.CloudPickler
    reduced = pickler.dispatch_table[CodeType]

    def with_source(code: CodeType) -> tuple[Any, ...]:
        return _code_with_source, (*reduced(code), code.co_filename, *_source_lines(code))

    table = ChainMap({CodeType: with_source}, pickler.dispatch_table)
    return type("SourcePickler", (pickler,), {"dispatch_table": table})


def _source_lines(code: CodeType) -> tuple[int, list[str]]:
    """Return the number of the first source line of some code, and its lines if there are any."""
    last = max((end or 0 for _, end, _, _ in code.co_positions()), default=0)
    first = code.co_firstlineno
    return first, linecache.getlines(code.co_filename)[max(0, first - 1) : last]


def _code_with_source(
    make: Callable[..., CodeType], arguments: Any, filename: str, first: int, lines: list[str]
) -> CodeType:
    """Return code that has come from another process, so that tracebacks show its lines here."""
    known = list(linecache.getlines(filename))
    if lines and known[first - 1 : first - 1 + len(lines)] != lines:
        # A cell has no file, and that of a script may be another one on this machine.
        known += ["\n"] * (first - 1 - len(known))
        known[first - 1 : first - 1 + len(lines)] = lines
        no_mtime = None  # linecache looks for no file then
        linecache.cache[filename] = sum(map(len, known)), no_mtime, known, filename
    return make(*arguments).replace(co_filename=filename)


class PackedFunction(NamedTuple):
    """A function on its way, in the forms in which a worker may try to have it."""

    name: str
    forms: tuple[bytes, ...]
    trouble: str = ""

    def unpacked(self) -> Callable[[Any], Any]:
        """Return the function; raise SerializationError if no form of it is any good here."""
        if self.trouble:
            raise SerializationError(self.trouble, function=True)
        for form in self.forms:
            function: Callable[[Any], Any]
            function, problem = attempted(unpack, form)
            if problem is None:
                return function
        assert problem is not None  # where there is no trouble, there is a form
        raise SerializationError(
            f"{self.name} cannot be loaded on the worker: {describe(problem)}. What it imports "
            f"must be installed there{_hint()}",
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
    named_form = attempted(pickle.dumps, function, 5)[0] if by_name else None  # no lambda's
    form, error = attempted(pack, function)
    if error is not None:
        trouble = f"{name} cannot be pickled: {describe(error)}"
        return PackedFunction(name, (), f"{trouble}{_to_blame(function)}{_hint()}")
    return PackedFunction(name, tuple(each for each in (named_form, form) if each is not None))


def _to_blame(function: Callable[[Any], Any]) -> str:
    """Return what of a function's surroundings is not to be pickled, as far as that can be said."""
    try:
        around = inspect.getclosurevars(inspect.unwrap(function))
    except (TypeError, ValueError):
        return ""
    found = {**around.globals, **around.nonlocals}
    bad = [name for name, value in found.items() if pickling_problem(value)]
    if not bad:
        return ""
    return f". It uses {', '.join(bad)}: make that inside the function, or where the worker starts"


def pickling_problem(value: object) -> str:
    """Return why a value cannot be pickled, or nothing if it can."""
    _, error = attempted(pack, value)
    return "" if error is None else describe(error)


def _hint() -> str:
    """Return what to install, where that may help."""
    try:
        import cloudpickle  # noqa: F401
    except ImportError:
        return f"; {HINT}"
    return ""


def each_hindrance(values: list[Any]) -> Iterator[tuple[int, str]]:
    """Yield the place of each value that cannot be pickled, and why."""
    for place, value in enumerate(values):
        if why := pickling_problem(value):
            yield place, why
