"""A real JupyterLab in a real browser for tests: open a notebook, run cells, click, and look."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.notebook_files import new_notebook, read_notebook, write_notebook
from tests.support.requirements import needs

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
needs("playwright", "jupyterlab", *([] if BROWSER else ["chromium"]))

from playwright.sync_api import Locator, Page, Response, expect, sync_playwright  # noqa: E402

if TYPE_CHECKING:
    from nbformat import NotebookNode

PATIENCE = 30.0
"""Seconds to wait for what a page is to show: a kernel may take some of them to start."""

expect.set_options(timeout=PATIENCE * 1000)

QUIET_BROWSER = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

QUIET_SERVER = (
    "--no-browser",
    "--allow-root",
    "--IdentityProvider.token=",
    "--ServerApp.password=",
    "--ServerApp.disable_check_xsrf=True",
    "--LabApp.expose_app_in_browser=True",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.extension_manager=readonly",
)

# Opened through the application, for a page of its own for each notebook takes seven seconds.
OPEN = """async path => {
    const notebook = await window.jupyterapp.commands.execute('docmanager:open', {path});
    window.jupyterapp.shell.activateById(notebook.id);
    await notebook.context.ready;
    await notebook.sessionContext.ready;
    await notebook.sessionContext.session.kernel.info;
}"""

# A kernel takes a second to end, which nobody has to wait for.
CLOSE = """async () => {
    for (const each of [...window.jupyterapp.shell.widgets('main')]) {
        each.sessionContext?.shutdown().catch(() => null);
        each.dispose();
    }
}"""


IN_FRONT = ".jp-NotebookPanel:not(.lm-mod-hidden)"
"""The notebook in front: a reloaded page may open earlier ones behind it."""


class Notebook:
    """The notebook that is open; its cells are counted from 0."""

    def __init__(self, page: Page, path: Path) -> None:
        self.page, self.path = page, path
        self.reloaded = False
        self._open()

    def cell(self, index: int) -> Locator:
        """Return a cell with its output."""
        return self.page.locator(f"{IN_FRONT} .jp-CodeCell").nth(index)

    def output(self, index: int) -> Locator:
        """Return the output of a cell."""
        return self.cell(index).locator(".jp-Cell-outputArea")

    def text(self, index: int) -> str:
        """The text of a cell's output."""
        parts = self.output(index).locator(".jp-OutputArea-output")
        return "\n".join(parts.all_inner_texts()).strip()

    def start(self, index: int) -> None:
        """Run a cell, and do not wait for its end."""
        prompt = self.prompt(index)
        before = prompt.inner_text()
        self.cell(index).locator(".cm-line").first.click()
        self.page.keyboard.press("Control+Enter")
        expect(prompt).not_to_have_text(before)

    def finish(self, index: int, seconds: float = PATIENCE) -> str:
        """Wait until a cell that was started has ended, and return what its output says."""
        expect(self.prompt(index)).to_have_text(re.compile(r"\[\d+\]:"), timeout=seconds * 1000)
        return self.text(index)

    def run(self, index: int) -> str:
        """Run a cell to its end and return what its output says."""
        self.start(index)
        return self.finish(index)

    def stop(self, index: int) -> None:
        """Press the stop button while a cell runs, and wait for the end of the cell."""
        self._tool("notebook:interrupt-kernel").click()
        self.finish(index, seconds=15)

    def save(self) -> NotebookNode:
        """Save it, and return what the file has then."""
        with self.page.expect_response(_is_saving):
            self._tool("docmanager:save").click()
        return read_notebook(self.path)

    def reload(self) -> None:
        """Load the page again, as it is saved."""
        self.reloaded = True
        _load(self.page, self.page.url)
        self._open()

    def prompt(self, index: int) -> Locator:
        """The prompt of a cell: `[ ]:`, while it runs `[*]:`, then `[1]:`."""
        return self.cell(index).locator(".jp-InputArea-prompt")

    def _open(self) -> None:
        """Open it, and wait until it can be seen."""
        self.page.evaluate(OPEN, self.path.name)
        expect(self.cell(0)).to_be_visible()

    def _tool(self, command: str) -> Locator:
        """Return a button of the notebook's toolbar."""
        return self.page.locator(f'{IN_FRONT} [data-command="{command}"]')


