"""
The HTTP service of `flaky.py`, in a process of its own: it is slow, fails, and refuses with 429.

    python benchmarks/flaky_service.py      # prints its port

`POST /` with a text gives the number that `value_of` has for it. What a text meets depends on the
text alone, and the service closes after every `CLOSES_AFTER` requests that it has accepted, so each
client has the same troubles, however it behaves. `GET /counts` gives what has been asked so far.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
import zlib
from asyncio import StreamReader, StreamWriter
from collections import Counter

LATENCY, SLOW = 0.02, 1.0
"""Seconds that a reply takes, and that a slow one takes."""

CLOSES_AFTER, CLOSED_FOR = 1000, 1
"""Accepted requests between two closings, and the seconds of Retry-After; 500 before the first."""


def value_of(text: str) -> int:
    """Return the value of a text, different from those of its neighbours."""
    return zlib.crc32(text.encode())


def failures_of(text: str) -> int:
    """Return how often a text gets status 500 first: once for 4% of them, twice for 1%."""
    return {0: 2, 1: 1, 2: 1, 3: 1, 4: 1}.get(value_of(text) % 100, 0)


def is_slow(text: str) -> bool:
    """Return whether each reply to a text is slow, which holds for 2% of them."""
    return value_of(text) % 100 in (5, 6)


class Service:
    """Answer texts, and count what was asked."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter(accepted=0, refused=0, failed=0)
        self._failed: Counter[str] = Counter()
        self._closes_at = CLOSES_AFTER // 2
        self._open_from = 0.0

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Answer the requests of a connection until its client hangs up."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = re.search(rb"content-length: (\d+)", head.lower())
                body = await reader.readexactly(int(length[1]) if length else 0)
                writer.write(await self._reply(head, body.decode()))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has hung up
        finally:
            writer.close()

    async def _reply(self, head: bytes, text: str) -> bytes:
        """Return the reply to a request, after the time that it takes."""
        if head.startswith(b"GET"):
            return _response(200, self.counts)
        if self._is_closed():
            self.counts["refused"] += 1
            return _response(429, None, f"Retry-After: {CLOSED_FOR}\r\n")
        self.counts["accepted"] += 1
        await asyncio.sleep(SLOW if is_slow(text) else LATENCY)
        if self._failed[text] < failures_of(text):
            self._failed[text] += 1
            self.counts["failed"] += 1
            return _response(500, None)
        return _response(200, value_of(text))

    def _is_closed(self) -> bool:
        """Return whether a request now is refused; the one that is due closes the service."""
        now = time.monotonic()
        if now >= self._open_from and self.counts["accepted"] >= self._closes_at:
            self._closes_at += CLOSES_AFTER
            self._open_from = now + CLOSED_FOR
        return now < self._open_from


def _response(status: int, content: object, headers: str = "") -> bytes:
    """Return a whole HTTP response."""
    body = json.dumps(content)
    return (
        f"HTTP/1.1 {status} x\r\nContent-Type: application/json\r\n{headers}"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


async def main() -> None:
    """Serve until the process is ended."""
    server = await asyncio.start_server(Service().serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
