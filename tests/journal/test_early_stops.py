"""Runs that a budget stops: what the journal has of the rest is kept, and nothing is made up."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from ragasync import AsyncBatchProcessor, AsyncDocumentProcessor, note_usage


async def ask(number: int) -> int:
    """Answer, for ten tokens."""
    note_usage(tokens=10, cost=0.5)
    return number


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """The file of a journal."""
    return tmp_path / "run.sqlite"


@pytest.mark.parametrize("bound", [{"max_tokens": 50}, {"max_cost": 2.5}], ids=str)
async def test_a_run_whose_budget_is_spent_returns_what_the_journal_has(journal: Path, bound):
    """It was paid for, so it must not be lost in the result."""
    processor = AsyncBatchProcessor(ask, max_concurrency=1, journal=journal, **bound)
    first = await processor.process(range(30))
    again = await processor.process(list(range(30)))
    assert first.success_count == again.success_count == 5
    assert again.results == first.results
    assert again.pending_count == 25
    assert again.stopped_because == first.stopped_because


@pytest.mark.parametrize("batched", [False, True])
async def test_items_after_the_stop_come_from_the_journal(journal: Path, batched: bool):
    """Also if they are far behind the item that stopped the run."""
    fails = False

    async def work(given):
        if fails:
            raise TypeError("not today")
        return given

    settings = {"max_errors": 0, "batched": batched, "batch_size": 2, "max_concurrency": 1}
    processor = AsyncBatchProcessor(work, journal=journal, **settings)
    assert (await processor.process(range(50, 200))).all_succeeded
    fails = True
    result = await processor.process(range(200))
    assert result.results[50:] == list(range(50, 200))
    assert result.success_count == 150
    assert result.stopped_because


async def test_an_endless_source_is_not_read_further(journal: Path):
    """Only items in memory are looked up after a stop."""
    read = []

    def numbers() -> Iterator[int]:
        for number in count():
            read.append(number)
            yield number

    processor = AsyncBatchProcessor(ask, max_concurrency=2, journal=journal, max_tokens=40)
    result = await processor.process(numbers())
    assert result.success_count >= 4
    assert len(read) < 20


@pytest.mark.parametrize("kind", [tuple, list, iter])
async def test_a_budget_that_the_last_item_reaches_stops_nothing(kind):
    """The run is whole; of an iterator, nobody knows whether it has more."""
    processor = AsyncBatchProcessor(ask, max_concurrency=1, max_tokens=100)
    result = await processor.process(kind(range(10)))
    assert result.all_succeeded
    if kind is not iter:
        assert result.stopped_because is None


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_stream_whose_last_item_reaches_the_budget_ends_as_usual(ordered: bool):
    """Nothing was left out."""
    processor = AsyncBatchProcessor(ask, max_concurrency=1, max_tokens=100)
    outcomes = [each.value async for each in processor.stream(range(10), ordered=ordered)]
    assert outcomes == list(range(10))


async def test_an_item_in_back_off_is_left_by_a_stop():
    """So the run has stopped early, although its source has ended."""

    async def fail(number: int) -> int:
        note_usage(tokens=10)
        if number == 1:
            raise ConnectionError("refused")
        return number

    processor = AsyncBatchProcessor(fail, max_concurrency=1, max_tokens=30, retry_delay=60)
    result = await processor.process(range(3))
    assert result.pending_count == 1
    assert "max_tokens" in result.stopped_because


async def test_errors_that_stop_a_run_are_its_reason_even_if_no_item_is_left():
    """The run ended because of them."""

    async def fail(number: int) -> int:
        raise TypeError("no")

    result = await AsyncBatchProcessor(fail, max_errors=0).process([1])
    assert result.stopped_because


class InvalidKey(Exception):
    """A refusal that every other call would meet too."""

    status_code = 401


@pytest.mark.parametrize("batched", [False, True])
async def test_an_item_whose_error_stopped_the_run_is_processed_by_the_next_one(
    journal: Path, batched: bool
):
    """The error is not its own: the result has it, and the journal only what it has used."""
    key_is_valid = False

    async def work(given):
        note_usage(tokens=10)
        if not key_is_valid:
            raise InvalidKey("invalid key")
        return given

    settings = {"batched": batched, "batch_size": 2, "max_concurrency": 1}
    processor = AsyncBatchProcessor(work, journal=journal, **settings)
    stopped = await processor.process(range(6))
    assert stopped.stopped_because
    assert isinstance(stopped[0].error, InvalidKey)
    key_is_valid = True
    result = await processor.process(range(6))
    assert result.results == list(range(6))
    assert result.usage.tokens == 10 + 10 * len(range(0, 6, 2 if batched else 1))


class WrongModel(Exception):
    """A refusal that tells from other bad requests only by its text."""

    status_code = 404


@pytest.mark.parametrize("batched", [False, True])
async def test_items_whose_common_error_stopped_the_run_are_processed_by_the_next_one(
    journal: Path, batched: bool
):
    """All first calls failed alike, so it says nothing about these items."""
    model = "old"

    async def work(given):
        if model == "old":
            raise WrongModel("the model does not exist")
        return given

    settings = {"batched": batched, "batch_size": 2, "max_concurrency": 2}
    settings |= {"max_initial_failures": 4, "retry_count": 0}
    processor = AsyncBatchProcessor(work, journal=journal, **settings)
    stopped = await processor.process(range(40))
    assert "max_initial_failures" in stopped.stopped_because
    assert stopped.error_count
    model = "new"
    result = await processor.process(range(40))
    assert result.results == list(range(40))


@pytest.mark.parametrize("success_first", [False, True])
async def test_failures_that_did_not_stop_the_run_are_kept(journal: Path, success_first: bool):
    """Whether or not any item succeeds: they are the items' own."""
    calls = []

    async def work(given):
        calls.append(given)
        if given < 3:
            raise WrongModel("the model does not exist")
        return given

    items = [5, 0, 1, 2] if success_first else [0, 1, 2, 5]
    for _ in range(2):
        settings = {"max_concurrency": 1, "max_initial_failures": 4, "retry_count": 0}
        result = await AsyncBatchProcessor(work, journal=journal, **settings).process(items)
        assert (result.error_count, result.success_count) == (3, 1)
    only_failures = await AsyncBatchProcessor(work, journal=journal, **settings).process([0, 1])
    assert only_failures.error_count == 2
    assert sorted(calls) == [0, 1, 2, 5]


