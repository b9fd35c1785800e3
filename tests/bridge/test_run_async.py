"""run_async without a kernel: scripts, running loops, threads; what goes in and what comes out."""

import asyncio
import contextvars
import gc
import multiprocessing
import sys
import threading
import traceback
import types
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from ragasync import AsyncBatchProcessor, RunAsyncError, run_async

# Internals: these tests change the grace period of a clean-up.
from ragasync._bridge import run_async as bridge
from tests.support.requirements import go_without

pytestmark = pytest.mark.real_time

colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


async def loop_in_use() -> asyncio.AbstractEventLoop:
    """Return the loop that this runs on."""
    return asyncio.get_running_loop()


async def inside_a_loop(function):
    """Call a sync function while a loop runs in this thread."""
    return function()


class Awaited:
    """Something to await that is neither a coroutine nor a future."""

    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        return "awaited"


def test_a_coroutine_runs_where_no_loop_does():
    """A script gets the value."""
    assert run_async(asyncio.sleep(0, 42)) == 42


def test_a_coroutine_runs_where_a_loop_does():
    """A sync function called by async code gets the value too."""
    assert asyncio.run(inside_a_loop(lambda: run_async(asyncio.sleep(0, 42)))) == 42


def test_a_coroutine_runs_from_a_worker_thread():
    """Any other thread gets the value."""
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: run_async(asyncio.sleep(0, 42))).result() == 42


def test_any_awaitable_will_do():
    """An object with __await__ is as good as a coroutine."""
    assert run_async(Awaited()) == "awaited"


def test_a_future_of_the_background_loop_can_be_awaited():
    """What an earlier call made on the loop can be handed to the next."""

    async def make() -> asyncio.Task[int]:
        return asyncio.create_task(asyncio.sleep(0, 42))

    assert run_async(run_async(make())) == 42


def test_every_call_uses_the_same_loop():
    """A client made in one call works in the next, wherever it comes from."""
    first = run_async(loop_in_use())
    with ThreadPoolExecutor(1) as pool:
        from_a_thread = pool.submit(lambda: run_async(loop_in_use())).result()
    from_a_loop = asyncio.run(inside_a_loop(lambda: run_async(loop_in_use())))
    assert first is from_a_thread is from_a_loop


def test_the_loops_thread_is_a_daemon():
    """The loop does not keep the process alive."""

    async def is_daemon() -> bool:
        return threading.current_thread().daemon

    assert run_async(is_daemon())


def test_a_call_inside_a_call_gets_a_loop_of_its_depth():
    """Three deep, each on its own loop; the same depth gets the same loop again."""

    async def descend(depth: int) -> list[asyncio.AbstractEventLoop]:
        here = asyncio.get_running_loop()
        return [here, *(run_async(descend(depth - 1)) if depth else [])]

    once, again = run_async(descend(3)), run_async(descend(3))
    assert len(set(once)) == 4
    assert once == again


def test_a_worker_thread_of_an_inner_call_does_not_wait_for_the_outer_loop():
    """The context tells which loops are blocked, so the call avoids them from any thread."""

    async def in_a_worker() -> object:
        return await asyncio.to_thread(lambda: run_async(loop_in_use()))

    async def outer() -> object:
        return run_async(in_a_worker(), timeout=20)

    assert run_async(outer()) is not run_async(loop_in_use())


def test_many_threads_share_the_loop():
    """Calls from several threads run side by side, each with its own value."""
    barrier = threading.Barrier(8)

    def call(number: int) -> int:
        barrier.wait(20)
        return run_async(asyncio.sleep(0.01, number))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(call, range(8))) == list(range(8))


def test_context_variables_go_in_and_come_back():
    """The coroutine sees the caller's variables, and the caller what it made of them."""

    async def repaint() -> str:
        before = colour.get()
        colour.set("green")
        return before

    token = colour.set("red")
    try:
        assert run_async(repaint()) == "red"
        assert colour.get() == "green"
    finally:
        colour.reset(token)


def test_context_variables_come_back_from_a_failure():
    """What was changed before the error is changed."""

    async def repaint_and_fail() -> None:
        colour.set("blue")
        raise LookupError

    def scenario() -> str:
        with pytest.raises(LookupError):
            run_async(repaint_and_fail())
        return colour.get()

    assert contextvars.copy_context().run(scenario) == "blue"


def test_the_blocked_loops_of_a_call_do_not_come_back():
    """After an inner call the outer code uses the first loop again."""
    first = run_async(loop_in_use())

    async def outer() -> None:
        run_async(loop_in_use())

    def scenario() -> bool:
        run_async(outer())
        return run_async(loop_in_use()) is first

    assert contextvars.copy_context().run(scenario)


class DeepInside(Exception):
    """An error that can be recognized."""


async def fail() -> None:
    """Raise it."""
    raise DeepInside


