"""
The tree of errors that ragasync raises itself.

    RagasyncError
    ├── RunAsyncError (RuntimeError)        an object is bound to another event loop
    ├── AttemptTimeout (TimeoutError)       one attempt took longer than `timeout`
    ├── ResultCountError (ValueError)       a batched function returned too many or too few values
    ├── ItemTooLargeError (ValueError)      one item alone exceeds `max_batch_weight`
    ├── ResultRejected                      `retry_on_result` rejected every value of a call
    ├── WorkerDied (RuntimeError)           the worker process of a call ended
    ├── CallAborted (RuntimeError)          a call on a worker raised a BaseException
    ├── RemoteError                         an error of a worker that cannot be unpickled here
    ├── SerializationError (ValueError)     a function, item or value cannot be pickled
    ├── JobStopped                          a stream ended before its source did
    ├── IncompleteRun (RuntimeError)        an item has no outcome: a bug in ragasync
    ├── JournalError                        a journal cannot be used: foreign, locked, broken, full
    ├── JournaledError                      an error of an earlier run, read from a journal
    ├── RedisUnavailable (ConnectionError)  Redis is away for too long, or refuses a request
    └── MissingExtra (ImportError)          an optional package is not installed

Wrong arguments raise a plain ValueError or TypeError immediately. `as_run_async_error` recognizes
errors about objects of another event loop, and adds advice.
"""

from __future__ import annotations

import re
import sys
from typing import ClassVar, Final

from ragasync.foreign_errors import is_a, stands_alone, text_of, walk_errors


class RagasyncError(Exception):
    """
    The base class of all errors that ragasync raises itself.

    Example:
        >>> from ragasync import Journal, RagasyncError
        >>> try:
        ...     Journal("no-such-file.sqlite").to_dataframe()
        ... except RagasyncError as error:
        ...     print(type(error).__name__)
        JournalError
    """

    _of_whole_call: ClassVar[bool] = False
    """Whether each part of the batch that raised it would raise it too, so that none is split."""


class RunAsyncError(RagasyncError, RuntimeError):
    """
    An awaitable or one of its objects is bound to another event loop.

    Example:
        >>> import asyncio
        >>> from ragasync import RunAsyncError, run_async
        >>> async def cell():
        ...     answer = asyncio.get_running_loop().create_future()  # bound to this loop
        ...     try:
        ...         run_async(answer)  # blocks this loop
        ...     except RunAsyncError as error:
        ...         print(error)
        >>> asyncio.run(cell())
        <Future pending> can never finish here: it belongs to the loop that this call blocks. ...
    """


class AttemptTimeout(RagasyncError, TimeoutError):
    """
    An attempt took longer than `timeout`; a TimeoutError raised by the function itself stays one.

    Example:
        >>> import asyncio
        >>> from ragasync import AsyncBatchProcessor
        >>> processor = AsyncBatchProcessor(asyncio.sleep, timeout=0.01, retry_count=0)
        >>> processor.process_sync([60]).errors[0]
        AttemptTimeout('the attempt took longer than 0.01 s')
    """


class ResultCountError(RagasyncError, ValueError):
    """
    A batched function returned more or fewer values than it received items.

    Example:
        >>> from ragasync import AsyncBatchProcessor
        >>> processor = AsyncBatchProcessor(lambda texts: [], batched=True, retry_count=0)
        >>> print(processor.process_sync(["a text"]).errors[0])
        a batched process_fn must return a value for each item: got 0 values for 1 items
    """


class ItemTooLargeError(RagasyncError, ValueError):
    """
    A single item weighs more than `max_batch_weight` allows for a whole batch.

    Example:
        >>> from ragasync import AsyncBatchProcessor
        >>> processor = AsyncBatchProcessor(list, batched=True, weight=len, max_batch_weight=10)
        >>> print(processor.process_sync(["short", "much too long"]).errors[1])
        this item alone weighs 13, more than max_batch_weight=10 allows for a ...
    """


