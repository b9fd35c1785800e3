"""OpenAIEmbedder over HTTP: bounded replies, base64 or numbers, redirects, headers, addresses."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from ragasync import AsyncRetry, AttemptTimeout, ResultCountError
from ragasync.documents import AsyncDocumentProcessor, Document, OpenAIEmbedder

# Internals: errors of the service that have no public name.
from ragasync.documents.embedders.openai_http import (
    BrokenReply,
    RedirectRefused,
    ServiceRefusal,
    WrongVector,
)
from tests.support.openai_server import KEY, OpenAIServer, embedder, is_whole
from tests.support.raw_server import RawServer, Received, vectors
from tests.support.requirements import needs

needs("httpx")

pytestmark = pytest.mark.real_time

MEGABYTE = 2**20
TEXTS = [f"text number {number}" for number in range(40)]


def asking(server: RawServer, **options: Any) -> OpenAIEmbedder:
    """Return an embedder of this server."""
    settings = {"base_url": server.url, "api_key": KEY, "retry": AsyncRetry(0)}
    return OpenAIEmbedder("test", **settings | options)


# ---- the size of a reply


async def endless() -> AsyncIterator[bytes]:
    """Yield spaces without an end, as a reply that never comes to its point."""
    while True:
        yield b" " * 65_536
        await asyncio.sleep(0)


@cache
def bomb(wrapped: int = 1) -> bytes:
    """Return 300 MB of spaces, gzipped so many times."""
    packer = zlib.compressobj(wbits=31)
    body = b"".join(packer.compress(b" " * MEGABYTE) for _ in range(300)) + packer.flush()
    for _ in range(wrapped - 1):
        body = gzip.compress(body)
    return body


HUGE: dict[str, tuple[Callable[[], bytes], str]] = {
    "gzip": (bomb, "Content-Encoding: gzip"),
    "deflate": (lambda: zlib.compress(b" " * 50 * MEGABYTE), "Content-Encoding: deflate"),
    "twice": (lambda: bomb(2), "Content-Encoding: gzip, gzip"),
    "length": (lambda: b" " * 50 * MEGABYTE, ""),
    "one vector": (lambda: b'{"data": [{"embedding": [' + b"1.5," * 2_000_000 + b"1]}]}", ""),
    "many vectors": (lambda: b'{"data": [' + b'{"embedding": [1.5]},' * 200_000 + b"{}]}", ""),
    "lists": (lambda: b'{"data": [' + b"[]," * 60_000 + b"[]]}", ""),
    "texts": (lambda: b'{"data": [' + b'"",' * 60_000 + b'""]}', ""),
    "depth": (lambda: b"[" * 100_000, ""),
}
"""Bodies, and a header of each."""


async def memory_of(embed: OpenAIEmbedder) -> int:
    """Return the most that a call which must fail holds, with the server, in bytes."""
    tracemalloc.start()
    try:
        with pytest.raises(BrokenReply, match="expected"):
            await embed(["a", "b"])
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", HUGE)
@pytest.mark.parametrize("length", [True, False])
async def test_a_reply_is_read_up_to_what_its_request_can_need(kind: str, length: bool):
    """Before and after decompression, with and without a length; the rest is never read."""
    make, header = HUGE[kind]
    body, headers = make(), (header,) if header else ()

    async with RawServer(
        lambda request: request.send_pieces(body, *headers, length=length)
    ) as server:
        assert await memory_of(asking(server)) < 16 * MEGABYTE


async def test_a_reply_without_an_end_is_read_up_to_what_its_request_can_need():
    """In chunks, of which each may be the last."""
    async with RawServer(lambda request: request.send_chunks(endless())) as server:
        assert await memory_of(asking(server)) < 16 * MEGABYTE


@pytest.mark.parametrize("dimension", [1, 3072, 8192])
@pytest.mark.parametrize("packed", [False, True])
async def test_whatever_a_request_can_need_is_read(dimension: int, packed: bool):
    """Indented numbers with all their digits, and each text repeated and escaped."""
    rows = np.random.default_rng(1).normal(size=(3, dimension)) / 3e5

    def answer(request: Received) -> None:
        texts = request.body["input"]
        data = [
            {"embedding": row.tolist(), "index": i, "text": texts[i]} for i, row in enumerate(rows)
        ]
        body = json.dumps({"data": data}, indent=4).encode()
        if packed:
            request.send(gzip.compress(body), "Content-Encoding: gzip")
        else:
            request.send(body)

    async with RawServer(answer) as server:
        embed = asking(server, max_tokens=None)
        for _ in range(2):  # once the dimension is known, too
            got = await embed(["数据库" * 3000, 'a "quoted" [text] ' * 3000, "c"])
    np.testing.assert_array_equal(got, rows.astype(np.float32))


async def test_a_known_dimension_bounds_later_replies():
    """Vectors of a thousand times the length are no vectors of this embedder."""
    lengths = iter([4, 8000])

    async with RawServer(lambda request: request.send(vectors(request, next(lengths)))) as server:
        embed = asking(server)
        texts = ["a"] * 40
        await embed(texts)
        with pytest.raises(BrokenReply, match="at most"):
            await embed(texts)


async def test_an_error_of_any_length_is_read_in_part():
    """It says its status, and its text is cut."""

    def refuse(request: Received) -> None:
        request.send(bomb(), "Content-Encoding: gzip", status=503)

    async with RawServer(refuse) as server:
        with pytest.raises(ServiceRefusal, match="answered 503") as caught:
            await asking(server)(["a"])
    assert len(str(caught.value)) < 400


async def test_a_reply_that_drips_ends_with_the_timeout():
    """Each byte comes soon enough, the last one never."""

    async def drip() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.01)

    async with RawServer(lambda request: request.send_chunks(drip())) as server:
        with pytest.raises(AttemptTimeout, match=r"longer than 0\.2 s"):
            await asking(server, timeout=0.2)(["a"])


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (("Content-Encoding: br",), b"x"),
        (("Content-Encoding: gzip",), b"no gzip at all"),
        (("Content-Encoding: gzip",), gzip.compress(b"{}" * 999, mtime=0)[:-30]),
        ((), b"\xff\xfe{"),
        ((), b'{"data": ' + b"9" * 5000 + b"}"),
    ],
)
async def test_a_reply_that_cannot_be_read_is_broken(headers: tuple[str, ...], body: bytes):
    """An unknown encoding, a damaged or truncated one, no JSON."""
    async with RawServer(lambda request: request.send(body, *headers)) as server:
        with pytest.raises(BrokenReply, match="expected"):
            await asking(server)(["a"])


async def test_odd_headers_change_no_limit():
    """A limit that is no number, endless or negative says nothing."""
    odd = ("x-ratelimit-limit-requests", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens")
    values = ("nan", "-1", "1e999", "9" * 5000, "", "ten")

    def answer(request: Received) -> None:
        value = values[len(server.received) - 1]
        request.send(vectors(request), *(f"{name}: {value}" for name in odd))

    async with RawServer(answer) as server:
        embed = asking(server)
        rates = [limiter.rate for limiter in embed.limiters]
        for _ in values:
            await embed(["a"])
        assert [limiter.rate for limiter in embed.limiters] == rates
        assert [limiter.paused_for for limiter in embed.limiters] == [0.0, 0.0]


@pytest.mark.parametrize(
    "data",
    [
        [{"index": 0}, {"index": 0}],
        [{"index": -1}, {"index": 0}],
        [{"index": 1}, {"index": 2}],
        [{"index": False}, {"index": True}],
        [{"index": "0"}, {"index": "1"}],
        [{"index": 0.0}, {"index": 1.0}],
        [{}, {"index": 1}],
    ],
)
async def test_every_text_has_an_index_of_its_own(data: list[dict[str, Any]]):
    """Two of one text, one of none, or what is no number: nobody knows whose vectors these are."""
    body = json.dumps({"data": [{"embedding": [1.0]} | each for each in data]})
    async with RawServer(lambda request: request.send(body)) as server:
        with pytest.raises(ResultCountError, match="each of 2 texts"):
            await asking(server)(["a", "b"])


@pytest.mark.parametrize("data", [["a", "b"], [None, None], [1, 2], [[1.0], [2.0]]])
async def test_entries_that_are_no_embeddings_are_no_vectors(data: list[Any]):
    """Whatever methods Python has for such values."""
    async with RawServer(lambda request: request.send(json.dumps({"data": data}))) as server:
        with pytest.raises(WrongVector, match="none that can be read"):
            await asking(server)(["a", "b"])


@pytest.mark.parametrize(("code", "calls"), [(404, 1), (429, 2)])
async def test_an_error_in_a_reply_of_status_200_has_the_status_that_it_names(
    code: int, calls: int
):
    """Some gateways answer so; a wrong model is not asked for again."""
    body = json.dumps({"error": {"message": "no such model", "code": code}})
    async with RawServer(lambda request: request.send(body)) as server:
        embed = asking(server, retry=AsyncRetry(1, 0.0))
        result = await embed.as_processor().process(["a"])
        assert f"answered {code}" in str(result.errors[0])
        assert len(server.received) == calls


# ---- what a vector is


@pytest.mark.parametrize(
    "wrong",
    [
        [True, 1.0, 0.5, 1.0],
        ["1.0", "2", "3", "4"],
        [1.0, "2", 3.0, 4.0],
        [[1.0, 2.0, 3.0, 4.0]],
        {"0": 1.0},
        [False] * 4,
        [1.0, 2.0, {}, 4.0],
        base64.b64encode(b"123").decode(),
        "AAAA====",
        [],
        "",
        7.0,
        None,
    ],
)
async def test_only_numbers_are_a_vector(wrong: Any):
    """True is no number, nor is a text that reads like one; the others are named as right."""

    def answer(request: Received) -> None:
        request.send(json.dumps({"data": [{"embedding": [1.0] * 4}, {"embedding": wrong}]}))

    async with RawServer(answer) as server:
        with pytest.raises(WrongVector, match=r"text 1 is not a list of numbers$"):
            await asking(server)(["a", "b"])


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e39", "-1e308"])
async def test_a_number_beyond_float32_is_not_finite(number: str):
    """It would spoil every distance."""
    body = f'{{"data": [{{"embedding": [1.0, {number}]}}]}}'
    async with RawServer(lambda request: request.send(body)) as server:
        with pytest.raises(WrongVector, match="not finite"):
            await asking(server)(["a"])


async def test_whole_numbers_are_numbers():
    """JSON writes 1.0 as 1 in many languages."""
    body = '{"data": [{"embedding": [1, 0, -2.5, 3]}]}'
    async with RawServer(lambda request: request.send(body)) as server:
        assert (await asking(server)(["a"])).tolist() == [[1, 0, -2.5, 3]]


@pytest.mark.parametrize("made", [["1.0", "2.0"], [True, False], [b"1", b"2"]])
async def test_texts_and_truths_of_an_embed_function_are_no_vectors(made: list[Any]):
    """What a function of the user's gives is held to the same."""
    embed = AsyncDocumentProcessor(embed=lambda texts: [made for _ in texts], retry_count=0)
    result = await embed.process([Document("a", "a text")])
    assert "must return real numbers" in str(result.errors[0])


