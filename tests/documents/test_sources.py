"""What there is to load, in which order and under which ids."""

import os
from pathlib import Path

import pytest

from ragasync.documents import Document, Source, find_sources, load_source
from tests.support.requirements import go_without, only_where


def make(folder: Path, *names: str) -> None:
    """Write files that hold their own names."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def ids(sources, **options) -> list[str]:
    """Return the ids that are found, relative to the folder where nothing else is said."""
    return [found.id for found in find_sources(sources, **{"root": sources, **options})]


def test_a_folder_is_walked_in_order_with_ids_relative_to_it(tmp_path):
    """The same tree gives the same ids and order, whatever machine and file system it is on."""
    make(tmp_path, "b.md", "a.txt", "sub/z.md", "sub/deep/y.md", "another/x.bin")
    expected = ["a.txt", "b.md", "another/x.bin", "sub/z.md", "sub/deep/y.md"]
    assert ids(tmp_path) == expected
    assert ids(str(tmp_path)) == expected


def test_hidden_files_and_caches_are_passed_over(tmp_path):
    """Secrets, version control and compiled files are nobody's documents."""
    make(tmp_path, "a.md", ".env", ".git/config", "__pycache__/a.pyc", "b.pyc", "CVS/Root")
    assert ids(tmp_path) == ["a.md"]


def test_a_hidden_folder_is_walked_where_it_is_named(tmp_path):
    """Only names below the folder are judged."""
    make(tmp_path, ".notes/a.md")
    assert ids(tmp_path / ".notes") == ["a.md"]


def test_further_names_are_skipped_by_pattern(tmp_path):
    """Patterns are for the name alone, of files and of folders."""
    make(tmp_path, "a.md", "a.png", "site-packages/p/a.md", "sub/b.png", "sub/b.md")
    assert ids(tmp_path, exclude=["site-packages", "*.png"]) == ["a.md", "sub/b.md"]


def test_a_dangling_link_is_found_and_fails_when_it_is_loaded(tmp_path):
    """What cannot be read is a failure of its own, not a gap in the walk."""
    (tmp_path / "gone.md").symlink_to(tmp_path / "nowhere.md")
    (source,) = find_sources(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_source(source)


def test_a_folder_that_cannot_be_opened_is_found_as_a_source(tmp_path, monkeypatch):
    """One closed folder does not end the walk."""
    make(tmp_path, "a.md", "closed/b.md", "open/c.md")
    scandir = os.scandir

    def guarded(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert ids(tmp_path) == ["a.md", "closed", "open/c.md"]


def test_members_of_an_iterable_have_the_ids_of_their_paths(tmp_path, monkeypatch):
    """Two folders may hold the same names without sharing an id."""
    monkeypatch.chdir(tmp_path)
    make(tmp_path, "one/a.md", "two/a.md", "c.md")
    names = ["one/a.md", "two/a.md", "c.md"]
    assert ids([Path("one"), "two", "c.md"], root=".") == names
    absolute = [str(tmp_path / name) for name in names]
    assert ids([Path("one"), "two", "c.md"], root=None) == absolute


def test_documents_texts_and_sources_pass_among_paths(tmp_path):
    """An iterable may mix whatever can be loaded."""
    make(tmp_path, "a.md")
    document, source = Document("d", "text"), Source("s", tmp_path / "a.md")
    found = list(find_sources(iter([document, ("t", "another"), source])))
    assert found == [document, Document("t", "another"), source]
    assert list(find_sources(document)) == [document]
    assert list(find_sources(source)) == [source]


def test_sources_are_found_lazily():
    """An endless iterable is pulled one by one."""

    def endless():
        number = 0
        while True:
            yield (str(number), "text")
            number += 1

    found = find_sources(endless())
    assert [next(found).id for _ in range(3)] == ["0", "1", "2"]


@pytest.mark.parametrize("text", ["Paris is a city.", "long " * 2000, "a\0b"])
@pytest.mark.parametrize("wrap", [str, lambda text: [text]])
def test_a_str_that_names_nothing_says_how_texts_are_given(text, wrap):
    """The most likely mistake gets the most helpful message, however long the text."""
    with pytest.raises(FileNotFoundError, match=r"texts are given as Document\(id, text\)"):
        list(find_sources(wrap(text)))


def test_a_missing_path_fails_when_it_is_loaded(tmp_path):
    """A Path is taken at its word, so that one missing file is one failure among many."""
    (source,) = find_sources([tmp_path / "gone.md"])
    with pytest.raises(FileNotFoundError):
        load_source(source)


@pytest.mark.parametrize("wrong", [7, [7], [("a", "b", "c")], [b"bytes"], None])
def test_what_cannot_be_loaded_is_a_type_error(wrong):
    """The message lists what can be."""
    with pytest.raises(TypeError, match="a source is a path, a Document, a Source or an"):
        list(find_sources(wrong))


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        ([(1, "text")], "both id and text are of type str"),
        ([{"id": "a", "text": "text", "year": 1}], r"pass Document\(id, text, metadata\)"),
        ({"a": "text"}, r"got a dict: pass its \.items\(\)"),
        (b"notes.md", "pass 'notes.md'"),
        ([b"notes.md"], "pass 'notes.md'"),
        ("~/no such folder", r"Path\(\.\.\.\)\.expanduser\(\)"),
        (("a", "text"), r"\(id, text\) pairs in a list"),
    ],
)
def test_sources_in_a_similar_form_are_answered_with_the_right_one(wrong, advice):
    """Of pairs, rows, bytes and the home folder."""
    with pytest.raises((TypeError, FileNotFoundError), match=advice):
        list(find_sources(wrong))


@only_where(os.name == "posix", "names are bytes on POSIX only")
def test_a_name_that_is_not_utf8_gets_an_id_that_can_be_stored(tmp_path):
    """Odd bytes are written out in id and source, and the file still loads."""
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.md")).write_text("text")
    except OSError:
        go_without("this file system takes UTF-8 names only")
    (source,) = find_sources(tmp_path, root=tmp_path)
    document = load_source(source)
    assert (document.id, document.text) == (r"caf\xe9.md", "text")
    assert document.source.encode()
