"""PreparedDocument and ProcessedDocument: the record of a document before and after its stages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from numpy.typing import NDArray

from ragasync._calls.remote_errors import PickledError, aborted_call, pickle_error, unpickle_error
from ragasync._reports.summary import counted
from ragasync.documents.loaders.tables import BAD_ROWS
from ragasync.documents.models import (
    Chunk,
    Document,
    FatalStageError,
    IdConflictError,
    LoadError,
    PartialDocumentFailure,
    SomeDocumentsRefused,
)
from ragasync.documents.sources import Source
from ragasync.documents.splitters import Spans, chunks_at, on_line
from ragasync.documents.stored_state import NOT_STORED, StoredState, Vector, as_array
from ragasync.errors import StageFailure
from ragasync.foreign_errors import is_a


@dataclass(slots=True)
class PreparedDocument:
    """
    The record of a document on its way to the embedder.

    A worker process returns it in columns: see `ChunkColumns`.

    Attributes:
        document: the document.
        chunks: its chunks, with locations.
        fingerprint: the fingerprint to store it with; empty if no store can look it up.
        stored: what the store has under its id.
        unchanged: whether that is this very document, so that nothing has to be embedded.
        is_certain: whether that is known; otherwise it counts as unchanged.
        vectors: the vectors that the store has of its chunks; None if it has none.
        failure: the error that ended its preparation, in the envelope of its stage.
        without_text: whether a worker has found the stored fingerprint and returned no text.
    """

    document: Document
    chunks: Sequence[Chunk] = ()
    fingerprint: str = ""
    stored: StoredState = NOT_STORED
    unchanged: bool = False
    is_certain: bool = True
    vectors: Sequence[Vector | None] | None = None
    failure: BaseException | None = None
    without_text: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it goes on to the embedder."""
        return self.failure is None and not self.unchanged

    @property
    def places_to_embed(self) -> Sequence[int]:
        """Positions of the chunks whose vectors the store does not have."""
        if self.vectors is None:
            return range(len(self.chunks))
        return [place for place, vector in enumerate(self.vectors) if vector is None]

    def with_embeddings(self, made: Sequence[Any]) -> Sequence[Any]:
        """Vectors of all chunks, given those that the store did not have."""
        if self.vectors is None:
            return made
        given = iter(made)
        return [next(given) if vector is None else vector for vector in self.vectors]

    def __reduce__(self) -> tuple[Callable[..., PreparedDocument], tuple[Any, ...]]:
        """Pickle what the steps without the store have found out; no other step leaves here."""
        document = self.document
        chunks = ChunkColumns.of(document, self.chunks) or list(self.chunks)
        failure = None if self.failure is None else _pickle_failure(self.failure)
        return _unpickle, (document, chunks, self.fingerprint, self.without_text, failure)


Prepared: TypeAlias = PreparedDocument | list[PreparedDocument]
"""The document of a source, or the list of its documents if the loader returned an iterable."""


def as_list(prepared: Prepared) -> list[PreparedDocument]:
    """The documents of a source as a list."""
    return prepared if isinstance(prepared, list) else [prepared]


# ── the pickled form ────────────────────────────────────────────────────────────────────────────


class ChunkColumns(NamedTuple):
    """
    The chunks of a document as columns of plain data.

    Texts that are slices of the document's text are left out, which halves the data; a pickled
    object per chunk would take ten times as long.

    Args:
        starts: the offset of each chunk.
        ends: the offset after each chunk.
        texts: the texts that are no slices, by position.
        lines: the line of each chunk, if that is all of its metadata; else None.
        metadata: the metadata of each chunk, if it has more.
    """

    starts: list[int]
    ends: list[int]
    texts: dict[int, str]
    lines: list[int] | None
    metadata: list[dict[str, object]]

    @classmethod
    def of(cls, document: Document, chunks: Sequence[Chunk]) -> ChunkColumns | None:
        """Make columns of chunks; None if some are of a class of the user's."""
        if not all(type(chunk) is Chunk for chunk in chunks):
            return None
        text = document.text
        lines = _lines_of([chunk.metadata for chunk in chunks])
        return cls(
            [chunk.start for chunk in chunks],
            [chunk.end for chunk in chunks],
            {
                place: chunk.text
                for place, chunk in enumerate(chunks)
                if chunk.text != text[chunk.start : chunk.end]
            },
            lines,
            [dict(chunk.metadata) for chunk in chunks] if lines is None else [],
        )

    def chunks_of(self, document: Document) -> list[Chunk]:
        """Make the chunks of the document again."""
        metadata: Iterable[Mapping[str, object]]
        if self.lines is None:
            metadata = map(MappingProxyType, self.metadata)
        else:
            metadata = map(on_line, self.lines)
        text = document.text
        chunks = [
            Chunk._at(text[start:end], start, end, place)
            for start, end, place in zip(self.starts, self.ends, metadata, strict=True)
        ]
        for place, own in self.texts.items():
            found = chunks[place]
            chunks[place] = Chunk._at(own, found.start, found.end, found.metadata)
        return chunks


