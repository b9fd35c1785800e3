"""
The main job with the embedded default: a folder of Python files into a SqliteStore on a file.

    python benchmarks/ingesting.py               # or: --files 60 --cluster-files 20 --rounds 1

The plain for loop of `ingesting_by_hand.py` has the same splitter and embedder, and commits 32
documents at a time to tables of its own. On a cluster, two worker processes of Dask load and split
the files, and the calling process embeds and stores them; the workers have started and imported
ragasync before.

The files are a sample of those of the standard library and of the installed packages, of at most
30 kB, so compare ratios within one run. Each run is a new process, because the embedder keeps the
words that it has hashed; its imports are not measured. Processor time includes worker processes.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import tokenize
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from ingesting_by_hand import ingest_by_hand
from measuring import Figures, in_turns, installed, ratios, table

from ragasync.documents import AsyncDocumentProcessor, SqliteStore

BY_HAND = "plain for loop"
FIRST, AGAIN, WITHOUT_STORE = "ragasync", "ragasync, unchanged files", "ragasync, without a store"
THREADS, CLUSTER = "ragasync, threads", "ragasync, two worker processes of Dask"
WORKERS = 2

MAX_BYTES = 30_000
"""The largest file: what a document costs, which is measured here, is lost in longer ones."""


# ── the files ───────────────────────────────────────────────────────────────────────────────────


@cache
def short_python_files() -> Sequence[Path]:
    """Return the short files of the standard library and of the installed packages, by path."""
    library, packages = (Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib"))
    of_library = (path for path in library.rglob("*.py") if "site-packages" not in path.parts)
    found = chain(of_library, packages.rglob("*.py"))
    return sorted(path for path in found if path.stat().st_size <= MAX_BYTES)


def copy_python_files(count: int, folder: Path) -> None:
    """Copy a number of these files, evenly spaced by path."""
    short = short_python_files()
    for number in range(count):
        path = next(filter(_is_utf8, islice(short, number * len(short) // count, None)))
        place = folder / f"{number % 40:02}"
        place.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place / f"{number:04}_{path.name}")


def _is_utf8(path: Path) -> bool:
    """Return whether a file has a text that both can read; some tests of the library do not."""
    try:
        with tokenize.open(path) as file:
            text = file.read()
            return bool(text.strip()) and "\0" not in text and file.encoding == "utf-8"
    except (SyntaxError, UnicodeDecodeError):
        return False


# ── one run, in its own process ─────────────────────────────────────────────────────────────────


def ingest(folder: Path, store_file: Path, **settings: Any) -> int:
    """Process a folder into a store, and return the number of its chunks."""
    with SqliteStore(store_file) as store:
        result = AsyncDocumentProcessor(store=store, **settings).process_sync(folder)
        result.raise_for_errors()
        return len(store)


def ingest_without_store(folder: Path, _: Path) -> int:
    """Process a folder in memory, and return the number of its chunks."""
    result = AsyncDocumentProcessor().process_sync(folder)
    return sum(len(document.chunks or ()) for document in result.results if document)


WAYS: dict[str, Callable[..., int]] = {
    BY_HAND: ingest_by_hand,
    FIRST: ingest,
    AGAIN: ingest,
    WITHOUT_STORE: ingest_without_store,
    THREADS: ingest,
    CLUSTER: ingest,
}


@contextmanager
def cluster_settings(scheduler: str | None) -> Iterator[tuple[dict[str, Any], Callable[[], float]]]:
    """Yield the settings for a cluster, and a function that returns its processor seconds."""
    if scheduler is None:
        yield {}, lambda: 0.0
        return
    import distributed

    client_of: Callable[..., Any] = distributed.Client  # without types of its own
    with client_of(scheduler) as client:
        settings = {"executor": client.get_executor()}
        yield settings, lambda: sum(client.run(time.process_time).values())


def run_here(way: str, folder: Path, store_file: Path, scheduler: str | None) -> dict[str, float]:
    """Measure one run in this process."""
    with cluster_settings(scheduler) as (settings, cluster_seconds):
        processor, wall = _processor_seconds() + cluster_seconds(), time.perf_counter()
        chunks = WAYS[way](folder, store_file, **settings)
        wall = time.perf_counter() - wall
        return {
            "wall": wall,
            "processor": _processor_seconds() + cluster_seconds() - processor,
            "chunks": chunks,
            "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


def _processor_seconds() -> float:
    """Return the processor seconds of this process, and of its child processes that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


