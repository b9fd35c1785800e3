"""A document processor with a journal: what is done is not loaded again, and is really there."""

import numpy as np
import pytest

from ragasync import Journal, JournalError
from ragasync.documents import AsyncDocumentProcessor, Document, RecursiveSplitter, SqliteStore

# Internals: a writer that waits when the test wants it to.
from ragasync.journal.session import JournalSession
from tests.support.embedders import CountingEmbedder, words
from tests.support.services import StatusError


@pytest.fixture
def folder(tmp_path):
    """A folder of three files."""
    (tmp_path / "docs").mkdir()
    for name in "abc":
        (tmp_path / "docs" / f"{name}.txt").write_text(f"the text of {name}")
    return tmp_path / "docs"


@pytest.fixture
def store(tmp_path):
    """A store in a file."""
    with SqliteStore(tmp_path / "store.sqlite") as opened:
        yield opened


class Bench:
    """
    What a test makes processors of: they share a journal, and count loads and embeddings.

    They do without the embedding cache, so that whatever is done again is embedded again.
    """

    def __init__(self, journal, store) -> None:
        self.journal, self.store = journal, store
        self.loaded: list[str] = []
        self.embed = CountingEmbedder(0.01)

    def processor(self, **changes) -> AsyncDocumentProcessor:
        """Return a processor."""

        def load(path) -> Document:  # a method would be another one as its object counts on
            self.loaded.append(path.name)
            text = path.read_text()
            if "\0" in text:
                raise ValueError(f"{path.name} is broken")
            return Document(path.name, text)

        stages = {"load": load, "chunk": words, "embed": self.embed, "store": self.store}
        return AsyncDocumentProcessor(
            **{**stages, "journal": self.journal, "cache": False, **changes}
        )

    async def run(self, sources, **changes):
        """Process; return the result, what was loaded for it, and what was embedded."""
        loaded, embedded = len(self.loaded), len(self.embed.texts)
        result = await self.processor(**changes).process(sources)
        return result, sorted(self.loaded[loaded:]), self.embed.texts[embedded:]


@pytest.fixture
def bench(tmp_path, store):
    """A bench with a store and a journal."""
    return Bench(tmp_path / "run.sqlite", store)


def attempts(result) -> list[int]:
    """Return how often each document was tried in this run."""
    return [outcome.attempts for outcome in result]


async def test_a_second_run_loads_and_embeds_nothing_and_gives_the_whole_result(bench, folder):
    """Ids, counts and order as in the first."""
    first, loaded, embedded = await bench.run(folder)
    assert (attempts(first), loaded, len(embedded)) == ([1, 1, 1], ["a.txt", "b.txt", "c.txt"], 12)
    second, loaded, embedded = await bench.run(folder)
    assert (attempts(second), loaded, embedded) == ([0, 0, 0], [], [])
    assert second.results == first.results
    assert [done.chunk_count for done in second.results] == [4, 4, 4]
    assert (len(bench.store), len(bench.store.documents())) == (12, 3)


async def test_only_what_is_new_or_changed_is_loaded(bench, folder):
    """In its place among the others."""
    await bench.run(folder)
    (folder / "b.txt").write_text("shorter")
    (folder / "bb.txt").write_text("new")
    result, loaded, embedded = await bench.run(folder)
    assert (loaded, sorted(embedded)) == (["b.txt", "bb.txt"], ["new", "shorter"])
    assert [done.id for done in result.results] == ["a.txt", "b.txt", "bb.txt", "c.txt"]
    assert attempts(result) == [0, 1, 1, 0]


async def test_a_text_that_comes_back_is_stored_again(bench, folder):
    """The journal has it as done, and the store has another one by now."""
    for text in ("the first", "the second", "the first"):
        (folder / "a.txt").write_text(text)
        result, loaded, _ = await bench.run(folder)
        assert "a.txt" in loaded
        assert result.all_succeeded
    assert [hit.text for hit in bench.store.search("first second", mode="keyword")] == ["first"]
    assert (await bench.run(folder))[1] == []


async def test_what_the_store_lost_is_done_again(bench, folder, tmp_path):
    """A document that was deleted; or the whole file."""
    await bench.run(folder)
    bench.store.delete("b.txt")
    result, loaded, embedded = await bench.run(folder)
    assert (loaded, len(embedded), attempts(result)) == (["b.txt"], 4, [0, 1, 0])
    with SqliteStore(tmp_path / "another.sqlite") as empty:
        _, loaded, embedded = await bench.run(folder, store=empty)
        assert (len(loaded), len(embedded), len(empty)) == (3, 12, 12)


async def test_other_stages_are_a_change_and_no_other_job(bench, folder):
    """Nothing is refused: all runs anew, and is then done for these stages."""
    await bench.run(folder)
    for change in (
        {"chunk": RecursiveSplitter(500)},
        {"chunk": RecursiveSplitter(600)},
        {"version": "2"},
    ):
        result, loaded, embedded = await bench.run(folder, **change)
        assert (attempts(result), len(loaded)) == ([1, 1, 1], 3)
        assert embedded
        assert attempts((await bench.run(folder, **change))[0]) == [0, 0, 0]


async def test_what_failed_is_not_loaded_again_unless_asked(bench, folder):
    """By the journal, for all; or by the result, for its own."""
    (folder / "b.txt").write_bytes(b"a\0b")
    result, loaded, _ = await bench.run(folder)
    assert (len(loaded), result.error_count) == (3, 1)
    again, loaded, _ = await bench.run(folder)
    assert (loaded, again[1].status, again[1].stage) == ([], "failed", "load")
    assert type(again.errors[1]).__name__ == "ValueError"
    assert str(again.errors[1]) == "b.txt is broken"
    assert (await bench.run(folder, journal=Journal(bench.journal, retry_failed=True)))[1] == [
        "b.txt"
    ]
    bench.loaded.clear()
    merged = await again.retry_failed(bench.processor())
    assert (bench.loaded, merged.success_count, merged[1].attempts) == (["b.txt"], 2, 1)


