"""HTML to the text that a reader sees, by selectolax from the extra `ingest`."""

from __future__ import annotations

import re

from ragasync.documents.loaders import Loaded
from ragasync.documents.loaders.html import GAPS, decode_html
from ragasync.errors import MissingExtra

_HIDDEN = ["script", "style", "template", "title"]
_BLANK_LINES = re.compile(r"\n{3,}")


def load_html_fast(data: bytes) -> Loaded:
    """
    Return the visible text of a page as `load_html` does, many times faster.

    `<pre>` loses its indentation. The parser's time grows with the square of the nesting: 50,000
    nested elements take ten seconds, which is why it is chosen by name and not the default:
    `load_source(path, loaders={**LOADERS, ".html": load_html_fast})`.

    Raises:
        MissingExtra: If selectolax is not installed.
        LoadError: "binary" or "encoding".
    """
    try:
        from selectolax.lexbor import LexborHTMLParser
    except ImportError:
        raise MissingExtra("load_html_fast", "selectolax", "ingest") from None
    text, metadata = decode_html(data)
    page = LexborHTMLParser(text)
    title = page.css_first("title")
    if title is not None and (words := title.text().split()):
        metadata["title"] = " ".join(words)
    page.strip_tags(_HIDDEN)
    for node in page.css(",".join(GAPS)):
        gap = GAPS[str(node.tag)]
        node.insert_before(gap)
        node.insert_after(gap)
    root = page.root
    lines = (" ".join(line.split()) for line in (root.text() if root else "").split("\n"))
    return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip(), metadata
