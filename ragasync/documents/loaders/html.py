"""HTML to the text that a reader sees, by Python's own parser."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from html.parser import HTMLParser

from ragasync.documents.loaders.text import Loaded, load_text
from ragasync.documents.models import LoadError

HIDDEN_TAGS = frozenset(
    "audio canvas datalist iframe noscript script style template video".split()  # noqa: SIM905
)
"""Elements that a browser with scripts never shows."""

_TAGS = {
    "\n\n": "address article aside blockquote body details dialog dl fieldset figure footer form "
    "h1 h2 h3 h4 h5 h6 header hr main menu nav ol p pre search section table ul",
    "\n": "br caption dd div dt figcaption hgroup legend li optgroup option select summary "
    "textarea tr",
    " ": "button td th",
}
GAPS = {tag: gap for gap, tags in _TAGS.items() for tag in tags.split()}
"""The break that a tag makes before and after itself."""

LEVELS = {f"h{level}": level for level in range(1, 7)}
"""The level of a heading's tag."""

CELLS = frozenset({"td", "th"})
"""The tags of a table's cells; an empty cell becomes one more tab between the others."""

_VOID = frozenset(
    "area base br col embed hr img input link meta param source track wbr".split(),  # noqa: SIM905
)
_BLOCKS = frozenset(tag for tag, gap in GAPS.items() if gap.startswith("\n"))
# The tags that end an element without an end tag, and the ancestors that prevent it.
_ENDED_BY: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "p": (_BLOCKS - {"br", "option", "select", "textarea"}, frozenset()),
    "li": (frozenset({"li"}), frozenset({"ul", "ol", "menu"})),
    "dt": (frozenset({"dt", "dd"}), frozenset({"dl"})),
    "dd": (frozenset({"dt", "dd"}), frozenset({"dl"})),
    "td": (frozenset({"td", "th", "tr", "tbody", "tfoot"}), frozenset({"table"})),
    "th": (frozenset({"td", "th", "tr", "tbody", "tfoot"}), frozenset({"table"})),
    "tr": (frozenset({"tr", "tbody", "tfoot"}), frozenset({"table"})),
    "option": (frozenset({"option", "optgroup"}), frozenset()),
}
_UNSEEN_STYLE = re.compile(r"(?i)(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden)\b")

_BYTES_PER_NUL = 1000
"""How many bytes of a page there must be for each NUL that is passed over; a binary has more."""

# Parsers of Python before 3.13.6 want nothing else in such an end tag, or go on to the next one.
_RAW_END = re.compile(r"(?i)</(script|style|textarea|title)(?=[\s/])[^>]*>")
# Words with a reading above them, several in a row if nothing is between them.
_RUBIES = re.compile(r"(?is)(?:<ruby\b[^>]{0,200}>(?:(?!</?ruby\b).){0,1000}</ruby>)+")
_RUBY_PARENTHESIS = re.compile(r"(?is)<rp\b[^>]*>[^<]*(?:</rp>)?")
_RUBY_TEXT = re.compile(r"(?is)<rt\b[^>]*>(.*?)(?:</rt>|(?=<r[btp]|</ruby>))")
_ANY_TAG = re.compile(r"<[^>]*>")
_CONDITION = re.compile(r"<!\[\s*(?:if|else|endif)\b")
_EMPTY_COMMENT = re.compile(r"<!---?>")
_COMMENT_END = re.compile(r"--!?>")

_WIDTHS = ("", " ", "\n", "\n\n")
_TAG_START = re.compile(r"<[a-zA-Z/!?]")


def load_html(data: bytes, *, encoding: str | None = None) -> Loaded:
    r"""
    Load the visible text of an HTML page: blocks as paragraphs, `<pre>` unchanged.

    A ruby annotation follows its word in parentheses. Content that a browser does not show is left
    out: scripts, styles, `<template>`, `<noscript>`, the fallback content of `<video>` and similar
    elements, and elements with `hidden`, `aria-hidden="true"`, `display: none` or
    `visibility: hidden`. Table cells are separated by a space, or by tabs if some are empty, so
    that the columns of a row can still be counted.

    Headings are written as in Markdown (`## Title` for `<h2>`), so that splitters see them, and
    `metadata["headings"]` holds the offset and level of each, because lines of `<pre>` may look the
    same. Entities are decoded, and the title becomes `metadata["title"]`. Tags are processed as a
    stream without building a tree, so that nesting may be arbitrarily deep.

    Example:
        >>> from ragasync.documents import load_html
        >>> text, metadata = load_html(b"<title>Limits</title><h1>Bursts</h1><p>A bucket refills.")
        >>> text
        '# Bursts\n\nA bucket refills.'
        >>> metadata["title"]
        'Limits'

    Raises:
        LoadError: "binary", "encoding", or "html" if the parser fails.
    """
    text, metadata = decode_html(data, encoding)
    page = _VisibleText()
    try:
        page.feed(_without_cut_off_tag(text))
        page.close()
    except AssertionError as error:
        # The parser's way of refusing a declaration such as `<![x[`.
        raise LoadError("html", f"a malformed declaration: {error}") from None
    if title := " ".join("".join(page.title).split()):
        metadata["title"] = title
    text, headings = page.text()
    if headings:
        metadata["headings"] = headings
    return text, metadata


