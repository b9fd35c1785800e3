"""Ids below a root, stores that move with their folder, and folders that moved without it."""

import asyncio
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from ragasync import Journal
from ragasync.documents import (
    AsyncDocumentProcessor,
    Document,
    IdConflictError,
    LanceStore,
    RunRefused,
    SqliteStore,
    Stage,
    StoreError,
    find_sources,
)
from tests.support.embedders import CountingEmbedder, given
from tests.support.requirements import needs
from tests.support.store_kinds import KINDS, opened


@pytest.fixture(params=KINDS)
def store(request, tmp_path_factory):
    """An empty store of each kind, outside of the folders of the test."""
    with opened(request.param, tmp_path_factory.mktemp("store")) as empty:
        yield empty


@pytest.fixture
def docs(tmp_path):
    """A folder of four files and a table."""
    return made(tmp_path / "docs", *[f"the text of {name}" for name in "abcd"])


def made(folder: Path, *texts: str) -> Path:
    """Write texts and a table into a folder, and return it."""
    (folder / "sub").mkdir(parents=True)
    for number, text in enumerate(texts):
        (folder / "sub" / f"{number}.txt").write_text(text)
    (folder / "t.csv").write_text("name\nAda\n")
    return folder


def copied(folder: Path) -> Path:
    """Copy a folder to another beside it, and return that."""
    return Path(shutil.copytree(folder, folder.with_name("copy")))


def ids(store) -> list[str]:
    """Return the ids of all documents, in order."""
    return sorted(document.id for document in store.documents())


def all_are_files(store) -> bool:
    """Return whether the source of each document is there."""
    return all(Path(document.source).exists() for document in store.documents())


NAMES = ["sub/0.txt", "sub/1.txt", "sub/2.txt", "sub/3.txt", "t.csv//#2"]


async def test_ids_and_sources_are_paths_below_the_root(store, docs, monkeypatch):
    """However root and sources are named, and wherever that is done."""
    embed = CountingEmbedder(0.01)
    monkeypatch.chdir(docs)
    for root, sources in (
        (docs, docs),
        (".", "."),
        ("../docs/", [docs / "t.csv", "sub"]),
        (docs, find_sources("sub")),
        (f"{docs}/sub/..", docs.iterdir()),
    ):
        processor = AsyncDocumentProcessor(embed=embed, store=store, root=root)
        assert (await processor.process(sources)).all_succeeded
        assert ids(store) == NAMES
        assert {each.source for each in store.documents()} == {*NAMES[:4], "t.csv"}
    assert len(embed.texts) == 5


async def test_a_root_above_or_behind_a_link_is_one_too(store, docs):
    """The folder is the same under both names."""
    (docs.parent / "link").symlink_to(docs)
    await AsyncDocumentProcessor(store=store, root=docs.parent / "link").process(docs)
    assert ids(store) == NAMES
    result = await AsyncDocumentProcessor(root=docs.parent).process(docs / "t.csv")
    assert result.results[0].id == "docs/t.csv"


async def test_what_is_not_below_the_root_is_refused(store, docs, tmp_path):
    """The error says what would be."""
    (tmp_path / "other.txt").write_text("other")
    processor = AsyncDocumentProcessor(store=store, root=docs)
    for sources in (tmp_path, tmp_path / "other.txt", [docs, "/"], [tmp_path / "missing.txt"]):
        with pytest.raises(ValueError, match=r"is not below root=.*pass a folder that holds all"):
            await processor.process(sources)
    with pytest.raises(TypeError, match="root must be the path of a folder, or None, got 7"):
        AsyncDocumentProcessor(root=7)


