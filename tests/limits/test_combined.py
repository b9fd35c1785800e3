"""The combined limiter of a job: several limits in one step, its own rate, pauses, other jobs."""

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest

from ragasync import RateLimiter

# Internals: single decisions, and numbers that no run reaches.
from ragasync._limits.combined import CombinedLimiter


def now() -> float:
    """The virtual time."""
    return asyncio.get_running_loop().time()


async def admissions(
    combined: CombinedLimiter, count: int, items: Sequence[object] = ("",)
) -> list[float]:
    """Send so many callers to the combined limiter at once; return when each was let through."""

    async def call() -> float:
        await combined.admit(items)
        return now()

    return await asyncio.gather(*(call() for _ in range(count)))


async def settle() -> None:
    """Let every task run as far as it can without the clock moving."""
    for _ in range(5):
        await asyncio.sleep(0)


class FarLimiter:
    """A limiter kept elsewhere: grants after a second, notes what it was asked, and when."""

    def __init__(self, weight: Callable[..., float] | None = None, max_weight: float = 100) -> None:
        self.weight = weight
        self.max_weight = max_weight
        self.asked: list[tuple[float, float]] = []
        self.paused: list[float] = []

    async def acquire(self, weight: float = 1.0) -> None:
        """Grant after a second."""
        self.asked.append((now(), weight))
        await asyncio.sleep(1)

    def pause(self, seconds: float) -> None:
        """Note it."""
        self.paused.append(seconds)


# ---- open, closed, paused


async def test_without_limits_the_gate_is_open():
    """And lets everybody through at once."""
    combined = CombinedLimiter()
    assert combined.is_open
    assert combined.try_admit([1])
    assert await admissions(combined, 3) == [0, 0, 0]


async def test_a_limiter_or_a_rate_closes_the_short_cut():
    """The engine has to ask."""
    assert not CombinedLimiter([RateLimiter(1)]).is_open
    assert not CombinedLimiter([FarLimiter()]).is_open
    combined = CombinedLimiter()
    combined.rate = 5.0
    assert not combined.is_open
    combined.rate = None
    assert combined.is_open


async def test_a_pause_without_limiters_closes_the_gate_itself():
    """The later of two pauses wins; afterwards it is open again."""
    combined = CombinedLimiter()
    combined.pause(10)
    combined.pause(3)
    assert not combined.is_open
    assert not combined.try_admit([1])
    assert await admissions(combined, 3) == pytest.approx([10, 10, 10])
    assert combined.is_open
    assert await admissions(combined, 1) == pytest.approx([10])


async def test_a_pause_holds_every_limiter():
    """Those of the user, the job's own, and one kept elsewhere."""
    near, far = RateLimiter(1000), FarLimiter()
    combined = CombinedLimiter([near, far])
    combined.rate = 1000.0
    combined.pause(10)
    assert not near.try_acquire()
    assert far.paused == [10]
    assert await admissions(combined, 1) == pytest.approx([11])


async def test_a_pause_holds_a_job_that_has_only_a_rate_of_its_own():
    """Removing that rate does not end the pause."""
    combined = CombinedLimiter()
    combined.rate = 1000.0
    combined.pause(10)
    combined.rate = None
    assert await admissions(combined, 2) == pytest.approx([10, 10])


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf")])
def test_a_pause_without_an_end_is_refused(bad: float):
    """Also where there is no limiter that would refuse it."""
    with pytest.raises(ValueError, match="seconds must be finite and at least 0"):
        CombinedLimiter().pause(bad)


# ---- one limiter


async def test_one_limiter_sets_the_pace():
    """Exact times."""
    assert await admissions(CombinedLimiter([RateLimiter(10, 2)]), 4) == pytest.approx(
        [0, 0, 0.1, 0.2]
    )


async def test_two_jobs_at_one_limiter_are_served_in_order_of_arrival():
    """First come, first served across the jobs."""
    limiter = RateLimiter(10, 1)
    limiters = [CombinedLimiter([limiter]), CombinedLimiter([limiter])]
    order: list[int] = []

    async def call(caller: int) -> None:
        await limiters[caller % 3 % 2].admit([caller])
        order.append(caller)

    await asyncio.gather(*map(call, range(12)))
    assert order == list(range(12))


async def test_try_admit_passes_nobody_who_waits():
    """What is free is for the first waiter."""
    combined = CombinedLimiter([RateLimiter(10, 10)])
    assert combined.try_admit([], calls=10)
    waiting = asyncio.create_task(combined.admit([], calls=10))
    await asyncio.sleep(0.5)
    assert not combined.try_admit([], calls=1)
    await waiting


