"""
Guarded access to errors and objects that other people's code made.

An exception may have a `__getattr__` that raises, a `__class__` that lies, `__notes__` that are
None, a message of a megabyte, or a chain of causes that is a circle. Nothing here raises because
of that: an attribute whose reading fails counts as absent. Only KeyboardInterrupt and SystemExit
pass, because a signal handler may raise them anywhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final, TypeGuard, TypeVar, cast

E = TypeVar("E")

LONGEST_MESSAGE: Final = 4096
"""Characters of a foreign text that are looked at: enough for a message, bounded for a page."""

MOST_LINKS: Final = 256
"""Errors of one tree of groups and causes that are looked at."""

# The slots of the exception object itself, which a property of a subclass cannot hide or fake.
_CAUSE = vars(BaseException)["__cause__"].__get__
_CONTEXT = vars(BaseException)["__context__"].__get__
_SUPPRESSES = vars(BaseException)["__suppress_context__"].__get__
_MEMBERS = vars(BaseExceptionGroup)["exceptions"].__get__

INTERRUPTS: Final = (KeyboardInterrupt, SystemExit)
"""What ends a callback's caller too; every other error of a callback is the callback's own."""


def attribute(owner: object, name: str) -> object:
    """
    Return an attribute of a foreign object, or None where it has none or reading it raises.

    A property that warns when it is read is not read: nobody wrote the access that the warning
    would complain about.
    """
    try:
        getter = getattr(getattr(type(owner), name, None), "fget", None)
        if getter is not None and _warns(getter):
            return None
        value: object = getattr(owner, name, None)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a panic of PyO3 is no Exception
        return None
    return value


def field(owner: object, name: str) -> object:
    """Return the value of a foreign dict's key, or else of an object's attribute; or None."""
    if not issubclass(type(owner), dict):
        return attribute(owner, name)
    return guarded(dict.get, owner, name)


def guarded(read: Callable[..., object], *arguments: object) -> object:
    """Return the value of a look at a foreign object, or None where the look raises."""
    try:
        return read(*arguments)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        return None


def text_of(value: object, longest: int = LONGEST_MESSAGE) -> str:
    """Return the beginning of `str(value)`, or nothing where it cannot say."""
    text = guarded(str, value)
    # A subclass of str may cut itself into anything but text, so str does the cutting.
    return str.__getitem__(text, slice(longest)) if isinstance(text, str) else ""


def plain_text(value: object, longest: int = LONGEST_MESSAGE) -> str | None:
    """Return the beginning of a foreign str or bytes as an exact str; None for all else."""
    if value is None:
        return None
    if issubclass(type(value), str):
        return text_of(str.__str__(value), longest)
    if issubclass(type(value), bytes):
        return bytes.__getitem__(cast("bytes", value), slice(longest)).decode("latin-1")
    return None


def notes_of(error: BaseException) -> tuple[str, ...]:
    """Return the notes of an error as texts, each bounded; none where they are not a sequence."""
    notes = attribute(error, "__notes__")
    if not issubclass(type(notes), list | tuple):
        return ()
    found = guarded(lambda: tuple(text_of(note) for note in islice(notes, MOST_LINKS)))  # type: ignore[call-overload]
    return found if isinstance(found, tuple) else ()


def class_names(kind: type) -> tuple[str, ...]:
    """Return the names of a class and of its bases, its own first."""
    names = guarded(lambda: tuple(str(base.__name__) for base in kind.__mro__))
    return names if isinstance(names, tuple) else ("",)


def walk_errors(
    error: BaseException,
    *,
    contexts: bool = True,
    speaks_for_cause: Callable[[BaseException], bool] | None = None,
) -> Iterator[BaseException]:
    """
    Yield an error and everything it stands for, each once, the outermost first.

    After an error come the members of its group, then its explicit cause (`raise X from e`), or
    else its implicit context unless that is suppressed (`raise X from None`). At most MOST_LINKS
    are yielded, so that a circle or a huge tree ends.

    Args:
        error: The outermost error.
        contexts: Whether implicit contexts count. To classify an error they must not: what is
            raised while a 404 is handled is no 404.
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
    """Return whether an error has neither members nor an explicit cause, as most have."""
    return _CAUSE(error) is None and not issubclass(type(error), BaseExceptionGroup)


def group_members(error: BaseException) -> tuple[BaseException, ...]:
    """Return the errors that an exception group holds; none where it is no group."""
    if not issubclass(type(error), BaseExceptionGroup):
        return ()
    members: tuple[BaseException, ...] = _MEMBERS(error)
    return members


def leaves_of(error: BaseException) -> list[BaseException]:
    """Return the errors of a group that are no groups themselves, in order; else the error."""
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
    """Yield what an error was explicitly raised from, the nearest cause first, each once."""
    seen = {id(error)}
    link: BaseException | None = _CAUSE(error)
    for _ in range(MOST_LINKS):
        if link is None or id(link) in seen:
            return
        seen.add(id(link))
        yield link
        link = _CAUSE(link)


def _behind(error: BaseException, contexts: bool) -> tuple[BaseException, ...]:
    """Return the error that this one was raised from, or while handling."""
    cause: BaseException | None = _CAUSE(error)
    if cause is None and contexts and not _SUPPRESSES(error):
        cause = _CONTEXT(error)
    return () if cause is None else (cause,)


def _warns(getter: object) -> bool:
    """Return whether a property's getter is deprecated, or calls `warnings.warn`."""
    code = getattr(getter, "__code__", None)
    return hasattr(getter, "__deprecated__") or "warn" in getattr(code, "co_names", ())


def beginning_of(value: object, longest: int) -> tuple[str, int] | None:
    """Return the beginning of `str(value)` as an exact str, and the length of the whole text."""
    text = guarded(str, value)
    if not issubclass(type(text), str):
        return None
    return str.__getitem__(cast("str", text), slice(longest)), str.__len__(cast("str", text))


def first_cause(error: BaseException) -> BaseException | None:
    """Return the innermost error that one was explicitly raised from, of a group its first leaf."""
    cause = None
    for cause in causes_of(error):  # noqa: B007  # the last one counts
        pass
    return None if cause is None else leaves_of(cause)[0]


def is_a(value: object, kinds: type[E] | tuple[type[E], ...]) -> TypeGuard[E]:
    """Return whether a value is of a kind, by its type: isinstance would read its `__class__`."""
    return issubclass(type(value), kinds)


def is_error(value: object) -> TypeGuard[BaseException]:
    """Return whether a value is an error."""
    return is_a(value, BaseException)
