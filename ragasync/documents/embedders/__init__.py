"""
Embedders: texts to vectors, one row per text.

    openai.py       OpenAIEmbedder: a service with OpenAI's API
    openai_http.py  HttpService: its requests and replies over HTTP, within bounds

Here are the protocol Embedder, and the two embedders that need no service: HashingEmbedder, the
default, with worker processes for large runs (EmbeddingProcesses), and WordLlamaEmbedder, a small
model in a package. The embedder for a service brings a Stage with its batches, limits and retries,
and counts what was spent.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache, lru_cache
from hashlib import blake2b
from importlib.util import find_spec
from io import BufferedReader
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.search_text import is_function_word, is_single, is_unspaced, words_of
from ragasync.errors import MissingExtra

if TYPE_CHECKING:
    from tokenizers import Tokenizer


_NAME = re.compile(r"hashing-([1-9]\d*)-v2")

# Pieces of at most 40 characters: a megabyte of base64 stays a few features a piece.
_PIECE = 40
_ASCII_PIECE = re.compile(r"[^\W_]{1,40}")

_HAN = re.compile("[\u3400-\u9fff\U00020000-\U0003ffff]")

# The weights below are the best found for retrieval of docstring bodies by their summaries.
_GRAM = 4
_GRAMS_WEIGHT = 1.5
_FUNCTION_WORD_WEIGHT = 0.2

_TEXTS_PER_PASS = 256


class Embedder(Protocol):
    """
    An embedder turns texts into vectors, one row per text.

    `name` identifies the vectors: embedders with the same name must produce the same vectors, so
    anything that changes the vectors must change the name.

    Example:
        >>> import numpy as np
        >>> from ragasync.documents import Embedder
        >>> class Vowels:
        ...     name, dimension = "vowels-v1", 5
        ...     def __call__(self, texts):
        ...         rows = [[text.count(vowel) for vowel in "aeiou"] for text in texts]
        ...         return np.array(rows, dtype=np.float32)
        >>> embed: Embedder = Vowels()
        >>> embed(["a token bucket"]).tolist()
        [[1.0, 2.0, 0.0, 1.0, 1.0]]
    """

    @property
    def name(self) -> str:
        """The name by which a store identifies the embedder of its vectors."""

    @property
    def dimension(self) -> int:
        """The length of a vector."""

    def __call__(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """Embed texts: a float32 array of shape `(len(texts), dimension)`."""


class HashingEmbedder:
    """
    Embed texts by hashing their words and the n-grams in their words.

    Each lower-cased word has a fixed sparse vector: one signed entry for the word, and one for each
    of its 4-grams with the word's ends marked, so that `retry` and `retries` are similar. The
    vector of a text is the sum over its words, scaled to length 1. A word that occurs n times
    counts 1 + ln n, and a function word a fifth of that. In scripts without spaces, every two
    adjacent characters form a word, and every Chinese character does too. Cyrillic words lose their
    endings, and all words their accents, Hebrew points and Arabic vowel signs. There is no model
    and no state: a text has the same vector in every process and in any batch. This matches words
    and their forms, not meanings. The vector of a text without words is zero.

    The signed hashing follows Weinberger et al., Feature Hashing for Large Scale Multitask Learning
    (2009), and the n-grams of words Bojanowski et al., Enriching Word Vectors with Subword
    Information (2017). Instances are thread-safe.

    Example:
        >>> from ragasync.documents import HashingEmbedder
        >>> embed = HashingEmbedder()
        >>> question, answer, other = embed(["refill a bucket", "refilling buckets", "a poem"])
        >>> bool(question @ answer > question @ other)
        True
        >>> question.shape
        (1024,)

    Args:
        dimension: The length of a vector; a longer one has fewer collisions.

    Raises:
        ValueError: If `dimension` is not a positive int.
    """

    def __init__(self, dimension: int = 1024) -> None:
        if not isinstance(dimension, int) or dimension < 1:
            raise ValueError(f"dimension must be a positive int, not {dimension!r}")
        self._dimension = dimension

    @classmethod
    def from_name(cls, name: str) -> HashingEmbedder | None:
        """The HashingEmbedder with this name; None for the name of another embedder."""
        match = _NAME.fullmatch(name)
        return cls(int(match[1])) if match else None

    @property
    def name(self) -> str:
        """The name by which a store identifies the embedder of its vectors."""
        return f"hashing-{self._dimension}-v2"

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        return self._dimension

    def __call__(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """
        Embed texts.

        Args:
            texts: The texts; a single str is refused, because it is a sequence of characters.

        Returns:
            A float32 array of shape `(len(texts), dimension)`, with rows of length 1 or 0.

        Raises:
            TypeError: If `texts` is a str or bytes, or one of its items is not a str.
        """
        check_texts(texts)
        rows = np.empty((len(texts), self._dimension), dtype=np.float32)
        for start in range(0, len(texts), _TEXTS_PER_PASS):
            part = texts[start : start + _TEXTS_PER_PASS]
            rows[start : start + len(part)] = _embed(part, self._dimension)
        return rows

    def __repr__(self) -> str:
        return f"HashingEmbedder(dimension={self._dimension})"


def check_texts(texts: Sequence[str]) -> None:
    """Raise TypeError for anything but a sequence of strings."""
    if isinstance(texts, str | bytes):
        raise TypeError(f"expected a list of texts, not one {type(texts).__name__}: pass [text]")
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"text {position} must be a str, not {text!r}")


def scaled_to_one(rows: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Vectors scaled to length 1; zero vectors stay zero."""
    # Divide by the largest entry first: squares of very large or small entries overflow.
    largest = np.max(np.abs(rows), axis=1, keepdims=True, initial=0)
    rows = np.divide(rows, largest, out=np.zeros_like(rows), where=largest > 0)
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
    np.divide(rows, lengths, out=rows, where=lengths > 0)
    return rows.astype(np.float32, copy=False)


