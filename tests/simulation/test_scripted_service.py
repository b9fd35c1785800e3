"""The scripted service: each clause of its script, to the virtual second."""

import asyncio
import random
from collections.abc import Iterable

import pytest

from ragasync import AsyncBatchProcessor, RateLimiter
from ragasync.simulation import Latency, ScriptedService, ServiceError, simulate

# Internals: the arithmetic of random draws, which is the same in every process.
from ragasync.simulation.latency import key_of
from ragasync.testing import FakeBatchService, run_on_virtual_clock
from tests.support.services import about, now
from tests.support.verdicts import verdict_on, wait_named_by


async def fate(service: ScriptedService, item: object) -> tuple[object, float]:
    """What a call gives, a value or a status, and how long that takes."""
    began = now()
    try:
        given: object = await service(item)
    except ServiceError as error:
        given = error.response.status_code
    return given, round(now() - began, 9)


async def fates(service: ScriptedService, items: Iterable[object]) -> list[tuple[object, float]]:
    """The outcomes of calls that start together."""
    return list(await asyncio.gather(*(fate(service, item) for item in items)))


async def test_it_returns_what_it_is_given_when_its_time_is_over():
    """An item, or a list as one call."""
    service = ScriptedService(latency=2.0)
    assert await fate(service, "a text") == ("a text", 2.0)
    assert await fate(service, ["one", "two"]) == (["one", "two"], 2.0)
    assert service.calls == 2


async def test_it_counts_its_calls():
    """Their number, their starts, the most in flight, and how many failed."""
    service = ScriptedService(latency=2.0, permanent_error_rate=1.0)
    for _ in range(3):
        await asyncio.gather(*(fate(service, item) for item in range(2)), asyncio.sleep(10))
    assert (service.calls, service.failed, service.refused) == (6, 6, 0)
    assert (service.in_flight, service.most_in_flight) == (0, 2)
    assert list(service.started) == about([0, 0, 10, 10, 20, 20])
    assert service.calls_over_time(10.0) == [2, 2, 2]
    assert repr(service) == "<ScriptedService 6 calls, 6 failed, 0 in flight>"


async def test_one_that_was_never_called_has_no_calls_over_time():
    """Neither does it fail to say so."""
    assert ScriptedService().calls_over_time() == []


async def test_what_an_item_meets_hangs_on_no_other():
    """The same for each, in whatever order they come, and alone."""
    script = ScriptedService(Latency.lognormal(1.0, 1.0), {503: 0.3, 429: 0.2}, seed=4)
    items = [f"text {number}" for number in range(100)]
    shuffled = random.Random(1).sample(items, 100)
    at_once = dict(zip(items, await fates(script.fresh(), items), strict=True))
    in_another_order = dict(zip(shuffled, await fates(script.fresh(), shuffled), strict=True))
    assert at_once == in_another_order
    assert [await fate(script.fresh(), item) for item in items[:9]] == list(at_once.values())[:9]
    assert list(at_once.values()) != await fates(script.fresh(5), items)


async def test_each_attempt_draws_its_own_fate():
    """An item that failed may succeed the next time; one that succeeded stays as it is."""
    service = ScriptedService(Latency.uniform(1, 9), error_rate=0.5)
    first, second, third = [await fates(service, range(400)) for _ in range(3)]
    failed = [number for number in range(400) if first[number][0] == 503]
    well = set(range(400)) - set(failed)
    assert len(failed) / 400 == pytest.approx(0.5, abs=0.07)
    assert sum(second[number][0] == 503 for number in failed) / len(failed) == pytest.approx(
        0.5, abs=0.1
    )
    assert all(first[number] == second[number] == third[number] for number in well)


async def test_a_call_that_was_cancelled_has_failed():
    """So one that timed out is not as slow again."""
    service = ScriptedService(latency=[1.0, 50.0])
    slow = [seconds for _, seconds in await fates(service.fresh(), range(99))].index(50)
    timed_out = 0
    while True:
        try:
            await asyncio.wait_for(service(slow), 10)
            break
        except TimeoutError:
            timed_out += 1
    assert 1 <= timed_out < 20
    assert (service.failed, service.in_flight) == (timed_out, 0)


async def test_errors_come_in_the_shares_of_error_rate():
    """By status, and retries judge them by that."""
    service = ScriptedService(0.0, {503: 0.1, 429: 0.2, 404: 0.05})
    given = [each for each, _ in await fates(service, [[number] for number in range(10_000)])]
    for status, share in {503: 0.1, 429: 0.2, 404: 0.05}.items():
        assert given.count(status) / 10_000 == pytest.approx(share, abs=0.01)
    assert verdict_on(ServiceError(503)) is verdict_on(ServiceError(429)) is True
    assert verdict_on(ServiceError(404)) is False
    batches = FakeBatchService(str, errors={2: ServiceError(400)})
    await AsyncBatchProcessor(batches, 4, 1, batched=True, retry_count=0).process(range(4))
    assert batches.batches == [[0, 1, 2, 3], [0, 1], [2, 3], [2], [3]]
    assert str(ServiceError(429)) == "429 Too Many Requests"


