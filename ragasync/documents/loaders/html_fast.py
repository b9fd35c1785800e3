"""HTML to the text that a reader sees, by selectolax from the extra `ingest`."""

from __future__ import annotations

import re
from itertools import accumulate
from typing import TYPE_CHECKING

from ragasync.documents.loaders import Loaded
from ragasync.documents.loaders.html import (
    CELLS,
    GAPS,
    HIDDEN_TAGS,
    LEVELS,
    decode_html,
    is_hidden,
    load_html,
)
from ragasync.errors import MissingExtra

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser

MAX_DEPTH = 5_000
"""The nesting beyond which a page goes to the slower loader, whose time is linear."""

_MAYBE_HIDDEN = "[hidden],[aria-hidden],[style],dialog"
# The start and the end of a text, in ASCII; no page needs them, and one that has them loses them.
_HERE, _EMPTY_CELL = "\x02", "\x03"
# Void elements and those that often stay open do not nest.
_TAG = re.compile(rb"(?i)<(/?)(?!(?:br|hr|img|input|link|meta|col|wbr|p|li|td|tr|dt|dd)\b)[a-z]")
_AFTER_MARK = re.compile(f"({_HERE}#+)\\s+")  # a block at the start of a heading makes a gap
_EMPTY_CELLS = re.compile(f"(^| ){_EMPTY_CELL}(?: ?{_EMPTY_CELL})* ?(?=(.?))", re.MULTILINE)
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
    page = LexborHTMLParser(text.replace(_HERE, "").replace(_EMPTY_CELL, ""))
    title = page.css_first("title")
    if title is not None and (words := title.text().split()):
        metadata["title"] = " ".join(words)
    page.strip_tags([*HIDDEN_TAGS, "title"])
    _remove_hidden(page)
    for node in page.css(",".join(GAPS)):
        tag = str(node.tag)
        mark = ""
        if tag in LEVELS and node.text().strip():
            mark = f"{_HERE}{'#' * LEVELS[tag]} "
        elif tag in CELLS and not node.text().strip():
            mark = f"{_EMPTY_CELL} "
        node.insert_before(GAPS[tag] + mark)
        node.insert_after(GAPS[tag])
    root = page.root
    lines = (_line(line) for line in (root.text() if root else "").split("\n"))
    marked = _AFTER_MARK.sub(r"\1 ", "\n".join(lines))
    text, headings = _without_marks(_BLANK_LINES.sub("\n\n", marked).strip())
    if headings:
        metadata["headings"] = headings
    return text, metadata


def _remove_hidden(page: LexborHTMLParser) -> None:
    """Remove what a browser does not show, the inner elements before those around them."""
    seen: set[int] = set()
    for node in reversed(page.css(_MAYBE_HIDDEN)):
        if node.mem_id not in seen and is_hidden(str(node.tag), node.attributes):
            seen.add(node.mem_id)
            node.decompose()


def _line(text: str) -> str:
    """Return a line with single spaces, and tabs for the cells that are empty."""
    line = " ".join(text.split())
    return _EMPTY_CELLS.sub(_tabs, line) if _EMPTY_CELL in line else line


def _tabs(cells: re.Match[str]) -> str:
    """Return what stands for empty cells: nothing at the end of a row."""
    if not cells[2]:
        return ""
    return "\t" * (cells[0].count(_EMPTY_CELL) + bool(cells[1]))


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
