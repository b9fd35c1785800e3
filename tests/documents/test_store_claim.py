"""A run that is cancelled or late agrees with its store about what is stored."""

import asyncio
import threading
import time

import pytest

from ragasync import AsyncRetry
from ragasync.documents import AsyncDocumentProcessor, Document, SqliteStore, Stage
from tests.support.embedders import CountingEmbedder, given, words

DOCUMENTS = [(f"d{number}", f"text {number}") for number in range(200)]


class HeldStore(SqliteStore):
    """A SqliteStore whose first transaction begins and then waits until it is released."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(":memory:")
        self.begun, self.released = threading.Event(), threading.Event()
        self.error = error
        self.first: set[str] = set()

    def upsert_many(self, requests, **embedder):
        """Store documents when it is released."""
        if not self.first:
            self.first = {request.document.id for request in requests}
            self.begun.set()
            self.released.wait(10)
            if self.error is not None:
                raise self.error
        return super().upsert_many(requests, **embedder)

    def ids(self) -> set[str]:
        """The ids of the stored documents."""
        return {document.id for document in self.documents()}


def ids_of(result, status: str) -> set[str]:
    """The ids of the documents with this status."""
    return {outcome.item.id for outcome in result if outcome.status == status}


async def cancel_while_storing(store: HeldStore, load=given):
    """Cancel a job while the store is in its first transaction; release it, and wait."""
    processor = AsyncDocumentProcessor(
        load, embed=CountingEmbedder(), store=store, retry_count=3, batch_size=1
    )
    job = processor.start([Document(*each) for each in DOCUMENTS], on_current_loop=True)
    await asyncio.to_thread(store.begun.wait, 10)
    job.cancel()
    asyncio.get_running_loop().call_soon(store.released.set)
    return await job


@pytest.mark.parametrize("load", [given, lambda document: [document]], ids=["one", "list"])
async def test_documents_that_are_being_stored_when_the_run_is_cancelled_are_done(load):
    """They are in the store, and no others."""
    with HeldStore() as store:
        result = await cancel_while_storing(store, load)
        assert store.first
        assert ids_of(result, "done") == store.first == store.ids()
        assert len(ids_of(result, "failed")) == 0


async def test_documents_that_a_cancelled_run_could_not_store_are_cancelled():
    """Another attempt does not begin."""
    with HeldStore(OSError("disk full")) as store:
        result = await cancel_while_storing(store)
        assert store.first <= ids_of(result, "cancelled")
        assert ids_of(result, "done") == store.ids() == set()


async def test_a_function_that_is_storing_when_the_run_is_cancelled_ends():
    """Its document is done."""
    begun, released, stored = threading.Event(), threading.Event(), []

    def store(document, chunks, embeddings):
        begun.set()
        released.wait(10)
        stored.append(document.id)

    processor = AsyncDocumentProcessor(embed=CountingEmbedder(), store=store)
    job = processor.start(DOCUMENTS[:20], on_current_loop=True)
    await asyncio.to_thread(begun.wait, 10)
    job.cancel()
    asyncio.get_running_loop().call_soon(released.set)
    result = await job
    assert ids_of(result, "done") == set(stored)
    assert len(stored) == 1


async def test_an_async_function_that_is_storing_when_the_run_is_cancelled_has_its_outcome():
    """What it has stored is done, and no call begins after the cancellation."""
    stored: set[str] = set()

    async def store(document, chunks, embeddings):
        await asyncio.sleep(0.5)
        stored.add(document.id)

    processor = AsyncDocumentProcessor(
        embed=CountingEmbedder(), store=store, store_concurrency=4, batch_size=8
    )
    job = processor.start([Document(*each) for each in DOCUMENTS], on_current_loop=True)
    await asyncio.sleep(2.2)
    before = len(stored)
    job.cancel()
    result = await job
    await asyncio.sleep(5)
    assert ids_of(result, "done") == stored
    assert len(stored) == before + 4


def test_a_transaction_may_take_longer_than_the_time_limit_of_a_call():
    """The store has its own; what it stores is not counted as failed."""

    class SlowStore(SqliteStore):
        def upsert_many(self, requests, **embedder):
            time.sleep(0.1)
            return super().upsert_many(requests, **embedder)

    with SlowStore(":memory:") as store:
        stages = (Stage(each, timeout=60) for each in (given, words, CountingEmbedder()))
        processor = AsyncDocumentProcessor(*stages, store, timeout=0.02, retry_count=0)
        result = processor.process_sync(Document(*each) for each in DOCUMENTS)
        assert result.all_succeeded
        assert len(store.documents()) == len(DOCUMENTS)


@pytest.mark.parametrize("retries", [0, 1])
def test_a_late_call_that_has_stored_a_document_is_not_repeated(retries):
    """Nor is its document counted as failed."""
    stored = []

    def store(document, chunks, embeddings):
        if document.id == "d1":
            time.sleep(0.1)
        stored.append(document.id)

    processor = AsyncDocumentProcessor(
        embed=CountingEmbedder(),
        store=Stage(store, timeout=0.05, max_concurrency=4, retry=AsyncRetry(retries, 0.01)),
    )
    result = processor.process_sync(DOCUMENTS[:4])
    assert result.all_succeeded
    assert sorted(stored) == ["d0", "d1", "d2", "d3"]