# ---- base64


def refuses_base64(status: int, says: str) -> Callable[[Received], None]:
    """Return a handler that refuses base64 in these words, and is fine with numbers."""

    def answer(request: Received) -> None:
        if request.body.get("encoding_format") == "base64":
            request.send(json.dumps({"error": {"message": says}}), status=status)
        else:
            request.send(vectors(request))

    return answer


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("says", ["base64 is not supported", "bad request", ""])
async def test_one_refusal_of_base64_is_remembered(status: int, says: str):
    """The same call gets numbers, and no later one asks for base64."""
    async with RawServer(refuses_base64(status, says)) as server:
        embed = asking(server)
        for _ in range(3):
            assert (await embed(TEXTS)).shape == (40, 4)
        formats = [request.body.get("encoding_format") for request in server.received]
        assert formats == ["base64", None, None, None]
        assert embed.calls == 4


@pytest.mark.parametrize("at_once", [1, 8])
@pytest.mark.parametrize("batch", [1, 10])
@pytest.mark.parametrize("says", ["unknown field encoding_format", "bad request"])
async def test_a_run_gets_numbers_where_base64_is_refused(says: str, at_once: int, batch: int):
    """No text fails, however many calls were refused before it was known."""
    async with RawServer(refuses_base64(400, says)) as server:
        embed = asking(server, max_batch=batch, max_concurrency=at_once)
        result = await embed.as_processor().process(TEXTS)
        assert result.all_succeeded
        refused = sum("encoding_format" in request.body for request in server.received)
        assert refused <= at_once + 1
        server.received.clear()
        assert (await embed.as_processor().process(TEXTS)).all_succeeded
        assert len(server.received) == len(TEXTS) / batch