def test_an_error_keeps_its_traceback():
    """The frames of the coroutine are there, and those of the caller above them."""
    with pytest.raises(DeepInside) as caught:
        run_async(fail())
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names[0] == "test_an_error_keeps_its_traceback"
    assert names[-1] == "fail"


def test_an_error_is_freed_without_the_garbage_collector():
    """No reference cycle holds the error and the frames that it passed through."""
    gc.disable()
    try:
        try:
            run_async(fail())
        except DeepInside as error:
            gone = weakref.ref(error)
        run_async(asyncio.sleep(0))  # by now the loop's thread has let go of the task
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("leave", [SystemExit, KeyboardInterrupt])
def test_leaving_from_inside_reaches_the_caller_and_spares_the_loop(leave):
    """sys.exit() in a coroutine exits the caller; the next call finds the loop alive."""

    async def exits() -> None:
        raise leave

    before = run_async(loop_in_use())
    with pytest.raises(leave):
        run_async(exits())
    assert run_async(loop_in_use()) is before


def test_a_stopped_loop_goes_on():
    """A coroutine that stops the loop under everybody does not end it."""

    async def stop() -> None:
        asyncio.get_running_loop().stop()

    run_async(stop())
    assert run_async(asyncio.sleep(0.01, "alive"), timeout=20) == "alive"


def test_a_coroutine_that_was_cancelled_by_itself_says_so():
    """CancelledError goes up as it is."""

    async def give_up() -> None:
        raise asyncio.CancelledError("enough")

    with pytest.raises(asyncio.CancelledError, match="enough"):
        run_async(give_up())


def test_a_timeout_cancels_and_waits_for_the_clean_up():
    """TimeoutError comes after the coroutine's finally has ended, and says the seconds."""
    cleaned = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(True)

    with pytest.raises(TimeoutError, match=r"0\.05 seconds"):
        run_async(slow(), timeout=0.05)
    assert cleaned == [True]


def test_a_value_that_comes_in_spite_of_the_timeout_is_returned():
    """A coroutine that ends with a value when it is cancelled has finished in the race."""

    async def finishes() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "just in time"
        return "too late"

    assert run_async(finishes(), timeout=0.01) == "just in time"


def test_a_timeout_of_the_coroutines_own_stays_as_it_is():
    """Its TimeoutError is not taken for ours."""

    async def times_out() -> None:
        raise TimeoutError("of the server")

    with pytest.raises(TimeoutError, match="of the server"):
        run_async(times_out(), timeout=20)


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_a_timeout_has_to_be_a_positive_number(timeout):
    """Anything else is refused with the value."""
    with pytest.raises(ValueError, match=rf"timeout must be positive and finite, got {timeout}"):
        run_async(Awaited(), timeout=timeout)


def test_a_timeout_has_to_be_a_number():
    """Text is refused with its value."""
    with pytest.raises(
        TypeError, match="timeout must be a number of seconds or a timedelta, got '3'"
    ):
        run_async(Awaited(), timeout="3")


def test_a_function_that_was_not_called_is_refused():
    """The error shows the call that was meant."""
    with pytest.raises(TypeError, match=r"run_async\(function\(\)\)"):
        run_async(fail)


def test_what_cannot_be_awaited_is_refused():
    """The error shows what came instead."""
    with pytest.raises(TypeError, match="expects a coroutine or awaitable, got 42"):
        run_async(42)


def test_a_coroutine_can_be_run_once():
    """A second run is refused, as Python would, but saying what to do."""
    coro = asyncio.sleep(0)
    run_async(coro)
    with pytest.raises(TypeError, match="call its function again"):
        run_async(coro)


async def test_a_future_of_the_loop_in_this_thread_is_refused():
    """It could never finish, because its loop is blocked until it does."""
    task = asyncio.ensure_future(asyncio.sleep(0))
    with pytest.raises(RunAsyncError, match="can never finish here"):
        run_async(task)
    await task


async def test_a_finished_future_of_the_loop_in_this_thread_has_its_value():
    """There is nothing to wait for, so there is nothing to refuse."""
    task = asyncio.ensure_future(asyncio.sleep(0, 42))
    await task
    assert run_async(task) == 42


async def test_a_future_of_a_loop_that_an_outer_call_blocks_is_refused():
    """Two calls deep it is as hopeless as one."""
    task = asyncio.ensure_future(asyncio.sleep(0))

    async def outer() -> None:
        run_async(task)

    with pytest.raises(RunAsyncError, match="can never finish here"):
        run_async(outer())
    await task


async def of_a_task(task: asyncio.Task[None], event: asyncio.Event) -> None:
    """Await a task of another loop."""
    await task


async def of_an_event(task: asyncio.Task[None], event: asyncio.Event) -> None:
    """Await an event that another loop uses."""
    await event.wait()


async def of_a_timeout(task: asyncio.Task[None], event: asyncio.Event) -> None:
    """Give a task of another loop a time limit."""
    await asyncio.wait_for(task, 20)


