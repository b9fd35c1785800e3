"""The stop button and Ctrl-C while a batch runs: in a real kernel, and in scripts of their own."""

from collections.abc import Iterator

import pytest

from tests.support.kernels import Kernel, running_kernel
from tests.support.scripts import printed_by

pytestmark = [pytest.mark.kernel, pytest.mark.real_time]

# A cell that waits for the end of this grace period does not come back in time.
NO_GRACE = """
from ragasync._bridge import interrupts, run_async as run_async_module

interrupts.GRACE = run_async_module.GRACE = 600
"""

# A job that was started in the background may reach an item before its cell waits for the job. The
# cell has to wait when the interrupt comes: either blocked in a call, or suspended, so that the
# kernel's loop is in its selector.
SETUP = (
    NO_GRACE
    + """
import asyncio, selectors, sys, threading, time
from ragasync import AsyncBatchProcessor, run_async

WAITING = {
    interrupts.InterruptibleWait.wait.__code__,
    selectors.DefaultSelector.select.__code__,
}

def is_cell_waiting():
    frame = sys._current_frames()[threading.main_thread().ident]
    while frame is not None and frame.f_code not in WAITING:
        frame = frame.f_back
    return frame is not None

async def until_cell_waits():
    while threading.current_thread() is not threading.main_thread() and not is_cell_waiting():
        await asyncio.sleep(0.001)

beats = 0
cleaned_up = []

# The first two items are done immediately; the others are in flight until they are cancelled.
async def call(item):
    global beats
    if item < 2:
        return item
    if item == 3:
        await until_cell_waits()
        print("ready", flush=True)
    try:
        while True:
            await asyncio.sleep(0.01)
            beats += 1
    finally:
        await asyncio.sleep(0.01)
        cleaned_up.append(item)

async def ours_left():
    return [task.get_name() for task in asyncio.all_tasks() if "ragasync" in task.get_name()]

processor = AsyncBatchProcessor(call, max_concurrency=2)
"""
)

AFTERWARDS = """
before = beats
await asyncio.sleep(0.2)
result = processor.last_result
print("still beating:", beats != before)
print("cleaned up:", sorted(cleaned_up))
print("tasks left:", await ours_left(), run_async(ours_left()))
print("values:", [each.value for each in result if each.status == "done"])
print("counts:", result.success_count, result.error_count, result.cancelled_count,
      result.pending_count, result.total)
"""


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    """One kernel for the tests of this file."""
    with running_kernel() as kernel:
        yield kernel


def assert_nothing_is_lost(kernel: Kernel) -> None:
    """No call runs on, the result is whole, and the next cells work."""
    assert kernel.run(AFTERWARDS).stdout.splitlines() == [
        "still beating: False",
        "cleaned up: [2, 3]",
        "tasks left: [] []",
        "values: [0, 1]",
        "counts: 2 0 2 6 10",
    ]
    assert kernel.run("(await processor.process([0, 1])).results").value == "[0, 1]"
    assert kernel.run("processor.process_sync([0, 1]).results").value == "[0, 1]"
    assert kernel.run("processor.start([0, 1]).wait(10).results").value == "[0, 1]"


@pytest.mark.parametrize(
    ("cell", "error"),
    [
        ("await processor.process(range(10))", "CancelledError"),
        ("processor.process_sync(range(10))", "KeyboardInterrupt"),
        ("job = processor.start(range(10)); await job", "CancelledError"),
        ("job = processor.start(range(10)); job.wait()", "KeyboardInterrupt"),
        ("await processor.start(range(10), on_current_loop=True)", "CancelledError"),
        ("async for outcome in processor.stream(range(10)): pass", "CancelledError"),
    ],
)
def test_the_stop_button_ends_a_cell_immediately_and_loses_nothing(
    kernel: Kernel, cell: str, error: str
):
    """The prompt is back, the calls in flight have cleaned up, and what was done is kept."""
    ran = kernel.run_interrupted(SETUP + cell)
    assert ran.error == error
    if "stream" not in cell:
        assert_nothing_is_lost(kernel)


def test_a_sync_call_inside_an_awaiting_cell_is_stopped_too(kernel: Kernel):
    """The cell awaits, and what it awaits blocks in process_sync."""
    ran = kernel.run_interrupted(
        SETUP
        + """
async def outer():
    await asyncio.sleep(0)
    return processor.process_sync(range(10))

await outer()
"""
    )
    assert ran.status == "error"
    assert_nothing_is_lost(kernel)


def test_the_interrupt_says_what_was_done(kernel: Kernel):
    """The traceback in the cell ends with the count and the place where the rest is kept."""
    for cell in ("await processor.process(range(10))", "processor.process_sync(range(10))"):
        ran = kernel.run_interrupted(
            SETUP
            + f"""
try:
    {cell}
except BaseException as error:
    print(error.__notes__)
    raise
"""
        )
        assert "2 of 10 items were done" in ran.stdout
        assert "last_result" in ran.stdout


