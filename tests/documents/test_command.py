"""The main job as a command, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from ragasync.documents import AsyncDocumentProcessor
from tests.support.scripts import exit_code_of


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
    ran = run(folder, "--search", "how does a bucket refill?", "--exclude", "*.log", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "5/5" in ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[0].startswith("2 of 5 done, 3 failed in ")
    assert lines[1].startswith("2 new or changed, 0 unchanged; <SqliteStore 'library.sqlite': 2 ")
    assert lines[3].split()[:5] == ["failed", "stage", "reason", "first", "file,"]
    assert lines[4].split() == ["2", "load", "binary", "one.bin"]
    assert lines[5].strip() == "a text was expected, but there is a NUL byte at 1"
    assert lines[6].split() == ["1", "load", "encoding", "bad.py"]
    assert lines[7].strip().startswith("not readable as Python source: ")
    hits = lines[lines.index("how does a bucket refill?") + 1 :]
    assert hits[0].split() == ["1.", "bucket.md"]
    assert hits[1].strip() == "A token bucket refills at a steady rate."


def test_a_second_run_says_how_many_were_unchanged(folder, tmp_path):
    """In the store that it was told."""
    store = tmp_path / "mine.sqlite"
    for said in ("3 new or changed, 0 unchanged", "0 new or changed, 3 unchanged"):
        ran = run(folder, "--store", store, cwd=tmp_path)
        assert said in ran.stdout
    assert not (tmp_path / "library.sqlite").exists()


def test_patterns_to_pass_over_come_one_by_one_and_leave_the_folder_alone(folder, tmp_path):
    """In front of the folder, too."""
    ran = run("--exclude", "*.log", "--exclude", "*.bin", folder, cwd=tmp_path)
    assert ran.stdout.startswith("2 of 3 done, 1 failed in ")


def test_a_folder_is_searched_for_what_is_asked_and_for_nothing_else(folder, tmp_path):
    """The question about the standard library is not put to other folders."""
    assert "?" not in run(folder, cwd=tmp_path).stdout
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.bin").write_bytes(b"a\0b")
    asked = run("none", "--search", "who?", "--store", "none.sqlite", cwd=tmp_path)
    assert asked.stdout.endswith("\nwho?\n  nothing found\n")


def test_it_fails_where_every_file_failed(folder, tmp_path):
    """So that a script notices; where only some failed, it is the report that tells."""
    assert run(folder / "one.bin", cwd=tmp_path).returncode == 1
    assert run(folder, cwd=tmp_path).returncode == 0


def test_an_empty_folder_is_a_plain_error_and_makes_no_store(folder, tmp_path):
    """Most often it is the wrong one."""
    (tmp_path / "empty").mkdir()
    ran = run("empty", cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (2, "there is no file to ingest in 'empty'\n")
    assert not (tmp_path / "library.sqlite").exists()


def test_a_missing_folder_and_a_foreign_store_are_plain_errors(folder, tmp_path):
    """One line that says what is wrong, without a traceback."""
    missing = run("nowhere", cwd=tmp_path)
    assert (missing.returncode, missing.stderr) == (2, "there is no file or folder at 'nowhere'\n")
    (tmp_path / "notes.txt").write_text("no database " * 100)
    foreign = run(folder, "--store", "notes.txt", cwd=tmp_path)
    assert foreign.returncode == 1
    assert foreign.stderr.startswith(f"the store '{tmp_path / 'notes.txt'}'")
    assert len(foreign.stderr.splitlines()) == 1


def test_an_interrupt_says_what_is_done_and_how_to_go_on(folder, tmp_path, monkeypatch, capsys):
    """Two lines, without a traceback, and the exit code of an interrupted command."""
    whole = AsyncDocumentProcessor.process_sync

    def interrupted(self, sources, progress):
        whole(self, [folder / "bread.md", folder / "bucket.md"], max_items=1)
        raise KeyboardInterrupt

    monkeypatch.setattr(AsyncDocumentProcessor, "process_sync", interrupted)
    store = tmp_path / "mine.sqlite"
    assert exit_code_of(monkeypatch, [str(folder), "--store", str(store)]) == 130
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("interrupted: 1 of 2 done, 1 pending in ")
    assert second == f"run it again to continue: {store} keeps finished work"
