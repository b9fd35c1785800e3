"""Wrong argument names: the names of other libraries are answered with ours."""

import asyncio
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ragasync
from ragasync import (
    AsyncBatchProcessor,
    AsyncDocumentProcessor,
    AsyncRetry,
    RateLimiter,
    WidgetProgress,
    gather_with_concurrency,
    note_usage,
    process_with_workers,
    retry_async,
    run_async,
    simulate,
)
from ragasync.documents import Document, MemoryStore, RecursiveSplitter, SqliteStore

PROCESSOR = AsyncBatchProcessor(str)


async def reply() -> str:
    """A call that succeeds."""
    return "reply"


def gather(**arguments: Any) -> object:
    """Gather a few calls."""
    return run_async(gather_with_concurrency([reply, reply], **arguments))


def retry(**arguments: Any) -> object:
    """Call with retries."""
    return run_async(retry_async(reply, **arguments))


def workers(**arguments: Any) -> object:
    """Process items with workers."""
    return run_async(process_with_workers(range(3), str, **arguments))


def processor(**arguments: Any) -> object:
    """Make a processor."""
    return AsyncBatchProcessor(str, **arguments)


def process(**arguments: Any) -> object:
    """Process items."""
    return PROCESSOR.process_sync(range(3), **arguments)


def await_process(**arguments: Any) -> object:
    """Await the processing of items."""
    return run_async(PROCESSOR.process(range(3), **arguments))


def start(**arguments: Any) -> object:
    """Start a job, and wait for it."""
    return PROCESSOR.start(range(3), **arguments).wait()


def stream(**arguments: Any) -> object:
    """Read a stream of outcomes."""

    async def read() -> list[object]:
        return [outcome async for outcome in PROCESSOR.stream(range(3), **arguments)]

    return run_async(read())


def wait(**arguments: Any) -> object:
    """Wait for a job."""
    return PROCESSOR.start(range(3)).wait(**arguments)


def search(**arguments: Any) -> object:
    """Search an empty store."""
    return MemoryStore().search("words", **arguments)