async def test_the_same_limiter_twice_counts_once():
    """A call takes one place of it."""
    limiter = RateLimiter(10, 1)
    assert await admissions(CombinedLimiter([limiter, limiter]), 3) == pytest.approx([0, 0.1, 0.2])


# ---- weights


async def test_a_weight_function_is_summed_over_the_items():
    """Three items of 1, 2 and 3 take 6; calls do not count there."""
    limiter = RateLimiter(10, 10, weight=float)
    combined = CombinedLimiter([limiter])
    await combined.admit([1, 2, 3], calls=99)
    assert limiter.try_acquire(4)
    assert not limiter.try_acquire(0.1)


async def test_items_that_weigh_nothing_take_nothing():
    """A sum of 0 passes."""
    combined = CombinedLimiter([RateLimiter(1, 1, weight=float)])
    assert combined.try_admit([0])
    await combined.admit([0, 0])
    assert combined.try_admit([1])


async def test_items_above_the_burst_are_refused():
    """The error reaches the caller, and nothing is taken anywhere."""
    plain, tokens = RateLimiter(1, 1), RateLimiter(10, 5, weight=float)
    combined = CombinedLimiter([plain, tokens])
    with pytest.raises(ValueError, match=r"weight of 6.* at most 5"):
        await combined.admit([6])
    with pytest.raises(ValueError, match=r"weight of 6.* at most 5"):
        combined.try_admit([6])
    assert combined.try_admit([5])


async def test_more_calls_than_the_burst_are_taken_in_portions():
    """A group of 32 items through a burst of one takes 31 intervals."""
    combined = CombinedLimiter([RateLimiter(10, 1)])
    assert not combined.try_admit([], calls=32)
    await combined.admit([], calls=32)
    assert now() == pytest.approx(3.1)


async def test_with_portions_the_items_weight_is_taken_once():
    """Three portions of one call, 6 tokens in all."""
    tokens = RateLimiter(1, 6, weight=float)
    combined = CombinedLimiter([RateLimiter(10, 1), tokens])
    await combined.admit([1, 2, 3], calls=3)
    assert now() == pytest.approx(0.2)
    assert not tokens.try_acquire(0.3)
    assert tokens.try_acquire(0.1)


async def test_portions_that_were_taken_are_given_back_when_the_caller_is_cancelled():
    """What has not refilled yet is there for the next."""
    limiter = RateLimiter(1, 4)
    combined = CombinedLimiter([limiter])
    big = asyncio.create_task(combined.admit([], calls=8))
    await settle()
    big.cancel()
    await asyncio.wait([big])
    assert combined.try_admit([], calls=4)


async def test_items_that_weigh_nothing_do_not_wait_behind_others():
    """There is nothing that they would have to wait for."""
    combined = CombinedLimiter([RateLimiter(1, 1, weight=float)])
    assert combined.try_admit([1])
    heavy = asyncio.create_task(combined.admit([1]))
    await settle()
    await combined.admit([0])
    assert now() == 0
    await heavy
    assert now() == pytest.approx(1)


# ---- the job's own rate


async def test_a_rate_of_the_jobs_own_is_seen_immediately_by_waiters():
    """Set, raised and removed while callers of a job without limiters wait."""
    combined = CombinedLimiter()
    combined.rate = 0.1
    waiting = asyncio.create_task(admissions(combined, 6))
    await asyncio.sleep(4)
    combined.rate = 1.0
    await asyncio.sleep(2.5)
    combined.rate = None
    times = await waiting
    assert combined.is_open
    assert times == pytest.approx([0, 4.58, 5.58, 6.5, 6.5, 6.5], abs=0.05)


async def test_a_rate_is_added_for_those_who_stand_in_a_shared_line():
    """They waited for a limiter at 10 a second, then keep to one a second."""
    combined = CombinedLimiter([RateLimiter(10, 1)])
    waiting = asyncio.create_task(admissions(combined, 5))
    await asyncio.sleep(0.15)
    combined.rate = 1.0
    assert await waiting == pytest.approx([0, 0.1, 0.2, 1.18, 2.18], abs=0.02)


async def test_a_rate_is_removed_for_those_who_stand_at_several():
    """The shared limiter alone sets the pace from then on, in the old order."""
    combined, order = CombinedLimiter([RateLimiter(10, 1)]), []
    combined.rate = 0.1

    async def call(caller: int) -> float:
        await combined.admit([caller])
        order.append(caller)
        return now()

    waiting = asyncio.gather(*map(call, range(5)))
    await asyncio.sleep(1)
    combined.rate = None
    assert await waiting == pytest.approx([0, 1, 1.1, 1.2, 1.3])
    assert order == [0, 1, 2, 3, 4]


