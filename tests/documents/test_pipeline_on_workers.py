"""Sources that are loaded and chunked by an executor whose groups and results are pickled."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ragasync import AsyncDocumentProcessor, CallAborted

# Internals: how long a worker keeps a group, and how long one waits to be filled.
from ragasync._calls.groups import MAX_GROUP_SECONDS
from ragasync._engine import batching
from ragasync.documents import Chunk, Document, LoadError, RecursiveSplitter, SqliteStore
from tests.support.pickling_executor import ByPost

pytestmark = pytest.mark.real_time

calls: list[str] = []
"""The texts that `noting` has split; the executor runs in this process."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Path:
    """A folder of ten files."""
    calls.clear()
    for number in range(10):
        (tmp_path / f"{number}.txt").write_text(f"text number {number}")
    return tmp_path


def noting(text: str) -> list[str]:
    """Note a text, and do not split it."""
    calls.append(text)
    return [text]


class PageChunk(Chunk):
    """A chunk of a class of the user's."""


def with_metadata(text: str) -> list[Chunk]:
    """Chunks that have other texts, and metadata of their own."""
    return [Chunk("Summary: " + text[:4], 0, 4, {"kind": "summary"}), Chunk(text[5:], 5, len(text))]


def of_own_class(text: str) -> list[Chunk]:
    """Chunks of a class of the user's."""
    return [PageChunk(text, 0, len(text), {"page": 3})]


def several(source: str) -> list[Document]:
    """Three documents of a source."""
    return [Document(f"{source} {number}", f"{source} text", {"n": number}) for number in range(3)]


@pytest.mark.parametrize("chunk", [None, with_metadata, of_own_class, str.split, lambda _: []])
@pytest.mark.parametrize(
    "document",
    [
        Document("a.md", "# One\n\ntext\n\n## Two\nmore text here\n\n# Three"),
        Document("a.py", "import this\n" * 400),
        Document("pages", "one two three four", {"page_starts": [0, 8], "line": 7}),
        Document("said", "one\ntwo\nthree", {"headings": [(4, 1)], "tags": ["a", "b"]}),
    ],
    ids=lambda document: document.id,
)
async def test_documents_and_chunks_come_back_as_threads_make_them(
    document: Document, chunk: Callable[[str], Any] | None
):
    """With texts that are no slices, metadata, locations and classes."""
    here, there = [
        (await AsyncDocumentProcessor(chunk=chunk, executor=executor).process([document]))[0].value
        for executor in (None, ByPost())
    ]
    assert there.document == here.document
    assert there.chunks == here.chunks
    assert list(map(type, there.chunks)) == list(map(type, here.chunks))
    assert [chunk.metadata for chunk in there.chunks] == [chunk.metadata for chunk in here.chunks]


async def test_a_source_of_several_documents_is_one_outcome(folder: Path):
    """Each document has its own chunks and metadata."""
    with SqliteStore(":memory:") as store:
        result = await AsyncDocumentProcessor(several, store=store, executor=ByPost()).process(
            iter(["a", "b"])
        )
        assert [done.document_count for done in result.results if done] == [3, 3]
        assert {(each.id, each.metadata["n"]) for each in store.documents()} == {
            (f"{source} {number}", number) for source in "ab" for number in range(3)
        }


# ── groups ──────────────────────────────────────────────────────────────────────────────────


async def test_a_few_slow_sources_are_shared_among_all_workers():
    """In one group, the first worker would load one after the other, and the others nothing."""
    all_began = threading.Barrier(4)

    def load(source: int) -> Document:
        all_began.wait(timeout=20)
        return Document(str(source), "text")

    with ThreadPoolExecutor(4) as executor:
        processor = AsyncDocumentProcessor(load, executor=executor, max_concurrency=4)
        result = await processor.process(range(4))
    result.raise_for_errors()


@pytest.mark.parametrize(
    ("count", "max_items", "first"), [(8, None, 1), (160, None, 10), (1_000, None, 16), (160, 8, 1)]
)
def test_the_first_groups_are_shared_among_all_workers(count, max_items, first, monkeypatch):
    """A quarter of the share of each, if the number of sources is known."""
    # A busy machine must not cut a group short.
    monkeypatch.setattr(batching, "FILL_TIMEOUT", 60.0)
    executor = ByPost(is_open=False)
    processor = AsyncDocumentProcessor(several, executor=executor, max_concurrency=4)
    job = processor.start([str(number) for number in range(count)], max_items=max_items)
    while len(executor.groups) < 4:
        time.sleep(0.001)
    assert [len(group) for group in executor.groups] == [first] * 4
    job.cancel()
    job.wait()


async def test_many_quick_sources_travel_in_groups():
    """A hand-over to a cluster takes longer than to load a short file."""
    executor = ByPost()
    result = await AsyncDocumentProcessor(several, executor=executor).process(
        str(number) for number in range(1_000)
    )
    assert result.success_count == 1_000
    sent = [each.source for group in executor.groups for each in group]  # again if late
    assert set(sent) == set(map(str, range(1_000)))
    assert len(executor.groups) < 300


async def test_slow_sources_after_many_quick_ones_are_shared_among_all_workers():
    """A worker returns what it has not called in time, and no source is loaded twice."""
    loaded: list[tuple[str, int]] = []

    def load(source: str) -> Document:
        loaded.append((source, threading.get_ident()))
        if source.startswith("slow"):
            time.sleep(MAX_GROUP_SECONDS)
        return Document(source, "text")

    sources = [f"quick {number}" for number in range(60)] + [f"slow {n}" for n in range(4)]
    with ThreadPoolExecutor(2) as executor:
        processor = AsyncDocumentProcessor(load, executor=executor, max_concurrency=2)
        result = await processor.process(sources)
    assert [done.id for done in result.results if done] == sources
    assert [outcome.attempts for outcome in result] == [1] * len(sources)
    assert sorted(source for source, _ in loaded) == sorted(sources)
    assert len({thread for source, thread in loaded if source.startswith("slow")}) == 2


