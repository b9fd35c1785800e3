"""What a journal calls done is stored; its files, its locks and its refusals stay clear."""

import asyncio
import sqlite3
import sys
from contextlib import closing

import pytest

from ragasync import AsyncRetry, Journal, JournalError
from ragasync.documents import (
    AsyncDocumentProcessor,
    Document,
    SqliteStore,
    Stage,
    StoreError,
)
from tests.support.embedders import CountingEmbedder, given, words
from tests.support.scripts import exit_code_of

SOURCES = [("a", "the text of a"), ("b", "the text of b")]


@pytest.fixture
def path(tmp_path):
    """Where the journal is."""
    return tmp_path / "run.sqlite"


def processor(path, store, **changes) -> AsyncDocumentProcessor:
    """Return a processor with a journal that writes each outcome at once."""
    journal = Journal(path, flush_seconds=0.0, flush_items=1)
    stages = {"load": given, "chunk": words, "embed": CountingEmbedder(0.01)}
    return AsyncDocumentProcessor(**{**stages, "store": store, "journal": journal, **changes})


def written(path) -> list[tuple[str, str]]:
    """Return what a journal has: items and what became of them, in order."""
    frame = Journal(path).to_dataframe()
    return sorted(zip(frame["item"], frame["status"], strict=True))


class SlowStore:
    """A store function that acknowledges when it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.called, self.acknowledge = asyncio.Event(), asyncio.Event()

    async def __call__(self, document, chunks, embeddings) -> None:
        """Store a document."""
        self.asked.append(document.id)
        self.called.set()
        if document.id == "a":
            await self.acknowledge.wait()


async def test_a_document_is_done_when_the_store_has_acknowledged_it(path):
    """Not when it was embedded, nor when the store was asked."""
    store = SlowStore()
    documents = [Document(*source) for source in SOURCES]
    job = processor(path, store, store_concurrency=2).start(documents, on_current_loop=True)
    await store.called.wait()
    while await asyncio.to_thread(written, path) != [("b", "done")]:
        pass
    assert sorted(store.asked) == ["a", "b"]
    store.acknowledge.set()
    await job
    assert written(path) == [("a", "done"), ("b", "done")]


async def test_what_a_store_refused_is_failed_and_what_was_cancelled_is_open(path):
    """Neither is ever called done."""

    async def refuse(document, chunks, embeddings) -> None:
        if document.id == "a":
            raise ValueError("no room")
        await asyncio.sleep(1)
        job.cancel()
        await asyncio.sleep(60)  # Longer than a cancelled run waits for its store.

    documents = [Document(*source) for source in SOURCES]
    job = processor(path, Stage(refuse, retry=AsyncRetry(0))).start(documents, on_current_loop=True)
    result = await job
    assert [outcome.status for outcome in result] == ["failed", "cancelled"]
    assert written(path) == [("a", "failed")]


async def test_a_store_that_cannot_tell_is_trusted_and_another_is_not(path):
    """Nothing is handed over twice, and another function gets everything."""
    kept: dict[str, list[str]] = {"one": [], "two": []}

    def one(document, chunks, embeddings) -> None:
        kept["one"].append(document.id)

    def two(document, chunks, embeddings) -> None:
        kept["two"].append(document.id)

    for store in (one, one, two, two):
        await processor(path, store).process([Document(*source) for source in SOURCES])
    assert [sorted(ids) for ids in kept.values()] == [["a", "b"], ["a", "b"]]


# ── files, locks and refusals ───────────────────────────────────────────────────────────────────


@pytest.fixture
def folder(tmp_path):
    """A folder of one text, in which a store and a journal will be, too."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("the text of a")
    return tmp_path / "docs"


TRY_THE_LOCK = """
import sqlite3, sys
try:
    sqlite3.connect(sys.argv[1] + "-lock", timeout=0).execute("BEGIN EXCLUSIVE")
except sqlite3.OperationalError as error:
    print(error)
"""


@pytest.mark.real_time
async def test_a_folder_is_walked_around_its_own_store_and_journal(folder):
    """To open and close such a file would drop the locks that this process has on it."""
    journal, said = folder / "run.sqlite", []

    async def look(texts):
        """Embed, and have another process try to take the journal."""
        command = [sys.executable, "-c", TRY_THE_LOCK, str(journal)]
        child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        said.append((await child.communicate())[0].decode().strip())
        return [[1.0]] * len(texts)

    with SqliteStore(folder / "store.sqlite") as store:
        for text in ("the first", "the second"):
            (folder / "b.txt").write_text(text)
            result = await processor(journal, store, load=None, embed=look).process(folder)
            names = [done.id.rpartition("/")[2] for done in result.results]
            assert names == ["a.txt", "b.txt"]
        inside = await processor(journal, store, load=None, embed=look).process([folder])
        assert len(inside) == 2
    assert set(said) == {"database is locked"}


async def test_the_errors_of_a_locked_journal_and_a_locked_store_differ(path, tmp_path):
    """Each error names its file, and what to do."""
    with SqliteStore(tmp_path / "store.sqlite", timeout=0.05) as store:
        embed = CountingEmbedder(0.01)  # as that of the others: one journal, one embedder
        documents = [Document(*source) for source in SOURCES]
        job = processor(path, store, embed=embed).start(documents, on_current_loop=True)
        await embed.called.wait()
        with pytest.raises(JournalError, match=r"run\.sqlite' is in use by another run"):
            await processor(path, store).process(documents)
        with closing(sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.warns(UserWarning, match="the vectors of 5 chunks.*could not be kept"):
                result = await job
        assert [type(error) for error in result.errors] == [StoreError] * 2
        assert "store.sqlite' has been locked by another process" in str(result.errors[0])
        assert written(path) == [("a", "failed"), ("b", "failed")]
        merged = await result.retry_failed(processor(path, store))
        assert merged.all_succeeded
    assert written(path) == [("a", "done"), ("b", "done")]


async def test_a_store_that_cannot_be_asked_ends_the_run_and_loses_nothing(path, tmp_path):
    """What is done stays done in the journal, and the error is the store's."""
    documents = [Document(*source) for source in SOURCES]
    with SqliteStore(tmp_path / "store.sqlite") as store:
        await processor(path, store).process(documents)
    with pytest.raises(StoreError, match=r"store\.sqlite' is closed: open it again"):
        await processor(path, store).process(documents)
    assert written(path) == [("a", "done"), ("b", "done")]
    with SqliteStore(tmp_path / "store.sqlite") as store:
        result = await processor(path, store).process(documents)
    assert [outcome.attempts for outcome in result] == [0, 0]


def test_the_command_takes_a_journal(folder, tmp_path, monkeypatch, capsys):
    """A second run counts as unchanged what it recalls, and tries again what failed."""
    (folder / "bad.bin").write_bytes(b"a\0b")
    journal = tmp_path / "run.sqlite"
    command = [str(folder), "--store", str(tmp_path / "s.sqlite"), "--journal", str(journal)]
    for counted in ("1 new or changed, 0 unchanged", "0 new or changed, 1 unchanged"):
        assert exit_code_of(monkeypatch, command) == 0
        said = capsys.readouterr().out
        assert counted in said
        assert "binary               bad.bin" in said
    journal.write_text("no journal " * 100)
    assert exit_code_of(monkeypatch, command) == 1
    assert "the journal" in capsys.readouterr().err