def _lines_of(metadata: Iterable[Mapping[str, object]]) -> list[int] | None:
    """The line of each chunk, if its metadata has nothing else; otherwise None."""
    lines = []
    for each in metadata:
        line = each.get("line")
        if len(each) != 1 or type(line) is not int:
            return None
        lines.append(line)
    return lines


def _pickle_failure(failure: BaseException) -> tuple[str, PickledError]:
    """The stage of a failure, and its error in the form in which errors leave a worker."""
    if isinstance(failure, StageFailure):
        stage, error = failure.stage, failure.error
    else:
        stage, error = "chunk", failure  # such as SystemExit; it must not end this process
    return stage, pickle_error(error if isinstance(error, Exception) else aborted_call(error))


def _unpickle(
    document: Document,
    chunks: ChunkColumns | list[Chunk],
    fingerprint: str,
    without_text: bool,
    failure: tuple[str, PickledError] | None,
) -> PreparedDocument:
    """Make a document that a worker has prepared."""
    made = chunks.chunks_of(document) if isinstance(chunks, ChunkColumns) else chunks
    prepared = PreparedDocument(document, made, fingerprint, without_text=without_text)
    if failure is not None:
        stage, pickled = failure
        error = unpickle_error(pickled)
        prepared.failure = StageFailure(stage, error)
        prepared.failure.__cause__ = error
    return prepared


class _MadeWhenRead:
    """
    The attributes of a ProcessedDocument that are made when they are first read.

    A run makes thousands of documents a second, of which most are never looked at.
    """

    __slots__ = ("_spans", "_vectors")

    _spans: Spans
    _vectors: Sequence[Vector]

    if not TYPE_CHECKING:  # a type checker would accept any name

        def __getattr__(self, name: str) -> object:
            """Make an attribute that has not been set, or give it its default."""
            made: object
            if name == "chunks" and self.document is not None:
                made = tuple(chunks_at(self.document, self._spans))
            elif name == "embeddings" and self.document is not None:
                made = as_array(self._vectors)
            else:
                field = self.__dataclass_fields__.get(name)
                if field is None or (made := field.default) is MISSING:
                    raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
            object.__setattr__(self, name, made)
            return made


@dataclass(frozen=True, slots=True, repr=False)
class ProcessedDocument(_MadeWhenRead):
    """
    The result of one document, or of all documents of one source.

    The chunks and embeddings of a short document that nothing stores are made when first read.

    Example:
        >>> from ragasync import AsyncDocumentProcessor
        >>> result = AsyncDocumentProcessor().process_sync([("guide", "A bucket refills.")])
        >>> guide = result[0].value
        >>> guide.id, guide.chunk_count, guide.embeddings.shape
        ('guide', 1, (1, 1024))
        >>> guide.chunks
        (<Chunk 0:17 'A bucket refills.'>,)

    Args:
        id: the document's id; for several documents, the id of their source.
        source: the file or other origin of the document, or None.
        chunk_count: the number of chunks; None for an unchanged document, whose chunks were not
            counted. For several documents, the sum of the known counts.
        unchanged: whether the store had the document already, so that nothing was embedded.
        document: the document; None if a store keeps it, unless `keep_content` is set, and for
            several documents.
        chunks: its chunks; None in the same cases.
        embeddings: a float32 array of shape (chunks, dimension); None in the same cases.
        fingerprint: the fingerprint under which the store has it; empty if the store has none.
        tokens: its share, by text length, of the tokens of the calls that embedded its chunks; None
            if no call reported tokens.
        document_count: the number of documents of the source: 0 if it was skipped.
        documents: each document, if the source has several; else None.
        skipped: the reason why the source was skipped (see `on_unreadable`), or None.
        encoding: the encoding of the file, if not UTF-8; None if several documents differ, or if it
            is not a text file.
        encoding_confidence: the probability of a guessed encoding, from 0 to 1; else None.
        bad_rows: the number of rows of the file that the loader skipped; None if there are none.
    """

    id: str
    source: str | None
    chunk_count: int | None
    unchanged: bool = False
    document: Document | None = None
    chunks: Sequence[Chunk] | None = None
    embeddings: NDArray[Any] | None = None
    fingerprint: str = ""
    tokens: int | None = None
    document_count: int = 1
    documents: Sequence[ProcessedDocument] | None = None
    skipped: str | None = None
    encoding: str | None = None
    encoding_confidence: float | None = None
    bad_rows: int | None = None

    @staticmethod
    def _of_spans(
        document: Document,
        spans: Spans,
        vectors: Sequence[Vector],
        tokens: int | None,
    ) -> ProcessedDocument:
        """The result of a document of which nothing is made yet but the offsets of its chunks."""
        made = _new(ProcessedDocument)
        _set_id(made, document.id)
        _set_source(made, document.source)
        _set_chunk_count(made, len(spans))
        _set_document(made, document)
        _set_tokens(made, tokens)
        _set_spans(made, spans)
        _set_vectors(made, vectors)
        return made

    def __repr__(self) -> str:
        if self.skipped is not None:
            return f"<ProcessedDocument {self.id!r}: skipped, {self.skipped}>"
        state = "unchanged" if self.chunk_count is None else counted(self.chunk_count, "chunk")
        if self.documents is not None:
            state = f"{counted(self.document_count, 'document')}, {state}"
        return f"<ProcessedDocument {self.id!r}: {state}>"


