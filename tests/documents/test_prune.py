"""What is no longer in the folder leaves the store: only that, and only when a run was whole."""

import os
import shutil

import pytest

from ragasync.documents import AsyncDocumentProcessor, Document, RunRefused, SqliteStore
from tests.support.embedders import CountingEmbedder, given
from tests.support.services import StatusError


@pytest.fixture
def store():
    """A store that ends with the test."""
    with SqliteStore(":memory:") as opened:
        yield opened


@pytest.fixture
def docs(tmp_path):
    """A folder of three files, one of them in a subfolder, beside another with a like name."""
    for name in ("docs/a.txt", "docs/b.txt", "docs/sub/c.txt", "docs-old/d.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"the text of {name}")
    return tmp_path / "docs"


@pytest.fixture
def processor(store):
    """A processor that stores there."""
    return AsyncDocumentProcessor(store=store)


def ids(store: SqliteStore) -> list[str]:
    """Return the ids of all documents with chunks, as paths below the folder where they are."""
    return sorted(
        id_.partition("/docs/")[2] or id_ for id_ in set(store.to_dataframe().document_id)
    )


async def test_what_is_gone_from_the_folder_leaves_the_store(processor, store, docs):
    """And how many did is told."""
    await processor.process(docs)
    (docs / "a.txt").unlink()
    shutil.rmtree(docs / "sub")
    result = await processor.process(docs, prune=True)
    assert ids(store) == ["b.txt"]
    assert result.stats.counters == (("pruned", 2),)
    assert "pruned: 2" in result.summary()


async def test_without_being_asked_nothing_leaves_it(processor, store, docs):
    """A file may be away for a while."""
    await processor.process(docs)
    (docs / "a.txt").unlink()
    result = await processor.process(docs)
    assert ids(store) == ["a.txt", "b.txt", "sub/c.txt"]
    assert "pruned" not in result.summary()


async def test_nothing_outside_of_the_folder_is_touched(processor, store, docs):
    """Not its parent, nor one whose name only begins like it, nor a text without a source."""
    old = docs.parent / "docs-old"
    await processor.process([docs, old, Document("no source", "text")])
    await processor.process([Document("elsewhere", "text", source="/elsewhere/e.txt")])
    shutil.rmtree(old)
    (docs / "a.txt").unlink()
    await processor.process([docs], prune=True)
    left = ["elsewhere", "no source", "b.txt", "sub/c.txt", f"{old}/d.txt"]
    assert ids(store) == sorted(left)
    (docs / "b.txt").unlink()
    await processor.process([docs / "sub"], prune=True)
    assert {"b.txt", "sub/c.txt"} < set(ids(store))


async def test_several_folders_are_each_pruned(processor, store, docs):
    """What is named is looked after."""
    old = docs.parent / "docs-old"
    (old / "e.txt").write_text("stays")
    await processor.process([docs, old])
    (docs / "a.txt").unlink()
    (old / "d.txt").unlink()
    result = await processor.process([docs, old], prune=True)
    assert result.stats.counters == (("pruned", 2),)
    assert ids(store) == [f"{old}/e.txt", "b.txt", "sub/c.txt"]


async def test_a_file_that_fails_keeps_its_old_version(processor, store, docs):
    """It is there."""
    await processor.process(docs)
    (docs / "a.txt").write_bytes(b"\0\0 binary")
    result = await processor.process(docs, prune=True)
    assert result.error_count == 1
    assert "a.txt" in ids(store)


async def test_a_pilot_prunes_nothing(processor, store, docs):
    """With a `limit` the rest was not looked at."""
    await processor.process(docs)
    (docs / "a.txt").unlink()
    result = await processor.process(docs, prune=True, max_items=3)
    assert "a.txt" in ids(store)
    assert result.stats.counters == ()


async def test_a_run_that_stops_prunes_nothing(store, docs):
    """What it has not come to may change the picture."""
    await AsyncDocumentProcessor(store=store, embed=CountingEmbedder()).process(docs)
    (docs / "a.txt").unlink()
    (docs / "b.txt").write_text("bad")
    embed = CountingEmbedder(poison={"bad": StatusError(401)})
    result = await AsyncDocumentProcessor(store=store, embed=embed).process(docs, prune=True)
    assert result.stopped_because is not None
    assert "a.txt" in ids(store)


async def test_a_cancelled_run_prunes_nothing(store, docs):
    """It was not to go on."""
    await AsyncDocumentProcessor(store=store, embed=CountingEmbedder()).process(docs)
    (docs / "a.txt").unlink()
    (docs / "b.txt").write_text("changed")
    embed = CountingEmbedder(60)
    job = AsyncDocumentProcessor(store=store, embed=embed).start(
        docs, prune=True, on_current_loop=True
    )
    await embed.called.wait()
    job.cancel()
    await job
    assert "a.txt" in ids(store)


async def test_a_job_prunes_at_its_end(processor, store, docs):
    """As `process` does."""
    await processor.process(docs)
    (docs / "a.txt").unlink()
    job = processor.start(docs, prune=True, on_current_loop=True)
    assert (await job).stats.counters == (("pruned", 1),)
    assert job.result.stats.counters == (("pruned", 1),)
    assert "a.txt" not in ids(store)


@pytest.mark.real_time
def test_sync_code_prunes_too(processor, store, docs):
    """The same, and waited for."""
    processor.process_sync(docs)
    (docs / "a.txt").unlink()
    assert processor.process_sync(docs, prune=True).stats.counters == (("pruned", 1),)


async def test_what_a_journal_answers_for_was_found(store, docs, tmp_path):
    """Nothing was loaded, and nothing is missing."""
    processor = AsyncDocumentProcessor(store=store, journal=tmp_path / "run.sqlite")
    await processor.process(docs)
    again = await processor.process(docs, prune=True)
    assert [outcome.attempts for outcome in again] == [0, 0, 0]
    assert len(ids(store)) == 3
    (docs / "a.txt").unlink()
    assert (await processor.process(docs, prune=True)).stats.counters == (("pruned", 1),)
    assert ids(store) == ["b.txt", "sub/c.txt"]


async def test_what_lies_below_a_folder_that_could_not_be_walked_stays(
    processor, store, docs, monkeypatch
):
    """Nobody knows whether it is gone; no other is held back by that."""
    await processor.process(docs)
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "not for you", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    monkeypatch.setattr(os.path, "lexists", lambda path: "sub/" not in str(path))
    result = await processor.process(docs, prune=True)
    assert result.error_count == 1
    assert "sub/c.txt" in ids(store)


async def test_what_a_walk_passes_over_but_is_there_stays(processor, store, docs):
    """A hidden file that was named by hand is not gone."""
    (docs / ".hidden").write_text("hidden")
    await processor.process([docs / ".hidden"])
    await processor.process(docs, prune=True)
    assert ".hidden" in ids(store)


async def test_rows_that_are_gone_from_their_file_leave_the_store(processor, store, docs):
    """The file is there, and gives others."""
    table = docs / "t.csv"
    table.write_text("name,age\nAda,36\nAlan,41\n")
    await processor.process(docs)
    before = ids(store)
    table.write_text("name,age\nAda,36\n")
    result = await processor.process(docs, prune=True)
    assert result.stats.counters == (("pruned", 1),)
    (gone,) = set(before) - set(ids(store))
    assert gone.startswith("t.csv//#")
    assert "Ada" in " ".join(store.to_dataframe()["text"])


async def test_a_load_of_ones_own_may_name_the_documents(store, docs):
    """They are known by where they came from, not by their ids."""
    processor = AsyncDocumentProcessor(load=lambda path: path.read_text(), store=store)
    await processor.process(docs)
    (docs / "a.txt").unlink()
    assert (await processor.process(docs, prune=True)).stats.counters == (("pruned", 1),)


@pytest.mark.parametrize("state", ["empty", "missing", "only an empty folder", "only hidden files"])
@pytest.mark.parametrize("root", [False, True])
async def test_a_folder_without_files_is_not_pruned_unless_by_force(store, docs, state, root):
    """Most often its disk is not mounted; nothing of it is lost then."""
    processor = AsyncDocumentProcessor(store=store, root=docs if root else None)
    await processor.process(docs)
    shutil.rmtree(docs)
    if state != "missing":
        (docs / "sub" if "folder" in state else docs).mkdir(parents=True)
    if "hidden" in state:
        (docs / ".DS_Store").write_text("hidden")
    stored = len(store.documents())
    named = "missing" if state == "missing" else "empty"
    for sources in (docs, str(docs), [docs]):
        with pytest.raises(
            RunRefused, match=f"{named}, and the store has 3 of its documents.*force"
        ):
            await processor.process(sources, prune=True)
    with pytest.raises(RunRefused):
        processor.start(docs, prune=True, on_current_loop=True)
    assert len(store.documents()) == stored
    result = await processor.process(docs, prune="force")
    assert (result.total, result.stats.counters) == (0, (("pruned", 3),))
    assert len(store.documents()) == 0


async def test_one_missing_folder_among_others_holds_all_up(processor, store, docs):
    """Until it is forced, which prunes it and the others; a str is no less missing."""
    old = docs.parent / "docs-old"
    await processor.process([docs, old])
    shutil.rmtree(old)
    (docs / "a.txt").unlink()
    for missing in (old, str(old)):
        with pytest.raises(RunRefused, match="missing, and the store has 1 of its documents"):
            await processor.process([docs, missing], prune=True)
    assert len(store.documents()) == 4
    result = await processor.process([docs, str(old)], prune="force")
    assert (result.total, result.stats.counters) == (2, (("pruned", 2),))


async def test_an_empty_folder_of_which_nothing_is_stored_is_no_reason(processor, docs):
    """There is nothing to lose."""
    empty = docs / "empty"
    empty.mkdir()
    await processor.process(docs)
    assert (await processor.process(empty, prune=True)).stats.counters == (("pruned", 0),)


async def test_prune_is_yes_no_or_force(processor, docs):
    """Anything else is a slip."""
    for wrong in ("Force", "yes", 2, None):
        with pytest.raises(ValueError, match='prune must be True, False or "force"'):
            await processor.process(docs, prune=wrong)


async def test_files_below_a_root_are_pruned_and_texts_are_not(store, docs):
    """Whatever sources they were given with."""
    processor = AsyncDocumentProcessor(store=store, root=docs.parent)
    texts = [
        Document("no source", "text"),
        Document("a page", "text", source="https://example.org/docs/a.txt"),
        Document("elsewhere", "text", source="/elsewhere/docs/a.txt"),
    ]
    await processor.process([docs.parent, *texts])
    (docs / "a.txt").unlink()
    (docs.parent / "docs-old" / "d.txt").unlink()
    (docs.parent / "docs-old" / "e.txt").write_text("new")
    assert (await processor.process(docs, prune=True)).stats.counters == (("pruned", 1),)
    assert (await processor.process(docs.parent, prune=True)).stats.counters == (("pruned", 1),)
    assert sorted(document.id for document in store.documents()) == [
        "a page",
        "docs-old/e.txt",
        "docs/b.txt",
        "docs/sub/c.txt",
        "elsewhere",
        "no source",
    ]


async def test_a_table_that_became_a_folder_is_pruned(processor, store, docs):
    """Rows of a file that is there no longer, though something else is at its path."""
    table = docs / "t.csv"
    table.write_text("name\nAda\nAlan\n")
    await processor.process(docs)
    table.unlink()
    table.mkdir()
    (table / "#2").write_text("a file")
    await processor.process(docs, prune=True)
    assert {"t.csv/#2"} == {id_ for id_ in ids(store) if "t.csv" in id_}


async def test_a_folder_must_be_among_the_sources(processor, docs):
    """Nothing is in texts, in files, or in a folder that is missing."""
    for sources in ([("a", "text")], [docs / "a.txt"], docs / "missing", iter([docs])):
        with pytest.raises(ValueError, match="existing folder"):
            await processor.process(sources, prune=True)


async def test_a_list_for_a_load_of_ones_own_is_not_walked(store, docs):
    """So nothing is known of what is in a folder there."""
    processor = AsyncDocumentProcessor(load=given, store=store)
    with pytest.raises(ValueError, match="existing folder"):
        await processor.process([docs], prune=True)


class Plain:
    """A store that can only take and tell."""

    def upsert(self, document, chunks, embeddings, *, fingerprint, embedder) -> None:
        """Take it."""

    def fingerprint_of(self, document_id: str) -> None:
        """Know nothing."""


@pytest.mark.parametrize("store", [Plain(), None, lambda document, chunks, embeddings: None])
async def test_a_store_must_be_able_to_tell_its_sources(store, docs):
    """Said before anything is done."""
    processor = AsyncDocumentProcessor(store=store)
    for begin in (processor.process_sync, processor.start):
        with pytest.raises(TypeError, match=r"sources_within\(prefix\)"):
            begin(docs, prune=True)
    with pytest.raises(TypeError, match=r"sources_within\(prefix\)"):
        await processor.process(docs, prune=True, max_items=1)
