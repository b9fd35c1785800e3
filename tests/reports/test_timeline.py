"""The timeline of a result: when calls worked, waited and backed off."""

import asyncio

import numpy as np
import pytest

from ragasync import (
    AsyncBatchProcessor,
    AsyncRetry,
    Attempt,
    BatchResult,
    Outcome,
    RateLimiter,
)

# Internals: results with exact times and states, which no run produces on demand.
from ragasync._outcomes.outcome import PENDING
from ragasync._reports.timeline import (
    BACKOFF,
    FAILED_FINALLY,
    LIMITER,
    NOT_FAILED,
    RETRIED,
    WORK,
    CallSpans,
    build_timeline,
    call_spans,
    item_times,
    mean_concurrency,
    run_length,
)
from tests.support.results import done, failed, pending, result_of
from tests.support.services import Service, about


def spans(*outcomes: Outcome) -> CallSpans:
    """The spans of these outcomes."""
    return of(result_of(outcomes, seconds=10.0))


def of(result: BatchResult) -> CallSpans:
    """The spans of a result."""
    return call_spans(result.columns, item_times(result))


def as_set(found: CallSpans) -> set[tuple[int, float, float]]:
    """The spans as tuples of state, start and end."""
    return set(zip(found.state.tolist(), found.start.tolist(), found.end.tolist(), strict=True))


def test_a_wait_for_the_rate_limit_precedes_the_call():
    """An item starts when it is admitted."""
    found = spans(done(0, started=2.0, seconds=1.0, waited=0.5, worker=3))
    assert as_set(found) == {(WORK, 2.0, 3.0), (LIMITER, 1.5, 2.0)}
    assert found.worker.tolist() == [3, 3]


def test_items_that_did_not_run_have_no_span():
    """Pending items, those that fitted into no call, and those of results that no job made."""
    assert len(spans(pending(0), failed(1, ValueError(), attempts=0))) == 0
    assert len(of(BatchResult([1, 2], [None, None], 2, 0))) == 0


def test_items_of_one_batch_share_their_call():
    """Three items have one span; another batch with the same times has its own."""
    times = {"started": 1.0, "seconds": 2.0, "waited": 0.5}
    found = spans(
        *(done(index, batch=0, **times) for index in range(3)),
        *(done(index, batch=1, **times) for index in (3, 4)),
    )
    assert sorted(found.state.tolist()) == [WORK, WORK, LIMITER, LIMITER]


def test_items_of_a_group_on_an_executor_follow_each_other():
    """They share their start and have their own durations."""
    found = spans(
        done(0, batch=0, started=1.0, seconds=0.5),
        done(1, batch=0, started=1.0, seconds=1.0),
        done(2, batch=0, started=1.0, seconds=0.25),
        done(3, batch=1, started=1.0, seconds=0.25),
    )
    assert as_set(found) == {
        (WORK, 1.0, 1.5),
        (WORK, 1.5, 2.5),
        (WORK, 2.5, 2.75),
        (WORK, 1.0, 1.25),
    }


def test_the_attempts_of_a_retried_item_are_separate_spans():
    """Two failed attempts with back-off after each, and the last one at the end of the item."""
    history = (Attempt(0.0, 1.0, "E", 2.0, worker=7), Attempt(3.0, 1.0, "E", 4.0, worker=1))
    found = spans(
        done(0, worker=5, attempts=3, seconds=2.5, backed_off=6.5, history=history),
    )
    assert as_set(found) == {
        (WORK, 0.0, 1.0),
        (BACKOFF, 1.0, 3.0),
        (WORK, 3.0, 4.0),
        (BACKOFF, 4.0, 8.5),
        (WORK, 8.5, 9.0),
    }
    at = found.start.tolist()
    assert dict(zip(at, found.worker.tolist(), strict=True)) == {
        0.0: 7,
        1.0: 1,
        3.0: 1,
        4.0: 5,
        8.5: 5,
    }
    assert [found.failed[at.index(start)] for start in (0.0, 3.0, 8.5)] == [
        RETRIED,
        RETRIED,
        NOT_FAILED,
    ]


def test_the_wait_of_a_retry_for_the_rate_limit_follows_its_back_off():
    """Each attempt has its own wait."""
    history = (Attempt(1.0, 1.0, "E", 2.0, waited=0.75),)
    facts = {"attempts": 2, "started": 1.0, "seconds": 2.0, "backed_off": 2.0, "waited": 1.0}
    found = spans(failed(0, OSError(), history=history, **facts))
    assert as_set(found) == {
        (LIMITER, 0.25, 1.0),
        (WORK, 1.0, 2.0),
        (BACKOFF, 2.0, 4.0),
        (LIMITER, 4.0, 4.25),
        (WORK, 4.25, 5.25),
    }
    assert found.failed[found.start == 4.25].tolist() == [FAILED_FINALLY]


def test_a_retried_item_of_a_group_does_not_move_the_others():
    """Three items one after the other; the second is retried alone."""
    history = (Attempt(1.5, 1.0, "E", 2.0, waited=0.5),)
    times = {"batch": 0, "started": 1.0, "waited": 0.5}
    found = spans(
        done(0, seconds=0.5, **times),
        done(1, seconds=1.25, attempts=2, backed_off=2.0, history=history, **times),
        done(2, seconds=0.25, **times),
    )
    assert sorted(zip(found.state.tolist(), found.start.tolist(), strict=True)) == [
        (WORK, 1.0),
        (WORK, 1.5),
        (WORK, 2.5),
        (WORK, 4.5),
        (LIMITER, 0.5),
        (BACKOFF, 2.5),
    ]
    assert found.end.max() == 4.75


