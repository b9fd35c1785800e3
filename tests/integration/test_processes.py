"""Real worker processes: pickling, crashes, and the parts that stay with the caller."""

import asyncio
import contextvars
import decimal
import linecache
import multiprocessing
import os
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ragasync import (
    AsyncBatchProcessor,
    AsyncRetry,
    Journal,
    RateLimiter,
    WorkerDied,
)
from tests.support.requirements import needs

needs("cloudpickle", "loky")

pytestmark = pytest.mark.real_time

PREFIX = "not set"


def set_prefix(prefix: str) -> None:
    """Set a global where a worker starts."""
    global PREFIX
    PREFIX = prefix


def with_prefix(item: int) -> str:
    """Read the global."""
    return f"{PREFIX} {item}"


def die_of_13(item: int) -> int:
    """End the worker at 13."""
    if item == 13:
        os._exit(1)
    return item


def dies_of_13(items: list[int]) -> list[int]:
    """End the worker at a batch with 13."""
    return [die_of_13(item) for item in items]


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """Two worker processes."""
    with ProcessPoolExecutor(2) as executor:
        yield executor


async def test_closures_run_in_workers_that_began_before_they_were_written(
    pool: ProcessPoolExecutor,
):
    """They go by value, and so do the items' own classes."""
    pool.submit(os.getpid).result()

    class Page:
        def __init__(self, number: int) -> None:
            self.number = number

    factor = 3
    processor: Any = AsyncBatchProcessor(
        lambda page: (os.getpid(), Page(factor * page.number)), executor=pool
    )
    result = await processor.process([Page(1), Page(2)])
    assert [page.number for _, page in result.results] == [3, 6]
    assert all(type(page) is Page for _, page in result.results)
    assert os.getpid() not in [process for process, _ in result.results]


async def test_closures_run_on_loky():
    """Whose workers never were this process."""
    import loky

    factor = 3
    with loky.ProcessPoolExecutor(1) as executor:
        result = await AsyncBatchProcessor(lambda item: factor * item, executor=executor).process(
            range(5)
        )
        executor.shutdown(wait=False)
    assert result.results == [0, 3, 6, 9, 12]


async def test_a_function_sees_the_globals_that_the_pools_initializer_has_set():
    """So it goes by name there: by value it would bring its own."""
    with ProcessPoolExecutor(1, initializer=set_prefix, initargs=("page",)) as executor:
        result = await AsyncBatchProcessor(with_prefix, executor=executor).process([1, 2])
    assert result.results == ["page 1", "page 2"]


async def test_async_functions_run_on_one_loop_of_the_worker_from_group_to_group(
    pool: ProcessPoolExecutor,
):
    """So that a client made in one call works in the next."""
    state: dict[str, Any] = {}

    async def call(item: int) -> tuple[int, bool, int]:
        lock = state.setdefault("event", asyncio.Event())
        asyncio.get_running_loop().call_soon(lock.set)
        await lock.wait()
        lock.clear()
        loop = state.setdefault("loop", asyncio.get_running_loop())
        return os.getpid(), loop is asyncio.get_running_loop(), item

    result = await AsyncBatchProcessor(call, 3, 2, executor=pool).process(range(12))
    assert [item for *_, item in result.results] == list(range(12))
    assert all(is_same for _, is_same, _ in result.results)
    assert os.getpid() not in [process for process, *_ in result.results]


async def test_a_batched_async_function_runs_there_too(pool: ProcessPoolExecutor):
    """It may have its items side by side."""

    async def doubles(items: list[int]) -> list[int]:
        meeting = asyncio.Barrier(len(items))

        async def double(item: int) -> int:
            await meeting.wait()
            return 2 * item

        return list(await asyncio.gather(*map(double, items)))

    result = await AsyncBatchProcessor(doubles, 4, 2, batched=True, executor=pool).process(range(8))
    assert result.results == [0, 2, 4, 6, 8, 10, 12, 14]


