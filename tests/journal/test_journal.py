"""A journal: what is done stays done, over interruptions, kernels and machines."""

import asyncio
import pickle
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ragasync import (
    AsyncBatchProcessor,
    AsyncRetry,
    Journal,
    JournaledError,
    JournalError,
    RateLimiter,
)

CALLS: list[Any] = []
"""The items of all calls of a test, in order."""


@pytest.fixture(autouse=True)
def _no_calls_yet() -> None:
    """Begin each test with an empty list of calls."""
    CALLS.clear()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a journal may be written."""
    return tmp_path / "run.sqlite"


async def double(item: int) -> list[int]:
    """Return something of an item, after a second; every seventh fails."""
    CALLS.append(item)
    await asyncio.sleep(1.0)
    if item % 7 == 3:
        error = ValueError(f"item {item} is bad")
        error.add_note("look at its source")
        raise error
    return [item, 2 * item]


def doubling(journal: Journal, **arguments: Any) -> AsyncBatchProcessor[Any, list[int]]:
    """Return a processor that writes to a journal and retries nothing."""
    return AsyncBatchProcessor(double, retry_count=0, journal=journal, **arguments)


# ── going on ────────────────────────────────────────────────────────────────────────────────────


async def test_a_second_run_does_only_the_rest_and_gives_the_whole(path: Path):
    """Outcomes of an earlier run are there immediately, in input order, without attempts."""
    await doubling(Journal(path)).process(range(20), max_items=12)
    result = await doubling(Journal(path)).process(range(20))
    assert sorted(CALLS) == [*range(20)]
    assert [outcome.status for outcome in result] == [
        "failed" if item % 7 == 3 else "done" for item in range(20)
    ]
    assert result.results[:3] == [[0, 0], [1, 2], [2, 4]]
    assert [outcome.attempts for outcome in result] == [0] * 12 + [1] * 8
    assert (result[0].started, result[0].seconds, result[0].item) == (0.0, 0.0, 0)


async def test_a_cancelled_run_has_written_all_that_it_did(path: Path):
    """An interrupt loses the calls in flight and nothing else."""
    task = asyncio.create_task(doubling(Journal(path), max_concurrency=4).process(range(1000)))
    await asyncio.sleep(5.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(Journal(path).to_dataframe()) == 20
    CALLS.clear()
    result = await doubling(Journal(path)).process(range(40))
    assert sorted(CALLS) == [*range(20, 40)]
    assert result.success_count + result.error_count == 40


async def test_what_failed_stays_failed_and_reads_as_it_was(path: Path):
    """A failure of an earlier run is a row with its kind, message, notes and traceback."""
    first = await doubling(Journal(path)).process(range(5))
    again = await doubling(Journal(path)).process(range(5))
    error = again.errors[3]
    assert CALLS.count(3) == 1
    assert isinstance(error, JournaledError)
    assert str(error) == "item 3 is bad"
    assert error.__notes__ == ["look at its source"]
    assert again[3].traceback == first[3].traceback
    assert list(again.errors_dataframe()["error_type"]) == ["ValueError"]
    assert "1 × ValueError: item 3 is bad (item 3)" in again.summary()


async def test_what_failed_is_tried_again_when_asked(path: Path):
    """`retry_failed=True` runs failures as if they were new, and nothing else."""
    await doubling(Journal(path)).process(range(20))
    CALLS.clear()
    result = await doubling(Journal(path, retry_failed=True)).process(range(20))
    assert sorted(CALLS) == [3, 10, 17]
    assert result.error_count == 3
    assert result[3].attempts == 1


async def test_retry_failed_of_a_result_goes_past_the_journal_and_into_it(path: Path):
    """A failure that is run again by hand is not answered by the journal, which learns of it."""
    result = await doubling(Journal(path)).process(range(5))

    async def fixed(item: int) -> list[int]:
        return [item]

    processor = AsyncBatchProcessor(fixed, journal=Journal(path, name="double"))
    with pytest.warns(UserWarning, match="source of 'double' has changed"):
        whole = await result.retry_failed(processor)
    assert whole.all_succeeded
    assert whole.results[3] == [3]
    with pytest.warns(UserWarning, match="has changed"):  # its other outcomes are of before
        later = await AsyncBatchProcessor(fixed, journal=Journal(path, name="double")).process([3])
    assert (later.results, later[0].attempts) == ([[3]], 0)


async def test_pending_and_cancelled_items_are_not_written(path: Path):
    """A journal holds what is final: a stopped job's other items run in the next."""
    result = await doubling(Journal(path), max_errors=0, max_concurrency=1).process(range(10))
    assert result.pending_count == 6
    assert list(Journal(path).to_dataframe()["status"]) == ["done"] * 3 + ["failed"]


