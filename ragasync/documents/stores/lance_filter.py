"""Conditions on metadata, as predicates over a JSON column of a LanceDB table."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Protocol

from ragasync.documents.filters import (
    HEADING,
    HEADINGS,
    AllOf,
    AnyOf,
    Comparison,
    Condition,
    Not,
    day_of,
    instant,
    kind_of,
)

EVERY_CHUNK = "ordinal >= 0"
"""Predicate of all rows of chunks; a document has a row of its own, with ordinal -1."""

_NEVER_ASKED = frozenset({"page_starts", "cell_starts"})
"""Keys that loaders set for the splitters: long lists, the same in each chunk."""

_COLUMNS = {"id": "document_id", "source": "source"}
"""Columns of the keys that have one."""

_NOTHING, _OTHER = "-", "x"
_SQL = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_WHOLE = 200
"""Bytes of a text that its code contains; that of a longer text ends with a digest of all of it."""


class StoredTexts(Protocol):
    """Stored texts, for the conditions that have to be compared with each of them."""

    def titles(self) -> Iterable[str]:
        """Titles of all headings."""

    def texts(self, key: str, predicate: str) -> Iterable[str]:
        """Texts under a metadata key of the chunks that a predicate selects."""


def digest(text: str) -> str:
    """Digest of a text as hexadecimal digits, which are safe in any predicate."""
    return blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def facts_of(metadata: Mapping[str, object]) -> str:
    """
    JSON object with the codes of metadata values, which the predicates of conditions read.

    Codes have the order of their values, within a type; a list has the codes of its entries, and a
    text that is a date also has the code of its seconds since 1970. Keys are digests, and codes
    consist of digits and letters: neither keys nor values of metadata are ever part of a predicate.
    """
    facts: dict[str, object] = {}
    for key, value in metadata.items():
        facts[_name("is", key)] = code_of(value)
        if isinstance(value, list | tuple) and key not in _NEVER_ASKED:
            facts[_name("list", key)] = [code_of(each) for each in value if kind_of(each)]
            dates = [instant(each) for each in value if isinstance(each, str)]
            facts[_name("dates", key)] = [code_of(each) for each in dates if each is not None]
            days = {day_of(each) for each in value} - {None}
            facts[_name("days", key)] = [code_of(day) for day in days]
        if isinstance(value, str) and (seconds := instant(value)) is not None:
            facts[_name("date", key)] = code_of(seconds)
    return json.dumps(facts)


def predicate_of(condition: Condition | None, stored: StoredTexts) -> str:
    """
    Predicate of the chunks that match a condition.

    Args:
        condition: The condition; None for all chunks.
        stored: The stored texts, to compare those whose order is not that of their codes.
    """
    if condition is None:
        return EVERY_CHUNK
    return f"{EVERY_CHUNK} AND {_predicate(condition, stored)}"


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
            data = value.encode(errors="surrogatepass")
            rest = f":{digest(value)}" if len(data) > _WHOLE else ""
            return f"t{data[:_WHOLE].hex()}{rest}"
        case _:
            return _OTHER


def _predicate(condition: Condition, stored: StoredTexts) -> str:
    """
    Predicate of a condition; it is true, or false or null where the condition does not hold.

    Null counts as false in a filter and within AND and OR; only a negation has to map it to true.
    (`coalesce(x, false)` would do that as well, but Lance rewrites it to `x IS NOT NULL AND x`,
    which looks into the JSON twice.)
    """
    match condition:
        case Comparison():
            return f"({' OR '.join(_comparisons(condition, stored))})"
        case Not(part):
            return f"{_predicate(part, stored)} IS NOT TRUE"
        case AllOf(parts):
            ranges, others = _ranges_in(parts)
            held = [_range(value, bounds) for (_, value), bounds in ranges.items()]
            held += [_predicate(part, stored) for part in others]
            return f"({' AND '.join(held) or 'true'})"
        case AnyOf(parts):
            held = [_predicate(part, stored) for part in parts]
            return f"({' OR '.join(held)})"


def _comparisons(condition: Comparison, stored: StoredTexts) -> Iterator[str]:
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
    if condition.operator in _SQL and _is_long(values[0]):
        yield from _compared_whole(condition, stored)
    else:
        yield from _compared(_value("is", key), condition)
    if condition.of_dates:
        yield from _compared(_value("date", key), condition)
    if key == HEADING:
        yield from _lists("list", HEADINGS, filter(condition.holds, stored.titles()))


def _of_column(column: str, condition: Comparison) -> str:
    """Predicate of a column of texts, which equals nothing but texts and None."""
    texts = [value for value in condition.values if isinstance(value, str) and _is_utf8(value)]
    literals = [f"'{text.replace(chr(39), chr(39) * 2)}'" for text in texts]
    parts = []
    if condition.operator in _SQL and literals:
        parts.append(f"{column} {_SQL[condition.operator]} {literals[0]}")
    elif condition.operator == "in" and literals:
        parts.append(f"{column} IN ({', '.join(literals)})")
    if condition.operator == "in" and None in condition.values:
        parts.append(f"{column} IS NULL")
    return " OR ".join(parts) or "false"


def _is_utf8(text: str) -> bool:
    """Whether a text has no lone surrogates, as all stored texts."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _compared(value: str, condition: Comparison) -> Iterator[str]:
    """Yield predicates of a code; a comparison holds if one of them does."""
    codes = [code_of(one) for one in condition.values]
    if condition.operator == "in":
        if _NOTHING in codes:
            yield f"{value} IS NULL"
        listed = ", ".join(f"'{code}'" for code in codes)
        yield f"{value} IN ({listed})" if codes else "false"
        return
    yield _range(value, [condition])


def _compared_whole(condition: Comparison, stored: StoredTexts) -> Iterator[str]:
    """
    Yield predicates; a comparison with a long text holds if one of them does.

    Codes have the order of the first bytes only: texts that begin alike are compared one by one.
    """
    value, code = _value("is", condition.key), code_of(condition.values[0])
    first, last = code.partition(":")[0] + ":", code.partition(":")[0] + ";"
    alike = f"({value} >= '{first}' AND {value} < '{last}')"
    if condition.operator in ("$lt", "$lte"):
        yield f"({value} >= '{code[0]}' AND {value} < '{first}')"
    else:
        yield f"({value} >= '{last}' AND {value} < '{chr(ord(code[0]) + 1)}')"
    held = {code_of(text) for text in stored.texts(condition.key, alike) if condition.holds(text)}
    if held:
        listed = ", ".join(f"'{each}'" for each in sorted(held))
        yield f"({value} IN ({listed}))"


def _is_long(value: object) -> bool:
    """Whether a value is a text whose code contains only its first bytes."""
    return isinstance(value, str) and ":" in code_of(value)


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
                key not in with_columns and not _is_long(bound)
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
    within = " AND ".join(f"{value} {sign} '{code}'" for sign, code in codes)
    return f"({within})"


def _lists(what: str, key: str, values: Iterable[object]) -> Iterator[str]:
    """Yield the predicates of rows with one of some values in a list under a key."""
    for code in sorted({code_of(value) for value in values}):
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
