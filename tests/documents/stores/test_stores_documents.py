"""Documents in every kind of store: read back, listed, deleted by conditions, and relocated."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragasync import AsyncDocumentProcessor
from ragasync.documents import (
    Chunk,
    Document,
    HashingEmbedder,
    IdConflictError,
    MemoryStore,
    RecursiveSplitter,
)
from tests.support.store_kinds import KINDS, embed, fill, opened, put


@pytest.fixture(params=KINDS)
def store(request, tmp_path):
    """An empty store of each kind."""
    with opened(request.param, tmp_path) as empty:
        yield empty


def stored_ids(store) -> list[str]:
    """Return the ids of all documents, in order."""
    return sorted(document.id for document in store.documents())


def test_a_document_is_read_back_with_its_chunks(store):
    """Their places, their metadata and its text."""
    text = "Въведение.\n\nA bucket refills.\n\n数据库"
    chunks = [
        Chunk(text[:10], 0, 10, {"page": 1}),
        Chunk(text[12:29], 12, 29),
        Chunk("数据库", 31, 34),
    ]
    put(store, Document("guide", text, {"lang": "bg"}, source="/docs/guide.md"), *chunks)
    found = store.get("guide")
    assert (found.id, found.source, found.metadata) == ("guide", "/docs/guide.md", {"lang": "bg"})
    assert (found.chunks, found.text) == (tuple(chunks), text)
    assert (found.fingerprint, found.chunk_count) == ("first", 3)
    assert repr(found) == "<StoredDocument 'guide': 3 chunks>"


def test_what_is_not_stored_is_none(store):
    """In an empty store, and among others; an empty document is one."""
    assert store.get("guide") is None
    put(store, Document("guide", "text"))
    assert store.get("other") is None
    vectors = np.zeros((0, 64))
    store.upsert(Document("empty", ""), [], vectors, fingerprint="1", embedder=embed.name)
    assert (store.get("empty").text, store.get("empty").chunks) == ("", ())


def test_a_text_is_whole_whatever_the_order_of_its_chunks(store):
    """A splitter may give them in any."""
    text = "first second third"
    put(
        store,
        Document("a", text),
        *(Chunk(text[a:b], a, b) for a, b in [(6, 12), (13, 18), (0, 6)]),
    )
    assert store.get("a").text == "first second\nthird"


@pytest.mark.parametrize("document_id", [Path("a"), 123, None, b"a"])
def test_an_id_is_a_text(store, document_id):
    """The error says what it is of a file."""
    with pytest.raises(TypeError, match=r"get takes a document's id.*got .*absolute path"):
        store.get(document_id)


@pytest.mark.parametrize("kind", ["sqlite", "lance"])
def test_a_store_given_by_a_relative_path_stays_where_it_is(kind, tmp_path, monkeypatch):
    """A notebook may change its folder; the store's own files are still no documents."""
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "a.md").write_text("A bucket refills.")
    monkeypatch.chdir(tmp_path / "f")
    with opened(kind, Path()) as store:
        assert "'store." in repr(store)
        monkeypatch.chdir(tmp_path)
        for _ in range(2):
            result = AsyncDocumentProcessor(store=store).process_sync("f")
            assert [outcome.status for outcome in result] == ["done"]
        assert stored_ids(store) == [str(tmp_path / "f" / "a.md")]


def test_a_text_is_whole_where_chunks_overlap_or_were_rewritten(store):
    """Nothing is there twice; what a splitter rewrote is joined by blank lines."""
    text = " ".join(f"word{n}" for n in range(300))
    put(store, Document("a", text), *RecursiveSplitter(200, 80)(text))
    assert store.get("a").text == text
    put(store, Document("b", "one two"), Chunk("ONE!", 0, 3), Chunk("TWO!", 4, 7))
    assert store.get("b").text == "ONE!\n\nTWO!"


