"""Conditions on metadata as predicates over hashed facts, for a store without JSON in its SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b

from ragasync.documents.where import HEADING, Condition, kind_of, titles_of

EVERY_CHUNK = "ordinal >= 0"
"""The predicate of all rows that are chunks; a document itself has a row with ordinal -1."""


def digest(text: str) -> str:
    """Return hexadecimal digits for a text, which can stand in any predicate."""
    return blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def facts_of(metadata: Mapping[str, object]) -> list[str]:
    """
    Return what can be asked of metadata: that a key has a value, and that it has just this one.

    Each fact is a digest, so that no key and no value is ever part of a predicate. None counts as
    no value, and a list or dict as one that equals nothing.
    """
    present = [(key, value) for key, value in metadata.items() if value is not None]
    keys = [_has(str(key)) for key, _ in present]
    titles = [_is(HEADING, title) for title in titles_of(metadata)]
    return keys + titles + [_is(str(key), value) for key, value in present if kind_of(value)]


def predicate_of(
    conditions: Iterable[Condition], values_of: Callable[[str], Iterable[object]]
) -> str:
    """
    Return the predicate of the chunks of which all conditions hold.

    Args:
        conditions: What has to hold.
        values_of: Gives all values that are stored under a key: an order among hashes tells
            nothing, so that the values that fit are looked for first.
    """
    parts = [EVERY_CHUNK]
    for condition in conditions:
        if condition.operator in ("in", "$ne"):
            part = _any_of(condition.key, condition.values)
            parts.append(f"NOT ({part})" if condition.operator == "$ne" else f"({part})")
        else:
            fitting = filter(condition.holds, values_of(condition.key))
            parts.append(f"({_any_of(condition.key, fitting)})")
    return " AND ".join(parts)


def has_key(key: str) -> str:
    """Return the predicate of the chunks that have a value under a key."""
    return f"{EVERY_CHUNK} AND {_among([_has(key)])}"


def _any_of(key: str, values: Iterable[object]) -> str:
    """Return the predicate of the rows that have any of these values under a key."""
    values = list(values)
    facts = sorted({_is(key, value) for value in values if value is not None})
    parts = [_among(facts)] if facts else []
    if len(facts) < len(values) and None in values:
        parts.append(f"NOT {_among([_has(key)])}")
    return " OR ".join(parts) or "false"


def _among(facts: Iterable[str]) -> str:
    """Return the predicate of the rows with any of these facts."""
    listed = ", ".join(f"'{fact}'" for fact in facts)
    return f"array_has_any(facts, [{listed}])"


def _has(key: str) -> str:
    """Return the fact that a key has a value."""
    return _hashed(f"has:{key}")


def _is(key: str, value: object) -> str:
    """Return the fact that a key has this value, the same for 1 and 1.0."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return _hashed(f"is:{len(key)}:{key}:{kind_of(value)}:{value}")


# Most chunks of a document have most facts in common.
@lru_cache(maxsize=20_000)
def _hashed(fact: str) -> str:
    """Return the digest of a fact."""
    return digest(fact)
