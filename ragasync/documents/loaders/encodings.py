"""Which encoding bytes are in: what proves it, and what a text declares."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

MARKS = (
    # Those of UTF-32 first: they begin like those of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    ("\ufeff".encode("gb18030"), "gb18030"),
)
"""Byte order marks, and the encodings that they prove."""

GOOD_PER_BAD = 8
"""
How many multi-byte sequences of UTF-8 there must be for each byte that is none.

One is enough in a text that declares UTF-8, as most pages do. In chardet's test files of other
encodings, there are never more than two.
"""

# What browsers read instead, by the WHATWG's standard of encodings: each can read what the other
# can, and the files that name the smaller one are mostly written in the larger.
_SUPERSETS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
    "cp950": "big5hkscs",
}

# Python's names for what is no way to write a text, or only by escapes that any text may hold.
_NEVER_DECLARED = frozenset(
    {"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape", "utf-7"}
)

_DECLARED_WITHIN = 4_096
"""Where a declaration must be; browsers read 1,024 bytes, and some pages have long comments."""

_DECLARATIONS = (
    re.compile(rb"""\s{0,100}<\?xml\s[^>]{0,200}?encoding\s{0,9}=\s{0,9}["']([\w.:-]{1,40})"""),
    re.compile(rb"""(?is).*?<meta[^>]{0,200}?charset\s{0,9}=\s{0,9}["']?([\w.:-]{1,40})"""),
    re.compile(
        rb"(?:[ \t\f]*(?:#[^\n]*)?\r?\n)?[ \t\f]*#[^\n]{0,200}?coding[:=][ \t]*([-\w.]{1,40})"
    ),
    re.compile(rb"""@charset "([\w.:-]{1,40})";"""),
)

_MIN_WIDE = 8
"""The fewest characters of which more than ASCII must be for UTF-16 to be told from a binary."""

_JAPANESE = ("iso2022_jp", "iso2022_jp_2", "iso2022_jp_ext", "iso2022_jp_3", "iso2022_jp_2004")
_TO_JAPANESE = re.compile(rb"\x1b(?:\$[@AB]|\$\([CDOPQ]|\([BIJ])")
_TO_KOREAN = re.compile(rb"\x1b\$\)C|[\x0e\x0f]")
_TO_CHINESE = re.compile(rb"~\{((?:[\x21-\x7d][\x21-\x7e])+)~\}")


@dataclass(frozen=True, slots=True)
class Decoded:
    """
    A text, and how it was read.

    Args:
        text: The text itself.
        encoding: The encoding, by Python's name.
        confidence: How likely it is, from 0 to 1; None where it was not guessed.
        replaced: How many bytes of it were no text and became U+FFFD.
    """

    text: str
    encoding: str
    confidence: float | None = None
    replaced: int = 0


def read_unmarked(data: bytes) -> Decoded | None:
    """
    Return the text of bytes without a byte order mark; None where nothing tells.

    What proves an encoding comes first, then what the text declares.
    """
    if b"\0" in data:
        return _with_nul_bytes(data)
    return (
        _with_escapes(data)
        or read_strictly(data, "utf-8" if not data.isascii() else "")
        or _as_declared(data)
        or read_strictly(data, "ascii")
        or mostly_utf8(data)
    )


def mostly_utf8(data: bytes) -> Decoded | None:
    """Return UTF-8 with a few bytes that are none, where that is the likely explanation."""
    needed = 1 if declared_encoding(data) == "utf-8" else GOOD_PER_BAD
    text = data.decode(errors="replace")
    bad = len(data) - len(data.decode(errors="ignore").encode())
    good = len(text) - len(text.encode("ascii", "ignore")) - text.count("\ufffd")
    return Decoded(text, "utf-8", replaced=bad) if good >= needed * bad else None


def declared_encoding(data: bytes) -> str | None:
    """Return the encoding that a text names as XML, HTML, CSS or Python do, if it is known."""
    start = data[:_DECLARED_WITHIN]
    for pattern in _DECLARATIONS:
        if found := pattern.match(start):
            return known_encoding(found[1].decode())
    return None


def known_encoding(name: str) -> str | None:
    """Return Python's name for an encoding of texts, or None if it knows none by that name."""
    try:
        "".encode(name)  # refuses those from bytes to bytes, such as zlib, which have no bound
        return codecs.lookup(name).name
    except (LookupError, ValueError):
        return None


def read_strictly(data: bytes, encoding: str) -> Decoded | None:
    """Return the text if all bytes fit the encoding; None for no encoding."""
    try:
        return Decoded(data.decode(encoding), encoding) if encoding else None
    except ValueError:
        return None


def _as_declared(data: bytes) -> Decoded | None:
    """Return the text by the encoding it declares, if that is true of all its bytes."""
    named = declared_encoding(data)
    # What names UTF-16 and can be read byte by byte to its name is not in it.
    if named is None or named in _NEVER_DECLARED or named.startswith(("utf-16", "utf-32")):
        return None
    for encoding in (_SUPERSETS.get(named, named), named):
        read = read_strictly(data, encoding)
        if read is not None and not _has_controls(read.text):
            return Decoded(read.text, "ascii") if read.text.isascii() else read
    return None


def _has_controls(text: str) -> bool:
    """Return whether there are C1 controls, which no text has and wrong encodings make."""
    return any("\x80" <= each <= "\x9f" for each in _beyond_ascii(text))


