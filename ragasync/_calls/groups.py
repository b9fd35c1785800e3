"""Groups of items: what travels to an executor in one hand-over, and the result of each item."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from typing import Any, NamedTuple

from ragasync._bridge.run_async import run_async
from ragasync._calls.pickling import (
    PickledFunction,
    dumps,
    loads,
    pickle_function,
    pickling_problems,
    try_call,
)
from ragasync._calls.remote_errors import PickledError, aborted_call, pickle_error, unpickle_error
from ragasync.error_text import describe
from ragasync.errors import SerializationError
from ragasync.foreign_errors import EXITS, is_a
from ragasync.usage import CallUsage, Usage, UsageTotals, current_call

CACHED_FUNCTIONS = 4
"""How many functions a worker keeps: each run has one."""

GROUP_SECONDS = 0.1
"""Seconds that the items of one group should take together: ten times a hand-over on a cluster."""

MAX_GROUP_SECONDS = 0.25
"""Seconds after which a worker returns the rest of a group that takes longer than expected."""

MAIN = b"__main__"
"""The name of the module whose functions are pickled by value."""


class GroupSize:
    """
    The size of groups that adapts to the time of their items: as many as take GROUP_SECONDS.

    Groups of quick items share the cost of their hand-over, which is milliseconds on a cluster.
    Slow items travel alone, so that each worker has some. When slow ones come after many quick
    ones, their worker returns those that it has not called after MAX_GROUP_SECONDS.

    Args:
        most: the maximum number of items in a group.
        first: the size of the first groups: nobody knows how slow their items are.

    Attributes:
        current: the maximum number of items in the next group.
    """

    def __init__(self, most: int, first: int = 1) -> None:
        self._most = most
        self._item_seconds: float | None = None
        self.current = first

    def add(self, seconds: Sequence[float]) -> None:
        """Adapt the size to the time that each item of a group took."""
        if not seconds:
            return
        mean = sum(seconds) / len(seconds)
        before = mean if self._item_seconds is None else self._item_seconds
        self._item_seconds = (before + mean) / 2
        fitting = GROUP_SECONDS / max(self._item_seconds, 1e-9)
        self.current = max(1, min(self._most, int(fitting)))


class ItemNames(Sequence[str]):
    """The names of a group's items in errors, made from their indices only when needed."""

    __slots__ = ("_indices",)

    def __init__(self, indices: tuple[int, ...]) -> None:
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, place: Any) -> Any:
        return f"item {self._indices[place]}"

    def __reduce__(self) -> tuple[type[ItemNames], tuple[tuple[int, ...]]]:
        return ItemNames, (self._indices,)


class RemoteFunction:
    """A run's function for its executor: pickled once, and only if it leaves this process."""

    def __init__(self, function: Callable[[Any], Any], *, by_name: bool = False) -> None:
        self.function = function
        self._by_name = by_name
        self._token = os.urandom(16).hex()
        self._pickled: PickledFunction | None = None

    @property
    def pickled(self) -> tuple[str, PickledFunction]:
        """The pickled function, and the token under which a worker caches it."""
        if self._pickled is None:
            self._pickled = pickle_function(self.function, by_name=self._by_name)
        return self._token, self._pickled


class ItemResult(NamedTuple):
    """The value or the error of one item of a group, and the seconds that its call took."""

    value: Any
    error: Exception | None
    seconds: float


