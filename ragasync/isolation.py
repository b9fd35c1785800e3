"""Isolation of calls: whether a call left its task and its context variables as it found them."""

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
    The state of a worker's task between two calls, compared after each call.

    Many calls run in one task, which makes them cheap. A call can leave something behind there that
    would affect the next one: a pending cancellation, a raised `cancelling()`, other bindings of
    context variables, or a strong or weak reference to the task, through which a timer may cancel
    the task later, or a registry may find the call's session. A worker whose task has changed in
    any of these ways makes no further call; a fresh task takes over. A clean call costs only the
    comparison.

    Bindings count as the same only if they are the same objects, because `==` is foreign code. A
    context keeps its bindings in one immutable mapping, and in a different mapping as soon as
    anything is set. So an unchanged address of that mapping shows that nothing was set, as long as
    the mapping of before is kept alive and its address cannot be reused.

    Make it in the worker's own task, when the engine has stored all its references to that task.

    Args:
        context: the task's own context.
        before: the context that it is a fresh copy of.

    Attributes:
        task: the worker's task.
        mapping: gives the address of the mapping in which the context keeps its bindings.
        address: that address while nothing has been set.
        observers: the number of weak references to the task.
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
        self._context, self._before = context, before  # a copy keeps the mapping alive
        self._references = getrefcount(self.task)

    def is_clean(self) -> bool:
        """Whether another call may be made in this task."""
        task = self.task
        return (
            not has_pending_cancel(task)
            and getrefcount(task) == self._references + 1  # the local name above
            and getweakrefcount(task) == self.observers
            and self.has_same_bindings()
        )

    def has_same_bindings(self) -> bool:
        """Whether every context variable is bound to the same object as before."""
        if self.mapping.value == self.address:
            return True
        now, before = self._context, self._before
        if len(now) != len(before):
            return False
        if any(before.get(variable, _UNBOUND) is not value for variable, value in now.items()):
            return False
        # Something was set and reset: a different mapping with the same bindings.
        self._before, self.address = now.copy(), self.mapping.value
        return True


class Address(Protocol):
    """Gives the current address of an object."""

    @property
    def value(self) -> int | None:
        """The address."""


class _SearchedAddress:
    """Looks up the mapping of a context each time."""

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
    Choose how the address of a context's mapping is read.

    Asking the garbage collector for the objects that a context refers to takes as long as a call
    that returns immediately. So the pointer is read in place, if that gives the same address.
    """
    try:
        from ctypes import c_void_p, sizeof
    except ImportError:
        return _SearchedAddress
    word, at = sizeof(c_void_p), c_void_p.from_address
    one, other = copy_context(), Context()
    other.run(_UNUSED.set, None)
    for offset in range(2 * word, object.__sizeof__(one) - word + 1, word):
        if all(at(id(each) + offset).value == id(_mapping_of(each)) for each in (one, other)):
            return lambda context: at(id(context) + offset)
    return _SearchedAddress


def _mapping_of(context: Context) -> object:
    """The mapping of a context: the last of the objects that it refers to."""
    return get_referents(context)[-1]


_UNUSED: ContextVar[None] = ContextVar("ragasync_unused")
