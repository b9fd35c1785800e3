"""
Pickling by value: functions and classes of a notebook reach other processes and come back.

An error whose class cannot be loaded on the other side is replaced by a placeholder with the same
name, message and retry decision.
"""

from __future__ import annotations

import inspect
import io
import linecache
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache, partial
from itertools import islice
from types import CodeType, ModuleType
from typing import Any, Final, NamedTuple

from ragasync._retries.http import own_headers, own_status
from ragasync.error_text import describe
from ragasync.errors import RemoteError, SerializationError
from ragasync.foreign_errors import LONGEST_MESSAGE, attribute, group_members, is_a, text_of
from ragasync.redact import redact

HINT = (
    "functions and classes of a notebook or script are pickled with cloudpickle: "
    'pip install "ragasync[processes]"'
)

PLAIN = frozenset({int, float, str, bytes, bool, type(None)})
"""Types whose values refer to no other objects."""


def dumps(value: object) -> bytes:
    """
    Pickle a value, with lambdas and the functions and classes of a cell by value.

    A worker that was forked before the cell ran, or that runs elsewhere, does not know them by
    name. Without cloudpickle everything is pickled by name.
    """
    if type(value) is list and PLAIN.issuperset(map(type, value)):
        return pickle.dumps(value, 5)  # a third of the time, because no functions are looked for
    try:
        import cloudpickle
    except ImportError:
        return pickle.dumps(value, 5)
    buffer = io.BytesIO()
    _pickler_of(cloudpickle)(buffer, 5).dump(value)
    return buffer.getvalue()


loads = pickle.loads


def try_call(function: Callable[..., Any], *arguments: Any) -> tuple[Any, BaseException | None]:
    """
    Call a function; return its value and None, or None and the error that it raised.

    Pickling runs code of the pickled objects, mostly on a thread of the executor: if that thread
    dies of a SystemExit, or of a panic in an extension module, no call ever returns again. An
    interrupt of the main thread comes from the user, and propagates.
    """
    try:
        return function(*arguments), None
    except BaseException as raised:
        is_main = threading.current_thread() is threading.main_thread()
        if is_a(raised, KeyboardInterrupt) and is_main:
            raise
        return None, raised


@cache
def _pickler_of(cloudpickle: ModuleType) -> Any:
    """Extend cloudpickle's pickler so that code carries its file name and source lines."""
    pickler: Any = cloudpickle.CloudPickler
    table_of_all = pickler.dispatch_table
    reduce_code = table_of_all[CodeType]

    def with_source(code: CodeType) -> tuple[Any, ...]:
        return _code_with_source, (*reduce_code(code), code.co_filename, *_source_lines(code))

    def dispatch_table(_: Any) -> dict[type, Any]:
        # A plain dict for each pickler: each object is looked up in it, and cloudpickle's ChainMap
        # is one of Python code. It is not kept, because other libraries may add to copyreg's table.
        found: dict[type, Any] = {}
        for table in reversed(getattr(table_of_all, "maps", [table_of_all])):
            found.update(table)
        found[CodeType] = with_source
        return found

    return type("SourcePickler", (pickler,), {"dispatch_table": property(dispatch_table)})


def _source_lines(code: CodeType) -> tuple[int, list[str]]:
    """The number of the first source line of a code object, and its lines if there are any."""
    last = max((end or 0 for _, end, _, _ in code.co_positions()), default=0)
    first = code.co_firstlineno
    return first, linecache.getlines(code.co_filename)[max(0, first - 1) : last]


def _code_with_source(
    make: Callable[..., CodeType], arguments: Any, filename: str, first: int, lines: list[str]
) -> CodeType:
    """Make a code object from another process, and have tracebacks show its lines here."""
    known = list(linecache.getlines(filename))
    if lines and known[first - 1 : first - 1 + len(lines)] != lines:
        # A cell has no file, and the script's file may be a different one on this machine.
        known += ["\n"] * (first - 1 - len(known))
        known[first - 1 : first - 1 + len(lines)] = lines
        no_mtime = None  # linecache looks for no file then
        linecache.cache[filename] = sum(map(len, known)), no_mtime, known, filename
    return make(*arguments).replace(co_filename=filename)


