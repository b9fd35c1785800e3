"""A real HTTP server on loopback that gives the length of each text, and trouble where asked."""

from __future__ import annotations

import asyncio
import email.utils
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from tests.support.requirements import needs

needs("aiohttp")

import aiohttp  # noqa: E402
from aiohttp import web  # noqa: E402


@dataclass
class Arrival:
    """A request as the server saw it, on the loop's clock; `sent` is what the client says."""

    at: float
    sent: float
    texts: list[str]
    status: int | None = None


@dataclass
class Server:
    """
    An embedding service of one route, `POST /embed` with {"texts": [...], "sent": seconds}.

    Attributes:
        latency: seconds that an answer takes.
        rate: requests a second above which it answers 429; None has no limit.
        burst: the number of requests that it allows at the same moment.
        wait: what a 429 asks for: its headers are `wording` of it.
        wording: "seconds", "date" or "ms".
        largest: more texts than this in a request are answered with 413.
        poison: a request with this text gets a value too few.
        key: what the client must show.
        trouble: by number of arrival: a status, "hang" or "drop".
    """

    latency: float = 0.005
    rate: float | None = None
    burst: float = 1.0
    wait: float = 1.0
    wording: str = "seconds"
    largest: int = 1000
    poison: str | None = None
    key: str = "right"
    trouble: Mapping[int, int | str] = field(default_factory=dict)
    arrivals: list[Arrival] = field(default_factory=list)
    closed_until: list[float] = field(default_factory=list)
    hung_up: int = 0

    async def __aenter__(self) -> Self:
        self._changed = asyncio.Event()
        app = web.Application()
        app.router.add_post("/embed", self._embed)
        # A client that goes away cancels its handler: that is how a hang ends.
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._full_at = 0.0
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def client(self, key: str = "right") -> aiohttp.ClientSession:
        """Make a client; it raises for every status that is no success."""
        host, port = self._runner.addresses[0][:2]
        return aiohttp.ClientSession(
            f"http://{host}:{port}", headers={"Authorization": key}, raise_for_status=True
        )

    @property
    def statuses(self) -> Counter[int | None]:
        """How many requests were answered how; None for those without an answer."""
        return Counter(arrival.status for arrival in self.arrivals)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something has happened that the server notes."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def _embed(self, request: web.Request) -> web.Response:
        """Answer, or not, and note when the request came and what became of it."""
        asked = await request.json()
        arrival = Arrival(asyncio.get_running_loop().time(), asked["sent"], asked["texts"])
        self.arrivals.append(arrival)
        self._changed.set()
        trouble = self.trouble.get(len(self.arrivals) - 1) or self._refusal(request, arrival)
        try:
            await asyncio.sleep(60 if trouble == "hang" else self.latency)
        except asyncio.CancelledError:
            self.hung_up += 1
            self._changed.set()
            raise
        if trouble == "drop":
            assert request.transport is not None
            request.transport.abort()
        if isinstance(trouble, int):
            arrival.status = trouble
            headers = self._retry_after() if trouble == 429 else {}
            return web.json_response({}, status=trouble, headers=headers)
        values = [len(text) for text in arrival.texts]
        arrival.status = None if trouble else 200
        return web.json_response(values[1:] if self.poison in arrival.texts else values)

    def _refusal(self, request: web.Request, arrival: Arrival) -> int | None:
        """Return the status of a request that asks wrongly, too much or too soon."""
        if request.headers["Authorization"] != self.key:
            return 401
        if len(arrival.texts) > self.largest:
            return 413
        if self.rate is not None:
            full_at = max(arrival.at, self._full_at) + 1 / self.rate
            if full_at - arrival.at > self.burst / self.rate + 1e-9:
                return 429
            self._full_at = full_at
        return None

    def _retry_after(self) -> dict[str, str]:
        """Word the time to wait, and note until when that is."""
        wait, now = self.wait, asyncio.get_running_loop().time()
        if self.wording == "ms":
            headers = {"Retry-After": "60", "Retry-After-Ms": f"{1000 * wait:g}"}
        elif self.wording == "date":
            then = math.ceil(time.time() + wait)  # a date has whole seconds
            wait = then - time.time()
            headers = {"Retry-After": email.utils.formatdate(then, usegmt=True)}
        else:
            headers = {"Retry-After": f"{wait:g}"}
        self.closed_until.append(now + wait)
        return headers


async def embed_one(text: str, client: aiohttp.ClientSession) -> int:
    """Have one text embedded."""
    values = await embed_many([text], client)
    assert len(values) == 1
    return values[0]


async def embed_many(texts: list[str], client: aiohttp.ClientSession) -> list[int]:
    """Have a list of texts embedded."""
    asked: dict[str, Any] = {"texts": texts, "sent": asyncio.get_running_loop().time()}
    async with client.post("/embed", json=asked) as reply:
        values: list[int] = await reply.json()
        return values