@pytest.mark.parametrize(
    ("cell", "line"),
    [
        ("processor.process_sync(range(10))", "KeyboardInterrupt: ragasync: 2 of 10 items"),
        ("processor.start(range(10)).wait()", "KeyboardInterrupt: ragasync: 2 of 10 items"),
        ("run_async(processor.process(range(10)))", "KeyboardInterrupt: ragasync: 2 of 10"),
        ("run_async(call(3))", "KeyboardInterrupt: run_async was interrupted, and its coroutine"),
        ("await processor.process(range(10))", "CancelledError: ragasync: 2 of 10 items"),
        ("await processor.start(range(10))", "CancelledError: ragasync: 2 of 10 items"),
        (
            "await asyncio.sleep(0); processor.process_sync(range(10))",
            "Interrupted: ragasync: 2 of 10 items",
        ),
        (
            "async for _ in processor.stream(range(10)): pass",
            "CancelledError: ragasync: the stream was cancelled after 2 outcomes",
        ),
    ],
)
def test_an_interrupted_cell_shows_one_line(kernel: Kernel, cell: str, line: str):
    """What was done, instead of a page of the frames of asyncio and this library."""
    ran = kernel.run_interrupted(SETUP + cell)
    (shown,) = "\n".join(ran.traceback).splitlines()
    assert shown.startswith(line)


def test_an_error_shows_the_user_s_lines_without_those_that_check_arguments(kernel: Kernel):
    """The wrapper that answers argument names is no line of anybody's."""
    ran = kernel.run(SETUP + "processor.process_sync(1)")
    assert ran.error == "TypeError"
    assert "_raise_if_unknown" not in "\n".join(ran.traceback)


THREADS = (
    NO_GRACE
    + """
import asyncio, threading, time
from ragasync import AsyncBatchProcessor

calls = []
release = threading.Event()

def call(item):
    calls.append(item)
    if item < 2:
        return item
    if item == 3:
        print("ready", flush=True)
    release.wait(60)

processor = AsyncBatchProcessor(call, max_concurrency=2)
try:
    CELL
except BaseException as error:
    notes = error.__notes__
    raise
"""
)


@pytest.mark.parametrize(
    "cell", ["await processor.process(range(10))", "processor.process_sync(range(10))"]
)
def test_a_cell_whose_calls_run_on_threads_is_stopped(kernel: Kernel, cell: str):
    """Threads cannot be killed: nobody waits for them, nothing more is begun, the note says so."""
    ran = kernel.run_interrupted(THREADS.replace("CELL", cell))
    assert ran.status == "error"
    ran = kernel.run(
        """
release.set()
await asyncio.sleep(0.1)
result = processor.last_result
print(sorted(calls), [each.value for each in result if each.status == "done"])
print(result.success_count, result.cancelled_count, result.pending_count, result.total)
print(notes)
"""
    )
    called, counted, notes = ran.stdout.splitlines()
    assert called == "[0, 1, 2, 3] [0, 1]"
    assert counted == "2 2 6 10"
    assert "2 of 10 items were done" in notes
    assert "2 threads are still in a call" in notes


def test_a_job_in_the_background_leaves_the_notebook_usable(kernel: Kernel):
    """Cells run while it does, an interrupt of one of them does not reach it, and it is stopped."""
    assert kernel.run(SETUP + "job = processor.start(range(10)); None").status == "ok"
    in_flight = (
        "while job.progress.in_flight < 2: await asyncio.sleep(0.01)\njob.progress.in_flight"
    )
    assert kernel.run(in_flight).value == "2"
    ran = kernel.run_interrupted("print('ready', flush=True)\nwhile True: pass")
    assert ran.error == "KeyboardInterrupt"
    assert kernel.run("job.done, job.progress.done").value == "(False, 2)"
    assert kernel.run("job.cancel(); (await job).cancelled_count").value == "2"
    assert_nothing_is_lost(kernel)


SCRIPT = """
import asyncio, os, signal, threading
from ragasync import AsyncBatchProcessor

def press():
    thread = threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT))
    thread.start()
    thread.join()

async def call(item):
    if item < 2:
        return item
    try:
        if item == 3:
            press()
        await asyncio.sleep(60)
    finally:
        print("cleaned up", item)

processor = AsyncBatchProcessor(call, max_concurrency=2)

def report(error):
    result = processor.last_result
    print(type(error).__name__, error.__notes__[0].partition(";")[0])
    print(result.success_count, result.cancelled_count, result.pending_count)
"""

REPORTED = [
    "cleaned up 2",
    "cleaned up 3",
    "KeyboardInterrupt ragasync: 2 of 10 items were done and 0 had failed",
    "2 2 6",
]


@pytest.mark.parametrize("call", ["process_sync(range(10))", "start(range(10)).wait()"])
def test_ctrl_c_in_a_script_says_how_many_were_done(call):
    """KeyboardInterrupt goes up with a note, when the calls in flight have cleaned up."""
    assert (
        printed_by(
            SCRIPT,
            f"""
            try:
                processor.{call}
            except KeyboardInterrupt as error:
                report(error)
            """,
        )
        == REPORTED
    )


@pytest.mark.parametrize("awaited", ["process(range(10))", "start(range(10))"])
def test_ctrl_c_under_asyncio_run_says_how_many_were_done(awaited):
    """The task is cancelled with the note, and asyncio.run raises KeyboardInterrupt."""
    printed = printed_by(
        SCRIPT,
        f"""
        async def main():
            try:
                await processor.{awaited}
            except asyncio.CancelledError as error:
                report(error)
                raise

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            print("interrupted")
        """,
    )
    expected = [line.replace("KeyboardInterrupt", "CancelledError") for line in REPORTED]
    assert printed == [*expected, "interrupted"]