async def test_a_bad_text_in_the_first_batch_does_not_hide_a_refusal_of_base64():
    """All others succeed, though the service says the same of both."""

    def answer(request: Received) -> None:
        if "encoding_format" in request.body or TEXTS[3] in request.body["input"]:
            request.send('{"error": "bad request"}', status=400)
        else:
            request.send(vectors(request))

    async with RawServer(answer) as server:
        embed = asking(server, max_batch=10, max_concurrency=2)
        result = await embed.as_processor().process(TEXTS)
    assert [outcome.index for outcome in result.get_failed()] == [3]


async def test_once_base64_has_succeeded_a_refusal_is_about_the_texts():
    """A text at fault costs no further request."""
    async with OpenAIServer(poison={"bad": 400}) as server:
        embed = embedder(server)
        await embed(["a"])
        with pytest.raises(ServiceRefusal):
            await embed(["bad"])
        assert [request.body["encoding_format"] for request in server.requests] == ["base64"] * 2


@pytest.mark.parametrize("wanted", ["float", "base64"])
async def test_an_encoding_that_was_asked_for_is_kept(wanted: str):
    """`extra_body` decides; nothing else is tried."""
    async with RawServer(refuses_base64(400, "no base64")) as server:
        embed = asking(server, extra_body={"encoding_format": wanted})
        if wanted == "float":
            assert (await embed(["a"])).shape == (1, 4)
        else:
            with pytest.raises(ServiceRefusal, match="no base64"):
                await embed(["a"])
        assert [each.body["encoding_format"] for each in server.received] == [wanted]


