"""Several documents of one source: each is stored by itself, and the outcome is the source's."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
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


def lines(path: Path) -> list[str]:
    """Load a text a line."""
    return path.read_text().splitlines()


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


def sync_words(text: str) -> list[str]:
    """Cut a text into its words, on a thread or in another process."""
    return text.split()


def stored(store: SqliteStore) -> dict[str, list[str]]:
    """Return the chunks of each document."""
    frame = store.to_dataframe()
    return frame.groupby("document_id")["text"].apply(list).to_dict()


async def test_a_load_may_give_texts(table):
    """They get the id of their source with their numbers."""
    (done,) = (await processor(lines).process([table])).get_successful()
    assert (done.id, done.source) == (str(table), str(table))
    assert (done.document_count, done.chunk_count) == (3, 6)
    assert [each.id for each in done.documents] == [f"{table}//#{number}" for number in (1, 2, 3)]
    assert {each.source for each in done.documents} == {str(table)}
    assert repr(done) == f"<ProcessedDocument {str(table)!r}: 3 documents, 6 chunks>"


@pytest.mark.parametrize("load", [rows, rows_later, lambda path: iter(list(rows(path)))])
@pytest.mark.parametrize("chunk", [words, sync_words])
async def test_or_documents_from_any_iterable(table, store, load, chunk):
    """Generators too, whether the stages share a thread or are each their own."""
    processor = AsyncDocumentProcessor(load=load, chunk=chunk, store=store)
    (done,) = (await processor.process([table])).get_successful()
    assert (done.document_count, done.chunk_count, done.documents[2].chunk_count) == (3, 6, 3)
    assert stored(store) == {
        "one": ["one"],
        "two": ["two", "words"],
        "three": ["three", "more", "words"],
    }


@pytest.mark.real_time
async def test_they_may_be_loaded_in_another_process(table, store):
    """A list travels."""
    with ProcessPoolExecutor(1) as pool:
        processor = AsyncDocumentProcessor(load=lines, chunk=sync_words, store=store, executor=pool)
        (done,) = (await processor.process([table])).get_successful()
    assert (done.document_count, done.chunk_count) == (3, 6)


async def test_without_a_store_everything_is_in_the_result(table):
    """Under each of the documents."""
    (done,) = (await processor().process([table])).get_successful()
    assert (done.document, done.chunks, done.embeddings) == (None, None, None)
    assert [each.document.text for each in done.documents] == table.read_text().splitlines()
    assert [each.embeddings.shape for each in done.documents] == [(1, 1024), (2, 1024), (3, 1024)]


async def test_their_chunks_share_batches_with_each_other():
    """A thousand rows of a word are not a thousand calls."""
    embed = CountingEmbedder(0.1)

    def load(source: str) -> list[Document]:
        return [Document(f"{source}{number}", "word") for number in range(500)]

    result = await processor(load, embed=embed, batch_size=50).process(["a", "b"])
    assert [done.chunk_count for done in result.results] == [500, 500]
    assert len(embed.texts) == 1000
    assert len(embed.calls) == 20


async def test_a_source_may_give_none(table, store):
    """It is done, with nothing in it."""
    (done,) = (await processor(lambda _: [], store=store).process([table])).get_successful()
    assert (done.document_count, done.chunk_count, done.documents) == (0, 0, ())
    assert not done.unchanged


@pytest.mark.parametrize("load", [rows, rows_later])
async def test_some_that_fail_harm_no_other(table, store, load):
    """Their source fails, and its error says how many of how many, which, and why."""
    embed = CountingEmbedder(
        poison={"two": StatusError(400), "three": StatusError(400, message="no")}
    )
    result = await processor(load, embed=embed, store=store).process([table, Document("x", "x")])
    assert [outcome.status for outcome in result] == ["failed", "done"]
    assert sorted(stored(store)) == ["one", "x"]
    failed = result[0]
    assert failed.stage == "embed"
    assert str(failed.error) == (
        "2 of 3 documents failed, the first 'two' in stage embed: StatusError: status 400"
    )
    assert failed.error.ids == ("two", "three")
    assert failed.error.__notes__ == [
        "'two' in stage embed: StatusError: status 400",
        "'three' in stage embed: StatusError: no",
    ]


@pytest.mark.parametrize("later", [True, False])
async def test_one_that_cannot_be_cut_harms_no_other(table, store, later):
    """Also where all are cut in one call."""

    def cut(text: str) -> list[str]:
        if "two" in text:
            raise ValueError("no cut")
        return text.split()

    async def cut_later(text: str) -> list[str]:
        return cut(text)

    chunk = cut_later if later else cut
    result = await AsyncDocumentProcessor(load=rows, chunk=chunk, store=store).process([table])
    assert (result[0].status, result[0].stage) == ("failed", "chunk")
    assert str(result[0].error).startswith("1 of 3 documents failed, the first 'two' in stage")
    assert sorted(stored(store)) == ["one", "three"]


async def test_of_many_that_fail_the_first_are_told_of(store):
    """All of their ids are kept."""

    def load(source: str) -> list[Document]:
        return [Document(f"{source}{number}", "bad") for number in range(40)]

    embed = CountingEmbedder(poison={"bad": StatusError(400)})
    made = processor(load, embed=embed, store=store, max_initial_failures=None)
    (failed,) = (await made.process(["d"])).get_failed()
    assert len(failed.error.ids) == 40
    assert len(failed.error.__notes__) == 6
    assert failed.error.__notes__[-1] == "and 35 more; see the error's `ids`"


async def test_an_error_that_ends_the_run_ends_it_here_too(table):
    """A bad key is no document's."""
    embed = CountingEmbedder(poison={"two": StatusError(401)})
    result = await processor(embed=embed, batch_size=1).process([table] * 20)
    assert "a fatal error (in stage embed): StatusError: status 401" in result.stopped_because
    assert result.error_count == 1
    assert isinstance(result.get_failed()[0].error, StatusError)


async def test_two_of_one_id_are_refused(table):
    """One would replace the other, and chance would say which."""

    def load(path: Path) -> list[Document]:
        return [Document("same", "1"), Document("same", "2")]

    (failed,) = (await processor(load).process([table])).get_failed()
    assert failed.stage == "load"
    assert "two documents with the id 'same'" in str(failed.error)


@pytest.mark.parametrize("given", [("id", "text"), {"a": "b"}, b"text", [1], 5, None])
async def test_what_is_neither_is_refused(table, given):
    """A pair most of all: it could be an id and a text, or two texts."""
    (failed,) = (await processor(lambda _: given).process([table])).get_failed()
    assert isinstance(failed.error, TypeError)
    assert "load must return" in str(failed.error)


async def test_a_load_that_fails_midway_stores_nothing(table, store):
    """What came before is not the whole of the source."""

    def load(path: Path) -> Iterator[Document]:
        yield Document("first", "first")
        raise OSError("the rest cannot be read")

    (failed,) = (await processor(load, store=store).process([table])).get_failed()
    assert (failed.stage, str(failed.error)) == ("load", "the rest cannot be read")
    assert len(store.documents()) == 0


async def test_the_rows_of_a_table_are_documents_by_default(tmp_path, store):
    """The loader for CSV gives one a row."""
    (tmp_path / "t.csv").write_text("name,age\nAda,36\nAlan,41\n")
    (done,) = (await AsyncDocumentProcessor(store=store).process(tmp_path)).get_successful()
    assert (done.id, done.document_count) == (str(tmp_path / "t.csv"), 2)
    assert len(store.documents()) == 2