CASES: list[tuple[Callable[..., object], dict[str, object], str, dict[str, object]]] = [
    # who is called, the wrong arguments, the advice, and the arguments that follow it
    (processor, {"max_workers": 8}, "pass max_concurrency=8", {"max_concurrency": 8}),
    (processor, {"concurrency": 8}, "pass max_concurrency=8", {"max_concurrency": 8}),
    (processor, {"n_jobs": 8}, "pass max_concurrency=8", {"max_concurrency": 8}),
    (processor, {"limit": 8}, "pass max_concurrency=8", {"max_concurrency": 8}),
    (processor, {"semaphore": asyncio.Semaphore(8)}, "pass max_concurrency=...", {}),
    (processor, {"chunk_size": 8}, "pass batch_size=8", {"batch_size": 8}),
    (processor, {"retries": 2}, "pass retry_count=2", {"retry_count": 2}),
    (processor, {"max_retries": 2}, "pass retry_count=2", {"retry_count": 2}),
    (processor, {"attempts": 3}, "pass retry_count=2, which does not", {"retry_count": 2}),
    (processor, {"max_attempts": 1}, "pass retry_count=0, which does", {"retry_count": 0}),
    (processor, {"delay": 0.5}, "pass retry_delay=0.5", {"retry_delay": 0.5}),
    (
        processor,
        {"max_wait": 9},
        "pass retry=AsyncRetry(max_delay=9)",
        {"retry": AsyncRetry(max_delay=9)},
    ),
    (
        processor,
        {"rps": 5},
        "pass rate_limiter=RateLimiter(5)",
        {"rate_limiter": RateLimiter(5)},
    ),
    (
        processor,
        {"rpm": 50},
        "pass rate_limiter=RateLimiter(rate=50, per=60)",
        {"rate_limiter": RateLimiter(rate=50, per=60)},
    ),
    (
        processor,
        {"tpm": 9},
        "pass rate_limiter=RateLimiter.per_minute(tokens=9, weight=...)",
        {"rate_limiter": RateLimiter.per_minute(tokens=9, weight=len)},
    ),
    (
        processor,
        {"burst": 5},
        "pass rate_limiter=RateLimiter(..., burst_size=5)",
        {"rate_limiter": RateLimiter(50, burst_size=5)},
    ),
    (processor, {"progress": True}, "pass progress_callback= to process()", {}),
    (processor, {"max_items": 5}, "pass max_items=5 to process()", {}),
    (processor, {"return_exceptions": True}, "result.errors has them all", {}),
    (processor, {"max_concurency": 5}, "pass max_concurrency=5", {"max_concurrency": 5}),
    (
        processor,
        {"bananas": 5, "workers": 2},
        "no argument workers: pass max_concurrency=2",
        {"max_concurrency": 2},
    ),
    (process, {"progress": print}, "pass progress_callback=...", {"progress_callback": max}),
    (process, {"callback": print}, "pass progress_callback=...", {"progress_callback": max}),
    (
        process,
        {"show_progress": True},
        "pass progress_callback=WidgetProgress()",
        {"progress_callback": WidgetProgress()},
    ),
    (process, {"limit": 2}, "pass max_items=2", {"max_items": 2}),
    (process, {"max_workers": 2}, "pass max_concurrency=2 to AsyncBatchProcessor()", {}),
    (process, {"attempts": 2}, "pass retry_count=1 to AsyncBatchProcessor()", {}),
    (process, {"ordered": True}, "results are in input order", {}),
    (await_process, {"progress": print}, "pass progress_callback=...", {"progress_callback": max}),
    (start, {"here": True}, "pass on_current_loop=...", {"on_current_loop": False}),
    (stream, {"keep_order": True}, "pass ordered=...", {"ordered": True}),
    (stream, {"progress": print}, "pass progress_callback= to process()", {}),
    (wait, {"time_limit": 9}, "pass timeout=9", {"timeout": 9}),
    (gather, {"limit": 2}, "pass max_concurrency=2", {"max_concurrency": 2}),
    (gather, {"num_workers": 2}, "pass max_concurrency=2", {"max_concurrency": 2}),
    (workers, {"max_concurrency": 2}, "pass num_workers=2", {"num_workers": 2}),
    (retry, {"attempts": 2}, "pass max_attempts=2", {"max_attempts": 2}),
    (retry, {"backoff": 2.0}, "pass backoff_factor=2.0", {"backoff_factor": 2.0}),
    (AsyncRetry, {"attempts": 5}, "pass max_retries=4, which", {"max_retries": 4}),
    (AsyncRetry, {"retry_count": 5}, "pass max_retries=5", {"max_retries": 5}),
    (AsyncRetry, {"retry_delay": 5}, "pass base_delay=5", {"base_delay": 5}),
    (AsyncRetry, {"exceptions": OSError}, "pass retry_on=...", {"retry_on": OSError}),
    (AsyncRetry, {"deadline": 60}, "pass max_elapsed=60", {"max_elapsed": 60}),
    (RateLimiter, {"rps": 5}, "pass rate=5", {"rate": 5}),
    (RateLimiter, {"rpm": 500}, "pass rate=500, per=60", {"rate": 500, "per": 60}),
    (RateLimiter, {"tpm": 9}, "use RateLimiter.per_minute(tokens=9, weight=...)", {}),
    (RateLimiter, {"max_rate": 5, "time_period": 60}, "pass per=60", {"rate": 5, "per": 60}),
    (RateLimiter, {"burst": 5}, "pass burst_size=5", {"burst_size": 5}),
    (RateLimiter, {"concurrency": 5}, "pass max_concurrency=5 to AsyncBatchProcessor()", {}),
    (simulate, {"n": 5}, "pass n_items=5", {"n_items": 5}),
    (AsyncDocumentProcessor, {"splitter": str}, "pass chunk=...", {"chunk": RecursiveSplitter()}),
    (
        AsyncDocumentProcessor,
        {"chunk_size": 100},
        "pass chunk=RecursiveSplitter(chunk_size=100)",
        {"chunk": RecursiveSplitter(chunk_size=100)},
    ),
    (
        AsyncDocumentProcessor,
        {"chunk_overlap": 9},
        "pass chunk=RecursiveSplitter(..., chunk_overlap=9)",
        {"chunk": RecursiveSplitter(100, chunk_overlap=9)},
    ),
    (AsyncDocumentProcessor, {"vectorstore": None}, "pass store=...", {"store": MemoryStore()}),
    (RecursiveSplitter, {"overlap": 9}, "pass chunk_overlap=9", {"chunk_overlap": 9}),
    (note_usage, {"prompt_tokens": 3}, "pass input_tokens=3", {"input_tokens": 3}),
    (search, {"top_k": 3}, "pass k=3", {"k": 3}),
    (search, {"filter": {}}, "pass where=...", {"where": {}}),
    (
        Document,
        {"doc_id": "a", "page_content": "text"},
        "no argument page_content: pass text='text'",
        {"id": "a", "text": "text"},
    ),
]


