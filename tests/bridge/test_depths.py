"""Ctrl-C and timeouts in run_async inside run_async: the innermost call is cancelled first."""

import asyncio
import textwrap
import threading

import pytest

from ragasync import AsyncBatchProcessor, run_async
from tests.support.scripts import printed_by

pytestmark = pytest.mark.real_time

# A level blocks in the next one; the innermost presses Ctrl-C if asked, and sleeps. Each says
# when it has cleaned up, and that takes a turn of its loop, which a second cancellation would end.
PREAMBLE = """
import asyncio, os, signal, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from ragasync import AsyncBatchProcessor, AsyncRetry, run_async
from ragasync._bridge import interrupts, run_async as run_async_module

# Seconds: a test that waits for their end does not pass.
interrupts.GRACE = run_async_module.GRACE = 600

def press():
    thread = threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT))
    thread.start()
    thread.join()

def interrupted():
    press()

def patient():
    pass

async def innermost(begin=interrupted):
    try:
        begin()
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.05)
        print("innermost cleaned up", flush=True)

async def blocking(inner, **options):
    return run_async(inner, **options)

async def in_a_task(inner, **options):
    return await asyncio.create_task(blocking(inner, **options))

async def on_a_thread(inner, **options):
    return await asyncio.to_thread(run_async, inner, **options)

async def on_the_loops_thread(inner, **options):
    return await asyncio.get_running_loop().run_in_executor(
        None, lambda: run_async(inner, **options)
    )

async def on_a_pools_thread(inner, **options):
    with ThreadPoolExecutor(1) as pool:
        return await asyncio.get_running_loop().run_in_executor(
            pool, lambda: run_async(inner, **options)
        )

async def nested(inner, **options):
    return run_async(inner, nested=True, **options)

async def with_other_tasks(inner, **options):
    others = [asyncio.create_task(asyncio.sleep(60)) for _ in range(3)]
    return await asyncio.gather(blocking(inner, **options), *others)

async def in_a_group(inner, **options):
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(60))
        group.create_task(blocking(inner, **options))

async def level(number, how, inner, **options):
    try:
        await how(inner, **options)
    finally:
        await asyncio.sleep(0.05)
        print(f"level {number} cleaned up", flush=True)

def levels(*hows, begin=interrupted):
    coro = innermost(begin)
    for number, how in reversed(list(enumerate(hows))):
        coro = level(number, how, coro)
    return coro

async def tasks_left():
    await asyncio.sleep(0)
    return len(asyncio.all_tasks()) - 1

def healthy():
    assert run_async(asyncio.sleep(0.01, "fine"), timeout=4) == "fine"
    print("left:", run_async(tasks_left()))
"""

WAYS = [
    "blocking",
    "in_a_task",
    "on_a_thread",
    "on_the_loops_thread",
    "on_a_pools_thread",
    "nested",
    "with_other_tasks",
    "in_a_group",
]

MIXTURES = [
    "blocking, on_a_thread, blocking, nested, in_a_group",
    "nested, blocking, nested",
    "on_a_thread, on_a_thread, on_a_thread",
    "on_the_loops_thread, nested, blocking, with_other_tasks, on_a_thread",
    "blocking, blocking, blocking, blocking, blocking",
    "nested, nested, on_a_thread, nested, nested",
    "on_a_thread, blocking",
]

SHAPES = [*WAYS, *MIXTURES]

# The first nested call patches asyncio in its process for good, so the other shapes have a process
# of their own.
PLAIN = [shape for shape in SHAPES if "nested" not in shape]
NESTED = [shape for shape in SHAPES if "nested" in shape]


def cleaned_up(shape: str) -> list[str]:
    """The lines that the levels of this shape print, from the inside out."""
    depth = len(shape.split(","))
    return ["innermost cleaned up"] + [f"level {n} cleaned up" for n in reversed(range(depth))]


