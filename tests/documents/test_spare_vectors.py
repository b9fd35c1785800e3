"""Vectors of documents that a run gives up: paid for once, and kept for the next run."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragasync import note_usage
from ragasync.documents import (
    AsyncDocumentProcessor,
    Chunk,
    Document,
    MemoryStore,
    SqliteStore,
    Stage,
)

# Internals: what stores keep of spare vectors, which a run does not show.
from ragasync.documents.store import StoredEmbedder
from ragasync.documents.stores import LocalStore
from tests.support.embedders import CountingEmbedder, words
from tests.support.store_kinds import KINDS, opened

CHUNKS = 79
BIG = ("big", " ".join(f"word{number}" for number in range(CHUNKS)))


@pytest.fixture(params=KINDS)
def store(request, tmp_path) -> Iterator[Any]:
    """An empty store of each kind."""
    with opened(request.param, tmp_path) as store:
        yield store


class Metered(CountingEmbedder):
    """An embedder that reports a token for each text, and notes what was paid for."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.paid: list[str] = []

    async def __call__(self, texts: list[str]) -> np.ndarray:
        """Embed, and report."""
        rows = await super().__call__(texts)
        note_usage(tokens=len(texts))
        self.paid += texts
        return rows


def processor(store: Any, embed: Any, **settings: Any) -> AsyncDocumentProcessor:
    """A processor with a chunk for each word, and calls of four chunks, one at a time."""
    defaults = {"batch_size": 4, "embed_concurrency": 1, "chunk": words, "retry_count": 0}
    return AsyncDocumentProcessor(embed=embed, store=store, **defaults | settings)


def seen(store: Any) -> tuple[object, ...]:
    """Everything that a store shows of its documents."""
    hits = [store.search(text, k=100, mode="keyword").to_dataframe().shape for text in ("word1",)]
    listed = list(store.documents()), len(store), len(store.to_dataframe()), hits
    return *listed, store.stored_embedder()


# ── what is kept ────────────────────────────────────────────────────────────────────────────────


async def test_a_document_larger_than_the_budget_finishes_after_paying_each_chunk_once(store):
    """Four runs of 20 tokens for 79 chunks."""
    embed = Metered()
    statuses = []
    for _ in range(4):
        result = await processor(store, embed, max_tokens=20).process([BIG])
        statuses.append(result[0].status)
    assert statuses == ["pending", "pending", "pending", "done"]
    assert sorted(embed.texts) == sorted(BIG[1].split())
    assert len(store) == CHUNKS
    assert store.spare_embedder() is None


async def test_a_budget_over_all_runs_of_a_journal_goes_on_as_well(store, tmp_path):
    """With calls in flight at each stop, of which none is paid for twice."""
    embed = Metered()
    for number in range(1, 6):
        whole = processor(
            store,
            embed,
            embed_concurrency=3,
            max_tokens=20 * number,
            journal=tmp_path / "journal.sqlite",
        )
        result = await whole.process([BIG])
    assert result.all_succeeded
    assert result.usage.tokens == len(embed.texts) == CHUNKS


async def test_a_store_that_is_opened_again_has_them(tmp_path):
    """They are in its file."""
    embed = Metered()
    for _ in range(4):
        with SqliteStore(tmp_path / "store.sqlite") as store:
            result = await processor(store, embed, max_tokens=20).process([BIG])
    assert result.all_succeeded
    assert len(embed.texts) == CHUNKS


async def test_each_chunk_gets_its_own_vector(store):
    """Those of two runs are in their places."""
    embed = Metered()
    text = "a bb ccc dddd eeeee ffffff"
    await processor(store, embed, max_tokens=4).process([("a", text)])
    result = await processor(store, embed, keep_content=True).process([("a", text)])
    assert result[0].value.embeddings[:, 0].tolist() == [1, 2, 3, 4, 5, 6]
    assert sorted(embed.texts) == text.split()


