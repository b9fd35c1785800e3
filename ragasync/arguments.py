"""Checks of arguments, and the error messages about wrong values and unknown names."""

from __future__ import annotations

import functools
import inspect
import math
import operator
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from numbers import Real
from typing import Any, Final, TypeVar

_LONGEST: Final = 200  # characters of a wrong value that an error message shows

_UNITS: Final = {"second": 1, "sec": 1, "minute": 60, "min": 60, "hour": 3600, "day": 86400}
"""The seconds of a unit of time that someone passes as a word."""

F = TypeVar("F", bound=Callable[..., Any])


def check_count(name: str, value: object, *, at_least: int) -> int:
    """
    Check a count, such as one of numpy, and convert it to an int.

    Raises:
        TypeError: the value is not a whole number; True is not one.
        ValueError: it is too small.
    """
    try:
        count = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        count = None
    if count is None or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, got {short_repr(value)}")
    if count < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {short_repr(value)}")
    return count


def check_number(name: str, value: object, *, at_least: float = 0, finite: bool = True) -> float:
    """
    Check a real number, such as one of numpy, and convert it to a float or an int.

    Args:
        name: the argument's name, for the error.
        value: the argument.
        at_least: the smallest number allowed.
        finite: whether infinity is refused.

    Raises:
        TypeError: the value is not a number; True is not one.
        ValueError: it is too small, infinite or NaN.
    """
    number = as_number(name, value)
    if not at_least <= number <= (sys.float_info.max if finite else math.inf):
        limits = f"finite and at least {at_least}" if finite else f"at least {at_least}"
        raise ValueError(f"{name} must be {limits}, got {short_repr(value)}")
    return number


def check_positive(name: str, value: object) -> float:
    """
    Check a finite number above 0, and convert it to a float or an int.

    Raises:
        TypeError: the value is not a number; True is not one.
        ValueError: it is 0, negative, infinite or NaN.
    """
    number = as_number(name, value)
    if not 0 < number <= sys.float_info.max:
        raise ValueError(f"{name} must be positive and finite, got {short_repr(value)}")
    return number


def check_seconds(
    name: str, value: object, *, positive: bool = False, finite: bool = True
) -> float:
    """
    Check a duration, a number of seconds or a timedelta, and convert it to seconds.

    Args:
        name: the argument's name, for the error.
        value: the argument; a pandas Timedelta is a timedelta too.
        positive: whether 0 is refused.
        finite: whether infinity is refused.

    Raises:
        TypeError: the value is neither a number nor a timedelta; True is not one.
        ValueError: it is negative, 0 if that is refused, infinite or NaN.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    elif isinstance(value, bool) or not isinstance(value, Real):
        unit = value.strip().lower().removesuffix("s") if isinstance(value, str) else ""
        hint = f": 1 {unit} is {name}={_UNITS[unit]}" if unit in _UNITS else ""
        raise TypeError(
            f"{name} must be a number of seconds or a timedelta, got {short_repr(value)}{hint}"
        )
    return check_positive(name, value) if positive else check_number(name, value, finite=finite)


def check_callable(fn: object) -> None:
    """Raise a TypeError for what cannot be called once per attempt, such as a coroutine."""
    if not callable(fn):
        raise TypeError(
            f"expected a function to call for each attempt, got {fn!r}; "
            "pass fetch or lambda: fetch(url), not fetch(url)"
        )


def check_sync(name: str, fn: object) -> None:
    """Raise a TypeError for a callback that is not a function, or is async or a generator."""
    if not callable(fn) or is_async(fn) or _yields(fn):
        raise TypeError(f"{name} must be a function that is not async, got {fn!r}")


def check_process_fn(function: Callable[..., object]) -> bool:
    """
    Check a function that is called once per item or batch; return whether it is async.

    Raises:
        TypeError: it is not callable, or it yields instead of returning.
    """
    if not callable(function):
        raise TypeError(f"process_fn must be callable, got {function!r}")
    if _yields(function):
        raise TypeError(
            f"expected a function that returns one value, but {function!r} yields: "
            "return a list instead"
        )
    return is_async(function)


def is_async(fn: Callable[..., object]) -> bool:
    """Whether this function, method, partial or callable object is declared async."""
    return any(map(inspect.iscoroutinefunction, _declared(fn)))


def _yields(fn: Callable[..., object]) -> bool:
    """Whether calling this function makes a generator, sync or async."""
    return any(
        inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each)
        for each in _declared(fn)
    )


def _declared(fn: Callable[..., object]) -> tuple[object, object]:
    """The two functions that decide what a call does: the one in a partial, and its __call__."""
    inner: object = fn
    while isinstance(inner, functools.partial):
        inner = inner.func
    return inner, getattr(type(inner), "__call__", None)  # noqa: B004 - its function, not whether


def as_number(name: str, value: object) -> float:
    """
    Convert a real number of any library to a float; an int stays an int.

    A whole number too large for a float becomes infinite.

    Raises:
        TypeError: the value is not a number; True is not one.
    """
    if type(value) is float or type(value) is int:
        return value  # a limiter checks the weight of every call
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {short_repr(value)}")
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]  # a huge whole one
    except Exception as error:
        raise TypeError(f"{name} must be a number, got {short_repr(value)}") from error


def short_repr(value: object) -> str:
    """The beginning of a value's repr, which may fail: a huge whole number has none."""
    try:
        text = repr(value)
    except Exception:
        return f"{type(value).__name__} (its repr raises)"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


