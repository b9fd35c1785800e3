"""The comparisons with other packages, in README and tests/README.md: their claims are tried."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ragasync import AsyncBatchProcessor, RateLimiter
from ragasync.testing import run_on_virtual_clock
from tests.support.requirements import needs_in_step

PEERS = (
    *("tqdm", "aiolimiter", "langchain_core", "llama_index", "tenacity"),
    *("async_batch_llm", "phoenix"),
)

needs_in_step("rules", *PEERS)

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


def test_a_leaky_bucket_lets_nearly_twice_its_rate_through_at_first():
    """As its documentation says; the burst is the whole of a second's rate."""
    from aiolimiter import AsyncLimiter

    granted = []

    async def call(limiter: AsyncLimiter) -> None:
        async with limiter:
            granted.append(asyncio.get_running_loop().time())

    async def main() -> None:
        limiter = AsyncLimiter(20, 1)
        await asyncio.gather(*(call(limiter) for _ in range(25)))

    run_on_virtual_clock(main())
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


# ---- async-batch-llm 0.28 and phoenix-evals 3.9


def with_async_batch_llm(call: Callable[[int], Awaitable[int]], items: Any, **options: Any) -> Any:
    """Process prompts; options are those of its ProcessorConfig."""
    from async_batch_llm import CallableStrategy, CallOutcome, ProcessorConfig, process_prompts

    async def invoke(prompt: str, **_: Any) -> Any:
        return CallOutcome(await call(int(prompt)))

    return process_prompts(
        CallableStrategy(invoke),
        map(str, items),
        config=ProcessorConfig(**options),
        preserve_order=True,
    )


def with_phoenix(call: Callable[[int], Awaitable[int]], items: Any, **options: Any) -> Any:
    """Run the executor of phoenix-evals; options are its own."""
    from phoenix.evals.executors import AsyncExecutor

    return AsyncExecutor(call, fallback_return_value=None, **options).execute(items)


class Refused(Exception):
    """A status 429 that asks to wait for half a minute."""

    status_code = 429

    class response:  # noqa: N801, D106
        headers = {"Retry-After": "30"}  # noqa: RUF012


async def test_async_batch_llm_gives_a_result_for_every_item():
    """One item fails alone, and no task is left."""
    flaky, before = Flaky(), asyncio.all_tasks()
    flaky.free.set()
    batch = await with_async_batch_llm(flaky, range(6), concurrency=6)
    assert (batch.succeeded, str(batch.results[1].exception)) == (5, "the second")
    assert asyncio.all_tasks() == before


async def test_phoenix_evals_ends_its_run_at_the_first_item_that_fails():
    """Calls in progress are cancelled; with exit_on_error=False the others are made."""
    values, details = await with_phoenix(Flaky(), range(6), concurrency=6, max_retries=0)
    assert values == [0, None, None, None, None, None]
    assert [each.status.name for each in details] == ["COMPLETED", "FAILED", *["DID_NOT_RUN"] * 4]
    flaky = Flaky()
    flaky.free.set()
    values, _ = await with_phoenix(
        flaky, range(6), concurrency=6, max_retries=0, exit_on_error=False
    )
    assert values == [0, None, 2, 3, 4, 5]


async def test_async_batch_llm_reads_its_whole_input_by_default():
    """It has read the last item before the first call has ended."""
    flaky = Flaky()

    def source() -> Any:
        yield from range(2, 502)
        flaky.free.set()

    batch = await with_async_batch_llm(flaky, source(), concurrency=6)
    assert batch.succeeded == 500


async def test_async_batch_llm_with_a_bounded_queue_waits_for_it():
    """It holds the items in the queue, those in calls, and the next one."""
    drawn: list[int] = []
    flaky = Flaky()

    def source() -> Any:
        for number in range(2, 502):
            drawn.append(number)
            yield number

    running = asyncio.ensure_future(
        with_async_batch_llm(flaky, source(), concurrency=6, max_queue_size=6)
    )
    await flaky.all_begun.wait()
    for _ in range(2_000):  # without a bound, it would read hundreds meanwhile
        await asyncio.sleep(0)
    assert len(drawn) == 6 + 6 + 1
    flaky.free.set()
    assert (await running).succeeded == 500


async def test_phoenix_evals_needs_a_sequence():
    """Its results are a list of the same length."""
    with pytest.raises(TypeError, match="len"):
        await with_phoenix(Flaky(), iter(range(6)))


class FailsOnce:
    """The first call with item 0 fails; the order of all calls is kept."""

    def __init__(self) -> None:
        self.called: list[int] = []

    async def __call__(self, item: int) -> int:
        """Return an item, or fail."""
        self.called.append(item)
        if self.called == [0]:
            raise ConnectionError("reset by peer")
        return item


async def test_a_retry_of_the_peers_comes_before_all_other_items():
    """The worker of one waits meanwhile, the other queues it first; ours takes another item."""
    from async_batch_llm import RetryConfig

    peer, other_peer, ours = FailsOnce(), FailsOnce(), FailsOnce()
    await with_async_batch_llm(peer, range(3), concurrency=1, retry=RetryConfig(initial_wait=0.01))
    await with_phoenix(other_peer, range(3), concurrency=1)
    await AsyncBatchProcessor(ours, max_concurrency=1, retry_delay=0.01).process(range(3))
    assert peer.called == other_peer.called == [0, 0, 1, 2]
    assert ours.called == [0, 1, 2, 0]


def test_async_batch_llm_reads_retry_after_and_waits_five_minutes_at_least():
    """The wait that a service asks for is a lower bound of its own, which is 300 s."""
    from async_batch_llm import DefaultErrorClassifier, RateLimitConfig

    assert DefaultErrorClassifier().classify(Refused()).suggested_wait == 30
    assert RateLimitConfig().cooldown_seconds == 300


async def test_phoenix_evals_does_not_read_retry_after():
    """Its limiter waits for a time of its own, here none, and calls again."""
    from phoenix.evals.rate_limiters import RateLimiter as PhoenixLimiter

    calls = []

    async def call() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise Refused
        return len(calls)

    limiter = PhoenixLimiter(
        Refused,
        max_rate_limit_retries=1,
        initial_per_second_request_rate=1_000,
        cooldown_seconds=0,
    )
    async with asyncio.timeout(20):
        assert await limiter.alimit(call)() == 2


def test_phoenix_evals_goes_down_to_one_call_after_two_refusals():
    """Within its default window, whatever the concurrency is."""
    from phoenix.evals.executors import ConcurrencyController

    controller = ConcurrencyController(max_concurrency=64, initial_target=64)
    controller.record_error()
    assert controller.target_concurrency == 64
    controller.record_error()
    assert controller.target_concurrency == 1


async def test_phoenix_evals_halves_its_rate_at_a_refusal():
    """Its limiter begins with a rate of its own, and finds the service's by its refusals."""
    from phoenix.evals.rate_limiters import AdaptiveTokenBucket

    bucket = AdaptiveTokenBucket(5, cooldown_seconds=0)
    await bucket.async_on_rate_limit_error(time.time())
    assert bucket.rate == 2.5


async def test_a_cancelled_run_of_async_batch_llm_has_no_results():
    """Where no artifact store keeps them."""
    flaky = Flaky()
    running = asyncio.ensure_future(with_async_batch_llm(flaky, range(6), concurrency=6))
    await flaky.all_begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
