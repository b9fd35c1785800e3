"""The rate limiter: exact times, bounds in every window, order, cancellation, loops and threads."""

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Sequence

import pytest

from ragasync import RateLimiter

# Internals: single decisions, and numbers that no run reaches.
from ragasync._limits.bucket import Bucket
from ragasync.testing import run_on_virtual_clock


def now() -> float:
    """The virtual time."""
    return asyncio.get_running_loop().time()


async def grant_times(limiter: RateLimiter, weights: Sequence[float]) -> list[float]:
    """Send these weights to the limiter at once; return when each was granted."""

    async def acquire(weight: float) -> float:
        await limiter.acquire(weight)
        return now()

    return await asyncio.gather(*map(acquire, weights))


def most_in_a_window(grants: Sequence[tuple[float, float]], length: float) -> float:
    """The largest sum of weights in a half-open window; it is enough to start one at each grant."""
    return max(
        sum(weight for when, weight in grants if start <= when < start + length)
        for start, _ in grants
    )


async def settle() -> None:
    """Let every task run as far as it can without the clock moving."""
    for _ in range(5):
        await asyncio.sleep(0)


# ---- arithmetic


async def test_a_burst_is_granted_together_and_the_rest_at_the_rate():
    """Three of a burst, then one each tenth of a second, without drift."""
    times = await grant_times(RateLimiter(10, burst_size=3), [1.0] * 1003)
    assert times[:3] == [0, 0, 0]
    assert times[3:] == pytest.approx([n / 10 for n in range(1, 1001)], abs=1e-6)


async def test_the_bucket_refills_while_nobody_asks():
    """After a rest as long as it takes the whole burst is there again, and not more."""
    limiter = RateLimiter(10, burst_size=3)
    await grant_times(limiter, [1.0] * 3)
    await asyncio.sleep(100)
    assert await grant_times(limiter, [1.0] * 4) == pytest.approx([100, 100, 100, 100.1])


async def test_without_a_burst_size_it_is_nearly_smooth():
    """The implicit burst at 10 a second is 1.2: the second call waits a little less than 100 ms."""
    limiter = RateLimiter(10)
    assert limiter.burst == pytest.approx(1.2)
    assert await grant_times(limiter, [1.0] * 4) == pytest.approx([0, 0.08, 0.18, 0.28])


async def test_the_default_is_ten_a_second():
    """No argument at all."""
    assert RateLimiter().rate == 10.0


async def test_a_rate_in_another_unit_is_a_seconds_rate():
    """600 a minute is 10 a second."""
    assert RateLimiter(rate=600, per=60).rate == 10.0


async def test_weights_count_by_their_size():
    """A weight of 5 takes as long as five calls."""
    times = await grant_times(RateLimiter(10, burst_size=10), [5.0, 5.0, 2.5, 1.0])
    assert times == pytest.approx([0, 0, 0.25, 0.35])


async def test_a_weight_above_the_implicit_burst_waits_for_a_full_bucket_and_leaves_a_debt():
    """The next caller pays for it."""
    limiter = RateLimiter(10)
    times = await grant_times(limiter, [1.0, 20.0, 1.0])
    assert times == pytest.approx([0, 0.1, 0.1 + 2.0 - 0.02])


async def test_a_weight_above_an_explicit_burst_is_refused_immediately_with_the_numbers():
    """It could never be granted."""
    limiter = RateLimiter(10, burst_size=5)
    with pytest.raises(ValueError, match=r"weight of 6 .* at most 5"):
        await limiter.acquire(6)
    with pytest.raises(ValueError, match=r"weight of 6 .* at most 5"):
        limiter.try_acquire(6)


