"""Acquisition from several wait queues in one step or from none: immediately, or by waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ragasync._limits.queue import LOCK, Claims, Waiter
from ragasync.clock import current_time


def try_acquire_all(claims: Claims) -> float | None:
    """Take all claims if all are due and the queues are empty; return the time, or None."""
    with LOCK:
        now = current_time()
        for queue, weight in claims:
            queue.bucket.sync_clock(now)
            if not queue.is_empty() or queue.bucket.delay(weight, now) > 0.0:
                return None
        for queue, weight in claims:
            queue.bucket.take(weight, now)
        return now


async def acquire_all(claims: Claims) -> float:
    """
    Wait in the queues until all claims are granted in one step; return the time of the grant.

    A cancellation leaves no trace, also one between the grant and the task's next step.
    """
    waiter = Waiter(asyncio.get_running_loop().create_future(), claims)
    enqueue(waiter)
    while True:
        try:
            await waiter.future
        except asyncio.CancelledError:
            abandon(waiter)
            raise
        if (requeued := requeue_if_paused(waiter)) is None:
            assert waiter.granted is not None
            return waiter.granted
        waiter = requeued


def enqueue(waiter: Waiter) -> None:
    """Put a waiter at the end of its queues; from now on its future may be set."""
    with LOCK:
        _enqueue(waiter)


def replace_waiters(
    old: Sequence[Waiter], new: Callable[[Sequence[Waiter]], Sequence[Waiter]]
) -> None:
    """
    Replace waiters in their queues by others, without a grant in between.

    Args:
        old: The waiters to remove, unless they have been granted.
        new: Returns the waiters to add, given those that were removed.
    """
    with LOCK:
        leaving = [waiter for waiter in old if waiter.granted is None]
        for waiter in leaving:
            waiter.dequeue()
        for waiter in new(leaving):
            _enqueue(waiter)
        for waiter in leaving:
            _notify_all(waiter.claims)


def requeue_if_paused(waiter: Waiter) -> Waiter | None:
    """
    Note that a granted waiter's task runs; if a limit was paused meanwhile, requeue the waiter.

    A grant only wakes a task. Before that runs, a limit may have been paused by a response in the
    same loop iteration, and continuing would break the pause. So the grant is refunded, and the
    waiter gets its old position in the queues back.

    Returns:
        The new waiter in that position, or None if no limit is paused and the caller may go on.
    """
    with LOCK:
        waiter.has_run = True
        now = current_time()
        if not any(queue.bucket.is_paused(now) for queue, _ in waiter.claims):
            return None
        assert waiter.granted is not None
        _refund(waiter.claims, waiter.granted)
        requeued = Waiter(waiter.loop.create_future(), waiter.claims, waiter.number)
        requeued.enqueue()
        waiter.claims[0][0].dispatch(waiter.loop)
        _notify_all(waiter.claims)  # after the refund, waiters of other loops are due sooner
        return requeued


def abandon(waiter: Waiter) -> None:
    """Remove a waiter from its queues, or refund its grant, which will not be used."""
    with LOCK:
        waiter.has_run = True
        if waiter.granted is None:
            waiter.dequeue()
        else:
            _refund(waiter.claims, waiter.granted)
        _notify_all(waiter.claims)


def refund(claims: Claims, granted: float) -> None:
    """Return a grant made at `granted` to its buckets; waiters may be due sooner."""
    with LOCK:
        _refund(claims, granted)
        _notify_all(claims)


def _enqueue(waiter: Waiter) -> None:
    """Enter the queues and dispatch, but so that the waiter never overtakes granted ones."""
    if not waiter.claims:  # nothing to wait for
        waiter.grant(current_time(), waiter.loop)
        return
    queue, _ = waiter.claims[0]  # its dispatch covers the other queues, which share the waiter
    if waiter.enqueue():
        queue.dispatch(waiter.loop)
    else:
        queue.dispatch_soon(waiter)


def _refund(claims: Claims, granted: float) -> None:
    """Refund the claims to their buckets, except for what has refilled. LOCK is held."""
    now = current_time()
    for queue, weight in claims:
        queue.bucket.refund(weight, granted, now)


def _notify_all(claims: Claims) -> None:
    """Make every loop with waiters in these queues dispatch them. LOCK is held."""
    for queue, _ in claims:
        queue.notify_all()
