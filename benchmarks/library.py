"""
The whole standard library, tests included, into a store: first, once more, after an edit, twice.

    python benchmarks/library.py                     # or: --folder PATH

The files are copied first, so that one of them can be edited. Each run is a process of its own,
whose largest size is told: it must not grow with the number of files, but for what a result keeps
of each. A second run over the same files must embed nothing and take under a tenth of the time of
the first; after one line was added to one file, only what that changed is embedded.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measuring import table
from numpy.typing import NDArray

from ragasync.documents import AsyncDocumentProcessor, HashingEmbedder, SqliteStore

PASSED_OVER = ("site-packages", "dist-packages", "__pycache__")
"""What is no part of the library."""


class CountingEmbedder(HashingEmbedder):
    """The default embedder, which counts what it is given."""

    texts = 0

    def __call__(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """Count the texts, and embed them."""
        self.texts += len(texts)
        return super().__call__(texts)


def ingest(folder: Path, store_file: Path) -> dict[str, Any]:
    """Take a folder into a store, and tell what it took; this is a process's life."""
    embedder = CountingEmbedder()
    with SqliteStore(store_file) as store:
        began = time.perf_counter()
        result = AsyncDocumentProcessor(store=store, embed=embedder).process_sync(folder)
        took = time.perf_counter() - began
        return {
            "files": result.total,
            "done": result.success_count,
            "failed": result.error_count,
            "chunks": len(store),
            "embedded": embedder.texts,
            "seconds": took,
            "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


def in_a_process(folder: Path, store_file: Path) -> dict[str, Any]:
    """Do it in a new process, whose size then is its own."""
    command = [sys.executable, __file__, "--ingest", str(folder), str(store_file)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def edit_one_line(folder: Path) -> str:
    """Add a line in the middle of the longest module, and return its name."""
    file = max(folder.glob("*.py"), key=lambda path: path.stat().st_size)
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    lines.insert(len(lines) // 2, "# one line more\n")
    file.write_text("".join(lines), encoding="utf-8")
    return file.name


def runs(library: Path, work: Path) -> list[tuple[str, dict[str, Any]]]:
    """Make all runs."""
    folder, store_file = work / "library", work / "library.sqlite"
    shutil.copytree(library, folder, ignore=shutil.ignore_patterns(*PASSED_OVER))
    for copy in "ab":
        shutil.copytree(folder, work / "twice" / copy)
    found = [
        ("ragasync, all files", in_a_process(folder, store_file)),
        ("the same once more", in_a_process(folder, store_file)),
    ]
    edited = edit_one_line(folder)
    return [
        *found,
        (f"after a line more in {edited}", in_a_process(folder, store_file)),
        ("two copies of it, anew", in_a_process(work / "twice", work / "twice.sqlite")),
    ]


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(description="Ingest the standard library, three times.")
    parser.add_argument("--folder", type=Path, default=Path(sysconfig.get_path("stdlib")))
    parser.add_argument("--ingest", type=Path, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ingest is not None:
        print(json.dumps(ingest(*given.ingest)))
        return
    with tempfile.TemporaryDirectory() as work:
        found = runs(given.folder, Path(work))
    first = found[0][1]["seconds"]
    heads = ["", "files", "done", "failed", "chunks", "embedded", "s", "of the first", "MB at most"]
    rows = [
        [
            name,
            f"{run['files']:,}",
            f"{run['done']:,}",
            f"{run['failed']:,}",
            f"{run['chunks']:,}",
            f"{run['embedded']:,}",
            f"{run['seconds']:.1f}",
            f"{run['seconds'] / first:.3f}",
            f"{run['megabytes']:.0f}",
        ]
        for name, run in found
    ]
    print(table("the standard library, with its tests, into a store", heads, rows))


if __name__ == "__main__":
    main()
