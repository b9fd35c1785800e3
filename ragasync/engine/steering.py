"""What may be asked of a run, and what it can say of itself, while it runs."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

from ragasync.calling.calls import Calls
from ragasync.engine.admission import Admission
from ragasync.engine.aftermath import Aftermath
from ragasync.engine.attempts import Attempts, Permission
from ragasync.engine.backoff import BackoffLine
from ragasync.engine.batches import Batches
from ragasync.engine.feed import Feed
from ragasync.engine.journalling import Journalled
from ragasync.engine.lanes import Lanes
from ragasync.engine.opening import Opening
from ragasync.engine.recording import Sink
from ragasync.limits.gate import Gate
from ragasync.outcomes.facts import StageFacts
from ragasync.plan import Plan
from ragasync.progress import LimitedBy
from ragasync.saying import named

T = TypeVar("T")
R = TypeVar("R")

current_run: ContextVar[Steering[Any, Any]] = ContextVar("current_run")
"""The run whose call this is."""


class Steering(Generic[T, R]):
    """
    The knobs of a run, and the state that they turn.

    They are used on the run's own loop, also before it begins. Everything that may concern a lane
    in its hot loop ends in `reconsider`, which folds it into the one number that lanes look at.

    Attributes:
        held_back: whether no new item is to be drawn for now.
        input_waited: seconds that lanes waited for the source, added up.
        admission: the calls that wait for the rate limit.
        stages: where the calls of this run are those of a pipeline, tells of its stages.
    """

    _after: Aftermath[T, R]
    _attempts: Attempts[T, R]
    _batches: Batches[T]
    _lanes: Lanes
    _loop: AbstractEventLoop
    _calls: Calls
    _feed: Feed[T]
    _parked: BackoffLine[T]

    def __init__(self, plan: Plan[T, R], sink: Sink[T, R]) -> None:
        self.plan = plan
        self.gate = Gate(plan.limiters)
        self.max_concurrency = plan.max_concurrency
        self.paused = False
        self.held_back = False
        self.stopping = False
        self.stopped_because: str | None = None
        self.error: BaseException | None = None
        self.input_waited = 0.0
        self.stages: Callable[[], tuple[StageFacts, ...]] = tuple
        self.admission = Admission(self.gate, by_items=plan.in_hops)
        self._sink = sink
        self._is_open = False
        self._calling = False
        self._opening = Opening()

    def pause(self) -> None:
        """Start no further call until `resume`."""
        self.paused = True
        self.reconsider()

    def resume(self) -> None:
        """Go on after `pause`."""
        self.paused = False
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
        """Allow more calls in flight at once, or fewer; those in flight are left to finish."""
        self.max_concurrency = max_concurrency
        if self._is_open and not self.stopping:
            self._lanes.limit = max_concurrency
            self.look_up()

    def stop(self, because: str | None, *, cancel: bool = False) -> None:
        """Start nothing more; let what is in flight finish, or cancel it."""
        if not self.stopping:
            self.stopped_because = because
        self.stopping = True
        if self._is_open:
            self._lanes.cancel_soon(None if cancel else self.admission.waiting)
            self.look_up(everyone=True)
        elif cancel:
            self._opening.break_off()

    def fail(self, error: BaseException, because: str) -> None:
        """Start nothing more, let what is in flight finish, and raise this error from `run`."""
        self.error = self.error or error
        self.stop(because)

    def abort(self, error: BaseException) -> None:
        """Stop at once, and raise this error from `run`."""
        self.error = self.error or error
        self.stop(named(error), cancel=True)

    def look_up(self, *, everyone: bool = False) -> None:
        """
        Have a lane see what has changed, or every one.

        One is enough where there is something to begin: each lane that begins calls the next.
        """
        if not self._is_open:
            return
        self.reconsider()
        if everyone:
            self._lanes.wake_all()
        elif not self._lanes.wake() and self._may_begin:
            self._lanes.open_one()

    def reconsider(self) -> None:
        """Decide whether lanes must leave their hot loop after the call that they are in."""
        if not self._is_open:
            return
        self._lanes.heed(
            self.stopping
            or self.paused
            or self.held_back
            or self._lanes.surplus
            or self._parked.has_due
            or not self._has_room
            or not self.gate.is_open
            or self._sink.is_full
        )

    def set_rate(self, rate: float | None) -> None:
        """Bound the calls a second of this run alone; None removes the bound."""
        self.gate.rate = rate
        self.look_up()

    @property
    def source_ended(self) -> bool:
        """Whether the last item has been drawn and begun, as far as that is known."""
        return self._is_open and self._feed.exhausted and not self._batches.left_over

    @property
    def limited_by(self) -> LimitedBy:
        """
        What holds the run back now, by what its lanes are doing.

        Where one lane waits, more of them would only wait with it: so one is enough to tell.
        """
        if len(self.admission) > 0:
            return "rate"
        may_draw = self._is_open and not self.paused and not self.held_back
        if may_draw and (self._lanes.idle or self._batches.forming):
            return "retries" if self._parked.items else "input"
        return "concurrency"

    @property
    def in_flight(self) -> int:
        """How many calls are being made now."""
        if not self._is_open:
            return 0
        lanes = self._lanes
        at_work = len(lanes.tasks) - lanes.idle - len(self.admission) - self._batches.forming
        return max(0, at_work)

    @property
    def worked(self) -> float:
        """Seconds that lanes spent in calls outside of the hot loop, each call once."""
        return self._attempts.seconds if self._is_open else 0.0

    @property
    def retried(self) -> int:
        """How many items were or will be tried more than once."""
        return self._after.retried if self._is_open else 0

    @property
    def recalled(self) -> int:
        """How many outcomes came from a journal."""
        return self._sink.recalled if isinstance(self._sink, Journalled) else 0

    @property
    def running_threads(self) -> int:
        """How many threads are inside a call."""
        return self._calls.running_threads if self._is_open else 0

    @property
    def _has_room(self) -> bool:
        """Whether so few items are in back-off that new ones may be begun."""
        return self._parked.items < max(64, 8 * self.max_concurrency)

    @property
    def _may_draw(self) -> bool:
        """Whether a new item may be begun."""
        return self._has_room and not self.held_back and not self._sink.is_full

    @property
    def _has_more(self) -> bool:
        """Whether a new item may be at hand, that no lane is putting into a batch."""
        if self._batches.forming:
            return False
        return self._feed.at_hand or self._batches.left_over

    @property
    def _may_begin(self) -> bool:
        """Whether there is something for a further lane to do."""
        if self.stopping or self.paused:
            return False
        return self._parked.has_due or (self._has_more and self._may_draw)

    def _call_the_next(self) -> None:
        """Have a further lane look for something to do, when this one's call has begun."""
        if not self._calling:
            self._calling = True
            self._loop.call_soon(self._called)

    def _called(self) -> None:
        """Wake a lane, or open one, if there is something to do; it will call the next."""
        self._calling = False
        self._lanes.turned()
        if self._may_begin and not self._lanes.wake():
            self._lanes.open_one()

    def _input_came(self) -> None:
        """See to what the source has given, or to its end; a lane that fills a batch does."""
        if self._batches.forming:
            return
        if self._feed.at_hand:
            self._call_the_next()  # once, however many come in this turn of the loop
        else:
            self.look_up()

    def _permission(self) -> Permission:
        """Say whether a call that was drawn may begin now: things change while it waits."""
        if self.stopping:
            return "never"
        return "later" if self.paused or self._lanes.surplus else "now"