def test_the_rate_is_readable_and_checked():
    """None without one."""
    combined = CombinedLimiter()
    assert combined.rate is None
    combined.rate = 5
    assert combined.rate == 5
    with pytest.raises(ValueError, match="rate must be positive and finite, got 0"):
        combined.rate = 0
    assert combined.rate == 5


# ---- several limiters


async def test_several_limiters_are_all_kept():
    """The slower one sets the pace, and the faster is charged the same."""
    slow, fast = RateLimiter(1, 1), RateLimiter(10, 4)
    combined = CombinedLimiter([slow, fast])
    assert await admissions(combined, 4) == pytest.approx([0, 1, 2, 3])
    assert fast.try_acquire(3)
    assert not fast.try_acquire(1)


async def test_takes_from_all_or_from_none():
    """While one limiter blocks, the other is left alone."""
    full, empty = RateLimiter(0.1, 3), RateLimiter(0.1, 1)
    empty.try_acquire()
    combined = CombinedLimiter([full, empty])
    assert not combined.try_admit([1])
    waiting = asyncio.create_task(combined.admit([1]))
    await asyncio.sleep(1)
    assert full._queue.bucket.delay(3, now()) == 0
    await waiting
    assert now() == pytest.approx(10)


async def test_a_job_with_one_limiter_is_not_slowed_to_the_pace_of_one_with_two():
    """The other job waits at the shared limiter's head only for as long as it can take from it."""
    shared = RateLimiter(100, 2)
    slowed = CombinedLimiter([shared, RateLimiter(1, 1)])
    free = CombinedLimiter([shared])
    background = asyncio.create_task(admissions(slowed, 1000))
    passed = 0
    while now() < 10:
        await free.admit([passed])
        passed += 1
    background.cancel()
    assert passed >= 980


async def test_callers_that_stand_in_line_pass_the_one_who_waits_elsewhere():
    """The whole queue behind it moves on, in its order, at the full rate."""
    shared, slow = RateLimiter(10, 1), RateLimiter(0.1, 1)
    slow.try_acquire()
    shared.try_acquire()
    blocked = asyncio.create_task(CombinedLimiter([shared, slow]).admit([1]))
    await settle()
    assert await admissions(CombinedLimiter([shared]), 5) == pytest.approx(
        [0.1, 0.2, 0.3, 0.4, 0.5]
    )
    assert not blocked.done()
    await blocked
    assert now() == pytest.approx(10)


async def test_a_job_with_two_busy_limiters_does_not_starve():
    """Others use up both, and come due at other moments; it gets its share all the same."""
    one, two = RateLimiter(10, 1), RateLimiter(10, 1)
    passed: list[float] = []

    async def keep_calling(combined: CombinedLimiter, times: list[float]) -> None:
        while True:
            await combined.admit([1])
            times.append(now())

    others: list[float] = []
    tasks = [asyncio.create_task(keep_calling(CombinedLimiter([one]), others)) for _ in range(4)]
    await asyncio.sleep(0.05)
    tasks += [asyncio.create_task(keep_calling(CombinedLimiter([two]), others)) for _ in range(4)]
    await asyncio.sleep(1)
    tasks.append(asyncio.create_task(keep_calling(CombinedLimiter([one, two]), passed)))
    await asyncio.sleep(20)
    for task in tasks:
        task.cancel()
    assert len(passed) >= 20
    assert len(others) + 2 * len(passed) >= 0.85 * 2 * 10 * 21


async def test_a_caller_at_several_limiters_passes_nobody_in_any_line():
    """What the big one at the head of the second queue waits for is not taken from the first."""
    first, second = RateLimiter(10, 1), RateLimiter(1, 10)
    second.try_acquire(10)
    big = asyncio.create_task(second.acquire(10))
    await settle()
    both = asyncio.create_task(CombinedLimiter([first, second]).admit([1]))
    for _ in range(9):
        await asyncio.sleep(1)
        await first.acquire()  # dispatches the first queue
    assert not both.done()
    await big
    assert now() == pytest.approx(10)
    await both
    assert now() == pytest.approx(11)


async def test_a_caller_whom_another_limiter_holds_up_by_now_is_not_forgotten():
    """Passed over at the first for the second, it meets a debt of another's at the first."""
    first, second = RateLimiter(2), RateLimiter(10, 1)
    second.pause(1)
    caller = asyncio.create_task(CombinedLimiter([first, second]).admit([1]))
    await asyncio.sleep(0.4)
    await first.acquire(3)
    await caller
    assert now() == pytest.approx(0.4 + 1.5 - 0.02)


