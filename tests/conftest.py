"""
Async tests run on the virtual clock; those marked `real_time` on the real one.

With RAGASYNC_EAGER=1 in the environment every event loop makes eager tasks (Python 3.12), which
run up to their first suspension while they are created.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from ragasync.testing import run_on_virtual_clock


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the core be tested alone: for that the extra `test-core` is enough."""
    parser.addoption(
        "--core", action="store_true", help="leave out documents, kernels, browsers and slow tests"
    )


def pytest_configure() -> None:
    """Take interrupts again where a shell that runs us in the background had them ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.environ.get("RAGASYNC_EAGER"):
        _make_tasks_eager()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """
    Leave out the files that are about documents; what needs a further package skips itself.

    With eager tasks, leave out those too that run nothing in a loop.
    """
    if not config.getoption("--core") or not collection_path.name.startswith("test_"):
        return None
    text = collection_path.read_text(encoding="utf-8")
    is_eager = bool(os.environ.get("RAGASYNC_EAGER"))
    runs = any(
        word in text for word in ("async def", "_sync(", "run_async", "run_on_virtual_clock")
    )
    return "ragasync.documents" in text or (is_eager and not runs) or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """
    Leave out what drives a kernel or a browser, and what one Python is enough for.

    With eager tasks, leave out scripts in processes of their own too: their tasks are not eager.
    """
    if not config.getoption("--core"):
        return
    core, rest = [], []
    for item in items:
        marks = {mark.name for mark in item.iter_markers()}
        left_out = marks & {"kernel", "browser", "slow"} or (
            os.environ.get("RAGASYNC_EAGER") and _runs_a_script(item)
        )
        (rest if left_out else core).append(item)
    config.hook.pytest_deselected(items=rest)
    items[:] = core


def _runs_a_script(item: pytest.Item) -> bool:
    """Whether a test only looks at what a script in another process prints."""
    code = getattr(getattr(item, "function", None), "__code__", None)
    return code is not None and not {"printed_by", "printed_for_each"}.isdisjoint(code.co_names)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine function, on the clock that its markers ask for."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments: dict[str, Any] = {
        name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames
    }
    run = asyncio.run if pyfuncitem.get_closest_marker("real_time") else run_on_virtual_clock
    run(pyfuncitem.obj(**arguments))
    return True


def _make_tasks_eager() -> None:
    """Have every event loop of this process, those of threads too, make eager tasks."""
    factory = getattr(asyncio, "eager_task_factory", None)
    if factory is None:
        raise pytest.UsageError("RAGASYNC_EAGER needs Python 3.12")
    plain = asyncio.BaseEventLoop.__init__

    def eager(loop: asyncio.BaseEventLoop) -> None:
        plain(loop)
        loop.set_task_factory(factory)

    asyncio.BaseEventLoop.__init__ = eager  # type: ignore[method-assign]
