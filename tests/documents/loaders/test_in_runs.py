"""What a run makes of files that cannot be read: failures with a reason, and the run goes on."""

import os
import signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from ragasync.documents import (
    LOAD_REASONS,
    AsyncDocumentProcessor,
    Document,
    LoadError,
    MemoryStore,
    Source,
    Stage,
    load_source,
)

HOSTILE = {
    "binary.txt": (b"\x89PNG\r\n\0\0", "binary"),
    "broken.docx": (b"PK\x03\x04", "docx"),
    "broken.ipynb": (b'{"cells": ', "notebook"),
    "broken.jsonl": (b'{"a": 1}\n{', "json lines"),
    "broken.pdf": (b"%PDF-1.7\n", "pdf"),
    "cookie.py": (b"# coding: nonsense\n", "encoding"),
    "declaration.html": (b"<![x[ ]]>", "html"),
    "empty.md": (b"", "empty"),
    "empty.pdf": (b"", "empty"),
    "locked.docx": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "encrypted"),
    "ragged.csv": (b"a,b\n1\n", "csv"),
}


def crash_on_some(source: Source) -> str:
    """Load a text; one file takes the process down, as a native library may."""
    path = Path(source)
    if path.name == "crash.pdf":
        os.kill(os.getpid(), signal.SIGKILL)
    return path.read_text("utf-8")


@pytest.mark.real_time
async def test_hostile_files_fail_with_their_reasons_and_harm_no_other(tmp_path):
    """One kind of each, among files that are fine."""
    for name, (data, _) in HOSTILE.items():
        (tmp_path / name).write_bytes(data)
    for number in range(5):
        (tmp_path / f"fine-{number}.txt").write_text(f"number {number}")
    result = await AsyncDocumentProcessor().process(tmp_path)
    reasons = {}
    for outcome in result.get_failed():
        assert isinstance(outcome.error, LoadError)
        assert outcome.stage == "load"
        reasons[outcome.item.path.name] = outcome.error.reason
    assert reasons == {name: reason for name, (_, reason) in HOSTILE.items()}
    assert result.success_count == 5


def test_every_reason_that_a_loader_gives_is_listed():
    """So that failures can be skipped by reason, and a new one is not forgotten."""
    folder = Path(load_source.__code__.co_filename).parent
    texts = [path.read_text("utf-8") for path in folder.rglob("*.py")]
    given = {
        reason
        for reason in (
            part.split('"')[0] for text in texts for part in text.split('LoadError("')[1:]
        )
        if reason
    }
    assert given <= set(LOAD_REASONS)
    assert {reason for _, reason in HOSTILE.values()} <= set(LOAD_REASONS)


async def test_a_file_that_was_only_touched_is_unchanged(tmp_path):
    """Its date is no part of its fingerprint, but what a user says under that name is."""
    (tmp_path / "a.txt").write_text("one text")
    store = MemoryStore()
    processor = AsyncDocumentProcessor(store=store)
    given = [tmp_path / "a.txt", Document("b", "x", {"mtime": 1.0, "size": 1})]
    await processor.process(given)
    os.utime(tmp_path / "a.txt", (1, 1))
    again = await processor.process([given[0], Document("b", "x", {"mtime": 1.0, "size": 2})])
    assert [document.unchanged for document in again.get_successful()] == [True, False]
    (tmp_path / "a.txt").write_text("two text")
    (changed,) = (await processor.process(tmp_path)).get_successful()
    assert not changed.unchanged


def load_escaped(path: Path) -> str:
    """Load a text as a user may who has had enough of errors."""
    return path.read_text("utf-8", "surrogateescape")


@pytest.mark.parametrize("timeout", [None, 30])
@pytest.mark.parametrize("is_given", [True, False])
async def test_half_of_a_surrogate_pair_fails_while_loading(tmp_path, is_given, timeout):
    """No store takes it, and the error has to come before its chunks are embedded."""
    (tmp_path / "escaped.txt").write_bytes("né ".encode() + b"\xff")
    (tmp_path / "fine.txt").write_text("fine")
    sources = [("cut", "ab\ud83d"), ("fine", "😀")] if is_given else tmp_path
    load = None if is_given else load_escaped
    store = MemoryStore()
    result = await AsyncDocumentProcessor(load, store=store, timeout=timeout).process(sources)
    (failed,) = result.get_failed()
    assert failed.stage == "load"
    assert isinstance(failed.error, LoadError)
    assert failed.error.reason == "encoding"
    assert "surrogate" in failed.error.message
    assert result.success_count == 1


def test_load_source_refuses_half_of_a_surrogate_pair_too(tmp_path):
    """Of a pair, of a document, and of a loader of the user's own."""
    (tmp_path / "a.x").write_bytes(b"x")
    for source in (("id", "a\udc80"), Document("id", "a\udc80"), tmp_path / "a.x"):
        with pytest.raises(LoadError, match="surrogate pair, at 1"):
            load_source(source, loaders={".x": lambda data: ("a\udc80", {})})


@pytest.mark.real_time
async def test_a_crash_of_a_native_library_ends_no_run(tmp_path):
    """In worker processes: the file that killed its worker fails, the others are loaded."""
    for number in range(6):
        (tmp_path / f"{number}.txt").write_text(f"number {number}")
    (tmp_path / "crash.pdf").write_bytes(b"")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        load = Stage(crash_on_some, executor=pool, max_concurrency=1)
        result = await AsyncDocumentProcessor(load).process(tmp_path)
    assert [outcome.item.path.name for outcome in result.get_failed()] == ["crash.pdf"]
    assert result.success_count == 6
