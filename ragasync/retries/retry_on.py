"""What `retry_on` may be, and what it says of an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from ragasync.arguments import check_number, check_sync
from ragasync.retries.causes import FATAL, Fatal, default_verdict, is_loop_mismatch

Verdict: TypeAlias = bool | float | Fatal
"""True: try again. False: do not. A number: try again after so many seconds. FATAL: stop."""

RetryOn: TypeAlias = (
    type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], Verdict] | None
)
"""Which errors are tried again: a type, several, a predicate, or None for `default_verdict`."""


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


def verdict_of(error: Exception, retry_on: RetryOn) -> Verdict:
    """
    Return what `retry_on` says of an error.

    No choice makes an object usable that is bound to another event loop: that is `FATAL` always.

    Raises:
        Exception: What a predicate raises, or TypeError and ValueError for an answer that is
            none; from `error`.
    """
    if retry_on is None:
        return default_verdict(error)
    if is_loop_mismatch(error):
        return FATAL
    if isinstance(retry_on, (type, tuple)):
        return isinstance(error, retry_on)
    try:
        verdict = retry_on(error)
        if not isinstance(verdict, (bool, Fatal)):
            check_number("what retry_on returns, if not True, False or FATAL,", verdict)
    except Exception as problem:
        if problem is error:
            raise
        raise problem from error
    return verdict
