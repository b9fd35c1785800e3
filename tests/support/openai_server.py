"""A real HTTP server on loopback that embeds as OpenAI's service does, and misbehaves as asked."""

from __future__ import annotations

import asyncio
import base64
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from ragasync import AsyncRetry, BatchResult
from ragasync.documents import OpenAIEmbedder
from tests.support.requirements import needs

needs("aiohttp", "httpx")

from aiohttp import web  # noqa: E402

KEY = "sk-right-0123456789abcdef"

DIMENSION = 4


def vector_of(text: str, dimension: int = DIMENSION) -> list[float]:
    """Return the vector of a text: its length, its first letter and its last, and ones."""
    values = [len(text), ord(text[0]), ord(text[-1])]
    return [float(value) for value in (values + [1] * dimension)[:dimension]]


def tokens_of(text: str) -> int:
    """The number of tokens of a text: four characters per token."""
    return math.ceil(len(text) / 4)


def embedder(server: OpenAIServer, **options: Any) -> OpenAIEmbedder:
    """Return an embedder that asks this server, and soon tries again."""
    settings: dict[str, Any] = {
        "base_url": server.url,
        "api_key": KEY,
        "retry": AsyncRetry(4, 0.01),
    }
    return OpenAIEmbedder("test", **settings | options)


def is_whole(result: BatchResult[Any]) -> bool:
    """Whether every item has its end, and every text that is done its own vector."""
    counts = (result.success_count, result.error_count, result.pending_count)
    own = all(each.value.tolist() == vector_of(each.item) for each in result if each.ok)
    return own and sum(counts) + result.cancelled_count == result.total


@dataclass
class Request:
    """A request as it came, on the loop's clock, and what it was answered."""

    at: float
    body: dict[str, Any]
    headers: Mapping[str, str]
    status: int | None = None

    @property
    def texts(self) -> list[str]:
        """What is to be embedded."""
        texts: list[str] = self.body["input"]
        return texts


