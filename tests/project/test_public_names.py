"""The public names, and what importing them costs."""

import subprocess
import sys

import pytest

import ragasync

PUBLIC = {
    "FATAL",
    "AsyncBatchProcessor",
    "AsyncDocumentProcessor",
    "AsyncRedisConnection",
    "AsyncRetry",
    "Attempt",
    "AttemptTimeout",
    "BatchResult",
    "CallAborted",
    "SerializationError",
    "ItemTooLargeError",
    "Forecast",
    "Job",
    "JobStopped",
    "Journal",
    "JournalError",
    "MissingExtra",
    "Outcome",
    "Progress",
    "RagasyncError",
    "RateLimiter",
    "JournaledError",
    "RedisRateLimiter",
    "RedisUnavailable",
    "RemoteError",
    "RunAsyncError",
    "TqdmProgress",
    "WidgetProgress",
    "WorkerDied",
    "ResultCountError",
    "error_summary",
    "errors_dataframe",
    "forecast",
    "gather_with_concurrency",
    "plot_latency",
    "plot_throughput",
    "plot_timeline",
    "process_with_workers",
    "retry_async",
    "run_async",
    "simulate",
    "to_dataframe",
}


def test_the_public_names_are_these():
    """A name is added or taken away on purpose only."""
    assert set(ragasync.__all__) == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_is_there_and_documented(name: str):
    """What __all__ promises can be imported, and says what it is."""
    assert getattr(ragasync, name).__doc__


def test_an_unknown_name_is_an_attribute_error():
    """Loading on demand does not swallow a typing error."""
    with pytest.raises(AttributeError, match="Batches"):
        _ = ragasync.Batches


def test_importing_loads_neither_pandas_nor_jupyter_nor_an_extra():
    """What is heavy waits until somebody asks for it."""
    heavy = [
        "IPython",
        "ipywidgets",
        "matplotlib",
        "multiprocessing",
        "nest_asyncio2",
        "numpy",
        "pandas",
        "tqdm",
    ]
    script = f"import ragasync, sys; print([m for m in {heavy} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
