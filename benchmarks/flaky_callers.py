"""
The contenders of `flaky.py`: ways to call a service that is slow, fails, and refuses with 429.

Each allows ATTEMPTS attempts an item, waits from BACKOFF seconds between them, and is set up so
that a Retry-After of one second costs it as little as it can: the peers' own waits after a 429 are
five minutes and five seconds, and one of them lowers its concurrency too.

To add one, write an async function of (call, texts, at_once) that gives a value or None for each
text, in their order, and give it a line in CALLERS.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import aiohttp
from measuring import lines_written

from ragasync import AsyncBatchProcessor, AsyncRetry

Call: TypeAlias = Callable[[str], Awaitable[int]]
Run: TypeAlias = Callable[[Call, Sequence[str], int], Awaitable[Sequence[int | None]]]

ATTEMPTS, BACKOFF = 6, 0.1


class StatusError(Exception):
    """A status that is no success, with its response where the SDKs of LLM services have it."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        super().__init__(f"status {response.status}")
        self.status_code = response.status
        self.response = response


async def ragasync(call: Call, texts: Sequence[str], at_once: int) -> Sequence[int | None]:
    """Process with a back-off; Retry-After is waited for by default."""
    retry = AsyncRetry(max_retries=ATTEMPTS - 1, base_delay=BACKOFF)
    processor = AsyncBatchProcessor[str, int](call, max_concurrency=at_once, retry=retry)
    result = await processor.process(texts)
    return [outcome.value for outcome in result]


async def by_hand(call: Call, texts: Sequence[str], at_once: int) -> Sequence[int | None]:
    """Gather, with a semaphore, and a wait of one's own for tenacity, which reads Retry-After."""
    import tenacity

    back_off = tenacity.wait_random_exponential(multiplier=BACKOFF)

    def wait(state: Any) -> float:
        error = state.outcome.exception()
        if isinstance(error, StatusError) and "Retry-After" in error.response.headers:
            return float(error.response.headers["Retry-After"])
        return float(back_off(state))

    retrying = tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=wait,
        retry=tenacity.retry_if_exception_type((StatusError, aiohttp.ClientError)),
    )
    slots = asyncio.Semaphore(at_once)

    async def one(text: str) -> int | None:
        async with slots:
            try:
                value: int = await retrying.copy()(call, text)
            except tenacity.RetryError:
                return None
            return value

    return await asyncio.gather(*map(one, texts))


async def with_async_batch_llm(
    call: Call, texts: Sequence[str], at_once: int
) -> Sequence[int | None]:
    """Wrap the call as a strategy of async-batch-llm."""
    from async_batch_llm import (
        CallableStrategy,
        CallOutcome,
        ProcessorConfig,
        RateLimitConfig,
        RetryConfig,
        process_prompts,
    )

    async def invoke(prompt: str, **_: Any) -> Any:
        return CallOutcome(await call(prompt))

    config = ProcessorConfig(
        concurrency=at_once,
        retry=RetryConfig(max_attempts=ATTEMPTS, initial_wait=BACKOFF),
        rate_limit=RateLimitConfig(cooldown_seconds=0, slow_start_items=0),
    )
    batch = await process_prompts(
        CallableStrategy(invoke), texts, config=config, preserve_order=True
    )
    return [each.output for each in batch.results]


async def with_phoenix(call: Call, texts: Sequence[str], at_once: int) -> Sequence[int | None]:
    """Wrap the call in the rate limiter of phoenix-evals, and hand it to its executor."""
    from phoenix.evals.executors import AsyncExecutor
    from phoenix.evals.rate_limiters import RateLimiter

    class Refused(Exception):
        pass

    async def refusable(text: str) -> int:
        try:
            return await call(text)
        except StatusError as error:
            if error.status_code == 429:
                raise Refused from error
            raise

    limiter = RateLimiter(Refused, initial_per_second_request_rate=5000, cooldown_seconds=1)
    executor = AsyncExecutor(
        limiter.alimit(refusable),
        concurrency=at_once,
        max_retries=ATTEMPTS - 1,
        exit_on_error=False,
        fallback_return_value=None,
        enable_dynamic_concurrency=False,
    )
    values: Sequence[int | None]
    values, _ = await executor.execute(texts)
    return values


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Keep what contenders print and log of every retry out of the tables."""
    logger = logging.getLogger("async_batch_llm")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


@dataclass(frozen=True)
class Caller:
    """A way to make the calls, and the packages that it needs."""

    run: Run
    needs: tuple[str, ...] = ()

    @property
    def lines(self) -> int:
        """The lines that a user would write."""
        return lines_written(self.run)


OURS, REFERENCE = "ragasync", "semaphore and tenacity"

CALLERS = {
    REFERENCE: Caller(by_hand, ("tenacity",)),
    "async-batch-llm": Caller(with_async_batch_llm, ("async_batch_llm",)),
    "phoenix-evals": Caller(with_phoenix, ("phoenix",)),
    OURS: Caller(ragasync),
}
