"""What calls used is added up a run, and shared among what they were made for."""

import asyncio
import threading

import pytest

from ragasync.documents import note_usage
from ragasync.documents.metering import Meter, Metering, MeteringAsync, metered_by, shares


@pytest.fixture
def meter():
    """A meter that hears of what the test does."""
    meter = Meter()
    end = metered_by(meter)
    yield meter
    end()


def test_outside_of_a_run_usage_is_nobodys_business():
    """An embedder may be called by hand."""
    note_usage(tokens=10, cost=0.5)


@pytest.mark.parametrize(
    "usage", [{"tokens": -1}, {"cost": -0.1}, {"cost": float("nan")}, {"cost": float("inf")}]
)
def test_usage_that_is_no_amount_is_refused(usage):
    """A sum would be spoilt for good."""
    with pytest.raises(ValueError, match="finite and at least 0"):
        note_usage(**usage)


def test_a_run_adds_up_what_its_calls_report(meter):
    """Several reports of one call count together."""
    note_usage(tokens=10, cost=0.25)
    note_usage(tokens=5)
    assert (meter.tokens, meter.cost) == (15, 0.25)


async def test_tasks_and_threads_of_a_run_report_to_it():
    """They inherit whom they tell."""
    meter = Meter()
    end = metered_by(meter)
    task = asyncio.create_task(asyncio.to_thread(note_usage, tokens=7))
    end()
    note_usage(tokens=100)
    await task
    assert meter.tokens == 7


def test_threads_that_report_at_once_lose_nothing():
    """Ten of them, a thousand times each."""
    meter = Meter()
    report = [lambda: [meter.add(1, 0.5) for _ in range(1000)]] * 10
    threads = [threading.Thread(target=each) for each in report]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (meter.tokens, meter.cost) == (10_000, 5_000.0)


@pytest.mark.parametrize(
    ("whole", "weights", "parts"),
    [
        (10, [1, 1], [5, 5]),
        (10, [3, 1], [7, 3]),
        (1, [1, 1, 1], [0, 0, 1]),
        (5, [0, 0], [2, 3]),
        (0, [2, 3], [0, 0]),
        (7, [0, 9], [0, 7]),
    ],
)
def test_shares_add_up_to_the_whole(whole, weights, parts):
    """By weight, and to the unit."""
    assert shares(whole, weights) == parts
    assert sum(parts) == whole


def test_a_call_hands_each_text_its_share(meter):
    """By the length of the texts."""

    def embed(texts):
        note_usage(tokens=8)
        return [[1.0]] * len(texts)

    rows = Metering(embed)(["a", "bcd"])
    assert [(each.row, each.tokens) for each in rows] == [([1.0], 2), ([1.0], 6)]
    assert meter.tokens == 8


async def test_an_async_call_does_too(meter):
    """Whether it says that it is async or not."""

    async def embed(texts):
        await asyncio.sleep(1)
        note_usage(tokens=4)
        return [[1.0]] * len(texts)

    for rows in (await MeteringAsync(embed)(["ab", "cd"]), await Metering(embed)(["ab", "cd"])):
        assert [each.tokens for each in rows] == [2, 2]
    assert meter.tokens == 8


def test_a_call_that_reports_nothing_gives_its_rows_as_they_are(meter):
    """The common case costs nothing."""
    rows = [[1.0]]
    assert Metering(lambda texts: rows)(["a"]) is rows


def test_the_bound_is_said_to_be_reached_once():
    """With what was spent, and although 0.1 ten times is less than 1."""
    said = []
    meter = Meter(max_cost=1.0, when_spent=said.append)
    for _ in range(9):
        meter.add(0, 0.1)
    assert said == []
    meter.add(0, 0.1)
    meter.add(0, 0.1)
    assert said == ["1 was spent, which reaches max_cost=1"]
