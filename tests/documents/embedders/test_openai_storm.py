"""OpenAIEmbedder and a service in a storm: every text is accounted for, and every token."""

from __future__ import annotations

from typing import Any

import pytest

from ragasync import AsyncRetry
from ragasync.documents import AsyncDocumentProcessor, Document, SqliteStore
from tests.support.openai_server import OpenAIServer, embedder, is_whole

pytestmark = pytest.mark.real_time

MANY = [f"{number} {'x' * (number % 50 + 1)}" for number in range(5000)]


def storm() -> OpenAIServer:
    """Return a service with a bucket that answers 500, hangs, drops, cuts and miscounts."""
    trouble: dict[int, int | str] = dict.fromkeys(range(3, 400, 7), 500)
    trouble |= dict.fromkeys(range(5, 400, 29), "drop") | dict.fromkeys(range(6, 400, 31), "cut")
    trouble |= dict.fromkeys(range(4, 400, 43), 429)
    trouble |= dict.fromkeys(range(8, 400, 37), "fewer") | {10: "hang", 60: "hang"}
    poison: dict[str, int | str] = {MANY[77]: 400, MANY[4000]: "nan", MANY[4001]: "other"}
    return OpenAIServer(
        latency=0.002, rate=200, burst=10, wait=0.05, shuffled=True, trouble=trouble, poison=poison
    )


OFTEN: dict[str, Any] = {
    "retry": AsyncRetry(30, 0.01, max_delay=0.05),
    "timeout": 3.0,
    "max_batch": 32,
    "price_per_million_tokens": 1.0,
}


async def test_every_text_is_accounted_for_in_a_storm():
    """Those at fault fail alone, all others have their own vectors, and all tokens are counted."""
    async with storm() as server:
        embed = embedder(server, **OFTEN)
        result = await embed.as_processor().process(MANY)
    assert is_whole(result)
    assert [outcome.index for outcome in result.get_failed()] == [77, 4000, 4001]
    assert embed.tokens == server.tokens
    assert embed.calls == len(server.requests)
    assert {200, 400, 429, 500, None} <= server.statuses.keys()


async def test_every_document_is_accounted_for_in_a_storm():
    """Ten texts a document: those with one at fault fail, and what a store has it has once."""
    documents = [Document(str(n), "\n".join(MANY[10 * n : 10 * n + 10])) for n in range(500)]
    async with storm() as server:
        embed = embedder(server, **OFTEN)
        store = SqliteStore(":memory:")
        result = await AsyncDocumentProcessor(None, str.splitlines, embed, store).process(documents)
    assert [outcome.index for outcome in result.get_failed()] == [7, 400]
    assert (result.success_count, len(store.documents()), len(store)) == (498, 498, 4980)
    assert result.usage.tokens == embed.tokens == server.tokens
    assert result.usage.cost == pytest.approx(embed.spent)