# ── names of arguments ──────────────────────────────────────────────────────────────────────────

_OTHER_NAMES: Final[Mapping[str, str]] = {
    "max_concurrency num_workers": "concurrency max_workers n_jobs workers n_workers max_concurrent"
    " concurrency_limit max_at_once semaphore parallelism max_parallel pool_size threads"
    " num_threads max_tasks task_limit concurrent_requests limit",
    "max_items k": "limit n top_k n_results num_results max_results",
    "batch_size": "chunk_size chunksize batchsize max_batch_size",
    "progress_callback": "progress callback callbacks on_progress show_progress progress_bar pbar"
    " verbose",
    "retry_count max_retries": "retries num_retries n_retries retry_limit",
    "retry_delay base_delay": "delay wait initial_delay min_wait retry_wait retry_interval",
    "factor backoff_factor": "backoff exp_base multiplier",
    "max_delay": "max_wait max_backoff wait_max",
    "max_elapsed": "max_time deadline max_elapsed_time stop_after_delay",
    "retry_on": "exceptions exception on retry_exceptions retry_if",
    "on_retry": "on_backoff before_sleep",
    "rate requests_per_second": "rps qps calls_per_second max_rate calls max_calls max_per_second"
    " limit",
    "rate_limiter": "rate_limit limiter limiters rate_limiters throttle rps qps calls_per_second"
    " max_rate rate requests_per_second",
    "per": "period time_period window",
    "burst_size": "burst capacity bucket_size max_burst",
    "weight": "cost weigh",
    "timeout": "time_limit request_timeout timeout_seconds",
    "process_fn process_item func": "fn function worker task coro_fn",
    "items sources coros": "inputs iterable data tasks aws coroutines awaitables texts documents",
    "n_items": "n num_items size",
    "ordered": "preserve_order keep_order",
    "executor": "pool",
    "journal": "checkpoint resume_from",
    "on_current_loop": "here",
    "description": "desc",
    "load": "loader reader",
    "chunk": "splitter text_splitter chunker",
    "embed embedder": "embedding embeddings embed_fn embedding_function embed_model",
    "store": "vector_store vectorstore db",
    "chunk_size max_tokens": "size length max_chars max_length",
    "chunk_overlap": "overlap",
    "id": "doc_id document_id id_",
    "text": "page_content content query query_text",
    "metadata": "meta",
    "where": "filter filters",
    "min_score": "score_threshold threshold",
    "vector": "query_vector query_embedding",
    "path": "uri db_path filename persist_directory",
    "exclude": "ignore",
    "url": "redis_url",
    "model": "model_name",
    "max_cost": "budget max_spend",
    "tokens": "total_tokens",
    "input_tokens": "prompt_tokens",
    "output_tokens": "completion_tokens",
    "cost": "price spend money",
}
"""The names that other libraries give to our arguments; those before the colon are ours."""

_ELSEWHERE: Final[Mapping[str, str]] = {
    "progress_callback": "pass progress_callback= to process(), process_sync() or start()",
    "max_items": "pass max_items={} to process(), process_sync() or start()",
    "total": "pass total={} to process(), process_sync(), start() or stream()",
    "ordered": "results are in input order; pass ordered= to stream()",
    "return_exceptions": "no item's error is raised, result.errors has them all",
    "max_delay": "pass retry=AsyncRetry(max_delay={})",
    "max_elapsed": "pass retry=AsyncRetry(max_elapsed={})",
    "retry_on": "pass retry=AsyncRetry(retry_on=...)",
    "on_retry": "pass retry=AsyncRetry(on_retry=...)",
    "factor": "pass retry=AsyncRetry(factor={})",
    "per": "pass rate_limiter=RateLimiter(rate=..., per={})",
    "burst_size": "pass rate_limiter=RateLimiter(..., burst_size={})",
    "chunk_overlap": "pass chunk=RecursiveSplitter(..., chunk_overlap={})",
    "max_concurrency": "pass max_concurrency={} to AsyncBatchProcessor()",
    "batch_size": "pass batch_size={} to AsyncBatchProcessor()",
    "retry_count": "pass retry_count={} to AsyncBatchProcessor()",
    "retry_delay": "pass retry_delay={} to AsyncBatchProcessor()",
    "rate_limiter": "pass rate_limiter= to AsyncBatchProcessor()",
    "timeout": "pass timeout={} to AsyncBatchProcessor()",
    "journal": "pass journal= to AsyncBatchProcessor()",
}
"""Advice about arguments that belong to another function."""

