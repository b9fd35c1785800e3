"""Async tests run on the virtual clock; those marked `real_time` on the real one."""

from __future__ import annotations

import asyncio
import inspect
import signal
from typing import Any

import pytest

from ragasync.simulation import run_virtual


def pytest_configure() -> None:
    """Take interrupts again where a shell that runs us in the background had them ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine function, on the clock that its markers ask for."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments: dict[str, Any] = {
        name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames
    }
    run = asyncio.run if pyfuncitem.get_closest_marker("real_time") else run_virtual
    run(pyfuncitem.obj(**arguments))
    return True
