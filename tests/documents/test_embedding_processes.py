"""Worker processes that embed for a large run: the same vectors, and nothing that stays behind."""

import io
import itertools
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from ragasync import AsyncDocumentProcessor
from ragasync.documents import HashingEmbedder, RecursiveSplitter, Stage, embedders

# Internals: parts of an embedder that no run starts or stops on demand.
from ragasync.documents.embedders import (
    EmbeddingProcesses,
    can_start_processes,
    serve,
    usable_cores,
)
from tests.support.requirements import only_where
from tests.support.scripts import printed_by

pytestmark = [
    only_where(usable_cores() > 1, "worker processes need two cores"),
    only_where(os.name == "posix", "signals and zombies are those of POSIX"),
]

TEXTS = ["A bucket refills.", "", "Grüße aus Köln", "桶 补充 🪣", "x" * 300_000]
DIMENSION = 64


class ElsewhereOnly(HashingEmbedder):
    """An embedder that refuses to embed in this process."""

    def __call__(self, texts):
        raise RuntimeError("embedded in this process")


def workers_of(pid: int | None = None) -> list[psutil.Process]:
    """The worker processes that a process has started."""
    found = []
    for child in psutil.Process(pid).children():
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if embedders.PROGRAM in child.cmdline():
                found.append(child)
    return found


def start(processes: EmbeddingProcesses) -> list[psutil.Process]:
    """Start both workers, and wait until they are ready."""
    while processes.ready < 2:
        with suppress(RuntimeError):
            processes.embed(["a text"])
        time.sleep(0.01)
    return workers_of()


@pytest.fixture
def processes() -> Iterator[EmbeddingProcesses]:
    """Processes that are started by the first text, with an embedder for the fallback."""
    opened = EmbeddingProcesses(HashingEmbedder(DIMENSION), start_chars=[1, 1])
    yield opened
    opened.close()


def long_sources(count: int | None = None) -> Iterator[tuple[str, str]]:
    """Texts of 20,000 characters, without end unless a number is given."""
    for number in itertools.count() if count is None else range(count):
        words = " ".join(f"word{place} and" for place in range(1_600))
        yield f"text {number}", f"This is number {number}. {words}"


# ── the workers alone ───────────────────────────────────────────────────────────────────────────


def test_a_worker_makes_the_same_vectors():
    """For texts in any script, and for more than a pipe holds."""
    processes = EmbeddingProcesses(ElsewhereOnly(DIMENSION), start_chars=[1, 1])
    try:
        start(processes)
        assert np.array_equal(processes.embed(TEXTS), HashingEmbedder(DIMENSION)(TEXTS))
    finally:
        processes.close()


def test_concurrent_calls_get_their_own_vectors(processes):
    """More calls than there are workers, of different lengths."""
    start(processes)
    batches = [[f"text {number} of {size}" for number in range(size)] for size in range(1, 60)]
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(processes.embed, batches))
    embed = HashingEmbedder(DIMENSION)
    assert all(
        np.array_equal(rows, embed(batch)) for rows, batch in zip(made, batches, strict=True)
    )


def test_texts_of_a_worker_that_dies_are_embedded_in_this_process(processes):
    """Also those that it was embedding, which a stopped process shows."""
    workers = start(processes)
    for worker in workers:
        worker.suspend()
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(processes.embed, TEXTS) for _ in range(4)]
        for worker in workers:
            worker.kill()
        made = [call.result() for call in calls]
    assert all(np.array_equal(rows, HashingEmbedder(DIMENSION)(TEXTS)) for rows in made)
    assert processes.ready == 0


def test_one_worker_goes_on_when_the_other_dies(processes):
    """It gets the calls of both."""
    first, other = start(processes)
    first.kill()
    first.wait()
    for _ in range(4):
        assert np.array_equal(processes.embed(TEXTS), HashingEmbedder(DIMENSION)(TEXTS))
    assert workers_of() == [other]


def test_closing_ends_the_workers(processes):
    """None is left, not even as a zombie."""
    workers = start(processes)
    processes.close()
    assert [worker for worker in workers if worker.is_running()] == []


def test_closing_ends_workers_that_are_still_starting():
    """As at the end of a run that was hardly long enough for them."""
    processes = EmbeddingProcesses(HashingEmbedder(DIMENSION), start_chars=[1, 1])
    processes.embed(TEXTS)
    processes.close()
    for thread in threading.enumerate():
        if thread.name == embedders.STARTER:
            thread.join()
    assert workers_of() == []


def test_an_interrupt_leaves_a_worker_alive(processes):
    """A terminal sends Ctrl-C to it too, and the run decides what becomes of it."""
    workers = start(processes)
    for worker in workers:
        worker.send_signal(signal.SIGINT)
    processes.embed(TEXTS)
    assert processes.ready == len(workers)


