"""A hop: items on their way to a worker with the function, and what comes back of each."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from typing import Any, NamedTuple

from ragasync.bridge.run_async import run_async
from ragasync.calls.pickling import (
    PackedFunction,
    attempted,
    each_hindrance,
    pack,
    packed_function,
    unpack,
)
from ragasync.calls.remote_errors import PackedError, aborted, packed_error, unpacked_error
from ragasync.error_text import describe
from ragasync.errors import SerializationError
from ragasync.foreign_errors import is_a

KEPT = 4
"""How many functions a worker keeps: each run has one."""

ENDS_THE_PROCESS = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""What ends a run where it is raised in its own process."""


class ItemNames(Sequence[str]):
    """What the items of a hop are called in errors: made of their indices when there is one."""

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
    """
    A run's function as it goes to workers: packed once, and only if it leaves this process.

    Args:
        function: what to call.
        by_name: see `packed_function`.
    """

    def __init__(self, function: Callable[[Any], Any], *, by_name: bool = False) -> None:
        self.function = function
        self._by_name = by_name
        self._token = os.urandom(16).hex()
        self._packed: PackedFunction | None = None

    @property
    def packed(self) -> tuple[str, PackedFunction]:
        """The function as bytes, and the token by which a worker knows that it has it."""
        if self._packed is None:
            self._packed = packed_function(self.function, by_name=self._by_name)
        return self._token, self._packed


class GroupItem(NamedTuple):
    """What became of one item of a hop: a value or an error, and the seconds that it took."""

    value: Any
    error: Exception | None
    seconds: float


class GroupResult:
    """
    What comes back of a hop: columns, because an object an item costs 12 µs to pickle and unpickle.

    On a thread it is handed over as it is. When it is pickled, a value that cannot be becomes the
    error of its item alone.

    Attributes:
        values: one for each call; None for those that failed.
        seconds: what each took.
        errors: those of the calls that failed, by place.
        names: says of each place what was called for, for errors.
        trouble: why nothing was called, or nothing can be read, if so.
    """

    __slots__ = ("errors", "names", "seconds", "trouble", "values")

    def __init__(self, names: Sequence[str], trouble: Exception | None = None) -> None:
        self.values: list[Any] = []
        self.seconds: list[float] = []
        self.errors: dict[int, Exception] = {}
        self.names = names
        self.trouble = trouble

    def failed(self, place: int, error: Exception) -> None:
        """Note the error of a call."""
        self.values.append(None)
        self.errors[place] = error

    def taken(self) -> list[GroupItem]:
        """
        Return what became of each item, and keep nothing of it.

        The traceback of an error leads to the executor's own frames, and through them to this
        reply: they would hold each other.
        """
        errors = map(self.errors.get, range(len(self.values)))
        items = list(map(GroupItem, self.values, errors, self.seconds))
        self.values, self.errors = [], {}
        return items

    def __reduce__(self) -> tuple[Callable[..., GroupResult], tuple[object, ...]]:
        trouble = None
        if self.trouble is not None:
            trouble = packed_error(self.trouble, with_stack=False)
        errors = dict(self.errors)
        values, problem = attempted(pack, self.values)
        if problem is not None:
            kept = list(self.values)
            for place, why in each_hindrance(self.values):
                kept[place] = None
                errors[place] = SerializationError(
                    f"the value of {self.names[place]} cannot be pickled: {why}. Return plain data"
                )
            values = pack(kept)
        packed = {place: packed_error(error) for place, error in errors.items()}
        return _arrived_reply, (self.names, values, self.seconds, packed, trouble)


