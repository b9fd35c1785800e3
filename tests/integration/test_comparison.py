"""What README says of other packages beside ours: each cell that is a claim is tried here."""

import asyncio
import importlib.util
import time
from typing import Any

import pytest

from ragasync import AsyncBatchProcessor, RateLimiter

PEERS = ("tqdm", "aiolimiter", "langchain_core", "llama_index", "tenacity")

if any(importlib.util.find_spec(name) is None for name in PEERS):
    pytest.skip("not installed: the extra `bench`", allow_module_level=True)

pytestmark = pytest.mark.real_time


class Flaky:
    """Six items; the second fails when the first is done, the others take their time."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.all_begun = asyncio.Event()
        self.free = asyncio.Event()

    async def __call__(self, item: int) -> int:
        """Return an item, or fail."""
        self.begun.append(item)
        if len(self.begun) == 6:
            self.all_begun.set()
        if item == 1:
            raise ValueError("the second")
        if item > 1:
            await self.free.wait()
        return item


def with_gather(flaky: Flaky) -> Any:
    """Call all at once."""
    return asyncio.gather(*map(flaky, range(6)))


def with_tqdm(flaky: Flaky) -> Any:
    """Do the same with a bar."""
    from tqdm.asyncio import tqdm_asyncio

    return tqdm_asyncio.gather(*map(flaky, range(6)), disable=True)


def with_llama_index(flaky: Flaky) -> Any:
    """Run jobs."""
    from llama_index.core.async_utils import run_jobs

    return run_jobs(list(map(flaky, range(6))), workers=6)


def with_langchain(flaky: Flaky) -> Any:
    """Run a batch."""
    from langchain_core.runnables import RunnableLambda

    return RunnableLambda(flaky).abatch(list(range(6)))


@pytest.mark.parametrize("run", [with_gather, with_tqdm, with_llama_index, with_langchain])
async def test_the_first_error_is_raised_and_what_was_begun_runs_on(run):
    """Results are lost, and nobody waits for the rest."""
    flaky, before = Flaky(), asyncio.all_tasks()
    with pytest.raises(ValueError, match="the second"):
        await run(flaky)
    left = asyncio.all_tasks() - before
    assert len(left) >= 4
    flaky.free.set()
    await asyncio.gather(*left, return_exceptions=True)


async def test_ours_gives_every_outcome_and_leaves_nothing():
    """The same six."""
    flaky, before = Flaky(), asyncio.all_tasks()
    flaky.free.set()
    result = await AsyncBatchProcessor(flaky, max_concurrency=6, retry_count=0).process(range(6))
    assert (result.success_count, str(result[1].error)) == (5, "the second")
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("run", [with_gather, with_tqdm, with_llama_index])
async def test_every_call_is_made_an_object_before_the_first_ends(run):
    """However many there are."""
    flaky = Flaky()
    running = asyncio.ensure_future(run(flaky))
    await flaky.all_begun.wait()
    with pytest.raises(ValueError, match="the second"):
        await running
    flaky.free.set()
    await asyncio.sleep(0.01)


async def test_ours_draws_an_item_when_there_is_a_slot():
    """So a source may be endless."""
    drawn = []

    def source() -> Any:
        for number in range(1_000_000):
            drawn.append(number)
            yield number

    await AsyncBatchProcessor(Flaky(), max_concurrency=2, retry_count=0).process(
        source(), max_items=2
    )
    assert len(drawn) <= 3


async def test_a_leaky_bucket_lets_nearly_twice_its_rate_through_at_first():
    """As its documentation says; the burst is the whole of a second's rate."""
    from aiolimiter import AsyncLimiter

    limiter = AsyncLimiter(20, 1)
    began = time.monotonic()
    granted = []

    async def call() -> None:
        async with limiter:
            granted.append(time.monotonic() - began)

    await asyncio.gather(*(call() for _ in range(25)))
    assert len(granted) == 25
    assert RateLimiter(20).burst < 2
    assert sum(moment < 0.2 for moment in granted) >= 20  # ours would grant 5 by then


async def test_a_limiter_that_polls_reaches_a_fifth_of_its_rate():
    """With a burst of one, at fifty a second: it looks every tenth of a second."""
    from langchain_core.rate_limiters import InMemoryRateLimiter

    limiter = InMemoryRateLimiter(requests_per_second=50, max_bucket_size=1)
    assert limiter.check_every_n_seconds == 0.1


def test_a_retry_policy_of_tenacity_knows_no_retry_after():
    """One writes a `wait` of one's own."""
    import tenacity

    assert not [name for name in dir(tenacity) if "retry_after" in name]
