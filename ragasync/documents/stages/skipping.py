"""Which sources that cannot be read are passed over instead of failing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ragasync.documents.document import Document
from ragasync.documents.errors import LoadError
from ragasync.documents.sources.finding import Source
from ragasync.documents.stages.processed import ProcessedDocument
from ragasync.errors import StageFailure
from ragasync.foreign_errors import is_a


@dataclass(frozen=True, slots=True)
class Skips:
    """
    Says what becomes of a source that exists but holds no text.

    Args:
        every: whether it is passed over whatever the reason.
        reasons: else the reasons for which it is.
    """

    every: bool = False
    reasons: frozenset[str] = frozenset()

    @classmethod
    def of(cls, given: bool | Collection[str]) -> Skips:
        """
        Return what was given as `skip_unreadable`.

        Raises:
            TypeError: it is neither a bool nor a collection of texts.
        """
        if isinstance(given, bool):
            return cls(every=given)
        if (
            isinstance(given, str)
            or not isinstance(given, Collection)
            or not all(isinstance(reason, str) for reason in given)
        ):
            raise TypeError(
                f"skip_unreadable must be True, False or a collection of reasons such as "
                f"{{'binary', 'empty'}}, got {given!r:.200}"
            )
        return cls(reasons=frozenset(given))

    def covers(self, reason: str) -> bool:
        """Return whether a source is passed over that cannot be read for this reason."""
        return self.every or reason in self.reasons

    def skipped(self, source: object, failure: StageFailure) -> ProcessedDocument | None:
        """Return what a source counts as that failed, if it is passed over."""
        error = failure.error
        if failure.stage != "load" or not is_a(error, LoadError):
            return None
        if not self.covers(error.reason):
            return None
        return ProcessedDocument(
            id_of(source), source_path(source), 0, document_count=0, skipped=error.reason
        )


def id_of(source: object) -> str:
    """Return what a source is known by, be it a Source or whatever a loader takes."""
    found = getattr(source, "id", source)
    return found if isinstance(found, str) else f"{found!s:.500}"


def source_path(source: object) -> str | None:
    """Return where the documents of a source come from, as these say it."""
    if isinstance(source, Source | Document):
        return source.source
    return source if isinstance(source, str) else None