def test_documents_are_listed_with_their_counts_and_as_a_table(store):
    """Empty or not, with the same columns; every value of the table's HTML is escaped."""
    empty = store.documents().to_dataframe()
    put(store, Document("a", "xy", {"n": "<b>"}, source="/a"), Chunk("x", 0, 1), Chunk("y", 1, 2))
    put(store, Document("b", "z"))
    found = store.documents()
    assert [(each.id, each.source, each.chunk_count) for each in found] == [
        ("a", "/a", 2),
        ("b", None, 1),
    ]
    frame = found.to_dataframe()
    assert frame.dtypes.to_dict() == empty.dtypes.to_dict()
    assert frame[["id", "chunks"]].to_dict("list") == {"id": ["a", "b"], "chunks": [2, 1]}
    assert frame.source.isna().tolist() == [False, True]
    assert "&lt;b&gt;" in found._repr_html_()
    assert "<b>" not in found._repr_html_()
    assert repr(found) == "<StoredDocuments: 2>"
    with pytest.raises(ValueError, match=r"call store\.get\('a'\)"):
        _ = found[0].text


def test_documents_are_listed_by_conditions(store):
    """On what they are themselves."""
    fill(store)
    french = store.documents(where={"lang": "fr"})
    assert [each.id for each in french] == ["café"]
    assert len(store.documents(where={"year": {"$gte": 2022}})) == 3
    assert [each.id for each in store.documents(where={"source": "/docs/it's.md"})] == ["it's"]


def test_documents_are_deleted_by_conditions(store):
    """How many is returned; the others are found as before."""
    fill(store)
    assert store.delete(where={"lang": "en", "year": {"$lt": 2022}}) == 2
    assert stored_ids(store) == ["café", "it's", "sort"]
    assert store.delete(where={"id": "it's"}) == 1
    assert store.delete(where={"lang": "en", "year": 2021}) == 0
    assert [hit.document_id for hit in store.search("sorting", mode="keyword")] == ["sort"]
    assert store.search("bucket", mode="keyword") == []


def test_nothing_in_particular_is_not_deleted(store):
    """An empty condition holds of everything, which is rarely meant."""
    fill(store)
    for wrong in ({}, {"document_id": "a", "where": {"lang": "en"}}, {"document_id": 7}):
        with pytest.raises(TypeError, match="delete takes"):
            store.delete(**wrong)
    with pytest.raises(ValueError, match="at least one condition"):
        store.delete(where={})
    assert len(store.documents()) == 5


def test_new_metadata_leaves_chunks_and_vectors(store):
    """It is found by the new one, and by the old one no longer."""
    fill(store)
    [before] = store.vectors_of(embed.name, ["Le café sert une crème brûlée."])
    store.update_metadata({"café": {"lang": "oc"}, "sort": {"lang": "en"}, "unknown": {}})
    assert store.get("café").metadata == {"lang": "oc"}
    assert [hit.document_id for hit in store.search("crème", where={"lang": "oc"})] == ["café"]
    assert not store.search("crème", where={"lang": "fr"}, mode="keyword")
    [after] = store.vectors_of(embed.name, ["Le café sert une crème brûlée."])
    assert (before == after).all()
    assert (len(store.documents()), len(store), store.fingerprint_of("café")) == (5, 5, "first")


def test_a_folder_is_relocated_with_all_that_is_found_in_it(store):
    """Ids and sources change, and what only begins like it does not; nothing is embedded."""
    for name in ("/docs/a.md", "/docs/sub/t.csv//#2", "/docs-old/a.md"):
        put(store, Document(name, f"the text of {name}", source=name.partition("//")[0]))
    put(store, Document("by hand", "a text by hand", source="/docs/b.md"))
    assert store.relocate("/docs", "/mnt/shared/docs") == 3
    assert {each.id: each.source for each in store.documents()} == {
        "/mnt/shared/docs/a.md": "/mnt/shared/docs/a.md",
        "/mnt/shared/docs/sub/t.csv//#2": "/mnt/shared/docs/sub/t.csv",
        "/docs-old/a.md": "/docs-old/a.md",
        "by hand": "/mnt/shared/docs/b.md",
    }
    hits = store.search("text", 9, mode="keyword")
    assert {hit.document_id for hit in hits} == set(stored_ids(store))
    assert store.get("/mnt/shared/docs/a.md").text == "the text of /docs/a.md"
    assert len(store.search("text", 9, mode="vector")) == 4
    assert store.relocate("/docs", "/mnt/shared/docs") == 0


