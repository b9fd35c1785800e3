"""Where in its document a chunk stands: its line, its page, and the headings above it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from types import MappingProxyType
from typing import TypeGuard

from ragasync.documents.document import Chunk, Document
from ragasync.documents.loaders.headings import markdown_headings, title_at

MARKDOWN = frozenset({"", ".md", ".markdown", ".mdown", ".mkd", ".mdx", ".qmd", ".rmd"})
"""Suffixes of what is read as Markdown; a text without any is one too."""

MAX_TITLES = 100
"""The most titles of headings above a chunk, and in it, that are kept."""

PLACES = ("page_starts", "cell_starts", "headings")
"""
The keys of a document's metadata by which a loader tells places in its text.

`page_starts` and `cell_starts` are the offsets of the first characters of pages and cells;
`headings` holds an (offset, level) pair for each heading, whose line is its title. A user's own
metadata under these keys, which is something else, tells no places.
"""


def located(document: Document, chunks: Iterable[Chunk]) -> list[Chunk]:
    r"""
    Return the chunks with the place of their first characters in their metadata.

    `line` is the line, from 1: the one that an editor shows, where the text is that of the file.
    `heading` holds the headings above, as "Install > On Linux"; a chunk that starts with a heading
    is below it, and one that nothing stands above has the first that is in it. `headings` lists
    the titles of all that are above it or in it. `page`, and `cell` for notebooks, are known where
    the loader tells, see `PLACES`. What a chunk's metadata has already stays; a document that names
    a line of its own, such as a row of a table, keeps that.

    The time it takes is linear, whatever the splitter.

    Example:
        >>> from ragasync.documents import Document, RecursiveSplitter, located
        >>> text = "# Limits\n\nA bucket refills.\n\n# Retries\n\nWait, then try again."
        >>> guide = Document("guide.md", text)
        >>> chunks = located(guide, RecursiveSplitter(chunk_size=32)(guide))
        >>> [(chunk.metadata["line"], chunk.metadata["heading"]) for chunk in chunks]
        [(1, 'Limits'), (5, 'Retries')]
        >>> [whole] = located(guide, RecursiveSplitter()(guide))
        >>> whole.metadata["headings"]
        ['Limits', 'Retries']

    Args:
        document: what was cut.
        chunks: its chunks, in any order.
    """
    given = list(chunks)
    order = sorted(range(len(given)), key=lambda place: given[place].start)
    spans = [(given[place].start, given[place].end) for place in order]
    for place, told in zip(order, _places(document, spans), strict=True):
        given[place] = given[place]._placed(told)
    return given


def chunks_at(document: Document, spans: Sequence[tuple[int, int]]) -> list[Chunk]:
    """
    Return the chunks of a document that start and end there, with their places.

    Args:
        document: what is cut.
        spans: where each starts and ends; no start is before the one in front of it.
    """
    text = document.text
    if _has_lines_alone(document):
        places = map(_on_line, _lines(text, (start for start, _ in spans)))
    else:
        places = map(MappingProxyType, _places(document, spans))
    return [
        Chunk._at(text[start:end], start, end, place)
        for (start, end), place in zip(spans, places, strict=True)
    ]


def _has_lines_alone(document: Document) -> bool:
    """Return whether nothing is known of a document's chunks but their lines, as of most texts."""
    metadata = document.metadata
    if metadata and any(key in metadata for key in ("line", *PLACES)):
        return False
    return not _marks(document)


@lru_cache(maxsize=4096)
def _on_line(line: int) -> Mapping[str, object]:
    """Return the metadata of all chunks that stand on this line of their documents."""
    return MappingProxyType({"line": line})


def _places(document: Document, spans: Sequence[tuple[int, int]]) -> list[dict[str, object]]:
    """Return what is known of each span, of which no start is before the one in front of it."""
    metadata = document.metadata
    starts = [start for start, _ in spans]
    if "line" in metadata:
        places: list[dict[str, object]] = [{} for _ in starts]
    else:
        places = [{"line": line} for line in _lines(document.text, starts)]
    if marks := _marks(document):
        for told, (heading, titles) in zip(
            places, _headings(document.text, marks, spans), strict=True
        ):
            if heading:
                told["heading"] = heading
                told["headings"] = titles
    for name, key in (("page", "page_starts"), ("cell", "cell_starts")):
        if _is_ascending(offsets := metadata.get(key)):
            for told, start in zip(places, starts, strict=True):
                told[name] = max(1, bisect_right(offsets, start))
    return places


def _lines(text: str, starts: Iterable[int]) -> list[int]:
    """Return the line of each offset, which must not decrease."""
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
    Yield the headings above each span, joined, and the titles of these and of those in it.

    Where none is above, the first in it stands for it. No start may be before the one in front.
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
    """Return the titles of the headings from one on that begin before an offset."""
    titles = []
    for offset, _ in marks[place : place + MAX_TITLES]:
        if offset >= end:
            break
        if title := title_at(text, offset):
            titles.append(title)
    return titles


def _marks(document: Document) -> Sequence[tuple[int, int]]:
    """Return offset and level of a document's headings: as its loader tells, or as Markdown."""
    if _is_pairs(told := document.metadata.get("headings")):
        return told
    return list(markdown_headings(document.text)) if _is_markdown(document) else ()


def _is_ascending(told: object) -> TypeGuard[Sequence[int]]:
    """Return whether something is a list of offsets, each behind the one before."""
    return (
        isinstance(told, list | tuple)
        and all(type(offset) is int for offset in told)
        and all(one <= other for one, other in pairwise(told))
    )


def _is_pairs(told: object) -> TypeGuard[Sequence[tuple[int, int]]]:
    """Return whether something is a list of offsets with levels."""
    return (
        isinstance(told, list | tuple)
        and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in told)
        and all(type(level) is int for _, level in told)
        and _is_ascending([offset for offset, _ in told])
    )


def _is_markdown(document: Document) -> bool:
    """Return whether a document is read as Markdown."""
    name = document.source or document.id
    dot = name.rfind(".")
    if dot < 0:
        return True
    suffix = name[dot:].lower()
    return suffix in MARKDOWN or "/" in suffix or "\\" in suffix
