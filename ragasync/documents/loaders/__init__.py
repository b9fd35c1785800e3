"""One file a format family: each turns the bytes of a file into text and metadata."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

Loaded: TypeAlias = tuple[str, dict[str, object]]
"""The text of a file and what else was learnt of it."""

Loader: TypeAlias = Callable[[bytes], Loaded]
"""What turns the bytes of one format into text; it raises LoadError where it cannot."""


def join_parts(parts: Sequence[str]) -> tuple[str, tuple[int, ...]]:
    """Join pages or cells by blank lines, and return with the text where each of them starts."""
    starts, position = [], 0
    for part in parts:
        starts.append(position)
        position += len(part) + 2
    return "\n\n".join(parts), tuple(starts)
