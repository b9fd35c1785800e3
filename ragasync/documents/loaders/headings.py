"""The headings of a Markdown text, and the title that a heading's line gives."""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_TITLE = 100
"""The most characters of a heading that are kept."""

# A line that is a heading, underlines one, or opens or closes a block of code. It begins with the
# line end before it, which is found faster than a line's start.
_MARK = re.compile(
    r"\n {0,3}(?:(?P<hashes>#{1,6})(?=[ \t\n]|\Z)"
    r"|(?P<underline>=+|-+)[ \t]*(?=\n|\Z)"
    r"|(?P<fence>`{3,}(?=[^`\n]*(?:\n|\Z))|~{3,})(?P<info>[^\n]*))"
)
_FRONT_MATTER = re.compile(r"---[ \t]*\n(?:[^\n]*\n)*?(?:---|\.\.\.)[ \t]*(?:\n|\Z)")
_NO_TITLE = re.compile(r" {4}|\t|[ ]{0,3}(?:[-*+][ \t]|[>|<#`~]|[-=*_ \t]*\Z)")
_CLOSING_HASHES = re.compile(r"(?:^|[ \t])#+[ \t]*\Z")


def markdown_headings(text: str) -> Iterator[tuple[int, int]]:
    """
    Yield the offset and the level of each heading of a Markdown text, in order.

    Known are `# Title` and titles on one line that are underlined by `===` or `---`, as in
    CommonMark; what stands in fenced or indented code or in front matter is none.
    """
    if not any(mark in text for mark in "#=-"):
        return  # a fifteenth of what looking for their lines takes
    start = 0
    if text.startswith("---") and (matter := _FRONT_MATTER.match(text)):
        start = matter.end()
    fence = ""
    after_mark = start  # where the latest line that was a mark ends
    # The line end in front makes the first line like the others, and offsets those of lines.
    for mark in _MARK.finditer("\n" + text, start):
        offset = mark.start()
        if fence:
            closes = mark["fence"] or ""
            if closes.startswith(fence) and not mark["info"].strip():
                fence = ""
            elif not closes:
                continue
        elif mark["fence"]:
            fence = mark["fence"]
        elif mark["hashes"]:
            yield offset, len(mark["hashes"])
            end = text.find("\n", offset)
            after_mark = len(text) if end < 0 else end + 1
            continue
        elif (title := _underlined(text, offset, after_mark)) is not None:
            yield title, 1 if mark["underline"].startswith("=") else 2
        else:
            continue  # a rule, or a line of a table
        after_mark = mark.end()


def title_at(text: str, offset: int) -> str:
    """Return the title of the heading whose line starts at an offset, at most MAX_TITLE of it."""
    end = text.find("\n", offset)
    line = text[offset : min(offset + 2 * MAX_TITLE, len(text) if end < 0 else end)].strip()
    if line.startswith("#"):
        line = _CLOSING_HASHES.sub("", line.lstrip("#"))
    return line.strip(" \t¶")[:MAX_TITLE]  # a page's headings often end with a link to themselves


def _underlined(text: str, offset: int, after_mark: int) -> int | None:
    """Return where the title starts that is underlined at an offset: alone between other lines."""
    if offset == 0:
        return None
    start = text.rfind("\n", 0, offset - 1) + 1
    if start < after_mark or _NO_TITLE.match(text, start, offset - 1):
        return None
    if start > after_mark and not text[text.rfind("\n", 0, start - 1) + 1 : start].isspace():
        return None  # a paragraph of several lines, or a table
    return start