async def test_an_old_failure_does_not_stop_a_new_run(path: Path):
    """`max_errors` counts what fails in this run."""
    await doubling(Journal(path)).process(range(20))
    result = await doubling(Journal(path), max_errors=0).process([*range(20), 21])
    assert result.stopped_because is None
    assert result.results[20] == [21, 42]


async def test_what_is_known_takes_no_place_at_a_limiter(path: Path):
    """Only calls are limited: the answers of a journal are not."""
    await doubling(Journal(path)).process(range(20))
    limiter = RateLimiter(1, burst_size=1)
    began = asyncio.get_running_loop().time()
    await doubling(Journal(path), rate_limiter=limiter).process([*range(20), 20])
    assert asyncio.get_running_loop().time() - began == pytest.approx(1.0)


async def test_progress_tells_what_was_known(path: Path):
    """The job's counts include earlier outcomes, its speed and time left do not."""
    await doubling(Journal(path)).process(range(7, 500), max_items=400)
    job = doubling(Journal(path), max_concurrency=1).start(range(7, 500), on_current_loop=True)
    await asyncio.sleep(10.05)
    progress = job.progress
    assert progress.finished == 410
    assert progress.recalled == 400
    assert progress.rate == pytest.approx(1.0, abs=0.2)
    assert progress.eta == pytest.approx(83, abs=15)
    assert "400 from the journal" in repr(job)
    job.cancel()
    await job


async def test_a_result_tells_what_was_known(path: Path):
    """The summary counts earlier outcomes separately, and leaves them out of speed and mean."""
    await doubling(Journal(path)).process(range(90, 99))
    result = await doubling(Journal(path), max_concurrency=1).process(range(88, 99))
    lines = dict(line.strip().split(": ", 1) for line in result.summary().splitlines()[1:4])
    assert lines == {
        "from the journal": "9 items",
        "speed": "1 items a second",
        "mean time in calls": "1.00 s",
    }
    frame = result.to_dataframe()
    assert frame["seconds"].isna().sum() == 9
    assert list(frame["attempts"]) == [1, 1] + [0] * 9
    assert "from the journal" in result._repr_html_()


# ── keys ────────────────────────────────────────────────────────────────────────────────────────


async def test_equal_items_are_identified_by_their_order(path: Path):
    """Three equal items are three calls, and three outcomes."""
    await doubling(Journal(path)).process([5, 5, 5], max_items=2)
    result = await doubling(Journal(path)).process([5, 6, 5, 5])
    assert CALLS == [5, 5, 6, 5]
    assert [outcome.attempts for outcome in result] == [0, 1, 0, 1]


async def test_of_equal_items_the_failed_one_runs_again(path: Path):
    """What is run again by hand is written over the failure, not over its done twin."""
    fails = iter([False, True, False])

    async def flaky(item: str) -> str:
        if next(fails):
            raise ValueError("no")
        return item

    processor = AsyncBatchProcessor(flaky, 1, 1, 0, journal=path)
    result = await processor.process(["a", "a"])
    await result.retry_failed(processor)
    assert list(Journal(path).to_dataframe()["status"]) == ["done", "done"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": 1, "b": [None, True]}, {"b": [None, True], "a": 1}, True),
        ((1, 2), [1, 2], True),
        (1, 1.0, False),
        (1, True, False),
        ("1", 1, False),
        ("a", b"a", False),
        ({"a": 1}, {"a": 2}, False),
    ],
)
async def test_plain_data_is_known_by_its_content(
    one: object, other: object, same: bool, path: Path
):
    """The order of a dict does not matter, the kind of a number does."""
    seen = []

    async def look(item: object) -> None:
        seen.append(item)

    await AsyncBatchProcessor(look, journal=path).process([one])
    await AsyncBatchProcessor(look, journal=path).process([other])
    assert len(seen) == (1 if same else 2)


