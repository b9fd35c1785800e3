"""Whether a call left its task and its context variables as it found them."""

from __future__ import annotations

import asyncio
from contextvars import Context
from gc import get_referents
from sys import getrefcount
from typing import Any
from weakref import getweakrefcount

_UNBOUND = object()


class TaskState:
    """
    The state of a worker's task between two calls, to be compared after each call.

    Many calls run in one task, which is what makes them cheap, and a call can leave something on
    it that the next one would meet: a cancellation that is still to come, a raised `cancelling()`,
    other bindings of context variables, or a reference to the task, strong or weak, by which
    somebody may cancel it later (a timer) or find there what the call has left (a registry of
    sessions). A worker whose task has changed in any of these ways makes no further call; a fresh
    task takes its place. A clean call costs the comparison alone.

    Bindings count as the same only if they are the same objects: `==` belongs to other people's
    code. A context keeps its bindings in one immutable mapping, and in another one as soon as
    anything is set. So one look at which mapping it is tells that nothing was.

    Make it in the worker's own task, when everything that the engine keeps of that task is there.

    Args:
        context: the task's own.

    Attributes:
        task: the worker's task.
        context: its context.
        bindings: the mapping in which that keeps its bindings.
        observers: how many weak references to the task there are.
    """

    __slots__ = ("_before", "_references", "bindings", "context", "observers", "task")

    def __init__(self, context: Context) -> None:
        self.task: Any = asyncio.current_task()
        self.context = context
        self.bindings = get_referents(context)[-1]
        self.observers = getweakrefcount(self.task)
        self._before = context.copy()
        self._references = getrefcount(self.task)

    def is_clean(self) -> bool:
        """Return whether a further call may be made in this task."""
        task = self.task
        return (
            not task.cancelling()
            and not task._must_cancel  # before 3.13, uncancel() leaves it set
            and getrefcount(task) == self._references + 1  # the name above
            and getweakrefcount(task) == self.observers
            and self.has_same_bindings()
        )

    def has_same_bindings(self) -> bool:
        """Return whether every context variable is bound to the very object that it was."""
        now, before = self.context, self._before
        bindings = get_referents(now)[-1]
        if bindings is self.bindings:
            return True
        if len(now) != len(before):
            return False
        if any(before.get(variable, _UNBOUND) is not value for variable, value in now.items()):
            return False
        # Set and reset: another mapping of the same.
        self._before, self.bindings = now.copy(), bindings
        return True
