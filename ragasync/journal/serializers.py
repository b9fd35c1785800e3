"""Serializers of values: plain data, arrays or pickles to bytes and back, without changes."""

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
    Turns a value into bytes, and the bytes back into the same value.

    Attributes:
        name: its name in the journal's header.
    """

    @property
    def name(self) -> str:
        """Its name in the journal's header."""

    def dumps(self, value: object) -> bytes:
        """
        Serialize a value.

        Raises:
            TypeError: the value would change; the message says why.
        """

    def loads(self, data: bytes) -> Any:
        """Deserialize a value."""


class JSONSerializer:
    """
    Stores plain data as JSON, and refuses values that would change, such as tuples.

    A list of floats, such as a vector, is stored as a zero byte (with which no JSON begins) and 8
    bytes per float, because writing 256 floats as JSON takes 30 times as long.
    """

    name = "json"

    def dumps(self, value: object) -> bytes:
        """Serialize plain data as JSON, or a list of floats as doubles."""
        if type(value) is list and set(map(type, value)) == {float}:
            return _FLOATS + _little_endian(array("d", value)).tobytes()
        if (why := _not_plain(value, "")) is not None:
            raise TypeError(why)
        try:
            return json.dumps(value, separators=(",", ":")).encode()
        except ValueError as error:  # a cycle, or an int with too many digits
            raise TypeError(str(error)) from error

    def loads(self, data: bytes) -> Any:
        """Deserialize JSON or floats."""
        if data[:1] != _FLOATS:
            return json.loads(data)
        floats = array("d")
        floats.frombytes(data[1:])
        return _little_endian(floats).tolist()


class NumpySerializer:
    """Stores numpy arrays in numpy's own format, but no arrays of objects."""

    name = "numpy"

    def dumps(self, value: object) -> bytes:
        """Serialize an array as the content of an .npy file."""
        import numpy as np

        if type(value) is not np.ndarray:
            raise TypeError(f"it is not a numpy array but of type {type(value).__name__}")
        if value.dtype.hasobject:
            raise TypeError("it is an array of Python objects, which only a pickle can store")
        file = BytesIO()
        np.save(file, value, allow_pickle=False)
        return file.getvalue()

    def loads(self, data: bytes) -> Any:
        """Deserialize an array."""
        import numpy as np

        return np.load(BytesIO(data), allow_pickle=False)


class PickleSerializer:
    """Stores pickles; loading a file of unknown origin can run code."""

    name = "pickle"

    def dumps(self, value: object) -> bytes:
        """Serialize a value as a pickle."""
        try:
            return pickle.dumps(value)
        except Exception as error:
            raise TypeError(f"it cannot be pickled: {error}") from error

    def loads(self, data: bytes) -> Any:
        """Load a pickle; the user has chosen this serializer by name."""
        return pickle.loads(data)


SERIALIZERS: dict[str, Serializer] = {
    one.name: one for one in (JSONSerializer(), NumpySerializer(), PickleSerializer())
}


def get_serializer(given: str | Serializer) -> Serializer:
    """
    Get a serializer by name; an object with the right methods is returned as it is.

    Raises:
        ValueError: there is no serializer of this name.
        TypeError: it is neither a name nor a serializer.
    """
    if isinstance(given, str):
        if given not in SERIALIZERS:
            raise ValueError(
                f"serializer must be one of {[*SERIALIZERS]}, or an object, got {given!r}"
            )
        return SERIALIZERS[given]
    if not all(hasattr(given, part) for part in ("name", "dumps", "loads")):
        raise TypeError(
            f"serializer must be one of {[*SERIALIZERS]}, or an object with name, dumps and loads, "
            f"got {given!r}"
        )
    return given


def _little_endian(floats: array[float]) -> array[float]:
    """Convert floats between the machine's byte order and that of the file, little-endian."""
    if sys.byteorder == "big":
        floats.byteswap()
    return floats


def _not_plain(value: object, place: str) -> str | None:
    """The part of a value that JSON would change, for an error; None if it would change nothing."""
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
                return f"its key {name!r:.100}{place} is not a str"
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
