"""Whose document it is: one id a source, however it is named, and one source an id."""

import asyncio
import os
import pickle
import unicodedata
from pathlib import Path, PosixPath

import pytest

from ragasync.documents import (
    AsyncDocumentProcessor,
    Document,
    IdConflictError,
    PartialDocumentFailure,
    Source,
    SqliteStore,
    documents_dataframe,
    find_sources,
    load_source,
)
from tests.support.embedders import CountingEmbedder, words
from tests.support.requirements import go_without
from tests.support.store_kinds import KINDS, opened


@pytest.fixture(params=KINDS)
def store(request, tmp_path_factory):
    """An empty store of each kind, outside of the folders of the test."""
    with opened(request.param, tmp_path_factory.mktemp("store")) as empty:
        yield empty


@pytest.fixture
def folder(tmp_path):
    """A folder with two files of one name, in two folders."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").write_text(f"the text of {name}")
    return tmp_path


def stored(store) -> dict[str, str]:
    """Return the texts of all documents by their ids."""
    return {each.id: store.get(each.id).text for each in store.documents()}


async def test_two_folders_with_one_name_are_two_documents(store, folder):
    """Each run leaves what the other stored."""
    processor = AsyncDocumentProcessor(store=store)
    for name in ("a", "b"):
        assert (await processor.process(folder / name)).success_count == 1
    expected = {f"{folder}/{name}/README.md": f"the text of {name}" for name in ("a", "b")}
    assert stored(store) == expected


class Named(str):
    """A text of a class of its own."""

    __slots__ = ()


class Mine(PosixPath):
    """A path of a class of its own."""


async def test_a_file_has_one_id_however_it_is_named(store, folder, monkeypatch):
    """Relative or absolute, with dots and slashes, alone, in a list, by folder or pattern."""
    processor = AsyncDocumentProcessor(store=store)
    path, top = folder / "a" / "README.md", folder / "a"
    spellings = [
        str(path),
        path,
        [path],
        (str(path),),
        iter([path]),
        top.glob("*.md"),
        f"{top}/",
        f"{top}//README.md",
        f"{top}/../a/./README.md",
        f"//{str(path)[1:]}",
        Named(path),
        Mine(path),
        Source(str(path), path),
        find_sources(top),
        [top, path],
    ]
    for working, names in (
        (folder, ["a", "a/README.md", ["a"], Path("a"), "./a", "b/../a"]),
        (top, [".", "README.md", [Path("README.md")], "../a", "./README.md"]),
    ):
        for name in [*names, *(spellings if working == top else [])]:
            monkeypatch.chdir(working)
            result = await processor.process(name)
            assert (result.success_count, result.total) == (1, 1), name
            assert result.results[0].id == result.results[0].source == str(path), name
    assert stored(store) == {str(path): "the text of a"}


async def test_a_link_is_a_path_of_its_own(folder):
    """It is not resolved; but above a link is what the system finds there."""
    (folder / "linked").symlink_to(folder / "a")
    (folder / "deep").mkdir()
    (folder / "deep" / "link").symlink_to(folder / "b")
    (folder / "deep" / "README.md").write_text("another")
    processor = AsyncDocumentProcessor()
    (linked,) = (await processor.process(folder / "linked")).results
    assert linked.id == f"{folder}/linked/README.md"
    (above,) = (await processor.process(f"{folder}/deep/link/../a/README.md")).results
    assert (above.id, above.document.text) == (f"{folder}/a/README.md", "the text of a")


def test_a_run_goes_on_where_it_began_when_the_folder_changes(folder, monkeypatch):
    """The paths of its sources were fixed when they were found."""
    monkeypatch.chdir(folder / "a")
    sources = list(find_sources(["README.md"]))
    made = Source("mine", Path("README.md").absolute())
    monkeypatch.chdir(folder / "b")
    result = AsyncDocumentProcessor().process_sync([*sources, made])
    assert [done.document.text for done in result.results] == ["the text of a"] * 2
    assert result.results[0].id == f"{folder}/a/README.md"


async def test_accents_are_composed_in_ids_and_case_is_kept(store, tmp_path):
    """However a file system or a program writes them; the file itself is opened as it is named."""
    name = "Café Ѝ 한.md"
    decomposed = tmp_path / unicodedata.normalize("NFD", name)
    decomposed.write_text("text")
    (tmp_path / "readme.md").write_text("lower")
    (tmp_path / "README.md").write_text("upper")
    await AsyncDocumentProcessor(store=store).process(tmp_path)
    assert stored(store)[f"{tmp_path}/{unicodedata.normalize('NFC', name)}"] == "text"
    assert {f"{tmp_path}/readme.md", f"{tmp_path}/README.md"} < stored(store).keys()


async def test_two_files_whose_names_look_alike_are_not_one(store, tmp_path):
    """Where both spellings are there, the later one fails, and the error names both."""
    composed = tmp_path / unicodedata.normalize("NFC", "é.md")
    decomposed = tmp_path / unicodedata.normalize("NFD", "é.md")
    composed.write_text("composed")
    decomposed.write_text("decomposed")
    if len(list(tmp_path.iterdir())) == 1:
        go_without("this file system takes both spellings for one")
    result = await AsyncDocumentProcessor(store=store).process([composed, decomposed])
    assert [outcome.status for outcome in result] == ["done", "failed"]
    error = result.errors[1]
    assert isinstance(error, IdConflictError)
    assert error.id == str(composed)
    assert repr(str(composed)) in str(error)
    assert repr(str(decomposed)) in str(error)
    assert list(stored(store).values()) == ["composed"]


async def test_a_folder_may_come_among_others_one_by_one(store, folder):
    """It is walked, as in a list."""

    async def later():
        yield ("text", "a text")
        yield folder / "a"
        yield str(folder / "b" / "README.md")
        yield folder

    result = await AsyncDocumentProcessor(store=store).process(later())
    assert [done.id for done in result.results] == [
        "text",
        f"{folder}/a/README.md",
        f"{folder}/b/README.md",
    ]


class Opened:
    """Sources that are read by an async generator, which notes its end."""

    def __init__(self) -> None:
        self.ended = 0

    async def __aiter__(self):
        try:
            for number in range(1000):
                yield (str(number), "text")
        finally:
            self.ended += 1


@pytest.mark.parametrize("root", [None, "other"])
async def test_sources_that_come_one_by_one_are_closed(store, folder, root):
    """When a run has had enough of them, and when it is refused."""
    sources = Opened()
    if root is not None:
        await AsyncDocumentProcessor(store=store, root=folder / "a").process(folder / "a")
        root = folder / root
    await AsyncDocumentProcessor(store=store, root=root).process(sources, max_items=3)
    assert sources.ended == 1


@pytest.mark.parametrize("kind", ["list", "generator", "async", "loader"])
async def test_a_file_named_twice_is_one_item(store, folder, kind):
    """A folder and a file in it, a file and itself."""
    path = folder / "a" / "README.md"

    async def later():
        for each in (path, folder / "b" / "README.md", path):
            yield each

    embed, load = CountingEmbedder(0.01), None
    given = [folder, path, str(path), folder / "b"]
    if kind == "loader":
        given, load = [path, path, folder / "b" / "README.md"], lambda path: path.read_text()
    sources = {"list": given, "generator": iter(given), "async": later(), "loader": given}[kind]
    result = await AsyncDocumentProcessor(load, embed=embed, store=store).process(sources)
    assert (result.total, result.success_count) == (2, 2)
    assert sorted(embed.texts) == ["the text of a", "the text of b"]
    assert len(stored(store)) == 2


async def later_text(number: int) -> Document:
    """Load the same text from each number, the first one last."""
    await asyncio.sleep(9 - number)
    return Document("same", "a text")


@pytest.mark.parametrize("load", [None, later_text])
async def test_a_text_given_twice_is_embedded_once(store, load):
    """Each is an item, so that results fit what was given, and all but one are unchanged."""
    embed = CountingEmbedder(5.0)
    processor = AsyncDocumentProcessor(load, words, embed, store)
    given = [Document("same", "a text", {"n": 1})] * 3 if load is None else range(3)
    result = await processor.process(given)
    assert sorted(done.unchanged for done in result.results) == [False, True, True]
    assert sorted(embed.texts) == ["a", "text"]
    assert len(store.documents()) == 1


async def test_a_text_given_twice_is_tried_twice_where_the_first_fails(store):
    """Neither is done before it is stored."""
    embed = CountingEmbedder(5.0, poison={"bad": ValueError("bad")})
    processor = AsyncDocumentProcessor(chunk=words, embed=embed, store=store)
    result = await processor.process([("same", "bad"), ("same", "bad")])
    assert [outcome.status for outcome in result] == ["failed", "failed"]
    assert stored(store) == {}


async def test_of_two_texts_with_one_id_the_later_fails(store):
    """And so it does when it is tried again, alone."""
    processor = AsyncDocumentProcessor(store=store)
    result = await processor.process([("a", "first"), ("b", "other"), ("a", "second")])
    assert [outcome.status for outcome in result] == ["done", "done", "failed"]
    assert (result[2].stage, result[2].item.id, result[2].item.text) == ("load", "a", "second")
    assert str(result.errors[2]) == (
        "two sources have the id 'a': <Document 'a': 5 characters> (item 0), and <Document 'a': "
        "6 characters>, which was refused, because it would replace the other: give each an id "
        "of its own"
    )
    assert (await result.retry_failed(processor)).error_count == 1
    assert stored(store) == {"a": "first", "b": "other"}


async def test_a_text_does_not_replace_a_file_nor_a_file_a_text(store, folder):
    """In one run and in two."""
    path = folder / "a" / "README.md"
    processor = AsyncDocumentProcessor(store=store)
    result = await processor.process([path, (str(path), "a text")])
    assert [outcome.status for outcome in result] == ["done", "failed"]
    result = await processor.process([(str(path), "another text"), path])
    assert [outcome.status for outcome in result] == ["failed", "failed"]
    assert isinstance(result.errors[0], IdConflictError)
    assert result[0].stage == "store"
    assert stored(store) == {str(path): "the text of a"}
    assert (await processor.process(path)).results[0].unchanged


async def test_an_error_about_two_sources_travels():
    """With all that it says."""
    result = await AsyncDocumentProcessor().process([("a", "1"), ("a", "2")])
    error = pickle.loads(pickle.dumps(result.errors[1]))
    assert (str(error), error.id) == (str(result.errors[1]), "a")
    assert pickle.loads(pickle.dumps(result[1].item)) == result[1].item


def by_name(path: Path) -> Document:
    """Load a file as a document that is named after it, without its folder."""
    return Document(path.name, path.read_text())


async def by_name_later(path: Path) -> Document:
    """Do the same, the first folder's file after the second's."""
    await asyncio.sleep(5 if path.parent.name == "a" else 1)
    return by_name(path)


async def all_by_name(path: Path) -> list[Document]:
    """Do the same, with one document more that no other file has."""
    document = await by_name_later(path)
    return [document, Document(f"more of {path.parent.name}", "more")]


@pytest.mark.parametrize("load", [by_name, by_name_later, all_by_name])
async def test_ids_of_a_loader_are_kept_apart_too(store, folder, load):
    """The later source fails, however fast it is, and does not replace the other in another run."""
    embed = CountingEmbedder(0.01)
    processor = AsyncDocumentProcessor(load, words, embed, store)
    sources = [folder / "a" / "README.md", folder / "b" / "README.md"]
    result = await processor.process(sources)
    assert [outcome.status for outcome in result] == ["done", "failed"]
    assert result[1].stage == "load"
    assert isinstance(result.errors[1], IdConflictError | PartialDocumentFailure)
    for source in sources:
        assert str(source) in str(result.errors[1])
    again = await processor.process(sources[1])
    assert again.error_count == 1
    assert store.get("README.md").source == str(sources[0])
    assert "b" not in embed.texts
    if load is all_by_name:
        assert {"more of a", "more of b"} < stored(store).keys()


async def test_a_slow_source_holds_up_only_a_few(tmp_path):
    """Others of which only loading tells the ids go on, up to a bound."""
    stuck = asyncio.Event()

    async def load(number: int) -> Document:
        if number == 0:
            await stuck.wait()
        return Document(f"document {number}", "text")

    done = []

    async def put(document, chunks, embeddings) -> None:
        done.append(document.id)

    processor = AsyncDocumentProcessor(load, words, CountingEmbedder(0.01), put)
    job = processor.start(range(300), on_current_loop=True)
    await asyncio.sleep(100)
    assert 200 < len(done) < 300
    stuck.set()
    assert (await job).success_count == 300


async def test_a_stored_id_of_another_source_is_refused_with_advice(store):
    """Neither it nor its chunks are touched; nothing is embedded for the other."""
    embed = CountingEmbedder(0.01)
    processor = AsyncDocumentProcessor(embed=embed, store=store)
    await processor.process([Document("guide", "first", source="/old/guide.md")])
    for source in ("/new/guide.md", None):
        result = await processor.process([Document("guide", "second", source=source)])
        error = result.errors[0]
        assert isinstance(error, IdConflictError)
        assert "'/old/guide.md'" in str(error)
    assert "store.delete(id)" in str(error)
    assert embed.texts == ["first"]
    assert stored(store) == {"guide": "first"}
    store.relocate("/old", "/new")
    result = await processor.process([Document("guide", "second", source="/new/guide.md")])
    assert result.success_count == 1
    assert stored(store) == {"guide": "second"}


async def test_a_text_of_the_users_own_is_replaced_by_its_new_version(store):
    """Its id is its source."""
    processor = AsyncDocumentProcessor(store=store)
    await processor.process([("guide", "first"), Document("other", "x", source="https://x")])
    await processor.process([("guide", "second"), Document("other", "y", source="https://x")])
    assert stored(store) == {"guide": "second", "other": "y"}


async def test_no_file_clobbers_a_row(store, tmp_path):
    """Whatever it is named, and rows by number or by key."""
    (tmp_path / "t.csv").write_text("name,age\nAda,36\nAlan,41\n")
    for name in ("t.csv#2", "t.csv#3", "t.csv##2", "#2"):
        (tmp_path / name).write_text(f"the text of {name}")
    result = await AsyncDocumentProcessor(store=store).process(tmp_path)
    assert result.all_succeeded
    assert sorted(stored(store).values()) == [
        "name: Ada\nage: 36",
        "name: Alan\nage: 41",
        "the text of #2",
        "the text of t.csv##2",
        "the text of t.csv#2",
        "the text of t.csv#3",
    ]
    rows = [id_ for id_, text in stored(store).items() if text.startswith("name:")]
    assert all(id_.startswith(f"{tmp_path}/t.csv") for id_ in rows)
    assert not any(str(Path(id_)) == id_ for id_ in rows)


@pytest.mark.parametrize("name", ["C:\\docs\\a.md", "a..b", "a\\..\\b.md", "new\nline.md", " ~ "])
async def test_odd_names_are_ids_as_they_are(store, tmp_path, name):
    """Windows' separators are letters here."""
    (tmp_path / name).write_text("text")
    await AsyncDocumentProcessor(store=store).process(tmp_path)
    assert stored(store) == {f"{tmp_path}/{name}": "text"}


