"""Formats that no loader of this package reads, and what to do about a file in one of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from ragasync.documents.errors import LoadError
from ragasync.documents.loaders import passing

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


def refuse_format(suffix: str, data: bytes) -> None:
    """
    Raise for a file of a format that is known and has no loader.

    Args:
        suffix: Its suffix in lower case.
        data: Its bytes.

    Raises:
        LoadError: "no loader", with the ways out.
    """
    name = _BY_SUFFIX.get(suffix)
    if name is not None and (suffix not in _MAYBE_TEXT or b"\0" in data):
        _refuse(name, suffix)
    if (name := format_of(data)) is not None:
        _refuse(name, suffix)


def format_of(data: bytes) -> str | None:
    """Return what a file is by its first bytes, whatever its name says; None if not known."""
    for start, name in _BY_START:
        if data.startswith(start) and not (start == b"GIF8" and b"\0" not in data):
            return name
    return None


def refuse_markup(suffix: str, text: str) -> None:
    """
    Raise for XML with tags: its source would be embedded with its tags, and found by them.

    Raises:
        LoadError: "no loader", with the ways out.
    """
    is_xml = text.lstrip("\ufeff \t\n").startswith("<?xml") and suffix not in _WHERE_IT_IS_TEXT
    if is_xml or (suffix in _XML and _TAG.search(text)):
        raise LoadError(
            "no loader",
            f"this is XML, and there is no loader for {_named(suffix)}; "
            f"{passing(suffix, 'load_html')} reads the text of its elements, load_text in its "
            "place the source with its tags",
        )


def _refuse(name: str, suffix: str) -> None:
    """Raise for a format of that name."""
    raise LoadError(
        "no loader",
        f"this is {name}, and there is no loader for {_named(suffix)}, also not in an extra; "
        f"pass one, {passing(suffix, 'function_from_bytes')}, convert the file to PDF, DOCX, HTML "
        "or text, or leave it out by skip=",
    )


def _named(suffix: str) -> str:
    """Return a suffix as it is written, or what it means that there is none."""
    return suffix or "files without a suffix"
