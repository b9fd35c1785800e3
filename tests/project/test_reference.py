"""The API reference: it builds without a warning, and shows the public names only."""

import re
import sys
from pathlib import Path
from subprocess import run

import pytest

from tests.reference.public import PAGES, docstring_of, names_of
from tests.support.requirements import needs_in_step

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.real_time


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the reference with warnings as errors, and return its folder."""
    needs_in_step("rules", "pdoc")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-W", "error", "tests/reference/reference.py", str(folder)]
    ran = run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    return folder


def test_every_public_name_is_on_its_page(site: Path):
    """Lazily loaded names, too; and values with the docstring below them."""
    missing = [
        (module, name)
        for module in PAGES
        for name in names_of(module)
        if (name not in _shown(site, module)) or not docstring_of(module, name)
    ]
    assert missing == []


def test_a_class_is_shown_with_what_it_inherits_from_us(site: Path):
    """A reader finds `process_sync` at its class, whichever file defines it."""
    assert "AsyncDocumentProcessor.process_sync" in _shown(site, "ragasync")
    assert "MemoryStore.search" in _shown(site, "ragasync.documents")


@pytest.mark.parametrize("module", PAGES)
def test_nothing_private_is_shown(site: Path, module: str):
    """Neither names that begin with an underscore, nor arguments, nor paths of this machine."""
    private = [name for name in _shown(site, module) if re.search(r"(^|\.)_(?!_init__)", name)]
    assert private == []
    page = _page(site, module)
    assert re.findall(r'class="param">\s*<span class="n">_\w+', page) == []
    assert str(ROOT) not in page
    assert " at 0x" not in page
    assert "explains_arguments" not in page


def test_the_start_page_links_to_every_module_and_says_what_there_is(site: Path):
    """It is a page to read, which does not redirect to a module."""
    page = (site / "index.html").read_text(encoding="utf-8")
    assert 'http-equiv="refresh"' not in page
    assert "AsyncBatchProcessor" in page
    linked = [name for name in PAGES if f'href="{name.replace(".", "/")}.html"' in page]
    assert linked == list(PAGES)


def _shown(site: Path, module: str) -> set[str]:
    """Return the names with a heading on a page."""
    return set(re.findall(r'id="([\w.]+)"', _page(site, module)))


def _page(site: Path, module: str) -> str:
    """Return the HTML of a module's page."""
    return (site / f"{module.replace('.', '/')}.html").read_text(encoding="utf-8")
