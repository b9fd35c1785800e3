"""Texts, Markdown, Python and notebooks: bytes to text, by their own or a likely encoding."""

from __future__ import annotations

import io
import json
import re
import tokenize
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias

from ragasync.documents.loaders.encodings import (
    MARKS,
    Decoded,
    guessed,
    known_encoding,
    mostly_utf8,
    read_unmarked,
)
from ragasync.documents.models import LoadError

Loaded: TypeAlias = tuple[str, dict[str, object]]
"""The text of a file and its metadata."""


@dataclass(frozen=True, slots=True)
class Record:
    """
    One of several documents in a file, such as a row of a table or a line of JSON.

    Args:
        key: Identifies the record in its file; the id of its document is `file//#key`.
        text: The text of the document.
        metadata: The metadata of the document.
    """

    key: str
    text: str
    metadata: Mapping[str, object] = field(default_factory=dict, hash=False)


Loader: TypeAlias = Callable[[bytes], str | Loaded | Iterable[Record]]
"""
A function from the bytes of one format to a text with metadata, or to records.

It raises LoadError for a file that it cannot read.
"""


def passing(suffix: str, loader: str) -> str:
    """Return the code that passes another loader for a suffix, for errors to suggest."""
    loaders = f'loaders={{**LOADERS, "{suffix}": {loader}}}'
    return f"AsyncDocumentProcessor(partial(load_source, {loaders}))"


def join_parts(parts: Sequence[str]) -> tuple[str, tuple[int, ...]]:
    """Join pages or cells by blank lines; also return the offset of each."""
    starts, position = [], 0
    for part in parts:
        starts.append(position)
        position += len(part) + 2
    return "\n\n".join(parts), tuple(starts)


_DATA_URI = re.compile(
    r"""\bdata:([\w.+-]{1,80}/[\w.+-]{1,80})?[^\s,()"'<>]{0,200},[^\s()"'<>]{100,}"""
)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{1000,}={0,2}")


def without_embedded_data(text: str) -> str:
    """
    Remove pictures and other binary data from a text: nobody searches for it.

    A `data:` URI is reduced to its media type, a run of 1,000 or more characters of base64 to `…`.
    Line ends stay, so that line numbers are those of the file.

    Example:
        >>> from ragasync.documents.loaders.text import without_embedded_data
        >>> without_embedded_data(f"see ![a plot](data:image/png;base64,{'iVBORw0K' * 20}) here")
        'see ![a plot](data:image/png) here'
    """
    if len(text) < 100:
        return text
    if "data:" in text:
        text = _DATA_URI.sub(lambda uri: f"data:{uri[1] or ''}", text)
    return _BASE64.sub("…", text) if len(text) >= 1000 else text


MAX_TITLE = 100
"""The most characters of a heading that are kept."""

# A line that is a heading, underlines one, or opens or closes a block of code. It begins with the
# line end before it, which is found faster than a line's start.
_MARK = re.compile(
    r"\n {0,3}(?:(?P<hashes>#{1,6})(?=[ \t\n]|\Z)"
    r"|(?P<underline>=+|-+)[ \t]*(?=\n|\Z)"
    r"|(?P<fence>`{3,}(?=[^`\n]*(?:\n|\Z))|~{3,})(?P<info>[^\n]*))"
)
_FRONT_MATTER = re.compile(r"---[ \t]*\n((?:[^\n]*\n)*?)(?:---|\.\.\.)[ \t]*(?:\n|\Z)")
_NO_TITLE = re.compile(r" {4}|\t|[ ]{0,3}(?:[-*+][ \t]|[>|<#`~]|[-=*_ \t]*\Z)")
_CLOSING_HASHES = re.compile(r"(?:^|[ \t])#+[ \t]*\Z")