@pytest.mark.parametrize("seed", range(8))
async def test_no_window_holds_more_than_burst_and_rate_allow(seed: int):
    """Random arrivals and weights; every window that starts at a grant is counted."""
    chance = random.Random(seed)
    rate, burst = chance.choice([(3.0, 5.0), (50.0, 4.0), (1000.0, 40.0)])
    limiter = RateLimiter(rate, burst_size=burst)
    grants: list[tuple[float, float]] = []

    async def call(at: float, weight: float) -> None:
        await asyncio.sleep(at)
        await limiter.acquire(weight)
        grants.append((now(), weight))

    await asyncio.gather(
        *(call(chance.expovariate(0.05 * rate), chance.uniform(0.1, burst)) for _ in range(150))
    )
    ends = [when for when, _ in grants]
    for first, start in enumerate(ends):
        total = 0.0
        for when, weight in grants[first:]:
            total += weight
            assert total <= burst + rate * (when - start) + 1e-6


async def test_the_implicit_burst_keeps_every_second_near_the_rate():
    """At most max(1.05 rate, rate + 1) in any half-open second, from the first on."""
    for rate in (1, 10, 50, 100, 1000):
        start = now()
        times = await grant_times(RateLimiter(rate), [1.0] * (3 * rate))
        assert now() - start > 1.9
        assert most_in_a_window([(when, 1.0) for when in times], 1.0) <= max(1.05 * rate, rate + 1)


# ---- order


async def test_a_big_request_is_not_overtaken_by_small_ones():
    """First come, first served, whatever the weights."""
    limiter = RateLimiter(10, burst_size=10)
    limiter.try_acquire(10)
    order: list[str] = []

    async def call(name: str, weight: float) -> None:
        await limiter.acquire(weight)
        order.append(name)

    await asyncio.gather(call("big", 10), *(call(f"small {n}", 1) for n in range(5)))
    assert order == ["big", "small 0", "small 1", "small 2", "small 3", "small 4"]


async def test_nobody_takes_a_place_past_the_line():
    """What would suffice for a small request is kept for the big one at the head."""
    limiter = RateLimiter(10, burst_size=10)
    limiter.try_acquire(10)
    big = asyncio.create_task(limiter.acquire(10))
    await asyncio.sleep(0.5)
    assert not limiter.try_acquire(1)
    small = asyncio.create_task(limiter.acquire(1))
    await asyncio.sleep(0.49)
    assert not big.done()
    assert not small.done()
    await asyncio.gather(big, small)
    assert now() == pytest.approx(1.1)


async def test_the_context_manager_takes_one():
    """Entering waits; leaving gives nothing back."""
    limiter = RateLimiter(10, burst_size=1)
    for expected in (0, 0.1, 0.2):
        async with limiter:
            assert now() == pytest.approx(expected)


# ---- several in one turn of the loop


async def test_a_long_line_at_a_high_rate_goes_a_few_at_a_time():
    """Nobody before it is due, nor 2.5 ms after, and the last exactly when it would anyway."""
    limiter = RateLimiter(1000, burst_size=40)
    limiter.try_acquire(40)
    times = await grant_times(limiter, [1.0] * 64)
    for number, when in enumerate(times, start=1):
        assert -1e-9 <= when - number / 1000 <= 2.5e-3
    assert len(set(times)) < 50
    assert times[-1] == pytest.approx(0.064)


async def test_weights_count_for_who_goes_together():
    """Two of a weight of 2 are 2 ms apart, three would be 4: they go in pairs."""
    limiter = RateLimiter(1000, burst_size=40)
    limiter.try_acquire(40)
    times = await grant_times(limiter, [2.0] * 65)
    assert times[0] == pytest.approx(0.002)
    assert times[1:5] == pytest.approx([0.006, 0.006, 0.010, 0.010])


