"""FunctionFingerprint: what counts as a change of a function, over restarts and Python versions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ragasync._function_fingerprint.code import digest
from ragasync._function_fingerprint.values import shown

UNKNOWN: Final = "?"
"""A part that cannot be compared."""

_FORMAT: Final = 3

CODE: Final = "the code"
"""The name of the part with the function's own code."""


@dataclass(frozen=True, slots=True)
class FunctionFingerprint:
    """
    The fingerprint of a function: its code, and the values that it works with.

    Args:
        name: the function's name, for people.
        parts: the parts by readable names, such as "the argument model". A part is a short plain
            value, or a digest, or the name of a type.
    """

    name: str
    parts: Mapping[str, str]

    @property
    def is_known(self) -> bool:
        """Whether the function's code can be compared."""
        return self.parts.get(CODE, UNKNOWN) != UNKNOWN

    def digest(self) -> str:
        """
        The fingerprint as a short text, for `is_same_digest`.

        It has three digests: of the values, of code with source, and of code without source, which
        only the same Python version can compare. A mark is added if there is also code in C.
        """
        kinds: dict[str, list[tuple[str, str]]] = {}
        is_whole = bool(self.parts)
        for label, part in sorted(self.parts.items()):
            scheme = part.partition(":")[0]
            is_whole &= scheme != "native" and (label, part) != (CODE, UNKNOWN)
            if part != UNKNOWN:
                is_code = scheme == "source" or scheme.startswith("bytecode-")
                kinds.setdefault(scheme if is_code else "value", []).append((label, part))
        texts = [f"{kind}:{digest(repr(found))}" for kind, found in sorted(kinds.items())]
        return " ".join([*texts, *([] if is_whole else [UNKNOWN])])

    def without_code(self) -> FunctionFingerprint:
        """The fingerprint with its values only."""
        return self.keeping(lambda part: not part.startswith(CODE))

    def without_unknown(self) -> FunctionFingerprint:
        """The fingerprint with only the parts that every Python version can compare."""
        unknown = ("bytecode-", "native:", UNKNOWN)
        known = {label: part for label, part in self.parts.items() if not part.startswith(unknown)}
        return FunctionFingerprint(self.name, known)

    def keeping(self, is_kept: Callable[[str], bool]) -> FunctionFingerprint:
        """The fingerprint with only the parts whose names pass a test."""
        kept = {label: part for label, part in self.parts.items() if is_kept(label)}
        return FunctionFingerprint(self.name, kept)

    def with_value(self, label: str, value: object) -> FunctionFingerprint:
        """The fingerprint with one more plain value."""
        return FunctionFingerprint(self.name, {**self.parts, label: shown(label, value)})

    def to_json(self) -> str:
        """The fingerprint as JSON."""
        return json.dumps([_FORMAT, self.name, dict(self.parts)], separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> FunctionFingerprint:
        """
        Read a fingerprint from JSON; one of another version of ragasync is unknown.

        Raises:
            ValueError: it is not a fingerprint.
        """
        try:
            version, name, parts = json.loads(text)
            known = parts.items() if version == _FORMAT else ()
            return cls(str(name), {str(part): str(value) for part, value in known})
        except (AttributeError, TypeError) as error:
            raise ValueError(f"not a fingerprint: {text!r:.100}") from error


def differences(before: FunctionFingerprint, after: FunctionFingerprint) -> list[str]:
    """Describe the differences of two fingerprints; incomparable parts count as equal."""
    same_code = _compared(before.parts.get(CODE, UNKNOWN), after.parts.get(CODE, UNKNOWN))
    found = []
    for part in {**before.parts, **after.parts}:
        one, other = before.parts.get(part), after.parts.get(part)
        if one is not None and other is not None:
            if _compared(one, other) is False:
                named = f"{CODE} of {after.name!r}" if part == CODE else part
                found.append(named + _change(one, other))
        elif same_code:  # changed code has other parts anyway
            found.append(f"{part}{' is new' if one is None else ' is gone'}")
    return found


@lru_cache(maxsize=256)
def is_same_digest(one: str, other: str) -> bool | None:
    """Whether two digests are of the same function; None if this cannot be known."""
    before, after = (
        dict(part.partition(":")[::2] for part in text.split()) for text in (one, other)
    )
    values, sources = (before.get(kind) == after.get(kind) for kind in ("value", "source"))
    bytecodes = [
        {kind for kind in found if kind.startswith("bytecode")} for found in (before, after)
    ]
    if bool(bytecodes[0]) != bool(bytecodes[1]) and not sources:
        return None  # source against bytecode, which differ in their values too
    if not (values and sources):
        return False
    if bytecodes[0] != bytecodes[1] or UNKNOWN in {*before, *after}:
        return None
    return before == after


def _compared(one: str, other: str) -> bool | None:
    """Whether two parts are the same; None if this cannot be known."""
    schemes = [part.partition(":")[0] for part in (one, other)]
    if UNKNOWN in schemes or (one == other and schemes[0] == "native"):
        return None
    codes = [scheme for scheme in schemes if scheme == "source" or scheme.startswith("bytecode-")]
    if codes and schemes[0] != schemes[1]:
        return None
    return one == other


def _change(one: str, other: str) -> str:
    """Old and new value of a part, if they may be shown."""
    kinds = ("value:", "type:", "name:", "native:")
    if not (one.startswith(kinds) and other.startswith(kinds)):
        return ""
    return f": {one.partition(':')[2]} -> {other.partition(':')[2]}"
