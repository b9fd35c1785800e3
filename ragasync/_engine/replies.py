"""Replies: what items in progress without a worker wait for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from ragasync.usage import Usage

R = TypeVar("R")
V_co = TypeVar("V_co", covariant=True)


class Reply(Generic[R]):
    """
    The values of a request that no task awaits.

    It has the methods of a future that a request needs. Its one callback is called directly,
    because a handle of the loop for each of thousands of requests a second would cost more.

    Args:
        on_cancel: called when it is given up.

    Attributes:
        usage: what the request has used so far; None if nothing was reported.
    """

    __slots__ = ("_callback", "_error", "_index", "_is_done", "_on_cancel", "_values", "usage")

    def __init__(self, on_cancel: Callable[[], None]) -> None:
        self._on_cancel = on_cancel
        self.usage: Usage | None = None
        self._is_done = False
        self._error: BaseException | None = None
        self._values: R | None = None
        self._callback: Callable[[int], None] | None = None

    def when_done(self, callback: Callable[[int], None], index: int) -> None:
        """Call back with this index at the end, now if it has come; never after `cancel`."""
        if self._is_done:
            callback(index)
        else:
            self._callback, self._index = callback, index

    def done(self) -> bool:
        """Whether it has its values or an error, or was given up."""
        return self._is_done

    def cancel(self) -> None:
        """Give it up."""
        self._is_done, self._callback = True, None
        self._on_cancel()

    def set_result(self, values: R) -> None:
        """Set the values."""
        self._values = values
        self._end()

    def set_exception(self, error: BaseException) -> None:
        """Set the error."""
        self._error = error
        self._end()

    def _end(self) -> None:
        """Call back."""
        self._is_done = True
        if (callback := self._callback) is not None:
            self._callback = None
            callback(self._index)

    def attribute(self, usage: Usage) -> None:
        """Count usage for the request; its run has counted it already."""
        self.usage = usage if self.usage is None else self.usage.plus(usage)

    def result(self) -> R:
        """
        The values.

        Raises:
            RequestFailed: the first item that failed.
            JobStopped: the run was stopped.
        """
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # or its traceback, this frame and it would hold each other
        return self._values  # type: ignore[return-value]  # without an error there are values


class Begun(Protocol[V_co]):
    """
    What a pipeline has begun for an item.

    Attributes:
        reply: done when `finish` can be called; the engine cancels it to give the item up.
    """

    @property
    def reply(self) -> Reply[list[object]]:
        """The reply that it waits for."""

    def finish(self) -> V_co:
        """Make the item's value, or raise its error; called once, unless given up."""
