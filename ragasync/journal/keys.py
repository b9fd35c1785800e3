"""What tells one item from another, in this process and in the next."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeAlias

KeyFunction: TypeAlias = Callable[[Any], object]
"""Makes plain data of an item, which tells it from the others."""

PREVIEW = 120
"""How many characters of a key a journal keeps for people to read."""

_PLAIN = (str, int, float, bool, type(None))
_BLOCK = 1 << 20

_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Key:
    """
    The key of an item.

    Args:
        digest: 16 bytes: BLAKE2b of the canonical text, or of a file's content.
        shown: the beginning of that text, or the file's path, for people.
    """

    digest: bytes
    shown: str


def key_of(item: object, key: KeyFunction | None = None) -> Key:
    """
    Return the key of an item: of what `key` makes of it, or of the item itself.

    Plain data (None, booleans, numbers, texts, and lists, tuples and dicts with text keys of
    these) is taken as canonical JSON, so that the order of a dict does not matter; bytes as they
    are; a path as the content of its file, and one that cannot be read as its name.

    Raises:
        TypeError: it is something else.
    """
    given = item if key is None else key(item)
    # Most of them: what follows would say the same, at length.
    if type(given) is str or (type(given) is int and given.bit_length() <= 64):
        written = _canonical.encode(given)
        shown = given if isinstance(given, str) else written
        return Key(_digest(b"json", written.encode()), shown[:PREVIEW])
    if isinstance(given, bytes):
        return Key(_digest(b"bytes", given), repr(given[:PREVIEW]))
    if isinstance(given, os.PathLike):
        return _key_of_file(Path(given))
    text = canonical_json(given)
    if text is None:
        raise TypeError(_advice(item, given, key))
    shown = given if isinstance(given, str) else text
    return Key(_digest(b"json", text.encode()), shown[:PREVIEW])


def canonical_json(value: object) -> str | None:
    """Return plain data as JSON that does not depend on the order of dicts, or None."""
    if not _is_plain(value):
        return None
    try:
        return _canonical.encode(value)
    except (ValueError, RecursionError):  # a circle, or more digits than Python writes
        return None


def _is_plain(value: object) -> bool:
    """Return whether a value is made of plain data only, exactly: no subclass, no other keys."""
    kind = type(value)
    if kind in _PLAIN:
        return True
    try:
        if isinstance(value, list | tuple) and kind in (list, tuple):
            return all(map(_is_plain, value))
        if isinstance(value, dict) and kind is dict:
            return all(type(name) is str for name in value) and all(map(_is_plain, value.values()))
    except RecursionError:
        return False
    return False


def _key_of_file(path: Path) -> Key:
    """Return the key of a file by its content; of what is none, or cannot be read, by its name."""
    shown = str(path)[-PREVIEW:]
    digest = blake2b(b"file", digest_size=16)
    by_name = Key(_digest(b"name", str(path).encode(errors="surrogatepass")), shown)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would wait for a writer
            return by_name
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except (OSError, ValueError):  # whoever is to process it will say what is wrong
        return by_name
    return Key(digest.digest(), shown)


def _digest(kind: bytes, content: bytes) -> bytes:
    """Return the digest of some content; the kind keeps texts, bytes and files apart."""
    return blake2b(content, digest_size=16, person=kind).digest()


def _advice(item: object, given: object, key: KeyFunction | None) -> str:
    """Say what a key must be."""
    if key is not None:
        return (
            f"key= must give plain data, such as a text, for each item, got {given!r:.200} "
            f"of type {type(given).__name__}"
        )
    return (
        f"a journal tells items apart by their content, and that of {item!r:.200} (of type "
        f"{type(item).__name__}) is not plain data: pass key=, a function that gives a text, a "
        f"number or the like for each item, such as key=lambda item: item.id"
    )
