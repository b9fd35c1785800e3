"""Money to be read; it has no currency of its own, for nobody said which."""

from __future__ import annotations

import math

MOST_DIGITS = 9
"""Behind the point: below that, every price is nothing."""


def cost_text(amount: float) -> str:
    """Return an amount to be read: `1,234.50`, `0.12`, `0.000345`; never with an exponent."""
    if amount >= 1 or amount <= 0:
        return f"{amount:,.2f}"
    digits = min(MOST_DIGITS, max(2, 2 - math.floor(math.log10(amount))))
    whole, _, rest = f"{amount:.{digits}f}".partition(".")
    return f"{whole}.{rest.rstrip('0'):0<2}"
