"""From a chunk back to its place: line, page, headings."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragasync import AsyncDocumentProcessor
from ragasync.documents import (
    Chunk,
    Document,
    MemoryStore,
    RecursiveSplitter,
    SemanticTextSplitter,
    add_locations,
    load_html,
)

# Internals: one loader, and its bounds, which these tests lower.
from ragasync.documents.loaders.text import load_notebook, markdown_headings, title_at
from tests.support.store_kinds import KINDS, opened

TEXT = """intro

# Install

how

## On Linux ##

apt

## On Mac

brew

Use
===

run it
"""


def places(document: Document, *words: str) -> list[dict]:
    """Return what is told of chunks that start at some words of the text."""
    starts = [document.text.index(word) for word in words]
    chunks = [
        Chunk(word, start, start + len(word)) for word, start in zip(words, starts, strict=True)
    ]
    return [dict(chunk.metadata) for chunk in add_locations(document, chunks)]


def headings(text: str) -> list[tuple[int, str]]:
    """Return level and title of each heading."""
    return [(level, title_at(text, offset)) for offset, level in markdown_headings(text)]


def test_a_chunk_knows_the_headings_above_it_and_its_line():
    """A heading ends those of its level and below; a chunk that starts with one is below it."""
    assert places(Document("a.md", TEXT), "intro", "how", "apt", "## On Mac", "brew", "run") == [
        {"line": 1},
        {"line": 5, "heading": "Install", "headings": ["Install"]},
        {"line": 9, "heading": "Install > On Linux", "headings": ["Install", "On Linux"]},
        {"line": 11, "heading": "Install > On Mac", "headings": ["Install", "On Mac"]},
        {"line": 13, "heading": "Install > On Mac", "headings": ["Install", "On Mac"]},
        {"line": 18, "heading": "Use", "headings": ["Use"]},
    ]


def test_chunks_may_come_in_any_order():
    """They stay in the order in which the splitter gave them."""
    document = Document("a.md", TEXT)
    mixed = places(document, "brew", "intro", "apt")
    assert mixed == [places(document, word)[0] for word in ("brew", "intro", "apt")]


@pytest.mark.parametrize("splitter", [RecursiveSplitter(20, 8), SemanticTextSplitter(20, 8)])
def test_the_line_is_the_one_that_an_editor_shows(splitter):
    """Of every chunk of every splitter, overlapping ones too."""
    document = Document("a.txt", TEXT * 3)
    lines = document.text.split("\n")
    chunks = add_locations(document, splitter(document))
    assert len(chunks) > 9
    for chunk in chunks:
        assert lines[chunk.metadata["line"] - 1].endswith(chunk.text.split("\n")[0])


@given(st.lists(st.sampled_from(["a", "\n", "# ", "b\n", "===\n"])).map("".join), st.data())
def test_lines_and_order_hold_for_any_chunks(text, data):
    """A splitter of the user's own may overlap, skip and go back."""
    starts = data.draw(st.lists(st.integers(0, len(text))))
    chunks = add_locations(Document("a", text), [Chunk("x", start, start) for start in starts])
    assert [chunk.start for chunk in chunks] == starts
    for chunk in chunks:
        assert chunk.metadata["line"] == text.count("\n", 0, chunk.start) + 1


