"""Documents of a store that match conditions, for lists and deletions."""

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
    Documents that match a condition, which does not apply to the metadata of their chunks.

    If the condition has a key that no document has, there is a warning, and no document matches.

    Args:
        documents: All stored documents.
        condition: The condition; None for all.
        all_keys: Returns the metadata keys of documents and of chunks.
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
    Check the argument of a method that takes the id of a document.

    Raises:
        TypeError: It is not a text.
    """
    if not isinstance(document_id, str):
        raise TypeError(
            f"{method} takes a document's id, which is a text, got {document_id!r:.200}: of a "
            "file, it is the absolute path, or the path below root="
        )


def check_delete(document_id: object, where: Filter | None) -> None:
    """
    Check the arguments of `delete`, which needs a document or conditions.

    Raises:
        TypeError: A document and conditions are given, or neither; or the id is not a text.
        ValueError: There is no condition, so that every document would match.
    """
    if (document_id is None) == (where is None):
        raise TypeError("delete takes a document's id, or where= with conditions: pass one of them")
    if document_id is not None:
        check_id(document_id, "delete")
    condition = condition_of(where)
    if where is not None and (condition is None or holds_always(condition)):
        raise ValueError(
            f"delete needs at least one condition, got where={where!r}, which holds of every "
            "document: to start again, open another store"
        )
