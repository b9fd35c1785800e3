"""
The contenders of `documents.py`: ways to cut documents into chunks and have them embedded.

To add one, write an async function of (documents, embed, at_once) that has texts embedded in
batches of at most BATCH, so many calls at once, and give it a line in CONTENDERS. What it gives
back is read off the clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

from corpus import Pair, Vectors

from ragasync import BatchResult
from ragasync.documents import AsyncDocumentProcessor, ProcessedDocument, RecursiveSplitter

Embed: TypeAlias = Callable[[Sequence[str]], Awaitable[Vectors]]

Embedded: TypeAlias = tuple[list[str], Sequence[Any]]
"""What became of a document: the texts of its chunks, and their vectors."""

BATCH = 32
"""The most texts in one call."""

RETRIES = 3
"""How often a call that fails is tried again, after no delay."""

A_HOP = 50
"""Documents that the pipeline by hand cuts in one hop to a thread."""


async def ragasync(
    documents: Sequence[Pair], embed: Any, at_once: int
) -> BatchResult[ProcessedDocument]:
    """Process with everything that a run of ragasync does."""
    processor = AsyncDocumentProcessor(
        embed=embed, embed_concurrency=at_once, batch_size=BATCH, retry_delay=0.0
    )
    return await processor.process(documents)


async def again(embed: Embed, texts: Sequence[str]) -> Vectors:
    """Call, and call once more after an error that may pass."""
    for _ in range(RETRIES):
        with suppress(ConnectionError):
            return await embed(texts)
    return await embed(texts)


async def pipelined_by_hand(
    documents: Sequence[Pair], embed: Embed, at_once: int
) -> Mapping[str, Embedded]:
    """Cut on a thread, and let workers embed batches that are filled across documents."""
    batches: asyncio.Queue[list[tuple[list[Any], int, str]] | None] = asyncio.Queue(at_once)
    embedded: dict[str, Embedded] = {}
    split = RecursiveSplitter()

    def cut_some(some: Sequence[Pair]) -> list[list[str]]:
        return [[chunk.text for chunk in split(text)] for _, text in some]

    async def fill() -> None:
        batch = []
        for start in range(0, len(documents), A_HOP):
            some = documents[start : start + A_HOP]
            pieces = await asyncio.to_thread(cut_some, some)
            for (name, _), texts in zip(some, pieces, strict=True):
                vectors: list[Any] = [None] * len(texts)
                embedded[name] = texts, vectors
                for place, text in enumerate(texts):
                    batch.append((vectors, place, text))
                    if len(batch) == BATCH:
                        await batches.put(batch)
                        batch = []
        if batch:
            await batches.put(batch)
        for _ in range(at_once):
            await batches.put(None)

    async def work() -> None:
        while (batch := await batches.get()) is not None:
            rows = await again(embed, [text for _, _, text in batch])
            for (vectors, place, _), row in zip(batch, rows, strict=True):
                vectors[place] = row

    await asyncio.gather(fill(), *(work() for _ in range(at_once)))
    return embedded


async def gather_a_document(
    documents: Sequence[Pair], embed: Embed, at_once: int
) -> Mapping[str, Embedded]:
    """Make a task of every document, which embeds its own chunks when a semaphore lets it."""
    slots = asyncio.Semaphore(at_once)
    split = RecursiveSplitter()

    async def one(name: str, text: str) -> tuple[str, Embedded]:
        async with slots:
            texts = [chunk.text for chunk in await asyncio.to_thread(split, text)]
            vectors: list[Any] = []
            for start in range(0, len(texts), BATCH):
                vectors.extend(await again(embed, texts[start : start + BATCH]))
        return name, (texts, vectors)

    return dict(await asyncio.gather(*(one(*document) for document in documents)))


# ── floors: parts of the work, to see what can be reached ───────────────────────────────────


async def cutting_alone(documents: Sequence[Pair], _: Embed, __: int) -> Mapping[str, Embedded]:
    """Cut the documents, and embed nothing."""
    return cut(documents)


def cut(documents: Sequence[Pair]) -> dict[str, Embedded]:
    """Return the documents in chunks that have no vectors yet."""
    split = RecursiveSplitter()
    return {name: ([chunk.text for chunk in split(text)], []) for name, text in documents}


async def calls_alone(
    documents: Mapping[str, Embedded], embed: Embed, at_once: int
) -> Mapping[str, Embedded]:
    """Let workers embed the chunks of documents that have been cut."""
    places: list[tuple[list[Any], int, str]] = []
    embedded: dict[str, Embedded] = {}
    for name, (texts, _) in documents.items():
        vectors: list[Any] = [None] * len(texts)
        embedded[name] = texts, vectors
        places.extend((vectors, place, text) for place, text in enumerate(texts))
    batches = iter([places[at : at + BATCH] for at in range(0, len(places), BATCH)])

    async def work() -> None:
        for batch in batches:
            rows = await again(embed, [text for _, _, text in batch])
            for (vectors, place, _), row in zip(batch, rows, strict=True):
                vectors[place] = row

    await asyncio.gather(*(work() for _ in range(at_once)))
    return embedded


def from_mapping(given: Any) -> Iterable[tuple[str, Embedded]]:
    """Return what is kept by the documents' ids."""
    items: Iterable[tuple[str, Embedded]] = given.items()
    return items


def from_result(given: Any) -> Iterable[tuple[str, Embedded]]:
    """Return what a BatchResult holds that calls every document done."""
    assert given.all_succeeded
    return [
        (done.id, ([each.text for each in done.chunks], done.embeddings)) for done in given.results
    ]


@dataclass(frozen=True)
class Contender:
    """A way to embed documents, and how to read what it gives."""

    run: Callable[[Any, Any, int], Awaitable[object]]
    read: Callable[[Any], Iterable[tuple[str, Embedded]]] = from_mapping
    helpers: tuple[Callable[..., object], ...] = ()
    """What else the user has to write."""
    needs: tuple[str, ...] = ()
    """The modules that have to be installed."""
    most_documents: int = 1_000_000
    """Beyond, it would take minutes."""
    takes_sync: bool = False
    """Whether it is given a sync embedder as it is; others are given one that hops to threads."""
    takes_cut: bool = False
    """Whether it is given documents that have been cut."""
    embeds: bool = True
    """Whether there are vectors."""


CONTENDERS = {
    "ragasync": Contender(ragasync, from_result, takes_sync=True),
    "pipelined by hand": Contender(pipelined_by_hand, helpers=(again,)),
    "gather a document": Contender(gather_a_document, helpers=(again,)),
    "floor: the calls alone, chunks cut before": Contender(calls_alone, takes_cut=True),
    "floor: cutting alone": Contender(cutting_alone, embeds=False),
}
