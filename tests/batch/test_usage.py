"""What calls report with note_usage is counted for their items and for their run."""

from __future__ import annotations

import asyncio
import contextvars
import pickle
import threading
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial

import pytest

from ragasync import (
    AsyncBatchProcessor,
    AsyncDocumentProcessor,
    AsyncRetry,
    Estimate,
    JobStopped,
    Journal,
    RateLimiter,
    Usage,
    forecast,
    note_usage,
    run_async,
)
from ragasync.testing import run_on_virtual_clock
from tests.support.pickling_executor import ByPost

other: contextvars.ContextVar[int] = contextvars.ContextVar("other", default=0)


def used(result):
    """The tokens and the cost of each item."""
    return [(outcome.tokens, outcome.cost) for outcome in result]


async def ask(item):
    """Use as many tokens as the item says."""
    await asyncio.sleep(1)
    note_usage(tokens=item, cost=item / 10)
    return item


def ask_sync(item):
    """The same in a thread or a process."""
    note_usage(tokens=item, cost=item / 10)
    return item


EACH = [(1, 0.1), (2, 0.2), (3, 0.3)]

# ── where calls run ─────────────────────────────────────────────────────────────────────────


async def test_an_async_function_reports_for_its_item():
    """Concurrent calls each for their own."""
    result = await AsyncBatchProcessor(ask).process([1, 2, 3])
    assert used(result) == EACH
    assert result.usage == Usage(3, 6, pytest.approx(0.6))
    assert result.seconds == 1.0


async def test_a_function_that_never_suspends_reports_for_its_item():
    """Many calls in a row in one task."""

    async def answer(item):
        note_usage(tokens=item)
        return item

    result = await AsyncBatchProcessor(answer, max_concurrency=2).process(range(1, 1001))
    assert [outcome.tokens for outcome in result] == list(range(1, 1001))
    assert result.usage == Usage(1000, 500500, 0.0)


async def test_several_reports_of_a_call_are_added_up():
    """A call may make several requests."""

    async def answer(item):
        note_usage(input_tokens=1, output_tokens=2)
        note_usage(tokens=4, cost=0.5)

    result = await AsyncBatchProcessor(answer).process(["a", "b"])
    assert used(result) == [(7, 0.5)] * 2
    assert result.usage == Usage(4, 14, 1.0)


@pytest.mark.real_time
async def test_a_function_on_a_thread_reports_for_its_item():
    """Its context is a copy of the worker's."""
    result = await AsyncBatchProcessor(ask_sync, max_concurrency=2).process([1, 2, 3])
    assert used(result) == EACH
    assert result.usage.tokens == 6


@pytest.mark.real_time
async def test_a_thread_that_a_call_starts_reports_for_its_item():
    """As asyncio.to_thread does it."""

    async def answer(item):
        await asyncio.to_thread(note_usage, tokens=item, cost=item / 10)

    result = await AsyncBatchProcessor(answer, max_concurrency=2).process([1, 2, 3])
    assert used(result) == EACH


@pytest.mark.parametrize("batch_size", [1, 2, 32])
async def test_usage_travels_back_from_a_worker_process_with_the_values(batch_size):
    """Each item of a group has its own."""
    processor = AsyncBatchProcessor(ask_sync, batch_size, executor=ByPost())
    result = await processor.process([1, 2, 3])
    assert used(result) == EACH
    assert result.usage == Usage(3, 6, pytest.approx(0.6))


@pytest.mark.real_time
async def test_usage_travels_back_from_a_real_process_and_through_an_executor_of_threads():
    """Async functions run there too."""
    with ProcessPoolExecutor(1) as processes, ThreadPoolExecutor(2) as threads:
        for executor in (processes, threads):
            for function in (ask_sync, ask):
                processor = AsyncBatchProcessor(function, executor=executor)
                result = await processor.process([1, 2])
                assert used(result) == EACH[:2]
                assert result.usage == Usage(2, 3, pytest.approx(0.3))


@pytest.mark.real_time
async def test_a_batch_on_an_executor_is_divided():
    """There and in a process."""

    def answer(items):
        note_usage(tokens=10 * len(items), cost=1.0)
        return items

    with ThreadPoolExecutor(1) as threads:
        for executor in (threads, ByPost()):
            processor = AsyncBatchProcessor(answer, 2, batched=True, executor=executor)
            result = await processor.process([7, 8, 9])
            assert [outcome.tokens for outcome in result] == [10, 10, 10]
            assert result.usage == Usage(2, 30, 2.0)


