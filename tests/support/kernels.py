"""A real Jupyter kernel for tests: run cells, interrupt them, and see what came out."""

from __future__ import annotations

import contextlib
import os
import queue
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.front_end import FrontEnd
from tests.support.requirements import needs

needs("ipykernel", "jupyter_client")

from jupyter_client.manager import start_new_kernel  # noqa: E402


@dataclass
class Ran:
    """What a cell left behind."""

    status: str = ""
    stdout: str = ""
    stderr: str = ""
    value: str | None = None
    error: str | None = None
    message: str | None = None
    traceback: list[str] = field(default_factory=list)
    displays: list[dict[str, Any]] = field(default_factory=list)


class Kernel:
    """
    A running ipykernel and a client of it, one cell at a time.

    Args:
        path: a folder whose packages the kernel finds first.

    Attributes:
        front_end: what the messages of all cells, and of those that have ended, have made of
            widgets and displays.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._start()

    def _start(self) -> None:
        """Start a kernel that leaves nothing in the home directory."""
        self._folder = tempfile.TemporaryDirectory()
        environment = os.environ | {"IPYTHONDIR": self._folder.name, "PYTHONWARNINGS": "default"}
        if self._path is not None:
            environment["PYTHONPATH"] = str(self._path)
        self._manager, self._client = start_new_kernel(startup_timeout=60, env=environment)
        self.front_end = FrontEnd()
        self._subshell: str | None = None

    def restart(self) -> None:
        """Restart it, as the button does; the front end keeps what it shows."""
        self._manager.restart_kernel(now=True)
        self._client.wait_for_ready(timeout=60)
        self._subshell = None

    def close(self) -> None:
        """Shut the kernel down."""
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)
        self._manager.cleanup_resources()
        self._client.context.destroy()
        self._folder.cleanup()

    def run(self, code: str, timeout: float = 40.0) -> Ran:
        """Run a cell to its end."""
        self.start(code)
        return self.finish(timeout)

    def start(self, code: str) -> None:
        """Start a cell and do not wait for it."""
        self._cell = self._client.execute(code, allow_stdin=False)
        self._ran = Ran()

    def interrupt(self) -> None:
        """Press the stop button."""
        self._manager.interrupt_kernel()

    def until_printed(self, text: str, timeout: float = 40.0) -> None:
        """Wait until the cell that was started has printed this text."""
        deadline = time.monotonic() + timeout
        while text not in self._ran.stdout:
            if self._take(deadline):
                raise AssertionError(f"the cell ended without printing {text!r}: {self._ran}")

    def finish(self, timeout: float = 40.0) -> Ran:
        """
        Wait for the end of the cell.

        Raises:
            TimeoutError: If it goes on for more than `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while not self._take(deadline):
            pass
        while True:
            reply = self._get(self._client.get_shell_msg, deadline)
            if reply["parent_header"].get("msg_id") == self._cell:
                self._ran.status = reply["content"]["status"]
                return self._ran

    def run_interrupted(self, code: str) -> Ran:
        """
        Run a cell, interrupt it when it has printed "ready", and return what it left.

        ipykernel 7.3 and 7.4 go deaf after one interrupt in 50 to 200, so a kernel that does not
        answer is replaced by a new one, once.
        """
        for may_be_deaf in (True, False):
            self.start(code)
            self.until_printed("ready")
            self.interrupt()
            try:
                return self.finish(timeout=15.0)
            except TimeoutError:
                if not may_be_deaf:
                    raise
                self.close()
                self._start()
        raise AssertionError("unreachable")

    def click(self, css_class: str, *, in_subshell: bool = False) -> None:
        """
        Click the button of this class as the front end does, once it is there.

        Args:
            css_class: a class that was added to the button.
            in_subshell: send it as JupyterLab does where a kernel has subshells, so that it is
                heard while a cell runs.
        """
        data = {"method": "custom", "content": {"event": "click"}}
        self._tell(css_class, data, in_subshell=in_subshell)

    def change(self, css_class: str, **state: object) -> None:
        """Change the widget of this class as somebody does who drags it."""
        self._tell(css_class, {"method": "update", "state": state, "buffer_paths": []})

    def _tell(self, css_class: str, data: dict[str, object], *, in_subshell: bool = False) -> None:
        """Send a message to the widget of this class, once it can be seen."""
        self.until(lambda front_end: front_end.is_live and front_end.has(css_class))
        content = {"comm_id": self.front_end.widget(css_class), "data": data}
        message = self._client.session.msg("comm_msg", content)
        if in_subshell:
            message["header"]["subshell_id"] = self._subshell or self._create_subshell()
        self._client.shell_channel.send(message)

    def until(self, shown: Callable[[FrontEnd], bool], timeout: float = 10.0) -> None:
        """Take in messages until the front end shows this."""
        deadline = time.monotonic() + timeout
        while not shown(self.front_end):
            try:
                self._take(deadline)
            except TimeoutError:
                raise AssertionError(f"never shown; there is {self.front_end}") from None

    def _create_subshell(self) -> str:
        """Ask for a subshell, and keep it for the next click."""
        request = self._client.session.msg("create_subshell_request")
        self._client.control_channel.send(request)
        reply = self._get(self._client.get_control_msg, time.monotonic() + 20)
        self._subshell = reply["content"]["subshell_id"]
        return self._subshell

    def _take(self, deadline: float) -> bool:
        """Take in one message of the cell; True when it says that the cell has ended."""
        message = self._get(self._client.get_iopub_msg, deadline)
        self.front_end.take(message["msg_type"], message["content"])
        if message["parent_header"].get("msg_id") != self._cell:
            return False
        kind, content, ran = message["msg_type"], message["content"], self._ran
        if kind == "stream":
            setattr(ran, content["name"], getattr(ran, content["name"]) + content["text"])
        elif kind == "execute_result":
            ran.value = content["data"]["text/plain"]
            ran.displays.append(content["data"])
        elif kind in ("display_data", "update_display_data"):
            ran.displays.append(content["data"])
        elif kind == "error":
            ran.error, ran.message = content["ename"], content["evalue"]
            ran.traceback = content["traceback"]
        return kind == "status" and content["execution_state"] == "idle"

    @staticmethod
    def _get(channel: Any, deadline: float) -> dict[str, Any]:
        """Return the next message of a channel."""
        try:
            return channel(timeout=max(deadline - time.monotonic(), 0.0))
        except queue.Empty:
            raise TimeoutError("the kernel did not answer in time") from None


@contextlib.contextmanager
def running_kernel(path: Path | None = None) -> Iterator[Kernel]:
    """
    Start a kernel, and shut it down at the end; `path` is where it finds packages first.

        @pytest.fixture(scope="module")
        def kernel():
            with running_kernel() as kernel:
                yield kernel
    """
    kernel = Kernel(path)
    try:
        yield kernel
    finally:
        kernel.close()
