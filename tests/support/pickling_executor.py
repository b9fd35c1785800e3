"""An executor that pickles groups and results, and runs each group immediately."""

import pickle
from collections.abc import Callable
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tests.support.services import now


class ByPost(Executor):
    """
    A process pool without the processes.

    Args:
        dies_of: says whether the items of a group crash the worker.
        is_open: whether groups are answered immediately, or when `answer` is called.

    Attributes:
        groups: the items of each group, in order of submission.
        starts: when each was submitted, on the clock of the loop.
        waiting: groups that wait for `answer`.
    """

    def __init__(
        self, dies_of: Callable[[list[Any]], bool] = lambda _: False, *, is_open: bool = True
    ) -> None:
        self._dies_of, self._is_open = dies_of, is_open
        self.groups: list[list[Any]] = []
        self.starts: list[float] = []
        self.waiting: list[tuple[Future[Any], Any]] = []

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Take a group."""
        (group,) = args
        future: Future[Any] = Future()
        self.groups.append(list(group.arguments))
        self.starts.append(now())
        if self._dies_of(list(group.arguments)):
            future.set_exception(BrokenProcessPool("a process ended"))
            return future
        self.waiting.append((future, (function, pickle.dumps(group))))
        if self._is_open:
            self.answer()
        return future

    def answer(self) -> None:
        """Run the waiting groups."""
        while self.waiting:
            future, (function, posted) = self.waiting.pop(0)
            if future.set_running_or_notify_cancel():
                future.set_result(pickle.loads(pickle.dumps(function(pickle.loads(posted)))))