class ItemGroup:
    """
    Items on their way to a worker.

    An executor of threads hands it over as it is; one that pickles it sends the function by value
    and leaves behind those items that cannot be pickled, whose error comes back in their place.
    Context variables stay behind too.

    Args:
        errand: the function.
        arguments: what to call it with, one after the other.
        names: says of each what it is, for errors.
        context: what each call gets a copy of, in this process; by default what the thread has.
    """

    __slots__ = ("arguments", "context", "errand", "names")

    def __init__(
        self,
        errand: RemoteFunction,
        arguments: Sequence[Any],
        names: Sequence[str],
        *,
        context: Context | None = None,
    ) -> None:
        self.errand, self.arguments, self.names = errand, arguments, names
        self.context = context

    def opened(self) -> tuple[Callable[[Any], Any], Sequence[Any], dict[int, str]]:
        """Return function, arguments, and which of these cannot be used, and why."""
        return self.errand.function, self.arguments, {}

    def __dask_tokenize__(self) -> str:
        """Tell Dask that no two hops are alike: it gives one answer to equal calls."""
        return os.urandom(16).hex()

    def __reduce__(self) -> tuple[Callable[..., PackedHop], tuple[object, ...]]:
        left_behind: dict[int, str] = {}
        arguments, problem = attempted(pack, self.arguments)
        if problem is not None:
            kept = list(self.arguments)
            for place, why in each_hindrance(kept):
                kept[place] = None
                left_behind[place] = f"{self.names[place]} cannot be pickled: {why}"
            arguments = pack(kept)
        return PackedHop, (*self.errand.packed, arguments, self.names, left_behind)


class PackedHop(NamedTuple):
    """A hop that has left its process; a worker opens it, where an error harms nobody else."""

    token: str
    function: PackedFunction
    packed: bytes
    names: Sequence[str]
    left_behind: dict[int, str]

    def opened(self) -> tuple[Callable[[Any], Any], Sequence[Any], dict[int, str]]:
        """Return function, arguments, and which of these cannot be used, and why."""
        function = _functions.get(self.token)
        if function is None:
            function = _functions[self.token] = self.function.unpacked()
            for oldest in list(_functions)[:-KEPT]:
                _functions.pop(oldest, None)
        arguments, problem = attempted(unpack, self.packed)
        if problem is not None:
            named_items = ", ".join(self.names)
            raise SerializationError(
                f"{named_items} cannot be loaded on the worker: {describe(problem)}"
            ) from problem
        return function, arguments, self.left_behind


_functions: dict[str, Callable[[Any], Any]] = {}
"""What this worker has unpacked: a function keeps its globals from hop to hop."""


def _arrived_reply(
    names: Sequence[str],
    values: bytes,
    seconds: list[float],
    errors: dict[int, PackedError],
    trouble: PackedError | None,
) -> GroupResult:
    """Return a reply that was pickled; never raises, which would break the pool."""
    reply = GroupResult(names, None if trouble is None else unpacked_error(trouble))
    reply.seconds = seconds
    reply.errors = {place: unpacked_error(error) for place, error in errors.items()}
    reply.values, problem = attempted(unpack, values)
    if problem is not None:
        of = ", ".join(names)
        reply.trouble = SerializationError(
            f"the value of {of} came back and cannot be loaded: {describe(problem)}"
        )
    return reply


def run_group(hop: ItemGroup | PackedHop) -> GroupResult:
    """
    Call the function for each item, on the worker; an item's failure is its own.

    One item after the other, async functions too: so no more calls are in flight than
    `max_concurrency` hops. These run on one loop, which lives as long as the worker. Each call has
    a copy of the context of its own: what it sets there, no other call ever sees.
    """
    reply = GroupResult(hop.names)
    try:
        function, arguments, left_behind = hop.opened()
    except SerializationError as trouble:
        reply.trouble = trouble
        return reply
    base = hop.context if isinstance(hop, ItemGroup) else None
    try:
        for place, argument in enumerate(arguments):
            began = time.perf_counter()
            try:
                if place in left_behind:
                    raise SerializationError(left_behind[place])
                context = copy_context() if base is None else base.copy()
                reply.values.append(context.run(_value_of, function, argument))
            except Exception as raised:
                reply.failed(place, raised)
            except BaseException as raised:
                if isinstance(hop, ItemGroup) and is_a(raised, ENDS_THE_PROCESS):
                    raise  # it is this process, then, that is to end
                reply.failed(place, aborted(raised))
            reply.seconds.append(time.perf_counter() - began)
        return reply
    finally:
        del hop, reply, arguments  # errors of calls refer to this frame, and the reply to them


def _value_of(function: Callable[[Any], Any], argument: object) -> object:
    """Return what a function gives; an awaitable is awaited on the worker's own loop."""
    value = function(argument)
    return run_async(value) if hasattr(type(value), "__await__") else value
