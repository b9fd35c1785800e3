"""
Guarded access to errors and objects of foreign code.

An exception may have a `__getattr__` that raises, a `__class__` that lies, `__notes__` that are
None, a message of a megabyte, or a cycle in its chain of causes. No function here raises because of
that: an attribute that cannot be read counts as absent. Only KeyboardInterrupt and SystemExit
propagate, because a signal handler may raise them anywhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final, TypeGuard, TypeVar, cast

E = TypeVar("E")

LONGEST_MESSAGE: Final = 4096
"""Characters of a foreign text that are read: enough for a message, but not for a page of HTML."""

MOST_LINKS: Final = 256
"""Errors of one tree of groups and causes that are visited."""

# The slots of the exception object itself, which a property of a subclass cannot hide or fake.
_CAUSE = vars(BaseException)["__cause__"].__get__
_CONTEXT = vars(BaseException)["__context__"].__get__
_SUPPRESSES = vars(BaseException)["__suppress_context__"].__get__
_MEMBERS = vars(BaseExceptionGroup)["exceptions"].__get__

INTERRUPTS: Final = (KeyboardInterrupt, SystemExit)
"""Errors of a callback that its caller must raise too; all others are the callback's own."""

EXITS: Final = (*INTERRUPTS, GeneratorExit)
"""Errors of a call that end a run in the same process, instead of failing the call's item."""


def attribute(owner: object, name: str) -> object:
    """
    Read an attribute of a foreign object; None if it has none, or reading it raises.

    A property that warns when it is read is not read: the user did not write the access that the
    warning would be about.
    """
    try:
        getter = getattr(getattr(type(owner), name, None), "fget", None)
        if getter is not None and _warns(getter):
            return None
        value: object = getattr(owner, name, None)
    except INTERRUPTS:
        raise
    except BaseException:  # a panic of PyO3 is not an Exception
        return None
    return value


def field(owner: object, name: str) -> object:
    """Read a key of a foreign dict, or else an attribute of an object; None if there is neither."""
    if not issubclass(type(owner), dict):
        return attribute(owner, name)
    return guarded(dict.get, owner, name)


def guarded(read: Callable[..., object], *arguments: object) -> object:
    """Call a function that reads a foreign object; None if it raises."""
    try:
        return read(*arguments)
    except INTERRUPTS:
        raise
    except BaseException:
        return None


def text_of(value: object, longest: int = LONGEST_MESSAGE) -> str:
    """The beginning of `str(value)`; empty if that raises."""
    text = guarded(str, value)
    # Slicing a subclass of str may return anything, so str's own method does it.
    return str.__getitem__(text, slice(longest)) if isinstance(text, str) else ""


def plain_text(value: object, longest: int = LONGEST_MESSAGE) -> str | None:
    """The beginning of a foreign str or bytes as an exact str; None for other types."""
    if value is None:
        return None
    if issubclass(type(value), str):
        return text_of(str.__str__(value), longest)
    if issubclass(type(value), bytes):
        return bytes.__getitem__(cast("bytes", value), slice(longest)).decode("latin-1")
    return None


def notes_of(error: BaseException) -> tuple[str, ...]:
    """The notes of an error as bounded texts; none if they are not a list or tuple."""
    notes = attribute(error, "__notes__")
    if not issubclass(type(notes), list | tuple):
        return ()
    found = guarded(lambda: tuple(text_of(note) for note in islice(notes, MOST_LINKS)))  # type: ignore[call-overload]
    return found if isinstance(found, tuple) else ()


def class_names(kind: type) -> tuple[str, ...]:
    """The names of a class and its bases, its own first."""
    names = guarded(lambda: tuple(str(base.__name__) for base in kind.__mro__))
    return names if isinstance(names, tuple) else ("",)