async def test_what_ends_a_call_there_does_not_end_the_caller(pool: ProcessPoolExecutor):
    """sys.exit() is a failure of its item."""

    def leaves(item: int) -> int:
        if item == 1:
            raise SystemExit(3)
        if item == 2:
            raise asyncio.CancelledError
        return item

    result = await AsyncBatchProcessor(leaves, 4, 1, 0, executor=pool).process(iter(range(4)))
    assert [outcome.status for outcome in result] == ["done", "failed", "failed", "done"]
    assert str(result.errors[1]) == "the call raised SystemExit: 3"
    assert str(result.errors[2]) == "the call raised CancelledError"


async def test_a_call_in_flight_during_a_crash_is_not_charged_for_it(tmp_path: Path):
    """Its call went down with the pool; without any retry it is done all the same."""
    mark = tmp_path / "began"

    def work(item: int) -> int:
        if item == 0:
            while not mark.exists():
                time.sleep(0.01)
            os._exit(1)
        if not mark.exists():
            mark.touch()
            time.sleep(60)
        return item

    with ProcessPoolExecutor(2) as executor:
        result = await AsyncBatchProcessor(work, 1, 2, 0, executor=executor).process([0, 1])
    assert [outcome.status for outcome in result] == ["failed", "done"]
    assert [outcome.attempts for outcome in result] == [2, 2]


async def test_an_item_that_crashes_its_worker_again_harms_no_other_item(tmp_path: Path):
    """Also one that is in flight each time: the second time, each has a pool of its own."""

    def wait_for(name: str) -> None:
        while not (tmp_path / name).exists():
            time.sleep(0.01)

    def work(item: str) -> str:
        attempt = 1 if not (tmp_path / f"{item} 1").exists() else 2
        (tmp_path / f"{item} {attempt}").touch()
        if item == "crashes":
            wait_for(f"works {attempt}")
            (tmp_path / f"crash {attempt}").touch()
            os._exit(1)
        wait_for(f"crash {attempt}")
        time.sleep(60 if attempt == 1 else 0.5)  # a pool that has lost a worker ends its others
        return item

    with ProcessPoolExecutor(2) as executor:
        processor = AsyncBatchProcessor(work, 1, 2, 0, executor=executor)
        result = await processor.process(["crashes", "works"])
    assert [outcome.status for outcome in result] == ["failed", "done"]


@pytest.mark.parametrize("batched", [False, True])
async def test_the_item_that_kills_its_worker_fails_alone_without_any_retry(batched: bool):
    """No neighbour is charged for it: in its group, in its batch, or elsewhere in the pool."""
    function = dies_of_13 if batched else die_of_13
    with ProcessPoolExecutor(2) as executor:
        processor: Any = AsyncBatchProcessor(function, 4, 3, 0, executor=executor, batched=batched)
        result = await processor.process(range(30))
    assert [outcome.index for outcome in result.get_failed()] == [13]
    assert isinstance(result.errors[13], WorkerDied)
    assert result.error_count + result.success_count == 30


async def test_the_frames_show_where_on_the_worker_an_error_arose(pool: ProcessPoolExecutor):
    """In the outcome's traceback and in the table."""

    def parse(item: str) -> int:
        return int(item)

    result = await AsyncBatchProcessor(parse, 4, 1, 0, executor=pool).process(["1", "x", "y"])
    for outcome in result.get_failed():
        assert "On the worker:" in str(outcome.traceback)
        assert "in parse" in str(outcome.traceback)
    table = result.errors_dataframe()
    assert all("return int(item)" in text for text in table["traceback"])
    assert "'y'" in table["traceback"].iloc[1]


@pytest.fixture(scope="module", params=["spawn", "loky"])
def strange_pool(request: pytest.FixtureRequest) -> Iterator[Executor]:
    """A worker that shares nothing with this process."""
    if request.param == "spawn":
        executor: Any = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    else:
        import loky

        executor = loky.ProcessPoolExecutor(1)
    yield executor
    executor.shutdown()