@pytest.mark.parametrize(
    ("limiter", "waiters"),
    [
        pytest.param(RateLimiter(1000, burst_size=40), 15, id="short queue"),
        pytest.param(RateLimiter(390, burst_size=40), 64, id="low rate"),
        pytest.param(RateLimiter(1000, burst_size=3), 64, id="little room in the bucket"),
        pytest.param(RateLimiter.at_most(1000, 1.0), 64, id="a strict window"),
    ],
)
async def test_where_it_would_delay_others_each_waiter_goes_when_due(
    limiter: RateLimiter, waiters: int
):
    """One at a time, at the instant it is due."""
    while limiter.try_acquire():
        pass
    times = await grant_times(limiter, [1.0] * waiters)
    steps = [after - before for before, after in itertools.pairwise(times)]
    assert steps == pytest.approx([1 / limiter.rate] * (waiters - 1), abs=1e-8)


async def test_a_second_in_line_that_gives_up_makes_the_first_go_when_due():
    """The timer for several is set back."""
    limiter = RateLimiter(1000, burst_size=40)
    limiter.try_acquire(40)
    calls = [asyncio.create_task(limiter.acquire()) for _ in range(64)]
    await calls[0]
    for call in calls[2:]:
        call.cancel()
    await calls[1]
    assert now() == pytest.approx(0.002)


async def test_who_asks_again_goes_after_those_who_were_granted_before():
    """All of the queue is granted in one turn, and there is more in the bucket."""
    limiter = RateLimiter(1, burst_size=10)
    limiter.try_acquire(10)
    head = asyncio.create_task(limiter.acquire(10))
    await settle()
    order: list[str] = []

    async def twice(name: str) -> None:
        for _ in range(2):
            await limiter.acquire()
            order.append(name)

    calls = [asyncio.create_task(twice(name)) for name in "abc"]
    await asyncio.sleep(9)
    head.cancel()
    await asyncio.wait(calls)
    assert now() == pytest.approx(9)
    assert order == ["a", "b", "c", "a", "b", "c"]


async def test_a_lone_caller_that_had_to_wait_does_not_give_way_afterwards():
    """The one who was granted before is itself: what is free is taken without a turn."""
    limiter = RateLimiter(1, burst_size=10)
    limiter.try_acquire(10)
    await limiter.acquire()
    limiter.rate = 1e9
    with pytest.raises(StopIteration):
        limiter.acquire().send(None)


# ---- cancellation


async def test_a_cancelled_waiter_in_the_middle_gives_its_place_back():
    """Those behind it move up, and it takes nothing."""
    limiter = RateLimiter(1, burst_size=1)
    times: list[float] = []

    async def call() -> None:
        await limiter.acquire()
        times.append(now())

    calls = [asyncio.create_task(call()) for _ in range(4)]
    await settle()
    assert "waiting=3" in repr(limiter)
    calls[2].cancel()
    await settle()
    assert "waiting=2" in repr(limiter)
    await asyncio.wait(calls)
    assert times == pytest.approx([0, 1, 2])


async def test_a_cancelled_head_lets_the_next_go_as_soon_as_it_may():
    """The small one behind a big head goes at the time of its cancellation."""
    limiter = RateLimiter(1, burst_size=10)
    limiter.try_acquire(10)
    head = asyncio.create_task(limiter.acquire(10))
    await settle()
    small = asyncio.create_task(limiter.acquire(1))
    await asyncio.sleep(3)
    head.cancel()
    await small
    assert now() == pytest.approx(3)


async def test_a_waiter_cancelled_after_its_grant_gives_the_weight_back():
    """Granted, but cancelled before it ran: the next goes in its place, at the same time."""
    limiter = RateLimiter(1, burst_size=1)
    limiter.try_acquire()
    first = asyncio.create_task(limiter.acquire())
    second = asyncio.create_task(limiter.acquire())
    await settle()
    # Runs in the same loop iteration as the limiter's timer, after it and before `first`.
    asyncio.get_running_loop().call_at(1.0, first.cancel)
    await second
    assert first.cancelled()
    assert now() == pytest.approx(1)