def markdown_headings(text: str) -> Iterator[tuple[int, int]]:
    """
    Yield the offset and level of each heading of a Markdown text, in order.

    Headings are `# Title` and titles on one line underlined by `===` or `---`, as in CommonMark,
    outside of fenced or indented code and front matter.
    """
    if not ("#" in text or "=" in text or "-" in text):
        return  # takes a fifteenth of the time of the search for their lines
    start = 0
    if text.startswith("---") and (matter := _FRONT_MATTER.match(text)):
        start = matter.end()
    fence = ""
    after_mark = start  # where the latest line that was a mark ends
    # The line end in front makes the first line like the others, and offsets those of lines.
    for mark in _MARK.finditer("\n" + text, start):
        offset = mark.start()
        if fence:
            closes = mark["fence"] or ""
            if closes.startswith(fence) and not mark["info"].strip():
                fence = ""
            elif not closes:
                continue
        elif mark["fence"]:
            fence = mark["fence"]
        elif mark["hashes"]:
            yield offset, len(mark["hashes"])
            end = text.find("\n", offset)
            after_mark = len(text) if end < 0 else end + 1
            continue
        elif (title := _underlined(text, offset, after_mark)) is not None:
            yield title, 1 if mark["underline"].startswith("=") else 2
        else:
            continue  # a rule, or a line of a table
        after_mark = mark.end()


def title_at(text: str, offset: int) -> str:
    """Return the title of the heading at an offset, cut at MAX_TITLE characters."""
    end = text.find("\n", offset)
    line = text[offset : min(offset + 2 * MAX_TITLE, len(text) if end < 0 else end)].strip()
    if line.startswith("#"):
        line = _CLOSING_HASHES.sub("", line.lstrip("#"))
    return line.strip(" \t¶")[:MAX_TITLE]  # a page's headings often end with a link to themselves


def _underlined(text: str, offset: int, after_mark: int) -> int | None:
    """Return the offset of the title that a line underlines: alone between other lines."""
    if offset == 0:
        return None
    start = text.rfind("\n", 0, offset - 1) + 1
    if start < after_mark or _NO_TITLE.match(text, start, offset - 1):
        return None
    if start > after_mark and not text[text.rfind("\n", 0, start - 1) + 1 : start].isspace():
        return None  # a paragraph of several lines, or a table
    return start


MAX_FRONT_MATTER = 50_000
"""The most characters of front matter that are read."""

_KEYS_OF_LOADERS = (
    "cell cell_starts encoding encoding_confidence heading headings id line mtime page "
    "page_starts replaced_bytes row size source"
)
RESERVED = frozenset(_KEYS_OF_LOADERS.split())
"""Keys of loaders' metadata; in front matter they become, for example, `front_matter_line`."""

_ENTRY = re.compile(
    r"""("[^"\n]{1,200}"|'[^'\n]{1,200}'|[^\s#:\-'"\[{][^:\n]{0,200}?)[ \t]*:(?:[ \t]+|$)"""
)
_ITEM = re.compile(r"[ \t]*-(?:[ \t]+|$)")
_INTEGER = re.compile(r"[-+]?(?:0|[1-9]\d{0,14})")
_DECIMAL = re.compile(r"[-+]?\d{1,15}\.\d{0,15}(?:[eE][-+]?\d{1,2})?")
_WORDS: dict[str, object] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}


def front_matter(text: str) -> dict[str, object]:
    r"""
    Return the entries of the front matter at the start of a Markdown text.

    These are lines of `key: value` and lists, `[a, b]` or a line `- a` for each item: texts,
    numbers, true, false and null; dates stay texts. Deeper nested values are left out, and
    `front_matter_unread` lists their keys.

    Example:
        >>> from ragasync.documents.loaders.text import front_matter
        >>> front_matter("---\ntitle: Limits\ntags: [rate, burst]\n---\nA bucket refills.")
        {'title': 'Limits', 'tags': ['rate', 'burst']}
    """
    block = _FRONT_MATTER.match(text[:MAX_FRONT_MATTER]) if text.startswith("---") else None
    if block is None:
        return {}
    found: dict[str, object] = {}
    unread: list[str] = []
    for key, value, below in _entries(block[1].split("\n")):
        name = f"front_matter_{key}" if key in RESERVED else key
        try:
            found[name] = _value(value, below)
        except ValueError:
            unread.append(key)
    if unread:
        found["front_matter_unread"] = unread
    return found