@pytest.mark.parametrize("chunk", [None, words])
async def test_a_touched_file_is_not_embedded_and_its_date_is_kept(store, folder, chunk):
    """What the store says of a file is as of the last run, by whichever way it went."""
    embed = CountingEmbedder(0.01)
    processor = AsyncDocumentProcessor(chunk=chunk, embed=embed, store=store)
    path = folder / "a" / "README.md"
    await processor.process(folder)
    embedded = len(embed.texts)
    for date in (1_000_000_000, 1_000_000_001):
        touch(path, date)
        result = await processor.process(folder)
        assert all(done.unchanged for done in result.results)
        assert store.get(str(path)).metadata["mtime"] == date
    assert len(embed.texts) == embedded
    assert store.get(str(path)).chunk_count == (1 if chunk is None else 4)
    hits = store.search("text", where={"mtime": {"$lt": 1_100_000_000}}, vector=[1.0, 1.0])
    assert {hit.document_id for hit in hits} == {str(path)}


def touch(path: Path, date: int) -> None:
    """Change a file's date."""
    os.utime(path, (date, date))


async def test_the_table_of_documents_names_what_failed_as_what_is_done(tmp_path):
    """By id and source, with and without a root."""
    (tmp_path / "good.md").write_text("good")
    (tmp_path / "empty.md").write_text("")
    for root, names in (
        (tmp_path, ["empty.md", "good.md"]),
        (None, [f"{tmp_path}/empty.md", f"{tmp_path}/good.md"]),
    ):
        result = await AsyncDocumentProcessor(root=root).process(tmp_path)
        frame = documents_dataframe(result)
        assert frame["status"].tolist() == ["failed", "done"]
        assert frame["id"].tolist() == names
        assert frame["source"].tolist() == names


