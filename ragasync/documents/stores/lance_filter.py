"""Conditions on metadata as predicates over a JSON column."""

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
"""The predicate of all rows that are chunks; a document itself has a row with ordinal -1."""

_NEVER_ASKED = frozenset({"page_starts", "cell_starts"})
"""What loaders leave for the splitters: long lists, the same in each chunk."""

_COLUMNS = {"id": "document_id", "source": "source"}
"""What is asked of the document itself, and in which column it stands."""

_NOTHING, _OTHER = "-", "x"
_SQL = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_WHOLE = 200
"""Bytes of a text that its code has in order; of a longer one, it has a digest of the whole too."""


class StoredTexts(Protocol):
    """Gives texts that are stored, where conditions have to be compared with each of them."""

    def titles(self) -> Iterable[str]:
        """Return the titles of all headings."""

    def texts(self, key: str, predicate: str) -> Iterable[str]:
        """Return the texts under a key of the chunks that a predicate holds of."""


def digest(text: str) -> str:
    """Return hexadecimal digits for a text, which can stand in any predicate."""
    return blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def facts_of(metadata: Mapping[str, object]) -> str:
    """
    Return a JSON object with the coded values of metadata, for conditions to look into.

    A value is coded so that the order of codes is that of values, within a kind; a list has the
    codes of its entries, and a text that is a date has that of its seconds since 1970. Keys are
    digests and codes are made of digits and letters, so that no key and no value of anybody's
    metadata is ever part of a predicate.
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
    Return the predicate of the chunks of which a condition holds.

    Args:
        condition: What has to hold.
        stored: Gives texts that are stored, where their codes do not tell their order.
    """
    if condition is None:
        return EVERY_CHUNK
    return f"{EVERY_CHUNK} AND {_predicate(condition, stored)}"


def has_key(key: str) -> str:
    """Return the predicate of the chunks that have a value under a key."""
    return f"{EVERY_CHUNK} AND {_value('is', key)} IS NOT NULL"


def code_of(value: object) -> str:
    """Return the text that stands for a value: the codes of a kind are in the values' order."""
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
    """Yield the predicates of which one must hold for a comparison to hold."""
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
    """Return the predicate of a column of texts, of which only texts and None can be true."""
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
    """Return whether a text has no lone surrogates, which nothing that is stored has."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _compared(value: str, condition: Comparison) -> Iterator[str]:
    """Yield the predicates of which one must hold of a coded value."""
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
    Yield the predicates of which one must hold for an order of texts that are long.

    Codes have the order of their first bytes only: of those that are alike, each is compared.
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
    """Return whether a value is a text whose code does not have all of it in order."""
    return isinstance(value, str) and ":" in code_of(value)


def _ranges_in(
    parts: Iterable[Condition],
) -> tuple[dict[tuple[str, str], list[Comparison]], list[Condition]]:
    """Return the orders among conditions by kind and value, and the other conditions."""
    ranges: dict[tuple[str, str], list[Comparison]] = {}
    others: list[Condition] = []
    looked_up_apart = {HEADING, *_COLUMNS}
    for part in parts:
        match part:
            case Comparison(key, "$gt" | "$gte" | "$lt" | "$lte", (bound,), False) if (
                key not in looked_up_apart and not _is_long(bound)
            ):
                # Each look into the JSON takes time: a value between two bounds is looked up once.
                ranges.setdefault((code_of(bound)[0], _value("is", key)), []).append(part)
            case _:
                others.append(part)
    return ranges, others


def _range(value: str, bounds: Sequence[Comparison]) -> str:
    """Return the predicate of a coded value within bounds of one kind, and of that kind."""
    codes = [(_SQL[bound.operator], code_of(bound.values[0])) for bound in bounds]
    kind = codes[0][1][0]
    signs = "".join(sign for sign, _ in codes)
    # Codes of other kinds begin with another letter.
    codes += [] if ">" in signs else [(">=", kind)]
    codes += [] if "<" in signs else [("<", chr(ord(kind) + 1))]
    within = " AND ".join(f"{value} {sign} '{code}'" for sign, code in codes)
    return f"({within})"


def _lists(what: str, key: str, values: Iterable[object]) -> Iterator[str]:
    """Yield the predicates of the rows with one of these values in a list of facts about a key."""
    for code in sorted({code_of(value) for value in values}):
        yield f"json_array_contains(facts, '$.{_name(what, key)}', '{code}')"
    yield "false"


def _value(what: str, key: str) -> str:
    """Return the expression of a fact about a key; it is null where there is none."""
    return f"json_get_string(facts, '{_name(what, key)}')"


# Most chunks have most keys in common.
@lru_cache(maxsize=20_000)
def _name(what: str, key: str) -> str:
    """Return the name of a fact about a key; a letter first, as a JSON path wants it."""
    return f"k{digest(f'{what}:{key}')[:16]}"


def _number(value: float) -> str:
    """
    Return a text for a number, exact for ints and floats of any size, in the order of numbers.

    That is its sign, the exponent of its highest bit, and the bits after it; of a negative number
    all but the sign is turned round.
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
    return f"0{digits.translate(_TURNED)}~"


_TURNED = str.maketrans("0123456789abcdef", "fedcba9876543210")