class GroupResult:
    """
    The results of a group, in columns: pickling and unpickling an object per item costs 12 µs.

    It has results for the first items only if the group has exceeded its `max_seconds`.

    On a thread it is handed over as it is. When it is pickled, a value that cannot be pickled
    becomes the error of its item alone.

    Attributes:
        values: one for each call; None for those that failed.
        seconds: the time that each call took.
        errors: the errors of failed calls, by place.
        usage: what calls reported, by place.
        uncounted: all that calls reported in another process, which the run has yet to count.
        names: the name of each item, for errors.
        problem: why nothing was called, or no result can be read, if so.
    """

    __slots__ = ("errors", "names", "problem", "seconds", "uncounted", "usage", "values")

    def __init__(self, names: Sequence[str], problem: Exception | None = None) -> None:
        self.values: list[Any] = []
        self.seconds: list[float] = []
        self.errors: dict[int, Exception] = {}
        self.usage: dict[int, Usage] = {}
        self.uncounted: Usage | None = None
        self.names = names
        self.problem = problem

    def add_error(self, place: int, error: Exception) -> None:
        """Record the error of a call."""
        self.values.append(None)
        self.errors[place] = error

    def take(self) -> list[ItemResult]:
        """
        Take the result of each item out of this object, which keeps none of them.

        The traceback of an error leads to the executor's own frames, and through them to this
        object: they would hold each other.
        """
        errors = map(self.errors.get, range(len(self.values)))
        items = list(map(ItemResult, self.values, errors, self.seconds))
        self.values, self.errors = [], {}
        return items

    def __reduce__(self) -> tuple[Callable[..., GroupResult], tuple[object, ...]]:
        problem = None
        if self.problem is not None:
            problem = pickle_error(self.problem, with_stack=False)
        errors = dict(self.errors)
        values, unpicklable = try_call(dumps, self.values)
        if unpicklable is not None:
            kept = list(self.values)
            for place, why in pickling_problems(self.values):
                kept[place] = None
                errors[place] = SerializationError(
                    f"the value of {self.names[place]} cannot be pickled: {why}. Return plain data"
                )
            values = dumps(kept)
        pickled = {place: pickle_error(error) for place, error in errors.items()}
        usage = None if self.uncounted is None else (self.usage, self.uncounted)
        # Dask pickles a result a second time if it finds this in it, as in many Python files.
        parts = values.split(MAIN)
        return _unpickle_result, (self.names, parts, self.seconds, pickled, problem, usage)


class ItemGroup:
    """
    Several items on their way to a worker, with the function to call for each.

    An executor of threads hands it over as it is. An executor of processes pickles it: then the
    function goes by value, and items that cannot be pickled stay behind, and fail alone. Context
    variables stay behind too.

    Args:
        names: the name of each item, for errors.
        context: copied for each call in this process; by default the thread's own.
        max_seconds: when they have passed, the worker returns what it has not called yet.
        totals: counts the usage of calls in this process; by default one of its own.
    """

    __slots__ = ("arguments", "context", "function", "max_seconds", "names", "totals")

    def __init__(
        self,
        function: RemoteFunction,
        arguments: Sequence[Any],
        names: Sequence[str],
        *,
        context: Context | None = None,
        totals: UsageTotals | None = None,
        max_seconds: float = math.inf,
    ) -> None:
        self.function, self.arguments, self.names = function, arguments, names
        self.context, self.max_seconds = context, max_seconds
        self.totals = totals or UsageTotals()

    def load(self) -> tuple[Callable[[Any], Any], Sequence[Any], dict[int, str]]:
        """Get the function, the arguments, and the problems of arguments by place."""
        return self.function.function, self.arguments, {}

    def __dask_tokenize__(self) -> str:
        """Keep Dask from answering two equal groups with one result."""
        return os.urandom(16).hex()

    def __reduce__(self) -> tuple[Callable[..., PickledGroup], tuple[object, ...]]:
        left_behind: dict[int, str] = {}
        arguments, unpicklable = try_call(dumps, self.arguments)
        if unpicklable is not None:
            kept = list(self.arguments)
            for place, why in pickling_problems(kept):
                kept[place] = None
                left_behind[place] = f"{self.names[place]} cannot be pickled: {why}"
            arguments = dumps(kept)
        function = self.function.pickled
        return PickledGroup, (*function, arguments, self.names, left_behind, self.max_seconds)