class ResultRejected(RagasyncError):
    """
    Every attempt of a call returned a value that `retry_on_result` rejects.

    If the value is the response of an HTTP client, its status and its Retry-After count as they do
    in an error.

    Example:
        >>> from ragasync import AsyncRetry, ResultRejected
        >>> poll = AsyncRetry(2, 0.0, retry_on_result=lambda state: state == "queued")
        >>> try:
        ...     poll(lambda: "queued")()
        ... except ResultRejected as error:
        ...     print(error, error.value, sep="; ")
        retry_on_result rejected the value 'queued'; queued

    Attributes:
        value: the value of the last attempt.
    """

    def __init__(self, message: str, value: object) -> None:
        super().__init__(message)
        self.value = value
        self.rejected_by: object = None  # the policy, which recognises its own errors

    @property
    def response(self) -> object:
        """The value, under the name by which the response in an error is found."""
        return self.value

    def __reduce__(self) -> tuple[type[ResultRejected], tuple[str, object]]:
        return type(self), (str(self), self.value)


class WorkerDied(RagasyncError, RuntimeError):
    """
    The worker process of a call ended before the call returned.

    Example:
        >>> from concurrent.futures import BrokenExecutor, Executor
        >>> from ragasync import AsyncBatchProcessor
        >>> class Pool(Executor):  # in place of a process pool
        ...     def submit(self, function, /, *arguments):
        ...         raise BrokenExecutor("out of memory")
        >>> processor = AsyncBatchProcessor(abs, retry_count=0, executor=Pool())
        >>> processor.process_sync([-1]).errors[0]
        WorkerDied('the worker process ended before it answered: out of memory')
    """


class CallAborted(RagasyncError, RuntimeError):
    """
    A call on a worker raised a BaseException: sys.exit(), an interrupt, a panic in Rust code.

    Neither the worker nor the job ends. The error fails its item, and is never retried.

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
    Replaces an error of a worker process that cannot be unpickled in this process.

    It has the name, message, notes and cause of the original error, is an instance of the same
    built-in exception, and keeps the details of a service's reply, so retries and batch splitting
    treat it like the original.

    Example:
        >>> from concurrent.futures import ProcessPoolExecutor
        >>> from ragasync import AsyncBatchProcessor, RemoteError
        >>> def call(item):
        ...     import threading
        ...     class Busy(ConnectionError):
        ...         lock = threading.Lock()  # cannot be pickled, so neither can the class
        ...     raise Busy("no room")
        >>> with ProcessPoolExecutor(1) as pool:
        ...     processor = AsyncBatchProcessor(call, retry_count=0, executor=pool)
        ...     error = processor.process_sync([1]).errors[0]
        >>> error, isinstance(error, RemoteError), isinstance(error, ConnectionError)
        (Busy('no room'), True, True)
    """


class SerializationError(RagasyncError, ValueError):
    """
    A function, an item or a value cannot be pickled for its way to or from another process.

    Example:
        >>> from concurrent.futures import ProcessPoolExecutor
        >>> from ragasync import AsyncBatchProcessor
        >>> with ProcessPoolExecutor(1) as pool:
        ...     processor = AsyncBatchProcessor(str.upper, executor=pool)
        ...     result = processor.process_sync(["a", (letter for letter in "b")])
        >>> result.errors[1]
        SerializationError("item 1 cannot be pickled: TypeError: cannot pickle 'generator' object")

    Attributes:
        function: whether it is the function itself, in which case no item can be processed.
    """

    def __init__(self, message: str, *, function: bool = False) -> None:
        super().__init__(message)
        self.function = function


class JobStopped(RagasyncError):
    """
    A stream ended before its source did, because of a budget or a fatal error.

    Example:
        >>> from ragasync import AsyncBatchProcessor, JobStopped, run_async
        >>> processor = AsyncBatchProcessor(int, max_concurrency=1, retry_count=0, max_errors=0)
        >>> async def read():
        ...     async for outcome in processor.stream(["7", "seven", "8"]):
        ...         print(outcome.item, outcome.status)
        >>> try:
        ...     run_async(read())
        ... except JobStopped as error:
        ...     print(error, (error.done, error.failed), sep="; ")
        7 done
        seven failed
        1 item failed, more than max_errors=0; (1, 1)

    Attributes:
        done, failed: the items whose outcomes the stream has yielded, by status.
        tokens, cost: the usage that its calls have reported; with a journal, in all of its runs.
    """

    def __init__(
        self, message: str, *, done: int = 0, failed: int = 0, tokens: int = 0, cost: float = 0.0
    ) -> None:
        super().__init__(message)
        self.done, self.failed = done, failed
        self.tokens, self.cost = tokens, cost