def _entries(lines: Sequence[str]) -> list[tuple[str, str, list[str]]]:
    entries: list[tuple[str, str, list[str]]] = []
    for line in lines:
        if entry := _ENTRY.match(line):
            entries.append((_unquoted(entry[1]), line[entry.end() :].strip(), []))
        elif entries and line.strip() and not line.lstrip().startswith("#"):
            entries[-1][2].append(line)
    return entries


def _value(value: str, below: Sequence[str]) -> object:
    """Return the value of an entry; ValueError if it is nested or of an unknown kind."""
    if value[:1] in ("|", ">"):
        return ("\n" if value[0] == "|" else " ").join(line.strip() for line in below)
    value = _without_comment(value)
    if not below:
        return _items(value) if value.startswith("[") else _scalar(value)
    if value or not all(map(_ITEM.match, below)):
        raise ValueError("nested")
    return [_item(_without_comment(_ITEM.sub("", line, count=1).strip())) for line in below]


def _items(value: str) -> list[object]:
    if not value.endswith("]"):
        raise ValueError("a list over several lines")
    parts = re.findall(r"""[ \t]*("[^"]*"|'[^']*'|[^,]*)[ \t]*(?:,|$)""", value[1:-1])
    return [_item(part.strip()) for part in parts if part.strip()]


def _item(value: str) -> object:
    """Return the value of a list's item; ValueError if it is a list or mapping itself."""
    if value[:1] in ("[", "{", "-") and not _DECIMAL.fullmatch(value) and not _INTEGER.match(value):
        raise ValueError("nested")
    if _ENTRY.match(value):
        raise ValueError("a mapping")
    return _scalar(value)


def _scalar(value: str) -> object:
    if value[:1] in ("{", "&", "*", "!"):
        raise ValueError("a mapping, an anchor or a tag")
    if value in _WORDS:
        return _WORDS[value]
    if _INTEGER.fullmatch(value):
        return int(value)
    return float(value) if _DECIMAL.fullmatch(value) else _unquoted(value)


def _without_comment(value: str) -> str:
    """Remove ` # comment` from a value, unless it is in quotes."""
    quoted = re.match(r"""("(?:[^"\\]|\\.)*"|'[^']*')[ \t]*(?:#.*)?$""", value)
    if quoted:
        return quoted[1]
    return re.split(r"(?:^|[ \t])#", value, maxsplit=1)[0].strip()


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        inner = value[1:-1]
        return inner.replace("''", "'") if value[0] == "'" else re.sub(r"\\(.)", r"\1", inner)
    return value


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
    if encoding is not None:
        return _loaded(Decoded(_in_given_encoding(data, encoding), encoding))
    for mark, marked in MARKS:
        if data.startswith(mark):
            return _loaded(_marked(data, mark, marked))
    if (read := read_unmarked(data)) is not None:
        return _loaded(read)
    _refuse_binary(data.find(b"\0"))
    if (read := guessed(data)) is not None:
        return _loaded(read)
    raise LoadError("encoding", f"{_why_not_text(data)}; {_ADVICE}")


def _in_given_encoding(data: bytes, encoding: str) -> str:
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
    """Decode a text by its byte order mark; only UTF-8 may have bad bytes."""
    try:
        return Decoded(data.decode(encoding).removeprefix("\ufeff"), encoding)
    except ValueError as error:
        if encoding == "utf-8-sig" and (read := mostly_utf8(data.removeprefix(mark))) is not None:
            return read
        raise LoadError(
            "encoding", f"{error}, though it begins with {mark!r}; it may be cut off. {_ADVICE}"
        ) from None


