"""Elements of a Word document's XML: names, styles and lists, formulas, SmartArt and charts."""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import chain, zip_longest
from string import ascii_lowercase, ascii_uppercase
from types import MappingProxyType
from typing import NamedTuple
from xml.etree.ElementTree import Element, ParseError, fromstring

from ragasync.documents.loaders.html import load_html
from ragasync.documents.loaders.text import load_text
from ragasync.documents.models import LoadError

MAX_DEPTH = 150
"""The deepest nesting of elements that is read; Word itself stops far earlier."""

_OFFICE, _STRICT = "http://schemas.openxmlformats.org", "http://purl.oclc.org/ooxml"
_PREFIXES = {
    f"{_OFFICE}/wordprocessingml/2006/main": "w",
    f"{_STRICT}/wordprocessingml/main": "w",
    f"{_OFFICE}/officeDocument/2006/math": "m",
    f"{_STRICT}/officeDocument/math": "m",
    f"{_OFFICE}/markup-compatibility/2006": "mc",
    f"{_OFFICE}/drawingml/2006/main": "a",
    f"{_STRICT}/drawingml/main": "a",
    f"{_OFFICE}/drawingml/2006/chart": "c",
    f"{_STRICT}/drawingml/chart": "c",
    f"{_OFFICE}/drawingml/2006/diagram": "dgm",
    f"{_STRICT}/drawingml/diagram": "dgm",
    "urn:schemas-microsoft-com:vml": "v",
}
_DOCTYPES = tuple(
    b"<!DOCTYPE".decode().encode(name) for name in ("ascii", "utf-16-le", "utf-16-be")
)
_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,10}\s*")


def parse_part(data: bytes, name: str) -> Element:
    """Parse one part; a document type is refused, because its entities may unfold to any size."""
    if any(doctype in data for doctype in _DOCTYPES):
        raise LoadError(
            "docx", f"{name} declares a document type, which Word never does: save it again in Word"
        )
    try:
        root = fromstring(data)
    except ParseError as error:
        raise LoadError("docx", f"{name} is not well-formed XML: {error}") from None
    level: list[Element] = [root]
    for _ in range(MAX_DEPTH):
        level = list(chain.from_iterable(level))
    if level:
        raise LoadError(
            "docx",
            f"nested more than {MAX_DEPTH} levels deep: expected what Word can write; "
            "save the document again in Word",
        )
    return root


@lru_cache(maxsize=4096)
def _short(tag: str) -> str:
    """Return the short name of a tag, such as `w:p`; "" for namespaces that are not read."""
    namespace, _, name = tag[1:].partition("}")
    prefix = _PREFIXES.get(namespace)
    return f"{prefix}:{name}" if prefix else ""


def name_of(element: Element) -> str:
    """Return an element's short name, the same for Strict and Transitional files."""
    return _short(element.tag)


def elements_of(root: Element, name: str) -> Iterator[Element]:
    """Yield all elements of WordprocessingML of this name, at any depth."""
    for namespace, prefix in _PREFIXES.items():
        if prefix == "w":
            yield from root.iter(f"{{{namespace}}}{name}")


def child_of(element: Element | None, name: str) -> Element | None:
    """Return the first child of this short name."""
    for child in () if element is None else element:
        if _short(child.tag) == name:
            return child
    return None


def attribute(element: Element | None, name: str) -> str | None:
    """Return an attribute, whatever its namespace: it differs between Strict and Transitional."""
    if element is None:
        return None
    for key, value in element.attrib.items():
        if key == name or key.endswith("}" + name):
            return value
    return None


def value_of(element: Element | None, name: str) -> str | None:
    """Return the `val` of the child of this short name."""
    return attribute(child_of(element, name), "val")


def number_of(text: str | None) -> int | None:
    """Return a whole number of up to ten digits, else None."""
    return int(text) if text and _INTEGER.fullmatch(text) else None


def is_on(element: Element | None) -> bool:
    """Return whether a switch such as `<w:titlePg/>` is present and not turned off."""
    return element is not None and attribute(element, "val") not in {"0", "false", "off"}