@pytest.mark.parametrize(
    ("function", "wrong", "advice", "right"),
    CASES,
    ids=[f"{case[0].__name__}-{'-'.join(case[1])}" for case in CASES],
)
def test_the_name_of_another_library_is_answered_with_ours(
    function: Callable[..., object],
    wrong: dict[str, object],
    advice: str,
    right: dict[str, object],
):
    """The wrong call says what to pass, and a call that follows the advice succeeds."""
    with pytest.raises(TypeError, match="has no argument") as caught:
        function(**wrong)
    assert advice in str(caught.value)
    function(**right)


def test_a_misspelled_path_of_a_store_is_answered_too(tmp_path: Path):
    """The advice quotes the value that was given."""
    with pytest.raises(TypeError, match=r"SqliteStore\(\) has no argument db_path: pass path='a'"):
        SqliteStore(db_path="a")  # type: ignore[call-arg]
    SqliteStore(path=tmp_path / "a").close()


def test_a_name_that_resembles_nothing_is_answered_with_all_arguments():
    """The private ones are left out."""
    with pytest.raises(TypeError, match=r"no argument zzz: pass any of requests_per_second, burst"):
        RateLimiter(zzz=1)  # type: ignore[call-arg]


def test_other_type_errors_stay_as_they_are():
    """A missing argument, and an error inside the call."""
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'process_fn'"):
        AsyncBatchProcessor()  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="batch_size must be a whole number, got '8'"):
        AsyncBatchProcessor(str, batch_size="8")  # type: ignore[call-overload]


def test_the_signatures_are_those_of_the_functions():
    """Editors and `?` show the arguments, and an async method is still one."""
    assert list(inspect.signature(AsyncBatchProcessor).parameters)[:2] == [
        "process_fn",
        "batch_size",
    ]
    assert "max_delay" in inspect.signature(AsyncRetry).parameters
    assert list(inspect.signature(PROCESSOR.process).parameters)[:2] == [
        "items",
        "progress_callback",
    ]
    assert inspect.iscoroutinefunction(PROCESSOR.process)
    assert inspect.iscoroutinefunction(gather_with_concurrency)
    assert not inspect.iscoroutinefunction(PROCESSOR.start)


def test_every_public_function_and_class_answers():
    """What a user calls by name answers an unknown argument with advice."""
    views = {"error_summary", "errors_dataframe", "to_dataframe", "usage_of"}  # one argument
    plots = {name for name in ragasync.__all__ if name.startswith("plot_")}
    made = {"Attempt", "BatchResult", "Forecast", "Job", "Outcome", "Progress", "FATAL"}
    made |= {"Estimate", "TokenCounts", "Usage"}
    for name in set(ragasync.__all__) - views - plots - made - {"TqdmProgress"}:  # its go to tqdm
        function = getattr(ragasync, name)
        if isinstance(function, type) and issubclass(function, BaseException):
            continue
        called = function.__init__ if isinstance(function, type) else function
        assert hasattr(called, "__wrapped__"), name