async def test_the_sdk_of_openai_is_asked_for_numbers_too():
    """It asks for base64 by itself."""
    needs("openai")
    from openai import AsyncOpenAI

    async with (
        RawServer(refuses_base64(422, "encoding_format: base64")) as server,
        AsyncOpenAI(base_url=server.url, api_key=KEY) as client,
    ):
        embed = OpenAIEmbedder("m", client=client, extra_body={"task": "query"})
        for _ in range(2):
            assert (await embed(["a", "b"])).shape == (2, 4)
        formats = [request.body["encoding_format"] for request in server.received]
        assert formats == ["base64", "float", "float"]
        assert server.received[-1].body["task"] == "query"


# ---- a wrong model


@pytest.mark.parametrize("status", [400, 404, 405])
@pytest.mark.parametrize("at_once", [1, 8])
@pytest.mark.parametrize("batch", [1, 10])
async def test_a_wrong_model_stops_a_run_within_twenty_calls(status: int, at_once: int, batch: int):
    """And those in flight; hundreds of documents are left for the right model."""
    error = {"message": "The model `test` does not exist", "code": "model_not_found"}

    def refuse(request: Received) -> None:
        body = json.dumps({"error": error, "request_id": f"req_{len(server.received):08}"})
        request.send(body, status=status)

    documents = [Document(str(n), "\n".join(f"{n} {m}" for m in range(5))) for n in range(400)]
    async with RawServer(refuse) as server:
        embed = asking(server, max_batch=batch, max_concurrency=at_once, retry=None)
        processor = AsyncDocumentProcessor(None, str.splitlines, embed)
        result = await processor.process(documents)
        assert len(server.received) <= 20 + at_once
    assert "max_initial_failures=20" in str(result.stopped_because)
    assert "does not exist" in str(result.stopped_because)
    assert result.success_count == 0
    assert result.pending_count > 300


# ---- addresses, headers, body


