"""
What is said of errors, and on them: safe also with those that break when they are asked.

Secrets that an error quotes are masked in everything that is said of it: in frames, panels, logs
and journals. The exception objects themselves, as in `result.errors`, stay as they were raised.
"""

from __future__ import annotations

from contextlib import suppress

from ragasync.masking.masked import masked


def type_name(error: BaseException) -> str:
    """Return the qualified name of an error's class, without module and enclosing functions."""
    return type(error).__qualname__.rpartition("<locals>.")[2]


def message_of(error: BaseException) -> str:
    """Return an error's message, whole but for secrets; the one way by which it becomes text."""
    try:
        return masked(str(error))
    except Exception:
        return f"<message of {type_name(error)} cannot be shown>"


def named(error: BaseException) -> str:
    """Return the type and the message of an error, as far as it has one."""
    message = message_of(error)
    return f"{type_name(error)}: {message}" if message else type_name(error)


def note_on(error: BaseException, note: str) -> None:
    """Add a note to an error; one that cannot be changed goes on without."""
    with suppress(Exception):  # a frozen dataclass, say
        error.add_note(note)


def show_in_one_line(error: BaseException, said: str) -> None:
    """Have IPython show this instead of a page of frames that nobody wrote; scripts show all."""
    line = f"{type(error).__name__}: {said}"
    with suppress(Exception):
        error._render_traceback_ = lambda *_: [line]  # type: ignore[attr-defined]  # IPython's
