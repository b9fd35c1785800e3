"""
Loaders: the bytes of a file to text and metadata, one module per format.

    text.py           load_text, Markdown, Python, notebooks; Record: what a loader returns
    encodings.py      the encoding of bytes: proved, declared, or guessed
    html.py           load_html, with Python's own parser
    tables.py         CSVLoader, JSONLinesLoader: one document per row, by its fields
    pdf.py            PDFLoader, with PDFium, from the extra `ingest`
    docx.py           load_docx: the parts of a Word document, and its text as a reader sees it
    docx_elements.py  elements of its XML: styles, numbered lists, formulas, charts

load_source reads the bytes of a file and passes them to the loader for its suffix, in LOADERS. A
loader returns the text and metadata, or one Record per row; a file that it cannot read raises a
LoadError. The text becomes a Document.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from ragasync.documents.loaders.docx import load_docx
from ragasync.documents.loaders.html import load_html
from ragasync.documents.loaders.pdf import load_pdf
from ragasync.documents.loaders.tables import CSVLoader, JSONLinesLoader
from ragasync.documents.loaders.text import (
    Loaded,
    Loader,
    Record,
    load_markdown,
    load_notebook,
    load_python,
    load_text,
    passing,
    refuse_surrogates,
)
from ragasync.documents.models import Document, LoadError
from ragasync.documents.sources import Origin, Source, part_id, source_of

__all__ = ["LOADERS", "LOADER_VERSION", "Loaded", "Loader", "Record", "load_source"]

LOADER_VERSION = 4
"""Part of the fingerprint of documents; increased when loaders change the text of a file."""

MAX_BYTES = 50_000_000
"""The default maximum size of a file."""

_MARKDOWN = (".md", ".markdown", ".mdown", ".mkd", ".mdx", ".qmd", ".rmd")

LOADERS: Mapping[str, Loader] = MappingProxyType(
    {
        **dict.fromkeys((".py", ".pyi", ".pyw"), load_python),
        **dict.fromkeys((".html", ".htm", ".xhtml"), load_html),
        **dict.fromkeys((".jsonl", ".ndjson"), JSONLinesLoader()),
        **dict.fromkeys(_MARKDOWN, load_markdown),
        ".csv": CSVLoader(),
        ".tsv": CSVLoader(delimiter="\t"),
        ".ipynb": load_notebook,
        ".pdf": load_pdf,
        ".docx": load_docx,
    }
)
"""
The loaders by suffix in lower case; any other file is loaded as text.

Known formats without a loader, such as .pptx, .xlsx, .odt, .epub, .rtf, .eml and XML, are a
LoadError. `{**LOADERS, ".xml": load_html}` loads the text of XML elements, and
`{**LOADERS, ".xml": load_text}` the XML source.

Example:
    >>> from pathlib import Path
    >>> from ragasync.documents import LOADERS, load_source
    >>> def load_log(data):
    ...     return data.decode().removeprefix("# log: "), {"kind": "log"}
    >>> _ = Path("run.log").write_text("# log: a run began")
    >>> load_source("run.log", loaders={**LOADERS, ".log": load_log}).text
    'a run began'