async def test_try_admit_does_not_pass_those_who_have_yet_to_step_up():
    """The head has been granted and has not run, so the second does not stand anywhere yet."""
    combined = CombinedLimiter([RateLimiter(10, 10), RateLimiter(10, 10)])
    combined.pause(1)
    waiting = asyncio.create_task(admissions(combined, 2))
    await settle()
    admitted: list[bool] = []
    # In the same loop iteration as the timer of the limiter at 1 s, and after it.
    asyncio.get_running_loop().call_at(1, lambda: admitted.append(combined.try_admit([1])))
    await waiting
    assert admitted == [False]


async def test_callers_at_several_limiters_pass_in_order():
    """The combined limiter's own queue is first come, first served, whatever the weights."""
    combined = CombinedLimiter([RateLimiter(10, 10), RateLimiter(50, 50, weight=float)])
    order: list[int] = []

    async def call(caller: int, weight: float) -> None:
        await combined.admit([weight])
        order.append(caller)

    await asyncio.gather(*(call(n, 50 if n % 3 == 0 else 1) for n in range(12)))
    assert order == list(range(12))


async def test_a_cancelled_caller_leaves_every_line():
    """At the head, behind it, and after its grant: the others pass as if it had not been there."""
    first, second = RateLimiter(1, 1), RateLimiter(1, 1)
    combined = CombinedLimiter([first, second])
    assert combined.try_admit([0])
    calls = [asyncio.create_task(combined.admit([n])) for n in range(4)]
    await settle()
    assert "waiting=1" in repr(first), "only the combined limiter's head stands at several limiters"
    calls[0].cancel()
    calls[2].cancel()
    await asyncio.wait(calls)
    assert now() == pytest.approx(2)
    assert "waiting=0" in repr(first)
    assert "waiting=0" in repr(second)


async def test_a_caller_cancelled_after_its_grant_gives_back_at_every_limiter():
    """Granted, but cancelled before it ran: the next goes in its place, at the same time."""
    combined = CombinedLimiter([RateLimiter(1, 1), RateLimiter(1, 1)])
    assert combined.try_admit([0])
    one, two = (asyncio.create_task(combined.admit([n])) for n in range(2))
    await settle()
    asyncio.get_running_loop().call_at(1.0, one.cancel)
    await two
    assert one.cancelled()
    assert now() == pytest.approx(1)


@pytest.mark.real_time
def test_two_jobs_in_two_threads_with_the_same_limiters_do_not_deadlock():
    """Named in opposite order; both finish."""
    limiters = [RateLimiter(2000, 5), RateLimiter(3000, 5)]
    finished: list[int] = []

    async def job(mine: list[RateLimiter]) -> None:
        combined = CombinedLimiter(mine)
        await asyncio.gather(*(combined.admit([n]) for n in range(200)))
        finished.append(1)

    threads = [
        threading.Thread(target=lambda mine=mine: asyncio.run(job(mine)), daemon=True)
        for mine in (limiters, limiters[::-1])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert finished == [1, 1]


# ---- a limiter kept elsewhere


async def test_a_limiter_kept_elsewhere_is_asked_last():
    """Only when the near ones have granted, and never by try_admit."""
    far, near = FarLimiter(), RateLimiter(0.5, 1)
    combined = CombinedLimiter([far, near])
    assert not combined.try_admit([1])
    assert near.try_acquire()
    await combined.admit([1])
    assert far.asked == [(pytest.approx(2), 1)]
    assert now() == pytest.approx(3)


async def test_a_limiter_kept_elsewhere_is_asked_for_its_own_weight():
    """The sum over the items, or the calls in portions."""
    weighed, plain = FarLimiter(weight=float), FarLimiter(max_weight=4)
    await CombinedLimiter([weighed, plain]).admit([1, 2, 3], calls=10)
    assert [weight for _, weight in weighed.asked] == [6]
    assert [weight for _, weight in plain.asked] == [4, 4, 2]


async def test_a_caller_cancelled_at_a_limiter_kept_elsewhere_gives_the_near_ones_back():
    """It has taken a place of theirs, and makes no call."""
    near = RateLimiter(0.01, 1)
    caller = asyncio.create_task(CombinedLimiter([near, FarLimiter()]).admit([1]))
    await settle()
    assert not near.try_acquire()
    caller.cancel()
    await asyncio.wait([caller])
    assert near.try_acquire()
