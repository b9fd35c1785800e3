"""What may be given as sources, and the items that become of them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Iterable, Sequence
from typing import Any, TypeAlias, cast

from ragasync.documents.document import Document
from ragasync.documents.own_files import without_own
from ragasync.documents.sources import Origin, Source, find_sources

Sources: TypeAlias = (
    str | os.PathLike[str] | Source | Document | Iterable[object] | AsyncIterable[object]
)
"""What may be processed; see `AsyncDocumentProcessor.process`."""


def items_of(
    sources: Sources, *, as_given: bool, own: Sequence[object]
) -> Iterable[Any] | AsyncIterable[Any]:
    """
    Return what there is to process: a list where it is finite anyway, for the progress.

    Args:
        sources: what was given.
        as_given: whether a `load` of the caller's own takes what is in an iterable: then only a
            single path is walked.
        own: the paths of the pipeline's own databases, which are passed over.
    """
    if isinstance(sources, AsyncIterable):
        return sources
    if isinstance(sources, str | os.PathLike | Source | Document):
        return list(without_own(find_sources(sources), own))
    if as_given:
        return sources
    found = without_own(find_sources(cast("Iterable[Origin]", sources)), own)  # each is checked
    return list(found) if isinstance(sources, Sequence) else found
