"""Code that is run as a cell of a notebook runs it: its source can be read again."""

from __future__ import annotations

import itertools
import linecache
import textwrap
from typing import Any

_NUMBERS = itertools.count(1)


def cell(source: str, **names: Any) -> dict[str, Any]:
    """Run a cell in a namespace of its own, as after a restart; return the names that it has."""
    text = textwrap.dedent(source)
    filename = f"<cell {next(_NUMBERS)}>"
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    namespace: dict[str, Any] = {"__name__": "__main__", **names}
    exec(compile(text, filename, "exec"), namespace)
    return namespace


def without_source(source: str, **names: Any) -> dict[str, Any]:
    """Run code that nobody can read again; return the names that it has."""
    namespace: dict[str, Any] = {"__name__": "__main__", **names}
    exec(compile(textwrap.dedent(source), "<nowhere>", "exec"), namespace)
    return namespace
