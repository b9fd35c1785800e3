"""Pick the most telling rows out of all tables of the benchmarks, for README and RESULTS.md."""

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
        title: what the title of the table has in it where the figures stand.
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
        found = next((rows for title, rows in tables.items() if self.title in title), None)
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


def summary(results: str, lines: Iterable[Line] = ()) -> str:
    """Summarize all tables in one, by some lines or by all."""
    tables = dict(_tables(results.splitlines()))
    rows = [cells for line in lines or LINES if (cells := line.cells(tables)) is not None]
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


BY_RECORD = ("with a record", "hand-made workers with a record")
BY_WORKERS = ("workers", "hand-made workers, bare")
GATHERS = {
    "gather": "gather and semaphore",
    "LlamaIndex": "LlamaIndex run_jobs",
    "aiometer": "aiometer run_all",
    "LangChain": "LangChain abatch",
}
MAKESPANS = {
    "gather": "gather and semaphore",
    "tqdm": "tqdm.asyncio gather and semaphore",
    "LangChain": "LangChain abatch",
    "lock step": "chunked gather",
}
LIMITERS = {
    "aiolimiter": "aiolimiter (1, 1/rate)",
    "asynciolimiter": "asynciolimiter, Limiter",
    "throttled-py": "throttled-py, GCRA",
    "LangChain": "LangChain",
}
RETRIES = {"backoff": "backoff", "stamina": "stamina", "tenacity": "tenacity"}
BRIDGES = {
    "`run_coroutine_threadsafe`": "run_coroutine_threadsafe",
    "LlamaIndex": "LlamaIndex asyncio_run",
    "`asyncio.run`": "asyncio.run",
}
PIPELINES = {
    "LangChain": "LangChain splitter and abatch",
    "gather": "gather a document",
    "LlamaIndex": "LlamaIndex IngestionPipeline",
}
KEPT_THREAD = ("a kept thread", "a kept thread, by hand")
HAND_LIMITER = ("GCRA", "hand-made")
SEARCHES = {"vectors": "vectors alone", "BM25": "BM25 alone"}
FLAKY = {"async-batch-llm": "async-batch-llm", "phoenix-evals": "phoenix-evals"}
BY_TENACITY = ("semaphore and tenacity", "semaphore and tenacity")
HAND_PIPELINE = ("queues and workers", "by hand, lists")

LINES = (
    Line(
        "a call that returns immediately, µs", "returns at once, 32", "10,000", BY_RECORD, GATHERS
    ),
    Line("the same, of a million, µs", "returns at once, 32", "1,000,000", BY_RECORD, {}),
    Line("a call that yields once, µs", "one sleep(0), 32", "10,000", BY_RECORD, GATHERS),
    Line(
        "with a time limit for each, µs",
        "returns at once, with a time limit, 32",
        "10,000",
        ("`asyncio.timeout`", "the same, asyncio.timeout"),
        {"`wait_for`": "the same, asyncio.wait_for"},
        ours="ragasync, timeout=",
    ),
    Line("memory, bytes an item", "peak bytes an item", "100,000", BY_RECORD, GATHERS),
    Line(
        "total time over the ideal, uneven calls",
        "real clock",
        "over greedy",
        BY_WORKERS,
        MAKESPANS,
    ),
    Line(
        "the same, results in order",
        "real clock",
        "over greedy",
        None,
        {"aiostream": "aiostream map, ordered"},
        ours="ragasync, stream in order",
    ),
    Line(
        "the loop is blocked, ms",
        "never suspends",
        "ms",
        BY_WORKERS,
        {"gather": "gather and semaphore"},
    ),
    Line(
        "32 threads, wall over the ideal",
        "32 threads",
        "wall",
        ("raw threads", "raw threads that draw"),
        {"`ThreadPoolExecutor.map`": "ThreadPoolExecutor.map", "LangChain": "LangChain batch"},
    ),
    Line(
        "2 processes, wall µs a call",
        "2 processes",
        "wall",
        ("`map` in 16s", "ProcessPoolExecutor.map, chunks of 16"),
        {"`map`": "ProcessPoolExecutor.map"},
    ),
    Line("1,000 a second: % of the rate reached", "at 1,000 a second", "%", HAND_LIMITER, LIMITERS),
    Line("a grant then, processor µs", "at 1,000 a second", "processor", HAND_LIMITER, LIMITERS),
    Line("a free acquire, µs", "a free acquire", "µs", HAND_LIMITER, LIMITERS),
    Line("a retry policy, success, µs", "succeeds", "µs", ("loop", "hand-made loop"), RETRIES),
    Line(
        "the same, one retry without delay, µs",
        "retried once",
        "µs",
        ("loop", "hand-made loop"),
        RETRIES,
    ),
    Line("5,000 calls to a flaky service, s", "429s, 500s", "wall", BY_TENACITY, FLAKY),
    Line("the same, processor s", "429s, 500s", "processor", BY_TENACITY, FLAKY),
    Line("the same, requests refused", "429s, 500s", "refused", BY_TENACITY, FLAKY),
    Line("lines of code for that", "429s, 500s", "lines", BY_TENACITY, FLAKY),
    Line("`run_async` in a running loop, µs", "run_async a call", "inside", KEPT_THREAD, BRIDGES),
    Line(
        "a table of a million outcomes, s",
        "to_dataframe",
        "processor s",
        None,
        {"pandas of dicts": "pandas, of a list of dicts"},
    ),
    Line("documents a second, 8 calls", "15 ms, 8 ", "documents a", HAND_PIPELINE, PIPELINES),
    Line("documents a second, 32 calls", "15 ms, 32 ", "documents a", HAND_PIPELINE, PIPELINES),
    Line("lines of code for that", "15 ms, 32 ", "lines", HAND_PIPELINE, PIPELINES),
    Line("right page in the first 5, hashing", "chunks, Hashing", "recall at 5", None, SEARCHES),
    Line("the same, WordLlama", "chunks, WordLlama", "recall at 5", None, SEARCHES),
    Line("import over Python with asyncio, ms", "import over", "ms", None, {"pandas": "pandas"}),
)

README_LINES = [
    line
    for line in LINES
    if line.work.startswith(
        (
            "a call that returns immediately",
            "memory",
            "total time",
            "1,000 a second",
            "documents a second, 8",
        )
    )
]
"""The five rows that README shows."""
