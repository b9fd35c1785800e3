"""
What it costs to show how far a run is, at 100,000 items that return at once, and what failed.

    python benchmarks/reporting.py --items 100000 --failures 100000 --rounds 5

Everything runs in a Jupyter kernel, where bars are widgets and each update is a message to a front
end; here the front end is a client that does not read them. Processor time of all the kernel's
threads. What is shown of 100,000 failures with different messages of 2 KB is measured without one:
the first views of a result, the same views once more, and one redraw of a panel's list of errors.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import time
from ast import literal_eval
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from measuring import Figures, in_turns, installed, processor_time, ratios, table

from ragasync import (
    AsyncBatchProcessor,
    BatchResult,
    TqdmProgress,
    WidgetProgress,
    errors_dataframe,
)
from ragasync._reports.error_groups import LiveErrorGroups
from ragasync.notebook.panel_view import errors_html
from ragasync.progress_callbacks import ProgressCallback


async def return_at_once(item: int) -> int:
    """Return the item."""
    return item


async def run(items: range, progress: ProgressCallback | None = None) -> int:
    """Process all items and return how many succeeded."""
    processor = AsyncBatchProcessor[int, int](return_at_once, max_concurrency=32)
    result = await processor.process(items, progress)
    return result.success_count


async def with_callback(items: range) -> int:
    """Report to a plain function."""
    heard: list[tuple[int, int | None]] = []
    done = await run(items, lambda *progress: heard.append(progress))
    assert heard[-1] == (len(items), len(items))
    return done


async def with_widget(items: range) -> int:
    """Draw a bar in the notebook."""
    return await run(items, WidgetProgress("items"))


async def with_tqdm(items: range) -> int:
    """Draw tqdm's bar, which in a kernel is made of widgets too."""
    return await run(items, TqdmProgress())


async def our_widget_by_hand(items: range) -> int:
    """Report each item to our widget, without a run around it."""
    with WidgetProgress("items") as progress:
        for done, item in enumerate(items, 1):
            await return_at_once(item)
            progress(done, len(items))
    return done


async def tqdm_by_hand(items: range) -> int:
    """Update tqdm's bar for each item, without a run around it."""
    from tqdm.auto import tqdm

    done = 0
    with tqdm(total=len(items)) as bar:
        for item in items:
            await return_at_once(item)
            bar.update()
            done += 1
    return done


async def widget_by_hand(items: range) -> int:
    """Set a widget's value for each item, without a run around it: a message an item."""
    import ipywidgets
    from IPython.display import display

    bar = ipywidgets.IntProgress(max=len(items))
    show: Callable[..., object] = display
    show(bar)
    for item in items:
        await return_at_once(item)
        bar.value += 1
    done: int = bar.value
    for model in (bar.style, bar.layout, bar):
        model.close()
    return done


@dataclass(frozen=True)
class Contender:
    """A way to show progress, and how many items of it do not take minutes."""

    run: Callable[[range], Awaitable[int]]
    most_items: int = 10_000_000


REPEATS = 10
"""Runs a round: one takes a tenth of a second, and what a bar adds to it is a few milliseconds."""

REFERENCE = "ragasync, nothing shown"

CONTENDERS = {
    REFERENCE: Contender(run),
    "ragasync, a callback": Contender(with_callback),
    "ragasync, TqdmProgress": Contender(with_tqdm),
    "ragasync, WidgetProgress": Contender(with_widget),
    "WidgetProgress by hand, a report an item": Contender(our_widget_by_hand),
    "tqdm by hand, an update an item": Contender(tqdm_by_hand),
    "IntProgress by hand, a value an item": Contender(widget_by_hand, 500),
}


async def whole_bar(make: Callable[[], ProgressCallback], items: range) -> int:
    """Begin a bar and end it, without a run."""
    progress = make()
    progress(0, len(items))
    progress(len(items), len(items))
    return len(items)


async def end_alone(make: Callable[[], ProgressCallback], items: range) -> int:
    """Report the end alone, as a run does that is over before its first report."""
    make()(len(items), len(items))
    return len(items)


BARS = {
    "ragasync WidgetProgress, begun and ended": Contender(partial(whole_bar, WidgetProgress)),
    "ragasync WidgetProgress, of a run under 0.2 s": Contender(partial(end_alone, WidgetProgress)),
    "ragasync TqdmProgress, begun and ended": Contender(partial(whole_bar, TqdmProgress)),
}
"""What bars cost by themselves, which the differences between whole runs are too coarse to tell."""


def microseconds(contender: Contender, most: int) -> float:
    """Return the processor microseconds an item takes."""
    items = range(min(most, contender.most_items))

    def check(done: object) -> None:
        assert done == len(items), f"{done} of {len(items)} items were done"

    return processor_time(partial(contender.run, items), check, REPEATS) * 1e6 / len(items)


async def measure_in_kernel(items: int, rounds: int) -> str:
    """Measure all contenders and return their figures as JSON; called in a cell."""

    def measure() -> dict[str, Figures]:
        contenders = CONTENDERS | BARS
        for contender in contenders.values():  # imports, off the clock
            microseconds(contender, 100)
        return in_turns(
            {name: partial(microseconds, each, items) for name, each in contenders.items()}, rounds
        )

    # In a thread, because the cell's own loop runs already; the context is the cell's.
    figures = await asyncio.to_thread(measure)
    return json.dumps({name: each.values for name, each in figures.items()})