# ── batches, failures and retries ───────────────────────────────────────────────────────────


async def test_a_batched_call_is_divided_by_weight():
    """By weight=, else by the length of texts, else equally; the parts add up."""

    async def answer(items):
        note_usage(tokens=7, cost=1.0)
        return items

    options = {"batched": True}
    weighed = AsyncBatchProcessor(answer, weight=int, max_batch_weight=100, **options)
    assert used(await weighed.process([1, 3])) == [(1, 0.25), (6, 0.75)]
    texts = AsyncBatchProcessor(answer, **options)
    assert used(await texts.process(["a", "bcd"])) == [(1, 0.25), (6, 0.75)]
    assert used(await texts.process([1, 300])) == [(3, 0.5), (4, 0.5)]


async def test_failed_attempts_count_for_their_item():
    """The last one too, if it fails."""
    failures = {"b": 2}

    async def answer(item):
        note_usage(tokens=10, cost=0.5)
        if item == "c" or failures.get(item, 0):
            failures[item] = failures.get(item, 0) - 1
            raise ConnectionError("no answer")
        return item

    result = await AsyncBatchProcessor(answer, retry_count=2).process(["a", "b", "c"])
    assert used(result) == [(10, 0.5), (30, 1.5), (30, 1.5)]
    assert [outcome.status for outcome in result] == ["done", "done", "failed"]
    assert result.usage == Usage(7, 70, 3.5)


async def test_a_failure_in_a_worker_process_counts_too():
    """Its usage travels with its error."""

    def answer(item):
        note_usage(tokens=item)
        raise ValueError("a bad item")

    processor = AsyncBatchProcessor(answer, retry_count=0, executor=ByPost())
    result = await processor.process([1, 2])
    assert [outcome.tokens for outcome in result] == [1, 2]
    assert result.usage == Usage(2, 3, 0.0)


async def test_the_parts_of_a_split_batch_share_what_the_whole_batch_used():
    """And add their own attempts."""

    async def answer(items):
        note_usage(tokens=10 * len(items))
        if "bad" in items:
            raise ValueError("a bad item")
        return items

    processor = AsyncBatchProcessor(answer, 4, batched=True, retry_count=0)
    result = await processor.process(["aaa", "bad", "ccc", "ddd"])
    assert [outcome.status for outcome in result] == ["done", "failed", "done", "done"]
    assert [outcome.tokens for outcome in result] == [30, 30, 20, 20]
    assert result.usage.tokens == 100


async def test_an_error_in_an_items_position_has_its_share():
    """It is retried alone."""
    tries = []

    async def answer(items):
        tries.append(items)
        note_usage(tokens=10 * len(items))
        late = len(tries) == 1
        return [ConnectionError("later") if late and item == "b" else item for item in items]

    result = await AsyncBatchProcessor(answer, batched=True).process(["a", "b"])
    assert [outcome.tokens for outcome in result] == [10, 20]


async def test_an_attempt_that_timed_out_counts():
    """What it had reported by then."""

    async def answer(item):
        note_usage(tokens=3)
        await asyncio.sleep(100)

    result = await AsyncBatchProcessor(answer, timeout=1.0, retry_count=1).process(["a"])
    assert used(result) == [(6, 0.0)]


async def test_a_cancelled_call_counts():
    """Its item is not done, and paid for."""
    reported = asyncio.Event()

    async def answer(item):
        note_usage(tokens=3, cost=0.5)
        reported.set()
        await asyncio.sleep(100)

    job = AsyncBatchProcessor(answer).start(["a"], on_current_loop=True)
    await reported.wait()
    job.cancel()
    result = await job
    assert (result[0].status, result[0].tokens, result.usage.cost) == ("cancelled", 3, 0.5)


async def test_a_stream_has_the_usage_of_each_outcome():
    """In each outcome, however fast the call."""

    async def answer(item):
        note_usage(tokens=item)

    stream = AsyncBatchProcessor(answer).stream([1, 2, 3], ordered=True)
    assert [outcome.tokens async for outcome in stream] == [1, 2, 3]


async def test_calls_that_wait_for_a_limiter_report_for_their_item():
    """They are not on the fast path."""
    processor = AsyncBatchProcessor(ask, rate_limiter=RateLimiter(10, burst_size=1))
    assert used(await processor.process([1, 2, 3])) == EACH


# ── nested calls ────────────────────────────────────────────────────────────────────────────


