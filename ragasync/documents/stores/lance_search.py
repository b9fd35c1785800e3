"""The search of a LanceStore: conditions as predicates over a JSON column, and its rankings."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragasync.documents.embedders import scaled_to_one
from ragasync.documents.search import (
    HEADING,
    HEADINGS,
    AllOf,
    AnyOf,
    Comparison,
    Condition,
    Hit,
    Hits,
    Not,
    day_of,
    instant,
    kind_of,
    titles_of,
)
from ragasync.documents.store import is_encodable
from ragasync.documents.stores.requests import Search

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import LanceTable

EVERY_CHUNK = "ordinal >= 0"
"""Predicate of all rows of chunks; a document has a row of its own, with ordinal -1."""

_NEVER_ASKED = frozenset({"page_starts", "cell_starts"})
"""Keys that loaders set for the splitters: long lists, the same in each chunk."""

_COLUMNS = {"id": "document_id", "source": "source"}
"""Columns of the keys that have one."""

_NOTHING, _OTHER = "-", "x"
_SQL = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}


def digest(text: str, errors: str = "surrogatepass") -> str:
    """Digest of a text as hexadecimal digits, which are safe in any predicate."""
    return blake2b(text.encode(errors=errors), digest_size=16).hexdigest()


def facts_of(metadata: Mapping[str, object]) -> str:
    """
    JSON object with the codes of metadata values, which the predicates of conditions read.

    Codes have the order of their values, within a type; a text that is a date also has the code of
    its seconds since 1970. Of the entries of a list there are digests: json_array_contains finds no
    text with a quote or backslash. Keys are digests, as a JSON path takes few characters.
    """
    facts: dict[str, object] = {}
    for key, value in metadata.items():
        facts[_name("is", key)] = code_of(value)
        if isinstance(value, list | tuple) and key not in _NEVER_ASKED:
            dates = [instant(each) for each in value if isinstance(each, str)]
            lists = {
                "list": [each for each in value if kind_of(each)],
                "dates": [each for each in dates if each is not None],
                "days": {day_of(each) for each in value} - {None},
            }
            for what, entries in lists.items():
                facts[_name(what, key)] = [digest(code_of(each)) for each in entries]
        if isinstance(value, str) and (seconds := instant(value)) is not None:
            facts[_name("date", key)] = code_of(seconds)
    return json.dumps(facts)


Titles: TypeAlias = Callable[[], set[str]]
"""Reads the titles of all stored headings, which are compared with a condition one by one."""


def predicate_of(condition: Condition | None, titles: Titles) -> str:
    """Predicate of the chunks that match a condition; None for all chunks."""
    if condition is None:
        return EVERY_CHUNK
    return f"{EVERY_CHUNK} AND {_predicate(condition, titles)}"


def has_key(key: str) -> str:
    """Predicate of the chunks that have a metadata key."""
    return f"{EVERY_CHUNK} AND {_value('is', key)} IS NOT NULL"


def code_of(value: object) -> str:
    """Code of a value: a text whose order, within a type, is that of the values."""
    match value:
        case None:
            return _NOTHING
        case bool():
            return f"b{value:d}"
        case float() if math.isnan(value):
            return _OTHER  # equal to nothing
        case int() | float():
            return f"n{_number(value)}"
        case str():
            # Each byte as a character: the same order, also of half a surrogate pair.
            return "t" + value.encode(errors="surrogatepass").decode("latin-1")
        case _:
            return _OTHER


def _predicate(condition: Condition, titles: Titles) -> str:
    """
    Predicate of a condition; it is true, or false or null where the condition does not hold.

    Null counts as false in a filter and within AND and OR; only a negation has to map it to true.
    (`coalesce(x, false)` would do that as well, but Lance rewrites it to `x IS NOT NULL AND x`,
    which looks into the JSON twice.)
    """
    match condition:
        case Comparison():
            return f"({' OR '.join(_comparisons(condition, titles))})"
        case Not(part):
            return f"{_predicate(part, titles)} IS NOT TRUE"
        case AllOf(parts):
            ranges, others = _ranges_in(parts)
            held = [_range(value, bounds) for (_, value), bounds in ranges.items()]
            held += [_predicate(part, titles) for part in others]
            return f"({' AND '.join(held) or 'true'})"
        case AnyOf(parts):
            held = [_predicate(part, titles) for part in parts]
            return f"({' OR '.join(held)})"


def _comparisons(condition: Comparison, titles: Titles) -> Iterator[str]:
    """Yield predicates; a comparison holds if one of them does."""
    key, values = condition.key, condition.values
    if key in _COLUMNS:
        yield _of_column(_COLUMNS[key], condition)
        return
    if condition.operator == "contains_day":
        yield from _lists("days", key, values)
        return
    if condition.operator == "contains":
        yield from _lists("list", key, values)
        if condition.of_dates:
            yield from _lists("dates", key, values)
        return
    yield from _compared(_value("is", key), condition)
    if condition.of_dates:
        yield from _compared(_value("date", key), condition)
    if key == HEADING:
        yield from _lists("list", HEADINGS, filter(condition.holds, titles()))


def _of_column(column: str, condition: Comparison) -> str:
    """Predicate of a column of texts, which equals nothing but texts and None."""
    texts = [value for value in condition.values if isinstance(value, str) and is_encodable(value)]
    literals = [_literal(text) for text in texts]
    parts = []
    if condition.operator in _SQL and literals:
        parts.append(f"{column} {_SQL[condition.operator]} {literals[0]}")
    elif condition.operator == "in" and literals:
        parts.append(f"{column} IN ({', '.join(literals)})")
    if condition.operator == "in" and None in condition.values:
        parts.append(f"{column} IS NULL")
    return " OR ".join(parts) or "false"


def _compared(value: str, condition: Comparison) -> Iterator[str]:
    """Yield predicates of a code; a comparison holds if one of them does."""
    codes = [code_of(one) for one in condition.values]
    if condition.operator == "in":
        if _NOTHING in codes:
            yield f"{value} IS NULL"
        yield f"{value} IN ({', '.join(map(_literal, codes))})" if codes else "false"
        return
    yield _range(value, [condition])


def _literal(text: str) -> str:
    """A text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def _ranges_in(
    parts: Iterable[Condition],
) -> tuple[dict[tuple[str, str], list[Comparison]], list[Condition]]:
    """Split conditions into bounds, by type and metadata key, and all others."""
    ranges: dict[tuple[str, str], list[Comparison]] = {}
    others: list[Condition] = []
    with_columns = {HEADING, *_COLUMNS}
    for part in parts:
        match part:
            case Comparison(key, "$gt" | "$gte" | "$lt" | "$lte", (bound,), False) if (
                key not in with_columns
            ):
                # Bounds on one value become one range, without extra bounds of their type.
                ranges.setdefault((code_of(bound)[0], _value("is", key)), []).append(part)
            case _:
                others.append(part)
    return ranges, others


