"""run_async in a real Jupyter kernel."""

from collections.abc import Iterator

import pytest

from tests.support.kernels import Kernel, running_kernel

pytestmark = [pytest.mark.kernel, pytest.mark.real_time]

# A cell that waits for the end of this grace period does not come back in time.
IMPORTS = """
import asyncio
from ragasync import run_async
from ragasync._bridge import interrupts, run_async as run_async_module

interrupts.GRACE = run_async_module.GRACE = 600
"""

SLOW = (
    IMPORTS
    + """
ended = []

async def child():
    try:
        await asyncio.sleep(60)
    finally:
        ended.append("child")

async def slow():
    await asyncio.gather(child(), say_ready())

async def say_ready():
    print("ready", flush=True)
"""
)


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    """One kernel for the tests of this file."""
    with running_kernel() as kernel:
        yield kernel


def assert_healthy(kernel: Kernel) -> None:
    """The interrupted child has ended, and the next cells run, awaiting ones as well."""
    assert kernel.run("ended").value == "['child']"
    assert kernel.run("await asyncio.sleep(0.01, 'fine')").value == "'fine'"
    assert kernel.run("run_async(asyncio.sleep(0.01, 'fine'))").value == "'fine'"


def test_a_cell_runs_a_coroutine(kernel: Kernel):
    """A plain cell gets the value although the kernel's loop runs in its thread."""
    assert kernel.run(IMPORTS + "run_async(asyncio.sleep(0.01, 42))").value == "42"


def test_a_callback_on_the_kernels_loop_runs_a_coroutine(kernel: Kernel):
    """A function that the kernel's loop calls between cells can use run_async."""
    ran = kernel.run(
        IMPORTS
        + """
seen = asyncio.get_running_loop().create_future()
asyncio.get_running_loop().call_later(
    0.01, lambda: seen.set_result(run_async(asyncio.sleep(0.01, "in a callback")))
)
await seen
"""
    )
    assert ran.value == "'in a callback'"


def test_a_sync_function_inside_an_awaiting_cell_runs_a_coroutine(kernel: Kernel):
    """A cell that awaits may call sync code that uses run_async."""
    ran = kernel.run(
        IMPORTS
        + """
async def outer():
    return run_async(asyncio.sleep(0.01, "inner"))

await outer()
"""
    )
    assert ran.value == "'inner'"


def test_a_future_of_the_kernels_loop_is_refused_immediately(kernel: Kernel):
    """A task of the cell's own loop cannot end while run_async blocks it, and the error says so."""
    ran = kernel.run(IMPORTS + "task = asyncio.ensure_future(asyncio.sleep(0)); run_async(task)")
    assert ran.error == "RunAsyncError"
    assert "nested=True" in (ran.message or "")


def test_nested_runs_an_object_of_the_kernels_loop(kernel: Kernel):
    """With nested=True a queue that a task of the kernel's loop fills can be read."""
    ran = kernel.run(
        IMPORTS
        + """
inbox = asyncio.Queue()
filling = asyncio.create_task(inbox.put("from the kernel's loop"))
run_async(inbox.get(), nested=True, timeout=20)
"""
    )
    assert ran.value == '"from the kernel\'s loop"'


def test_a_plain_cell_is_interrupted(kernel: Kernel):
    """The stop button ends a blocking call and its children immediately; the kernel lives on."""
    ran = kernel.run_interrupted(SLOW + "run_async(slow())")
    assert ran.error == "KeyboardInterrupt"
    assert_healthy(kernel)


def test_an_awaiting_cell_is_interrupted(kernel: Kernel):
    """The stop button ends a blocking call that sits inside an awaiting cell."""
    ran = kernel.run_interrupted(
        SLOW
        + """
async def outer():
    await asyncio.sleep(0)
    run_async(slow())

await outer()
"""
    )
    assert ran.traceback == [
        "Interrupted: stopped while a blocking call inside this cell was waiting"
    ]
    assert_healthy(kernel)


def test_a_child_task_of_an_awaiting_cell_is_interrupted(kernel: Kernel):
    """Where a task of the cell made the blocking call, the kernel survives too."""
    ran = kernel.run_interrupted(
        SLOW
        + """
async def outer():
    run_async(slow())

await asyncio.create_task(outer())
"""
    )
    assert ran.status == "error"
    assert_healthy(kernel)


def test_a_nested_call_is_interrupted_in_a_plain_cell(kernel: Kernel):
    """On the kernel's own loop the children are cancelled and awaited too."""
    ran = kernel.run_interrupted(SLOW + "run_async(slow(), nested=True)")
    assert ran.error == "KeyboardInterrupt"
    assert_healthy(kernel)


def test_a_nested_call_is_interrupted_in_an_awaiting_cell(kernel: Kernel):
    """The same inside a cell that awaits."""
    ran = kernel.run_interrupted(
        SLOW
        + """
async def outer():
    await asyncio.sleep(0)
    run_async(slow(), nested=True)

await outer()
"""
    )
    assert ran.status == "error"
    assert_healthy(kernel)


DEEP = (
    SLOW
    + """
def on_a_thread():
    run_async(slow())

async def blocking():
    run_async(slow())

async def deep():
    await asyncio.to_thread(run_async, blocking())

async def nested():
    run_async(deep(), nested=True)
"""
)


@pytest.mark.parametrize(
    "cell",
    [
        "run_async(blocking())",
        "run_async(deep())",
        "run_async(nested())",
        "run_async(nested(), nested=True)",
        "await nested()",
        "await asyncio.create_task(blocking())",
    ],
)
def test_calls_inside_calls_are_interrupted(kernel: Kernel, cell: str):
    """The innermost has ended when the cell has, and nothing goes on."""
    ran = kernel.run_interrupted(DEEP + cell)
    assert ran.status == "error"
    assert_healthy(kernel)


def test_a_call_in_a_widgets_callback_is_interrupted(kernel: Kernel):
    """The kernel's loop calls it while a cell awaits."""
    ran = kernel.run_interrupted(
        DEEP
        + """
import ipywidgets
button = ipywidgets.Button()
button.on_click(lambda _: run_async(blocking()))
asyncio.get_running_loop().call_later(0.05, button.click)
await asyncio.sleep(30)
"""
    )
    assert ran.status == "error"
    assert_healthy(kernel)
