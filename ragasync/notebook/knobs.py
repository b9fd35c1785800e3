"""The round numbers that a knob of a panel is turned to: each about a quarter above the last."""

from __future__ import annotations

import math
from collections.abc import Iterator

STEPS = ("1", "1.2", "1.5", "2", "2.5", "3", "4", "5", "6", "8")
"""Round numbers, each a fifth to a third above the last; then the same times ten."""

MOST_AT_ONCE = 60_000
SLOWEST = 0.01

WIDE = 64
"""A slider for calls at once goes up to this, or to four times what it begins with."""

RATES = (0.1, 1_000.0)
"""A slider for the rate goes from the one to the other, or to four times what it begins with."""

FREE = 2.0
"""A bound of more than so many times the speed is dropped, where it is not what holds back."""

FAR = 10.0
"""The same where it still seems to: the speed is measured over seconds, clicks come faster."""


def more(at_once: int) -> int:
    """Return the next round number of calls at once."""
    higher = (int(step) for step in _around(at_once) if step.is_integer() and step > at_once)
    return max(at_once, min(next(higher), MOST_AT_ONCE))


def fewer(at_once: int) -> int:
    """Return the round number of calls at once below, at least 1."""
    lower = [int(step) for step in _around(at_once) if step.is_integer() and step < at_once]
    return max(1, lower[-1]) if at_once > 1 else 1


def slower(rate: float | None, speed: float, at_once: int) -> float:
    """
    Return the round rate below this one; below no bound is the present speed.

    Args:
        rate: calls a second, None for no bound.
        speed: calls a second at present; 0 while nobody can tell.
        at_once: calls at once, in place of a speed that nobody can tell.
    """
    if rate is None:
        # To its own steps, so that the first click gives a round number too.
        rate = above(speed or float(at_once))
    return max(SLOWEST, [step for step in _around(rate) if step < rate][-1])


def faster(rate: float | None, speed: float, *, holds_back: bool) -> float | None:
    """
    Return the round rate above this one, or None for no bound where it would bound nothing.

    Args:
        rate: calls a second, None for no bound.
        speed: calls a second at present; 0 while nobody can tell, or nothing goes on.
        holds_back: whether a rate limit is what holds the job back.
    """
    if rate is None:
        return None
    higher = above(rate)
    return None if speed and higher > speed * (FAR if holds_back else FREE) else higher


def at_once_notches(now: int) -> list[int]:
    """Return the round numbers of calls at once that a slider offers."""
    notches = [1]
    while notches[-1] < min(max(WIDE, 4 * now), MOST_AT_ONCE):
        notches.append(more(notches[-1]))
    return notches


def rate_notches(now: float) -> list[float | None]:
    """Return the round rates that a slider offers, and no bound above them all."""
    lowest, highest = RATES
    notches = [lowest]
    while notches[-1] < max(highest, 4 * now):
        notches.append(above(notches[-1]))
    return [*notches, None]


def above(value: float) -> float:
    """Return the next round number."""
    return next(step for step in _around(value) if step > value)


def _around(value: float) -> Iterator[float]:
    """Yield round numbers in order, from well below this one to well above."""
    power = math.floor(math.log10(value))
    for exponent in (power - 1, power, power + 1):
        for step in STEPS:
            yield float(f"{step}e{exponent}")
