"""
Run big, slow, flaky async jobs from a notebook.

The house, from the roof down; imports only ever point down (import-linter checks it):

    documents    load, chunk, embed, store: the pipeline
    simulation   a virtual clock
    batch        AsyncBatchProcessor, process_with_workers      gather: gather_with_concurrency
    job          Job, the handle on a running batch
    engine       the window of workers that everything runs on  notebook: progress bars
    limiter, retry, bridge (run_async), result                  one idea each
    errors, clock, outcome, columns, frames, html               nouns, and how they are shown
"""

from ragasync.batch import AsyncBatchProcessor, process_with_workers
from ragasync.bridge.run_async import run_async
from ragasync.errors import (
    AttemptTimeout,
    CostTooHigh,
    JobStopped,
    MissingExtra,
    RagasyncError,
    RunAsyncError,
    WorkerDied,
    WrongNumberOfValues,
)
from ragasync.gather import gather_with_concurrency
from ragasync.job import Job
from ragasync.limits.limiter import RateLimiter
from ragasync.outcomes.outcome import Attempt, Outcome
from ragasync.outcomes.result import BatchResult
from ragasync.progress import Progress
from ragasync.reports.frames import error_summary, errors_dataframe, to_dataframe
from ragasync.retries.causes import FATAL
from ragasync.retries.retry import AsyncRetry, retry_async

__all__ = [
    "FATAL",
    "AsyncBatchProcessor",
    "AsyncRetry",
    "Attempt",
    "AttemptTimeout",
    "BatchResult",
    "CostTooHigh",
    "Job",
    "JobStopped",
    "MissingExtra",
    "Outcome",
    "Progress",
    "RagasyncError",
    "RateLimiter",
    "RunAsyncError",
    "WorkerDied",
    "WrongNumberOfValues",
    "error_summary",
    "errors_dataframe",
    "gather_with_concurrency",
    "process_with_workers",
    "retry_async",
    "run_async",
    "to_dataframe",
]