@pytest.mark.parametrize("name", ["a.py", "a.sh", "a.yaml", "a.txt", "folder/a.toml"])
def test_comments_in_code_are_no_headings(name):
    """Only Markdown has headings that are not told, and a text without a suffix is taken for it."""
    assert places(Document(name, "# a\nb"), "b") == [{"line": 2}]
    (facts,) = places(Document("an id", "# a\nb"), "b")
    assert facts == {"line": 2, "heading": "a", "headings": ["a"]}
    assert places(Document("an id", "# a\nb", source=name), "b") == [{"line": 2}]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("# a\n### b ###\n  ## c", [(1, "a"), (3, "b"), (2, "c")]),
        ("#tag\n####### seven\n    # code\n\t# code", []),
        ("# C#\n## `x` \xb6\n#\n", [(1, "C#"), (2, "`x`"), (1, "")]),
        ("a\n=\n\nb\n---\nc\n===", [(1, "a"), (2, "b"), (1, "c")]),
        ("1. One\n======\n", [(1, "1. One")]),
        ("two\nlines\n---\n", []),
        ("- item\n---\n> quote\n---\n\n---\n\n***\n---\n\n    code\n---\n", []),
        ("====\na  b\n====\n1  2\n====\n", []),
        ("```sh\n# a\n```\n# b\n~~~\n```\n# c\n~~~~\n# d", [(1, "b"), (1, "d")]),
        ("````\n```\n# a\n```` x\n````\n# b", [(1, "b")]),
        ("``` `a`\n# b", [(1, "b")]),
        ("```\n# never closed", []),
        ("---\ntitle: x\n---\n# a", [(1, "a")]),
        ("---\ntitle: x\n\n# a", [(1, "a")]),
        ("", []),
    ],
)
def test_headings_are_those_of_markdown(text, found):
    """Not in code, front matter or tables, and no rule that only looks like an underline."""
    assert headings(text) == found


def test_a_title_of_any_length_is_shortened():
    """Otherwise a line of a megabyte would be in every chunk below it."""
    (facts,) = places(Document("a", f"# {'x' * 10_000}\n\nend"), "end")
    assert facts["heading"] == "x" * 100


def test_a_page_number_is_told_where_the_loader_knows_pages():
    """From 1, and a page without text counts."""
    document = Document("a.pdf", "one\n\n\n\nthree", {"page_starts": (0, 5, 7)})
    assert [facts["page"] for facts in places(document, "one", "three")] == [1, 3]


def test_headings_of_a_page_are_those_of_its_tags():
    """A line of code that looks like one is none."""
    text, metadata = load_html(b"<h1>A</h1><h2>B</h2><pre># no</pre><p>b<h2>C</h2>c")
    document = Document("a.html", text, metadata)
    assert [facts["heading"] for facts in places(document, "# no", "b", "c")] == [
        "A > B",
        "A > B",
        "A > C",
    ]


def test_a_chunk_of_a_notebook_knows_its_cell():
    """Headings are those of its Markdown cells, not the comments of its code."""
    text, metadata = load_notebook(
        b'{"cells": [{"cell_type": "markdown", "source": "# A\\n\\n## B"},'
        b'{"cell_type": "code", "source": "# no\\nx = 1"}], "metadata": {}}'
    )
    (facts,) = places(Document("a.ipynb", text, metadata), "x = 1")
    assert facts == {"line": 6, "heading": "A > B", "headings": ["A", "B"], "cell": 2}


def test_a_row_of_a_table_keeps_its_line():
    """Its text is not the file's, so its own lines lead nowhere."""
    (chunk,) = add_locations(Document("a.csv#2", "name: x", {"line": 2}), [Chunk("name: x", 0, 7)])
    assert "line" not in chunk.metadata


def test_what_the_splitter_says_itself_stays():
    """And whatever else it noted."""
    chunk = Chunk("b", 4, 5, {"heading": "own", "score": 1})
    (told,) = add_locations(Document("a", "# a\nb"), [chunk])
    assert dict(told.metadata) == {"line": 2, "heading": "own", "headings": ["a"], "score": 1}


