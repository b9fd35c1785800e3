"""What stands for an error whose class cannot be loaded: the same name, message and verdict."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import islice
from typing import Any, Final, NamedTuple

from ragasync.calls.pickling import PLAIN
from ragasync.errors import RemoteError
from ragasync.foreign_errors import LONGEST_MESSAGE, attribute, group_members, text_of
from ragasync.redact import redact
from ragasync.retries.http import own_headers, own_status

MOST_PARTS: Final = 64
"""Attributes of an object, or entries of a container, that are looked at one by one."""

_HEAP_TYPE: Final = 1 << 9
"""The flag of classes that were made by a class statement; see Py_TPFLAGS_HEAPTYPE."""

_DICT: Final = vars(BaseException)["__dict__"]
"""What gives the `__dict__` of an error."""

_ANSWER: Final = (
    *("code", "type", "reason", "body", "response"),
    *("details", "error_details", "errors", "error"),
)
"""Where the errors of clients keep the decoded answer of a service."""


class Likeness(NamedTuple):
    """
    What is known of an error without its class, enough for a stand-in.

    Args:
        names: module and qualified name of its class and of those that this derives from, but for
            the built-in ones.
        base: the nearest built-in exception.
        message: its message.
        reply: the attributes that say what a service answered.
    """

    names: tuple[tuple[str, str], ...]
    base: type[BaseException]
    message: str
    reply: dict[str, Any]

    def stand_in(self, members: Sequence[BaseException] = ()) -> BaseException:
        """Return an error that says the same."""
        base: Any = self.base
        args: list[Any] = [self.message]
        if issubclass(base, BaseExceptionGroup):
            if members:
                args.append(members)
            else:  # they stayed behind, and Python has no group of none
                base = Exception
        kind = _class_named(self.names, base)
        error = kind.__new__(kind, *args)
        BaseException.__init__(error, *args)  # an OSError keeps its arguments no earlier than that
        dict_of(error).update(self.reply, _likeness=self)
        return error


def likeness_of(error: BaseException) -> Likeness:
    """Return what is known of an error without its class."""
    reply: dict[str, Any] = {}
    for name in _ANSWER:
        if (value := _plain_part(attribute(error, name))) is not None:
            reply[name] = value
    if (status := own_status(error)) is not None:
        reply["status_code"] = status
    if headers := own_headers(error):
        reply["headers"] = headers
    return plain_likeness(error)._replace(reply=reply)


def _plain_part(value: object, depth: int = 0) -> Any:
    """Return a value with whatever is no plain data left out: a stand-in is loaded anywhere."""
    if isinstance(value, str):
        return exact_text(value, 16 * LONGEST_MESSAGE)
    if type(value) in PLAIN or depth > 4:
        return value if type(value) in PLAIN else None
    inner = partial(_plain_part, depth=depth + 1)
    if isinstance(value, list | tuple):
        return [inner(each) for each in value[:MOST_PARTS]]
    if isinstance(value, dict):
        return {exact_text(name): inner(each) for name, each in islice(value.items(), MOST_PARTS)}
    return None


def exact_text(value: object, longest: int = LONGEST_MESSAGE) -> str:
    """Return the beginning of a value as text, and of a str's subclass too as a mere str."""
    return str.__str__(text_of(value, longest))


def plain_likeness(error: BaseException) -> Likeness:
    """Return the kind and the message of an error, as far as it has any."""
    kind = type(error)
    message = redact(exact_text(error, 16 * LONGEST_MESSAGE))
    return Likeness(names_of(kind), _nearest_builtin(kind), message, {})


def names_of(kind: type[BaseException]) -> tuple[tuple[str, str], ...]:
    """Return the names of a class and of its bases that are not built in, its own always."""
    own = [each for each in kind.__mro__ if each.__module__ != "builtins"] or [kind]
    return tuple((exact_text(each.__module__), exact_text(each.__qualname__)) for each in own)


@lru_cache(maxsize=1024)
def _class_named(names: tuple[tuple[str, str], ...], base: Any) -> type[BaseException]:
    """Return a class that reads as the one that an error had, and is a `base` as that was."""
    kinds: tuple[type, ...] = (RemoteError, base) if issubclass(base, Exception) else (base,)
    if base is Exception:
        kinds = (RemoteError,)
    for module, qualname in reversed(names):
        said = {"__module__": module, "__qualname__": qualname, "__doc__": None}
        name = qualname.rpartition(".")[2]
        kinds = (type(name, kinds, said | _STAND_IN),)
    return kinds[0]


def _message(error: Any) -> str:
    """Return what the error said that this one stands for."""
    said: str = error._likeness.message
    return said


def _reduced(error: Any) -> tuple[Any, ...]:
    """Return how a stand-in is pickled: its class is made anew wherever it is loaded."""
    return _loaded, (error._likeness, group_members(error)), error.__dict__


def _loaded(likeness: Likeness, members: Sequence[BaseException]) -> BaseException:
    """Return a stand-in that was pickled."""
    return likeness.stand_in(members)


_STAND_IN: Final[dict[str, Any]] = {
    "__str__": _message,
    "__reduce__": _reduced,
    "__init__": lambda *_: None,
}


def _nearest_builtin(kind: type[BaseException]) -> type[BaseException]:
    """Return the nearest exception of Python's own that a class derives from."""
    return next(
        each
        for each in kind.__mro__
        if each.__module__ == "builtins" and not each.__flags__ & _HEAP_TYPE
    )


def built_in(kind: type[BaseException]) -> type[BaseException]:
    """Return the nearest base that no class statement has made."""
    return next(each for each in kind.__mro__ if not each.__flags__ & _HEAP_TYPE)


def dict_of(error: BaseException) -> dict[str, Any]:
    """Return the attributes of an error, whatever its class makes of `__dict__`."""
    attributes: dict[str, Any] = _DICT.__get__(error)
    return attributes