async def test_a_store_moves_with_its_folder(docs, tmp_path):
    """To another path or machine: nothing is embedded again, and what is gone is pruned."""
    with SqliteStore(docs / "store.sqlite") as store:
        await AsyncDocumentProcessor(store=store, root=docs).process(docs)
    moved = docs.rename(tmp_path / "elsewhere")
    (moved / "sub" / "0.txt").unlink()
    (moved / "sub" / "1.txt").write_text("changed")
    embed = CountingEmbedder(0.01)
    with SqliteStore(moved / "store.sqlite", timeout=1) as store:
        processor = AsyncDocumentProcessor(store=store, root=moved)
        result = await processor.process(moved, prune=True)
        assert [done.unchanged for done in result.results] == [True, False, True, True]
        assert result.stats.counters == (("pruned", 1),)
        assert ids(store) == NAMES[1:]
    assert embed.texts == []


async def test_another_folder_under_the_same_ids_is_refused(store, docs, tmp_path):
    """Nothing is replaced, pruned or embedded, and the error names both ways out."""
    other = made(tmp_path / "other", "one", "two", "three")
    (other / "t.csv").write_text("name\nAlan\n")
    embed = CountingEmbedder(0.01)
    await AsyncDocumentProcessor(embed=embed, store=store, root=docs).process(docs)
    before = {each.id: store.get(each.id).text for each in store.documents()}
    embedded = len(embed.texts)

    async def later():
        for source in find_sources(other, root=other):
            yield source

    processor = AsyncDocumentProcessor(embed=embed, store=store, root=other)
    for sources, prune in (
        (other, False),
        (other, True),
        (find_sources(other), False),
        (later(), False),
    ):
        with pytest.raises(RunRefused) as caught:
            await processor.process(sources, prune=prune)
        assert f"store.relocate({str(docs)!r}, {str(other)!r})" in str(caught.value)
        assert "use another store" in str(caught.value)
    assert "replace 4 and prune 0 of the 4" in str(caught.value)
    with pytest.raises(RunRefused):
        async for _ in processor.stream(other):
            pass
    assert {each.id: store.get(each.id).text for each in store.documents()} == before
    assert len(embed.texts) == embedded
    await AsyncDocumentProcessor(embed=embed, store=store, root=docs).process(docs)
    assert len(embed.texts) == embedded


async def test_a_root_that_is_relocated_is_not_asked_about(store, docs, tmp_path):
    """The advice of the error works."""
    other = made(tmp_path / "other", "one", "two", "three")
    await AsyncDocumentProcessor(store=store, root=docs).process(docs)
    assert store.relocate(docs, other) == 5
    result = await AsyncDocumentProcessor(store=store, root=other).process(other)
    assert result.all_succeeded
    assert store.get("sub/0.txt").text == "one"


async def test_a_run_that_would_prune_most_of_another_root_is_refused(store, docs, tmp_path):
    """As one that would replace it."""
    await AsyncDocumentProcessor(store=store, root=docs).process(docs)
    other = made(tmp_path / "other")
    (other / "new.txt").write_text("new")
    processor = AsyncDocumentProcessor(store=store, root=other)
    with pytest.raises(RunRefused, match="replace 0 and prune 4 of the 5"):
        await processor.process(other, prune=True)
    assert ids(store) == NAMES


async def test_a_copy_of_which_less_than_half_has_changed_is_taken(store, docs, tmp_path):
    """Also what it adds; and the next run from there asks nothing."""
    await AsyncDocumentProcessor(store=store, root=docs).process(docs)
    copy = copied(docs)
    for number in (0, 1):
        (copy / "sub" / f"{number}.txt").write_text("changed")
    (copy / "new.txt").write_text("new")
    processor = AsyncDocumentProcessor(store=store, root=copy)
    result = await processor.process(copy)
    assert sum(done.unchanged for done in result.results) == 3
    assert len(ids(store)) == 6
    for number in range(4):
        (copy / "sub" / f"{number}.txt").write_text("all changed")
    assert (await processor.process(copy)).all_succeeded


async def test_rows_are_compared_one_by_one(store, tmp_path):
    """A table in which one of many has changed is the same table still."""
    table = tmp_path / "docs" / "t.csv"
    table.parent.mkdir()
    table.write_text("name\n" + "".join(f"name {number}\n" for number in range(9)))
    await AsyncDocumentProcessor(store=store, root=table.parent).process(table)
    copy = copied(table.parent)
    (copy / "t.csv").write_text(table.read_text().replace("name 3", "other") + "new\n")
    result = await AsyncDocumentProcessor(store=store, root=copy).process(copy)
    assert sum(done.unchanged for done in result.results[0].documents) == 8


