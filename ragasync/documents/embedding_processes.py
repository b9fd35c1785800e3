"""EmbeddingProcesses: worker processes in which a large run embeds with the HashingEmbedder."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.embedders import HashingEmbedder

START_CHARS = (1_000_000, 5_000_000)
"""
Characters that a run has embedded when it starts its first and its second worker process.

To start one takes as long as embedding a million characters, so a run that ends right after that
has lost little. With two cores, the first has the core that this process leaves free, and the
second only helps to fill both.
"""

PIPE_BYTES = 1 << 18
"""The size of a pipe, where it can be set: a reply of 32 vectors is read in one go."""

KILL_SECONDS = 1.0
"""Seconds to wait for the end of a killed process."""

STARTER = "ragasync-start"
"""The name of a thread that starts a worker."""

READY = b"\x06"
"""The first byte from a worker process, when its imports are done."""

PROGRAM = f"from {__name__} import main; main()"
"""The program of a worker process; its argument is the dimension."""

_HEADER = struct.Struct("=QQ")


class EmbeddingProcesses:
    """
    Embed texts with a HashingEmbedder, in worker processes once a run has embedded enough.

    The embedder is written in Python, so in threads it uses one core. Until the workers are ready,
    and if they cannot be started, texts are embedded in this process, and so are those that a
    worker was embedding when it died. A text has the same vector in every process.

    A worker is a subprocess with a program of its own: it never imports `__main__`. It ends when
    its input does, also if this process was killed. Instances are thread-safe; a call blocks.

    Args:
        embedder: the embedder.
        start_chars: for each worker, the number of characters after which it is started.
    """

    def __init__(self, embedder: HashingEmbedder, start_chars: Sequence[int]) -> None:
        self._embedder = embedder
        self._chars, self._start_chars = 0, deque(start_chars)
        self._lock = threading.Lock()
        self._started: list[EmbeddingProcess] = []
        self._ready: list[EmbeddingProcess] = []
        self._is_closed = False

    @classmethod
    @asynccontextmanager
    async def open(cls, embedder: HashingEmbedder) -> AsyncIterator[EmbeddingProcesses]:
        """Open the processes of a run, and end them with it."""
        processes = cls(embedder, START_CHARS)
        try:
            yield processes
        finally:
            processes.close()

    @property
    def ready(self) -> int:
        """The number of workers that can embed."""
        return len(self._ready)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts in the worker with the fewest calls, or in this process if there is none."""
        if (worker := self._choose(texts)) is not None:
            try:
                return worker.embed(texts)
            except Exception:  # whatever became of it: the texts are embedded here
                self._discard(worker)
            finally:
                with self._lock:
                    worker.calls -= 1
        return self._embedder(texts)

    def close(self) -> None:
        """End the processes."""
        with self._lock:
            self._is_closed = True
            self._ready.clear()
            started, self._started = self._started, []
        for worker in started:
            worker.close()

    def __repr__(self) -> str:
        return f"EmbeddingProcesses({self._embedder!r}, ready={self.ready})"

    def _choose(self, texts: Sequence[str]) -> EmbeddingProcess | None:
        """Choose the worker for a call, and start one when enough has been embedded."""
        with self._lock:
            self._chars += sum(map(len, texts))
            if self._start_chars and self._chars >= self._start_chars[0]:
                self._start_chars.popleft()
                if can_start_processes():
                    starter = threading.Thread(target=self._start, name=STARTER, daemon=True)
                    with suppress(RuntimeError):  # there are too many threads
                        starter.start()
            if not self._ready:
                return None
            worker = min(self._ready, key=attrgetter("calls"))
            worker.calls += 1
            return worker

    def _start(self) -> None:
        """Start a worker, and let it embed when it is ready."""
        try:
            worker = EmbeddingProcess(self._embedder.dimension)
        except (OSError, ValueError, subprocess.SubprocessError):
            return
        with self._lock:
            self._started.append(worker)
            is_closed = self._is_closed
        if is_closed or not worker.wait_until_ready():
            self._discard(worker)
            return
        with self._lock:
            if not self._is_closed:
                self._ready.append(worker)

    def _discard(self, worker: EmbeddingProcess) -> None:
        """End a worker that cannot be used."""
        with self._lock:
            for workers in (self._started, self._ready):
                if worker in workers:
                    workers.remove(worker)
        worker.close()


