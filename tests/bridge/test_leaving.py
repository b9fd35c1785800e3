"""Values and errors of a coroutine: each reaches the caller, and the loop survives."""

import pytest

from tests.support.requirements import needs_eager_tasks
from tests.support.scripts import printed_by

pytestmark = pytest.mark.real_time

each_kind_of_task = pytest.mark.parametrize(
    "eager", [False, pytest.param(True, marks=needs_eager_tasks)]
)

SCRIPT = """
import asyncio, itertools, sys, threading, warnings
from ragasync import AsyncBatchProcessor, run_async

class Foreign(BaseException):
    pass

EAGER = {eager}

class Eager(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self):
        loop = super().new_event_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        return loop

if EAGER:
    asyncio.set_event_loop_policy(Eager())

LEAVES = [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, StopIteration,
          StopAsyncIteration, Foreign]

async def leaves(error, late):
    if late:
        await asyncio.sleep(0.001)
    raise error

def expected(error):
    return RuntimeError if error is StopIteration else error  # so Python has it

def check(name, error, late, call, expects=expected):
    try:
        call()
    except BaseException as raised:
        if type(raised) is not expects(error) and not isinstance(raised, expects(error)):
            print(name, error.__name__, late, "raised", repr(raised))
    else:
        print(name, error.__name__, late, "raised nothing")
    if run_async(asyncio.sleep(0.001, "alive"), timeout=10) != "alive":
        print(name, error.__name__, late, "dead")

def in_a_loop(function):
    async def main():
        try:
            function()
        except BaseException as error:  # or it would end this loop
            return error
    loop = asyncio.new_event_loop()
    error = loop.run_until_complete(main())
    loop.close()
    if error is not None:
        raise error
"""

CALLS = {
    "plain": "run_async(leaves(error, late))",
    "with a timeout": "run_async(leaves(error, late), timeout=10)",
    "in a loop": "in_a_loop(lambda: run_async(leaves(error, late)))",
    "nested": "in_a_loop(lambda: run_async(leaves(error, late), nested=True))",
    "nested, with a timeout": (
        "in_a_loop(lambda: run_async(leaves(error, late), nested=True, timeout=10))"
    ),
    "in a call": "run_async(blocking(leaves(error, late)))",
    "in a task": "run_async(in_a_task(leaves(error, late)))",
}


@each_kind_of_task
@pytest.mark.parametrize("call", CALLS)
def test_every_error_reaches_the_caller(call, eager):
    """Before the first await and after it; and the next call is served."""
    assert (
        printed_by(
            SCRIPT.format(eager=eager),
            f"""
            async def blocking(coro):
                return run_async(coro)

            async def in_a_task(coro):
                return await asyncio.create_task(coro)

            for error, late in itertools.product(LEAVES, (False, True)):
                if EAGER and {call == "in a task"} and error in (KeyboardInterrupt, SystemExit):
                    continue  # asyncio itself loses such a task, and complains
                check({call!r}, error, late, lambda: {CALLS[call]})
            """,
        )
        == []
    )


# An error that ends a job is raised where its result is asked for; others are their items'.
JOBS = {
    "wait": "AsyncBatchProcessor(call, retry_count=0).start([1]).wait(timeout=10)",
    "run_async": "run_async(AsyncBatchProcessor(call, retry_count=0).start([1]))",
    "process_sync": "AsyncBatchProcessor(call, retry_count=0).process_sync([1])",
}


@each_kind_of_task
@pytest.mark.parametrize("job", JOBS)
def test_an_error_that_ends_a_job_reaches_the_waiting_code(job, eager):
    """KeyboardInterrupt, SystemExit and GeneratorExit; also before the first await."""
    assert (
        printed_by(
            SCRIPT.format(eager=eager),
            f"""
            for error, late in itertools.product(
                (KeyboardInterrupt, SystemExit, GeneratorExit), (False, True)
            ):
                async def call(item, error=error, late=late):
                    await leaves(error, late)

                check({job!r}, error, late, lambda: {JOBS[job]})
            """,
        )
        == []
    )


@each_kind_of_task
@pytest.mark.parametrize("job", JOBS)
def test_an_error_of_a_source_reaches_the_waiting_code(job, eager):
    """A source is read before the first await."""
    assert (
        printed_by(
            SCRIPT.format(eager=eager),
            f"""
            async def call(item):
                return item

            def source(error):
                yield 1
                raise error

            for error in (KeyboardInterrupt, SystemExit, ValueError):
                check({job!r}, error, False, lambda: {JOBS[job].replace("[1]", "source(error)")})
            """,
        )
        == []
    )
