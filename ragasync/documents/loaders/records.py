"""Fields with names to records: which make the text, which the id, which the metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ragasync.documents.errors import LoadError
from ragasync.documents.loaders import Record


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table or line of JSON: its number, the line where it starts, its fields."""

    number: int
    line: int
    fields: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Layout:
    """
    Says what each field of a row is for.

    Args:
        reason: the reason of a failure.
        text: the fields that make the text; None for all.
        id: the field that makes the id; None for the row's number.
        metadata: the fields that become metadata; None for those that are not in the text.
    """

    reason: str
    text: Sequence[str] | None
    id: str | None
    metadata: Sequence[str] | None

    def records(self, rows: Iterable[Row]) -> Iterator[Record]:
        """
        Yield a record for each row that has a text.

        Raises:
            LoadError: A field that was named is missing, or an id is empty or there twice.
        """
        keys: dict[str, int] = {}
        for row in rows:
            named = row.fields if self.text is None else self._picked(row, self.text)
            if not (text := text_of(named)).strip():
                continue
            key = str(row.number) if self.id is None else self._key(row, self.id)
            if (first := keys.setdefault(key, row.number)) != row.number:
                raise LoadError(self.reason, f"rows {first} and {row.number} share the id {key!r}")
            yield Record(key, text, {"row": row.number, "line": row.line, **self._rest(row, named)})

    def _rest(self, row: Row, in_text: Mapping[str, object]) -> Mapping[str, object]:
        """Return the fields of a row that become metadata."""
        if self.metadata is not None:
            return self._picked(row, self.metadata)
        return {name: value for name, value in row.fields.items() if name not in in_text}

    def _picked(self, row: Row, names: Sequence[str]) -> Mapping[str, object]:
        """Return some fields of a row."""
        if missing := [name for name in names if name not in row.fields]:
            raise LoadError(
                self.reason,
                f"no {missing[0]!r} in row {row.number}, which has {', '.join(row.fields)[:200]}",
            )
        return {name: row.fields[name] for name in names}

    def _key(self, row: Row, name: str) -> str:
        """Return the id of a row."""
        key = as_text(self._picked(row, [name])[name]).strip()
        if not key:
            raise LoadError(self.reason, f"no id in {name!r} of row {row.number}")
        return key


def marked(records: Iterable[Record], read_as: Mapping[str, object]) -> list[Record]:
    """Return records that say how their file was read; a field of that name goes over it."""
    if not read_as:
        return list(records)
    return [Record(each.key, each.text, {**read_as, **each.metadata}) for each in records]


def text_of(fields: Mapping[str, object]) -> str:
    """Return the text of some fields: one as it stands, several as lines with their names."""
    if len(fields) == 1:
        return as_text(*fields.values())
    named = ((name, as_text(value)) for name, value in fields.items())
    return "\n".join(f"{name}: {value}" for name, value in named if value.strip())


def as_text(value: object) -> str:
    """Return a value as it is read: a text itself, nothing for None, else its JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)
