"""A stage of the pipeline: its function, and how that is to be called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from ragasync.calling.calls import is_async
from ragasync.limits.limiter import Limiter
from ragasync.plan import Plan, as_limiters
from ragasync.retries.retry import AsyncRetry


@dataclass(frozen=True, slots=True)
class Stage:
    """
    Say how one stage is called, where its plain function is not enough.

    What is None is taken from the processor. Only the embedding stage has batches.

        AsyncDocumentProcessor(embed=Stage(client.embed, max_concurrency=8, timeout=30))

    Args:
        fn: the stage's function, sync or async.
        max_concurrency: calls in flight at once.
        batch_size: the most chunks in one call.
        rate_limiter: one limiter or several.
        retry: when a failed call is tried again.
        timeout: seconds for one attempt.
        executor: where sync functions run instead of on threads.
        cost: what a text weighs, for `max_batch_cost`.
        max_batch_cost: the most that the texts of one call may weigh together.
        name: what tells this stage from another in the fingerprint of a document; by default
            the function's own `fingerprint`, `name` or qualified name.
    """

    fn: Callable[..., Any]
    max_concurrency: int | None = None
    batch_size: int | None = None
    rate_limiter: Limiter | Sequence[Limiter] | None = None
    retry: AsyncRetry | None = None
    timeout: float | None = None
    executor: Executor | None = None
    cost: Callable[[str], float] | None = None
    max_batch_cost: float | None = None
    name: str | None = None

    @property
    def fingerprint(self) -> str:
        """What tells this stage from another."""
        if self.name is not None:
            return self.name
        for attribute in ("fingerprint", "name"):
            value = getattr(self.fn, attribute, None)
            if isinstance(value, str):
                return value
        module = getattr(self.fn, "__module__", type(self.fn).__module__)
        return f"{module}.{getattr(self.fn, '__qualname__', type(self.fn).__qualname__)}"

    @property
    def is_async(self) -> bool:
        """Whether calling the function gives a coroutine."""
        return is_async(self.fn)

    def plan(
        self, function: Callable[..., Any], *, max_concurrency: int, **defaults: Any
    ) -> Plan[Any, Any]:
        """Return the plan for calling `function` in this stage's way, else in the default one."""
        own = {
            "batch_size": self.batch_size,
            "retry": self.retry,
            "timeout": self.timeout,
            "executor": self.executor,
            "cost": self.cost,
            "max_batch_cost": self.max_batch_cost,
        }
        settings = {**defaults, **{name: value for name, value in own.items() if value is not None}}
        if is_async(function):
            settings.pop("executor", None)
        return Plan(
            function,
            is_async(function),
            max_concurrency=self.max_concurrency or max_concurrency,
            limiters=as_limiters(self.rate_limiter or defaults.pop("rate_limiter", None)),
            **{name: value for name, value in settings.items() if name != "rate_limiter"},
        )


def as_stage(given: Callable[..., Any] | Stage | None, default: Callable[..., Any]) -> Stage:
    """Return what was given for a stage as a Stage."""
    if given is None:
        return Stage(default)
    if isinstance(given, Stage):
        return given
    if not callable(given):
        raise TypeError(f"a stage is a function, a Stage or None, got {given!r}")
    return Stage(given)