class PickledFunction(NamedTuple):
    """A pickled function, in the forms that a worker tries one after the other."""

    name: str
    forms: tuple[bytes, ...]
    problem: str = ""

    def load(self) -> Callable[[Any], Any]:
        """
        Load the function.

        Raises:
            SerializationError: it could not be pickled, or no form of it can be loaded here.
        """
        if self.problem:
            raise SerializationError(self.problem, function=True)
        for form in self.forms:
            function: Callable[[Any], Any]
            function, error = try_call(loads, form)
            if error is None:
                return function
        assert error is not None  # without a problem, there is a form
        raise SerializationError(
            f"{self.name} cannot be loaded on the worker: {describe(error)}. The packages "
            f"that it imports must be installed there{_hint()}",
            function=True,
        )


def pickle_function(function: Callable[[Any], Any], *, by_name: bool) -> PickledFunction:
    """
    Pickle a function, or say why it cannot be pickled.

    Args:
        function: any callable; messages name the functions in its `user_functions` instead.
        by_name: whether a worker that knows it by name uses its own function. This is necessary if
            the pool's initializer has set globals that the function reads.
    """
    parts: Sequence[Callable[[Any], Any]] = getattr(function, "user_functions", (function,))
    name = " and ".join(map(_name_of, parts))
    named_form = try_call(pickle.dumps, function, 5)[0] if by_name else None  # none of a lambda
    form, error = try_call(dumps, function)
    if error is not None:
        culprit = next((part for part in parts if pickling_problem(part)), function)
        problem = f"{_name_of(culprit)} cannot be pickled: {describe(error)}"
        return PickledFunction(name, (), f"{problem}{_culprits(culprit)}{_hint()}")
    return PickledFunction(name, tuple(each for each in (named_form, form) if each is not None))


def _name_of(function: Callable[[Any], Any]) -> str:
    """Name of a function, for messages."""
    return f"the function {getattr(function, '__qualname__', function)!s}"


def _culprits(function: Callable[[Any], Any]) -> str:
    """Name the variables that a function uses and that cannot be pickled, as far as is known."""
    try:
        variables = inspect.getclosurevars(inspect.unwrap(function))
    except (TypeError, ValueError):
        return ""
    found = {**variables.globals, **variables.nonlocals}
    bad = [name for name, value in found.items() if pickling_problem(value)]
    if not bad:
        return ""
    return f". It uses {', '.join(bad)}: make that inside the function, or where the worker starts"


def pickling_problem(value: object) -> str:
    """Say why a value cannot be pickled; empty if it can."""
    _, error = try_call(dumps, value)
    return "" if error is None else describe(error)


def pickling_problems(values: list[Any]) -> Iterator[tuple[int, str]]:
    """Yield the place of each value that cannot be pickled, and the reason."""
    for place, value in enumerate(values):
        if why := pickling_problem(value):
            yield place, why


def _hint() -> str:
    """Say which extra to install, if it is missing."""
    try:
        import cloudpickle  # noqa: F401
    except ImportError:
        return f"; {HINT}"
    return ""


MAX_PARTS: Final = 64
"""Attributes of an object, or entries of a container, that are examined one by one."""

_HEAP_TYPE: Final = 1 << 9
"""The flag of classes made by a class statement; see Py_TPFLAGS_HEAPTYPE."""

_DICT: Final = vars(BaseException)["__dict__"]
"""The descriptor of the `__dict__` of errors."""

_REPLY_BODY: Final = (
    *("code", "type", "reason", "body", "response"),
    *("details", "error_details", "errors", "error"),
)
"""Attributes in which clients' errors keep the decoded reply of a service."""


# ── placeholders for errors ─────────────────────────────────────────────────────────────────────


class ErrorDescription(NamedTuple):
    """
    The parts of an error that do not need its class, enough for a placeholder.

    Args:
        names: the module and qualified name of its class and of that class's bases, without the
            built-in ones.
        reply: the attributes that describe the reply of a service.
    """

    names: tuple[tuple[str, str], ...]
    base: type[BaseException]
    message: str
    reply: dict[str, Any]

    def placeholder(self, members: Sequence[BaseException] = ()) -> BaseException:
        """Make an error that says the same."""
        base: Any = self.base
        args: list[Any] = [self.message]
        if issubclass(base, BaseExceptionGroup):
            if members:
                args.append(members)
            else:  # they were not pickled, and Python has no empty group
                base = Exception
        kind = _placeholder_class(self.names, base)
        error = kind.__new__(kind, *args)
        BaseException.__init__(error, *args)  # only this stores the arguments of an OSError
        dict_of(error).update(self.reply, _description=self)
        return error


