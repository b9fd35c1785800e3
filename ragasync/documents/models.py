"""Document and Chunk: the data model of the pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

_NOTHING: Mapping[str, object] = MappingProxyType({})


def _nothing() -> Mapping[str, object]:
    """Default metadata: an empty mapping."""
    return _NOTHING


def _read_only(metadata: Mapping[str, object]) -> Mapping[str, object]:
    """Read-only copy of metadata; the empty mapping is shared."""
    return MappingProxyType(dict(metadata)) if metadata else _NOTHING


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

    def __repr__(self) -> str:
        return f"<Document {self.id!r}: {len(self.text):,} characters>"


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
        chunk, put = object.__new__(Chunk), object.__setattr__
        put(chunk, "text", text)
        put(chunk, "start", start)
        put(chunk, "end", end)
        put(chunk, "metadata", place)
        return chunk

    def __repr__(self) -> str:
        return f"<Chunk {self.start}:{self.end} {self.text[:40]!r}>"
