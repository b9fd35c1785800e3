"""Chunks as a table, from a result or from a store; and the stages that made them."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from ragasync import RateLimiter
from ragasync.documents import (
    AsyncDocumentProcessor,
    Chunk,
    Document,
    MemoryStore,
    ProcessedDocument,
    SqliteStore,
    chunks_dataframe,
    documents_dataframe,
    stages_dataframe,
)
from tests.support.document_tables import CHUNKS, STAGES, dtypes_of, exact, rows, texts
from tests.support.embedders import CountingEmbedder, words
from tests.support.results import done, result_of

# ── a row a chunk ───────────────────────────────────────────────────────────────────────────


async def test_each_chunk_that_was_kept_has_a_row_with_its_place():
    """Offsets that lead back into the text, line, heading, and its vector."""
    text = "# Install\n\nFirst this.\n\n## On Linux\n\nThen that.\n"
    document = Document("a.md", text, {"tongue": "en"})
    splitter = AsyncDocumentProcessor(chunk=lambda text: text.strip().split("\n\n"))
    result = await splitter.process([document, ("b", "more")])
    frame = chunks_dataframe(result)
    assert dtypes_of(frame) == CHUNKS
    assert rows(frame, "index", "document_id", "ordinal", "line", "page", "heading") == [
        (0, "a.md", 0, 1, None, "Install"),
        (0, "a.md", 1, 3, None, "Install"),
        (0, "a.md", 2, 5, None, "Install > On Linux"),
        (0, "a.md", 3, 7, None, "Install > On Linux"),
        (1, "b", 0, 1, None, None),
    ]
    for row in frame[frame["index"] == 0].itertuples():
        assert text[row.start : row.end] == row.text
        assert row.metadata["tongue"] == "en"
    first = result[0].value
    assert first is not None
    assert np.array_equal(np.stack(frame.embedding[:4]), first.embeddings)


async def test_the_chunks_of_several_documents_lead_back_to_their_one_source():
    """Its index, and ids of their own."""

    async def load(source: str) -> list[Document]:
        return texts("one two", "three")

    result = await AsyncDocumentProcessor(load=load, chunk=words).process(["x", "y"])
    frame = chunks_dataframe(result)
    assert rows(frame, "index", "document_id", "ordinal", "text")[:3] == [
        (0, "a", 0, "one"),
        (0, "a", 1, "two"),
        (0, "b", 0, "three"),
    ]
    assert len(frame) == 6


async def test_the_chunks_of_a_store_have_the_same_columns(tmp_path: Path):
    """But for the source's place in a run, and for vectors."""
    with SqliteStore(tmp_path / "store.sqlite") as store:
        await AsyncDocumentProcessor(store=store).process([("a", "# Top\n\none text")])
        frame = chunks_dataframe(store)
    expected = {name: kind for name, kind in CHUNKS.items() if name not in ("index", "embedding")}
    assert dtypes_of(frame) == expected
    assert rows(frame, "document_id", "line", "page", "heading") == [("a", 1, None, "Top")]


async def test_a_result_whose_chunks_a_store_has_says_so():
    """An empty table would look as if nothing had been cut."""
    result = await AsyncDocumentProcessor(store=MemoryStore()).process([("a", "one text")])
    with pytest.raises(ValueError, match=r"chunks_dataframe\(store\)"):
        chunks_dataframe(result)
    kept = await AsyncDocumentProcessor(store=MemoryStore(), keep_content=True).process(
        [("a", "one")]
    )
    assert len(chunks_dataframe(kept)) == 1


async def test_a_result_warns_of_documents_whose_chunks_only_the_store_has():
    """Those that the store had already are left out, also with keep_content."""
    processor = AsyncDocumentProcessor(store=MemoryStore(), keep_content=True)
    await processor.process([("a", "one"), ("b", "two")])
    result = await processor.process([("a", "one"), ("b", "two"), ("c", "three")])
    with pytest.warns(UserWarning, match="chunks of 2 documents are left out") as caught:
        frame = chunks_dataframe(result)
    assert caught[0].filename == __file__
    assert list(frame["document_id"]) == ["c"]
    with pytest.raises(ValueError, match="keeps those of new and changed documents"):
        chunks_dataframe(await processor.process([("a", "one")]))


def test_places_that_are_no_places_are_missing():
    """A document's own metadata may use the same words for something else."""
    document = Document("a", "one", {"page": "iv", "line": True, "heading": 3})
    value = ProcessedDocument("a", None, 1, document=document, chunks=(Chunk("one", 0, 3),))
    frame = chunks_dataframe(result_of([done(0, value=value)]))
    assert rows(frame, "line", "page", "heading", "embedding") == [(None, None, None, None)]


# ── a row a stage ───────────────────────────────────────────────────────────────────────────


async def test_each_stage_has_a_row_with_its_calls_and_failures():
    """Exact on the virtual clock: loads of two seconds, calls of the embedder of one."""

    async def load(source: str) -> Document:
        await asyncio.sleep(2.0)
        if source == "three":
            raise ValueError("unreadable")
        return Document(source, source)

    embedder = CountingEmbedder(poison={"bad": ConnectionError("away")})
    processor = AsyncDocumentProcessor(
        load=load,
        chunk=words,
        embed=embedder,
        max_concurrency=2,
        batch_size=1,
        embed_concurrency=1,
        retry_count=1,
        retry_delay=0.0,
    )
    result = await processor.process(["one", "bad", "three", "four"])
    frame = stages_dataframe(result)
    assert dtypes_of(frame) == STAGES
    assert rows(frame, "stage", "max_concurrency", "calls", "items", "failed") == [
        ("load", 2, 4, 4, 1),
        ("chunk", 2, 3, 3, 0),
        ("embed", 1, 4, 3, 1),
    ]
    assert list(frame.worked) == pytest.approx([8.0, 0.0, 4.0])
    assert list(frame.busy) == pytest.approx([8 / 2 / result.seconds, 0, 4 / result.seconds])


async def test_waits_for_the_limiter_are_told_from_work():
    """Together they are what a stage was busy with."""
    limiter = RateLimiter(1, burst_size=1)
    processor = exact(
        embed=CountingEmbedder(0.25), rate_limiter=limiter, batch_size=1, embed_concurrency=1
    )
    (embed,) = stages_dataframe(await processor.process(texts("a b c d"))).tail(1).itertuples()
    assert (embed.worked, embed.waited) == pytest.approx((1.0, 2.25))
    assert embed.busy == pytest.approx(1.0, abs=0.01)


async def test_failures_of_load_and_chunk_count_for_the_call_that_does_both(tmp_path: Path):
    """The default of both is one call, whose failures tell the two apart."""

    def cut(text: str) -> list[str]:
        if "bad" in text:
            raise ValueError("cannot be cut")
        return [text]

    (tmp_path / "a.txt").write_text("bad")
    (tmp_path / "b.txt").write_bytes(b"")
    result = await AsyncDocumentProcessor(chunk=cut).process(tmp_path)
    first = stages_dataframe(result).iloc[0]
    assert (first.stage, first.failed, first["items"]) == ("load and chunk", 2, 2)
    assert sorted(documents_dataframe(result).stage) == ["chunk", "load"]