def decode_html(data: bytes, encoding: str | None = None) -> Loaded:
    """
    Decode a page like a text, and remove markup that would hide text from a parser.

    A few NUL bytes are ignored, as in a browser. CDATA sections of XML are text.
    """
    try:
        text, metadata = load_text(data, encoding=encoding)
    except LoadError as error:
        if error.reason != "binary" or _BYTES_PER_NUL * data.count(b"\0") > len(data):
            raise
        text, metadata = load_text(data.replace(b"\0", b""), encoding=encoding)
    text = _without_cdata_marks(_with_plain_ends(text))
    return _RUBIES.sub(_word_with_reading, text), metadata


def _word_with_reading(rubies: re.Match[str]) -> str:
    """Return a word with its reading, given over each character, in parentheses after it."""
    inside = _RUBY_PARENTHESIS.sub("", rubies[0])
    word, *parts = _RUBY_TEXT.split(inside)
    words, readings = [word], []
    for reading, rest in zip(parts[::2], parts[1::2], strict=True):
        readings.append(reading)
        words.append(rest)
    base, above = (_ANY_TAG.sub("", "".join(texts)) for texts in (words, readings))
    return f"{base.strip()}({above.strip()})" if above.strip() else base


def _with_plain_ends(text: str) -> str:
    """Reduce the end tags of scripts, styles and similar elements to their names."""
    end = text.rfind(">") + 1  # behind it, the search for `>` would take square time
    return _RAW_END.sub(r"</\1>", text[:end]) + text[end:]


def _without_cdata_marks(text: str) -> str:
    """Remove the marks around CDATA sections, and keep their content."""
    first, *others = text.split("<![CDATA[")
    return first + "".join(part.replace("]]>", "", 1) for part in others)


def _without_cut_off_tag(text: str) -> str:
    """Remove a tag that never ends and what follows: many make the parser quadratic."""
    cut_off = _TAG_START.search(text, text.rfind(">") + 1)
    return text[: cut_off.start()] if cut_off else text


def is_hidden(tag: str, attributes: Mapping[str, str | None]) -> bool:
    """Return whether a browser hides an element; a page as a whole is never hidden."""
    if tag in HIDDEN_TAGS:
        return True
    if tag in ("html", "body"):
        return False  # hidden until a script has run: the reader sees it all
    if tag == "dialog" and "open" not in attributes:
        return True
    # An element that is hidden "until-found" can be found by a search.
    if "hidden" in attributes and (attributes["hidden"] or "").lower() != "until-found":
        return True
    if (attributes.get("aria-hidden") or "").strip().lower() == "true":
        return True
    return bool(_UNSEEN_STYLE.search(attributes.get("style") or ""))


class _HiddenElement:
    """Follow the tags in a hidden element to its end, also where end tags are left out."""

    def __init__(self, tag: str, around: Counter[str]) -> None:
        self._tag = tag
        self._around = around
        self._ended_by, self._shields = _ENDED_BY.get(tag, (frozenset(), frozenset()))
        self._open = [tag]
        self._counts = Counter(self._open)

    def ends_before(self, tag: str) -> bool:
        """Process a start tag; return whether the hidden element has ended before it."""
        if tag in self._ended_by and not any(self._counts[shield] for shield in self._shields):
            return True
        if tag in _ENDED_BY["p"][0] and self._around["p"]:
            return True  # the paragraph around it ends, and so does all that is open in it
        if tag not in _VOID:
            self._open.append(tag)
            self._counts[tag] += 1
        return False

    def ends_at(self, tag: str) -> bool:
        """Process an end tag; return whether the hidden element has ended with it or before."""
        if not self._counts[tag]:
            # A block's end goes through all that was left open in it, any other through no block.
            return self._around[tag] > 0 and (tag in _BLOCKS or self._tag not in _BLOCKS)
        while True:
            last = self._open.pop()
            self._counts[last] -= 1
            if last == tag:
                return not self._open


