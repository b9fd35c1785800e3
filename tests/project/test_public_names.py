"""The public names, the version, and what the import of the package loads."""

import subprocess
import sys
from importlib.metadata import version

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
    "Estimate",
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
    "ResultRejected",
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
    "Usage",
    "note_usage",
    "usage_of",
}


def test_the_public_names_are_these():
    """A name is added or removed on purpose only, and completion offers nothing else."""
    assert set(ragasync.__all__) == PUBLIC
    assert dir(ragasync) == sorted(PUBLIC | {"__version__"})


def test_the_version_is_that_of_the_installed_package():
    """It is read from the metadata on first use."""
    assert ragasync.__version__ == version("ragasync")


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_is_there_and_documented(name: str):
    """Each name in `__all__` can be imported and has a docstring."""
    assert getattr(ragasync, name).__doc__


def test_an_unknown_name_is_an_attribute_error():
    """Lazy loading does not hide a typing error."""
    with pytest.raises(AttributeError, match="Batches"):
        _ = ragasync.Batches


def test_importing_loads_neither_pandas_nor_jupyter_nor_an_extra():
    """Heavy packages are loaded on first use."""
    heavy = [
        "IPython",
        "importlib.metadata",
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