async def test_a_journal_knows_a_file_however_it_is_named(folder, tmp_path, monkeypatch):
    """The path that it goes by is the id."""
    monkeypatch.chdir(folder)
    for name, attempts in (("a", 1), (folder / "a" / "README.md", 0), (["./a"], 0), ("b", 1)):
        processor = AsyncDocumentProcessor(
            chunk=words, embed=CountingEmbedder(0.01), journal=folder / "run.sqlite"
        )
        result = await processor.process(name)
        assert [outcome.attempts for outcome in result] == [attempts], name


@pytest.mark.parametrize("kind", ["sqlite", "lance"])
async def test_a_store_inside_the_folder_is_no_document(tmp_path, kind):
    """Nor is its journal, however the folder is processed, and by whatever name they are found."""
    docs = tmp_path / "docs"
    (docs / "deep").mkdir(parents=True)
    (docs / "a.md").write_text("text")
    with opened(kind, docs / "deep") as store:
        (docs / "alias").symlink_to(docs / "deep" / f"store.{kind}")
        (docs / "journal").symlink_to(docs / "run.sqlite")
        for sources in (docs, [docs], find_sources(docs), [docs, docs / "alias"], docs.rglob("*")):
            for load in (None, by_name):
                if load is not None and sources is not docs:
                    continue  # such a list is not walked
                processor = AsyncDocumentProcessor(load, store=store, journal=docs / "run.sqlite")
                result = await processor.process(sources)
                assert [outcome.item.path.name for outcome in result] == ["a.md"]
                assert result.all_succeeded


