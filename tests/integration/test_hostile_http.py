"""Jobs on a service that breaks off, hangs and lies: every item is accounted for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ragasync import AsyncBatchProcessor, AsyncRetry, BatchResult, Job
from tests.support.fault_schedule import Fate, Trouble, draw_fates, embedding_of
from tests.support.hostile_server import HostileService
from tests.support.http_clients import (
    AIOHTTP_RAISES,
    HTTPX_RAISES,
    Asking,
    asks_to_wait,
    many_on_httpx,
    on_aiohttp,
    on_httpx,
    status_of,
)

pytestmark = pytest.mark.real_time

TEXTS = [f"text {number}" for number in range(10_000)]


# ---- what must be so


def check_accounts(
    result: BatchResult[int], service: HostileService, raises: dict[Trouble, type[Exception]]
) -> None:
    """Check each item, the counts, and that the service did everything that it was to do."""
    assert [outcome.item for outcome in result] == list(service.fates)
    assert [each for each in result if not is_as_fated(each, service, raises)] == []
    good = sum(fate.is_good for fate in service.fates.values())
    assert (result.success_count, result.error_count) == (good, len(service.fates) - good)
    assert (result.pending_count, result.cancelled_count) == (0, 0)
    assert {text: left for text, left in service.left.items() if left} == {}


def is_as_fated(
    outcome: Any, service: HostileService, raises: dict[Trouble, type[Exception]]
) -> bool:
    """Whether one item has the end that the script leads to, and the attempts that were made."""
    if outcome.attempts != service.asked[outcome.item]:
        return False
    fate = service.fates[outcome.item]
    if fate.is_good:
        ends = (outcome.status, outcome.error, outcome.value)
        return ends == ("done", None, embedding_of(outcome.item))
    if (outcome.status, outcome.value) != ("failed", None):
        return False
    if isinstance(fate.then, int):
        return status_of(outcome.error) == fate.then
    assert fate.then is not None
    return isinstance(outcome.error, raises[fate.then])


@asynccontextmanager
async def nothing_left(service: HostileService) -> AsyncIterator[None]:
    """Check that no connection, task or thread outlives what is done within."""
    tasks, threads = asyncio.all_tasks(), threading.enumerate()
    yield
    await service.until_all_hung_up()
    assert asyncio.all_tasks() == tasks
    assert threading.enumerate() == threads


# ---- one item a request


@pytest.mark.slow
async def test_ten_thousand_requests_are_accounted_for_and_keep_to_the_limit():
    """
    Each item ends as scripted, and the service counts nothing above its limit after its first 429.

    The first 429 comes because others have used up the limit. Its Retry-After closes the job's
    gate, and the user sets the job a rate. In any half second then come at most those who are
    granted in it and those who were on their way: 48 at most, for each holds a slot. One more,
    the refused among them, and the service closes again.
    """
    rate, at_once = 1500.0, 48
    granted = 0.04 * rate + 0.5 * rate  # what a limiter lets through: its burst, and what flows in
    asking = Asking()
    job: Job[str, int]

    def slow_down(retry: Any) -> None:
        if asks_to_wait(retry.error):
            job.rate = rate

    fates = draw_fates(TEXTS, seed=5, passing=0.05, lasting=0.01, unanswered=25)
    limit = (int(granted) + at_once, 0.5)
    async with (
        HostileService(fates, limit=limit, closes_at=(200,)) as service,
        nothing_left(service),
    ):
        job = AsyncBatchProcessor(
            asking.one,
            max_concurrency=at_once,
            retry=AsyncRetry(6, 0.01, max_delay=0.05, on_retry=slow_down),
            timeout=2,
            resources=on_aiohttp(service),
        ).start(TEXTS, on_current_loop=True)
        result = await job
    check_accounts(result, service, AIOHTTP_RAISES)
    assert len(service.arrivals) >= 10_000
    assert service.hung_up == 25
    assert len(service.closings) == 1
    assert service.sent_while_closed(asking.refused_at) == []


# ---- batches


@pytest.mark.slow
async def test_ten_thousand_items_in_batches_are_accounted_for():
    """Poison fails alone, its neighbours are done, and each has as many attempts as it had."""
    fates = draw_fates(TEXTS, seed=6, passing=0.02, lasting=0.006, unanswered=10)
    async with HostileService(fates) as service, nothing_left(service):
        result = await AsyncBatchProcessor(
            Asking().many,
            10,
            16,
            batched=True,
            retry=AsyncRetry(8, 0.005, max_delay=0.02),
            timeout=2,
            resources=on_aiohttp(service),
        ).process(TEXTS)
    check_accounts(result, service, AIOHTTP_RAISES)
    assert len(service.arrivals) > 1_000
    assert service.hung_up == 10


async def test_another_client_tells_the_same_in_its_own_words():
    """Its errors have other types and tell statuses in another place."""
    fates = draw_fates(TEXTS[:1000], seed=7, passing=0.05, lasting=0.02)
    async with HostileService(fates) as service, nothing_left(service):
        result = await AsyncBatchProcessor(
            many_on_httpx,
            20,
            8,
            batched=True,
            retry=AsyncRetry(12, 0.005, max_delay=0.02),
            resources=on_httpx(service),
        ).process(TEXTS[:1000])
    check_accounts(result, service, HTTPX_RAISES)


async def test_what_is_never_answered_is_split_off_from_its_neighbours():
    """A text that hangs each time, and one whose answer never ends, fail alone of their time."""
    fates = dict.fromkeys(TEXTS[:100], Fate())
    fates |= {"text 1": Fate(then="hang"), "text 42": Fate(then="endless")}
    async with HostileService(fates) as service, nothing_left(service):
        result = await AsyncBatchProcessor(
            Asking().many,
            4,
            8,
            batched=True,
            retry_count=0,
            timeout=1,
            resources=on_aiohttp(service),
        ).process(list(fates))
    check_accounts(result, service, AIOHTTP_RAISES)
    assert service.hung_up == 2 * 3  # in a batch of four, of two, and alone