# ── the race ────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Race:
    """Runs the ways over the same files, each in a new process, and keeps their figures."""

    folder: Path
    work: Path
    scheduler: str | None = None
    wall: defaultdict[str, Figures] = field(default_factory=lambda: defaultdict(Figures))
    processor: defaultdict[str, Figures] = field(default_factory=lambda: defaultdict(Figures))
    megabytes: defaultdict[str, Figures] = field(default_factory=lambda: defaultdict(Figures))
    chunks: dict[str, int] = field(default_factory=dict)

    def measure(self, ways: Sequence[str], rounds: int) -> None:
        """Measure the ways in turns; the unchanged files are processed right after the first."""
        names = [way for way in ways if way != AGAIN]
        in_turns({way: partial(self._fresh, way, AGAIN in ways) for way in names}, rounds)
        assert len({self.chunks[way] for way in ways}) == 1, f"different chunks: {self.chunks}"

    def _fresh(self, way: str, is_repeated: bool) -> float:
        """Run one way into a new file, and ours once more if it is asked for."""
        with tempfile.TemporaryDirectory(dir=self.work) as place:
            store_file = Path(place, "store.sqlite")
            wall = self._run(way, store_file)
            if way == FIRST and is_repeated:
                self._run(AGAIN, store_file)
        return wall

    def _run(self, way: str, store_file: Path) -> float:
        """Run one way in a new process, and return its wall seconds."""
        command = [sys.executable, __file__, "--run", way, str(self.folder), str(store_file)]
        if way == CLUSTER:
            command += ["--scheduler", str(self.scheduler)]
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(ran.stdout.splitlines()[-1])
        self.wall[way].values.append(found["wall"])
        self.processor[way].values.append(found["processor"])
        self.megabytes[way].values.append(found["megabytes"])
        self.chunks[way] = found["chunks"]
        return float(found["wall"])

    def table(self, title: str, reference: str, ways: Iterable[str]) -> str:
        """Return the medians of both times, and the medians of their ratios in each round."""
        wall_ratio, ratio = ratios(self.wall, reference), ratios(self.processor, reference)
        heads = ["", "wall s, median (min-max)", "x", "processor s", "x", "chunks", "MB at most"]
        rows = [
            [
                way,
                str(self.wall[way]),
                f"{wall_ratio[way]:.2f}",
                str(self.processor[way]),
                f"{ratio[way]:.2f}",
                f"{self.chunks[way]:,}",
                f"{self.megabytes[way].median:.0f}",
            ]
            for way in ways
        ]
        return table(f"{title}; x {reference}", heads, rows)

    def share_of_first(self) -> str:
        """Return the share of the first run that a second run over unchanged files takes."""
        wall, processor = ratios(self.wall, FIRST), ratios(self.processor, FIRST)
        return (
            f"Unchanged files take {wall[AGAIN]:.3f} of the wall time of the first run, and "
            f"{processor[AGAIN]:.3f} of its processor time.\n"
        )


def on_one_machine(count: int, rounds: int, work: Path) -> None:
    """Print the table of the default, compared with the plain for loop."""
    folder = work / "files"
    copy_python_files(count, folder)
    race = Race(folder, work)
    ways = BY_HAND, FIRST, AGAIN, WITHOUT_STORE
    race.measure(ways, rounds)
    print(race.table(f"{count:,} Python files into a SqliteStore", BY_HAND, ways))
    print(race.share_of_first(), flush=True)


def on_a_cluster(count: int, rounds: int, work: Path) -> None:
    """Print the table of a cluster on this machine, compared with threads."""
    import distributed

    folder = work / "cluster_files"
    copy_python_files(count, folder)
    cluster_of: Callable[..., Any] = distributed.LocalCluster  # without types of its own
    with cluster_of(
        n_workers=WORKERS,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address=":0",
        silence_logs=logging.CRITICAL,
    ) as cluster:
        race = Race(folder, work, cluster.scheduler_address)
        race.measure([CLUSTER], 1)  # the workers' imports are not measured
        race = Race(folder, work, cluster.scheduler_address)
        race.measure([THREADS, CLUSTER], rounds)
    print(race.table(f"{count:,} Python files, a cluster", THREADS, [THREADS, CLUSTER]))


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Compare ways to ingest Python files.")
    parser.add_argument("--files", type=int, default=1_200)
    parser.add_argument("--cluster-files", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--scheduler", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run is not None:
        way, folder, store_file = given.run
        print(json.dumps(run_here(way, Path(folder), Path(store_file), given.scheduler)))
        return
    with tempfile.TemporaryDirectory() as work:
        if given.files:
            on_one_machine(given.files, given.rounds, Path(work))
        if not given.cluster_files:
            return
        if installed("distributed"):
            on_a_cluster(given.cluster_files, given.rounds, Path(work))
        else:
            print("skipped, not installed: distributed")


if __name__ == "__main__":
    main()
