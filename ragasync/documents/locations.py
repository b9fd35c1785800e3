"""Locations of chunks in their document: line, page, cell and headings."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from types import MappingProxyType
from typing import TypeGuard

from ragasync.documents.loaders.text import markdown_headings, title_at
from ragasync.documents.models import Chunk, Document

MARKDOWN = frozenset({"", ".md", ".markdown", ".mdown", ".mkd", ".mdx", ".qmd", ".rmd"})
"""Suffixes of Markdown files; a text without a suffix is read as Markdown too."""

MAX_TITLES = 100
"""Maximum number of heading titles, above a chunk and in it, that are kept."""

PLACES = ("page_starts", "cell_starts", "headings")
"""
The metadata keys under which a loader gives locations in a document's text.

`page_starts` and `cell_starts` are the offsets of the first characters of pages and cells;
`headings` holds an (offset, level) pair for each heading, whose line is its title. Metadata of
another form under these keys is the user's own and is ignored here.
"""


def add_locations(document: Document, chunks: Iterable[Chunk]) -> list[Chunk]:
    r"""
    Add the locations of chunks, in their document, to the metadata of the chunks.

    `line` is the line number of the first character, counted from 1; if the text is that of the
    file, this is the line that an editor shows. `heading` holds the headings above the chunk, as in
    "Install > On Linux"; a heading that starts a chunk counts as above it, and a chunk with no
    heading above it gets the first heading inside it. `headings` lists the titles of all headings
    above the chunk or in it. `page`, and `cell` for notebooks, are added if the loader gives them
    (see `PLACES`). Existing metadata of a chunk is kept. A document that has a line of its own,
    such as a row of a table, keeps it.

    The running time is linear for any splitter.

    Example:
        >>> from ragasync.documents import Document, RecursiveSplitter, add_locations
        >>> text = "# Limits\n\nA bucket refills.\n\n# Retries\n\nWait, then try again."
        >>> guide = Document("guide.md", text)
        >>> chunks = add_locations(guide, RecursiveSplitter(chunk_size=32)(guide))
        >>> [(chunk.metadata["line"], chunk.metadata["heading"]) for chunk in chunks]
        [(1, 'Limits'), (5, 'Retries')]
        >>> [whole] = add_locations(guide, RecursiveSplitter()(guide))
        >>> whole.metadata["headings"]
        ['Limits', 'Retries']

    Args:
        document: the document that was split.
        chunks: its chunks, in any order.
    """
    given = list(chunks)
    order = sorted(range(len(given)), key=lambda place: given[place].start)
    spans = [(given[place].start, given[place].end) for place in order]
    for place, found in zip(order, _places(document, spans), strict=True):
        given[place] = given[place]._placed(found)
    return given


def chunks_at(document: Document, spans: Sequence[tuple[int, int]]) -> list[Chunk]:
    """Build the chunks of a document, with locations, from (start, end) offsets in order."""
    text, metadata = document.text, document.metadata
    has_more = metadata and any(key in metadata for key in ("line", *PLACES))
    if has_more or _marks(document):
        return [
            Chunk._at(text[start:end], start, end, MappingProxyType(place))
            for (start, end), place in zip(spans, _places(document, spans), strict=True)
        ]
    chunks, line, counted = [], 1, 0  # lines alone, as in most texts
    for start, end in spans:
        line += text.count("\n", counted, start)
        counted = start
        chunks.append(Chunk._at(text[start:end], start, end, on_line(line)))
    return chunks


@lru_cache(maxsize=4096)
def on_line(line: int) -> Mapping[str, object]:
    """Metadata shared by all chunks on this line of their documents."""
    return MappingProxyType({"line": line})


def _places(document: Document, spans: Sequence[tuple[int, int]]) -> list[dict[str, object]]:
    """Locations of each span; the spans are in ascending order of starts."""
    metadata = document.metadata
    starts = [start for start, _ in spans]
    if "line" in metadata:
        places: list[dict[str, object]] = [{} for _ in starts]
    else:
        places = [{"line": line} for line in _lines(document.text, starts)]
    if marks := _marks(document):
        for found, (heading, titles) in zip(
            places, _headings(document.text, marks, spans), strict=True
        ):
            if heading:
                found["heading"] = heading
                found["headings"] = titles
    for name, key in (("page", "page_starts"), ("cell", "cell_starts")):
        if _is_ascending(offsets := metadata.get(key)):
            for found, start in zip(places, starts, strict=True):
                found[name] = max(1, bisect_right(offsets, start))
    return places


def _lines(text: str, starts: Iterable[int]) -> list[int]:
    """Line number of each offset; offsets must not decrease."""
    line, counted, lines = 1, 0, []
    for start in starts:
        line += text.count("\n", counted, start)
        counted = start
        lines.append(line)
    return lines


def _headings(
    text: str, marks: Sequence[tuple[int, int]], spans: Iterable[tuple[int, int]]
) -> Iterator[tuple[str, list[str]]]:
    """
    Yield for each span the headings above it, joined, and all titles above it and in it.

    Without a heading above, the first heading in the span is used. Starts must not decrease.
    """
    above: list[tuple[int, str]] = []
    passed, joined, titles = 0, "", []
    for start, end in spans:
        if passed < len(marks) and marks[passed][0] <= start:
            while passed < len(marks) and marks[passed][0] <= start:
                offset, level = marks[passed]
                while above and above[-1][0] >= level:
                    above.pop()
                above.append((level, title_at(text, offset)))
                passed += 1
            titles = [title for _, title in above if title][-MAX_TITLES:]
            joined = " > ".join(titles)
        within = _titles_within(text, marks, passed, end)
        yield joined or next(iter(within), ""), list(dict.fromkeys([*titles, *within]))


def _titles_within(text: str, marks: Sequence[tuple[int, int]], place: int, end: int) -> list[str]:
    """Titles of the headings before an offset, beginning with the heading at `place`."""
    titles = []
    for offset, _ in marks[place : place + MAX_TITLES]:
        if offset >= end:
            break
        if title := title_at(text, offset):
            titles.append(title)
    return titles


def _marks(document: Document) -> Sequence[tuple[int, int]]:
    """Offset and level of each heading in a document, from its loader or from Markdown."""
    if _is_pairs(found := document.metadata.get("headings")):
        return found
    return list(markdown_headings(document.text)) if _is_markdown(document) else ()


def _is_ascending(found: object) -> TypeGuard[Sequence[int]]:
    """Whether a value is a list of offsets in ascending order."""
    return (
        isinstance(found, list | tuple)
        and all(type(offset) is int for offset in found)
        and all(one <= other for one, other in pairwise(found))
    )


def _is_pairs(found: object) -> TypeGuard[Sequence[tuple[int, int]]]:
    """Whether a value is a list of (offset, level) pairs in ascending order."""
    return (
        isinstance(found, list | tuple)
        and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in found)
        and all(type(level) is int for _, level in found)
        and _is_ascending([offset for offset, _ in found])
    )


def _is_markdown(document: Document) -> bool:
    """Whether a document is read as Markdown, by its suffix."""
    name = document.source or document.id
    dot = name.rfind(".")
    if dot < 0:
        return True
    suffix = name[dot:].lower()
    return suffix in MARKDOWN or "/" in suffix or "\\" in suffix
