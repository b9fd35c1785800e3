"""What a document's failure says of itself: its stage, its source, and where it can, its chunk."""

from __future__ import annotations

from collections.abc import Sequence

from ragasync.documents.document import Chunk
from ragasync.errors import StageFailure


class RunEnding(StageFailure):
    """The error of a stage that stopped because of it, so that no other document could pass."""


def note_place(error: Exception, stage: str, place: str) -> None:
    """
    Note on an error where it happened.

    A call may be for the chunks of several documents, whose outcomes then share one error: no
    single place is named on that.
    """
    start = f"in stage {stage}: "
    notes = getattr(error, "__notes__", [])
    for number, note in enumerate(notes):
        if note.startswith(start):
            if note != start + place:
                notes[number] = f"{start}several documents share this error"
            return
    error.add_note(start + place)


def places_of(failed: Sequence[int], chunks: Sequence[Chunk]) -> str:
    """Return which chunks an error is about, given their places in the document in order."""
    first, last = failed[0], failed[-1]
    span = f"(characters {chunks[first].start} to {chunks[last].end})"
    if first == last:
        return f"chunk {first + 1} of {len(chunks)} {span}"
    return f"chunks {first + 1} to {last + 1} of {len(chunks)} {span}"
