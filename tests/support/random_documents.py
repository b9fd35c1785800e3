"""
Random document runs: sources, the faults of each stage, settings, and the use of controls.

The stages are plain functions, because a store fingerprints them; they find the faults of their run
in the world of their context.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from hypothesis import strategies as st

from ragasync import note_usage
from ragasync.documents import Document, MemoryStore
from tests.support.random_schedules import ControlStep, seconds

Fault = Literal[
    "", "load", "lookup", "chunk", "cache", "poison", "busy", "store", "group", "full", "locked"
]
"""
Where a document fails: the embedder is "busy" and the store "locked" only once; "group" makes the
store raise for the whole group of the document, "full" likewise but for this document alone.
"""

PASSING = {"", "busy", "locked"}


@dataclass(frozen=True)
class Text:
    """A document to be: its id, chunks and fault, and the chunks that an earlier run has stored."""

    id: str
    chunks: tuple[str, ...]
    fault: Fault
    before: tuple[str, ...] | None
    seconds: float

    @property
    def is_unchanged(self) -> bool:
        """Whether the earlier run has stored this version."""
        return self.before == self.chunks

    @property
    def document(self) -> Document:
        """The document of this text."""
        return Document(self.id, " ".join(self.chunks))


@dataclass(frozen=True)
class TextSource:
    """A source of one document, or of a list of them."""

    name: str
    texts: tuple[Text, ...]
    is_list: bool

    @property
    def before(self) -> TextSource | None:
        """The source as the earlier run had it; None if it had not."""
        if any(text.before is None for text in self.texts):
            return None
        old = tuple(replace(text, chunks=text.before or (), fault="") for text in self.texts)
        return replace(self, texts=old)


@dataclass(frozen=True)
class RunOptions:
    """The settings of a run, and the kinds of its stages and of its store."""

    kind: Literal["many", "single", "function", "async function", "sqlite", "none"]
    has_async_stages: tuple[bool, bool, bool]
    has_journal: bool
    max_concurrency: int
    batch_size: int
    embed_concurrency: int
    store_concurrency: int
    max_errors: int | None
    max_cost: float | None


@dataclass
class World:
    """The faults of one run, and what its stages saw."""

    texts: dict[str, Text]
    heals: bool = False
    spent: set[str] = field(default_factory=set)
    embedded: Counter[str] = field(default_factory=Counter)
    loading: int = 0
    most_loading: int = 0
    open: set[str] = field(default_factory=set)
    most_open: int = 0

    def fault_of(self, id_: str) -> Fault:
        """The fault of a document in this run."""
        return "" if self.heals else self.texts[id_].fault

    def has_passing(self, fault: Fault, ids: Iterable[str]) -> bool:
        """Whether one of these documents has a fault that passes, and has not had it yet."""
        due = {id_ for id_ in ids if self.fault_of(id_) == fault} - self.spent
        self.spent |= due
        return bool(due)


_world: ContextVar[World] = ContextVar("world")


def enter(world: World) -> World:
    """Let the stages find this world."""
    _world.set(world)
    return world


def id_in(text: str) -> str:
    """The id of the document that a chunk is of."""
    return text.partition(":")[0]


def vector_of(text: str) -> list[float]:
    """The vector of a chunk, by which it can be recognized."""
    return [float(zlib.crc32(text.encode()) % 65_521), float(len(text)), 1.0]


# ── stages ──────────────────────────────────────────────────────────────────────────────────────


def load(source: TextSource) -> Document | list[Document]:
    """Load the documents of a source."""
    world = _world.get()
    if any(world.fault_of(text.id) == "load" for text in source.texts):
        raise OSError(f"{source.name} cannot be read")
    documents = [text.document for text in source.texts]
    return documents if source.is_list else documents[0]


async def load_async(source: TextSource) -> Document | list[Document]:
    """Load the documents of a source after a while."""
    world = _world.get()
    world.loading += 1
    world.most_loading = max(world.most_loading, world.loading)
    try:
        await asyncio.sleep(source.texts[0].seconds)
    finally:
        world.loading -= 1
    return load(source)


def chunk(text: str) -> list[str]:
    """Split a text into its words."""
    words = text.split()
    if words and _world.get().fault_of(id_in(words[0])) == "chunk":
        raise ValueError(f"{text} cannot be split")
    return words


async def chunk_async(text: str) -> list[str]:
    """Split a text into its words, in a turn of the loop of its own."""
    await asyncio.sleep(0)
    words = chunk(text)
    if words:
        world = _world.get()
        world.open.add(id_in(words[0]))
        world.most_open = max(world.most_open, len(world.open))
    return words


def embed(texts: Sequence[str]) -> np.ndarray:
    """Embed texts, unless one of them is poison or the embedder is busy."""
    world = _world.get()
    if world.has_passing("busy", map(id_in, texts)):
        raise ConnectionError("the embedder is busy")
    for text in texts:
        if world.fault_of(id_in(text)) == "poison" and text.endswith(":0"):
            world.open.discard(id_in(text))
            raise ValueError(f"{text} cannot be embedded")
    note_usage(cost=1.0)
    world.embedded.update(texts)
    return np.array([vector_of(text) for text in texts], dtype=np.float32)


async def embed_async(texts: Sequence[str]) -> np.ndarray:
    """Embed texts after a while."""
    await asyncio.sleep(max(_world.get().texts[id_in(text)].seconds for text in texts))
    return embed(texts)


STAGES = {"load": (load, load_async), "chunk": (chunk, chunk_async), "embed": (embed, embed_async)}


# ── stores ──────────────────────────────────────────────────────────────────────────────────────


def fail_before_storing(ids: Sequence[str]) -> None:
    """Raise the error of storing these documents together."""
    world = _world.get()
    world.open.difference_update(ids)
    if world.has_passing("locked", ids):
        raise ConnectionError("the store is locked")
    for id_ in ids:
        if world.fault_of(id_) in ("store", "group"):
            raise ValueError(f"{id_} cannot be stored")


class TextStore:
    """A store of documents in a dict, which takes them one after the other."""

    embedder = None

    def __init__(self) -> None:
        self.kept: dict[str, tuple[list[str], list[list[float]]]] = {}
        self.fingerprints: dict[str, str] = {}

    def contents(self) -> dict[str, tuple[list[str], list[list[float]]]]:
        """The chunks and vectors of each stored document."""
        return self.kept

    def fingerprint_of(self, document_id: str) -> str | None:
        """The fingerprint that a document is stored with."""
        world = _world.get(None)  # a journal looks up in a thread without the run's context
        if world is not None and world.fault_of(document_id) == "lookup":
            raise OSError(f"{document_id} cannot be looked up")
        return self.fingerprints.get(document_id)

    def upsert(
        self, document: Any, chunks: Any, embeddings: Any, *, fingerprint: str, embedder: str
    ) -> None:
        """Store a document."""
        fail_before_storing([document.id])
        if _world.get().fault_of(document.id) == "full":
            raise OSError(f"no space left for {document.id}")
        self.kept[document.id] = [chunk.text for chunk in chunks], embeddings.tolist()
        self.fingerprints[document.id] = fingerprint

    def vectors_of(self, embedder: str, texts: Sequence[str]) -> list[Any]:
        """The vectors of stored texts."""
        for text in texts:
            if _world.get().fault_of(id_in(text)) == "cache":
                _world.get().open.discard(id_in(text))
                raise OSError(f"the vector of {text} cannot be read")
        known = dict(pair for kept in list(self.kept.values()) for pair in zip(*kept, strict=True))
        return [np.array(known[text], np.float32) if text in known else None for text in texts]


class GroupStore(TextStore):
    """A store that takes several documents in one call."""

    def upsert_many(self, requests: Sequence[Any], *, embedder: str) -> list[Exception | None]:
        """Store documents; each fails alone unless the whole group cannot be stored."""
        fail_before_storing(
            [
                each.document.id
                for each in requests
                if _world.get().fault_of(each.document.id) != "store"
            ]
        )
        errors: list[Exception | None] = []
        for document, chunks, embeddings, fingerprint in requests:
            try:
                self.upsert(document, chunks, embeddings, fingerprint=fingerprint, embedder="")
                errors.append(None)
            except Exception as error:
                errors.append(error)
        return errors


class SqlStore(MemoryStore):
    """The SQLite store, with the same faults."""

    def contents(self) -> dict[str, tuple[list[str], list[list[float]]]]:
        """The chunks and vectors of each stored document."""
        found = {}
        by = self.stored_embedder()
        for each in self.documents():
            stored = self.get(each.id)
            assert stored is not None
            assert stored.chunks is not None
            texts = [chunk.text for chunk in stored.chunks]
            vectors = [] if by is None else self.vectors_of(by.name, texts)
            found[each.id] = texts, [[] if row is None else row.tolist() for row in vectors]
        return found

    def upsert_many(self, requests: Any, **named: str) -> list[Exception | None]:
        """Store documents in one transaction, unless a fault is due."""
        fail_before_storing([each.document.id for each in requests])
        return super().upsert_many(requests, **named)


class FunctionStore:
    """A function that stores; the store cannot be asked."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[list[str], list[list[float]]]] = {}

    def contents(self) -> dict[str, tuple[list[str], list[list[float]]]]:
        """The chunks and vectors of each stored document."""
        return self.kept

    def call(self, document: Any, chunks: Any, embeddings: Any) -> None:
        """Store a document."""
        fail_before_storing([document.id])
        self.kept[document.id] = [chunk.text for chunk in chunks], embeddings.tolist()

    async def call_async(self, document: Any, chunks: Any, embeddings: Any) -> None:
        """Store a document after a while."""
        await asyncio.sleep(_world.get().texts[document.id].seconds)
        self.call(document, chunks, embeddings)


