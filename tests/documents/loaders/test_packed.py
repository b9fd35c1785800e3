"""PDF and Word documents to text, and what of other packages is missing."""

import io
import sys
import threading
import zipfile

import pytest

from ragasync.documents import LoadError, load_source

# Internals: one loader, and its bounds, which these tests lower.
from ragasync.documents.loaders import docx as word
from ragasync.documents.loaders.docx import load_docx
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


def test_a_locked_pdf_is_told_from_a_broken_one():
    """Without its password nothing mends it."""
    keys = f"/O <{'41' * 32}> /U <{'42' * 32}>"
    lock = f"/Encrypt << /Filter /Standard /V 1 /R 2 {keys} /P -4 >> /ID [<41> <41>] /Root".encode()
    assert reason_of(load_pdf, pdf_of("text").replace(b"/Root", lock)) == "encrypted"


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
    lying = bomb.getvalue().replace((100_001).to_bytes(4, "little"), (9).to_bytes(4, "little"))
    assert lying != bomb.getvalue()
    assert reason_of(load_docx, lying) == "docx"


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    """The message holds the pip command."""
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    with pytest.raises(MissingExtra, match=r'pip install "ragasync\[ingest\]"'):
        load_pdf(b"")


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