_HEADING = re.compile(r"heading ([1-6])|title", re.IGNORECASE)
_LEVELS = 9
_MAX_CHAIN = 50  # of styles based on one another
_MAX_LABEL = 100  # characters of a list's pattern, which each of its paragraphs repeats
_PLACE = re.compile(r"%([1-9])")

_ROMAN = tuple(
    zip(
        (1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1),
        ("m", "cm", "d", "cd", "c", "xc", "l", "xl", "x", "ix", "v", "iv", "i"),
        strict=True,
    )
)
_CYRILLIC = "абвгдежзиклмнопрстуфхцчшщыэюя"
_AIUEO = (
    "アイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモヤユヨラリルレロワヲン"
)
_DIGITS = "〇一二三四五六七八九"


class _ListPlace(NamedTuple):
    """The list that a paragraph belongs to, its level there, and the style that says so."""

    list_id: str | None = None
    level: int | None = None
    style: str | None = None


class Styles:
    """The heading level and the list of each style, also from the styles it is based on."""

    def __init__(self, root: Element | None) -> None:
        elements = () if root is None else root
        self._styles = {
            attribute(each, "styleId"): each for each in elements if name_of(each) == "w:style"
        }
        self._default = next(
            (
                style_id
                for style_id, each in self._styles.items()
                if attribute(each, "type") == "paragraph"
                and attribute(each, "default") in {"1", "true", "on"}
            ),
            None,
        )
        self._resolved = cache(self._resolve)

    def level_of(self, properties: Element | None) -> int:
        """Return the level of a paragraph that is a heading, else 0."""
        own = number_of(value_of(properties, "w:outlineLvl"))
        if own is not None:
            return _heading_level(own)
        return self._resolved(self._style_of(properties))[0]

    def list_of(self, properties: Element | None) -> _ListPlace:
        """Return the place of a paragraph in a list, its own or that of its style."""
        own = _numbering(properties)
        if own.list_id is not None:
            return own
        place = self._resolved(self._style_of(properties))[1]
        return place if own.level is None else place._replace(level=own.level)

    def list_of_style(self, style_id: str | None) -> str | None:
        """Return the list that a style names."""
        return _numbering(child_of(self._styles.get(style_id), "w:pPr")).list_id

    def _style_of(self, properties: Element | None) -> str | None:
        return value_of(properties, "w:pStyle") or self._default

    def _resolve(self, style_id: str | None) -> tuple[int, _ListPlace]:
        """Return a style's heading level and list: those of the nearest that it is based on."""
        chain: dict[str | None, Element] = {}
        while len(chain) < _MAX_CHAIN and style_id in self._styles and style_id not in chain:
            chain[style_id] = self._styles[style_id]
            style_id = value_of(chain[style_id], "w:basedOn")
        level = next((found for found in map(_level_of, chain.values()) if found is not None), 0)
        for name, style in chain.items():
            place = _numbering(child_of(style, "w:pPr"))
            if place.list_id is not None:
                return level, place._replace(style=name)
        return level, _ListPlace()


def _level_of(style: Element) -> int | None:
    """Return a style's own heading level: by its name, as Word fixes those, or its outline."""
    if named := _HEADING.fullmatch(value_of(style, "w:name") or ""):
        return int(named[1] or 1)
    outline = number_of(value_of(child_of(style, "w:pPr"), "w:outlineLvl"))
    return None if outline is None else _heading_level(outline)


def _heading_level(outline: int) -> int:
    """Return the level of a heading in Markdown, which has six; 0 for other paragraphs."""
    return outline + 1 if 0 <= outline < 6 else 0


def _numbering(properties: Element | None) -> _ListPlace:
    own = child_of(properties, "w:numPr")
    return _ListPlace(value_of(own, "w:numId"), number_of(value_of(own, "w:ilvl")))


@dataclass(frozen=True, slots=True)
class _Level:
    """One level of a list."""

    start: int
    format: str
    pattern: str
    restart: int | None  # the level, from 1, whose numbers restart it; None: any above, 0: none
    legal: bool
    style: str | None


