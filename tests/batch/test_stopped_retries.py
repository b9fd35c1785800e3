"""Items that wait for a retry when their run stops stay pending, and keep what they have used."""

from __future__ import annotations

import pytest

from ragasync import AsyncBatchProcessor, JobStopped, RateLimiter, note_usage


class Overloaded(Exception):
    """An error whose Retry-After is longer than any policy waits."""

    status_code = 503
    headers = {"retry-after": "3600"}  # noqa: RUF012  # as clients have it


def totals(result):
    """The tokens and the cost in the columns."""
    return sum(one.tokens for one in result), pytest.approx(sum(one.cost for one in result))


async def refuse(item):
    """Pay for a reply that is of no use."""
    note_usage(tokens=10, cost=0.5)
    raise ConnectionError("boom")


async def refuse_batch(items):
    """The same for several items."""
    note_usage(tokens=7 * len(items), cost=0.5)
    raise ConnectionError("boom")


async def refuse_and_close(item):
    """Pay for a reply, and learn that the service is closed."""
    note_usage(tokens=10, cost=0.5)
    raise Overloaded("closed")


@pytest.mark.parametrize(
    ("function", "settings"),
    [
        (refuse, {"max_seconds": 20}),
        (refuse, {"max_tokens": 50}),
        (refuse, {"max_cost": 2, "max_concurrency": 1}),
        (refuse_batch, {"batched": True, "batch_size": 3, "max_tokens": 60}),
        (refuse_batch, {"batched": True, "batch_size": 8, "max_seconds": 20}),
        (refuse, {"rate_limiter": RateLimiter(0.2, burst_size=1), "max_seconds": 63}),
        (refuse_and_close, {"max_concurrency": 2}),
    ],
)
async def test_usage_of_pending_items_is_in_the_columns(function, settings):
    """However the run was stopped: the columns add up to the usage of the run."""
    result = await AsyncBatchProcessor(
        function, retry_count=300, retry_delay=5, **settings
    ).process(range(9))
    assert result.stopped_because
    assert result.pending_count == 9
    assert totals(result) == (result.usage.tokens, result.usage.cost)
    frame = result.to_dataframe()
    assert frame["tokens"].sum() == result.usage.tokens
    assert frame["attempts"].tolist() == [outcome.attempts for outcome in result]
    assert (frame["attempts"] > 0).any()
    assert frame["seconds"].notna().tolist() == [outcome.attempts > 0 for outcome in result]


@pytest.mark.parametrize(
    "settings",
    [{"max_concurrency": 1}, {"max_concurrency": 3}, {"batched": True, "batch_size": 2}],
)
async def test_a_resumed_run_adds_what_the_stopped_one_has_used(settings, tmp_path):
    """The journal knows it of each item, so that the columns add up to the usage of both runs."""
    service = tmp_path / "up"  # if it is

    async def answer(items):
        note_usage(tokens=7, cost=0.5)
        if not service.exists():
            raise ConnectionError("boom")
        return items

    journal = tmp_path / "run.sqlite"
    settings = {
        "retry_count": 300,
        "retry_delay": 5,
        "journal": journal,
        **settings,
    }
    stopped = await AsyncBatchProcessor(answer, max_tokens=30, **settings).process(range(5))
    assert stopped.pending_count == 5
    service.touch()
    result = await AsyncBatchProcessor(answer, **settings).process(range(5))
    assert result.all_succeeded
    assert result.usage.tokens > stopped.usage.tokens
    assert totals(result) == (result.usage.tokens, result.usage.cost)
    again = await AsyncBatchProcessor(answer, **settings).process(range(5))
    assert totals(again) == (again.usage.tokens, again.usage.cost)


async def test_pending_items_have_a_log_but_no_error():
    """They have not failed."""
    result = await AsyncBatchProcessor(refuse, retry_delay=5, max_tokens=10).process(["a", "b"])
    tried = result[0]
    assert (tried.status, tried.error, tried.attempts) == ("pending", None, 1)
    assert [attempt.error for attempt in tried.history] == ["ConnectionError: boom"]
    assert result.error_count == 0
    assert result.errors_dataframe().empty


async def test_the_summary_names_the_error_that_was_to_be_retried():
    """Otherwise nothing says why nothing is done."""
    processor = AsyncBatchProcessor(refuse, retry_count=300, retry_delay=5, max_seconds=20)
    text = (await processor.process(range(3))).summary()
    assert "pending, to be retried: 3 items, after ConnectionError: boom" in text


async def test_a_stream_yields_no_pending_items():
    """What was to be retried when the run stopped is not among its outcomes."""
    processor = AsyncBatchProcessor(refuse, retry_count=300, max_seconds=20)
    seen = []

    async def read():
        async for outcome in processor.stream(range(3)):
            seen.append(outcome)  # noqa: PERF401

    with pytest.raises(JobStopped, match="max_seconds"):
        await read()
    assert seen == []
