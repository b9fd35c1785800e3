"""The core in a browser: Pyodide in node, if RAGASYNC_PYODIDE names its folder."""

import asyncio
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ragasync import AsyncBatchProcessor, JournalError, RateLimiter
from ragasync.testing import run_on_virtual_clock
from tests.support.requirements import go_without_in_ci_too

HERE = Path(__file__).parents[1]
SOURCE = HERE.parent
FOLDER = os.environ.get("RAGASYNC_PYODIDE", "")

STACK_SWITCHING = "--experimental-wasm-stack-switching"
"""A flag that lets node suspend a Python stack, as Chromium does by default."""

FILES = [
    "tests/batch/test_retried_calls.py",
    "tests/limits/test_overtaking_pauses.py",
    "tests/retries/test_retry.py",
]
"""Tests of the core that run without threads, processes and sockets."""

PYTEST = ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments", "py")
"""The packages of pytest, all of them pure Python."""


def run_in_pyodide(script: str, *arguments: str, flag: str = "", packages: tuple[str, ...] = ()):
    """Run a script of tests/pyodide there, with these importable modules, and return its output."""
    node = shutil.which("node")
    if not (FOLDER and node and Path(FOLDER, "node_modules", "pyodide").is_dir()):
        go_without_in_ci_too(
            "needs node, and Pyodide: `npm install pyodide` in a folder, and that folder's path "
            "in the environment variable RAGASYNC_PYODIDE"
        )
    places = {"/src": str(SOURCE)}
    for name in packages:
        found = importlib.util.find_spec(name)
        assert found is not None
        assert found.origin is not None
        path = Path(found.origin)
        here = path.parent if path.name == "__init__.py" else path
        places[f"/packages/{here.name}"] = str(here)
    flags = [flag] if flag else []
    ran = subprocess.run(
        [
            *(node, *flags, HERE / "pyodide" / "try_core.mjs", Path(FOLDER).resolve()),
            *(HERE / "pyodide" / script, json.dumps(places), *arguments),
        ],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]
    assert ran.stderr == ""
    return ran.stdout


@pytest.mark.real_time
@pytest.mark.timeout(300)
@pytest.mark.parametrize("flag", ["", STACK_SWITCHING], ids=["awaiting", "stack switching"])
def test_the_core_runs_on_the_loop_of_a_browser(flag: str):
    """Batches, limits, retries, jobs, and run_async if the stack can be suspended."""
    ability, *tests = map(json.loads, run_in_pyodide("core.py", flag=flag).splitlines())
    assert ability == {"can_run_sync": bool(flag)}
    assert {test["test"]: test["error"] for test in tests if test["error"]} == {}
    assert len(tests) > 10


@pytest.mark.real_time
@pytest.mark.timeout(300)
def test_the_tests_of_the_core_pass_there():
    """They use a virtual clock, which needs neither threads nor sockets."""
    output = run_in_pyodide("run_pytest.py", *FILES, packages=PYTEST)
    assert "pytest ended with 0" in output, output[-6000:]


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ragasync believe that it runs in a browser."""
    monkeypatch.setattr(sys, "platform", "emscripten")


def test_a_sync_function_is_refused_where_there_are_no_threads(browser):
    """The error comes immediately, not in every item."""
    with pytest.raises(TypeError, match="`async def`"):
        AsyncBatchProcessor(len)


def test_a_journal_is_refused_where_there_are_no_threads(browser, tmp_path: Path):
    """The error comes immediately, before a file exists."""
    with pytest.raises(JournalError, match="leave out journal="):
        AsyncBatchProcessor(asyncio.sleep, journal=tmp_path / "run.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_the_virtual_clock_needs_no_sockets_where_nobody_can_wake_it(browser):
    """A browser has no threads."""
    assert run_on_virtual_clock(asyncio.sleep(3600, "slept")) == "slept"


class _BrowsersTimer(asyncio.Handle):
    """A timer that can only be cancelled."""

    def __init__(self, timer: asyncio.TimerHandle, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(timer.cancel, (), loop)
        self._timer = timer

    def cancel(self) -> None:
        self._timer.cancel()


class _BrowsersLoop(asyncio.SelectorEventLoop):
    """A loop whose timers are plain handles, like those of Pyodide's loop."""

    def call_at(self, *args: Any, **kwargs: Any) -> Any:
        return _BrowsersTimer(super().call_at(*args, **kwargs), self)


@pytest.mark.real_time
def test_a_limiter_waits_on_a_loop_whose_timers_do_not_know_when():
    """Also if a second waiter resets the timer."""

    async def two_wait() -> None:
        limiter = RateLimiter(100, burst_size=1)
        await limiter.acquire()
        first = asyncio.create_task(limiter.acquire())
        await asyncio.sleep(0)
        limiter.rate = 200
        await asyncio.gather(first, limiter.acquire())

    with asyncio.Runner(loop_factory=_BrowsersLoop) as runner:
        runner.run(two_wait())