class Lab:
    """A JupyterLab server in a folder of its own, and a page of a browser that shows it."""

    def __init__(self, folder: Path, url: str, page: Page) -> None:
        self.folder, self.url, self.page = folder, url, page
        self._count = 0
        page.on("dialog", lambda dialog: dialog.accept())  # "leave without saving?"
        _load(page, f"{url}lab")

    def notebook(self, *cells: str) -> contextlib.AbstractContextManager[Notebook]:
        """Open a new notebook of these cells, and close it at the end, with its kernel."""
        made = new_notebook(*cells)
        made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
        return self.opened(made)

    @contextlib.contextmanager
    def opened(self, content: NotebookNode) -> Iterator[Notebook]:
        """Open a notebook from elsewhere: outputs that it has are not trusted."""
        self._count += 1
        path = self.folder / f"notebook-{self._count}.ipynb"
        write_notebook(content, path)
        notebook = Notebook(self.page, path)
        try:
            yield notebook
        finally:
            self.page.evaluate(CLOSE)
            if notebook.reloaded:  # or the page opens again what was open before
                _load(self.page, f"{self.url}lab?reset")

    def end_kernels(self) -> None:
        """End all kernels, with all that they know."""
        for kernel in self._ask("GET", "api/kernels"):
            self._ask("DELETE", f"api/kernels/{kernel['id']}")

    def use_theme(self, theme: str) -> None:
        """Show everything in another theme, such as `JupyterLab Dark`."""
        self.page.evaluate(
            "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme
        )
        self.page.locator(f'body[data-jp-theme-name="{theme}"]').wait_for(state="attached")

    def _ask(self, method: str, path: str) -> Any:
        """Ask the server's REST interface."""
        request = urllib.request.Request(self.url + path, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return json.loads(response.read() or "null")


@contextlib.contextmanager
def running_lab() -> Iterator[Lab]:
    """
    Start a server and a browser, and end both.

        @pytest.fixture(scope="module")
        def lab():
            with running_lab() as lab:
                yield lab
    """
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        _running_server(Path(folder)) as url,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=BROWSER, args=QUIET_BROWSER) as browser,
    ):
        page = browser.new_page(viewport={"width": 1000, "height": 800}, device_scale_factor=2)
        page.set_default_timeout(PATIENCE * 1000)
        yield Lab(Path(folder), url, page)


def _load(page: Page, url: str) -> None:
    """Load JupyterLab and wait until it can be used."""
    page.goto(url)
    page.wait_for_function("window.jupyterapp")
    page.evaluate("window.jupyterapp.restored.then(() => null)")


def _is_saving(response: Response) -> bool:
    """Tell whether this is the server's answer to a notebook that was sent to be saved."""
    return response.request.method == "PUT" and "/api/contents/" in response.url


@contextlib.contextmanager
def _running_server(folder: Path) -> Iterator[str]:
    """Start a server that leaves nothing outside of this folder, and yield its address."""
    settings = {
        "apputils-extension/notification": '{"fetchNews": "false"}',
        # A cell that is not drawn yet cannot be clicked.
        "notebook-extension/tracker": '{"windowingMode": "none"}',
    }
    for name, setting in settings.items():
        file = folder / f".user_settings/@jupyterlab/{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(setting)
    places = {
        name: str(folder / f".{name.lower()}")
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    }
    command = [sys.executable, "-m", "jupyterlab", *QUIET_SERVER, f"--ServerApp.root_dir={folder}"]
    command += [f"--LabApp.{kind}_dir={folder}/.{kind}" for kind in ("user_settings", "workspaces")]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env=os.environ | places, stdout=log, stderr=log)
    try:
        yield _address(server, folder)
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(20)
        server.kill()
        server.wait()


def _address(server: subprocess.Popen[bytes], folder: Path) -> str:
    """Wait until the server answers, and return its address."""
    deadline = time.monotonic() + 60
    facts = folder / f".jupyter_runtime_dir/jpserver-{server.pid}.json"
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError, ValueError):
            url = json.loads(facts.read_text(encoding="utf-8"))["url"]
            urllib.request.urlopen(f"{url}api", timeout=5).close()
            return str(url)
        time.sleep(0.1)
    log = (folder / "server.log").read_text(encoding="utf-8", errors="replace")
    raise RuntimeError(f"JupyterLab did not start:\n{log}")
