"""How busy the stages of a pipeline are, and which of them holds the others back."""

from __future__ import annotations

from collections.abc import Sequence

from ragasync.outcomes.stats import StageStats

TOGETHER = "load and chunk"
"""The stage that does both in one call; failures tell the two apart."""

HOLDS = 0.5
"""The share of its time that a stage's calls are under way or held up, if it is what holds."""


def share_busy(stage: StageStats, seconds: float) -> float:
    """Return the share of its time that a stage's calls were under way, or waited to be."""
    if seconds <= 0:
        return 0.0
    return min(1.0, (stage.worked + stage.limiter_waited) / (stage.max_concurrency * seconds))


def busiest(stages: Sequence[StageStats], seconds: float) -> StageStats | None:
    """Return the stage that holds the others back, or None where none is busy enough for that."""
    held = max(stages, key=lambda stage: share_busy(stage, seconds), default=None)
    if held is None or share_busy(held, seconds) < HOLDS:
        return None
    return held


def place_of(told: str, names: Sequence[str]) -> int | None:
    """Return which of these stages a failure belongs to that names its stage so, if one does."""
    if told in names:
        return names.index(told)
    if told in ("load", "chunk") and TOGETHER in names:
        return names.index(TOGETHER)
    return None
