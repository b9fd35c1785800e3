"""Keys of items in a journal, the same in every process."""

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
"""Maps an item to plain data that identifies it."""

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
        preview: the beginning of that text, or the file's path, for people.
    """

    digest: bytes
    preview: str


def make_key(item: object, key: KeyFunction | None = None) -> Key:
    """
    Make the Key of an item, from the value of `key` or from the item itself.

    Plain data (None, booleans, numbers, strings, and lists, tuples and dicts of these with string
    keys) becomes canonical JSON, so that the order of a dict does not matter. Bytes are used as
    they are, a path by the content of its file, or by its name if the file cannot be read.

    Raises:
        TypeError: the value is something else.
    """
    given = item if key is None else key(item)
    # Fast path for the most common items, with the same result as below.
    if type(given) is str or (type(given) is int and given.bit_length() <= 64):
        written = _canonical.encode(given)
        preview = given if isinstance(given, str) else written
        return Key(_digest(b"json", written.encode()), preview[:PREVIEW])
    if isinstance(given, bytes):
        return Key(_digest(b"bytes", given), repr(given[:PREVIEW]))
    if isinstance(given, os.PathLike):
        return _key_of_file(Path(given))
    text = canonical_json(given)
    if text is None:
        raise TypeError(_advice(item, given, key))
    preview = given if isinstance(given, str) else text
    return Key(_digest(b"json", text.encode()), preview[:PREVIEW])


def canonical_json(value: object) -> str | None:
    """Plain data as JSON that does not depend on the order of dicts; None for other data."""
    if not _is_plain(value):
        return None
    try:
        return _canonical.encode(value)
    except (ValueError, RecursionError):  # a cycle, or an int with too many digits
        return None


def _is_plain(value: object) -> bool:
    """Whether a value consists of plain data only, without subclasses or other dict keys."""
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
    """Key of a file by its content, or by its name if it is not a readable regular file."""
    preview = str(path)[-PREVIEW:]
    digest = blake2b(b"file", digest_size=16)
    by_name = Key(_digest(b"name", str(path).encode(errors="surrogatepass")), preview)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would block
            return by_name
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except (OSError, ValueError):  # processing the file will raise the same error
        return by_name
    return Key(digest.digest(), preview)


def _digest(kind: bytes, content: bytes) -> bytes:
    """Digest of some content; the kind makes strings, bytes and files differ."""
    return blake2b(content, digest_size=16, person=kind).digest()


def _advice(item: object, given: object, key: KeyFunction | None) -> str:
    """Error message that says what a key must be."""
    if key is not None:
        return (
            f"key= must return plain data, such as a str, for each item, got {given!r:.200} "
            f"of type {type(given).__name__}"
        )
    return (
        f"a journal identifies items by their content, and that of {item!r:.200} (of type "
        f"{type(item).__name__}) is not plain data: pass key=, a function that returns a str or a "
        f"number for each item, such as key=lambda item: item.id"
    )