async def test_a_nested_job_counts_for_the_items_of_both():
    """Each of the outer items has its own inner ones."""
    inner_results = []
    inner = AsyncBatchProcessor(ask, max_concurrency=2)

    async def outer(items):
        note_usage(tokens=100)
        inner_results.append(await inner.process(items))

    result = await AsyncBatchProcessor(outer, max_concurrency=2).process([[1, 2], [3]])
    assert [outcome.tokens for outcome in result] == [103, 103]
    assert sorted(each.usage.tokens for each in inner_results) == [3, 3]
    assert result.usage.tokens == 206


@pytest.mark.real_time
@pytest.mark.parametrize("way", ["process_sync", "start", "run_async"])
async def test_a_nested_job_on_another_loop_counts_for_both(way):
    """From a thread, on the background loop."""
    inner = AsyncBatchProcessor(ask_sync)

    def outer(item):
        if way == "process_sync":
            inner.process_sync([item, item])
        elif way == "start":
            inner.start([item, item]).wait()
        else:
            run_async(inner.process([item, item]))

    result = await AsyncBatchProcessor(outer, max_concurrency=2).process([1, 2, 3])
    assert [outcome.tokens for outcome in result] == [2, 4, 6]
    assert result.usage.tokens == 12


async def test_a_nested_job_in_a_worker_process_counts_for_the_outer_item():
    """All of it travels back."""

    def outer(item):
        AsyncBatchProcessor(ask_sync).process_sync([item, item])

    result = await AsyncBatchProcessor(outer, executor=ByPost()).process([1, 2])
    assert [outcome.tokens for outcome in result] == [2, 4]
    assert result.usage.tokens == 6


async def test_the_tasks_of_a_call_report_for_it():
    """In a gather, with and without variables of their own."""

    async def report(item):
        other.set(item)
        await asyncio.sleep(1)
        note_usage(tokens=item)

    async def answer(item):
        await asyncio.gather(report(item), report(item))

    result = await AsyncBatchProcessor(answer, max_concurrency=2).process([1, 2, 3, 4])
    assert [outcome.tokens for outcome in result] == [2, 4, 6, 8]


# ── late reports ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("variables", [0, 1, 3, 40, 400])
@pytest.mark.parametrize("binds", [False, True])
async def test_a_report_after_the_end_of_its_call_counts_for_the_run_only(variables, binds):
    """However large the context is, and whether the task binds a variable before it reports."""
    several = [contextvars.ContextVar(f"v{number}") for number in range(variables)]
    for variable in several:
        variable.set(1)
    background = []

    async def report_later():
        if binds:
            other.set(other.get() + 1)
        await asyncio.sleep(1.5)
        note_usage(tokens=1000)

    async def answer(item):
        if item == 0:
            background.append(asyncio.create_task(report_later()))
        await asyncio.sleep(1)
        note_usage(tokens=item)

    result = await AsyncBatchProcessor(answer, max_concurrency=1).process([0, 1, 2])
    assert [outcome.tokens for outcome in result] == [0, 1, 2]
    assert result.usage.tokens == 1003


async def test_a_report_from_a_timer_after_the_end_of_its_call_counts_for_the_run_only():
    """The timer's context is a copy too."""

    async def answer(item):
        asyncio.get_running_loop().call_later(1.5, lambda: note_usage(tokens=1000))
        await asyncio.sleep(1)

    result = await AsyncBatchProcessor(answer, max_concurrency=1).process([0, 1, 2])
    assert [outcome.tokens for outcome in result] == [0, 0, 0]
    assert result.usage.tokens == 2000


async def test_a_report_after_a_retry_has_begun_counts_for_the_run_only():
    """It is of the attempt that failed, which nobody waits for."""
    background = []

    async def report_later():
        await asyncio.sleep(5)
        note_usage(tokens=1000)

    async def answer(item):
        if not background:
            background.append(asyncio.create_task(report_later()))
            raise ConnectionError("no answer")
        await asyncio.sleep(10)

    retry = AsyncRetry(1, 1.0, jitter=None)
    result = await AsyncBatchProcessor(answer, retry=retry).process(["a"])
    assert (result[0].tokens, result[0].attempts, result.usage.tokens) == (0, 2, 1000)


