"""Bytes to text by one rule, so that a wrong guess is either marked or an error."""

from __future__ import annotations

import codecs
import io
import tokenize

from ragasync.documents.errors import LoadError
from ragasync.documents.loaders import Loaded

_MARKS = (
    # Those of UTF-32 first: they begin like those of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def load_text(data: bytes) -> Loaded:
    """
    Decode a text by its byte order mark, else as UTF-8, else as cp1252 with a mark.

    UTF-8 is strict enough that other encodings do not pass for it; cp1252 takes nearly
    everything, which is why `metadata["encoding"]` then says so.

    Raises:
        LoadError: "binary" for NUL bytes, "encoding" where nothing fits.
    """
    return decode(data, fallback="cp1252")


def decode(data: bytes, *, fallback: str) -> Loaded:
    """
    Decode a text as `load_text` does, with another encoding than cp1252 at its end.

    Raises:
        LoadError: "binary" for NUL bytes, "encoding" where nothing fits.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            try:
                return _loaded(data.decode(encoding), encoding)
            except UnicodeError as error:
                raise LoadError("encoding", f"{error}, though it begins with {mark!r}") from None
    _refuse_binary(data.find(b"\0"))
    try:
        return _loaded(data.decode(), "utf-8")
    except UnicodeDecodeError as utf8_error:
        try:
            return _loaded(data.decode(fallback), fallback)
        except UnicodeError:
            raise LoadError("encoding", f"{utf8_error}, and {fallback} fails too") from None


def load_python(data: bytes) -> Loaded:
    """
    Decode Python source as Python does: its coding cookie, else strict UTF-8 (PEP 263, PEP 3120).

    Raises:
        LoadError: "binary" for NUL bytes, "encoding" for an unknown codec or the wrong bytes.
    """
    _refuse_binary(data.find(b"\0"))
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        return _loaded(data.decode(encoding), encoding)
    except (SyntaxError, LookupError, UnicodeError) as error:
        # LookupError: the cookie names a codec that is none for text, such as rot13.
        raise LoadError("encoding", f"not readable as Python source: {error}") from None


def _loaded(text: str, encoding: str) -> Loaded:
    """Return the text, its lines ended by newlines alone, and its encoding if not UTF-8."""
    _refuse_binary(text.find("\0"))
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text, {} if encoding.startswith("utf-8") else {"encoding": encoding}


def _refuse_binary(position: int) -> None:
    """Raise where a NUL was found: no text has one, nearly every other file does."""
    if position >= 0:
        raise LoadError("binary", f"a text was expected, but there is a NUL byte at {position}")
