"""What travels to an executor: a hop of items, and what comes back of each."""

from __future__ import annotations

import pickle
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple

from ragasync.masking.masked import masked
from ragasync.saying import named, note_on


class HopItem(NamedTuple):
    """What became of one item of a hop: a value or an error, and the seconds that it took."""

    value: Any
    error: Exception | None
    seconds: float


class HopReply(NamedTuple):
    """
    What comes back of a hop: columns, because an object an item costs 12 µs to pickle and unpickle.

    Attributes:
        values: one for each item; None for those that failed.
        seconds: what each item took.
        errors: those of the items that failed, by place.
    """

    values: list[Any]
    seconds: list[float]
    errors: dict[int, Exception]

    def one_by_one(self) -> list[HopItem]:
        """Return what became of each item."""
        errors = map(self.errors.get, range(len(self.values)))
        return list(map(HopItem, self.values, errors, self.seconds))


def run_hop(function: Callable[[Any], Any], items: Sequence[Any]) -> HopReply:
    """Call the function for each item, on the worker; an item's failure is its own."""
    reply = HopReply([], [], {})
    for place, item in enumerate(items):
        value, began = None, time.perf_counter()
        try:
            value = _value(function, item)
        except Exception as raised:
            reply.errors[place] = _that_travels(raised)
        reply.values.append(value)
        reply.seconds.append(time.perf_counter() - began)
    return reply


def _value(function: Callable[[Any], Any], item: Any) -> Any:
    """Return what the function gives, unless that is only a promise."""
    value = function(item)
    if hasattr(value, "__await__"):
        raise TypeError(
            f"an executor runs sync functions, but {function!r} returned {value!r}, which only a "
            f"loop can await: leave out executor=, or return the value itself"
        )
    return value


def _that_travels(error: Exception) -> Exception:
    """
    Return the error with its traceback as a note, or a stand-in if it does not survive pickling.

    An error whose constructor wants more than its message is pickled without complaint and then
    breaks the pool when it is unpickled, with everything that is in flight.
    """
    stack = masked("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(named(error))
    note_on(error, f"On the worker:\n{stack}")
    return error


def replacement_of(broken: Executor) -> Executor:
    """
    Return an executor to go on with after a worker's death.

    A pool of processes refuses everything once one of them died, loky's too. Its settings are
    kept only in private attributes; any other executor is returned as it is, and may know how to
    mend itself.
    """
    from concurrent.futures import ProcessPoolExecutor  # brings multiprocessing: not at import

    workers = getattr(broken, "_max_workers", None)
    initializer = getattr(broken, "_initializer", None)
    arguments = getattr(broken, "_initargs", ())
    if isinstance(broken, ProcessPoolExecutor):
        context = getattr(broken, "_mp_context", None)
        return ProcessPoolExecutor(workers, context, initializer, arguments)
    if type(broken).__module__.startswith("loky."):
        import loky

        pool: Executor = loky.ProcessPoolExecutor(
            workers,
            context=getattr(broken, "_context", None),
            initializer=initializer,
            initargs=arguments,
        )
        return pool
    return broken
