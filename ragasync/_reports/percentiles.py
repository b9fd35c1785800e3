"""Percentiles of the times of a run: of its calls, of the waits for the rate limit, of back-off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ragasync._outcomes.columns import Columns
from ragasync._outcomes.outcome import DONE, FAILED
from ragasync._outcomes.stats import RunResult

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_VIEW = "percentiles"


class Percentiles(NamedTuple):
    """Percentiles of a number of times, in seconds."""

    p50: float
    p95: float
    p99: float


class TimePercentiles(NamedTuple):
    """
    Percentiles of the times of a run; None for what did not occur.

    Attributes:
        calls: the time of each attempt; the items of a batched call count once.
        waits: the wait of each item for the rate limit, over all of its attempts.
        backoffs: the back-off of each item that backed off, over all of its retries.
    """

    calls: Percentiles | None
    waits: Percentiles | None
    backoffs: Percentiles | None

    def named(self) -> list[tuple[str, Percentiles]]:
        """List those that occurred, with what they are the times of."""
        rows = (
            ("a call", self.calls),
            ("an item's wait for the rate limit", self.waits),
            ("a retried item's back-off", self.backoffs),
        )
        return [(name, times) for name, times in rows if times is not None]


def time_percentiles(result: RunResult) -> TimePercentiles:
    """Compute the percentiles of a run's times; items from a journal have none."""
    found: TimePercentiles | None = result.columns.views.get(_VIEW)
    if found is None:
        found = result.columns.views[_VIEW] = _time_percentiles(result)
    return found


def _time_percentiles(result: RunResult) -> TimePercentiles:
    """Compute the percentiles from the columns."""
    import numpy as np  # slow to import

    columns = result.columns
    status = np.frombuffer(columns.status, dtype=np.uint8)
    ended = (status == DONE) | (status == FAILED)
    ended &= np.frombuffer(columns.attempts, dtype=np.uint16) > 0
    waits = backoffs = None
    if columns.waited is not None and (waited := np.frombuffer(columns.waited)[ended]).any():
        waits = _percentiles(waited)
    if columns.backed_off is not None:
        backed_off = np.frombuffer(columns.backed_off)[ended]
        backoffs = _percentiles(backed_off[backed_off > 0])
    return TimePercentiles(_percentiles(_attempt_seconds(result, ended)), waits, backoffs)


def _attempt_seconds(result: RunResult, ended: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The time of each attempt at an item that ended."""
    import numpy as np

    columns: Columns[Any, Any] = result.columns
    seconds = np.frombuffer(columns.seconds).copy()
    earlier = [attempt for row, log in columns.history.items() if ended[row] for attempt in log]
    for row, log in columns.history.items():
        seconds[row] = max(0.0, seconds[row] - sum(attempt.seconds for attempt in log))
    settings = result.stats.settings
    in_groups = settings.where == "executor" and not settings.batch_size
    if columns.batch is not None and not in_groups:
        # The items of a batched call are neighbours with the same time, and share its attempts.
        earlier = list(dict.fromkeys(earlier))
        batch = np.frombuffer(columns.batch, dtype=np.intc)
        same = (batch[1:] == batch[:-1]) & (batch[1:] >= 0) & (seconds[1:] == seconds[:-1])
        ended = ended.copy()
        ended[1:] &= ~(same & ended[:-1])
    return np.concatenate([seconds[ended], [attempt.seconds for attempt in earlier]])


def _percentiles(seconds: NDArray[np.float64]) -> Percentiles | None:
    """The percentiles of these times; None if there are none."""
    import numpy as np

    if not len(seconds):
        return None
    return Percentiles(*map(float, np.percentile(seconds, (50, 95, 99))))
