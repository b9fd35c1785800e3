"""
The main job as one command: ingest a folder, show what failed and why, and search it.

    python -m ragasync.documents [FOLDER] [--store FILE] [--search TEXT] [--skip PATTERN ...]
"""

from __future__ import annotations

import argparse
import re
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ragasync.documents.errors import LoadError
from ragasync.documents.pipeline import AsyncDocumentProcessor
from ragasync.documents.processed import ProcessedDocument
from ragasync.documents.sources import find_sources
from ragasync.documents.sqlite import SqliteStore
from ragasync.documents.store import Hit, StoreError
from ragasync.notebook.progress import TqdmProgress
from ragasync.outcomes.outcome import Outcome
from ragasync.reports.kinds import one_line
from ragasync.reports.words import headline
from ragasync.result import BatchResult
from ragasync.saying import type_name

QUESTION = "how do I parse command line arguments?"
NOT_THE_LIBRARY = ("site-packages", "dist-packages")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code, which is 0 also where some of the files failed."""
    options = _parser().parse_args(arguments)
    folder = options.folder or sysconfig.get_path("stdlib")
    skip = [*options.skip, *(() if options.folder else NOT_THE_LIBRARY)]
    if not Path(folder).exists():
        print(f"there is no file or folder at {folder!r}", file=sys.stderr)
        return 2
    try:
        with SqliteStore(options.store) as store:
            sources = list(find_sources(folder, skip=skip))
            processor = AsyncDocumentProcessor(store=store)
            result = processor.process_sync(sources, TqdmProgress(unit=" files"))
            print(*_report(result, store), sep="\n")
            print(*_answers(store.search(options.search, 5), options.search), sep="\n")
    except StoreError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m ragasync.documents",
        description="Ingest a folder, show what failed and why, and search it.",
    )
    parser.add_argument(
        "folder", nargs="?", help="what to ingest; by default Python's own standard library"
    )
    parser.add_argument(
        "--store", default="library.sqlite", metavar="FILE", help="where to store (%(default)s)"
    )
    parser.add_argument("--search", default=QUESTION, metavar="TEXT", help="what to look for")
    parser.add_argument(
        "--skip", nargs="+", default=[], metavar="PATTERN", help="names to pass over, like '*.png'"
    )
    return parser


def _report(result: BatchResult[ProcessedDocument], store: SqliteStore) -> Iterator[str]:
    """Yield what came of the files, and the failures by reason."""
    unchanged = sum(document.unchanged for document in result.get_successful())
    yield headline(result)
    yield f"{unchanged:,} of them were unchanged; {store!r}"
    failures: dict[tuple[str, str], list[str]] = {}
    for outcome in result.get_failed():
        name = str(getattr(outcome.item, "id", outcome.item))
        failures.setdefault(_reason(outcome), []).append(name)
    if failures:
        yield f"\n{'failed':>6}  {'stage':<6} {'reason':<20} first file"
    for (stage, reason), ids in sorted(failures.items(), key=lambda entry: -len(entry[1])):
        yield f"{len(ids):>6,}  {stage:<6} {reason:<20} {one_line(ids[0])}"


def _reason(outcome: Outcome[Any, ProcessedDocument]) -> tuple[str, str]:
    """Return the stage that a document failed in, and the reason in a few words."""
    error = outcome.error
    assert error is not None  # it failed
    return outcome.stage or "", error.reason if isinstance(error, LoadError) else type_name(error)


def _answers(hits: Sequence[Hit], question: str) -> Iterator[str]:
    """Yield the hits of a search: where, and the line that has most of the question's words."""
    yield f"\n{question}"
    words = set(re.findall(r"[^\W_]{3,}", question.lower()))
    for number, hit in enumerate(hits, start=1):
        lines = [line for line in hit.text.splitlines() if line.strip()]
        best = max(lines, key=lambda line: sum(word in line.lower() for word in words), default="")
        yield f"{number:>3}. {one_line(hit.document_id)}\n     {one_line(best, 90)}"


if __name__ == "__main__":
    sys.exit(main())
