"""Filter: conditions on metadata; Hit, Hits: the chunks found by a search, shown as a table."""

from __future__ import annotations

import math
import operator
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from difflib import get_close_matches
from html import escape
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeAlias, overload

import numpy as np

from ragasync._reports.dataframes import (
    frame_with_floats,
    number_array,
    object_column,
    string_array,
)
from ragasync._reports.summary import one_line
from ragasync.object_views import MONO, QUIET, TEXT, element, object_html

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
        return titles_of(self.metadata)

    def __repr__(self) -> str:
        place = f"{self.document_id!r} {self.start}:{self.end}"
        return f"<Hit {_score_text(self.score)} {place} {self.text[:40]!r}>"

    def _repr_html_(self) -> str:
        """The fields as a table, with the beginning of the text."""
        names = ("source", "line", "page", "heading", "vector_score", "keyword_score")
        facts = [(name, getattr(self, name)) for name in names]
        return object_html(self, [*facts, ("metadata", self.metadata or None)], text=self.text)


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
        Return one row for each hit, the best first; it shows scores to three decimals.

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
        frame = pd.DataFrame(
            {
                "score": number_array([hit.score for hit in self], "float64"),
                "vector_score": number_array([hit.vector_score for hit in self], "float64"),
                "keyword_score": number_array([hit.keyword_score for hit in self], "float64"),
                "document_id": string_array([hit.document_id for hit in self]),
                "source": string_array([hit.source for hit in self]),
                **place_columns(metadata),
                "headings": object_column([hit.headings for hit in self]),
                "start": number_array([hit.start for hit in self], "int64"),
                "end": number_array([hit.end for hit in self], "int64"),
                "text": string_array([hit.text for hit in self]),
                "metadata": object_column(metadata),
            }
        )
        return frame_with_floats(_score_text)(frame, copy=False)

    def __repr__(self) -> str:
        query = repr(one_line(self.query, _NAME_SHOWN))
        if not self:
            return f"<Hits: none for {query}>"
        best = self[0]
        where = repr(one_line(best.document_id, _NAME_SHOWN))
        return f"<Hits: {len(self):,} for {query}, the best {_score_text(best.score)} in {where}>"

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
    headings = [each.get("heading") for each in metadata]
    places["heading"] = string_array([one if isinstance(one, str) else None for one in headings])
    return places


_TABLE = "border-collapse:collapse;font-size:13px;color:inherit"
_CELL = "text-align:left;vertical-align:top;padding:3px 10px 3px 0;overflow-wrap:anywhere"
_NUMBER = "text-align:right;vertical-align:top;padding:3px 10px 3px 0;white-space:nowrap"


def _head() -> str:
    numbers = [element("th", f"{_NUMBER};{QUIET}", name) for name in ("score", "vector", "keyword")]
    style = f"{_CELL};{QUIET};overflow-wrap:normal"
    texts = [element("th", style, name) for name in ("document", "text")]
    return element("tr", "", *numbers, *texts)


def _row(hit: Hit) -> str:
    scores = (hit.score, hit.vector_score, hit.keyword_score)
    place = [f"page {hit.page:,}"] if hit.page is not None else []
    place += [f"line {hit.line:,}"] if hit.line is not None else []
    place += [one_line(hit.heading, 2 * _NAME_SHOWN)] if hit.heading else []
    name = one_line(hit.document_id if hit.source is None else hit.source)
    return element(
        "tr",
        "",
        *(element("td", _NUMBER, escape(_score_text(score))) for score in scores),
        element("td", _CELL, escape(name), element("div", QUIET, escape(", ".join(place)))),
        element("td", _CELL, escape(one_line(hit.text, _TEXT_SHOWN))),
    )


def _score_text(score: float | None) -> str:
    """
    Write a score to three decimals.

    SQLite's BM25 of a word that occurs in most chunks is about 0.000001: not none, as 0.000 says.
    """
    if score is None:
        return "–"
    return "<0.001" if 0 < score < 0.0005 else f"{score:.3f}"