async def test_a_path_is_known_by_what_its_file_holds(path: Path, tmp_path: Path):
    """A file that is moved is the same item, one that is changed is another."""
    file = tmp_path / "a.txt"
    file.write_text("one")

    async def read(item: Path) -> str:
        CALLS.append(item.name)
        return item.read_text()  # noqa: ASYNC240  # a tiny file

    await AsyncBatchProcessor(read, journal=path).process([file])
    moved = file.rename(tmp_path / "b.txt")
    await AsyncBatchProcessor(read, journal=path).process([moved])
    moved.write_text("two")
    result = await AsyncBatchProcessor(read, journal=path).process([moved])
    assert CALLS == ["a.txt", "b.txt"]
    assert result.results == ["two"]
    missing = await AsyncBatchProcessor(read, journal=path).process([tmp_path / "no"])
    assert isinstance(missing.errors[0], FileNotFoundError)


async def test_a_key_function_names_items_that_are_no_plain_data(path: Path):
    """`key=` gives what an item is known by."""

    class Record:
        def __init__(self, number: int) -> None:
            self.number = number

    async def look(record: Record) -> int:
        CALLS.append(record.number)
        return record.number

    for _ in range(2):
        processor = AsyncBatchProcessor(look, journal=path, key=lambda record: record.number)
        result = await processor.process([Record(1), Record(2)])
    assert CALLS == [1, 2]
    assert result.results == [1, 2]


async def test_items_without_a_key_are_refused_with_the_way_out(path: Path):
    """Before any call: nobody wants to learn of it after 40,000."""
    with pytest.raises(TypeError, match="pass key="):
        await AsyncBatchProcessor(double, journal=path).process([object(), 1])
    assert CALLS == []


async def test_a_key_function_that_raises_fails_that_item_alone(path: Path):
    """One item without the field that its key is made of harms no other."""
    processor = AsyncBatchProcessor(
        partial(_named, calls=CALLS), journal=path, key=lambda item: item["id"]
    )
    result = await processor.process([{"id": 1}, {}, {"id": 2}])
    assert [outcome.status for outcome in result] == ["done", "failed", "done"]
    assert isinstance(result.errors[1], KeyError)
    assert len(CALLS) == 2


async def _named(item: dict[str, int], calls: list[Any]) -> int:
    """Return the id of an item."""
    calls.append(item)
    return item["id"]


# ── in every way of running ─────────────────────────────────────────────────────────────────────


async def test_batches_are_filled_with_what_is_new(path: Path):
    """Calls of a batched function hold new items alone, as many as they may."""
    batches: list[list[int]] = []

    async def square(items: list[int]) -> list[int]:
        batches.append(items)
        return [item * item for item in items]

    def processor() -> AsyncBatchProcessor[int, int]:
        return AsyncBatchProcessor(square, 4, 1, batched=True, journal=path)

    await processor().process(range(0, 24, 3))
    batches.clear()
    result = await processor().process(range(24))
    new = [item for item in range(24) if item % 3]
    assert batches == [new[at : at + 4] for at in range(0, 16, 4)]
    assert result.results == [item * item for item in range(24)]


async def test_batches_bounded_by_cost_are_filled_with_what_is_new(path: Path):
    """The weight of what is known counts for nothing."""
    batches: list[list[int]] = []

    async def keep(items: list[int]) -> list[int]:
        batches.append(items)
        return items

    def processor() -> AsyncBatchProcessor[int, int]:
        return AsyncBatchProcessor(
            keep, 9, 1, batched=True, weight=float, max_batch_weight=10, journal=path
        )

    await processor().process([1, 3, 5])
    batches.clear()
    await processor().process([1, 2, 3, 4, 5, 6])
    assert batches == [[2, 4], [6]]