@dataclass(frozen=True, slots=True)
class _List:
    """One list: the pattern whose numbers it shares, its own starts, and its levels."""

    abstract: str | None
    starts: Mapping[int, int]
    levels: Mapping[int, _Level]


class ListNumbers:
    """
    Count the numbers of lists as Word shows them; called for each paragraph, in order.

    The numbers are not in the file: it holds patterns ("%1.%2)"), starts and formats
    (ECMA-376, part 1, section 17.9). A bullet is "-", as in Markdown. An unknown format
    gives no label.
    """

    def __init__(self, root: Element | None, styles: Styles) -> None:
        self._styles = styles
        elements = () if root is None else root
        patterns, numbers = (
            {attribute(each, key): each for each in elements if name_of(each) == name}
            for name, key in (("w:abstractNum", "abstractNumId"), ("w:num", "numId"))
        )
        levels_of = cache(_levels)
        self._lists: dict[str | None, _List] = {}
        for list_id, element in numbers.items():
            abstract = value_of(element, "w:abstractNumId")
            link = value_of(patterns.get(abstract), "w:numStyleLink")
            if link and (linked := numbers.get(styles.list_of_style(link))) is not None:
                abstract = value_of(linked, "w:abstractNumId")
            starts: dict[int, int] = {}
            levels = dict(levels_of(patterns.get(abstract)))
            for child in element:
                number = _level_number(child)
                if name_of(child) == "w:lvlOverride" and number is not None:
                    levels |= _levels(child)
                    start = number_of(value_of(child, "w:startOverride"))
                    starts |= {} if start is None else {number: start}
            self._lists[list_id] = _List(abstract, starts, levels)
        self._counts: dict[str | None, list[int | None]] = {}
        self._restarted: set[tuple[str, int]] = set()

    def label(self, properties: Element | None) -> str:
        """Count one paragraph and return its number with a space behind it, or ""."""
        list_id, level, style = self._styles.list_of(properties)
        if list_id is None or (numbered := self._lists.get(list_id)) is None:
            return ""
        levels = numbered.levels
        if level is None:
            level = next((n for n, each in levels.items() if style and each.style == style), 0)
        if level not in levels:
            return ""
        label = _label(levels, level, self._count(list_id, numbered, level))
        return f"{label} " if label else ""

    def _count(self, list_id: str, numbered: _List, level: int) -> list[int]:
        """Take the next number of a level, and return the numbers of it and of all above it."""
        levels = numbered.levels
        counts = self._counts.setdefault(numbered.abstract, [None] * _LEVELS)
        before = counts[level]
        if level in numbered.starts and (list_id, level) not in self._restarted:
            self._restarted.add((list_id, level))
            counts[level] = numbered.starts[level]
        else:
            counts[level] = levels[level].start if before is None else before + 1
        for deeper in range(level + 1, _LEVELS):
            restart = levels[deeper].restart if deeper in levels else None
            if restart is None or level < restart:
                counts[deeper] = None
        for above in range(level):
            if counts[above] is None:
                counts[above] = levels[above].start if above in levels else 1
        return [count or 0 for count in counts[: level + 1]]


def _levels(element: Element | None) -> dict[int, _Level]:
    return {
        number: _level(child)
        for child in (() if element is None else element)
        if name_of(child) == "w:lvl" and (number := _level_number(child)) is not None
    }


def _level_number(element: Element) -> int | None:
    """Return the list level of an element; None if no list can have it."""
    number = number_of(attribute(element, "ilvl"))
    return number if number is not None and 0 <= number < _LEVELS else None


def _level(element: Element) -> _Level:
    start = number_of(value_of(element, "w:start"))
    return _Level(
        start=0 if start is None else start,
        format=value_of(element, "w:numFmt") or "decimal",
        pattern=value_of(element, "w:lvlText") or "",
        restart=number_of(value_of(element, "w:lvlRestart")),
        legal=is_on(child_of(element, "w:isLgl")),
        style=value_of(element, "w:pStyle"),
    )


