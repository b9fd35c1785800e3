"""What a Word document shows out of other parts of its file: SmartArt, charts, inserted files."""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Iterator
from itertools import zip_longest
from xml.etree.ElementTree import Element

from ragasync.documents.loaders.decode import load_text
from ragasync.documents.loaders.docx_xml import name_of
from ragasync.documents.loaders.html import load_html

_MAX_INSERTED = 10_000_000  # bytes; a few packed ones may unpack to all of them
_LONG_NUMBER = re.compile(r"-?\d{1,15}\.\d{10,20}")


def diagram_text(root: Element) -> str:
    """Return the texts of a SmartArt drawing, a line each."""
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
    """
    Return the text of a file that Word inserts when it opens the document; None if unknown.

    Raises:
        LoadError: Whatever the file's own loader raises.
    """
    if len(data) > _MAX_INSERTED:
        return None
    match suffix:
        case "htm" | "html" | "xhtml":
            return load_html(data)[0]
        case "txt":
            return load_text(data)[0]
        case "mht" | "mhtml":
            message = email.message_from_bytes(data, policy=email.policy.default)
            body = next(
                (part for part in message.walk() if part.get_content_subtype() == "html"), None
            )
            content = body.get_payload(decode=True) if body is not None else None
            return load_html(content)[0] if isinstance(content, bytes) else None
        case _:
            return None


def _paragraphs(root: Element) -> list[str]:
    """Return the paragraphs of DrawingML that are not empty."""
    texts = ("".join(each.text or "" for each in _all(p, "a:t")) for p in _all(root, "a:p"))
    return [text.strip() for text in texts if text.strip()]


def _values(series: Element, name: str) -> list[str]:
    """Return the names or numbers that a chart keeps of one part of a series."""
    return [_rounded(each.text or "") for part in _all(series, name) for each in _all(part, "c:v")]


def _rounded(value: str) -> str:
    """Return a number without the error of its last binary digit: 4.4 for 4.4000000000000004."""
    return f"{float(value):.15g}" if _LONG_NUMBER.fullmatch(value) else value


def _all(root: Element, name: str) -> Iterator[Element]:
    """Yield the elements of a short name, at any depth."""
    return (each for each in root.iter() if name_of(each) == name)
