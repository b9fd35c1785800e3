"""A server on loopback that sends whatever bytes a test makes of a request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterable, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self

Handler = Callable[["Received"], "Awaitable[None] | None"]


@dataclass
class Received:
    """A request, and the stream on which to answer it."""

    line: str
    headers: dict[str, str]
    body: Any
    stream: asyncio.StreamWriter

    @property
    def path(self) -> str:
        """The path and the query."""
        return self.line.split()[1]

    def send(self, body: bytes | str, *headers: str, status: int = 200) -> None:
        """Answer with a body, whole."""
        body = body.encode() if isinstance(body, str) else body
        size = f"Content-Length: {len(body)}"
        head = "\r\n".join((f"HTTP/1.1 {status} X", *headers, size, "", ""))
        self.stream.write(head.encode() + body)

    async def send_pieces(self, body: bytes, *headers: str, length: bool = True) -> None:
        """Answer with a body as fast as it is read; without a length, its end closes the stream."""
        size = f"Content-Length: {len(body)}" if length else "Connection: close"
        self.stream.write("\r\n".join(("HTTP/1.1 200 X", *headers, size, "", "")).encode())
        for start in range(0, len(body), 65_536):
            self.stream.write(body[start : start + 65_536])
            await self.stream.drain()
        if not length:
            self.stream.close()

    async def send_chunks(self, pieces: AsyncIterable[bytes], *headers: str) -> None:
        """Answer in chunks, without a length, until the client hangs up."""
        head = "\r\n".join(("HTTP/1.1 200 X", *headers, "Transfer-Encoding: chunked", "", ""))
        self.stream.write(head.encode())
        async for piece in pieces:
            self.stream.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await self.stream.drain()
        self.stream.write(b"0\r\n\r\n")


class RawServer:
    """
    Give each request to a handler.

    Attributes:
        received: the requests, in order.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.received: list[Received] = []
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving)

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The base URL that an embedder is given."""
        return f"{self.origin}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            while (head := await reader.readuntil(b"\r\n\r\n")) != b"":
                line, *rest = head.decode().split("\r\n")
                pairs = (each.partition(": ") for each in rest if each)
                headers = {name.lower(): value for name, _, value in pairs}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                request = Received(line, headers, json.loads(body or b"null"), writer)
                self.received.append(request)
                waiting = self._handler(request)
                if waiting is not None:
                    await waiting
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client has gone, or the test is over
        finally:
            writer.close()


def vectors(request: Received, dimension: int = 4) -> str:
    """Return the reply of a service that behaves: a vector of ones for each text."""
    data = [{"index": i, "embedding": [1.0] * dimension} for i in range(len(request.body["input"]))]
    return json.dumps({"data": data})