def printed_for_each(shapes: list[str], script: str) -> list[list[str]]:
    """Run a script of `shape` for each shape, one after the other, and return what each printed."""
    values = "".join(f"({shape},), " for shape in shapes)
    body = textwrap.dedent(script) + "healthy()\nprint('next')\n"
    lines = printed_by(PREAMBLE, f"for shape in [{values}]:\n" + textwrap.indent(body, "    "))
    printed: list[list[str]] = [[]]
    for line in lines:
        if line == "next":
            printed.append([])
        else:
            printed[-1].append(line)
    return printed[:-1]


@pytest.mark.parametrize("shapes", [PLAIN, NESTED], ids=["plain", "nested"])
def test_an_interrupt_reaches_the_innermost_first(shapes):
    """Each level cleans up, once, before the one around it; no task is left."""
    printed = printed_for_each(
        shapes,
        """
        try:
            run_async(levels(*shape))
        except KeyboardInterrupt:
            print("interrupted")
        """,
    )
    assert printed == [[*cleaned_up(shape), "interrupted", "left: 0"] for shape in shapes]


# After a nested call, asyncio.run is not that of Python: each of these shapes has to come first.
@pytest.mark.parametrize("shapes", [PLAIN, *([shape] for shape in NESTED)], ids=["plain", *NESTED])
def test_an_interrupt_under_asyncio_run_reaches_the_innermost_first(shapes):
    """The same where the blocking call is inside a loop of the program's own."""
    printed = printed_for_each(
        shapes,
        """
        async def main():
            run_async(levels(*shape))

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            print("interrupted")
        """,
    )
    assert printed == [[*cleaned_up(shape), "interrupted", "left: 0"] for shape in shapes]


@pytest.mark.parametrize(
    ("shapes", "outermost"),
    [
        pytest.param(PLAIN, "", id="plain"),
        pytest.param(NESTED, "", id="nested"),
        *(pytest.param([shape], ", nested=True", id=f"nested, {shape}") for shape in SHAPES),
    ],
)
def test_a_timeout_reaches_the_innermost_first(shapes, outermost):
    """The outermost call's time is up while the loops below it are blocked."""
    printed = printed_for_each(
        shapes,
        f"""
        async def main():
            try:
                run_async(levels(*shape, begin=patient), timeout=0.6{outermost})
            except TimeoutError as error:
                print("timeout=0.6" in str(error))

        asyncio.run(main())
        """,
    )
    assert printed == [[*cleaned_up(shape), "True", "left: 0"] for shape in shapes]


TIMEOUTS = [(0.3, 30), (30, 0.3), (0.3, None), (None, 0.3)]


# asyncio.gather leaves the others running after an error.
@pytest.mark.parametrize("way", [way for way in WAYS if way != "with_other_tasks"])
def test_the_shorter_of_two_timeouts_ends_the_call(way):
    """Either one: the inner call's TimeoutError propagates through the outer call."""
    lines = printed_by(
        PREAMBLE,
        f"""
        async def outer(timeout):
            await {way}(innermost(patient), timeout=timeout)

        for longest, inner in {TIMEOUTS}:
            try:
                run_async(outer(inner), timeout=longest)
            except (TimeoutError, ExceptionGroup) as error:
                print(error)
            healthy()
        """,
    )
    assert lines[::3] == ["innermost cleaned up"] * len(TIMEOUTS)
    assert lines[2::3] == ["left: 0"] * len(TIMEOUTS)
    for (outer, _), said in zip(TIMEOUTS, lines[1::3], strict=True):
        in_group = way == "in_a_group" and outer != 0.3
        assert ("unhandled errors in a TaskGroup" if in_group else "0.3") in said


