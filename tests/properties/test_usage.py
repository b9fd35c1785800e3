"""Whatever the schedule, each item has the usage of its own attempts, and the run that of all."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from ragasync import AsyncBatchProcessor, AsyncRetry, RateLimiter, note_usage
from ragasync.testing import run_on_virtual_clock

attempts = st.lists(
    st.tuples(
        st.integers(0, 5),  # tokens before it waits
        st.sampled_from([0.0, 0.0, 0.5, 2.0]),  # how long it waits; 0 may mean not at all
        st.booleans(),  # whether a task or the call itself reports
        st.integers(0, 5),  # tokens after that
        st.sampled_from([0.0, 0.0, 0.0, 1.0, 3.0]),  # a late report after this long, if not 0
    ),
    min_size=1,
    max_size=3,
)


@given(
    st.lists(attempts, min_size=1, max_size=25),
    st.integers(1, 4),
    st.sampled_from([None, 5.0]),
    st.booleans(),
)
def test_each_item_has_the_usage_of_its_attempts(plans, max_concurrency, rate, is_nested):
    """All but the last attempt of an item fail; late reports reach the totals only."""
    made = [0] * len(plans)
    late = []

    async def report(tokens: int) -> None:
        note_usage(tokens=tokens)

    async def report_late(seconds: float) -> None:
        await asyncio.sleep(seconds)
        note_usage(tokens=1000)

    async def call(item: int) -> None:
        plan, number = plans[item], made[item]
        made[item] += 1
        before, seconds, in_task, after, later = plan[number]
        note_usage(tokens=before)
        if seconds:
            await asyncio.sleep(seconds)
        if later:
            late.append(asyncio.create_task(report_late(later)))
        if in_task:
            await asyncio.create_task(report(after))
        else:
            note_usage(tokens=after)
        if number + 1 < len(plan):
            raise ConnectionError("again")

    async def outer(item: int) -> None:
        retry = AsyncRetry(5, 0.0)
        inner = await AsyncBatchProcessor(call, retry=retry).process([item])
        inner.raise_for_errors()

    async def run():
        limiter = None if rate is None else RateLimiter(rate)
        processor = AsyncBatchProcessor(
            outer if is_nested else call,
            max_concurrency=max_concurrency,
            retry=AsyncRetry(5, 1.0),
            rate_limiter=limiter,
        )
        job = processor.start(range(len(plans)), on_current_loop=True)
        await job
        await asyncio.gather(*late)
        return job.result

    result = run_on_virtual_clock(run())
    own = [sum(before + after for before, _, _, after, _ in plan) for plan in plans]
    # A late report of an attempt may come before the end of its own call, never in another's.
    extra = [outcome.tokens - tokens for outcome, tokens in zip(result, own, strict=True)]
    assert all(tokens % 1000 == 0 for tokens in extra)
    if not is_nested:  # a nested job that retries is one call of the outer one
        assert extra == [0] * len(plans)
    assert result.usage.tokens == sum(own) + 1000 * len(late)
