"""Run Python scripts in processes of their own, for what concerns a whole process."""

import runpy
import subprocess
import sys
import textwrap
from collections.abc import Sequence

import pytest


def printed_by(*parts: str) -> list[str]:
    """
    Run a script, with warnings as errors, and return the lines that it printed.

    The parts are dedented one by one and put together; anything on stderr fails the test.
    """
    script = "\n".join(map(textwrap.dedent, parts))
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ran.stderr == "", ran.stderr
    return ran.stdout.splitlines()


def exit_code_of(monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str]) -> object:
    """Run `python -m ragasync.documents` with these arguments, in this process."""
    monkeypatch.setattr(sys, "argv", ["ragasync.documents", *arguments])
    monkeypatch.delitem(sys.modules, "ragasync.documents.__main__", raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("ragasync.documents", run_name="__main__")
    return ended.value.code
