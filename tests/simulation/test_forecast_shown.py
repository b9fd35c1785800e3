"""What a forecast refuses, with which words, and what it shows."""

import asyncio
import pickle
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from ragasync import BatchResult, RateLimiter
from ragasync.simulation import forecast
from tests.simulation.test_forecast import run, taking

pytestmark = pytest.mark.slow  # arithmetic on simulated runs, the same with every Python

BAD = [
    (BatchResult([], [], 0, 0), "with finished items"),
    (BatchResult([None], [ValueError("x")], 0, 1), "with successful items"),
    (BatchResult([1], [None], 1, 0), "the times of calls"),
]


@pytest.mark.parametrize(("pilot", "message"), BAD)
def test_a_pilot_without_the_necessary_data_is_refused(pilot: BatchResult[Any], message: str):
    """The error says what it lacks and what to pass instead."""
    with pytest.raises(ValueError, match=message):
        forecast(pilot, 100)


def test_runs_that_were_merged_are_refused():
    """Their time together says nothing about either."""
    pilot = run(taking(1.0), 20)
    with pytest.raises(ValueError, match="2 merged runs"):
        forecast(pilot.merge(pilot), 100)


def test_a_limiter_is_asked_for_where_its_weights_are_lost():
    """A function is not pickled with a result; limits of calls are."""
    limiters = [RateLimiter(4), RateLimiter(100, weight=lambda _: 1.0)]
    plain, weighing = (run(taking(1.0), 20, rate_limiter=each) for each in limiters)
    assert forecast(weighing, 100).makespan == pytest.approx(25)
    copy = pickle.loads(pickle.dumps(weighing))
    with pytest.raises(ValueError, match="rate_limiter="):
        forecast(copy, 100)
    assert forecast(copy, 100, rate_limiter=limiters).makespan == pytest.approx(26, rel=0.02)
    assert forecast(pickle.loads(pickle.dumps(plain)), 100) == forecast(plain, 100)


def test_a_limiter_of_another_kind_without_a_rate_is_asked_for():
    """Its limit is not known."""

    class Closed:
        weight, max_weight = None, 1.0

        async def acquire(self, weight: float = 1.0) -> None:
            await asyncio.sleep(0.5)

        def pause(self, seconds: float) -> None:
            """Be of no effect."""

    pilot = run(taking(1.0), 20, rate_limiter=[Closed(), RateLimiter(5)])
    with pytest.raises(ValueError, match="rate_limiter="):
        forecast(pilot, 100)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_items": 0}, "n_items must be at least 1"),
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"error_rate": 1.5}, "between 0 and 1"),
        ({"timeout": -1}, "timeout"),
        ({"batch_size": 8}, "batched=True"),
    ],
)
def test_changes_out_of_range_are_refused(changes: dict[str, Any], message: str):
    """Immediately, before anything is simulated."""
    with pytest.raises(ValueError, match=message):
        forecast(run(taking(1.0), 20), **{"n_items": 100, **changes})


def test_an_argument_that_is_not_a_result_is_refused():
    """The error says how to get one."""
    with pytest.raises(TypeError, match="max_items=200"):
        forecast([1, 2, 3], 100)  # type: ignore[arg-type]


def test_the_overhead_of_a_pilot_widens_the_interval():
    """It may have happened once or may slow the whole run; the pilot does not show which."""
    pilot = run(taking(1.0), 40)
    made = forecast(replace(pilot, seconds=2 * pilot.seconds), 400)
    assert made.interval == pytest.approx((100, 200))
    assert "2 times as long" in made.notes[0]


def test_its_html_states_the_facts_of_its_text_and_escapes_them():
    """No note can bring an element of its own."""
    made = replace(forecast(run(taking(1.0), 40), 400), notes=("<script>alert(1)</script>",))
    html = made._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert repr(made) == "<Forecast 400 items in 1 min 40 s, limited by concurrency, 400 requests>"
    for fact in ("400 items in 1 min 40 s", "twice the concurrency", "50.0 s", "×0.50"):
        assert fact in html


def test_the_table_has_the_right_types():
    """A row for the forecast itself and one for each change; missing values for no number."""
    made = forecast(run(taking(1.0), 40), 400)
    frame = made.to_dataframe()
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == {
        "change": "string",
        "setting": "string",
        "value": "Float64",
        "makespan": "float64",
        "ratio": "float64",
        "limited_by": "category",
    }
    assert list(frame.change)[:2] == ["as it is", "twice the concurrency"]
    assert pd.isna(frame.value[0])
    assert frame.value[1] == 8
    assert list(frame.limited_by.cat.categories) == ["rate", "concurrency", "retries", "input"]
