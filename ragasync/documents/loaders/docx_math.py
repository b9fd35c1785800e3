"""Formulas and symbols of a Word document as text."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from xml.etree.ElementTree import Element

from ragasync.documents.errors import LoadError
from ragasync.documents.loaders.docx_xml import (
    MAX_DEPTH,
    attribute,
    child_of,
    name_of,
)

_LEFT_OUT = frozenset({"w:del", "w:moveFrom", "w:rPr", "w:delText", "w:instrText"})


def math_text(element: Element, depth: int = 0) -> str:
    """
    Return a formula on one line: `x^2`, `a_1`, `(a+b)/2`, `√(x+1)`.

    Raises:
        LoadError: "docx" for one that is nested more than MAX_DEPTH deep.
    """
    if depth > MAX_DEPTH:
        raise LoadError("docx", f"a formula nested more than {MAX_DEPTH} deep: simplify it")
    name = name_of(element)
    if name in {"m:t", "w:t"}:
        return element.text or ""
    if name in _LEFT_OUT or (name.startswith("m:") and name.endswith("Pr")):
        return ""
    if shape := _SHAPES.get(name):
        return shape(_Formula(element, depth))
    return "".join(math_text(child, depth + 1) for child in element)


class _Formula:
    """One element of a formula, asked for the texts of its parts."""

    def __init__(self, element: Element, depth: int) -> None:
        self._element = element
        self._depth = depth

    def part(self, name: str) -> str:
        """Return the text of a part as it stands."""
        part = child_of(self._element, f"m:{name}")
        return "" if part is None else math_text(part, self._depth + 1)

    def group(self, name: str) -> str:
        """Return the text of a part, in parentheses if it is more than a number or a name."""
        text = self.part(name)
        return text if len(text) < 2 or text.isalnum() else f"({text})"

    def parts(self, name: str) -> list[str]:
        """Return the texts of all parts of a name."""
        children = [child for child in self._element if name_of(child) == f"m:{name}"]
        return [math_text(child, self._depth + 1) for child in children]

    def setting(self, properties: str, name: str, default: str) -> str:
        """Return a character that the properties choose; one that is there and empty is none."""
        chosen = child_of(child_of(self._element, f"m:{properties}"), f"m:{name}")
        return default if chosen is None else attribute(chosen, "val") or ""


def _scripts(formula: _Formula) -> str:
    """Return what stands below and above, such as `_i^2`."""
    below, above = formula.group("sub"), formula.group("sup")
    return (f"_{below}" if below else "") + (f"^{above}" if above else "")


def _delimited(formula: _Formula) -> str:
    """Return parts in parentheses, or in the signs that the formula chooses."""
    begin, end = formula.setting("dPr", "begChr", "("), formula.setting("dPr", "endChr", ")")
    return begin + formula.setting("dPr", "sepChr", "|").join(formula.parts("e")) + end


def _fraction(formula: _Formula) -> str:
    """Return `a/b`."""
    return f"{formula.group('num')}/{formula.group('den')}"


def _matrix(formula: _Formula) -> str:
    """Return a matrix row by row."""
    return "; ".join(formula.parts("mr"))


def _operator(formula: _Formula) -> str:
    """Return a sum, an integral or the like with its bounds."""
    sign = formula.setting("naryPr", "chr", "∫")
    return f"{sign}{_scripts(formula)} {formula.part('e')}"


_SHAPES: MappingProxyType[str, Callable[[_Formula], str]] = MappingProxyType(
    {
        "m:f": _fraction,
        "m:sSup": lambda formula: formula.group("e") + _scripts(formula),
        "m:sSub": lambda formula: formula.group("e") + _scripts(formula),
        "m:sSubSup": lambda formula: formula.group("e") + _scripts(formula),
        "m:sPre": lambda formula: _scripts(formula) + formula.group("e"),
        "m:rad": lambda formula: f"{formula.group('deg')}√{formula.group('e')}",
        "m:nary": _operator,
        "m:d": _delimited,
        "m:func": lambda formula: f"{formula.part('fName')} {formula.part('e')}",
        "m:limLow": lambda formula: f"{formula.part('e')}_{formula.group('lim')}",
        "m:limUpp": lambda formula: f"{formula.part('e')}^{formula.group('lim')}",
        "m:acc": lambda formula: formula.part("e") + formula.setting("accPr", "chr", "\u0302"),
        "m:m": _matrix,
        "m:mr": lambda formula: ", ".join(formula.parts("e")),
        "m:eqArr": lambda formula: "; ".join(formula.parts("e")),
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
    """Return the character of a `w:sym`: of its font where that has its own, else of Unicode."""
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
