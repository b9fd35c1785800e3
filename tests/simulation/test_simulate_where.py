"""simulate, wherever it is called from: it works there, and leaves everything there as it was."""

import asyncio
import os
import random
import signal
import threading

import pytest

from ragasync import AsyncBatchProcessor, AsyncRetry, RateLimiter, plot_timeline
from ragasync.simulation import ScriptedService, simulate
from tests.support.requirements import needs
from tests.support.services import Service


async def test_it_works_inside_a_running_loop_and_leaves_its_clock_alone():
    """As in a cell of a notebook."""
    before = asyncio.get_running_loop().time()
    assert simulate(100, max_concurrency=10).seconds == 10.0
    assert asyncio.get_running_loop().time() == before


@pytest.mark.real_time
async def test_it_works_in_a_worker_thread():
    """Also concurrently with another one."""
    both = await asyncio.gather(*(asyncio.to_thread(simulate, 100) for _ in range(2)))
    assert [each.seconds for each in both] == [25.0, 25.0]


async def test_a_job_on_the_same_loop_goes_on_afterwards():
    """It stands still meanwhile, and loses nothing."""
    job = AsyncBatchProcessor(Service(1.0), max_concurrency=2).start(
        range(10), on_current_loop=True
    )
    await asyncio.sleep(2.5)
    assert simulate(10_000, max_concurrency=100).seconds == 100.0
    result = await job
    assert result.all_succeeded
    assert result.seconds == pytest.approx(5.0)


@pytest.mark.real_time
async def test_a_job_in_the_background_goes_on_meanwhile():
    """Its loop is another one: it makes its calls while the simulation is held up."""
    called = threading.Event()

    async def call(item: int) -> int:
        called.set()
        return item

    def seconds(chance: random.Random) -> float:
        if threading.current_thread().name == "ragasync-simulation":
            job_has_called.append(called.wait(20))
        return 1.0

    job_has_called: list[bool] = []
    service = ScriptedService(seconds)
    job = AsyncBatchProcessor(call).start(range(10))
    assert simulate(3, service=service).all_succeeded
    assert job_has_called == [True, True, True]
    assert (await job).all_succeeded


def test_the_limiter_is_as_it_was():
    """Neither its bucket nor its line hears of the simulation, nor of the 429s in it."""
    limiter = RateLimiter(2, burst_size=3)
    bucket = limiter._queue.bucket

    def state() -> tuple[object, ...]:
        return repr(limiter), bucket.tat, bucket.paused_until, bucket.latest

    before = state(), bucket.fast_path_slack
    refusing = ScriptedService(rate=1)
    assert simulate(30, rate_limiter=limiter, service=refusing, retry_count=9).seconds > 20
    assert before == (state(), bucket.fast_path_slack)
    assert [limiter.try_acquire() for _ in range(4)] == [True, True, True, False]


def test_a_limiter_that_is_used_up_or_paused_counts_as_full_and_open():
    """The simulation begins with a limiter at rest."""
    limiter = RateLimiter(1, burst_size=4)
    assert all(limiter.try_acquire() for _ in range(4))
    limiter.pause(1000)
    result = simulate(4, max_concurrency=4, rate_limiter=limiter)
    assert [each.started for each in result] == [0.0] * 4


def test_the_retry_is_as_it_was():
    """Its callback hears nothing, its predicate judges nothing, and no chance of others is used."""
    heard: list[object] = []
    retry = AsyncRetry(2, on_retry=heard.append, retry_on=lambda error: bool(heard.append(error)))
    before = random.getstate()
    result = simulate(10, error_rate=0.5, retry=retry)
    assert max(each.attempts for each in result) == 3
    assert heard == []
    assert random.getstate() == before


def test_the_service_is_as_it_was():
    """A copy is called."""
    service = ScriptedService(latency=2.0, error_rate=0.5)
    simulate(10, service=service)
    assert (service.calls, service.failed, service.most_in_flight, len(service.started)) == (0,) * 4


def test_an_interrupt_ends_it_and_goes_up():
    """The stop button in the middle of a long one: its thread ends too."""
    here = threading.main_thread().ident
    assert here == threading.get_ident()
    calls = 0

    def seconds(chance: random.Random) -> float:
        nonlocal calls
        calls += 1
        if calls == 50:
            os.kill(os.getpid(), signal.SIGINT)
        return 1.0

    with pytest.raises(KeyboardInterrupt):
        simulate(10_000_000, latency=seconds)
    assert calls >= 50
    left = [each for each in threading.enumerate() if each.name == "ragasync-simulation"]
    for each in left:
        each.join(30)  # it may be at its last lines
    assert not any(each.is_alive() for each in left)


def test_frames_words_and_html_are_those_of_any_result():
    """In virtual seconds."""
    result = simulate(40, max_concurrency=4, error_rate=0.3, permanent_error_rate=0.1)
    frame = result.to_dataframe()
    assert frame["seconds"].sum() == pytest.approx(frame["attempts"].sum())
    assert len(result.errors_dataframe()) == result.error_count > 0
    assert "max_concurrency" in result.explain()
    assert f"{result.error_count} failed" in result._repr_html_()


def test_a_timeline_can_be_plotted():
    """Along virtual seconds."""
    needs("matplotlib")
    import matplotlib as mpl

    mpl.use("agg")
    axes = plot_timeline(simulate(40, max_concurrency=4, rate_limiter=RateLimiter(2)))
    low, high = axes.get_xlim()
    assert low <= 0 < 20 <= high
