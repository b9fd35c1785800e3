"""What bound a run found that was told to find it."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from ragasync.outcomes.stats import RunResult


def found_bound(result: RunResult) -> str:
    """Return a sentence on the bound that a run kept longest, and between which it moved."""
    stats = result.stats
    if not stats.adapted:
        return ""
    if not stats.concurrency_history:
        return f' max_concurrency="auto" had no reason to leave {stats.max_concurrency} at once.'
    seconds: defaultdict[int, float] = defaultdict(float)
    for (since, bound), (until, _) in pairwise([*stats.concurrency_history, (result.seconds, 0)]):
        seconds[bound] += max(0.0, until - since)
    longest = max(seconds, key=seconds.__getitem__)
    bounds = [bound for _, bound in stats.concurrency_history]
    return (
        f' max_concurrency="auto" found {longest:,} calls at once, the bound it kept longest, and '
        f"moved between {min(bounds):,} and {max(bounds):,}."
    )
