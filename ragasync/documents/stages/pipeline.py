"""One run of the pipeline: its stages, open, and what it draws, spends and leaves undone."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from ragasync._calls.caller import Caller
from ragasync._calls.thread_batches import ThreadBatcher
from ragasync._engine.controls import RunControls, current_run
from ragasync._engine.request_batcher import RequestBatcher
from ragasync._reports.summary import counted
from ragasync.documents.embedding_cache import WHY_UNKNOWN
from ragasync.documents.errors import IdConflictError
from ragasync.documents.locations import add_locations
from ragasync.documents.metering import Meter, metered_by
from ragasync.documents.models import Document
from ragasync.documents.stages.claims import DocumentsInFlight, IdClaims, claim_earlier
from ragasync.documents.stages.config import PipelineConfig
from ragasync.documents.stages.counts import PipelineCounts
from ragasync.documents.stages.failures import DocumentDeferred, FatalStageError, note_place
from ragasync.documents.stages.prepare import (
    INLINE_MAX_CHARS,
    UNKNOWN,
    FailedDocument,
    PreparedDocument,
    refuse_given,
)
from ragasync.documents.stages.processed import ProcessedDocument, merge_documents
from ragasync.documents.stages.pruning import Pruner
from ragasync.documents.stages.root_check import RootCheck
from ragasync.documents.stages.several import Several
from ragasync.documents.stages.skip_policy import id_of, source_path
from ragasync.documents.stages.stored_state import StoredChanges
from ragasync.documents.stages.way import Way, unchanged
from ragasync.documents.store import EmbedderMismatch, StoreError
from ragasync.documents.unique_sources import Taken
from ragasync.errors import JobStopped, StageFailure
from ragasync.foreign_errors import is_a

Entry = Document | PreparedDocument | FailedDocument
"""One of the documents of a source: as it was loaded, or as far as it came in the same call."""


@dataclass(slots=True)
class Occasion:
    """
    What one run brings beside the recipe.

    Args:
        run: the run, where it is known before its first document.
        pruner: what removes from the store what the run has not found.
        root_check: what has to be compared first, where the store was used with another root.
        taken: the ids of its sources so far.
    """

    run: RunControls | None = None
    pruner: Pruner | None = None
    root_check: RootCheck | None = None
    taken: Taken = field(default_factory=dict)

    def recalled(self, source: object, done: ProcessedDocument) -> bool:
        """Return whether what an earlier run did with a source holds beside the others of this."""
        if done.skipped is None and not claim_earlier(self.taken, source, done):
            return False
        self.noted(source, done)
        return True

    def noted(self, source: object, done: ProcessedDocument) -> ProcessedDocument:
        """Note what a source gave, all of which is stored, or that it is empty; return it."""
        if self.pruner is not None and done.skipped in (None, "empty"):
            documents = (done,) if done.documents is None else done.documents
            self.pruner.gave(source, [each.id for each in documents if each.skipped is None])
        return done

    def note_failed(self, error: BaseException) -> None:
        """Note what a document could not replace."""
        if self.pruner is not None and is_a(error, IdConflictError):
            self.pruner.keep(error.id)


class Pipeline:
    """
    The stages of one run, open at the same time, each with its own window.

    A document passes through them as one coroutine that awaits a stage after the other; the
    chunks of many documents meet in the batches of the embedding stage. The run draws a further
    document when one of the few that may be loaded at once has found room for its chunks.
    """

    def __init__(
        self, config: PipelineConfig, prepare: ThreadBatcher[object, Any] | None, occasion: Occasion
    ) -> None:
        self._config = config
        self._prepare = prepare
        self._loop = asyncio.get_running_loop()
        self.meter = Meter(config.max_cost, self._when_spent)
        self.way = Way(config, self.meter)
        self.counts = PipelineCounts(config, self.way.services, prepare, self.meter)
        self._occasion = occasion
        self._stored = StoredChanges(config.known)
        self._claims = IdClaims(
            occasion.taken,
            config.load_function,
            min(64, config.room // 2),
            has_store=config.store is not None,
        )
        self._in_flight = DocumentsInFlight()
        self._run: RunControls | None = None
        self._refusal: EmbedderMismatch | None = None
        self._uncertain = 0
        self._doubts: list[str] = []
        self._loading = 0
        self._stopped_early = False
        if occasion.run is not None:
            self._belong_to(occasion.run)

    async def one_document(self, source: object) -> ProcessedDocument:
        """
        Take one source through all stages.

        Raises:
            StageFailure: the error of the stage that failed.
            Postponed: the run stops before it could be embedded.
        """
        if self._refusal is not None:
            raise FatalStageError("store", self._refusal)
        try:
            quick = self._chunk_inline(source)
            if quick is not None and (taken := self.way.enter_now(quick)) is not None:
                self._run = self._run or self._belong_to(current_run.get())
                return await self.way.go(quick, taken)
            self._count_loading(1)
            try:
                prepared = quick or await self._claimed(source)
                if not isinstance(prepared, PreparedDocument):
                    return self._occasion.noted(source, await self._several(source, prepared))
                if (weight := await self._enter(prepared)) is None:
                    return self._occasion.noted(source, await self._unchanged(prepared))
            finally:
                self._count_loading(-1)
            return self._occasion.noted(source, await self._go(prepared, weight))
        except StageFailure as failure:
            self._occasion.note_failed(failure.error)
            if (skipped := self._config.skip_policy.skipped(source, failure)) is None:
                raise
            return self._occasion.noted(source, skipped)
        except JobStopped as stopped:
            if self._stopped_early:
                raise DocumentDeferred(*stopped.args) from stopped
            raise

    async def check_embedder(self) -> None:
        """Refuse the run if the store holds the vectors of another embedder; warn of any doubt."""
        try:
            warning = await asyncio.to_thread(self._config.embedder.check)
        except EmbedderMismatch as error:
            self._refusal = error
        except StoreError:  # each document will meet it too, and is retried as that says
            return
        else:
            self._doubts = self._config.fingerprint.unknown if warning else []
            if warning and self._doubts:
                warning += f"; nor can it be told of {' and '.join(self._doubts)}"
            self._warn(warning)

    def _warn_of_unknown(self) -> None:
        """Say once that some documents were taken for unchanged because nobody can tell."""
        unknown = self._config.fingerprint.unknown
        if not self._uncertain or (unknown and unknown == self._doubts):
            return
        self._warn(
            f"cannot tell whether {' or '.join(unknown or ['load or chunk'])} has changed since "
            f"{counted(self._uncertain, 'document')} were stored, because {WHY_UNKNOWN}: they are "
            f"treated as unchanged. To decide it yourself, pass Stage(..., version=...), or "
            f"version= for all stages"
        )

    def _warn(self, warning: str | None) -> None:
        """Warn at the line that made the processor, for a run has a loop of its own."""
        if warning is not None:
            warnings.warn_explicit(warning, UserWarning, *self._config.made_at)

    def no_more_to_embed(self) -> bool:
        """Return whether every document of the run has handed its chunks on."""
        return self._loading == 0 and self._run is not None and self._run.live.source_ended

    def _count_loading(self, more: int) -> None:
        """Count the documents before the room; when they are many, have no further one drawn."""
        self._loading += more
        run = self._run or self._belong_to(current_run.get())
        ahead = self._config.max_concurrency if self._prepare is None else self._prepare.ahead
        run.pause_input(self._loading >= ahead)

    def _belong_to(self, run: RunControls) -> RunControls:
        """Steer this run from now on, and tell it of the stages."""
        self._run = run
        run.stages, run.counters = self.counts.stages, self.counts.told
        run.stage_runs = lambda: tuple(stage.run for stage in self.way.services.values())
        return run

    def _chunk_inline(self, source: object) -> PreparedDocument | None:
        """Return a short text with its chunks; None for what else there may be."""
        load_and_chunk = self._config.load_and_chunk
        if load_and_chunk is None or self._prepare is None or not load_and_chunk.is_quick(source):
            return None
        try:
            prepared: PreparedDocument = self._prepare.call_inline(load_and_chunk, source)
        except StageFailure as failed:
            note_place(failed.error, failed.stage, repr(getattr(source, "id", source)))
            raise
        return prepared

    async def _claimed(self, source: object) -> PreparedDocument | Sequence[Entry]:
        """Return what is prepared of a source, with ids that no other source of the run has."""
        with self._claims.place_of(source) as place:
            prepared = await self._prepared(source)
            if place is None:
                return prepared
            self._count_loading(-1)  # or the run would draw none of those that it waits for
            try:
                await self._claims.turn_of(place)
            finally:
                self._count_loading(1)
            if not isinstance(prepared, PreparedDocument):
                return self._claims.claimed(source, prepared)
            (checked,) = self._claims.claimed(source, [prepared])
        if isinstance(checked, FailedDocument):
            failure = checked.failure
            note_place(failure.error, failure.stage, repr(getattr(source, "id", source)))
            raise failure
        return checked

    async def _prepared(self, source: object) -> PreparedDocument | Sequence[Entry]:
        """Return the document of a source with its chunks, or a list of its documents."""
        if self._prepare is not None:
            try:
                found: PreparedDocument | list[Entry] = await self._prepare(source)
            except StageFailure as failed:
                note_place(failed.error, failed.stage, repr(getattr(source, "id", source)))
                raise
            return found
        document = source
        if isinstance(document, Document):
            refuse_given(document)
        else:
            document = await self.way.take("load", source, source)
        if isinstance(document, Document):
            return await self._chunk(document, source)
        documents: list[Entry] = document
        return documents

    async def _chunk(self, document: Document, source: object) -> PreparedDocument:
        """Return a document with its chunks, each stage on its own."""
        way, known = self.way, UNKNOWN
        if "look up" in way.services:
            known = await way.take("look up", document, source)
        if known.is_known:
            return known.prepared(document)
        chunks = await way.take("chunk", document.text, source)
        if len(document.text) > INLINE_MAX_CHARS:
            chunks = await asyncio.to_thread(add_locations, document, chunks)
        else:
            chunks = add_locations(document, chunks)
        try:
            self._config.check(document, chunks)
        except Exception as error:
            note_place(error, "store", repr(document.id))
            raise StageFailure("store", error) from error
        vectors = None
        if "recall" in way.services:
            vectors = await way.take("recall", chunks, source)
        return known.prepared(document, chunks, vectors)

    async def _several(self, source: object, entries: Sequence[Entry]) -> ProcessedDocument:
        """Take the documents of one source through; it is done when all of them are."""
        several = Several(entries, self._one_of_several, self._config.max_concurrency)
        done = await several.done()
        return merge_documents(id_of(source), source_path(source), done)

    async def _one_of_several(
        self, entry: Entry, has_left_room: Callable[[], None]
    ) -> ProcessedDocument:
        """Take one of the documents of a source through what is left of its way."""
        try:
            return await self._rest_of_way(entry, has_left_room)
        except StageFailure as failure:
            self._occasion.note_failed(failure.error)
            raise

    async def _rest_of_way(
        self, entry: Entry, has_left_room: Callable[[], None]
    ) -> ProcessedDocument:
        """Do so."""
        self._count_loading(1)
        try:
            if isinstance(entry, FailedDocument):
                failure = entry.failure
                note_place(failure.error, failure.stage, repr(entry.document.id))
                raise failure
            if isinstance(entry, Document):
                entry = await self._chunk(entry, entry)
            if (weight := await self._enter(entry)) is None:
                return await self._unchanged(entry)
        finally:
            self._count_loading(-1)
            has_left_room()
        return await self._go(entry, weight)

    async def _enter(self, prepared: PreparedDocument) -> int | None:
        """Wait for room for a document; return None where the store has it, maybe by now."""
        if prepared.chunks is None:
            return None
        known, id_ = self._config.known, prepared.document.id
        while known is not None and not await self._in_flight.begin(id_):
            if await asyncio.to_thread(known.fingerprint_of, id_) == prepared.fingerprint:
                return None
        try:
            return await self.way.enter(prepared)
        except BaseException:
            self._in_flight.end(id_)
            raise

    async def _unchanged(self, prepared: PreparedDocument) -> ProcessedDocument:
        """Return what becomes of a document that the store has; its file may have been touched."""
        self._uncertain += not prepared.is_certain
        if prepared.stored.is_outdated:
            await self._stored.refresh(prepared.document)
        return unchanged(prepared)

    async def _go(self, prepared: PreparedDocument, weight: int) -> ProcessedDocument:
        """Have a document embedded and stored; note that it is new."""
        try:
            done = await self.way.go(prepared, weight)
        finally:
            self._in_flight.end(prepared.document.id)
        if prepared.stored.fingerprint is None and prepared.chunks:
            self._stored.has_new(prepared.document, prepared.fingerprint)
        return done

    async def compare_file(self, source: object) -> tuple[int, int]:
        """Return of how many stored documents a source gives the same, and of how many another."""
        try:
            found = await self._prepared(source)
            entries = [found] if isinstance(found, PreparedDocument) else found
            chunk = [
                await self._chunk(entry, entry) if isinstance(entry, Document) else entry
                for entry in entries
            ]
        except Exception:
            return 0, 0  # it fails in its turn
        stored = [
            entry.chunks is None
            for entry in chunk
            if isinstance(entry, PreparedDocument) and entry.stored.fingerprint is not None
        ]
        return sum(stored), len(stored) - sum(stored)

    async def end(self, occasion: Occasion) -> None:
        """Do what is due when a run has come to its end and was not cut short."""
        spend, used = self._config.max_cost, self.meter
        if spend is not None and not used.cost and self.way.services["embed"].run.totals.calls:
            warnings.warn(
                f"max_cost={spend:g} held nothing back: nothing reported what it cost. An "
                f"embedder does by note_usage(cost=...) after each call",
                RuntimeWarning,
                stacklevel=2,
            )
        run, pruner = occasion.run, occasion.pruner
        if pruner is not None and run is not None:
            is_whole = run.stopped_because is None and run.error is None
            self.counts.pruned = 0
            if is_whole:
                self.counts.pruned = await asyncio.to_thread(pruner.prune)
        await self._stored.write()
        await self._stored.warn_of_moved(self._config.ids)
        self._warn_of_unknown()

    def _when_spent(self, reason: str) -> None:
        """Have the run stop, from whatever thread this is called in."""
        try:
            is_here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            is_here = False
        if is_here:
            self.stop_early(reason)
        else:
            self._loop.call_soon_threadsafe(self.stop_early, reason)

    def stop_early(self, reason: str) -> None:
        """Begin no further document and no further call of the embedder."""
        if self._stopped_early:
            return
        self._stopped_early = True
        if self._run is not None:
            self._run.stop(reason)
        self.way.services["embed"].run.stop(reason)


@asynccontextmanager
async def open_pipeline(
    config: PipelineConfig, occasion: Occasion | None = None
) -> AsyncIterator[Pipeline]:
    """
    Open the stages of a run on its own loop; close them when it ends, however it ends.

    Args:
        config: the stages and their settings.
        occasion: what this run brings.
    """
    occasion = occasion or Occasion()
    plans = {"embed": config.embed, "store": config.store}
    prepare = None
    async with AsyncExitStack() as stack:
        if config.prepare is None:
            plans |= {"load": config.load, "look up": config.look_up, "chunk": config.chunk}
            plans["recall"] = config.recall
        else:
            calls = Caller(config.prepare, asyncio.get_running_loop(), None)
            stack.callback(calls.close)
            prepare = ThreadBatcher(calls.call_one, config.max_concurrency)
            stack.push_async_callback(prepare.close)
        pipeline = Pipeline(config, prepare, occasion)
        stack.callback(metered_by(pipeline.meter))
        for stage, plan in plans.items():
            if plan is not None:
                waits_in_vain = (
                    {"no_more_expected": pipeline.no_more_to_embed} if stage == "embed" else {}
                )
                service: RequestBatcher[Any, Any] = RequestBatcher(plan, **waits_in_vain)
                service.run.on_early_stop = pipeline.stop_early
                pipeline.way.services[stage] = await stack.enter_async_context(service)
        await pipeline.check_embedder()
        if occasion.root_check is not None:
            await occasion.root_check.compare(pipeline.compare_file, occasion.pruner)
        pipeline.counts.restart()
        yield pipeline
        await pipeline.end(occasion)