def test_below_the_threshold_no_worker_is_started(monkeypatch):
    """A small run would only wait for it."""
    monkeypatch.setattr(subprocess, "Popen", None)
    processes = EmbeddingProcesses(HashingEmbedder(DIMENSION), start_chars=[100])
    assert len(processes.embed(["a" * 99])) == 1
    assert embedders.STARTER not in [thread.name for thread in threading.enumerate()]
    processes.close()


@pytest.mark.parametrize("does", ["not exist", "fail", "say something else"])
def test_without_a_usable_interpreter_texts_are_embedded_in_this_process(
    does, monkeypatch, tmp_path
):
    """Nothing fails, and nothing is tried again."""
    program = tmp_path / "python"
    if does != "not exist":
        program.write_text("#!/bin/sh\n" + ("exit 1" if does == "fail" else "echo hello; cat"))
        program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    processes = EmbeddingProcesses(HashingEmbedder(DIMENSION), start_chars=[1, 1])
    made = processes.embed(TEXTS)
    for thread in threading.enumerate():
        if thread.name == embedders.STARTER:
            thread.join()
    assert processes.ready == 0
    assert np.array_equal(made, processes.embed(TEXTS))
    processes.close()


def test_the_program_of_a_worker_ends_with_its_input():
    """It says that it is ready, and answers what it was sent."""
    requests, replies = io.BufferedReader(io.BytesIO(pickle.dumps(TEXTS))), io.BytesIO()
    serve(HashingEmbedder(DIMENSION), requests, replies)
    ready, rows = replies.getvalue()[:1], np.frombuffer(replies.getvalue()[1:], dtype=np.float32)
    assert ready == embedders.READY
    assert np.array_equal(rows, HashingEmbedder(DIMENSION)(TEXTS).ravel())


@pytest.mark.parametrize("cut", [1, 20, -1])
def test_half_a_request_is_an_error(cut):
    """The process that sent it has died."""
    half = io.BufferedReader(io.BytesIO(pickle.dumps(TEXTS)[:cut]))
    with pytest.raises((EOFError, pickle.UnpicklingError)):
        serve(HashingEmbedder(DIMENSION), half, io.BytesIO())


# ── where they are not started ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("program", ["", "/opt/blender/blender", "C:\\Program Files\\App\\app.exe"])
def test_an_application_with_python_inside_is_not_started_again(program, monkeypatch):
    """It may open its window."""
    monkeypatch.setattr(sys, "executable", program)
    assert not can_start_processes()


def test_a_frozen_application_is_not_started_again(monkeypatch):
    """Whatever it is called."""
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert not can_start_processes()


def test_an_environment_variable_turns_workers_off(monkeypatch):
    """For users who have other work for their cores."""
    assert can_start_processes()
    monkeypatch.setenv("RAGASYNC_WORKER_PROCESSES", "0")
    assert not can_start_processes()


@only_where(hasattr(os, "sched_setaffinity"), "cores cannot be taken away")
def test_one_usable_core_is_not_enough():
    """However many the machine has."""
    (printed,) = printed_by(
        """
        import os
        from ragasync.documents.embedders import can_start_processes
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        print(can_start_processes())
        """
    )
    assert printed == "False"


@pytest.mark.parametrize("daemon", [False, True])
def test_a_process_of_a_pool_starts_none(daemon):
    """Its pool has used the cores already."""
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=_put_whether_possible, args=(queue,), daemon=daemon)
    process.start()
    assert queue.get() is False
    process.join()


def _put_whether_possible(queue) -> None:
    """Put into a queue whether workers can be started in this process."""
    queue.put(can_start_processes())


# ── in a run ────────────────────────────────────────────────────────────────────────────────────


def sources_until_workers_embed(more: int) -> Iterator[tuple[str, str]]:
    """Sources until a worker has sent vectors, and some more."""
    sources = long_sources()
    while True:
        yield next(sources)
        time.sleep(0.01)  # so that there are not thousands until the workers have started
        workers = workers_of()
        with suppress(psutil.NoSuchProcess):
            if workers and all(worker.io_counters().write_chars > 100_000 for worker in workers):
                break
    yield from itertools.islice(sources, more)


