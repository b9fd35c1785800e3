"""Scripts that end while a started job runs: it is cancelled, and one line says what was done."""

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ragasync import Journal
from tests.support.requirements import needs, only_where

pytestmark = pytest.mark.real_time

PREAMBLE = """
import asyncio, os, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from ragasync import AsyncBatchProcessor, run_async

reached = threading.Event()

async def call(item):
    if item == 3:
        reached.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            print("cleaned up", flush=True)
    if item == 1:
        raise ValueError("bad")
    return item

processor = AsyncBatchProcessor(call, max_concurrency=1, retry_count=0)
"""

LINE = (
    "ragasync: a job was still running at exit and was cancelled: "
    "2 of 5 items were done and 1 had failed"
)


def ran(*parts: str, code: int = 0, **options: object) -> tuple[list[str], list[str]]:
    """Run a script that exits with this code, and return the lines on stdout and on stderr."""
    script = "\n".join(map(textwrap.dedent, (PREAMBLE, *parts)))
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        **options,  # type: ignore[call-overload]
    )
    assert process.returncode == code, process.stderr
    return process.stdout.splitlines(), process.stderr.splitlines()


START = """
job = processor.start(range(5))
reached.wait(20)
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("", 0),
        ("sys.exit()", 0),
        ("sys.exit(3)", 3),
        ("del job, processor", 0),
        ("threading.Thread(target=lambda: None).start()", 0),
    ],
)
def test_a_running_job_is_cancelled_and_a_line_says_how_much_was_done(end: str, code: int):
    """Its calls clean up, and the exit code stays as it is."""
    assert ran(START, end, code=code) == (["cleaned up"], [LINE])


@pytest.mark.parametrize(
    ("end", "last"),
    [("raise LookupError('lost')", "LookupError: lost"), ("raise KeyboardInterrupt", "")],
)
def test_an_error_of_the_script_comes_before_the_line(end: str, last: str):
    """Its traceback, as ever, and then the line."""
    code = 1 if last else -signal.SIGINT
    out, err = ran(START, end, code=code)
    assert out == ["cleaned up"]
    assert (last or "KeyboardInterrupt") in err[-2:]
    assert LINE in err[-2:]


def test_several_jobs_have_a_line_each():
    """All are cancelled before any is waited for."""
    out, err = ran(
        """
        jobs = [processor.start(range(5)) for _ in range(3)]
        while not all(job.progress.finished == 3 for job in jobs):
            time.sleep(0.01)
        """
    )
    assert (out, err) == (["cleaned up"] * 3, [LINE] * 3)


def test_a_paused_job_and_one_that_has_hardly_begun_have_a_line_too():
    """Neither has done anything."""
    out, err = ran(
        """
        paused = processor.start(iter(range(5)))
        paused.pause()
        begun = AsyncBatchProcessor(lambda item: time.sleep(60)).start(range(7))
        """
    )
    assert set(out) <= {"cleaned up"}  # calls that had begun before the pause
    assert len(err) == 2
    assert err[1].endswith("0 of 7 items were done and 0 had failed")


@pytest.mark.parametrize(
    "end",
    [
        "job.cancel(); job.wait()",
        "job.cancel(); run_async(job)",
        "os._exit(0)",
    ],
)
def test_what_has_ended_says_nothing(end: str):
    """Nor does a process that leaves without an exit."""
    assert ran(START, end)[1] == []


def test_a_processor_that_was_not_started_says_nothing():
    """There is no job."""
    assert ran("") == ([], [])
    assert ran("print(processor.process_sync([0]).results)") == (["[0]"], [])


def test_clean_up_has_a_bounded_time():
    """A call that will not end does not keep the interpreter."""
    out, err = ran(
        """
        async def stubborn(item):
            reached.set()
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    pass

        def on_a_thread(item):
            time.sleep(60)

        jobs = [AsyncBatchProcessor(each).start(range(2)) for each in (stubborn, on_a_thread)]
        reached.wait(20)
        """
    )
    assert out == []
    assert len(err) == 2


def test_the_journal_is_closed_and_named(tmp_path: Path):
    """What is done is in the file, and the next run does the rest."""
    path = tmp_path / "run.sqlite"
    _, err = ran(
        f"""
        processor = AsyncBatchProcessor(
            call, max_concurrency=1, retry_count=0, journal={str(path)!r}
        )
        """,
        START,
    )
    assert err == [f"{LINE}; the journal {path} has them"]
    assert [each.name for each in tmp_path.iterdir() if "-wal" in each.name] == []
    with sqlite3.connect(path) as connection:
        (rows,) = connection.execute("select count(*) from outcomes").fetchone()
    connection.close()
    assert rows == 3
    assert len(Journal(path).to_dataframe()) == 3


@pytest.mark.parametrize("pool", ["threads", "default", "late"])
def test_a_job_ends_before_the_pools_it_needs(pool: str):
    """Its items do not fail because an executor was shut down first."""
    out, err = ran(
        f"""
        def slow(item):
            if item == 3:
                reached.set()
                time.sleep(0.3)
            if item == 1:
                raise ValueError("bad")
            return item

        async def on_the_default_pool(item):
            return await asyncio.get_running_loop().run_in_executor(None, slow, item)

        use_pool = {pool!r}
        if use_pool == "threads":
            processor = AsyncBatchProcessor(
                slow, 1, 1, retry_count=0, executor=ThreadPoolExecutor(1)
            )
        else:
            processor = AsyncBatchProcessor(on_the_default_pool, max_concurrency=1, retry_count=0)
        if use_pool == "late":
            AsyncBatchProcessor(call).start([0]).wait()
            import concurrent.futures.process
        """,
        START,
    )
    assert out == []
    assert err == [LINE]


def test_a_job_that_a_thread_still_waits_for_goes_on():
    """The interpreter waits for that thread, so the job is not cut off before."""
    out, err = ran(
        """
        go_on = threading.Event()

        async def call(item):
            while not go_on.is_set():
                await asyncio.sleep(0.01)
            return item

        job = AsyncBatchProcessor(call).start(range(5))

        def wait():
            threading.main_thread().join()
            go_on.set()
            print(job.wait().results, flush=True)

        threading.Thread(target=wait).start()
        """
    )
    assert (out, err) == (["[0, 1, 2, 3, 4]"], [])


def test_a_job_on_a_loop_that_is_gone_was_cancelled_by_it():
    """asyncio.run cancels what it leaves behind."""
    out, err = ran(
        """
        async def main():
            global job
            job = processor.start(range(5), on_current_loop=True)
            while not reached.is_set():
                await asyncio.sleep(0.01)

        asyncio.run(main())
        print(job.done)
        """
    )
    assert (out[-1], err) == ("True", [])


def test_a_job_on_a_loop_that_stopped_is_ended_there():
    """The loop is run once more for the clean-up."""
    out, err = ran(
        """
        async def main():
            global job
            job = processor.start(range(5), on_current_loop=True)
            while not reached.is_set():
                await asyncio.sleep(0.01)

        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        """
    )
    assert out == ["cleaned up"]
    assert err[0] == LINE


@only_where(hasattr(os, "fork"), "no fork on this platform")
def test_a_forked_child_says_nothing_of_its_parents_job():
    """It has a copy of the handle only."""
    out, err = ran(
        START,
        """
        child = os.fork()
        if child == 0:
            sys.exit()
        os.waitpid(child, 0)
        print("child has ended", flush=True)
        """,
    )
    assert (out, err) == (["child has ended", "cleaned up"], [LINE])


def test_a_run_async_inside_a_job_ends_with_it():
    """On a thread and on the loop that it blocks."""
    out, err = ran(
        """
        started = threading.Barrier(2)

        async def inner(item):
            try:
                started.wait(20)
                await asyncio.sleep(60)
            finally:
                print("cleaned up", flush=True)

        def on_a_thread(item):
            run_async(inner(item))

        async def in_a_call(item):
            run_async(inner(item))

        job = AsyncBatchProcessor(on_a_thread, max_concurrency=1).start(range(5))
        started.wait(20)
        other = AsyncBatchProcessor(in_a_call, max_concurrency=1).start(range(5))
        started.wait(20)
        """
    )
    assert out == ["cleaned up"] * 2
    assert len(err) == 2


def test_progress_callbacks_and_closed_streams_do_no_harm():
    """A callback may raise, and stderr may be gone."""
    out, err = ran(
        """
        def broken(done, total):
            raise SystemExit(9)

        job = processor.start(range(5), broken)
        reached.wait(20)
        sys.stderr = None
        """
    )
    assert (out, err) == (["cleaned up"], [])


@pytest.mark.kernel
def test_a_kernel_that_is_shut_down_closes_the_journal_of_its_job(tmp_path: Path):
    """As the button does it: asked to leave, not killed."""
    needs("ipykernel", "jupyter_client")
    from jupyter_client.manager import start_new_kernel

    path = tmp_path / "run.sqlite"
    environment = os.environ | {"IPYTHONDIR": str(tmp_path / "ipython")}
    manager, client = start_new_kernel(startup_timeout=60, env=environment)
    try:
        client.execute_interactive(
            PREAMBLE
            + f"""
processor = AsyncBatchProcessor(call, max_concurrency=1, retry_count=0, journal={str(path)!r})
job = processor.start(range(5))
while not reached.is_set():
    await asyncio.sleep(0.01)
""",
            timeout=40,
            store_history=False,
        )
        client.stop_channels()
        manager.shutdown_kernel(now=False)
    finally:
        manager.cleanup_resources()
        client.context.destroy()
    assert not path.with_name("run.sqlite-wal").exists()
    assert len(Journal(path).to_dataframe()) == 3
