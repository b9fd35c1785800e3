"""load_source: reads a source, and loads it with the loader for its suffix."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from ragasync.documents.errors import LoadError
from ragasync.documents.loaders import Loaded, Loader, Record
from ragasync.documents.loaders.csv_rows import CSVLoader
from ragasync.documents.loaders.decode import (
    load_markdown,
    load_python,
    load_text,
    refuse_surrogates,
)
from ragasync.documents.loaders.docx import load_docx
from ragasync.documents.loaders.html import load_html
from ragasync.documents.loaders.json_lines import JSONLinesLoader
from ragasync.documents.loaders.no_loader import format_of, refuse_format, refuse_markup
from ragasync.documents.loaders.notebook import load_notebook
from ragasync.documents.loaders.pdf import load_pdf
from ragasync.documents.models import Document
from ragasync.documents.sources import Origin, Source, part_id, source_of

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
        if suffix not in MAY_BE_EMPTY:
            _refuse_empty(loaded, len(data))
        for document in loaded if isinstance(loaded, list) else [loaded]:
            refuse_surrogates(document.text)
    except LoadError as error:
        error.add_note(f"while loading {found.path}")
        raise
    return loaded


def _load_as_named(load: Loader, suffix: str, data: bytes) -> Loaded | Iterable[Record]:
    """Return what a loader makes of a file, or raise with the format that it is in instead."""
    try:
        return load(data)
    except LoadError as error:
        if error.reason != "binary" or (name := format_of(data)) is None:
            raise
        raise LoadError(
            "binary", f"this is {name}, though its name ends in {suffix!r}: rename it"
        ) from None


def _as_text(suffix: str, data: bytes) -> Loaded:
    """Return the text of a file that no loader is given for, unless it is known to be no text."""
    refuse_format(suffix, data)
    text, metadata = load_text(data)
    refuse_markup(suffix, text)
    return text, metadata


def _documents(
    loaded: Loaded | Iterable[Record], source: Source, mtime: float, size: int
) -> Document | list[Document]:
    """Return what a loader gave as a document with its file's date and size, or as one a record."""
    if isinstance(loaded, tuple):
        text, metadata = loaded
        facts = {"mtime": mtime, "size": size, **metadata}
        return Document(source.id, text, facts, source=source.source)
    return [
        Document(part_id(source.id, each.key), each.text, each.metadata, source=source.source)
        for each in loaded
    ]


def _refuse_empty(loaded: Document | list[Document], size: int) -> None:
    """Raise if there is nothing to read in what was loaded."""
    if not (loaded if isinstance(loaded, list) else loaded.text.strip()):
        raise LoadError("empty", f"no text in its {size:,} bytes")


def _read(path: Path, max_bytes: int) -> tuple[bytes, float]:
    """Return the bytes of a file that is within the bound, and when it was last written."""
    _refuse_large(_size_of_file(path.stat()), max_bytes)
    with open(path, "rb", opener=_open_without_waiting) as file:
        status = os.fstat(file.fileno())
        _size_of_file(status)  # it may have become a pipe meanwhile
        data = file.read(max_bytes + 1)
    # It may have grown, and some files under /proc claim to be empty.
    _refuse_large(len(data), max_bytes)
    return data, status.st_mtime


def _size_of_file(status: os.stat_result) -> int:
    """Return its size, or raise if it is no file; a folder's opening raises what is wrong."""
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise LoadError("not a file", "a pipe, socket or device cannot be loaded")
    return status.st_size


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe too would be opened at once, and not when somebody writes to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _refuse_large(size: int, max_bytes: int) -> None:
    """Raise if a file is over the bound."""
    if size > max_bytes:
        raise LoadError(
            "too large", f"{size:,} bytes or more, over the bound of max_bytes={max_bytes:,}"
        )
