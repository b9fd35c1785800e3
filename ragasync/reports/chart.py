"""
What happened when, as bars of HTML.

Not as SVG, though that would be drawn more freely: a notebook that is not trusted loses every
picture, and a result that somebody sends along is looked at in just such a one. A bar is a single
element whose parts are the padding and the borders, so that all of them stay a few kilobytes, and
are as high on pages where a height would count the borders in.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from ragasync.outcomes.outcome import FAILED
from ragasync.reports.elements import COLOURS, QUIET, element
from ragasync.reports.spans import BACKOFF, LIMITER, STATE_COLOURS, WORK
from ragasync.reports.summary import duration, per_second
from ragasync.reports.timeline import Timeline

ENDS_HEIGHT, CALLS_HEIGHT = 44, 32

SMALL = "font-size:11px"
FRAME = (
    "display:flex;align-items:flex-end;height:{}px;margin-top:10px;border-bottom:1px solid #9a9a9a;"
    f"color:{STATE_COLOURS[WORK]}"  # what a border without a colour of its own takes
)
JOINED = 2
"""How many stretches share a bar of calls, which vary less than ends do."""


def chart(timeline: Timeline | None) -> str:
    """
    Return when items ended and what calls did meanwhile, one above the other; or nothing.

    Args:
        timeline: what is known of it, or None where no time is.
    """
    if timeline is None or not timeline.peak:
        return ""
    return _ends(timeline) + _calls(timeline)


def _ends(timeline: Timeline) -> str:
    """Return when items ended, failures on top, with a line of text below."""
    scale = ENDS_HEIGHT / timeline.peak
    bars = (
        _end_bar(done * scale, failed * scale)
        for done, failed in zip(timeline.done, timeline.failed, strict=True)
    )
    runs = f", {timeline.runs} runs end to end" if timeline.runs > 1 else ""
    peak = f"items ended over time{runs}, at most {per_second(timeline.peak_rate)} a second"
    labels = ("0 s", peak, duration(timeline.seconds))
    return element("div", f"{FRAME.format(ENDS_HEIGHT + 2)};gap:1px", *bars) + element(
        "div",
        f"display:flex;justify-content:space-between;{SMALL};{QUIET}",
        *(element("span", "", label) for label in labels),
    )


def _end_bar(done: float, failed: float) -> str:
    """Return one stretch's bar; a single failure among many successes stays visible."""
    style = "flex:1"
    if done:
        style += f";border-bottom:{max(1, round(done))}px solid"
    if failed:
        style += f";border-top:{max(2, round(failed))}px solid {COLOURS[FAILED]}"
    return element("div", style)


def _calls(timeline: Timeline) -> str:
    """Return what calls did: in calls below, then at the rate limit, then in back-off."""
    if not timeline.most_at_once:
        return ""
    bars = (_call_bar(*parts, len(list(alike))) for parts, alike in groupby(_heights(timeline)))
    means = {state: sum(calls) / len(calls) for state, calls in timeline.calls.items()}
    legend = (
        f"{element('span', f'color:{STATE_COLOURS[state]}', '■')} "
        f"{element('span', QUIET, f'{_number(mean)} {timeline.names[state]}')}"
        for state, mean in means.items()
        if mean
    )
    words = (element("span", QUIET, f"{timeline.noun} at once, on average:"), *legend)
    return element("div", FRAME.format(CALLS_HEIGHT), *bars) + element(
        "div", SMALL, *(element("span", "margin-right:10px", word) for word in words)
    )


def _heights(timeline: Timeline) -> Iterator[tuple[int, int, int]]:
    """Yield the heights of the parts of each bar of calls."""
    scale = CALLS_HEIGHT / timeline.most_at_once / JOINED
    parts = list(zip(*(timeline.calls[s] for s in (WORK, LIMITER, BACKOFF)), strict=True))
    for first in range(0, len(parts), JOINED):
        work, limiter, backoff = map(sum, zip(*parts[first : first + JOINED], strict=True))
        yield round(work * scale), round(limiter * scale), round(backoff * scale)


def _call_bar(work: int, limiter: int, backoff: int, stretches: int) -> str:
    """Return the bar of neighbouring stretches that look alike."""
    style = f"flex:{stretches}"
    if limiter:
        style += f";padding-top:{limiter}px;background:{STATE_COLOURS[LIMITER]}"
    if work:
        style += f";border-bottom:{work}px solid"
    if backoff:
        style += f";border-top:{backoff}px solid {STATE_COLOURS[BACKOFF]}"
    return element("div", style)


def _number(mean: float) -> str:
    """Return an average to be read."""
    return f"{mean:,.0f}" if mean >= 99.5 else "under 0.01" if mean < 0.01 else f"{mean:.2g}"
