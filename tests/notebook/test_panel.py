"""The live panel of a job: its facts, buttons and sliders, and its end."""

import asyncio
import gc
import itertools
import logging
import re
import sys
import threading
import types
import weakref
from typing import Any

import pytest

from ragasync import AsyncBatchProcessor, AsyncRetry, Outcome, RateLimiter

# Internals: results with exact times and states, which no run produces on demand.
from ragasync._outcomes.columns import Columns
from ragasync._reports import error_groups
from ragasync._reports.error_groups import LiveErrorGroups, group_errors
from ragasync.notebook import panel, widgets
from tests.support.live_panels import Shown, all_widgets, words_of

WIDGET = "application/vnd.jupyter.widget-view+json"


async def slowly(item: int) -> int:
    """Answer after a second; every fifth item fails."""
    await asyncio.sleep(1)
    if item % 5 == 4:
        raise ValueError(f"no <b>{item}</b>")
    return item


def started(count: int = 100, **options: Any) -> Any:
    """Start a job on this loop with four concurrent calls and no retries."""
    options = {"max_concurrency": 4, "retry_count": 0} | options
    return AsyncBatchProcessor(slowly, **options).start(range(count), on_current_loop=True)


async def at(seconds: float) -> None:
    """Wait until this time on the virtual clock."""
    await asyncio.sleep(seconds - asyncio.get_running_loop().time())


# ── facts ───────────────────────────────────────────────────────────────────────────────


async def test_a_running_job_is_shown_as_text_as_html_and_as_widgets(displayed):
    """The front end chooses the richest that it supports."""
    job = started()
    await at(2.5)
    Shown(job)
    (bundle,) = displayed.bundles
    assert set(bundle) == {"text/plain", "text/html", WIDGET}
    assert bundle["text/plain"] == (
        "Job running: 8 of 100 · 3.2 items/s · 0:02 so far · 0:29 left\n"
        "7 done · 1 failed · 0 retried · 4 in flight\n"
        "limited by concurrency: the maximum number of calls is in flight\n"
        "at most 4 concurrent calls, job.rate not set\n"
        "errors:\n"
        "  1 × ValueError: no <b>4</b> (item 4)"
    )
    job.cancel()
    await job


@pytest.mark.parametrize("moment", ["running", "paused", "cancelling", "cancelled", "stopped"])
async def test_html_text_widgets_and_repr_state_the_same_facts(displayed, moment):
    """In every state of the job."""
    job = started(max_errors=0 if moment == "stopped" else None)
    job.rate = 50
    await at(3.5)
    if moment == "paused":
        job.pause()
    elif moment.startswith("cancel"):
        job.cancel()
    if moment in ("cancelled", "stopped"):
        await at(6)
    job._ipython_display_()
    bundle = displayed.bundles[-1]
    lines = bundle["text/plain"].splitlines()
    facts = [fact for line in lines[:2] for fact in line.partition(": ")[2].split(" · ") if fact]
    facts += lines[1].split(" · ")
    assert lines[0].startswith(f"Job {moment}: ")
    assert all(fact in repr(job) for fact in facts)
    assert repr(job).startswith(f"<Job {moment}: ")
    assert "at most 4 concurrent calls, 50 calls a second" in repr(job)
    in_text = bundle["text/plain"].replace("errors:", "")
    assert re.sub(r"[·\s]", "", words_of(bundle["text/html"])) == re.sub(r"[·\s]", "", in_text)
    if moment in ("running", "paused"):
        shown = Shown(job)
        first_lines = " ".join(lines[:3]).replace(" · ", " ")
        assert shown.facts.replace(" · ", " ") == first_lines
    job.cancel()
    await job


async def test_a_live_panel_is_refreshed_ten_times_a_second(displayed):
    """Not for every item: four of them end per millisecond."""

    async def call(item):
        await asyncio.sleep(0.001)

    job = AsyncBatchProcessor(call).start(range(100_000), on_current_loop=True)
    shown = Shown(job)
    drawn = []
    shown["facts"].observe(drawn.append, "value")
    await at(2.05)
    assert 15 <= len(drawn) <= 21
    assert "of 100,000" in shown.facts
    job.cancel()
    await job


