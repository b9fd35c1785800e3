"""OpenAIEmbedder in processors: its batches, its limits, and what ends a run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ragasync import ItemTooLargeError, ResultCountError
from ragasync.documents import AsyncDocumentProcessor, Document, SqliteStore

# Internals: errors of the service that have no public name.
from ragasync.documents.embedders.openai_http import (
    ServiceRefusal,
    WrongDimension,
    WrongVector,
)
from tests.support.openai_server import OpenAIServer, embedder, is_whole, tokens_of
from tests.support.services import about

TEXTS = [f"text number {number}" for number in range(64)]


# ---- batches


async def test_batches_are_bounded_by_count_and_by_tokens():
    """Neither is ever exceeded, and a batch is as full as the first bound to be met allows."""
    texts = ["x" * (length % 40 + 1) for length in range(300)]
    async with OpenAIServer() as server:
        embed = embedder(server, max_batch=10, max_batch_tokens=60, count_tokens=tokens_of)
        result = await embed.as_processor().process(texts)
    assert is_whole(result)
    assert result.all_succeeded
    weights = [sum(map(tokens_of, request.texts)) for request in server.requests]
    assert max(weights) <= 60
    assert max(server.sizes) <= 10
    assert len(server.requests) <= 40 < 2 * sum(weights) / 60


@pytest.mark.parametrize(
    ("trouble", "kind", "retries"),
    [
        (400, ServiceRefusal, 0),
        (413, ServiceRefusal, 0),
        ("fewer", ResultCountError, 4),
        ("other", WrongVector, 4),
        ("nan", WrongVector, 4),
        ("null", WrongVector, 4),
    ],
)
async def test_a_text_at_fault_is_found_by_halving_and_fails_alone(
    trouble: Any, kind: type, retries: int
):
    """The others are done: 12 further calls for 6 halvings, and the retries of the one alone."""
    async with OpenAIServer(poison={TEXTS[40]: trouble}) as server:
        result = await embedder(server, max_batch=64).as_processor().process(TEXTS)
    assert is_whole(result)
    assert [(each.index, type(each.error)) for each in result.get_failed()] == [(40, kind)]
    assert len(server.requests) == 1 + 12 + retries


async def test_an_answer_with_one_index_twice_is_asked_for_in_halves():
    """No text is at fault, and none fails."""
    async with OpenAIServer(trouble={0: "twice"}) as server:
        result = await embedder(server, max_batch=64).as_processor().process(TEXTS)
    assert is_whole(result)
    assert result.all_succeeded
    assert server.sizes == [64, 32, 32]


async def test_a_text_that_is_too_long_fails_alone_before_any_call():
    """The service never sees it, and its neighbours cost no further call."""
    texts = [*TEXTS[:5], "x" * 1000, *TEXTS[5:10], ""]
    async with OpenAIServer() as server:
        embed = embedder(server, max_tokens=200, count_tokens=tokens_of)
        result = await embed.as_processor().process(texts)
    assert is_whole(result)
    assert [(each.index, type(each.error)) for each in result.get_failed()] == [
        (5, ItemTooLargeError),
        (11, ValueError),
    ]
    assert sum(server.sizes) == 10
    assert all(len(text) < 1000 for request in server.requests for text in request.texts)


async def test_a_text_that_may_be_too_long_goes_alone_and_the_service_decides():
    """One call for each such text, and none of a neighbour's is made twice."""
    long, too_long = "x" * 3200, "x" * 3600  # 800 and 900 tokens, estimated as 915 and 1,029
    texts = [*TEXTS[:5], long, too_long, *TEXTS[5:10]]
    async with OpenAIServer(most_tokens=850) as server:
        embed = embedder(server, max_tokens=850, max_batch_tokens=5000)
        result = await embed.as_processor().process(texts)
    assert is_whole(result)
    assert [outcome.index for outcome in result.get_failed()] == [6]
    assert sum(server.sizes) == len(texts)
    assert [long] in [request.texts for request in server.requests]


async def test_an_answer_that_is_cut_short_is_asked_for_again_as_a_whole():
    """It says nothing against any of its texts."""
    async with OpenAIServer(trouble={0: "cut", 1: "drop", 2: "html", 3: 503}) as server:
        result = await embedder(server, max_batch=64).as_processor().process(TEXTS)
    assert is_whole(result)
    assert result.all_succeeded
    assert server.sizes == [64] * 5


# ---- limits


async def test_nothing_is_sent_before_the_time_that_a_429_names():
    """In milliseconds where it names these too, in any job that shares the embedder."""
    async with OpenAIServer(trouble={2: 429}, wait=0.3) as server:
        embed = embedder(server, max_batch=1, max_concurrency=1)
        result = await embed.as_processor().process(TEXTS[:6])
    assert result.all_succeeded
    times = [request.at for request in server.requests]
    assert times[3] - times[2] == about(0.3)
    assert server.statuses == {200: 6, 429: 1}


