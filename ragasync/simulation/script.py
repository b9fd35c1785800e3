"""What a scripted service is told: checked once, and shared by all of its copies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ragasync.arguments import check_count, check_number, check_positive
from ragasync.simulation.latency import Latency, LatencyLike, as_latency

USUAL_ERROR = 503
"""The status of a failure that may pass, where none is named."""


@dataclass(frozen=True, slots=True)
class Script:
    """The settings of a ScriptedService; see there for their meaning."""

    latency: Latency
    error_rates: tuple[tuple[int, float], ...]
    permanent_error_rate: float
    rate: float | None
    capacity: int | None
    slow_start: float
    outages: tuple[tuple[float, float], ...]

    @classmethod
    def of(
        cls,
        latency: LatencyLike,
        error_rate: float | Mapping[int, float],
        permanent_error_rate: float,
        rate: float | None,
        capacity: int | None,
        slow_start: float,
        outages: Iterable[tuple[float, float]],
    ) -> Script:
        """Return a script, checked."""
        if rate is not None:
            check_positive("rate", rate)
        if capacity is not None:
            check_count("capacity", capacity, at_least=1)
        check_number("slow_start", slow_start)
        return cls(
            as_latency(latency),
            _checked_rates(error_rate),
            check_share("permanent_error_rate", permanent_error_rate),
            rate,
            capacity,
            slow_start,
            tuple(map(_checked_outage, outages)),
        )

    @property
    def is_steady(self) -> bool:
        """Whether a call takes as long whenever it comes."""
        return self.capacity is None and not self.slow_start

    @property
    def may_refuse(self) -> bool:
        """Whether a call may be refused without being looked at."""
        return bool(self.outages) or self.rate is not None or self.capacity is not None

    @property
    def may_fail(self) -> bool:
        """Whether a call that is served may fail."""
        return bool(self.error_rates) or self.permanent_error_rate > 0.0


def check_share(name: str, value: float) -> float:
    """Return a share between 0 and 1; refuse everything else."""
    check_number(name, value)
    if value > 1:
        raise ValueError(f"{name} must be a share between 0 and 1 (0.05 for 5%), got {value!r}")
    return value


def _checked_rates(given: float | Mapping[int, float]) -> tuple[tuple[int, float], ...]:
    """Return shares of failures by status, without those that never happen."""
    if not isinstance(given, Mapping):
        given = {USUAL_ERROR: check_share("error_rate", given)}
    for status, rate in given.items():
        if type(status) is not int or not 400 <= status <= 599:
            raise ValueError(
                f"error_rate by status must be of HTTP statuses from 400 to 599, as "
                f"{{503: 0.02}}, got {status!r}"
            )
        check_share(f"error_rate of {status}", rate)
    if sum(given.values()) > 1:
        raise ValueError(f"the shares of error_rate must add up to at most 1, got {given!r}")
    return tuple((status, rate) for status, rate in given.items() if rate)


def _checked_outage(given: tuple[float, float]) -> tuple[float, float]:
    """Return an outage as its beginning and its end."""
    try:
        begin, end = given
    except (TypeError, ValueError):
        raise TypeError(
            f"an outage must be a pair of seconds, from when until when, got {given!r}"
        ) from None
    check_number("the beginning of an outage", begin)
    check_number("the end of an outage", end, at_least=begin)
    return float(begin), float(end)