async def test_a_loader_of_ones_own_is_compared_too(store, docs, tmp_path):
    """By what it gives now."""

    def load(path: Path) -> list[Document]:
        return [Document(path.name, path.read_text())]

    await AsyncDocumentProcessor(load, store=store, root=docs).process(docs)
    other = made(tmp_path / "other", "one", "two", "three")
    with pytest.raises(RunRefused):
        await AsyncDocumentProcessor(load, store=store, root=other).process(other)
    copy = copied(docs)
    result = await AsyncDocumentProcessor(load, store=store, root=copy).process(copy)
    assert all(done.unchanged for done in result.results)


async def test_absolute_and_relative_ids_do_not_mix(store, docs):
    """Every file would be there twice."""
    await AsyncDocumentProcessor(store=store).process(docs)
    with pytest.raises(RunRefused, match="leave root= out, or use another store"):
        await AsyncDocumentProcessor(store=store, root=docs).process(docs)
    with pytest.raises(RunRefused, match="leave root= out"):
        await AsyncDocumentProcessor(store=store, root=docs).process(find_sources(docs))
    assert ids(store) == [f"{docs}/{name}" for name in NAMES]


async def test_relative_ids_need_their_root(store, docs):
    """Texts do not, and the refusal is an error of the store's."""
    await AsyncDocumentProcessor(store=store, root=docs).process(docs)
    processor = AsyncDocumentProcessor(store=store)
    with pytest.raises(StoreError, match=r"relative to a root, last '.*docs'.*pass root="):
        await processor.process(docs)
    assert (await processor.process([("by hand", "a text")])).all_succeeded
    assert ids(store) == sorted(["by hand", *NAMES])


async def test_a_folder_is_relocated_below_its_root(store, docs):
    """By what its ids begin with, or by its path."""
    embed = CountingEmbedder(0.01)
    processor = AsyncDocumentProcessor(embed=embed, store=store, root=docs)
    await processor.process(docs)
    for old, new, before, after in (
        ("sub", "one", "sub", "one"),
        (docs / "one", docs / "two", "one", "two"),
    ):
        (docs / before).rename(docs / after)
        assert store.relocate(old, new) == 4
        assert ids(store) == sorted(["t.csv//#2", *[f"{after}/{n}.txt" for n in range(4)]])
    result = await processor.process(docs, prune=True)
    assert all(done.unchanged for done in result.results)
    assert result.stats.counters == (("pruned", 0),)
    with pytest.raises(ValueError, match="is not below root="):
        store.relocate("/elsewhere", docs / "sub")


async def whole(text: str) -> list[str]:
    """Cut a text into one piece: an async splitter is a stage of its own."""
    return [text]


@pytest.mark.parametrize("chunk", [None, whole])
async def test_a_renamed_folder_is_noticed_and_the_way_out_works(store, docs, tmp_path, chunk):
    """Its contents are stored already; relocate moves them, and then prune works there."""
    embed = CountingEmbedder(0.01)
    processor = AsyncDocumentProcessor(chunk=chunk, embed=embed, store=store)
    await processor.process(docs)
    renamed = docs.rename(tmp_path / "papers")
    (renamed / "sub" / "0.txt").unlink()
    (renamed / "sub" / "1.txt").write_text("edited since")
    advice = f"store.relocate({str(docs)!r}, {str(renamed)!r})"
    with pytest.warns(UserWarning, match="whose files are gone") as warned:
        await processor.process(renamed, prune=True)
    assert advice in str(warned[0].message)
    assert str(warned[0].message).startswith("3 documents are stored whose files are gone")
    assert len(ids(store)) == 9
    assert store.relocate(docs, renamed) == 5
    result = await processor.process(renamed, prune=True)
    assert all(done.unchanged for done in result.results)
    assert ids(store) == [f"{renamed}/{name}" for name in NAMES[1:]]
    assert all_are_files(store)
    assert sum("edited" in text for text in embed.texts) == 1


