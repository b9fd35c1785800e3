"""HTML, PDF and Word documents to text."""

import io
import sys
import threading
import zipfile

import pytest

from ragasync.documents.errors import LoadError
from ragasync.documents.load import load_source
from ragasync.documents.loaders import docx as word
from ragasync.documents.loaders import html_fast
from ragasync.documents.loaders.docx import load_docx
from ragasync.documents.loaders.html import load_html
from ragasync.documents.loaders.html_fast import load_html_fast
from ragasync.documents.loaders.pdf import load_pdf
from ragasync.errors import MissingExtra


def reason_of(load, data: bytes) -> str:
    """Return the reason for which loading fails."""
    with pytest.raises(LoadError) as caught:
        load(data)
    return caught.value.reason


def pdf_of(*pages: str) -> bytes:
    """Write a PDF with one line a page, by hand."""
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, words in enumerate(pages):
        box, fonts = "/MediaBox [0 0 300 200]", "/Resources << /Font << /F1 3 0 R >> >>"
        stream = f"BT /F1 12 Tf 20 100 Td ({words}) Tj ET"
        objects += [
            f"<< /Type /Page /Parent 2 0 R {box} {fonts} /Contents {5 + 2 * number} 0 R >>",
            f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream",
        ]
    body, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += f"{number} 0 obj\n{content}\nendobj\n".encode()
    rows = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    tail = f"xref\n0 {size}\n0000000000 65535 f \n{rows}trailer\n<< /Size {size} /Root 1 0 R >>\n"
    return body + f"{tail}startxref\n{len(body)}\n%%EOF".encode()


def docx_of(build) -> bytes:
    """Write a Word document."""
    import docx

    document, file = docx.Document(), io.BytesIO()
    build(document)
    document.save(file)
    return file.getvalue()


PAGE = b"""<!doctype html><html><head><title> A &amp;
 B </title><style>p {color: red}</style></head><body><h1>Head</h1><p>One <b>bo</b>ld,
 two.<br>three<script>if (a<b) {}</script><template>no</template></p>
<ul><li>a<li>b</ul><table><tr><td>1<td>2<tr><td>3</table><pre>x
y</pre>caf&eacute;</body></html>"""


def test_a_page_reads_as_a_reader_sees_it():
    """Blocks are paragraphs, lists and rows lines, cells apart; scripts and tags are gone."""
    text, metadata = load_html(PAGE)
    assert text == "# Head\n\nOne bold, two.\nthree\n\na\nb\n\n1 2\n3\n\nx\ny\n\ncaf\xe9"
    assert metadata == {"title": "A & B", "headings": ((0, 1),)}


def test_the_fast_loader_sees_the_same_words():
    """Only breaks may differ between the two parsers."""
    (slow, metadata), (fast, fast_metadata) = load_html(PAGE), load_html_fast(PAGE)
    assert fast.split() == slow.split()
    assert fast_metadata == metadata


HEADED = b"""<h1></h1> <p>before<h2><div>First <i>one</i></div></h2><pre>
# no heading</pre><h3>Second<br>line</h3><h4><img></h4>after"""


@pytest.mark.parametrize("load", [load_html, load_html_fast])
def test_a_heading_is_marked_and_its_place_told(load):
    """What only looks like one in code is not told, and one without words is none."""
    text, metadata = load(HEADED)
    first, second = metadata["headings"]
    assert text[first[0] :].startswith("## First one\n\n")
    assert text[second[0] :].startswith("### Second\n")
    assert (first[1], second[1]) == (2, 3)
    assert text.endswith("line\n\nafter")
    assert "\n\n# no heading\n\n" in text


@pytest.mark.timeout(20)  # ten seconds and more where it is quadratic
def test_a_page_that_is_nested_too_deep_for_the_fast_loader_goes_to_the_other():
    """Its time grows with the square of the depth; open `<p>` and `<br>` are not deep."""
    deep = b"<div>" * 60_000 + b"deep" + b"</div>" * 60_000
    assert load_html_fast(deep) == ("deep", {})
    assert html_fast._may_be_deep(deep)
    assert not html_fast._may_be_deep(b"<p>a<br>" * 10_000 + b"<div><b>c</b></div>" * 10_000)


def test_preformatted_text_keeps_its_lines_and_spaces():
    """Code in a page stays code."""
    assert load_html(b"<p>a</p><pre>if x:\n    y</pre>")[0] == "a\n\nif x:\n    y"


@pytest.mark.parametrize("load", [load_html, load_html_fast])
@pytest.mark.parametrize(
    ("page", "encoding"),
    [
        ("<meta charset='koi8-r'><p>\u041f\u0440\u0438".encode("koi8-r"), "koi8-r"),
        (b"<meta charset=iso-8859-1><p>caf\xe9 \x80", "cp1252"),
        (b"<meta charset=rot13><p>caf\xe9", "cp1252"),
        (b"<meta charset=utf-8><p>caf\xe9", "cp1252"),
    ],
)
def test_a_page_is_decoded_by_what_it_declares(load, page, encoding):
    """Unless it is UTF-8, or declares what does not fit or does not exist."""
    assert load(page)[1] == {"encoding": encoding}


