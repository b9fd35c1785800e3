"""Word documents to text by python-docx, from the extra `ingest`."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from ragasync.documents.errors import LoadError
from ragasync.documents.loaders import Loaded
from ragasync.errors import MissingExtra

if TYPE_CHECKING:
    from docx.table import Table

_MAX_UNPACKED = 200_000_000


def load_docx(data: bytes) -> Loaded:
    """
    Return the paragraphs and tables of a document in their order, joined by blank lines.

    Raises:
        MissingExtra: If python-docx is not installed.
        LoadError: "too large" for a file that would unpack to over 200 MB, "docx" for a broken
            one.
    """
    try:
        import docx
        from docx.table import Table
    except ImportError:
        raise MissingExtra("loading a Word document", "python-docx", "ingest") from None
    try:
        _refuse_bomb(data)
        blocks = list(docx.Document(io.BytesIO(data)).iter_inner_content())
        texts = [_rows(block) if isinstance(block, Table) else block.text for block in blocks]
    except LoadError:
        raise
    except Exception as error:
        # A broken file raises whatever its zip, its XML or its parts come upon.
        raise LoadError("docx", f"not a readable Word document: {error!r:.200}") from error
    return "\n\n".join(text for text in texts if text.strip()), {}


def _refuse_bomb(data: bytes) -> None:
    """Raise if a small archive says that it holds a huge one."""
    import zipfile  # costs import time that few runs need

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > _MAX_UNPACKED:
        raise LoadError(
            "too large", f"it unpacks to {unpacked:,} bytes, over the bound of {_MAX_UNPACKED:,}"
        )


def _rows(table: Table) -> str:
    """Return a table as lines, its cells apart by tabs."""
    return "\n".join("\t".join(cell.text for cell in row.cells) for row in table.rows)
