"""simulate: how long a job would take and what would fail, to the virtual second."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragasync import AsyncRetry, AttemptTimeout, BatchResult, RateLimiter
from ragasync.simulation import Latency, ScriptedService, ServiceError, simulate


def facts_of(result: BatchResult[int]) -> list[tuple[Any, ...]]:
    """All that a result says of each item; errors by their words."""
    return [
        (
            *(each.index, each.status, each.value, repr(each.error), each.attempts, each.started),
            *(each.seconds, each.waited, each.backed_off, each.batch, each.worker),
        )
        for each in result
    ]


# ── how long ────────────────────────────────────────────────────────────────────────────────


def test_the_calls_go_side_by_side():
    """A hundred calls of a second, ten in flight."""
    result = simulate(100, max_concurrency=10)
    assert result.seconds == 10.0
    assert result.get_successful() == list(range(100))


@given(st.integers(0, 60), st.integers(1, 12), st.sampled_from([0.0, 0.5, 2.0, 3600.0]))
@settings(max_examples=40, deadline=None)
def test_calls_that_take_as_long_go_in_rounds(n_items: int, at_once: int, seconds: float):
    """So many rounds as it takes, each as long as a call."""
    result = simulate(n_items, max_concurrency=at_once, latency=seconds)
    assert result.seconds == math.ceil(n_items / at_once) * seconds


def test_a_limiter_lets_so_many_a_second_begin():
    """Five a second: the hundredth begins after 99 fifths of a second and takes one."""
    limiter = RateLimiter(5, burst_size=1)
    result = simulate(100, max_concurrency=10, rate_limiter=limiter)
    assert result.seconds == pytest.approx(99 / 5 + 1)
    starts = [each.started for each in result]
    assert starts == pytest.approx([index / 5 for index in range(100)])


def test_a_limiter_by_default_has_the_burst_that_it_would_have():
    """It is 1.1 at five a second."""
    result = simulate(100, max_concurrency=10, rate_limiter=RateLimiter(5))
    assert result.seconds == pytest.approx((100 - 1.1) / 5 + 1)


def test_a_strict_limiter_stays_strict():
    """Never more than three begin within ten seconds."""
    result = simulate(10, max_concurrency=10, rate_limiter=RateLimiter.at_most(3, 10.0))
    starts = sorted(each.started for each in result)
    assert all(later - begun >= 10 - 1e-6 for begun, later in zip(starts, starts[3:], strict=False))


def test_the_strictest_of_several_limiters_holds():
    """Two limiters, of which one is slow."""
    limiters = [RateLimiter(100), RateLimiter(2, burst_size=1)]
    assert simulate(20, max_concurrency=20, rate_limiter=limiters).seconds == pytest.approx(10.5)


def test_a_limiter_that_weighs_items_uses_the_weights_passed():
    """Items of 50 tokens at 100 a second: two a second."""
    limiter = RateLimiter(100, burst_size=50, weight=len)
    result = simulate(20, max_concurrency=20, rate_limiter=limiter, weight=50)
    assert result.seconds == pytest.approx(19 / 2 + 1)


def test_batches_take_the_time_of_one_call():
    """Ten batches of ten, two in flight."""
    result = simulate(100, max_concurrency=2, batched=True, batch_size=10, latency=3.0)
    assert result.seconds == 15.0
    assert result[99].batch is not None


def test_an_hour_passes_at_once():
    """One call after the other, a second each; and a year is no longer."""
    assert simulate(3600, max_concurrency=1).seconds == 3600.0
    assert simulate(12, max_concurrency=1, latency=30 * 86400.0).seconds == 360 * 86400.0


# ── what fails ──────────────────────────────────────────────────────────────────────────────


def test_without_errors_everything_succeeds_at_once():
    """One attempt an item."""
    result = simulate(50, error_rate=0.0)
    assert result.all_succeeded
    assert {each.attempts for each in result} == {1}


def test_if_all_attempts_fail_each_item_has_all_its_attempts():
    """With two retries, three attempts; none is lost."""
    result = simulate(50, max_concurrency=5, error_rate=1.0, retry_count=2)
    assert result.error_count == 50
    assert {each.attempts for each in result} == {3}
    assert all(isinstance(each.error, ServiceError) for each in result)


def test_back_off_is_that_of_the_retry():
    """Without jitter: 2, 6 and 18 seconds between four calls of one second."""
    retry = AsyncRetry(3, 2.0, factor=3.0, jitter=None)
    result = simulate(1, error_rate=1.0, retry=retry)
    assert result[0].backed_off == 26.0
    assert result.seconds == 30.0


def test_a_share_of_the_attempts_fails():
    """Of 5,000 attempts about a fifth, so that about one item in 25 fails twice."""
    result = simulate(5_000, max_concurrency=100, error_rate=0.2, retry_count=1)
    tried_twice = sum(each.attempts == 2 for each in result)
    assert tried_twice / 5_000 == pytest.approx(0.2, abs=0.02)
    assert result.error_count / 5_000 == pytest.approx(0.04, abs=0.01)


@pytest.mark.parametrize("batched", [False, True])
def test_poison_fails_alone_and_is_not_tried_again(batched: bool):
    """The same items, whether they go one by one or in batches that are halved."""
    poison = ScriptedService(permanent_error_rate=0.1, seed=7).always_fails
    result = simulate(100, permanent_error_rate=0.1, seed=7, batched=batched, batch_size=16)
    failed = [each.index for each in result.get_failed()]
    assert failed == list(filter(poison, range(100)))
    assert 0 < len(failed) < 30
    assert {each.error.response.status_code for each in result.get_failed()} == {400}


def test_an_attempt_that_takes_too_long_is_tried_again():
    """Half of the attempts take 100 s and time out after ten; a retry draws another latency."""
    result = simulate(
        200, max_concurrency=20, latency=[1.0, 100.0], timeout=10.0, retry_count=2, retry_delay=0.0
    )
    assert max(each.attempts for each in result) == 3
    assert {type(each.error) for each in result.get_failed()} == {AttemptTimeout}
    assert 0 < result.error_count < 60


def test_too_many_errors_stop_it():
    """As they would stop the job."""
    result = simulate(100, error_rate=1.0, retry_count=0, max_errors=9)
    assert result.error_count >= 10
    assert result.pending_count > 0
    assert "max_errors" in (result.stopped_because or "")


def test_a_service_of_your_own_script():
    """Its limit answers 429 to who comes too fast, and with a limiter to nobody."""
    service = ScriptedService(latency=0.1, rate=10)
    hasty = simulate(100, max_concurrency=50, service=service, retry_count=20)
    careful = simulate(100, max_concurrency=50, service=service, rate_limiter=RateLimiter(9.9))
    assert hasty.all_succeeded
    assert careful.all_succeeded
    assert max(each.attempts for each in hasty) > 1
    assert {each.attempts for each in careful} == {1}
    assert service.calls == 0


def test_concurrency_may_adapt_to_the_service():
    """It comes near the best fixed setting, which is the capacity."""
    service = ScriptedService(latency=1.0, capacity=24)
    best = simulate(4_000, max_concurrency=24, service=service)
    found = simulate(4_000, max_concurrency="auto", service=service)
    assert found.all_succeeded
    assert found.seconds < 1.5 * best.seconds < simulate(4_000, service=service).seconds


# ── chance ──────────────────────────────────────────────────────────────────────────────────

SHAKY = {
    "max_concurrency": 8,
    "latency": Latency.lognormal(1.0, 0.8),
    "error_rate": {503: 0.2, 429: 0.1},
    "permanent_error_rate": 0.02,
    "timeout": 4.0,
}


@pytest.mark.parametrize("batched", [False, True])
def test_the_same_seed_gives_the_same_outcome_by_outcome(batched: bool):
    """Each time, each attempt and each worker; and another seed another."""
    one, again, other = (
        facts_of(simulate(300, batched=batched, batch_size=4, seed=seed, **SHAKY))
        for seed in (5, 5, 6)
    )
    assert one == again
    assert one != other


def test_what_an_item_meets_does_not_hang_on_the_settings():
    """With one call in flight and with many: the same latencies, so both can be compared."""
    few = simulate(100, max_concurrency=1, latency=Latency.exponential(2.0))
    many = simulate(100, max_concurrency=50, latency=Latency.exponential(2.0))
    assert [each.seconds for each in few] == pytest.approx([each.seconds for each in many])


@given(
    n_items=st.integers(0, 80),
    at_once=st.integers(1, 20),
    error_rate=st.floats(0, 1),
    permanent_error_rate=st.floats(0, 1),
    retries=st.integers(0, 3),
    seed=st.integers(-(2**70), 2**70),
)
@settings(max_examples=25, deadline=None)
def test_every_item_is_accounted_for(
    n_items: int,
    at_once: int,
    error_rate: float,
    permanent_error_rate: float,
    retries: int,
    seed: int,
):
    """Whatever fails, it has its attempts, and time never runs backwards."""
    result = simulate(
        n_items,
        max_concurrency=at_once,
        error_rate=error_rate,
        permanent_error_rate=permanent_error_rate,
        retry_count=retries,
        seed=seed,
    )
    assert result.success_count + result.error_count == n_items
    for each in result:
        assert each.error is None or each.attempts == retries + 1 or str(each.error)[:3] == "400"
        assert 0 <= each.started < each.started + each.seconds <= result.seconds + 1e-9
