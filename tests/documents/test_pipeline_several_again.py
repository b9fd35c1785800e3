"""Several documents of one source, run again: each is recognised by itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ragasync.documents import AsyncDocumentProcessor, Document, SqliteStore
from tests.support.embedders import CountingEmbedder, words
from tests.support.services import StatusError


@pytest.fixture
def store():
    """A store that ends with the test."""
    with SqliteStore(":memory:") as opened:
        yield opened


@pytest.fixture
def table(tmp_path) -> Path:
    """A file of three lines."""
    path = tmp_path / "table.txt"
    path.write_text("one\ntwo words\nthree more words\n")
    return path


def rows(path: Path) -> Iterator[Document]:
    """Yield a document a line, under the line's first word."""
    for line in path.read_text().splitlines():
        yield Document(line.split()[0], line, source=str(path))


async def rows_later(path: Path) -> list[Document]:
    """Do the same on the loop, so that every stage is one of its own."""
    return list(rows(path))


def processor(load=rows, **settings) -> AsyncDocumentProcessor:
    """Return a processor that embeds words."""
    return AsyncDocumentProcessor(load=load, chunk=words, **settings)


@pytest.mark.parametrize("load", [rows, rows_later])
async def test_a_second_run_embeds_only_what_is_new_or_changed(table, store, load):
    """Each document is recognised by itself."""
    embed = CountingEmbedder()
    source_processor = processor(load, embed=embed, store=store, cache=False)
    await source_processor.process([table])
    (again,) = (await source_processor.process([table])).get_successful()
    assert (again.unchanged, again.document_count, again.chunk_count) == (True, 3, None)
    table.write_text("one\ntwo changed\nthree more words\nfour\n")
    embed.calls.clear()
    (done,) = (await source_processor.process([table])).get_successful()
    assert [each.unchanged for each in done.documents] == [True, False, True, False]
    assert (done.unchanged, done.document_count, done.chunk_count) == (False, 4, 3)
    assert sorted(embed.texts) == ["changed", "four", "two"]


async def test_what_failed_is_all_that_a_second_run_embeds(table, store):
    """The others were stored."""
    embed = CountingEmbedder(poison={"two": StatusError(400)})
    source_processor = processor(embed=embed, store=store, cache=False)
    await source_processor.process([table])
    embed.poison = {}
    embed.calls.clear()
    assert (await source_processor.process([table])).all_succeeded
    assert sorted(embed.texts) == ["two", "words"]


async def test_a_journal_knows_all_of_them(table, store, tmp_path):
    """A second run does not even load them, and gives the same result."""
    journal = tmp_path / "run.sqlite"
    first = await processor(store=store, journal=journal).process([table])
    second = await processor(store=store, journal=journal).process([table])
    assert [outcome.attempts for outcome in second] == [0]
    assert second.results == first.results
    assert second.results[0].documents[1].chunk_count == 2


async def test_a_journal_is_not_believed_where_the_store_has_lost_one(table, store, tmp_path):
    """The source is done again, of which the others are unchanged."""
    journal = tmp_path / "run.sqlite"
    await processor(store=store, journal=journal).process([table])
    store.delete("two")
    (outcome,) = await processor(store=store, journal=journal).process([table])
    assert outcome.attempts == 1
    assert [each.unchanged for each in outcome.value.documents] == [True, False, True]


async def test_a_journal_keeps_all_there_is_without_a_store(table, tmp_path):
    """Texts and vectors of each."""
    journal = tmp_path / "run.sqlite"
    first = await processor(journal=journal).process([table])
    second = await processor(journal=journal).process([table])
    assert [outcome.attempts for outcome in second] == [0]
    for before, after in zip(first.results[0].documents, second.results[0].documents, strict=True):
        assert (after.document, after.chunks) == (before.document, before.chunks)
        assert (after.embeddings == before.embeddings).all()
