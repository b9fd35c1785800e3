"""The journal of a document processor: keys of sources, serialized results, and their validity."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from hashlib import blake2b
from itertools import accumulate, pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from ragasync._function_fingerprint.fingerprint import FunctionFingerprint
from ragasync.documents.config import Stages
from ragasync.documents.document_records import ProcessedDocument, SkipPolicy
from ragasync.documents.models import (
    Chunk,
    Document,
    IdConflictError,
    LoadError,
    SomeDocumentsRefused,
)
from ragasync.documents.sources import RefusedDocument, Source, plain_path
from ragasync.documents.stage import (
    EmbedderIdentity,
    StagesFingerprint,
    content_digest,
    function_name,
)
from ragasync.documents.store import Store
from ragasync.documents.stored_state import supports_identity
from ragasync.documents.unique_sources import NamedFile
from ragasync.journal.journal import Journal, JournalBinding, bind_journal, definition_of
from ragasync.journal.rows import PREVIEW, Key, KeyFunction, make_key
from ragasync.journal.serializers import SERIALIZERS


@dataclass(frozen=True, slots=True)
class SourceKeys:
    """
    Keys of sources in the journal, which differ between sources and between pipelines.

    Args:
        pipeline: names and settings of the stages, so that results of other stages are not reused.
            Their code is not part of it, because people fix a function and resume.
    """

    pipeline: str

    def __call__(self, item: object, key: KeyFunction | None) -> Key:
        """
        Key of a source: of its id and content, or of the result of `key`.

        Raises:
            TypeError: its content cannot be hashed, and there is no `key`.
        """
        if key is not None:
            found = make_key(item.text if isinstance(item, NamedFile) else item, key)
            return self._of("key", found.digest.hex(), found.preview)
        if isinstance(item, RefusedDocument):
            return self._of(item.id, item.why, item.id)
        if isinstance(item, Document):
            return self._of(item.id, repr((item.source, content_digest(item))), item.id)
        if isinstance(item, Source):
            content = item.taken_by or item.barred or make_key(item.path).digest.hex()
            return self._of(item.id, repr((item.source, content)), item.id)
        if isinstance(item, os.PathLike) or _names_a_file(item):
            found = make_key(Path(item))
            return self._of(plain_path(item), found.digest.hex(), found.preview)
        found = make_key(item)
        return self._of("item", found.digest.hex(), found.preview)

    def _of(self, name: str, content: str, shown: str) -> Key:
        whole = repr((self.pipeline, name, content)).encode(errors="surrogatepass")
        return Key(blake2b(whole, digest_size=16).digest(), shown[-PREVIEW:])


@dataclass(frozen=True, slots=True)
class IsStillValid:
    """Checks whether a result in the journal is still valid."""

    store: Store | None
    keeps_nothing: bool
    skip_policy: SkipPolicy

    def __call__(self, source: object, value: ProcessedDocument) -> bool:
        """Whether the store still has what it acknowledged, or the result has its content."""
        if value.skipped is not None:
            return self.skip_policy.covers(value.skipped)
        if value.documents is not None:
            return all(self(source, each) for each in value.documents)
        if self.store is None:
            return value.document is not None or not self.keeps_nothing
        if not supports_identity(self.store):
            return self.store.fingerprint_of(value.id) == value.fingerprint
        stored = self.store.entry_of(value.id)
        if stored is None or (stored.fingerprint, stored.source) != (
            value.fingerprint,
            value.source,
        ):
            return False
        return not (isinstance(source, Source) and _is_touched(source.path, stored.metadata))


def _is_touched(path: Path, metadata: Mapping[str, object]) -> bool:
    """Whether a file has another date than its document's metadata, if that has one."""
    if not isinstance(stored := metadata.get("mtime"), float):
        return False
    try:
        return path.stat().st_mtime != stored
    except OSError:
        return False


def bind_document_journal(
    journal: Journal | str | os.PathLike[str] | None,
    key: KeyFunction | None,
    stages: Stages,
    fingerprint: StagesFingerprint,
    embedder: EmbedderIdentity,
    *,
    keep_content: bool,
    skip_policy: SkipPolicy,
) -> JournalBinding | None:
    """
    Bind a journal to a document processor; None without a journal.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: there is a key, but no journal; or the journal's serializer cannot keep
            documents.
    """
    use = bind_journal(stages.load.function, journal, key)
    if use is None:
        return None
    serializer = use.journal.serializer
    if serializer is not None and serializer.name in ("json", "numpy"):
        raise ValueError(
            f"a journal cannot keep processed documents by the serializer {serializer.name!r}: "
            f"leave serializer= out, and it keeps them in a way of its own"
        )
    keeps_nothing = stages.store is None
    return replace(
        use,
        name="documents",
        functions=_functions_of(stages, fingerprint, embedder),
        make_key=SourceKeys(
            f"load={fingerprint.load.settings}; chunk={fingerprint.chunk.settings}; "
            f"embed={embedder.job}; loaders={fingerprint.loaders}; "
            f"store={_destination(stages)}"
        ),
        has_slow_keys=True,
        serializer=DocumentSerializer(with_content=keep_content or keeps_nothing),
        is_still_valid=IsStillValid(stages.known, keeps_nothing, skip_policy),
        transient_errors=_transient_errors(skip_policy),
        # A store that cannot report what it holds has the last version of each source.
        keys_have_settings=True,
        subject=attrgetter("id") if stages.store is not None and stages.known is None else None,
    )


