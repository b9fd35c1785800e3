"""
Object views: the repr of any object in bounded text, and the fields of ours as an HTML table.

A notebook shows the last value of a cell, which may be a text of megabytes, metadata with thousands
of entries, or an object whose own repr raises. What is shown here is at most a few kilobytes, has
secrets masked, and is made without building the whole repr first.
"""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from itertools import islice
from types import MappingProxyType
from typing import Final

from ragasync.error_text import safe_text
from ragasync.foreign_errors import guarded

TEXT: Final = (
    "color:var(--jp-content-font-color1,inherit);font-size:13px;line-height:1.5;max-width:640px"
)
QUIET: Final = "opacity:0.7"
MONO: Final = "font-family:var(--jp-code-font-family,monospace);font-size:12px"
BOLD: Final = "font-weight:600"

_CELL: Final = "text-align:left;vertical-align:top;padding:1px 16px 1px 0;overflow-wrap:anywhere"
_BLOCK: Final = (
    f"{MONO};white-space:pre-wrap;word-break:normal;overflow-wrap:anywhere;"
    "max-height:16em;overflow:auto;margin:0"
)

MAX_REPR_CHARS: Final = 200
"""Characters of an object in the repr of another."""

_MAX_TEXT: Final = 4_096
"""Characters of a longer text that are shown."""

_MAX_DEPTH: Final = 4
"""Containers within containers that are read."""

_BRACKETS: Final[Mapping[type, str]] = {list: "[]", tuple: "()", set: "{}", deque: "[]"}
_MAPPINGS: Final = (dict, OrderedDict, defaultdict, MappingProxyType)


# ── text ────────────────────────────────────────────────────────────────────────────────────────


def short_view(value: object, longest: int = MAX_REPR_CHARS) -> str:
    """Write the repr of any object as one line of about `longest` characters, secrets masked."""
    return one_line_of(safe_text(_short_repr(value, longest, _MAX_DEPTH)), 3 * longest)


def one_line_of(text: str, longest: int = MAX_REPR_CHARS) -> str:
    """Put a text without secrets on one line of about `longest` characters."""
    line = " ".join(text.split())
    return _beginning(line, len(line), longest)


def _beginning(text: str, length: int, longest: int) -> str:
    """Write the beginning of a text without secrets, and how much of its length is left out."""
    if length <= longest:
        return text
    return f"{text[:longest].rstrip()} … ({length - longest:,} more characters)"


def _short_repr(value: object, longest: int, depth: int) -> str:
    """Write the beginning of a repr; only the start of a long text or container is read."""
    kind = type(value)
    if issubclass(kind, str):
        whole = str.__str__(value)
        # Masked before it is cut: half of a secret would not be recognized as one.
        return repr(_beginning(_masked(whole), len(whole), longest))
    if kind in (bytes, bytearray):
        start = repr(value[: longest // 4])  # type: ignore[index]  # seen above
        left_out = len(value) - longest // 4  # type: ignore[arg-type]
        return f"{start} … ({left_out:,} more bytes)" if left_out > 0 else start
    if kind in _MAPPINGS or kind in _BRACKETS:
        # Guarded, because another thread may change it meanwhile.
        text = guarded(_short_container, value, longest, depth) if depth else "..."
    else:
        text = guarded(repr, value)
    if not isinstance(text, str):
        return f"<{kind.__name__} without a repr>"
    whole = str.__str__(text)
    return _beginning(_masked(whole), len(whole), 2 * longest)


def _masked(text: str) -> str:
    """Mask the secrets in the first kilobytes of a text, and drop the rest."""
    return safe_text(text[: _MAX_TEXT + 1], len(text))


def _short_container(value: Iterable[object], longest: int, depth: int) -> str:
    """Write the first entries of a container, and how many are left out."""
    brackets = _BRACKETS.get(type(value), "{}")
    texts, length = list[str](), 0
    for entry in islice(value, longest // 3):
        text = _short_repr(entry, longest, depth - 1)
        if isinstance(value, Mapping):
            text += f": {_short_repr(value[entry], longest, depth - 1)}"
        texts.append(text)
        length += len(text) + 2
        if length > longest:
            break
    left_out = len(value) - len(texts)  # type: ignore[arg-type]  # all of these have a length
    more = f", ... ({left_out:,} more)" if left_out else ""
    comma = "," if type(value) is tuple and len(texts) == 1 and not more else ""
    return f"{brackets[0]}{', '.join(texts)}{comma}{more}{brackets[1]}" if texts else repr(value)


# ── numbers ─────────────────────────────────────────────────────────────────────────────────────


def duration(seconds: float) -> str:
    """Write a duration in two or three digits: `1.2 ms`, `0.42 s`, `17.4 s`, `2 min 05 s`."""
    if 1e-6 <= seconds < 0.0995:
        return f"{1000 * seconds:.2g} ms"
    if seconds < 59.95:
        digits = 0 if seconds < 1e-6 else 2 if seconds < 9.995 else 1
        return f"{seconds:.{digits}f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60:,} h {minutes % 60:02} min"


def three_digits(number: float) -> str:
    """Write a number to three digits, without an exponent: `0.0944`, `12.3`, `1234`."""
    if not 0 < abs(number) < 999.5:  # also of infinity and NaN
        return f"{number:.0f}"
    return f"{number:.{max(0, 2 - math.floor(math.log10(abs(number))))}f}".rstrip("0").rstrip(".")


# ── HTML ────────────────────────────────────────────────────────────────────────────────────────


def element(tag: str, style: str, *children: str) -> str:
    """Write an HTML element around children that are HTML already."""
    opening = f'<{tag} style="{style}">' if style else f"<{tag}>"
    return f"{opening}{''.join(children)}</{tag}>"


def object_html(
    shown: object,
    facts: Iterable[tuple[str, object]],
    *,
    text: str | None = None,
    text_name: str = "text",
) -> str:
    """
    Write an object as HTML: its repr as a title, its fields as a table, and one longer text.

    Args:
        shown: the object; its repr is one line, `<Name: state>` or `Name(state)`.
        facts: names and values; a text is shown without quotes, and None is left out.
        text: a longer text, of which the beginning is shown in a box that scrolls.
        text_name: its name.
    """
    title = repr(shown)
    name = type(shown).__name__
    state = title.removeprefix("<").removesuffix(">").removeprefix(name) if title[:1] == "<" else ""
    rows = list(_rows(facts, text, text_name))
    return element(
        "div",
        TEXT,
        element("div", "margin-bottom:4px", element("span", BOLD, escape(name)), escape(state)),
        element("table", "border-collapse:collapse;font-size:13px;color:inherit", *rows),
    )


def _rows(facts: Iterable[tuple[str, object]], text: str | None, text_name: str) -> Iterator[str]:
    """Yield the rows of the table."""
    for name, value in facts:
        if value is not None:
            if type(value) is float:
                line = three_digits(value)
            else:
                line = one_line_of(_masked(value)) if type(value) is str else short_view(value, 400)
            yield _row(name, escape(line))
    if text is not None:
        yield _row(text_name, element("pre", _BLOCK, escape(_masked(text))))


def _row(name: str, html: str) -> str:
    """One row: a name and a value that is HTML already."""
    return element(
        "tr",
        "background:none",
        element("th", f"{_CELL};font-weight:normal;white-space:nowrap;{QUIET}", escape(name)),
        element("td", _CELL, html),
    )