class EmbeddingProcess:
    """
    A worker process that embeds the texts that are sent to it, in order.

    Args:
        dimension: the length of its vectors.

    Attributes:
        calls: the number of calls in progress, as its owner counts them.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, dimension: int) -> None:
        self.calls = 0
        self._dimension = dimension
        self._sending, self._receiving = threading.Lock(), threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(dimension)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Python looks for modules here first: in this package, not among the user's files.
            cwd=Path(__file__).parents[2],
            pipesize=PIPE_BYTES,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._replies = self._process.stdin, self._process.stdout

    def wait_until_ready(self) -> bool:
        """Wait until it can embed; False if it ended before."""
        with self._receiving:
            return self._replies.read(1) == READY

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """
        Embed texts; another thread may send the next ones meanwhile.

        Raises:
            EOFError: the process has ended.
            OSError: the process has ended.
            ValueError: this object is closed.
        """
        rows = np.empty((len(texts), self._dimension), dtype=np.float32)
        request = encode_texts(texts)
        # One lock is taken before the other is released: replies are received in order, and a
        # thread that waits for its turn to receive lets no further one send.
        self._sending.acquire()
        try:
            self._requests.write(request)
            self._requests.flush()
            self._receiving.acquire()
        finally:
            self._sending.release()
        try:
            received = self._replies.readinto(rows.data)  # type: ignore[attr-defined]
        finally:
            self._receiving.release()
        if received != rows.nbytes:
            raise EOFError(f"expected {rows.nbytes} bytes from a worker process, got {received}")
        return rows

    def close(self) -> None:
        """Kill the process, which has nothing to lose; calls in progress fail."""
        self._process.kill()
        try:
            self._process.wait(timeout=KILL_SECONDS)
        except subprocess.TimeoutExpired:  # the kernel holds it: it ends when it is released
            return
        with self._sending, self._receiving:  # nobody may use a pipe while it is closed
            self._replies.close()
            with suppress(OSError):  # of what was not sent yet
                self._requests.close()


def embed_in_processes(texts: Sequence[str], processes: EmbeddingProcesses) -> NDArray[np.float32]:
    """Embed texts in the worker processes of the run."""
    return processes.embed(texts)


def can_start_processes() -> bool:
    """Whether worker processes would be of use, and can be started without side effects."""
    if os.environ.get("RAGASYNC_WORKER_PROCESSES") == "0" or usable_cores() < 2:
        return False
    if sys.platform in ("emscripten", "wasi"):
        return False
    # An application with Python inside would start once more.
    is_python = "python" in Path(sys.executable or "").name.lower()
    if not is_python or hasattr(sys, "frozen"):
        return False
    process = sys.modules.get("multiprocessing.process")
    return process is None or process.parent_process() is None  # pools have used the cores


def usable_cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "process_cpu_count"):  # since Python 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# ── in a worker process ─────────────────────────────────────────────────────────────────────────


def main() -> None:
    """Run a worker process: texts from standard input, their vectors to standard output."""
    # Ctrl-C in a terminal reaches this process too; the run that started it decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # PYTHONUNBUFFERED may have made sys.stdout one that writes only a part of what it gets.
    with open(sys.stdout.fileno(), "wb", closefd=False) as replies:
        serve(HashingEmbedder(int(sys.argv[1])), sys.stdin.buffer, replies)


def serve(embedder: HashingEmbedder, requests: BinaryIO, replies: BinaryIO) -> None:
    """Embed texts until the input ends."""
    replies.write(READY)
    replies.flush()
    while (texts := read_texts(requests)) is not None:
        replies.write(embedder(texts).data)
        replies.flush()


# ── what is sent ────────────────────────────────────────────────────────────────────────────────


def encode_texts(texts: Sequence[str]) -> bytes:
    """Encode texts: their number, the bytes of all, the length of each in characters, and all."""
    block = "".join(texts).encode("utf-8", "surrogatepass")
    lengths = np.array([len(text) for text in texts], dtype=np.uint64)
    return b"".join([_HEADER.pack(len(texts), len(block)), lengths.tobytes(), block])


def read_texts(file: BinaryIO) -> list[str] | None:
    """
    Read the next texts that `encode_texts` has encoded; None at the end.

    Raises:
        EOFError: the file ends within them.
    """
    if not (header := file.read(_HEADER.size)):
        return None
    count, size = _HEADER.unpack(header)
    lengths = np.frombuffer(file.read(8 * count), dtype=np.uint64)
    block = file.read(size)
    if len(block) != size:
        raise EOFError(f"expected {size} bytes of texts, got {len(block)}")
    text = block.decode("utf-8", "surrogatepass")
    ends = np.cumsum(lengths).tolist()
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
