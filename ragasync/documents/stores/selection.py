"""Which documents of a store conditions hold of, for lists and deletions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from ragasync.documents.filters import (
    Condition,
    Filter,
    condition_of,
    holds_always,
    keys_to_know,
    matches,
    warn_of_unknown,
)
from ragasync.documents.store import StoredDocument, StoredDocuments


def selected(
    documents: Sequence[StoredDocument],
    condition: Condition | None,
    all_keys: Callable[[], Collection[str]],
) -> StoredDocuments:
    """
    Return the documents that a condition holds of, whatever their chunks have besides.

    None of them where it asks for a key that no document has; a warning says so.

    Args:
        documents: All that are stored.
        condition: What has to hold; None for all.
        all_keys: Gives the metadata keys of documents and of chunks.
    """
    if condition is None:
        return StoredDocuments(documents)
    known = {key for document in documents for key in document.metadata}
    unknown = [key for key in keys_to_know(condition) if key not in known] if documents else []
    if unknown:
        warn_of_unknown(unknown, known, all_keys(), stacklevel=4)
        return StoredDocuments()
    return StoredDocuments(
        each for each in documents if matches(condition, each.id, each.source, each.metadata, {})
    )


def check_id(document_id: object, method: str) -> None:
    """
    Check the id that a method of a store is given.

    Raises:
        TypeError: It is no text.
    """
    if not isinstance(document_id, str):
        raise TypeError(
            f"{method} takes a document's id, which is a text, got {document_id!r:.200}: of a "
            "file, it is the absolute path, or the path below root="
        )


def check_delete(document_id: object, where: Filter | None) -> None:
    """
    Refuse to delete nothing in particular.

    Raises:
        TypeError: A document and conditions are given, or neither; or the id is no text.
        ValueError: There is no condition, which would hold of everything.
    """
    if (document_id is None) == (where is None):
        raise TypeError("delete takes a document's id, or where= with conditions: pass one of them")
    if document_id is not None:
        check_id(document_id, "delete")
    condition = condition_of(where)
    if where is not None and (condition is None or holds_always(condition)):
        raise ValueError(
            f"delete needs at least one condition, got where={where!r}, which holds of every "
            "document: to begin anew, open another store"
        )