def _embed(texts: Sequence[str], dimension: int) -> NDArray[np.float32]:
    """Vectors of a few texts, summed in one pass over all of their features."""
    counts = [Counter(_words(text)) for text in texts]
    features = [_features(word, dimension) for words in counts for word in words]
    if not features:
        return np.zeros((len(texts), dimension), dtype=np.float32)
    occurrences = np.array([n for words in counts for n in words.values()], dtype=np.float64)
    row_of_word = np.repeat(np.arange(len(texts)), [len(words) for words in counts])
    sizes = [len(slots) for slots, _ in features]
    slots = np.concatenate([slots for slots, _ in features])
    weights = np.concatenate([weights for _, weights in features])
    sums = np.bincount(
        np.repeat(row_of_word * dimension, sizes) + slots,
        weights * np.repeat(1 + np.log(occurrences), sizes),
        minlength=len(texts) * dimension,
    )
    return scaled_to_one(np.asarray(sums, dtype=np.float64).reshape(len(texts), dimension))


def have_feature_in_common(text: str, query: str) -> bool:
    """
    Whether a text and a query have a feature (a word or n-gram) in common.

    Two vectors can be similar because different words share an entry, so this compares the words
    themselves. Function words count only if the query has no other words.
    """
    words = _words(query)
    words = [word for word in words if not is_function_word(word)] or words
    wanted = {name for word in words for name in _names(word)}
    return any(not wanted.isdisjoint(_names(word)) for word in set(_words(text)))


def _words(text: str) -> list[str]:
    """Words of a text; long ones are split."""
    if text.isascii():
        return _ASCII_PIECE.findall(text.lower())
    return [
        word[start : start + _PIECE]
        for word in words_of(text, singles=True)
        if not is_single(word) or _HAN.match(word)  # a single letter has no meaning
        for start in range(0, len(word), _PIECE)
    ]