_ATTEMPTS: Final = ("attempts", "max_attempts", "tries", "max_tries")
_TOKENS_PER_MINUTE: Final = ("tpm", "tokens_per_minute")
_PER_MINUTE: Final = ("rpm", "requests_per_minute", "calls_per_minute")


def explains_arguments(target: F) -> F:
    """
    Make a function or class answer an unknown keyword argument with the one to pass instead.

    Users bring the names of other libraries along. The signature stays as it is, so that type
    checkers and editors still find misspelled names.

    Example:
        >>> from ragasync import AsyncBatchProcessor
        >>> AsyncBatchProcessor(str, max_workers=8)
        Traceback (most recent call last):
        TypeError: AsyncBatchProcessor() has no argument max_workers: pass max_concurrency=8
    """
    if isinstance(target, type):
        target.__init__ = explains_arguments(target.__init__)  # type: ignore[misc]  # the same type
        return target
    if inspect.iscoroutinefunction(target):

        @functools.wraps(target)
        async def wrapper(*args: object, **kwargs: object) -> object:
            __tracebackhide__ = True  # IPython and pytest leave this frame out
            try:
                coro = target(*args, **kwargs)
            except TypeError:
                _raise_if_unknown(target, kwargs)
                raise
            finally:
                del args, kwargs  # an error that an argument keeps refers to this frame
            return await coro

    else:

        @functools.wraps(target)
        def wrapper(*args: object, **kwargs: object) -> object:
            __tracebackhide__ = True
            try:
                return target(*args, **kwargs)
            except TypeError:
                _raise_if_unknown(target, kwargs)
                raise
            finally:
                del args, kwargs  # an error that an argument keeps refers to this frame

    return wrapper  # type: ignore[return-value]  # functools.wraps keeps the signature


def _raise_if_unknown(fn: Callable[..., object], given: Mapping[str, object]) -> None:
    """Raise a TypeError that says what to pass if a call has unknown keyword arguments."""
    parameters = inspect.signature(fn).parameters
    ours = [name for name in parameters if name != "self" and not name.startswith("_")]
    called = fn.__qualname__.removesuffix(".__init__")
    answers = [
        f"no argument {name}: {_advice(name, value, ours)}"
        for name, value in given.items()
        if name not in parameters
    ]
    if answers:
        raise TypeError(f"{called}() has {'; '.join(answers)}") from None


def _advice(name: str, value: object, ours: list[str]) -> str:
    """Write what to pass instead of an argument that is not among ours."""
    number = type(value) in (int, float)
    shown = short_repr(value) if number or type(value) is str else "..."
    if name in _ATTEMPTS:
        return _attempts_advice(value, shown, ours)
    if name in _TOKENS_PER_MINUTE:
        limits = f"RateLimiter.per_minute(tokens={shown}, weight=...)"
        return f"use {limits}" if "per" in ours else f"pass rate_limiter={limits}"
    if name in _PER_MINUTE:
        limiter = f"rate={shown}, per=60"
        return f"pass {limiter}" if "per" in ours else f"pass rate_limiter=RateLimiter({limiter})"
    if name == "chunk_size" and "chunk" in ours:  # batch_size is the chunk size of a batch only
        return f"pass chunk=RecursiveSplitter(chunk_size={shown})"
    known = list(_equivalents(name))
    for target in known:
        if target not in ours:
            continue
        if target == "rate_limiter" and number:
            return f"pass rate_limiter=RateLimiter({shown})"
        if target == "progress_callback" and isinstance(value, bool):
            return "pass progress_callback=WidgetProgress()"
        return f"pass {target}={shown}"
    for target in known:
        if target in _ELSEWHERE:
            return _ELSEWHERE[target].format(shown)
    import difflib  # slow to import

    if close := difflib.get_close_matches(name, ours, n=1):
        return f"pass {close[0]}={shown}"
    return f"pass any of {', '.join(ours)}"


def _equivalents(name: str) -> Iterator[str]:
    """Yield our arguments that have another library's name, or are called so here."""
    if name in _ELSEWHERE:
        yield name
    for ours, others in _OTHER_NAMES.items():
        names = ours.split()
        if name in names or name in others.split():
            yield from names


def _attempts_advice(value: object, shown: str, ours: list[str]) -> str:
    """Write what to pass instead of a number of attempts that includes the first."""
    if "max_attempts" in ours:
        return f"pass max_attempts={shown}"
    retries = value - 1 if type(value) is int and value > 0 else "..."
    target = "max_retries" if "max_retries" in ours else "retry_count"
    where = "" if target in ours else " to AsyncBatchProcessor()"
    return f"pass {target}={retries}{where}, which does not count the first attempt"
