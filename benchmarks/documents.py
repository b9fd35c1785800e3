"""
The main job: documents cut into chunks and embedded, by a service and by embedders in process.

    python benchmarks/documents.py --documents 2000 --at-once 8 32 --rounds 5
    python benchmarks/documents.py --only by floor --tables service

The documents are texts in memory, made by a seeded generator (see corpus.py). The service is
faked: a call takes 15 ms, and 1% of the calls then raise a ConnectionError, to be tried again.
Every contender (see pipelines.py) is checked to have cut the whole text and to have given each
chunk its own vector, with no more concurrent calls than allowed and no batch that is too big. The
ideal is its calls, if all batches were full and none failed, x 15 ms / concurrent calls. Rates are
by wall time: what matters is how little of the waiting is wasted. The peak of memory is that of a
run by itself, whose allocations are traced.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from corpus import LATENCY, FakeService, Pair, made, mark_of
from measuring import Figures, in_turns, installed, peak_bytes, ratios, table
from pipelines import CONTENDERS, Contender
from pipelines_by_hand import BATCH, cut

from ragasync.documents import HashingEmbedder, WordLlamaEmbedder

Embedder: TypeAlias = Callable[[Sequence[str]], Any]
"""A real one, in this process."""

OURS = "ragasync"
TABLES = ("service", "embedders")

FAKED = ("of the ideal", "calls")
"""The columns that only a fake service has."""

IN_PROCESS_AT_ONCE = 2
"""Calls at once of an embedder in this process, which is as many as there are processors."""

TRIED_AGAIN = 50
"""Of this many documents, the vectors of one are made again by a real embedder and compared."""


def checked(
    contender: Contender, given: object, documents: Sequence[Pair], embedder: Embedder | None
) -> int:
    """Return how many chunks there are, or raise if a text or a vector is missing or wrong."""
    embedded = dict(contender.read(given))
    assert len(embedded) == len(documents), f"{contender.run} lost documents or made some"
    for number, (name, text) in enumerate(documents):
        texts, vectors = embedded[name]
        assert "".join("".join(texts).split()) == "".join(text.split()), f"{name} is cut wrongly"
        if contender.embeds:
            assert len(vectors) == len(texts), f"{name} lost vectors"
            if embedder is None:
                assert [tuple(row[:2]) for row in vectors] == [mark_of(each) for each in texts]
            elif number % TRIED_AGAIN == 0:
                assert np.allclose(vectors, embedder(texts), atol=1e-5), f"{name}: not its own"
    return sum(len(texts) for texts, _ in embedded.values())


class OnThread:
    """An embedder in this process, which is called on a thread."""

    def __init__(self, embedder: Any) -> None:
        self.dimension: int = embedder.dimension
        self._embedder = embedder

    async def __call__(self, texts: Sequence[str]) -> Any:
        """Embed texts."""
        return await asyncio.to_thread(self._embedder, texts)


@dataclass
class Race:
    """Runs contenders over the same documents, and notes what each did."""

    documents: Sequence[Pair]
    at_once: int
    embedder: Embedder | None = None
    """None is the fake service."""
    chunks: dict[str, int] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    processor: defaultdict[str, Figures] = field(default_factory=lambda: defaultdict(Figures))

    def rates(self, contenders: Mapping[str, Contender], rounds: int) -> dict[str, Figures]:
        """Return the documents a second of the contenders."""
        for name, contender in contenders.items():  # imports and caches, off the clock
            self._rate(name, contender, self.documents[:20])
        self.processor.clear()
        gc.freeze()  # what the peers imported is no garbage: let no one's run look through it
        runs = {
            name: partial(self._rate, name, contender, self.taken_by(contender))
            for name, contender in contenders.items()
        }
        fewer = {name: 2 for name, contender in contenders.items() if contender.is_slow}
        return in_turns(runs, rounds, fewer)

    def taken_by(self, contender: Contender) -> Sequence[Pair]:
        """Return the documents that a contender takes on."""
        return self.documents[: contender.most_documents]

    def ideal(self, name: str, contender: Contender) -> float:
        """Return the documents a second if nothing but the calls took time."""
        calls = math.ceil(self.chunks[name] / BATCH)
        return len(self.taken_by(contender)) / (calls * LATENCY / self.at_once)

    def peak_megabytes(self, contender: Contender) -> float:
        """Return the most memory taken at once, above that of the documents."""
        self._rate("", contender, self.documents[:20])  # imports and caches are not its memory
        embed, documents = self._embed(contender), self.taken_by(contender)
        return peak_bytes(lambda: contender.run(documents, embed, self.at_once)) / 1e6

    def _embed(self, contender: Contender) -> Any:
        """Return the embedder of a contender."""
        if self.embedder is None:
            return FakeService(self.at_once, BATCH)
        embedder = self.embedder

        return embedder if contender.takes_sync else OnThread(embedder)

    def _rate(self, name: str, contender: Contender, documents: Sequence[Pair]) -> float:
        """Run a contender, check what it gives, and return its documents a second."""
        given = cut(documents) if contender.takes_cut else documents
        embed = self._embed(contender)

        results: list[object] = []  # not given to asyncio.run, which spells out what it is given

        async def measured() -> tuple[float, float]:
            began, used = time.perf_counter(), time.process_time()
            results.append(await contender.run(given, embed, self.at_once))
            return time.perf_counter() - began, time.process_time() - used

        gc.collect()
        took, used = asyncio.run(measured())
        self.chunks[name] = checked(contender, results[0], documents, self.embedder)
        self.calls[name] = getattr(embed, "calls", 0)
        self.processor[name].values.append(used / len(documents) * 1e3)
        return len(documents) / took


def table_of(title: str, race: Race, contenders: Mapping[str, Contender], rounds: int) -> str:
    """Return the rates, how near they come to the ideal of the fake service, and what they take."""
    rates = race.rates(contenders, rounds)
    over, processor_over = ratios(rates, OURS), ratios(race.processor, OURS)
    is_fake = race.embedder is None

    def row(name: str) -> dict[str, str]:
        contender, values = contenders[name], rates[name].values
        is_floor = name.startswith("floor")
        share = rates[name].median / race.ideal(name, contender)
        cells = {
            "": name,
            "documents a second, median (min-max)": (
                f"{rates[name].median:,.0f} ({min(values):,.0f}-{max(values):,.0f})"
            ),
            "of the ideal": f"{share:.2f}" if contender.embeds else "",
            "ragasync is": f"x{1 / over[name]:.2f}",
            "processor ms a document": f"{race.processor[name].median:.3f}",
            "ragasync takes": f"x{1 / processor_over[name]:.2f}",
            "peak MB": "" if is_floor else f"{race.peak_megabytes(contender):.1f}",
            "lines of user code": "" if is_floor else str(contender.lines),
            "documents": f"{len(race.taken_by(contender)):,}",
            "chunks": f"{race.chunks[name]:,}",
            "calls": f"{race.calls[name]:,}",
        }
        return cells if is_fake else {head: cells[head] for head in cells if head not in FAKED}

    rows = [row(name) for name in contenders]
    return table(title, list(rows[0]), [list(cells.values()) for cells in rows])


def in_process() -> dict[str, Embedder]:
    """Return the embedders that work in this process, as far as they are installed."""
    embedders: dict[str, Embedder] = {"HashingEmbedder": HashingEmbedder()}
    if installed("wordllama"):
        embedders["WordLlamaEmbedder"] = WordLlamaEmbedder()
    return embedders


def chosen(only: Sequence[str]) -> dict[str, Contender]:
    """Return ours and those whose names begin so, as far as what they need is installed."""
    wanted = {
        name: contender
        for name, contender in CONTENDERS.items()
        if name == OURS or not only or name.lower().startswith(tuple(map(str.lower, only)))
    }
    missing = [name for name, each in wanted.items() if not installed(*each.needs)]
    if missing:
        print(f"left out, install ragasync[bench]: {', '.join(missing)}\n")
    return {name: each for name, each in wanted.items() if name not in missing}


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Compare ways to cut and embed documents.")
    parser.add_argument("--documents", type=int, default=2_000)
    parser.add_argument("--at-once", type=int, nargs="+", default=[8, 32], metavar="CALLS")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        help="run ragasync and those whose names begin so, as in: --only by floor "
        f"({', '.join(CONTENDERS)})",
    )
    parser.add_argument(
        "--embedded", type=int, default=300, help="documents for the embedders in this process"
    )
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    given = parser.parse_args()
    contenders, documents = chosen(given.only), made(given.documents)
    if "service" in given.tables:
        for at_once in given.at_once:
            title = f"{len(documents):,} documents, calls of 15 ms, {at_once} concurrently"
            race = Race(documents, at_once)
            print(table_of(title, race, contenders, given.rounds), flush=True)
    if "embedders" in given.tables:
        documents = documents[: given.embedded]
        for name, embedder in in_process().items():
            race = Race(documents, IN_PROCESS_AT_ONCE, embedder)
            title = f"{len(documents):,} documents, {name}, {IN_PROCESS_AT_ONCE} concurrent calls"
            print(table_of(title, race, contenders, given.rounds), flush=True)


if __name__ == "__main__":
    main()