def walk_errors(
    error: BaseException,
    *,
    contexts: bool = True,
    speaks_for_cause: Callable[[BaseException], bool] | None = None,
) -> Iterator[BaseException]:
    """
    Yield each error in a tree of groups, causes and contexts once, the outermost first.

    After an error come the members of its group, then its explicit cause (`raise X from e`), or
    else its implicit context unless that is suppressed (`raise X from None`). At most MOST_LINKS
    are yielded, so that a cycle or a huge tree ends.

    Args:
        error: The outermost error.
        contexts: Whether implicit contexts count. To classify an error they must not: an error
            raised while a 404 is handled is not a 404.
        speaks_for_cause: Tells whether an error makes its cause irrelevant.
    """
    waiting, seen = deque([error]), {id(error)}
    for _ in range(MOST_LINKS):
        if not waiting:
            return
        link = waiting.popleft()
        yield link
        inner: Iterable[BaseException] = group_members(link)[:MOST_LINKS]
        if speaks_for_cause is None or not speaks_for_cause(link):
            inner = (*inner, *_behind(link, contexts))
        for each in inner:
            if id(each) not in seen:
                seen.add(id(each))
                waiting.append(each)


def stands_alone(error: BaseException) -> bool:
    """Whether an error has neither members nor an explicit cause, like most errors."""
    return _CAUSE(error) is None and not issubclass(type(error), BaseExceptionGroup)


def group_members(error: BaseException) -> tuple[BaseException, ...]:
    """The errors in an exception group; none if the error is not a group."""
    if not issubclass(type(error), BaseExceptionGroup):
        return ()
    members: tuple[BaseException, ...] = _MEMBERS(error)
    return members


def leaves_of(error: BaseException) -> list[BaseException]:
    """The errors in a group that are not groups themselves, in order; of other errors, itself."""
    leaves, waiting = list[BaseException](), deque([error])
    for _ in range(MOST_LINKS):
        if not waiting:
            break
        link = waiting.popleft()
        if members := group_members(link):
            waiting.extendleft(reversed(members[:MOST_LINKS]))
        else:
            leaves.append(link)
    return leaves or [error]


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """Yield the explicit causes of an error, the nearest first, each once."""
    seen = {id(error)}
    link: BaseException | None = _CAUSE(error)
    for _ in range(MOST_LINKS):
        if link is None or id(link) in seen:
            return
        seen.add(id(link))
        yield link
        link = _CAUSE(link)


def _behind(error: BaseException, contexts: bool) -> tuple[BaseException, ...]:
    """The error that this one was raised from, or that was being handled."""
    cause: BaseException | None = _CAUSE(error)
    if cause is None and contexts and not _SUPPRESSES(error):
        cause = _CONTEXT(error)
    return () if cause is None else (cause,)


def _warns(getter: object) -> bool:
    """Whether a property's getter is deprecated, or calls `warnings.warn`."""
    code = getattr(getter, "__code__", None)
    return hasattr(getter, "__deprecated__") or "warn" in getattr(code, "co_names", ())


def beginning_of(value: object, longest: int) -> tuple[str, int] | None:
    """The beginning of `str(value)` as an exact str, and the length of the whole text."""
    text = guarded(str, value)
    if not issubclass(type(text), str):
        return None
    return str.__getitem__(cast("str", text), slice(longest)), str.__len__(cast("str", text))


def first_cause(error: BaseException) -> BaseException | None:
    """The innermost explicit cause of an error; if that is a group, its first leaf."""
    cause = None
    for cause in causes_of(error):  # noqa: B007  # the last one counts
        pass
    return None if cause is None else leaves_of(cause)[0]


def is_a(value: object, kinds: type[E] | tuple[type[E], ...]) -> TypeGuard[E]:
    """Whether a value is an instance, by its type: isinstance would read its `__class__`."""
    return issubclass(type(value), kinds)


def is_error(value: object) -> TypeGuard[BaseException]:
    """Whether a value is an exception."""
    return is_a(value, BaseException)