def _transient_errors(skip_policy: SkipPolicy) -> frozenset[str]:
    """Class names of errors that another run may not have."""
    # The source with the same id may be gone in the next run.
    names = {IdConflictError.__name__, SomeDocumentsRefused.__name__}
    if skip_policy.skips_any:  # the recorded failure may be from before it was asked to
        names.add(LoadError.__name__)
    return frozenset(names)


def _destination(stages: Stages) -> str:
    """Name of a store that cannot report what it holds; empty for another store or none."""
    if stages.store is None or stages.known is not None:
        return ""
    return stages.store.name or function_name(stages.store.fn)  # type: ignore[arg-type]  # or a Store


def _functions_of(
    stages: Stages, fingerprint: StagesFingerprint, embedder: EmbedderIdentity
) -> dict[str, FunctionFingerprint]:
    """Fingerprints of the user's own functions; ours have versions."""
    found = [
        (stages.load, fingerprint.load.name, fingerprint.load.function),
        (stages.chunk, fingerprint.chunk.name, fingerprint.chunk.function),
        (stages.embed, embedder.name, embedder.function),
    ]
    return {
        name: function
        for stage, name, function in found
        if not (definition_of(stage.function).__module__ or "").startswith("ragasync.")
    }


def _names_a_file(item: object) -> TypeGuard[str]:
    return isinstance(item, str) and os.path.isfile(item)  # noqa: PTH113  # it may be any text


# ── results as bytes ────────────────────────────────────────────────────────────────────────────

_CONTENT = ("document", "chunks", "embeddings", "documents")
_FIELDS = tuple(each.name for each in fields(ProcessedDocument) if each.name not in _CONTENT)
"""The fields of a ProcessedDocument that are always written."""


class DocumentSerializer:
    r"""
    Serializes ProcessedDocuments as JSON and raw vectors; reading them never executes code.

    The first line of JSON has ids and counts. If the document has its content, a second line has
    its text and chunks, and the vectors follow as float32, row by row. For several documents of one
    source, the first line has their lengths, and they follow one another.

    Args:
        with_content: whether to read texts and vectors too, if they were written.
    """

    name = "documents"

    def __init__(self, *, with_content: bool) -> None:
        self._with_content = with_content

    def dumps(self, value: object) -> bytes:
        """
        Serialize a document.

        Raises:
            TypeError: it is not a ProcessedDocument, or its metadata would not round-trip.
        """
        if not isinstance(value, ProcessedDocument):
            raise TypeError(f"it is no ProcessedDocument but of type {type(value).__name__}")
        fields = {name: getattr(value, name) for name in _FIELDS}
        if value.documents is not None:
            parts = [self.dumps(each) for each in value.documents]
            return b"\n".join([_line(**fields, documents=list(map(len, parts))), b"".join(parts)])
        head = _line(**fields)
        return head if value.document is None else b"\n".join([head, *_whole(value)])

    def loads(self, data: bytes) -> ProcessedDocument:
        """Deserialize a document."""
        head, _, rest = data.partition(b"\n")
        fields: dict[str, Any] = json.loads(head)
        if (lengths := fields.get("documents")) is not None:
            ends = list(accumulate(lengths, initial=0))
            fields["documents"] = tuple(self.loads(rest[a:b]) for a, b in pairwise(ends))
        elif rest and self._with_content:
            fields |= _parts(rest, fields["id"], fields["source"])
        return ProcessedDocument(**fields)


def _whole(value: ProcessedDocument) -> tuple[bytes, bytes]:
    """The text and the chunks of a document as JSON, and its vectors as bytes."""
    document, chunks = value.document, value.chunks or ()
    assert document is not None  # otherwise there is no content
    text, known = document.text, f"the metadata of document {document.id!r:.200}"
    vectors = np.ascontiguousarray(value.embeddings, dtype="<f4")
    body = _line(
        text=text,
        metadata=_plain(document.metadata, known),
        # Most chunks are parts of the text, so their offsets are enough.
        chunks=[
            (
                None if text[chunk.start : chunk.end] == chunk.text else chunk.text,
                chunk.start,
                chunk.end,
                _plain(chunk.metadata, f"{known}, chunk {number},"),
            )
            for number, chunk in enumerate(chunks, start=1)
        ],
        shape=vectors.shape,
    )
    return body, vectors.tobytes()


def _parts(data: bytes, id_: str, source: str | None) -> dict[str, Any]:
    body, _, vectors = data.partition(b"\n")
    found = json.loads(body)
    text = found["text"]
    rows = np.frombuffer(vectors, dtype="<f4").reshape(found["shape"])
    return {
        "document": Document(id_, text, found["metadata"], source),
        "chunks": tuple(
            Chunk(text[start:end] if piece is None else piece, start, end, metadata)
            for piece, start, end, metadata in found["chunks"]
        ),
        "embeddings": rows.astype(np.float32),  # a copy that can be written to
    }


def _line(**fields: object) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()


def _plain(metadata: Mapping[str, object], what: str) -> dict[str, object]:
    """Metadata as a dict that round-trips through JSON."""
    plain = dict(metadata)
    try:
        SERIALIZERS["json"].dumps(plain)
    except TypeError as error:
        raise TypeError(
            f"because {what} is not plain data ({error}): make it texts, numbers, lists and dicts"
        ) from None
    return plain