async def test_each_bad_item_of_a_batch_is_a_failure_of_its_own(path: Path):
    """What was halved until it stood alone is written so."""

    async def refuse_13(items: list[int]) -> list[int]:
        if 13 in items:
            raise ValueError("13")
        return items

    await AsyncBatchProcessor(refuse_13, batched=True, journal=path).process(range(32))
    frame = Journal(path).to_dataframe()
    assert list(frame.loc[frame["status"] == "failed", "item"]) == ["13"]
    assert len(frame) == 32


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_stream_gives_what_is_known_too(ordered: bool, path: Path):
    """All outcomes come, those of earlier runs among them."""
    await doubling(Journal(path)).process(range(10, 20))
    outcomes = [
        outcome async for outcome in doubling(Journal(path)).stream(range(30), ordered=ordered)
    ]
    assert sorted(outcome.index for outcome in outcomes) == [*range(30)]
    assert ordered is False or [outcome.index for outcome in outcomes] == [*range(30)]
    assert sorted(CALLS) == [*range(30)]


async def test_an_async_source_and_a_long_row_of_known_items(path: Path):
    """Thousands of known items in front of a new one are passed over, however they come."""

    async def numbers() -> AsyncIterator[int]:
        for number in range(3001):
            yield number

    async def keep(item: int) -> int:
        CALLS.append(item)
        return item

    await AsyncBatchProcessor(keep, max_concurrency=64, journal=path).process(range(3000))
    CALLS.clear()
    result = await AsyncBatchProcessor(keep, journal=path).process(numbers())
    assert CALLS == [3000]
    assert result.results == [*range(3001)]


@pytest.mark.real_time
@pytest.mark.parametrize("executor", [False, True])
def test_sync_functions_on_threads_and_executors(executor: bool, path: Path):
    """Groups hold new items alone."""
    from concurrent.futures import ThreadPoolExecutor

    def keep(item: int) -> int:
        CALLS.append(item)
        return item

    with ThreadPoolExecutor(2) as pool:
        for count in (50, 100):
            processor = AsyncBatchProcessor(keep, journal=path, executor=pool if executor else None)
            result = processor.process_sync(range(count))
    assert sorted(CALLS) == [*range(100)]
    assert result.results == [*range(100)]


async def test_retried_items_are_written_with_their_end(path: Path):
    """Attempts, time in calls and back-off of the run that did it are kept."""
    tries = iter([ConnectionError("away"), None])

    async def flaky(item: str) -> str:
        await asyncio.sleep(1)
        if (error := next(tries)) is not None:
            raise error
        return item

    retry = AsyncRetry(1, 4.0, jitter=None)
    await AsyncBatchProcessor(flaky, retry=retry, journal=path).process(["a"])
    (row,) = Journal(path).to_dataframe().to_dict("records")
    assert row["attempts"] == 2
    assert (row["seconds"], row["backed_off"]) == pytest.approx((2.0, 4.0))


# ── whose journal it is ─────────────────────────────────────────────────────────────────────────


async def test_another_jobs_journal_is_refused_with_both_names(path: Path):
    """A journal is of one job: nobody gets the values of another."""
    await doubling(Journal(path)).process([1])

    async def triple(item: int) -> int:
        return 3 * item

    with pytest.raises(JournalError, match=r"job 'double'.* job 'triple'"):
        await AsyncBatchProcessor(triple, journal=path).process([1])


async def test_another_version_is_refused_with_both(path: Path):
    """`version=` is changed where earlier outcomes are to count no more."""
    await doubling(Journal(path, version="1")).process([1])
    with pytest.raises(JournalError, match=r"version '1'.*version '2'"):
        await doubling(Journal(path, version="2")).process([1])
    assert CALLS == [1]