async def test_a_loader_of_ones_own_is_not_given_the_store_either(tmp_path):
    """To open and close it would drop the locks that are held on it."""
    (tmp_path / "a.md").write_text("text")
    seen = []

    async def load(path: Path) -> str:
        seen.append(path.name)
        return "text"

    with SqliteStore(tmp_path / "store.sqlite") as store:
        processor = AsyncDocumentProcessor(load, store=store)
        await processor.process(list(find_sources(tmp_path)))
        await processor.process(sorted(tmp_path.iterdir()))
    assert seen == ["a.md", "a.md"]


@pytest.mark.parametrize("has_root", [False, True])
async def test_a_loader_of_ones_own_knows_files_by_their_paths(
    store, folder, monkeypatch, has_root
):
    """However they are named: by texts, below the working folder or not, or by paths."""
    loaded: list[object] = []

    def load(path: str | Path) -> str:
        loaded.append(path)
        return Path(path).read_text()

    processor = AsyncDocumentProcessor(load, store=store, root=folder if has_root else None)
    for name in ("a", "b"):
        monkeypatch.chdir(folder / name)
        result = await processor.process(["README.md"])
        assert (result.error_count, loaded.pop()) == (0, "README.md")
    names = ["../a/README.md", f"{folder}/a/README.md", Path("README.md"), "no file", "../a"]
    result = await processor.process(names[:3])
    assert [done.unchanged for done in result.results] == [True, True]
    result = await processor.process([(names[3])], prune=False)
    assert result.error_count == 1
    start = "" if has_root else f"{folder}/"
    assert stored(store) == {f"{start}{name}/README.md": f"the text of {name}" for name in "ab"}


