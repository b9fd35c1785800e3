"""HTML to the text that a reader sees, by Python's own parser."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from ragasync.documents.errors import LoadError
from ragasync.documents.loaders import Loaded
from ragasync.documents.loaders.decode import decode

_HIDDEN = frozenset({"script", "style", "template"})
_TAGS = {
    "\n\n": "address article aside blockquote body dl fieldset figure footer form "
    "h1 h2 h3 h4 h5 h6 header hr main nav ol p pre section table ul",
    "\n": "br caption dd div dt figcaption legend li option summary tr",
    " ": "td th",
}
GAPS = {tag: gap for gap, tags in _TAGS.items() for tag in tags.split()}
"""The break that a tag makes before and after itself."""

LEVELS = {f"h{level}": level for level in range(1, 7)}
"""The level of a heading's tag."""

_WIDTHS = ("", " ", "\n", "\n\n")
_TAG_START = re.compile(r"<[a-zA-Z/!?]")


def load_html(data: bytes, *, encoding: str | None = None) -> Loaded:
    r"""
    Return the visible text of a page: blocks as paragraphs, `<pre>` as it stands.

    A heading is written as in Markdown, `## Title` for `<h2>`, so that a splitter sees it, and
    `metadata["headings"]` holds where each starts and its level: `<pre>` may have lines that look
    the same. Scripts and styles are dropped, entities decoded, and the title goes to
    `metadata["title"]`. Tags are followed one by one and never as a tree, so that nothing is
    too deeply nested.

    Example:
        >>> from ragasync.documents import load_html
        >>> text, metadata = load_html(b"<title>Limits</title><h1>Bursts</h1><p>A bucket refills.")
        >>> text
        '# Bursts\n\nA bucket refills.'
        >>> metadata["title"]
        'Limits'

    Raises:
        LoadError: "binary", "encoding", or "html" where the parser gives up.
    """
    text, metadata = decode_html(data, encoding)
    page = _VisibleText()
    try:
        page.feed(_without_cut_off_tag(text))
        page.close()
    except AssertionError as error:
        # The parser's way of refusing a declaration such as `<![x[`.
        raise LoadError("html", f"a malformed declaration: {error}") from None
    if page.title:
        metadata["title"] = page.title
    text, headings = page.text()
    if headings:
        metadata["headings"] = headings
    return text, metadata


def decode_html(data: bytes, encoding: str | None = None) -> Loaded:
    """
    Decode a page as `load_text` does a text.

    Raises:
        LoadError: "binary" for NUL bytes, "encoding" where nothing fits.
    """
    return decode(data, encoding)


def _without_cut_off_tag(text: str) -> str:
    """Drop what follows a tag that never ends: on many of them the parser is quadratic."""
    cut_off = _TAG_START.search(text, text.rfind(">") + 1)
    return text[: cut_off.start()] if cut_off else text


class _VisibleText(HTMLParser):
    """Collect text between tags; a break is owed until the next visible character pays it."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._owed = ""
        self._hidden = 0
        self._preformatted = 0
        self._in_title = False
        self._title: list[str] = []
        self._size = 0
        self._level = 0
        self._headings: list[tuple[int, int]] = []

    @property
    def title(self) -> str:
        """The first title, on one line."""
        return " ".join("".join(self._title).split())

    def text(self) -> tuple[str, tuple[tuple[int, int], ...]]:
        """Return what was collected so far, and the offset and level of each heading in it."""
        text = "".join(self._parts).rstrip()
        blank = len(text) - len(text.lstrip())
        return text[blank:], tuple((offset - blank, level) for offset, level in self._headings)

    def handle_starttag(
        self,
        tag: str,
        attrs: list[tuple[str, str | None]],  # noqa: ARG002 - the parser passes it
    ) -> None:
        """Enter an element."""
        if tag in _HIDDEN:
            self._hidden += 1
        elif tag == "pre":
            self._preformatted += 1
        # Any other tag ends a title that was left open.
        self._in_title = tag == "title" and not self._title
        self._level = LEVELS.get(tag, self._level)
        self._owe(GAPS.get(tag, ""))

    def handle_endtag(self, tag: str) -> None:
        """Leave an element; one that was never opened changes nothing."""
        if tag in _HIDDEN:
            self._hidden = max(0, self._hidden - 1)
        elif tag == "title":
            self._in_title = False
        elif tag == "pre":
            self._preformatted = max(0, self._preformatted - 1)
        elif tag in LEVELS:
            self._level = 0  # also of one without words
        self._owe(GAPS.get(tag, ""))

    def handle_data(self, data: str) -> None:
        """Take text, with its white space folded to single spaces outside of `<pre>`."""
        if self._hidden:
            return
        if self._in_title:
            self._title.append(data)
        elif self._preformatted and data:
            self._level = 0
            self._say(data)
        elif words := data.split():
            if data[0].isspace():
                self._owe(" ")
            self._say(" ".join(words))
            if data[-1].isspace():
                self._owe(" ")
        elif data:
            self._owe(" ")

    def _owe(self, gap: str) -> None:
        """Owe a gap, of which the widest counts: a space, a line, a blank line."""
        self._owed = max(self._owed, gap, key=_WIDTHS.index)

    def _say(self, words: str) -> None:
        """Add visible text after the gap that is owed; the first of a heading is marked."""
        mark = ""
        if self._level:
            self._headings.append((self._size + len(self._owed), self._level))
            mark, self._level = f"{'#' * self._level} ", 0
        self._parts += (self._owed, mark, words)
        self._size += len(self._owed) + len(mark) + len(words)
        self._owed = ""