def _whole_number(value: object) -> int | None:
    return value if type(value) is int else None


Filter: TypeAlias = Mapping[str, object]
"""
Conditions by metadata key, all of which must hold.

    {"lang": "en"}                              # this value
    {"lang": ["en", "de"]}                      # any of these; the same as {"$in": [...]}
    {"year": {"$gte": 2020, "$lt": 2025}}       # "$gt", "$gte", "$lt", "$lte", "$eq", "$ne"
    {"lang": {"$nin": ["en", "de"]}}            # none of these
    {"tags": {"$contains": "draft"}}            # a list that contains this value or date
    {"mtime": {"$gte": date(2026, 5, 1)}}       # on this day or later
    {"$or": [{"lang": "en"}, {"year": 2024}]}   # "$and", "$or" of conditions, "$not" of one
    {"year": {"$not": {"$lt": 2020}}}           # also holds if the key is missing
    {"source": "/docs/guide.md", "draft": None} # None: the key is missing, or its value is None

A condition on "heading" applies to all headings above a chunk or in it: it holds if it holds for
one of their titles, or for the titles above the chunk's start joined, as in "Install > On Linux";
"$ne" must hold for each of them.

The metadata of a chunk overrides that of its document; "id" and "source" are always those of the
document. Numbers are compared with numbers and strings with strings: 1 equals 1.0, but neither "1"
nor True. A value that is a list or a dict equals nothing. If the key is missing, "$ne", "$nin" and
"$not" hold and comparisons do not.

A date or datetime is compared with strings such as "2026-05-01" or "2026-05-01T12:30+02:00", and
with numbers in seconds since 1970, such as "mtime". A date means the whole day; without a time
zone, it is in UTC. Dates in metadata are stored as such strings.

A key that no document has may be misspelled: it gives a warning and no hits, unless documents
without it are asked for, by None.

Example:
    >>> from ragasync import AsyncDocumentProcessor
    >>> from ragasync.documents import Document, MemoryStore
    >>> store = MemoryStore()
    >>> guides = [Document(str(year), "A bucket refills.", {"year": year}) for year in (2019, 2024)]
    >>> _ = AsyncDocumentProcessor(store=store).process_sync(guides)
    >>> [hit.document_id for hit in store.search("bucket", where={"year": {"$gte": 2020}})]
    ['2024']
    >>> store.close()
"""

HEADING, HEADINGS = "heading", "headings"
"""The keys of the heading above a chunk, and of the list of all that are above it or in it."""

ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
_SETS = ("$in", "$nin")
_GROUPS = ("$and", "$or")
_OPERATORS = ("$eq", "$ne", *ORDER, *_SETS, "$contains", "$not")
_DEEPEST = 50

_OPERATOR = re.compile(r"\$[a-z]+")
"""What is no metadata key, but an operator that is misspelt or in the wrong place."""

_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_ISO_LONGEST = 40
_DAY = 86_400
_NO_DATE = "NaT is before or after no date: use a date, or None"


@dataclass(frozen=True, slots=True)
class Comparison:
    """
    Hold what has to be true of the value under one key.

    Args:
        key: The metadata key.
        operator: "in" for any of the values, "contains" for a list with one of them,
            "contains_day" for a list with a date on one of these days since 1970, or "$gt",
            "$gte", "$lt", "$lte" with one value.
        values: What is compared with: texts, finite or infinite numbers, booleans, None.
        of_dates: Whether the value is a date, and the one to compare with in seconds since 1970.
    """

    key: str
    operator: str
    values: tuple[object, ...]
    of_dates: bool = False

    def holds(self, value: object) -> bool:
        """Return whether it is true of a value; a missing one is None."""
        match self.operator:
            case "contains":
                return isinstance(value, list | tuple) and any(map(self._is_any, value))
            case "contains_day":
                return isinstance(value, list | tuple) and any(
                    day_of(one) in self.values for one in value
                )
            case "in":
                return self._is_any(value)
        [bound] = self.values
        value = instant(value) if self.of_dates else value
        return kind_of(value) == kind_of(bound) and ORDER[self.operator](value, bound)

    def _is_any(self, value: object) -> bool:
        value = instant(value) if self.of_dates else value
        return any(_equal(value, one) for one in self.values)


