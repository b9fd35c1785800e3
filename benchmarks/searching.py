"""
Time of a search: in many chunks of a SqliteStore, and in a LanceStore with a condition.

    python benchmarks/searching.py          # or: --chunks 5000 --chunks-256 9000 --rounds 1

SqliteStore: chunks of 1,024 dimensions, and more chunks of 256 dimensions, each in a file; a round
opens the file, searches once, which loads the vectors, and then for queries of four words that some
hundreds of chunks have. LanceStore: each mode of a search, without and with a range of numbers as
its condition. Milliseconds of wall time and of processor time, which a busy machine changes less.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from measuring import Figures, installed, table
from numpy.typing import NDArray

from ragasync.documents import Chunk, Document, Filter, HashingEmbedder, LanceStore, SqliteStore
from ragasync.documents.store import SearchMode, StoreRequest

CHUNKS_OF_ONE = 20
GROUP = 32
WORDS = 20_000
QUESTIONS = 20
RANGE: Filter = {"line": {"$gte": 500, "$lt": 2_500}}
MODES: tuple[SearchMode, ...] = ("vector", "keyword", "hybrid")


def documents(
    chunks: int, dimension: int
) -> Iterator[tuple[Document, list[Chunk], NDArray[np.float32]]]:
    """Yield documents of random words, whose frequencies are as in a language, and of vectors."""
    chance = np.random.default_rng(7)
    shares = 1 / np.arange(10, WORDS + 10)
    shares /= shares.sum()
    for number in range(0, chunks, CHUNKS_OF_ONE):
        drawn = chance.choice(WORDS, (CHUNKS_OF_ONE, 150), p=shares)
        texts = [" ".join(f"w{word}" for word in row) for row in drawn]
        lines = range(1 + number % 4_000, 4_400 + number, 20)
        pieces = [
            Chunk(text, 0, len(text), {"line": line})
            for text, line in zip(texts, lines, strict=False)
        ]
        vectors = chance.standard_normal((CHUNKS_OF_ONE, dimension)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        yield Document(f"{number}", "", {"year": 2000 + number % 25}), pieces, vectors


def fill(store: SqliteStore | LanceStore, chunks: int, dimension: int) -> None:
    """Put this number of chunks into a store."""
    name = HashingEmbedder(dimension).name
    requests = (StoreRequest(*each, "") for each in documents(chunks, dimension))
    while group := list(islice(requests, GROUP)):
        store.upsert_many(group, embedder=name)


def question(number: int) -> str:
    """Return four words that some hundreds of chunks have."""
    return " ".join(f"w{400 + 97 * number + 1_300 * word}" for word in range(4))


class Timed:
    """The milliseconds of something, on the wall and of the processor."""

    def __init__(self) -> None:
        self.wall, self.processor = Figures(), Figures()

    def __call__(self, run: Callable[[], object]) -> None:
        """Run it once."""
        wall, processor = time.perf_counter(), time.process_time()
        run()
        self.processor.values.append(1e3 * (time.process_time() - processor))
        self.wall.values.append(1e3 * (time.perf_counter() - wall))

    def row(self, name: str) -> list[str]:
        """Return a row of the table."""
        return [name, str(self.wall), str(self.processor)]


def in_sqlite(folder: Path, chunks_by_dimension: dict[int, int], rounds: int) -> str:
    """Table of SqliteStores, each with a number of chunks of one dimension."""
    rows = []
    for dimension, chunks in chunks_by_dimension.items():
        path = folder / f"{dimension}.sqlite"
        with SqliteStore(path) as store:
            fill(store, chunks, dimension)
        first, later = Timed(), Timed()
        for _ in range(rounds):
            with SqliteStore(path) as store:
                first(partial(store.search, question(0)))
                for number in range(1, QUESTIONS):
                    later(partial(store.search, question(number)))
        name = f"ragasync, {chunks:,} chunks of {dimension:,} dimensions"
        rows += [first.row(f"{name}, first search"), later.row(f"{name}, a later search")]
    return table("SqliteStore", HEADS, rows)


def in_lance(path: Path, chunks: int, rounds: int) -> str:
    """Return the table of a LanceStore."""
    vector = np.ones(64, dtype=np.float32)
    timed = {(mode, where is RANGE): Timed() for mode in MODES for where in (None, RANGE)}
    with LanceStore(path) as store:
        fill(store, chunks, 64)
    with LanceStore(path) as store:
        store.search(question(0), vector=vector)
        for number in range(rounds * QUESTIONS):
            for (mode, filtered), measure in timed.items():
                where = RANGE if filtered else None
                search = partial(store.search, mode=mode, where=where, vector=vector)
                measure(partial(search, question(number)))
    rows = [
        each.row(f"ragasync, {mode}, {f'where {RANGE}' if filtered else 'without a condition'}")
        for (mode, filtered), each in timed.items()
    ]
    return table(f"LanceStore, {chunks:,} chunks of 64 dimensions", HEADS, rows)


HEADS = ["", "ms, median (min-max)", "processor ms"]


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Measure how long searches take.")
    parser.add_argument("--chunks", type=int, default=44_000)
    parser.add_argument("--chunks-256", type=int, default=200_000)
    parser.add_argument("--rows", type=int, default=20_000, help="chunks in the LanceStore")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sizes = {1_024: given.chunks, 256: given.chunks_256}
        print(in_sqlite(Path(folder), sizes, given.rounds))
        if installed("lancedb"):
            print(in_lance(Path(folder, "library.lance"), given.rows, given.rounds))


if __name__ == "__main__":
    main()
