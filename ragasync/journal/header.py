"""The header of a journal file: its job, the fingerprints of the job's functions, a checksum."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from itertools import chain
from secrets import token_hex
from typing import Any, NamedTuple
from zlib import crc32

from ragasync._function_fingerprint import FunctionFingerprint, differences
from ragasync.errors import JournalError
from ragasync.sqlite_file import corruption_error

_MAX_FINGERPRINTS = 8
"""How many fingerprints of one function, by which outcomes were made, a header keeps."""

Header = Sequence[Any]
"""The columns of the table `job` that identify it: id, name, version, ..., checksum."""


class JobIdentity(NamedTuple):
    """
    The job that a journal belongs to.

    Args:
        name: the job's name.
        version: the user's version of the job.
        serializer: the name of the serializer of its values.
        functions: the fingerprints of its functions, by name.
    """

    name: str
    version: str
    serializer: str
    functions: Mapping[str, FunctionFingerprint]


def new_header(job: JobIdentity) -> Header:
    """The header of a new journal, with a random id."""
    functions = _to_json({name: [one] for name, one in job.functions.items()})
    header = (token_hex(16), *job[:3], functions, time.time())
    return (*header, _checksum(header))


def check_header(path: str, header: Header, job: JobIdentity) -> None:
    """
    Check that a journal belongs to this job.

    Raises:
        JournalError: it belongs to another job, or has another serializer.
        sqlite3.DatabaseError: the checksum does not match.
    """
    *fields, checksum = header
    if checksum != _checksum(fields):
        raise corruption_error("the checksum of its header does not match")
    _, name, version, serializer, *_ = fields
    if (name, version) != (job.name, job.version):
        raise JournalError(
            f"the journal {path!r} is of the job {name!r}, version {version!r}, and "
            f"this is the job {job.name!r}, version {job.version!r}: pass another path, or the "
            "name= and version= that it has, if it is the same job"
        )
    if serializer != job.serializer:
        raise JournalError(
            f"the journal {path!r} has the serializer {serializer!r}, and "
            f"this run has {job.serializer!r}: pass Journal(..., serializer={serializer!r})"
            + (" if you trust the source of the file" if serializer == "pickle" else "")
        )


def compare_functions(
    header: Header, functions: Mapping[str, FunctionFingerprint]
) -> tuple[list[str], tuple[str, int] | None]:
    """
    Compare a job's functions with all those that made the outcomes of a journal.

    Returns:
        The changes, for a warning; and the `functions` and `checksum` to write with the first
        outcome, or None.
    """
    identity, written, begun_at = header[:4], header[4], header[5]
    recorded = _from_json(written)
    described: dict[str, None] = {}
    for name, fingerprint in functions.items():
        known = [one for one in recorded.get(name, []) if one.is_known]
        found = [differences(one, fingerprint) for one in known]
        described.update(dict.fromkeys(chain.from_iterable(found)))
        if not known or (all(found) and fingerprint.is_known):
            recorded[name] = [*known[: _MAX_FINGERPRINTS - 1], fingerprint]
    now = _to_json(recorded)
    update = None if now == written else (now, _checksum([*identity, now, begun_at]))
    return list(described), update


def _checksum(fields: Header) -> int:
    """Checksum of a header; SQLite would not notice a changed digit."""
    return crc32(repr(tuple(fields)).encode(errors="replace"))


def _to_json(functions: Mapping[str, Sequence[FunctionFingerprint]]) -> str:
    """Fingerprints as JSON."""
    return json.dumps({name: [one.to_json() for one in each] for name, each in functions.items()})


def _from_json(text: str) -> dict[str, list[FunctionFingerprint]]:
    """Fingerprints from JSON."""
    functions: dict[str, list[str]] = json.loads(text)
    return {
        name: list(map(FunctionFingerprint.from_json, each)) for name, each in functions.items()
    }
