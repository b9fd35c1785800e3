"""The embedding cache: what the store has of the same embedder is not embedded again."""

import numpy as np
import pytest

from ragasync.documents import AsyncDocumentProcessor, Document, RecursiveSplitter, SqliteStore
from tests.support.embedders import CountingEmbedder, words


@pytest.fixture
def store():
    """A store that ends with the test."""
    with SqliteStore(":memory:") as opened:
        yield opened


def paragraphs_of_their_own(count: int) -> list[str]:
    """Return so many paragraphs, each of which makes a chunk of its own."""
    return [f"Paragraph {number} says {number * 7919} of its own. " * 5 for number in range(count)]


def text_of(paragraphs: list[str]) -> str:
    """Return them as one text."""
    return "\n\n".join(paragraphs)


@pytest.mark.parametrize("concerns", ["one hop", "stages of their own"])
async def test_a_line_that_is_edited_embeds_its_chunk_alone(store, concerns):
    """Of a hundred; all of them are stored, with the vectors that they had."""
    splitter, embed = RecursiveSplitter(200, 0), CountingEmbedder()

    async def split(text: str) -> list:
        return splitter(text)

    chunk = splitter if concerns == "one hop" else split
    processor = AsyncDocumentProcessor(chunk=chunk, embed=embed, store=store)
    paragraphs = paragraphs_of_their_own(100)
    await processor.process([("a", text_of(paragraphs))])
    assert len(embed.texts) == 100
    paragraphs[50] = paragraphs[50].replace("says", "told", 1)
    embed.calls.clear()
    (done,) = (await processor.process([("a", text_of(paragraphs))])).get_successful()
    assert len(embed.texts) == 1
    assert (done.chunk_count, done.unchanged) == (100, False)
    assert len(store) == 100
    assert [hit.text for hit in store.search("told", mode="keyword")] == embed.texts


async def test_each_chunk_keeps_its_own_vector(store):
    """New ones come between the old in their places."""
    processor = AsyncDocumentProcessor(
        chunk=words, embed=CountingEmbedder(), store=store, keep_content=True
    )
    await processor.process([("a", "a bb ccc")])
    (done,) = (await processor.process([("a", "dddd a eeeee ccc bb")])).get_successful()
    assert done.embeddings[:, 0].tolist() == [4, 1, 5, 3, 2]
    assert done.embeddings.dtype == np.float32


async def test_a_document_of_known_chunks_alone_needs_no_call(store):
    """Its words were only moved, or are those of another document."""
    embed = CountingEmbedder()
    processor = AsyncDocumentProcessor(chunk=words, embed=embed, store=store)
    await processor.process([("a", "one two three")])
    embed.calls.clear()
    result = await processor.process([("a", "three one two"), ("b", "two one")])
    assert embed.calls == []
    assert [done.chunk_count for done in result.results] == [3, 2]
    assert len(store) == 5


async def test_the_cache_can_be_switched_off(store):
    """Then everything that changed is embedded anew."""
    embed = CountingEmbedder()
    processor = AsyncDocumentProcessor(chunk=words, embed=embed, store=store, cache=False)
    await processor.process([("a", "one two")])
    await processor.process([("a", "two one")])
    assert embed.texts == ["one", "two", "two", "one"]


async def test_another_version_chunks_again_and_keeps_the_vectors_of_unchanged_texts(store):
    """It stands in place of code; and the cache is on for new documents too."""
    embed = CountingEmbedder()
    settings = {"chunk": words, "embed": embed, "store": store}
    await AsyncDocumentProcessor(**settings).process([("a", "one two")])
    embed.calls.clear()
    changed = AsyncDocumentProcessor(**settings, version="2")
    result = await changed.process([("a", "one two"), ("b", "two one")])
    assert [done.unchanged for done in result.get_successful()] == [False, False]
    assert embed.texts == []
    await changed.process([("a", "one two three"), ("c", "two one")])
    assert embed.texts == ["three"]


class Asked:
    """A store that counts how often it is asked, and says what it is told to."""

    embedder = None

    def __init__(self, known: object = ()) -> None:
        self.known, self.asked = known, []

    def upsert(self, document, chunks, embeddings, *, fingerprint, embedder) -> None:
        """Take it."""

    def fingerprint_of(self, document_id: str) -> None:
        """Know nothing."""

    def vectors_of(self, embedder: str, texts: list[str]) -> object:
        """Note the question."""
        self.asked.append((embedder, list(texts)))
        return self.known


async def test_a_store_is_asked_once_a_document():
    """With all its texts, under the embedder's name; not for a document without any."""
    store = Asked(known=[None, None])
    processor = AsyncDocumentProcessor(chunk=words, embed=CountingEmbedder(), store=store)
    await processor.process([("a", "one two"), ("b", ""), ("c", "three four")])
    assert sorted(store.asked) == [("counting", ["one", "two"]), ("counting", ["three", "four"])]


async def test_a_store_that_answers_for_fewer_texts_fails_the_document():
    """Which vector would be whose?"""
    store = Asked(known=[None])
    processor = AsyncDocumentProcessor(chunk=words, embed=CountingEmbedder(), store=store)
    (failed,) = (await processor.process([("a", "one two")])).get_failed()
    assert failed.stage == "store"
    assert "got 1 for 2 texts" in str(failed.error)


async def test_known_vectors_of_another_dimension_are_refused():
    """They cannot be compared with the new ones."""
    store = Asked(known=[np.ones(3, dtype=np.float32), None])
    processor = AsyncDocumentProcessor(chunk=words, embed=CountingEmbedder(), store=store)
    (failed,) = (await processor.process([Document("a", "one two")])).get_failed()
    assert "an embedder must give one dimension" in str(failed.error)
