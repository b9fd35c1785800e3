"""One source an id also in runs that go on: with a journal, after failures, and two at once."""

import asyncio
import os

import numpy as np
import pytest

from ragasync import Journal, JournaledError
from ragasync.documents import AsyncDocumentProcessor, Document, IdConflictError, Stage
from tests.support.embedders import CountingEmbedder, words
from tests.support.store_kinds import KINDS, opened


@pytest.fixture(params=KINDS)
def store(request, tmp_path_factory):
    """An empty store of each kind."""
    with opened(request.param, tmp_path_factory.mktemp("store")) as empty:
        yield empty


def fetch(url: str) -> Document:
    """Load a page; all of one host have one id."""
    host = url.split("/")[2]
    if url.endswith("broken"):
        raise ValueError(f"{url} is broken")
    return Document(host, f"text of {url}")


def statuses(result) -> list[str]:
    """Return what became of each item."""
    return [outcome.status for outcome in result]


PAGES = ["http://a/1", "http://b/1", "http://a/2"]


@pytest.mark.parametrize("load", [fetch, lambda url: [fetch(url)]])
async def test_a_retry_refuses_what_the_run_refused(store, load):
    """However often: the source that was first keeps its id."""
    processor = AsyncDocumentProcessor(load=load, store=store)
    result = await processor.process(PAGES)
    for _ in range(3):
        assert statuses(result) == ["done", "done", "failed"]
        assert store.get("a").text == "text of http://a/1"
        result = await result.retry_failed(processor)


async def test_a_retry_gives_the_ids_in_the_order_of_the_sources():
    """Of two that failed before, the earlier has the id; of done ones nothing is loaded again."""
    loaded: list[str] = []
    broken = {"http://a/1", "http://a/2"}

    def load(url: str) -> Document:
        loaded.append(url)
        if url in broken:
            raise ValueError("not yet")
        return fetch(url)

    processor = AsyncDocumentProcessor(load=load)
    result = await processor.process([*PAGES, "http://b/2"])
    assert statuses(result) == ["failed", "done", "failed", "failed"]
    broken.clear()
    loaded.clear()
    result = await result.retry_failed(processor)
    assert statuses(result) == ["done", "done", "failed", "failed"]
    assert sorted(loaded) == ["http://a/1", "http://a/2", "http://b/2"]
    assert [type(result.errors[row]) for row in (2, 3)] == [IdConflictError] * 2


async def test_a_retry_knows_texts_and_files_that_were_given(store, tmp_path):
    """A loader's document may have the id of one, whether that is done or tried again."""
    (tmp_path / "a.txt").write_text("the file")
    ready = False

    def load(item: object) -> Document:
        if isinstance(item, str) and not ready:
            raise ValueError("not yet")
        return Document("mine", "of a loader") if isinstance(item, str) else Document("f", "file")

    processor = AsyncDocumentProcessor(load=load, store=store)
    result = await processor.process([Document("mine", "given"), "loaded", tmp_path / "a.txt"])
    ready = True
    result = await result.retry_failed(processor)
    assert isinstance(result.errors[1], IdConflictError)
    assert store.get("mine").text == "given"
    result = await result.retry_failed(processor, only=[0, 1])
    assert statuses(result) == ["done", "failed", "done"]


async def test_equal_documents_of_two_sources_are_done_again_too(store, tmp_path):
    """They are one document, in a retry and with a journal as in a plain run."""
    fails = {"second"}

    def load(name: str) -> Document:
        if name in fails:
            raise ValueError("not yet")
        return Document("x", "the same", {"n": 1})

    processor = AsyncDocumentProcessor(load=load, store=store, journal=tmp_path / "j.sqlite")
    result = await processor.process(["first", "second"])
    fails.clear()
    assert statuses(await result.retry_failed(processor)) == ["done", "done"]
    again = await processor.process(["first", "second", "third"])
    assert statuses(again) == ["done"] * 3
    assert [outcome.attempts for outcome in again] == [0, 0, 1]


async def test_what_a_journal_recalls_has_its_ids(store, tmp_path):
    """The other source fails in the first run with the journal as in every later one."""
    processor = AsyncDocumentProcessor(load=fetch, store=store, journal=tmp_path / "run.sqlite")
    await processor.process(PAGES[:1])
    for _ in range(3):
        result = await processor.process(PAGES)
        assert statuses(result) == ["done", "done", "failed"]
        assert isinstance(result.errors[2], IdConflictError)
        assert store.get("a").text == "text of http://a/1"


