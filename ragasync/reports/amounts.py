"""Round values to try."""

from __future__ import annotations

import math


def rounded(value: float) -> str:
    """Return a value to try, as code: to two digits, or to the unit."""
    if value >= 10:
        return f"{round(value, 1 - math.floor(math.log10(value))):.0f}"
    return f"{value:.2g}"


def above(value: float) -> float:
    """Return the next value above that has one digit: 0.3 for 0.21, 40.0 for 31."""
    if value <= 0:
        return 0.0
    step = 10.0 ** math.floor(math.log10(value))
    return round(math.ceil(value / step - 1e-9) * step, 12)