def _range(value: str, bounds: Sequence[Comparison]) -> str:
    """Predicate of a code of the type of some bounds, within these bounds."""
    codes = [(_SQL[bound.operator], code_of(bound.values[0])) for bound in bounds]
    kind = codes[0][1][0]
    signs = "".join(sign for sign, _ in codes)
    # Codes of other types begin with another letter.
    codes += [] if ">" in signs else [(">=", kind)]
    codes += [] if "<" in signs else [("<", chr(ord(kind) + 1))]
    within = " AND ".join(f"{value} {sign} {_literal(code)}" for sign, code in codes)
    return f"({within})"


def _lists(what: str, key: str, values: Iterable[object]) -> Iterator[str]:
    """Yield the predicates of rows with one of some values in a list under a key."""
    for code in sorted({digest(code_of(value)) for value in values}):
        yield f"json_array_contains(facts, '$.{_name(what, key)}', '{code}')"
    yield "false"


def _value(what: str, key: str) -> str:
    """Expression of the code under a key; it is null if there is none."""
    return f"json_get_string(facts, '{_name(what, key)}')"


# Most chunks have most keys in common.
@lru_cache(maxsize=20_000)
def _name(what: str, key: str) -> str:
    """Name of a key of the JSON; it begins with a letter, as a JSON path requires."""
    return f"k{digest(f'{what}:{key}')[:16]}"