"""

MAY_BE_EMPTY = frozenset({".py", ".pyi", ".pyw", ".typed"})
"""Suffixes of files that may be empty, such as `__init__.py` and `py.typed`."""


def load_source(
    source: Origin, *, max_bytes: int = MAX_BYTES, loaders: Mapping[str, Loader] = LOADERS
) -> Document | list[Document]:
    """
    Load one source as a document, or as a list of documents if its format has several.

    Each row of a CSV file and each line of JSON is a document, so that a search finds the row
    rather than part of a table without its header. The id of such a document is `data.csv//#17`,
    which is not a possible path. `{**LOADERS, ".csv": load_text}` loads tables as one text;
    `CSVLoader` and `JSONLinesLoader` have arguments for the columns of text, id and metadata.

    `metadata["mtime"]` (seconds since 1970) and `metadata["size"]` (bytes) are those of the file;
    rows do not have them. They are not part of fingerprints: a file that was only touched is
    unchanged.

    This function blocks and belongs on a thread. An empty file is an error, because writing it has
    probably failed; an empty Python module is not.

    Example:
        >>> from pathlib import Path
        >>> from ragasync.documents import load_source
        >>> _ = Path("notes.md").write_text("A bucket refills.")
        >>> load_source("notes.md").text
        'A bucket refills.'
        >>> load_source(("an-id", "a text that is there already"))
        <Document 'an-id': 28 characters>

    Args:
        source: A result of `find_sources`, a path, or an `(id, text)` pair; a Document is
            returned unchanged.
        max_bytes: The maximum size of a file, in bytes.
        loaders: The loaders by suffix in lower case.

    Returns:
        The document or documents, with the absolute path as their id and `source`.

    Raises:
        IdConflictError: If another source of the run has its id.
        LoadError: If the file is too large, or holds no text that its loader can read; its
            `reason` is one of `LOAD_REASONS`.
        MissingExtra: If its format needs a package that is not installed.
        OSError: If the file is missing or may not be read.
    """
    found = source_of(source)
    if isinstance(found, Document):
        refuse_surrogates(found.text)
        return found
    suffix = found.path.suffix.lower()
    load = loaders.get(suffix)
    try:
        data, mtime = _read(found.path_to_open(), max_bytes)
        if not data and suffix not in MAY_BE_EMPTY:
            raise LoadError("empty", "a file of 0 bytes")
        content = _load_as_named(load, suffix, data) if load else _as_text(suffix, data)
        loaded = _documents(content, found, mtime, len(data))
        if suffix not in MAY_BE_EMPTY and not (
            loaded if isinstance(loaded, list) else loaded.text.strip()
        ):
            raise LoadError("empty", f"no text in its {len(data):,} bytes")
        for document in loaded if isinstance(loaded, list) else [loaded]:
            refuse_surrogates(document.text)
    except LoadError as error:
        error.add_note(f"while loading {found.path}")
        raise
    return loaded


def _load_as_named(load: Loader, suffix: str, data: bytes) -> str | Loaded | Iterable[Record]:
    """Load a file by its suffix, or raise with the format that it has instead."""
    try:
        return load(data)
    except LoadError as error:
        if error.reason != "binary" or (name := format_of(data)) is None:
            raise
        raise LoadError(
            "binary", f"this is {name}, though its name ends in {suffix!r}: rename it"
        ) from None


def _as_text(suffix: str, data: bytes) -> Loaded:
    """Load a file without a loader as text, unless it has a known format."""
    refuse_format(suffix, data)
    text, metadata = load_text(data)
    refuse_markup(suffix, text)
    return text, metadata


def _documents(
    loaded: str | Loaded | Iterable[Record], source: Source, mtime: float, size: int
) -> Document | list[Document]:
    """Make the document of a file, or one document per record."""
    if isinstance(loaded, str | tuple):
        text, metadata = (loaded, {}) if isinstance(loaded, str) else loaded
        facts = {"mtime": mtime, "size": size, **metadata}
        return Document(source.id, text, facts, source=source.source)
    return [
        Document(part_id(source.id, each.key), each.text, each.metadata, source=source.source)
        for each in loaded
    ]


def _read(path: Path, max_bytes: int) -> tuple[bytes, float]:
    """Read a file of at most `max_bytes`, and its time of modification."""
    name = os.fspath(path)
    _refuse_large(_size_of_file(os.stat(name)), max_bytes)  # noqa: PTH116  # in half the time
    # By its descriptor: a file object takes as long as reading a short file.
    descriptor = os.open(name, _READ_WITHOUT_WAITING)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
        # It may have become a pipe meanwhile. A read of max_bytes would allocate as much.
        data = _read_up_to(descriptor, _size_of_file(status) + 1)
        if len(data) > status.st_size:  # it has grown, or is one that claims to be empty
            data += _read_up_to(descriptor, max_bytes + 1 - len(data))
    finally:
        os.close(descriptor)
    _refuse_large(len(data), max_bytes)
    return data, status.st_mtime


def _read_up_to(descriptor: int, size: int) -> bytes:
    """Read a file to its end, or up to a number of bytes; one system call may give fewer."""
    data = os.read(descriptor, size) if size > 0 else b""
    while 0 < len(data) < size and (more := os.read(descriptor, size - len(data))):
        data += more
    return data


def _size_of_file(status: os.stat_result) -> int:
    """Return the size of a file; opening a folder raises its own error."""
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise LoadError("not a file", "a pipe, socket or device cannot be loaded")
    return status.st_size


_READ_WITHOUT_WAITING = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Flags by which a pipe too opens immediately, not when somebody writes to it."""


