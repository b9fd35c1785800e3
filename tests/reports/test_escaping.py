"""Escaping: no text of users, services or files creates a tag in our HTML."""

from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ragasync import BatchResult, Progress

# Internals: one text or figure, without the run that leads to it.
from ragasync._reports.error_groups import LiveErrorGroups
from ragasync._reports.summary import one_line
from ragasync.notebook.panel_view import ConcurrencySetting, JobView, static_bundle
from ragasync.notebook.progress_bars import ProgressState, bar_html
from tests.support.results import done, failed, pending, result_of

OUR_TAGS = {"div", "span", "details", "summary"}

NASTY = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</style><style>*{display:none}",
    "</div></span></details>",
    "\"' onmouseover='alert(1)' x=\"",
    "<!-- ", "--> ", "<![CDATA[", "]]>", "<?php ", "&lt;b&gt;", "&amp;amp;", "&#60;b&#62;", "&",
    "\ud800", "\udfff lone", "\0", "\x1b[31m", "\r\n", "\u2028", "\u202e gnp.exe", "\ufeff",
    "$x^2$", "$\\frac{1}", "javascript:alert(1)", "{x}", "%s", "\\", "`", "'", '"', "<", ">",
]  # fmt: skip
"""Texts that have broken HTML pages, terminals and formulas."""

TEXTS = st.lists(st.sampled_from(NASTY) | st.text(max_size=10), min_size=1, max_size=6).map("".join)
LONG = "<script>" * 12_500


class Page(HTMLParser):
    """The tags, attributes and text of HTML, as a browser sees them."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.text = ""
        self.other = 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        """Record an opening tag."""
        self.tags.append(tag)
        self.open.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        """Match a closing tag."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Record text."""
        self.text += data

    def _count_other(self, _: str) -> None:
        """Count comments, declarations and the like."""
        self.other += 1

    handle_comment = handle_decl = handle_pi = unknown_decl = _count_other


def check(html: str, like: str, *said: str) -> None:
    """Check that HTML has the same tags as with a harmless text, and contains these texts."""
    page, plain = Page(html), Page(like)
    assert page.tags == plain.tags
    assert set(page.tags) <= OUR_TAGS
    assert page.attributes <= {"style"}
    assert (page.open, page.other) == ([], 0)
    html.encode()  # a notebook is saved as UTF-8
    for words in said:
        assert words in page.text


def named(name: str, message: str) -> Exception:
    """An error with this class name and message."""
    return type("Error", (Exception,), {"__qualname__": name})(message)


def result(words: str, name: str) -> BatchResult[Any]:
    """A result with these words wherever a foreign text can be."""
    return result_of(
        [
            done(0, item=words, value=words, started=0.0, seconds=1.0),
            failed(1, named(name, words), item=words, started=1.0, seconds=1.0, stage=words),
            pending(2),
        ],
        seconds=2.0,
        stopped_because=words,
    )


def view(words: str) -> JobView:
    """The view of a job that stopped for this reason."""
    progress = Progress(1, 1, 3, 0, 0, 1.0, None, "rate", 4, 2.0)
    return JobView(
        ended=True,
        because=words,
        cancelled=False,
        paused=False,
        progress=progress,
        concurrency=(ConcurrencySetting(4),),
        rate=None,
        speed=1.0,
        final_status=b"\1\2\0",
    )


def panel(words: str, name: str) -> dict[str, object]:
    """The panel of such a job."""
    errors = LiveErrorGroups(result(words, name).columns)
    errors.update()
    return static_bundle(view(words), errors)


@settings(max_examples=150, deadline=None)
@given(TEXTS, TEXTS)
@example(LONG, LONG)
def test_a_result_shows_foreign_text_as_text(words: str, name: str):
    """Items, values, messages, names of classes and stages, the reason for stopping."""
    like = result("x", "x")._repr_html_()
    shown = one_line(name.rpartition("<locals>.")[2]), one_line("x" + words)
    check(result("x" + words, name)._repr_html_(), like, *shown)


@settings(max_examples=150, deadline=None)
@given(TEXTS, TEXTS)
@example(LONG, LONG)
def test_a_panel_shows_foreign_text_as_text(words: str, name: str):
    """In HTML and in plain text."""
    bundle = panel("x" + words, name)
    shown = one_line("x" + words), one_line(name.rpartition("<locals>.")[2])
    check(str(bundle["text/html"]), str(panel("x", "x")["text/html"]), *shown)
    for line in shown:
        assert line in str(bundle["text/plain"])
    assert all(sign == "\n" or sign.isprintable() for sign in str(bundle["text/plain"]))


@settings(max_examples=150, deadline=None)
@given(TEXTS)
@example(LONG)
def test_a_bar_shows_its_description_as_text(words: str):
    """The widget and the static bar have the same HTML."""
    reading = ProgressState(1, 3, 1.0, 1)
    check(bar_html("x" + words, reading), bar_html("x", reading), one_line("x" + words))


@settings(max_examples=100, deadline=None)
@given(TEXTS, TEXTS)
@example(LONG, LONG)
def test_texts_for_terminals_have_no_control_characters(words: str, name: str):
    """And can be encoded as UTF-8."""
    it = result(words, name)
    for text in (repr(it), str(it.summary()), str(it.explain())):
        assert all(sign == "\n" or sign.isprintable() for sign in text)
        text.encode()


def test_the_check_itself_finds_foreign_tags():
    """And foreign attributes."""
    with pytest.raises(AssertionError):
        check("<div><b>x</b></div>", "<div>x</div>")
    with pytest.raises(AssertionError):
        check("<div title='x'>x</div>", "<div>x</div>")
