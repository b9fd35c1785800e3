"""How many concurrent calls a service can take: a limit that adapts, and what feeds it."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ragasync.clock import Clock
from ragasync.limits.background import WINDOW, ErrorBaseline, in_vain
from ragasync.limits.samples import Began, CallEnd, Cut, Latency, SampleWindow
from ragasync.retries.classify import congestion

V = TypeVar("V")

FIRST = 4
"""The calls at once that it begins with."""

MOST = 1_024
"""The calls at once that it never goes beyond."""

CUT = 0.75
FULL, TELLS = 0.9, 0.75
HOLDS = 1.12
"""Latency holds while it is at most so many times what few calls at once take, but for chance."""

RISEN = 1.25
"""Above so many times, without having grown, it is looked at with a quarter fewer calls."""

RELIEF = 0.9
"""A cut was of use where latency fell below this share of what it was."""

NEAR = 0.06
"""How close to what was too much it settles, as a share."""

BESIDE = 1.1
"""How far above where the knee is guessed to be the search goes, as a factor."""

REST, LONGEST_REST = 8, 64
"""Cohorts between two attempts to go beyond what was too much; twice as many each time in vain."""

LOOK_EVERY = 48
"""Cohorts after which it measures anew what calls take when there are fewer at once."""


class ConcurrencyLimit:
    """
    The bound on calls in flight that a service's answers call for.

    Tell it of each call's beginning and end, and read `bound`. It knows no clock and waits for
    nothing. The rules, each judged by a cohort of at least as many calls as the bound:

    - up while latency holds: twice as many a cohort until the first sign of too many, then half
      way to what was too much, or to where its latency says the knee is at most, and when that is
      near, a rest; then on, by a tenth at first.
    - down by a quarter, once for each event: a 429, more 503s and timeouts than usual, or latency
      well above that of fewer calls. What was begun before the last cut says nothing more.
    - a step that only made calls slower is taken back.
    - a cut that brings no relief is taken back too: the service is slower today, or fails now and
      then whatever one does.
    - never up while the bound is not reached: something else holds back then.

    The cut and the rise are those of TCP (additive increase, multiplicative decrease), the way
    back that of BIC (Xu, Harfoush, Rhee 2004: a binary search for the last bound that held).

        bound = ConcurrencyLimit()
        began = bound.begin(in_flight=3)
        bound.end(began, 0.2, "success")

    Args:
        first: the bound to begin with.
        most: the bound never to exceed.

    Attributes:
        bound: the calls in flight to allow now.
    """

    def __init__(self, first: int = FIRST, most: int = MOST) -> None:
        self.bound = min(first, most)
        self._most = most
        self._base: Latency | None = None  # what calls take when there are few
        self._good = 0  # the highest bound that held
        self._ceiling: int | None = None  # the lowest that did not
        self._step = 1.0
        self._rest, self._patience = REST, REST
        self._since_look = 0
        self._background = ErrorBaseline()
        self._cuts = self._fills = 0
        self._steady: Latency | None = None  # of the cohorts since it has settled
        self._before: Cut | None = None  # while a cut is judged
        self._cohort = SampleWindow(self.bound)

    def __repr__(self) -> str:
        return f"<ConcurrencyLimit {self.bound}, {self._good} held, {self._ceiling} did not>"

    def begin(self, in_flight: int) -> Began:
        """Note that a call begins, which makes so many in flight."""
        # What begins while the calls in flight are still few tells nothing of the bound; but of a
        # cut everything is judged, so that it is judged in any case.
        tells = self._before is not None or in_flight >= TELLS * self.bound
        cohort = self._cohort if tells and self._cohort.begin() else None
        began = Began(cohort, self._cuts, self._fills)
        self._fills += in_flight >= FULL * self.bound
        return began

    def end(self, began: Began, seconds: float, how: CallEnd) -> None:
        """Note that a call has ended after so long, and judge the bound where it is time to."""
        now = self._cohort
        if began.cohort is not None:
            began.cohort.end(seconds, how, full=self._fills > began.fills)
        if began.cuts != self._cuts:
            if self._before is not None and began.cuts == self._cuts - 1:
                self._before.cohort.count(how)  # it tells how bad it was before the cut
            return
        now.count(how)
        sign = how in ("rate_limited", "overloaded") and self._before is None
        if sign and self._background.is_exceeded(now, how):
            self._cut(None)
        elif now.is_complete:
            self._judge(now)

    # ── judging a cohort ────────────────────────────────────────────────────────────────────

    def _judge(self, cohort: SampleWindow) -> None:
        """Decide what follows from a cohort."""
        self._since_look += 1
        if self._before is not None:
            cut, self._before = self._before, None
            self._judge_cut(cohort, cut)
            return
        self._background.held(cohort)
        if (latency := cohort.latency) is None:
            self._move(self.bound)  # most calls failed: there is nothing to learn
        elif self._base is None:
            self._base = latency
            self._held(cohort, latency)
        elif not latency.above(self._base, HOLDS):
            if self._step >= 1.0 and self._ceiling is None:
                self._base = self._base.joined(latency)
            self._held(cohort, latency)
        elif 0 < self._good < self.bound:
            # Calls that take r times as long in service that melts, or queues: the knee is at most
            # the bound by the root of r, or by r itself. So there is no need to look above that.
            knee = self.bound * math.sqrt(self._base.seconds / latency.seconds)
            self._found_ceiling(min(self.bound, max(self._good + 1, math.ceil(BESIDE * knee))))
            self._move(self._good)
        elif latency.above(self._base, RISEN):
            self._cut(latency)
        else:
            self._move(self.bound)

    def _held(self, cohort: SampleWindow, latency: Latency) -> None:
        """Go up from a bound that held, if it was what held back."""
        if not cohort.is_full:
            self._move(self.bound)
            return
        self._good = max(1, self.bound)
        if self._ceiling is None:
            up = max(1, round(self.bound * self._step))
            if self._step < 1.0:
                self._step = min(1.0, 2 * self._step)
            self._patience = REST
            self._move(self.bound + up)
        elif (gap := self._ceiling - self._good) > max(1, NEAR * self._good):
            self._move(self._good + gap // 2)
        else:
            self._settled(latency)

    def _settled(self, latency: Latency) -> None:
        """Stay close below what was too much; look below now and then, and above."""
        self._rest -= 1
        self._steady = latency if self._steady is None else self._steady.joined(latency)
        if self._base is not None and self._steady.above(self._base, HOLDS):
            self._cut(self._steady)  # one cohort could not tell, all of them can
        elif self._since_look >= LOOK_EVERY:
            self._cut(self._cohort.latency, looking=True)
        elif self._rest <= 0:
            self._rest = self._patience = min(2 * self._patience, LONGEST_REST)
            self._ceiling, self._step = None, 0.1
            self._move(self.bound + max(1, self.bound // 10))
        else:
            self._move(self.bound)

    def _found_ceiling(self, too_many: int) -> None:
        """Remember what was too much."""
        self._ceiling = too_many
        self._step = 0.1
        if self._good >= too_many:
            self._good = 0

    # ── cutting, and whether it helped ──────────────────────────────────────────────────────

    def _cut(self, latency: Latency | None, *, looking: bool = False) -> None:
        """Go down by a quarter, and see what becomes of it."""
        self._before = Cut(self.bound, self._step, self._cohort, latency)
        if not looking:
            self._found_ceiling(self.bound)
        self._cuts += 1
        self._since_look = 0
        self._move(max(1, math.floor(CUT * self.bound)))

    def _judge_cut(self, cohort: SampleWindow, cut: Cut) -> None:
        """Keep a cut that brought relief, go on down where that was not enough, or take it back."""
        latency, before = cohort.latency, cut.latency
        if cut.cohort.share and cohort.share and in_vain(cut.cohort, cohort):
            self._background.endured(cut.cohort, cohort)
            self._take_back(cut)
            return
        if self._background.is_exceeded(cohort):
            self._cut(latency)
            return
        self._background.held(cohort)
        if latency is None or self._base is None:
            self._good = self.bound
            self._move(self.bound)
        elif before is not None and latency.seconds > RELIEF * before.seconds:
            self._base = latency.joined(before)
            self._take_back(cut)
        elif latency.above(self._base, RISEN):
            self._cut(latency)
        else:
            if not latency.above(self._base, HOLDS):
                self._base = self._base.joined(latency)
            self._good = max(self._good, self.bound)
            self._move(self._good)

    def _take_back(self, cut: Cut) -> None:
        """Return to the bound before a cut, which was not too much."""
        self._good = cut.bound
        if self._ceiling == cut.bound:
            self._ceiling, self._step = None, cut.step
        self._move(cut.bound)

    def _move(self, bound: int) -> None:
        """Set the bound, and begin to judge it."""
        bound = max(1, min(bound, self._most))
        if bound != self.bound:
            self.bound, self._steady = bound, None
        if self._before is not None and self._before.cohort.congested:
            size = max(WINDOW, 2 * self.bound)
        elif self._ceiling is None and self._step >= 1.0:
            size = max(4, self.bound // 3)
        else:
            size = max(8, 2 * self.bound)
        self._cohort = SampleWindow(size)


class ConcurrencyController:
    """
    Watches the calls of a run and resizes it to what the limit allows.

    Args:
        first: the concurrency to begin with.
        clock: the run's clock.
        resize: called with the new concurrency whenever it changes.
    """

    def __init__(self, first: int, clock: Clock, resize: Callable[[int], None]) -> None:
        self._limit = ConcurrencyLimit(first)
        self._clock, self._resize = clock, resize
        self._in_flight = 0
        self._closed = False
        self._applied = first
        self._apply()

    def close(self) -> None:
        """Resize no more: calls still in flight run under a concurrency that somebody else set."""
        self._closed = True

    def __repr__(self) -> str:
        return f"<ConcurrencyController {self._limit!r}, {self._in_flight} in flight>"

    async def watch(self, call: Coroutine[Any, Any, V]) -> V:
        """Await a call, and learn from its latency and its error."""
        self._in_flight += 1
        sample, started = self._limit.begin(self._in_flight), self._clock()
        how: CallEnd = "error"
        try:
            value = await call
            how = "success"
            return value
        except Exception as error:
            how = congestion(error) or "error"
            raise
        finally:
            self._in_flight -= 1
            self._limit.end(sample, self._clock() - started, how)
            self._apply()

    def _apply(self) -> None:
        """Resize the run if the limit has changed."""
        bound = self._limit.bound
        if bound != self._applied and not self._closed:
            self._applied = bound
            self._resize(bound)
