"""The stages of a pipeline: in the panel of a running job and in the timeline of a result."""

import asyncio
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ragasync import AsyncBatchProcessor, RateLimiter, plot_timeline

# Internals: results with exact times and states, which no run produces on demand.
from ragasync._outcomes.activity import Utilization
from ragasync._outcomes.stats import RunStats, StageStats
from ragasync._reports.error_groups import LiveErrorGroups
from ragasync._reports.summary import cost_text
from ragasync.documents import AsyncDocumentProcessor, Document, MemoryStore
from ragasync.notebook.panel_view import BOTTLENECK_MARK, panel_text, stage_lines, static_bundle
from tests.notebook.test_panel import at
from tests.support.document_tables import MeteredEmbedder, exact, texts
from tests.support.embedders import CountingEmbedder, words
from tests.support.live_panels import Shown, words_of
from tests.support.requirements import needs
from tests.support.results import done, result_of
from tests.support.services import about


async def load(source: str) -> Document:
    """Load in a second; every fifth source fails."""
    await asyncio.sleep(1.0)
    if int(source) % 5 == 4:
        raise OSError("away")
    return Document(source, source)


def started(**settings: Any) -> Any:
    """Start a job of forty sources on this loop: four concurrent loads, one embedding call."""
    settings = {"embed": MeteredEmbedder(2.0), "embed_concurrency": 1, "batch_size": 1} | settings
    processor = AsyncDocumentProcessor(
        load=load, chunk=words, max_concurrency=4, retry_count=0, **settings
    )
    return processor.start(list(map(str, range(40))), on_current_loop=True)


def shown(job: Any) -> list[str]:
    """The panel of a job as lines of text."""
    return panel_text(job._view(), LiveErrorGroups(job._job_run.columns)).splitlines()


# ── the panel ───────────────────────────────────────────────────────────────────────────────


async def test_a_running_job_shows_one_line_per_stage():
    """Calls in flight, items that left it, recent utilization; the bottleneck is marked."""
    job = started()
    await at(8.5)
    lines = shown(job)
    usage = "tokens 40 · cost 0.40 of about 2.40"
    assert lines[1] == f"3 done · 2 failed · 0 retried · {usage} · 6 in flight"
    assert [re.split(r"\s{2,}", line.strip()) for line in lines[2:5]] == [
        ["load", "1 of 4 in flight", "10 documents", "14% busy"],
        ["chunk", "0 of 4 in flight", "8 documents", "0% busy"],
        [f"{BOTTLENECK_MARK} embed", "1 of 1 in flight", "3 chunks", "100% busy"],
    ]
    assert lines[5] == "limited by embed: its calls are in progress 100% of the time"
    assert "busy: load 14%, chunk 0%, embed 100%" in repr(job)
    job.cancel()
    await job


async def test_html_and_text_show_the_same_facts_of_stages():
    """While the job runs, and after its end."""
    job = started()
    await at(8.5)
    for _ in range(2):
        bundle = static_bundle(job._view(), LiveErrorGroups(job._job_run.columns))
        text = words_of(str(bundle["text/html"]))
        for line in stage_lines(job._view()):
            assert " ".join((line.name, *line.facts)) in text
            assert all(fact in str(bundle["text/plain"]) for fact in line.facts)
        await job
    assert "embed 1 concurrent 32 chunks 98% busy" in text


async def test_a_stage_that_waits_for_its_limiter_differs_from_a_busy_one():
    """Its waiting calls are shown next to those in flight."""
    limiter = RateLimiter(0.5, burst_size=1)
    job = started(embed=CountingEmbedder(0.5), embed_concurrency=3, rate_limiter=limiter)
    await at(15.2)
    lines = shown(job)
    assert re.split(r"\s{2,}", lines[4])[1] == "1 of 3, 2 waiting"
    assert lines[5] == "limited by embed: its calls wait for the rate limit"
    job.cancel()
    await job


async def test_a_long_first_call_counts_while_it_is_in_progress():
    """The bottleneck is shown before the call ends."""
    job = started(embed=CountingEmbedder(600.0))
    await at(60.0)
    assert shown(job)[4].startswith(f"{BOTTLENECK_MARK} embed")
    assert "100% busy" in shown(job)[4]
    job.cancel()
    await job


async def test_no_stage_is_the_bottleneck_if_none_is_busy():
    """The panel shows what limits the run, as for any other job."""
    job = started(embed=CountingEmbedder(0.0))
    await at(0.5)
    assert "its calls" not in "\n".join(shown(job))
    assert f"limited by {job.progress.limited_by}" in "\n".join(shown(job))
    job.cancel()
    await job


async def test_another_job_has_no_stages():
    """Neither its repr nor its panel shows any."""

    async def same(item: int) -> int:
        return item

    job = AsyncBatchProcessor(same).start(range(3), on_current_loop=True)
    await job
    assert "busy" not in repr(job)
    assert "busy" not in "\n".join(shown(job))


async def test_the_name_of_a_stage_is_escaped():
    """It is shown as text, not as HTML."""
    job = started()
    view = replace(job._view(), stages=(StageStats("<b>", 1, 1.0),))
    html = str(static_bundle(view, LiveErrorGroups(job._job_run.columns))["text/html"])
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    job.cancel()
    await job


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (1234.5, "1,234.50"),
        (1, "1.00"),
        (0.25, "0.25"),
        (0.1, "0.10"),
        (0.01234, "0.0123"),
        (1.2e-05, "0.000012"),
        (1e-12, "0.00"),
        (0, "0.00"),
    ],
)
def test_costs_are_written_without_exponents(amount, text):
    """In cents, or with three significant digits below that."""
    assert cost_text(amount) == text


# ── the timeline ────────────────────────────────────────────────────────────────────────────


