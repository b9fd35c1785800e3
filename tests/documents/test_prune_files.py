"""Pruning goes by the file that each document was loaded from, in every kind of store."""

import csv
from functools import partial
from pathlib import Path

import pytest

from ragasync.documents import (
    LOADERS,
    AsyncDocumentProcessor,
    Document,
    IdConflictError,
    load_source,
    load_text,
)
from tests.support.embedders import CountingEmbedder, words
from tests.support.store_kinds import KINDS, opened


@pytest.fixture(params=KINDS)
def store(request, tmp_path_factory):
    """An empty store of each kind, outside of the folders of the test."""
    with opened(request.param, tmp_path_factory.mktemp("store")) as empty:
        yield empty


@pytest.fixture
def docs(tmp_path):
    """A folder with a file and a table of three rows."""
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.md").write_text("the text of a")
    table(folder, "Ada", "Bora", "Chen")
    return folder


def table(folder: Path, *names: str) -> None:
    """Write a table of names."""
    with (folder / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["name"], *([name] for name in names)])


def ids(store) -> set[str]:
    """Return the ids of all documents."""
    return {document.id for document in store.documents()}


def pruned(result) -> int:
    """Return how many documents a run has pruned."""
    return dict(result.stats.counters)["pruned"]


SOURCES = [
    "Confluence page 12",
    "doi:10.1000/182",
    "mail 7/2026",
    "../other/a.md",
    "gone.md",
    "a.md#page=3",
    "",
]


@pytest.mark.parametrize("has_root", [False, True])
async def test_documents_of_the_users_own_are_never_pruned(store, docs, has_root):
    """Whatever their sources look like: also a path in the folder, a part of a file, or a file."""
    processor = AsyncDocumentProcessor(store=store, root=docs if has_root else None)
    sources = SOURCES if has_root else [*SOURCES, *(f"{docs}/{name}" for name in SOURCES)]
    mine = [Document(f"mine {n}", f"text {n}", source=each) for n, each in enumerate(sources)]
    await processor.process(mine)
    await processor.process(docs)
    (docs / "a.md").unlink()
    assert pruned(await processor.process(docs, prune=True)) == 1
    (docs / "t.csv").unlink()
    assert pruned(await processor.process(docs, prune="force")) == 3
    assert ids(store) == {each.id for each in mine}


async def test_documents_of_files_are_pruned_whatever_their_sources(store, docs):
    """A loader may say that a file's document is of a page on the web."""

    def load(path: Path) -> Document:
        return Document(path.stem, path.read_text(), source=f"https://example.org/{path.name}")

    processor = AsyncDocumentProcessor(load=load, store=store)
    await processor.process(docs)
    assert store.get("a").file == str(docs / "a.md")
    (docs / "a.md").unlink()
    assert pruned(await processor.process(docs, prune=True)) == 1
    assert ids(store) == {"t"}


@pytest.mark.parametrize("settings", [{}, {"timeout": 60.0}, {"chunk": words}])
@pytest.mark.parametrize("has_journal", [False, True])
async def test_rows_that_are_gone_leave_the_store_by_whichever_way_their_file_went(
    store, docs, tmp_path, settings, has_journal
):
    """Also where an earlier run has seen the file without them, and a journal answers for it."""
    journal = tmp_path / "run.sqlite" if has_journal else None
    processor = AsyncDocumentProcessor(
        embed=CountingEmbedder(0.01), store=store, journal=journal, **settings
    )
    await processor.process(docs)
    table(docs, "Ada", "Bora")
    await processor.process(docs)
    assert len(ids(store)) == 4
    assert pruned(await processor.process(docs, prune=True)) == 1
    assert len(ids(store)) == 3


async def test_rows_leave_the_store_when_their_file_gives_one_document(store, docs):
    """Or the other way round: what a file gave before is found only once."""
    one = AsyncDocumentProcessor(
        load=partial(load_source, loaders={**LOADERS, ".csv": load_text}), store=store
    )
    rows = AsyncDocumentProcessor(store=store)
    path = str(docs / "t.csv")
    await rows.process(docs)
    assert pruned(await one.process(docs, prune=True)) == 3
    assert ids(store) == {str(docs / "a.md"), path}
    assert pruned(await rows.process(docs, prune=True)) == 1
    assert ids(store) == {str(docs / "a.md"), *(f"{path}//#{n}" for n in (2, 3, 4))}


async def test_a_document_that_has_another_id_now_is_not_there_twice(store, docs):
    """A loader that names documents otherwise gives new ones in place of the old."""
    for title in ("first", "second"):
        processor = AsyncDocumentProcessor(
            load=lambda path, title=title: Document(f"{title} {path.name}", path.read_text()),
            store=store,
            version=title,
        )
        await processor.process(docs, prune=True)
    assert ids(store) == {"second a.md", "second t.csv"}


async def test_a_file_in_place_of_a_folder_does_not_keep_what_was_in_it(store, docs):
    """Only a folder that could not be walked does; a text whose source is the folder does not."""
    processor = AsyncDocumentProcessor(store=store)
    (docs / "sub" / "deep").mkdir(parents=True)
    (docs / "sub" / "deep" / "z.md").write_text("deep")
    await processor.process(docs)
    (docs / "sub" / "deep" / "z.md").unlink()
    (docs / "sub" / "deep").rmdir()
    (docs / "sub").rmdir()
    (docs / "sub").write_text("now a file")
    about = Document("about", "about the folder", source=str(docs))
    assert pruned(await processor.process([docs, about], prune=True)) == 1
    assert not any("deep" in id_ for id_ in ids(store))


