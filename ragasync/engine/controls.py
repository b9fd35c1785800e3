"""What may be asked of a run while it runs."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, TypeVar

from ragasync.bridge.interrupts import Interrupted
from ragasync.engine.attempts import StartDecision
from ragasync.engine.scheduler import State
from ragasync.error_text import describe
from ragasync.limits.adaptive import ConcurrencyController

T = TypeVar("T")
R = TypeVar("R")

WAVE = 4
"""The most workers that are called in one turn of the loop."""

current_run: ContextVar[Steering[Any, Any]] = ContextVar("current_run")
"""The run whose call this is."""


class Steering(State[T, R]):
    """
    The knobs of a run.

    They are used on the run's own loop, also before it begins. Everything that may concern a worker
    in its hot loop ends in `reconsider`, which folds it into the one number that workers look at.
    """

    def pause(self) -> None:
        """Start no further call until `resume`."""
        self.paused = True
        self.reconsider()

    def resume(self) -> None:
        """Go on after `pause`, and end the pauses that services have asked for."""
        self.paused = False
        self.gate.resume()
        self.look_up()

    def hold_back(self, held_back: bool) -> None:
        """Draw no new item for now, or again: for calls that know best when there is room."""
        if held_back == self.held_back:
            return
        self.held_back = held_back
        if held_back:
            self.reconsider()
        else:
            self.look_up()

    def resize(self, max_concurrency: int) -> None:
        """
        Allow more calls in flight at once, or fewer; those in flight are left to finish.

        Where the run found that number by itself it does so no longer.
        """
        self.adaptive = False
        if self._is_open:
            self._watch_calls(None)
        self._allow(max_concurrency)

    def adapt(self) -> None:
        """Find from now on by itself how many calls at once the service bears."""
        self.adaptive = True
        if self._is_open:
            self._is_plain = False  # the hot loop tells nobody of its calls
            self._watch_calls(ConcurrencyController(self.max_concurrency, self._clock, self._allow))

    def _watch_calls(self, adapting: ConcurrencyController | None) -> None:
        """Have somebody learn from the calls that begin from now on, or nobody."""
        if self._attempts.adapting is not None:
            self._attempts.adapting.close()
        self._attempts.adapting = adapting

    def _allow(self, max_concurrency: int) -> None:
        """Allow so many calls in flight at once."""
        self.max_concurrency = max_concurrency
        if self._is_open and not self.stopping:
            self.bounds.note(self._clock() - self._recording.started_at, max_concurrency)
            self._workers.limit = max_concurrency
            self.look_up()

    def stop(self, because: str | None, *, cancel: bool = False) -> None:
        """Start nothing more; let what is in flight finish, or cancel it."""
        if not self.stopping:
            self.stopped_because = because
            if because is not None and not cancel:
                self.stopped_early = True
                self.when_stopped_early(because)
        self.stopping = self._stop_was_asked = True
        self._is_cancelling = self._is_cancelling or cancel
        if self._is_open:
            self._workers.cancel_soon(None if cancel else self.admission.waiting)
            self.look_up(everyone=True)
        elif cancel:
            self._opening.cancel()

    def fail(self, error: BaseException, because: str) -> None:
        """Start nothing more, let what is in flight finish, and raise this error from `run`."""
        self.error = self.error or error
        self.stop(because)

    def abort(self, error: BaseException) -> None:
        """Stop at once, and raise this error from `run`."""
        self.error = self.error or error
        self.stop(describe(error), cancel=True)

    def interrupted(self, error: Interrupted) -> None:
        """
        End as interrupted: a call that blocked in run_async was, and the call is the run's.

        Where the run is being cancelled anyway, this was a part of that.
        """
        if not (self._is_cancelling or self.owner_is_cancelled):
            self.abort(error)

    def look_up(self, *, everyone: bool = False) -> None:
        """
        Have a worker see what has changed, or every one.

        One is enough where there is something to begin: each worker that begins calls the next.
        """
        if not self._is_open:
            return
        self.reconsider()
        if everyone:
            self._workers.wake_all()
        elif not self._workers.wake() and self._may_begin:
            self._workers.open_one()

    def reconsider(self) -> None:
        """Decide whether workers must leave their hot loop after the call that they are in."""
        if not self._is_open:
            return
        self._workers.heed(
            self.stopping
            or self.paused
            or self.held_back
            or self._workers.surplus
            or self._parked.has_due
            or not self._has_room
            or not self.gate.is_open
            or self._sink.is_full
        )

    def set_rate(self, rate: float | None) -> None:
        """Bound the calls a second of this run alone; None removes the bound."""
        self.gate.rate = rate
        self.look_up()

    def _call_the_next(self) -> None:
        """Have a further worker look for something to do, when this one's call has begun."""
        if not self._calling:
            self._calling = True
            self._loop.call_soon(self._called, context=self._context)

    def _called(self) -> None:
        """
        Wake workers, or open some, if there is something to do; they will call the next.

        One in the first turn, as calls that return at once need no second; twice as many in each
        turn that finds still more to do, because a turn is dear where threads want the interpreter.
        """
        self._calling = False
        self._workers.turned()
        if not self._may_begin:
            self._wave = 1
            return
        for _ in range(self._wave):
            if not self._workers.wake():
                self._workers.open_one()
        self._wave = min(2 * self._wave, WAVE)

    def _input_came(self) -> None:
        """See to what the source has given, or to its end; a worker that fills a batch does."""
        if self._batches.filling:
            return
        if self._feed.has_ready:
            self._call_the_next()  # once, however many come in this turn of the loop
        else:
            self.look_up()

    def _permission(self) -> StartDecision:
        """Say whether a call that was drawn may begin now: things change while it waits."""
        if self.stopping:
            return "never"
        return "later" if self.paused or self._workers.surplus else "now"
