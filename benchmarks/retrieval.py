"""
Is what is searched for found: questions whose right pages are known, asked of a real manual.

    python benchmarks/retrieval.py                                 # apt-get install python3.11-doc
    python benchmarks/retrieval.py --pages /folder/of/pages --set choosing

The pages are the library part of Python's manual, loaded, cut and embedded by an
AsyncDocumentProcessor with its defaults, into a SqliteStore for each embedder. The questions
(questions.json) are in a user's words, not the manual's, written before any was asked. Settings
of the search (stems of words, the k of the join) were chosen by 40 of them, "choosing", along with
the questions of Python's FAQ, and are reported for the others. Recall at 5 is the share of
questions with a right page among the first 5 different pages of the hits.

questions_by_language.json has texts of our own in Chinese, Japanese and Russian, 32 in each, and
questions in two sets of the same names, 20 in each.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from measuring import installed, table

from ragasync.documents import (
    AsyncDocumentProcessor,
    HashingEmbedder,
    SqliteStore,
    WordLlamaEmbedder,
)

PAGES = "/usr/share/doc/python3.11/html/library"
QUESTIONS = Path(__file__).with_name("questions.json")
BY_LANGUAGE = Path(__file__).with_name("questions_by_language.json")

ROWS = {"ragasync": "hybrid", "vectors alone": "vector", "BM25 alone": "keyword"}
"""The rows of a table, and the mode of their searches: "hybrid", the default, is ours."""

EARLIER = {
    ("HashingEmbedder", "vector"): ".62 (.68)",
    ("WordLlamaEmbedder", "vector"): ".70 (.78)",
    ("HashingEmbedder", "keyword"): ".77 (.83)",
    ("WordLlamaEmbedder", "keyword"): ".77 (.83)",
}
"""Recall at 5 (at 10) before there was this package, by an earlier 60 questions."""

HITS = 50
"""Chunks in one search: several are of one page, and ten different pages are wanted."""

CUTS = (5, 10)

CUTS_OF_FEW = (1, 5)
"""Where there are 32 texts alone."""

Questions: TypeAlias = Mapping[str, Sequence[str]]
"""The names of the right pages by question."""


def asked(which: str, pages: Mapping[str, Path], most: int | None) -> dict[str, list[str]]:
    """Return the questions of a set whose right pages are there, the first so many."""
    every: dict[str, list[str]] = json.loads(QUESTIONS.read_text())[which]
    known = [(question, right) for question, right in every.items() if pages.keys() & set(right)]
    return dict(known[:most])


def pages_in(folder: Path) -> dict[str, Path]:
    """Return the files of a folder by the names of their pages, or say how to come by some."""
    pages = {path.stem: path for path in sorted(folder.glob("*.*")) if path.is_file()}
    if not pages:
        raise SystemExit(
            f"no pages in {folder}: apt-get install python3.11-doc, or pass --pages the folder "
            "library/ of any Python documentation in HTML"
        )
    return pages


def filled(path: Path, pages: Mapping[str, Path], embedder: Callable[..., Any]) -> SqliteStore:
    """Return a store with all pages in it, in the way of a user who sets nothing."""
    store = SqliteStore(path)
    processor = AsyncDocumentProcessor(embed=embedder, store=store)
    result = processor.process_sync(pages.values())
    result.raise_for_errors()
    assert len(store.documents()) == len(pages), "pages are missing from the store"
    return store


def places(store: SqliteStore, questions: Questions, mode: Any) -> list[float]:
    """Return for each question at which place the first right page is, from 1; inf where none."""
    found = []
    for question, right in questions.items():
        hits = store.search(question, HITS, mode=mode)
        seen = dict.fromkeys(Path(hit.source or hit.document_id).stem for hit in hits)
        ranks = (place for place, page in enumerate(seen, start=1) if page in right)
        found.append(next(ranks, math.inf))
    return found


def interval(share: float, n: int) -> tuple[float, float]:
    """Return the 95% interval of a share of n, by Wilson's score (1927)."""
    z = 1.96
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    return middle - half, middle + half