@pytest.mark.parametrize("outermost", ["run_async(outer())", "asyncio.run(blocking(outer()))"])
def test_several_innermost_calls_are_all_reached(outermost):
    """Two threads that block each under one call."""
    lines = printed_by(
        PREAMBLE,
        f"""
        began = []

        def press_when_both_began():
            began.append(1)
            if len(began) == 2:
                press()

        async def outer():
            try:
                await asyncio.gather(
                    on_a_thread(innermost(press_when_both_began)),
                    on_a_thread(blocking(innermost(press_when_both_began))),
                )
            finally:
                print("outer cleaned up")

        try:
            {outermost}
        except KeyboardInterrupt:
            print("interrupted")
        healthy()
        """,
    )
    assert lines.count("innermost cleaned up") == 2  # the outer one heard of the first to end
    assert lines[-2:] == ["interrupted", "left: 0"]


@pytest.mark.parametrize("shape", ["blocking, blocking", "on_a_thread, blocking", "nested"])
def test_a_second_interrupt_ends_every_wait(shape):
    """A stubborn innermost coroutine is left behind, and later calls work immediately."""
    assert printed_by(
        PREAMBLE,
        f"""
        async def innermost(begin):
            try:
                press()
                await asyncio.sleep(60)
            finally:
                press()
                await asyncio.sleep(30)

        try:
            run_async(levels({shape}))
        except KeyboardInterrupt:
            print("interrupted")
        print(run_async(asyncio.sleep(0.01, "fine"), timeout=4))
        """,
    )[-2:] == ["interrupted", "fine"]


def test_a_coroutine_that_blocks_its_loop_does_not_hold_up_later_calls():
    """After the grace period the interrupt propagates; the stuck loop is skipped until it turns."""
    assert printed_by(
        PREAMBLE,
        """
        interrupts.GRACE = 0.2  # or the test would take 5 seconds
        free = threading.Event()

        async def loop_in_use():
            return asyncio.get_running_loop()

        async def stuck():
            press()
            free.wait(50)

        first = run_async(loop_in_use())
        try:
            run_async(stuck())
        except KeyboardInterrupt:
            print("interrupted")
        print(run_async(loop_in_use(), timeout=4) is first)
        free.set()
        while run_async(loop_in_use(), timeout=4) is not first:
            time.sleep(0.01)
        print("first again")
        """,
    ) == ["interrupted", "False", "first again"]


@pytest.mark.parametrize("way", ["blocking", "on_a_thread", "nested"])
def test_a_clean_up_after_a_timeout_has_a_limited_time(way):
    """A coroutine that will not end is left behind, at any depth."""
    assert printed_by(
        PREAMBLE,
        f"""
        interrupts.GRACE = run_async_module.GRACE = 0.2
        free, ended = threading.Event(), threading.Event()

        async def stubborn():
            while not free.is_set():
                try:
                    await asyncio.sleep(0.01)
                except asyncio.CancelledError:
                    print("goes on", flush=True)
            ended.set()

        async def outer():
            await {way}(stubborn())

        try:
            run_async(outer(), timeout=0.1)
        except TimeoutError as error:
            print(error)
        print(run_async(asyncio.sleep(0.01, "fine"), timeout=4))
        free.set()
        ended.wait(20)
        run_async(asyncio.sleep(0.01))
        """,
    ) == ["goes on", "run_async: not done within timeout=0.1 seconds; it was cancelled", "fine"]


def test_calls_of_other_threads_are_not_cancelled():
    """An interrupt is meant for the calls that the main thread waits for."""
    assert printed_by(
        PREAMBLE,
        """
        begun, free = threading.Event(), threading.Event()

        async def other():
            begun.set()
            while not free.is_set():
                await asyncio.sleep(0.01)
            print("the other is done", flush=True)

        thread = threading.Thread(target=lambda: run_async(on_a_thread(other()), timeout=30))
        thread.start()
        begun.wait(20)
        try:
            asyncio.run(blocking(on_a_thread(innermost())))
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        free.set()
        thread.join()
        """,
    )[-2:] == ["interrupted", "the other is done"]