async def test_poison_fails_each_time_and_takes_its_batch_along():
    """The items that it is in tell."""
    service = ScriptedService(permanent_error_rate=0.05, seed=1)
    poison = [number for number in range(200) if service.always_fails(number)]
    assert 2 <= len(poison) <= 25
    given = [each for each, _ in await fates(service, range(200))]
    assert [number for number, each in enumerate(given) if each == 400] == poison
    again = [each for each, _ in await fates(service, poison)]
    assert again == [400] * len(poison)
    assert (await fate(service, [*range(200)]))[0] == 400


async def test_it_says_429_to_who_comes_too_fast_and_how_long_to_wait():
    """It has a burst of one second, and serves a call after its Retry-After."""
    service = ScriptedService(latency=1.0, rate=4)
    given = await fates(service, range(6))
    assert [each for each, _ in given] == [0, 1, 2, 3, 429, 429]
    assert given[5] == (429, 0.01)
    assert service.refused == 2
    service = ScriptedService(latency=1.0, rate=4)
    await fates(service, range(4))  # takes a second, in which it filled again
    began = now()
    for number in range(4):
        asyncio.ensure_future(fate(service, number))  # noqa: RUF006
    await asyncio.sleep(0)
    with pytest.raises(ServiceError) as refused:
        await service(5)
    wait = wait_named_by(refused.value)
    assert wait == 0.25
    await asyncio.sleep(began + wait - now())
    assert (await fate(service, 5))[0] == 5


def test_below_its_rate_nobody_is_refused():
    """With the limiter that its rate calls for."""
    service = ScriptedService(rate=7, latency=3.0)
    result = simulate(200, max_concurrency=50, service=service, rate_limiter=RateLimiter(7))
    assert {each.attempts for each in result} == {1}


async def test_beyond_its_capacity_it_slows_down_and_then_refuses():
    """Calls that begin beyond it take (c/k)² times as long, and 2k are its end."""
    service = ScriptedService(latency=4.0, capacity=4)
    given = await fates(service, range(9))
    assert [seconds for _, seconds in given] == about(
        [4, 4, 4, 4, 4 * (5 / 4) ** 2, 4 * (6 / 4) ** 2, 4 * (7 / 4) ** 2, 16, 0.01]
    )
    assert given[8][0] == 503
    assert service.most_in_flight == 9


def test_its_capacity_is_the_best_number_of_calls_at_once():
    """Fewer and more both take longer."""
    service = ScriptedService(latency=1.0, capacity=16)
    at = {
        calls: simulate(1_000, max_concurrency=calls, service=service, retry_count=50).seconds
        for calls in (4, 8, 16, 24, 32, 64)
    }
    assert min(at, key=at.get) == 16
    assert at[4] > at[8] > at[16] < at[24] < at[32]


async def test_it_starts_slowly():
    """Three times as slow at first, twice halfway, then never again."""
    service = ScriptedService(latency=1.0, slow_start=20.0)
    seconds = []
    for begin in (0, 10, 20, 40):
        await asyncio.sleep(begin - now())
        seconds.append((await fate(service, 1))[1])
    assert seconds == about([3, 2, 1, 1])


async def test_it_refuses_all_in_an_outage():
    """From its first second to its last, which is no part of it."""
    service = ScriptedService(latency=1.0, outages=[(10, 20), (30, 30.5)])
    given = []
    for begin in (0, 10, 19.9, 20, 30, 31):
        await asyncio.sleep(begin - now())
        given.append(await fate(service, 1))
    assert given == [(1, 1), (503, 0.01), (503, 0.01), (1, 1), (503, 0.01), (1, 1)]


def test_on_another_clock_its_time_starts_at_zero():
    """A second loop whose clock begins at 0 meets the outage again."""
    service = ScriptedService(latency=1.0, outages=[(5, 10)], rate=1)

    async def call_at(seconds: float) -> object:
        await asyncio.sleep(seconds)
        return (await fate(service, 1))[0]

    async def begin_and_call_at(seconds: float) -> list[object]:
        return list(await asyncio.gather(call_at(0), call_at(seconds)))

    assert run_on_virtual_clock(begin_and_call_at(6)) == [1, 503]
    assert run_on_virtual_clock(begin_and_call_at(6)) == [1, 503]
    assert run_on_virtual_clock(begin_and_call_at(11)) == [1, 1]


@pytest.mark.real_time
async def test_it_works_on_a_real_clock_too():
    """With a processor, as in a notebook."""
    service = ScriptedService(latency=0.001, error_rate=0.2)
    processor = AsyncBatchProcessor(service, max_concurrency=8, retry_count=9, retry_delay=0.0)
    result = await processor.process(range(100))
    assert result.all_succeeded
    assert service.calls == sum(each.attempts for each in result) > 100


def test_a_text_has_the_same_key_on_every_machine():
    """Not the hash of Python, which is another in each process."""
    assert key_of("a text") == 6008937231813765456
    assert key_of(17) == 17
    assert key_of((1, "a")) == key_of((1, "a")) != key_of((1, "b"))