async def test_failures_are_kept_if_no_item_succeeds_and_nothing_stops_the_run(journal: Path):
    """The journal gets them at the end of the run."""
    calls = []

    async def work(given):
        calls.append(given)
        raise ValueError(f"bad item {given}")

    for _ in range(2):
        processor = AsyncBatchProcessor(work, journal=journal, retry_count=0)
        result = await processor.process(range(3))
        assert result.error_count == 3
    assert sorted(calls) == [0, 1, 2]


async def test_documents_whose_common_error_stopped_the_run_are_processed_by_the_next_one(
    journal: Path,
):
    """But a document that could not be loaded stays failed: that error is its own."""
    model = journal.with_name("model")

    async def embed(texts):
        if not model.exists():
            raise WrongModel("the model does not exist")
        return [[1.0, 2.0]] * len(texts)

    settings = {"embed": embed, "batch_size": 1, "retry_count": 0, "max_initial_failures": 4}
    documents = [("unreadable", "half of a pair: \ud800")]
    documents += [(f"d{number}", f"text {number}") for number in range(40)]
    processor = AsyncDocumentProcessor(journal=journal, **settings)
    stopped = await processor.process(documents)
    assert "max_initial_failures" in stopped.stopped_because
    model.touch()
    result = await processor.process(documents)
    assert [outcome.item.id for outcome in result if outcome.status != "done"] == ["unreadable"]