async def test_a_late_return_never_makes_the_bucket_fuller_than_it_was():
    """What a cancelled grant took has refilled since, so there is nothing to give back."""
    bucket = Bucket(rate=1.0, burst=5.0)
    bucket.take(1.0, 0.0)
    bucket.take(5.0, 10.0)
    bucket.refund(1.0, 0.0, 10.0)
    assert bucket.delay(1.0, 10.0) == pytest.approx(1.0)


async def test_a_timeout_around_a_wait_leaves_no_trace():
    """A caller that gives up delays the others nothing."""
    limiter = RateLimiter(1, burst_size=1)
    limiter.try_acquire()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await limiter.acquire()
    await limiter.acquire()
    assert now() == pytest.approx(1)


# ---- steering


async def test_a_higher_rate_is_seen_immediately_by_waiters():
    """Half of a ten-second wait at the old rate, the rest at ten times the rate."""
    limiter = RateLimiter(0.1, burst_size=1)
    limiter.try_acquire()
    waiting = asyncio.create_task(limiter.acquire())
    await asyncio.sleep(5)
    limiter.rate = 1.0
    await waiting
    assert now() == pytest.approx(5.5)


async def test_a_lower_rate_is_seen_immediately_by_waiters():
    """Half of a one-second wait at the old rate, the rest at a tenth of the rate."""
    limiter = RateLimiter(1, burst_size=1)
    limiter.try_acquire()
    waiting = asyncio.create_task(limiter.acquire())
    await asyncio.sleep(0.5)
    limiter.rate = 0.1
    await waiting
    assert now() == pytest.approx(5.5)


async def test_a_new_rate_has_its_own_implicit_burst_and_leaves_an_explicit_one():
    """Only the burst that follows from the rate follows it."""
    implicit, explicit = RateLimiter(10), RateLimiter(10, burst_size=3)
    implicit.rate = explicit.rate = 1000
    assert implicit.burst == pytest.approx(40)
    assert explicit.burst == 3


async def test_a_pause_holds_those_who_wait_and_newcomers():
    """Nobody passes until it is over; the burst is there then, and not more."""
    limiter = RateLimiter(1, burst_size=2)
    limiter.try_acquire(2)
    waiting = asyncio.create_task(grant_times(limiter, [1.0, 1.0]))
    await settle()
    limiter.pause(10)
    assert not limiter.try_acquire()
    assert await grant_times(limiter, [1.0]) == pytest.approx([11])
    assert await waiting == pytest.approx([10, 10])


async def test_the_later_of_two_pauses_wins():
    """A shorter pause does not cut a longer one."""
    limiter = RateLimiter(1)
    limiter.pause(10)
    limiter.pause(3)
    await limiter.acquire()
    assert now() == pytest.approx(10)


# ---- at_most


@pytest.mark.parametrize(("limit", "per"), [(1, 1.0), (1, 60.0), (5, 1.0), (100, 60.0), (250, 1.0)])
async def test_at_most_holds_in_every_window(limit: int, per: float):
    """Callers that come in bunches and pauses never exceed the limit in a half-open window."""
    limiter, chance = RateLimiter.at_most(limit, per), random.Random(limit)
    grants: list[tuple[float, float]] = []
    for _ in range(4):
        times = await grant_times(limiter, [1.0] * (limit + 2))
        grants += [(when, 1.0) for when in times]
        await asyncio.sleep(chance.uniform(0, 1.5 * per))
    assert most_in_a_window(grants, per) <= limit


async def test_at_most_keeps_the_rate():
    """In ten windows it admits ten times the limit, but for a hair."""
    times = await grant_times(RateLimiter.at_most(100, 1.0), [1.0] * 1000)
    assert times[-1] < 10.0


async def test_at_most_counts_weights_and_refuses_one_above_the_limit():
    """The limit is one of weight."""
    limiter = RateLimiter.at_most(10, 1.0)
    times = await grant_times(limiter, [6.0, 4.0, 6.0, 3.0] * 3)
    grants = list(zip(times, [6.0, 4.0, 6.0, 3.0] * 3, strict=True))
    assert most_in_a_window(grants, 1.0) <= 10
    with pytest.raises(ValueError, match=r"weight of 11 .* at most 10"):
        limiter.try_acquire(11)