def test_a_call_that_cannot_begin_in_time_is_withdrawn():
    """Another coroutine blocks its loop: nothing has begun, so there is no clean-up to await."""
    free, blocked = threading.Event(), threading.Event()

    async def blocks_the_loop() -> None:
        blocked.set()
        free.wait(30)

    thread = threading.Thread(target=run_async, args=(blocks_the_loop(),))
    thread.start()
    try:
        assert blocked.wait(20)
        with pytest.raises(TimeoutError, match=r"timeout=0\.05"):
            run_async(asyncio.sleep(60), timeout=0.05)
        assert run_async(asyncio.sleep(0, "fine"), timeout=4) == "fine"
    finally:
        free.set()
        thread.join(20)


def test_a_clean_up_may_block_in_calls_of_its_own():
    """Calls made after the cancellation has arrived are not cancelled with it."""
    assert printed_by(
        PREAMBLE,
        """
        async def outer():
            try:
                run_async(innermost())
            finally:
                print(run_async(asyncio.sleep(0.05, "closed")))
                await asyncio.to_thread(run_async, asyncio.sleep(0.05))
                print("and on a thread")

        try:
            run_async(outer())
        except KeyboardInterrupt:
            print("interrupted")
        healthy()
        """,
    ) == ["innermost cleaned up", "closed", "and on a thread", "interrupted", "left: 0"]


def test_a_call_made_after_the_interrupt_does_not_begin():
    """Code that swallows the interrupt and blocks again gets it again."""
    assert printed_by(
        PREAMBLE,
        """
        async def begun():
            print("never")

        async def swallowing():
            for _ in range(3):
                try:
                    run_async(innermost())
                except asyncio.CancelledError as error:
                    print(type(error).__name__)
                    await asyncio.sleep(0)

        async def outer():
            await asyncio.gather(swallowing(), asyncio.sleep(60))

        try:
            run_async(outer())
        except KeyboardInterrupt:
            print("interrupted")
        healthy()
        """,
    ) == ["innermost cleaned up", "Interrupted", "interrupted", "left: 0"]


# ── jobs ────────────────────────────────────────────────────────────────────────────────────


class Inner:
    """Calls run_async in some way, and records the ends of the inner coroutines."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.ended: list[str] = []

    async def coroutine(self) -> None:
        """Sleep until cancelled."""
        try:
            self.began.set()
            await asyncio.sleep(60)
            self.ended.append("slept")
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            self.ended.append("cancelled")
            raise

    def on_a_thread(self, item: int) -> None:
        """Block a thread of the job."""
        run_async(self.coroutine())

    async def on_the_loop(self, item: int) -> None:
        """Block the job's loop."""
        run_async(self.coroutine())


@pytest.mark.parametrize("way", ["on_a_thread", "on_the_loop"])
def test_a_cancelled_job_ends_the_run_async_of_its_calls(way):
    """On a thread as on the loop that it blocks; the rest of the items stays pending."""
    inner = Inner()
    job = AsyncBatchProcessor(getattr(inner, way), max_concurrency=1).start(range(100))
    assert inner.began.wait(20)
    job.cancel()
    result = job.wait(timeout=20)
    assert result.cancelled_count + result.pending_count == 100
    run_async(asyncio.sleep(0.05))
    assert inner.ended == ["cancelled"]


@pytest.mark.parametrize("way", ["on_a_thread", "on_the_loop"])
def test_an_item_that_is_cancelled_in_run_async_has_not_failed(way):
    """Its call is cancelled before the job, whose loop it may block."""
    inner = Inner()
    processor = AsyncBatchProcessor(getattr(inner, way), max_concurrency=1, retry_count=0)
    job = processor.start(range(3))
    assert inner.began.wait(20)
    job.cancel()
    statuses = [outcome.status for outcome in job.wait(timeout=20)]
    assert statuses == ["cancelled", "pending", "pending"]


