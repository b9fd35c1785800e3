"""Sources that cannot be read are passed over where that is asked for, and seen all the same."""

from pathlib import Path

import pytest

from ragasync.documents import AsyncDocumentProcessor, LoadError, SqliteStore
from tests.support.embedders import CountingEmbedder


@pytest.fixture
def folder(tmp_path):
    """A folder with a text, two files of bytes, and an empty one."""
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.txt").write_text("a text")
    (docs / "b.bin").write_bytes(b"\0\1\2")
    (docs / "c.bin").write_bytes(b"\0\0")
    (docs / "d.txt").write_text("")
    return docs


def skipped(result) -> dict[str, str]:
    """Return which sources were passed over, and why."""
    return {Path(done.id).name: done.skipped for done in result.get_successful() if done.skipped}


async def test_unless_it_is_asked_for_they_fail(folder):
    """So that they are seen."""
    result = await AsyncDocumentProcessor().process(folder)
    assert (result.success_count, result.error_count) == (1, 3)
    assert "skipped" not in result.summary()


@pytest.mark.parametrize("load", [None, "of one's own"])
async def test_every_one_that_cannot_be_read_is_passed_over(folder, load):
    """They are done, with the reason and without chunks, and counted."""

    async def refuse(path):
        raise LoadError("binary" if path.suffix == ".bin" else "empty", "no")

    load = refuse if load else None
    result = await AsyncDocumentProcessor(load=load, on_unreadable="skip").process(folder)
    assert result.all_succeeded
    found = {"b.bin": "binary", "c.bin": "binary", "d.txt": "empty"}
    assert skipped(result) == (found if load is None else found | {"a.txt": "empty"})
    assert f"skipped: {len(skipped(result))} items" in result.summary()
    done = result.results[1]
    assert (done.chunk_count, done.document_count, done.documents) == (0, 0, None)
    assert done.source == str(folder / "b.bin")
    assert repr(done) == f"<ProcessedDocument '{folder}/b.bin': skipped, binary>"


async def test_only_those_are_that_were_named(folder):
    """For others one may want to do something."""
    result = await AsyncDocumentProcessor(on_unreadable={"binary"}).process(folder)
    assert skipped(result) == {"b.bin": "binary", "c.bin": "binary"}
    assert [outcome.item.path.name for outcome in result.get_failed()] == ["d.txt"]


async def test_other_errors_are_failures_all_the_same(folder):
    """A file that is gone or a bug in a loader is nothing to pass over."""

    def load(path):
        raise ValueError("a bug")

    result = await AsyncDocumentProcessor(load=load, on_unreadable="skip").process(folder)
    assert result.error_count == 4


async def test_what_was_stored_of_them_before_stays(folder):
    """A file that is broken today may be mended tomorrow."""
    with SqliteStore(":memory:") as store:
        processor = AsyncDocumentProcessor(store=store, on_unreadable="skip")
        await processor.process(folder)
        (folder / "a.txt").write_bytes(b"\0")
        result = await processor.process(folder, prune=True)
        assert skipped(result)["a.txt"] == "binary"
        assert list(store.to_dataframe()["document_id"]) == [str(folder / "a.txt")]


async def test_a_journal_keeps_that_they_were_passed_over(folder, tmp_path):
    """As long as they still are to be."""
    settings = {"embed": CountingEmbedder(), "journal": tmp_path / "run.sqlite"}
    processor = AsyncDocumentProcessor(**settings, on_unreadable="skip")
    first = await processor.process(folder)
    second = await processor.process(folder)
    assert [outcome.attempts for outcome in second] == [0] * 4
    assert skipped(second) == skipped(first)
    assert "skipped: 3 items" in second.summary()
    strict = AsyncDocumentProcessor(**settings, on_unreadable={"empty"})
    third = await strict.process(folder)
    assert [outcome.status for outcome in third] == ["done", "failed", "failed", "done"]


async def test_on_unreadable_applies_to_the_failures_and_skips_of_earlier_runs(folder, tmp_path):
    """The journal keeps outcomes, not what its user wants to call them."""

    async def run(on_unreadable):
        processor = AsyncDocumentProcessor(
            on_unreadable=on_unreadable, journal=tmp_path / "run.sqlite"
        )
        return await processor.process(folder)

    assert (await run("fail")).error_count == 3
    assert skipped(await run({"binary"})) == {"b.bin": "binary", "c.bin": "binary"}
    everything = await run("skip")
    assert everything.all_succeeded
    assert skipped(everything) == {"b.bin": "binary", "c.bin": "binary", "d.txt": "empty"}
    assert (await run("fail")).error_count == 3


@pytest.mark.parametrize("given", ["binary", True, 1, None, [1]])
def test_reasons_are_a_collection_of_texts(given):
    """One text alone would be taken letter by letter."""
    with pytest.raises(TypeError, match="on_unreadable"):
        AsyncDocumentProcessor(on_unreadable=given)