class PickledGroup(NamedTuple):
    """A group that has left its process; the worker loads it where an error harms no other."""

    token: str
    function: PickledFunction
    arguments: bytes
    names: Sequence[str]
    left_behind: dict[int, str]
    max_seconds: float

    @property
    def totals(self) -> UsageTotals:
        """
        What counts the usage of the function's calls in this process.

        A report that comes after its group has returned travels with a later group's result.
        """
        return _totals.setdefault(self.token, UsageTotals())

    def load(self) -> tuple[Callable[[Any], Any], Sequence[Any], dict[int, str]]:
        """
        Get the function, the arguments, and the problems of arguments by place.

        Raises:
            SerializationError: the function or the arguments cannot be loaded here.
        """
        function = _functions.get(self.token)
        if function is None:
            function = _functions[self.token] = self.function.load()
            for oldest in list(_functions)[:-CACHED_FUNCTIONS]:
                _functions.pop(oldest, None)
                _totals.pop(oldest, None)
        arguments, problem = try_call(loads, self.arguments)
        if problem is not None:
            names = ", ".join(self.names)
            raise SerializationError(
                f"{names} cannot be loaded on the worker: {describe(problem)}"
            ) from problem
        return function, arguments, self.left_behind


_functions: dict[str, Callable[[Any], Any]] = {}
"""The functions that this worker has loaded: a function keeps its globals from group to group."""

_totals: dict[str, UsageTotals] = {}
"""The usage of each of them that no result has taken along yet."""


def _unpickle_result(
    names: Sequence[str],
    parts: list[bytes],
    seconds: list[float],
    errors: dict[int, PickledError],
    problem: PickledError | None,
    usage: tuple[dict[int, Usage], Usage] | None,
) -> GroupResult:
    """Load a result that was pickled; never raises, because that would break the pool."""
    result = GroupResult(names, None if problem is None else unpickle_error(problem))
    result.seconds = seconds
    if usage is not None:
        result.usage, result.uncounted = usage
    result.errors = {place: unpickle_error(error) for place, error in errors.items()}
    result.values, raised = try_call(loads, MAIN.join(parts))
    if raised is not None:
        of = ", ".join(names)
        result.problem = SerializationError(
            f"the value of {of} came back and cannot be loaded: {describe(raised)}"
        )
    return result


def run_group(group: ItemGroup | PickledGroup) -> GroupResult:
    """
    Call the function for each item of a group, on the worker; the error of an item is its own.

    Calls are made one after the other, also those of async functions: so no more calls are in
    flight than `max_concurrency` groups. Async functions run on one loop, which lives as long as
    the worker. Each call has its own copy of the context: no other call sees what it sets there.
    """
    result = GroupResult(group.names)
    try:
        function, arguments, left_behind = group.load()
    except SerializationError as problem:
        result.problem = problem
        return result
    base = group.context if isinstance(group, ItemGroup) else None
    totals = group.totals
    outer = None if base is None else base.get(current_call)
    limiters = () if outer is None else outer.limiters
    ends_at = time.perf_counter() + group.max_seconds
    try:
        for place, argument in enumerate(arguments):
            started = time.perf_counter()
            if started >= ends_at and place:
                break
            usage = CallUsage(totals, limiters)
            try:
                if place in left_behind:
                    raise SerializationError(left_behind[place])
                context = copy_context() if base is None else base.copy()
                result.values.append(context.run(_call, function, argument, usage))
            except Exception as raised:
                result.add_error(place, raised)
            except BaseException as raised:
                if isinstance(group, ItemGroup) and is_a(raised, EXITS):
                    raise  # on a thread of the caller's own process, it is that which exits
                result.add_error(place, aborted_call(raised))
            result.seconds.append(time.perf_counter() - started)
            usage.end()
            if usage.reported is not None:
                result.usage[place] = usage.reported
            if outer is not None:
                outer.merge_covered(usage)
        if isinstance(group, PickledGroup):
            used = totals.take()
            result.uncounted = used if any(used) else None
        return result
    finally:
        del group, result, arguments  # errors refer to this frame, and the result to the errors


def _call(function: Callable[[Any], Any], argument: object, usage: CallUsage) -> object:
    """Call a function, and await its value on the worker's own loop if it is awaitable."""
    current_call.set(usage)
    value = function(argument)
    return run_async(value) if hasattr(type(value), "__await__") else value
