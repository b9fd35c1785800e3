"""TaskState: what calls leave behind in a worker's task and context, and their usage."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from gc import get_referents
from sys import getrefcount
from typing import Any
from weakref import getweakrefcount

from ragasync.cancellation import has_pending_cancel
from ragasync.usage import CallUsage, UsageTotals, current_call

_UNBOUND = object()


class TaskState:
    """
    The state of a worker's task between two calls, compared after each call.

    Many calls run in one task, which makes them cheap. A call can leave something behind there that
    would affect the next one: a pending cancellation, a raised `cancelling()`, other bindings of
    context variables, or a strong or weak reference to the task, through which a timer may cancel
    the task later, or a registry may find the call's session. A worker whose task has changed in
    any of these ways makes no further call; a fresh task takes over.

    A call can also leave a copy of the context behind, in a task, a thread or a timer. It does not
    affect the next call, but its code may report usage late, which must not be counted for the next
    call. So the next call then gets a CallUsage of its own. Binding one for each call would cost a
    third as much as everything else.

    A clean call costs only comparisons of reference counts. A context keeps its bindings in one
    immutable mapping, a hash trie, which copies of the context share. Setting a variable makes
    another mapping, which shares only parts of the first one. Either way one of the objects between
    the mapping and the value of `current_call` gets one more reference: the mapping itself, a node
    below its root (of a large mapping), or the value. So if all of their counts are as before,
    nothing was set, and no copy is left.

    Bindings count as the same only if they are the same objects, because `==` is foreign code.

    Make it in the worker's own task, when the engine has stored all its references to that task.

    Attributes:
        task: the worker's task.
        observers: the number of weak references to the task.
        mapping: where the context keeps its bindings.
        node: the node of the mapping that holds `usage`; None if it is the root.
        usage: what the current call reports its usage to.
        is_deep: whether there are further nodes, so that the counts of these three do not suffice.
    """

    __slots__ = (
        *("_before", "_counts", "_references", "_totals"),
        *("is_deep", "mapping", "node", "observers", "task", "usage"),
    )

    def __init__(self, totals: UsageTotals) -> None:
        self.task: Any = asyncio.current_task()
        self.observers = getweakrefcount(self.task)
        self._totals = totals
        self.node: object | None = None
        self._bind_usage()
        self._references = getrefcount(self.task)

    def is_clean(self) -> bool:
        """Whether another call may be made in this task."""
        task = self.task
        return (
            not has_pending_cancel(task)
            and getrefcount(task) == self._references + 1  # the local name above
            and getweakrefcount(task) == self.observers
            and ((not self.is_deep and self._count_references() == self._counts) or self.renew())
        )

    def renew(self) -> bool:
        """
        Prepare the context for the next call if one of the reference counts has changed.

        Returns:
            Whether every context variable is bound to the same object as before.
        """
        now, before = copy_context(), self._before
        is_same_mapping = get_referents(now)[-1] is self.mapping
        if not is_same_mapping:
            if len(now) != len(before):
                return False
            if any(before.get(variable, _UNBOUND) is not value for variable, value in now.items()):
                return False
        self.usage.end()
        self._bind_usage(is_same_trie=is_same_mapping)
        return True

    def _bind_usage(self, *, is_same_trie: bool = False) -> None:
        """
        Bind a new CallUsage in this context, and note who refers to it and to the mapping.

        `is_same_trie` says that the context has the same variables as before, and so the same
        nodes in the same places.
        """
        self.usage = CallUsage(self._totals)
        current_call.set(self.usage)
        self._before = copy_context()  # keeps the mapping alive
        self.mapping = get_referents(self._before)[-1]
        if not is_same_trie or self.node is not None:
            nodes = _nodes_above(self.usage, get_referents(self.mapping)[0])
            self.is_deep = nodes is None or len(nodes) > 1
            self.node = nodes[0] if nodes else None
        self._counts = self._count_references()

    def _count_references(self) -> tuple[int, int, int]:
        """Count the references to the mapping, to the node and to the value."""
        return getrefcount(self.mapping), getrefcount(self.node), getrefcount(self.usage)


def _nodes_above(value: object, root: object) -> list[object] | None:
    """List the nodes of a hash trie between its root and a value; None if it is not found."""
    children = get_referents(root)
    if any(child is value for child in children):
        return []
    for child in children:
        if type(child).__name__.startswith("hamt_"):
            below = _nodes_above(value, child)
            if below is not None:
                return [child, *below]
    return None