async def test_limits_are_taken_from_the_headers_where_none_are_given():
    """A minute's number becomes a rate a second, for each of the two limiters."""
    headers = {"x-ratelimit-limit-requests": "6000", "x-ratelimit-limit-tokens": "600000"}
    async with OpenAIServer(headers=headers) as server:
        free = embedder(server)
        await free(["a"])
        assert [limiter.rate for limiter in free.limiters] == [100, 10_000]
        bound = embedder(server, requests_per_minute=60, tokens_per_minute=1200)
        await bound(["a"])
        assert [limiter.rate for limiter in bound.limiters] == [1, 20]


async def test_nothing_is_sent_before_the_reset_once_nothing_remains():
    """Also where an answer that is an error says so."""
    headers = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "200ms"}
    async with OpenAIServer(headers=headers, trouble={0: 500}) as server:
        embed = embedder(server, max_batch=1, max_concurrency=1)
        result = await embed.as_processor().process(TEXTS[:2])
    assert result.all_succeeded
    first, second, third = (request.at for request in server.requests)
    assert [second - first, third - second] == about([0.2, 0.2])


async def test_tokens_a_minute_space_calls_by_what_their_texts_weigh():
    """50 a second: after the first call of 20 come 4 more at least 0.4 s apart."""
    async with OpenAIServer() as server:
        embed = embedder(server, tokens_per_minute=3000, count_tokens=tokens_of, max_batch=1)
        result = await embed.as_processor().process(["x" * 80] * 4)
    assert result.all_succeeded
    times = [request.at for request in server.requests]
    assert times[-1] - times[0] == about(3 * 0.4)


# ---- in a document processor


async def test_a_processor_calls_it_in_its_own_way_and_its_store_searches_by_it():
    """One client a run, batches of its own size, and a second run that asks nothing."""
    opened = 0
    documents = [Document(text, text) for text in TEXTS]
    async with OpenAIServer() as server:
        embed = embedder(server, max_batch=10, max_concurrency=2)
        open_one = embed.open

        def open_and_count() -> Any:
            nonlocal opened
            opened += 1
            return open_one()

        embed.open = open_and_count  # type: ignore[method-assign]
        store = SqliteStore(":memory:")
        processor = AsyncDocumentProcessor(embed=embed, store=store, batch_size=3)
        assert (await processor.process(documents)).success_count == len(TEXTS)
        assert (opened, max(server.sizes)) == (1, 10)
        asked = len(server.requests)
        assert (await processor.process(documents)).success_count == len(TEXTS)
        assert len(server.requests) == asked
        hits = await asyncio.to_thread(store.search, TEXTS[17], 1, mode="vector")
        assert hits[0].score == pytest.approx(1)
    assert embed.tokens == sum(map(tokens_of, TEXTS)) + tokens_of(TEXTS[17])


async def test_a_service_that_heeds_no_dimensions_stops_the_run():
    """It is the same for every text: one call, and an error that says what to leave out."""
    async with OpenAIServer(accepts_dimensions=False) as server:
        embed = embedder(server, dimensions=2, max_batch=8, max_concurrency=1, retry=None)
        result = await embed.as_processor().process(TEXTS)
        assert "leave dimensions out" in str(result.stopped_because)
        with pytest.raises(WrongDimension, match="dimensions=2, got 4"):
            await embed(["a"])
    assert len(server.requests) == 2


async def test_a_run_ends_when_its_money_is_spent():
    """Each text is 4 tokens, each call 8 texts: three calls for 96 tokens at 1 each."""
    async with OpenAIServer() as server:
        embed = embedder(server, max_batch=8, max_concurrency=1, price_per_million_tokens=1e6)
        documents = [Document(text, text) for text in TEXTS]
        processor = AsyncDocumentProcessor(embed=embed, max_cost=90)
        result = await processor.process(documents)
    assert (embed.spent, result.usage.cost, server.sizes) == (96, 96, [8] * 3)
    assert (result.success_count, result.pending_count) == (24, 40)
    assert "max_cost=90" in str(result.stopped_because)


async def test_a_refused_key_stops_the_run_after_one_call():
    """Nobody learns a hundred times that a key is wrong."""
    async with OpenAIServer() as server:
        embed = embedder(server, api_key="sk-wrong", max_batch=8, max_concurrency=1)
        documents = [Document(text, text) for text in TEXTS]
        result = await AsyncDocumentProcessor(embed=embed).process(documents)
    assert "401" in str(result.stopped_because)
    assert (result.success_count, len(server.requests)) == (0, 1)