async def test_a_renamed_folder_may_be_relocated_first(store, docs, tmp_path):
    """Then nothing is embedded, and nothing is warned of."""
    embed = CountingEmbedder(0.01)
    processor = AsyncDocumentProcessor(embed=embed, store=store)
    await processor.process(docs)
    renamed = docs.rename(tmp_path / "papers")
    assert store.relocate(docs, renamed) == 5
    result = await processor.process(renamed)
    assert all(done.unchanged for done in result.results)
    assert len(embed.texts) == 5


async def test_projects_that_share_a_file_are_not_made_one(store, tmp_path):
    """The advice is about the file, where its folder is gone but most of it is nowhere else."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "LICENSE").write_text("the text of a licence")
        (tmp_path / name / "README.md").write_text(f"read me first: {name}")
        (tmp_path / name / "notes.md").write_text(f"notes on {name}")
    processor = AsyncDocumentProcessor(store=store)
    await processor.process(tmp_path / "one")
    (tmp_path / "one").rename(tmp_path / "unmounted")
    old, new = f"{tmp_path}/one/LICENSE", f"{tmp_path}/two/LICENSE"
    with pytest.warns(UserWarning, match="files are gone") as warned:
        await processor.process(tmp_path / "two")
    assert f"call store.relocate({old!r}, {new!r}); otherwise" in str(warned[0].message)
    assert store.relocate(old, new) == 1
    assert {each.rpartition("/")[0] for each in ids(store)} == {
        f"{tmp_path}/{n}" for n in ("one", "two")
    }
    assert len(ids(store)) == 5


async def test_a_file_is_there_however_each_folder_above_it_is_spelt(store, tmp_path):
    """Names are composed or decomposed, or some letters of one each way."""
    folder = tmp_path / unicodedata.normalize("NFD", "Ünï Ѝ") / "für"
    folder.mkdir(parents=True)
    (folder / (unicodedata.normalize("NFD", "é") + "ö.txt")).write_text("same text")
    processor = AsyncDocumentProcessor(store=store)
    await processor.process(folder)
    shutil.copytree(folder, tmp_path / "copy")
    assert (await processor.process(tmp_path / "copy")).all_succeeded
    (copied,) = (tmp_path / "copy").iterdir()
    copied.unlink()
    (tmp_path / "copy" / "éö.txt").write_text("other text")
    await processor.process(tmp_path / "copy")
    with pytest.raises(IdConflictError, match="no file is known to have moved"):
        store.relocate(folder, tmp_path / "copy")
    assert len(ids(store)) == 2


@pytest.mark.parametrize("new", ["papers/new", "./papers/x/../new", "/outside"])
async def test_relative_ids_stay_relative(store, docs, tmp_path, monkeypatch, new):
    """Whatever paths say where their folder is now; one outside the root has no id there."""
    monkeypatch.chdir(tmp_path)
    await AsyncDocumentProcessor(store=store, root=tmp_path).process(docs)
    if new == "/outside":
        with pytest.raises(ValueError, match="is not below root="):
            store.relocate("docs", new)
        return
    assert store.relocate("docs", tmp_path / "papers") == 5
    assert store.relocate("papers", new) == 5
    assert ids(store) == sorted(f"papers/new/{name}" for name in NAMES)


async def test_a_copied_file_is_no_moved_one(store, docs):
    """The other is still there; nor is one that is pruned in the same run."""
    processor = AsyncDocumentProcessor(store=store)
    await processor.process(docs)
    shutil.copy(docs / "sub" / "0.txt", docs / "copy.txt")
    assert (await processor.process(docs)).all_succeeded
    (docs / "copy.txt").rename(docs / "renamed.txt")
    result = await processor.process(docs, prune=True)
    assert result.stats.counters == (("pruned", 1),)
    (docs / "renamed.txt").rename(docs / "again.txt")
    with pytest.warns(UserWarning, match=r"relocate\('.*renamed\.txt', '.*again\.txt'\)"):
        await processor.process(docs)


async def test_a_copy_of_a_file_with_accents_is_no_moved_one(store, tmp_path):
    """Its name on the disk may be spelt otherwise than its id."""
    original = tmp_path / unicodedata.normalize("NFD", "Café Ѝ.txt")
    original.write_text("text")
    processor = AsyncDocumentProcessor(store=store)
    await processor.process(tmp_path)
    shutil.copy(original, tmp_path / "copy.txt")
    assert (await processor.process(tmp_path)).all_succeeded


async def test_files_without_a_text_say_nothing_of_moves(store, tmp_path):
    """All of them are alike."""
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "__init__.py").touch()
    processor = AsyncDocumentProcessor(store=store)
    await processor.process(old)
    shutil.rmtree(old)
    assert (await processor.process(new)).all_succeeded


async def test_a_run_that_is_refused_leaves_a_journal_as_it_was(docs, tmp_path):
    """What it has is done under the old root still."""
    journal = tmp_path / "run.sqlite"
    with SqliteStore(":memory:") as store:
        await AsyncDocumentProcessor(store=store, root=docs, journal=journal).process(docs)
        other = made(tmp_path / "other", "one", "two", "three")
        with pytest.raises(RunRefused):
            await AsyncDocumentProcessor(store=store, root=other, journal=journal).process(other)
        processor = AsyncDocumentProcessor(store=store, root=docs, journal=Journal(journal))
        result = await processor.process(docs)
        assert [outcome.attempts for outcome in result] == [0] * 5


async def test_a_journal_fits_a_folder_that_moved_with_its_root(docs, tmp_path):
    """Nothing is loaded again."""
    with SqliteStore(":memory:") as store:
        settings = {"store": store, "journal": tmp_path / "run.sqlite"}
        await AsyncDocumentProcessor(root=docs, **settings).process(docs)
        moved = docs.rename(tmp_path / "elsewhere")
        result = await AsyncDocumentProcessor(root=moved, **settings).process(moved)
        assert [outcome.attempts for outcome in result] == [0] * 5


class Plain:
    """A store of somebody's own, which knows nothing of sources."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def upsert(self, document, chunks, embeddings, *, fingerprint, embedder) -> None:
        """Keep a document."""
        self.kept[document.id] = fingerprint

    def fingerprint_of(self, document_id: str) -> str | None:
        """Return what it was kept with."""
        return self.kept.get(document_id)


