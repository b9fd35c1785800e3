"""HTML to the text that a reader sees, by selectolax from the extra `ingest`."""

from __future__ import annotations

import re
from itertools import accumulate

from ragasync.documents.loaders import Loaded
from ragasync.documents.loaders.html import GAPS, LEVELS, decode_html, load_html
from ragasync.errors import MissingExtra

MAX_DEPTH = 5_000
"""The nesting beyond which a page goes to the slower loader, whose time is linear."""

_HIDDEN = ["script", "style", "template", "title"]
_HERE = "\x02"  # the start of a text, in ASCII; no page needs it, and one that has it loses it
# Void elements and those that often stay open do not nest.
_TAG = re.compile(rb"(?i)<(/?)(?!(?:br|hr|img|input|link|meta|col|wbr|p|li|td|tr|dt|dd)\b)[a-z]")
_AFTER_MARK = re.compile(f"({_HERE}#+)\\s+")  # a block at the start of a heading makes a gap
_BLANK_LINES = re.compile(r"\n{3,}")


def load_html_fast(data: bytes, *, encoding: str | None = None) -> Loaded:
    """
    Return the visible text of a page as `load_html` does, many times faster.

    `<pre>` loses its indentation. The parser's time grows with the square of the nesting: 50,000
    nested elements would take ten seconds, so that a page of so many goes to `load_html`.
    Chosen by name: `load_source(path, loaders={**LOADERS, ".html": load_html_fast})`.

    Raises:
        MissingExtra: If selectolax is not installed.
        LoadError: "binary" or "encoding".
    """
    try:
        from selectolax.lexbor import LexborHTMLParser
    except ImportError:
        raise MissingExtra("load_html_fast", "selectolax", "ingest") from None
    if _may_be_deep(data):
        return load_html(data, encoding=encoding)
    text, metadata = decode_html(data, encoding)
    page = LexborHTMLParser(text.replace(_HERE, ""))
    title = page.css_first("title")
    if title is not None and (words := title.text().split()):
        metadata["title"] = " ".join(words)
    page.strip_tags(_HIDDEN)
    for node in page.css(",".join(GAPS)):
        tag = str(node.tag)
        mark = f"{_HERE}{'#' * LEVELS[tag]} " if tag in LEVELS and node.text().strip() else ""
        node.insert_before(GAPS[tag] + mark)
        node.insert_after(GAPS[tag])
    root = page.root
    lines = (" ".join(line.split()) for line in (root.text() if root else "").split("\n"))
    marked = _AFTER_MARK.sub(r"\1 ", "\n".join(lines))
    text, headings = _without_marks(_BLANK_LINES.sub("\n\n", marked).strip())
    if headings:
        metadata["headings"] = headings
    return text, metadata


def _may_be_deep(data: bytes) -> bool:
    """Return whether elements may be nested too deep; those that never close count as well."""
    if data.count(b"<") < MAX_DEPTH:
        return False
    steps = (-1 if closes else 1 for closes in _TAG.findall(data))
    return max(accumulate(steps), default=0) > MAX_DEPTH


def _without_marks(text: str) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Return the text without the marks, and the offset and level of the headings they stood at."""
    first, *others = text.split(_HERE)
    headings, offset = [], len(first)
    for part in others:
        headings.append((offset, len(part) - len(part.lstrip("#"))))
        offset += len(part)
    return "".join((first, *others)), tuple(headings)
