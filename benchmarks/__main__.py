"""
Run every family, keep all tables and a summary in RESULTS.md, and put five rows into README.md.

    python benchmarks                                # about half an hour; leave the machine alone
    python benchmarks --only retries limits          # these families, the others as they were
    python benchmarks --only documents ingesting crossings --into tables.md    # README stays too

Each family runs in a process of its own, one after the other.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from summary import README_LINES, summary

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "RESULTS.md"
README = FOLDER.parent / "README.md"
HEADING = """\
# What was measured

ragasync compared with code written by hand and with other packages, in turns in one run. The
machine has two small, noisy cores: compare ratios, not absolute times. Each figure of ragasync is
with everything on: an outcome with times and attempts for every item, retries, cancellation, and
yields to the loop. To measure again:

```bash
.venv/bin/pip install -q -e ".[bench,test]" && .venv/bin/python benchmarks
```

A soak test with a million items, 1% of which fail and are retried (`python benchmarks/soak.py`, run
by hand): from its first quarter to its last the process grew by 0.0 MB, and no task, thread, file
or socket was left at the end.

Measured with """
BEGIN, END = "<!-- made by `python benchmarks` -->", "<!-- end of what it made -->"

FAMILIES: dict[str, list[list[str]]] = {
    "scheduling": [["--rounds", "3"], ["--items", "100000", "--at-once", "4", "256"]],
    "makespan": [[]],
    "adaptive": [[]],
    "breathing": [[]],
    "streaming": [["--items", "1000000", "10000000", "--traced-up-to", "0"]],
    "sync_functions": [[]],
    "clusters": [[]],
    "limits": [["--rates", "10", "100", "1000", "10000"]],
    "retries": [[]],
    "flaky": [[]],
    "bridging": [[]],
    "documents": [[]],
    "encodings": [[]],
    "ingesting": [[]],
    "crossings": [[]],
    "library": [[]],
    "journalling": [[]],
    "drawing": [[]],
    "frames": [[]],
    "reporting": [[]],
    "importing": [[]],
    "retrieval": [[]],
    "searching": [[]],
    "storing": [[]],
    "simulating": [[]],
    "tables": [[]],
}
"""The runs of each family, a list of arguments each."""

QUICK: dict[str, list[list[str]]] = {
    "retries": [["--calls", "100", "--rounds", "1"]],
    "limits": [["--rates", "1000", "--seconds", "0.05", "--acquires", "100", "--rounds", "1"]],
}
"""Sizes that measure nothing, to see that all of this works."""

PACKAGES = """
    ragasync aiohttp aiolimiter aiometer aiostream anyio arize-phoenix-evals async-batch-llm
    asynciolimiter backoff ipywidgets langchain-core langchain-text-splitters llama-index-core loky
    nest-asyncio2 numpy pandas pyrate-limiter stamina tenacity throttled-py tqdm
"""
"""Whose versions are told."""


def machine() -> str:
    """Return what all of this was measured on and with."""
    present = []
    for name in PACKAGES.split():
        try:
            present.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return (
        f"{python}, {platform.system()} {platform.machine()}, {_processor()}, "
        f"{os.cpu_count()} cores; {', '.join(present)}."
    )


def _processor() -> str:
    """Return the name of the processor, where the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown processor")


def tables_of(family: str, runs: Iterable[list[str]]) -> str:
    """Run a family and return what it printed, which is shown meanwhile."""
    printed = []
    for arguments in runs:
        command = [sys.executable, str(FOLDER / f"{family}.py"), *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                print(line, end="", flush=True)
                printed.append(line)
        if process.returncode:
            raise SystemExit(f"{family} failed, see above; the results are as they were")
    return "".join(printed).strip()


def kept_in(results: Path) -> dict[str, str]:
    """Return the tables of each family that an earlier run has kept."""
    if not results.exists():
        return {}
    _, *parts = results.read_text().split("\n## ")
    split = (part.partition("\n") for part in parts)
    return {name.strip(): tables.strip() for name, _, tables in split}


def written(results: Path, families: dict[str, str]) -> None:
    """Keep all tables in a file."""
    ordered = [name for name in FAMILIES if name in families]
    sections = [f"## {name}\n\n{families[name]}\n" for name in ordered]
    short = summary("\n\n".join(families[name] for name in ordered))
    results.write_text("\n".join([f"{HEADING}{machine()}\n\n{short}\n", *sections]))


def put_into(readme: Path, families: dict[str, str]) -> None:
    """Replace what an earlier run put into README."""
    before, _, rest = readme.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    table = summary("\n\n".join(families.values()), README_LINES)
    readme.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")


def main() -> None:
    """Read the command line, measure, write."""
    parser = argparse.ArgumentParser(description="Make the tables of the benchmarks.")
    parser.add_argument("--only", nargs="+", choices=FAMILIES, metavar="FAMILY")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; README stays as it is")
    parser.add_argument(
        "--into", type=Path, default=RESULTS, help="keep the tables there, and leave README"
    )
    given = parser.parse_args()
    families = kept_in(given.into)
    sizes = QUICK if given.quick else FAMILIES
    for family in given.only or sizes:
        families[family] = tables_of(family, sizes[family])
        written(given.into, families)
    if not given.quick and given.into == RESULTS:
        put_into(README, families)


if __name__ == "__main__":
    main()
