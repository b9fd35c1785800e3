"""Many documents of one source go through in turn, and are cancelled with their run."""

import asyncio

import pytest

from ragasync.documents import AsyncDocumentProcessor, Document, SqliteStore
from tests.support.embedders import CountingEmbedder, words


@pytest.fixture
def store():
    """A store that ends with the test."""
    with SqliteStore(":memory:") as opened:
        yield opened


def processor(load, **settings) -> AsyncDocumentProcessor:
    """Return a processor that embeds words."""
    return AsyncDocumentProcessor(load=load, chunk=words, **settings)


async def test_more_rows_than_there_is_room_for_go_through(store):
    """They wait outside in turn, and other sources go on beside them."""
    embed = CountingEmbedder(0.01)

    def load(source: str) -> list[Document]:
        return [Document(f"{source}{number}", f"{source} {number}") for number in range(300)]

    settings = {"embed": embed, "store": store, "batch_size": 2, "embed_concurrency": 2}
    result = await processor(load, **settings, max_concurrency=2).process(["a", "b", "c"])
    assert [done.chunk_count for done in result.results] == [600, 600, 600]
    assert len(store.documents()) == 900


@pytest.mark.parametrize(
    ("with_store", "room"), [(False, 8), (True, 12 + 512)], ids=["no store", "stored in groups"]
)
async def test_few_of_many_rows_are_under_way_at_once(store, with_store, room):
    """As many as there is room for, and those at the entrance: the others are rows yet."""
    embed = CountingEmbedder(60)

    def load(source: str) -> list[Document]:
        return [Document(f"{number}", "two words") for number in range(300)]

    settings = {"embed": embed, "batch_size": 2, "embed_concurrency": 2, "max_concurrency": 2}
    settings["store"] = store if with_store else None
    job = processor(load, **settings).start(["a"], on_current_loop=True)
    await embed.called.wait()
    await asyncio.sleep(1)
    under_way = [task for task in asyncio.all_tasks() if task.get_name() == "ragasync document"]
    assert len(under_way) == room / 2 + 2
    job.cancel()
    await job


async def test_a_cancelled_run_leaves_none_of_them_behind():
    """They are cancelled with the run, and what was under way with them."""
    embed = CountingEmbedder(60)
    job = processor(lambda _: [Document("a", "one"), Document("b", "two")], embed=embed).start(
        ["x"], on_current_loop=True
    )
    await embed.called.wait()
    job.cancel()
    result = await job
    assert result[0].status == "cancelled"
    assert embed.in_flight == 0
