"""How the values of a job become bytes, which of them are refused, and how they come back."""

from __future__ import annotations

import json
import pickle
import sys
from array import array
from io import BytesIO
from typing import Any, Protocol

_FLOATS = b"\0"

_PLAIN = {str, int, float, bool, type(None)}


class Serializer(Protocol):
    """
    Makes bytes of a value and the same value of these bytes.

    Attributes:
        name: what the journal's header remembers it by.
    """

    @property
    def name(self) -> str:
        """What the journal's header remembers it by."""

    def dumps(self, value: object) -> bytes:
        """
        Return a value as bytes.

        Raises:
            TypeError: the value would not come back as it is; the message says why.
        """

    def loads(self, data: bytes) -> Any:
        """Return the value that these bytes were made of."""


class Json:
    """
    Keeps plain data as JSON, and refuses what would come back changed, such as a tuple.

    A list of floats alone, which is what most embedders give, is kept as 8 bytes each behind a
    zero byte, with which no JSON begins: writing out 256 of them takes 30 times as long.
    """

    name = "json"

    def dumps(self, value: object) -> bytes:
        """Return plain data as JSON, floats as they are in memory."""
        if type(value) is list and set(map(type, value)) == {float}:
            return _FLOATS + _little_endian(array("d", value)).tobytes()
        if (why := _not_plain(value, "")) is not None:
            raise TypeError(why)
        try:
            return json.dumps(value, separators=(",", ":")).encode()
        except ValueError as error:  # a circle, or more digits than Python writes
            raise TypeError(str(error)) from error

    def loads(self, data: bytes) -> Any:
        """Return what was kept."""
        if data[:1] != _FLOATS:
            return json.loads(data)
        floats = array("d")
        floats.frombytes(data[1:])
        return _little_endian(floats).tolist()


class Numpy:
    """Keeps numpy arrays in numpy's own format, never as objects."""

    name = "numpy"

    def dumps(self, value: object) -> bytes:
        """Return an array as the content of an .npy file."""
        import numpy as np

        if type(value) is not np.ndarray:
            raise TypeError(f"it is no numpy array but of type {type(value).__name__}")
        if value.dtype.hasobject:
            raise TypeError("it is an array of Python objects, which only a pickle could hold")
        file = BytesIO()
        np.save(file, value, allow_pickle=False)
        return file.getvalue()

    def loads(self, data: bytes) -> Any:
        """Return the array."""
        import numpy as np

        return np.load(BytesIO(data), allow_pickle=False)


class Pickle:
    """Keeps whatever can be pickled; a file from elsewhere can run code when it is read."""

    name = "pickle"

    def dumps(self, value: object) -> bytes:
        """Return a value pickled."""
        try:
            return pickle.dumps(value)
        except Exception as error:
            raise TypeError(f"it cannot be pickled: {error}") from error

    def loads(self, data: bytes) -> Any:
        """Return the value; the caller has asked for pickles by name."""
        return pickle.loads(data)


BY_NAME: dict[str, Serializer] = {one.name: one for one in (Json(), Numpy(), Pickle())}


def as_serializer(given: str | Serializer) -> Serializer:
    """
    Return a serializer by name, or the one that was given.

    Raises:
        ValueError: there is none of this name.
        TypeError: it is neither a name nor a serializer.
    """
    if isinstance(given, str):
        if given not in BY_NAME:
            raise ValueError(f"serializer must be one of {[*BY_NAME]}, or an object, got {given!r}")
        return BY_NAME[given]
    if not all(hasattr(given, part) for part in ("name", "dumps", "loads")):
        raise TypeError(
            f"serializer must be one of {[*BY_NAME]}, or an object with name, dumps and loads, "
            f"got {given!r}"
        )
    return given


def _little_endian(floats: array[float]) -> array[float]:
    """Return floats in the order of bytes that is in the file, or back in the machine's own."""
    if sys.byteorder == "big":
        floats.byteswap()
    return floats


def _not_plain(value: object, place: str) -> str | None:
    """Return what of a value JSON would change, or None where it comes back as it is."""
    kind = type(value)
    if kind in _PLAIN:
        return None
    if isinstance(value, list) and kind is list:
        if _PLAIN.issuperset(map(type, value)):
            return None
        parts = enumerate(value)
    elif isinstance(value, dict) and kind is dict:
        for name in value:
            if type(name) is not str:
                return f"its key {name!r:.100}{place} is no text"
        parts = value.items()  # type: ignore[assignment]  # names instead of numbers
    else:
        return f"{'its entry' + place if place else 'it'} is of type {kind.__name__}"
    try:
        for name, part in parts:
            if (why := _not_plain(part, f"{place}[{name!r:.100}]")) is not None:
                return why
    except RecursionError:
        return "it is nested too deeply"
    return None