async def test_the_latest_failures_are_grouped_and_escaped(displayed):
    """Each group with its count and its first example."""
    job = started()
    shown = Shown(job)
    assert shown["errors"].value == ""
    await at(5.55)
    assert words_of(shown["errors"].value) == "4 × ValueError : no <b>4</b> (item 4)"
    assert "<b>" not in shown["errors"].value
    job.cancel()
    await job


async def test_an_input_of_unknown_length_has_an_empty_bar(displayed):
    """And no estimate of the time left; at the end the length is known."""

    async def source():
        for item in range(3):
            yield item

    job = AsyncBatchProcessor(slowly).start(source(), on_current_loop=True)
    await at(0.5)
    shown = Shown(job)
    assert "0 of ?" in shown.facts
    assert "left" not in shown.facts
    assert "width:0" not in shown["facts"].value
    await job
    assert "width:100.00%" in displayed.bundles[-1]["text/html"]
    assert "3 of 3" in displayed.bundles[-1]["text/plain"]


async def test_a_job_without_items_ends_with_a_full_bar(displayed):
    """All of its items are done."""
    job = started(0)
    await job
    job._ipython_display_()
    assert "flex:1;background:#4c8dd6" in displayed.bundles[-1]["text/html"]
    assert displayed.bundles[-1]["text/plain"].startswith("Job ended: 0 of 0 · 0 items/s")


# ── the end ─────────────────────────────────────────────────────────────────────────────────


async def test_static_html_replaces_the_widgets_at_the_end(displayed):
    """All widgets but a view of the end are closed, and the last numbers stay."""
    job = started(10)
    shown = Shown(job)
    widgets = all_widgets(shown.box)
    assert all(w.comm is not None for w in widgets)
    await at(9)
    assert job._panel._refresher is None
    assert displayed.updates == [False, True]
    assert displayed.ids[0] == displayed.ids[1]
    assert set(displayed.bundles[-1]) == {"text/plain", "text/html"}
    assert displayed.bundles[-1]["text/plain"] == (
        "Job ended: 10 of 10 · 3.33 items/s · 3.00 s in all\n"
        "8 done · 2 failed · 0 retried\n"
        "at most 4 concurrent calls, job.rate not set\n"
        "errors:\n"
        "  2 × ValueError: no <b>4</b> (item 4)"
    )
    assert shown.box.children == (shown["facts"],)
    assert shown["facts"].value == displayed.bundles[-1]["text/html"]
    models = {m for w in widgets for m in (w, w.layout, getattr(w, "style", None)) if m}
    facts = shown["facts"]
    kept = {shown.box, shown.box.layout, facts, facts.layout, facts.style}
    assert kept < models
    assert {m for m in models if m.comm is not None} == kept


async def test_a_job_is_static_html_at_first_and_widgets_once_it_has_run_for_a_moment(
    displayed, monkeypatch
):
    """A shorter run has none: making them would cost more than the run."""
    monkeypatch.setattr(panel, "WIDGETS_AFTER", 0.5)
    job = started(4)
    job._ipython_display_()
    await at(0.35)
    assert [set(bundle) for bundle in displayed.bundles] == [{"text/plain", "text/html"}]
    await at(0.65)
    assert set(displayed.bundles[-1]) == {"text/plain", "text/html", WIDGET}
    assert (displayed.updates, len(set(displayed.ids))) == ([False, True], 1)
    shown = Shown(job)
    assert displayed.updates == [False, True, False]
    shown.click("pause")
    assert job.paused
    job.resume()
    await job
    assert displayed.bundles[-1] == displayed.bundles[-2]
    assert set(displayed.bundles[-1]) == {"text/plain", "text/html"}


