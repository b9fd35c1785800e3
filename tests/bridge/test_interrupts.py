"""Ctrl-C in run_async: each test is a script of its own, because a signal is the process's."""

import signal
import threading

import pytest

from ragasync import run_async
from tests.support.scripts import printed_by

pytestmark = pytest.mark.real_time

# `press` in a coroutine presses Ctrl-C from a thread, so that it is the main thread that is hit.
PREAMBLE = """
import asyncio, os, signal, sys, threading, time
from ragasync import run_async
from ragasync._bridge import interrupts, run_async as run_async_module

# Seconds: a test that waits for their end does not pass.
interrupts.GRACE = run_async_module.GRACE = 600

def press():
    thread = threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT))
    thread.start()
    thread.join()

async def child():
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.01)
        print("cleaned up")

async def interrupted():
    async with asyncio.TaskGroup() as group:
        group.create_task(child())
        await asyncio.sleep(0.01)
        press()

async def stubborn():
    try:
        press()
        await asyncio.sleep(60)
    finally:
        press()
        await asyncio.sleep(60)

async def tasks_left():
    return len(asyncio.all_tasks()) - 1
"""


@pytest.mark.parametrize(
    "wait",
    [
        "run_async(waiting())",
        "asyncio.run(blocking(waiting()))",
        "asyncio.run(blocking(waiting(), nested=True))",
        "AsyncBatchProcessor(lambda _: waiting()).start([1]).wait()",
    ],
)
def test_an_interrupt_that_ends_no_wait_of_the_system_is_noticed(wait):
    """
    One that another thread gets, as the main thread may on its way into a wait.

    Python runs handlers in the main thread alone, between two steps of its own.
    """
    assert printed_by(
        PREAMBLE,
        f"""
        from ragasync import AsyncBatchProcessor

        def hit_here():
            time.sleep(0.05)  # by now the main thread waits
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)

        async def waiting():
            threading.Thread(target=hit_here).start()
            try:
                await asyncio.sleep(60)
            finally:
                print("cleaned up")

        async def blocking(inner, **options):
            run_async(inner, **options)

        try:
            {wait}
        except KeyboardInterrupt:
            print("interrupted")
        """,
    ) == ["cleaned up", "interrupted"]


def test_a_script_that_used_run_async_ends_silently():
    """There is no warning about the loop or its thread at exit."""
    assert printed_by(PREAMBLE, "print(run_async(asyncio.sleep(0, 42)))") == ["42"]


def test_an_interrupt_cancels_cleans_up_and_propagates():
    """KeyboardInterrupt comes when the children have ended, and the loop serves the next call."""
    assert printed_by(
        PREAMBLE,
        """
        try:
            run_async(interrupted())
        except KeyboardInterrupt:
            print("interrupted")
        print(run_async(tasks_left()))
        """,
    ) == ["cleaned up", "interrupted", "0"]


def test_a_second_interrupt_ends_the_wait_for_the_clean_up():
    """A coroutine that will not end is left behind."""
    assert printed_by(
        PREAMBLE,
        """
        try:
            run_async(stubborn())
        except KeyboardInterrupt:
            print("interrupted")
        """,
    ) == ["interrupted"]


def test_the_clean_up_has_a_limited_time():
    """Without a second interrupt, the end of the grace period ends the wait."""
    assert printed_by(
        PREAMBLE,
        """
        interrupts.GRACE = 0.05

        async def slow():
            try:
                press()
                await asyncio.sleep(60)
            finally:
                print("cancelled")
                await asyncio.sleep(60)

        try:
            run_async(slow())
        except KeyboardInterrupt:
            print("interrupted")
        """,
    ) == ["cancelled", "interrupted"]


def test_the_interrupt_has_the_notes_of_the_cancelled_coroutine():
    """The KeyboardInterrupt says what the coroutine had done."""
    assert printed_by(
        PREAMBLE,
        """
        async def noting():
            try:
                await interrupted()
            except asyncio.CancelledError as error:
                error.add_note("3 of 5 done")
                raise

        try:
            run_async(noting())
        except KeyboardInterrupt as interrupt:
            print(interrupt.__notes__)
        """,
    ) == ["cleaned up", "['3 of 5 done']"]


