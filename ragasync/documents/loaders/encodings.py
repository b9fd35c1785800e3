"""Encodings: what bytes prove, what a text declares, and a guess where neither is the case."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from charset_normalizer import CharsetMatch, CharsetMatches


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
    # In the wrong byte order, characters are strewn over many blocks of 256.
    best = min(readings, key=lambda read: len({ord(each) >> 8 for each in set(read.text)}))
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


MAX_GUESSED = 200_000
"""The maximum number of bytes for a guess: they are decoded by some thirty encodings."""

# Encodings that files are found in. EBCDIC, UTF-7 and the like would only win by accident.
_GUESSED = (
    "big5hkscs cp932 cp949 cp950 euc_jp gb18030 johab "
    "cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258 cp874 "
    "iso8859_2 iso8859_5 iso8859_6 iso8859_7 iso8859_15 koi8_r koi8_u "
    "cp437 cp850 cp852 cp855 cp866 mac_cyrillic mac_roman"
)

# The encodings preferred among equally good guesses, because more files use them.
_COMMON = ("cp1252", "cp1250", "cp1251", "cp1254")
_AS_COHERENT = 0.03

# Variants with a few more characters: tried if the guess does not fit the whole file.
_RELATED = {
    "big5hkscs": ("cp950",),
    "cp932": ("shift_jis_2004",),
    "euc_jp": ("euc_jis_2004",),
}

# Half-width katakana, single letters of Hangul, and ideographs beyond the first 20,000.
_ODD = re.compile("[\uff61-\uff9f\u3131-\u318e\U00020000-\U0003ffff]")
_FILLER = "\u3164"
"""The character by which EUC-KR starts a syllable spelt by its letters, decoded as cp949."""

# Such as ¶ in gę¶l± and ¶wiat, as cp1250 reads ISO 8859-2; Catalan has · and some texts ª and º.
_SIGN_IN_WORD = re.compile(
    r"[^\W\d_][\xa1-\xa9\xab\xac\xae-\xb4\xb6\xb8\xb9\xbb-\xbf][^\W\d_]"
    r"|(?<!\w)[\xa6\xae\xaf\xb6\xb8\xbc\xbe][^\W\d_]"
)

_LAST_COMMON_KANJI = "腕".encode("cp932")  # the end of level 1 of JIS X 0208

_MIN_EVIDENCE = 3
"""The fewest bytes beyond ASCII from which a guess can be made."""

_SHORT = 60
"""Below this number of bytes beyond ASCII, the shape of words says more than statistics."""

_SHAPED = 0.7  # how likely a guess by the shape of words is, if there are enough of them

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

# A line, or a part of a long one: half a character at its end would rule its encoding out, and
# these signs are the second byte of no character.
_LINE = re.compile(rb"[^\n]{0,100000}(?:\n|\Z)|[^\n]{0,100000}[ .,]|[^\n]{1,100000}")
_WORD = re.compile(rb"[A-Za-z\x80-\xff]+")
_HIGH_RUN = re.compile(rb"[\x80-\xff]+")
_PAIRS = re.compile(rb"(?:[\xa1-\xf7][\xa1-\xfe])+")
_CYRILLIC_WORD = re.compile("[А-ЯЁ]?[а-яё]+|[А-ЯЁ]+")
_HEBREW_WORD = re.compile(rb"[\xe0-\xfa]+")


def guessed(data: bytes) -> Decoded | None:
    """Return the likeliest text by charset-normalizer, whole and strict; None without one."""
    sample = _telling_part(data)
    evidence = len(sample) - len(sample.decode("ascii", "ignore"))
    if evidence < _MIN_EVIDENCE or _is_western(sample):
        # A few bytes that fit the commonest encoding are in it, such as a price with a pound sign.
        if (read := read_strictly(data, "cp1252")) is not None:
            return Decoded(read.text, "cp1252", _confidence(_SHAPED, evidence))
        if evidence < _MIN_EVIDENCE:
            return None
    # It takes 40 ms to import, and few runs meet a file that needs it.
    from charset_normalizer import from_bytes

    shaped = _by_shape_of_words(sample) if evidence < _SHORT else None
    if shaped and (read := read_strictly(data, shaped)) is not None:
        return Decoded(read.text, shaped, _confidence(_SHAPED, evidence))
    matches = from_bytes(
        sample, cp_isolation=_GUESSED.split(), preemptive_behaviour=False, enable_fallback=False
    )
    for match in sorted(matches, key=_order(matches)):
        names = sorted(match.could_be_from_charset, key=_rank)
        if _FILLER in str(match):
            names.insert(0, "euc_kr")
        for encoding in (*names, *_RELATED.get(match.encoding, ())):
            if (read := read_strictly(data, encoding)) is not None:
                likely = (1 - match.chaos) * (0.5 + match.coherence / 2)
                return Decoded(read.text, encoding, _confidence(likely, evidence))
    return None


def _confidence(likely: float, evidence: int) -> float:
    """Return the confidence of a guess by its evidence in bytes; below 1."""
    return round(min(likely * evidence / (evidence + _MIN_EVIDENCE), 0.99), 2)


def _is_western(data: bytes) -> bool:
    """
    Return whether words are spelt as in Western Europe, in cp1252.

    The statistics of cp1250, cp1257 and cp775 are similar, but their letters become signs inside
    words, letters of Icelandic alone, or many in a row.
    """
    text = data.decode("cp1252", "replace")
    if _NOT_WESTERN.search(text) or ("õ" in text and "ã" not in text):  # as Hungarian ő comes out
        return False
    accented = [word for word in _WESTERN_WORD.findall(text) if not word.isascii()]
    letters, plain = sum(map(len, accented)), sum(len(_ACCENT.sub("", word)) for word in accented)
    return 3 * plain >= letters


def _by_shape_of_words(data: bytes) -> str | None:
    """
    Return the encoding in which a few words are well-spelt; None if there is none.

    charset-normalizer mistakes the script of a few words. In Cyrillic, capitals are at the start of
    words or everywhere, and a quarter of the letters are vowels; Hebrew has no capitals; Japanese
    has kana, and common kanji have their own range in Shift JIS, as common ideographs in GB 2312.
    """
    words = [word for word in _WORD.findall(data) if not word.isascii()]
    if _is_cyrillic(words, "cp1251"):
        return "cp1251"
    if all(map(_HEBREW_WORD.fullmatch, words)):
        return "cp1255"
    for encoding in ("koi8-r", "cp866", "iso8859-5"):
        if _is_cyrillic(words, encoding):
            return encoding
    japanese = read_strictly(data, "cp932")
    if japanese is not None and all(map(_is_common_japanese, set(japanese.text))):
        return "cp932"
    runs = b"".join(_HIGH_RUN.findall(data))
    if not _PAIRS.fullmatch(runs):
        return None
    leads = runs[::2]
    if 5 * (leads.count(0xA4) + leads.count(0xA5)) >= len(leads):
        return "euc_jp"
    # With leads up to 0xC8 alone, it may as well be Korean or in Big5.
    is_common = all(0xB0 <= lead <= 0xD7 or lead in (0xA1, 0xA3) for lead in leads)
    return "gb18030" if is_common and max(leads) > 0xC8 else None


def _is_cyrillic(words: list[bytes], encoding: str) -> bool:
    spelt = [word.decode(encoding, "replace") for word in words]
    letters = "".join(spelt).lower()
    vowels = sum(map(letters.count, "аеиоуъыэюя"))
    return all(map(_CYRILLIC_WORD.fullmatch, spelt)) and 4 * vowels >= len(letters)


def _order(matches: CharsetMatches) -> Callable[[CharsetMatch], tuple[bool, bool, int]]:
    """Return the sort key of matches: those with unlikely characters last, then in their order."""
    best = next((match for match in matches if not _is_odd(match)), None)

    def key(match: CharsetMatch) -> tuple[bool, bool, int]:
        is_as_good = best is not None and (
            match.chaos <= best.chaos and match.coherence >= best.coherence - _AS_COHERENT
        )
        return _is_odd(match), not is_as_good, _rank(match.encoding) if is_as_good else 0

    return key


def _is_odd(match: CharsetMatch) -> bool:
    """Return whether a text is spelt as in no language of its encoding."""
    text = str(match)
    if match.encoding == "cp949" and _FILLER in text:
        return False
    if 10 * len(_ODD.findall(text)) > len(text):
        return True
    beyond_ascii = len(text) - len(text.encode("ascii", "ignore"))
    if 25 * len(_SIGN_IN_WORD.findall(text)) > beyond_ascii:
        return True
    misread = _MISREAD.get(match.encoding)
    return misread is not None and misread(text.lower())


def _is_misread_as_western(text: str) -> bool:
    # Turkish ğ and ş, Baltic š, Croatian ć and đ come out as letters of Iceland, but not its æ with
    # its vowels.
    is_icelandic = "æ" in text and any(letter in text for letter in "áíúýö")
    if ("þ" in text or "ð" in text) and not is_icelandic:
        return True
    # Hungarian ő comes out as õ: Portuguese has ã too, and Estonian none of the others.
    return "õ" in text and "ã" not in text and any(letter in text for letter in "áéíóú")


def _is_misread_as_central(text: str) -> bool:
    # Turkish and Baltic letters come out as đ, which is Croatian as ć is, and ţ, Romanian as ă.
    # Czech š and ž of ISO 8859-2 come out as ą, which is Polish, and ľ, which is Slovak.
    return (
        ("đ" in text and "ć" not in text)
        or ("ţ" in text and "ă" not in text)
        or ("ą" in text and any(letter in text for letter in "čěřů"))
        or ("ľ" in text and any(letter in text for letter in "ěřů"))
    )


def _is_misread_as_turkish(text: str) -> bool:
    """Return whether ğ and ş occur with letters that Turkish lacks, or without its vowels."""
    has_its_vowels = any(letter in text for letter in "ıöü")
    has_others = any(letter in text for letter in "àáèëæõ")
    return ("ğ" in text or "ş" in text) and (has_others or not has_its_vowels)


def _is_misread_as_cyrillic(text: str) -> bool:
    """Return whether there are too few vowels, as in Hebrew or Greek decoded as Cyrillic."""
    letters = sum("а" <= letter <= "џ" for letter in text)
    return 10 * sum(map(text.count, "аеиоуыэюяіїєё")) < 3 * letters


def _is_common_japanese(letter: str) -> bool:
    """Return whether a character is ASCII, a common kanji, kana or Japanese punctuation."""
    if "\u4e00" <= letter <= "\u9fff":
        return letter.encode("cp932", "replace") <= _LAST_COMMON_KANJI
    return letter <= "\x7f" or "\u3001" <= letter <= "\u30ff" or "\uff01" <= letter <= "\uff60"


_MISREAD: Mapping[str, Callable[[str], bool]] = MappingProxyType(
    {
        **dict.fromkeys(("cp1252", "iso8859_15"), _is_misread_as_western),
        **dict.fromkeys(("cp1250", "iso8859_2"), _is_misread_as_central),
        **dict.fromkeys(
            "cp1251 koi8_r koi8_u iso8859_5 cp866 mac_cyrillic".split(),  # noqa: SIM905
            _is_misread_as_cyrillic,
        ),
        "cp1254": _is_misread_as_turkish,
    }
)


def _rank(encoding: str) -> int:
    return _COMMON.index(encoding) if encoding in _COMMON else len(_COMMON)


def _telling_part(data: bytes) -> bytes:
    """Return lines beyond ASCII, up to the size of a guess."""
    lines, size = list[bytes](), 0
    for line in _LINE.finditer(data):
        if not line[0].isascii():
            lines.append(line[0])
            size += len(line[0])
            if size >= MAX_GUESSED:
                break
    return b"".join(lines)