def figures_of_a_kernel(items: int, rounds: int) -> dict[str, Figures]:
    """
    Start a kernel, measure in it, and return the figures.

    They come with the cell's reply. What it draws is not read: a kernel drops messages, the last
    one too, while a front end on a loaded machine does not keep up with them.
    """
    from jupyter_client.manager import start_new_kernel

    cell = (
        f"import sys; sys.path.insert(0, {os.fspath(Path(__file__).parent)!r}); import reporting\n"
        f"figures = await reporting.measure_in_kernel({items}, {rounds})"
    )
    manager, client = start_new_kernel()
    try:
        asked = client.execute(cell, user_expressions={"figures": "figures"})
        while (reply := client.get_shell_msg(timeout=600))["parent_header"]["msg_id"] != asked:
            pass  # of what `start_new_kernel` has asked
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    if reply["content"]["status"] != "ok":
        raise RuntimeError("\n".join(reply["content"]["traceback"]))
    printed = reply["content"]["user_expressions"]["figures"]["data"]["text/plain"]
    figures: dict[str, list[float]] = json.loads(literal_eval(printed))
    return {name: Figures(values) for name, values in figures.items()}


PAGE = (
    "the server was away while a gateway returned this page: <p class='message'> bad request "
    "400 of model-3 in region eu-west-1 at 12:05:17 for https://api.test/v1/embeddings?n=5 </p>"
)
"""What messages are made of: prose, markup, numbers and addresses, as services reply."""

BY_HAND = "by hand: numbers of all messages blanked, and counted"
TOGETHER = "summary, HTML and errors_dataframe together"


def failures(count: int, chance: random.Random) -> BatchResult[None]:
    """Return a result of failures, each with a message of 2 KB of its own."""
    words = PAGE.split()

    async def fail(item: int) -> None:
        raise ConnectionError(f"item {item}: {' '.join(chance.choices(words, k=400))}"[:2000])

    processor = AsyncBatchProcessor[int, None](fail, max_concurrency=32, retry_count=0)
    return asyncio.run(processor.process(range(count)))


def seconds_of(call: Callable[[], object]) -> float:
    """Return the processor seconds of a call."""
    began = time.process_time()
    call()
    return time.process_time() - began


def shares_of_views(result: BatchResult[None], when: str) -> dict[str, float]:
    """Return the processor seconds of each view of a result, and of all of them."""
    shares = {
        f"{when}: summary": seconds_of(result.summary),
        f"{when}: HTML": seconds_of(result._repr_html_),
        f"{when}: errors_dataframe": seconds_of(lambda: errors_dataframe(result)),
    }
    return {**shares, f"{when}: {TOGETHER}": sum(shares.values())}


def blank_by_hand(result: BatchResult[None]) -> Counter[str]:
    """Count messages that differ in numbers only, without masks, bounds or tables."""
    return Counter(re.sub(r"\d+", "#", str(error)) for error in result.errors)


def redraw(grouped: LiveErrorGroups) -> str:
    """Take in some errors and draw the list, as a panel does ten times a second."""
    grouped.update()
    return errors_html(grouped)


def figures_of_failures(count: int, rounds: int) -> dict[str, Figures]:
    """Measure the views of so many failures, new ones in each round."""
    figures: dict[str, Figures] = {}
    errors_dataframe(failures(2, random.Random(0)))  # imports, off the clock
    for turn in range(rounds):
        result = failures(count, random.Random(turn))
        grouped = LiveErrorGroups(failures(count, random.Random(turn)).columns)
        found = {BY_HAND: seconds_of(partial(blank_by_hand, result))}
        found |= shares_of_views(result, "first") | shares_of_views(result, "again")
        found |= {"a redraw of the panel's list": seconds_of(partial(redraw, grouped))}
        for name, seconds in found.items():
            figures.setdefault(name, Figures()).values.append(seconds)
    return figures


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Compare ways to show how far a run is.")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--failures", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if not installed("ipykernel", "jupyter_client"):
        parser.error("this needs a kernel: pip install 'ragasync[lab]'")
    figures = figures_of_a_kernel(given.items, given.rounds)
    over = ratios(figures, REFERENCE)
    runs = [
        [name, f"{min(given.items, each.most_items):,}", figures[name], f"{over[name]:.2f}"]
        for name, each in CONTENDERS.items()
    ]
    title = "showing progress in a kernel: processor µs an item, median (min-max)"
    print(table(title, ["", "items", "µs", "ratio"], runs))
    bars = [
        [name, f"{figures[name].median * given.items / 1000:.2f}", f"{over[name]:.1%}"]
        for name in BARS
    ]
    title = f"a bar by itself: processor ms, and the share of a run of {given.items:,} items"
    print(table(title, ["", "ms", "share"], bars))
    views = figures_of_failures(given.failures, given.rounds)
    shares = ratios(views, BY_HAND)
    rows = [
        [
            name if name == BY_HAND else f"ragasync, {name}",
            f"{1000 * figure.median:.1f}",
            f"{shares[name]:.2f}",
        ]
        for name, figure in views.items()
    ]
    title = f"{given.failures:,} failures with different messages of 2 KB: processor ms, median"
    print(table(title, ["", "ms", "ratio"], rows))


if __name__ == "__main__":
    main()
