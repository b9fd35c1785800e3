"""Chance without a generator's state: the same question gets the same answer, asked whenever."""

from __future__ import annotations

import hashlib

_MASK = (1 << 64) - 1
_ITEM = 0x9E3779B97F4A7C15  # odd numbers, so that neighbours land far from each other
_ATTEMPT = 0xD1342543DE82EF95


def key_of(item: object) -> int:
    """Return a number that stands for an item, on every machine the same."""
    if type(item) is int:
        return item
    text = item if isinstance(item, str) else repr(item)
    return int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest())


def key_of_all(items: list[object]) -> int:
    """Return a number that stands for a batch, whose order counts."""
    key = len(items)
    for item in items:
        key = scrambled(key + key_of(item))
    return key


def draw(seed: int, key: int, attempt: int = 0) -> int:
    """Return 64 bits of chance for the attempt at a key."""
    return scrambled(seed + key * _ITEM + attempt * _ATTEMPT)


def scrambled(number: int) -> int:
    """
    Return 64 bits that tell nothing of the number they come from.

    The finaliser of SplitMix64: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number
    Generators", OOPSLA 2014.
    """
    number &= _MASK
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _MASK
    return number ^ (number >> 31)


def share(bits: int) -> float:
    """Return 64 bits as a number strictly between 0 and 1."""
    return ((bits >> 11) + 0.5) * 2.0**-53