async def test_two_concurrent_runs_on_one_journal_are_refused(path: Path):
    """The second would do everything twice."""
    first = doubling(Journal(path)).start(range(8), on_current_loop=True)
    await asyncio.sleep(0.5)
    with pytest.raises(JournalError, match="in use by another run"):
        await doubling(Journal(path)).process(range(8))
    assert (await first).total == 8
    assert (await doubling(Journal(path)).process(range(8))).total == 8


async def test_a_changed_source_warns_and_goes_on(path: Path):
    """Users fix their function and resume."""
    await doubling(Journal(path)).process([1])

    async def other(item: int) -> list[int]:
        return [item]

    processor = AsyncBatchProcessor(other, journal=Journal(path, name="double"))
    with pytest.warns(UserWarning, match="earlier outcomes are kept"):
        result = await processor.process([1, 2])
    assert result.results == [[1, 2], [2]]
    with pytest.warns(UserWarning, match="has changed"):  # while there are such
        await processor.process([1])


# ── values ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ((1, 2), "of type tuple"),
        ({1: 2}, "its key 1 is not a str"),
        ([{"a": {1, 2}}], r"its entry\[0\]\['a'\] is of type set"),
        (object(), "of type object"),
    ],
)
async def test_a_value_that_would_come_back_changed_stops_the_job(
    value: object, why: str, path: Path
):
    """It is in the result all the same, and the message says what to do."""

    async def give(item: int) -> object:
        CALLS.append(item)
        return value if item == 2 else item

    processor = AsyncBatchProcessor(give, max_concurrency=1, journal=path)
    with pytest.raises(JournalError, match=f"value of item 2 .*{why}.*serializer="):
        await processor.process(range(4))
    assert processor.last_result is not None
    assert processor.last_result.results[2] is value
    assert "2" not in list(Journal(path).to_dataframe()["item"])


async def test_arrays_are_kept_by_name(path: Path):
    """`serializer="numpy"` keeps arrays as they are, dtype and shape."""
    import numpy as np

    async def vector(item: int) -> Any:
        return np.full((2, 3), item, dtype="float32")

    for _ in range(2):
        processor = AsyncBatchProcessor(vector, journal=Journal(path, serializer="numpy"))
        result = await processor.process([1, 2])
    value: Any = result.results[1]
    assert result[1].attempts == 0
    assert value.dtype == "float32"
    assert value.tolist() == [[2.0] * 3] * 2
    assert Journal(path).to_dataframe()["value"][0].shape == (2, 3)


async def test_pickles_are_read_only_where_they_are_asked_for(path: Path):
    """A journal from elsewhere runs no code."""

    async def pair(item: int) -> tuple[int, int]:
        return item, item

    asked = partial(Journal, path, serializer="pickle")
    await AsyncBatchProcessor(pair, journal=asked()).process([1])
    result = await AsyncBatchProcessor(pair, journal=asked()).process([1])
    assert (result.results, result[0].attempts) == ([(1, 1)], 0)

    class Trap:
        def __reduce__(self) -> Any:
            return exec, ("raise SystemExit",)

    async def set_a_trap(item: int) -> Trap:
        return Trap()

    other = path.with_name("from_elsewhere.sqlite")
    trusting = Journal(other, serializer="pickle")
    await AsyncBatchProcessor(set_a_trap, journal=trusting).process([1])
    with pytest.raises(JournalError, match=r"'pickle'.*if you trust the source of the file"):
        await AsyncBatchProcessor(set_a_trap, journal=other).process([1])
    size = len(pickle.dumps(Trap()))
    assert list(Journal(other).to_dataframe()["value"]) == [f"<{size} bytes>"]


async def test_a_serializer_of_ones_own(path: Path):
    """An object with name, dumps and loads keeps what it likes."""

    class Hex:
        name = "hex"

        def dumps(self, value: object) -> bytes:
            return hex(int(str(value))).encode()

        def loads(self, data: bytes) -> int:
            return int(data, 16)

    async def keep(item: int) -> int:
        return item

    for _ in range(2):
        processor = AsyncBatchProcessor(keep, journal=Journal(path, serializer=Hex()))
        result = await processor.process([255])
    assert result.results == [255]
    assert result[0].attempts == 0