@dataclass
class OpenAIServer:
    """
    An embedding service: `POST /v1/embeddings`.

    Attributes:
        latency: seconds that an answer takes.
        rate: requests a second above which it answers 429; None has no limit.
        burst: the number of requests that it allows at the same moment.
        wait: what a 429 asks for, in seconds: Retry-After has them rounded up.
        most_texts: more in a request are answered with 400.
        most_tokens: more in one text are answered with 400.
        headers: further headers of every answer.
        trouble: by number of arrival: a status, "hang", "drop", "cut" (the JSON ends early),
            "html" (no JSON), "fewer" (vectors), "more", "twice" (the same index), "other" (one
            vector of another dimension), "nan" (one that is not finite), "null" (no vector).
        poison: the same, by a text that a request has.
        shuffled: whether vectors come in another order than the texts.
        as_numbers: whether `encoding_format` is ignored.
        accepts_dimensions: whether `dimensions` is used.
        says_usage: whether it says how many tokens there were.
        error: what an answer of trouble says under "error".
        tokens: how many were in the requests that it answered.
        hung_up: set when a client went away from a hanging request.
    """

    latency: float = 0.0
    rate: float | None = None
    burst: float = 1.0
    wait: float = 0.05
    most_texts: int = 2048
    most_tokens: int = 8191
    headers: dict[str, str] = field(default_factory=dict)
    trouble: Mapping[int, int | str] = field(default_factory=dict)
    poison: Mapping[str, int | str] = field(default_factory=dict)
    shuffled: bool = False
    as_numbers: bool = False
    accepts_dimensions: bool = True
    says_usage: bool = True
    error: dict[str, Any] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    tokens: int = 0

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/embeddings", self._embed)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._full_at = 0.0
        self.hung_up = asyncio.Event()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """The address that a client is given."""
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}/v1"

    @property
    def statuses(self) -> Counter[int | None]:
        """How many requests were answered how; None for those without an answer."""
        return Counter(request.status for request in self.requests)

    @property
    def sizes(self) -> list[int]:
        """How many texts each request had."""
        return [len(request.texts) for request in self.requests]

    async def _embed(self, asked: web.Request) -> web.StreamResponse:
        """Answer, or not."""
        request = Request(asyncio.get_running_loop().time(), await asked.json(), asked.headers)
        self.requests.append(request)
        trouble = self._trouble(request)
        try:
            await asyncio.sleep(60 if trouble == "hang" else self.latency)
        except asyncio.CancelledError:
            self.hung_up.set()
            raise
        if trouble == "drop":
            assert asked.transport is not None
            asked.transport.abort()
        answer = self._answer(request, trouble)
        request.status = None if trouble == "drop" else answer.status
        return answer

    def _trouble(self, request: Request) -> int | str | None:
        """The error of a request, if any."""
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return 401
        if len(request.texts) > self.most_texts:
            return 400
        if any(tokens_of(text) > self.most_tokens or not text for text in request.texts):
            return 400
        for text in request.texts:
            if text in self.poison:
                return self.poison[text]
        return self.trouble.get(len(self.requests) - 1) or (
            429 if self._is_too_soon(request.at) else None
        )

    def _is_too_soon(self, at: float) -> bool:
        """Return whether a request comes above the rate; if not, it counts."""
        if self.rate is None:
            return False
        full_at = max(at, self._full_at) + 1 / self.rate
        if full_at - at > self.burst / self.rate + 1e-9:
            return True
        self._full_at = full_at
        return False

    def _answer(self, request: Request, trouble: int | str | None) -> web.Response:
        """Return the answer to a request."""
        if isinstance(trouble, int):
            error = {"message": f"trouble {trouble}", "type": "test", "code": None} | self.error
            headers = dict(self.headers)
            if trouble == 429 and self.wait:
                headers |= {
                    "Retry-After": str(math.ceil(self.wait)),
                    "Retry-After-Ms": f"{1000 * self.wait:g}",
                }
            return web.json_response({"error": error}, status=trouble, headers=headers)
        if trouble == "html":
            return web.Response(text="<html>welcome</html>", content_type="text/html")
        tokens = sum(map(tokens_of, request.texts))
        self.tokens += 0 if trouble in ("cut", "drop") else tokens  # nobody can know of these
        answer = {"object": "list", "data": self._data(request, trouble), "model": "test"}
        if self.says_usage:
            answer["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
        body = json.dumps(answer)
        body = body[: len(body) // 2] if trouble == "cut" else body
        return web.Response(text=body, content_type="application/json", headers=self.headers)

    def _data(self, request: Request, trouble: str | None) -> list[dict[str, Any]]:
        """Return the vectors, with what is wrong about them."""
        dimension = request.body.get("dimensions", DIMENSION)
        dimension = dimension if self.accepts_dimensions else DIMENSION
        vectors: list[Sequence[float | None]] = [vector_of(t, dimension) for t in request.texts]
        match trouble:
            case "fewer":
                vectors.pop()
            case "more":
                vectors.append(vectors[0])
            case "other":
                vectors[-1] = vectors[-1][:-1]
            case "nan":
                vectors[-1] = [*vectors[-1][:-1], math.nan]
            case "null":
                vectors[-1] = [*vectors[-1][:-1], None]
        in_base64 = request.body.get("encoding_format") == "base64" and not self.as_numbers
        data = [
            {
                "object": "embedding",
                "index": 0 if trouble == "twice" else number,
                "embedding": _in_base64(vector) if in_base64 and None not in vector else vector,
            }
            for number, vector in enumerate(vectors)
        ]
        return data[::-1] if self.shuffled else data


def _in_base64(vector: Sequence[float | None]) -> str:
    """Return a vector as the service packs it: little-endian float32."""
    return base64.b64encode(np.array(vector, dtype="<f4").tobytes()).decode()