def _refuse_large(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise LoadError(
            "too large", f"{size:,} bytes or more, over the bound of max_bytes={max_bytes:,}"
        )


_FORMATS = {
    "a PowerPoint presentation": "ppt pptx pptm pps ppsx pot potx",
    "an Excel workbook": "xls xlsx xlsm xlsb xlt xltx",
    "a Word document of the old format": "doc dot",
    "a Word document with macros, or a template": "docm dotx dotm",
    "an OpenDocument file": "odt ods odp odg odf ott ots otp",
    "an Apple iWork document": "pages numbers",
    "an e-book": "epub mobi azw azw3 djvu",
    "a message": "eml msg mbox mht mhtml pst",
    "a picture": "png jpg jpeg gif bmp tif tiff webp heic ico psd",
    "a recording": "mp3 mp4 m4a wav flac ogg avi mov mkv webm",
    "an archive": "zip tar gz tgz bz2 xz 7z rar zst jar whl",
    "a data file": "parquet feather arrow orc avro sqlite db npy npz pkl pickle h5 hdf5",
}
_BY_SUFFIX: Mapping[str, str] = MappingProxyType(
    {f".{suffix}": name for name, suffixes in _FORMATS.items() for suffix in suffixes.split()}
)

# Of these suffixes, some files are plain texts.
_MAYBE_TEXT = frozenset({".dot", ".pot", ".pages", ".numbers", ".db", ".mov", ".ico", ".mbox"})

# How a file of a format begins, whatever its name is.
_BY_START = (
    (b"{\\rtf", "an RTF document"),
    (b"%PDF-", "a PDF"),
    (b"PK\x03\x04", "a ZIP archive, as office documents are"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an office document of the old format"),
    (b"\x89PNG\r\n\x1a\n", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"\x1f\x8b\x08", "an archive"),
    (b"SQLite format 3\0", "a database"),
)

_XML_SUFFIXES = (
    "xml xsd xsl xslt svg rss atom opml rdf owl kml gpx fb2 dita tei docbook plist wsdl xmp xliff"
)
_XML = frozenset(f".{suffix}" for suffix in _XML_SUFFIXES.split())
_TAG = re.compile(r"<(?:[A-Za-z_][\w:.-]*(?:\s|/?>)|\?xml\s|!DOCTYPE\s|!--)")

_WHERE_IT_IS_TEXT = frozenset({".txt", ".text", ".log", ".md", ".markdown", ".rst", ".adoc"})
_NO_SUFFIX = "files without a suffix"


def refuse_format(suffix: str, data: bytes) -> None:
    """Raise for a known format without a loader, by suffix (lower case) or first bytes."""
    may_be_text = suffix in _MAYBE_TEXT and b"\0" not in data
    named = None if may_be_text else _BY_SUFFIX.get(suffix)
    if (name := named or format_of(data)) is not None:
        if name == "a PDF":
            ends = f"ends in {suffix}" if suffix else "has no suffix"
            raise LoadError("no loader", f"this is a PDF, but its name {ends}: rename it to .pdf")
        raise LoadError(
            "no loader",
            f"this is {name}, and there is no loader for {_quoted(suffix)}, also not in an "
            f"extra; pass one, {passing(suffix, 'function_from_bytes')}, convert the file to PDF, "
            "DOCX, HTML or text, or leave it out: find_sources(folder, exclude=[...])",
        )


def _quoted(suffix: str) -> str:
    """A suffix in quotes, so that failures are grouped by format and not by suffix."""
    return repr(suffix) if suffix else _NO_SUFFIX


def format_of(data: bytes) -> str | None:
    """Return the format of a file by its first bytes, whatever its name is; None if unknown."""
    for start, name in _BY_START:
        if data.startswith(start) and not (start == b"GIF8" and b"\0" not in data):
            return name
    return None


def refuse_markup(suffix: str, text: str) -> None:
    """Raise for XML with tags: its source would be embedded with them, and found by them."""
    is_xml = text.lstrip("\ufeff \t\n").startswith("<?xml") and suffix not in _WHERE_IT_IS_TEXT
    if is_xml or (suffix in _XML and _TAG.search(text)):
        raise LoadError(
            "no loader",
            f"this is XML, and there is no loader for {_quoted(suffix)}; "
            f"{passing(suffix, 'load_html')} reads the text of its elements, load_text in its "
            "place the source with its tags",
        )