# ── second runs ─────────────────────────────────────────────────────────────────────────────


async def test_unchanged_files_are_neither_chunked_nor_sent_back(folder: Path):
    """The changed one is."""
    with SqliteStore(":memory:") as store:
        processor = AsyncDocumentProcessor(chunk=noting, store=store, executor=ByPost())
        assert (await processor.process(folder)).success_count == 10
        assert len(calls) == 10
        (folder / "3.txt").write_text("another text")
        result = await processor.process(folder)
        assert calls[10:] == ["another text"]
        assert [done.unchanged for done in result.results if done].count(True) == 9
        assert store.get(str(folder / "3.txt")).text == "another text"


async def test_a_document_that_is_removed_during_the_run_is_chunked_after_all(folder: Path):
    """The worker was told that the store has it."""
    removed: list[str] = []

    class Emptied(SqliteStore):
        has_all = False

        def entries_of(self, ids: Any) -> Any:
            found = super().entries_of(ids)
            if self.has_all and not removed:
                removed.extend(ids)
                for id_ in ids:
                    self.delete(id_)
            return found

    with Emptied(":memory:") as store:
        processor = AsyncDocumentProcessor(chunk=noting, store=store, executor=ByPost())
        assert (await processor.process(folder)).success_count == 10
        store.has_all = True
        result = await processor.process(folder)
        assert result.success_count == 10
        assert len(store.documents()) == 10
        assert removed
        assert sorted(calls[10:]) == sorted(store.get(id_).text for id_ in removed)


async def test_the_metadata_of_a_touched_file_is_updated(folder: Path):
    """Its text need not come back for that."""
    with SqliteStore(":memory:") as store:
        processor = AsyncDocumentProcessor(store=store, executor=ByPost())
        await processor.process(folder)
        path = folder / "3.txt"
        path.touch()
        (done,) = (await processor.process(path)).get_successful()
        found = store.get(str(path))
    assert done.unchanged
    assert found.metadata["mtime"] == path.stat().st_mtime
    assert found.text == "text number 3"


# ── failures ────────────────────────────────────────────────────────────────────────────────


class BadPage(ValueError):
    """An error of the user's."""


def fails_on_3(text: str) -> list[str]:
    """Fail for one document, because of another error."""
    if text.endswith("3"):
        try:
            raise KeyError("no such font")
        except KeyError as error:
            raise BadPage(f"cannot split {text!r}") from error
    return [text]


def exits_on_3(text: str) -> list[str]:
    """Exit for one document."""
    if text.endswith("3"):
        raise SystemExit(3)
    return [text]


async def test_a_failed_chunk_function_fails_its_document_with_everything_known(folder: Path):
    """Stage, class, message, cause and the traceback of the worker."""
    result = await AsyncDocumentProcessor(chunk=fails_on_3, executor=ByPost()).process(folder)
    (failed,) = result.get_failed()
    assert (failed.stage, failed.item.id) == ("chunk", str(folder / "3.txt"))
    assert isinstance(failed.error, BadPage)
    assert str(failed.error) == "cannot split 'text number 3'"
    assert isinstance(failed.error.__cause__, KeyError)
    assert "in fails_on_3" in str(failed.traceback)
    assert result.success_count == 9


async def test_a_failed_load_function_does_too(folder: Path):
    """The error of a file that the worker cannot read."""
    result = await AsyncDocumentProcessor(executor=ByPost()).process(
        [folder / f"{number}.txt" for number in range(10)] + [folder / "missing.txt"]
    )
    (failed,) = result.get_failed()
    assert failed.stage == "load"
    assert isinstance(failed.error, FileNotFoundError)
    assert failed.error.filename == str(folder / "missing.txt")
    assert "load" in str(failed.traceback)
    assert result.success_count == 10


async def test_an_exit_in_a_worker_is_the_failure_of_its_document(folder: Path):
    """It must not end this process."""
    result = await AsyncDocumentProcessor(chunk=exits_on_3, executor=ByPost()).process(folder)
    (failed,) = result.get_failed()
    assert failed.stage == "chunk"
    assert isinstance(failed.error, CallAborted)
    assert result.success_count == 9


async def test_unreadable_files_are_skipped_on_workers_too(folder: Path):
    """Otherwise they fail, with the reason."""
    (folder / "binary.txt").write_bytes(b"\0\1\2\3" * 100)
    failing = await AsyncDocumentProcessor(executor=ByPost()).process(folder)
    (failed,) = failing.get_failed()
    assert isinstance(failed.error, LoadError)
    assert (failed.stage, failed.error.reason) == ("load", "binary")
    skipping = AsyncDocumentProcessor(on_unreadable="skip", executor=ByPost())
    result = await skipping.process(folder)
    assert [done.skipped for done in result.results if done and done.skipped] == ["binary"]
    assert result.success_count == 11


async def test_the_stage_has_one_name(folder: Path):
    """In the statistics, as on threads."""
    result = await AsyncDocumentProcessor(chunk=RecursiveSplitter(), executor=ByPost()).process(
        folder
    )
    first = result.stats.stages[0]
    assert (first.name, first.ended) == ("load and chunk", 10)
