"""The benchmarks run, at tiny sizes: what they measure is theirs to say, not a test's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"

RUNS = {
    "limits": ["--rates", "1000", "--seconds", "0.05", "--acquires", "100", "--rounds", "1"],
    "retries": ["--calls", "100", "--rounds", "1"],
    "scheduling": ["--items", "50", "100", "--rounds", "1", "--at-once", "4"],
}


@pytest.mark.real_time
@pytest.mark.parametrize("name", RUNS)
def test_a_benchmark_runs_and_prints_its_tables(name: str):
    """Each checks its contenders' values itself; a row of ours is in every table."""
    ran = subprocess.run(
        [sys.executable, FOLDER / f"{name}.py", *RUNS[name]],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    tables = ran.stdout.split("### ")[1:]
    assert tables
    assert all("| ragasync" in table for table in tables)


def test_every_benchmark_is_tried_here():
    """What has a command line is in the list above."""
    commands = {path.stem for path in FOLDER.glob("*.py") if "argparse" in path.read_text()}
    assert commands == set(RUNS)
