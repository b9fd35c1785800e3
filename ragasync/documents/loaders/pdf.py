"""PDF to text by PDFium, from the extra `ingest`."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ragasync.documents.errors import LoadError
from ragasync.documents.loaders import Loaded, join_parts
from ragasync.errors import MissingExtra

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument

# PDFium is not thread-safe: several threads at once crash the process.
_one_at_a_time = threading.Lock()


def load_pdf(data: bytes) -> Loaded:
    """
    Return the text of all pages, joined by blank lines.

    `metadata["page_starts"]` holds the offset at which each page starts. Files are read one at a
    time, however many threads ask.

    Raises:
        MissingExtra: If pypdfium2 is not installed.
        LoadError: "pdf" for a broken file, "encrypted" for a locked one, "no text" for scans.
    """
    try:
        import pypdfium2
    except ImportError:
        raise MissingExtra("loading a PDF", "pypdfium2", "ingest") from None
    try:
        with _one_at_a_time, pypdfium2.PdfDocument(data) as pdf:
            pages = [_page_text(pdf, number) for number in range(len(pdf))]
    except pypdfium2.PdfiumError as error:
        reason = "encrypted" if "password" in str(error).lower() else "pdf"
        raise LoadError(reason, f"PDFium cannot open it: {error}") from None
    text, starts = join_parts(pages)
    if not text.strip():
        raise LoadError("no text", f"{len(pages)} pages without text: scanned ones need OCR first")
    return text, {"page_starts": starts}


def _page_text(pdf: PdfDocument, number: int) -> str:
    """Return the text of one page and free what PDFium holds for it."""
    page = pdf[number]
    try:
        textpage = page.get_textpage()
        try:
            text: str = textpage.get_text_bounded()
        finally:
            textpage.close()
    finally:
        page.close()
    return text.replace("\r\n", "\n").replace("\0", "")
