"""Measure contenders side by side in one run, and print what came out as Markdown tables."""

from __future__ import annotations

import ast
import asyncio
import gc
import importlib.util
import inspect
import operator
import statistics
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

Measurement: TypeAlias = Callable[[], float]
"""Makes one run of a contender and returns its figure: a cost an item, a share of a rate."""


def installed(*modules: str) -> bool:
    """Return whether all of these top-level modules could be imported; it imports none."""
    return all(importlib.util.find_spec(module) is not None for module in modules)


@dataclass
class Figures:
    """The figures of one contender, one a round."""

    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The median, which a round disturbed by something else on the machine does not move."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        return f"{self.median:.2f} ({min(self.values):.2f}-{max(self.values):.2f})"


def in_turns(
    contenders: Mapping[str, Measurement], rounds: int, fewer: Mapping[str, int] | None = None
) -> dict[str, Figures]:
    """
    Measure each contender once a round, so that a slow minute of the machine is slow for all.

    Every round begins with another contender: none always runs after the same neighbour.

    Args:
        contenders: what to measure.
        rounds: how often.
        fewer: how many of the rounds, the first ones, a dear contender takes part in instead.
    """
    shares = fewer or {}
    spare_the_collector()
    figures = {name: Figures() for name in contenders}
    names = list(contenders)
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            if turn < shares.get(name, rounds):
                figures[name].values.append(contenders[name]())
    return figures


def spare_the_collector() -> None:
    """
    Have the garbage collector leave alone what lives by now: the peers and what they import.

    Else every full collection walks it, for contenders that have nothing to do with it too.
    """
    gc.collect()
    gc.freeze()


def processor_time(
    run: Callable[[], Awaitable[object]],
    check: Callable[[object], None] | None = None,
    repeats: int = 1,
) -> float:
    """
    Return the processor seconds, of all threads, that awaiting `run()` takes.

    Args:
        run: what to measure; its loop is opened and closed off the clock.
        check: raises, off the clock, unless what `run` gave is right.
        repeats: how often to run; the result is the mean.
    """

    async def measured() -> float:
        took = 0.0
        for _ in range(repeats):
            began = time.process_time()
            given = await run()
            took += time.process_time() - began
            if check is not None:
                check(given)
        return took / repeats

    gc.collect()
    return asyncio.run(measured())


def peak_bytes(run: Callable[[], Awaitable[object]]) -> int:
    """Return the most bytes allocated at once while awaiting `run()`, above those before."""

    async def measured() -> int:
        tracemalloc.start()
        try:
            kept = await run()  # noqa: F841  # what it gives back is part of what it needs
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    gc.collect()
    return asyncio.run(measured())


def ratios(figures: Mapping[str, Figures], reference: str) -> dict[str, float]:
    """
    Return how many times the figure of the reference point each figure is.

    The median of the ratios within each round that both took part in: in a slow one both are slow.
    """
    ones = figures[reference].values
    return {
        name: statistics.median(map(operator.truediv, each.values, ones))
        for name, each in figures.items()
    }


def lines_written(*functions: Callable[..., object]) -> int:
    """Return how many lines of code their bodies have, without docstrings, imports, blank lines."""
    lines = 0
    for function in functions:
        source = inspect.getsource(function)
        defined = ast.parse(source).body[0]
        assert isinstance(defined, ast.AsyncFunctionDef)
        written = source.splitlines()
        for statement in defined.body[1:]:  # the first is the docstring
            if not isinstance(statement, ast.Import | ast.ImportFrom):
                its_own = written[statement.lineno - 1 : statement.end_lineno]
                lines += sum(bool(line.strip()) for line in its_own)
    return lines


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table: the first column is words, the others are figures."""
    lines = [f"### {title}", "", _row(columns), _row(["---", *["---:"] * (len(columns) - 1)])]
    return "\n".join([*lines, *map(_row, rows), ""])


def _row(cells: Iterable[object]) -> str:
    """Return one line of a table."""
    return f"| {' | '.join(map(str, cells))} |"