def test_after_a_relocation_the_old_path_is_free(store):
    """Another document may be stored there, with the same text even, and neither loses a chunk."""
    put(store, Document("a/x", "same text"), Chunk("same", 0, 4), Chunk("text", 5, 9))
    store.relocate("a", "b")
    put(store, Document("a/x", "same text"), Chunk("same", 0, 4), Chunk("text", 5, 9))
    assert [
        (each.id, each.chunk_count) for each in sorted(store.documents(), key=lambda e: e.id)
    ] == [
        ("a/x", 2),
        ("b/x", 2),
    ]
    put(store, Document("b/x", "other"))
    assert [hit.document_id for hit in store.search("same", mode="keyword")] == ["a/x"]


def test_a_folder_moves_into_one_of_its_own(store):
    """One's new id is another's old one."""
    for name in ("a/x", "a/a/x", "a/a/a/x"):
        put(store, Document(name, "same text", {"was": name}))
    assert store.relocate("a", "a/a") == 3
    assert {each.id: each.metadata["was"] for each in store.documents()} == {
        "a/a/x": "a/x",
        "a/a/a/x": "a/a/x",
        "a/a/a/a/x": "a/a/a/x",
    }
    assert len(store) == 3
    assert store.relocate("a/a", "a") == 3
    assert stored_ids(store) == ["a/a/a/x", "a/a/x", "a/x"]


def test_a_folder_is_emptied_into_the_one_above(store):
    """As into a root; but no document is left without an id."""
    for name in ("drafts/a", "drafts/sub/b", "drafts/a//#2"):
        put(store, Document(name, name))
    assert store.relocate("drafts/", "") == 3
    assert stored_ids(store) == ["a", "a//#2", "sub/b"]
    with pytest.raises(ValueError, match="a document needs an id"):
        store.relocate("a", "")
    assert store.relocate("sub/b", "b") == 1


def test_a_single_file_is_relocated(store):
    """With its rows."""
    for name in ("/d/old.csv//#1", "/d/old.csv//#2", "/d/old.csv.bak"):
        put(store, Document(name, name, source=name.partition("//")[0]))
    assert store.relocate("/d/old.csv", "/d/new.csv") == 2
    assert stored_ids(store) == ["/d/new.csv//#1", "/d/new.csv//#2", "/d/old.csv.bak"]


def test_what_was_stored_under_the_new_path_meanwhile_replaces_what_moves_there(store, tmp_path):
    """A run came first: the same content is kept once, and of a file that changed the new one."""
    old, new = tmp_path / "old", tmp_path / "new"
    new.mkdir()
    (new / "edited").write_text("after")
    for folder, text in ((old, "before"), (new, "after")):
        put(store, Document(f"{folder}/same", "same", source=f"{folder}/same"))
        path = f"{folder}/edited"
        put(store, Document(path, text, source=path), fingerprint=text)
    put(store, Document(f"{old}/only", "only", source=f"{old}/only"))
    assert store.relocate(old, new) == 3
    assert stored_ids(store) == [f"{new}/edited", f"{new}/only", f"{new}/same"]
    assert store.get(f"{new}/edited").text == "after"