def recall(found: Sequence[float], cut: int) -> str:
    """Return the share of questions answered within the first so many pages."""
    share = sum(place <= cut for place in found) / len(found)
    low, high = interval(share, len(found))
    return f"{share:.2f} ({low:.2f}-{high:.2f})"


def against(join: Sequence[float], part: Sequence[float], cut: int) -> str:
    """Return how many questions only the join answers, and how many only the part."""
    pairs = [(ours <= cut, its <= cut) for ours, its in zip(join, part, strict=True)]
    return f"{pairs.count((True, False))} : {pairs.count((False, True))}"


def table_of(
    name: str, store: SqliteStore, questions: Questions, cuts: Sequence[int] = CUTS
) -> str:
    """Return the recall of each way to search a store."""
    found = {row: places(store, questions, mode) for row, mode in ROWS.items()}
    join = found["ragasync"]
    rows = [
        [
            row,
            *(recall(found[row], cut) for cut in cuts),
            *("" if row == "ragasync" else against(join, found[row], cut) for cut in cuts),
            *([EARLIER.get((name, mode), "")] if cuts == CUTS else []),
        ]
        for row, mode in ROWS.items()
    ]
    heads = [
        "",
        *(f"recall at {cut} (95%)" for cut in cuts),
        *(f"only ragasync : only this, at {cut}" for cut in cuts),
        *(["at 5 (10), an earlier 60 questions"] if cuts == CUTS else []),
    ]
    size = f"{len(store.documents()):,} pages, {len(store):,} chunks"
    return table(f"recall of {len(questions)} questions, {size}, {name}", heads, rows)


def table_of_language(language: str, which: str) -> str:
    """Return the recall of questions in a language about texts of our own."""
    known = json.loads(BY_LANGUAGE.read_text(encoding="utf-8"))[language]
    questions = {question: [right] for question, right in known[which].items()}
    with SqliteStore(":memory:") as store:
        result = AsyncDocumentProcessor(store=store).process_sync(list(known["texts"].items()))
        result.raise_for_errors()
        return table_of(f"{language}, HashingEmbedder", store, questions, CUTS_OF_FEW)


def embedders() -> dict[str, Callable[..., Any]]:
    """Return the embedders that work in this process, as far as they are installed."""
    found: dict[str, Callable[..., Any]] = {"HashingEmbedder": HashingEmbedder()}
    if installed("wordllama"):
        found["WordLlamaEmbedder"] = WordLlamaEmbedder()
    return found


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Measure how often a search finds what is right.")
    parser.add_argument("--pages", type=Path, default=Path(PAGES), metavar="FOLDER")
    parser.add_argument("--set", choices=["reporting", "choosing"], default="reporting")
    parser.add_argument(
        "--questions",
        type=int,
        metavar="N",
        help="the first N, over their own right pages: measures nothing, shows that it works",
    )
    given = parser.parse_args()
    pages = pages_in(given.pages)
    questions = asked(given.set, pages, given.questions)
    if given.questions:
        right = {page for names in questions.values() for page in names}
        pages = {name: path for name, path in pages.items() if name in right}
    with tempfile.TemporaryDirectory() as folder:
        for name, embedder in embedders().items():
            with filled(Path(folder, f"{name}.sqlite"), pages, embedder) as store:
                print(table_of(name, store, questions), flush=True)
    for language in json.loads(BY_LANGUAGE.read_text(encoding="utf-8")):
        print(table_of_language(language, given.set), flush=True)
    print(
        "ragasync joins both rankings, as a search does by default. MiniLM had .80 (.88) by the "
        "earlier questions, at 150 processor seconds a thousand chunks, and is left out here."
    )


if __name__ == "__main__":
    main()