async def test_a_nested_job_that_outlives_its_call_counts_for_the_outer_run_only():
    """Not for the item that is called next."""
    jobs = []

    async def outer(item):
        if item == 0:
            jobs.append(AsyncBatchProcessor(ask).start([5], on_current_loop=True))
            await asyncio.sleep(0.5)
        else:
            await asyncio.sleep(2)

    result = await AsyncBatchProcessor(outer, max_concurrency=1).process([0, 1])
    await jobs[0]
    assert [outcome.tokens for outcome in result] == [0, 0]
    assert result.usage.tokens == 5


async def test_a_late_report_in_a_worker_process_travels_with_a_later_result():
    """It counts for the run only there too."""
    contexts = []

    def answer(item):
        note_usage(tokens=item)
        for context in contexts:
            context.run(note_usage, tokens=1000)
        contexts.append(contextvars.copy_context())

    processor = AsyncBatchProcessor(answer, 1, 1, executor=ByPost())
    result = await processor.process([1, 2])
    assert [outcome.tokens for outcome in result] == [1, 2]
    assert result.usage.tokens == 1003


async def test_a_report_after_the_end_of_the_run_harms_nobody():
    """The result is as it was."""
    background = []

    async def report_later():
        await asyncio.sleep(5)
        note_usage(tokens=1000)

    async def answer(item):
        note_usage(tokens=1)
        background.append(asyncio.create_task(report_later()))

    job = AsyncBatchProcessor(answer, max_tokens=10).start(["a"], on_current_loop=True)
    result = await job
    await background[0]
    assert (result.usage.tokens, result.stopped_because) == (1, None)
    assert (job.result.usage.tokens, job.result.stopped_because) == (1001, None)


@pytest.mark.real_time
async def test_a_thread_that_outlives_its_attempt_still_counts_for_the_run():
    """Its slot is occupied until it returns, and what it used was used for its item."""
    import threading

    go_on, loop = threading.Event(), asyncio.get_running_loop()

    def answer(item):
        loop.call_soon_threadsafe(loop.call_later, 1.3, go_on.set)  # after the time limit
        go_on.wait()
        note_usage(tokens=7)

    result = await AsyncBatchProcessor(answer, timeout=1.0, retry_count=0).process(["a"])
    assert (result[0].status, result[0].tokens, result.usage.tokens) == ("failed", 7, 7)


@pytest.mark.parametrize("returns_after", [1.3, 2.5])
async def test_a_worker_process_that_outlives_its_attempt_counts_while_the_run_goes_on(
    returns_after: float,
):
    """Its report comes with its late result; a run that has stopped waiting has ended without."""

    def answer(item):
        note_usage(tokens=7)

    class Running(ByPost):
        """An executor whose calls have begun, so that nothing can cancel them."""

        def submit(self, function, /, *args, **kwargs):
            """Take a group, and begin."""
            running = Future()
            running.set_running_or_notify_cancel()
            super().submit(function, *args, **kwargs).add_done_callback(
                lambda done: running.set_result(done.result())
            )
            return running

    executor = Running(is_open=False)
    processor = AsyncBatchProcessor(answer, 1, 1, executor=executor, timeout=1.0, retry_count=0)
    job = processor.start(["a"], on_current_loop=True)
    asyncio.get_running_loop().call_later(returns_after, executor.answer)
    result = await job
    assert (result[0].status, result[0].tokens) == ("failed", 0)
    assert result.usage.tokens == (7 if returns_after < 2.0 else 0)
    await asyncio.sleep(1.0)
    assert job.result.usage.tokens == 7


async def test_nothing_reported_leaves_no_columns():
    """And no usage."""
    result = await AsyncBatchProcessor(asyncio.sleep).process([1, 2])
    assert result.columns.tokens is None is result.columns.cost
    assert result.usage == Usage()


# ── merging ─────────────────────────────────────────────────────────────────────────────────


async def test_retrying_failed_items_adds_up_the_usage_of_both_runs():
    """Each item has that of the later run, the total that of both."""
    broken = [True]

    async def answer(item):
        note_usage(tokens=10)
        if broken[0] and item == "b":
            raise ValueError("a bad item")

    processor = AsyncBatchProcessor(answer, retry_count=0)
    result = await processor.process(["a", "b"])
    broken[0] = False
    merged = await result.retry_failed(processor)
    assert merged.usage == Usage(3, 30, 0.0)
    assert [outcome.tokens for outcome in merged] == [10, 10]


# ── budgets ─────────────────────────────────────────────────────────────────────────────────