async def test_a_result_records_when_each_stage_was_busy():
    """Exactly, on the virtual clock: three calls of two seconds, one after the other."""
    processor = exact(embed=CountingEmbedder(2.0), batch_size=1, embed_concurrency=1)
    result = await processor.process(texts("one two three"))
    *_, embed = result.stats.stages
    (busy,) = embed.busy
    ends = int(6.0 / busy.width)
    assert busy.concurrency()[:ends] == about([1.0] * ends)
    assert sum(busy.concurrency()) * busy.width == about(6.0)


async def test_a_timeline_of_documents_has_one_row_per_stage():
    """With its calls and its failures; two merged runs follow each other."""
    needs("matplotlib")
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    job = started()
    first = await job
    axes = plot_timeline(first)
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["load (4)", "chunk (4)", "embed (1)"]
    (marks,) = [line for line in axes.lines if line.get_marker() == "x"]
    assert set(np.asarray(marks.get_ydata())) == {0}
    assert len(np.asarray(marks.get_xdata())) == 8
    whole = first.merge(await started())
    again = plot_timeline(whole)
    assert len(again.patches) == 2 * len(axes.patches) == 6
    edges = [patch.get_data().edges for patch in again.patches]
    assert edges[5][0] == about(first.seconds)
    pyplot.close("all")


def test_a_row_is_as_high_as_the_share_of_calls_in_progress():
    """Half of the calls are half the height; more than the maximum are the full height."""
    needs("matplotlib")
    from matplotlib import pyplot

    stage = StageStats("embed", 2, 3.0, busy=(Utilization(1.0, [0, 0, 0], [1.0, 2.0, 5.0]),))
    outcomes = [done(0, started=0.0, seconds=3.0)]
    result = result_of(outcomes, seconds=3.0, stats=RunStats(1, stages=(stage,)))
    (row,) = plot_timeline(result).patches
    values = np.asarray(row.get_data().baseline - row.get_data().values)
    assert list(values) == pytest.approx([0.4, 0.8, 0.8])
    pyplot.close("all")


# ── advice ────────────────────────────────────────────────────────────────


async def test_no_rate_of_calls_is_advised_if_tokens_are_limited_too():
    """Twice the calls would only wait for tokens."""
    limiters = [RateLimiter(1000.0), RateLimiter(5.0, burst_size=10, weight=len)]
    processor = exact(embed=CountingEmbedder(0.1), rate_limiter=limiters, batch_size=1)
    result = await processor.process(texts(*["four"] * 6) * 4)
    text = " ".join(result.explain().split())
    assert "The rate limit of embed is the bottleneck: a higher one would help" in text
    assert "RateLimiter(" not in text


# ── controls ────────────────────────────────────────────────────────────────────────────────


async def stored(*parts: object) -> None:
    """Store a document in half a second."""
    await asyncio.sleep(0.5)


async def test_each_stage_has_a_slider_and_the_rate_is_that_of_the_embedder(displayed):
    """A drag changes the setting of that stage alone."""
    needs("ipywidgets")
    job = started(embed=CountingEmbedder(0.25), store=stored, store_concurrency=2)
    panel = Shown(job)
    names = ("concurrency", "embed-concurrency", "store-concurrency", "rate")
    labels = [panel[f"{name}-slider"].label for name in names]
    assert labels == ["4", "1", "2", "no limit"]
    panel.drag("concurrency", "8")
    panel.drag("embed-concurrency", "3")
    panel.drag("store-concurrency", "6")
    panel.drag("rate", "2")
    assert (job.max_concurrency, job.embed_concurrency, job.store_concurrency) == (8, 3, 6)
    assert job.rate == 2
    assert panel["embed-fewer"].disabled is False
    panel.click("embed-more")
    panel.click("store-fewer")
    panel.click("fewer")
    assert (job.max_concurrency, job.embed_concurrency, job.store_concurrency) == (6, 4, 5)
    assert (
        "at most 6 concurrent loads, 4 concurrent embed calls, 5 concurrent store calls"
        in (shown(job)[-1])
    )
    assert shown(job)[-1].endswith("2 embed calls a second")
    job.cancel()
    await job


async def test_the_sliders_of_stages_follow_the_job(displayed):
    """Also when code changes a setting."""
    needs("ipywidgets")
    job = started(store=stored)
    panel = Shown(job)
    job.max_concurrency, job.embed_concurrency, job.store_concurrency = 5, 7, 9
    await asyncio.sleep(0.15)
    names = ("concurrency", "embed-concurrency", "store-concurrency")
    assert [panel[f"{name}-slider"].label for name in names] == ["5", "7", "9"]
    job.embed_concurrency = 1
    await asyncio.sleep(0.15)
    assert panel["embed-fewer"].disabled
    assert not panel["store-fewer"].disabled
    job.cancel()
    await job


async def test_a_store_has_no_slider(displayed):
    """It is called once at a time, whatever the setting."""
    needs("ipywidgets")
    job = started(store=MemoryStore())
    panel = Shown(job)
    with pytest.raises(ValueError, match="not enough values"):
        panel["store-concurrency-slider"]
    assert "store" not in shown(job)[-1]
    job.cancel()
    await job


async def test_an_embedder_is_slowed_down_from_its_calls_per_second(displayed):
    """Not from its documents, of which one call has four here."""
    needs("ipywidgets")
    documents = [Document(str(number), "word") for number in range(1_000)]
    processor = exact(embed=CountingEmbedder(0.5), embed_concurrency=2, batch_size=4)
    job = processor.start(documents, on_current_loop=True)
    panel = Shown(job)
    await at(8.95)
    panel.click("slower")
    assert 3 <= job.rate <= 5
    job.cancel()
    await job
