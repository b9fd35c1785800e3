"""The rate limit that binds a run, and advice to change that limit and keep the others."""

from __future__ import annotations

from ragasync._outcomes.stats import Limit, RunSettings
from ragasync._reports.summary import per_second
from ragasync._reports.time_breakdown import RunDiagnosis

MOSTLY_USED = 0.7
"""The share of a limit in use from which it binds, although the use of another is not known."""


def has_plain_limit(settings: RunSettings) -> bool:
    """Whether RateLimiter(rate) says all about the limits: at most one, of requests a second."""
    limits = settings.limits
    return len(limits) < 2 and all(
        limit.window is None and not limit.weighs and limit.unit == "requests" for limit in limits
    )


def binding_limit(run: RunDiagnosis) -> Limit | None:
    """Find the limit of which the run has used the largest share; None if that is not known."""
    shares = [(_share(limit, run), limit) for limit in run.settings.limits]
    known = [(share, limit) for share, limit in shares if share is not None]
    unknown = [limit for share, limit in shares if share is None]
    share, limit = max(known, key=lambda pair: pair[0], default=(0.0, None))
    if not unknown or share >= MOSTLY_USED:
        return limit
    return unknown[0] if len(unknown) == 1 else None


def _share(limit: Limit, run: RunDiagnosis) -> float | None:
    """The share of a limit that the run has used; None if that is not known."""
    if limit.rate is None:
        return None
    if limit.unit == "tokens":
        return run.tokens_per_second / limit.rate if run.tokens_per_second else None
    return None if limit.weighs else run.calls_per_second / limit.rate


def limit_name(limit: Limit) -> str:
    """Name a limit by what it counts, with its rate: `limit of tokens (200,000 a minute)`."""
    return f"limit of {_unit(limit)}{f' ({per_minute(limit.rate)})' if limit.rate else ''}"


def _unit(limit: Limit) -> str:
    """What a limit counts."""
    return "weight" if limit.weighs and limit.unit == "requests" else limit.unit


def per_minute(rate: float) -> str:
    """Write a rate per second as one per minute: `200,000 a minute`."""
    return f"{per_second(60 * rate)} a minute"


def keep_others(settings: RunSettings) -> str:
    """Advise to keep the limits that are not changed; empty if there is only one."""
    others = len(settings.limits) - 1
    if others < 1:
        return ""
    return f", with the other {'limit as it is' if others == 1 else 'limits as they are'}"
