"""What a Markdown file says of itself between its first lines, `---` and `---`."""

from __future__ import annotations

import re
from collections.abc import Sequence

MAX_FRONT_MATTER = 50_000
"""The most characters of front matter that are read."""

_TOLD_BY_LOADERS = (
    "cell cell_starts encoding encoding_confidence heading headings id line mtime page "
    "page_starts replaced_bytes row size source"
)
RESERVED = frozenset(_TOLD_BY_LOADERS.split())
"""Keys by which loaders tell something; in front matter they become `front_matter_line`, say."""

_BLOCK = re.compile(r"---[ \t]*\n((?:[^\n]*\n)*?)(?:---|\.\.\.)[ \t]*(?:\n|\Z)")
_ENTRY = re.compile(
    r"""("[^"\n]{1,200}"|'[^'\n]{1,200}'|[^\s#:\-'"\[{][^:\n]{0,200}?)[ \t]*:(?:[ \t]+|$)"""
)
_ITEM = re.compile(r"[ \t]*-(?:[ \t]+|$)")
_INTEGER = re.compile(r"[-+]?(?:0|[1-9]\d{0,14})")
_DECIMAL = re.compile(r"[-+]?\d{1,15}\.\d{0,15}(?:[eE][-+]?\d{1,2})?")
_WORDS: dict[str, object] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}


def front_matter(text: str) -> dict[str, object]:
    r"""
    Return the entries of the front matter at the start of a Markdown text.

    Read are lines of `key: value` and lists, `[a, b]` or a line `- a` for each: texts, numbers,
    true, false and null; dates stay texts. What is nested deeper is left out, and
    `front_matter_unread` then names its keys, so that nobody looks for them in vain.

    Example:
        >>> from ragasync.documents.loaders.front_matter import front_matter
        >>> front_matter("---\ntitle: Limits\ntags: [rate, burst]\n---\nA bucket refills.")
        {'title': 'Limits', 'tags': ['rate', 'burst']}
    """
    block = _BLOCK.match(text[:MAX_FRONT_MATTER]) if text.startswith("---") else None
    if block is None:
        return {}
    found: dict[str, object] = {}
    unread: list[str] = []
    for key, value, below in _entries(block[1].split("\n")):
        name = f"front_matter_{key}" if key in RESERVED else key
        try:
            found[name] = _value(value, below)
        except ValueError:
            unread.append(key)
    if unread:
        found["front_matter_unread"] = unread
    return found


def _entries(lines: Sequence[str]) -> list[tuple[str, str, list[str]]]:
    """Return the key and the rest of each line that has them, with the lines that belong to it."""
    entries: list[tuple[str, str, list[str]]] = []
    for line in lines:
        if entry := _ENTRY.match(line):
            entries.append((_unquoted(entry[1]), line[entry.end() :].strip(), []))
        elif entries and line.strip() and not line.lstrip().startswith("#"):
            entries[-1][2].append(line)
    return entries


def _value(value: str, below: Sequence[str]) -> object:
    """
    Return the value of an entry.

    Raises:
        ValueError: It is nested, or of a kind that is not known.
    """
    if value[:1] in ("|", ">"):
        return ("\n" if value[0] == "|" else " ").join(line.strip() for line in below)
    value = _without_comment(value)
    if not below:
        return _items(value) if value.startswith("[") else _scalar(value)
    if value or not all(map(_ITEM.match, below)):
        raise ValueError("nested")
    return [_item(_without_comment(_ITEM.sub("", line, count=1).strip())) for line in below]


def _items(value: str) -> list[object]:
    """Return the values of a list on one line."""
    if not value.endswith("]"):
        raise ValueError("a list over several lines")
    parts = re.findall(r"""[ \t]*("[^"]*"|'[^']*'|[^,]*)[ \t]*(?:,|$)""", value[1:-1])
    return [_item(part.strip()) for part in parts if part.strip()]


def _item(value: str) -> object:
    """Return the value of a list's item, which is no list or mapping itself."""
    if value[:1] in ("[", "{", "-") and not _DECIMAL.fullmatch(value) and not _INTEGER.match(value):
        raise ValueError("nested")
    if _ENTRY.match(value):
        raise ValueError("a mapping")
    return _scalar(value)


def _scalar(value: str) -> object:
    """Return a text, a number, true, false or None."""
    if value[:1] in ("{", "&", "*", "!"):
        raise ValueError("a mapping, an anchor or a tag")
    if value in _WORDS:
        return _WORDS[value]
    if _INTEGER.fullmatch(value):
        return int(value)
    return float(value) if _DECIMAL.fullmatch(value) else _unquoted(value)


def _without_comment(value: str) -> str:
    """Return a value without what follows ` #`, unless that is in quotes."""
    quoted = re.match(r"""("(?:[^"\\]|\\.)*"|'[^']*')[ \t]*(?:#.*)?$""", value)
    if quoted:
        return quoted[1]
    return re.split(r"(?:^|[ \t])#", value, maxsplit=1)[0].strip()


def _unquoted(value: str) -> str:
    """Return a text without its quotes."""
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        inner = value[1:-1]
        return inner.replace("''", "'") if value[0] == "'" else re.sub(r"\\(.)", r"\1", inner)
    return value