async def test_setting_the_rate_of_at_most_changes_its_limit():
    """The window stays, the limit becomes rate times window."""
    limiter = RateLimiter.at_most(10, 2.0)
    limiter.rate = 1.0
    times = await grant_times(limiter, [1.0] * 6)
    assert most_in_a_window([(when, 1.0) for when in times], 2.0) == 2
    with pytest.raises(ValueError, match="at most 2"):
        limiter.try_acquire(3)


async def test_a_waiter_above_a_lowered_limit_passes_alone():
    """It was accepted; it does not block the queue for ever."""
    limiter = RateLimiter.at_most(10, 1.0)
    limiter.try_acquire(10)
    waiting = asyncio.create_task(grant_times(limiter, [8.0, 1.0]))
    await settle()
    limiter.rate = 2.0
    first, second = await waiting
    assert first >= 1.0
    assert second >= first + 1.0


async def test_a_cancelled_grant_leaves_the_log_of_at_most():
    """The window counts only what was used."""
    limiter = RateLimiter.at_most(1, 1.0)
    limiter.try_acquire()
    first = asyncio.create_task(limiter.acquire())
    second = asyncio.create_task(limiter.acquire())
    await settle()
    asyncio.get_running_loop().call_at(1.0, first.cancel)
    await second
    assert first.cancelled()
    assert now() == pytest.approx(1)


# ---- loops and threads


def test_try_acquire_needs_no_loop():
    """Sync code may take what is there."""
    limiter = RateLimiter(0.001, burst_size=2)
    assert [limiter.try_acquire() for _ in range(3)] == [True, True, False]


def test_it_serves_a_second_loop_after_the_first_has_closed():
    """On the real clock, where both loops share it, the second waits for its turn."""
    limiter, began = RateLimiter(50, burst_size=1), time.monotonic()
    for _ in range(3):
        asyncio.run(limiter.acquire())
    assert time.monotonic() - began >= 0.039


def test_it_starts_afresh_on_a_clock_that_runs_behind():
    """Each virtual loop begins at 0: what another took at 100 s is no debt here."""

    async def late() -> None:
        await asyncio.sleep(100)
        limiter.try_acquire()

    async def early() -> list[float]:
        return await grant_times(limiter, [1.0, 1.0])

    limiter = RateLimiter(1, burst_size=1)
    run_on_virtual_clock(late())
    assert run_on_virtual_clock(early()) == pytest.approx([0, 1])


@pytest.mark.real_time
async def test_a_waiter_whose_loop_has_closed_is_dropped_and_the_others_go_on():
    """The dead one stands at the head and wants much; nobody waits for that."""
    limiter = RateLimiter(20, burst_size=1000)
    limiter.try_acquire(1000)

    def leave_a_waiter_behind() -> None:
        loop = asyncio.new_event_loop()
        dead.append(limiter.acquire(1000))
        waiting = loop.create_task(dead[0])
        waiting.set_name("left behind")
        waiting._log_destroy_pending = False
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    dead = []
    await asyncio.to_thread(leave_a_waiter_behind)
    assert "waiting=1" in repr(limiter)
    await asyncio.wait_for(limiter.acquire(), 20)
    assert "waiting=0" in repr(limiter)
    assert not limiter._queue.timers, "nothing keeps the closed loop alive"


@pytest.mark.real_time
async def test_a_blocked_loop_at_the_head_holds_up_nobody_else():
    """Its waiter is granted on its behalf, and the queue goes on."""
    limiter = RateLimiter(20, burst_size=1)
    limiter.try_acquire()
    standing, release = threading.Event(), threading.Event()

    async def stand_and_block() -> None:
        waiting = asyncio.create_task(limiter.acquire())
        await asyncio.sleep(0)
        standing.set()
        release.wait(30)
        await waiting

    blocked = asyncio.create_task(asyncio.to_thread(asyncio.run, stand_and_block()))
    await asyncio.to_thread(standing.wait, 30)
    await asyncio.wait_for(limiter.acquire(), 10)
    assert not blocked.done()
    release.set()
    await blocked


