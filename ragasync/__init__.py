"""
Run big, slow, flaky async jobs from a notebook.

The house, from the roof down; imports only ever point down, and import-linter checks it:

    documents/    AsyncDocumentProcessor: load, chunk, embed, store
    workers       process_with_workers             gather     gather_with_concurrency
    batch         AsyncBatchProcessor
    job           Job: the handle on a running batch        ending     how it ended
    redis/        RedisRateLimiter, AsyncRedisConnection
    engine/       the window of workers that everything runs on
    calls/        how a function is called: on the loop, on threads, on an executor
    plan          what a processor was told        result     BatchResult
    notebook/     progress bars                    plots/     pictures, in matplotlib
    reports/      tables, words, HTML
    limits/       RateLimiter, and a job's gate    retries/   AsyncRetry, and what errors say
    bridge/       run_async                        outcomes/  what became of each item
    journal/      Journal: outcomes in a file      simulation/  a virtual clock: simulate, forecast
    own_database: a SQLite file of ours, opened or refused
    function_fingerprint: what counts as a change of a function; with function_code,
                  object_settings and plain_values
    progress, errors, clock, arguments, saying, loop_mismatch: nouns and checks, each in one file
    redact/       replaces the secrets that error texts quote
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ragasync.batch import AsyncBatchProcessor
from ragasync.bridge.run_async import run_async
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
    RunAsyncError,
    SerializationError,
    WorkerDied,
)
from ragasync.job import Job
from ragasync.journal import Journal
from ragasync.limits.limiter import RateLimiter
from ragasync.outcomes.outcome import Attempt, Outcome
from ragasync.patterns import gather_with_concurrency
from ragasync.progress import Progress
from ragasync.reports.dataframes import error_summary, errors_dataframe, to_dataframe
from ragasync.result import BatchResult
from ragasync.retries.classify import FATAL
from ragasync.retries.policy import AsyncRetry, retry_async
from ragasync.workers import process_with_workers

if TYPE_CHECKING:
    from ragasync.documents import (
        AsyncDocumentProcessor,
        chunks_dataframe,
        documents_dataframe,
        stages_dataframe,
    )
    from ragasync.notebook import TqdmProgress, WidgetProgress
    from ragasync.plots import plot_latency, plot_throughput, plot_timeline
    from ragasync.redis import AsyncRedisConnection, RedisRateLimiter
    from ragasync.simulation import Forecast, forecast, simulate

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
    "RunAsyncError",
    "SerializationError",
    "TqdmProgress",
    "WidgetProgress",
    "WorkerDied",
    "chunks_dataframe",
    "documents_dataframe",
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
    "stages_dataframe",
    "to_dataframe",
]

# These bring numpy, Jupyter's widgets or Redis, and are loaded when they are asked for.
_ON_DEMAND = {
    "AsyncDocumentProcessor": "ragasync.documents",
    "AsyncRedisConnection": "ragasync.redis",
    "RedisRateLimiter": "ragasync.redis",
    "Forecast": "ragasync.simulation",
    "TqdmProgress": "ragasync.notebook",
    "WidgetProgress": "ragasync.notebook",
    "chunks_dataframe": "ragasync.documents",
    "documents_dataframe": "ragasync.documents",
    "forecast": "ragasync.simulation",
    "plot_latency": "ragasync.plots",
    "plot_throughput": "ragasync.plots",
    "plot_timeline": "ragasync.plots",
    "simulate": "ragasync.simulation",
    "stages_dataframe": "ragasync.documents",
}


def __getattr__(name: str) -> object:
    """Load what is too heavy to load with everything else."""
    if name in _ON_DEMAND:
        return getattr(import_module(_ON_DEMAND[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