def describe_error(error: BaseException) -> ErrorDescription:
    """Describe an error, including the reply of a service that it carries."""
    reply: dict[str, Any] = {}
    for name in _REPLY_BODY:
        if (value := _plain_data(attribute(error, name))) is not None:
            reply[name] = value
    if (status := own_status(error)) is not None:
        reply["status_code"] = status
    if headers := own_headers(error):
        reply["headers"] = headers
    return describe_plainly(error)._replace(reply=reply)


def _plain_data(value: object, depth: int = 0) -> Any:
    """Reduce a value to plain data, because a placeholder must load anywhere."""
    if isinstance(value, str):
        return plain_str(value, 16 * LONGEST_MESSAGE)
    if type(value) in PLAIN or depth > 4:
        return value if type(value) in PLAIN else None
    inner = partial(_plain_data, depth=depth + 1)
    if isinstance(value, list | tuple):
        return [inner(each) for each in value[:MAX_PARTS]]
    if isinstance(value, dict):
        return {plain_str(name): inner(each) for name, each in islice(value.items(), MAX_PARTS)}
    return None


def plain_str(value: object, longest: int = LONGEST_MESSAGE) -> str:
    """The beginning of a value as text; a subclass of str becomes an exact str."""
    return str.__str__(text_of(value, longest))


def describe_plainly(error: BaseException) -> ErrorDescription:
    """Describe an error by its class and message only."""
    kind = type(error)
    message = redact(plain_str(error, 16 * LONGEST_MESSAGE))
    return ErrorDescription(class_names_of(kind), _nearest_builtin(kind), message, {})


def class_names_of(kind: type[BaseException]) -> tuple[tuple[str, str], ...]:
    """The names of an error class and its bases, without built-in bases."""
    own = [each for each in kind.__mro__ if each.__module__ != "builtins"] or [kind]
    return tuple((plain_str(each.__module__), plain_str(each.__qualname__)) for each in own)


@lru_cache(maxsize=1024)
def _placeholder_class(names: tuple[tuple[str, str], ...], base: Any) -> type[BaseException]:
    """Make an error class with these names that derives from `base`."""
    kinds: tuple[type, ...] = (RemoteError, base) if issubclass(base, Exception) else (base,)
    if base is Exception:
        kinds = (RemoteError,)
    for module, qualname in reversed(names):
        attributes = {"__module__": module, "__qualname__": qualname, "__doc__": None}
        name = qualname.rpartition(".")[2]
        kinds = (type(name, kinds, attributes | _PLACEHOLDER_METHODS),)
    return kinds[0]


def _str(error: Any) -> str:
    """The message of the error that this placeholder stands for."""
    message: str = error._description.message
    return message


def _reduce(error: Any) -> tuple[Any, ...]:
    """Pickle a placeholder by its description: its class is made again where it is loaded."""
    parts = error._description, group_members(error)
    return ErrorDescription.placeholder, parts, error.__dict__


_PLACEHOLDER_METHODS: Final[dict[str, Any]] = {
    "__str__": _str,
    "__reduce__": _reduce,
    "__init__": lambda *_: None,
}


def _nearest_builtin(kind: type[BaseException]) -> type[BaseException]:
    """The nearest of Python's own exceptions that an error class derives from."""
    return next(
        each
        for each in kind.__mro__
        if each.__module__ == "builtins" and not each.__flags__ & _HEAP_TYPE
    )


def builtin_base(kind: type[BaseException]) -> type[BaseException]:
    """The nearest base of an error class that is written in C."""
    return next(each for each in kind.__mro__ if not each.__flags__ & _HEAP_TYPE)


def dict_of(error: BaseException) -> dict[str, Any]:
    """The attributes of an error, whatever its class does with `__dict__`."""
    attributes: dict[str, Any] = _DICT.__get__(error)
    return attributes
