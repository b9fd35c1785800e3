"""StoreClaim: lets either the call that stores a document or its cancellation go ahead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

T = TypeVar("T")


class StoreClaim:
    """
    The right to store a document, which a call on a thread and a cancellation compete for.

    A thread cannot be interrupted, so a call that has begun may commit its transaction after the
    run was cancelled. A cancelled document therefore withdraws its claim, and no call begins; if
    one has begun, the document waits for it and has its outcome. So no document is stored and
    counted as cancelled, or as failed after a timeout.

    Attributes:
        stored: whether a call has stored the document.
    """

    __slots__ = ("_claims", "_on_end", "stored")

    def __init__(self) -> None:
        self._claims = [None]  # of two threads, one gets what `list.pop` removes
        self._on_end: Callable[[], object] | None = None
        self.stored = False

    def begin(self) -> bool:
        """Take the claim for a call; False if the document is stored or withdrawn."""
        try:
            self._claims.pop()
        except IndexError:
            return False
        return True

    def end(self, *, stored: bool) -> None:
        """Note the end of a call; after a failure, another attempt may begin."""
        self.stored = stored
        if not stored:
            self._claims.append(None)
        if self._on_end is not None:
            with suppress(RuntimeError):  # the loop is closed, so nobody waits any longer
                self._on_end()

    def attempt(self, store: Callable[[], T]) -> T | None:
        """Call a function that stores the document, unless it is stored or withdrawn."""
        if not self.begin():
            return None
        stored = False
        try:
            value = store()
            stored = not hasattr(type(value), "__await__")  # else the run's loop awaits it
        finally:
            self.end(stored=stored)
        return value

    async def settle(self, grace: float) -> bool:
        """
        Withdraw the claim, or wait for the call that has begun.

        Args:
            grace: seconds to wait; a call that takes longer is abandoned.

        Returns:
            Whether the document is stored.
        """
        ended = asyncio.Event()
        self._on_end = partial(asyncio.get_running_loop().call_soon_threadsafe, ended.set)
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                while not (self.begin() or self.stored):
                    ended.clear()
                    await ended.wait()
        return self.stored
