"""One file a format family: each turns the bytes of a file into text and metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

Loaded: TypeAlias = tuple[str, dict[str, object]]
"""The text of a file and what else was learnt of it."""


@dataclass(frozen=True, slots=True)
class Record:
    """
    One of the documents that a file holds: a row of a table, a line of JSON.

    Args:
        key: What tells it from the others in its file; its document's id is `file//#key`.
        text: Its text.
        metadata: What else is known of it.
    """

    key: str
    text: str
    metadata: Mapping[str, object] = field(default_factory=dict, hash=False)


Loader: TypeAlias = Callable[[bytes], Loaded | Iterable[Record]]
"""
What turns the bytes of one format into a text, or into records where a file holds many.

It raises LoadError where it cannot.
"""


def passing(suffix: str, loader: str) -> str:
    """Return the code that gives a processor another loader for a suffix, for errors to advise."""
    loaders = f'loaders={{**LOADERS, "{suffix}": {loader}}}'
    return f"AsyncDocumentProcessor(partial(load_source, {loaders}))"


def join_parts(parts: Sequence[str]) -> tuple[str, tuple[int, ...]]:
    """Join pages or cells by blank lines, and return with the text where each of them starts."""
    starts, position = [], 0
    for part in parts:
        starts.append(position)
        position += len(part) + 2
    return "\n\n".join(parts), tuple(starts)