def _beyond_ascii(text: str) -> set[str]:
    """Return the different characters of a text that are not ASCII."""
    return {each for each in set(text) if each > "\x7f"}


def _with_escapes(data: bytes) -> Decoded | None:
    """Return a text in ISO-2022 or HZ, which are ASCII bytes with escape sequences."""
    if not data.isascii():
        return None
    if b"\x1b$)C" in data and len(_TO_KOREAN.findall(data)) > 2:
        return _eastern(data, "iso2022_kr")
    if b"\x1b$" in data and len(_TO_JAPANESE.findall(data)) > 1:
        return next(filter(None, (_eastern(data, encoding) for encoding in _JAPANESE)), None)
    if b"~{" in data and _has_hz(data):
        return _eastern(data, "hz")
    return None


def _has_hz(data: bytes) -> bool:
    """Return whether there are several escapes of HZ, with characters that are in common use."""
    written = _TO_CHINESE.findall(data)
    leads = b"".join(part[::2] for part in written)
    # Level 1 of GB 2312 and its punctuation, and so no small letters, as in TeX.
    common = sum(lead <= 0x57 for lead in leads)
    return len(written) > 1 and 4 * common >= 3 * len(leads)


def _eastern(data: bytes, encoding: str) -> Decoded | None:
    """Return the text if all bytes fit, and what the escapes lead to is writing."""
    read = read_strictly(data, encoding)
    if read is None or "\x1b" in read.text:
        return None
    beyond = _beyond_ascii(read.text)
    letters = sum(unicodedata.category(each).startswith("L") for each in beyond)
    return read if 2 * letters >= len(beyond) > 0 else None


def _with_nul_bytes(data: bytes) -> Decoded | None:
    """Return a text in UTF-16 or UTF-32; None for anything else that has NUL bytes."""
    readings = [read for read in _wide_readings(data) if _is_writing(read.text)]
    if not readings:
        return None
    best = max(readings, key=_spaces_and_letters)
    if best.encoding.startswith("utf-32") or (
        _is_mostly_ascii(best.text) and _has_few_00(data, best, 50)
    ):
        return best
    # A line end among ideographs is a good sign and no proof: so it is marked like a guess.
    if (
        len(best.text) < _MIN_WIDE
        or not _has_few_00(data, best, 10)
        or not _is_of_few_scripts(best.text)
    ):
        return None
    return None if _is_text_with_nuls(data) else Decoded(best.text, best.encoding, confidence=0.9)


def _is_mostly_ascii(text: str) -> bool:
    """Return whether four of five characters are ASCII, with a NUL byte in each."""
    return 5 * len(text.encode("ascii", "ignore")) >= 4 * len(text)


def _has_few_00(data: bytes, read: Decoded, one_of: int) -> bool:
    """Return whether few characters are such as U+4E00, which have the NUL in the other place."""
    lower = data[0 if read.encoding.endswith("le") else 1 :: 2]
    return one_of * lower.count(0) <= len(read.text)


def _is_text_with_nuls(data: bytes) -> bool:
    """Return whether bytes are a text in UTF-8 but for the NULs: two letters look like one."""
    read = read_strictly(data.replace(b"\0", b""), "utf-8")
    if read is None:
        return False
    controls = sum(map(read.text.count, map(chr, (*range(1, 9), *range(14, 32)))))
    return 10 * controls < len(read.text)


def _is_of_few_scripts(text: str) -> bool:
    """Return whether nine of ten characters beyond ASCII are of three scripts, as texts' are."""
    counts = Counter(_script(each) for each in text[:100_000] if each > "\x7f")
    return 10 * sum(count for _, count in counts.most_common(3)) >= 9 * counts.total()


def _script(character: str) -> int:
    """Return a number for the script of a character: its block of 256, but one for all of CJK."""
    block = ord(character) >> 8
    if 0x2E <= block <= 0x9F or block in (0xF9, 0xFE, 0xFF):
        return 0x4E
    return 0xAC if 0xAC <= block <= 0xD7 else block


def _wide_readings(data: bytes) -> Iterator[Decoded]:
    """Yield what the bytes are in each encoding that has NUL bytes in fixed places."""
    for encoding, unit, zeros in (
        ("utf-32-le", 4, (3,)),
        ("utf-32-be", 4, (0,)),
        ("utf-16-le", 2, ()),
        ("utf-16-be", 2, ()),
    ):
        if len(data) % unit == 0 and not any(data[place::unit].strip(b"\0") for place in zeros):
            read = read_strictly(data, encoding)
            if read is not None:
                yield read


def _is_writing(text: str) -> bool:
    """Return whether all characters are such as texts have: assigned, and no controls."""
    return all(
        each in "\t\n\r\f\ufeff" or unicodedata.category(each) not in ("Cc", "Cn", "Co", "Cs")
        for each in set(text)
    )


def _spaces_and_letters(read: Decoded) -> tuple[int, int]:
    """Return how much speaks for a reading: its common characters, less its scripts."""
    common = sum(map(read.text.count, " \n\r\t.,、。，"))
    letters = sum(map(read.text.count, "abcdefghijklmnopqrstuvwxyz"))
    return common + letters, -len({ord(each) >> 8 for each in set(read.text)})