async def test_a_store_of_ones_own_takes_ids_below_a_root(docs):
    """Without being able to check them."""
    store = Plain()
    for load in (None, given):
        processor = AsyncDocumentProcessor(load, store=store, root=docs)
        await processor.process([docs] if load is None else [Document("a", "text")])
    assert sorted(store.kept) == sorted(["a", *NAMES])


@pytest.mark.parametrize("small_first", [False, True])
async def test_two_folders_in_one_store_do_not_prune_one_another(store, tmp_path, small_first):
    """No run under one root makes the store forget the documents of the other."""
    small, big = tmp_path / "small", tmp_path / "big"
    for folder, count in ((small, 2), (big, 5)):
        folder.mkdir()
        for number in range(count):
            (folder / f"{folder.name} {number}.md").write_text(f"{folder} {number}")
    order = [small, big] if small_first else [big, small]
    processors = {folder: AsyncDocumentProcessor(store=store, root=folder) for folder in order}
    for folder in [*order, *order]:
        await processors[folder].process(folder)
    for folder in (small, small, order[0]):
        if folder == small:
            with pytest.raises(RunRefused, match="prune 5 of the 7 stored documents"):
                await processors[folder].process(folder, prune=True)
        await processors[folder].process(folder)
    assert len(store.documents()) == 7


