"""
Error texts: messages, notes and tracebacks as bounded text, with secrets redacted.

Everything that shows an error (a frame, a panel, a log, a journal) takes its text from here, and
nothing here raises, whatever the error's own methods do. Exception objects, as in `result.errors`,
stay as they were raised.

A text is cut before it is redacted, so that a reply of megabytes costs no more than one of
kilobytes.
"""

from __future__ import annotations

import os.path
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from types import TracebackType
from typing import Final, NamedTuple

from ragasync.errors import RagasyncError
from ragasync.foreign_errors import (
    LONGEST_MESSAGE,
    MOST_LINKS,
    attribute,
    beginning_of,
    first_cause,
    group_members,
    is_error,
    leaves_of,
)
from ragasync.redact import redact

_LONGEST_WORD = 1024
"""How far back a cut looks for the beginning of the word that it would split, in characters."""

LONGEST_NOTE: Final = 16_384
"""The most characters of one note, which may be a worker's stack."""

MOST_NOTES: Final = 20
"""The most notes of one error."""

LONGEST_STACK: Final = 32_768
"""The most characters of a stack with all its causes; longer ones repeat themselves."""

LIVE_TRACEBACKS: Final = 20
"""How many errors of each type keep their live `__traceback__`, for a debugger."""

_LONGEST_CAUSE = 500
"""The most characters that are quoted of the error that another was raised from."""

_PACKAGE = os.path.dirname(__file__) + os.sep  # noqa: PTH120  # pathlib is slow to import


class ErrorText(NamedTuple):
    """
    The class and message of an error, for tables and displays.

    Args:
        kind: The class name; for a group, that of its first leaf.
        message: The message, with the innermost cause; for a group, the message of its first leaf
            and the number of the others.
        own: The message of the error itself.
    """

    kind: str
    message: str
    own: str


# ── messages ────────────────────────────────────────────────────────────────────────────────


def type_name(error: BaseException) -> str:
    """Return the qualified class name of an error, without module and enclosing functions."""
    try:
        return str.rpartition(type(error).__qualname__, "<locals>.")[2]
    except Exception:  # raised by a metaclass
        return "Exception"


def safe_message(error: BaseException) -> str:
    """Return an error's own message, cut and redacted; nothing else turns one into text."""
    message = beginning_of(error, LONGEST_MESSAGE + 1)
    if message is None:
        return f"<message of {type_name(error)} cannot be shown>"
    return safe_text(*message)


def error_text(error: BaseException) -> ErrorText:
    """
    Return the class and message of an error, with its root cause, for tables and displays.

    The cause is left out if the message quotes it already, and for errors of ragasync, which do.
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
    """Return an error's message, followed by that of its root cause."""
    cause = None if issubclass(type(error), RagasyncError) else first_cause(error)
    if cause is None:
        return message
    name, quoted = type_name(cause), safe_message(cause)
    if quoted in message and (quoted or name in message):
        return message
    quoted = cut(quoted, len(quoted), _LONGEST_CAUSE)
    return f"{message} (from {name}{': ' if quoted else ''}{quoted})".lstrip()


def safe_notes(error: BaseException) -> list[str]:
    """Return the notes of an error, each cut and redacted; [] if its `__notes__` is no list."""
    notes = attribute(error, "__notes__")
    if type(notes) not in (list, tuple):
        return []
    texts = [beginning_of(note, LONGEST_NOTE + 1) for note in islice(notes, MOST_NOTES)]  # type: ignore[call-overload]  # seen above
    return [redact(cut(*text, LONGEST_NOTE)) for text in texts if text]


def describe(error: BaseException) -> str:
    """Return the class and the message of an error, as in "ValueError: not a number"."""
    kind, message, _ = error_text(error)
    return f"{kind}: {message}" if message else kind


def safe_text(text: str, length: int | None = None) -> str:
    """
    Return a foreign text as it may be shown: a few kilobytes at most, and without secrets.

    Args:
        text: The text, or its beginning if it is longer than what may be shown.
        length: The number of characters of the whole text.
    """
    return _cached_redact(cut(text, len(text) if length is None else length, LONGEST_MESSAGE))


_cached_redact = lru_cache(maxsize=256)(redact)
"""Cached because most retries fail with the message of the attempt before."""


def cut(text: str, length: int, longest: int) -> str:
    """
    Return a text of at most `longest` characters, with the number of characters left out.

    The word at the cut is dropped, because half of a secret would not be recognised as one.
    """
    if length <= longest:
        return text
    end = max(text.rfind(space, max(0, longest - _LONGEST_WORD), longest) for space in " \n\t")
    kept = text[: end if end > 0 else max(0, longest - _LONGEST_WORD)].rstrip()
    return f"{kept} … ({length - len(kept):,} more characters)".lstrip()


def add_note(error: BaseException, note: str) -> None:
    """Add a note to an error, unless the error cannot be changed."""
    with suppress(Exception):  # a frozen dataclass, say
        error.add_note(note)


def show_in_one_line(error: BaseException, message: str) -> None:
    """Make IPython show an error as one line instead of a traceback of ragasync's own frames."""
    line = f"{type(error).__name__}: {message}"
    with suppress(Exception):
        error._render_traceback_ = lambda *_: [line]  # type: ignore[attr-defined]  # IPython's


# ── tracebacks ──────────────────────────────────────────────────────────────────────────────