@dataclass(frozen=True, slots=True)
class AllOf:
    """Hold conditions that all have to hold; none of them always do."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Hold conditions of which one has to hold."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Hold a condition that must not hold."""

    part: Condition


Condition: TypeAlias = Comparison | AllOf | AnyOf | Not


def condition_of(where: Filter | None) -> Condition | None:
    """
    Return the condition that a user's `where` states; None for None or an empty one.

    Raises:
        TypeError: When it is no mapping by texts, or a value is none that metadata can equal.
        ValueError: When an operator is unknown, a number is not a number, or a dict in it is
            empty, which would hold of everything.
    """
    if where is None or (isinstance(where, Mapping) and not where):
        return None
    return _of_mapping(where, "where", 0)


def holds_always(condition: Condition, verdict: bool = True) -> bool:
    """
    Return whether a condition has one verdict whatever the metadata.

    `{"lang": {"$nin": []}}` always holds, and `{"lang": []}` never does.
    """
    match condition:
        case Comparison():
            return not verdict and not condition.values
        case AllOf(parts) | AnyOf(parts):
            decides = all if verdict is isinstance(condition, AllOf) else any
            return decides(holds_always(part, verdict) for part in parts)
        case Not(part):
            return holds_always(part, not verdict)


def comparisons(condition: Condition | None) -> Iterator[Comparison]:
    """Yield every comparison within a condition."""
    match condition:
        case Comparison():
            yield condition
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                yield from comparisons(part)
        case Not(part):
            yield from comparisons(part)


def matches(
    condition: Condition,
    document_id: str,
    source: str | None,
    of_document: Mapping[str, object],
    of_chunk: Mapping[str, object],
) -> bool:
    """Return whether a condition holds of one chunk, whose metadata overrides its document's."""
    chunk = document_id, source, of_document, of_chunk
    match condition:
        case Comparison("id"):
            return condition.holds(document_id)
        case Comparison("source"):
            return condition.holds(source)
        case Comparison(key):
            if condition.holds(of_chunk[key] if key in of_chunk else of_document.get(key)):
                return True
            return key == HEADING and any(map(condition.holds, titles_of(of_chunk)))
        case AllOf(parts):
            return all(matches(part, *chunk) for part in parts)
        case AnyOf(parts):
            return any(matches(part, *chunk) for part in parts)
        case Not(part):
            return not matches(part, *chunk)


def titles_of(of_chunk: Mapping[str, object]) -> list[str]:
    """Return the titles of the headings above a chunk and in it, as far as its metadata tells."""
    titles = of_chunk.get(HEADINGS)
    if not isinstance(titles, list | tuple):
        return []
    return [title for title in titles if isinstance(title, str)]