async def test_a_run_stops_when_its_tokens_are_used():
    """Calls in flight finish, nothing else starts, and the reason has both numbers."""

    async def answer(item):
        await asyncio.sleep(1)
        note_usage(tokens=400)

    result = await AsyncBatchProcessor(answer, max_concurrency=2, max_tokens=1000).process(range(9))
    assert (result.success_count, result.pending_count) == (4, 5)
    assert result.stopped_because == "1,200 tokens were used, which reaches max_tokens=1000"


async def test_a_run_stops_when_its_cost_is_spent_although_its_calls_never_suspend():
    """Rounding does not matter: ten times 0.1 is 1."""

    async def answer(item):
        note_usage(cost=0.1)

    result = await AsyncBatchProcessor(answer, max_concurrency=1, max_cost=1.0).process(range(99))
    assert (result.success_count, result.pending_count) == (10, 89)
    assert result.stopped_because == "1 was spent, which reaches max_cost=1"


async def test_a_run_stops_when_its_time_is_over():
    """Retries do not start either."""

    async def answer(item):
        await asyncio.sleep(2)
        if item == 1:
            raise ConnectionError("no answer")

    retry = AsyncRetry(1, 9.0, jitter=None)
    processor = AsyncBatchProcessor(answer, max_concurrency=2, retry=retry, max_seconds=5)
    result = await processor.process(range(9))
    assert result.seconds == 6.0
    assert (result.success_count, result.error_count) == (5, 0)
    assert [result[1].status, result[8].status] == ["pending", "pending"]
    assert result.stopped_because == "5.00 s have passed, which reaches max_seconds=5"


async def test_a_budget_that_is_not_reached_changes_nothing():
    """No timer is left."""
    processor = AsyncBatchProcessor(ask, max_seconds=60, max_tokens=100, max_cost=100)
    result = await processor.process([1, 2, 3])
    assert (result.all_succeeded, result.stopped_because) == (True, None)


@pytest.mark.real_time
@pytest.mark.parametrize("where", ["threads", "executor"])
async def test_usage_reported_on_a_thread_stops_the_run(where):
    """At most the calls in flight exceed the budget."""
    with ThreadPoolExecutor(2) as threads:
        executor = threads if where == "executor" else None
        processor = AsyncBatchProcessor(
            ask_sync, 1, max_concurrency=2, max_tokens=10, executor=executor
        )
        result = await processor.process([2] * 50)
    assert 10 <= result.usage.tokens <= 16
    assert "max_tokens=10" in result.stopped_because


async def test_usage_that_a_process_reports_stops_the_run():
    """When it comes back with the values."""
    processor = AsyncBatchProcessor(ask_sync, 1, 1, executor=ByPost(), max_tokens=10)
    result = await processor.process([3] * 9)
    assert (result.success_count, result.usage.tokens) == (4, 12)


async def test_the_usage_of_nested_jobs_stops_the_outer_run():
    """The inner one has no bound."""
    inner = AsyncBatchProcessor(ask)

    async def outer(item):
        await inner.process([item])

    result = await AsyncBatchProcessor(outer, max_concurrency=1, max_tokens=10).process([4] * 9)
    assert (result.success_count, result.usage.tokens) == (3, 12)


@pytest.mark.parametrize("bound", [0, -1.0, float("nan"), float("inf"), "much"])
@pytest.mark.parametrize("name", ["max_seconds", "max_tokens", "max_cost"])
def test_a_budget_must_be_positive_and_finite(name, bound):
    """The error names it."""
    with pytest.raises((ValueError, TypeError), match=name):
        AsyncBatchProcessor(ask, **{name: bound})


async def test_a_budget_of_what_nobody_reports_is_warned_of():
    """At the end, with advice."""
    with pytest.warns(RuntimeWarning, match=r"max_cost=5 had no effect.*note_usage\(cost=") as said:
        await AsyncBatchProcessor(asyncio.sleep, max_cost=5).process([1])
    assert len(said) == 1


async def test_an_explanation_names_the_budget_and_what_the_rest_would_take():
    """At the usage of the items that have ended."""
    result = await AsyncBatchProcessor(ask, max_concurrency=1, max_cost=4.0).process([2] * 50)
    text = " ".join(result.explain().split())
    assert "The budget max_cost=4 stopped the run, and 30 items are left" in text
    assert "about 6.00 more: with a journal, the same call with a larger max_cost" in text


