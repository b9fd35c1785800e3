"""Take from several lines in one step, or from none: at once, or by standing in all of them."""

from __future__ import annotations

import asyncio

from ragasync.clock import time_here
from ragasync.limits.line import LOCK, Places, Waiter


def take_now(places: Places) -> float | None:
    """Take from all if all are due and nobody stands in line; return when, or None."""
    with LOCK:
        now = time_here()
        for line, cost in places:
            line.bucket.synchronise(now)
            if line.waiters or line.bucket.delay(cost, now) > 0.0:
                return None
        for line, cost in places:
            line.bucket.take(cost, now)
        return now


async def take_in_turn(places: Places) -> float:
    """
    Wait in line, take from all in one step, and return when.

    Cancelled while it waits, or after its grant and before it ran, it leaves no trace.
    """
    waiter = Waiter(asyncio.get_running_loop().create_future(), places)
    join(waiter)
    try:
        await waiter.future
    except asyncio.CancelledError:
        leave(waiter)
        raise
    waiter.awake = True
    assert waiter.granted is not None
    return waiter.granted


def join(waiter: Waiter) -> None:
    """Stand at the end of every line; from now on the future may be set."""
    if not waiter.places:
        waiter.granted = time_here()
        waiter.tell(waiter.loop)
    with LOCK:
        first_at = [line.append(waiter) for line, _ in waiter.places]
        for (line, _), first in zip(waiter.places, first_at, strict=True):
            line.attend_to(waiter, first)


def leave(waiter: Waiter) -> None:
    """Step out of every line, or give back what was granted and will not be used."""
    with LOCK:
        waiter.awake = True
        if waiter.granted is None:
            waiter.unlink()
        else:
            _undo(waiter.places, waiter.granted)
        _rouse(waiter.places)


def withdraw(waiter: Waiter) -> bool:
    """Step out of every line unless it was granted; say whether it was not."""
    with LOCK:
        if waiter.granted is not None:
            return False
        waiter.unlink()
        _rouse(waiter.places)
        return True


def give_back(places: Places, granted: float) -> None:
    """Undo what was granted at that time; those in line profit at once."""
    with LOCK:
        _undo(places, granted)
        _rouse(places)


def _undo(places: Places, granted: float) -> None:
    """Put back into every bucket what still counts. LOCK is held."""
    now = time_here()
    for line, cost in places:
        line.bucket.give_back(cost, granted, now)


def _rouse(places: Places) -> None:
    """Have every loop in these lines attend to them. LOCK is held."""
    for line, _ in places:
        line.rouse_all()