def _label(levels: Mapping[int, _Level], level: int, counts: list[int]) -> str:
    """Return the label of a paragraph by its level's pattern; "" if a format is unknown."""
    own = levels[level]
    if own.format == "bullet":
        return "-"
    if own.format == "none" or len(own.pattern) > _MAX_LABEL:
        return ""
    numbers = []
    for place in _PLACE.findall(own.pattern):
        at = int(place) - 1
        if at > level:
            numbers.append("")
            continue
        shown = "decimal" if own.legal or at not in levels else levels[at].format
        number = _FORMATS[shown](counts[at]) if shown in _FORMATS else None
        if number is None:
            return ""
        numbers.append(number)
    return _PLACE.sub(lambda _: numbers.pop(0), own.pattern).strip()


def _letters(number: int, alphabet: str) -> str | None:
    if not 0 < number <= 10 * len(alphabet):
        return None
    repeats, at = divmod(number - 1, len(alphabet))
    return alphabet[at] * (repeats + 1)


def _roman(number: int) -> str | None:
    if not 0 < number < 4000:
        return None
    letters = ""
    for value, numeral in _ROMAN:
        times, number = divmod(number, value)
        letters += numeral * times
    return letters


def _ordinal(number: int) -> str:
    tens, ones = divmod(number % 100, 10)
    return f"{number}{'th' if tens == 1 else {1: 'st', 2: 'nd', 3: 'rd'}.get(ones, 'th')}"


def _counting(number: int) -> str | None:
    """Return a number below 100 as it is counted in Chinese and Japanese: 十一 for 11."""
    if not 0 < number < 100:
        return None
    tens, ones = divmod(number, 10)
    head = "" if tens == 0 else "十" if tens == 1 else f"{_DIGITS[tens]}十"
    return head + (_DIGITS[ones] if ones else "")


def _in_digits(number: int, digits: str) -> str:
    return str(number).translate({ord("0") + n: digit for n, digit in enumerate(digits)})


_SAME_FORMATS: Mapping[str, Callable[[int], str | None]] = {
    "none": lambda _: "",
    "decimal decimalHalfWidth": str,
    "decimalZero": lambda n: f"{n:02}",
    "decimalFullWidth decimalFullWidth2": lambda n: _in_digits(n, "０１２３４５６７８９"),
    "decimalEnclosedCircle decimalEnclosedCircleChinese": (
        lambda n: chr(0x245F + n) if 0 < n <= 20 else None
    ),
    "numberInDash": lambda n: f"- {n} -",
    "ordinal": _ordinal,
    "lowerLetter": lambda n: _letters(n, ascii_lowercase),
    "upperLetter": lambda n: _letters(n, ascii_uppercase),
    "lowerRoman": _roman,
    "upperRoman": lambda n: (_roman(n) or "").upper() or None,
    "russianLower": lambda n: _letters(n, _CYRILLIC),
    "russianUpper": lambda n: _letters(n, _CYRILLIC.upper()),
    "aiueo aiueoFullWidth": lambda n: _letters(n, _AIUEO),
    "thaiNumbers": lambda n: _in_digits(n, "๐๑๒๓๔๕๖๗๘๙"),
    "hindiNumbers": lambda n: _in_digits(n, "०१२३४५६७८९"),
    "ideographDigital japaneseDigitalTenThousand taiwaneseDigital koreanDigital2": (
        lambda n: _in_digits(n, _DIGITS)
    ),
    "japaneseCounting chineseCounting chineseCountingThousand taiwaneseCounting "
    "taiwaneseCountingThousand": _counting,
    "ideographTraditional": lambda n: _letters(n, "甲乙丙丁戊己庚辛壬癸"),
    "ideographZodiac": lambda n: _letters(n, "子丑寅卯辰巳午未申酉戌亥"),
}
_FORMATS = {name: shown for names, shown in _SAME_FORMATS.items() for name in names.split()}


_LEFT_OUT = frozenset({"w:del", "w:moveFrom", "w:rPr", "w:delText", "w:instrText"})


