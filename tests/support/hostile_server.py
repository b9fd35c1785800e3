"""A real HTTP service on loopback that misbehaves by a script, and keeps account of it."""

from __future__ import annotations

import asyncio
import email.utils
import json
import math
import re
import socket
import struct
import time
from asyncio import StreamReader, StreamWriter
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from tests.support.fault_schedule import Fate, Trouble, embedding_of

RST_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER for no time: what closes the connection is a reset."""


@dataclass
class Arrival:
    """A request as it came, on the clock of the loop; `sent` is what the client says of it."""

    at: float
    sent: float
    texts: list[str]


@dataclass
class Closing:
    """A time in which the service refuses everything with 429 and Retry-After."""

    start: float
    end: float
    refused: int = 0


@dataclass
class HostileService:
    """
    An embedding service that answers `POST /` with {"texts": [...], "sent": seconds}.

    A request with several texts gets the passing errors of each, one after the other, and only
    then the permanent error of one of them. A closed service refuses every request.

    Attributes:
        fates: the errors that the requests with a text get; none for a text that is not in it.
        limit: the requests allowed in any window, refused ones included, and its seconds.
        closes_at: numbers of arrivals with which the service closes anyway, as when others than
            this client have used up the limit. It closes also when its limit is exceeded.
        closed_for: seconds that it stays closed.
        wording: how Retry-After says it.
        arrivals: all requests, the refused ones too.
        asked: how many requests each text was in.
        hung_up: how many requests the client gave up.
    """

    fates: Mapping[str, Fate] = field(default_factory=dict)
    limit: tuple[int, float] = (1_000_000, 1.0)
    closes_at: Container[int] = ()
    closed_for: float = 0.3
    wording: Literal["seconds", "date"] = "seconds"
    arrivals: list[Arrival] = field(default_factory=list)
    closings: list[Closing] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    hung_up: int = 0

    async def __aenter__(self) -> Self:
        self.left = {text: list(fate.first) for text, fate in self.fates.items()}
        self._connections: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    @property
    def url(self) -> str:
        """Where it is."""
        host, port = self._server.sockets[0].getsockname()
        return f"http://{host}:{port}"

    async def until_all_hung_up(self) -> None:
        """Wait until no connection is left."""
        while self._connections:
            await asyncio.wait(self._connections)

    def sent_while_closed(self, refusals: Sequence[float]) -> list[float]:
        """
        When requests were sent that the client knew would be refused.

        They were sent after the client had received the first refusal of a closing, and arrived
        before its end; requests already in flight do not count.

        Args:
            refusals: when the client received each refusal that said how long to wait.
        """
        begun = []
        for closing in self.closings:
            known = min(at for at in refusals if at >= closing.start)
            end = closing.end - 0.001  # what the clock of dates and the monotonic one may differ by
            begun += [each.sent for each in self.arrivals if each.sent > known and each.at < end]
        return begun

    def _connected(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Serve a new connection in a task that has an owner."""
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Answer request after request until one side hangs up."""
        try:
            while not writer.is_closing():
                await self._answer(await _body_of_next(reader), reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has hung up
        finally:
            writer.close()

    async def _answer(self, asked: Any, reader: StreamReader, writer: StreamWriter) -> None:
        """Note a request, and do to it what is due."""
        texts = asked["texts"]
        closing = self._closing()
        self.arrivals.append(Arrival(asyncio.get_running_loop().time(), asked["sent"], texts))
        self.asked.update(texts)
        if closing is not None:
            closing.refused += 1
            writer.write(_reply(429, [], self._retry_after(closing)))
        elif (trouble := self._next_trouble(texts)) in ("hang", "endless"):
            await self._never_answer(trouble, reader, writer)
        else:
            await _misbehave(trouble, [embedding_of(text) for text in texts], writer)

    def _closing(self) -> Closing | None:
        """Return why this request is refused, if it is."""
        now = asyncio.get_running_loop().time()
        if self.closings and now < self.closings[-1].end:
            return self.closings[-1]
        if not (len(self.arrivals) in self.closes_at or self._is_over(now)):
            return None
        end = now + self.closed_for
        if self.wording == "date":  # which has whole seconds
            end = now + math.ceil(time.time() + self.closed_for) - time.time()
        self.closings.append(Closing(now, end))
        return self.closings[-1]

    def _is_over(self, now: float) -> bool:
        """Say whether a request now is one too many."""
        limit, per = self.limit
        return len(self.arrivals) >= limit and now - self.arrivals[-limit].at < per

    def _retry_after(self, closing: Closing) -> str:
        """Word the time until the service opens, never too short."""
        left = closing.end - asyncio.get_running_loop().time()
        if self.wording == "date":
            return email.utils.formatdate(round(time.time() + left), usegmt=True)
        return f"{math.ceil(1000 * max(left, 0)) / 1000:.3f}"

    def _next_trouble(self, texts: list[str]) -> Trouble | None:
        """The error that a request with these texts gets, if any."""
        for text in texts:
            if self.left.get(text):
                return self.left[text].pop(0)
        fates = [self.fates.get(text, Fate()) for text in texts]
        fates.sort(key=lambda fate: fate.is_good)
        return next((fate.then for fate in fates if fate.then is not None), None)

    async def _never_answer(
        self, trouble: Trouble, reader: StreamReader, writer: StreamWriter
    ) -> None:
        """Say nothing, or nothing that ends, until the client goes away."""
        try:
            if trouble == "endless":
                writer.write(_head(200, 1_000_000))
                while not (reader.at_eof() or writer.is_closing()):
                    writer.write(b" ")
                    await asyncio.sleep(0.02)
            await reader.read()
        finally:
            self.hung_up += 1
            writer.close()


async def _body_of_next(reader: StreamReader) -> Any:
    """Read a request, and return what its body says."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    assert length is not None
    return json.loads(await reader.readexactly(int(length[1])))


async def _misbehave(trouble: Trouble | None, values: list[int], writer: StreamWriter) -> None:
    """Answer with the values, or with what goes wrong instead."""
    match trouble:
        case int():
            writer.write(_reply(trouble, []))
        case "reset":
            writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE
            )
            writer.transport.abort()
        case "cut off":
            writer.write(_reply(200, values)[:-3])
            writer.close()
        case "cut json":
            half = json.dumps(values).encode()[:-3]
            writer.write(_head(200, len(half)) + half)
        case "drip":
            reply = _reply(200, values)
            for start in range(0, len(reply), 1 + len(reply) // 5):
                writer.write(reply[start : start + 1 + len(reply) // 5])
                await asyncio.sleep(0.01)
        case "too few":
            writer.write(_reply(200, values[1:]))
        case "too many":
            writer.write(_reply(200, [*values, 0]))
        case _:
            writer.write(_reply(200, values))


def _reply(status: int, content: object, retry_after: str | None = None) -> bytes:
    """Return a whole reply."""
    body = json.dumps(content).encode()
    return _head(status, len(body), retry_after) + body


def _head(status: int, length: int, retry_after: str | None = None) -> bytes:
    """The head of an HTTP response whose body has this length."""
    lines = [f"HTTP/1.1 {status} x", "Content-Type: application/json", f"Content-Length: {length}"]
    if retry_after is not None:
        lines.append(f"Retry-After: {retry_after}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
