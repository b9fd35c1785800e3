"""
Documents per second that a LanceStore stores: one by one, in groups, and next to LanceDB by hand.

    python benchmarks/storing.py                # or: --documents 256 --rounds 1

Each document has two chunks of some sixty words with vectors of 256 dimensions, made beforehand.
By hand, a group is one `add` of texts, metadata and vectors, with an index of words at the end,
which is what keyword search needs; neither checks of documents nor replacing are included. A store
is opened and closed within the time, which includes its compaction. Replaced: the same documents
again, with other chunks, in a store that holds all of them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from measuring import Figures, installed, ratios, table

from ragasync.documents import Chunk, Document, HashingEmbedder, LanceStore
from ragasync.documents.store import StoreRequest

DIMENSION = 256
CHUNKS = 2
BY_HAND = "LanceDB by hand, groups of 64"


def requests(count: int) -> list[StoreRequest]:
    """Documents with their chunks, random words and vectors."""
    chance = np.random.default_rng(7)
    made = []
    for number in range(count):
        texts = [
            " ".join(f"w{word}" for word in chance.integers(0, 5_000, 60)) for _ in range(CHUNKS)
        ]
        chunks = [Chunk(text, 0, len(text), {"line": line}) for line, text in enumerate(texts)]
        path = f"/docs/{number}.md"
        document = Document(path, "", {"lang": "en", "n": number}, source=path, file=path)
        vectors = chance.standard_normal((CHUNKS, DIMENSION)).astype(np.float32)
        made.append(StoreRequest(document, chunks, vectors, str(number)))
    return made


def in_groups(size: int, documents: Sequence[StoreRequest], path: Path) -> None:
    """Store documents in groups of a size."""
    name = HashingEmbedder(DIMENSION).name
    with LanceStore(path) as store:
        for start in range(0, len(documents), size):
            results = store.upsert_many(documents[start : start + size], embedder=name)
            assert not any(results)


def by_hand(documents: Sequence[StoreRequest], path: Path) -> None:
    """Store documents as a user of LanceDB would."""
    import lancedb
    import pyarrow as pa
    from lancedb.index import FTS

    kinds = {"text": pa.string(), "metadata": pa.string()}
    vector = pa.list_(pa.float32(), DIMENSION)
    schema = pa.schema([*kinds.items(), ("vector", vector)])
    stored = lancedb.connect(path).create_table("chunks", schema=schema)
    for start in range(0, len(documents), 64):
        group = documents[start : start + 64]
        rows = [
            {
                "text": chunk.text,
                "metadata": json.dumps(dict(each.document.metadata)),
                "vector": vector,
            }
            for each in group
            for chunk, vector in zip(each.chunks, each.embeddings, strict=True)
        ]
        stored.add(rows)
    stored.create_index("text", config=FTS())
    stored.optimize()


def seconds(store: Callable[[Path], None], path: Path) -> tuple[float, float]:
    """Seconds of the wall clock and of the processor that storing takes."""
    wall, processor = time.perf_counter(), time.process_time()
    store(path)
    return time.perf_counter() - wall, time.process_time() - processor


def measure(count: int, rounds: int) -> str:
    """Table of the rates."""
    documents = requests(count)
    few = documents[: max(count // 16, 1)]
    contenders: dict[str, tuple[int, Callable[[Path], None]]] = {
        BY_HAND: (count, partial(by_hand, documents)),
        "ragasync, one by one": (len(few), partial(in_groups, 1, few)),
        "ragasync, groups of 16": (count, partial(in_groups, 16, documents)),
        "ragasync, groups of 64": (count, partial(in_groups, 64, documents)),
        "ragasync, groups of 256": (count, partial(in_groups, 256, documents)),
        "ragasync, groups of 64, replaced": (count, partial(in_groups, 64, documents[::-1])),
    }
    rates = {name: Figures() for name in contenders}
    costs = {name: Figures() for name in contenders}
    with tempfile.TemporaryDirectory() as folder:
        by_hand(few, Path(folder, "imports"))
        for turn in range(rounds):
            for name, (number, store) in contenders.items():
                filled = "ragasync, groups of 64" if "replaced" in name else name
                wall, processor = seconds(store, Path(folder, f"{filled}-{turn}"))
                rates[name].values.append(number / wall)
                costs[name].values.append(1e3 * processor / number)
    shares = ratios(costs, BY_HAND)
    rows = [
        [name, str(rates[name]), str(costs[name]), f"{shares[name]:.2f}"] for name in contenders
    ]
    heads = ["", "documents a second, median (min-max)", "processor ms a document", "ratio"]
    return table(f"LanceStore, {count:,} documents of {CHUNKS} chunks", heads, rows)


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Measure how fast a LanceStore stores.")
    parser.add_argument("--documents", type=int, default=2_048)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if installed("lancedb"):
        print(measure(given.documents, given.rounds))


if __name__ == "__main__":
    main()
