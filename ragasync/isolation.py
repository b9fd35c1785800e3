"""Whether a call left its task and its context variables as it found them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from functools import cache
from gc import get_referents
from sys import getrefcount
from typing import Any, Protocol
from weakref import getweakrefcount

from ragasync.cancellation import has_pending_cancel

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
    anything is set. So the address of that mapping tells that nothing was, as long as the mapping
    of before is kept alive, whose address no other can have.

    Make it in the worker's own task, when everything that the engine keeps of that task is there.

    Args:
        context: the task's own.
        before: the context that this is a fresh copy of.

    Attributes:
        task: the worker's task.
        mapping: tells the address of the mapping in which the context keeps its bindings.
        address: what that is while nothing has been set.
        observers: how many weak references to the task there are.
    """

    __slots__ = (
        *("_before", "_context", "_references"),
        *("address", "mapping", "observers", "task"),
    )

    def __init__(self, context: Context, before: Context) -> None:
        self.task: Any = asyncio.current_task()
        self.observers = getweakrefcount(self.task)
        self.mapping = _pointer()(context)
        self.address = self.mapping.value
        self._context, self._before = context, before  # which keeps the mapping alive
        self._references = getrefcount(self.task)

    def is_clean(self) -> bool:
        """Return whether a further call may be made in this task."""
        task = self.task
        return (
            not has_pending_cancel(task)
            and getrefcount(task) == self._references + 1  # the name above
            and getweakrefcount(task) == self.observers
            and self.has_same_bindings()
        )

    def has_same_bindings(self) -> bool:
        """Return whether every context variable is bound to the very object that it was."""
        if self.mapping.value == self.address:
            return True
        now, before = self._context, self._before
        if len(now) != len(before):
            return False
        if any(before.get(variable, _UNBOUND) is not value for variable, value in now.items()):
            return False
        # Set and reset: another mapping of the same.
        self._before, self.address = now.copy(), self.mapping.value
        return True


class Address(Protocol):
    """Tells where something is now."""

    @property
    def value(self) -> int | None:
        """The address."""


class _LookedUp:
    """Looks for the mapping of a context each time."""

    __slots__ = ("_context",)

    def __init__(self, context: Context) -> None:
        self._context = context

    @property
    def value(self) -> int:
        """The address of the mapping."""
        return id(_mapping_of(self._context))


@cache
def _pointer() -> Callable[[Context], Address]:
    """
    Return what makes the Address of a context's mapping.

    To have the collector's view of a context answer takes as long as a call that returns at once.
    So the pointer is read in place, where that gives the same.
    """
    try:
        from ctypes import c_void_p, sizeof
    except ImportError:
        return _LookedUp
    word, at = sizeof(c_void_p), c_void_p.from_address
    one, other = copy_context(), Context()
    other.run(_UNUSED.set, None)
    for offset in range(2 * word, object.__sizeof__(one) - word + 1, word):
        if all(at(id(each) + offset).value == id(_mapping_of(each)) for each in (one, other)):
            return lambda context: at(id(context) + offset)
    return _LookedUp


def _mapping_of(context: Context) -> object:
    """Return the mapping of a context: the last of the objects that it refers to."""
    return get_referents(context)[-1]


_UNUSED: ContextVar[None] = ContextVar("ragasync_unused")