async def test_a_chunk_that_fails_costs_the_others_of_its_document_nothing(store):
    """Also those of calls that were in flight when it failed."""
    embed = Metered(poison={"word40": ValueError("no")})
    whole = processor(store, embed, embed_concurrency=20)
    assert (await whole.process([BIG])).error_count == 1
    embed.poison, embed.calls = {}, []
    assert (await whole.process([BIG])).all_succeeded
    assert embed.texts == ["word40"]


async def test_a_document_that_cannot_be_stored_is_not_embedded_again(tmp_path):
    """Its vectors are all there."""

    class Refusing(SqliteStore):
        """A store that fails until it is told otherwise."""

        fails = True

        def upsert(self, document, *arguments, **names) -> None:
            """Store a document, unless its id says otherwise."""
            if self.fails:
                raise RuntimeError("not now")
            super().upsert(document, *arguments, **names)

    embed = Metered()
    with Refusing(tmp_path / "store.sqlite") as store:
        whole = processor(store, embed)
        first = await whole.process([BIG])
        assert first.errors_dataframe()["stage"].tolist() == ["store"]
        store.fails = False
        result = await first.retry_failed(whole)
        assert result.all_succeeded
        assert len(embed.texts) == CHUNKS == len(store)


@pytest.mark.parametrize("how", ["by its job", "with its task"])
async def test_a_run_that_is_cancelled_keeps_what_it_has(store, how):
    """Five calls have ended, and the sixth is cut off."""
    embed = Metered()
    whole = processor(store, embed)
    if how == "by its job":
        job = whole.start([BIG], on_current_loop=True)
    else:
        task = asyncio.create_task(whole.process([BIG]))
    await embed.called.wait()
    await asyncio.sleep(5.5)
    if how == "by its job":
        job.cancel()
        assert (await job).cancelled_count == 1
    else:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(embed.calls) == 6
    paid = [text for texts in embed.calls[:5] for text in texts]
    embed.calls = []
    assert (await whole.process([BIG])).all_succeeded
    assert sorted(embed.texts + paid) == sorted(BIG[1].split())


async def test_a_stream_that_is_left_keeps_what_it_has(store):
    """Of the document that was being embedded then."""
    embed = Metered()
    whole = processor(store, embed)
    async with aclosing(whole.stream([("small", "x y z w"), BIG])) as outcomes:
        async for _ in outcomes:
            await asyncio.sleep(3.5)
            break
    assert len(embed.paid) > 4
    assert (await whole.process([BIG])).all_succeeded
    assert sorted(embed.paid) == sorted(["w", "x", "y", "z", *BIG[1].split()])


async def test_vectors_of_many_failed_documents_are_written_during_the_run(store):
    """They do not stay in memory until its end."""
    embed = Metered(poison={"poison": ValueError("no")})
    written = []

    async def load(n: int) -> Document:
        written.append(store.spare_embedder() is not None)
        return Document(f"d{n}", f"{n}a {n}b {n}c {n}d poison{n}")

    whole = processor(store, embed, load=load, batch_size=5)
    failed = await whole.process(range(180))
    assert failed.error_count == 180
    assert written[-1]
    embed.poison, embed.calls = {}, []
    assert (await whole.process(range(180))).all_succeeded
    assert len(embed.texts) == 180


# ── what is not ─────────────────────────────────────────────────────────────────────────────────


async def test_nothing_shows_spare_vectors(store):
    """No search, count or list; and the store has no embedder yet."""
    before = seen(store)
    result = await processor(store, Metered(), max_tokens=20).process([BIG])
    assert result.pending_count == 1
    assert store.spare_embedder() is not None
    assert seen(store) == before
    assert store.vectors_of("counting", ["word0"]) == [None]
    assert store.get("big") is None


async def test_another_embedder_does_not_get_them(store):
    """By its name, its version or its dimension; and the others are gone when it keeps its own."""
    await processor(store, Metered(), max_tokens=20).process([BIG])
    others = [Metered(name="other"), Stage(Metered(), version="2"), Stage(Metered(), name="third")]
    for embed in others:
        result = await processor(store, embed, max_tokens=20).process([BIG])
        assert result.pending_count == 1
    for each in others:
        fn = each.fn if isinstance(each, Stage) else each
        assert len(fn.texts) == 20
    assert store.spare_embedder().name == "third"


