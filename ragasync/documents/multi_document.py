"""The documents of one source: processed concurrently, with one outcome for all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from ragasync.documents.errors import (
    FatalStageError,
    IdConflictError,
    PartialDocumentFailure,
    SomeDocumentsRefused,
)
from ragasync.documents.prepared import PreparedDocument
from ragasync.documents.processed import ProcessedDocument
from ragasync.errors import StageFailure
from ragasync.foreign_errors import is_a


async def process_documents(
    documents: list[PreparedDocument],
    process: Callable[[PreparedDocument, Callable[[], None]], Awaitable[ProcessedDocument]],
    max_concurrency: Callable[[], int],
) -> list[ProcessedDocument]:
    """
    Process the documents of one source, a few at a time until they have left the loading stages.

    Each is stored for itself. A failed one affects no other, but their source fails.

    Args:
        documents: the documents; the list is emptied, so that stored ones need not stay in memory.
        process: processes one; it calls its second argument when the next one may start.
        max_concurrency: the number of documents in the loading stages now; it may change.

    Raises:
        StageFailure: some of them failed; its error lists them.
        Exception: the error that ended the run.
    """
    loading, left = 0, asyncio.Event()
    count = len(documents)
    done: list[ProcessedDocument | None] = [None] * count
    failed: dict[int, tuple[str, StageFailure]] = {}
    fatal: list[Exception] = []

    async def process_one(place: int, prepared: PreparedDocument) -> None:
        """Process one document, and note what happened to it."""
        has_left = False

        def leave() -> None:
            nonlocal has_left, loading
            if not has_left:
                has_left = True
                loading -= 1
                left.set()

        try:
            done[place] = await process(prepared, leave)
        except FatalStageError as error:
            fatal.append(error)
        except StageFailure as failure:
            failed[place] = prepared.document.id, failure
        except Exception as error:
            fatal.append(error)
        finally:
            leave()

    documents.reverse()
    async with asyncio.TaskGroup() as group:
        for place in range(count):
            while loading >= max_concurrency():
                left.clear()
                await left.wait()
            if fatal:
                break
            loading += 1
            group.create_task(process_one(place, documents.pop()), name="ragasync document")
    if fatal:
        raise fatal[0]
    if failed:
        raise _failure_of_source([failed[place] for place in sorted(failed)], count)
    return [each for each in done if each is not None]


def _failure_of_source(failures: Sequence[tuple[str, StageFailure]], count: int) -> StageFailure:
    """Make the failure of a source from those of its documents."""
    _, first = failures[0]
    is_refused = any(is_a(failure.error, IdConflictError) for _, failure in failures)
    kind = SomeDocumentsRefused if is_refused else PartialDocumentFailure
    failure = StageFailure(first.stage, kind.of(failures, count))
    failure.__cause__ = first.error
    return failure
