"""A real redis-server on a free port of the loopback, to be killed and started again."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

from tests.support.requirements import needs

needs("redis", "redis-server")

import redis  # noqa: E402


class RedisServer:
    """
    A server that keeps nothing on disk: killed, it forgets everything.

    Attributes:
        port: where it listens, also after it was killed and started again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = {"--port": str(self.port), "--bind": "127.0.0.1", "--save": ""}
        options |= {"--dir": str(self._folder), "--enable-debug-command": "yes"}
        command = ["redis-server", *(word for pair in options.items() for word in pair)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        with self.asked() as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.ConnectionError:
                    assert self._process.poll() is None, "redis-server does not start"
                    time.sleep(0.01)

    def asked(self) -> redis.Redis:
        """Return a sync client, for the test's own questions."""
        return redis.Redis(port=self.port, decode_responses=True)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """Have it accept connections and say nothing."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
