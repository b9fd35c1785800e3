"""Tracebacks kept as text: one text for each kind of error and place, however often it happens."""

from __future__ import annotations

import os.path
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType

from ragasync.masking.masked import masked

KEPT_OF_EACH_KIND = 20
"""How many errors of each type keep their live `__traceback__`, for a debugger."""

_OURS = os.path.dirname(os.path.dirname(__file__))  # noqa: PTH120  # pathlib would be half of the import


class TracebackArchive:
    """
    Turns tracebacks into shared texts, so that 100,000 errors hold no frames.

    A live traceback keeps every local variable of every frame alive. The first
    KEPT_OF_EACH_KIND errors of each type keep theirs; the others lose it, along their causes and
    contexts too, and all keep the text.
    """

    def __init__(self) -> None:
        self._texts: dict[object, str] = {}
        self._seen: Counter[type[BaseException]] = Counter()

    def keep(self, error: BaseException) -> str:
        """Return the stack of an error as text, and drop the live one if there are enough."""
        places = tuple(_places(error))
        text = self._texts.get(places)
        if text is None:
            text = self._texts[places] = _stack_text(error)
        self._seen[type(error)] += 1
        if self._seen[type(error)] > KEPT_OF_EACH_KIND:
            for link in _chain(error):
                with suppress(Exception):  # a frozen dataclass keeps its own
                    link.__traceback__ = None
        return text


class NoArchive(TracebackArchive):
    """Leaves errors as they are: they go on to a run that keeps their tracebacks."""

    def keep(self, error: BaseException) -> str:  # noqa: ARG002
        """Return nothing."""
        return ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error with its causes, contexts and group members, each once."""
    waiting, seen = [error], {id(error)}
    while waiting:
        link = waiting.pop()
        yield link
        members = link.exceptions if isinstance(link, BaseExceptionGroup) else ()
        for other in (link.__cause__, link.__context__, *members):
            if other is not None and id(other) not in seen:
                seen.add(id(other))
                waiting.append(other)


def _places(error: BaseException) -> Iterator[object]:
    """Yield the types and code lines that tell one kind of failure from another."""
    for link in _chain(error):
        yield type(link)
        frame = link.__traceback__
        while frame is not None:
            yield frame.tb_frame.f_code, frame.tb_lineno
            frame = frame.tb_next


def _beyond_ours(frames: TracebackType | None) -> TracebackType | None:
    """Skip the leading frames that are this package's own: the user's code begins below."""
    entry = frames
    while entry is not None and entry.tb_frame.f_code.co_filename.startswith(_OURS):
        entry = entry.tb_next
    return entry or frames


def _stack_text(error: BaseException) -> str:
    """Return the stack without the closing line, which has the message of each error itself."""
    lines = traceback.TracebackException(
        type(error), error, _beyond_ours(error.__traceback__)
    ).format(chain=True)
    return masked("".join(lines).removesuffix(_closing_lines(error)))


def closing_lines(error: BaseException) -> str:
    """Return how a traceback ends: the type, the message and the notes, with secrets masked."""
    return masked(_closing_lines(error))


def whole_text(error: BaseException) -> str:
    """Return the traceback that an error still carries as text, with secrets masked."""
    return masked("".join(traceback.format_exception(error)))


def _closing_lines(error: BaseException) -> str:
    """Return how a traceback ends, as it is."""
    return "".join(traceback.format_exception_only(error))
