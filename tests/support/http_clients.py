"""Two clients of the hostile service: on aiohttp and on httpx, and what each raises of what."""

from __future__ import annotations

from collections.abc import Callable
from json import JSONDecodeError

from ragasync import AttemptTimeout, ResultCountError
from tests.support.fault_schedule import Trouble
from tests.support.hostile_server import HostileService
from tests.support.requirements import needs
from tests.support.services import now

needs("aiohttp", "httpx")

import aiohttp  # noqa: E402
import httpx  # noqa: E402


class Asking:
    """
    An embedding function on aiohttp.

    Attributes:
        refused_at: when it received refusals that say how long to wait, on the clock of the loop.
    """

    def __init__(self) -> None:
        self.refused_at: list[float] = []

    async def one(self, text: str, client: aiohttp.ClientSession) -> int:
        """Have one text embedded."""
        (value,) = await self.many([text], client)
        return value

    async def many(self, texts: list[str], client: aiohttp.ClientSession) -> list[int]:
        """Have a list of texts embedded."""
        asked = {"texts": texts, "sent": now()}
        try:
            async with client.post("/", json=asked) as reply:
                values: list[int] = await reply.json()
                return values
        except aiohttp.ClientResponseError as error:
            if asks_to_wait(error):
                self.refused_at.append(now())
            raise


async def many_on_httpx(texts: list[str], client: httpx.AsyncClient) -> list[int]:
    """Have a list of texts embedded by the other client."""
    reply = await client.post("/", json={"texts": texts, "sent": now()})
    reply.raise_for_status()
    values: list[int] = reply.json()
    return values


def asks_to_wait(error: BaseException) -> bool:
    """Whether an error is a refusal that says how long to wait."""
    return isinstance(error, aiohttp.ClientResponseError) and "Retry-After" in (error.headers or {})


def on_aiohttp(service: HostileService) -> Callable[[], aiohttp.ClientSession]:
    """A function that makes a client of this service without connection limits."""
    return lambda: aiohttp.ClientSession(
        service.url, raise_for_status=True, connector=aiohttp.TCPConnector(limit=0)
    )


def on_httpx(service: HostileService) -> Callable[[], httpx.AsyncClient]:
    """A function that makes a client of this service without connection limits."""
    limits = httpx.Limits(max_connections=None)
    return lambda: httpx.AsyncClient(base_url=service.url, timeout=None, limits=limits)


def status_of(error: BaseException) -> int | None:
    """The HTTP status of an error of either client."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code
    return error.status if isinstance(error, aiohttp.ClientResponseError) else None


AIOHTTP_RAISES: dict[Trouble, type[Exception]] = {
    "reset": aiohttp.ClientConnectionError,
    "cut off": aiohttp.ClientPayloadError,
    "cut json": JSONDecodeError,
    "too few": ValueError,
    "hang": AttemptTimeout,
    "endless": AttemptTimeout,
}

HTTPX_RAISES: dict[Trouble, type[Exception]] = {
    "reset": httpx.TransportError,
    "cut off": httpx.RemoteProtocolError,
    "cut json": JSONDecodeError,
    "too few": ResultCountError,
    "hang": AttemptTimeout,
    "endless": AttemptTimeout,
}