@pytest.mark.parametrize(
    ("page", "text"),
    [
        (b"<title>T<p>text", "text"),
        (b"a</div></p></script>b", "a\n\nb"),
        (b"1 < 2 & 3", "1 < 2 & 3"),
        (b"text <a href='x", "text"),
        (b"", ""),
        (b"<p>a<!-- no --><p>b", "a\n\nb"),
    ],
)
def test_malformed_pages_are_read_as_far_as_they_go(page, text):
    """Nothing is lost to a tag that was left open or never opened."""
    assert load_html(page)[0] == text


def test_a_malformed_declaration_is_an_error():
    """Where Python's parser gives up, so does the loader, with a reason."""
    assert reason_of(load_html, b"<p>x<![foo[ x ]]>") == "html"


@pytest.mark.timeout(20)  # a minute where it is quadratic, half a second where it is not
def test_deep_nesting_and_cut_off_tags_take_no_square_time():
    """Half a megabyte of nested elements, and tags that Python 3.11's parser would choke on."""
    assert load_html(b"<div>" * 50_000 + b"deep" + b"</div>" * 50_000)[0] == "deep"
    assert load_html(b"x" + b"<a " * 20_000)[0] == "x"


def test_the_pages_of_a_pdf_start_where_the_metadata_says():
    """A hit leads back to its page."""
    text, metadata = load_pdf(pdf_of("First page", "Second page"))
    assert text == "First page\n\nSecond page"
    assert metadata == {"page_starts": (0, 12)}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (pdf_of("text")[:60], "pdf"),
        (b"%PDF-1.4\nnothing", "pdf"),
        (b"", "pdf"),
        (pdf_of(""), "no text"),
    ],
    ids=["truncated", "garbage", "empty", "scanned"],
)
def test_a_pdf_without_text_fails_with_a_reason(data, reason):
    """A truncated file and one that needs OCR are told apart."""
    assert reason_of(load_pdf, data) == reason


@pytest.mark.real_time
def test_pdfs_are_read_one_at_a_time_from_many_threads():
    """PDFium crashes the process otherwise."""
    data, texts = pdf_of(*[f"Page {n}" for n in range(20)]), []
    threads = [threading.Thread(target=lambda: texts.append(load_pdf(data)[0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts) == 8
    assert len(set(texts)) == 1


def test_a_word_document_gives_paragraphs_and_tables_in_order():
    """Cells are apart by tabs, rows by lines."""

    def build(document):
        document.add_heading("Title")
        table = document.add_table(1, 2)
        table.cell(0, 0).text, table.cell(0, 1).text = "a", "b"
        document.add_paragraph("")
        document.add_paragraph("The end.")

    assert load_docx(docx_of(build)) == ("# Title\n\na\tb\n\nThe end.", {"headings": ((0, 1),)})


def test_a_broken_word_document_is_an_error():
    """Truncated, no archive, or an archive of something else."""
    good, other = docx_of(lambda document: None), io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("a.txt", "text")
    for data in (good[:1000], b"", other.getvalue()):
        assert reason_of(load_docx, data) == "docx"


def test_a_locked_word_document_is_told_from_a_broken_one():
    """Word puts it into the container of its old format."""
    assert reason_of(load_docx, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 500) == "encrypted"


def test_a_merged_cell_is_there_once():
    """python-docx gives it for each column that it spans."""

    def build(document):
        table = document.add_table(1, 3)
        table.cell(0, 0).merge(table.cell(0, 1)).text = "wide"
        table.cell(0, 2).text = "c"

    assert load_docx(docx_of(build))[0] == "wide\tc"


def test_a_word_document_that_would_unpack_to_too_much_is_not_unpacked(monkeypatch):
    """A small archive can hold a huge file; its own table of contents says so."""
    monkeypatch.setattr(word, "_MAX_UNPACKED", 100_000)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", "x" * 100_001)
    assert len(bomb.getvalue()) < 1000
    assert reason_of(load_docx, bomb.getvalue()) == "too large"


@pytest.mark.parametrize(
    ("package", "load"),
    [("pypdfium2", load_pdf), ("docx", load_docx), ("selectolax.lexbor", load_html_fast)],
)
def test_a_missing_package_is_named_with_its_command(monkeypatch, package, load):
    """The message holds the pip command."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=r'pip install "ragasync\[ingest\]"'):
        load(b"")


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("a.htm", b"<p>text", "text"),
        ("a.HTML", b"<p>text", "text"),
        ("a.pdf", pdf_of("text"), "text"),
        ("a.docx", docx_of(lambda document: document.add_paragraph("text")), "text"),
    ],
)
def test_the_suffix_chooses_the_loader(tmp_path, name, data, text):
    """In either case of letters."""
    (tmp_path / name).write_bytes(data)
    assert load_source(tmp_path / name).text == text
