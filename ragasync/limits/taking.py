"""Take from several lines in one step, or from none: at once, or by standing in all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ragasync.clock import current_time
from ragasync.limits.queue import LOCK, Claims, Waiter


def take_now(places: Claims) -> float | None:
    """Take from all if all are due and nobody stands in line; return when, or None."""
    with LOCK:
        now = current_time()
        for line, weight in places:
            line.bucket.synchronise(now)
            if not line.is_free() or line.bucket.delay(weight, now) > 0.0:
                return None
        for line, weight in places:
            line.bucket.take(weight, now)
        return now


async def take_in_turn(places: Claims) -> float:
    """
    Wait in line, take from all in one step, and return when.

    Cancelled while it waits, or after its grant and before it ran, it leaves no trace.
    """
    waiter = Waiter(asyncio.get_running_loop().create_future(), places)
    join(waiter)
    while True:
        try:
            await waiter.future
        except asyncio.CancelledError:
            leave(waiter)
            raise
        if (again := stand_again(waiter)) is None:
            assert waiter.granted is not None
            return waiter.granted
        waiter = again


def join(waiter: Waiter) -> None:
    """Stand at the end of every line; from now on the future may be set."""
    with LOCK:
        _enter(waiter)


def exchange(old: Sequence[Waiter], new: Callable[[Sequence[Waiter]], Sequence[Waiter]]) -> None:
    """
    Have waiters leave their lines and others stand, with nobody granted in between.

    Args:
        old: those who leave, unless they have been granted.
        new: returns those who stand from now on, given those who left.
    """
    with LOCK:
        leaving = [waiter for waiter in old if waiter.granted is None]
        for waiter in leaving:
            waiter.unlink()
        for waiter in new(leaving):
            _enter(waiter)
        for waiter in leaving:
            _rouse(waiter.places)


def stand_again(waiter: Waiter) -> Waiter | None:
    """
    Note that one who was granted runs; where a pause came first, have it stand where it stood.

    A grant only wakes a task. Until that runs a limit may have been paused, by a reply that the
    same turn of the loop brought, and whoever then went on would break the pause. So it gives back
    its grant and keeps its place before all who came later.

    Returns:
        Who stands there now; None where nothing is paused, and it may go.
    """
    with LOCK:
        waiter.awake = True
        now = current_time()
        if not any(line.bucket.is_closed(now) for line, _ in waiter.places):
            return None
        assert waiter.granted is not None
        _undo(waiter.places, waiter.granted)
        again = Waiter(waiter.loop.create_future(), waiter.places, waiter.number)
        again.enter()
        waiter.places[0][0].attend(waiter.loop)
        _rouse(waiter.places)  # on other loops, too, somebody is due sooner now
        return again


def leave(waiter: Waiter) -> None:
    """Step out of every line, or give back what was granted and will not be used."""
    with LOCK:
        waiter.awake = True
        if waiter.granted is None:
            waiter.unlink()
        else:
            _undo(waiter.places, waiter.granted)
        _rouse(waiter.places)


def give_back(places: Claims, granted: float) -> None:
    """Undo what was granted at that time; those in line profit at once."""
    with LOCK:
        _undo(places, granted)
        _rouse(places)


def _enter(waiter: Waiter) -> None:
    """Stand in every line, and be served, but never so that it runs before those granted."""
    if not waiter.places:  # there is nothing to wait for
        waiter.grant(current_time(), waiter.loop)
        return
    line, _ = waiter.places[0]  # whoever attends to it attends to the others with it
    if waiter.enter():
        line.attend(waiter.loop)
    else:
        line.attend_soon(waiter)


def _undo(places: Claims, granted: float) -> None:
    """Put back into every bucket what still counts. LOCK is held."""
    now = current_time()
    for line, weight in places:
        line.bucket.give_back(weight, granted, now)


def _rouse(places: Claims) -> None:
    """Have every loop in these lines attend to them. LOCK is held."""
    for line, _ in places:
        line.rouse_all()
