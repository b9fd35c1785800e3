"""The documents of one source: side by side through the stages, and one outcome for all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from ragasync.documents.errors import IdConflictError
from ragasync.documents.models import Document
from ragasync.documents.stages.failures import (
    FatalStageError,
    PartialDocumentFailure,
    SomeDocumentsRefused,
)
from ragasync.documents.stages.prepare import FailedDocument, PreparedDocument
from ragasync.documents.stages.processed import ProcessedDocument
from ragasync.errors import StageFailure
from ragasync.foreign_errors import is_a

E = TypeVar("E", bound="Document | PreparedDocument | FailedDocument")


class Several(Generic[E]):
    """
    Take the documents of one source through the stages, a few at a time before they are cut.

    Each is stored in its own transaction. One that fails harms no other; but their source fails.

    Args:
        entries: the documents, as far as they came; the list is emptied on the way.
        one: takes one through; calls what it is given when it leaves room for the next.
        at_once: how many may be on their way to the embedder's queue.
    """

    def __init__(
        self,
        entries: Sequence[E],
        one: Callable[[E, Callable[[], None]], Awaitable[ProcessedDocument]],
        max_concurrency: int,
    ) -> None:
        self._entries: list[E | None] = list(entries)
        self._one = one
        self._gate = asyncio.Semaphore(max_concurrency)
        self._done: list[ProcessedDocument | None] = [None] * len(entries)
        self._failed: dict[int, tuple[str, StageFailure]] = {}
        self._ending: Exception | None = None

    async def done(self) -> list[ProcessedDocument]:
        """
        Return what became of the documents.

        Raises:
            StageFailure: some of them failed; its error says which.
            Exception: what ended the run.
        """
        async with asyncio.TaskGroup() as group:
            for place in range(len(self._entries)):
                await self._gate.acquire()
                if self._ending is not None:
                    break
                group.create_task(self._take(place), name="ragasync document")
        if self._ending is not None:
            raise self._ending
        if self._failed:
            self._raise_failures()
        return [each for each in self._done if each is not None]

    async def _take(self, place: int) -> None:
        """Take one document through; all that happens to it is noted."""
        entry = self._entries[place]
        assert entry is not None  # each is taken once
        self._entries[place] = None  # so that what is stored need not stay in memory
        released = False

        def release() -> None:
            nonlocal released
            if not released:
                released = True
                self._gate.release()

        try:
            self._done[place] = await self._one(entry, release)
        except FatalStageError as ending:
            self._ending = self._ending or ending
        except StageFailure as failure:
            document = entry if isinstance(entry, Document) else entry.document
            self._failed[place] = document.id, failure
        except Exception as error:
            self._ending = self._ending or error
        finally:
            release()

    def _raise_failures(self) -> None:
        """Raise the failures of some documents as that of their source."""
        failures = [self._failed[place] for place in sorted(self._failed)]
        _, first = failures[0]
        is_refused = any(is_a(failure.error, IdConflictError) for _, failure in failures)
        kind = SomeDocumentsRefused if is_refused else PartialDocumentFailure
        error = kind.of(failures, len(self._done))
        raise StageFailure(first.stage, error) from first.error
