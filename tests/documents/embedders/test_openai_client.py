"""OpenAIEmbedder through a client of the user's, on the virtual clock: exact times, no network."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ragasync import AttemptTimeout
from ragasync.documents import OpenAIEmbedder

# Internals: errors of the service that have no public name.
from ragasync.documents.embedders.openai_http import BrokenReply, refusal
from tests.support.services import about, now


def answer(texts: Sequence[str]) -> SimpleNamespace:
    """Return an answer as an SDK parses it: a vector of each text's length, and the usage."""
    data = [SimpleNamespace(embedding=[float(len(t)), 1.0], index=i) for i, t in enumerate(texts)]
    return SimpleNamespace(data=data, usage=SimpleNamespace(total_tokens=7 * len(texts)))


class Client:
    """A client that answers after a while, and notes what it was asked when."""

    def __init__(self, seconds: float = 0.0, make: Callable[[Sequence[str]], Any] = answer) -> None:
        self.seconds, self.make = seconds, make
        self.asked: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.embeddings = SimpleNamespace(create=self.create)

    async def create(self, **asked: Any) -> Any:
        """Answer."""
        self.asked.append(asked)
        self.times.append(now())
        await asyncio.sleep(self.seconds)
        return self.make(asked["input"])


async def test_a_client_is_asked_for_the_model_and_the_texts_and_no_more():
    """The dimension where one is wanted; encoding and host are the client's own affair."""
    client = Client()
    embed = OpenAIEmbedder("m", client=client, price_per_million_tokens=1e6)
    rows = await embed(["a", "bc"])
    assert client.asked == [{"model": "m", "input": ["a", "bc"]}]
    np.testing.assert_array_equal(rows, [[1, 1], [2, 1]])
    assert (embed.name, embed.calls, embed.tokens, embed.spent) == ("openai:m", 1, 14, 14.0)
    await OpenAIEmbedder("m", client=client, dimensions=2)(["a"])
    assert client.asked[1] == {"model": "m", "input": ["a"], "dimensions": 2}


async def test_an_answer_may_be_a_dict_without_index_and_usage():
    """Then the order counts, and the tokens are counted."""
    client = Client(make=lambda texts: {"data": [{"embedding": [len(t)]} for t in texts]})
    embed = OpenAIEmbedder("m", client=client, count_tokens=len)
    assert (await embed(["abc", "d"])).tolist() == [[3.0], [1.0]]
    assert embed.tokens == 4


@pytest.mark.parametrize("made", [None, {"data": "none"}, [1, 2], {"error": "odd"}])
async def test_an_answer_without_a_list_of_embeddings_is_broken(made: object):
    """Not one with too few vectors: no text is at fault."""
    with pytest.raises(BrokenReply, match="expected a list of embeddings"):
        await OpenAIEmbedder("m", client=Client(make=lambda texts: made))(["a"])


@pytest.mark.real_time
async def test_a_sync_client_is_called_on_a_thread():
    """The loop goes on meanwhile."""
    threads: list[threading.Thread] = []

    def create(**asked: Any) -> Any:
        threads.append(threading.current_thread())
        return answer(asked["input"])

    client = SimpleNamespace(embeddings=SimpleNamespace(create=create))
    assert (await OpenAIEmbedder("m", client=client)(["abc"])).tolist() == [[3.0, 1.0]]
    assert threads != [threading.main_thread()]


async def test_an_sdks_own_retries_are_switched_off_and_its_headers_heard():
    """They would multiply with ours; the host is in the name, and the given client untouched."""

    class SDK(Client):
        base_url = "http://box:8080/v1/"

        def __init__(self, max_retries: int = 2) -> None:
            super().__init__()
            self.max_retries = max_retries
            self.copies: list[SDK] = []
            self.embeddings.with_raw_response = SimpleNamespace(create=self.raw)

        def with_options(self, *, max_retries: int) -> SDK:
            self.copies.append(SDK(max_retries))
            return self.copies[-1]

        async def raw(self, **asked: Any) -> Any:
            parsed = await self.create(**asked)
            headers = {"X-RateLimit-Limit-Requests": "600"}
            return SimpleNamespace(headers=headers, parse=lambda: parsed)

    sdk = SDK()
    embed = OpenAIEmbedder("m", client=sdk)
    await embed(["a"])
    assert (sdk.asked, [copy.max_retries for copy in sdk.copies]) == ([], [0])
    assert embed.name == "openai:m@box:8080"
    assert embed.limiters[0].rate == about(10)


@pytest.mark.parametrize("wrong", [object(), SimpleNamespace(embeddings=None), "sk-secret"])
def test_what_is_no_client_is_refused_without_being_quoted(wrong: object):
    """It may be a key."""
    with pytest.raises(TypeError, match=r"must have embeddings\.create") as caught:
        OpenAIEmbedder("m", client=wrong)
    assert "sk-secret" not in str(caught.value)


async def test_a_calls_time_is_limited_and_a_clients_own_timeout_is_its_own():
    """Exactly `timeout` seconds; a TimeoutError that the client raises is passed on."""
    with pytest.raises(AttemptTimeout, match="longer than 60 s"):
        await OpenAIEmbedder("m", client=Client(seconds=61))(["a"])
    assert now() == about(60)

    def give_up(texts: Sequence[str]) -> Any:
        raise TimeoutError("the proxy's")

    with pytest.raises(TimeoutError, match="the proxy's") as caught:
        await OpenAIEmbedder("m", client=Client(make=give_up))(["a"])
    assert not isinstance(caught.value, AttemptTimeout)


@pytest.mark.parametrize(
    ("limits", "times"),
    [
        ({"requests_per_minute": 60}, [0, 0.98, 1.98]),
        ({"tokens_per_minute": 60}, [0, 10, 30]),
        ({"tokens_per_minute": 60, "requests_per_minute": 4}, [0, 14.98, 34.98]),
    ],
)
async def test_requests_and_tokens_a_minute_are_two_limits(
    limits: dict[str, float], times: list[float]
):
    """Texts of 10, 20 and 10 tokens, a call each: a call goes when both limits admit it."""
    client = Client()
    embed = OpenAIEmbedder("m", client=client, max_batch=1, count_tokens=len, **limits)
    result = await embed.as_processor().process(["x" * 10, "x" * 20, "x" * 10])
    assert result.all_succeeded
    assert [round(at, 3) for at in client.times] == times


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        (b'{"error": {"message": "no", "code": "c", "type": "t"}}', "c", "box answered 400 .*: no"),
        (b'{"error": "model not found"}', None, "model not found$"),
        (b'{"detail": "too long", "code": 413}', None, "too long$"),
        (b'{"object": "error", "message": "bad\\ninput"}', None, "bad input$"),
        (b"<html>\n<b>Bad\n gateway</b>", None, "<html> <b>Bad gateway</b>$"),
        (b"", None, "400 Bad Request$"),
        (b"[1]", None, r"\[1\]$"),
        (b"[" * 100_000, None, "…$"),
        (b"\xff" * 1000, None, "…$"),
        (b'{"error": {"message": "' + b"x" * 291 + b" sk-0123456789abcdef" * 9 + b'"}}', None, "x"),
    ],
)
def test_whatever_a_service_says_when_it_refuses_is_told_in_a_line(body: bytes, code, says: str):
    """Its message, short and without secrets; a code that is a number is no status."""
    error = refusal("box", 400, body, {})
    with pytest.raises(type(error), match=says):
        raise error
    assert (error.status_code, error.code) == (400, code)
    assert len(str(error)) < 350
    assert "0123" not in str(error)
