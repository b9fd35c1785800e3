"""Word documents to text by python-docx, from the extra `ingest`."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ragasync.documents.errors import LoadError
from ragasync.documents.loaders import Loaded, join_parts
from ragasync.errors import MissingExtra

if TYPE_CHECKING:
    import docx.document
    from docx.table import Table, _Row
    from docx.text.paragraph import Paragraph

_MAX_UNPACKED = 200_000_000
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_HEADING = re.compile(r"Heading ([1-6])|Title")


def load_docx(data: bytes) -> Loaded:
    """
    Return the paragraphs and tables of a document in their order, joined by blank lines.

    A heading is written as in Markdown, `## Title` for the style "Heading 2", and
    `metadata["headings"]` holds where each starts and its level.

    Raises:
        MissingExtra: If python-docx is not installed.
        LoadError: "too large" for a file that would unpack to over 200 MB, "docx" for a broken
            one, "encrypted" for one that is locked by a password.
    """
    try:
        import docx
        from docx.table import Table
    except ImportError:
        raise MissingExtra("loading a Word document", "python-docx", "ingest") from None
    try:
        _refuse_locked(data)
        _refuse_bomb(data)
        document = docx.Document(io.BytesIO(data))
        levels = _levels(document)
        blocks = [
            (0, _rows(block)) if isinstance(block, Table) else (levels(block), block.text)
            for block in document.iter_inner_content()
        ]
    except LoadError:
        raise
    except Exception as error:
        # A broken file raises whatever its zip, its XML or its parts come upon.
        raise LoadError("docx", f"not a readable Word document: {error!r:.200}") from error
    kept = [
        (level, f"{'#' * level} {text}" if level else text)
        for level, text in blocks
        if text.strip()
    ]
    text, starts = join_parts([text for _, text in kept])
    headings = tuple(
        (start, level) for start, (level, _) in zip(starts, kept, strict=True) if level
    )
    return text, {"headings": headings} if headings else {}


def _refuse_locked(data: bytes) -> None:
    """Raise for the container that Word locks a document into, and that it used before 2007."""
    if data.startswith(_OLE):
        raise LoadError(
            "encrypted", "locked by a password, or of Word before 2007: save it as an open .docx"
        )


def _refuse_bomb(data: bytes) -> None:
    """Raise if a small archive says that it holds a huge one."""
    import zipfile  # costs import time that few runs need

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > _MAX_UNPACKED:
        raise LoadError(
            "too large", f"it unpacks to {unpacked:,} bytes, over the bound of {_MAX_UNPACKED:,}"
        )


def _levels(document: docx.document.Document) -> Callable[[Paragraph], int]:
    """Return what gives the level of a paragraph that is a heading, else 0."""
    by_style = {
        style.style_id: int(heading[1] or 1)
        for style in document.styles
        if style.name and (heading := _HEADING.fullmatch(style.name))
    }
    # By the id that stands in its XML: `paragraph.style` searches the styles for each.
    return lambda paragraph: by_style.get(paragraph._p.style, 0)


def _rows(table: Table) -> str:
    """Return a table as lines, its cells apart by tabs; one that spans columns is there once."""
    return "\n".join("\t".join(_cells(row)) for row in table.rows)


def _cells(row: _Row) -> Iterator[str]:
    """Yield the texts of a row's cells."""
    latest = None
    for cell in row.cells:
        if cell._tc is not latest:
            yield cell.text
        latest = cell._tc
