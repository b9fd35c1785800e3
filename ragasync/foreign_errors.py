"""
Guarded access to errors and objects that other people's code made.

An exception may have a `__getattr__` that raises, `__notes__` that are None, a message of a
megabyte, or a chain of causes that is a circle. Everything here answers all the same: whatever
such an object raises when it is asked counts as "it does not say". Only KeyboardInterrupt,
SystemExit and the like pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

LONGEST_MESSAGE: Final = 4096
"""Characters of a foreign text that are looked at: enough for a message, bounded for a page."""

MOST_LINKS: Final = 256
"""Errors of one tree of groups and causes that are looked at."""


def attribute(owner: object, name: str) -> object:
    """Return an attribute of a foreign object, or None where it has none or reading it raises."""
    try:
        value: object = getattr(owner, name, None)
    except Exception:
        return None
    return value


def text_of(value: object, longest: int = LONGEST_MESSAGE) -> str:
    """Return the beginning of `str(value)`, or nothing where it cannot say."""
    try:
        return str(value)[:longest]
    except Exception:
        return ""


def notes_of(error: BaseException) -> tuple[str, ...]:
    """Return the notes of an error as texts, each bounded; none where they are not a sequence."""
    notes = attribute(error, "__notes__")
    if not isinstance(notes, list | tuple):
        return ()
    return tuple(text_of(note) for note in notes[:MOST_LINKS])


def walk_errors(error: BaseException) -> Iterator[BaseException]:
    """
    Yield an error and everything it stands for, each once, the outermost first.

    After an error come the members of its group, then its explicit cause (`raise X from e`), or
    else its implicit context unless that is suppressed (`raise X from None`). At most MOST_LINKS
    are yielded, so that a circle or a huge tree ends.
    """
    waiting, seen = [error], {id(error)}
    for _ in range(MOST_LINKS):
        if not waiting:
            return
        link = waiting.pop(0)
        yield link
        for inner in (*group_members(link), *_behind(link)):
            if id(inner) not in seen:
                seen.add(id(inner))
                waiting.append(inner)


def group_members(error: BaseException) -> tuple[BaseException, ...]:
    """Return the errors that an exception group holds; none where it is no group."""
    if not isinstance(error, BaseExceptionGroup):
        return ()
    members = attribute(error, "exceptions")
    return members if isinstance(members, tuple) else ()


def leaves_of(error: BaseException) -> list[BaseException]:
    """Return the errors of a group that are no groups themselves, in order; else the error."""
    leaves, waiting = [], [error]
    for _ in range(MOST_LINKS):
        if not waiting:
            break
        link = waiting.pop(0)
        if members := group_members(link):
            waiting[:0] = members
        else:
            leaves.append(link)
    return leaves or [error]


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """Yield what an error was explicitly raised from, the nearest cause first, each once."""
    seen = {id(error)}
    link: object = attribute(error, "__cause__")
    for _ in range(MOST_LINKS):
        if not isinstance(link, BaseException) or id(link) in seen:
            return
        seen.add(id(link))
        yield link
        link = attribute(link, "__cause__")


def _behind(error: BaseException) -> tuple[BaseException, ...]:
    """Return the error that this one was raised from, or while handling."""
    cause = attribute(error, "__cause__")
    if isinstance(cause, BaseException):
        return (cause,)
    context = attribute(error, "__context__")
    if isinstance(context, BaseException) and not attribute(error, "__suppress_context__"):
        return (context,)
    return ()