@pytest.mark.parametrize("unit", ["x", "\n", "# a\n", "a\n=\n", "-\n", "```\n", "---\na\n", "`"])
def test_the_work_is_linear_whatever_the_text(unit):
    """Twice the text and the chunks make at most a little over twice as many steps."""

    def steps(size: int) -> int:
        text, seen = unit * (size // len(unit)), 0

        def count(*_):
            nonlocal seen
            seen += 1

        chunks = [Chunk("x", start, start + 1) for start in range(0, len(text), 100)]
        sys.setprofile(count)
        try:
            add_locations(Document("a", text), chunks)
        finally:
            sys.setprofile(None)
        return seen

    assert steps(40_000) <= 2.2 * steps(20_000) + 100


# All headings of a chunk, and what a search finds by them

STARTS = {
    "an intro": "Read this first.\n\n",
    "front matter": "---\ntitle: A guide\n---\n\n",
    "a heading": "",
}
GUIDE = "# Limits\n\nA bucket refills.\n\n## Retries ##\n\nWait, then try again.\n\n## Notes\n\nx"


@pytest.mark.parametrize("start", STARTS)
def test_a_chunk_knows_the_headings_in_it_too(start):
    """However its document begins, and whether it is one chunk or many."""
    document = Document("a.md", STARTS[start] + GUIDE)
    (whole,) = add_locations(document, RecursiveSplitter(500)(document))
    assert whole.metadata["heading"] == "Limits"
    assert whole.metadata["headings"] == ["Limits", "Retries", "Notes"]
    *_, last = add_locations(document, RecursiveSplitter(24)(document))
    assert last.metadata["headings"] == ["Limits", "Notes"]


def test_navigation_in_front_of_a_page_hides_none_of_its_headings():
    """What stands in front belongs to none of them, and they are in the chunk."""
    text, metadata = load_html(b"<nav>Home Docs</nav><h1>Limits</h1>a<h2>Retries</h2>b")
    document = Document("a.html", text, metadata)
    (chunk,) = add_locations(document, RecursiveSplitter()(document))
    assert chunk.metadata["headings"] == ["Limits", "Retries"]


def test_headings_of_a_chunk_are_bounded_and_their_time_linear():
    """A chunk of headings alone does not carry them all, and each is told once."""
    text = "".join(f"# {n}\n" for n in range(20_000)) + "# 1\n" * 20
    whole = Chunk(text, 0, len(text))
    (told,) = add_locations(Document("a", text), [whole])
    assert len(told.metadata["headings"]) <= 200
    deep = [(n * 2, n + 1) for n in range(5_000)]
    document = Document("a", "x\n" * 5_000, {"headings": deep})
    chunks = add_locations(document, [Chunk("x", n * 2, n * 2 + 1) for n in range(5_000)])
    assert max(len(chunk.metadata["headings"]) for chunk in chunks) <= 200


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_by_heading_finds_what_is_below_it_or_holds_it(kind, tmp_path):
    """By its title, wherever it stands in the chunk, and in every store."""
    documents = [
        Document("small.md", STARTS["an intro"] + GUIDE),
        Document("b.md", "# Else\n\nWait."),
    ]
    with opened(kind, tmp_path) as store:
        AsyncDocumentProcessor(store=store).process_sync(documents)
        for where, ids in (
            ({"heading": "Limits"}, {"small.md"}),
            ({"heading": "Retries"}, {"small.md"}),
            ({"heading": ["Notes", "None"]}, {"small.md"}),
            ({"heading": {"$gte": "R"}}, {"small.md"}),
            ({"heading": {"$ne": "Retries"}}, {"b.md"}),
            ({"heading": "Retry"}, set()),
        ):
            hits = store.search("wait", where=where)
            assert {hit.document_id for hit in hits} == ids, where


@pytest.mark.parametrize(
    "metadata",
    [
        {"headings": ["Intro", "Outro"]},
        {"headings": [{"level": 1, "text": "Intro"}]},
        {"headings": [(5, 1), (0, 1)]},
        {"headings": [("0", 1)]},
        {"cell_starts": ["a"]},
        {"page_starts": [3, None]},
        {"page_starts": [9, 0]},
        {"page_starts": "first", "headings": {"Intro": 1}},
    ],
)
def test_metadata_of_the_users_own_under_the_keys_of_loaders_tells_no_places(metadata):
    """It stays what it is, and the places are found in the text."""
    document = Document("a", "# Title\n\ntext", metadata)
    (chunk,) = add_locations(document, [Chunk(document.text, 0, len(document.text))])
    assert dict(chunk.metadata) == {"line": 1, "heading": "Title", "headings": ["Title"]}
    store = MemoryStore()
    assert AsyncDocumentProcessor(store=store).process_sync([document]).all_succeeded
    stored = store.get("a")
    assert stored is not None
    assert stored.metadata["headings" if "headings" in metadata else next(iter(metadata))]
    store.close()