async def test_a_job_shows_its_usage_and_projects_its_cost():
    """From the items that have ended to all of them."""
    job = AsyncBatchProcessor(ask, max_concurrency=1).start([2] * 10, on_current_loop=True)
    await asyncio.sleep(4.5)
    assert (job.progress.tokens, job.progress.cost) == (8, 0.8)
    assert job.progress.projected_cost == pytest.approx(2.0)
    assert "tokens 8, cost 0.80 of about 2.00" in repr(job)
    await job
    assert job.progress.projected_cost == pytest.approx(2.0)
    assert "of about" not in repr(job)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("in_parts", [False, True])
async def test_reports_of_calls_in_flight_do_not_raise_the_projected_cost(batched, in_parts):
    """They belong to items that are not finished."""

    async def ask_early(given):
        count = len(given) if batched else 1
        for _ in range(2 if in_parts else 1):
            note_usage(cost=count / (2 if in_parts else 1))
        await asyncio.sleep(1)
        return given

    job = AsyncBatchProcessor(ask_early, 2, max_concurrency=20, batched=batched).start(
        [1.0] * 120, on_current_loop=True
    )
    assert job.progress.projected_cost is None
    await asyncio.sleep(0.5)
    assert job.progress.cost > 0
    assert job.progress.projected_cost is None
    await asyncio.sleep(1)
    assert job.progress.cost > job.progress.finished_cost > 0
    assert job.progress.projected_cost == pytest.approx(120.0)
    await job
    assert job.progress.projected_cost == pytest.approx(120.0)


async def test_the_projected_cost_is_never_less_than_what_was_spent():
    """Failed attempts of an item that waits for its next one are spent, too."""

    async def ask_badly(item):
        note_usage(cost=0.5 if item else 10.0)
        if not item:
            raise ConnectionError("no answer")

    retry = AsyncRetry(9, base_delay=100.0, jitter=None)
    job = AsyncBatchProcessor(ask_badly, retry=retry, max_concurrency=1).start(
        [1, 0, 1], on_current_loop=True
    )
    await asyncio.sleep(1)
    assert (job.progress.cost, job.progress.finished_cost) == (11.0, 1.0)
    assert job.progress.projected_cost == 11.0
    job.cancel()
    await job


@pytest.mark.parametrize("bound", [{"max_tokens": 6}, {"max_cost": 0.6}, {"max_errors": 0}])
@pytest.mark.parametrize("ordered", [False, True])
async def test_a_stopped_stream_says_what_was_done_and_paid(bound, ordered):
    """Nothing else keeps it: a stream has no result."""

    async def answer(item):
        note_usage(tokens=2, cost=0.2)
        if item == 2:
            raise ValueError(item)

    processor = AsyncBatchProcessor(answer, max_concurrency=1, retry_count=0, **bound)
    with pytest.raises(JobStopped) as caught:
        [outcome async for outcome in processor.stream(range(9), ordered=ordered)]
    for stopped in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert (stopped.done, stopped.failed, stopped.tokens) == (2, 1, 6)
        assert stopped.cost == pytest.approx(0.6)
    assert processor.last_result is None


async def test_a_summary_has_the_usage():
    """Only where something was reported."""
    assert "tokens: 6" in (await AsyncBatchProcessor(ask).process([1, 2, 3])).summary()
    assert "tokens" not in (await AsyncBatchProcessor(asyncio.sleep).process([1])).summary()


@pytest.mark.parametrize("bound", [{"max_tokens": 10}, {"max_cost": 1.0}, {"max_errors": 0}])
@pytest.mark.parametrize("only", ["failed", "failed and pending"])
async def test_a_rerun_that_a_budget_stops_says_so(tmp_path, bound, only):
    """Its items show their earlier failures, as if they had failed again."""

    async def answer(item):
        note_usage(tokens=2, cost=0.2)
        if item % 2:
            raise ValueError(item)

    first = await AsyncBatchProcessor(
        answer, max_concurrency=1, retry_count=0, journal=tmp_path / "run.sqlite", max_tokens=10
    ).process(range(8))
    assert (first.error_count, first.pending_count) == (2, 3)
    again = AsyncBatchProcessor(
        answer, max_concurrency=1, retry_count=0, journal=tmp_path / "run.sqlite", **bound
    )
    whole = await first.retry_failed(again, only=None if only == "failed" else first.unfinished)
    (name,) = bound
    assert name in whole.stopped_because
    assert whole.error_count == 2


# ── tables and journals ─────────────────────────────────────────────────────────────────────


