"""What another setting of one knob would do: a row each, beside the forecast itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from ragasync.progress import LimitedBy
from ragasync.simulation.circumstances import Scenario
from ragasync.simulation.pilot import Pilot
from ragasync.simulation.projection import Effort, Projected, commonest_limit, projected

if TYPE_CHECKING:
    import pandas as pd

RUNS = 3
"""Few do, because each meets the same calls as its counterpart of the forecast itself."""

LIMITS: tuple[LimitedBy, ...] = ("rate", "concurrency", "retries", "input")


@dataclass(frozen=True, slots=True)
class WhatIf:
    """
    What one change would do.

    Args:
        change: the change in words; "as it is" for none.
        knob: the argument that it changes, or an empty text.
        value: what to; None where the knob is no number.
        makespan: how long the run would take, in seconds.
        ratio: that as a share of the makespan without the change.
        limited_by: what would hold it back.
    """

    change: str
    knob: str
    value: float | None
    makespan: float
    ratio: float
    limited_by: LimitedBy


@dataclass(frozen=True, slots=True)
class Change:
    """One knob set differently."""

    words: str
    knob: str
    value: float | None
    under: Scenario
    rate: float = 1.0


def what_ifs(
    pilot: Pilot,
    under: Scenario,
    n_items: int,
    effort: Effort,
    plain: Sequence[Projected],
    makespan: float,
) -> tuple[WhatIf, ...]:
    """
    Return a row for the forecast and one for each change.

    Args:
        pilot: what to draw from.
        under: the knobs.
        n_items: the items of the run.
        effort: how much to run.
        plain: the runs without a change.
        makespan: what they come to.
    """
    rows = [WhatIf("as it is", "", None, makespan, 1.0, commonest_limit(plain))]
    for change in changes(pilot, under):
        runs = projected(pilot, change.under, n_items, effort, rate=change.rate, seeds=range(RUNS))
        pairs = zip(runs, plain, strict=False)
        ratio = median(run.makespan / before.makespan for run, before in pairs)
        limited_by = commonest_limit(runs)
        rows.append(
            WhatIf(change.words, change.knob, change.value, makespan * ratio, ratio, limited_by)
        )
    return tuple(rows)


def changes(pilot: Pilot, under: Scenario) -> Iterator[Change]:
    """Yield the changes that are worth a row."""
    workers, size = under.max_concurrency, under.batch_size
    twice = replace(under, max_concurrency=2 * workers)
    yield Change("twice the concurrency", "max_concurrency", 2 * workers, twice)
    if workers > 1:
        half = replace(under, max_concurrency=workers // 2)
        yield Change("half the concurrency", "max_concurrency", workers // 2, half)
    if under.limiters:
        rate = None if under.rate is None else 2 * under.rate
        yield Change("twice the rate", "rate_limiter", rate, under, rate=2.0)
    if under.error_rate:
        fewer = replace(under, error_rate=under.error_rate / 2)
        yield Change("half the errors", "error_rate", under.error_rate / 2, fewer)
    elif under.error_rate is None and (rate := pilot.error_rate):
        yield Change("half the errors", "error_rate", rate / 2, replace(under, errors=0.5))
    if size:
        bigger = replace(under, batch_size=2 * size)
        yield Change("twice the batch size", "batch_size", 2 * size, bigger)


def what_if_frame(rows: Sequence[WhatIf]) -> pd.DataFrame:
    """Return the rows as a table."""
    import pandas as pd

    return pd.DataFrame(
        {
            "change": pd.array([row.change for row in rows], dtype="string"),
            "knob": pd.array([row.knob or None for row in rows], dtype="string"),
            "value": pd.array([row.value for row in rows], dtype="Float64"),
            "makespan": pd.array([row.makespan for row in rows], dtype="float64"),
            "ratio": pd.array([row.ratio for row in rows], dtype="float64"),
            "limited_by": pd.Categorical([row.limited_by for row in rows], categories=LIMITS),
        }
    )
