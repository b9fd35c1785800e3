"""Document, Chunk: the data model of the pipeline; LoadError and the other errors of documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Literal, Self, TypeAlias

from ragasync.arguments import explains_arguments
from ragasync.error_text import add_note, describe
from ragasync.errors import JobStopped, RagasyncError, StageFailure
from ragasync.foreign_errors import notes_of
from ragasync.object_views import object_html

_NOTHING: Mapping[str, object] = MappingProxyType({})


def _nothing() -> Mapping[str, object]:
    """Default metadata: an empty mapping."""
    return _NOTHING


def _read_only(metadata: Mapping[str, object]) -> Mapping[str, object]:
    """Read-only copy of metadata; the empty mapping is shared."""
    return MappingProxyType(dict(metadata)) if metadata else _NOTHING


@explains_arguments
@dataclass(frozen=True, slots=True, repr=False)
class Document:
    """
    One text, with the id under which it is stored.

    Example:
        >>> from ragasync.documents import Document
        >>> document = Document("guide", "A bucket refills.", {"lang": "en"})
        >>> document
        <Document 'guide': 17 characters>
        >>> document.metadata["lang"]
        'en'

    Args:
        id: Its id in the store, where a later document with the same id replaces it.
        text: The whole text. Text loaded from a file has only newlines as line ends.
        metadata: Further fields; they are copied and become read-only.
        source: The origin of the text, such as a full path; None for a text without one.
        file: The id of the file that a run loaded it from; None for a document made by the user,
            which pruning never removes, whatever its source.

    Raises:
        TypeError: If `id` or `text` is not a str, or `source` is neither a str nor None.
    """

    id: str
    text: str
    # Left out of the hash because its values may be lists.
    metadata: Mapping[str, object] = field(default_factory=_nothing, hash=False)
    source: str | None = None
    file: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Check the types early, and make the metadata read-only."""
        for name, value in (("id", self.id), ("text", self.text)):
            if not isinstance(value, str):
                raise TypeError(f"Document.{name} must be a str, got {value!r:.200}")
        source: object = self.source
        if source is not None and not isinstance(source, str):
            raise TypeError(
                f"Document.source must be a str or None, got {source!r:.200}: pass str(path)"
            )
        if self.metadata is not _NOTHING:
            object.__setattr__(self, "metadata", _read_only(self.metadata))

    def __reduce__(self) -> tuple[type[Document], tuple[object, ...]]:
        """Pickle the metadata as a dict, because a read-only mapping cannot be pickled."""
        return type(self), (self.id, self.text, dict(self.metadata), self.source, self.file)

    def _of_file(self, file: str) -> Document:
        """The same document as one that was loaded from a file, which may become its source."""
        if type(self) is not Document:
            return replace(self, source=self.source or file, file=file)
        return _checked(self.id, self.text, self.metadata, self.source or file, file)

    @staticmethod
    def _of_pair(id_: str, text: str) -> Document:
        """The document of a pair of strs."""
        return _checked(id_, text, _NOTHING, None, None)

    @property
    def _table_name_(self) -> str:
        """The id, by which tables of results show a document."""
        return self.id

    def __repr__(self) -> str:
        return f"<Document {self.id!r:.200}: {len(self.text):,} characters>"

    def _repr_html_(self) -> str:
        """The fields as a table, with the beginning of the text."""
        facts = [("source", self.source), ("metadata", self.metadata or None)]
        return object_html(self, facts, text=self.text)


