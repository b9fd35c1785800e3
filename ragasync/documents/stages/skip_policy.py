"""SkipPolicy: which unreadable sources are skipped instead of failing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ragasync.documents.errors import LoadError
from ragasync.documents.models import Document
from ragasync.documents.sources import Source
from ragasync.documents.stages.processed import ProcessedDocument
from ragasync.errors import StageFailure
from ragasync.foreign_errors import is_a


@dataclass(frozen=True, slots=True)
class SkipPolicy:
    """
    Which sources are skipped that exist but cannot be read as text.

    Args:
        every: whether all of them are.
        reasons: else the reasons of LoadErrors for which a source is skipped.
    """

    every: bool = False
    reasons: frozenset[str] = frozenset()

    @classmethod
    def of(cls, given: str | Collection[str]) -> SkipPolicy:
        """
        Parse the argument `on_unreadable`.

        Raises:
            TypeError: it is neither "fail" nor "skip" nor a collection of strings.
        """
        if isinstance(given, str) and given in ("fail", "skip"):
            return cls(every=given == "skip")
        if (
            isinstance(given, str)
            or not isinstance(given, Collection)
            or not all(isinstance(reason, str) for reason in given)
        ):
            raise TypeError(
                f"on_unreadable must be 'fail', 'skip' or a collection of reasons such as "
                f"{{'binary', 'empty'}}, got {given!r:.200}"
            )
        return cls(reasons=frozenset(given))

    def covers(self, reason: str) -> bool:
        """Whether a source with a LoadError of this reason is skipped."""
        return self.every or reason in self.reasons

    def skipped(self, source: object, failure: StageFailure) -> ProcessedDocument | None:
        """Result of a failed source if it is skipped, else None."""
        error = failure.error
        if failure.stage != "load" or not is_a(error, LoadError):
            return None
        if not self.covers(error.reason):
            return None
        return ProcessedDocument(
            id_of(source), source_path(source), 0, document_count=0, skipped=error.reason
        )


def id_of(source: object) -> str:
    """Id of a source, which may be anything that a loader accepts."""
    found = getattr(source, "id", source)
    return found if isinstance(found, str) else f"{found!s:.500}"


def source_path(source: object) -> str | None:
    """The `source` of the documents that are loaded from a source."""
    if isinstance(source, Source | Document):
        return source.source
    return source if isinstance(source, str) else None