_new = object.__new__
_set_id, _set_source, _set_chunk_count, _set_document, _set_tokens, _set_spans, _set_vectors = (
    getattr(ProcessedDocument, name).__set__
    for name in ("id", "source", "chunk_count", "document", "tokens", "_spans", "_vectors")
)


def facts_of(document: Document) -> dict[str, Any]:
    """What the loader noted about a document, as arguments of ProcessedDocument."""
    encoding = document.metadata.get("encoding")
    confidence = document.metadata.get("encoding_confidence")
    bad_rows = document.metadata.get(BAD_ROWS)
    facts: dict[str, Any] = {"bad_rows": bad_rows} if type(bad_rows) is int else {}
    if isinstance(encoding, str):
        facts["encoding"] = encoding
        facts["encoding_confidence"] = confidence if isinstance(confidence, float) else None
    return facts


def _read_alike(documents: Sequence[ProcessedDocument]) -> dict[str, Any]:
    """Encoding of the documents of one source, if they share one."""
    found = {(each.encoding, each.encoding_confidence) for each in documents}
    if len(found) != 1:
        return {}
    encoding, confidence = found.pop()
    return {"encoding": encoding, "encoding_confidence": confidence}


def merge_documents(
    id_: str, source: str | None, documents: Sequence[ProcessedDocument]
) -> ProcessedDocument:
    """Merge the documents of one source into one ProcessedDocument."""
    bad_rows = [each.bad_rows for each in documents if each.bad_rows is not None]
    chunks = [each.chunk_count for each in documents if each.chunk_count is not None]
    tokens = [each.tokens for each in documents if each.tokens is not None]
    return ProcessedDocument(
        id_,
        source,
        sum(chunks) if chunks or not documents else None,
        unchanged=bool(documents) and all(each.unchanged for each in documents),
        tokens=sum(tokens) if tokens else None,
        document_count=len(documents),
        documents=tuple(documents),
        bad_rows=max(bad_rows, default=None),
        **_read_alike(documents),
    )


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

    @property
    def skips_any(self) -> bool:
        """Whether it skips sources at all."""
        return self.every or bool(self.reasons)

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


async def process_documents(
    documents: list[PreparedDocument],
    process: Callable[[PreparedDocument, Callable[[], None]], Awaitable[ProcessedDocument]],
    max_concurrency: Callable[[], int],
) -> list[ProcessedDocument]:
    """
    Process the documents of one source, a few at a time until they have left the loading stages.

    Each is stored for itself. A failed one affects no other, but their source fails.

    Args:
        documents: the documents; the list is emptied, so that stored ones need not stay in memory.
        process: processes one; it calls its second argument when the next one may start.
        max_concurrency: the number of documents in the loading stages now; it may change.

    Raises:
        StageFailure: some of them failed; its error lists them.
        Exception: the error that ended the run.
    """
    loading, left = 0, asyncio.Event()
    count = len(documents)
    done: list[ProcessedDocument | None] = [None] * count
    failed: dict[int, tuple[str, StageFailure]] = {}
    fatal: list[Exception] = []

    async def process_one(place: int, prepared: PreparedDocument) -> None:
        """Process one document, and note what happened to it."""
        has_left = False

        def leave() -> None:
            nonlocal has_left, loading
            if not has_left:
                has_left = True
                loading -= 1
                left.set()

        try:
            done[place] = await process(prepared, leave)
        except FatalStageError as error:
            fatal.append(error)
        except StageFailure as failure:
            failed[place] = prepared.document.id, failure
        except Exception as error:
            fatal.append(error)
        finally:
            leave()

    documents.reverse()
    try:
        async with asyncio.TaskGroup() as group:
            for place in range(count):
                while loading >= max_concurrency():
                    left.clear()
                    await left.wait()
                if fatal:
                    break
                loading += 1
                group.create_task(process_one(place, documents.pop()), name="ragasync document")
    except asyncio.CancelledError:
        if None in done:
            raise  # otherwise the store was about to acknowledge the last of them
    if fatal:
        raise fatal[0]
    if failed:
        raise _failure_of_source([failed[place] for place in sorted(failed)], count)
    return [each for each in done if each is not None]


def _failure_of_source(failures: Sequence[tuple[str, StageFailure]], count: int) -> StageFailure:
    """Make the failure of a source from those of its documents."""
    _, first = failures[0]
    is_refused = any(is_a(failure.error, IdConflictError) for _, failure in failures)
    kind = SomeDocumentsRefused if is_refused else PartialDocumentFailure
    failure = StageFailure(first.stage, kind.of(failures, count))
    failure.__cause__ = first.error
    return failure