class _VisibleText(HTMLParser):
    """Collect the text between tags; a gap is added before the next visible character."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._owed = ""
        self._open: Counter[str] = Counter()
        self._hidden: _HiddenElement | None = None
        self._in_empty_cell = False
        self._empty_cells = 0
        self._preformatted = 0
        self._in_title = False
        self.title: list[str] = []
        self._size = 0
        self._level = 0
        self._headings: list[tuple[int, int]] = []
        self._comments_end = True

    def text(self) -> tuple[str, tuple[tuple[int, int], ...]]:
        """Return the text so far, and the offset and level of each heading in it."""
        text = "".join(self._parts).rstrip()
        blank = len(text) - len(text.lstrip())
        return text[blank:], tuple((offset - blank, level) for offset, level in self._headings)

    def parse_comment(self, i: int, report: bool = True) -> int:  # noqa: ARG002
        """Return the end of a comment, as browsers see it; -1 if it has none."""
        if empty := _EMPTY_COMMENT.match(self.rawdata, i):
            return empty.end()
        # One search that finds none is enough: many open comments would take square time.
        end = _COMMENT_END.search(self.rawdata, i + 4) if self._comments_end else None
        self._comments_end = end is not None
        return end.end() if end else -1

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        """Return the end of `<![endif]-->` and the like; Python looks for `]>`, far behind."""
        if _CONDITION.match(self.rawdata, i):
            return self.rawdata.find(">", i) + 1 or -1
        return super().parse_marked_section(i, report)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._hidden is not None:
            if not self._hidden.ends_before(tag):
                return
            self._hidden = None
        if tag in _ENDED_BY["p"][0]:
            self._open["p"] = 0
        if tag not in _VOID and is_hidden(tag, dict(attrs)):
            self._hidden = _HiddenElement(tag, self._open)
            self._owe(GAPS.get(tag, ""))
            return
        if tag not in _VOID:
            self._open[tag] += 1
        if tag == "pre":
            self._preformatted += 1
        # Any other tag ends a title that was left open.
        self._in_title = tag == "title" and not self.title
        self._level = LEVELS.get(tag, self._level)
        self._pass_cell(tag)
        self._in_empty_cell = tag in CELLS or (self._in_empty_cell and tag != "table")
        self._owe(GAPS.get(tag, ""))

    def handle_endtag(self, tag: str) -> None:
        """Leave an element; an end tag without a start tag changes nothing."""
        if self._hidden is not None:
            if not self._hidden.ends_at(tag):
                return
            self._hidden = None
        self._open[tag] = max(0, self._open[tag] - 1)
        if tag == "title":
            self._in_title = False
        elif tag == "pre":
            self._preformatted = max(0, self._preformatted - 1)
        elif tag in LEVELS:
            self._level = 0  # also of one without words
        self._pass_cell(tag)
        self._owe(GAPS.get(tag, ""))

    def _pass_cell(self, tag: str) -> None:
        """Count a cell that ends empty; a row starts and ends without any."""
        if tag in CELLS and self._in_empty_cell:
            self._empty_cells += 1
            self._in_empty_cell = False
        elif tag in ("tr", "table"):
            self._empty_cells, self._in_empty_cell = 0, False

    def handle_data(self, data: str) -> None:
        """Add text, with white space outside of `<pre>` folded to single spaces."""
        if self._hidden is not None:
            return
        if self._in_title:
            self.title.append(data)
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
        """Require a gap before the next text; the widest counts: a space, a line, a blank line."""
        self._owed = max(self._owed, gap, key=_WIDTHS.index)

    def _say(self, words: str) -> None:
        """Add visible text after its gap, with a mark in front of a heading."""
        self._in_empty_cell = False
        gap, mark = self._owed, ""
        if self._empty_cells:
            tabs, self._empty_cells = "\t" * self._empty_cells, 0
            gap = gap + tabs if "\n" in gap or not self._parts else f"{tabs}\t"
        if self._level:
            self._headings.append((self._size + len(gap), self._level))
            mark, self._level = f"{'#' * self._level} ", 0
        self._parts += (gap, mark, words)
        self._size += len(gap) + len(mark) + len(words)
        self._owed = ""
