"""run_async on the loop of its own thread, in scripts of their own: nested=True patches asyncio."""

import pytest

from tests.support.requirements import needs
from tests.support.scripts import printed_by

pytestmark = pytest.mark.real_time

IMPORTS = """
import asyncio, contextvars, sys, types
from ragasync import run_async

async def loop_in_use():
    return asyncio.get_running_loop()
"""

RUN = "asyncio.run(main())"


def test_a_queue_of_the_running_loop_can_be_read():
    """A task of the outer loop fills it meanwhile: both run on the one loop."""
    main = """
    async def main():
        inbox = asyncio.Queue()
        filling = asyncio.create_task(inbox.put("a letter"))
        print(run_async(inbox.get(), nested=True))
        print(run_async(loop_in_use(), nested=True) is asyncio.get_running_loop())
        await filling
    """
    assert printed_by(IMPORTS, main, RUN) == ["a letter", "True"]


def test_a_task_of_the_running_loop_can_be_awaited():
    """What the plain way refuses is what nested=True is for."""
    main = """
    async def main():
        task = asyncio.ensure_future(asyncio.sleep(0.01, 42))
        print(run_async(task, nested=True))
    """
    assert printed_by(IMPORTS, main, RUN) == ["42"]


def test_calls_nest_in_one_another():
    """A nested call may make another."""
    main = """
    async def descend(depth):
        return 1 + run_async(descend(depth - 1), nested=True) if depth else 0

    async def main():
        print(run_async(descend(20), nested=True))
    """
    assert printed_by(IMPORTS, main, RUN) == ["20"]


def test_the_first_call_may_come_while_others_are_ready():
    """It runs them, and the round of the loop in which it came, which has counted them, goes on."""
    main = """
    said = []

    async def nest(name):
        said.append(run_async(asyncio.sleep(0.01, name), nested=True))

    async def say(name):
        said.append(name)

    async def main():
        await asyncio.gather(nest("a"), say("b"), nest("c"), *map(say, "defg"))
        print(*sorted(said))
    """
    assert printed_by(IMPORTS, main, RUN) == ["a b c d e f g"]


def test_context_variables_go_in_and_come_back():
    """As in the plain way."""
    main = """
    colour = contextvars.ContextVar("colour")

    async def repaint():
        before = colour.get()
        colour.set("green")
        return before

    async def main():
        colour.set("red")
        print(run_async(repaint(), nested=True), colour.get())
    """
    assert printed_by(IMPORTS, main, RUN) == ["red green"]


def test_a_timeout_cancels_and_waits_for_the_clean_up():
    """TimeoutError comes after the coroutine's finally has ended, and says the seconds."""
    main = """
    async def slow():
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            print("cleaned up")

    async def main():
        try:
            run_async(slow(), timeout=0.05, nested=True)
        except TimeoutError as error:
            print(error)
    """
    assert printed_by(IMPORTS, main, RUN) == [
        "cleaned up",
        "run_async: not done within timeout=0.05 seconds; it was cancelled",
    ]


def test_an_error_goes_up_with_its_traceback():
    """The frames of the coroutine are there."""
    main = """
    import traceback

    async def fail():
        raise LookupError("lost")

    async def main():
        try:
            run_async(fail(), nested=True)
        except LookupError as error:
            print(error, traceback.extract_tb(error.__traceback__)[-1].name)
    """
    assert printed_by(IMPORTS, main, RUN) == ["lost fail"]


def test_the_plain_way_works_after_nested():
    """The patch changes the background loop's class as well, and it still hands off."""
    main = """
    async def main():
        print(run_async(asyncio.sleep(0.01, "before")))
        run_async(asyncio.sleep(0), nested=True)
        print(run_async(asyncio.sleep(0.01, "after")))
    """
    assert printed_by(IMPORTS, main, RUN) == ["before", "after"]


def test_asyncio_is_patched_at_first_use_only():
    """Neither the import nor a plain call touches it, and nor does nested=True without a loop."""
    main = """
    async def main():
        print(hasattr(asyncio, "_nest_patched"))
        run_async(asyncio.sleep(0))
        print(hasattr(asyncio, "_nest_patched"))
        run_async(asyncio.sleep(0), nested=True)
        print(hasattr(asyncio, "_nest_patched"))

    run_async(asyncio.sleep(0), nested=True)
    """
    assert printed_by(IMPORTS, main, RUN) == ["False", "False", "True"]


def test_uvloop_runs_the_plain_way_and_refuses_nested():
    """The error is clear, and asyncio is not patched for nothing."""
    needs("uvloop")
    main = """
    import uvloop

    async def main():
        print(run_async(asyncio.sleep(0, 42)))
        try:
            run_async(asyncio.sleep(0), nested=True)
        except RuntimeError as error:
            print("cannot be patched" in str(error), hasattr(asyncio, "_nest_patched"))

    uvloop.run(main())
    """
    assert printed_by(IMPORTS, main) == ["42", "True False"]


def test_a_browser_that_puts_the_stack_aside_needs_no_thread():
    """Under Pyodide the browser's loop serves; its stack switching is played by a nested loop."""
    main = """
    import nest_asyncio2, threading
    from ragasync.errors import RunAsyncError

    async def main():
        loop = asyncio.get_running_loop()
        nest_asyncio2.apply(loop)
        ffi = types.ModuleType("pyodide.ffi")
        ffi.can_run_sync, ffi.run_sync = (lambda: True), loop.run_until_complete
        sys.modules |= {"pyodide": types.ModuleType("pyodide"), "pyodide.ffi": ffi}
        sys.platform = "emscripten"
        print(run_async(loop_in_use()) is loop)
        print(run_async(asyncio.ensure_future(asyncio.sleep(0, "its own future"))))
        try:
            run_async(asyncio.sleep(60), timeout=0.01)
        except TimeoutError as error:
            print(error)
        print(threading.active_count())
    """
    assert printed_by(IMPORTS, main, RUN) == [
        "True",
        "its own future",
        "run_async: not done within timeout=0.01 seconds; it was cancelled",
        "1",
    ]