async def test_a_table_has_tokens_and_cost_where_they_were_reported():
    """Items without a report have none; without any report there are no such columns."""

    async def answer(item):
        if item:
            note_usage(tokens=item, cost=item / 10)

    frame = (await AsyncBatchProcessor(answer).process([0, 2])).to_dataframe()
    assert frame["tokens"].isna().tolist() == frame["cost"].isna().tolist() == [True, False]
    assert (str(frame["tokens"].dtype), str(frame["cost"].dtype)) == ("Int64", "Float64")
    assert (frame["tokens"].sum(), frame["cost"].sum()) == (2, 0.2)
    assert frame.columns[-1] == "traceback"
    bare = (await AsyncBatchProcessor(answer).process([0])).to_dataframe()
    assert not {"tokens", "cost"} & set(bare.columns)


async def test_a_resumed_run_knows_what_was_paid(tmp_path):
    """A budget counts all runs of the journal, and a larger one continues."""
    path = tmp_path / "run.sqlite"

    def processor(max_tokens):
        return AsyncBatchProcessor(ask, max_concurrency=1, max_tokens=max_tokens, journal=path)

    first = await processor(5).process([2, 3, 4, 5])
    assert (first.success_count, first.usage) == (2, Usage(2, 5, 0.5))
    again = await processor(5).process([2, 3, 4, 5])
    assert again.stopped_because == "5 tokens were used, which reaches max_tokens=5"
    assert (again.usage, again[2].status) == (Usage(2, 5, 0.5), "pending")
    last = await processor(100).process([2, 3, 4, 5])
    assert last.all_succeeded
    assert last.usage == Usage(4, 14, pytest.approx(1.4))
    assert [outcome.tokens for outcome in last] == [2, 3, 4, 5]
    assert first.merge(last).usage == last.usage == last.merge(first).usage
    frame = Journal(path).to_dataframe()
    assert frame["tokens"].tolist() == [2, 3, 4, 5]


async def test_a_journal_has_the_usage_of_attempts_without_an_outcome(tmp_path):
    """Of a call that was cancelled, and of a retry that never came."""
    path, reported = tmp_path / "run.sqlite", asyncio.Event()

    async def answer(item):
        note_usage(tokens=item)
        if item == 1:
            raise ConnectionError("no answer")
        reported.set()
        await asyncio.sleep(1000)

    processor = AsyncBatchProcessor(answer, retry_delay=500.0, journal=path)
    job = processor.start([1, 20], on_current_loop=True)
    await reported.wait()
    job.cancel()
    await job
    resumed = await AsyncBatchProcessor(answer, max_tokens=1, journal=path).process([1, 20])
    assert (resumed.usage.tokens, resumed.pending_count) == (21, 2)


async def test_a_retry_with_a_journal_counts_each_run_once(tmp_path):
    """The journal has the first run already."""
    broken = [True]

    async def answer(item):
        note_usage(tokens=10)
        if broken[0] and item == "b":
            raise ValueError("a bad item")

    processor = AsyncBatchProcessor(answer, retry_count=0, journal=tmp_path / "run.sqlite")
    result = await processor.process(["a", "b"])
    broken[0] = False
    assert (await result.retry_failed(processor)).usage == Usage(3, 30, 0.0)


# ── before a run ────────────────────────────────────────────────────────────────────────────


def test_an_estimate_counts_without_a_call():
    """Items, calls, tokens and their price; by estimated tokens, or by the user's count."""

    def never(items):
        raise AssertionError("called")

    texts = ["abcdefg" * 2, "abcdefg"]
    single = AsyncBatchProcessor(never)
    assert single.estimate(texts, price_per_million=1e6) == Estimate(2, 2, 6, 6.0)
    assert single.estimate(texts, count_tokens=len, max_items=1) == Estimate(1, 1, 14)
    assert single.estimate([1, 2]) == Estimate(2, 2)
    batched = AsyncBatchProcessor(never, 4, batched=True)
    assert batched.estimate(range(9), count_tokens=lambda _: 1).requests == 3
    weighed = AsyncBatchProcessor(never, 4, batched=True, weight=int, max_batch_weight=10)
    assert weighed.estimate([6, 5, 5, 1, 1, 1, 1]).requests == 3


