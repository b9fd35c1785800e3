"""A stage of the pipeline: its function, and how that is to be called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from ragasync.arguments import check_process_fn
from ragasync.documents.fingerprints import StageFunction
from ragasync.documents.store import Store
from ragasync.limits.limiter import Limiter
from ragasync.retries.policy import AsyncRetry
from ragasync.settings import BatchSettings, as_limiters

_SETTINGS = (
    "max_concurrency",
    "batch_size",
    "rate_limiter",
    "retry",
    "timeout",
    "executor",
    "weight",
    "max_batch_weight",
    "resources",
)


@dataclass(frozen=True, slots=True)
class Stage:
    """
    Say how one stage is called, where its plain function is not enough.

    What is None is taken from the processor.

    Example:
        >>> from ragasync import AsyncDocumentProcessor
        >>> from ragasync.documents import HashingEmbedder, Stage
        >>> embed = Stage(HashingEmbedder(), max_concurrency=2, batch_size=100, timeout=30)
        >>> result = AsyncDocumentProcessor(embed=embed).process_sync([("guide", "It refills.")])
        >>> result[0].value.embeddings.shape
        (1, 1024)

    Args:
        fn: the stage's function, sync or async; for the last stage also a Store.
        max_concurrency: calls in flight at once.
        batch_size: the most chunks in one call of `embed`; of the others, the most documents in
            one group to `executor`.
        rate_limiter: one limiter or several.
        retry: when a failed call is tried again.
        timeout: seconds for one attempt.
        executor: where the function runs instead of on threads, or on the loop if it is async.
        weight: what a text weighs, for `max_batch_weight`; for `embed` alone.
        max_batch_weight: the most that the texts of one call may weigh together.
        resources: as for AsyncBatchProcessor: makes an async context manager, opened once a run on
            the run's own loop, whose value the function gets as its second argument.
        name: what the stage is known by in place of its function's code: as long as name and
            version stay, edited code is no change. Of `embed` it is the name under which a store
            remembers the vectors; a store that knew the function by its code takes it on.
        version: the same for one stage, where the function's name may stay: another version of
            `load` or `chunk` has everything chunked again, another one of `embed` is another
            embedder. Settings count in any case: closures, defaults, the arguments of a partial,
            and what an object was made with.
    """

    fn: StageFunction | Store
    max_concurrency: int | None = None
    batch_size: int | None = None
    rate_limiter: Limiter | Sequence[Limiter] | None = None
    retry: AsyncRetry | None = None
    timeout: float | None = None
    executor: Executor | None = None
    weight: Callable[[str], float] | None = None
    max_batch_weight: float | None = None
    resources: Callable[[], AbstractAsyncContextManager[Any]] | None = None
    name: str | None = None
    version: str = ""

    def __post_init__(self) -> None:
        """Check what would otherwise change the fingerprint of everything, and say nothing."""
        if self.name is not None and not isinstance(self.name, str):
            raise TypeError(f"name must be a str or None, got {self.name!r}")
        check_version(self.version)

    @property
    def function(self) -> StageFunction:
        """
        The function of a stage that is no Store.

        Raises:
            TypeError: it is no function.
        """
        if not callable(self.fn):
            raise TypeError(f"a stage is a function, a Stage or None, got {self.fn!r}")
        return self.fn

    @property
    def is_plain(self) -> bool:
        """Whether it is called as the processor says, on threads."""
        return not declared_async(self.function) and not self._own

    def plan(self, function: StageFunction, **defaults: Any) -> BatchSettings[Any, Any]:
        """
        Return the plan for calling `function` in this stage's way, else in the default one.

        Raises:
            TypeError: a setting of the wrong kind.
            ValueError: a setting out of range.
        """
        if check_process_fn(function):
            defaults.pop("executor", None)
        settings = defaults | self._own
        limiters = as_limiters(settings.pop("rate_limiter", None))
        return BatchSettings(function, check_process_fn(function), limiters=limiters, **settings)

    @property
    def _own(self) -> dict[str, Any]:
        """The settings that are not left to the processor."""
        own = {setting: getattr(self, setting) for setting in _SETTINGS}
        return {setting: value for setting, value in own.items() if value is not None}


def check_version(version: object) -> None:
    """Raise TypeError for a version that is no text: 1 and "1" would be two."""
    if not isinstance(version, str):
        raise TypeError(f"version must be a str, got {version!r}: pass {str(version)!r}")


def declared_async(function: StageFunction) -> bool:
    """
    Return whether calling a stage's function gives a coroutine; one may yield, too.

    Raises:
        TypeError: it is an async generator function, or no callable.
    """
    return not inspect.isgeneratorfunction(function) and check_process_fn(function)


def as_stage(
    given: StageFunction | Stage | None, default: StageFunction, *, may_yield: bool = False
) -> Stage:
    """
    Return what was given for a stage as a Stage.

    An object that has an `as_stage` method, as `OpenAIEmbedder` has, knows best how it is called.

    Args:
        given: a function, a Stage, or None.
        default: the embedded default.
        may_yield: whether a generator function will do: what it yields is gone through.

    Raises:
        TypeError: it is neither a function nor a Stage.
    """
    if given is not None and not isinstance(given, Stage):
        make = getattr(given, "as_stage", None)
        given = make() if callable(make) else given
    stage = given if isinstance(given, Stage) else Stage(default if given is None else given)
    (declared_async if may_yield else check_process_fn)(stage.function)  # refuses what yields
    return stage
