"""Views of single objects: a line of text and an HTML table, bounded, escaped, without secrets."""

import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import pytest

from ragasync import AsyncBatchProcessor, AsyncRetry, Journal, Outcome, RateLimiter
from ragasync.documents import Chunk, Document, Hit, MemoryStore, Source, SqliteStore
from ragasync.simulation import ScriptedService

LINE, PAGE = 1_500, 12_000
"""The most characters of a repr, and of a view in HTML."""

TEXT = "<script>alert('&')</script> " + "x" * 50_000_000
KEY = "sk-proj-" + "a1B2c3D4e5" * 4


class Hostile:
    """An object that nothing can be asked."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __getattr__(self, name: str) -> object:
        raise KeyError(name)


class Verbose:
    """An object whose repr fills a screen."""

    def __repr__(self) -> str:
        return "<b>\n" * 100_000


def failed(item: object) -> Outcome[object, object]:
    """The outcome of an item whose call failed."""

    def call(_: object) -> None:
        raise ValueError("<b>bad</b> " * 10_000)

    return AsyncBatchProcessor(call, retry_count=0).process_sync([item])[0]


def big_metadata() -> dict[str, object]:
    """Metadata of 10,000 entries."""
    return {f"<key {n}>": [n] * 1_000 for n in range(10_000)}


VIEWS: dict[str, Callable[[], object]] = {
    "outcome of a text": lambda: Outcome(0, TEXT, "done", value=TEXT, attempts=1, seconds=1.5),
    "outcome of bytes": lambda: Outcome(0, bytes(50_000_000), "done", value=bytearray(10**7)),
    "outcome of a list": lambda: Outcome(0, list(range(10**6)), "done", value=[TEXT] * 3),
    "outcome of a nest": lambda: Outcome(0, {"a": [{"b": ({"c": [{"d": TEXT}]},)}]}, "done"),
    "outcome of hostile objects": lambda: Outcome(0, Hostile(), "done", value=[Hostile()]),
    "outcome of long reprs": lambda: Outcome(0, Verbose(), "done", value={"a": Verbose()}),
    "outcome that failed": lambda: failed("<i>item</i>"),
    "document": lambda: Document("guide", TEXT, big_metadata(), source="<a>"),
    "document with a long id": lambda: Document("i" * 10_000, "text"),
    "chunk": lambda: Chunk(TEXT, 0, len(TEXT), big_metadata()),
    "hit": lambda: Hit("guide", "a", TEXT, 0, 9, 0.5, big_metadata()),
    "source": lambda: Source("guide.md", Path("<b>guide.md")),
    "limiter": lambda: RateLimiter(20, 5),
    "retry": lambda: AsyncRetry(retry_on=(OSError, ValueError), on_retry=print),
    "progress": lambda: AsyncBatchProcessor(str).start(range(3)).progress,
    "memory store": MemoryStore,
}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let paths be short."""
    monkeypatch.chdir(tmp_path)


def html_of(shown: object) -> str:
    """The HTML that a notebook gets."""
    html = shown._repr_html_()  # type: ignore[attr-defined]
    assert isinstance(html, str)
    return html


@pytest.mark.parametrize("name", VIEWS)
def test_views_are_one_line_and_one_small_table(name: str):
    """However much an object holds, its views are small, and made without a copy of it."""
    shown = VIEWS[name]()
    tracemalloc.start()
    try:
        line, html = repr(shown), html_of(shown)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "\n" not in line
    assert len(line) <= LINE
    assert len(html) <= PAGE
    assert peak < 4_000_000
    assert "<table" in html


@pytest.mark.parametrize("name", VIEWS)
def test_views_escape_everything_and_take_their_colors_from_the_page(name: str):
    """There are no tags except ours, and no color that one theme would hide."""
    html = html_of(VIEWS[name]())
    assert {tag.lower() for tag in re.findall(r"<\s*(\w+)", html)} <= {
        *("div", "span", "table", "tr", "th", "td", "pre")
    }
    colors = set(re.findall(r"color:([^;\"]+)", html))
    assert colors <= {"var(--jp-content-font-color1,inherit)", "inherit"}


def test_the_views_of_a_journal_and_of_a_store_file_say_what_they_hold():
    """Their state is read from the file."""
    with SqliteStore("kb.sqlite") as store:
        assert "0 documents" in html_of(store)
        assert "search(text)" in html_of(store)
    journal = Journal("run.sqlite", name="nightly")
    AsyncBatchProcessor(str, journal=journal).process_sync(range(3))
    assert "nightly" in html_of(journal)
    assert "3" in html_of(journal)


def test_an_outcome_shows_its_error_and_its_traceback():
    """The traceback is in a box of its own, cut to a few kilobytes."""
    html = html_of(failed("item"))
    assert "ValueError: &lt;b&gt;bad" in html
    assert "raise ValueError" in html


def test_secrets_are_masked_in_views_of_items_and_texts():
    """A key in an item, in a value, in metadata or in a text is not shown."""
    for shown in (
        Outcome(0, {"api_key": KEY}, "done", value=[KEY]),
        Document("guide", f"use {KEY}", {"key": KEY}),
        Chunk(f"use {KEY}", 0, 10, MappingProxyType({"key": KEY})),
    ):
        assert KEY not in html_of(shown)


def test_long_containers_say_how_much_is_left_out():
    """The number is that of the whole container or text."""
    assert "(999,947 more)" in repr(Outcome(0, list(range(10**6)), "done"))
    words = repr(Outcome(0, "word " * 1_000, "done"))
    assert "(4,800 more characters)" in words
    assert "more bytes" in repr(Outcome(0, bytes(1_000), "done"))


def test_progress_is_one_line():
    """The most important numbers come first."""
    job = AsyncBatchProcessor(str).start(range(3))
    job.wait()
    assert repr(job.progress).startswith("<Progress 3 of 3, 0 failed, 0 in flight, ")


def test_completion_in_the_packages_offers_public_names_only():
    """Tab after `ragasync.documents.` shows what is meant for users."""
    import ragasync.documents
    import ragasync.journal
    import ragasync.notebook
    import ragasync.plots
    import ragasync.redis
    import ragasync.simulation
    import ragasync.testing

    for module in (
        ragasync.documents,
        ragasync.journal,
        ragasync.notebook,
        ragasync.plots,
        ragasync.redis,
        ragasync.simulation,
        ragasync.testing,
    ):
        assert set(dir(module)) == set(module.__all__)


def test_views_of_other_objects_stay_reprs():
    """What has no table of its own has one line."""
    assert "\n" not in repr(ScriptedService())
