"""The rate limiter beside one on paper: any order of events, on several loops, to the instant."""

import asyncio

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from ragasync import RateLimiter
from tests.support.limiter_model import A_MOMENT, Caller, Clock, PaperLimiter, SteppedLoop
from tests.support.random_schedules import examples, seconds

RATES = [0.25, 0.5, 1.0, 3.0]
COSTS = [0.25, 1.0, 1.0, 1.0, 2.5]

MAX_WAITING = 15
"""From 16 on the limiter may keep the first for a moment, to wake it together with the next."""


class LimiterOnSeveralLoops(RuleBasedStateMachine):
    """
    Callers come and give up, loops stall and close, rates change, and the clock goes on.

    Whoever waits must be granted at the instant that the limiter on paper says, in order, and
    never more than it has: a token that was lost would make all that come after too late.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock(100.0)
        self.loops = [SteppedLoop(self.clock) for _ in range(2)]
        self.asleep: SteppedLoop | None = None
        self.left_behind = False
        self.callers: list[Caller] = []

    @initialize(rate=st.sampled_from(RATES), burst=st.sampled_from([None, 1.0, 2.5, 6.0]))
    def begin(self, rate: float, burst: float | None) -> None:
        """Begin with a limiter, and a few who stand in the queue on both loops."""
        self.limiter = RateLimiter(rate, burst)
        self.paper = PaperLimiter(rate, self.limiter.burst, at=self.clock.now)
        for where in range(4):
            self.come(where, COSTS[-where], 2)

    # ── what may happen ─────────────────────────────────────────────────────────────────────

    @precondition(lambda self: len(self.paper.queue) < MAX_WAITING)
    @rule(where=st.integers(0, 9), weight=st.sampled_from(COSTS), many=st.integers(1, 3))
    def come(self, where: int, weight: float, many: int) -> None:
        """Some callers ask for the same."""
        loop, weight = self._awake(where), min(weight, self.limiter.max_weight)
        for _ in range(many):
            caller = Caller(self.limiter, loop, weight)
            self.callers.append(caller)
            self.paper.queue.append(caller)
            self._settle()

    @rule(where=st.integers(0, 9), weight=st.sampled_from(COSTS))
    def try_acquire(self, where: int, weight: float) -> None:
        """Somebody takes only what is due, behind those who wait."""
        loop, weight = self._awake(where), min(weight, self.limiter.max_weight)
        waiting = [caller for caller in self.paper.queue if not caller.is_gone]
        is_due = not waiting and self.paper.delay(weight) < A_MOMENT
        assert loop.do(lambda: self.limiter.try_acquire(weight)) == is_due
        if is_due:
            self.paper.queue.clear()
            self.paper.take(weight)

    @precondition(lambda self: self.callers)
    @rule(who=st.integers(0, 99))
    def give_up(self, who: int) -> None:
        """Somebody is cancelled, also who was granted and does not know it yet."""
        unaware = [caller for caller in self.callers if caller.granted is not None]
        caller = (unaware or self.callers)[who % len(unaware or self.callers)]
        self._give_up(caller)

    @rule(rate=st.sampled_from(RATES))
    def change_rate(self, rate: float) -> None:
        """The rate is set."""
        self._running[0].do(lambda: setattr(self.limiter, "rate", rate))
        self.paper.change(rate, self.limiter.burst)
        self._settle()

    @rule(length=seconds(3))
    def pause(self, length: float) -> None:
        """Nothing goes for a while; who stands on a stalled loop may have been granted before."""
        self._running[0].do(lambda: self.limiter.pause(length))
        self.paper.paused_until = max(self.paper.paused_until, self.clock.now + length)

    @precondition(lambda self: len(self.callers) < 4)
    @rule(where=st.integers(0, 9), orderly=st.booleans())
    def close_a_loop(self, where: int, orderly: bool) -> None:
        """A loop ends, its tasks cancelled or just left behind; a new one opens."""
        loop = self.loops[where % len(self.loops)]
        for caller in [caller for caller in self.callers if caller.loop is loop]:
            if orderly and caller in self.callers:
                self._give_up(caller)
            elif not orderly:
                caller.task._log_destroy_pending = False  # type: ignore[attr-defined]
                self.callers.remove(caller)
                self.left_behind = True
        self.loops.remove(loop)
        loop.close()
        self.asleep = None if self.asleep is loop else self.asleep
        self.loops.append(SteppedLoop(self.clock))

    @rule(where=st.integers(0, 2), length=st.sampled_from([0.05, 0.3, 1.0, 2.5]))
    def go_on(self, where: int, length: float) -> None:
        """Time passes; a loop may be stuck, until somebody comes there or gives up."""
        self.left_behind = self.left_behind and bool(self.paper.queue)
        # Of those left behind only the loop that strikes them off hears: that one must not stall.
        may_stall = where < len(self.loops) and not self.left_behind
        self.asleep = self.loops[where] if may_stall else None
        self._settle()
        end = self.clock.now + length
        while self.clock.now < end:
            self._step(end)

    # ── what must hold ──────────────────────────────────────────────────────────────────────

    @invariant()
    def nobody_waits_who_is_due(self) -> None:
        """The caller who is first waiter is not due yet, if a loop that runs has a waiter."""
        if any(caller.loop in self._running for caller in self.paper.queue):
            assert self.paper.first_due() > self.clock.now - A_MOMENT

    def teardown(self) -> None:
        """Serve the remaining callers; then everything is as it was at the start."""
        try:
            self._come_to_rest()
        finally:
            for loop in self.loops:
                for task in asyncio.all_tasks(loop):
                    task.cancel()
                loop.settle()
                loop.close()

    # ── how it goes on ──────────────────────────────────────────────────────────────────────

    def _come_to_rest(self) -> None:
        """Serve everybody, let the bucket fill, and find it full."""
        self.asleep = None
        self._settle()
        while self.callers:
            self._step(self.clock.now + 1000.0)
        assert self.limiter._queue.timers.keys().isdisjoint(self.loops), "a timer was left"
        self.clock.now = max(
            self.clock.now + self.paper.owed / self.paper.rate, self.paper.paused_until
        )
        assert self._awake(0).do(lambda: self.limiter.try_acquire(self.limiter.burst))
        assert not self._awake(0).do(lambda: self.limiter.try_acquire(A_MOMENT))
        assert all(asyncio.all_tasks(loop) == set() for loop in self.loops)

    def _give_up(self, caller: Caller) -> None:
        """Cancel a caller and let its loop run."""
        self.callers.remove(caller)
        if caller.loop is self.asleep:
            self.asleep = None
        caller.gave_up = True
        granted = caller.granted
        caller.task.cancel()
        caller.loop.settle()
        assert caller.task.cancelled()
        if granted is None:
            self.paper.queue.remove(caller)
        else:
            self.paper.refund(caller, granted)
        self._settle()

    @property
    def _running(self) -> list[SteppedLoop]:
        """The loops that are not stalled."""
        return [loop for loop in self.loops if loop is not self.asleep]

    def _awake(self, where: int) -> SteppedLoop:
        """Return one of the loops, which runs from now on."""
        loop = self.loops[where % len(self.loops)]
        if loop is self.asleep:
            self.asleep = None
            self._settle()
        return loop

    def _step(self, end: float) -> None:
        """Go to the next timer, which is not later than the first waiter is due."""
        timer = min(loop.next_timer() for loop in self._running)
        if any(caller.loop in self._running for caller in self.paper.queue):
            assert min(timer, end) <= self.paper.first_due() + A_MOMENT, "it wakes up too late"
        self.clock.now = max(self.clock.now, min(timer, end))
        self._settle()

    def _settle(self) -> None:
        """Let loops hear of each other, and compare."""
        self.paper.move_to(self.clock.now)
        for _ in range(2):
            for loop in self._running:
                granted = [(each, each.granted) for each in self.callers if each.loop is loop]
                loop.settle()
                for caller, when in granted:
                    if when is not None and caller.is_requeued(self.limiter):
                        self.paper.requeue(caller, when)
                self.paper.serve()
        for caller in [each for each in self.callers if each.granted is not None]:
            if caller.loop in self._running:
                assert caller.task.result() is None
                assert self.paper.paused_until < self.clock.now + A_MOMENT, "it broke a pause"
                self.callers.remove(caller)


TestLimiterOnSeveralLoops = LimiterOnSeveralLoops.TestCase
TestLimiterOnSeveralLoops.settings = settings(examples(75), stateful_step_count=30)