async def test_a_job_that_ends_within_a_moment_never_has_widgets(displayed, monkeypatch):
    """It is drawn at its start and at its end."""
    monkeypatch.setattr(panel, "WIDGETS_AFTER", 3)
    job = started(4, max_concurrency=2)
    job._ipython_display_()
    await job
    assert [set(bundle) for bundle in displayed.bundles] == [{"text/plain", "text/html"}] * 2
    assert displayed.updates == [False, True]
    assert list(displayed.snapshots.values()) == [[""]]


async def test_the_views_of_ended_panels_are_closed_except_the_latest(displayed, monkeypatch):
    """A reloaded page has nothing else; a kernel that runs for weeks keeps only a few."""
    monkeypatch.setattr(widgets, "VIEWS_KEPT", 2)
    boxes = []
    for _ in range(4):
        job = started(1)
        boxes.append(Shown(job).box)
        await job
    assert [box.comm is not None for box in boxes] == [False, False, True, True]
    assert all(box.layout.comm is None for box in boxes[:2])


async def test_awaiting_a_job_shows_its_end_immediately_and_again(displayed):
    """A front end may drop the output of a cell that has ended; the awaiting cell is running."""
    first = started(4)
    Shown(first)
    await first
    assert displayed.updates == [False, True]
    later = started(4)
    Shown(later)
    await asyncio.sleep(5)
    assert displayed.updates == [False, True, False, True]
    await later
    await later
    assert displayed.updates == [False, True, False, True, True]
    assert displayed.bundles[-1] == displayed.bundles[-2]


@pytest.mark.real_time
def test_waiting_for_a_job_shows_its_end(displayed):
    """From the thread that waits."""
    release = threading.Event()
    job = AsyncBatchProcessor(lambda item: release.wait(20)).start([1])
    job._ipython_display_()
    with pytest.raises(TimeoutError):
        job.wait(0)
    assert True not in displayed.updates
    release.set()
    job.wait(20)
    assert displayed.updates[-1] is True
    assert displayed.bundles[-1]["text/plain"].startswith("Job ended: 1 of 1")