async def test_a_function_with_changed_code_does_not_get_them(store):
    """It has no name, so its code identifies it."""

    async def embed(texts: list[str]) -> np.ndarray:
        note_usage(tokens=len(texts))
        return np.ones((len(texts), 2))

    first = embed

    async def embed(texts: list[str]) -> np.ndarray:  # its cell was edited
        note_usage(tokens=len(texts))
        return np.zeros((len(texts), 2))

    await processor(store, first, max_tokens=20).process([BIG])
    result = await processor(store, embed, keep_content=True).process([BIG])
    assert result.usage.tokens == CHUNKS
    assert not result[0].value.embeddings.any()


async def test_nothing_is_kept_without_the_cache(store):
    """Whoever turns it off wants every text embedded."""
    embed = Metered()
    await processor(store, embed, max_tokens=20, cache=False).process([BIG])
    assert store.spare_embedder() is None
    await processor(store, embed, max_tokens=20).process([BIG])
    await processor(store, embed, cache=False).process([BIG])
    assert len(embed.texts) == 40 + CHUNKS
    assert store.spare_embedder() is None  # the document is stored


async def test_vectors_of_several_dimensions_are_not_kept(store):
    """The document would fail for ever with those of the wrong one."""
    dimensions = iter([3, 3, 2, 2])

    class Changing(Metered):
        """An embedder whose service changes its mind."""

        async def __call__(self, texts: list[str]) -> np.ndarray:
            """Embed with the next dimension."""
            await super().__call__(texts)
            return np.ones((len(texts), next(dimensions, 2)))

    embed = Changing()
    whole = processor(store, embed, max_tokens=8)
    assert (await whole.process([BIG])).pending_count == 1
    again = processor(store, embed)
    failed = await again.process([BIG])
    assert "must give one dimension" in str(failed.errors[0])
    assert store.spare_embedder() is None
    assert (await again.process([BIG])).all_succeeded


async def test_a_vector_that_is_not_finite_is_not_kept(store):
    """The others of its document are."""

    class Nan(Metered):
        """An embedder that cannot embed a word."""

        async def __call__(self, texts: list[str]) -> np.ndarray:
            """Embed all but one."""
            rows = await super().__call__(texts)
            if not repaired.is_set():
                rows[[text == "word40" for text in texts]] = np.nan
            return rows

    repaired, embed = asyncio.Event(), Nan()
    await processor(store, embed).process([BIG])
    repaired.set()
    embed.calls.clear()
    assert (await processor(store, embed).process([BIG])).all_succeeded
    assert embed.texts == ["word40"]


async def test_deleting_documents_leaves_them_and_they_can_be_dropped(store):
    """They belong to no stored document."""
    await processor(store, Metered(), max_tokens=20).process([BIG])
    assert store.delete("big") is False
    assert store.spare_embedder() is not None
    store.drop_spare_vectors()
    store.drop_spare_vectors()
    assert store.spare_embedder() is None


async def test_a_run_whose_spare_vectors_cannot_be_written_warns_of_it(tmp_path):
    """The next run will pay for them again."""

    class Full(MemoryStore):
        """A store that has no room for them."""

        def add_spare_vectors(self, embedder, vectors) -> None:
            """Fail."""
            raise OSError("no space left")

    with Full() as store:
        with pytest.warns(UserWarning, match="of 20 chunks.*no space left"):
            result = await processor(store, Metered(), max_tokens=20).process([BIG])
        assert result.pending_count == 1


# ── the tables ──────────────────────────────────────────────────────────────────────────────────

EMBEDDER = StoredEmbedder("e", 2, "identity")


def vectors(*texts: str) -> dict[str, np.ndarray]:
    """Vectors with the length of each text."""
    return {text: np.array([len(text), 1], dtype=np.float32) for text in texts}