@dataclass(frozen=True, slots=True, repr=False)
class Chunk:
    """
    A part of a document's text, which is embedded on its own.

    The splitters of this package do not change the text: for each of their chunks,
    `document.text[chunk.start:chunk.end] == chunk.text`.

    Example:
        >>> from ragasync.documents import Chunk, Document
        >>> document = Document("guide", "A bucket refills. It is never over full.")
        >>> chunk = Chunk(document.text[18:], 18, 40, {"topic": "limits"})
        >>> chunk
        <Chunk 18:40 'It is never over full.'>

    Args:
        text: The text of the chunk.
        start: The offset of its first character in the document's text.
        end: The offset after its last character.
        metadata: Further fields; they are copied and become read-only.

    Raises:
        TypeError: If `text` is not a str.
        ValueError: If not `0 <= start <= end`.
    """

    text: str
    start: int
    end: int
    metadata: Mapping[str, object] = field(default_factory=_nothing, hash=False)

    def __post_init__(self) -> None:
        """Check the types early, and make the metadata read-only."""
        if not isinstance(self.text, str):
            raise TypeError(f"Chunk.text must be a str, got {self.text!r:.200}")
        if not 0 <= self.start <= self.end:
            raise ValueError(
                f"a chunk needs 0 <= start <= end, got start={self.start!r}, end={self.end!r}"
            )
        if self.metadata is not _NOTHING:
            object.__setattr__(self, "metadata", _read_only(self.metadata))

    def __reduce__(self) -> tuple[type[Chunk], tuple[object, ...]]:
        """Pickle the metadata as a dict, because a read-only mapping cannot be pickled."""
        return type(self), (self.text, self.start, self.end, dict(self.metadata))

    def _placed(self, place: dict[str, object]) -> Chunk:
        """The same chunk with its location in its metadata; existing metadata takes precedence."""
        if self.metadata:
            place |= self.metadata
        return Chunk._at(self.text, self.start, self.end, MappingProxyType(place))

    @staticmethod
    def _at(text: str, start: int, end: int, place: Mapping[str, object]) -> Chunk:
        """
        Build a chunk with its location as metadata, without checks.

        Every chunk of every document passes here, so nothing is copied or checked: the mapping
        must be read-only already.
        """
        chunk = _new(Chunk)
        _set_text(chunk, text)
        _set_start(chunk, start)
        _set_end(chunk, end)
        _set_metadata(chunk, place)
        return chunk

    def __repr__(self) -> str:
        return f"<Chunk {self.start}:{self.end} {self.text[:40]!r}>"

    def _repr_html_(self) -> str:
        """The fields as a table, with the beginning of the text."""
        return object_html(self, [("metadata", self.metadata or None)], text=self.text)


_new = object.__new__
# The slots of the frozen classes; `object.__setattr__` would look up each by name.
_set_document_id, _set_document_text, _set_document_metadata, _set_source, _set_file = (
    vars(Document)[name].__set__ for name in ("id", "text", "metadata", "source", "file")
)
_set_text, _set_start, _set_end, _set_metadata = (
    vars(Chunk)[name].__set__ for name in ("text", "start", "end", "metadata")
)


def _checked(
    id_: str, text: str, metadata: Mapping[str, object], source: str | None, file: str | None
) -> Document:
    """Build a document of fields that were checked; every document of a run passes here."""
    document = _new(Document)
    _set_document_id(document, id_)
    _set_document_text(document, text)
    _set_document_metadata(document, metadata)
    _set_source(document, source)
    _set_file(document, file)
    return document


_SHOWN: Final = 5
"""The number of a source's failed documents that its error describes."""

LoadReason: TypeAlias = Literal[
    "binary",
    "csv",
    "docx",
    "empty",
    "encoding",
    "encrypted",
    "html",
    "json lines",
    "link",
    "missing",
    "no id",
    "no loader",
    "no text",
    "not a file",
    "notebook",
    "pdf",
    "too large",
    "wrong type",
]
"""
The reasons of the LoadErrors raised by the loaders of this package.

Example:
    >>> from typing import get_args
    >>> from ragasync.documents import LOAD_REASONS, LoadReason
    >>> set(get_args(LoadReason)) == set(LOAD_REASONS)
    True
"""

LOAD_REASONS = MappingProxyType(
    {
        "binary": "NUL bytes where a text was expected",
        "csv": "a table whose rows do not fit its header, or whose ids are not unique",
        "docx": "a broken or truncated Word document",
        "empty": "only white space, or a header without rows",
        "encoding": "not valid in the declared or given encoding, nor in a likely one",
        "encrypted": "protected by a password",
        "html": "a page that the parser rejects",
        "json lines": "a line that is not JSON, or ids that are not unique",
        "link": "a link that leads out of the folder",
        "missing": "a row of a DataFrame without a text",
        "no id": "a row of a DataFrame without an id",
        "no loader": "a known format without a loader",
        "no text": "a PDF of images, which needs OCR first",
        "not a file": "a pipe, socket or device",
        "notebook": "not the JSON of a Jupyter notebook",
        "pdf": "a broken or truncated PDF",
        "too large": "over the size limit, compressed or uncompressed",
        "wrong type": "a row of a DataFrame with a value that is no id or no text",
    }
)
"""
Each reason and its meaning. Failures are grouped by reason, and `on_unreadable` selects by it.

Example:
    >>> from ragasync.documents import LOAD_REASONS
    >>> LOAD_REASONS["no text"]
    'a PDF of images, which needs OCR first'
"""


