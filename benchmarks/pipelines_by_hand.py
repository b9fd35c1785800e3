"""
Ways to cut documents into chunks and have them embedded, written by hand; and parts of that work.

Each is an async function of (documents, embed, at_once), in batches of at most BATCH texts;
`pipelines.py` names them as contenders and as floors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np
from corpus import Pair, Vectors

from ragasync.documents import RecursiveSplitter

Embed: TypeAlias = Callable[[Sequence[str]], Awaitable[Vectors]]

Embedded: TypeAlias = tuple[list[str], Any]
"""A document after embedding: the texts of its chunks, and their vectors."""

BATCH = 32
"""The most texts in one call."""

RETRIES = 3
"""How often a call that fails is tried again, after no delay."""

CHARACTERS = RecursiveSplitter().chunk_size
"""The most in a chunk."""

A_HOP = 50
"""Documents that the pipeline by hand cuts in one hop to a thread."""


async def again(embed: Embed, texts: Sequence[str]) -> Vectors:
    """Call, and call once more after an error that may pass."""
    for _ in range(RETRIES):
        with suppress(ConnectionError):
            return await embed(texts)
    return await embed(texts)


async def pipelined_into_lists(
    documents: Sequence[Pair], embed: Embed, at_once: int
) -> Mapping[str, Embedded]:
    """Pipeline the documents, and keep the rows that the embedder returns in lists."""
    return await pipelined(documents, embed, at_once, lambda count: [None] * count)


async def pipelined_into_arrays(
    documents: Sequence[Pair], embed: Any, at_once: int
) -> Mapping[str, Embedded]:
    """Pipeline the documents, and make a float32 array of each one's vectors."""
    dimension = embed.dimension
    return await pipelined(
        documents, embed, at_once, lambda count: np.empty((count, dimension), np.float32)
    )


async def pipelined(
    documents: Sequence[Pair], embed: Embed, at_once: int, rows: Callable[[int], Any]
) -> Mapping[str, Embedded]:
    """Split on a thread, and let workers embed batches that are filled across documents."""
    batches: asyncio.Queue[list[tuple[Any, int, str]] | None] = asyncio.Queue(at_once)
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
                vectors = rows(len(texts))
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
            made = await again(embed, [text for _, _, text in batch])
            for (vectors, place, _), row in zip(batch, made, strict=True):
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
    places: list[tuple[Any, int, str]] = []
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
