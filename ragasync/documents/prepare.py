"""Preparation of documents before they are embedded: load, look up, chunk, locate, recall."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from ragasync.documents.adapters import Check, WrappedOutput
from ragasync.documents.document_records import Prepared, PreparedDocument, as_list
from ragasync.documents.embedders import computing_turn
from ragasync.documents.loaders.text import refuse_surrogates
from ragasync.documents.models import Document, IdConflictError
from ragasync.documents.sources import FileIds, RefusedDocument
from ragasync.documents.splitters import RecursiveSplitter, add_locations, chunks_at
from ragasync.documents.stage import StagesFingerprint, fingerprint_of_document
from ragasync.documents.store import Store
from ragasync.documents.stored_state import CachedEmbeddings, stored_states
from ragasync.documents.thread_batches import (
    BatchOutcome,
    BlockUsage,
    ThreadBatch,
    has_time,
)
from ragasync.errors import StageFailure

INLINE_MAX_CHARS = 50_000
"""The length of a document that is chunked or located on the loop: it takes a millisecond."""


@dataclass(frozen=True, slots=True)
class LoadAndChunk:
    """
    The steps that need no store, as one function of a source, which an executor can pickle.

    Args:
        load: the load function, with its output as Documents.
        chunk: the chunk function, with its output as Chunks.
    """

    load: WrappedOutput
    chunk: WrappedOutput

    @property
    def user_functions(self) -> tuple[Callable[..., Any], ...]:
        """The functions of both stages, for messages."""
        return (*self.load.user_functions, *self.chunk.user_functions)

    def __call__(self, source: object) -> Prepared:
        """Load the documents of a source, and split them into chunks."""
        prepared = self.documents_of(source)
        for each in as_list(prepared):
            self.split(each)
        return prepared

    @property
    def splits_by_our_own(self) -> bool:
        """Whether the chunk function is the default one."""
        return type(self.chunk.fn) is RecursiveSplitter

    def spans(self, document: Document) -> list[tuple[int, int]]:
        """Offsets of the chunks of a document, if the chunk function is the default one."""
        assert type(self.chunk.fn) is RecursiveSplitter
        return self.chunk.fn.spans(document.text)

    def prepare_given(self, document: Document) -> PreparedDocument:
        """Split a Document that was passed as a source."""
        check_given(document)
        prepared = PreparedDocument(document)
        self.split(prepared)
        return prepared

    def documents_of(self, source: object) -> Prepared:
        """
        Load a source.

        Raises:
            StageFailure: the error of the load stage.
        """
        if isinstance(source, Document):
            check_given(source)
            return PreparedDocument(source)
        loaded = _run_stage("load", self.load, source)
        if isinstance(loaded, Document):
            return PreparedDocument(loaded)
        return [PreparedDocument(document) for document in loaded]

    def split(self, prepared: PreparedDocument) -> None:
        """Split a document into chunks with locations; an error becomes its failure."""
        if not prepared.is_open:
            return
        document = prepared.document
        try:
            if type(self.chunk.fn) is RecursiveSplitter:
                prepared.chunks = chunks_at(document, self.chunk.fn.spans(document.text))
            else:
                chunks = _run_stage("chunk", self.chunk, document.text)
                prepared.chunks = add_locations(document, chunks)
        except StageFailure as failure:
            prepared.failure = failure
        except Exception as error:
            prepared.failure = _failure("chunk", error)
        except BaseException as error:  # it belongs to this document, not to the thread
            prepared.failure = error


@dataclass(frozen=True, slots=True)
class SourceForWorker:
    """
    A source as an executor gets it.

    Args:
        source: the source.
        stored: the fingerprint that the store has under its id; None if it has none, or if the id
            is not known yet.
    """

    source: object
    stored: str | None = None


@dataclass(frozen=True, slots=True)
class PrepareOnWorker:
    """
    The steps that need no store, for an executor.

    A document that the store has already is not chunked, and its text does not come back.

    Args:
        steps: loading and chunking.
        stages: the text of the stages' fingerprint; None if no store can report what it holds.
    """

    steps: LoadAndChunk
    stages: str | None

    @property
    def user_functions(self) -> tuple[Callable[..., Any], ...]:
        """The functions of both stages, for messages."""
        return self.steps.user_functions

    def __call__(self, asked: SourceForWorker) -> Prepared:
        """Load the documents of a source, and split those that the store does not have."""
        prepared = self.steps.documents_of(asked.source)
        for each in as_list(prepared):
            if self.stages is not None:
                # The store step computes what fails here again, and reports the error.
                with suppress(Exception):
                    each.fingerprint = fingerprint_of_document(each.document, self.stages)
            if asked.stored and each.fingerprint and is_unchanged(asked.stored, each.fingerprint):
                each.document = replace(each.document, text="")
                each.without_text = True
            else:
                self.steps.split(each)
        return prepared


def is_unchanged(stored: str, now: str) -> bool:
    """Whether a document counts as the stored one; also if that is unknown."""
    return StagesFingerprint.holds(stored, now) is not False


@dataclass(frozen=True, slots=True)
class StoreSteps:
    """
    The steps that ask the store, for several documents in one query each. They block.

    Args:
        fingerprint: the fingerprint of the stages before the store.
        known: the store, if it can report what it holds.
        ids: makes the ids of files.
        check: raises the error of a document that the store cannot accept.
        cached: gets the stored vectors of unchanged chunks; None if the store has no cache.
    """

    fingerprint: StagesFingerprint
    known: Store | None
    ids: FileIds
    check: Check
    cached: CachedEmbeddings | None

    def note_stored(self, documents: list[PreparedDocument]) -> None:
        """Note what the store has under the ids of documents that are not loaded yet."""
        if self.known is None:
            return
        found = stored_states(self.known, [each.document for each in documents], self.ids)
        for prepared, stored in zip(documents, found, strict=True):
            if not isinstance(stored, Exception):  # `look_up` meets the error again
                prepared.stored = stored

    def look_up(self, documents: list[PreparedDocument]) -> None:
        """Find out which documents the store has already, from just these stages."""
        if self.known is None:
            return
        wanted = [each for each in documents if each.is_open]
        found = stored_states(self.known, [each.document for each in wanted], self.ids)
        for prepared, stored in zip(wanted, found, strict=True):
            if isinstance(stored, Exception):
                prepared.failure = _failure("store", stored)
                continue
            try:
                prepared.fingerprint = prepared.fingerprint or self.fingerprint.of(
                    prepared.document
                )
            except Exception as error:  # of metadata, whose values may be of any class
                prepared.failure = _failure("store", error)
                continue
            holds = self.fingerprint.holds(stored.fingerprint, prepared.fingerprint)
            prepared.stored = stored
            prepared.unchanged, prepared.is_certain = holds is not False, holds is not None

    def look_up_and_finish(self, documents: list[PreparedDocument]) -> None:
        """Run both steps for documents that have been chunked already."""
        self.look_up(documents)
        self.finish(documents)

    def finish(self, documents: list[PreparedDocument]) -> None:
        """Refuse documents that the store cannot accept, and get the vectors that it has."""
        wanted = []
        for prepared in documents:
            if not prepared.is_open or prepared.without_text:
                continue
            try:
                self.check(prepared.document, prepared.chunks)
            except Exception as error:
                prepared.failure = _failure("store", error)
            else:
                wanted.append(prepared)
        if self.cached is None or not wanted:
            return
        try:
            found = self.cached([each.chunks for each in wanted])
        except Exception:  # which of them is the reason: ask for each alone
            for prepared in wanted:
                try:
                    (prepared.vectors,) = self.cached([prepared.chunks])
                except Exception as error:
                    prepared.failure = _failure("store", error)
        else:
            for prepared, vectors in zip(wanted, found, strict=True):
                prepared.vectors = vectors


@dataclass(frozen=True, slots=True)
class PrepareBlock:
    """
    All steps for a block of sources in one hand-over to a thread.

    Args:
        steps: the steps without the store.
        store_steps: those with it.
    """

    steps: LoadAndChunk
    store_steps: StoreSteps

    @property
    def is_quick(self) -> bool:
        """Whether a short Document takes less than a hand-over: no look-up, and our splitter."""
        return self.store_steps.known is None and self.steps.splits_by_our_own

    def __call__(self, batch: ThreadBatch[object]) -> BatchOutcome[Prepared]:
        """Prepare the sources of a batch, or the first of them if they take too long."""
        with computing_turn() if batch.computes else nullcontext():
            return self._prepare(batch.items)

    def _prepare(self, sources: Sequence[object]) -> BatchOutcome[Prepared]:
        """Prepare sources, beginning now."""
        values: list[Prepared | None] = []
        errors: dict[int, BaseException] = {}
        started, cpu_started = time.perf_counter(), time.thread_time()
        documents: list[PreparedDocument] = []
        usage = BlockUsage()
        load_may_report = not self.steps.load.is_ours  # what is our own reports nothing
        chunk_may_report = not self.steps.splits_by_our_own
        source_of: list[int] = []
        for place, source in enumerate(sources):
            value: Prepared | None = None
            if load_may_report:
                usage.begin(place)
            try:
                value = self.steps.documents_of(source)
                documents.extend(as_list(value))
            except BaseException as error:  # it belongs to its source, not to this thread
                errors[place] = error
            values.append(value)
            source_of += [place] * (len(documents) - len(source_of))
            if not has_time(started, cpu_started):
                break
        asked = time.perf_counter()
        self.store_steps.look_up(documents)
        began = time.perf_counter()
        for place, prepared in zip(source_of, documents, strict=True):
            if chunk_may_report:
                usage.begin(place)
            self.steps.split(prepared)
        ended = time.perf_counter()
        self.store_steps.finish(documents)
        now, cpu_seconds = time.perf_counter(), time.thread_time() - cpu_started
        in_store = began - asked + now - ended
        return BatchOutcome(values, errors, now - started, cpu_seconds, usage.end(), in_store)


def check_given(document: Document) -> None:
    """
    Refuse a Document among the sources that no store would accept, as if it had been loaded.

    Raises:
        StageFailure: of the stage "load", because of a LoadError, or of an IdConflictError.
    """
    try:
        if isinstance(document, RefusedDocument):
            raise document.refusal()
        refuse_surrogates(document.text)
    except (ValueError, IdConflictError) as error:
        raise _failure("load", error) from error


def _run_stage(stage: str, function: WrappedOutput, item: object) -> Any:
    """Call a stage's function in a context of its own, so that it cannot affect later calls."""
    try:
        if function.is_ours:
            return function.call(item)
        return copy_context().run(function.call, item)
    except Exception as error:
        raise _failure(stage, error) from error


def _failure(stage: str, error: Exception) -> StageFailure:
    """Put the error of a stage into its envelope."""
    failure = StageFailure(stage, error)
    failure.__cause__ = error
    return failure


StoreStep: TypeAlias = tuple[Callable[[list[PreparedDocument]], None], list[PreparedDocument]]
"""A step that asks the store, and the documents to ask it about."""


def run_store_steps(batch: ThreadBatch[StoreStep]) -> BatchOutcome[None]:
    """Run steps of the store on a thread, each kind for all of its documents together."""
    started, cpu_started, steps = time.perf_counter(), time.thread_time(), batch.items
    for step in dict.fromkeys(step for step, _ in steps):
        step([each for other, documents in steps if other == step for each in documents])
    seconds, cpu_seconds = time.perf_counter() - started, time.thread_time() - cpu_started
    return BatchOutcome([None] * len(steps), {}, seconds, cpu_seconds, shared_seconds=seconds)
