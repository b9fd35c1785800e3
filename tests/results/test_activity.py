"""How many calls were in flight over time, in a fixed number of bins."""

import random

import numpy as np
import pytest

# Internals: results with exact times and states, which no run produces on demand.
from ragasync._outcomes.activity import BINS, ActivityMonitor, Utilization
from ragasync._outcomes.stats import RunStats, StageStats
from ragasync._reports.timeline import mean_concurrency


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that has run for a while."""
    return Clock()


def at_once(busy: Utilization, calls: list[tuple[float, float]]) -> np.ndarray:
    """The average number of concurrent calls in the same bins."""
    start, end = np.array(calls).T - 1000.0
    return mean_concurrency(start, end, busy.width * np.arange(BINS + 1))


@pytest.mark.parametrize("longest", [0.005, 0.05, 3.0, 500.0])
def test_the_concurrency_is_exact_however_long_the_run_was(clock, longest):
    """Calls of all lengths, while the width of the bins doubles several times."""
    chance = random.Random(1)
    calls, activity = [], ActivityMonitor(clock)
    for _ in range(400):
        took = chance.uniform(0, longest)
        clock.now += chance.uniform(0, longest / 8)
        calls.append((max(1000.0, clock.now - took), clock.now))
        activity.add(*calls[-1])
    busy = activity.snapshot()
    assert busy.concurrency() == pytest.approx(at_once(busy, calls), abs=1e-6)
    assert clock.now - 1000 < busy.width * BINS
    assert activity.calls == 400
    assert activity.seconds == pytest.approx(sum(end - start for start, end in calls))


def test_a_bin_is_no_wider_than_the_run_needs(clock):
    """Bins of half the width would not reach to its end."""
    activity = ActivityMonitor(clock)
    activity.add(1000.0, 1100.0)
    assert BINS * activity.snapshot().width / 2 < 100 < BINS * activity.snapshot().width


def test_a_snapshot_does_not_change(clock):
    """It is a copy of two short arrays."""
    activity = ActivityMonitor(clock)
    before = activity.snapshot()
    activity.add(1000.0, 1001.0)
    assert not any(before.concurrency())


def test_a_call_that_began_before_the_run_counts_from_its_start(clock):
    """The time of a thread, measured by another clock, may begin earlier."""
    activity = ActivityMonitor(clock)
    clock.now += 1
    activity.add_ended_now(5.0)
    assert activity.snapshot().concurrency()[:101] == pytest.approx([1.0] * 100 + [0.0])


def test_calls_in_flight_count_up_to_now(clock):
    """A call of a minute counts before it ends."""
    activity = ActivityMonitor(clock)
    activity.call_started(1000.0)
    activity.call_started(1010.0)
    clock.now = 1030.0
    assert activity.seconds_so_far == 50.0
    activity.call_ended(1000.0, 1030.0)
    assert activity.seconds_so_far == 50.0
    activity.call_ended(1010.0, 1030.0)
    assert (activity.seconds_so_far, activity.in_flight, activity.calls) == (50.0, 0, 2)


def test_a_merged_run_is_placed_after_the_earlier_one():
    """So do the outcomes of its items."""
    first, second = (
        RunStats(stages=(StageStats("embed", 2, 1.0, busy=(Utilization(1.0, [1], [0]),), calls=3),))
        for _ in range(2)
    )
    (stage,) = first.merged_with(second, 7.5).stages
    assert [busy.began for busy in stage.busy] == [0.0, 7.5]
    assert stage.calls == 6
