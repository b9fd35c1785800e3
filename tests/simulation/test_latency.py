"""Latencies by name, by samples and by function; invalid arguments of a simulation."""

import random
from typing import Any

import numpy as np
import pytest

from ragasync import RateLimiter
from ragasync.simulation import Latency, ScriptedService, simulate

# Internals: parts of a simulation that have no public name.
from ragasync.simulation.latency import as_latency, random_bits, unit_interval
from tests.support.services import Service

SHARES = [unit_interval(random_bits(0, key)) for key in range(20_000)]


@pytest.mark.parametrize(
    ("latency", "quarter", "half", "mean"),
    [
        (Latency.constant(2.0), 2.0, 2.0, 2.0),
        (Latency.uniform(1.0, 3.0), 1.5, 2.0, 2.0),
        (Latency.normal(10.0, 1.0), 9.32551, 10.0, 10.0),
        (Latency.lognormal(0.5, 0.8), 0.29149, 0.5, 0.68856),
        (Latency.exponential(2.0), 0.57536, 1.38629, 2.0),
        (Latency.samples([1.0, 2.0, 6.0, 3.0]), 2.0, 6.0, 3.0),
    ],
)
def test_a_distribution_is_that_of_its_name(
    latency: Latency, quarter: float, half: float, mean: float
):
    """By its quantiles, and by the mean of many draws."""
    assert latency.quantile(0.25) == pytest.approx(quarter, abs=1e-5)
    assert latency.quantile(0.5) == pytest.approx(half, abs=1e-5)
    assert sum(map(latency.quantile, SHARES)) / len(SHARES) == pytest.approx(mean, rel=0.02)


def test_the_shares_are_even():
    """A tenth of them in each tenth, and neighbours know nothing of each other."""
    counts = np.histogram(SHARES, bins=10, range=(0, 1))[0]
    assert counts.min() > 1_850
    assert counts.max() < 2_150
    assert abs(np.corrcoef(SHARES[:-1], SHARES[1:])[0, 1]) < 0.03


def test_no_time_is_below_zero():
    """A normal distribution would have some."""
    assert min(map(Latency.normal(0.1, 1.0).quantile, SHARES)) == 0.0


@pytest.mark.parametrize("samples", [[1.0, 2.0], (1.0, 2.0), np.array([1.0, 2.0]), iter([1, 2])])
def test_samples_come_as_any_iterable(samples: Any):
    """A column of a frame, say."""
    assert {each.seconds for each in simulate(50, latency=samples)} == {1.0, 2.0}


def test_a_function_draws_with_a_chance_of_its_own():
    """The same for each item, whatever was drawn before."""
    one, again = (
        [each.seconds for each in simulate(20, latency=lambda chance: chance.betavariate(2, 5))]
        for _ in range(2)
    )
    assert one == again
    assert len(set(one)) == 20


def test_a_latency_says_what_it_is():
    """In its name."""
    assert repr(Latency.lognormal(0.8, 0.5)) == "Latency(name='lognormal(0.8, 0.5)')"
    assert as_latency([1.0, 2.0]).name == "one of 2 samples"


def negative(chance: random.Random) -> float:
    """No latency."""
    return -1.0


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({"n_items": -1}, ValueError, "n_items must be at least 0, got -1"),
        ({"n_items": 2.0}, TypeError, "n_items must be a whole number, got 2.0"),
        ({"max_concurrency": 0}, ValueError, "max_concurrency must be at least 1"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"retry_count": -1}, ValueError, "retry_count must be at least 0"),
        ({"retry_delay": -1.0}, ValueError, "retry_delay must be finite and at least 0"),
        ({"retry": 3}, TypeError, "retry must be an AsyncRetry, got 3"),
        ({"timeout": 0.0}, ValueError, "timeout must be positive"),
        ({"latency": -1.0}, ValueError, "latency must be finite and at least 0, got -1.0"),
        ({"latency": True}, TypeError, "latency must be a number of seconds"),
        ({"latency": "fast"}, TypeError, "latency must be seconds, a Latency such as"),
        ({"latency": None}, TypeError, "or a function of a random.Random; got None"),
        ({"latency": []}, ValueError, "samples must be at least one time"),
        ({"latency": [1.0, float("nan")]}, ValueError, "each of the samples must be finite"),
        ({"latency": negative}, ValueError, "what the function of latency returns"),
        ({"error_rate": 5}, ValueError, r"error_rate must be a share between 0 and 1 \(0.05"),
        ({"error_rate": {"503": 0.1}}, ValueError, "HTTP statuses from 400 to 599"),
        ({"error_rate": {503: 0.6, 429: 0.6}}, ValueError, "add up to at most 1"),
        ({"permanent_error_rate": 1.5}, ValueError, "permanent_error_rate must be a share"),
        ({"seed": 1.5}, TypeError, "seed must be a whole number, got 1.5"),
        ({"rate_limiter": 5}, TypeError, "pass RateLimiter"),
        ({"rate_limiter": RateLimiter(5, weight=len)}, ValueError, "pass weight="),
        ({"weight": []}, ValueError, "weight must be a number or a sequence of weights"),
        ({"weight": -1}, ValueError, "weight must be finite"),
        ({"service": Service()}, TypeError, "service must be a ScriptedService"),
        (
            {"service": ScriptedService(), "latency": 2.0},
            ValueError,
            "pass either service= or latency",
        ),
    ],
)
def test_invalid_arguments_are_refused_immediately(
    arguments: dict[str, Any], kind: type[Exception], words: str
):
    """The error says what was expected and what was received."""
    with pytest.raises(kind, match=words):
        simulate(**{"n_items": 10} | arguments)


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({"rate": 0}, ValueError, "rate must be positive"),
        ({"capacity": 0}, ValueError, "capacity must be at least 1"),
        ({"capacity": 2.5}, TypeError, "capacity must be a whole number"),
        ({"slow_start": -1}, ValueError, "slow_start must be finite"),
        ({"outages": [5]}, TypeError, "an outage must be a pair of seconds"),
        ({"outages": [(5, 3)]}, ValueError, "the end of an outage must be finite and at least 5"),
        ({"seed": "one"}, TypeError, "seed must be a whole number"),
    ],
)
def test_a_script_that_makes_no_sense_is_refused_at_once(
    arguments: dict[str, Any], kind: type[Exception], words: str
):
    """The error says what was expected and what was received."""
    with pytest.raises(kind, match=words):
        ScriptedService(**arguments)


def test_a_limiter_without_a_known_rate_cannot_be_copied():
    """It says what to pass instead."""

    class Far:
        weight = None
        max_weight = 1.0

        async def acquire(self, weight: float = 1.0) -> None: ...

        def pause(self, seconds: float) -> None: ...

    with pytest.raises(TypeError, match="copies limiters by their rate"):
        simulate(10, rate_limiter=Far())
