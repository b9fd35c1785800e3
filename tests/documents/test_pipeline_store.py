"""What is stored is stored once: unchanged, changed, mended, and run again."""

import asyncio
import os
import shutil
import sqlite3
from collections import Counter
from contextlib import closing

import pytest

from ragasync.documents import (
    AsyncDocumentProcessor,
    Document,
    RecursiveSplitter,
    SqliteStore,
    Stage,
)
from tests.support.embedders import CountingEmbedder, given, words
from tests.support.requirements import only_where
from tests.support.services import StatusError


@pytest.fixture
def store():
    """A store that ends with the test."""
    with SqliteStore(":memory:") as opened:
        yield opened


@pytest.fixture
def folder(tmp_path):
    """A folder of three files."""
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(f"the text of {name}")
    return tmp_path


class Memory:
    """A store that takes any embedder."""

    embedder = None

    def __init__(self) -> None:
        self.kept: dict[str, tuple] = {}

    def upsert(self, document, chunks, embeddings, *, fingerprint, embedder) -> None:
        """Keep a document."""
        self.kept[document.id] = (fingerprint, embedder, list(chunks))

    def fingerprint_of(self, document_id: str) -> str | None:
        """Return what it was kept with."""
        return self.kept.get(document_id, (None,))[0]


def unchanged(result) -> list[str]:
    """Return the documents that were not embedded again, by their ids without folders."""
    ids = [done.id for done in result.get_successful() if done.unchanged]
    return [id_.rpartition("/")[2] for id_ in ids]


async def test_what_a_store_keeps_the_result_does_not(store, folder):
    """Ids and counts, unless everything is asked for."""
    (done, *_) = (await AsyncDocumentProcessor(store=store).process(folder)).get_successful()
    path = str(folder / "a.txt")
    assert (done.id, done.source, done.chunk_count) == (path, path, 1)
    assert (done.document, done.chunks, done.embeddings) == (None, None, None)
    assert repr(done) == f"<ProcessedDocument {path!r}: 1 chunk>"


async def test_keep_all_keeps_it_beside_the_store(store):
    """Texts and vectors, as without a store."""
    processor = AsyncDocumentProcessor(store=store, keep_content=True)
    (done,) = (await processor.process([("a", "text")])).get_successful()
    assert (done.document.text, len(done.chunks), done.embeddings.shape) == ("text", 1, (1, 1024))
    assert len(store) == 1


async def test_a_second_run_embeds_nothing_and_stores_nothing_twice(store, folder):
    """It is cheap: what did not change is not even cut."""
    embed, cut = CountingEmbedder(), []

    def split(text: str) -> list[str]:
        cut.append(text)
        return [text]

    processor = AsyncDocumentProcessor(chunk=split, embed=embed, store=store)
    first = await processor.process(folder)
    assert (unchanged(first), len(embed.texts), len(cut), len(store)) == ([], 3, 3, 3)
    second = await processor.process(folder)
    assert unchanged(second) == ["a.txt", "b.txt", "c.txt"]
    assert (len(embed.texts), len(cut), len(store)) == (3, 3, 3)
    assert repr(second.results[0]) == f"<ProcessedDocument '{folder}/a.txt': unchanged>"


async def test_a_changed_document_replaces_its_old_chunks(store, folder):
    """And nothing else is embedded."""
    embed = CountingEmbedder()
    processor = AsyncDocumentProcessor(chunk=words, embed=embed, store=store)
    await processor.process(folder)
    (folder / "b.txt").write_text("shorter")
    result = await processor.process(folder)
    assert unchanged(result) == ["a.txt", "c.txt"]
    assert embed.texts[12:] == ["shorter"]
    assert [hit.text for hit in store.search("shorter", mode="keyword")] == ["shorter"]
    assert len(store) == 4 + 1 + 4


async def test_changed_metadata_is_a_change(store):
    """Searches may filter by it."""
    processor = AsyncDocumentProcessor(store=store)
    await processor.process([Document("a", "text", {"year": 2025})])
    assert unchanged(await processor.process([Document("a", "text", {"year": 2026})])) == []
    assert unchanged(await processor.process([Document("a", "text", {"year": 2026})])) == ["a"]