def math_text(element: Element) -> str:
    """Return a formula on one line: `x^2`, `a_1`, `(a+b)/2`, `√(x+1)`."""
    name = name_of(element)
    if name in {"m:t", "w:t"}:
        return element.text or ""
    if name in _LEFT_OUT or (name.startswith("m:") and name.endswith("Pr")):
        return ""
    if shape := _SHAPES.get(name):
        return shape(element)
    return "".join(math_text(child) for child in element)


def _part(formula: Element, name: str) -> str:
    return "".join(_parts(formula, name)[:1])


def _group(formula: Element, name: str) -> str:
    """Return the text of a part, in parentheses if it is more than a number or a name."""
    text = _part(formula, name)
    return text if len(text) < 2 or text.isalnum() else f"({text})"


def _parts(formula: Element, name: str) -> list[str]:
    return [math_text(child) for child in formula if name_of(child) == f"m:{name}"]


def _setting(formula: Element, properties: str, name: str, default: str) -> str:
    """Return a character that the properties set; it may be empty."""
    chosen = child_of(child_of(formula, f"m:{properties}"), f"m:{name}")
    return default if chosen is None else attribute(chosen, "val") or ""


def _scripts(formula: Element) -> str:
    below, above = _group(formula, "sub"), _group(formula, "sup")
    return (f"_{below}" if below else "") + (f"^{above}" if above else "")


def _delimited(formula: Element) -> str:
    begin, end = _setting(formula, "dPr", "begChr", "("), _setting(formula, "dPr", "endChr", ")")
    return begin + _setting(formula, "dPr", "sepChr", "|").join(_parts(formula, "e")) + end


def _operator(formula: Element) -> str:
    sign = _setting(formula, "naryPr", "chr", "∫")
    return f"{sign}{_scripts(formula)} {_part(formula, 'e')}"


_SHAPES: MappingProxyType[str, Callable[[Element], str]] = MappingProxyType(
    {
        "m:f": lambda formula: f"{_group(formula, 'num')}/{_group(formula, 'den')}",
        **dict.fromkeys(
            ("m:sSup", "m:sSub", "m:sSubSup"),
            lambda formula: _group(formula, "e") + _scripts(formula),
        ),
        "m:sPre": lambda formula: _scripts(formula) + _group(formula, "e"),
        "m:rad": lambda formula: f"{_group(formula, 'deg')}√{_group(formula, 'e')}",
        "m:nary": _operator,
        "m:d": _delimited,
        "m:func": lambda formula: f"{_part(formula, 'fName')} {_part(formula, 'e')}",
        "m:limLow": lambda formula: f"{_part(formula, 'e')}_{_group(formula, 'lim')}",
        "m:limUpp": lambda formula: f"{_part(formula, 'e')}^{_group(formula, 'lim')}",
        "m:acc": lambda formula: _part(formula, "e") + _setting(formula, "accPr", "chr", "\u0302"),
        "m:m": lambda formula: "; ".join(_parts(formula, "mr")),
        "m:mr": lambda formula: ", ".join(_parts(formula, "e")),
        "m:eqArr": lambda formula: "; ".join(_parts(formula, "e")),
    }
)

