"""The benchmarks run, at tiny sizes; their figures are not tested."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.requirements import needs_in_step

FOLDER = Path(__file__).parents[2] / "benchmarks"

# With the extra alone: half of what they run is others' code.
needs_in_step("rules", "aiometer")

RUNS = {
    "adaptive": ["--items", "60"],
    "breathing": ["--items", "200", "--rounds", "1"],
    "bridging": ["--calls", "20", "--rounds", "1"],
    "clusters": ["--items", "64", "--mapped", "8", "--rounds", "1"],
    "crossings": [],
    "documents": ["--documents", "20", "--embedded", "10", "--at-once", "4", "--rounds", "1"],
    "drawing": ["--seconds", "0.1", "--rounds", "1"],
    "encodings": ["--texts", "2"],
    "flaky": ["--calls", "40", "--at-once", "8", "--rounds", "1"],
    "frames": ["--items", "2000", "--rounds", "1"],
    "importing": ["--rounds", "1"],
    "ingesting": ["--files", "40", "--cluster-files", "8", "--rounds", "1"],
    "journalling": ["--items", "100", "--at-once", "8", "--seconds", "0.001", "--rounds", "1"],
    "library": ["--folder", str(FOLDER)],
    "limits": ["--rates", "1000", "--seconds", "0.05", "--acquires", "100", "--rounds", "1"],
    "makespan": ["--items", "100", "--at-once", "8", "--mean", "0.002", "--rounds", "1"],
    "reporting": ["--items", "500", "--failures", "200", "--rounds", "1"],
    "retrieval": ["--pages", str(Path(os.__file__).parent), "--questions", "5"],
    "retries": ["--calls", "100", "--rounds", "1"],
    "scheduling": ["--items", "50", "100", "--rounds", "1", "--at-once", "4", "--seconds", "0.001"],
    "searching": ["--chunks", "200", "--chunks-256", "400", "--rows", "200", "--rounds", "1"],
    "simulating": ["--items", "200", "--rounds", "1"],
    "soak": ["--items", "500"],
    "storing": ["--documents", "64", "--rounds", "1"],
    "streaming": ["--items", "200", "400"],
    "sync_functions": ["--calls", "64", "--items", "200", "--rounds", "1"],
    "tables": ["--rows", "2000"],
}


@pytest.mark.real_time
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", RUNS)
def test_a_benchmark_runs_and_prints_its_tables(name: str):
    """Each checks its contenders' values itself, and ragasync has a row in every table."""
    tables = run([FOLDER / f"{name}.py", *RUNS[name]]).split("### ")[1:]
    assert tables
    assert all("| ragasync" in table for table in tables)


@pytest.mark.real_time
@pytest.mark.timeout(180)
def test_one_command_runs_families_and_keeps_their_tables(tmp_path: Path):
    """A later run replaces the tables of its families and leaves the others as they were."""
    kept = tmp_path / "results.md"
    kept.write_text(
        "# What was measured\n\nelsewhere\n\n## retries\n\nold\n\n## frames\n\nas it was\n"
    )
    run([FOLDER, "--quick", "--only", "retries", "--into", kept])
    text = kept.read_text()
    assert "CPython" in text
    assert "elsewhere" not in text
    assert "## frames\n\nas it was\n" in text
    assert "| ragasync |" in text.partition("## retries")[2].partition("## frames")[0]
    assert "old" not in text


def run(command: list[object]) -> str:
    """Run a benchmark in its own process and return its output."""
    ran = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_every_benchmark_is_tried_here():
    """Every benchmark with a command line is in the list above."""
    commands = {path.stem for path in FOLDER.glob("*.py") if "argparse" in path.read_text()}
    assert commands == {*RUNS, "__main__"}
