"""What a document's failure says of itself: its stage, its source, and where it can, its chunk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from ragasync.documents.models import Chunk
from ragasync.error_text import add_note, describe
from ragasync.errors import JobStopped, RagasyncError, StageFailure
from ragasync.foreign_errors import notes_of

_TOLD = 5
"""How many of a source's failed documents its error tells of one by one."""


class FatalStageError(StageFailure):
    """The error of a stage that stopped because of it, so that no other document could pass."""


class DocumentDeferred(JobStopped):
    """A document could not go on because the run stops: it is left for another run."""


class PartialDocumentFailure(RagasyncError):
    """
    Some of the documents of one source failed; the others are stored.

    Example:
        >>> from ragasync import AsyncDocumentProcessor
        >>> from ragasync.documents import Document
        >>> def load(source):
        ...     return [Document("good", "A bucket refills."), Document("bad", "?")]
        >>> def chunk(text):
        ...     if text == "?":
        ...         raise ValueError("nothing to cut")
        ...     return [text]
        >>> result = AsyncDocumentProcessor(load, chunk).process_sync([("both", "")])
        >>> print(result.errors[0])
        1 of 2 documents failed, the first 'bad' in stage chunk: ValueError: nothing to cut

    Args:
        message: how many documents failed, and the first of them.
        ids: the ids of the failed documents.
    """

    def __init__(self, message: str, ids: tuple[str, ...]) -> None:
        super().__init__(message, ids)  # so that it can be pickled
        self.message, self.ids = message, ids

    def __str__(self) -> str:
        return self.message

    @classmethod
    def of(cls, failures: Sequence[tuple[str, StageFailure]], documents: int) -> Self:
        """
        Return the error of a source.

        Args:
            failures: the ids of those that failed, and why.
            documents: how many there are.
        """
        told = [
            f"{id_!r:.200} in stage {failure.stage}: {describe(failure.error):.500}"
            for id_, failure in failures[:_TOLD]
        ]
        error = cls(
            f"{len(failures):,} of {documents:,} documents failed, the first {told[0]}",
            tuple(id_ for id_, _ in failures),
        )
        for line in told:
            error.add_note(line)
        if more := len(failures) - len(told):
            error.add_note(f"and {more:,} more; see the error's `ids`")
        return error


class SomeDocumentsRefused(PartialDocumentFailure):
    """Some of the documents of one source failed, because other sources have their ids."""


def note_place(error: BaseException, stage: str, place: str) -> None:
    """
    Note on an error where it happened.

    A call may be for the chunks of several documents, whose outcomes then share one error: no
    single place is named on that.
    """
    start = f"in stage {stage}: "
    for number, note in enumerate(notes_of(error)):
        if note.startswith(start):
            if note != start + place:
                error.__notes__[number] = f"{start}several documents share this error"
            return
    add_note(error, start + place)


def places_of(failed: Sequence[int], chunks: Sequence[Chunk]) -> str:
    """Return which chunks an error is about, given their places in the document in order."""
    first, last = failed[0], failed[-1]
    span = f"(characters {chunks[first].start} to {chunks[last].end})"
    if first == last:
        return f"chunk {first + 1} of {len(chunks)} {span}"
    return f"chunks {first + 1} to {last + 1} of {len(chunks)} {span}"