class LoadError(RagasyncError, ValueError):
    """
    A source exists but cannot be read as text.

    Example:
        >>> from pathlib import Path
        >>> from ragasync.documents import LoadError, load_source
        >>> _ = Path("notes.txt").write_text("")
        >>> try:
        ...     load_source("notes.txt")
        ... except LoadError as error:
        ...     print(error.reason, "-", error.message)
        empty - a file of 0 bytes

    Args:
        reason: A short reason by which failures are grouped: one of `LOAD_REASONS`, or a custom
            loader's own.
        message: What was expected, what was received, and what to do.
    """

    def __init__(self, reason: LoadReason | str, message: str) -> None:
        # Both stay in `args`, so that the error can be pickled.
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class IdConflictError(RagasyncError, ValueError):
    """
    Two sources have the same id, and the second would replace the first in a store.

    Example:
        >>> from ragasync import AsyncDocumentProcessor
        >>> from ragasync.documents import IdConflictError
        >>> result = AsyncDocumentProcessor().process_sync([("a", "A bucket."), ("a", "A tap.")])
        >>> isinstance(result.errors[1], IdConflictError)
        True

    Args:
        message: the id, both sources, and what to do.
        id: the id of both.
        first: the source that keeps the id.
        second: the source that was refused.
    """

    def __init__(self, message: str, id: str, first: str, second: str) -> None:  # noqa: A002
        super().__init__(message, id, first, second)  # so that it can be pickled
        self.message, self.id, self.first, self.second = message, id, first, second

    def __str__(self) -> str:
        return self.message

    @classmethod
    def between(cls, id_: str, first: str, second: str) -> Self:
        """Error about two sources of one run."""
        return cls(
            f"two sources have the id {id_!r:.200}: {first}, and {second}, which was refused, "
            "because it would replace the other: give each an id of its own",
            id_,
            first,
            second,
        )

    @classmethod
    def with_stored(cls, id_: str, stored: str | None, second: str | None) -> Self:
        """Error about a source whose id is stored for another source."""
        first, new = _described(stored), _described(second)
        moved = (
            f"if it moved, call store.relocate({stored!r}, {second!r}); "
            if stored is not None and second is not None
            else ""
        )
        return cls(
            f"the store has the id {id_!r:.200} for {first}, and this is {new}, which would "
            f"replace it: {moved}give this one an id of its own, or call store.delete(id) first",
            id_,
            first,
            new,
        )


def _described(source: str | None) -> str:
    """Description of a stored source; a document made by the user may have none."""
    return "a document without a source" if source is None else f"the source {source!r:.300}"


class FatalStageError(StageFailure):
    """The error that stopped a stage, so that no other document could pass it."""


class DocumentDeferred(JobStopped):
    """A document was not processed because the run stopped; it stays pending."""


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
        message: the number of failed documents, and the first of them.
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
        Make the error of a source.

        Args:
            failures: the ids of the failed documents, and their failures.
            documents: the number of all its documents.
        """
        shown = [
            f"{id_!r:.200} in stage {failure.stage}: {describe(failure.error):.500}"
            for id_, failure in failures[:_SHOWN]
        ]
        error = cls(
            f"{len(failures):,} of {documents:,} documents failed, the first {shown[0]}",
            tuple(id_ for id_, _ in failures),
        )
        for line in shown:
            error.add_note(line)
        if more := len(failures) - len(shown):
            error.add_note(f"and {more:,} more; see the error's `ids`")
        return error


class SomeDocumentsRefused(PartialDocumentFailure):
    """Some documents of one source failed because other sources have their ids."""


def note_place(error: BaseException, stage: str, place: str) -> None:
    """
    Add a note to an error that says where it happened.

    A call may be for the chunks of several documents, whose outcomes then share one error; its
    note names no single place.
    """
    start = f"in stage {stage}: "
    for number, note in enumerate(notes_of(error)):
        if note.startswith(start):
            if note != start + place:
                error.__notes__[number] = f"{start}several documents share this error"
            return
    add_note(error, start + place)
