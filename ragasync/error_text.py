"""
What is said of errors, and on them: bounded, and safe with errors that break when they are asked.

Secrets that an error quotes are masked in everything that is said of it: in frames, panels, logs
and journals. The exception objects themselves, as in `result.errors`, stay as they were raised.
A text is cut before it is masked, so that the time does not depend on what a service replies.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from itertools import islice
from typing import Final, NamedTuple

from ragasync.errors import RagasyncError
from ragasync.foreign_errors import (
    LONGEST_MESSAGE,
    attribute,
    beginning_of,
    first_cause,
    group_members,
    leaves_of,
)
from ragasync.redact import redact

_LONGEST_WORD = 1024
"""How far back a cut looks for the beginning of the word that it would cut in two."""

LONGEST_NOTE: Final = 16_384
MOST_NOTES: Final = 20
"""Characters of a note, which may be the stack of a worker; and notes of one error."""

_LONGEST_CAUSE = 500
"""Characters that are said of what an error was raised from."""


class ErrorText(NamedTuple):
    """
    What tables and displays say of an error.

    Args:
        kind: the class, of a group that of its first leaf.
        message: what it says, with the innermost cause; of a group its first leaf, and how many
            more there are.
        own: what the error itself says.
    """

    kind: str
    message: str
    own: str


def type_name(error: BaseException) -> str:
    """Return the qualified name of an error's class, without module and enclosing functions."""
    try:
        return str.rpartition(type(error).__qualname__, "<locals>.")[2]
    except Exception:  # of a metaclass with ideas of its own
        return "Exception"


def safe_message(error: BaseException) -> str:
    """Return an error's own message, cut and masked; the one way by which it becomes text."""
    said = beginning_of(error, LONGEST_MESSAGE + 1)
    if said is None:
        return f"<message of {type_name(error)} cannot be shown>"
    return safe_text(*said)


def error_text(error: BaseException) -> ErrorText:
    """
    Return what tables and displays say of an error: what failed, not what passed it on.

    An error raised from another says so, unless its message has told it already, as those of
    ragasync do.
    """
    own = safe_message(error)
    if not group_members(error):
        return ErrorText(type_name(error), _with_cause(error, own), own)
    leaves = leaves_of(error)
    message = _with_cause(leaves[0], safe_message(leaves[0]))
    if len(leaves) > 1:
        message = f"{message} (and {len(leaves) - 1:,} more)".lstrip()
    return ErrorText(type_name(leaves[0]), message, own)


def _with_cause(error: BaseException, message: str) -> str:
    """Return an error's message, followed by that of what it was raised from in the first place."""
    cause = None if issubclass(type(error), RagasyncError) else first_cause(error)
    if cause is None:
        return message
    name, said = type_name(cause), safe_message(cause)
    if said in message and (said or name in message):
        return message
    said = cut(said, len(said), _LONGEST_CAUSE)
    return f"{message} (from {name}{': ' if said else ''}{said})".lstrip()


def safe_notes(error: BaseException) -> list[str]:
    """Return the notes on an error, each cut and masked; none where they are no list."""
    notes = attribute(error, "__notes__")
    if type(notes) not in (list, tuple):
        return []
    texts = [beginning_of(note, LONGEST_NOTE + 1) for note in islice(notes, MOST_NOTES)]  # type: ignore[call-overload]  # seen above
    return [redact(cut(*text, LONGEST_NOTE)) for text in texts if text]


def describe(error: BaseException) -> str:
    """Return the type and the message of an error, as far as it has one."""
    kind, message, _ = error_text(error)
    return f"{kind}: {message}" if message else kind


def safe_text(text: str, length: int | None = None) -> str:
    """
    Return a foreign text as it may be shown: of a few kilobytes, and without secrets.

    Args:
        text: the text, or as much of it as is longer than what may be shown.
        length: the characters of the whole text.
    """
    return _redact(cut(text, len(text) if length is None else length, LONGEST_MESSAGE))


_redact = lru_cache(maxsize=256)(redact)
"""Most calls that are tried again fail for the reason that the last one failed for."""


def cut(text: str, length: int, longest: int) -> str:
    """
    Return a text of at most so many characters, and how many were left out.

    The word at the cut is dropped: half of a secret would not be known as one.
    """
    if length <= longest:
        return text
    end = max(text.rfind(space, max(0, longest - _LONGEST_WORD), longest) for space in " \n\t")
    kept = text[: end if end > 0 else max(0, longest - _LONGEST_WORD)].rstrip()
    return f"{kept} … ({length - len(kept):,} more characters)".lstrip()


def add_note(error: BaseException, note: str) -> None:
    """Add a note to an error; one that cannot be changed goes on without."""
    with suppress(Exception):  # a frozen dataclass, say
        error.add_note(note)


def show_in_one_line(error: BaseException, said: str) -> None:
    """Have IPython show this instead of a page of frames that nobody wrote; scripts show all."""
    line = f"{type(error).__name__}: {said}"
    with suppress(Exception):
        error._render_traceback_ = lambda *_: [line]  # type: ignore[attr-defined]  # IPython's
