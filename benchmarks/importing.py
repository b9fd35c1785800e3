"""
What an import costs, each in a new process that has imported asyncio already.

    python benchmarks/importing.py --rounds 15

Processor milliseconds: what a disk or another process takes is nobody's import. The compiled files
are there: a first round is made off the clock, in an environment that does not forbid them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from functools import partial

from measuring import in_turns, installed, table

CHILD = """
import asyncio, sys, time
began = time.process_time()
import {module}
print(time.process_time() - began, "numpy" in sys.modules)
"""

COMPILING_ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
}

OURS = "ragasync"

MODULES = [
    OURS,
    "ragasync.documents",
    "tenacity",
    "tqdm.asyncio",
    "aiometer",
    "pandas",
    "langchain_core.runnables",
    "llama_index.core",
]


def milliseconds(module: str) -> float:
    """Return the processor milliseconds that importing this module takes a new process."""
    command = [sys.executable, "-c", CHILD.format(module=module)]
    ran = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env=COMPILING_ENVIRONMENT
    )
    seconds, has_numpy = ran.stdout.split()
    assert module != OURS or has_numpy == "False", "import ragasync must not load numpy"
    return float(seconds) * 1e3


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Compare what imports cost.")
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    here = [module for module in MODULES if installed(module.partition(".")[0])]
    for module in here:
        milliseconds(module)
    figures = in_turns({module: partial(milliseconds, module) for module in here}, given.rounds)
    title = "import over Python with asyncio: processor ms, median (min-max)"
    print(table(title, ["", "ms"], list(figures.items())))
    if left_out := set(MODULES) - set(here):
        print(f"Left out: {', '.join(sorted(left_out))}; pip install 'ragasync[bench]'")


if __name__ == "__main__":
    main()
