"""Bytes to text by one rule, so that a wrong guess is either marked or an error."""

from __future__ import annotations

import io
import tokenize

from ragasync.documents.errors import LoadError
from ragasync.documents.loaders import Loaded, passing
from ragasync.documents.loaders.embedded_data import without_embedded_data
from ragasync.documents.loaders.encoding_guess import guessed
from ragasync.documents.loaders.encodings import (
    MARKS,
    Decoded,
    known_encoding,
    mostly_utf8,
    read_unmarked,
)
from ragasync.documents.loaders.front_matter import front_matter

_ADVICE = "if you know the encoding: " + passing(".txt", 'partial(load_text, encoding="...")')


def load_text(data: bytes, *, encoding: str | None = None) -> Loaded:
    """
    Decode a text by the encoding that its bytes prove, else the declared one, else a guess.

    The order is: a byte order mark; the NUL bytes of UTF-16 and UTF-32, the escape sequences of
    ISO-2022 and HZ; strict UTF-8; the encoding that XML, HTML, CSS or a Python cookie declares, if
    all bytes are valid in it; ASCII; UTF-8 with a few bad bytes; the guess of charset-normalizer.

    `metadata["encoding"]` is set for encodings other than UTF-8 and ASCII. A guess also has
    `encoding_confidence`, from 0 to 1. `replaced_bytes` counts bytes that became U+FFFD.

    Example:
        >>> from functools import partial
        >>> from ragasync.documents import LOADERS, load_text
        >>> load_text("Съдържание".encode("cp1251"), encoding="cp1251")
        ('Съдържание', {'encoding': 'cp1251'})
        >>> loaders = {**LOADERS, ".txt": partial(load_text, encoding="cp1251")}

    Args:
        data: The bytes of a file.
        encoding: The encoding, if it is known; then no other is tried.

    Raises:
        LoadError: "binary" for NUL bytes, "encoding" if no encoding fits.
    """
    return decode(data, encoding)


def decode(data: bytes, encoding: str | None = None) -> Loaded:
    """
    Decode a text as `load_text` does.

    Raises:
        LoadError: "binary" for NUL bytes, "encoding" if no encoding fits.
    """
    if encoding is not None:
        return _loaded(Decoded(_as_told(data, encoding), encoding))
    for mark, marked in MARKS:
        if data.startswith(mark):
            return _loaded(_marked(data, mark, marked))
    if (read := read_unmarked(data)) is not None:
        return _loaded(read)
    _refuse_binary(data.find(b"\0"))
    if (read := guessed(data)) is not None:
        return _loaded(read)
    raise LoadError("encoding", f"{_why_not_text(data)}; {_ADVICE}")


def _as_told(data: bytes, encoding: str) -> str:
    """Return the text in the encoding that the user names."""
    if (known := known_encoding(encoding)) is None:
        raise LoadError(
            "encoding", f"encoding={encoding!r} is no text encoding that Python knows; see `codecs`"
        )
    try:
        return data.decode(known).removeprefix("\ufeff")
    except ValueError as error:
        raise LoadError(
            "encoding",
            f"not valid as encoding={encoding!r}: {error}; leave `encoding` out to have it found",
        ) from None


def _marked(data: bytes, mark: bytes, encoding: str) -> Decoded:
    """Return the text behind a byte order mark, which is a promise; UTF-8 may have bad bytes."""
    try:
        return Decoded(data.decode(encoding).removeprefix("\ufeff"), encoding)
    except ValueError as error:
        if encoding == "utf-8-sig" and (read := mostly_utf8(data.removeprefix(mark))) is not None:
            return read
        raise LoadError(
            "encoding", f"{error}, though it begins with {mark!r}; it may be cut off. {_ADVICE}"
        ) from None


def _why_not_text(data: bytes) -> str:
    """Return which byte is not UTF-8, and what else was tried."""
    try:
        data.decode()
        reason = "not a text"
    except UnicodeDecodeError as error:
        reason = str(error)
    try:
        data.decode("cp1252")
    except UnicodeDecodeError:
        reason += ", cp1252 fails too"
    return f"{reason}, and no other encoding is likely"


def load_markdown(data: bytes, *, encoding: str | None = None) -> Loaded:
    """
    Return the text of a Markdown file, with its front matter as metadata too.

    The text is the file's own but for pictures inside it, as some editors export them: of such a
    `data:` URI, its kind is left.

    Args:
        data: The bytes of a file.
        encoding: The encoding that it is in, where that is known.

    Raises:
        LoadError: "binary" for NUL bytes, "encoding" if no encoding fits.
    """
    text, metadata = decode(data, encoding)
    return without_embedded_data(text), {**front_matter(text), **metadata}


def load_python(data: bytes) -> Loaded:
    """
    Decode Python source as Python does: its coding cookie, else strict UTF-8 (PEP 263, PEP 3120).

    Raises:
        LoadError: "binary" for NUL bytes, "encoding" for an unknown codec or the wrong bytes.
    """
    _refuse_binary(data.find(b"\0"))
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        return _loaded(Decoded(data.decode(encoding), encoding))
    except (SyntaxError, LookupError, UnicodeError) as error:
        # LookupError: the cookie names a codec that is none for text, such as rot13.
        raise LoadError("encoding", f"not readable as Python source: {error}") from None


def _loaded(read: Decoded) -> Loaded:
    """Return the text, its lines ended by newlines alone, and how it was read if not as UTF-8."""
    text, metadata = read.text, dict[str, object]()
    _refuse_binary(text.find("\0"))
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not read.encoding.startswith("utf-8") and read.encoding != "ascii":
        metadata["encoding"] = read.encoding
    if read.confidence is not None:
        metadata["encoding_confidence"] = read.confidence
    if read.replaced:
        metadata["replaced_bytes"] = read.replaced
    return text, metadata


def refuse_surrogates(text: str) -> None:
    """
    Raise for half of a surrogate pair, which no store and no embedder's service takes.

    Raises:
        LoadError: "encoding", with the place of the first one.
    """
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise LoadError(
            "encoding",
            f"expected characters, got {text[error.start]!r}, half of a surrogate pair, at "
            f"{error.start}; the text was decoded by surrogateescape or has a cut-off pair: "
            f'decode its bytes by their own encoding, or text.encode("utf-8", "replace").decode()',
        ) from None


def _refuse_binary(position: int) -> None:
    """Raise where a NUL was found: no text has one, nearly every other file does."""
    if position >= 0:
        raise LoadError("binary", f"a text was expected, but there is a NUL byte at {position}")