@only_where(sys.platform == "linux", "needs the bytes that a process has written")
def test_a_large_run_has_the_same_results_in_the_same_order():
    """Documents, chunks and vectors, and the counts of the embed stage."""
    result = AsyncDocumentProcessor().process_sync(sources_until_workers_embed(20))
    embed, split = HashingEmbedder(), RecursiveSplitter()
    result.raise_for_errors()
    for document, (name, text) in zip(result.results, long_sources(len(result)), strict=True):
        chunks = split(text)
        assert document.id == name
        assert [chunk.text for chunk in document.chunks] == [chunk.text for chunk in chunks]
        assert np.array_equal(document.embeddings, embed([chunk.text for chunk in chunks]))
    (stage,) = (stage for stage in result.stats.stages if stage.name == "embed")
    chunks = sum(len(document.chunks) for document in result.results)
    assert (stage.ended, stage.in_flight) == (chunks, 0)
    assert workers_of() == []


@only_where(sys.platform == "linux", "needs the bytes that a process has written")
def test_a_run_survives_its_workers():
    """They are killed in the middle, and no document fails."""

    def sources():
        yield from sources_until_workers_embed(3)
        for worker in workers_of():
            worker.kill()
        yield from ((f"late {name}", text) for name, text in long_sources(20))

    result = AsyncDocumentProcessor().process_sync(sources())
    assert result.all_succeeded
    assert {outcome.attempts for outcome in result} == {1}


@pytest.mark.real_time
async def test_cancelling_a_run_ends_its_workers():
    """Also those that do not answer."""

    def sources():
        for source in long_sources():
            yield source
            if workers := workers_of():
                for worker in workers:
                    worker.suspend()
                job.cancel()

    job = AsyncDocumentProcessor().start(sources())
    await job
    assert workers_of() == []


class OwnEmbedder(HashingEmbedder):
    """An embedder that a user has derived."""


def own_load(source):
    """A loader as users write it."""
    return source[1]


@pytest.mark.parametrize(
    "settings",
    [
        {"load": own_load},
        {"chunk": lambda text: [text]},
        {"embed": lambda texts: np.ones((len(texts), 2))},
        {"embed": OwnEmbedder()},
        {"embed": Stage(HashingEmbedder(), max_concurrency=2)},
        {"timeout": 30},
    ],
    ids=lambda settings: ", ".join(settings),
)
def test_other_functions_and_settings_stay_in_the_process(settings, monkeypatch):
    """Whatever the size of the run."""
    monkeypatch.setattr(embedders, "START_CHARS", [1])
    monkeypatch.setattr(subprocess, "Popen", _refuse)
    _started.clear()
    AsyncDocumentProcessor(**settings).process_sync(long_sources(3))
    assert _started == []


@pytest.mark.parametrize("executor", [None, ThreadPoolExecutor(1)], ids=["threads", "executor"])
def test_the_embedded_default_is_what_starts_them(executor, monkeypatch):
    """Also if an executor loads and chunks, because this process embeds all the same."""
    monkeypatch.setattr(embedders, "START_CHARS", [1])
    monkeypatch.setattr(subprocess, "Popen", _refuse)
    _started.clear()
    assert AsyncDocumentProcessor(executor=executor).process_sync(long_sources(3)).all_succeeded
    assert _started


def test_a_worker_imports_what_an_embedder_needs_and_no_more():
    """Else its start would take a second, and a run of some megabytes gain nothing."""
    program = embedders.PROGRAM.replace("run_worker()", "print(*sys.modules)")
    root = Path(embedders.__file__).parents[3]
    names = subprocess.check_output([sys.executable, "-c", program], cwd=root, text=True).split()
    assert "ragasync.documents.embedders" in names
    assert not {"asyncio", "pandas", "sqlite3", "ragasync.batch"} & set(names)


_started: list[object] = []


def _refuse(command, **_):
    """Refuse to start a process, and note that it was tried."""
    _started.append(command)
    raise OSError("no more processes")


# ── the process that starts them ────────────────────────────────────────────────────────────────

ENDLESS = """
import itertools
from ragasync import AsyncDocumentProcessor
print("ran", flush=True)
words = " ".join(f"word{place} and" for place in range(1_000))
AsyncDocumentProcessor().process_sync((f"text {n}", words) for n in itertools.count())
"""


def test_no_worker_outlives_a_killed_process(tmp_path: Path):
    """Its input ends."""
    script = tmp_path / "script.py"
    script.write_text(ENDLESS)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE) as process:
        while not (workers := workers_of(process.pid)):
            time.sleep(0.01)
        process.kill()
    assert psutil.wait_procs(workers, timeout=30)[1] == []


def test_a_script_without_a_main_guard_runs_once(tmp_path: Path):
    """Workers import their own module, and leave the terminal to the script."""
    script = tmp_path / "script.py"
    script.write_text(ENDLESS)
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        while not any(worker.cpu_times().user for worker in workers_of(process.pid)):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        printed, complained = process.communicate()
    assert (printed, complained) == (b"ran\n", b"")