@pytest.mark.parametrize("nested", [False, True])
def test_under_asyncio_run_the_interrupt_cancels_the_running_task(nested):
    """The blocked loop's own handler cannot act; ours cancels, calls it, and reinstalls it."""
    assert printed_by(
        PREAMBLE,
        f"""
        async def main():
            before = signal.getsignal(signal.SIGINT)
            try:
                run_async(interrupted(), nested={nested})
            except asyncio.CancelledError as error:
                print("cancelled", signal.getsignal(signal.SIGINT) is before)
                raise

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            print("interrupted")
        """,
    ) == ["cleaned up", "cancelled True", "interrupted"]


def test_a_nested_interrupt_under_the_default_handler_leaves_no_child():
    """KeyboardInterrupt is raised after the children have ended, not inside the loop."""
    assert printed_by(
        PREAMBLE,
        """
        loop = asyncio.new_event_loop()

        async def main():
            try:
                run_async(interrupted(), nested=True)
            except KeyboardInterrupt:
                print("interrupted")
            return await tasks_left()

        print(loop.run_until_complete(main()))
        print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
        loop.close()
        """,
    ) == ["cleaned up", "interrupted", "0", "True"]


def test_a_second_interrupt_ends_a_nested_call_too():
    """Code that never yields to the loop can be stopped."""
    assert printed_by(
        PREAMBLE,
        """
        async def blocking():
            press()
            threading.Timer(0.1, press).start()
            time.sleep(30)

        loop = asyncio.new_event_loop()

        async def main():
            try:
                run_async(blocking(), nested=True)
            except KeyboardInterrupt:
                print("interrupted")

        loop.run_until_complete(main())
        loop.close()
        """,
    ) == ["interrupted"]


def test_an_interrupt_that_comes_too_late_is_not_lost():
    """An interrupt that arrives when the work is done still reaches its handler."""
    assert printed_by(
        PREAMBLE,
        """
        from ragasync._bridge.interrupts import DeferredInterrupt

        try:
            with DeferredInterrupt(lambda: print("noticed")):
                signal.raise_signal(signal.SIGINT)
                print("still here")
        except KeyboardInterrupt:
            print("interrupted")
        """,
    ) == ["noticed", "still here", "interrupted"]


def test_a_programs_own_handler_is_called():
    """Without a running loop, a handler that only records the signal cancels nothing."""
    assert printed_by(
        PREAMBLE,
        """
        signal.signal(signal.SIGINT, lambda *_: print("noted"))

        async def work():
            press()
            await asyncio.sleep(0.05)
            return "done"

        print(run_async(work()))
        """,
    ) == ["noted", "done"]


def test_an_error_of_another_signal_cancels_too():
    """Whatever ends the wait, the coroutine does not run on."""
    assert printed_by(
        PREAMBLE,
        """
        def handler(*_):
            raise TimeoutError("too slow")

        signal.signal(signal.SIGUSR1, handler)

        async def alarmed():
            async with asyncio.TaskGroup() as group:
                group.create_task(child())
                await asyncio.sleep(0.01)
                os.kill(os.getpid(), signal.SIGUSR1)

        try:
            run_async(alarmed())
        except TimeoutError as error:
            print(error)
        """,
    ) == ["cleaned up", "too slow"]


def test_neither_a_loop_nor_a_patch_is_made_at_import():
    """Importing costs no thread, and asyncio stays as it is until nested=True is used."""
    assert printed_by(
        PREAMBLE,
        """
        print(threading.active_count(), "nest_asyncio2" in sys.modules, "IPython" in sys.modules)
        run_async(asyncio.sleep(0))
        print(threading.active_count(), "nest_asyncio2" in sys.modules, "IPython" in sys.modules)
        """,
    ) == ["1 False False", "2 False False"]


def test_other_threads_leave_the_signal_handlers_alone():
    """Only the main thread may change them."""
    handlers = []

    async def look() -> None:
        handlers.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=lambda: run_async(look()))
    thread.start()
    thread.join(20)
    assert handlers == [before]
