"""Tracebacks kept as text: one text for each kind of error and place, however often it happens."""

from __future__ import annotations

import os.path
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from types import TracebackType

from ragasync.error_text import cut, safe_message, safe_notes
from ragasync.foreign_errors import MOST_LINKS, attribute, group_members, is_error
from ragasync.redact import redact

KEPT_OF_EACH_KIND = 20
"""How many errors of each type keep their live `__traceback__`, for a debugger."""

LONGEST_STACK = 32_768
"""Characters of a stack, with all its causes: beyond are those that repeat themselves."""

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
    """Yield an error with its causes, contexts and group members, each once, at most MOST_LINKS."""
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


def frames_of(error: BaseException) -> TracebackType | None:
    """Return the live traceback of an error, if it has one, whatever its class makes of names."""
    frames: TracebackType | None = BaseException.__dict__["__traceback__"].__get__(error)
    return frames


def _places(error: BaseException) -> Iterator[object]:
    """Yield the types and code lines that tell one kind of failure from another."""
    for link in _chain(error):
        yield type(link)
        frame = frames_of(link)
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
    text = _formatted(error, _beyond_ours(frames_of(error)))
    return _safe(text.removesuffix(closing_lines(error)))


def whole_text(error: BaseException) -> str:
    """Return the traceback that an error still carries as text, with secrets masked."""
    return _safe(_formatted(error, frames_of(error)))


def _safe(text: str) -> str:
    """Return the text of a traceback, bounded and with secrets masked."""
    return redact(cut(text, len(text), LONGEST_STACK)) + (
        "" if len(text) <= LONGEST_STACK else "\n"
    )


def closing_lines(error: BaseException, message: str | None = None) -> str:
    """
    Return how a traceback ends: the type, the message and the notes, with secrets masked.

    Args:
        error: the error.
        message: what `safe_message` says of it, where that is known.
    """
    said = safe_message(error) if message is None else message
    name = _full_name(type(error))  # type: ignore[arg-type]  # classes can be hashed
    notes = "".join(f"{note}\n" for note in safe_notes(error))
    return f"{name}: {said}\n{notes}" if said else f"{name}\n{notes}"


@lru_cache(maxsize=256)
def _full_name(kind: type[BaseException]) -> str:
    """Return the name of an error's class as tracebacks have it: with its module."""
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
    """Return an error as `traceback` formats it, whatever it answers when it is asked."""
    try:
        twin = _twin(error, {})
        return "".join(traceback.TracebackException(type(twin), twin, frames).format())
    except Exception:  # of a loader that is asked for the source of a frame, say
        return closing_lines(error)


def _twin(error: BaseException, known: dict[int, BaseException]) -> BaseException:
    """Return an error that says the same, but briefly, without secrets, and without fail."""
    module, name = _module_and_name(type(error))
    members = group_members(error) if len(known) < MOST_LINKS else ()
    said = safe_message(error)
    body = {"__module__": module, "__qualname__": name, "__str__": lambda _: said}
    known[id(error)] = placeholder = Exception()
    if members:
        inner = [_twin_of(member, known) or placeholder for member in members[:MOST_LINKS]]
        twin: BaseException = type(name, (BaseExceptionGroup,), body)("", inner)
    else:
        twin = type(name, (Exception,), body)()
    known[id(error)] = twin
    for note in safe_notes(error):
        twin.add_note(note)
    twin.__cause__ = _twin_of(attribute(error, "__cause__"), known)
    twin.__context__ = _twin_of(attribute(error, "__context__"), known)
    twin.__suppress_context__ = bool(attribute(error, "__suppress_context__"))
    return twin.with_traceback(frames_of(error))


def _twin_of(error: object, known: dict[int, BaseException]) -> BaseException | None:
    """Return the twin of an error that another hangs on; none beyond MOST_LINKS."""
    if not is_error(error):
        return None
    if id(error) in known:
        return known[id(error)]
    return _twin(error, known) if len(known) < MOST_LINKS else None