@pytest.mark.parametrize("weights", [[60, 1, 1], [5, 60, 5, 60, 1], [11] * 3, [10, -1, 0, 10]])
async def test_an_estimate_leaves_out_items_that_fail_without_a_call(weights):
    """As a run does: it makes as many calls, with as many items."""
    called = []

    async def answer(items):
        called.append(items)
        return items

    processor = AsyncBatchProcessor(answer, 3, 1, batched=True, weight=int, max_batch_weight=10)
    estimate = processor.estimate(weights, count_tokens=lambda _: 1)
    result = await processor.process(weights)
    assert estimate.requests == len(called)
    assert estimate.tokens == result.success_count
    assert estimate.failed == result.error_count


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_missing_value_has_no_tokens(missing):
    """One row without a text leaves the price of the others."""
    processor = AsyncBatchProcessor(ask)
    assert processor.estimate(["abcdefg", missing], price_per_million=1e6).cost == 2.0


@pytest.mark.parametrize("item", [7, {"text": "abcdefg"}, ("a", "b")])
def test_a_price_needs_items_whose_tokens_can_be_counted(item):
    """The error names the item and the argument that counts them."""
    processor = AsyncBatchProcessor(ask)
    with pytest.raises(TypeError, match=r"got the item .*count_tokens"):
        processor.estimate(["abcdefg", item], price_per_million=2.0)
    assert processor.estimate([item], price_per_million=2.0, count_tokens=lambda _: 1).tokens == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"price_per_million": -1}, ValueError),
        ({"count_tokens": 3}, TypeError),
        ({"count_tokens": lambda _: 1.5}, TypeError),
        ({"max_items": -1}, ValueError),
    ],
)
def test_an_estimate_checks_its_arguments(options, error):
    """The error names them."""
    with pytest.raises(error, match=next(iter(options))):
        AsyncBatchProcessor(ask).estimate(["a"], **options)


def test_an_estimate_of_an_async_source_is_refused():
    """It would have to be read on a loop."""

    async def items():
        yield 1

    with pytest.raises(TypeError, match="pass a list"):
        AsyncBatchProcessor(ask).estimate(items())


def test_an_estimate_of_documents_loads_and_chunks_them():
    """And neither embeds nor stores."""

    def never(*args):
        raise AssertionError("called")

    processor = AsyncDocumentProcessor(chunk=str.split, embed=never, store=never, batch_size=2)
    notes = [("a", "one two three"), ("b", "four five"), ("c", "")]
    estimate = processor.estimate(notes, price_per_million=1e6, count_tokens=len)
    assert estimate == Estimate(3, 3, 19, 19.0, 5)
    broken = AsyncDocumentProcessor(load=lambda source: 1 / source, chunk=str.split)
    assert broken.estimate([0]) == Estimate(1, 0, 0, None, 0, 1)


@pytest.mark.parametrize("tokens", [None, "2", -1])
def test_an_estimate_of_documents_raises_the_error_of_its_counter(tokens):
    """It is no document's, and a cost of nothing would be believed."""
    with pytest.raises((TypeError, ValueError), match=r"count_tokens\(\)"):
        AsyncDocumentProcessor().estimate([("a", "one")], count_tokens=lambda _: tokens)
    with pytest.raises(ZeroDivisionError):
        AsyncDocumentProcessor().estimate([("a", "one")], count_tokens=lambda _: 1 / 0)


def test_a_forecast_scales_tokens_and_cost_with_an_interval():
    """From the items of the pilot, which differ."""

    async def answer(item):
        await asyncio.sleep(1)
        note_usage(tokens=100 + item % 10, cost=0.01)

    pilot = run_on_virtual_clock(AsyncBatchProcessor(answer).process(range(100)))
    ahead = forecast(pilot, 10_000)
    assert ahead.tokens == pytest.approx(1_045_000)
    low, high = ahead.tokens_interval
    assert 1_030_000 < low < ahead.tokens < high < 1_060_000
    assert ahead.cost == pytest.approx(100.0)
    assert ahead.cost_interval == (pytest.approx(100.0), pytest.approx(100.0))
    assert "1,045,000 (" in repr(ahead)
    assert "tokens, a cost of 100.00" in repr(ahead)
    assert "1,045,000 (" in ahead._repr_html_()


@pytest.mark.parametrize("carried", [True, False])
async def test_a_thread_of_the_function_reports_with_its_context_variables(carried):
    """One that starts without them is not part of the call."""

    def answer(item):
        run = contextvars.copy_context().run if carried else contextvars.Context().run
        thread = threading.Thread(target=run, args=(partial(note_usage, tokens=item),))
        thread.start()
        thread.join()

    result = await AsyncBatchProcessor(answer).process([1, 2])
    assert [outcome.tokens for outcome in result] == ([1, 2] if carried else [0, 0])