@pytest.mark.real_time
async def test_a_waiter_granted_by_another_thread_may_be_cancelled_before_its_task_runs():
    """It gives its place back, and the message that comes too late does no harm."""
    limiter = RateLimiter(20, burst_size=1)
    limiter.try_acquire()
    troubles: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))
    waiting = asyncio.create_task(limiter.acquire())
    await asyncio.sleep(0)
    # This loop is blocked meanwhile, so both are granted over there.
    other = threading.Thread(target=lambda: asyncio.run(limiter.acquire()))
    other.start()
    other.join(30)
    waiting.cancel()
    await asyncio.wait([waiting])
    await asyncio.sleep(0)
    assert waiting.cancelled()
    assert troubles == []


@pytest.mark.real_time
def test_loops_in_several_threads_share_one_limit():
    """Everybody is served, and together they never exceed burst + rate * T."""
    limiter = RateLimiter(400, burst_size=4)
    grants: list[float] = []

    async def worker() -> None:
        for _ in range(5):
            await limiter.acquire()
            grants.append(time.monotonic())

    async def workers() -> None:
        await asyncio.gather(*(worker() for _ in range(10)))

    began = time.monotonic()
    threads = [threading.Thread(target=lambda: asyncio.run(workers())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(grants) == 200
    assert time.monotonic() - began >= (200 - 4) / 400


@pytest.mark.real_time
async def test_a_rate_set_from_another_thread_reaches_those_who_wait():
    """The waiting loop is notified; it does not wait for its old timer."""
    limiter = RateLimiter(0.001, burst_size=1)
    limiter.try_acquire()
    waiting = asyncio.create_task(limiter.acquire())
    await asyncio.sleep(0)
    await asyncio.to_thread(setattr, limiter, "rate", 1e6)
    await asyncio.wait_for(waiting, 10)


@pytest.mark.real_time
async def test_cancelling_at_random_loses_no_wake_up():
    """Two loops, waiters cancelled at any moment: those who stay are all served."""
    limiter, chance = RateLimiter(2000, burst_size=5), random.Random(0)

    async def some_give_up() -> int:
        calls = [asyncio.create_task(limiter.acquire()) for _ in range(150)]
        for call in chance.sample(calls, 75):
            await asyncio.sleep(chance.uniform(0, 0.001))
            call.cancel()
        _, pending = await asyncio.wait(calls, timeout=20)
        return len(pending)

    left = await asyncio.gather(some_give_up(), asyncio.to_thread(asyncio.run, some_give_up()))
    assert left == [0, 0]
    assert "waiting=0" in repr(limiter)


# ---- the short way of a free grant, which only the real clock takes


@pytest.mark.real_time
async def test_a_pause_stops_the_short_way():
    """There is plenty in the bucket, and still nobody passes."""
    limiter = RateLimiter(1000, burst_size=1000)
    await limiter.acquire()
    await limiter.acquire()
    limiter.pause(1000)
    waiting = asyncio.create_task(limiter.acquire())
    await settle()
    assert not waiting.done()
    waiting.cancel()


@pytest.mark.real_time
async def test_the_short_way_keeps_the_burst_of_a_new_rate():
    """Twelve hundredths of a second were a burst of 1.2; at the new rate they would be 120."""
    limiter = RateLimiter(10)
    await limiter.acquire()
    limiter.rate = 1000
    began, times = time.monotonic(), []

    async def call() -> None:
        await limiter.acquire()
        times.append(time.monotonic())

    await asyncio.gather(*(call() for _ in range(100)))
    for number, when in enumerate(times, start=1):
        assert number <= limiter.burst + 1000 * (when - began) + 1e-3


@pytest.mark.real_time
async def test_the_short_way_does_not_pass_the_line():
    """A third of what the head wants is there, and kept for it."""
    limiter = RateLimiter(100, burst_size=10)
    await limiter.acquire(10)
    order: list[str] = []

    async def call(name: str, weight: float) -> None:
        await limiter.acquire(weight)
        order.append(name)

    big = asyncio.create_task(call("big", 10))
    await asyncio.sleep(0.03)
    await asyncio.gather(big, call("small", 1))
    assert order == ["big", "small"]


# ---- arguments and repr


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf")])
def test_numbers_that_are_not_positive_and_finite_are_refused(bad: float):
    """Rate, unit, burst and limit, in the constructors and the setter."""
    limiter = RateLimiter(1)
    for wrong in (
        lambda: RateLimiter(bad),
        lambda: RateLimiter(rate=bad),
        lambda: RateLimiter(rate=1, per=bad),
        lambda: RateLimiter(1, burst_size=bad),
        lambda: RateLimiter.at_most(bad, 1),
        lambda: RateLimiter.at_most(1, bad),
        lambda: setattr(limiter, "rate", bad),
    ):
        with pytest.raises(ValueError, match="must be positive and finite, got"):
            wrong()


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf")])
async def test_weights_that_are_not_positive_and_finite_are_refused(bad: float):
    """By both ways of taking."""
    limiter = RateLimiter(1)
    with pytest.raises(ValueError, match="weight must be positive and finite"):
        await limiter.acquire(bad)
    with pytest.raises(ValueError, match="weight must be positive and finite"):
        limiter.try_acquire(bad)


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf")])
def test_a_pause_without_an_end_is_refused(bad: float):
    """It would hold everybody for ever."""
    with pytest.raises(ValueError, match="seconds must be finite and at least 0"):
        RateLimiter(1).pause(bad)


def test_two_rates_together_are_refused_with_the_two_right_forms():
    """Also where the first is the default's value, or a unit comes without a rate."""
    for wrong in (
        lambda: RateLimiter(10, rate=5),
        lambda: RateLimiter(10.0, rate=5),
        lambda: RateLimiter(600, per=60),
    ):
        with pytest.raises(ValueError, match=r"RateLimiter\(10\).*RateLimiter\(rate=600, per=60\)"):
            wrong()


async def test_the_repr_shows_the_live_state():
    """Rate, burst, how many wait, and a pause with what is left of it."""
    limiter = RateLimiter(5, burst_size=2)
    assert repr(limiter) == "<RateLimiter rate=5, burst=2, waiting=0>"
    limiter.pause(10)
    calls = [asyncio.create_task(limiter.acquire()) for _ in range(3)]
    await asyncio.sleep(4)
    assert repr(limiter) == "<RateLimiter rate=5, burst=2, waiting=3, paused for 6.0 s>"
    await asyncio.gather(*calls)
    strict = RateLimiter.at_most(10, 5)
    assert repr(strict) == "<RateLimiter at most 10 in 5 s, rate=2, burst=1.04, waiting=0>"


def test_the_weight_function_is_kept():
    """The processor asks for it."""
    assert RateLimiter(1, weight=len).weight is len
    assert RateLimiter.at_most(1, 1, weight=len).weight is len
    assert RateLimiter(1).weight is None


@pytest.mark.parametrize("start", [1e7, 3.3e7, 1e9, 1e12])
async def test_a_clock_far_from_0_goes_on(start: float):
    """Floats there are further apart than the shortest timer, which must move the clock."""
    await asyncio.sleep(start)
    limiter = RateLimiter(3)
    await asyncio.gather(*(limiter.acquire() for _ in range(30)))
    assert asyncio.get_running_loop().time() - start == pytest.approx(29 / 3, rel=0.01)