@pytest.mark.parametrize(
    "change",
    [
        {"chunk": RecursiveSplitter(500)},
        {"embed": CountingEmbedder(name="another")},
        {"embed": Stage(CountingEmbedder(), name="named")},
        {"version": "2"},
        {"load": lambda path: path.read_text()},
    ],
)
async def test_another_stage_or_version_embeds_everything_anew(folder, change):
    """What was stored came from other stages."""
    store, settings = Memory(), {"embed": CountingEmbedder()}
    await AsyncDocumentProcessor(**settings, store=store).process(folder)
    result = await AsyncDocumentProcessor(**(settings | change), store=store).process(folder)
    assert (result.success_count, unchanged(result)) == (3, [])
    again = await AsyncDocumentProcessor(**(settings | change), store=store).process(folder)
    assert len(unchanged(again)) == 3


async def test_concurrency_and_batch_size_are_no_change(store, folder):
    """Only what makes other chunks or vectors is."""
    embed = CountingEmbedder()
    await AsyncDocumentProcessor(embed=embed, store=store).process(folder)
    other = AsyncDocumentProcessor(
        embed=Stage(embed, batch_size=1), store=store, max_concurrency=1, retry_count=9
    )
    assert len(unchanged(await other.process(folder))) == 3


async def test_a_poison_chunk_leaves_the_old_version_in_the_store(store):
    """The document fails, and what can be found is what it was."""
    poison = {"poison": StatusError(400)}
    processor = AsyncDocumentProcessor(
        chunk=words, embed=CountingEmbedder(poison=poison), store=store
    )
    await processor.process([("a", "old words"), ("b", "others")])
    result = await processor.process([("a", "new poison"), ("b", "changed")])
    assert [outcome.status for outcome in result] == ["failed", "done"]
    assert sorted(store.to_dataframe()["text"]) == ["changed", "old", "words"]


async def test_an_empty_document_is_stored_and_known_again(store):
    """It has no chunks, and no call is made for it."""
    embed = CountingEmbedder()
    processor = AsyncDocumentProcessor(embed=embed, store=store)
    first = await processor.process([("a", " \n")])
    assert (first.results[0].chunk_count, len(store.documents()), embed.calls) == (0, 1, [])
    assert unchanged(await processor.process([("a", " \n")])) == ["a"]


async def test_a_document_is_done_only_when_the_store_has_acknowledged_it():
    """Not when it was handed over."""
    acknowledge = asyncio.Event()

    async def store(*parcel: object) -> None:
        await acknowledge.wait()

    processor = AsyncDocumentProcessor(given, words, CountingEmbedder(), store)
    job = processor.start([Document("a", "text")], on_current_loop=True)
    await asyncio.sleep(1000)
    assert job.progress.done == 0
    acknowledge.set()
    assert (await job).all_succeeded


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_store_may_be_a_function(is_async):
    """Of the document, its chunks and their vectors."""
    stored = []

    def put(document, chunks, embeddings) -> None:
        stored.append((document.id, [chunk.text for chunk in chunks], embeddings.tolist()))

    async def put_async(*parcel) -> None:
        put(*parcel)

    processor = AsyncDocumentProcessor(
        given, words, CountingEmbedder(), put_async if is_async else put
    )
    assert (await processor.process([Document("a", "one three")])).all_succeeded
    assert stored == [("a", ["one", "three"], [[3, 1], [5, 1]])]


async def test_a_store_may_have_settings_of_its_own(store):
    """A Store in a Stage is still a Store."""
    processor = AsyncDocumentProcessor(store=Stage(store, timeout=60))
    await processor.process([("a", "text")])
    assert unchanged(await processor.process([("a", "text")])) == ["a"]


async def test_the_store_can_search_by_the_embedder_that_filled_it(store):
    """Without being told."""

    def embed(texts: list[str]) -> list[list[float]]:
        return [[float(text.startswith("a")), 1.0] for text in texts]

    await AsyncDocumentProcessor(embed=embed, store=store).process([("x", "apple"), ("y", "pear")])
    assert store.search("avocado", 1, mode="vector")[0].text == "apple"