# ── the table, and arguments ────────────────────────────────────────────────────────────────────


async def test_the_table_can_be_read_while_the_job_runs(path: Path):
    """Outcomes that are written so far can be read."""
    job = doubling(Journal(path, flush_seconds=0.0), max_concurrency=2).start(
        range(100), on_current_loop=True
    )
    await asyncio.sleep(3.5)
    while len(frame := await asyncio.to_thread(Journal(path).to_dataframe)) < 6:
        pass
    assert sorted(frame["item"][:6]) == ["0", "1", "2", "3", "4", "5"]
    assert frame["status"].dtype == "category"
    assert str(frame["recorded_at"].dtype) == "datetime64[ns, UTC]"
    frame = frame.set_index("item")
    assert frame["value"]["2"] == [2, 4]
    assert frame["traceback"]["3"].endswith("ValueError: item 3 is bad\nlook at its source\n")
    job.cancel()
    await job


def test_a_journal_that_is_not_there_yet_says_so(path: Path):
    """Looking at a journal does not create one."""
    journal = Journal(path)
    assert "no journal" in repr(journal)
    with pytest.raises(JournalError, match="a processor creates it"):
        journal.to_dataframe()
    assert not path.exists()


async def test_a_journal_tells_what_it_holds(path: Path):
    """Its repr names the job and counts its outcomes."""
    await doubling(Journal(path)).process(range(4))
    assert repr(Journal(path)).endswith("run.sqlite': 'double', 3 done, 1 failed>")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Journal(""), ValueError, "needs the path of a file"),
        (lambda: Journal(":memory:"), ValueError, "needs the path of a file"),
        (lambda: Journal("a\0b"), ValueError, "no null character"),
        (lambda: Journal("a", version=2), TypeError, "version must be a str"),
        (lambda: Journal("a", flush_items=0), ValueError, "flush_items"),
        (lambda: Journal("a", flush_seconds=-1), ValueError, "flush_seconds"),
        (lambda: Journal("a", serializer="yaml"), ValueError, r"\['json', 'numpy', 'pickle'\]"),
        (lambda: Journal("a", serializer=3), TypeError, "dumps and loads"),
        (lambda: AsyncBatchProcessor(double, key=str), ValueError, "needs journal="),
        (lambda: AsyncBatchProcessor(double, key=3, journal="a"), TypeError, "key must be"),
        (lambda: AsyncBatchProcessor(double, journal=3), TypeError, "must be a Journal"),
    ],
)
def test_wrong_arguments_are_refused_immediately(make: Any, error: type[Exception], message: str):
    """Each says what was expected, and what came."""
    with pytest.raises(error, match=message):
        make()


async def test_another_serializer_than_the_files_is_refused(path: Path):
    """Values that were kept in one way are not read in another."""
    await doubling(Journal(path)).process([1])
    with pytest.raises(JournalError, match=r"has the serializer 'json'.*'numpy'"):
        await doubling(Journal(path, serializer="numpy")).process([1])


async def test_decorated_functions_have_a_name_too(path: Path):
    """What wraps a function keeps the job's name."""
    wrapped = AsyncRetry()(double)
    await AsyncBatchProcessor(wrapped, journal=path).process([1])
    assert "'double'" in repr(Journal(path))


async def test_a_journal_given_by_a_relative_path_stays_where_it_is(tmp_path, monkeypatch):
    """A notebook may change its folder, and nothing is done twice."""
    monkeypatch.chdir(tmp_path)
    journal = Journal("run.sqlite")
    processor = AsyncBatchProcessor(double, journal=journal)
    await processor.process(range(3))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert [outcome.attempts for outcome in await processor.process(range(3))] == [0, 0, 0]
    assert repr(journal).startswith("<Journal 'run.sqlite': ")
    assert not any((tmp_path / "elsewhere").iterdir())
