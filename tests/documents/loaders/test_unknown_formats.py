"""Files that no loader is given for: what is no text says so, and what to do."""

import io
import zipfile

import pytest

from ragasync import AsyncDocumentProcessor, error_summary
from ragasync.documents import LOADERS, LoadError, load_html, load_source, load_text


def refusal_of(path, data: bytes) -> LoadError:
    """Return the error for a file of these bytes."""
    path.write_bytes(data)
    with pytest.raises(LoadError) as caught:
        load_source(path)
    return caught.value


def packed() -> bytes:
    """Return a ZIP archive, as office documents are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("content.xml", "<a>text</a>")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("suffix", "name"),
    [
        (".pptx", "PowerPoint"),
        (".xlsx", "Excel"),
        (".XLSX", "Excel"),
        (".odt", "OpenDocument"),
        (".epub", "e-book"),
        (".zip", "archive"),
        (".numbers", "iWork"),
        (".unheard-of", "ZIP"),
        ("", "ZIP"),
    ],
)
def test_a_packed_format_without_a_loader_says_so(tmp_path, suffix, name):
    """A NUL byte somewhere tells nobody what to do; a function for the suffix does."""
    error = refusal_of(tmp_path / f"a{suffix}", packed())
    assert error.reason == "no loader"
    assert name in error.message
    assert "no loader for" in error.message
    assert "loaders={**LOADERS" in error.message
    assert "find_sources(folder, exclude=" in error.message


def test_pictures_of_several_suffixes_are_one_kind_of_error(tmp_path):
    """A folder of them is one line in a panel, not a line for each suffix."""
    paths = [tmp_path / name for name in ("a.png", "b.gif", "c.jpg")]
    for path in paths:
        path.write_bytes(b"\x89PNG\r\n\x1a\n\0")
    result = AsyncDocumentProcessor().process_sync(paths)
    assert error_summary(result)["count"].tolist() == [3]


@pytest.mark.parametrize(
    ("name", "said"), [("a.txt", "its name ends in .txt"), ("report", "its name has no suffix")]
)
def test_a_pdf_of_another_name_is_to_be_renamed(tmp_path, name, said):
    """There is a loader for it, and also one for the suffix that it has."""
    error = refusal_of(tmp_path / name, b"%PDF-1.7\n")
    assert error.message == f"this is a PDF, but {said}: rename it to .pdf"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.rtf", rb"{\rtf1\ansi A bucket {\b refills}.}"),
        ("letter", rb"{\rtf1\ansi A bucket {\b refills}.}"),
        ("a.eml", b"From: a@example.org\nSubject: Buckets\n\nA bucket refills.\n"),
        ("a.msg", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
        ("a.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
        ("a.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\0"),
        ("report", b"%PDF-1.7\n"),
        ("a.xml", b'<?xml version="1.0"?><note><to>Ann</to></note>'),
        ("a.xml", b"\n<note><to>Ann</to></note>"),
        ("a.xml", b"<!-- made by hand --><note/>"),
        ("a.svg", b'<svg xmlns="http://www.w3.org/2000/svg"><text>A</text></svg>'),
        ("a.rss", b"<rss version='2.0'><channel/></rss>"),
        ("pom.build", b'<?xml version="1.0"?><project/>'),
        ("a.xml", '<?xml version="1.0" encoding="utf-16"?><note/>'.encode("utf-16")),
        ("a.png", b"\x89PNG\r\n\x1a\n\0\0"),
    ],
)
def test_a_format_that_is_no_plain_text_is_not_embedded_as_its_source(tmp_path, name, data):
    """Its tags and control words would be found instead of its text."""
    assert refusal_of(tmp_path / name, data).reason == "no loader"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.xml", "Notes on 3 < 4 and 5 > 2, without a tag."),
        ("a.rtf", "Plain text under the wrong name."),
        ("a.txt", '<?xml version="1.0"?> is how XML begins.'),
        ("a.md", "Use <b>tags</b> here."),
        ("a.tex", "Some <i>source</i> of mine"),
        ("a.pot", 'msgid "A bucket"'),
        ("a.dot", "digraph { a -> b }"),
        ("gif.txt", "GIF89a is a format."),
    ],
)
def test_what_only_looks_like_markup_is_a_text(tmp_path, name, text):
    """Suffixes and first words are no proof by themselves."""
    (tmp_path / name).write_text(text)
    assert load_source(tmp_path / name).text == text


@pytest.mark.parametrize(("loader", "text"), [(load_html, "Ann"), (load_text, "<to>Ann</to>")])
def test_the_advice_for_xml_works(tmp_path, loader, text):
    """Its elements' text, or its source: the user chooses."""
    (tmp_path / "a.xml").write_text("<to>Ann</to>")
    assert load_source(tmp_path / "a.xml", loaders={**LOADERS, ".xml": loader}).text == text


def test_a_loader_for_the_suffix_is_used_without_questions(tmp_path):
    """It is the user's format then."""
    (tmp_path / "a.pptx").write_bytes(packed())
    loaders = {**LOADERS, ".pptx": lambda data: (f"{len(data)} bytes", {})}
    assert load_source(tmp_path / "a.pptx", loaders=loaders).text.endswith("bytes")


def test_bytes_of_no_known_format_are_binary(tmp_path):
    """There is nothing better to say of them."""
    assert refusal_of(tmp_path / "a.bin", b"\x01\x02\0\0\x03" * 9).reason == "binary"
    assert refusal_of(tmp_path / "a.pptx", b"").reason == "empty"


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.csv", b"PK\x03\x04\0\0\0", "a ZIP archive, as office documents are"),
        ("a.csv", b"\x1f\x8b\x08\0\0\0", "an archive"),
        ("a.jsonl", b"SQLite format 3\0", "a database"),
        ("a.md", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0", "an office document of the old format"),
        ("a.html", b"%PDF-1.7\n\0\0", "a PDF"),
    ],
)
def test_a_file_under_the_name_of_another_format_is_named(tmp_path, name, data, said):
    """A workbook that somebody called .csv is no text with a NUL byte."""
    (tmp_path / name).write_bytes(data)
    with pytest.raises(
        LoadError, match=rf"^binary: this is {said}, though its name ends in"
    ) as caught:
        load_source(tmp_path / name)
    assert str(tmp_path / name) in caught.value.__notes__[0]
