"""OpenAIEmbedder against a real HTTP server: one call, and how a processor makes many."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from ragasync import FATAL, AttemptTimeout, ItemTooLargeError, ResultCountError, run_async

# Internals: the classes of errors, which have no public name.
from ragasync.documents import OpenAIEmbedder
from ragasync.documents.embedders.openai_http import (
    BrokenReply,
    ServiceRefusal,
    WrongVector,
)
from tests.support.openai_server import KEY, OpenAIServer, embedder, vector_of
from tests.support.verdicts import verdict_on, wait_named_by

pytestmark = pytest.mark.real_time

TEXTS = [f"text number {number}" for number in range(64)]


# ---- one call


@pytest.mark.parametrize("server", [OpenAIServer(shuffled=True), OpenAIServer(as_numbers=True)])
async def test_a_call_gives_the_vectors_in_the_order_of_the_texts(server: OpenAIServer):
    """Out of order or not, in base64 or as numbers."""
    async with server:
        embed = embedder(server)
        rows = await embed(TEXTS)
    np.testing.assert_array_equal(rows, np.array([vector_of(text) for text in TEXTS]))
    assert rows.dtype == np.float32
    assert (embed.dimension, len(server.requests)) == (4, 1)


async def test_a_request_says_what_is_asked_for_and_no_more():
    """The model, the texts, the dimension where one is asked for, and the key."""
    async with OpenAIServer() as server:
        rows = await embedder(server, dimensions=2)(["a", "b\udc80"])
    assert server.requests[0].body == {
        "model": "test",
        "dimensions": 2,
        "input": ["a", "b?"],
        "encoding_format": "base64",
    }
    assert rows.shape == (2, 2)
    assert server.requests[0].headers["Authorization"] == f"Bearer {KEY}"


async def test_usage_is_the_services_or_else_counted():
    """Tokens and their price, over all calls that were answered."""
    async with OpenAIServer() as server:
        embed = embedder(server, price_per_million_tokens=20.0, count_tokens=len)
        await embed(["x" * 400])
        assert (embed.calls, embed.tokens, embed.spent) == (1, 100, pytest.approx(0.002))
        server.says_usage = False
        await embed(["x" * 400])
        assert (embed.calls, embed.tokens) == (2, 500)


async def test_no_texts_are_no_call_and_one_text_is_an_error():
    """A str would be embedded letter by letter; an empty text is refused by name."""
    async with OpenAIServer() as server:
        embed = embedder(server)
        assert (await embed([])).shape == (0, 0)
        with pytest.raises(TypeError, match=r"pass \[text\]"):
            await embed("text")
        with pytest.raises(ValueError, match="empty"):
            await embed(["a", ""])
        with pytest.raises(ItemTooLargeError, match="max_tokens"):
            await embed(["a", "x" * 80_000])
    assert server.requests == []


def test_it_embeds_what_is_searched_for_from_sync_code():
    """And again, on whatever loop: a client is never left over from another."""

    async def answers() -> tuple[Any, Any]:
        async with OpenAIServer() as server:
            embed = embedder(server)
            first = await asyncio.to_thread(embed.query, "abc")
            return first, await asyncio.to_thread(asyncio.run, embed(["abc"]))

    query, rows = asyncio.run(answers())
    assert query.tolist() == rows[0].tolist() == vector_of("abc")


# ---- errors of one call


@pytest.mark.parametrize(
    ("trouble", "kind", "says"),
    [
        ("fewer", ResultCountError, "each of 3 texts, got 2 from"),
        ("more", ResultCountError, "each of 3 texts, got 4 from"),
        ("twice", ResultCountError, r"got 1 from the service, by the index.*\[0, 0, 0\]"),
        ("other", WrongVector, "vector of 4 finite .* text 2 is of 3 dimensions"),
        ("nan", WrongVector, "text 2 is not finite"),
        ("null", WrongVector, "text 2 is not finite"),
        ("cut", BrokenReply, "expected JSON from 127"),
        ("html", BrokenReply, "expected JSON from 127"),
        (500, ServiceRefusal, "answered 500 Internal Server Error: trouble 500"),
        (418, ServiceRefusal, "answered 418"),
    ],
)
async def test_what_is_wrong_with_an_answer_is_an_error_that_says_it(trouble, kind, says):
    """The right number of finite vectors of one dimension, or none."""
    async with OpenAIServer(trouble={0: trouble}) as server:
        embed = embedder(server)
        with pytest.raises(kind, match=says):
            await embed(["a", "b", "c"])
        assert (await embed(["a", "b", "c"])).shape == (3, 4)


async def test_a_refusal_says_when_to_come_again_and_nothing_secret():
    """Status, Retry-After and x-should-retry are read as those of any client's error."""
    leak = {"message": f"wrong key {KEY} in https://ann:pa55@api.test/", "code": "odd", "type": "x"}
    server = OpenAIServer(trouble={0: 429}, wait=0.25, error=leak)
    server.headers = {"x-should-retry": "false", "Set-Cookie": "session=1"}
    async with server:
        with pytest.raises(ServiceRefusal) as caught:
            await embedder(server)(["a"])
    error = caught.value
    assert (error.status_code, error.code, wait_named_by(error)) == (429, "odd", 0.25)
    assert verdict_on(error) is False
    assert KEY not in f"{error} {vars(error)}"
    assert "pa55" not in str(error)
    assert "session" not in str(vars(error))