async def test_a_text_that_is_no_file_is_what_it_was(store, folder, monkeypatch):
    """An id, an address, a folder, or much text, given to a loader as it is."""
    monkeypatch.chdir(folder)
    texts = ["x" * 10_000, "https://example.org/a/README.md", "a", "nul \0", "", "a/README.md/"]
    loaded: list[object] = []

    def load(text: str) -> Document:
        loaded.append(text)
        return Document(f"id {len(loaded)}", "text")

    await AsyncDocumentProcessor(load, store=store).process(texts)
    assert sorted(loaded) == sorted(texts)
    assert {document.file for document in store.documents()} == {None}


async def test_our_own_loader_given_by_hand_knows_files_as_ever(store, folder, monkeypatch):
    """A list for it is not walked, but what is in it has the same ids."""
    monkeypatch.chdir(folder)
    await AsyncDocumentProcessor(load_source, store=store, root=folder).process(["a/README.md"])
    result = await AsyncDocumentProcessor(store=store, root=folder).process("a")
    assert result[0].value.unchanged
    result = await AsyncDocumentProcessor(load_source, store=store, root=folder).process(
        ["a/README.md", Path("a/README.md")]
    )
    assert (result.total, list(stored(store))) == (1, ["a/README.md"])


async def test_a_key_of_the_users_own_gets_texts_that_name_files(folder, monkeypatch, tmp_path):
    """As they were given."""
    monkeypatch.chdir(folder)
    processor = AsyncDocumentProcessor(
        lambda path: Path(path).read_text(), journal=tmp_path / "j.sqlite", key=str.upper
    )
    for attempts in (1, 0):
        result = await processor.process(["a/README.md"])
        assert (result.error_count, result[0].attempts) == (0, attempts)
