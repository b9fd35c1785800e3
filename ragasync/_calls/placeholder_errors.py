"""Placeholders for errors whose class cannot be loaded: same name, message and retry decision."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import islice
from typing import Any, Final, NamedTuple

from ragasync._calls.pickling import PLAIN
from ragasync._redact import redact
from ragasync._retries.http import own_headers, own_status
from ragasync.errors import RemoteError
from ragasync.foreign_errors import LONGEST_MESSAGE, attribute, group_members, text_of

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


class ErrorDescription(NamedTuple):
    """
    The parts of an error that do not need its class, enough for a placeholder.

    Args:
        names: the module and qualified name of its class and of that class's bases, without the
            built-in ones.
        base: the nearest built-in exception.
        message: its message.
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
