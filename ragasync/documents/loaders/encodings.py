"""Encodings: what bytes prove, what a text declares, and a guess where neither is the case."""

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
The minimum number of multi-byte sequences of UTF-8 for each invalid byte.

One is enough in a text that declares UTF-8, as most pages do. In chardet's test files of other
encodings, there are never more than two.
"""

# Supersets that browsers use instead, by the WHATWG's encoding standard: most files that declare
# the smaller encoding are written in the larger.
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

# Python's names for codecs that are not for texts, or whose escapes any text may hold.
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
"""The minimum number of characters by which UTF-16 beyond ASCII is recognized."""

# Encodings of ASCII bytes with escape sequences; each refuses the escapes of the others.
_ESCAPED = "iso2022_kr iso2022_jp iso2022_jp_2 iso2022_jp_ext iso2022_jp_3 iso2022_jp_2004 hz"
# Those of HZ only with characters in common use, and so without the small letters of TeX.
_ESCAPE = re.compile(
    rb"\x1b(?:\$[@AB]|\$\([CDOPQ]|\([BIJ]|\$\)C)|[\x0e\x0f]|~\{(?:[\x21-\x57][\x21-\x7e])+~\}"
)


@dataclass(frozen=True, slots=True)
class Decoded:
    """A text, and how it was decoded."""

    text: str
    encoding: str  # Python's name
    confidence: float | None = None  # of a guess, from 0 to 1
    replaced: int = 0  # number of bytes that became U+FFFD


def read_unmarked(data: bytes) -> Decoded | None:
    """Decode bytes without a byte order mark by what proves an encoding, then by a declaration."""
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
    """Decode UTF-8 with a few bad bytes; None if another encoding is more likely."""
    needed = 1 if declared_encoding(data) == "utf-8" else GOOD_PER_BAD
    text = data.decode(errors="replace")
    bad = len(data) - len(data.decode(errors="ignore").encode())
    good = len(text) - len(text.encode("ascii", "ignore")) - text.count("\ufffd")
    return Decoded(text, "utf-8", replaced=bad) if good >= needed * bad else None


def declared_encoding(data: bytes) -> str | None:
    """Return the encoding that a text declares as XML, HTML, CSS or Python; None if unknown."""
    start = data[:_DECLARED_WITHIN]
    for pattern in _DECLARATIONS:
        if found := pattern.match(start):
            return known_encoding(found[1].decode())
    return None


def known_encoding(name: str) -> str | None:
    """Return Python's name for an encoding of texts; None if it is unknown."""
    try:
        "".encode(name)  # refuses those from bytes to bytes, such as zlib, which have no bound
        return codecs.lookup(name).name
    except (LookupError, ValueError):
        return None


def read_strictly(data: bytes, encoding: str) -> Decoded | None:
    """Decode bytes if all are valid in the encoding; None for no encoding."""
    try:
        return Decoded(data.decode(encoding), encoding) if encoding else None
    except ValueError:
        return None


def _as_declared(data: bytes) -> Decoded | None:
    """Decode a text by the encoding that it declares, if all bytes are valid in it."""
    named = declared_encoding(data)
    # A declaration of UTF-16 that is readable as ASCII is wrong.
    if named is None or named in _NEVER_DECLARED or named.startswith(("utf-16", "utf-32")):
        return None
    for encoding in (_SUPERSETS.get(named, named), named):
        read = read_strictly(data, encoding)
        # No text has C1 controls; a wrong encoding makes them.
        if read is not None and not any("\x80" <= each <= "\x9f" for each in set(read.text)):
            return Decoded(read.text, "ascii") if read.text.isascii() else read
    return None


def _with_escapes(data: bytes) -> Decoded | None:
    """Decode a text in ISO-2022 or HZ, if it has several escapes that lead to letters."""
    has_escapes = data.isascii() and (b"\x1b$" in data or b"~{" in data)
    if not has_escapes or len(_ESCAPE.findall(data)) < 2:
        return None
    return next(filter(None, (_eastern(data, encoding) for encoding in _ESCAPED.split())), None)