@pytest.mark.parametrize(
    ("base", "path"),
    [
        ("/v1", "/v1/embeddings"),
        ("/v1/", "/v1/embeddings"),
        ("", "/embeddings"),
        ("/v1/embeddings", "/v1/embeddings"),
        ("/v1/embeddings/", "/v1/embeddings"),
        ("/v1?api-version=2024-10-21", "/v1/embeddings?api-version=2024-10-21"),
        ("/v1/embeddings?a=1&b=%20x", "/v1/embeddings?a=1&b=%20x"),
        ("/v1/?a=1#part", "/v1/embeddings?a=1"),
        ("/my-embeddings", "/my-embeddings/embeddings"),
        (" /v1\n".strip(), "/v1/embeddings"),
    ],
)
async def test_an_address_ends_in_embeddings_once_and_keeps_its_query(base: str, path: str):
    """However it was copied."""
    async with RawServer(lambda request: request.send(vectors(request))) as server:
        await asking(server, base_url=f" {server.origin}{base}\n")(["a"])
        assert server.received[0].path == path


async def test_headers_and_extra_fields_are_sent_with_each_request():
    """Headers replace ours, whatever their case; the key of another scheme is the only one."""
    headers = {"Authorization": "Token abc12345", "X-Tenant": "sofia"}
    extra = {"input_type": "passage", "options": {"truncate": True}}
    async with RawServer(lambda request: request.send(vectors(request))) as server:
        embed = asking(server, api_key=None, headers=headers, extra_body=extra)
        extra["input_type"] = "changed"
        await embed(["a"])
        request = server.received[0]
    assert (request.headers["authorization"], request.headers["x-tenant"]) == (
        "Token abc12345",
        "sofia",
    )
    assert request.body["input_type"] == "passage"
    assert request.body["options"] == {"truncate": True}
    assert request.body["model"] == "test"


