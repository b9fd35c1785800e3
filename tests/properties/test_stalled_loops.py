"""Loops that stall or close with a waiter; found by the limiter beside one on paper."""

from ragasync import RateLimiter
from tests.support.limiter_model import Caller, Clock, SteppedLoop


def test_what_is_due_is_granted_immediately_though_a_closed_loop_left_somebody_in_line():
    """Nobody else comes who would strike off the dead one."""
    clock, limiter = Clock(), RateLimiter(1, burst_size=1)
    loop = SteppedLoop(clock)
    first, left = Caller(limiter, loop, 1.0), Caller(limiter, loop, 1.0)
    assert (first.task.done(), left.task.done()) == (True, False)
    left.task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    clock.now = 1.0
    other = SteppedLoop(clock)
    assert other.do(limiter.try_acquire)
    other.close()


def test_who_is_granted_a_moment_before_a_pause_is_over_goes():
    """A grant and its taking up agree on when that is; else they would send it round for ever."""
    clock, limiter = Clock(), RateLimiter(1, burst_size=1)
    loop = SteppedLoop(clock)
    loop.do(lambda: limiter.pause(0.5))
    caller = Caller(limiter, loop, 1.0)
    clock.now = 0.5 - 4e-10  # timers may be early
    loop.settle()
    assert caller.task.done()
    assert caller.task.exception() is None
    loop.close()


def test_who_is_requeued_after_a_pause_and_stalls_holds_up_nobody():
    """The other loop hears that it stands there, and grants it when the pause is over."""
    clock, limiter = Clock(), RateLimiter(1, burst_size=2)
    running, stalling = SteppedLoop(clock), SteppedLoop(clock)
    Caller(limiter, running, 2.0)
    Caller(limiter, stalling, 2.0)
    behind = Caller(limiter, running, 2.0)
    clock.now = 2.0
    running.settle()
    running.do(lambda: limiter.pause(0.25))
    stalling.settle()
    assert "waiting=2" in repr(limiter), "who was granted before the pause is requeued"
    running.settle()
    clock.now = running.next_timer()
    running.settle()
    assert (clock.now, "waiting=1" in repr(limiter)) == (2.25, True)
    clock.now = 4.25
    running.settle()
    assert behind.task.done()
    stalling.settle()
    running.close()
    stalling.close()


def test_a_late_return_counts_what_has_flowed_in_at_the_rates_of_that_time():
    """A rate that was lowered since does not make a return of what was long paid back."""
    clock, limiter = Clock(), RateLimiter(1, burst_size=1)
    running, stalling = SteppedLoop(clock), SteppedLoop(clock)
    Caller(limiter, running, 1.0)
    late = Caller(limiter, stalling, 1.0)
    others = [Caller(limiter, running, 1.0) for _ in range(2)]
    for clock.now in (1.0, 2.0):
        running.settle()
    running.do(lambda: setattr(limiter, "rate", 0.1))
    late.task.cancel()
    stalling.settle()
    for clock.now, done in ((3.0, False), (11.0, False), (12.0, True)):
        running.settle()
        assert [each.task.done() for each in others] == [True, done]
    running.close()
    stalling.close()
