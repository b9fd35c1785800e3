"""The XML of a Word document: parsed within bounds, with short names for its tags."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from xml.etree.ElementTree import Element, ParseError, fromstring

from ragasync.documents.errors import LoadError

MAX_DEPTH = 150
"""The deepest nesting that is followed; Word itself stops far earlier."""

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
    """
    Return the root of one part.

    Raises:
        LoadError: "docx" for a part that is broken or declares a document type: its entities could
            unfold to any size.
    """
    if any(doctype in data for doctype in _DOCTYPES):
        raise LoadError(
            "docx", f"{name} declares a document type, which Word never does: save it again in Word"
        )
    try:
        return fromstring(data)
    except ParseError as error:
        raise LoadError("docx", f"{name} is not well-formed XML: {error}") from None


@lru_cache(maxsize=4096)
def _short(tag: str) -> str:
    """Return `w:p` for a tag's full name, "" for one of a namespace that we do not read."""
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
    """Return whether a switch such as `<w:titlePg/>` is there and not turned off."""
    return element is not None and attribute(element, "val") not in {"0", "false", "off"}