async def test_a_refusal_is_not_recalled(store, tmp_path):
    """The other document may be gone since; what failed otherwise stays failed."""
    journal = Journal(tmp_path / "run.sqlite")
    processor = AsyncDocumentProcessor(load=fetch, store=store, journal=journal)
    sources = ["http://a/1", "http://a/2", "http://b/broken"]
    result = await processor.process(sources)
    assert statuses(result) == ["done", "failed", "failed"]
    store.delete("a")
    result = await processor.process(sources[1:])
    assert statuses(result) == ["done", "failed"]
    assert isinstance(result.errors[1], JournaledError)
    assert store.get("a").text == "text of http://a/2"


async def test_a_journal_knows_a_text_by_its_source_too(store, tmp_path):
    """An equal text of another source is refused, as it is without a journal."""
    processor = AsyncDocumentProcessor(store=store, journal=tmp_path / "run.sqlite")
    one, other = (Document("x", "the same", source=source) for source in "AB")
    await processor.process([one])
    result = await processor.process([other])
    assert isinstance(result.errors[0], IdConflictError)
    assert statuses(await processor.process([one])) == ["done"]


@pytest.mark.parametrize("settings", [{}, {"timeout": 60.0}, {"chunk": words}])
async def test_a_touched_file_has_its_new_date_with_a_journal(store, tmp_path, settings):
    """By whichever way it went; nothing is embedded for it."""
    path = tmp_path / "docs" / "a.txt"
    path.parent.mkdir()
    path.write_text("some words")
    embed = CountingEmbedder(0.01)
    journal = tmp_path / "run.sqlite"
    processor = AsyncDocumentProcessor(embed=embed, store=store, journal=journal, **settings)
    for date in (1_000_000_000.0, 1_000_000_001.5):
        await processor.process(path.parent)
        os.utime(path, (date, date))
        await processor.process(path.parent)
        assert store.get(str(path)).metadata["mtime"] == date
        result = await processor.process(path.parent)
        assert result[0].attempts == 0
    assert len(embed.calls) == 1


@pytest.mark.parametrize(
    "sources", [("A", "B"), ("A", None), (None, "A")], ids=["two", "text last", "text first"]
)
async def test_of_two_runs_at_once_one_document_replaces_no_other(store, sources):
    """Both find the id free; who stores first has it, and the other one fails and says so."""
    both = asyncio.Barrier(2)

    async def embed(texts: list[str]) -> np.ndarray:
        await both.wait()
        return np.ones((len(texts), 2), dtype=np.float32)

    processors = [
        AsyncDocumentProcessor(store=store, embed=Stage(embed, name="same"), retry_count=0)
        for _ in sources
    ]
    results = await asyncio.gather(
        *(
            processor.process([Document("x", f"text of {source}", source=source)])
            for processor, source in zip(processors, sources, strict=True)
        )
    )
    assert sorted(result[0].status for result in results) == ["done", "failed"]
    [failed] = [result for result in results if result.error_count]
    assert isinstance(failed.errors[0], IdConflictError)
    [first] = [
        source
        for source, result in zip(sources, results, strict=True)
        if result[0].status == "done"
    ]
    assert store.get("x").text == f"text of {first}"


def test_a_store_replaces_no_document_of_another_source(store):
    """Whoever stores it; what is stored stays as it is."""
    vectors = np.ones((0, 2), dtype=np.float32)
    for source in ("a", "a"):
        store.upsert(Document("x", "", source=source), [], vectors, fingerprint="1", embedder="e")
    for source in ("b", None):
        with pytest.raises(IdConflictError, match="has the id 'x' for the source 'a'"):
            store.upsert(
                Document("x", "", source=source), [], vectors, fingerprint="2", embedder="e"
            )
    assert (store.get("x").source, store.get("x").fingerprint) == ("a", "1")


@pytest.mark.parametrize("is_text_first", [True, False])
async def test_a_text_and_a_row_of_one_id_do_not_replace_one_another(
    store, tmp_path, is_text_first
):
    """Whichever is stored first stays, and the other one fails."""
    path = tmp_path / "t.csv"
    path.write_text("a\nAda\n")
    mine = Document(f"{path}//#2", "mine")
    sources = [mine, path] if is_text_first else [path, mine]
    result = await AsyncDocumentProcessor(
        embed=CountingEmbedder(0.01), store=store, batch_size=1
    ).process(sources)
    assert sorted(statuses(result)) == ["done", "failed"]
    [stored] = store.documents()
    assert (stored.source is None) == (result[sources.index(mine)].status == "done")
