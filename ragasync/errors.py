"""
The errors that ragasync raises of its own accord.

    RagasyncError
    ├── RunAsyncError (RuntimeError)     an object is bound to another event loop
    ├── AttemptTimeout (TimeoutError)    one attempt took longer than `timeout`
    ├── ResultCountError (ValueError) a batched function did not return a value an item
    ├── ItemTooLargeError (ValueError)         one item weighs more than a whole batch may
    ├── WorkerDied (RuntimeError)        the process that ran an item ended
    ├── CallAborted (RuntimeError)       a call on a worker raised what is no Exception
    ├── RemoteError                      stands for a worker's error that cannot be loaded here
    ├── SerializationError (ValueError)        a function, item or value cannot be pickled
    ├── JobStopped                       a stream ended before its source did
    ├── IncompleteRun (RuntimeError)     a run lost track of an item: never to be seen
    ├── JournalError                     a journal cannot be used: foreign, locked, broken, full
    ├── JournaledError                    stands for an error that a journal has kept
    ├── RedisUnavailable (ConnectionError) Redis is away for too long, or refuses
    └── MissingExtra (ImportError)       an optional package is not installed

Wrong arguments are plain ValueError and TypeError, raised at once.
"""

from __future__ import annotations

from ragasync.foreign_errors import is_a


class RagasyncError(Exception):
    """
    The root of every error that ragasync raises of its own accord.

    Example:
        >>> from ragasync import Journal, RagasyncError
        >>> try:
        ...     Journal("no-such-file.sqlite").to_dataframe()
        ... except RagasyncError as error:
        ...     print(type(error).__name__)
        JournalError
    """


class RunAsyncError(RagasyncError, RuntimeError):
    """
    An awaitable or one of its objects is bound to another event loop.

    Example:
        >>> import asyncio
        >>> from ragasync import RunAsyncError, run_async
        >>> async def cell():
        ...     answer = asyncio.get_running_loop().create_future()  # bound to this loop
        ...     try:
        ...         run_async(answer)  # which this call blocks
        ...     except RunAsyncError as error:
        ...         print(error)
        >>> asyncio.run(cell())
        <Future pending> can never finish here: it belongs to the loop that this call blocks. ...
    """


class AttemptTimeout(RagasyncError, TimeoutError):
    """
    One attempt took longer than `timeout`; a TimeoutError of the function's own is not this.

    Example:
        >>> import asyncio
        >>> from ragasync import AsyncBatchProcessor
        >>> processor = AsyncBatchProcessor(asyncio.sleep, timeout=0.01, retry_count=0)
        >>> processor.process_sync([60]).errors[0]
        AttemptTimeout('the attempt took longer than 0.01 s')
    """


class ResultCountError(RagasyncError, ValueError):
    """
    A batched function returned more or fewer values than it was given items.

    Example:
        >>> from ragasync import AsyncBatchProcessor
        >>> processor = AsyncBatchProcessor(lambda texts: [], batched=True, retry_count=0)
        >>> print(processor.process_sync(["a text"]).errors[0])
        a batched process_fn must return a value for each item: got 0 values for 1 items
    """


class ItemTooLargeError(RagasyncError, ValueError):
    """
    One item alone weighs more than `max_batch_weight` allows for a batch.

    Example:
        >>> from ragasync import AsyncBatchProcessor
        >>> processor = AsyncBatchProcessor(list, batched=True, weight=len, max_batch_weight=10)
        >>> print(processor.process_sync(["short", "much too long"]).errors[1])
        this item alone weighs 13, more than max_batch_weight=10 allows for a ...
    """


class WorkerDied(RagasyncError, RuntimeError):
    """
    The worker process that ran an item ended before it answered.

    Example:
        >>> from concurrent.futures import BrokenExecutor, Executor
        >>> from ragasync import AsyncBatchProcessor
        >>> class Pool(Executor):  # stands for a pool of processes
        ...     def submit(self, function, /, *arguments):
        ...         raise BrokenExecutor("out of memory")
        >>> processor = AsyncBatchProcessor(abs, retry_count=0, executor=Pool())
        >>> processor.process_sync([-1]).errors[0]
        WorkerDied('the worker process ended before it answered: out of memory')
    """


class CallAborted(RagasyncError, RuntimeError):
    """
    A call on a worker raised what is no Exception: sys.exit(), an interrupt, a panic in Rust code.

    It ends neither the worker nor the job. It is the failure of its item, and is never retried.

    Example:
        >>> import sys
        >>> from concurrent.futures import ProcessPoolExecutor
        >>> from ragasync import AsyncBatchProcessor
        >>> with ProcessPoolExecutor(1) as pool:
        ...     result = AsyncBatchProcessor(sys.exit, executor=pool).process_sync([3])
        >>> result.errors[0]
        CallAborted('the call raised SystemExit: 3')
    """


class RemoteError(RagasyncError):
    """
    Stands for an error of a worker process that cannot be loaded in this process.

    It has the name, the message, the notes and the cause of the error that it stands for, is an
    instance of the same built-in exception, and carries what a service's reply said: retries and
    split batches treat it as they would treat the error itself.

    Example:
        >>> from concurrent.futures import ProcessPoolExecutor
        >>> from ragasync import AsyncBatchProcessor, RemoteError
        >>> def call(item):
        ...     import threading
        ...     class Busy(ConnectionError):
        ...         lock = threading.Lock()  # cannot be pickled, and so the class cannot
        ...     raise Busy("no room")
        >>> with ProcessPoolExecutor(1) as pool:
        ...     processor = AsyncBatchProcessor(call, retry_count=0, executor=pool)
        ...     error = processor.process_sync([1]).errors[0]
        >>> error, isinstance(error, RemoteError), isinstance(error, ConnectionError)
        (Busy('no room'), True, True)
    """


