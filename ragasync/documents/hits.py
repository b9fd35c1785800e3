"""Hit: a chunk found by a search, with its scores; Hits: a list of them, shown as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

from ragasync._reports.dataframes import number_array, object_column, string_array
from ragasync._reports.html import MONO, QUIET, TEXT, element
from ragasync._reports.summary import one_line

if TYPE_CHECKING:
    import pandas as pd

_PLACES = ("line", "page")
_MOST_SHOWN = 50
_TEXT_SHOWN = 240
_NAME_SHOWN = 60


@dataclass(frozen=True, slots=True, repr=False)
class Hit:
    """
    One chunk found by a search.

    Example:
        >>> from ragasync import AsyncDocumentProcessor
        >>> from ragasync.documents import MemoryStore
        >>> store = MemoryStore()
        >>> _ = AsyncDocumentProcessor(store=store).process_sync([("guide", "A bucket refills.")])
        >>> [hit] = store.search("bucket")
        >>> hit.document_id, hit.text, hit.line
        ('guide', 'A bucket refills.', 1)
        >>> hit.vector_score > 0 and hit.keyword_score > 0
        True
        >>> store.close()

    Args:
        document_id: The id of its document.
        source: The `source` of the document, or None.
        text: The chunk's text.
        start: The offset of its first character in the document's text.
        end: The offset after its last character.
        score: The score by which hits are ranked, higher first; comparable within one search only.
        metadata: The document's metadata, overridden by the chunk's own.
        vector_score: The cosine of its vector and the query's; None without a query vector.
        keyword_score: Its BM25 score; None if it has none of the query's words.
    """

    document_id: str
    source: str | None
    text: str
    start: int
    end: int
    score: float
    metadata: Mapping[str, object] = field(default_factory=dict, hash=False)
    vector_score: float | None = None
    keyword_score: float | None = None

    @property
    def line(self) -> int | None:
        """Line number of its first character, from 1, if known."""
        return _whole_number(self.metadata.get("line"))

    @property
    def page(self) -> int | None:
        """Page number of its first character, from 1, if known."""
        return _whole_number(self.metadata.get("page"))

    @property
    def heading(self) -> str | None:
        """Headings above it, as in "Install > On Linux", or the first heading in it."""
        heading = self.metadata.get("heading")
        return heading if isinstance(heading, str) else None

    @property
    def headings(self) -> list[str]:
        """Titles of all headings above it or in it."""
        titles = self.metadata.get("headings")
        if not isinstance(titles, list | tuple):
            return []
        return [title for title in titles if isinstance(title, str)]

    def __repr__(self) -> str:
        place = f"{self.document_id!r} {self.start}:{self.end}"
        return f"<Hit {self.score:.3f} {place} {self.text[:40]!r}>"


class Hits(list[Hit]):
    """
    The list of chunks found by a search, best first; a notebook shows it as a table.

    Example:
        >>> from ragasync import AsyncDocumentProcessor
        >>> from ragasync.documents import MemoryStore
        >>> store = MemoryStore()
        >>> _ = AsyncDocumentProcessor(store=store).process_sync([("guide", "A bucket refills.")])
        >>> hits = store.search("bucket")
        >>> hits
        <Hits: 1 for 'bucket', the best 0.333 in 'guide'>
        >>> hits.to_dataframe()[["document_id", "line", "text"]]
          document_id  line               text
        0       guide     1  A bucket refills.
        >>> store.search("zebra")
        <Hits: none for 'zebra'>
        >>> store.close()

    Args:
        hits: The hits, in order.
        query: The text of the query.
    """

    def __init__(self, hits: Iterable[Hit] = (), query: str = "") -> None:
        super().__init__(hits)
        self.query = query

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> Hit: ...

    @overload
    def __getitem__(self, index: slice, /) -> Hits: ...

    def __getitem__(self, index: SupportsIndex | slice, /) -> Hit | Hits:
        """One hit, or Hits for a slice."""
        found = super().__getitem__(index)
        return Hits(found, self.query) if isinstance(found, list) else found

    def to_dataframe(self) -> pd.DataFrame:
        """
        Return one row for each hit, the best first.

        Returns:
            | column | dtype | |
            |---|---|---|
            | score | float64 | what it is ranked by |
            | vector_score | float64 | the cosine; NaN where the query had no vector |
            | keyword_score | float64 | BM25; NaN where it has no word in common |
            | document_id, source | string | missing where a document is from nowhere |
            | line, page | Int64 | where it starts, from 1; missing where that is not known |
            | heading | string | the headings above it; missing where there is none |
            | headings | object | the titles of all that are above it or in it: a list |
            | start, end | int64 | offsets in the document's text |
            | text | string | |
            | metadata | object | of the document, with the chunk's own over it: a dict |
        """
        import pandas as pd

        metadata = [dict(hit.metadata) for hit in self]
        return pd.DataFrame(
            {
                "score": number_array([hit.score for hit in self], "float64"),
                "vector_score": _scores([hit.vector_score for hit in self]),
                "keyword_score": _scores([hit.keyword_score for hit in self]),
                "document_id": string_array([hit.document_id for hit in self]),
                "source": string_array([_or_missing(hit.source) for hit in self]),
                **place_columns(metadata),
                "headings": object_column([hit.headings for hit in self]),
                "start": number_array([hit.start for hit in self], "int64"),
                "end": number_array([hit.end for hit in self], "int64"),
                "text": string_array([hit.text for hit in self]),
                "metadata": object_column(metadata),
            }
        )

    def __repr__(self) -> str:
        query = repr(one_line(self.query, _NAME_SHOWN))
        if not self:
            return f"<Hits: none for {query}>"
        best = self[0]
        where = repr(one_line(best.document_id, _NAME_SHOWN))
        return f"<Hits: {len(self):,} for {query}, the best {best.score:.3f} in {where}>"

    def _repr_html_(self) -> str:
        """Return the hits as a table, with its style in it."""
        title = f"{len(self):,} hits" if len(self) != 1 else "1 hit"
        name = element("span", "font-weight:600", title if self else "no hits")
        query = element("span", MONO, escape(one_line(self.query)))
        rest = len(self) - _MOST_SHOWN
        return element(
            "div",
            TEXT.replace("640px", "1000px"),
            element("div", "margin-bottom:6px", f"{name} for {query}"),
            element("table", _TABLE, _head(), *map(_row, self[:_MOST_SHOWN])) if self else "",
            element("div", QUIET, f"and {rest:,} more") if rest > 0 else "",
        )


def place_columns(metadata: Sequence[Mapping[str, object]]) -> dict[str, Any]:
    """Return the columns that say where chunks stand, as far as their metadata tells."""
    places: dict[str, Any] = {}
    for name in _PLACES:
        numbers = [_whole_number(each.get(name)) for each in metadata]
        places[name] = number_array(numbers, "Int64")
    headings = (each.get("heading") for each in metadata)
    places["heading"] = string_array(
        [_or_missing(heading if isinstance(heading, str) else None) for heading in headings]
    )
    return places


_TABLE = "border-collapse:collapse;font-size:13px;color:inherit"
_CELL = "text-align:left;vertical-align:top;padding:3px 10px 3px 0;overflow-wrap:anywhere"
_NUMBER = "text-align:right;vertical-align:top;padding:3px 10px 3px 0;white-space:nowrap"


def _head() -> str:
    """Return the row with the names of the columns."""
    numbers = [element("th", f"{_NUMBER};{QUIET}", name) for name in ("score", "vector", "keyword")]
    texts = [element("th", f"{_CELL};{QUIET}", name) for name in ("document", "text")]
    return element("tr", "", *numbers, *texts)


def _row(hit: Hit) -> str:
    """Return one hit as a row."""
    scores = (hit.score, hit.vector_score, hit.keyword_score)
    place = [f"page {hit.page:,}"] if hit.page is not None else []
    place += [f"line {hit.line:,}"] if hit.line is not None else []
    place += [one_line(hit.heading, 2 * _NAME_SHOWN)] if hit.heading else []
    name = one_line(hit.document_id if hit.source is None else hit.source)
    return element(
        "tr",
        "",
        *(element("td", _NUMBER, "–" if one is None else f"{one:.3f}") for one in scores),
        element("td", _CELL, escape(name), element("div", QUIET, escape(", ".join(place)))),
        element("td", _CELL, escape(one_line(hit.text, _TEXT_SHOWN))),
    )


def _scores(scores: Sequence[float | None]) -> pd.api.extensions.ExtensionArray:
    """Return a column of scores, NaN where there is none."""
    return number_array([float("nan") if one is None else one for one in scores], "float64")


def _whole_number(value: object) -> int | None:
    """Return a value where it is an int."""
    return value if type(value) is int else None


def _or_missing(text: str | None) -> object:
    """Return a text, or what pandas has for none."""
    import pandas as pd

    return pd.NA if text is None else text