# The characters of fonts that draw something else than what their codes say, by their codes.
_SYMBOL = {
    **dict(zip(range(0x41, 0x5B), "ΑΒΧΔΕΦΓΗΙϑΚΛΜΝΟΠΘΡΣΤΥςΩΞΨΖ", strict=True)),
    **dict(zip(range(0x61, 0x7B), "αβχδεφγηιϕκλμνοπθρστυϖωξψζ", strict=True)),
    **dict(zip(bytes.fromhex("22 24 27 2d 40 5c 5e 7e f1 f2"), "∀∃∋−≅∴⊥∼〉∫", strict=True)),
    **dict(
        zip(
            range(0xA0, 0xE6),
            "€ϒ′≤⁄∞ƒ♣♦♥♠↔←↑→↓°±″≥×∝∂•÷≠≡≈…⏐⎯↵ℵℑℜ℘⊗⊕∅∩∪⊃⊇⊄⊂⊆∈∉∠∇®©™∏√⋅¬∧∨⇔⇐⇑⇒⇓◊〈®©™∑",
            strict=True,
        )
    ),
}
_WINGDINGS = dict(
    zip(
        bytes.fromhex(
            "28 2a 4a 4c 6c 6e 6f 71 72 74 75 76 9f a7 a8 d8 df e0 e1 e2 e8 f0 fb fc fd fe"
        ),
        "☎✉☺☹●■□❑❒⧫◆❖•▪◻➢←→↑↓➔⇨✗✓☒☑",
        strict=True,
    )
)
_WINGDINGS_2 = dict(zip(bytes.fromhex("4f 50 51 52 53 a3"), "✗✓☒☑☒☐", strict=True))
_FONTS = {"symbol": _SYMBOL, "wingdings": _WINGDINGS, "wingdings 2": _WINGDINGS_2}


def symbol_text(element: Element) -> str:
    """Return the character of a `w:sym`, from its font's table or from Unicode."""
    try:
        code = int(attribute(element, "char") or "", 16)
    except ValueError:
        return ""
    # Word adds 0xF000 to the codes of fonts that have characters of their own.
    own = code - 0xF000 if 0xF000 <= code <= 0xF0FF else code
    table = _FONTS.get((attribute(element, "font") or "").lower(), {})
    if own in table:
        return table[own]
    return chr(code) if 0x20 <= code < 0xD800 or 0xE000 <= code <= 0x10FFFF else ""


_MAX_INSERTED = 10_000_000  # bytes; a few packed ones may unpack to all of them
_LONG_NUMBER = re.compile(r"-?\d{1,15}\.\d{10,20}")


def diagram_text(root: Element) -> str:
    """Return the texts of a SmartArt drawing, one per line."""
    return "\n".join(_paragraphs(root))


def chart_text(root: Element) -> str:
    """Return a chart's title, and its series as a table: a line for each category."""
    title = " ".join(line for part in _all(root, "c:title") for line in _paragraphs(part))
    series = list(_all(root, "c:ser"))
    names = [" ".join(_values(each, "c:tx")) for each in series]
    categories = next(filter(None, (_values(each, "c:cat") for each in series)), [])
    rows = zip_longest(categories, *(_values(each, "c:val") for each in series), fillvalue="")
    lines = ["\t".join(row) for row in (["", *names], *rows)]
    return "\n".join(line.strip() for line in (title, *lines) if line.strip())


def inserted_text(data: bytes, suffix: str) -> str | None:
    """Return the text of a file that Word inserts when it opens the document; None if unknown."""
    if len(data) > _MAX_INSERTED:
        return None
    match suffix:
        case ".htm" | ".html" | ".xhtml":
            return load_html(data)[0]
        case ".txt":
            return load_text(data)[0]
        case ".mht" | ".mhtml":
            message = email.message_from_bytes(data, policy=email.policy.default)
            body = next(
                (part for part in message.walk() if part.get_content_subtype() == "html"), None
            )
            content = body.get_payload(decode=True) if body is not None else None
            return load_html(content)[0] if isinstance(content, bytes) else None
        case _:
            return None


def _paragraphs(root: Element) -> list[str]:
    texts = ("".join(each.text or "" for each in _all(p, "a:t")) for p in _all(root, "a:p"))
    return [text.strip() for text in texts if text.strip()]


def _values(series: Element, name: str) -> list[str]:
    """Return the names or numbers that a chart has for one part of a series."""
    return [_rounded(each.text or "") for part in _all(series, name) for each in _all(part, "c:v")]


def _rounded(value: str) -> str:
    """Return a number without the error of its last binary digit: 4.4 for 4.4000000000000004."""
    return f"{float(value):.15g}" if _LONG_NUMBER.fullmatch(value) else value


def _all(root: Element, name: str) -> Iterator[Element]:
    return (each for each in root.iter() if name_of(each) == name)