def _number(value: float) -> str:
    """
    Code of a number, exact for ints and floats of any size, in the order of numbers.

    It consists of the sign, the exponent of the highest bit, and the bits after it; for a negative
    number, all digits but the sign are inverted.
    """
    if not value or (isinstance(value, float) and math.isinf(value)):
        return "3" if value > 0 else "1" if not value else "/"
    numerator, denominator = abs(value).as_integer_ratio()
    exponent = numerator.bit_length() - denominator.bit_length()
    bits = bin(numerator)[3:].rstrip("0")
    bits = bits.ljust(-(-len(bits) // 4) * 4, "0")
    digits = f"{exponent + 2**31:08x}" + (f"{int(bits, 2):0{len(bits) // 4}x}" if bits else "")
    if value > 0:
        return f"2{digits}"
    return f"0{digits.translate(_INVERTED)}~"


_INVERTED = str.maketrans("0123456789abcdef", "fedcba9876543210")


FRAME = ("document_id", "source", "ordinal", "start", "end", "text", "of_document", "of_chunk")
"""The columns of a store's DataFrame."""

Ranking: TypeAlias = list[tuple[int, float]]
"""Chunks by the ids of their rows in one version of the table, with their scores, best first."""

_IN_PREDICATE = 500
"""Values listed in one predicate."""


def run_search(table: LanceTable, search: Search, condition: Condition | None) -> Hits:
    """Run a search in one version of a table, and return its hits."""
    predicate = predicate_of(condition, partial(_titles, table))
    # Each ranking reads the condition's column for itself; LanceDB works without Python's lock.
    with ThreadPoolExecutor(1) as thread:
        ranked = thread.submit(_worded, table, search, predicate)
        near = _nearest(table, search, predicate)
        worded = ranked.result()
    cosines, scores = dict(near), dict(worded)

    def read(rows: list[int]) -> list[Hit]:
        others = [row for row in rows if row not in scores]
        scores.update(_by_words(table, search.words, len(others), _among(others)))
        return _hits(table, search.vector, rows, cosines, scores)

    return search.best_hits(search.joined(near, worded), read)


def _titles(table: LanceTable) -> set[str]:
    """Titles of all headings."""
    rows = table.search().where(has_key(HEADING)).select(["of_chunk"]).to_arrow()
    return {
        title for text in {*rows["of_chunk"].to_pylist()} for title in titles_of(json.loads(text))
    }


def vectors_of_texts(table: LanceTable, texts: Sequence[str]) -> list[NDArray[np.float32] | None]:
    """Vectors of chunks with these texts; None for a text that no chunk has."""
    digests = [digest(text) for text in texts]
    unique = list(dict.fromkeys(digests))
    known: dict[str, NDArray[np.float32]] = {}
    for start in range(0, len(unique), _IN_PREDICATE):
        listed = ", ".join(f"'{each}'" for each in unique[start : start + _IN_PREDICATE])
        found = table.search().where(f"text_digest IN ({listed})")
        rows = found.select(["text_digest", "vector"]).to_arrow()
        known.update(zip(rows["text_digest"].to_pylist(), _vectors_in(rows), strict=True))
    return [known.get(each) for each in digests]


def _nearest(table: LanceTable, search: Search, predicate: str) -> Ranking:
    """The nearest chunks to a query's vector, of those that a predicate selects."""
    query = search.vector
    if query is None or search.mode == "keyword" or not query.any():
        return []
    rows = (
        table.search(query, query_type="vector", vector_column_name="vector")
        .distance_type("cosine")
        .where(predicate, prefilter=True)
        .select(["_distance"])
        .with_row_id(True)
        .limit(search.depth)
        .to_arrow()
    )
    cosines = (1 - rows["_distance"].to_numpy()).tolist()
    near = zip(rows["_rowid"].to_pylist(), cosines, strict=True)
    return [(row, cosine) for row, cosine in near if search.is_near(cosine)]


def _worded(table: LanceTable, search: Search, predicate: str) -> Ranking:
    """The best chunks by BM25, of those that are near enough and that a predicate selects."""
    if search.mode == "vector":
        return []
    if search.min_score is None:
        return _by_words(table, search.words, search.depth, predicate)
    # How many of the best are not near enough is unknown: read until there are enough that are.
    ranking = _by_words(table, search.words, table.count_rows(), predicate)
    found: Ranking = []
    while ranking and len(found) < search.depth:
        block, ranking = ranking[:_IN_PREDICATE], ranking[_IN_PREDICATE:]
        hits = _hits(table, search.vector, [row for row, _ in block])
        found += [
            pair for pair, hit in zip(block, hits, strict=True) if search.is_near(hit.vector_score)
        ]
    return found[: search.depth]


def _by_words(table: LanceTable, words: Sequence[str], k: int, predicate: str) -> Ranking:
    """The `k` best chunks by BM25, of those that have a word and that a predicate selects."""
    from lancedb.query import MatchQuery

    if not words or not k:
        return []
    rows = (
        table.search(MatchQuery(" ".join(words), "words"), query_type="fts")
        .where(predicate, prefilter=True)
        .select(["_score"])
        .with_row_id(True)
        .limit(k)
        .to_arrow()
    )
    return list(zip(rows["_rowid"].to_pylist(), rows["_score"].to_pylist(), strict=True))


def _among(rows: Sequence[int]) -> str:
    """Predicate of some rows."""
    return f"_rowid IN ({', '.join(map(str, rows))})"


def _hits(
    table: LanceTable,
    query: NDArray[np.float32] | None,
    rows: list[int],
    cosines: Mapping[int, float] = {},
    scores: Mapping[int, float] = {},
) -> list[Hit]:
    """Read chunks as hits, with their partial scores; an unknown cosine is computed."""
    found = table.take_row_ids(rows).select([*FRAME, "vector"]).with_row_id().to_arrow()
    ids = found["_rowid"].to_pylist()
    if query is not None:
        computed = (scaled_to_one(_vectors_in(found)) @ query).tolist()
        cosines = {**dict(zip(ids, computed, strict=True)), **cosines}
    hits = {}
    for id_, row in zip(ids, found.drop_columns(["vector"]).to_pylist(), strict=True):
        metadata = json.loads(row["of_document"]) | json.loads(row["of_chunk"])
        place = row["document_id"], row["source"], row["text"], row["start"], row["end"]
        hits[id_] = Hit(*place, 0.0, metadata, cosines.get(id_), scores.get(id_))
    return [hits[id_] for id_ in rows]


def _vectors_in(rows: pa.Table) -> NDArray[np.float32]:
    """Vectors of rows that were read, `(number of rows, dimension)`."""
    column = rows["vector"].combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    matrix: NDArray[np.float32] = flat.reshape(len(column), column.type.list_size)
    return matrix
