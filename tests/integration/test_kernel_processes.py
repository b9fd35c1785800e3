"""Functions and classes of a notebook's cells on worker processes, in a real kernel."""

from collections.abc import Iterator

import pytest

from tests.support.kernels import Kernel
from tests.support.requirements import needs

needs("cloudpickle")

pytestmark = [pytest.mark.real_time, pytest.mark.kernel]


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    """A kernel with a pool whose workers have begun."""
    kernel = Kernel()
    ran = kernel.run(
        "import os\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from ragasync import AsyncBatchProcessor\n"
        "pool = ProcessPoolExecutor(1)\n"
        "pool.submit(os.getpid).result() != os.getpid()"
    )
    assert ran.value == "True", ran
    yield kernel
    kernel.run("pool.shutdown()")
    kernel.close()


def test_a_function_defined_in_a_cell_after_the_workers_began_runs_there(kernel: Kernel):
    """With the classes and globals of other cells, as they are now."""
    kernel.run(
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Page:\n    number: int\n"
        "class PageError(Exception):\n    pass\n"
        "factor = 3\n"
        "def work(page):\n"
        "    if page.number == 2:\n        raise PageError('two')\n"
        "    return Page(factor * page.number), os.getpid()"
    )
    kernel.run("factor = 5")
    ran = kernel.run(
        "result = await AsyncBatchProcessor(work, retry_count=0, executor=pool).process(\n"
        "    [Page(1), Page(2), Page(3)])\n"
        "first, second, third = result.results\n"
        "(first[0], second, third[0], type(first[0]) is Page, first[1] != os.getpid(),"
        " type(result.errors[1]) is PageError)"
    )
    assert ran.value == "(Page(number=5), None, Page(number=15), True, True, True)", ran


def test_an_async_function_of_a_cell_runs_there(kernel: Kernel):
    """The kernel's own loop stays out of it."""
    ran = kernel.run(
        "import asyncio\n"
        "async def later(item):\n    await asyncio.sleep(0)\n    return os.getpid() != here, item\n"
        "here = os.getpid()\n"
        "(await AsyncBatchProcessor(later, executor=pool).process([1, 2])).results"
    )
    assert ran.value == "[(True, 1), (True, 2)]", ran
