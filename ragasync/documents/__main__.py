"""
Command line: ingest a folder, list its failures, and search it.

    python -m ragasync.documents [FOLDER] [--store FILE] [--journal FILE] [--search TEXT]
                                 [--exclude PATTERN]
"""

from __future__ import annotations

import argparse
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

from ragasync._reports.summary import one_line, title
from ragasync.documents.document_records import ProcessedDocument
from ragasync.documents.models import Document, LoadError
from ragasync.documents.processor import AsyncDocumentProcessor
from ragasync.documents.search import Hits
from ragasync.documents.search_text import query_words
from ragasync.documents.sources import FileIds, Source, find_sources
from ragasync.documents.store import StoreError
from ragasync.documents.stores.sqlite import SqliteStore
from ragasync.error_text import error_text, safe_message, safe_text
from ragasync.errors import JournalError
from ragasync.journal import Journal
from ragasync.notebook.progress_bars import TqdmProgress
from ragasync.result import BatchResult

QUESTION = "how do I parse command line arguments?"
NOT_THE_LIBRARY = ("site-packages", "dist-packages")


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command line.

    Returns:
        The exit code: 0 if at least one file succeeded, 1 if all failed or the store is unusable,
        2 if there is nothing to ingest, 130 after Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    folder = options.folder or sysconfig.get_path("stdlib")
    question = options.search or (None if options.folder else QUESTION)
    exclude = [*options.exclude, *(() if options.folder else NOT_THE_LIBRARY)]
    if not Path(folder).exists():
        return _refuse(f"there is no file or folder at {folder!r}", 2)
    sources = list(find_sources(folder, exclude=exclude))
    top = FileIds().of_folder(folder)
    if not sources:
        return _refuse(f"there is no file to ingest in {folder!r}", 2)
    try:
        with SqliteStore(options.store) as store:
            # Failed files are retried, because they may be fixed now.
            journal = Journal(options.journal, retry_failed=True) if options.journal else None
            processor = AsyncDocumentProcessor(store=store, journal=journal)
            return _ingest(sources, processor, store, question, top)
    except (StoreError, JournalError) as error:
        return _refuse(safe_message(error), 1)


def _refuse(why: str, code: int) -> int:
    print(why, file=sys.stderr)
    return code


def _ingest(
    sources: Sequence[Source | Document],
    processor: AsyncDocumentProcessor,
    store: SqliteStore,
    question: str | None,
    top: str,
) -> int:
    """Ingest the sources, print the report, and search if there is a question."""
    try:
        with TqdmProgress(unit=" files") as progress:
            result = processor.process_sync(sources, progress)
    except KeyboardInterrupt:
        done = title(processor.last_result) if processor.last_result else "nothing done"
        return _refuse(
            f"interrupted: {done}\nrun it again to continue: {store.path} keeps finished work", 130
        )
    print(*_report(result, store, top), sep="\n")
    if question:
        print(*_answers(store.search(question, 5), question, top), sep="\n")
    if question == QUESTION:  # a first try
        print(f"\nmore, in Python: ragasync.documents.SqliteStore({store.path!r}).search('...')")
    return 0 if result.success_count else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ragasync.documents",
        description="Ingest a folder, list its failures, and search it.",
    )
    parser.add_argument(
        "folder", nargs="?", help="the folder to ingest (default: Python's standard library)"
    )
    parser.add_argument(
        "--store",
        default="library.sqlite",
        metavar="FILE",
        help="the file of the store (default: %(default)s)",
    )
    parser.add_argument(
        "--journal",
        metavar="FILE",
        help="the file of the journal; sources recorded in it are not loaded again",
    )
    parser.add_argument(
        "--search",
        metavar="TEXT",
        help=f"the question to search for (default for the standard library: {QUESTION!r})",
    )
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="PATTERN",
        help="a name pattern to exclude, such as '*.png'; may be repeated",
    )
    return parser


def _report(result: BatchResult[ProcessedDocument], store: SqliteStore, top: str) -> Iterator[str]:
    """Lines of the report: counts, then failures by reason; file names are relative to `top`."""
    recalled = sum(outcome.ok and not outcome.attempts for outcome in result)
    unchanged = recalled + sum(
        document.unchanged
        for document, outcome in zip(result.results, result, strict=True)
        if document is not None and outcome.attempts
    )
    yield title(result)
    yield f"{result.success_count - unchanged:,} new or changed, {unchanged:,} unchanged; {store!r}"
    failures: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for outcome in result.get_failed():
        reason, message = _cause(outcome.error)
        name = str(getattr(outcome.item, "id", outcome.item)).removeprefix(top)
        failures.setdefault((outcome.stage or "", reason), []).append((name, message))
    if failures:
        yield f"\n{'failed':>6}  {'stage':<6} {'reason':<20} first file, and its error"
    for (stage, reason), files in sorted(failures.items(), key=lambda entry: -len(entry[1])):
        name, message = files[0]
        yield f"{len(files):>6,}  {stage:<6} {reason:<20} {one_line(name)}"
        yield f"{'':15}{one_line(message)}"


def _cause(error: BaseException | None) -> tuple[str, str]:
    """Reason of a failure, by which failures are grouped, and its full message."""
    assert error is not None  # it failed
    if isinstance(error, LoadError):
        return error.reason, safe_text(error.message)
    kind, message, _ = error_text(error)
    return kind, message


def _answers(hits: Hits, question: str, top: str) -> Iterator[str]:
    """Lines of the search hits: the file, and its line with the most words of the question."""
    yield f"\n{question}"
    if not hits:
        yield "  nothing found"
    words = query_words(question)
    for number, hit in enumerate(hits, start=1):
        lines = [line for line in hit.text.splitlines() if line.strip()]
        best = max(lines, key=lambda line: sum(word in line.lower() for word in words), default="")
        yield f"{number:>3}. {one_line(hit.document_id.removeprefix(top))}"
        yield f"     {one_line(best, 90)}"


if __name__ == "__main__":
    sys.exit(main())