class SerializationError(RagasyncError, ValueError):
    """
    What has to go to another process, or to come back, cannot be pickled.

    Example:
        >>> from concurrent.futures import ProcessPoolExecutor
        >>> from ragasync import AsyncBatchProcessor
        >>> with ProcessPoolExecutor(1) as pool:
        ...     processor = AsyncBatchProcessor(str.upper, executor=pool)
        ...     result = processor.process_sync(["a", (letter for letter in "b")])
        >>> result.errors[1]
        SerializationError("item 1 cannot be pickled: TypeError: cannot pickle 'generator' object")

    Attributes:
        function: whether it is the function itself, so that no item can be processed.
    """

    def __init__(self, message: str, *, function: bool = False) -> None:
        super().__init__(message)
        self.function = function


class JobStopped(RagasyncError):
    """
    A stream ended before its source did, because of `max_errors` or a fatal error.

    Example:
        >>> from ragasync import AsyncBatchProcessor, JobStopped, run_async
        >>> processor = AsyncBatchProcessor(int, max_concurrency=1, retry_count=0, max_errors=0)
        >>> async def read():
        ...     async for outcome in processor.stream(["7", "seven", "8"]):
        ...         print(outcome.item, outcome.status)
        >>> try:
        ...     run_async(read())
        ... except JobStopped as error:
        ...     print(error)
        7 done
        seven failed
        1 item failed, more than max_errors=0
    """


class IncompleteRun(RagasyncError, RuntimeError):
    """
    A run that nobody stopped has ended without an outcome for every item: a fault of ragasync.

    It should never be seen. The processor's `last_result` keeps what was done, and so does
    `result`; `result.unfinished` names what is missing.

    Attributes:
        missing: how many items have no outcome.
        result: the outcomes there are, where the run kept them.
    """

    def __init__(self, missing: int, result: object = None) -> None:
        super().__init__(
            f"{missing:,} items have no outcome though nothing stopped the run: this is a fault of "
            "ragasync, please report it; what was done is kept, run the rest by `retry_failed`"
        )
        self.missing = missing
        self.result = result


class JournalError(RagasyncError):
    """
    A journal cannot be used: another job's, locked, broken, on a full disk.

    Example:
        >>> from ragasync import AsyncBatchProcessor, JournalError
        >>> _ = AsyncBatchProcessor(str.upper, journal="run.sqlite").process_sync(["a"])
        >>> try:
        ...     AsyncBatchProcessor(str.lower, journal="run.sqlite").process_sync(["a"])
        ... except JournalError as error:
        ...     print(error)
        the journal '/...run.sqlite' is of the job 'str.upper', version '', and this is the job ...
    """


class JournaledError(RagasyncError):
    """
    Stands for an error of an earlier run that a journal has kept.

    It has the name, the message and the notes of the error that it stands for.

    Example:
        >>> from ragasync import AsyncBatchProcessor, JournaledError
        >>> processor = AsyncBatchProcessor(int, retry_count=0, journal="run.sqlite")
        >>> _ = processor.process_sync(["seven"])
        >>> error = processor.process_sync(["seven"]).errors[0]  # not called again
        >>> error
        ValueError("invalid literal for int() with base 10: 'seven'")
        >>> isinstance(error, JournaledError)
        True
    """


class RedisUnavailable(RagasyncError, ConnectionError):
    """
    Redis was away for longer than one was to wait for it, or refuses what it is asked for.

    Example:
        >>> from ragasync import AsyncRedisConnection, RedisUnavailable, run_async
        >>> async def ask():
        ...     async with AsyncRedisConnection("redis://:pa55@127.0.0.1:1/0") as client:
        ...         return await client.get("a")
        >>> try:
        ...     run_async(ask())
        ... except RedisUnavailable as error:
        ...     print(error)
        expected Redis to answer at redis://127.0.0.1:1/0, got ConnectionError: ...
    """


def as_exception(error: BaseException) -> Exception:
    """Return an error, or a RagasyncError with it as the cause where it is no Exception."""
    if is_a(error, Exception):
        return error
    wrapped = RagasyncError(f"the call raised {type(error).__qualname__}")
    wrapped.__cause__ = error
    return wrapped


class SourceFailed(Exception):
    """An envelope: what the source of a run's items raised, which nothing else may be taken for."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class StageFailure(Exception):
    """An envelope: one stage's error, on its way to the outcome that it belongs to."""

    def __init__(self, stage: str, error: BaseException) -> None:
        super().__init__(stage, error)
        self.stage = stage
        self.error = error


class MissingExtra(RagasyncError, ImportError):
    """
    An optional package is missing; the message names the pip command that installs it.

    Example:
        >>> from ragasync import MissingExtra
        >>> print(MissingExtra("a plot", "matplotlib", "plot"))
        a plot needs the package 'matplotlib', which is not installed: pip install "ragasync[plot]"
    """

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the package {package!r}, which is not installed: "
            f'pip install "ragasync[{extra}]"',
            name=package,
        )