def _why_not_text(data: bytes) -> str:
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
    """Decode a Markdown text like `load_text`, without pictures; its front matter is metadata."""
    text, metadata = load_text(data, encoding=encoding)
    return without_embedded_data(text), {**front_matter(text), **metadata}


def load_python(data: bytes) -> Loaded:
    """Decode Python source by its coding cookie, else as strict UTF-8 (PEP 263, PEP 3120)."""
    _refuse_binary(data.find(b"\0"))
    if not _may_declare_encoding(data):  # most files, in a tenth of the time
        with suppress(UnicodeDecodeError):  # its first lines decide what the error says
            return _loaded(Decoded(data.decode(), "utf-8"))
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        return _loaded(Decoded(data.decode(encoding), encoding))
    except (SyntaxError, LookupError, UnicodeError) as error:
        # LookupError: the cookie names a codec that is not for text, such as rot13.
        raise LoadError("encoding", f"not readable as Python source: {error}") from None


def _may_declare_encoding(data: bytes) -> bool:
    """Whether Python source begins with a byte order mark, or may have a cookie in two lines."""
    second = data.find(b"\n", data.find(b"\n") + 1)
    end = len(data) if second < 0 else second
    return data.startswith(BOM_UTF8) or data.find(b"coding", 0, end) >= 0


def _loaded(read: Decoded) -> Loaded:
    """Return a text with newlines alone as line ends, and how it was decoded if not as UTF-8."""
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
    """Raise LoadError for half of a surrogate pair, which no store or service takes."""
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
    """Raise for a NUL byte: no text has one, and nearly every other file does."""
    if position >= 0:
        raise LoadError("binary", f"a text was expected, but there is a NUL byte at {position}")


# Base64 as mail and keys have it, in lines that are all as long.
_WRAPPED_BASE64 = re.compile(r"(?m)^(?:[A-Za-z0-9+/]{60,}\n){10,}[A-Za-z0-9+/]*={0,2}")


def load_notebook(data: bytes) -> Loaded:
    """
    Load the cells of a Jupyter notebook without outputs and pictures, joined by blank lines.

    `metadata["cell_starts"]` holds the offset of each cell that is not empty,
    `metadata["headings"]` the offset and level of each heading in Markdown cells, and
    `metadata["language"]` the kernel's language. A file that is not the JSON of a notebook
    (nbformat 3 or 4) is a LoadError.
    """
    try:
        notebook = json.loads(data)
        cells = [(is_words, text) for is_words, text in _sources(notebook) if text.strip()]
        facts = notebook.get("metadata", {})
        named = facts.get("language_info", {}).get("name")
        language = named or facts.get("kernelspec", {}).get("language")
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        raise LoadError("notebook", f"not a notebook's JSON: {error!r:.200}") from None
    text, starts = join_parts([text for _, text in cells])
    metadata: dict[str, object] = {"cell_starts": starts}
    headings = tuple(
        (start + offset, level)
        for start, (is_words, words) in zip(starts, cells, strict=True)
        if is_words
        for offset, level in markdown_headings(words)
    )
    if headings:
        metadata["headings"] = headings
    if language and isinstance(language, str):
        metadata["language"] = language
    return text, metadata


def _sources(notebook: dict[str, object]) -> Iterator[tuple[bool, str]]:
    """Yield for each cell except raw ones whether it is Markdown, and its source."""
    match notebook:
        case {"cells": list(cells)}:
            pass
        case {"worksheets": list(sheets)}:
            cells = [cell for sheet in sheets for cell in sheet["cells"]]
        case _:
            raise TypeError("it has neither cells nor worksheets")
    for cell in cells:
        if cell["cell_type"] != "raw":
            source = cell["source"] if "source" in cell else cell["input"]
            # JSON can spell half a surrogate pair or a NUL, which no store takes.
            text = "".join(source).replace("\0", "")
            text = _WRAPPED_BASE64.sub("…", text.encode("utf-8", "replace").decode())
            yield cell["cell_type"] == "markdown", without_embedded_data(text)
