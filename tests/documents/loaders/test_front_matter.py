"""What Markdown files say of themselves is metadata; the text stays as it stands."""

import pytest

from ragasync import AsyncDocumentProcessor
from ragasync.documents import MemoryStore, load_source


def front_matter(folder, text):
    """Return the metadata that a Markdown file has from its front matter."""
    (folder / "a.md").write_text(text, encoding="utf-8")
    metadata = dict(load_source(folder / "a.md").metadata)
    return {name: value for name, value in metadata.items() if name not in OF_FILES}


OF_FILES = {"mtime", "size", "encoding", "headings"}
"""Metadata of any Markdown file."""


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("title: Rate limits", {"title": "Rate limits"}),
        (
            "title: 'It''s a bucket'\nby: \"Ann \\\"A\\\" B\"",
            {"title": "It's a bucket", "by": 'Ann "A" B'},
        ),
        ("title: Why: because", {"title": "Why: because"}),
        ("date: 2024-05-01\nyear: 2024", {"date": "2024-05-01", "year": 2024}),
        (
            "draft: false\ndone: true\nnothing:\nnone: ~",
            {"draft": False, "done": True, "nothing": None, "none": None},
        ),
        (
            "weight: -1.5\nzip: 01234\nversion: 1.2.3",
            {"weight": -1.5, "zip": "01234", "version": "1.2.3"},
        ),
        ("tags: [rate, 'a, b', 3]", {"tags": ["rate", "a, b", 3]}),
        (
            "tags:\n  - rate limit\n  - burst # what is saved\n- 3\nkey: x",
            {"tags": ["rate limit", "burst", 3], "key": "x"},
        ),
        ("tags: []", {"tags": []}),
        (
            "# a comment\ntitle: x # and another\nurl: https://a.org/#b",
            {"title": "x", "url": "https://a.org/#b"},
        ),
        (
            "text: |\n  one\n  two\nfolded: >\n  one\n  two",
            {"text": "one\ntwo", "folded": "one two"},
        ),
        ("заглавие: Отчет\n标题: 报告", {"заглавие": "Отчет", "标题": "报告"}),
        (
            "author:\n  name: Ann\n  mail: a@b\ntitle: x",
            {"title": "x", "front_matter_unread": ["author"]},
        ),
        ("people:\n  - name: Ann\nmap: {a: 1}", {"front_matter_unread": ["people", "map"]}),
        (
            "line: 5\nheadings: [a]\nid: x",
            {"front_matter_line": 5, "front_matter_headings": ["a"], "front_matter_id": "x"},
        ),
    ],
)
def test_simple_lines_and_lists_are_read(tmp_path, lines, expected):
    """Texts, numbers, flags, nothing; what is nested is named and left out."""
    assert front_matter(tmp_path, f"---\n{lines}\n---\nText.") == expected


@pytest.mark.parametrize(
    "text",
    [
        "Text.\n---\ntitle: x\n---\n",
        "---\ntitle: x\n",
        "----\ntitle: x\n----\n",
        "---\n---\n",
        "---\n\nA rule above.\n\n---\n\nAnd below.",
        "\n---\ntitle: x\n---\n",
    ],
)
def test_what_is_no_front_matter_gives_nothing(tmp_path, text):
    """It has to be first, and to end."""
    assert front_matter(tmp_path, text) == {}


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "body",
    ["a\n" * 400_000, "a:\n" * 400_000, "- x\n" * 400_000, "a" * 900_000, "a: [" + "'," * 400_000],
)
def test_front_matter_is_read_in_linear_time(tmp_path, body):
    """Quadratic time would exceed the timeout."""
    front_matter(tmp_path, f"---\n{body}\n---\n")
    front_matter(tmp_path, f"---\n{body}"[:49_000] + "\n---\n")


async def test_it_is_metadata_of_a_markdown_file_and_can_be_searched_by(tmp_path):
    """The text and its lines stay those of the file."""
    text = "---\ntitle: Rate limits\nlang: en\nyear: 2024\n---\n\n# Buckets\n\nA bucket refills.\n"
    (tmp_path / "a.md").write_text(text)
    (tmp_path / "b.MD").write_text("---\nlang: de\n---\n\nEin Eimer (bucket) wird voll.\n")
    (tmp_path / "c.txt").write_text(text)
    document = load_source(tmp_path / "a.md")
    assert document.text == text
    assert document.metadata["title"] == "Rate limits"
    assert "title" not in load_source(tmp_path / "c.txt").metadata
    store = MemoryStore()
    result = await AsyncDocumentProcessor(store=store).process(tmp_path)
    assert result.success_count == 3
    (hit,) = store.search("bucket", where={"lang": "de"})
    assert hit.document_id.endswith("b.MD")
