"""Short documents that nothing stores wait for the embedder without a worker."""

import asyncio
import copy
import dataclasses
import pickle
from collections.abc import Iterator

import numpy as np
import pytest

from ragasync import note_usage
from ragasync.documents import (
    AsyncDocumentProcessor,
    Chunk,
    Document,
    ProcessedDocument,
    RecursiveSplitter,
)
from tests.support.embedders import CountingEmbedder
from tests.support.services import StatusError

COUNT = 300


def documents(count: int = COUNT) -> list[Document]:
    """Documents of a chunk each."""
    return [Document(f"d{number}", f"text {number}") for number in range(count)]


def processor(embed: CountingEmbedder, **settings: object) -> AsyncDocumentProcessor:
    """A processor with two concurrent calls of ten chunks."""
    arguments = {"embed_concurrency": 2, "batch_size": 10, "retry_count": 0} | settings
    return AsyncDocumentProcessor(embed=embed, **arguments)


async def test_a_cancelled_job_keeps_what_is_done_and_gives_up_the_rest():
    """Each document has one state, and the embedder is not called for those given up."""
    embed = CountingEmbedder()
    job = processor(embed).start(documents(), on_current_loop=True)
    await asyncio.sleep(3.5)
    in_flight = job.progress.in_flight
    job.cancel()
    result = await job
    statuses = [outcome.status for outcome in result]
    assert statuses.count("done") == 60
    assert statuses.count("cancelled") == in_flight > 0
    assert len(statuses) == COUNT
    called = len(embed.calls)
    await asyncio.sleep(10)
    assert (len(embed.calls), embed.in_flight) == (called, 0)


async def test_a_stopped_job_finishes_what_is_in_a_call():
    """The rest stays pending, and is what the next run does."""
    embed = CountingEmbedder()
    result = await processor(embed, max_seconds=3.5).process(documents())
    assert (result.success_count, result.pending_count) == (80, COUNT - 80)
    assert len(embed.texts) == 80
    again = await result.retry_failed(processor(embed), only=result.unfinished)
    assert again.all_succeeded
    assert sorted(embed.texts) == sorted(document.text for document in documents())


async def test_documents_are_read_only_while_there_is_room_for_their_chunks():
    """Memory is bounded: twice what the calls take is in progress, not the whole input."""
    read = 0

    def source() -> Iterator[Document]:
        nonlocal read
        for document in documents(2_000):
            read += 1
            yield document

    embed = CountingEmbedder()
    job = processor(embed).start(source(), on_current_loop=True)
    for second in range(1, 20):
        await asyncio.sleep(1.0)
        assert 20 * second <= read <= 20 * second + 120
    job.cancel()
    await job


async def test_the_first_call_starts_when_a_batch_is_full():
    """Not when there is no room for further documents."""
    read = 0
    read_at_call: list[int] = []

    def source() -> Iterator[Document]:
        nonlocal read
        for document in documents(2_000):
            read += 1
            yield document

    async def embed(texts: list[str]) -> np.ndarray:
        read_at_call.append(read)
        await asyncio.sleep(1.0)
        return np.ones((len(texts), 2), dtype=np.float32)

    job = processor(embed, embed_concurrency=8).start(source(), on_current_loop=True)
    await asyncio.sleep(0.5)
    job.cancel()
    await job
    assert len(read_at_call) == 8
    assert all(at <= 20 * call for call, at in enumerate(read_at_call, start=1))


@pytest.mark.parametrize(
    "document",
    [
        Document("plain.txt", "One line.\n\n" + "A sentence of several words. " * 200),
        Document("guide", "# Limits\n\n" + "A bucket refills. " * 90 + "\n\n## Retries\n\nWait."),
        Document("page.txt", "word " * 600, {"page_starts": [0, 1_500], "lang": "en"}),
        Document("row.csv", "word " * 600, {"line": 7}),
        Document("legacy.txt", "word " * 300, {"encoding": "cp1252", "encoding_confidence": 0.9}),
        Document("中文", "短句。" * 700),
        Document("empty.txt", ""),
    ],
    ids=lambda document: document.id,
)
async def test_results_are_those_of_documents_that_take_the_long_way(document):
    """Its chunks and vectors are made when they are read, with the same locations."""

    def split(text: str) -> list[Chunk]:
        return RecursiveSplitter()(text)

    async def embed(texts: list[str]) -> np.ndarray:
        note_usage(tokens=sum(map(len, texts)))
        return np.array([[len(text), 1.0] for text in texts], dtype=np.float32)

    results = []
    for chunk in (RecursiveSplitter(), split):
        (done,) = (
            await AsyncDocumentProcessor(chunk=chunk, embed=embed).process([document])
        ).results
        results.append(done)
        for made in (copy.copy(done), pickle.loads(pickle.dumps(done)), dataclasses.replace(done)):
            assert made.chunks == done.chunks
            assert np.array_equal(made.embeddings, done.embeddings)
            assert repr(made) == repr(done)
    ours, other = results
    assert ours.chunks is ours.chunks  # made once
    for field in dataclasses.fields(ProcessedDocument):
        if field.name != "embeddings":
            assert getattr(ours, field.name) == getattr(other, field.name), field.name
    assert np.array_equal(ours.embeddings, other.embeddings)
    assert ours.embeddings.dtype == np.float32
    with pytest.raises(AttributeError, match="'chunk'"):
        _ = ours.chunk


async def test_a_failure_is_that_of_its_own_document():
    """The neighbours in its batch are embedded, and the error names the chunk."""
    embed = CountingEmbedder(poison={"text 77": StatusError(400)})
    result = await processor(embed).process(documents(100))
    (failed,) = [outcome for outcome in result if outcome.status == "failed"]
    assert (failed.item.id, failed.stage, result.success_count) == ("d77", "embed", 99)
    assert "chunk 1 of 1" in "".join(failed.error.__notes__)


async def test_no_two_documents_share_a_row_of_the_timeline():
    """Each has a number of its own while it is in progress."""
    result = await processor(CountingEmbedder()).process(documents())
    rows: dict[int, float] = {}
    for outcome in sorted(result, key=lambda outcome: outcome.started):
        assert rows.get(outcome.worker, 0.0) <= outcome.started + 1e-9
        rows[outcome.worker] = outcome.started + outcome.seconds
    assert 10 < len(rows) <= 90


def test_an_interrupt_in_the_embedder_ends_the_run():
    """As for any other function."""

    async def embed(texts: list[str]) -> list[list[float]]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        AsyncDocumentProcessor(embed=embed).process_sync(documents(20))


async def test_a_slow_reader_of_a_stream_holds_the_run_back():
    """Documents that nobody has read yet are bounded."""
    embed = CountingEmbedder(0.001)
    stream = processor(embed).stream(documents(2_000))
    async for _ in stream:
        await asyncio.sleep(1.0)
        if len(embed.calls) > 20:
            break
    ended = len(embed.texts)
    assert ended < 1_000
    await stream.aclose()


async def test_settings_that_change_during_a_run_hold():
    """More room for chunks is used at once, less is kept to."""
    embed = CountingEmbedder()
    job = processor(embed).start(documents(2_000), on_current_loop=True)
    await asyncio.sleep(2.5)
    job.embed_concurrency = 5
    await asyncio.sleep(3)
    assert embed.in_flight == 5
    job.embed_concurrency = 1
    await asyncio.sleep(3)
    assert embed.in_flight == 1
    job.cancel()
    await job