@pytest.mark.parametrize("use", [of_a_task, of_an_event, of_a_timeout])
async def test_an_object_of_another_loop_gives_advice(use):
    """However asyncio words it, it is a RunAsyncError from the original one."""
    event = asyncio.Event()
    task = asyncio.create_task(event.wait())
    await asyncio.sleep(0)
    with pytest.raises(RunAsyncError, match=r"await.*inside the coroutine.*nested=True") as caught:
        run_async(use(task, event))
    assert "different" in str(caught.value.__cause__)
    event.set()
    await asyncio.wait({task})  # a bare await fails after one from another loop


def test_an_error_about_a_closed_loop_gives_advice():
    """A client of a loop that is gone fails with the same advice."""
    closed = asyncio.new_event_loop()
    closed.close()

    async def use() -> None:
        closed.call_soon(print)

    with pytest.raises(RunAsyncError, match="Event loop is closed"):
        run_async(use())


def test_other_errors_are_not_explained():
    """A RuntimeError about something else goes up as it is."""

    async def other() -> None:
        raise RuntimeError("out of paper")

    with pytest.raises(RuntimeError, match="out of paper") as caught:
        run_async(other())
    assert type(caught.value) is RuntimeError


async def test_waiting_for_tasks_of_the_blocked_loop_warns(monkeypatch):
    """asyncio.wait hangs on tasks of the blocked loop: that is seen, and said."""
    monkeypatch.setattr(bridge, "_FIRST_CHECK", 0.01)
    task = asyncio.create_task(asyncio.sleep(0))

    async def hang() -> None:
        await asyncio.wait({task})

    with pytest.raises(RuntimeWarning, match="deadlock"):  # warnings are errors here
        run_async(hang())
    await task


async def test_a_deadlock_is_not_guessed_at(monkeypatch):
    """Waiting long, or with a limit, is no deadlock."""
    monkeypatch.setattr(bridge, "_FIRST_CHECK", 0.01)
    monkeypatch.setattr(bridge, "_NEXT_CHECK", 0.01)
    task = asyncio.create_task(asyncio.sleep(0))

    async def patient() -> str:
        await asyncio.wait({task}, timeout=0.1)
        await asyncio.wait({asyncio.create_task(asyncio.sleep(0.1))})
        return "done"

    with warnings.catch_warnings(record=True) as seen:
        assert run_async(patient()) == "done"
    assert not seen
    await task


def test_nested_without_a_running_loop_is_the_plain_way():
    """There is nothing to nest in, so the background loop serves."""
    assert run_async(loop_in_use(), nested=True) is run_async(loop_in_use())


class ForeignLoop:
    """A loop that is not one of asyncio's own, like uvloop's."""


async def test_nested_on_a_loop_that_cannot_be_patched_is_refused(monkeypatch):
    """The error says which loops can be."""
    monkeypatch.setattr(asyncio, "_get_running_loop", ForeignLoop)
    with pytest.raises(RunAsyncError, match="asyncio's own event loops, got"):
        run_async(asyncio.sleep(0), nested=True)


def _loop_after_fork(pipe) -> None:
    """Use run_async in a forked child, and tell the parent."""
    pipe.send(run_async(asyncio.sleep(0, "child"), timeout=20))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_gets_a_loop_of_its_own():
    """Threads do not survive a fork, so the child starts its own."""
    if "fork" not in multiprocessing.get_all_start_methods():
        go_without("no fork on this platform")
    run_async(asyncio.sleep(0))
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_loop_after_fork, args=(theirs,))
    child.start()
    try:
        assert ours.poll(20)
        assert ours.recv() == "child"
    finally:
        child.join(20)
    assert run_async(asyncio.sleep(0, "parent")) == "parent"


@pytest.fixture
def browser(monkeypatch) -> None:
    """Python as it is in a browser that cannot put a stack aside."""
    ffi = types.ModuleType("pyodide.ffi")
    monkeypatch.setattr(sys, "platform", "emscripten")
    monkeypatch.setitem(sys.modules, "pyodide", types.ModuleType("pyodide"))
    monkeypatch.setitem(sys.modules, "pyodide.ffi", ffi)
    monkeypatch.setattr(threading.Thread, "start", lambda _: pytest.fail("threads in a browser"))
    ffi.can_run_sync, ffi.run_sync = (lambda: False), None


async def test_a_browser_that_cannot_wait_says_to_await(browser):
    """Without threads and without stack switching the error says what to do."""
    with pytest.raises(RunAsyncError, match="`await` the coroutine"):
        run_async(asyncio.sleep(0))


def test_a_browser_has_no_background_loop(browser):
    """There are no threads to run it in."""
    with pytest.raises(RunAsyncError, match="needs a thread"):
        AsyncBatchProcessor(asyncio.sleep).start([0])
