"""Random numbers without a generator's state: the same seed, key and attempt give the same bits."""

from __future__ import annotations

import hashlib

_MASK = (1 << 64) - 1
_ITEM = 0x9E3779B97F4A7C15  # odd numbers, so that neighbouring keys land far apart
_ATTEMPT = 0xD1342543DE82EF95


def key_of(item: object) -> int:
    """The key of an item, the same on every machine."""
    if type(item) is int:
        return item
    text = item if isinstance(item, str) else repr(item)
    return int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest())


def key_of_batch(items: list[object]) -> int:
    """The key of a batch, which depends on the order of its items."""
    key = len(items)
    for item in items:
        key = scramble(key + key_of(item))
    return key


def random_bits(seed: int, key: int, attempt: int = 0) -> int:
    """64 random bits for an attempt at a key."""
    return scramble(seed + key * _ITEM + attempt * _ATTEMPT)


def scramble(number: int) -> int:
    """
    Turn a number into 64 bits that look random.

    The finaliser of SplitMix64: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number
    Generators", OOPSLA 2014.
    """
    number &= _MASK
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _MASK
    return number ^ (number >> 31)


def unit_interval(bits: int) -> float:
    """64 bits as a number strictly between 0 and 1."""
    return ((bits >> 11) + 0.5) * 2.0**-53