class IncompleteRun(RagasyncError, RuntimeError):
    """
    A run that was not stopped ended without an outcome for every item: a bug in ragasync.

    It should never occur. The processor's `last_result` and this error's `result` keep the
    outcomes; `result.unfinished` lists the missing items.

    Attributes:
        missing: the number of items without an outcome.
        result: the partial result, if the run kept one.
    """

    def __init__(self, missing: int, result: object = None) -> None:
        super().__init__(
            f"{missing:,} items have no outcome although nothing stopped the run: this is a bug in "
            "ragasync, please report it; finished items are kept, run the rest with `retry_failed`"
        )
        self.missing = missing
        self.result = result


class JournalError(RagasyncError):
    """
    A journal cannot be used: it belongs to another job, is locked or broken, or the disk is full.

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
    Replaces an error of an earlier run that was read from a journal.

    It has the name, message and notes of the original error.

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
    Redis was unavailable for longer than the allowed wait, or it refuses a request.

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
    """Return an Exception as it is, and any other BaseException as the cause of a RagasyncError."""
    if is_a(error, Exception):
        return error
    wrapped = RagasyncError(f"the call raised {type(error).__qualname__}")
    wrapped.__cause__ = error
    return wrapped


class SourceFailed(Exception):
    """An envelope for the error of a run's source, so that it is not taken for an item's error."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class StageFailure(Exception):
    """An envelope for the error of a stage, on its way to the outcome of its item."""

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


# ── errors about objects of another event loop ──────────────────────────────────────────────────


ADVICE: Final = (
    "Three ways out: `await` the coroutine in the cell; make the object (client, session, lock) "
    "inside the coroutine, for a processor in `resources=`; or run_async(..., nested=True), which "
    "runs on the loop of this thread"
)

# The messages of asyncio 3.11 to 3.13 and of uvloop, each in full: a message that only quotes
# one of them is about the item. The parts that vary are reprs that asyncio writes itself.
_EXACTLY: Final = frozenset(
    {
        "Event loop is closed",
        "Non-thread-safe operation invoked on an event loop other than the current one",
        # aiohttp looks for the current task on the loop that the session was made on.
        "Timeout context manager should be used inside a task",
    }
)
_WITH_REPRS: Final = re.compile(
    r"Task <[\w.]+ (?:pending|cancelling)\b.*> got Future <.*> attached to a different loop"
    r"|<\w[\w.<>]* (?:object )?at 0x[0-9a-fA-F]+\b.*> is bound to a different event loop",
    re.DOTALL,
)
_ENDS: Final = (" attached to a different loop", " is bound to a different event loop")
_OF_A_VALUE_ERROR: Final = (
    "The future belongs to a different loop than the one specified as the loop argument"
)


def find_loop_mismatch(error: BaseException) -> BaseException | None:
    """
    Find the error about another event loop in a tree of groups and causes, if there is one.

    Causes count because clients wrap asyncio's RuntimeError in connection errors of their own.
    """
    if stands_alone(error):  # as most do, and every failed attempt is checked
        return error if _is_mismatch(error) else None
    return next(filter(_is_mismatch, walk_errors(error, contexts=False)), None)


def as_run_async_error(error: BaseException) -> RunAsyncError | None:
    """
    Make a RunAsyncError with advice out of an error about another event loop; else None.

    An error that is a RunAsyncError, or has one in its tree, already has the advice.
    """
    mismatch = find_loop_mismatch(error)
    if mismatch is None or isinstance(mismatch, RunAsyncError):
        return mismatch
    message = text_of(mismatch)
    explained = RunAsyncError(f"an object belongs to another event loop: {message}. {ADVICE}")
    explained.__cause__ = error
    return explained


def _is_mismatch(error: BaseException) -> bool:
    """Whether this error itself, and not a cause of it, is about another event loop."""
    kind = type(error)
    if issubclass(kind, RuntimeError):
        # In full, because a task's repr may be long and the end of the message decides.
        return issubclass(kind, RunAsyncError) or _is_of_asyncio(text_of(error, sys.maxsize))
    return issubclass(kind, ValueError) and text_of(error) == _OF_A_VALUE_ERROR


def _is_of_asyncio(message: str) -> bool:
    """Whether a RuntimeError's message is, from beginning to end, one of asyncio's."""
    if message in _EXACTLY:
        return True
    # The end first: a suffix costs less than a pattern over a megabyte of text.
    return message.endswith(_ENDS) and _WITH_REPRS.fullmatch(message) is not None