def found(store: LocalStore, *texts: str) -> list[str]:
    """Those texts that have a spare vector."""
    held = store.spare_vectors_of(EMBEDDER, texts)
    return [text for text, vector in zip(texts, held, strict=True) if vector is not None]


def test_a_vector_comes_back_as_it_was_kept(store):
    """As a copy that can be written to; also of a text that no file could hold."""
    store.add_spare_vectors(EMBEDDER, vectors("one", "\ud800"))
    for text in ("one", "\ud800"):
        [vector] = store.spare_vectors_of(EMBEDDER, [text])
        assert vector.dtype == np.float32
        assert vector.tolist() == [len(text), 1]
        vector[:] = 0
    assert found(store, "one", "two", "one") == ["one", "one"]
    for other in (("f", 2, "identity"), ("e", 3, "identity"), ("e", 2, "")):
        assert store.spare_vectors_of(StoredEmbedder(*other), ["one"]) == [None]


def test_the_oldest_make_room_for_new_ones(store, monkeypatch):
    """All together never take more than the bound."""
    monkeypatch.setattr("ragasync.documents.stores.sqlite_rows.SPARE_BYTES", 4 * 2 * 4)
    store.add_spare_vectors(EMBEDDER, vectors("a", "b", "c"))
    store.add_spare_vectors(EMBEDDER, vectors("a", "d", "e"))
    assert found(store, *"abcde") == ["a", "c", "d", "e"]
    store.add_spare_vectors(EMBEDDER, vectors(*"fghijk"))
    assert found(store, *"abcdefghijk") == ["h", "i", "j", "k"]


def test_a_vector_is_dropped_when_its_text_is_stored(store):
    """Of whatever document, by whoever stores it."""
    store.add_spare_vectors(EMBEDDER, vectors("one", "two", "three"))
    text = "one two"
    chunks = [Chunk("one", 0, 3), Chunk("two", 4, 7)]
    store.upsert(
        Document("a", text), chunks, np.ones((2, 2)), fingerprint="", embedder="e", identity="i"
    )
    assert found(store, "one", "two", "three") == ["three"]


def test_a_text_that_is_stored_needs_no_spare_vector(store):
    """A document that has the same text may have been stored in the meantime."""
    document, chunk = Document("a", "one"), Chunk("one", 0, 3)
    store.upsert(document, [chunk], np.ones((1, 2)), fingerprint="", embedder="e", identity="i")
    store.add_spare_vectors(EMBEDDER, vectors("one", "two"))
    assert found(store, "one", "two") == ["two"]


def test_the_embedder_of_spare_vectors_is_renamed_with_that_of_the_stored_ones(store):
    """A store that takes on another name keeps both."""
    store.upsert(
        Document("a", "x"),
        [Chunk("x", 0, 1)],
        np.ones((1, 2)),
        fingerprint="",
        embedder="e",
        identity="identity",
    )
    store.add_spare_vectors(EMBEDDER, vectors("one"))
    store.rename_embedder(EMBEDDER, "new", "other")
    assert store.spare_embedder() == store.stored_embedder() == StoredEmbedder("new", 2, "other")


def test_a_file_without_them_keeps_its_format(tmp_path):
    """A file of before there were any is opened and used; tables are made when they are needed."""
    path = tmp_path / "store.sqlite"
    SqliteStore(path).close()
    with closing(sqlite3.connect(path)) as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    assert not any("spare" in name for name in tables)
    with SqliteStore(path) as store:
        store.add_spare_vectors(EMBEDDER, vectors("one"))
    with SqliteStore(path) as store:
        assert found(store, "one") == ["one"]


def test_a_folder_of_lance_gets_a_file_only_when_there_are_some(tmp_path):
    """Reading makes none."""
    with opened("lance", tmp_path) as store:
        assert store.spare_embedder() is None
        assert not list(Path(store.path).glob("*.sqlite*"))
        store.add_spare_vectors(EMBEDDER, vectors("one"))
        assert [file.name for file in Path(store.path).glob("*.sqlite")]
