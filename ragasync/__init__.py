"""
Run big, slow, flaky async jobs from a notebook: with limits, retries, live controls and a journal.

    from ragasync import AsyncBatchProcessor, RateLimiter

    processor = AsyncBatchProcessor(embed, max_concurrency=16, rate_limiter=RateLimiter(200))
    result = await processor.process(texts)         # or process_sync(texts), or start(texts)
    result.results                                  # one value for each text, None where it failed
    result.errors_dataframe()                       # each failed text with its error
    result = await result.retry_failed(processor)   # runs only those again

Times are in seconds; wherever an argument is a duration, a timedelta works too.

Where to go next: the README shows what else there is, the notebooks teach it step by step,
`AsyncDocumentProcessor` ingests whole folders, `help(AsyncBatchProcessor)` explains each argument.

The layers, top down. A module imports only from layers below its own; a test and import-linter keep
this table true. The docstring of each package maps its files.

    testing                 fakes for your tests: virtual clock, scripted service
    documents simulation    load, chunk, embed and store; run the engine on a virtual clock
    patterns                gather_with_concurrency, process_with_workers
    batch                   AsyncBatchProcessor
    job                     Job: the handle of a run in the background
    redis                   RedisRateLimiter, AsyncRedisConnection
    job_future              JobFuture: the result or error of a job; cancels running jobs at exit
    _engine                 workers that take items, wait for limits, call, retry and record
    _calls                  one call on the loop, a thread or an executor; its timeout
    settings result notebook plots
                            checked settings; BatchResult; live panel, progress bars; charts
    _reports journal        tables, summaries, advice, HTML; outcomes in an SQLite file
    _limits _outcomes _bridge progress_callbacks
                            rate and concurrency; outcomes in columns, statistics; run_async;
                            Progress, and how callbacks get it
    _retries                AsyncRetry, and which errors are retried after which delay
    object_views            any object in one line; an object of ours as an HTML table
    cancellation sqlite_file error_text _function_fingerprint usage dataframe_items estimate
                            who cancelled a task; lazy tasks; our SQLite files; errors as text;
                            changed functions; note_usage, and what reports are counted for; items
                            from DataFrames; Estimate: the size of a run before it is made
    errors clock arguments
                            exceptions; clocks; checks of arguments
    redact                  masks secrets in messages
    secret_patterns foreign_errors
                            the word lists and expressions; guarded access to foreign objects
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ragasync._bridge.run_async import run_async
from ragasync._limits.limiter import RateLimiter
from ragasync._outcomes.outcome import Attempt, Outcome
from ragasync._reports.dataframes import error_summary, errors_dataframe, to_dataframe
from ragasync._retries.classify import FATAL
from ragasync._retries.policy import AsyncRetry, retry_async
from ragasync.batch import AsyncBatchProcessor
from ragasync.errors import (
    AttemptTimeout,
    CallAborted,
    ItemTooLargeError,
    JobStopped,
    JournaledError,
    JournalError,
    MissingExtra,
    RagasyncError,
    RedisUnavailable,
    RemoteError,
    ResultCountError,
    ResultRejected,
    RunAsyncError,
    SerializationError,
    WorkerDied,
)
from ragasync.estimate import Estimate
from ragasync.job import Job
from ragasync.journal import Journal
from ragasync.patterns import gather_with_concurrency, process_with_workers
from ragasync.progress_callbacks import Progress
from ragasync.result import BatchResult
from ragasync.usage import Usage, note_usage, usage_of

if TYPE_CHECKING:
    from ragasync.documents import AsyncDocumentProcessor
    from ragasync.notebook import TqdmProgress, WidgetProgress
    from ragasync.plots import plot_latency, plot_throughput, plot_timeline
    from ragasync.redis import AsyncRedisConnection, RedisRateLimiter
    from ragasync.simulation import Forecast, forecast, simulate

    __version__: str

__all__ = [
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
    "Forecast",
    "ItemTooLargeError",
    "Job",
    "JobStopped",
    "Journal",
    "JournalError",
    "JournaledError",
    "MissingExtra",
    "Outcome",
    "Progress",
    "RagasyncError",
    "RateLimiter",
    "RedisRateLimiter",
    "RedisUnavailable",
    "RemoteError",
    "ResultCountError",
    "ResultRejected",
    "RunAsyncError",
    "SerializationError",
    "TqdmProgress",
    "Usage",
    "WidgetProgress",
    "WorkerDied",
    "error_summary",
    "errors_dataframe",
    "forecast",
    "gather_with_concurrency",
    "note_usage",
    "plot_latency",
    "plot_throughput",
    "plot_timeline",
    "process_with_workers",
    "retry_async",
    "run_async",
    "simulate",
    "to_dataframe",
    "usage_of",
]

# Loaded on first use: they import numpy, Jupyter's widgets or Redis.
_LAZY = {
    "AsyncDocumentProcessor": "ragasync.documents",
    "AsyncRedisConnection": "ragasync.redis",
    "RedisRateLimiter": "ragasync.redis",
    "Forecast": "ragasync.simulation",
    "TqdmProgress": "ragasync.notebook",
    "WidgetProgress": "ragasync.notebook",
    "forecast": "ragasync.simulation",
    "plot_latency": "ragasync.plots",
    "plot_throughput": "ragasync.plots",
    "plot_timeline": "ragasync.plots",
    "simulate": "ragasync.simulation",
}


if not TYPE_CHECKING:  # or a type checker would accept every name

    def __getattr__(name: str) -> object:
        """Load a public name whose module is not imported with the package, or the version."""
        if name in _LAZY:
            return getattr(import_module(_LAZY[name]), name)
        if name == "__version__":
            from importlib.metadata import version

            return version("ragasync")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, for completion."""
    return [*__all__, "__version__"]
