"""Stage: the function of a pipeline stage, and the settings of its calls."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal

from ragasync._limits.limiter import Limiter
from ragasync._retries.policy import AsyncRetry
from ragasync.arguments import check_process_fn
from ragasync.documents.fingerprints import StageFunction
from ragasync.documents.store import Store
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
    A stage's function together with settings of its own.

    Settings that are None are taken from the processor.

    Example:
        >>> from ragasync import AsyncDocumentProcessor
        >>> from ragasync.documents import HashingEmbedder, Stage
        >>> embed = Stage(HashingEmbedder(), max_concurrency=2, batch_size=100, timeout=30)
        >>> result = AsyncDocumentProcessor(embed=embed).process_sync([("guide", "It refills.")])
        >>> result[0].value.embeddings.shape
        (1, 1024)

    Args:
        fn: the stage's function, sync or async; for the last stage also a Store.
        max_concurrency: the maximum number of concurrent calls; for `embed` also "auto".
        batch_size: the maximum number of chunks in one call of `embed`; for other stages, of
            documents in one group that is sent to `executor`.
        rate_limiter: one limiter or several.
        retry: the retry policy of failed calls.
        timeout: the time limit of one attempt, in seconds.
        executor: where the function runs, instead of on threads.
        weight: a function that weighs a text, for `max_batch_weight`; for `embed` only.
        max_batch_weight: the maximum total weight of the texts in one call.
        resources: as for AsyncBatchProcessor: a function that creates an async context manager,
            which is opened once per run, on the run's own loop. Its value is passed to the stage's
            function as second argument.
        name: a name that identifies the stage in place of its function's code: edited code is
            ignored while name and version stay the same. For `embed`, it is the name of the
            embedder in a store; a store that knew the function by its code adopts the name.
        version: a version that replaces the function's code in the same way, while its own name
            stays. A new version of `load` or `chunk` chunks everything again; a new version of
            `embed` is another embedder. Settings always count: closures, defaults, the arguments of
            a partial, and the constructor arguments of an object.
    """

    fn: StageFunction | Store
    max_concurrency: int | Literal["auto"] | None = None
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
        """Check name and version early, because a wrong one would change every fingerprint."""
        if self.name is not None and not isinstance(self.name, str):
            raise TypeError(f"name must be a str or None, got {self.name!r}")
        check_version(self.version)

    @property
    def function(self) -> StageFunction:
        """
        The stage's function, if it is not a Store.

        Raises:
            TypeError: it is not a function.
        """
        if not callable(self.fn):
            raise TypeError(f"a stage is a function, a Stage or None, got {self.fn!r}")
        return self.fn

    @property
    def is_plain(self) -> bool:
        """Whether it is a sync function without settings of its own."""
        return not declared_async(self.function) and not self._own

    def plan(self, function: StageFunction, **defaults: Any) -> BatchSettings[Any, Any]:
        """
        Settings of a processor of `function`: this stage's own, or else the defaults.

        Raises:
            TypeError: a setting has the wrong type.
            ValueError: a setting is out of range.
        """
        if check_process_fn(function):
            defaults.pop("executor", None)
        settings = defaults | self._own
        limiters = as_limiters(settings.pop("rate_limiter", None))
        return BatchSettings(function, check_process_fn(function), limiters=limiters, **settings)

    @property
    def _own(self) -> dict[str, Any]:
        """The settings that are not None."""
        own = {setting: getattr(self, setting) for setting in _SETTINGS}
        return {setting: value for setting, value in own.items() if value is not None}


def check_version(version: object) -> None:
    """Raise TypeError for a version that is not a str: 1 and "1" would be two versions."""
    if not isinstance(version, str):
        raise TypeError(f"version must be a str, got {version!r}: pass {str(version)!r}")


def declared_async(function: StageFunction) -> bool:
    """
    Whether a stage's function is async; generator functions are allowed too.

    Raises:
        TypeError: it is an async generator function, or not callable.
    """
    return not inspect.isgeneratorfunction(function) and check_process_fn(function)


def as_stage(
    given: StageFunction | Stage | None, default: StageFunction, *, may_yield: bool = False
) -> Stage:
    """
    Turn a stage argument into a Stage.

    An object with an `as_stage` method, such as `OpenAIEmbedder`, provides its own Stage.

    Args:
        given: a function, a Stage, or None.
        default: the function to use for None.
        may_yield: whether a generator function is allowed.

    Raises:
        TypeError: it is neither a function nor a Stage.
    """
    if given is not None and not isinstance(given, Stage):
        make = getattr(given, "as_stage", None)
        given = make() if callable(make) else given
    stage = given if isinstance(given, Stage) else Stage(default if given is None else given)
    (declared_async if may_yield else check_process_fn)(stage.function)  # refuses what yields
    return stage
