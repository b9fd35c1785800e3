"""Jobs and callers that share several limiters: nobody sleeps for ever, and every bound is kept."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from ragasync import AsyncBatchProcessor, Job, RateLimiter

# Internals: single decisions, and numbers that no run reaches.
from ragasync._limits.combined import CombinedLimiter
from ragasync._limits.queue import Waiter, WaitQueue
from ragasync.testing import run_on_virtual_clock
from tests.support.random_schedules import examples, seconds

A_MOMENT = 1e-6


async def same(item: int) -> int:
    """Return the item."""
    return item


def now() -> float:
    """The virtual time."""
    return asyncio.get_running_loop().time()


async def settle() -> None:
    """Let every task run as far as it can without the clock moving."""
    for _ in range(8):
        await asyncio.sleep(0)


def weight_of(item: float) -> float:
    """What a weighted limiter counts."""
    return item


# ---- by hand


@pytest.mark.parametrize("pauses", [(2.0,), (0.3, 0.7, 2.0), (60.0, 1.0)])
async def test_jobs_at_two_shared_limiters_finish_after_one_of_them_was_paused(pauses):
    """Two need both, one needs the one that is not paused."""
    one, other = RateLimiter(20, 1), RateLimiter(2000, weight=weight_of)
    jobs: list[Job[int, int]] = [
        AsyncBatchProcessor(same, rate_limiter=limiters).start([1, 1], on_current_loop=True)
        for limiters in ([one, other], [one], [one, other])
    ]
    for length in pauses:
        await asyncio.sleep(0.01)
        other.pause(length)
    async with asyncio.timeout(3600):
        results = await asyncio.gather(*jobs)
    assert [result.success_count for result in results] == [2, 2, 2]
    assert now() == pytest.approx(max(pauses) + 0.1, abs=0.1)


@pytest.mark.parametrize("count", [3, 4])
async def test_jobs_in_a_ring_of_limiters_finish_after_any_of_them_was_paused(count: int):
    """Each shares one limiter with the job before, and one with the job after it."""
    for paused in range(count):
        ring = [RateLimiter(10, 1) for _ in range(count)]
        jobs = [
            AsyncBatchProcessor(same, rate_limiter=[ring[n], ring[(n + 1) % count]]).start(
                range(4), on_current_loop=True
            )
            for n in range(count)
        ]
        await asyncio.sleep(0.05)
        began = now()
        ring[paused].pause(1)
        async with asyncio.timeout(3600):
            results = await asyncio.gather(*jobs)
        assert all(result.all_succeeded for result in results)
        assert now() - began < 2.5


async def test_a_pause_frees_those_who_waited_for_one_who_waits_for_it():
    """The first queue was held for somebody who now has to wait for the second much longer."""
    first, second = RateLimiter(1, 10), RateLimiter(10, 10, weight=weight_of)
    first.try_acquire(10)
    both = asyncio.create_task(CombinedLimiter([first, second]).admit([1], calls=10))
    await settle()
    small = asyncio.create_task(first.acquire(1))
    await asyncio.sleep(2)
    assert not small.done(), "the first queue is held for the one who came before"
    second.pause(100)
    await settle()
    assert small.done()
    await both
    assert now() == pytest.approx(102)


async def test_a_waiter_at_two_limiters_is_put_off_by_a_younger_one_once_and_no_more():
    """Heavy ones at both, each of which leaves a debt of 5 s, could keep it waiting for ever."""
    one, two = RateLimiter(10), RateLimiter(10)

    async def keep_taking(limiter: RateLimiter, start: float) -> None:
        await asyncio.sleep(start)
        while True:
            await limiter.acquire(50)

    others = [asyncio.create_task(keep_taking(each, at)) for each, at in ((one, 0), (two, 2.5))]
    await asyncio.sleep(0.5)
    async with asyncio.timeout(60):
        await CombinedLimiter([one, two]).admit([1])
    # One stood at the first limiter before it, and one passed it at the second.
    assert now() == pytest.approx(2.5 + 5 + 5, abs=0.1)
    for task in others:
        task.cancel()


async def test_a_new_rate_of_the_job_keeps_the_places_at_a_shared_limiter():
    """Those who came later to the limiter go later, though the job's callers are requeued."""
    shared, order = RateLimiter(1, 1), []
    shared.try_acquire()
    combined = CombinedLimiter([shared])

    async def call(name: str) -> None:
        await (combined.admit([1]) if name.startswith("job") else shared.acquire())
        order.append(name)

    calls = [asyncio.create_task(call("job 1")), asyncio.create_task(call("other"))]
    await asyncio.sleep(0.25)
    combined.rate = 100.0
    combined.rate = None
    combined.rate = 50.0
    await asyncio.gather(*calls)
    assert order == ["job 1", "other"]