def _eastern(data: bytes, encoding: str) -> Decoded | None:
    """Decode a text if all bytes are valid, and the escapes lead to letters."""
    read = read_strictly(data, encoding)
    if read is None or "\x1b" in read.text:
        return None
    beyond = {each for each in set(read.text) if each > "\x7f"}
    letters = sum(unicodedata.category(each).startswith("L") for each in beyond)
    return read if 2 * letters >= len(beyond) > 0 else None


def _with_nul_bytes(data: bytes) -> Decoded | None:
    """Decode a text in UTF-16 or UTF-32; None for other bytes with NULs."""
    readings = [read for read in _wide_readings(data) if _is_writing(read.text)]
    if not readings:
        return None
    best = max(readings, key=_spaces_and_letters)
    # In UTF-16, mostly ASCII has a NUL byte in four of five characters.
    is_mostly_ascii = 5 * len(best.text.encode("ascii", "ignore")) >= 4 * len(best.text)
    if best.encoding.startswith("utf-32") or (is_mostly_ascii and _has_few_00(data, best, 50)):
        return best
    # A line end among ideographs is a good sign and no proof: so it is marked like a guess.
    if (
        len(best.text) < _MIN_WIDE
        or not _has_few_00(data, best, 10)
        or not _is_of_few_scripts(best.text)
    ):
        return None
    return None if _is_text_with_nuls(data) else Decoded(best.text, best.encoding, confidence=0.9)


def _has_few_00(data: bytes, read: Decoded, one_of: int) -> bool:
    """Return whether few characters are like U+4E00, with the NUL in the other place."""
    lower = data[0 if read.encoding.endswith("le") else 1 :: 2]
    return one_of * lower.count(0) <= len(read.text)


def _is_text_with_nuls(data: bytes) -> bool:
    """Return whether bytes are UTF-8 except for the NULs: two letters look like one."""
    read = read_strictly(data.replace(b"\0", b""), "utf-8")
    if read is None:
        return False
    controls = sum(map(read.text.count, map(chr, (*range(1, 9), *range(14, 32)))))
    return 10 * controls < len(read.text)


def _is_of_few_scripts(text: str) -> bool:
    """Return whether nine of ten characters beyond ASCII are of three scripts."""
    counts = Counter(_script(each) for each in text[:100_000] if each > "\x7f")
    return 10 * sum(count for _, count in counts.most_common(3)) >= 9 * counts.total()


def _script(character: str) -> int:
    """Return the script of a character: its block of 256, but one number for all of CJK."""
    block = ord(character) >> 8
    if 0x2E <= block <= 0x9F or block in (0xF9, 0xFE, 0xFF):
        return 0x4E
    return 0xAC if 0xAC <= block <= 0xD7 else block


def _wide_readings(data: bytes) -> Iterator[Decoded]:
    """Decode bytes by each encoding that has NUL bytes in fixed places."""
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
    """Return whether all characters are assigned and none is a control."""
    return all(
        each in "\t\n\r\f\ufeff" or unicodedata.category(each) not in ("Cc", "Cn", "Co", "Cs")
        for each in set(text)
    )


def _spaces_and_letters(read: Decoded) -> tuple[int, int]:
    """Return the score of a reading: its common characters, and fewer scripts."""
    common = sum(map(read.text.count, " \n\r\t.,、。，"))
    letters = sum(map(read.text.count, "abcdefghijklmnopqrstuvwxyz"))
    return common + letters, -len({ord(each) >> 8 for each in set(read.text)})


MAX_GUESSED = 200_000
"""The maximum number of bytes for a guess."""

# Encodings that files are found in. EBCDIC, UTF-7 and the like would only win by accident.
_GUESSED = (
    "big5hkscs cp932 cp949 euc_jis_2004 euc_kr gb18030 johab shift_jis_2004 "
    "cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258 cp874 "
    "iso8859-2 iso8859-5 iso8859-6 iso8859-7 iso8859-15 koi8-r koi8-u "
    "cp437 cp850 cp852 cp855 cp866 mac-cyrillic mac-roman"
)

# Commoner variants are tried before the guess that includes their characters.
_NAMES = {
    "euc_jis_2004": ("euc_jp", "euc_jis_2004"),
    "shift_jis_2004": ("cp932", "shift_jis_2004"),
}