@lru_cache(maxsize=50_000)
def _features(word: str, dimension: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Positions of a word's features in the vector, and their signed weights."""
    names = _names(word)
    weight = _FUNCTION_WORD_WEIGHT if is_function_word(word) else 1.0  # of the word, named first
    weight_of_gram = weight * _GRAMS_WEIGHT / math.sqrt(len(names) - 1 or 1)
    slots, weights = [], []
    for name in names:
        hashed = _hash(name)
        slots.append((hashed >> 1) % dimension)
        weights.append(weight if hashed & 1 else -weight)
        weight = weight_of_gram
    return np.array(slots, dtype=np.int64), np.array(weights, dtype=np.float32)


def _names(word: str) -> tuple[str, ...]:
    """Features of a word: the word with its ends marked, and the n-grams of this."""
    marked = f"<{word}>"
    if len(marked) <= _GRAM or is_unspaced(word):
        return (marked,)  # it has no shorter n-grams
    return (marked, *(marked[i : i + _GRAM] for i in range(len(marked) - _GRAM + 1)))


def _hash(feature: str) -> int:
    """Hash of a feature as 64 bits, the same on every machine."""
    return int.from_bytes(blake2b(feature.encode(), digest_size=8).digest(), "little")


_DIMENSIONS = (64, 128, 256)

_loading = threading.Lock()


class WordLlamaEmbedder:
    """
    Embed texts as the average of the vectors of their tokens.

    The vectors are part of the package wordllama (extra `[ingest]`). They are loaded once per
    process, on first use (about a third of a second), and never downloaded. Unlike those of
    `HashingEmbedder`, they are similar for words of similar meaning; word order has no effect. The
    vector of a text without tokens is zero. Instances are thread-safe.

    Example:
        >>> from ragasync.documents import WordLlamaEmbedder
        >>> embed = WordLlamaEmbedder()
        >>> car, vehicle, poem = embed(["a car", "some vehicle", "a poem"])
        >>> bool(car @ vehicle > car @ poem)
        True

    Args:
        dimension: The length of a vector: 64, 128 or 256; shorter vectors are prefixes.

    Raises:
        ValueError: If `dimension` is something else.
        MissingExtra: If wordllama is not installed.
    """

    def __init__(self, dimension: int = 256) -> None:
        if dimension not in _DIMENSIONS:
            raise ValueError(f"dimension must be one of {_DIMENSIONS}, not {dimension!r}")
        if find_spec("wordllama") is None:
            raise MissingExtra("WordLlamaEmbedder", "wordllama", "ingest")
        self._dimension = dimension

    @property
    def name(self) -> str:
        """The name by which a store identifies the embedder of its vectors."""
        return f"wordllama-l2_supercat-{self._dimension}"

    @property
    def dimension(self) -> int:
        """The length of each vector."""
        return self._dimension

    def __call__(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """
        Embed texts as HashingEmbedder does; lone surrogates count as question marks.

        Returns:
            A float32 array of shape `(len(texts), dimension)`, with rows of length 1 or 0.

        Raises:
            TypeError: If `texts` is a str or bytes, or one of its items is not a str.
        """
        check_texts(texts)
        with _loading:
            tokenizer, vectors = _load_model()
        encodable = [text.encode(errors="replace").decode() for text in texts]
        encoded = tokenizer.encode_batch(encodable, add_special_tokens=False)
        rows = np.zeros((len(texts), self._dimension), dtype=np.float32)
        for row, encoding in zip(rows, encoded, strict=True):
            row[:] = _sum_of(encoding.ids, vectors[:, : self._dimension])
        return scaled_to_one(rows)

    def __repr__(self) -> str:
        return f"WordLlamaEmbedder(dimension={self._dimension})"


def _sum_of(tokens: Sequence[int], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the sum of the tokens' vectors, in memory bounded by the vocabulary."""
    distinct, counts = np.unique(np.asarray(tokens, dtype=np.int64), return_counts=True)
    return counts.astype(np.float32) @ vectors[distinct]


@cache
def _load_model() -> tuple[Tokenizer, NDArray[np.float32]]:
    """Load the tokenizer and the vectors of its tokens from the package's own folder."""
    # Importing wordllama configures the root logger, unless that has a handler already.
    bystander = logging.NullHandler()
    logging.getLogger().addHandler(bystander)
    try:
        import wordllama
    finally:
        logging.getLogger().removeHandler(bystander)
    folder = Path(wordllama.__file__).parent
    model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
    # The tokenizer pads every text of a batch to the longest: memory without bound.
    model.tokenizer.no_padding()
    return model.tokenizer, np.asarray(model.embedding, dtype=np.float32)


# ── worker processes ────────────────────────────────────────────────────────────────────────────

START_CHARS = (250_000, 2_500_000, 5_000_000)
"""
Characters that a run has embedded when it starts its first worker process, its second and so on.

To start one takes as long as embedding a million characters, on a core that is free. There is one
less than there are cores: this process loads, chunks and stores meanwhile.
"""

CALLS_PER_WORKER = 2
"""Calls that a worker is given at a time: it embeds the texts of one, and those of one wait."""

PIPE_BYTES = 1 << 18
"""The size of a pipe, where it can be set: a reply of 32 vectors is read in one go."""

KILL_SECONDS = 1.0
"""Seconds to wait for the end of a killed process."""

STARTER = "ragasync-start"
"""The name of a thread that starts a worker."""

READY = b"\x06"
"""The first byte from a worker process, when its imports are done."""

PROGRAM = f"""
import sys
from types import ModuleType

for name in ("ragasync", "ragasync.documents"):
    package = sys.modules[name] = ModuleType(name)
    package.__path__ = [name.replace(".", "/")]
from {__name__} import run_worker

run_worker()
"""
"""
The program of a worker process; its argument is the dimension.

It stands in for the packages around this one, whose own imports would take three times as long as
numpy, the only one that an embedder needs.
"""

_computing = threading.Lock()

TURN_SECONDS = 0.05
"""Seconds that a thread waits for its turn: several times what a batch of another one takes."""


@contextmanager
def computing_turn() -> Iterator[None]:
    """
    Turn of a thread that computes in Python; another one waits for it, for TURN_SECONDS at most.

    Two threads get no more done than one under one interpreter lock. And whenever one of them gives
    up that lock, as for each file operation and many of numpy's, the other one takes it, and the
    first has to wait: that took a third of the processor time of a run.
    """
    has_lock = getattr(sys, "_is_gil_enabled", lambda: True)()
    has_turn = has_lock and _computing.acquire(timeout=TURN_SECONDS)
    try:
        yield
    finally:
        if has_turn:
            _computing.release()


class EmbeddingProcesses:
    """
    Embed texts with a HashingEmbedder, in worker processes once a run has embedded enough.

    The embedder is written in Python, so in threads it uses one core. Until the workers are ready,
    and if they cannot be started, texts are embedded in this process, and so are those that a
    worker was embedding when it died. A text has the same vector in every process.

    A worker is a subprocess with a program of its own: it never imports `__main__`. It ends when
    its input does, also if this process was killed. Instances are thread-safe; a call blocks.
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
        processes = cls(embedder, START_CHARS[: max_workers()])
        try:
            yield processes
        finally:
            processes.close()

    @property
    def ready(self) -> int:
        """The number of workers that can embed."""
        return len(self._ready)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts in the worker with the fewest calls; in this process if each has enough."""
        if (worker := self._choose(texts)) is not None:
            try:
                return worker.embed(texts)
            except Exception:  # whatever its reason: the texts are embedded here
                self._discard(worker)
            finally:
                with self._lock:
                    worker.calls -= 1
        with computing_turn():
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
            worker = min(self._ready, key=attrgetter("calls"), default=None)
            if worker is None or worker.calls >= CALLS_PER_WORKER:
                return None
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
            cwd=Path(__file__).parents[3],
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
        request = pickle.dumps(list(texts), pickle.HIGHEST_PROTOCOL)
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


def max_workers() -> int:
    """The number of workers that a run may start: this process keeps one core."""
    return min(len(START_CHARS), usable_cores() - 1)


def usable_cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "process_cpu_count"):  # since Python 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# ── in a worker process ─────────────────────────────────────────────────────────────────────────


def run_worker() -> None:
    """Run a worker process: texts from standard input, their vectors to standard output."""
    # Ctrl-C in a terminal reaches this process too; the run that started it decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # PYTHONUNBUFFERED may have made sys.stdout one that writes only a part of what it gets.
    with (
        open(sys.stdin.fileno(), "rb", closefd=False) as requests,
        open(sys.stdout.fileno(), "wb", closefd=False) as replies,
    ):
        serve(HashingEmbedder(int(sys.argv[1])), requests, replies)


def serve(embedder: HashingEmbedder, requests: BufferedReader, replies: BinaryIO) -> None:
    """Embed texts until the input ends; EOFError or UnpicklingError if it ends within them."""
    replies.write(READY)
    replies.flush()
    while requests.peek(1):
        replies.write(embedder(pickle.load(requests)).data)  # from the process that started it
        replies.flush()
