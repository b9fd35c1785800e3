"""A document run that stops early because of errors: what fails, and what stays pending."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ragasync import Journal
from ragasync.documents import (
    AsyncDocumentProcessor,
    Document,
    EmbedderMismatch,
    SqliteStore,
)
from tests.support.embedders import CountingEmbedder

COUNT = 300

LIMITS = {
    "max_errors": ({"max_errors": 10}, 11),
    "max_error_rate": ({"max_error_rate": 0.5}, 20),  # of which nothing is said before 20
}


def refuse(argument: Any) -> Any:
    """Fail as a load or chunk function."""
    raise ValueError("no")


async def refuse_async(argument: Any) -> Any:
    """Fail as a stage of its own."""
    await asyncio.sleep(0)
    raise ValueError("no")


def texts(count: int = COUNT) -> list[tuple[str, str]]:
    """Texts with their ids."""
    return [(f"d{number}", f"text {number}") for number in range(count)]


def unstorable() -> list[Document]:
    """Documents that the store refuses before they are embedded."""
    return [Document(id_, text, {"tags": {1, 2}}) for id_, text in texts()]


SOURCES = {
    "rows without a text": ({}, pd.DataFrame({"id": range(COUNT), "text": [None] * COUNT})),
    "load": ({"load": refuse}, range(COUNT)),
    "async load": ({"load": refuse_async}, range(COUNT)),
    "chunk": ({"chunk": refuse}, texts()),
    "async chunk": ({"chunk": refuse_async}, texts()),
    "metadata": ({}, unstorable()),
}


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("max_concurrency", [1, 2, 8])
@pytest.mark.parametrize("kind", SOURCES)
async def test_documents_that_were_prepared_ahead_do_not_count_as_failed(
    kind: str, max_concurrency: int, limit: str
):
    """At most those in flight fail after the limit is exceeded, however fast the others would."""
    functions, sources = SOURCES[kind]
    bound, first = LIMITS[limit]
    with SqliteStore(":memory:") as store:
        settings = functions | bound | {"max_concurrency": max_concurrency, "store": store}
        result = await AsyncDocumentProcessor(**settings).process(sources)
    assert first <= result.error_count <= first + max_concurrency
    assert result.error_count + result.pending_count == COUNT
    assert limit in result.stopped_because


@pytest.mark.parametrize("limit", LIMITS)
async def test_no_call_of_the_embedder_begins_after_the_limit(limit: str):
    """Documents that wait for the embedder stay pending, and nothing is paid for them."""
    embed = CountingEmbedder(poison={"text": ValueError("no")})
    bound, first = LIMITS[limit]
    settings = {"batch_size": 1, "embed_concurrency": 2, "retry_count": 0} | bound
    result = await AsyncDocumentProcessor(embed=embed, **settings).process(texts())
    assert first <= result.error_count == len(embed.calls) <= first + 2
    assert result.error_count + result.pending_count == COUNT


async def test_documents_in_a_call_at_the_limit_are_still_stored():
    """They are paid for."""
    embed = CountingEmbedder()

    async def load(name: str) -> Document:
        if name == "good":
            return Document(name, "one")
        await embed.called.wait()
        return Document(name, "x", {"tags": {1}})  # no store takes a set

    with SqliteStore(":memory:") as store:
        processor = AsyncDocumentProcessor(
            load=load, embed=embed, store=store, max_errors=0, batch_size=1
        )
        good, *bad = await processor.process(["good", "bad", "worse"])
        assert good.status == "done"
        assert sorted(outcome.status for outcome in bad) == ["failed", "pending"]
        assert [each.id for each in store.documents()] == ["good"]


async def test_a_document_left_pending_at_the_limit_is_tried_by_the_next_run(tmp_path):
    """A journal does not have it as failed."""
    failed: list[str] = []

    def chunk(text: str) -> list[str]:
        if len(failed) < 50:
            failed.append(text)
            raise ValueError("no")
        return [text]

    async def embed(batch: list[str]) -> np.ndarray:
        return np.ones((len(batch), 2))

    def processor() -> AsyncDocumentProcessor:
        journal = Journal(tmp_path / "run.sqlite")
        return AsyncDocumentProcessor(chunk=chunk, embed=embed, journal=journal, max_errors=2)

    first = await processor().process(texts(50))
    failed += [""] * 50
    second = await processor().process(texts(50))
    assert (first.error_count, first.pending_count) == (3, 47)
    assert (second.error_count, second.success_count) == (3, 47)


async def test_no_document_keeps_the_error_of_a_run_that_was_refused(tmp_path):
    """After a run into the store of another embedder, a run into a new store has all documents."""
    journal, embed = tmp_path / "journal.sqlite", CountingEmbedder()
    with SqliteStore(":memory:") as store:
        await AsyncDocumentProcessor(store=store).process([("first", "The store has a vector.")])
        processor = AsyncDocumentProcessor(embed=embed, store=store, journal=journal)
        refused = await processor.process(texts())
        assert isinstance(refused[0].error, EmbedderMismatch)
    with SqliteStore(":memory:") as store:
        processor = AsyncDocumentProcessor(embed=embed, store=store, journal=journal)
        assert (await processor.process(texts())).success_count == COUNT


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("is_async", [False, True])
def test_an_exit_raised_by_the_embedder_ends_a_run_with_documents_behind_it(
    kind: type[BaseException], is_async: bool
):
    """No worker is started for them once the others have been cancelled."""

    def embed(chunks: list[str]) -> list[list[float]]:
        if "text 17" in chunks:
            raise kind("stop")
        return [[1.0, 2.0]] * len(chunks)

    async def embed_async(chunks: list[str]) -> list[list[float]]:
        await asyncio.sleep(0)
        return embed(chunks)

    processor = AsyncDocumentProcessor(embed=embed_async if is_async else embed)
    with pytest.raises(kind, match="stop"):
        processor.process_sync(texts())