@pytest.mark.real_time
def test_jobs_in_threads_with_two_limiters_of_which_one_is_paused_again_and_again_finish():
    """Each thread has a loop of its own; whoever is due is woken from any of them."""
    one, two = RateLimiter(2000, 5), RateLimiter(1500, 20, weight=weight_of)
    finished: list[int] = []

    async def work(mine: list[RateLimiter], count: int) -> None:
        combined = CombinedLimiter(mine)
        for n in range(count):
            await combined.admit([1 + n % 3])
            if n % 50 == 10:
                mine[-1].pause(0.002)
            if n % 70 == 20:
                mine[0].resume()
        finished.append(count)

    kinds = [[one, two], [two, one], [one], [two], [one, two]]
    threads = [
        threading.Thread(target=lambda mine=mine: asyncio.run(work(mine, 150)), daemon=True)
        for mine in kinds
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert finished == [150] * len(kinds)
    assert "waiting=0" in repr(one)
    assert "waiting=0" in repr(two)


@pytest.mark.real_time
@pytest.mark.parametrize("seed", range(3))
def test_waiters_on_several_loops_all_go_whatever_is_done_to_their_limits_meanwhile(seed: int):
    """Each thread has a loop; this one has none, and pauses, resumes and changes rates."""
    chance = random.Random(seed)
    limits = [RateLimiter(3000, 5), RateLimiter.at_most(200, 0.05), RateLimiter(4000, weight=len)]
    gates_of = [[[0, 1], [1, 2], [0]], [[2, 0], [1], [0, 1, 2]], [[2], [1, 0]]]
    done: list[int] = []

    async def keep_calling(combined: CombinedLimiter, count: int) -> None:
        for number in range(count):
            if number % 9 == 0:  # somebody gives up
                gone = asyncio.ensure_future(combined.admit(["ab"]))
                await asyncio.sleep(0)
                gone.cancel()
            await combined.admit(["ab"])
            done.append(number)

    async def work(mine: list[list[int]]) -> None:
        limiters = [CombinedLimiter([limits[n] for n in each]) for each in mine]
        await asyncio.gather(
            *(keep_calling(combined, 60) for combined in limiters for _ in range(3))
        )

    threads = [
        threading.Thread(target=lambda mine=mine: asyncio.run(work(mine)), daemon=True)
        for mine in gates_of
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        limiter = chance.choice(limits)
        limiter.pause(chance.choice([0.0, 0.005, 0.02, 5.0]))
        chance.choice(limits).rate = chance.choice([2000.0, 6000.0])
        for each in limits:
            if each.paused_for > 1 or chance.random() < 0.2:
                each.resume()
        threads[0].join(0.01)
    assert len(done) == 8 * 3 * 60
    assert all("waiting=0" in repr(limiter) for limiter in limits)


# ---- at random


@dataclass(frozen=True)
class Kind:
    """A limiter: at `rate` a second; strict ones admit `rate * per` in any window of `per`."""

    rate: float
    burst: float | None = None
    per: float | None = None
    weighted: bool = False

    def make(self) -> RateLimiter:
        """Return a fresh one."""
        weight = weight_of if self.weighted else None
        if self.per is not None:
            return RateLimiter.at_most(self.rate * self.per, self.per, weight=weight)
        return RateLimiter(self.rate, self.burst, weight=weight)


@dataclass(frozen=True)
class Event:
    """What happens after a while; what the numbers mean depends on what it is."""

    after: float
    what: str
    who: int
    amount: float
    length: float


KINDS = st.builds(
    Kind,
    rate=st.sampled_from([0.5, 1.0, 4.0, 20.0]),
    burst=st.sampled_from([None, 1.0, 3.0, 8.0]),
    per=st.sampled_from([None, None, None, 2.0, 5.0]),
    weighted=st.booleans(),
).filter(lambda kind: kind.per is None or kind.rate * kind.per >= 2.0)

KINDS_OF_EVENTS = [
    *("bare", "job", "job", "job", "cancel", "pause", "pause", "resume"),
    *("rate", "own rate", "job pause", "job resume"),
]

EVENTS = st.builds(
    Event,
    after=seconds(1.5) | st.just(0.0),
    what=st.sampled_from(KINDS_OF_EVENTS),
    who=st.integers(0, 50),
    amount=st.sampled_from([0.5, 1.0, 1.0, 2.0, 3.0]),
    length=seconds(5),
)


@dataclass
class Limited:
    """A limiter under test, and what it has done."""

    limiter: RateLimiter
    kind: Kind
    rates: list[tuple[float, float]] = field(default_factory=list)  # since when, which
    bursts: list[float] = field(default_factory=list)
    paused_until: float = -math.inf
    came: list[int] = field(default_factory=list)  # those who need only this one
    went: list[int] = field(default_factory=list)
    grants: list[tuple[float, float]] = field(default_factory=list)

    def rate_is(self, rate: float) -> None:
        """Note a rate from now on."""
        self.rates.append((now(), rate))
        self.bursts.append(self.limiter.max_weight if self.kind.per else self.limiter.burst)

    def flowed(self, since: float, until: float) -> float:
        """What flows in from one instant to another."""
        ends = [when for when, _ in self.rates[1:]] + [math.inf]
        return sum(
            rate * max(0.0, min(until, end) - max(since, begin))
            for (begin, rate), end in zip(self.rates, ends, strict=True)
        )

    def note_grant(self, weight: float) -> None:
        """Check that it is not paused, and that no window up to now holds too much."""
        assert now() > self.paused_until - A_MOMENT, "it broke a pause"
        self.grants.append((now(), weight))
        total, most = 0.0, max(self.bursts)
        for when, each in reversed(self.grants):
            total, most = total + each, max(most, each)
            if self.kind.per is None:
                assert total <= most + self.flowed(when, now()) + A_MOMENT
            elif now() - when < self.kind.per - A_MOMENT:
                assert total <= most + A_MOMENT

    def longest(self, weight: float) -> float:
        """The seconds that a grant may take here at most, after the one before."""
        lowest = min(rate for _, rate in self.rates)
        return max(weight, 1.0) / lowest + (self.kind.per or 0.0) * 2


class World:
    """Limiters, jobs that share them, and callers."""

    def __init__(self, kinds: list[Kind], shares: list[tuple[int, ...]]) -> None:
        self.limits = [Limited(kind.make(), kind) for kind in kinds]
        for each in self.limits:
            each.rate_is(each.limiter.rate)
        self.jobs = [
            (CombinedLimiter([each.limiter for each in mine]), mine)
            for mine in (
                [self.limits[n] for n in dict.fromkeys(each % len(kinds) for each in share)]
                for share in shares
            )
        ]
        self.own_rates = [[math.inf] for _ in self.jobs]
        self.tasks: list[asyncio.Task[None]] = []
        self.needs: list[float] = []  # seconds for each caller, at the most

    def happens(self, event: Event) -> None:
        """Do what an event says."""
        limited = self.limits[event.who % len(self.limits)]
        number = event.who % len(self.jobs)
        combined, mine = self.jobs[number]
        match event.what:
            case "bare":
                self._start(self._bare(limited, event.amount, len(self.tasks)))
            case "job":
                self._start(self._at_gate(number, event.amount, len(self.tasks)))
            case "pause":
                limited.limiter.pause(event.length)
                limited.paused_until = max(limited.paused_until, now() + event.length)
            case "resume":
                limited.limiter.resume()
                limited.paused_until = -math.inf
            case "rate":
                limited.limiter.rate = 1.0 + event.amount * event.who / 10
                limited.rate_is(limited.limiter.rate)
            case "cancel" if self.tasks:
                self.tasks[event.who % len(self.tasks)].cancel()
            case "own rate":
                combined.rate = None if event.who % 3 == 0 else event.amount
                self.own_rates[number].append(combined.rate or math.inf)
            case "job pause":
                combined.pause(event.length)
                for each in mine:
                    each.paused_until = max(each.paused_until, now() + event.length)
            case "job resume":
                combined.resume()
                for each in mine:
                    each.paused_until = -math.inf

    def _start(self, call: Any) -> None:
        self.tasks.append(asyncio.create_task(call))

    async def _bare(self, limited: Limited, amount: float, number: int) -> None:
        weight = min(amount, limited.limiter.max_weight)
        limited.came.append(number)
        self.needs.append(limited.longest(weight))
        await limited.limiter.acquire(weight)
        limited.went.append(number)
        limited.note_grant(weight)

    async def _at_gate(self, job: int, amount: float, number: int) -> None:
        combined, mine = self.jobs[job]
        weight = min([amount, *(each.limiter.max_weight for each in mine)])
        alone = len(mine) == 1 and len(self.own_rates[job]) == 1
        if alone:
            mine[0].came.append(number)
        self.needs.append(max(each.longest(weight) for each in mine))
        await combined.admit([weight])
        for each in mine:
            each.note_grant(weight if each.limiter.weight is not None else 1.0)
        if alone and len(self.own_rates[job]) == 1:
            mine[0].went.append(number)

    def check_watched(self) -> None:
        """Every waiter has a timer in one of its queues, and nobody waits who heads all of them."""
        queues = [each.limiter._queue for each in self.limits] + [
            combined._own for combined, _ in self.jobs
        ]
        for queue in queues:
            for waiter in queue.waiters:
                claims = list(waiter.claims)
                assert any(waiter.loop in where.timers for where, _ in claims), "nobody watches it"
                assert not (heads_all(waiter) and is_due(claims)), "it is due and waits"

    def check_order(self) -> None:
        """Of those who need one limiter only, nobody overtook another."""
        for each in self.limits:
            assert each.went == [number for number in each.came if number in set(each.went)]

    def longest_wait(self) -> float:
        """The seconds after which nobody can wait any more, once nothing else happens."""
        lowest = min(min(rates) for rates in self.own_rates)
        own = 1.0 / lowest if lowest < math.inf else 0.0
        rates = [rate for each in self.limits for _, rate in each.rates]
        heaviest = max(self.needs, default=0.0) + 3.0 / min(rates)
        open_at = max(max(each.paused_until, 0.0) for each in self.limits)
        each = len(self.tasks) * (own + heaviest)
        return max(0.0, open_at - now()) + sum(self.needs) + each + 1.0


def heads_all(waiter: Waiter) -> bool:
    """Return whether no caller is before this waiter anywhere."""
    return all(queue.waiters[0] is waiter for queue, _ in waiter.claims)


def is_due(claims: list[tuple[WaitQueue, float]]) -> bool:
    """Return whether all would admit it now."""
    return all(queue.bucket.delay(weight, now()) == 0.0 for queue, weight in claims)


@examples(100)
@given(
    kinds=st.lists(KINDS, min_size=2, max_size=3),
    shares=st.lists(
        st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True).map(tuple),
        min_size=2,
        max_size=4,
    ),
    events=st.lists(EVENTS, min_size=5, max_size=40),
)
def test_nobody_sleeps_for_ever_whatever_happens_to_shared_limiters(kinds, shares, events):
    """Pauses, resumes, rates, cancellations, bare callers and jobs: all go, in time, in order."""

    async def run() -> None:
        world = World(kinds, shares)
        for event in events:
            await asyncio.sleep(event.after)
            note(f"{now()}: {event}")
            world.happens(event)
            await settle()
            world.check_watched()
        try:
            async with asyncio.timeout(world.longest_wait()):
                await asyncio.gather(*world.tasks, return_exceptions=True)
        except TimeoutError:
            pytest.fail(f"somebody still waits: {[each.limiter for each in world.limits]}")
        for task in world.tasks:
            assert task.cancelled() or task.exception() is None, task.exception()
        world.check_order()
        for each in world.limits:
            assert not each.limiter._queue.waiters
            assert not each.limiter._queue.shared

    run_on_virtual_clock(run())


def test_every_schedule_of_pauses_at_two_limiters_ends():
    """All short schedules of one kind, not a sample: three callers, two pauses, each order."""
    kinds = [("both",), ("one",), ("two",)]

    async def run(order: tuple[str, ...], pauses: tuple[float, float]) -> float:
        one, two = RateLimiter(20, 1), RateLimiter(5, 2)
        limiters = {
            "both": CombinedLimiter([one, two]),
            "one": CombinedLimiter([one]),
            "two": CombinedLimiter([two]),
        }
        tasks = []
        for name, pause in itertools.zip_longest(order, pauses):
            tasks += [asyncio.create_task(limiters[name].admit([1])) for _ in range(3)]
            await asyncio.sleep(0.01)
            if pause:
                (one if pause < 1 else two).pause(pause)
        async with asyncio.timeout(3600):
            await asyncio.gather(*tasks)
        return now()

    names = [name for kind in kinds for name in kind]
    for order in itertools.product(names, repeat=3):
        for pauses in itertools.product([0.0, 0.5, 2.0], repeat=2):
            assert run_on_virtual_clock(run(order, pauses)) < 2.0 + 9 / 5 + 9 / 20 + 0.1
