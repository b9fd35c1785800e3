"""A slider that turns a knob of a job, and follows when something else turns it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from ragasync.notebook.widgets import WidgetFactory

N = TypeVar("N", int, float | None)


class Slider(Generic[N]):
    """
    A slider over round numbers, which shows any other number too once it is the value.

    Args:
        making: what makes its widget.
        name: the class of its widget.
        notches: the numbers; None is above all others.
        now: the value to begin with.
        read: returns a number as it is read beside the slider.
        turn: called with the number that somebody has dragged it to, in whatever thread.
        tooltip: what it does.
    """

    def __init__(
        self,
        making: WidgetFactory,
        name: str,
        notches: Iterable[N],
        now: N,
        *,
        read: Callable[[N], str],
        turn: Callable[[N], object],
        tooltip: str,
    ) -> None:
        self._notches: list[N] = list(notches)
        self._read: Callable[[N], str] = read
        self._turn: Callable[[N], object] = turn
        self._following = False
        self._lock = threading.RLock()
        self._shown: dict[str, N] = self._all_with(now)
        words = list(self._shown)
        self.widget: Any = making.slider(name, words, words.index(read(now)), tooltip)
        self.widget.observe(self._on_index, "index")
        _answer_where_asked(self.widget)

    def __repr__(self) -> str:
        return f"<Slider at {self.widget.label}>"

    def follow(self, now: N) -> None:
        """Show a value, and turn nothing."""
        word = self._read(now)
        if self.widget.label == word:
            return
        # New options select the first of them for a moment, which nobody has dragged it to.
        with self._lock, self.widget.hold_sync():
            self._following = True
            try:
                if word not in self._shown:
                    self._shown = self._all_with(now)
                    self.widget.options = list(self._shown)
                self.widget.index = list(self._shown).index(word)
            finally:
                self._following = False

    def _all_with(self, now: N) -> dict[str, N]:
        """Return all notches by what is read, and this value among them."""
        known = {self._read(notch): notch for notch in self._notches}
        known.setdefault(self._read(now), now)
        return dict(sorted(known.items(), key=lambda each: _height(each[1])))

    def _on_index(self, change: Any) -> None:
        """Turn the knob after a drag."""
        with self._lock:
            if self._following:
                return
            dragged_to = list(self._shown.values())[change["new"]]
        self._turn(dragged_to)  # without the lock: it may wait for one that follows


def _height(value: float | None) -> float:
    """Return how far up a value is."""
    return math.inf if value is None else value


def _answer_where_asked(widget: Any) -> None:
    """
    Have the kernel take in a widget's messages where the front end has sent them.

    ipykernel 7.4 sends them instead to whoever drew the widget last: while a cell awaits that is
    the cell's own thread, which tells the front end of no end, and the front end keeps the second
    drag back. Nothing public turns that off; where the method is gone, nothing is done.
    """
    if hasattr(widget.comm, "_reply_subshell_for"):
        widget.comm._reply_subshell_for = lambda _, asked_in: asked_in