async def test_what_failed_can_be_run_again_when_its_cause_is_mended(store, tmp_path):
    """Only that, and with whatever processor fits it."""
    (tmp_path / "a.py").write_text("print('plain')")
    (tmp_path / "b.py").write_bytes("# coding: utf-8\nprint('äöü')".encode("latin-1"))
    embed = CountingEmbedder()
    result = await AsyncDocumentProcessor(embed=embed, store=store).process(tmp_path)
    assert [outcome.status for outcome in result] == ["done", "failed"]
    mended = AsyncDocumentProcessor(
        load=lambda path: path.read_text("latin-1"), embed=embed, store=store
    )
    whole = await result.retry_failed(mended)
    assert whole.all_succeeded
    assert [done.id for done in whole.get_successful()] == [
        str(tmp_path / name) for name in ("a.py", "b.py")
    ]
    assert (len(embed.texts), len(store.documents())) == (2, 2)


async def test_what_failed_can_be_run_again_when_its_file_is_mended(store, tmp_path):
    """With the same processor."""
    (tmp_path / "a.txt").write_bytes(b"a\0b")
    processor = AsyncDocumentProcessor(store=store)
    result = await processor.process(tmp_path)
    assert result.error_count == 1
    (tmp_path / "a.txt").write_text("text")
    assert (await result.retry_failed(processor)).all_succeeded


@only_where(os.name == "posix", "an open file is neither deleted nor replaced")
@pytest.mark.parametrize("how", ["deleted", "replaced"])
async def test_a_store_whose_file_is_lost_takes_no_more_documents(tmp_path, how):
    """The run stops, and no document is done that nobody can find again."""
    path, copy, calls = tmp_path / "store.sqlite", tmp_path / "copy", []

    def embed(texts: list[str]) -> list[list[float]]:
        calls.append(texts)
        if len(calls) == 4 and how == "deleted":
            path.unlink()
        elif len(calls) == 4:
            shutil.copy(path, copy)
            copy.replace(path)
        return [[1.0, 2.0] for _ in texts]

    with SqliteStore(path) as store:
        result = await AsyncDocumentProcessor(
            embed=Stage(embed, name="mine"), store=store, batch_size=1, embed_concurrency=1
        ).process([(f"d{number}", f"text {number}") for number in range(9)])
    assert sum(outcome.status == "done" for outcome in result) <= 3
    assert any(f"was {how}" in str(outcome.error) for outcome in result)


@only_where(os.name == "posix", "an open file is not renamed")
async def test_a_store_whose_file_gets_another_number_is_the_same(tmp_path):
    """As it does on some shares: a link in its place stands for the same file."""
    path = tmp_path / "store.sqlite"
    with SqliteStore(path) as store:
        processor = AsyncDocumentProcessor(store=store)
        assert (await processor.process([("a", "text")])).all_succeeded
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
        assert (await processor.process([("b", "text")])).all_succeeded


class CountedStore(SqliteStore):
    """A store that counts how often each document is to be stored."""

    def __init__(self, path, **options) -> None:
        super().__init__(path, **options)
        self.calls: Counter[str] = Counter()

    def upsert_many(self, requests, **embedder):
        """Count the documents of a group, and store it."""
        self.calls.update(request.document.id for request in requests)
        return super().upsert_many(requests, **embedder)


async def test_a_locked_store_is_not_searched_for_the_document_that_is_to_blame(tmp_path):
    """Each group is tried once and retried once as a whole, instead of each document alone."""
    sources = [(f"d{number}", "words of a text") for number in range(100)]
    processor = AsyncDocumentProcessor(
        store=(store := CountedStore(tmp_path / "store.sqlite", timeout=0.02)),
        retry_count=1,
        retry_delay=0.01,
    )
    with store, closing(sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.warns(UserWarning, match="could not be kept"):
            result = await processor.process(sources)
        assert result.error_count == len(sources)
        assert "locked by another process" in str(result.errors[0])
        assert set(store.calls.values()) == {2}
        other.execute("ROLLBACK")
        assert (await processor.process(sources)).all_succeeded