@pytest.mark.parametrize(
    ("status", "code"), [(401, None), (402, None), (429, "insufficient_quota")]
)
async def test_what_no_later_call_can_mend_is_fatal(status: int, code: str | None):
    """A refused key, or no money left; a 429 without that word is tried again."""
    async with OpenAIServer(trouble={0: status}, error={"code": code}) as server:
        with pytest.raises(ServiceRefusal) as caught:
            await embedder(server)(["a"])
    assert verdict_on(caught.value) is FATAL


async def test_a_call_has_a_limit_of_time():
    """The client hangs up."""
    async with OpenAIServer(trouble={0: "hang"}) as server:
        with pytest.raises(AttemptTimeout, match=r"longer than 0\.1 s"):
            await embedder(server, timeout=0.1)(["a"])
        await server.hung_up.wait()


# ---- what it is made with


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"api_key": KEY}, "openai:m"),
        ({"api_key": KEY, "dimensions": 256}, "openai:m-256"),
        ({"base_url": "http://u:secret@box:8080/v1/"}, "openai:m@box:8080"),
        ({"base_url": "https://box/v1", "name": "mine"}, "mine"),
    ],
)
def test_its_name_tells_whose_vectors_these_are(options: dict[str, Any], name: str):
    """The model, the dimension asked for and the host; never a password."""
    embed = OpenAIEmbedder("m", **options)
    assert embed.name == name
    assert "secret" not in repr(embed)
    assert KEY not in repr(embed)


def test_the_key_of_the_environment_is_for_openai_alone(monkeypatch: pytest.MonkeyPatch):
    """Another host gets none that was not given."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ValueError, match="OPENAI_API_KEY"):
        OpenAIEmbedder("m")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert OpenAIEmbedder("m").name == "openai:m"

    async def sent() -> str | None:
        async with OpenAIServer() as server:
            with pytest.raises(ServiceRefusal):
                await OpenAIEmbedder("m", base_url=server.url)(["a"])
            return server.requests[0].headers.get("Authorization")

    assert run_async(sent()) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_url": "ftp://box"},
        {"base_url": "box:80"},
        {"api_key": "sk-abc…"},
        {"max_batch": 0},
        {"dimensions": 0},
        {"timeout": 0},
        {"requests_per_minute": 0},
        {"tokens_per_minute": -1},
        {"price_per_million_tokens": -1},
    ],
)
def test_wrong_arguments_are_refused_at_once(wrong: dict[str, Any]):
    """Before anything is sent."""
    with pytest.raises(ValueError, match=r"must be|characters"):
        OpenAIEmbedder("m", **{"api_key": KEY} | wrong)