@pytest.mark.parametrize("has_journal", [False, True])
async def test_what_could_not_be_replaced_is_not_pruned(store, docs, tmp_path, has_journal):
    """A run that refuses the new version of a document keeps the old one, and relocate works."""
    processor = AsyncDocumentProcessor(
        load=lambda path: [Document(f"title of {path.suffix}", path.read_text())],
        store=store,
        journal=tmp_path / "run.sqlite" if has_journal else None,
    )
    await processor.process(docs)
    before = ids(store)
    (docs / "a.md").rename(docs / "z.md")
    for _ in range(2):
        result = await processor.process(docs, prune=True)
        assert (result.error_count, pruned(result), ids(store)) == (1, 0, before)
    assert store.relocate(docs / "a.md", docs / "z.md") == 1
    result = await processor.process(docs, prune=True)
    assert (result.error_count, pruned(result), ids(store)) == (0, 0, before)


@pytest.mark.parametrize("prune", [True, "force"])
async def test_a_file_that_is_refused_within_a_run_keeps_the_stored_document(store, docs, prune):
    """Of two files with one id the later fails; what is stored under the id is the first's."""
    (docs / "b.md").write_text("the text of b")
    processor = AsyncDocumentProcessor(
        load=lambda path: Document(path.suffix, path.read_text()), store=store
    )
    result = await processor.process(docs, prune=prune)
    assert [type(error) for error in result.errors] == [type(None), IdConflictError, type(None)]
    (docs / "a.md").unlink()
    result = await processor.process(docs, prune=prune)
    assert store.get(".md").text == "the text of a"


@pytest.mark.parametrize("has_journal", [False, True])
async def test_a_document_whose_file_was_renamed_is_kept_and_known_by_the_new_one(
    store, docs, tmp_path, has_journal
):
    """Where its id and source are not its file's: only the later file's end is its own."""
    embed = CountingEmbedder(0.01)
    processor = AsyncDocumentProcessor(
        load=lambda path: Document(
            path.suffix, path.read_text(), source=f"https://x/{path.suffix}"
        ),
        embed=embed,
        store=store,
        journal=tmp_path / "run.sqlite" if has_journal else None,
    )
    await processor.process(docs)
    embedded = len(embed.texts)
    (docs / "a.md").rename(docs / "z.md")
    assert pruned(await processor.process(docs, prune=True)) == 0
    assert (store.get(".md").file, len(embed.texts)) == (str(docs / "z.md"), embedded)
    result = await processor.process(docs, prune=True)
    assert (pruned(result), all(done.unchanged for done in result.results)) == (
        0,
        not has_journal,  # which recalls what the last run did
    )
    (docs / "z.md").unlink()
    assert pruned(await processor.process(docs, prune=True)) == 1
    assert ids(store) == {".csv"}


async def test_a_text_that_a_file_gives_later_is_the_files(store, docs):
    """One that a program loaded itself at first, for instance."""
    source = str(docs / "a.md")
    await AsyncDocumentProcessor(store=store).process([load_source(source)])
    assert store.get(source).file is None
    processor = AsyncDocumentProcessor(store=store)
    await processor.process(docs)
    assert store.get(source).file == source
    await processor.process([load_source(source)])
    (docs / "a.md").unlink()
    assert pruned(await processor.process(docs, prune=True)) == 1


async def test_a_document_that_two_files_give_is_stored_once(store, docs):
    """It is of the first, until that is gone; then of the other."""
    processor = AsyncDocumentProcessor(
        load=lambda path: Document("x", "the same", source="both"), store=store
    )
    for _ in range(3):
        result = await processor.process(docs, prune=True)
        assert (result.success_count, pruned(result)) == (2, 0)
    assert [done.unchanged for done in result.results] == [True, True]
    (docs / store.get("x").file).unlink()
    assert pruned(await processor.process(docs, prune=True)) == 0
    assert (docs / store.get("x").file).exists()


@pytest.mark.parametrize("has_journal", [False, True])
async def test_what_was_in_a_file_that_is_empty_now_is_gone(store, docs, tmp_path, has_journal):
    """Where empty files may be; where they fail, or are unreadable otherwise, it stays."""
    settings = {"store": store, "journal": tmp_path / "run.sqlite" if has_journal else None}
    await AsyncDocumentProcessor(**settings).process(docs)
    before = ids(store)
    (docs / "a.md").write_text("")
    table(docs)
    for skipped in ("fail", {"binary"}):
        result = await AsyncDocumentProcessor(on_unreadable=skipped, store=store).process(
            docs, prune=True
        )
        assert (result.error_count, pruned(result), ids(store)) == (2, 0, before)
    (docs / "a.md").write_bytes(b"\0binary\0")
    processor = AsyncDocumentProcessor(on_unreadable="skip", **settings)
    await processor.process(docs)
    result = await processor.process(docs, prune=True)
    assert (pruned(result), ids(store)) == (3, {str(docs / "a.md")})