class TracebackArchive:
    """
    Keeps tracebacks as shared texts, so that 100,000 errors hold no frames.

    A live traceback keeps every local variable of every frame alive. The first LIVE_TRACEBACKS
    errors of each type keep theirs; the others lose it, and so do their causes and contexts.
    Errors raised at the same lines share one text.
    """

    def __init__(self) -> None:
        self._texts: dict[object, str] = {}
        self._seen: Counter[type[BaseException]] = Counter()

    def keep(self, error: BaseException) -> str:
        """Return the stack of an error as text, and drop its live traceback after the first few."""
        places = tuple(_raised_at(error))
        text = self._texts.get(places)
        if text is None:
            text = self._texts[places] = _stack_text(error)
        self._seen[type(error)] += 1
        if self._seen[type(error)] > LIVE_TRACEBACKS:
            for link in _linked_errors(error):
                with suppress(Exception):  # a frozen dataclass keeps its own
                    link.__traceback__ = None
        return text


class NoArchive(TracebackArchive):
    """A traceback archive that keeps nothing: another run archives these errors."""

    def keep(self, error: BaseException) -> str:  # noqa: ARG002
        """Return an empty text."""
        return ""


def _linked_errors(error: BaseException) -> Iterator[BaseException]:
    """
    Yield an error with its causes, contexts and group members, each once, at most MOST_LINKS.

    Unlike `walk_errors` it includes suppressed contexts: they hold frames too.
    """
    waiting, seen = [error], {id(error)}
    for _ in range(MOST_LINKS):
        if not waiting:
            return
        link = waiting.pop()
        yield link
        behind = (attribute(link, "__cause__"), attribute(link, "__context__"))
        for other in (*behind, *group_members(link)):
            if is_error(other) and id(other) not in seen:
                seen.add(id(other))
                waiting.append(other)


def live_traceback(error: BaseException) -> TracebackType | None:
    """Return the live traceback of an error, also if its class overrides attribute access."""
    frames: TracebackType | None = BaseException.__dict__["__traceback__"].__get__(error)
    return frames


def _raised_at(error: BaseException) -> Iterator[object]:
    """Yield the types and code lines by which errors are grouped."""
    for link in _linked_errors(error):
        yield type(link)
        frame = live_traceback(link)
        while frame is not None:
            yield frame.tb_frame.f_code, frame.tb_lineno
            frame = frame.tb_next


def _user_frames(frames: TracebackType | None) -> TracebackType | None:
    """Return a traceback without the leading frames of this package."""
    entry = frames
    while entry is not None and entry.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        entry = entry.tb_next
    return entry or frames


def _stack_text(error: BaseException) -> str:
    """Return the stack of an error without its last lines: each error has a message of its own."""
    text = _formatted(error, _user_frames(live_traceback(error)))
    return _safe_stack(text.removesuffix(closing_lines(error)))


def traceback_text(error: BaseException) -> str:
    """Return the live traceback of an error as text, cut and redacted."""
    return _safe_stack(_formatted(error, live_traceback(error)))


def _safe_stack(text: str) -> str:
    """Return the text of a traceback, cut and redacted."""
    return redact(cut(text, len(text), LONGEST_STACK)) + (
        "" if len(text) <= LONGEST_STACK else "\n"
    )


def closing_lines(error: BaseException, message: str | None = None) -> str:
    """
    Return the last lines of a traceback: the class, the message and the notes, redacted.

    Args:
        error: The error.
        message: Its `safe_message`, if that is known.
    """
    message = safe_message(error) if message is None else message
    name = _full_name(type(error))  # type: ignore[arg-type]  # classes can be hashed
    notes = "".join(f"{note}\n" for note in safe_notes(error))
    return f"{name}: {message}\n{notes}" if message else f"{name}\n{notes}"


@lru_cache(maxsize=256)
def _full_name(kind: type[BaseException]) -> str:
    """Return the class name of an error with its module, as tracebacks print it."""
    module, name = _module_and_name(kind)
    return name if module in ("builtins", "__main__") else f"{module}.{name}"


def _module_and_name(kind: type[BaseException]) -> tuple[str, str]:
    """Return the module and the qualified name of an error's class."""
    module, name = attribute(kind, "__module__"), attribute(kind, "__qualname__")
    return (
        module if isinstance(module, str) else "builtins",
        name if isinstance(name, str) else "Exception",
    )


def _formatted(error: BaseException, frames: TracebackType | None) -> str:
    """Return an error as `traceback` formats it, or its last lines if formatting raises."""
    try:
        copy = _safe_copy(error, {})
        return "".join(traceback.TracebackException(type(copy), copy, frames).format())
    except Exception:  # raised by a loader that is asked for a frame's source, say
        return closing_lines(error)


def _safe_copy(error: BaseException, copies: dict[int, BaseException]) -> BaseException:
    """Return an error with the same class name, a safe message, and copies of its causes."""
    module, name = _module_and_name(type(error))
    members = group_members(error) if len(copies) < MOST_LINKS else ()
    message = safe_message(error)
    body = {"__module__": module, "__qualname__": name, "__str__": lambda _: message}
    copies[id(error)] = placeholder = Exception()
    if members:
        inner = [_copy_of(member, copies) or placeholder for member in members[:MOST_LINKS]]
        copy: BaseException = type(name, (BaseExceptionGroup,), body)("", inner)
    else:
        copy = type(name, (Exception,), body)()
    copies[id(error)] = copy
    for note in safe_notes(error):
        copy.add_note(note)
    copy.__cause__ = _copy_of(attribute(error, "__cause__"), copies)
    copy.__context__ = _copy_of(attribute(error, "__context__"), copies)
    copy.__suppress_context__ = bool(attribute(error, "__suppress_context__"))
    return copy.with_traceback(live_traceback(error))


def _copy_of(error: object, copies: dict[int, BaseException]) -> BaseException | None:
    """Return the safe copy of a linked error; None beyond MOST_LINKS."""
    if not is_error(error):
        return None
    if id(error) in copies:
        return copies[id(error)]
    return _safe_copy(error, copies) if len(copies) < MOST_LINKS else None