async def test_an_error_of_a_cell_keeps_what_it_has_in_slots(strange_pool: Executor):
    """Its class has slots where it was made, and a dict where it was sent to."""

    class Busy(Exception):
        __slots__ = ("headers", "status_code")

        def __init__(self, status_code: int, headers: dict[str, str]) -> None:
            super().__init__("busy")
            self.status_code, self.headers = status_code, headers

    def call(_: int) -> None:
        raise Busy(503, {"Retry-After": "0.01"})

    processor = AsyncBatchProcessor(call, retry_count=0, executor=strange_pool)
    error: Any = (await processor.process([1])).errors[0]
    assert type(error) is Busy
    assert (error.status_code, error.headers) == (503, {"Retry-After": "0.01"})


def cell(name: str, source: str) -> Callable[[int], int]:
    """Return the function `work` of a notebook's cell, which is in no file."""
    source = textwrap.dedent(source)
    filename = f"/nowhere/cells/{name}.py"
    linecache.cache[filename] = len(source), None, source.splitlines(keepends=True), filename
    defined: dict[str, Any] = {"__name__": "a_notebook"}
    exec(compile(source, filename, "exec"), defined)
    work: Callable[[int], int] = defined["work"]
    return work


CELLS = {
    "function": """
        def work(item):
            return 1 / item  # in work
        """,
    "far_down": 300 * "\n"
    + """
        def work(item):
            return 1 / item  # in work
        """,
    "inner": """
        def work(item):
            def inner():
                return 1 / item  # in inner
            return inner()
        """,
    "global": """
        def other(item):
            return 1 / item  # in other

        def work(item):
            return other(item)
        """,
    "closure": """
        def make():
            def enclosed(item):
                return 1 / item  # in enclosed
            return lambda item: enclosed(item)

        work = make()
        """,
    "method": """
        class Divider:
            def divide(self, item):
                return 1 / item  # in divide
            __call__ = divide

        work = Divider()
        """,
    "default": """
        def other(item):
            return 1 / item  # in other

        def work(item, how=other):
            return how(item)
        """,
    "decorator": """
        import functools

        def logged(function):
            @functools.wraps(function)
            def wrapper(item):
                return function(item)
            return wrapper

        @logged
        def work(item):
            return 1 / item  # in work
        """,
    "async": """
        import asyncio

        async def work(item):
            await asyncio.sleep(0)
            return 1 / item  # in work
        """,
    "comprehension": """
        def work(item):
            return [
                1 / each  # in work
                for each in [item]
            ]
        """,
}


@pytest.mark.parametrize("name", CELLS)
async def test_the_workers_traceback_shows_the_source_of_a_cell(strange_pool: Executor, name: str):
    """Of all that is defined there, wherever the function reaches it."""
    work = cell(name, CELLS[name])
    result = await AsyncBatchProcessor(work, 4, 1, 0, executor=strange_pool).process([1, 0])
    text = "".join(result.errors[1].__notes__)
    assert "ZeroDivisionError: division by zero" in text
    source = textwrap.dedent(CELLS[name]).splitlines()
    number, line = next((n, line) for n, line in enumerate(source, 1) if "  # in " in line)
    assert f'File "/nowhere/cells/{name}.py", line {number}, in ' in text
    assert line.strip().partition("  #")[0] in text


async def test_a_cell_that_is_run_again_shows_its_new_source(strange_pool: Executor):
    """Also where it kept its name, and its worker."""
    for divisor in ("item", "(item - item)"):
        work = cell("edited", f"def work(item):\n    return 1 / {divisor}\n")
        result = await AsyncBatchProcessor(work, 4, 1, 0, executor=strange_pool).process([0])
        assert f"return 1 / {divisor}" in "".join(result.errors[0].__notes__)