_MIN_EVIDENCE = 3
"""The fewest bytes beyond ASCII from which a guess can be made."""

_ACCENTS = "àáâãäåæçèéêëìíîïñòóôõöøùúûüßœÿÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜŒŸ"
_ACCENT = re.compile(f"[{_ACCENTS}]")
_WESTERN_WORD = re.compile(f"[A-Za-z{_ACCENTS}]+")
_SIGNS = "\u00a0¡¢£§©ª«¬®°±²³µ·º»¼½¾¿×÷–—‘’‚“”„†‡•…‰‹›€™"
_NOT_WESTERN = re.compile(
    # What no such language has, a sign inside a word, three accents in a row, a late capital.
    f"[^\\x00-\\x7f{_ACCENTS}{_SIGNS}]"
    f"|[a-zA-Z{_ACCENTS}](?:[^\\w\\s\\x00-\\x7f’–—·®™°…]|[¹³¼½¾])[a-zA-Z{_ACCENTS}]"
    f"|[{_ACCENTS}]{{3}}|[a-zà-ÿ][À-ÞŒŸ]"
)
_HIGH = re.compile(rb"[\x80-\xff]")


def guessed(data: bytes) -> Decoded | None:
    """Return the likeliest text by chardet, whole and strict; None without one."""
    sample = _telling_part(data)
    evidence = len(_HIGH.findall(sample))
    # A few bytes that fit the commonest encoding are in it, such as a price with a pound sign.
    if evidence < _MIN_EVIDENCE or _is_western(sample):
        guesses = [("cp1252", 0.7)]
    else:
        guesses = _by_statistics(sample)
    for encoding, likely in guesses:
        if (read := read_strictly(data, encoding)) is not None:
            confidence = min(likely * evidence / (evidence + _MIN_EVIDENCE), 0.99)
            return Decoded(read.text, encoding, round(confidence, 2))
    return None


def _is_western(data: bytes) -> bool:
    """
    Return whether words are spelt as in Western Europe, in cp1252.

    In a few words, statistics cannot tell this from other encodings, but their letters become signs
    inside words, letters of Icelandic alone, or many in a row.
    """
    text = data.decode("cp1252", "replace")
    if _NOT_WESTERN.search(text) or ("õ" in text and "ã" not in text):  # as Hungarian ő comes out
        return False
    accented = [word for word in _WESTERN_WORD.findall(text) if not word.isascii()]
    letters, plain = sum(map(len, accented)), sum(len(_ACCENT.sub("", word)) for word in accented)
    return 3 * plain >= letters


def _by_statistics(data: bytes) -> list[tuple[str, float]]:
    """Return the encodings that bytes may be in, likeliest first, with their confidence."""
    # It takes 50 ms to import, and few runs meet a file that needs it.
    from chardet import detect_all

    matches = detect_all(
        data, ignore_threshold=True, compat_names=False, include_encodings=_GUESSED.split()
    )
    guesses = [(each["encoding"], each["confidence"]) for each in matches if each["encoding"]]
    return [(name, likely) for found, likely in guesses for name in _NAMES.get(found, (found,))]


def _telling_part(data: bytes) -> bytes:
    """Return lines beyond ASCII, up to the size of a guess."""
    lines, size, position = list[bytes](), 0, 0
    while size < MAX_GUESSED and (high := _HIGH.search(data, position)):
        # Of a line that never ends, only a part.
        start = max(data.rfind(b"\n", position, high.start()) + 1, position, high.start() - 1_000)
        end = data.find(b"\n", high.end(), start + MAX_GUESSED)
        if end < 0:
            end = _cut(data, start)
        lines.append(data[start:end])
        size += end - start
        position = end
    return b"\n".join(lines)


def _cut(data: bytes, start: int) -> int:
    """Return the end of a part: half a character would rule its encoding out."""
    most = start + MAX_GUESSED
    if most >= len(data):
        return len(data)
    # These are the second byte of no character.
    return max(data.rfind(mark, start + 1, most) + 1 for mark in (b" ", b".", b",")) or most