def test_two_files_that_are_both_there_are_not_made_one(store, tmp_path):
    """Neither is lost, and nothing has moved."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        path = tmp_path / name / "readme.md"
        path.write_text(name)
        put(store, Document(str(path), name, source=str(path)), fingerprint=name)
    before = stored_ids(store)
    with pytest.raises(IdConflictError, match=r"no file is known to have moved.*delete one"):
        store.relocate(tmp_path / "one", tmp_path / "two")
    assert stored_ids(store) == before


@pytest.mark.parametrize(
    "sources", [(None, None), ("https://x/a", "https://x/b"), ("/x/a", "/x/b")]
)
def test_documents_of_which_nobody_knows_that_they_moved_are_not_made_one(store, sources):
    """Those that the user made, of the web, or of a disk that is not there."""
    for name, source in zip(("a", "b"), sources, strict=True):
        put(store, Document(f"{name}/guide", name, source=source), fingerprint=name)
    with pytest.raises(IdConflictError, match="'a/guide' and 'b/guide' with different contents"):
        store.relocate("a", "b")
    assert {each.id: store.get(each.id).text for each in store.documents()} == {
        "a/guide": "a",
        "b/guide": "b",
    }


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text("ab/", min_size=1, max_size=6), min_size=1, max_size=8, unique=True),
    st.text("ab/", min_size=1, max_size=4),
    st.text("ab/", min_size=1, max_size=4),
)
def test_no_relocation_loses_a_document(names, old, new):
    """Whatever ids are like: all texts are there afterwards, or nothing has changed."""
    with MemoryStore() as store:
        for name in names:
            put(store, Document(name, f"text of {name}"), fingerprint=name)
        before = {each.id: store.get(each.id).text for each in store.documents()}
        try:
            moved = store.relocate(old, new)
        except ValueError:
            assert {each.id: store.get(each.id).text for each in store.documents()} == before
            return
        after = {each.id: store.get(each.id).text for each in store.documents()}
        assert sorted(after.values()) == sorted(before.values())
        changed = [text for id_, text in after.items() if before.get(id_) != text]
        assert len(changed) <= moved
        assert {hit.document_id for hit in store.search("text", 9, mode="keyword")} == after.keys()


@pytest.mark.parametrize(
    "documents",
    [
        [("a/x", None), ("b/x", "a/y")],
        [("a/x", None), ("c/y", "a/x"), ("b/x", "c")],
        [("a/x", "a/1"), ("a/y", "a/2"), ("b/y", None)],
    ],
)
def test_documents_that_would_get_one_id_are_refused(store, documents):
    """Whether the other stays or moves as well; nothing has changed afterwards."""
    for name, source in documents:
        put(store, Document(name, f"text of {name}", source=source), fingerprint=name)
    before = [(each.id, each.source) for each in store.documents()]
    with pytest.raises(IdConflictError, match=r"with different contents.*delete one"):
        store.relocate("a", "b")
    assert [(each.id, each.source) for each in store.documents()] == before


@pytest.mark.parametrize("new", ["/disk/final", "final", "./final", "zz/../final"])
def test_files_move_to_a_path_that_is_written_as_their_ids_are(store, tmp_path, monkeypatch, new):
    """Absolute and without dots, wherever the current folder is."""
    monkeypatch.chdir(tmp_path)
    path = f"{tmp_path}/drafts/a.md"
    put(store, Document(path, "text", source=path, file=path))
    assert store.relocate(f"{tmp_path}/drafts", new) == 1
    folder = new if new.startswith("/") else f"{tmp_path}/final"
    (found,) = store.documents()
    assert (found.id, found.source, found.file) == (f"{folder}/a.md",) * 3


def test_files_and_documents_of_ones_own_move_together(store, tmp_path, monkeypatch):
    """A folder that is given by a relative path has both."""
    monkeypatch.chdir(tmp_path)
    path = f"{tmp_path}/notes/a.md"
    put(store, Document(path, "of a file", source=path, file=path))
    put(store, Document("notes/mine", "my own"))
    assert store.relocate("notes", "archive") == 2
    assert stored_ids(store) == sorted([f"{tmp_path}/archive/a.md", "archive/mine"])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("notes", "/archive", "give two absolute paths, or two prefixes of ids"),
        ("notes/mine", "", "a document needs an id"),
    ],
)
def test_ids_become_no_paths_and_are_never_empty(store, old, new, said):
    """Of a document that the user made."""
    put(store, Document("notes/mine", "my own"))
    with pytest.raises(ValueError, match=said):
        store.relocate(old, new)
    assert stored_ids(store) == ["notes/mine"]


class Interrupted(Exception):
    """Raised in the middle of a relocation."""


@pytest.mark.parametrize("commit", [1, 2])
def test_a_relocation_that_was_interrupted_has_moved_nothing(tmp_path, monkeypatch, commit):
    """So that it can be called again, also where one's new id is another's old one."""
    names = ["docs/0", "docs/1", "docs/old/0", "docs/old/old/0"]
    with opened("lance", tmp_path) as store:
        for name in names:
            put(store, Document(name, f"text of {name}"))
        from lancedb.merge import LanceMergeInsertBuilder

        execute, calls = LanceMergeInsertBuilder.execute, []

        def interrupted(*args: object) -> object:
            calls.append(args)
            if len(calls) == commit:
                raise Interrupted
            return execute(*args)

        with monkeypatch.context() as patched, suppress(Interrupted):
            patched.setattr(LanceMergeInsertBuilder, "execute", interrupted)
            store.relocate("docs", "docs/old")
        if stored_ids(store) == names:
            assert store.relocate("docs", "docs/old") == 4
        found = {each.id: store.get(each.id).text for each in store.documents()}
        assert found == {name.replace("docs", "docs/old", 1): f"text of {name}" for name in names}
        assert not [*(tmp_path / "store.lance").glob("moving-*")]


def test_wrong_paths_are_refused(store):
    """One is no path, or both are the same."""
    put(store, Document("a/x", "text"))
    with pytest.raises(TypeError, match="old must be a path"):
        store.relocate(7, "b")
    with pytest.raises(ValueError, match="two different paths, got 'a/' twice"):
        store.relocate("a/", "a")


def test_many_documents_are_relocated_and_deleted(store):
    """More than go into one commit."""
    processor = AsyncDocumentProcessor(embed=HashingEmbedder(2), store=store)
    processor.process_sync([Document(f"a/{n}", "text") for n in range(250)]).raise_for_errors()
    assert store.relocate("a", "b") == 250
    assert stored_ids(store) == sorted(f"b/{n}" for n in range(250))
    assert store.delete(where={"id": [f"b/{n}" for n in range(240)]}) == 240
    assert len(store) == 10


def test_of_two_documents_that_would_get_one_id_none_is_lost(store):
    """One that moves by its source keeps its id; equal ones become one."""
    put(store, Document("a/x", "one"), fingerprint="1")
    put(store, Document("b/x", "two", source="a/y"), fingerprint="2")
    put(store, Document("a/z", "three"), fingerprint="3")
    before = {each.id: store.get(each.id).text for each in store.documents()}
    with pytest.raises(IdConflictError, match="'a/x' and 'b/x' with different contents"):
        store.relocate("a", "b")
    assert {each.id: store.get(each.id).text for each in store.documents()} == before
    store.delete("a/x")
    put(store, Document("a/x", "two"), fingerprint="2")
    assert store.relocate("a", "b") == 3
    assert stored_ids(store) == ["b/x", "b/z"]
    assert store.get("b/x").source == "b/y"


def test_a_relocated_document_still_has_its_file(store):
    """Which has moved with it, as pruning needs to know; one without a file gets none."""
    path = "/disk/docs/a.csv"
    put(store, Document(f"{path}//#2", "row", source="https://x/a", file=path))
    put(store, Document("/disk/docs/mine", "text"))
    assert store.relocate("/disk/docs", "/disk/new") == 2
    assert store.sources_within("/disk/") == [("/disk/new/a.csv//#2", "/disk/new/a.csv")]
    assert store.get("/disk/new/a.csv//#2").source == "https://x/a"