def test_what_else_is_asked_for_is_in_the_name():
    """A task may change the vectors, a user's id or the encoding does not."""
    options = {"base_url": "http://box", "api_key": KEY}
    names = {
        OpenAIEmbedder("m", **options, extra_body=extra).name
        for extra in ({"task": "query"}, {"task": "passage"}, {"task": "query", "n": 1})
    }
    assert len(names) == 3
    assert all(name.startswith("openai:m@box#") for name in names)
    same = OpenAIEmbedder("m", **options, extra_body={"user": "ann", "encoding_format": "float"})
    assert same.name == OpenAIEmbedder("m", **options).name == "openai:m@box"


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"headers": {"X-A": "a\nb"}}, ValueError, "'X-A' has characters"),
        ({"headers": {"X A": "a"}}, ValueError, "'X A'"),
        ({"headers": {"Content-Length": "1"}}, ValueError, "leave 'Content-Length' to"),
        ({"headers": {"X-A": 1}}, TypeError, "got a int for 'X-A'"),
        ({"headers": ["X-A"]}, TypeError, "dict of texts, got a list"),
        ({"headers": {"X-A": "a"}, "client": object()}, ValueError, "on the client itself"),
        ({"extra_body": {"input": []}}, ValueError, "the texts are its items"),
        ({"extra_body": {"model": "b"}}, ValueError, "pass model="),
        ({"extra_body": {"dimensions": 1}}, ValueError, "pass dimensions="),
        ({"extra_body": {"a": {1, 2}}}, TypeError, "plain JSON data"),
        ({"extra_body": {"a": float("nan")}}, ValueError, "plain JSON data"),
        ({"extra_body": [1]}, TypeError, r"got \[1\]"),
        ({"base_url": None}, TypeError, "got None"),
        ({"base_url": "http://box:port/v1"}, ValueError, "host or port"),
        ({"base_url": "http://[box/v1"}, ValueError, "host or port"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_sent(options: Any, kind: type, says: str):
    """And no value of a header is quoted."""
    with pytest.raises(kind, match=says):
        OpenAIEmbedder("m", **{"api_key": KEY} | options)


# ---- redirects


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_within_the_host_is_followed_with_the_texts_and_the_key(status: int):
    """A permanent one once; the query of the new address counts."""

    def answer(request: Received) -> None:
        if request.path == "/v1/embeddings":
            request.send(b"moved", "Location: /v2/embeddings/?a=1", status=status)
        else:
            request.send(vectors(request))

    async with RawServer(answer) as server:
        embed = asking(server)
        for _ in range(2):
            assert (await embed(["a", "b"])).shape == (2, 4)
        paths = [request.path for request in server.received]
        there = "/v2/embeddings/?a=1"
        once = ["/v1/embeddings", there]
        assert paths == (([*once, there]) if status in (301, 308) else once * 2)
        assert embed.calls == len(paths)
        last = server.received[-1]
        assert (last.line[:4], last.body["input"]) == ("POST", ["a", "b"])
        assert last.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("where", ["http://127.0.0.1:{port}/v1", "//localhost:{port}/x", "https:/"])
async def test_nothing_is_sent_to_another_host(status: int, where: str):
    """The run stops, and its reason names the other address, but no key."""
    async with RawServer(lambda request: request.send(vectors(request))) as other:
        target = where.format(port=other.port)
        if target == "https:/":
            target = "https://127.0.0.1/v1"

        def answer(request: Received) -> None:
            request.send(b"", f"Location: {target}?key={KEY}", status=status)

        async with RawServer(answer) as server:
            embed = asking(server, max_concurrency=1, max_batch=10, retry=None)
            with pytest.raises(RedirectRefused, match="which would get the key") as caught:
                await embed(["a"])
            assert KEY not in str(caught.value)
            result = await embed.as_processor().process(TEXTS)
            assert "pass it as base_url=" in str(result.stopped_because)
            assert len(server.received) == 2
        assert other.received == []


@pytest.mark.parametrize("target", ["/v1/embeddings", "", "http://[", "?" + "a" * 3000])
async def test_a_redirect_in_a_circle_or_to_nowhere_ends(target: str):
    """After a few requests."""
    async with RawServer(
        lambda request: request.send(b"", f"Location: {target}", status=307)
    ) as server:
        with pytest.raises(RedirectRefused, match="base_url"):
            await asking(server)(["a"])
        assert len(server.received) <= 6


@pytest.mark.parametrize("status", [300, 303, 304])
async def test_a_status_that_does_not_repeat_the_post_is_an_error(status: int):
    """A GET would embed nothing."""
    async with RawServer(
        lambda request: request.send(b"", "Location: /v2", status=status)
    ) as server:
        with pytest.raises(ServiceRefusal, match=str(status)):
            await asking(server)(["a"])
        assert len(server.received) == 1


# ---- secrets


SECRET = "0123-plain-words-as-a-key"


@pytest.mark.parametrize("status", [200, 400, 401, 500])
@pytest.mark.parametrize("option", ["api_key", "headers", "password"])
async def test_a_key_that_a_service_quotes_is_in_no_error(option: str, status: int):
    """Whatever it looks like, and wherever in the reply it stands."""

    def quote(request: Received) -> None:
        said = {"message": f"no access with {SECRET}", "code": SECRET, "type": f"<{SECRET}>"}
        request.send(json.dumps({"error": said}), f"X-Request-Id: {SECRET}", status=status)

    async with RawServer(quote) as server:
        secret: dict[str, Any] = {"api_key": {"api_key": SECRET}}.get(option, {"api_key": None})
        if option == "headers":
            secret["headers"] = {"api-key": SECRET}
        if option == "password":
            secret["base_url"] = server.url.replace("//", f"//ann:{SECRET}@")
        embed = asking(server, **secret)
        with pytest.raises((ServiceRefusal, BrokenReply)) as caught:
            await embed(["a"])
        result = await embed.as_processor().process(["a"])
    told = f"{caught.value!r} {vars(caught.value)} {embed!r} {result[0].traceback} {result!r}"
    assert SECRET not in told + result.errors_dataframe().to_string()


async def test_every_text_has_its_vector_after_redirect_refusal_and_bad_replies():
    """One after the other, in one run."""

    def answer(request: Received) -> None:
        number = len(server.received)
        if not request.path.startswith("/v2"):
            request.send(b"", "Location: /v2/embeddings", status=308)
        elif "encoding_format" in request.body:
            request.send('{"detail": "encoding_format"}', status=422)
        elif number % 3 == 0:
            request.send(bomb(), "Content-Encoding: gzip")
        else:
            data = [
                {"embedding": [len(t), ord(t[0]), ord(t[-1]), 1]} for t in request.body["input"]
            ]
            request.send(json.dumps({"data": data}))

    async with RawServer(answer) as server:
        embed = asking(server, max_batch=5, retry=AsyncRetry(8, 0.0))
        result = await embed.as_processor().process(TEXTS)
    assert is_whole(result)
    assert result.all_succeeded
