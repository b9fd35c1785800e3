"""Results made by hand, for tests of what is shown of them."""

from collections.abc import Sequence
from typing import Any

from ragasync import BatchResult, Outcome

# Internals: results with exact times and states, which no run produces on demand.
from ragasync._outcomes.columns import Columns

COLUMNS = [
    "item",
    "status",
    "value",
    "error_type",
    "error_message",
    "attempts",
    "started",
    "seconds",
    "waited",
    "backed_off",
    "batch",
    "stage",
    "worker",
    "traceback",
]

ERROR_COLUMNS = [
    "item",
    "error_type",
    "error_message",
    "attempts",
    "seconds",
    "stage",
    "started",
    "waited",
    "backed_off",
    "batch",
    "worker",
    "traceback",
]


def result_of(outcomes: Sequence[Outcome[Any, Any]], **facts: Any) -> BatchResult[Any]:
    """Return the result that these outcomes are, in order."""
    columns: Columns[Any, Any] = Columns(items=[outcome.item for outcome in outcomes])
    for outcome in outcomes:
        if outcome.status != "pending":
            columns.record(outcome, outcome.traceback)
    return BatchResult.of(columns, **facts)


def failed(index: int, error: BaseException, **facts: Any) -> Outcome[Any, Any]:
    """Return the outcome of an item that failed at its first attempt."""
    facts = {"item": f"item {index}", "attempts": 1, "worker": 0, **facts}
    return Outcome(index, status="failed", error=error, **facts)


def done(index: int, **facts: Any) -> Outcome[Any, Any]:
    """Return the outcome of an item that succeeded at its first attempt."""
    facts = {"item": f"item {index}", "value": index, "attempts": 1, "worker": 0, **facts}
    return Outcome(index, status="done", **facts)


def pending(index: int) -> Outcome[Any, Any]:
    """Return the outcome of an item that was not started."""
    return Outcome(index, f"item {index}", "pending")
