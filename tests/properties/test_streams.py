"""Streams and batches under random schedules, and results that are put together."""

import asyncio
from collections import Counter
from contextlib import aclosing
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ragasync import (
    AsyncBatchProcessor,
    Attempt,
    BatchResult,
    ItemTooLargeError,
    JobStopped,
    Outcome,
    ResultCountError,
)

# Internals: results with exact times and states, which no run produces on demand.
from ragasync._outcomes.columns import Columns
from ragasync._outcomes.outcome import STATUSES, Status
from ragasync._outcomes.stats import RunStats
from ragasync.testing import run_on_virtual_clock
from tests.support.poison_schedules import Poisoned, Scale, scales
from tests.support.random_schedules import examples, options, services, sources
from tests.support.services import other_tasks, turns
from tests.support.watched_service import (
    SourceBroke,
    Watched,
    check_outcome,
    is_refused,
    items_from,
)

# ---- streams


@examples(100)
@given(services(), options, sources, st.booleans(), st.integers(0, 25), st.booleans())
def test_a_stream_gives_each_outcome_once_and_leaves_nothing(
    script, options, source, ordered, wanted, slow
):
    """In order or not, read to its end or left, by a reader that takes its time or not."""

    async def run() -> None:
        service, read = Watched(script, options), list[Outcome[int, int]]()
        processor = AsyncBatchProcessor(service, **options.arguments(options.fresh_limiters()))
        broke = False
        async with aclosing(
            processor.stream(items_from(source, len(script)), ordered=ordered)
        ) as stream:
            try:
                while len(read) < wanted:
                    read.append(await anext(stream))
                    if slow:
                        await asyncio.sleep(0.3)
            except SourceBroke:
                broke = True
            except JobStopped:
                assert service.has_fatal or service.had_enough or is_refused(options)
            except StopAsyncIteration:
                assert len(read) == len(script), "it ended, and not all were given"
        assert other_tasks() == set()
        indices = [outcome.index for outcome in read]
        assert len(set(indices)) == len(indices)
        if ordered:
            assert indices == sorted(indices)
            # Where it was stopped, those that were not done leave gaps at the end.
            whole = not (service.has_fatal or service.had_enough or broke or is_refused(options))
            assert indices == list(range(len(indices))) or not whole
        assert service.broken == []
        for outcome in read:
            assert outcome.status != "pending"
            check_outcome(outcome, service)

    run_on_virtual_clock(run())


# ---- batches


@examples(75)
@given(scales)
def test_in_batches_only_the_poison_fails(scale: Scale):
    """Whatever the sizes, the weights, the outages and the number of calls at once."""

    async def run() -> None:
        service = Poisoned(scale)
        processor = AsyncBatchProcessor(service, **scale.arguments())
        result = await processor.process(range(len(scale.weights)))
        await turns()
        assert other_tasks() == set()
        assert service.broken == []
        assert [outcome.item for outcome in result] == list(range(len(scale.weights)))
        for outcome in result:
            check_poison(outcome, service)
        sizes = Counter(outcome.batch for outcome in result if outcome.batch is not None)
        if not scale.retries_in_all:
            assert service.calls <= sum(2 * size - 1 for size in sizes.values())

    run_on_virtual_clock(run())


def check_poison(outcome: Outcome[int, int], service: Poisoned) -> None:
    """Find in an outcome what its item is good for."""
    scale, item = service.scale, outcome.index
    assert outcome.attempts == service.calls_with[item]
    if scale.weights[item] > scale.most:
        assert isinstance(outcome.error, ItemTooLargeError)
        assert outcome.attempts == 0
    elif item not in scale.poison:
        assert (outcome.status, outcome.value) == ("done", 10 * item)
    elif scale.effect == "miscounted":
        assert isinstance(outcome.error, ResultCountError)
    else:
        assert outcome.error is service.raised[item]


# ---- results


def entry(index: int, run: int, status: Status, sparse: int) -> Outcome[str, str]:
    """Return an outcome whose stats all tell index and run; the sparse ones are there or not."""
    text = f"{index} in {run}"
    stats = {
        "waited": 0.5 * run,
        "backed_off": 0.25 * run,
        "batch": 10 * run + index,
        "stage": text,
        "history": (Attempt(0.5, run, text, 1.0),),
    }
    there = {name: fact for bit, (name, fact) in enumerate(stats.items()) if sparse >> bit & 1}
    return Outcome(
        index,
        f"item {index}",
        status,
        value=text if status == "done" else None,
        error=OSError(text) if status == "failed" else None,
        attempts=run,
        started=0.5 * index,
        seconds=float(run),
        worker=index,
        **there,
    )


@st.composite
def results(draw: st.DrawFn, run: int) -> BatchResult[str]:
    """Draw the result of a run of some of six items, in any order."""
    origin = draw(st.lists(st.integers(0, 5), unique=True))
    columns: Columns[str, str] = Columns(
        items=[f"item {index}" for index in origin], source_index=origin
    )
    for row, index in enumerate(origin):
        status, sparse = draw(st.sampled_from(STATUSES)), draw(st.integers(0, 31))
        if status != "pending":
            stack = f"stack of {run}: " if status == "failed" else None
            columns.record(replace(entry(index, run, status, sparse), index=row), stack)
    stats = RunStats(draw(st.integers(0, 9)), input_waited=run, limited=draw(st.booleans()))
    because = draw(st.none() | st.just(f"of {run}"))
    return BatchResult.of(columns, seconds=float(run), stats=stats, stopped_because=because)


@examples(100)
@given(results(1), results(2), results(4))
def test_it_does_not_matter_how_three_results_are_paired_when_they_are_merged(a, b, c):
    """Outcome by outcome, with every fact, and in the sums."""
    before = [list(each) for each in (a, b, c)]
    left, right = a.merge(b).merge(c), a.merge(b.merge(c))
    assert list(left) == list(right)
    assert (left.results, left.errors) == (right.results, right.errors)
    assert (left.columns.run_began, left.seconds) == (right.columns.run_began, right.seconds)
    assert left.stats == right.stats
    counts = [
        (one.success_count, one.error_count, one.cancelled_count, one.pending_count)
        for one in (left, right)
    ]
    assert counts[0] == counts[1]
    assert sum(counts[0]) == left.total
    says = {"pending": 0, "cancelled": 1, "failed": 2, "done": 2}
    expected: dict[int, Outcome[str, str]] = {}
    for outcome in [*a, *b, *c]:
        if says[outcome.status] >= says[expected.get(outcome.index, outcome).status]:
            expected[outcome.index] = outcome
    assert list(left) == [expected[index] for index in sorted(expected)]
    assert [list(each) for each in (a, b, c)] == before, "a result was changed by its merge"