async def test_a_root_of_which_most_is_met_is_known_again(store, docs):
    """A run of a part has it compared once more; after that nothing is asked."""
    await AsyncDocumentProcessor(store=store, root=docs).process(docs)
    copy = copied(docs)
    processor = AsyncDocumentProcessor(store=store, root=copy)
    await processor.process(copy / "t.csv")
    assert (store.id_scheme().root, store.id_scheme().is_mixed) == (str(docs), True)
    await processor.process(copy)
    assert (store.id_scheme().root, store.id_scheme().is_mixed) == (str(copy), False)
    for name in "0123":
        (copy / "sub" / f"{name}.txt").write_text("another text")
    result = await processor.process(copy)
    assert result.error_count == 0


@pytest.mark.parametrize("first", ["absolute", "relative"])
@pytest.mark.parametrize("why", ["nothing could be read", "all was deleted", "only texts"])
async def test_a_store_without_files_takes_ids_of_either_kind(store, docs, first, why):
    """What its ids are is decided by the first file that is stored."""
    roots = [None, docs] if first == "absolute" else [docs, None]
    empty = docs.parent / "empty"
    empty.mkdir()
    (docs / "empty.md" if roots[0] else empty / "empty.md").write_text("")
    one, other = (AsyncDocumentProcessor(store=store, root=root) for root in roots)
    if why == "nothing could be read":
        result = await one.process(docs / "empty.md" if roots[0] else empty)
        assert result.error_count == 1
    elif why == "all was deleted":
        await one.process(docs)
        store.delete(where={"id": {"$ne": ""}})
    else:
        await one.process([Document("a", "text", source="a.md")])
    assert store.id_scheme() is None
    (docs / "empty.md").unlink(missing_ok=True)
    result = await other.process(docs)
    assert result.error_count == 0
    assert store.id_scheme().relative is (first == "absolute")


async def test_two_first_runs_at_once_do_not_mix_ids(store, docs):
    """Of a run with a root and one without, the other's documents are refused."""
    (docs / "t.csv").unlink()
    begun = asyncio.Barrier(2)

    async def embed(texts: list[str]) -> np.ndarray:
        await begun.wait()
        return np.ones((len(texts), 2), dtype=np.float32)

    settings = {"store": store, "embed": Stage(embed, name="same", max_concurrency=1)}
    results = await asyncio.gather(
        AsyncDocumentProcessor(**settings).process(docs),
        AsyncDocumentProcessor(root=docs, **settings).process(docs),
    )
    assert sorted(result.success_count for result in results) == [0, 4]
    assert len({document.file.startswith("/") for document in store.documents()}) == 1
    assert all(
        isinstance(error, RunRefused) for result in results for error in result.errors if error
    )


async def test_a_root_behind_a_link_is_the_same_root(store, docs):
    """It has only another name: whatever has changed in it, nothing was moved."""
    link = docs.with_name("link")
    link.symlink_to(docs)
    await AsyncDocumentProcessor(store=store, root=link).process(link)
    for name in "0123":
        (docs / "sub" / f"{name}.txt").write_text("another text")
    result = await AsyncDocumentProcessor(store=store, root=docs).process(docs)
    assert result.error_count == 0
    assert ids(store) == NAMES


@pytest.mark.parametrize("lost", ["", '{"rel', "[]", None])
async def test_what_a_lance_store_has_lost_of_its_ids_is_read_off_them(docs, tmp_path, lost):
    """Without the file that says it, another folder still replaces nothing."""
    needs("lancedb")
    with LanceStore(tmp_path / "store") as store:
        await AsyncDocumentProcessor(store=store, root=docs).process(docs)
        said = tmp_path / "store" / "ragasync-ids.json"
        said.unlink() if lost is None else said.write_text(lost)
        other = made(tmp_path / "other", *"wxyz")
        with pytest.raises(RunRefused, match="would replace 4"):
            await AsyncDocumentProcessor(store=store, root=other).process(other)
        with pytest.raises(RunRefused, match="absolute"):
            await AsyncDocumentProcessor(store=store).process(docs)
        await AsyncDocumentProcessor(store=store, root=docs).process(docs)
        assert store.id_scheme().root == str(docs)
