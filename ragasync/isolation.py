"""Whether a call left its task and its context variables as it found them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from gc import get_referents
from sys import getrefcount
from typing import Any

_UNBOUND = object()

_current_task: Callable[[], Any] = asyncio.current_task
"""Of no type, because `_must_cancel` is in no stub."""

_PLAIN = (str, bytes, type(None))
"""Types whose equal values nobody can tell apart, as one can 1 and True."""


def may_equal_another(value: object) -> bool:
    """Return whether a value may equal another that one could tell from it."""
    kind = type(value)
    return kind not in _PLAIN and type.__getattribute__(kind, "__eq__") is not object.__eq__


class TaskState:
    """
    The state of a worker's task between two calls, to be compared after each call.

    Many calls run in one task, which is what makes them cheap, and a call can leave something on
    it that the next one would meet: a cancellation that is still to come, a raised `cancelling()`,
    other bindings of context variables, or a reference to the task that somebody may use to cancel
    it later (a timer, a registry). A worker whose task has changed in any of these ways makes no
    further call; a fresh task takes its place. A clean call costs the comparison alone.

    Bindings count as the same only if they are the same objects. The bindings of a context are one
    immutable mapping, which every copy of the context shares until something is set. Two things
    tell quickly that nothing was, and the hot loop looks at both: how many references to that
    mapping there are, and whether a copy of the context equals the one from before, which for a
    shared mapping compares two pointers. Only if either differs are the bindings looked at one by
    one; where some value may equal another that is not the same, they are after each call.

    Make it in the worker's own task, when everything that the engine keeps of that task is there.

    Attributes:
        task: the worker's task.
        cancelling: its method of that name.
        context: a copy of its context.
        bindings: the mapping of that context.
    """

    __slots__ = ("_references", "bindings", "cancelling", "context", "task")

    def __init__(self) -> None:
        self.task = _current_task()
        self.cancelling: Callable[[], int] = self.task.cancelling
        self.context = copy_context()
        self.bindings = get_referents(self.context)[-1]
        self._references = getrefcount(self.task)

    def is_clean(self) -> bool:
        """Return whether a further call may be made in this task."""
        return (
            not self.cancelling()
            and not self.task._must_cancel  # before 3.13, uncancel() leaves it set
            and getrefcount(self.task) == self._references
            and self.has_same_bindings()
        )

    def has_same_bindings(self) -> bool:
        """Return whether every context variable is bound to the very object that it was."""
        now, before = copy_context(), self.context
        bindings = get_referents(now)[-1]
        if bindings is self.bindings:
            return True
        if len(now) != len(before):
            return False
        if any(before.get(variable, _UNBOUND) is not value for variable, value in now.items()):
            return False
        # Set and reset: another mapping of the same.
        self.context, self.bindings = now, bindings
        return True
