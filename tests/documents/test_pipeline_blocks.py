"""Sources that are loaded and chunked in blocks on a thread; short texts are chunked in place."""

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from ragasync.documents import (
    AsyncDocumentProcessor,
    Document,
    MemoryStore,
    RecursiveSplitter,
    add_locations,
)

SHORT = Document("short", "One sentence. Another one.")


async def test_short_texts_are_chunked_in_place_like_on_a_thread():
    """A hand-over would take longer; the chunks and the counts are the same."""
    short = [Document(f"{number}.md", f"# Title\n\ntext {number}") for number in range(20)]
    in_place = await AsyncDocumentProcessor().process(short)
    with MemoryStore() as store:  # which has to be asked, on a thread
        on_threads = await AsyncDocumentProcessor(store=store, keep_content=True).process(short)
    assert [done.chunks for done in in_place.results] == [
        done.chunks for done in on_threads.results
    ]
    (stage, *_) = in_place.stats.stages
    assert (stage.name, stage.ended) == ("load and chunk", 20)


async def test_a_failure_in_place_names_its_stage_and_source():
    """As one on a thread does."""
    result = await AsyncDocumentProcessor().process([Document("bad", "half \ud800"), SHORT])
    assert (result[0].stage, result[1].status) == ("load", "done")
    assert "in stage load: 'bad'" in result[0].error.__notes__


@pytest.mark.real_time
@pytest.mark.parametrize("store", [None, MemoryStore])
async def test_a_custom_splitter_is_called_on_a_thread(store):
    """Its running time is unknown, so it must not hold the loop."""
    seen = []

    class Own(RecursiveSplitter):
        def __call__(self, document: Document | str) -> Any:
            seen.append(threading.current_thread() is threading.main_thread())
            return super().__call__(document)

    processor = AsyncDocumentProcessor(chunk=Own(), store=None if store is None else store())
    assert (await processor.process([SHORT])).all_succeeded
    assert seen == [False]


@pytest.mark.real_time
async def test_blocks_are_counted_with_their_stage():
    """The number of documents, and the time in calls."""
    texts = [(str(number), "Some words in a row. " * 500) for number in range(100)]
    result = await AsyncDocumentProcessor().process(texts)
    stats = {stage.name: stage for stage in result.stats.stages}
    assert stats["load and chunk"].ended == 100
    assert stats["load and chunk"].worked > 0


@pytest.mark.parametrize(
    "document",
    [
        Document("a.txt", "one\ntwo three\n\nfour"),
        Document("a.md", "# One\n\ntext\n\n## Two\nmore text here\n\n# Three"),
        Document("notes", "Title\n=====\n\ntext - and more\n- a list"),
        Document("a.v1/b", "# One\nin a folder whose name has a dot"),
        Document("a.py", "# no heading\nimport this"),
        Document("pages", "one two three four", {"page_starts": [0, 8], "line": 7}),
        Document("cells", "one\ntwo\nthree", {"cell_starts": [0, 4]}),
        Document("told", "one\ntwo\nthree", {"headings": [(4, 1)]}),
        Document("blank", "  \n "),
    ],
    ids=lambda document: document.id,
)
async def test_chunks_made_with_their_places_are_those_that_got_them_later(document: Document):
    """The short way of a run gives what the long one does, read-only too."""
    splitter = RecursiveSplitter(chunk_size=8)
    (outcome,) = await AsyncDocumentProcessor(chunk=splitter).process([document])
    made = outcome.value.chunks
    assert made == tuple(add_locations(document, splitter(document)))
    for chunk in made:
        with pytest.raises(TypeError):
            chunk.metadata["line"] = 0  # type: ignore[index]


async def test_documents_are_not_loaded_while_others_wait_for_room():
    """However many sources could be loaded quickly, what is in memory has a bound."""
    loaded: list[object] = []
    embedding, go_on = asyncio.Event(), asyncio.Event()

    def load(source):
        loaded.append(source)
        return Document(str(source), "word " * 400)

    async def embed(texts):
        embedding.set()
        await go_on.wait()
        return [[1.0]] * len(texts)

    processor = AsyncDocumentProcessor(
        load,
        lambda text: text.split(),
        embed,
        max_concurrency=2,
        embed_concurrency=8,
    )
    job = processor.start(range(1000), on_current_loop=True)
    await embedding.wait()
    await asyncio.sleep(1)
    # Two documents fill the room, two wait for it, and blocks were on their way.
    assert len(loaded) < 300
    go_on.set()
    assert (await job).success_count == 1000


@pytest.mark.parametrize("count", [1, 5, 40])
@pytest.mark.parametrize("how", ["list", "generator"])
async def test_the_last_partial_batch_leaves_when_the_last_source_has_been_read(how, count):
    """It does not wait for texts that cannot come any more."""
    loop = asyncio.get_running_loop()
    called_at = []

    async def embed(texts: list[str]) -> list[list[float]]:
        called_at.append(loop.time())
        return [[1.0, 0.0]] * len(texts)

    sources = [(f"{number}", "A bucket refills.") for number in range(count)]
    processor = AsyncDocumentProcessor(embed=embed)
    began = loop.time()
    result = await processor.process(sources if how == "list" else iter(sources))
    assert result.success_count == count
    assert max(called_at) - began < 0.001


async def test_a_store_whose_look_ups_take_long_is_asked_about_many_documents_in_each():
    """A query of 20 ms for each document would take longer than everything else."""

    class Slow(MemoryStore):
        asked: ClassVar[list[int]] = []

        def entries_of(self, document_ids: Sequence[str]) -> Any:
            time.sleep(0.02)
            self.asked.append(len(document_ids))
            return super().entries_of(document_ids)

    sources = [(f"d{number}", f"text {number}") for number in range(400)]
    with Slow() as store:
        assert (await AsyncDocumentProcessor(store=store).process(sources)).all_succeeded
        assert sum(store.asked) == len(sources)
        assert len(store.asked) < 100