async def test_a_class_that_comes_back_leaves_the_sources_here_as_they_are(
    strange_pool: Executor,
):
    """They are those of the cell already."""
    work = cell("values", "def work(item):\n    return lambda: item\n")
    before = linecache.cache["/nowhere/cells/values.py"]
    (value,) = (await AsyncBatchProcessor(work, executor=strange_pool).process([7])).results
    assert value() == 7
    assert linecache.cache["/nowhere/cells/values.py"] is before


# ---- each call has its own context

tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")


def sets_everything(item: int) -> tuple[str, int]:
    """Return the values that the call sees, and set others."""
    seen = tenant.get(), decimal.getcontext().prec
    tenant.set(f"item {item}")
    decimal.setcontext(decimal.Context(prec=3 + item))
    return seen


async def sets_everything_later(item: int) -> tuple[str, int]:
    """Do the same in an async function."""
    await asyncio.sleep(0)
    return sets_everything(item)


@pytest.mark.parametrize("function", [sets_everything, sets_everything_later])
async def test_what_a_call_sets_in_its_context_reaches_no_other_call_on_its_worker(
    pool: ProcessPoolExecutor, function: Any
):
    """In its group, in a later one, or in a later job."""
    for _ in range(2):
        result = await AsyncBatchProcessor(function, 5, 1, executor=pool).process(range(20))
        assert set(result.results) == {("nobody", 28)}


@pytest.mark.parametrize("function", [sets_everything, sets_everything_later])
async def test_calls_on_threads_of_ones_own_do_not_share_a_context_either(function: Any):
    """Nor does what they set stay on the thread."""
    with ThreadPoolExecutor(1) as executor:
        for _ in range(2):
            result = await AsyncBatchProcessor(function, 5, 1, executor=executor).process(range(20))
            assert {seen for seen, _ in result.results if seen != tenant.get()} == set()
            assert len({precision for _, precision in result.results}) == 1
        assert executor.submit(tenant.get).result() == "nobody"


def test_a_group_on_a_thread_sees_the_context_of_the_run():
    """Each call has its own copy, and nothing that it sets comes back."""
    token = tenant.set("the one who started")
    context = contextvars.copy_context()
    tenant.reset(token)
    with ThreadPoolExecutor(1) as executor:
        processor = AsyncBatchProcessor(sets_everything, 3, 1, executor=executor)
        result = context.run(processor.process_sync, [1, 2, 3])
    assert [seen for seen, _ in result.get_successful()] == ["the one who started"] * 3
    assert context[tenant] == "the one who started"


async def test_a_journal_resumes_what_processes_have_done(
    pool: ProcessPoolExecutor, tmp_path: Path
):
    """Written by the caller: workers know nothing of it."""
    calls = tmp_path / "calls"

    def noting(item: int) -> int:
        with calls.open("a") as file:
            file.write("x")
        return 2 * item

    processor = AsyncBatchProcessor(
        noting, 4, 2, executor=pool, journal=Journal(tmp_path / "run.sqlite")
    )
    await processor.process(range(20), max_items=12)
    assert len(calls.read_text()) == 12
    result = await processor.process(range(20))
    assert result.results == [2 * item for item in range(20)]
    assert len(calls.read_text()) == 20


async def test_progress_and_retries_are_the_callers(pool: ProcessPoolExecutor, tmp_path: Path):
    """What failed once in a worker is tried again, and counted here."""
    heard: list[tuple[int, int | None]] = []

    def fails_once(item: int) -> int:
        mark = tmp_path / str(item)
        if item % 5 == 0 and not mark.exists():
            mark.touch()
            raise ConnectionError("once")
        return item

    processor = AsyncBatchProcessor(
        fails_once, 4, 2, executor=pool, retry=AsyncRetry(1, 0.0), rate_limiter=RateLimiter(1e5)
    )
    result = await processor.process(range(20), lambda done, total: heard.append((done, total)))
    assert result.all_succeeded
    assert [outcome.attempts for outcome in result] == [2, 1, 1, 1, 1] * 4
    assert heard[-1] == (20, 20)