FAULTS_OF: dict[str, set[Fault]] = {
    "many": set(Fault.__args__),  # type: ignore[attr-defined]
    "single": set(Fault.__args__),  # type: ignore[attr-defined]
    "sqlite": {"", "load", "chunk", "poison", "busy", "store", "group", "locked"},
    "function": {"", "load", "chunk", "poison", "busy", "store", "group", "locked"},
    "async function": {"", "load", "chunk", "poison", "busy", "store", "group", "locked"},
    "none": {"", "load", "chunk", "poison", "busy"},
}
"""The faults that are possible in each kind of store."""


# ── strategies ──────────────────────────────────────────────────────────────────────────────────


options = st.builds(
    RunOptions,
    kind=st.sampled_from(["many", "single", "function", "async function", "sqlite", "none"]),
    has_async_stages=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    has_journal=st.booleans(),
    max_concurrency=st.integers(1, 4),
    batch_size=st.integers(1, 5),
    embed_concurrency=st.integers(1, 3),
    store_concurrency=st.integers(1, 3),
    max_errors=st.sampled_from([None, None, None, 1, 3]),
    max_cost=st.sampled_from([None, None, None, 2.0, 6.0]),
)

_FAULTS: list[Fault] = [*[""] * 12, *Fault.__args__]  # type: ignore[attr-defined]