async def test_a_retry_takes_what_was_found_and_mends_the_journal(bench, folder):
    """A file that the default loader found; with or without a journal."""
    (folder / "b.txt").write_bytes(b"a\0b")
    for journal in (bench.journal, None):
        processor = bench.processor(load=None, journal=journal, version=str(journal))
        (folder / "b.txt").write_bytes(b"a\0b")
        result = await processor.process(folder)
        (folder / "b.txt").write_text("mended")
        merged = await result.retry_failed(processor)
        assert (result.error_count, merged.error_count) == (1, 0)
        assert merged.results[1].id == str(folder / "b.txt")
        assert attempts(await processor.process(folder)) == ([1, 1, 1] if not journal else [0] * 3)


async def test_without_a_store_texts_and_vectors_come_back_whole(bench):
    """As they were, to the bit; rewritten chunks and empty documents, too."""
    sources = [
        Document("a", "one two", {"year": 2026, "tags": ["x"]}, "/a"),
        Document("empty", ""),
        ("odd", "\ufeff lone\u2028line\0\n"),
    ]

    def rewrite(text: str) -> list[str]:
        return [*text.split(), text.upper()] if text else []

    bare = {"load": None, "store": None, "chunk": rewrite}
    first = (await bench.run(sources, **bare))[0]
    second, _, embedded = await bench.run(sources, **bare)
    assert (attempts(second), embedded) == ([0, 0, 0], [])
    for before, after in zip(first.results, second.results, strict=True):
        assert (after.document, after.chunks) == (before.document, before.chunks)
        assert after.embeddings.dtype == before.embeddings.dtype == np.float32
        assert np.array_equal(after.embeddings, before.embeddings)
        assert after.embeddings.flags.writeable


async def test_a_result_gets_of_the_journal_what_it_keeps(bench, folder):
    """Texts and vectors with keep_content, else ids and counts, whatever the journal has."""
    whole = (await bench.run(folder, keep_content=True))[0]
    again = (await bench.run(folder, keep_content=True))[0]
    assert [done.chunks for done in again.results] == [done.chunks for done in whole.results]
    assert again.results[0].embeddings.shape == (4, 2)
    (done, *_) = (await bench.run(folder))[0].results
    assert (done.id, done.chunk_count, done.document, done.embeddings) == ("a.txt", 4, None, None)


async def test_what_a_store_kept_is_done_again_where_there_is_none(bench, folder):
    """The result has to have it."""
    await bench.run(folder)
    result, loaded, _ = await bench.run(folder, store=None)
    assert (len(loaded), result.results[0].document.text) == (3, "the text of a")


async def test_metadata_that_would_come_back_changed_is_refused(bench):
    """The journal says of which document, and what to do; the result is kept."""
    processor = bench.processor(load=None, store=None)
    with pytest.raises(JournalError, match=r"metadata of document 'a' .*\['at'\] is of type tuple"):
        await processor.process([Document("a", "text", {"at": (1, 2)})])
    assert processor.last_result.success_count == 1


async def test_many_are_looked_up_together_and_each_is_accounted_for(bench, monkeypatch):
    """A thread is asked for dozens at once; those that wait for their turn are not lost."""
    asked, look_up = [], JournalSession.look_up

    def counted(run, rows):
        asked.append(len(rows))
        return look_up(run, rows)

    monkeypatch.setattr(JournalSession, "look_up", counted)
    sources = [(f"{number}", f"text {number}") for number in range(100)]
    await bench.run(sources[::2], load=None)
    asked.clear()
    result, _, embedded = await bench.run(sources, load=None)
    assert attempts(result) == [0, 1] * 50
    assert [done.id for done in result.results] == [source[0] for source in sources]
    assert sorted(embedded) == sorted(text for _, line in sources[1::2] for text in line.split())
    assert (sum(asked), len(asked) <= 6) == (100, True)


async def test_a_run_that_stops_leaves_what_was_only_looked_up_pending(bench):
    """The next run does it."""
    sources = [(f"{number}", "fatal" if number == 5 else "text") for number in range(700)]
    refusing = CountingEmbedder(0.01, {"fatal": StatusError(401)})
    changes = {"load": None, "embed_concurrency": 1, "batch_size": 1, "max_concurrency": 1}
    stopped = (await bench.run(sources, embed=refusing, **changes))[0]
    assert stopped.pending_count > 30
    assert stopped.total == 700
    again = Journal(bench.journal, retry_failed=True)
    result = (await bench.run(sources, journal=again, **changes))[0]
    assert (result.success_count, attempts(result).count(0)) == (700, stopped.success_count)


async def test_a_text_that_comes_back_reaches_a_store_that_cannot_tell(folder, tmp_path):
    """A function has what it was given last: an older outcome of the same document says nothing."""
    stored: dict[str, str] = {}

    def store(document, chunks, embeddings) -> None:
        stored[document.id] = document.text

    bench = Bench(tmp_path / "run.sqlite", store)
    file = folder / "a.txt"
    for text in ("first", "second", "first"):
        file.write_text(text)
        result, _, _ = await bench.run(folder)
        assert result.all_succeeded
        assert stored["a.txt"] == text
    _, loaded, embedded = await bench.run(folder)
    assert (loaded, embedded) == ([], [])