def kind_of(value: object) -> str | None:
    """Return the kind of a value, within which it is compared; None for a list or a dict."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "truth"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else None


def instant(value: object) -> object:
    """Return the seconds since 1970 that a date as text means, or a number as it is."""
    if isinstance(value, str):
        if len(value) > _ISO_LONGEST or not _ISO_DATE.match(value):
            return None
        try:
            return _seconds(datetime.fromisoformat(value))
        except ValueError:
            return None
    return value if kind_of(value) == "number" else None


def day_of(value: object) -> int | None:
    """Return the day since 1970 of a date as text, or of a number of seconds."""
    seconds = instant(value)
    if isinstance(seconds, float) and not math.isfinite(seconds):
        return None
    return int(seconds // _DAY) if isinstance(seconds, int | float) else None


def keys_to_know(condition: Condition | None) -> list[str]:
    """Return the keys that some document should have; a condition for None asks for none."""
    asked = (one for one in comparisons(condition) if None not in one.values)
    return [*dict.fromkeys(one.key for one in asked if one.key not in ("id", "source"))]


def warn_of_unknown(
    unknown: Iterable[str],
    known: Iterable[str],
    of_chunks: Collection[str] = (),
    stacklevel: int = 3,
) -> None:
    """Warn the caller of keys that no document has, with those that it may mean."""
    known = [*known]
    for key in unknown:
        if key in of_chunks:
            said = (
                f"the metadata key {key!r:.200} belongs to chunks, which only search() looks at: "
                "documents() and delete() select by the metadata of documents"
            )
        else:
            near = get_close_matches(key, known, n=3)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else _listed(known)
            said = f"no document has the metadata key {key!r:.200}: {hint}"
        warnings.warn(said, stacklevel=stacklevel)


def _listed(known: list[str]) -> str:
    """Return which keys there are, some of many."""
    most = 10
    listed = ", ".join(f"{key!r:.60}" for key in sorted(known)[:most])
    more = f" and {len(known) - most} more" if len(known) > most else ""
    return f"there are {listed}{more}" if known else "there is no metadata at all"


def _of_mapping(where: object, place: str, depth: int) -> Condition:
    """Return the condition that all entries of a dict state."""
    if not isinstance(where, Mapping):
        raise TypeError(f"{place} must be a dict of metadata keys to values, got {where!r:.200}")
    if depth > _DEEPEST:
        raise ValueError(f"where must not be nested more than {_DEEPEST} deep")
    if not where:
        raise ValueError(f"{place} is empty and would hold of everything: leave it out")
    return _all_of(_of_key(key, wanted, depth) for key, wanted in where.items())


def _of_key(key: object, wanted: object, depth: int) -> Condition:
    if not isinstance(key, str):
        raise TypeError(f"the keys of where must be texts, got {key!r:.200}")
    if key in _GROUPS:
        if not isinstance(wanted, list | tuple) or not wanted:
            raise TypeError(f"{key} needs a list of conditions, got {wanted!r:.200}")
        parts = (_of_mapping(each, f"each entry of {key}", depth + 1) for each in wanted)
        return _all_of(parts) if key == "$and" else AnyOf(tuple(parts))
    if key == "$not":
        return Not(_of_mapping(wanted, key, depth + 1))
    if _OPERATOR.fullmatch(key):
        raise ValueError(
            f"unsupported operator {key!r:.200} in place of a metadata key: use one of "
            f"{', '.join(_GROUPS)}, $not, with conditions in it"
        )
    return _of_value(key, wanted, depth)


def _of_value(key: str, wanted: object, depth: int) -> Condition:
    """Return the condition that a value, a list of values, or operators state for a key."""
    if isinstance(wanted, Mapping):
        if depth > _DEEPEST:
            raise ValueError(f"where must not be nested more than {_DEEPEST} deep")
        if not wanted:
            raise ValueError(
                f"the condition on {key!r:.200} is empty and would hold of everything: give it a "
                f"value, or one of {', '.join(_OPERATORS)}"
            )
        return _all_of(_by_operator(key, name, bound, depth) for name, bound in wanted.items())
    if isinstance(wanted, list | tuple | set | frozenset):
        return _any_value(key, wanted)
    return _any_value(key, [wanted])


def _by_operator(key: str, name: object, bound: object, depth: int) -> Condition:
    match name:
        case "$eq":
            return _any_value(key, [bound])
        case "$ne":
            return Not(_any_value(key, [bound]))
        case "$in" | "$nin":
            if not isinstance(bound, list | tuple | set | frozenset):
                raise TypeError(f"{name} of {key!r} needs a list of values, got {bound!r:.200}")
            found = _any_value(key, bound)
            return found if name == "$in" else Not(found)
        case "$contains":
            return _containing(key, bound)
        case "$not":
            return Not(_of_value(key, bound, depth + 1))
        case "$gt" | "$gte" | "$lt" | "$lte":
            return _ordered(key, name, bound)
    raise ValueError(
        f"unsupported operator {name!r:.200} for {key!r}: use one of {', '.join(_OPERATORS)}"
    )


def _any_value(key: str, values: Iterable[object]) -> Condition:
    parts: list[Condition] = []
    plain: list[object] = []
    for value in map(_unwrapped, values):
        if isinstance(value, datetime):
            parts.append(Comparison(key, "in", (_seconds(value),), of_dates=True))
        elif isinstance(value, date):
            parts.append(_all_of(_ordered(key, name, value) for name in ("$gte", "$lte")))
        else:
            plain.append(_plain(key, value))
    if plain or not parts:
        parts.insert(0, Comparison(key, "in", tuple(plain)))
    return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))


def _containing(key: str, wanted: object) -> Condition:
    wanted = _unwrapped(wanted)
    if isinstance(wanted, datetime):
        return Comparison(key, "contains", (_seconds(wanted),), of_dates=True)
    if isinstance(wanted, date):
        return Comparison(key, "contains_day", (day_of(wanted.isoformat()),))
    return Comparison(key, "contains", (_plain(key, wanted),))


def _ordered(key: str, name: str, bound: object) -> Condition:
    bound = _unwrapped(bound)
    if isinstance(bound, datetime):
        return Comparison(key, name, (_seconds(bound),), of_dates=True)
    if isinstance(bound, date):
        start = _seconds(datetime(bound.year, bound.month, bound.day))
        if name in ("$gt", "$lte"):  # the end of the day
            name, start = {"$gt": "$gte", "$lte": "$lt"}[name], start + _DAY
        return Comparison(key, name, (start,), of_dates=True)
    value = _plain(key, bound)
    if kind_of(value) not in ("text", "number"):
        raise TypeError(
            f"only texts, numbers and dates have an order: {name} of {key!r} got {value!r:.200}"
        )
    return Comparison(key, name, (value,))


def _all_of(parts: Iterable[Condition]) -> Condition:
    held = tuple(parts)
    return held[0] if len(held) == 1 else AllOf(held)


def _plain(key: str, value: object) -> object:
    """Return a value, without a wrapper of numpy, if metadata can equal it."""
    if kind_of(value) is None:
        raise TypeError(
            f"where compares with texts, numbers, booleans, dates, None, or a list of them, and "
            f"the key {key!r} with {value!r:.200}"
        )
    if isinstance(value, float) and math.isnan(value):
        raise ValueError(f"no metadata is equal to or beyond NaN: give {key!r} a number, or None")
    return value


def _unwrapped(value: object) -> object:
    """Return a value as Python has it: of a number or date of numpy's the plain one."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    match value:
        case np.datetime64():
            return _plain_date(value)
        case np.timedelta64():
            return value  # no length of time is in metadata; as an int it would pass for a number
        case np.floating():
            return float(value)
        case np.generic():
            return value.item()
    item = getattr(value, "item", None)
    plain = item() if callable(item) and getattr(value, "ndim", None) == 0 else None
    return value if plain is None else plain


def _plain_date(value: np.datetime64) -> date:
    """Return a day where the unit is days or longer, and a moment otherwise."""
    if np.isnat(value):
        raise ValueError(_NO_DATE)
    plain: object = value.item()
    if isinstance(plain, int) and np.datetime_data(value.dtype)[0] in ("ns", "ps", "fs", "as"):
        plain = value.astype("datetime64[us]").item()
    if not isinstance(plain, date):
        raise ValueError(f"only dates of the years 1 to 9999 can be compared with, got {value!r}")
    return plain


def _seconds(moment: datetime) -> float:
    """Return the seconds since 1970; without a time zone it is UTC."""
    if moment != moment:  # pandas.NaT is a datetime
        raise ValueError(_NO_DATE)
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(seconds=1)


def _equal(one: object, other: object) -> bool:
    return one == other and kind_of(one) == kind_of(other) is not None
