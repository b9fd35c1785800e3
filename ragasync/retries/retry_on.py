"""What `retry_on` may be, and what it says of an error."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import TypeAlias, cast

from ragasync.arguments import check_number, check_sync
from ragasync.error_text import describe
from ragasync.errors import CallAborted
from ragasync.foreign_errors import INTERRUPTS, is_a, leaves_of
from ragasync.retries.classify import FATAL, Fatal, default_retry, is_loop_mismatch

Verdict: TypeAlias = bool | float | Fatal
"""True: try again. False: do not. A number: try again after so many seconds. FATAL: stop."""

RetryOn: TypeAlias = (
    type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], Verdict] | None
)
"""Which errors are tried again: a type, several, a predicate, or None for `default_retry`."""


def check_retry_on(retry_on: object) -> None:
    """Refuse what chooses no errors, or ones that always pass."""
    if retry_on is None:
        return
    if not isinstance(retry_on, (type, tuple)):
        check_sync("retry_on, if neither None nor a type or a tuple of types,", retry_on)
        return
    for kind in retry_on if isinstance(retry_on, tuple) else (retry_on,):
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise TypeError(
                f"retry_on must name subclasses of Exception, got {kind!r}; "
                "CancelledError, KeyboardInterrupt and SystemExit always pass"
            )


def verdict_of(error: BaseException, retry_on: RetryOn) -> Verdict:
    """
    Return the verdict of `retry_on` on an error.

    No choice makes an object usable that is bound to another event loop: that is `FATAL` always.
    A type chooses an error of it, and a group whose members are all of it. A CancelledError that
    nobody asked for is chosen as a ConnectionError would be, and predicates are asked about it;
    any other BaseException that is no Exception, such as a panic, is never retried, nor is what
    one in a worker process has become.

    Raises:
        Exception: What a predicate raises, or TypeError and ValueError for an answer that is
            none, or RuntimeError where it panics; from `error`.
    """
    if retry_on is None:
        return default_retry(error)
    if issubclass(type(error), CallAborted):
        return False
    if is_loop_mismatch(error):
        return FATAL
    kinds = [
        ConnectionError if issubclass(kind, asyncio.CancelledError) else kind
        for kind in map(type, leaves_of(error))
    ]
    if not all(issubclass(kind, Exception) for kind in kinds):
        return False
    if isinstance(retry_on, (type, tuple)):
        return issubclass(type(error), retry_on) or all(issubclass(k, retry_on) for k in kinds)
    return _ask(retry_on, error)


def _ask(predicate: Callable[[Exception], object], error: BaseException) -> Verdict:
    """Return the answer of a predicate, once it is known to be one."""
    try:
        verdict = predicate(cast("Exception", error))
        if isinstance(verdict, (bool, Fatal)):
            return verdict
        if inspect.iscoroutine(verdict):
            verdict.close()
        return check_number("what retry_on returns, if not True, False or FATAL,", verdict)
    except BaseException as problem:
        if problem is error:
            if is_a(error, Exception):
                raise
            return False  # a CancelledError that nobody asked for must not become one
        if is_a(problem, INTERRUPTS):
            raise
        if not is_a(problem, Exception):
            raise RuntimeError(f"retry_on raised {describe(problem)}") from error
        raise problem from error