async def test_a_cancelled_await_shows_the_end_too(displayed):
    """As the stop button of the awaiting cell does."""
    job = started()
    Shown(job)

    async def cell():
        await job

    task = asyncio.create_task(cell())
    await at(1.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert displayed.bundles[-1]["text/plain"].splitlines()[:2] == [
        "Job cancelled: 4 of 100 · 2.67 items/s · 1.50 s in all",
        "4 done · 0 failed · 0 retried · 4 cancelled · 92 pending",
    ]


async def test_a_job_that_broke_says_why(displayed):
    """The panel shows the error of the source, and awaiting the job raises it."""

    def source():
        yield 1
        raise OSError("<disk>")

    job = AsyncBatchProcessor(slowly).start(source(), on_current_loop=True)
    await at(3)
    job._ipython_display_()
    assert "because the source raised OSError: <disk>" in displayed.bundles[-1]["text/plain"]
    assert "&lt;disk&gt;" in displayed.bundles[-1]["text/html"]
    with pytest.raises(OSError, match="disk"):
        await job


async def test_a_job_shown_in_two_outputs_has_one_set_of_widgets_and_ends_in_both(displayed):
    """Each output keeps its display id; one that is shown after the end is static."""
    job = started(8)
    Shown(job)
    job._ipython_display_()
    first, second = displayed.bundles
    assert first[WIDGET] == second[WIDGET]
    await job
    assert displayed.updates == [False, False, True, True]
    assert displayed.ids[2:] == displayed.ids[:2]
    assert len(set(displayed.ids)) == 2
    job._ipython_display_()
    assert displayed.bundles[-1] == displayed.bundles[-2]
    assert WIDGET not in displayed.bundles[-1]
    assert displayed.updates[-1] is False


async def test_a_job_that_ended_since_the_last_refresh_is_static_in_all_outputs(displayed):
    """Between its end and the next refresh no live panel is shown."""
    job = started(4, retry_count=0)
    Shown(job)
    job._future.add_done_callback(job._ipython_display_)
    await at(0.99)
    assert displayed.updates == [False]
    await at(1.01)
    assert displayed.updates == [False, True, False]
    assert displayed.bundles[1] == displayed.bundles[2]


async def test_a_panel_drops_a_job_that_has_no_other_reference_and_its_error_is_logged_once(
    displayed, caplog
):
    """A job that was shown and dropped is freed once it has ended."""

    def source():
        yield 1
        raise OSError("disk")

    job = AsyncBatchProcessor(slowly).start(source(), on_current_loop=True)
    job._ipython_display_()
    dropped = weakref.ref(job)
    del job
    with caplog.at_level(logging.ERROR, "ragasync"):
        await at(3)
        gc.collect()
    assert dropped() is None
    assert [record.getMessage() for record in caplog.records] == [
        "a job's exception was never retrieved"
    ]
    assert displayed.bundles[-1]["text/plain"].startswith("Job stopped")


# ── buttons ─────────────────────────────────────────────────────────────────────────────────────


async def test_pause_and_resume(displayed):
    """One button, labelled with its action; the effect is shown immediately."""
    job = started()
    shown = Shown(job)
    assert shown["pause"].description == "Pause"
    shown.click("pause")
    assert job.paused
    assert shown["pause"].description == "Resume"
    assert "paused: no new calls start" in shown.facts
    shown.click("pause")
    assert not job.paused
    assert shown["pause"].description == "Pause"
    job.pause()
    await asyncio.sleep(0.15)
    assert shown["pause"].description == "Resume"
    job.cancel()
    await job


async def test_cancel_twice(displayed):
    """The second click has no effect, and the button is disabled."""
    cleaned_up = []

    async def call(item):
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(2)
            cleaned_up.append(item)

    job = AsyncBatchProcessor(call, max_concurrency=1).start(range(3), on_current_loop=True)
    shown = Shown(job)
    await at(1)
    shown.click("cancel")
    assert "Job cancelling" in shown.facts
    assert shown["cancel"].disabled
    assert shown["pause"].disabled
    await at(2)
    shown.click("cancel")
    result = await job
    assert cleaned_up == [0]
    assert (result.cancelled_count, result.pending_count) == (1, 2)
    assert displayed.bundles[-1]["text/plain"].startswith("Job cancelled")


async def test_fewer_and_more_concurrent_calls(displayed):
    """The value changes with the click, and not below one."""
    job = started()
    shown = Shown(job)
    shown.click("more")
    shown.click("more")
    assert job.max_concurrency == 6
    assert shown.values()[0] == "6"
    await at(0.5)
    assert job.progress.in_flight == 6
    for _ in range(7):
        shown.click("fewer")
    assert job.max_concurrency == 1
    assert shown["fewer"].disabled
    assert shown.values()[0] == "1"
    job.max_concurrency = 32
    await at(0.75)
    assert shown.values()[0] == "32"
    job.cancel()
    await job


async def test_slower_and_faster(displayed):
    """From no limit to the current speed, by round numbers, and back to no limit."""
    job = started(10_000, max_concurrency=40)
    shown = Shown(job)
    assert shown.values() == ["40", "no limit"]
    assert shown["faster"].disabled
    await at(5.95)
    shown.click("slower")
    assert job.rate == 30
    assert shown.values()[1] == "30"
    shown.click("slower")
    assert job.rate == 25
    job.rate = 60
    shown.click("faster")
    assert job.rate is None
    assert shown.values()[1] == "no limit"
    job.cancel()
    await job


async def test_without_a_rate_of_its_own_a_job_has_that_of_its_limiter(displayed):
    """Its slider does not say that there is no limit."""
    job = started(10_000, max_concurrency=40, rate_limiter=RateLimiter(5, burst_size=1))
    shown = Shown(job)
    await at(3.95)
    assert shown.values() == ["40", "limiter"]
    assert "limited by rate" in shown.facts
    assert "at most 40 concurrent calls, at the rate of its limiter" in repr(job)
    job.rate = 2
    await at(4.95)
    assert shown.values() == ["40", "2"]
    shown.drag("rate", "limiter")
    assert job.rate is None
    job.cancel()
    await job


async def test_a_batched_job_is_slowed_down_from_its_calls_per_second_not_its_items(displayed):
    """Its rate limits calls."""

    async def call(batch):
        await asyncio.sleep(1)
        return batch

    job = AsyncBatchProcessor(call, 10, 20, batched=True).start(range(10_000), on_current_loop=True)
    shown = Shown(job)
    await at(10.95)
    assert job.progress.rate > 100
    shown.click("slower")
    assert 15 <= job.rate <= 20
    job.cancel()
    await job


async def test_a_click_after_the_end_changes_nothing(displayed):
    """A message from the front end may be late."""
    job = started(4)
    shown = Shown(job)
    buttons = [shown[name] for name in ("pause", "cancel", "more", "slower")]
    await job
    shows = len(displayed.bundles)
    for button in buttons:
        button.click()
    assert (job.paused, job.max_concurrency, job.rate) == (False, 4, None)
    assert repr(job).startswith("<Job ended")
    assert len(displayed.bundles) == shows


@pytest.mark.real_time
def test_clicks_in_other_threads_while_the_panel_is_drawn(displayed):
    """Subshells handle clicks in their own threads."""
    release = threading.Event()
    job = AsyncBatchProcessor(lambda item: release.wait(20), max_concurrency=2).start(range(8))
    shown = Shown(job)
    pause = shown["pause"]
    threads = [
        threading.Thread(target=lambda: [pause.click() for _ in range(25)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    expected = "Resume" if job.paused else "Pause"
    job._panel._refresh_once()
    assert pause.description == expected
    job.resume()
    release.set()
    assert job.wait(20).all_succeeded
    assert displayed.updates[-1] is True


# ── sliders ─────────────────────────────────────────────────────────────────────────────────────


async def test_drags_change_both_settings_and_the_panel_shows_it_immediately(displayed):
    """From few calls to many, and from a low rate to no limit."""
    job = started()
    shown = Shown(job)
    shown.drag("concurrency", "20")
    assert job.max_concurrency == 20
    await at(0.5)
    assert job.progress.in_flight == 20
    shown.drag("rate", "0.1")
    assert (job.rate, shown["faster"].disabled) == (0.1, False)
    shown.drag("rate", "no limit")
    assert (job.rate, shown["faster"].disabled) == (None, True)
    shown.drag("concurrency", "1")
    assert shown["fewer"].disabled
    job.cancel()
    await job


async def test_sliders_follow_without_changing_anything(displayed, monkeypatch):
    """To any value, also one between two steps and one above them all."""
    job = started()
    shown = Shown(job)
    changes = []
    change = type(job).max_concurrency.fset

    def noted(job, value):
        changes.append(value)
        change(job, value)

    monkeypatch.setattr(type(job), "max_concurrency", type(job).max_concurrency.setter(noted))
    for value, rate, read in ((7, 0.07, "0.07"), (5_000, 2_345.0, "2,345"), (1, 1.234, "1.23")):
        job.max_concurrency, job.rate = value, rate
        await asyncio.sleep(0.15)
        assert shown.values() == [f"{value:,}", read]
        assert job.rate == rate
        assert len(shown["concurrency-slider"].options) <= len(widgets.concurrency_steps(4)) + 1
    assert changes == [7, 5_000, 1]
    job.cancel()
    await job


async def test_a_slider_that_does_not_move_sends_nothing(displayed):
    """Refreshes leave it alone while the user drags it."""
    job = started()
    shown = Shown(job)
    sent = []
    shown["concurrency-slider"].comm.send = lambda *args, **kwargs: sent.append(args)
    shown["rate-slider"].comm.send = lambda *args, **kwargs: sent.append(args)
    await at(2)
    assert sent == []
    job.max_concurrency = 5
    await at(3)
    assert len(sent) == 1
    job.cancel()
    await job


async def test_a_drag_after_the_end_changes_nothing(displayed):
    """A message from the front end may be late."""
    job = started(4)
    slider = Shown(job)["concurrency-slider"]
    await job
    slider.set_state({"index": 9})
    assert job.max_concurrency == 4


def test_sliders_reply_on_the_subshell_that_asked(displayed):
    """Also in a kernel that would reply on another one; other kernels are left alone."""
    comm = types.SimpleNamespace(_reply_subshell_for=lambda data, default: "elsewhere")
    widgets._reply_on_the_asking_subshell(types.SimpleNamespace(comm=comm))
    assert comm._reply_subshell_for({}, "on_current_loop") == "on_current_loop"
    plain = types.SimpleNamespace()
    widgets._reply_on_the_asking_subshell(types.SimpleNamespace(comm=plain))
    assert vars(plain) == {}


# ── snapshots, for pages without a kernel ──────────────────────────────────────────────────────


async def test_a_snapshot_follows_each_live_panel_and_is_emptied_at_the_end(displayed):
    """It is hidden, because it repeats the panel; at the end the panel itself is static."""
    job = started(8)
    Shown(job)
    await at(0.55)
    job._ipython_display_()
    await at(0.75)
    first, second = displayed.snapshots.values()
    assert (first[0], second[0], first[-1]) == ("", "", second[-1])
    assert 'class="ragasync-snapshot" style="display:none"' in first[-1]
    assert "0 of 8" in words_of(first[-1])
    assert re.search(r"as of \d{4}-\d\d-\d\d \d\d:\d\d:\d\d; the kernel", words_of(first[-1]))
    await job
    assert first[-1] == second[-1] == ""
    job._ipython_display_()
    assert len(displayed.snapshots) == 2


async def test_a_short_job_has_no_snapshot(displayed):
    """Only an empty output."""
    job = AsyncBatchProcessor(asyncio.sleep).start([0.1, 0.2, 0.3], on_current_loop=True)
    Shown(job)
    await job
    assert list(displayed.snapshots.values()) == [[""]]


@pytest.mark.slow
async def test_a_snapshot_is_updated_less_and_less_often(displayed):
    """First each second, then each tenth of the run, finally each half minute."""
    job = started(100_000)
    Shown(job)
    (copies,) = displayed.snapshots.values()
    drawn = [len(copies)]
    for seconds in (5, 10, 100, 400, 700):
        await at(seconds)
        drawn.append(len(copies))
    assert "of 100,000" in words_of(copies[-1])
    assert "no &lt;b&gt;4&lt;/b&gt;" in copies[-1]
    ticks = [later - earlier for earlier, later in itertools.pairwise(drawn)]
    assert [
        low <= tick <= high
        for tick, (low, high) in zip(
            ticks, [(4, 6), (4, 6), (20, 25), (10, 15), (9, 11)], strict=True
        )
    ] == [True] * 5, ticks
    job.cancel()
    await job


async def test_a_panel_without_widgets_needs_no_snapshot(displayed, monkeypatch):
    """Its output has HTML already."""
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    job = started(4)
    job._ipython_display_()
    await job
    assert displayed.snapshots == {}


# ── without widgets, and without a free loop ────────────────────────────────────────────────


async def test_without_a_kernel_a_job_is_shown_as_text(capsys):
    """In plain IPython, before and after its end."""
    job = started(10)
    job._ipython_display_()
    assert capsys.readouterr().out.startswith("Job running: 0 of 10 · 0 items/s")
    await job
    job._ipython_display_()
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "Job ended: 10 of 10 · 3.33 items/s · 3.00 s in all"
    assert printed[-1] == "  2 × ValueError: no <b>4</b> (item 4)"


async def test_without_ipywidgets_a_job_is_shown_as_html_and_replaced_at_its_end(
    displayed, monkeypatch
):
    """In the same output."""
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    job = started(10)
    job._ipython_display_()
    await at(9)
    assert [set(bundle) for bundle in displayed.bundles] == [{"text/plain", "text/html"}] * 2
    assert displayed.updates == [False, True]
    assert displayed.bundles[-1]["text/plain"].startswith("Job ended: 10 of 10")


async def test_a_panel_that_cannot_be_drawn_warns_once_and_the_job_runs_without_it(displayed):
    """For example because the front end is gone."""
    job = started(10)
    shown = Shown(job)
    job._panel._controls.draw = None
    with pytest.warns(RuntimeWarning, match="cannot be drawn") as warned:
        await at(0.5)
    assert len(warned) == 1
    assert shown.box.comm is None
    assert (await job).success_count == 8
    assert displayed.updates == [False]


@pytest.mark.real_time
@pytest.mark.parametrize("loop_here", [True, False])
def test_a_panel_is_drawn_while_a_cell_blocks(displayed, loop_here):
    """Also if the cell that shows it has no loop at all; its end is shown too."""
    release, drawn, ended = threading.Event(), threading.Event(), threading.Event()

    def call(item):
        if item == 2:
            release.wait(20)

    async def cell():
        job = AsyncBatchProcessor(call).start(range(3))
        shown = Shown(job)

        def notice(change):
            if "2 done" in change["new"]:
                drawn.set()

        shown["facts"].observe(notice, "value")
        if "2 done" not in shown.facts:
            assert drawn.wait(20)
        shown.box.observe(lambda _: ended.set(), "children")
        release.set()
        assert ended.wait(20)

    if loop_here:
        asyncio.run(cell())
    else:
        coroutine = cell()
        with pytest.raises(StopIteration):
            coroutine.send(None)
    assert displayed.updates == [False, True]


# ── error groups of a running job, steps of sliders ─────────────────────────────────────────────


def failing(count: int) -> Columns[int, None]:
    """Columns of items that failed in two ways, in turn."""
    columns: Columns[int, None] = Columns(range(count))
    for row in range(count):
        fail(columns, row)
    return columns


def fail(columns: Columns[int, None], row: int) -> None:
    """Record the failure of one item."""
    error = OSError(f"no item {row}") if row % 3 else KeyError("name")
    columns.record(Outcome(row, row, "failed", error=error, attempts=1, seconds=0.5))


@pytest.mark.parametrize("at_most", [1, 2, 7, 100])
def test_errors_grouped_in_steps_are_grouped_like_all_of_them_together(at_most):
    """For any number of errors per update."""
    columns = failing(20)
    grouped = LiveErrorGroups(columns)
    while grouped.ungrouped:
        assert grouped.update(at_most)
    assert grouped.groups.ranked() == group_errors(columns).ranked()
    assert not grouped.update(at_most)
    assert repr(grouped) == "<LiveErrorGroups: 2 groups, 0 not grouped>"


def test_an_error_whose_item_has_no_status_yet_is_read_again():
    """A job writes the error before the status of its item, in another thread."""
    columns = failing(3)
    columns.status[1] = 0
    grouped = LiveErrorGroups(columns)
    grouped.update()
    assert [kind.count for kind in grouped.groups.ranked()] == [1, 1]
    columns.status[1] = columns.status[0]
    grouped.update()
    assert grouped.groups.ranked() == group_errors(columns).ranked()


def test_errors_that_came_after_the_last_update_are_not_in_its_backlog():
    """The next update groups them; a line shown for a moment would move everything below."""
    columns = failing(3)
    grouped = LiveErrorGroups(columns)
    grouped.update(2)
    assert grouped.backlog == 1
    grouped.update()
    columns.errors[99] = OSError("one more")
    assert (grouped.ungrouped, grouped.backlog) == (1, 0)


def test_errors_of_cancelled_items_are_not_grouped():
    """They are not failures."""
    columns: Columns[int, None] = Columns(range(1))
    error = asyncio.CancelledError()
    columns.record(Outcome(0, 0, "cancelled", error=error, attempts=1))
    grouped = LiveErrorGroups(columns)
    grouped.update()
    assert (grouped.groups.ranked(), grouped.ungrouped) == ([], 0)


async def test_errors_that_were_not_grouped_are_counted(displayed, monkeypatch):
    """The final update groups some of them, and the panel shows how many it did not."""
    monkeypatch.setattr(error_groups, "FINAL_ERRORS_MIN", 1)
    monkeypatch.setattr(error_groups, "FINAL_ERRORS_PER_SECOND", 0.2)
    job = started(20)
    await job
    job._ipython_display_()
    left_out = "3 more, not sorted by kind; job.result.error_summary() sorts all of them"
    assert left_out in displayed.bundles[-1]["text/plain"]
    assert left_out in words_of(displayed.bundles[-1]["text/html"])


async def test_groups_beyond_the_first_few_are_counted_together(displayed):
    """Five groups, and the number of all others."""

    async def call(item):
        raise type(f"Error{item % 7}", (Exception,), {})(item)

    job = AsyncBatchProcessor(call, retry=AsyncRetry(0)).start(range(14), on_current_loop=True)
    await job
    job._ipython_display_()
    assert displayed.bundles[-1]["text/plain"].splitlines()[-1] == "  4 more, of 2 other kinds"


@pytest.mark.parametrize(
    ("calls", "fewer", "more"),
    [(1, 1, 2), (4, 3, 5), (7, 6, 8), (10, 8, 12), (200, 150, 250), (65_535, 60_000, 65_535)],
)
def test_concurrency_changes_by_about_a_quarter_to_round_numbers(calls, fewer, more):
    """At least by one, up to the maximum."""
    assert (widgets.previous_concurrency(calls), widgets.next_concurrency(calls)) == (
        fewer,
        more,
    )


def test_a_concurrency_slider_goes_up_to_four_times_its_first_value():
    """And at least to 64."""
    assert widgets.concurrency_steps(1) == [
        1,
        2,
        3,
        4,
        5,
        6,
        8,
        10,
        12,
        15,
        20,
        25,
        30,
        40,
        50,
        60,
        80,
    ]
    assert widgets.concurrency_steps(200)[-3:] == [500, 600, 800]
    assert widgets.concurrency_steps(50_000)[-1] == widgets.MAX_CONCURRENCY


def test_a_rate_slider_ends_in_no_limit():
    """It covers four powers of ten, and more if the job is faster."""
    steps = widgets.rate_steps(3.0)
    assert (steps[0], steps[10], steps[-2:]) == (0.1, 1.0, [1000.0, None])
    assert widgets.rate_steps(2_000.0)[-2:] == [8000.0, None]


@pytest.mark.parametrize(
    ("rate", "speed", "slower"),
    [
        (None, 312.0, 300),
        (None, 300.0, 300),
        (None, 0.0, 4),
        (None, 0.07, 0.06),
        (10, 99.0, 8),
        (1, 99.0, 0.8),
        (0.01, 99.0, 0.01),
    ],
)
def test_slower_starts_from_the_current_speed_and_goes_by_round_numbers(rate, speed, slower):
    """If no speed is known, from as many calls a second as may run concurrently."""
    assert widgets.previous_rate(rate, speed, concurrency=4) == slower


@pytest.mark.parametrize(
    ("rate", "speed", "limits_job", "faster"),
    [
        (None, 10.0, False, None),
        (10, 10.0, True, 12),
        (80, 10.0, True, 100),
        (100, 10.0, True, None),
        (16, 10.0, False, 20),
        (20, 10.0, False, None),
        (20, 0.0, False, 25),
    ],
)
def test_faster_ends_in_no_limit_if_the_limit_has_no_effect(rate, speed, limits_job, faster):
    """But not immediately if the rate limits the job and clicks come fast."""
    assert widgets.next_rate(rate, speed, limits_job=limits_job) == faster
