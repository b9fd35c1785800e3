"""The main job as a command, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess:
    """Run the command with warnings as errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "ragasync.documents", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        cwd=cwd,
    )


@pytest.fixture
def folder(tmp_path):
    """A folder with good files, bad ones, and one to pass over."""
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "bucket.md").write_text("Refill.\n\nA token bucket refills at a steady rate.\n")
    (folder / "bread.md").write_text("Flour and water.\n")
    (folder / "one.bin").write_bytes(b"a\0b")
    (folder / "two.bin").write_bytes(b"c\0d")
    (folder / "bad.py").write_bytes(b"# coding: utf-8\n\xe4")
    (folder / "skipped.log").write_text("a token bucket refills")
    return folder


def test_it_ingests_reports_and_searches(folder, tmp_path):
    """Counts, failures by reason, chunks, and hits; the bar is on stderr."""
    ran = run(folder, "--search", "how does a bucket refill?", "--skip", "*.log", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "5/5" in ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[0].startswith("2 of 5 done, 3 failed in ")
    assert lines[1].startswith("0 of them were unchanged; <SqliteStore 'library.sqlite': 2 doc")
    table = [line.split() for line in lines[3:6]]
    assert table == [
        ["failed", "stage", "reason", "first", "file"],
        ["2", "load", "binary", "one.bin"],
        ["1", "load", "encoding", "bad.py"],
    ]
    hits = lines[lines.index("how does a bucket refill?") + 1 :]
    assert hits[0].split() == ["1.", "bucket.md"]
    assert hits[1].strip() == "A token bucket refills at a steady rate."


def test_a_second_run_says_how_many_were_unchanged(folder, tmp_path):
    """In the store that it was told."""
    store = tmp_path / "mine.sqlite"
    for unchanged in (0, 3):
        ran = run(folder, "--store", store, cwd=tmp_path)
        assert f"{unchanged} of them were unchanged" in ran.stdout
    assert not (tmp_path / "library.sqlite").exists()


def test_a_missing_folder_and_a_foreign_store_are_plain_errors(folder, tmp_path):
    """One line that says what is wrong, without a traceback."""
    missing = run("nowhere", cwd=tmp_path)
    assert (missing.returncode, missing.stderr) == (2, "there is no file or folder at 'nowhere'\n")
    (tmp_path / "notes.txt").write_text("no database " * 100)
    foreign = run(folder, "--store", "notes.txt", cwd=tmp_path)
    assert foreign.returncode == 1
    assert foreign.stderr.startswith("the store 'notes.txt'")
    assert len(foreign.stderr.splitlines()) == 1
