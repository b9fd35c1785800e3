"""Trailing metadata of gRPC errors: text pairs that serve as headers, and binary RetryInfo."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from ragasync.foreign_errors import attribute, guarded

_RETRY_INFO = "google.rpc.retryinfo-bin"
_STATUS_DETAILS = "grpc-status-details-bin"


def metadata_of(error: BaseException) -> list[tuple[str, object]]:
    """Return the trailing metadata of a gRPC error: lower-case names, with str or bytes values."""
    read = attribute(error, "trailing_metadata")
    if read is None:
        return []
    pairs = guarded(lambda: [(str(k).lower(), v) for k, v in islice(read(), 64)])  # type: ignore[operator]
    return pairs if isinstance(pairs, list) else []


def retry_delays(error: BaseException) -> Iterator[float]:
    """Yield the delay in seconds of each google.rpc.RetryInfo in a gRPC error's metadata."""
    for name, value in metadata_of(error):
        if name == _RETRY_INFO:
            yield from _seconds_in_retry_info(value)
        elif name == _STATUS_DETAILS:
            # Field 3 of google.rpc.Status has the details, each an Any: 1 is its type, 2 its value.
            for detail in (dict(_fields(value)) for number, value in _fields(value) if number == 3):
                kind = detail.get(1)
                if isinstance(kind, bytes) and kind.endswith(b"google.rpc.RetryInfo"):
                    yield from _seconds_in_retry_info(detail.get(2))


def _seconds_in_retry_info(message: object) -> Iterator[float]:
    """Yield the delay of a google.rpc.RetryInfo: field 1, a Duration (1 seconds, 2 nanos)."""
    duration = dict(_fields(dict(_fields(message)).get(1)))
    seconds, nanos = duration.get(1, 0), duration.get(2, 0)
    # A negative number is encoded in 64 bits, so it would be too large for a Duration.
    if not (duration and isinstance(seconds, int) and isinstance(nanos, int)):
        return
    if seconds < 1 << 62 and nanos < 10**9:
        yield seconds + nanos / 1e9


def _fields(message: object) -> list[tuple[int, object]]:
    """
    Return the fields of a protobuf message: pairs of a field number and an int or bytes.

    It reads the wire format (protobuf.dev/programming-guides/encoding), because grpc works without
    Google's classes for these messages. Of a truncated message the complete fields count.
    """
    found: list[tuple[int, object]] = []
    data = iter(message if isinstance(message, bytes) else b"")
    while (key := _varint(data)) is not None:
        kind = key & 7
        size = {1: 8, 5: 4}.get(kind, 0) or _varint(data)
        if size is None:
            break
        found.append((key >> 3, size if kind == 0 else bytes(islice(data, min(size, 1 << 20)))))
    return found


def _varint(data: Iterator[int]) -> int | None:
    """Return the next varint of a protobuf message (7 bits a byte), or None at its end."""
    number = 0
    for place, byte in enumerate(islice(data, 10)):
        number |= (byte & 127) << (7 * place)
        if byte < 128:
            return number
    return None
