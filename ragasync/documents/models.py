"""The nouns of the pipeline: a document, and a chunk of its text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

_NOTHING: Mapping[str, object] = MappingProxyType({})


def _nothing() -> Mapping[str, object]:
    """Return the metadata of what has none."""
    return _NOTHING


def _read_only(metadata: Mapping[str, object]) -> Mapping[str, object]:
    """Return a copy that nobody can write to; the empty one is shared by all."""
    return MappingProxyType(dict(metadata)) if metadata else _NOTHING


@dataclass(frozen=True, slots=True, repr=False)
class Document:
    """
    Hold one text under the id that it is stored by.

    Example:
        >>> from ragasync.documents import Document
        >>> document = Document("guide", "A bucket refills.", {"lang": "en"})
        >>> document
        <Document 'guide': 17 characters>
        >>> document.metadata["lang"]
        'en'

    Args:
        id: What the store knows it by: a second document of the same id replaces the first.
        text: The whole text, its lines ended by newlines alone where it was loaded from a file.
        metadata: Whatever else is known of it; copied, and read-only from then on.
        source: Where it came from, a full path for instance; None for a text given as it is.
        file: The id of the file that a run has loaded it from; None for a document that the user
            made, which no pruning removes, whatever its source is.

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
        """Check what would fail late and far from here, and make the metadata read-only."""
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
        """Travel to another process: a read-only mapping cannot be pickled, a dict can."""
        return type(self), (self.id, self.text, dict(self.metadata), self.source, self.file)

    def __repr__(self) -> str:
        return f"<Document {self.id!r}: {len(self.text):,} characters>"


@dataclass(frozen=True, slots=True, repr=False)
class Chunk:
    """
    Hold a piece of a document's text that is embedded on its own.

    The splitters of this package cut and never rewrite:
    `document.text[chunk.start:chunk.end] == chunk.text` holds for each of their chunks.

    Example:
        >>> from ragasync.documents import Chunk, Document
        >>> document = Document("guide", "A bucket refills. It is never over full.")
        >>> chunk = Chunk(document.text[18:], 18, 40, {"topic": "limits"})
        >>> chunk
        <Chunk 18:40 'It is never over full.'>

    Args:
        text: The piece itself.
        start: The offset of its first character in the document's text.
        end: The offset after its last character.
        metadata: Whatever else is known of it; copied, and read-only from then on.

    Raises:
        TypeError: If `text` is not a str.
        ValueError: If not `0 <= start <= end`.
    """

    text: str
    start: int
    end: int
    metadata: Mapping[str, object] = field(default_factory=_nothing, hash=False)

    def __post_init__(self) -> None:
        """Check what would fail late and far from here, and make the metadata read-only."""
        if not isinstance(self.text, str):
            raise TypeError(f"Chunk.text must be a str, got {self.text!r:.200}")
        if not 0 <= self.start <= self.end:
            raise ValueError(
                f"a chunk needs 0 <= start <= end, got start={self.start!r}, end={self.end!r}"
            )
        if self.metadata is not _NOTHING:
            object.__setattr__(self, "metadata", _read_only(self.metadata))

    def __reduce__(self) -> tuple[type[Chunk], tuple[object, ...]]:
        """Travel to another process: a read-only mapping cannot be pickled, a dict can."""
        return type(self), (self.text, self.start, self.end, dict(self.metadata))

    def _placed(self, place: dict[str, object]) -> Chunk:
        """Return the same chunk with its place in its metadata, where its own goes over that."""
        if self.metadata:
            place |= self.metadata
        return Chunk._at(self.text, self.start, self.end, MappingProxyType(place))

    @staticmethod
    def _at(text: str, start: int, end: int, place: Mapping[str, object]) -> Chunk:
        """
        Return a chunk of our own making, with its place as its metadata.

        Nothing is copied or checked, because every chunk of every document passes here: so the
        mapping must be one that nobody can write to.
        """
        chunk, put = object.__new__(Chunk), object.__setattr__
        put(chunk, "text", text)
        put(chunk, "start", start)
        put(chunk, "end", end)
        put(chunk, "metadata", place)
        return chunk

    def __repr__(self) -> str:
        return f"<Chunk {self.start}:{self.end} {self.text[:40]!r}>"
