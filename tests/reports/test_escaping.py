"""Whatever users, services and files are called, HTML has our own tags and nobody else's."""

from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ragasync.notebook.panel_view import JobView, static_bundle
from ragasync.notebook.progress import ProgressState, bar_html
from ragasync.progress import Progress
from ragasync.reports.error_groups import LiveErrorGroups
from ragasync.reports.summary import one_line
from ragasync.result import BatchResult
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
"""What has broken out of pages, terminals and formulas."""

TEXTS = st.lists(st.sampled_from(NASTY) | st.text(max_size=10), min_size=1, max_size=6).map("".join)
LONG = "<script>" * 12_500


class Page(HTMLParser):
    """What a browser would see of a fragment: its tags, their attributes, and its words."""

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
        """Note a tag that opens."""
        self.tags.append(tag)
        self.open.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        """Match a tag that closes."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note words."""
        self.text += data

    def _something_else(self, _: str) -> None:
        """Note a comment, a declaration or the like."""
        self.other += 1

    handle_comment = handle_decl = handle_pi = unknown_decl = _something_else


def check(html: str, like: str, *said: str) -> None:
    """Check that a page has the tags of one without anything nasty, and says all words."""
    page, plain = Page(html), Page(like)
    assert page.tags == plain.tags
    assert set(page.tags) <= OUR_TAGS
    assert page.attributes <= {"style"}
    assert (page.open, page.other) == ([], 0)
    html.encode()  # a notebook is saved as UTF-8
    for words in said:
        assert words in page.text


def named(name: str, message: str) -> Exception:
    """Return an error whose class and message have these words."""
    return type("Error", (Exception,), {"__qualname__": name})(message)


def result(words: str, name: str) -> BatchResult[Any]:
    """Return a result with these words wherever anything of the user's can be."""
    return result_of(
        [
            done(0, item=words, value=words, started=0.0, seconds=1.0),
            failed(1, named(name, words), item=words, started=1.0, seconds=1.0, stage=words),
            pending(2),
        ],
        seconds=2.0,
        stopped_because=words,
    )


def showing(words: str) -> JobView:
    """Return what a panel shows of a job that stopped because of these words."""
    progress = Progress(1, 1, 3, 0, 0, 1.0, None, "rate", 4, 2.0)
    return JobView(
        ended=True,
        because=words,
        cancelled=False,
        paused=False,
        progress=progress,
        max_concurrency=4,
        rate=None,
        speed=1.0,
        final_status=b"\1\2\0",
    )


def panel(words: str, name: str) -> dict[str, object]:
    """Return the bundle of such a job's panel."""
    failures = LiveErrorGroups(result(words, name).columns)
    failures.update()
    return static_bundle(showing(words), failures)


@settings(max_examples=150, deadline=None)
@given(TEXTS, TEXTS)
@example(LONG, LONG)
def test_a_result_shows_words_as_words(words: str, name: str):
    """Items, values, messages, names of classes and stages, and why it stopped."""
    like = result("x", "x")._repr_html_()
    shown = one_line(name.rpartition("<locals>.")[2]), one_line("x" + words)
    check(result("x" + words, name)._repr_html_(), like, *shown)


@settings(max_examples=150, deadline=None)
@given(TEXTS, TEXTS)
@example(LONG, LONG)
def test_a_panel_shows_words_as_words(words: str, name: str):
    """In HTML and in text alike."""
    bundle = panel("x" + words, name)
    shown = one_line("x" + words), one_line(name.rpartition("<locals>.")[2])
    check(str(bundle["text/html"]), str(panel("x", "x")["text/html"]), *shown)
    for line in shown:
        assert line in str(bundle["text/plain"])
    assert all(sign == "\n" or sign.isprintable() for sign in str(bundle["text/plain"]))


@settings(max_examples=150, deadline=None)
@given(TEXTS)
@example(LONG)
def test_a_bar_shows_its_description_as_words(words: str):
    """The live one and the still one are the same HTML."""
    reading = ProgressState(1, 3, 1.0, 1)
    check(bar_html("x" + words, reading), bar_html("x", reading), one_line("x" + words))


@settings(max_examples=100, deadline=None)
@given(TEXTS, TEXTS)
@example(LONG, LONG)
def test_texts_for_terminals_have_no_signs_that_steer_them(words: str, name: str):
    """Nor what cannot be written as UTF-8."""
    it = result(words, name)
    for text in (repr(it), str(it.summary()), str(it.explain())):
        assert all(sign == "\n" or sign.isprintable() for sign in text)
        text.encode()


def test_the_check_finds_what_it_is_for():
    """Tags and attributes that are not ours."""
    with pytest.raises(AssertionError):
        check("<div><b>x</b></div>", "<div>x</div>")
    with pytest.raises(AssertionError):
        check("<div title='x'>x</div>", "<div>x</div>")