@pytest.mark.parametrize(
    "around",
    [
        "await processor.process(range(3))",
        "await asyncio.gather(processor.process(range(3)))",
        "await asyncio.wait([asyncio.create_task(processor.process(range(3)))])",
        "await in_a_group(processor.process(range(3)))",
        "await in_groups(4, processor.process(range(3)))",
        "await processor.start(range(3), on_current_loop=True)",
        "[outcome async for outcome in processor.stream(range(3))]",
    ],
)
def test_an_interrupted_call_is_the_end_of_its_run(around):
    """The interrupt is not a failure of its item, however late the run is cancelled."""
    assert printed_by(
        PREAMBLE,
        f"""
        async def in_a_group(coro):
            async with asyncio.TaskGroup() as group:
                group.create_task(coro)

        async def in_groups(depth, coro):
            await in_a_group(in_groups(depth - 1, coro) if depth else coro)

        calls = []

        async def call(item):
            calls.append(item)
            run_async(innermost())

        async def main():
            {around}

        def failed(error):
            print("a failure", repr(error))

        retry = AsyncRetry(1, base_delay=0.0, retry_on=failed)
        processor = AsyncBatchProcessor(call, max_concurrency=1, retry=retry)
        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            print("interrupted", calls)
        if processor.last_result is not None:
            assert [each.status for each in processor.last_result][:2] == ["cancelled", "pending"]
        healthy()
        """,
    ) == ["innermost cleaned up", "interrupted [0]", "left: 0"]


async def test_an_attempt_past_its_timeout_ends_the_run_async_in_it():
    """The thread is free again for the next item."""
    inner = Inner()
    processor = AsyncBatchProcessor(
        inner.on_a_thread, max_concurrency=1, retry_count=0, timeout=0.2
    )
    result = await processor.process(range(2))
    assert [type(error).__name__ for error in result.errors] == ["AttemptTimeout"] * 2
    assert inner.ended == ["cancelled"] * 2


@pytest.mark.parametrize("function", ["call", "call_on_a_thread"])
def test_process_sync_inside_process_sync_is_interrupted(function):
    """Both keep what was done, and say so."""
    lines = printed_by(
        PREAMBLE,
        f"""
        async def slow(item):
            if item == 3:
                press()
                await asyncio.sleep(60)
            return item

        inner = AsyncBatchProcessor(slow, max_concurrency=1)

        async def call(item):
            return inner.process_sync(range(9)).success_count

        def call_on_a_thread(item):
            return inner.process_sync(range(9)).success_count

        outer = AsyncBatchProcessor({function}, max_concurrency=1)
        try:
            outer.process_sync(range(9))
        except KeyboardInterrupt as interrupt:
            print(interrupt.__notes__[-1].partition(";")[0])
        print(inner.last_result.success_count)
        healthy()
        """,
    )
    assert lines == ["ragasync: 0 of 9 items were done and 0 had failed", "3", "left: 0"]


def test_a_job_that_is_waited_for_inside_is_cancelled():
    """job.wait() on a thread of the interrupted call: the job ends, and so does the wait."""
    assert printed_by(
        PREAMBLE,
        """
        async def slow(item):
            press()
            await asyncio.sleep(60)

        async def outer():
            global job
            job = AsyncBatchProcessor(slow, max_concurrency=1).start(range(3))
            await asyncio.to_thread(job.wait)

        try:
            run_async(outer())
        except KeyboardInterrupt:
            print("interrupted", job.done, job.result.stopped_because)
        healthy()
        """,
    ) == ["interrupted True it was cancelled", "left: 0"]


def test_a_job_started_inside_is_not_cancelled():
    """It runs in the background, whatever happens to the call that started it."""
    assert printed_by(
        PREAMBLE,
        """
        pressed = threading.Event()

        def call(item):
            return run_async(asyncio.to_thread(pressed.wait, 20))

        async def outer():
            global job
            job = AsyncBatchProcessor(call).start(range(3))
            press()
            await asyncio.sleep(60)

        try:
            run_async(outer())
        except KeyboardInterrupt:
            print("interrupted", job.done)
        pressed.set()
        print(job.wait().results)
        """,
    ) == ["interrupted False", "[True, True, True]"]