@st.composite
def text_sources(draw: st.DrawFn) -> list[TextSource]:
    """Draw sources with up to forty documents, of which some share an id."""
    found: list[TextSource] = []
    texts: dict[str, Text] = {}
    for place in range(draw(st.integers(0, 20))):
        size = draw(st.sampled_from([1, 1, 1, 2, 5]))
        own: dict[str, Text] = {}
        for number in range(size):
            id_ = f"{place}.{number}"
            if texts and draw(st.integers(0, 11)) == 0:
                again = draw(st.sampled_from(sorted(texts)))
                own[again] = texts[again]
                continue
            chunks = tuple(f"{id_}:{n}" for n in range(draw(st.sampled_from([0, 1, 2, 3, 9]))))
            fault = draw(st.sampled_from(_FAULTS)) if chunks else ""
            before = draw(st.sampled_from([None, None, None, None, chunks, chunks[::2]]))
            texts[id_] = own[id_] = Text(id_, chunks, fault, before, draw(seconds(1)))
        is_list = size > 1 or draw(st.integers(0, 5)) == 0
        found.append(TextSource(f"source {place}", tuple(own.values()), is_list))
    return found


_settings = ("max_concurrency", "embed_concurrency", "store_concurrency")


@st.composite
def document_steps(draw: st.DrawFn) -> list[ControlStep]:
    """Draw steps of a job's controls, in order; the last one resumes the job."""
    change = st.one_of(
        st.builds(ControlStep, seconds(6), st.sampled_from(["pause", "resume"])),
        st.builds(ControlStep, seconds(6), st.sampled_from(_settings), st.integers(1, 6)),
        st.builds(ControlStep, seconds(6), st.just("rate"), st.sampled_from([None, 2.0, 20.0])),
    )
    steps = draw(st.lists(change, max_size=4))
    if draw(st.integers(0, 2)) == 0:
        steps.append(ControlStep(draw(seconds(6)), "cancel"))
    steps.sort(key=lambda step: step.at)
    return [*steps, ControlStep(steps[-1].at if steps else 0.0, "resume")]