def test_concurrent_halves_of_a_batch_are_two_calls():
    """On two workers, after the call that they shared."""
    history = (Attempt(0.0, 1.0, "E", 0.0),)
    found = spans(
        *(
            done(index, batch=0, attempts=2, seconds=2.0, worker=worker, history=history)
            for index, worker in enumerate((0, 0, 1, 1))
        )
    )
    workers_and_starts = sorted(zip(found.worker.tolist(), found.start.tolist(), strict=True))
    assert workers_and_starts == [(0, 0.0), (0, 1.0), (1, 1.0)]


async def test_the_parts_of_a_split_batch_share_the_calls_before_the_split():
    """With one bad item of four there are 1 + 2 + 2 calls, for any number of items in each."""

    async def embed(batch):
        await asyncio.sleep(1)
        if 3 in batch:
            raise ValueError("3 is bad")
        return batch

    processor = AsyncBatchProcessor(embed, 4, 1, retry_count=0, batched=True)
    found = of(await processor.process(range(4)))
    assert (found.state == WORK).sum() == 5
    assert found.failed.tolist().count(RETRIED) == 2
    assert found.failed.tolist().count(FAILED_FINALLY) == 1


@pytest.mark.parametrize("rate", [None, 4.0])
async def test_the_spans_of_a_run_fit_its_workers(rate):
    """All times are included, and no two calls overlap on one worker."""
    tried: set[int] = set()

    async def flaky(item):
        await asyncio.sleep(0.25 + item % 7 / 10)
        if item % 3 == 0 and item not in tried:
            tried.add(item)
            raise ConnectionError
        return item

    limiter = None if rate is None else RateLimiter(rate, 1)
    processor = AsyncBatchProcessor(flaky, max_concurrency=4, rate_limiter=limiter)
    result = await processor.process(range(60))
    found = of(result)
    work = found.state == WORK
    assert (found.end - found.start)[work].sum() == pytest.approx(sum(result.columns.seconds))
    edges = np.linspace(0.0, result.seconds, 500)
    assert mean_concurrency(found.start[work], found.end[work], edges).max() <= 4 + 1e-6
    waits = (found.end - found.start)[found.state == LIMITER].sum()
    assert waits == pytest.approx(sum(result.columns.waited or [0.0]))
    holds = found.state != BACKOFF
    for worker in range(4):
        here = holds & (found.worker == worker)
        order = np.argsort(found.start[here], kind="stable")
        begins, ends = found.start[here][order], found.end[here][order]
        assert (begins[1:] >= ends[:-1] - 1e-6).all()
    assert item_times(result).end.max() == pytest.approx(result.seconds)


def test_mean_concurrency_is_the_mean_number_of_open_spans():
    """In each bin, including fractions."""
    start, end = np.array([0.0, 0.5, 3.0]), np.array([1.0, 2.5, 3.0])
    assert mean_concurrency(start, end, np.arange(5.0)).tolist() == [1.5, 1.0, 0.5, 0.0]


def test_the_timeline_has_the_concurrency_of_each_state_in_each_bin():
    """Calls, waits and back-off."""
    history = (Attempt(1.0, 1.0, "E", 2.0),)
    result = result_of(
        [
            done(0, started=1.0, seconds=2.0, attempts=2, backed_off=1.0, history=history),
            done(1, started=2.0, seconds=2.0, waited=1.0),
        ],
        seconds=4.0,
    )
    timeline = build_timeline(result, 4)
    assert timeline is not None
    assert timeline.calls == {
        WORK: [0.0, 1.0, 1.0, 2.0],
        LIMITER: [0.0, 1.0, 0.0, 0.0],
        BACKOFF: [0.0, 0.0, 1.0, 0.0],
    }
    assert timeline.peak_concurrency == 2.0


async def test_merged_runs_are_end_to_end():
    """For any order of merges; the log of attempts is shifted too."""
    retry = AsyncRetry(1, 1.0, jitter=None)
    runs = [
        await AsyncBatchProcessor(Service(1.0, errors), 1, 1, retry=retry).process([0, 1])
        for errors in ({1: OSError()}, {0: OSError(), 1: ValueError()}, {1: [OSError()]})
    ]
    first, second, third = runs
    assert [run.seconds for run in runs] == about([4, 4, 4])
    for part in (second, third):
        part.columns.status[0] = PENDING
    for whole in (first.merge(second).merge(third), first.merge(second.merge(third))):
        assert [outcome.started for outcome in whole] == about([0, 1])
        found = of(whole)
        assert sorted(zip(found.start.tolist(), found.end.tolist(), strict=True)) == [
            about((0, 1)),
            about((9, 10)),
            about((10, 11)),
            about((11, 12)),
        ]
        assert run_length(whole, item_times(whole)) == about(12)


def test_a_batch_stays_one_call_after_a_merge():
    """Even if outcomes of the earlier run are between its items."""
    first = result_of([done(n, batch=0, seconds=1.0) for n in range(5)], seconds=1.0)
    second = result_of([done(n, batch=n % 2, seconds=2.0) for n in range(4)], seconds=2.0)
    second.columns.source_index = [0, 1, 2, 4]
    found = of(first.merge(second))
    assert sorted(found.start.tolist()) == [0.0, 1.0, 1.0]
