"""Pick the most telling rows out of all tables of the benchmarks, for README."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from measuring import table

OURS = "ragasync"

Table: TypeAlias = dict[str, dict[str, str]]
"""The cells of a table by row and by column."""


@dataclass(frozen=True)
class Line:
    """
    One row of the summary.

    Args:
        work: what is done, and the unit.
        title: how the title of the table begins where the figures stand.
        column: how the heading of their column begins.
        by_hand: the row of what one would write by hand, or of the floor.
        others: the rows of the nearest peers, by the names to show.
        ours: our row.
    """

    work: str
    title: str
    column: str
    by_hand: tuple[str, str] | None
    others: dict[str, str]
    ours: str = OURS

    def cells(self, tables: dict[str, Table]) -> list[str] | None:
        """Return the row, or None where nothing of it was measured."""
        found = next((rows for title, rows in tables.items() if title.startswith(self.title)), None)
        if found is None or self.ours not in found:
            return None
        by_hand = ""
        if self.by_hand is not None and (figure := self._figure(found, self.by_hand[1])):
            by_hand = f"{figure} ({self.by_hand[0]})"
        peers = (
            f"{shown} {figure}"
            for shown, name in self.others.items()
            if (figure := self._figure(found, name))
        )
        return [self.work, f"**{self._figure(found, self.ours)}**", by_hand, ", ".join(peers)]

    def _figure(self, rows: Table, name: str) -> str:
        """Return the median of a contender, without its range and ratio."""
        row = rows.get(name, {})
        cell = next((cell for head, cell in row.items() if head.startswith(self.column)), "")
        return cell.split(" (")[0].split(" x")[0].strip()


def summary(results: str) -> str:
    """Return the summary of all tables, as a table."""
    tables = dict(_tables(results.splitlines()))
    rows = [cells for line in LINES if (cells := line.cells(tables)) is not None]
    made = table("", ["medians", "ragasync", "by hand", "others"], rows)
    return made.partition("\n\n")[2].strip().replace("---:", "---")


def _tables(lines: Iterable[str]) -> Iterator[tuple[str, Table]]:
    """Yield the title and the cells of each Markdown table."""
    title, heads = "", None
    rows: Table = {}
    for line in lines:
        if line.startswith("### "):
            title, heads, rows = line[4:], None, {}
        elif line.startswith("|"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if heads is None:
                heads = cells
            elif not cells[0].startswith("---"):
                rows[cells[0]] = dict(zip(heads[1:], cells[1:], strict=False))
        elif rows:
            yield title, rows
            rows = {}
    if rows:
        yield title, rows


LINES: tuple[Line, ...] = ()
