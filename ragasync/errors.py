"""
The errors that ragasync raises of its own accord.

    RagasyncError
    ├── RunAsyncError (RuntimeError)     an object is bound to another event loop
    ├── AttemptTimeout (TimeoutError)    one attempt took longer than `timeout`
    ├── WrongNumberOfValues (ValueError) a batched function did not return a value an item
    ├── CostTooHigh (ValueError)         one item weighs more than a whole batch may
    ├── WorkerDied (RuntimeError)        the process that ran an item ended
    ├── JobStopped                       a stream ended before its source did
    ├── JournalError                     a journal cannot be used: foreign, locked, broken, full
    ├── RecalledError                    stands for an error that a journal has kept
    └── MissingExtra (ImportError)       an optional package is not installed

Wrong arguments are plain ValueError and TypeError, raised at once.
"""

from __future__ import annotations


class RagasyncError(Exception):
    """The root of every error that ragasync raises of its own accord."""


class RunAsyncError(RagasyncError, RuntimeError):
    """An awaitable or one of its objects is bound to another event loop."""


class AttemptTimeout(RagasyncError, TimeoutError):
    """One attempt took longer than `timeout`; a TimeoutError of the function's own is not this."""


class WrongNumberOfValues(RagasyncError, ValueError):
    """A batched function returned more or fewer values than it was given items."""


class CostTooHigh(RagasyncError, ValueError):
    """One item alone costs more than `max_batch_cost` allows for a batch."""


class WorkerDied(RagasyncError, RuntimeError):
    """The worker process that ran an item ended before it answered."""


class JobStopped(RagasyncError):
    """A stream ended before its source did, because of `max_errors` or a fatal error."""


class JournalError(RagasyncError):
    """A journal cannot be used: another job's, locked, broken, on a full disk."""


class RecalledError(RagasyncError):
    """
    Stands for an error of an earlier run that a journal has kept.

    It has the name, the message and the notes of the error that it stands for.
    """


class StageFailure(Exception):
    """An envelope: one stage's error, on its way to the outcome that it belongs to."""

    def __init__(self, stage: str, error: Exception) -> None:
        super().__init__(stage, error)
        self.stage = stage
        self.error = error


class MissingExtra(RagasyncError, ImportError):
    """An optional package is missing; the message names the pip command that installs it."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the package {package!r}, which is not installed: "
            f'pip install "ragasync[{extra}]"',
            name=package,
        )
