"""The HTML of a result: the same facts as its text, escaped, bounded, self-contained."""

import re
from html import unescape
from html.parser import HTMLParser

import pytest

from ragasync import BatchResult, Outcome

# Internals: results with exact times and states, which no run produces on demand.
from ragasync._outcomes.columns import Columns
from ragasync._outcomes.outcome import DONE, FAILED
from ragasync._reports.timeline import build_timeline
from tests.support.results import done, failed, pending, result_of

HOSTILE = "<script>alert('x')</script><img src=x onerror=\"y\">&amp;"


class Balance(HTMLParser):
    """Reads HTML and records its tags, attributes and open elements."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag, attrs):
        """Record an opening tag."""
        self.open.append(tag)
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag):
        """Match a closing tag."""
        assert self.open.pop() == tag


def read(html: str) -> Balance:
    """Parse HTML."""
    parser = Balance()
    parser.feed(html)
    parser.close()
    return parser


def text_of(html: str) -> str:
    """The text of HTML, with single spaces."""
    return " ".join(unescape(re.sub("<[^>]*>", " ", html)).split())


def mixed() -> BatchResult[int]:
    """A result with an item of each status and three kinds of errors."""
    return result_of(
        [
            done(0, started=0.0, seconds=1.0, attempts=2, backed_off=0.5, waited=0.25),
            *(failed(n, ValueError(f"item {n} is bad"), started=2.0) for n in range(1, 1200)),
            failed(1200, KeyError("k"), started=3.0),
            failed(1201, TimeoutError(), started=3.5),
            Outcome(1202, None, "cancelled", attempts=1, started=3.9),
            pending(1203),
        ],
        seconds=4.0,
        stopped_because="it was cancelled",
    )


def test_html_states_the_same_facts_as_the_summary():
    """Every number and every example of the summary is in the HTML."""
    result = mixed()
    html, summary = text_of(result._repr_html_()), result.summary()
    for line in summary.splitlines():
        for number in re.findall(r"[\d,.]*\d", line):
            assert re.search(rf"(?<![\d,.]){re.escape(number)}(?![\d])", html), line
    title, *_ = summary.splitlines()
    assert title in html
    assert "1,199 × ValueError : item 1 is bad (item 1)" in html


@pytest.mark.parametrize("place", ["message", "type", "reason"])
def test_every_value_is_escaped(place):
    """Foreign text creates no element and no attribute."""
    kind = type(HOSTILE, (Exception,), {}) if place == "type" else ValueError
    error = kind(HOSTILE if place == "message" else "no")
    reason = HOSTILE if place == "reason" else None
    html = result_of([failed(0, error, item=HOSTILE)], stopped_because=reason)._repr_html_()
    parsed = read(html)
    assert parsed.tags == {"div", "span"}
    assert parsed.attributes == {"style"}
    assert HOSTILE in unescape(html)


def test_html_needs_no_style_sheet_no_script_and_no_image():
    """A notebook that is not trusted keeps all of it; every element is closed."""
    parsed = read(mixed()._repr_html_())
    assert parsed.tags == {"div", "span"}
    assert parsed.attributes == {"style"}
    assert parsed.open == []


def test_text_takes_the_color_of_the_notebook_or_of_its_surroundings():
    """Readable on dark and light, with JupyterLab's variables and without."""
    assert "color:var(--jp-content-font-color1,inherit)" in mixed()._repr_html_()


def test_a_million_items_make_no_more_html_than_a_few():
    """Under ten kilobytes, with failures in every bin."""
    n = 1_000_000
    columns: Columns[int, None] = Columns(items=range(n))
    columns.status[:] = bytes([DONE]) * n
    for row in range(0, n, 500):
        columns.started[row] = row / 1000
        columns.seconds[row] = 1.0
        columns.status[row] = FAILED
        columns.errors[row] = ValueError(f"{row} " + "long " * 1000)
    for row in range(1, n, 100):
        columns.started[row] = row / 1000
    html = BatchResult.of(columns, seconds=1001.0)._repr_html_()
    assert html.count("border-top:") == 60
    assert len(html) < 10_000


@pytest.mark.parametrize(
    "result", [BatchResult([], [], 0, 0), BatchResult([1], [None], 1, 0), result_of([pending(0)])]
)
def test_a_result_without_times_has_no_chart(result):
    """But it is valid HTML."""
    html = result._repr_html_()
    assert read(html).open == []
    assert "items ended" not in html
    assert result.summary().splitlines()[0] in text_of(html)


def test_the_timeline_counts_ends_in_equal_bins():
    """Done and failed separately; back-off counts."""
    result = result_of(
        [
            done(0, started=0.0, seconds=0.5),
            done(1, started=0.0, seconds=1.0, attempts=2, backed_off=1.5),
            failed(2, ValueError(), started=3.0, seconds=1.0),
            pending(3),
        ],
        seconds=4.0,
    )
    timeline = build_timeline(result, 4)
    assert timeline is not None
    assert (timeline.done, timeline.failed) == ([1, 0, 1, 0], [0, 0, 0, 1])
    assert (timeline.seconds, timeline.peak, timeline.peak_rate) == (4.0, 1, 1.0)


def test_the_timeline_spans_all_times():
    """Also an end after the makespan, as in merged runs."""
    timeline = build_timeline(result_of([done(0, started=0.0, seconds=8.0)], seconds=4.0), 2)
    assert timeline is not None
    assert (timeline.seconds, timeline.done) == (8.0, [0, 1])
