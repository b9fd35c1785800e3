"""Pipeline: the stages of one run, and the way of a document through them."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any, TypeGuard

from ragasync._calls.caller import Caller
from ragasync._calls.groups import GroupSize
from ragasync._engine.controls import RunControls
from ragasync._engine.replies import Begun, Reply
from ragasync._engine.request_batcher import RequestBatcher, RequestFailed
from ragasync._outcomes.stats import StageStats
from ragasync._reports.summary import counted
from ragasync._reports.time_breakdown import LOAD_AND_CHUNK
from ragasync.documents.adapters import EmbeddedDocument, StoreClaim
from ragasync.documents.config import CallSettings, PipelineConfig, PipelineControls
from ragasync.documents.document_records import (
    Prepared,
    PreparedDocument,
    ProcessedDocument,
    as_list,
    facts_of,
    id_of,
    merge_documents,
    process_documents,
    source_path,
)
from ragasync.documents.models import Chunk, Document, DocumentDeferred, FatalStageError, note_place
from ragasync.documents.prepare import (
    INLINE_MAX_CHARS,
    PrepareBlock,
    SourceForWorker,
    StoreStep,
    check_given,
    run_store_steps,
)
from ragasync.documents.run_sources import RunSources
from ragasync.documents.splitters import Spans, add_locations, chunks_at
from ragasync.documents.store import EmbedderMismatch, StoreError
from ragasync.documents.stored_state import (
    WHY_UNKNOWN,
    SpareVectors,
    StoredChanges,
    Vector,
    as_array,
)
from ragasync.documents.thread_batches import ThreadBatcher
from ragasync.documents.unique_sources import IdClaims
from ragasync.errors import AttemptTimeout, JobStopped, StageFailure
from ragasync.foreign_errors import is_a
from ragasync.settings import BatchSettings
from ragasync.usage import CallUsage, UsageTotals, warn_of_unreported

FIRST_GROUP = 16
"""The maximum number of sources in the first groups for an executor."""

STORE_MAX_WAIT = 0.05
"""Seconds that a document may wait for others that are stored in the same transaction."""

STORE_GRACE = 1.0
"""Seconds for which a cancelled document waits for the call that is storing it."""


class Pipeline:
    """
    The stages of one run, its settings and its counts.

    Sources are loaded and chunked in blocks on threads, or on the executor. The chunks of many
    documents wait in one queue, from which the calls of the embedder are filled. A document is
    stored when its last vector is ready, together with others that wait. The engine makes these
    calls; `process`, which it calls for each source, only waits for them, and a short document that
    nothing stores waits without a worker (`begin`).

    The run reads a new source when a document has left the loading stages, and a document leaves
    them when there is room for its chunks. That bounds the memory of a run.

    Args:
        config: the stages and their settings.
        sources: the sources of the run.
    """

    def __init__(self, config: PipelineConfig, sources: RunSources) -> None:
        self._config, self._sources = config, sources
        self.controls = PipelineControls(config)
        self._budget = self.controls.budget
        self._in_flight = DocumentsInFlight()
        self._stored = StoredChanges(config.known)
        self._spare = SpareVectors(
            config.known,
            config.embedder,
            is_wanted=config.store_steps.cached is not None,
            warn=self._warn,
        )
        self._claims = IdClaims(
            sources.taken,
            config.load_function,
            min(64, config.room // 2),
            has_store=config.store is not None,
        )
        block = config.prepare_block
        self._block: PrepareBlock | None = None if block is None else block.process_fn  # type: ignore[assignment]
        self._chunks_inline = self._block is not None and self._block.is_quick
        self._stages: dict[str, RequestBatcher[Any, Any]] = {}
        self._blocks: ThreadBatcher[object, Any] | None = None
        self._store_steps: ThreadBatcher[StoreStep, None] | None = None
        self._group_size = None if config.prepare is None else _group_size(config, sources.count)
        self._run: RunControls | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._refusal: EmbedderMismatch | None = None
        self._dimension: int | None = None
        self._loading = self._waiting_for_room = self._embedding = self._uncertain = 0
        self._begun_chunks = 0
        self._doubts: list[str] = []
        self._all_read = self._stopped_early = self._room_is_full = False
        self._pruned: int | None = None

    # ── the life of a run ─────────────────────────────────────────────────────────────────────

    @asynccontextmanager
    async def open(self, run: RunControls) -> AsyncIterator[None]:
        """Open the stages on the run's own loop, and close them when the run ends."""
        config = self._config
        self._run, self._loop = run, asyncio.get_running_loop()
        self.controls.attach_run(run)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._spare.write)  # when no call is in flight any more
            if config.prepare_block is not None:
                self._blocks = await self._open_threads(stack, config.prepare_block)
            else:
                steps: CallSettings = BatchSettings(run_store_steps, False)
                self._store_steps = await self._open_threads(stack, steps)
            await self._open_stage(stack, LOAD_AND_CHUNK, config.prepare, lambda: self._all_read)
            await self._open_stage(stack, "load", config.load)
            await self._open_stage(stack, "chunk", config.chunk)
            await self._open_stage(stack, "embed", config.embed, lambda: not self._more_to_embed)
            await self._open_stage(stack, "store", config.store, lambda: not self._more_to_store)
            await self._check_embedder()
            if self._sources.root_check is not None:
                await self._sources.root_check.compare(self._compare_file, self._sources.pruner)
            for stage in self._stages.values():
                stage.activity.restart()
            if self._blocks is not None:
                self._blocks.activity.restart()
            yield
            await self._end(run)

    async def _open_threads(
        self, stack: AsyncExitStack, settings: CallSettings
    ) -> ThreadBatcher[Any, Any]:
        """Open a stage that makes quick calls on threads, several in one hand-over."""
        caller = Caller(settings, asyncio.get_running_loop(), None)
        stack.callback(caller.close)
        assert self._run is not None  # its stages are opened for it
        batcher: ThreadBatcher[Any, Any] = ThreadBatcher(
            caller.call_one, self.controls.max_concurrency, self._run.usage
        )
        self.controls.attach_threads(batcher)
        stack.push_async_callback(batcher.close)
        return batcher

    async def _open_stage(
        self,
        stack: AsyncExitStack,
        name: str,
        settings: CallSettings | None,
        no_more_expected: Callable[[], bool] = lambda: False,
    ) -> None:
        """Open a stage whose calls the engine makes, unless the pipeline has none."""
        if settings is None:
            return
        assert self._run is not None  # its stages are opened for it
        stage: RequestBatcher[Any, Any] = RequestBatcher(
            settings,
            no_more_expected=no_more_expected,
            on_early_stop=self.stop_early,
            on_resize=self.controls.resize_room,
            group_size=self._group_size if name == LOAD_AND_CHUNK else None,
            usage=UsageTotals(within=self._run.usage),
            **{"max_wait": STORE_MAX_WAIT} if name == "store" else {},
        )
        self.controls.attach_stage(name, stage.run)
        self._stages[name] = await stack.enter_async_context(stage)

    async def _end(self, run: RunControls) -> None:
        """Prune, write what was collected, and warn, after a run that was not cut short."""
        if self._stages["embed"].has_success:
            warn_of_unreported(run.settings.max_tokens, run.settings.max_cost, run.usage.usage)
        if (pruner := self._sources.pruner) is not None:
            is_whole = run.stopped_because is None and run.error is None
            self._pruned = await asyncio.to_thread(pruner.prune) if is_whole else 0
        await self._stored.write()
        await self._stored.warn_of_moved(self._config.ids)
        self._warn_of_unknown()

    def source_ended(self) -> None:
        """Note that the last source has been read; partial batches need not wait for more."""
        self._all_read = True
        for stage in self._stages.values():
            stage.expectation_changed()

    def apply_settings(self) -> None:
        """Apply the settings of `controls` to the stages; on the run's loop."""
        self.controls.apply()
        if self._run is not None:
            self._count_loading(0)

    # ── what the run's controls ask ───────────────────────────────────────────────────────────

    @property
    def stats(self) -> tuple[StageStats, ...]:
        """The statistics of each stage so far, in the order of a document's way."""
        found = [stage.stats(name) for name, stage in self._stages.items()]
        if (blocks := self._blocks) is not None:
            on_threads = StageStats(
                LOAD_AND_CHUNK,
                self.controls.max_concurrency,
                blocks.activity.seconds,
                calls=blocks.ended,
                ended=blocks.ended,
                in_flight=blocks.in_flight,
                busy=(blocks.activity.snapshot(),),
                slots=blocks.slots,
                extra_slot_seconds=blocks.activity.extra_slot_seconds,
            )
            found.insert(0, on_threads)
        return tuple(map(self._with_setting, found))

    def _with_setting(self, stage: StageStats) -> StageStats:
        """Add the setting of a stage to its statistics."""
        return replace(stage, setting=self.controls.setting_of(stage.name))

    @property
    def counters(self) -> tuple[tuple[str, int], ...]:
        """The number of pruned documents, if the run prunes."""
        return () if self._pruned is None else (("pruned", self._pruned),)

    @property
    def runs(self) -> tuple[RunControls, ...]:
        """The runs that make the calls of the stages."""
        return tuple(stage.run for stage in self._stages.values())

    # ── the way of a source ───────────────────────────────────────────────────────────────────

    async def process(self, source: object) -> ProcessedDocument:
        """
        Take one source through all stages.

        Raises:
            StageFailure: the error of the stage that failed.
            DocumentDeferred: the run stopped before the document was embedded.
        """
        if self._refusal is not None:
            raise FatalStageError("store", self._refusal)
        try:
            if self._is_short(source):
                prepared, weight = self._prepare_inline(source)
                if weight is None:
                    weight = await self._enter_loading(prepared, source)
                done = await self._finish(prepared, weight)
            else:
                done = await self._process(source)
            return self._sources.note_done(source, done)
        except (StageFailure, JobStopped) as error:
            if isinstance(error, StageFailure):
                await self._spare.write_if_many()
            return self._on_error(source, error)

    def _on_error(self, source: object, error: StageFailure | JobStopped) -> ProcessedDocument:
        """Skip a source that could not be loaded, if the policy says so; else raise the error."""
        if isinstance(error, JobStopped):
            if self._stopped_early:
                raise DocumentDeferred(*error.args) from error
            raise error
        self._sources.note_failed(error.error)
        if (skipped := self._config.skip_policy.skipped(source, error)) is not None:
            return self._sources.note_done(source, skipped)
        if error.stage == "load":
            self._defer_if_stopped(error)
        raise error

    def begin(self, source: object) -> Begun[ProcessedDocument] | None:
        """
        Chunk a short document and hand its chunks to the embedder, if there is room.

        No worker waits for its vectors. A document that is stored, or fails before it is embedded,
        takes the other way, `process`.
        """
        if not self._is_short(source) or self._refusal is not None or "store" in self._stages:
            return None
        embed = self._stages["embed"]
        if self._budget.is_full or embed.has_stopped:
            return None
        assert self._block is not None  # else it is not short
        assert self._blocks is not None
        assert self._run is not None  # of which this document is a part
        try:
            check_given(source)
            spans = self._blocks.call_inline(self._block.steps.spans, source)
        except Exception:
            return None
        weight = self._budget.enter_last(len(spans))
        if self._budget.free <= 0:
            self._room_is_full = True
            self._pause_input()
        self._embedding += 1
        text = source.text
        reply = embed.request([text[start:end] for start, end in spans])
        self._begun_chunks += len(spans)
        if self._begun_chunks >= self._config.embed.batch_size:
            self._begun_chunks = 0
            if embed.may_start_call:
                self._run.live.request_turn()
        return _BegunDocument(self, source, spans, weight, reply)

    def finish_begun(
        self, document: Document, spans: Spans, weight: int, reply: Reply[list[Any]]
    ) -> ProcessedDocument:
        """Make the result of a document that was begun, or raise its error."""
        self._embedding -= 1
        self._leave(weight)
        try:
            try:
                vectors = reply.result()
            except RequestFailed as failed:
                prepared = PreparedDocument(document, chunks_at(document, spans))
                raise self._embedding_failure(prepared, failed) from failed.error
            if not self._has_known_dimension(vectors):
                self._check_vectors(PreparedDocument(document, chunks_at(document, spans)), vectors)
        except (StageFailure, JobStopped) as error:
            return self._on_error(document, error)
        tokens = None if reply.usage is None else reply.usage.tokens
        if document.metadata:  # of which the result may keep facts
            prepared = PreparedDocument(document, chunks_at(document, spans))
            return self._result(prepared, vectors, tokens)
        return ProcessedDocument._of_spans(document, spans, vectors, tokens)

    def _is_short(self, source: object) -> TypeGuard[Document]:
        """Whether a source is a document that takes less time to chunk than to hand over."""
        return (
            self._chunks_inline
            and isinstance(source, Document)
            and len(source.text) <= INLINE_MAX_CHARS
        )

    def _prepare_inline(self, document: Document) -> tuple[PreparedDocument, int | None]:
        """Chunk a short document, which takes less than a hand-over; give it room if there is."""
        assert self._block is not None  # else nothing is chunked inline
        assert self._blocks is not None
        try:
            prepared = self._blocks.call_inline(self._block.steps.prepare_given, document)
        except StageFailure as failure:
            note_place(failure.error, failure.stage, _name_of(document))
            raise
        weight = None
        if prepared.failure is None:
            weight = self._budget.enter_now(len(prepared.chunks))
        if weight is not None:
            self._embedding += 1
        return prepared, weight

    async def _enter_loading(self, prepared: PreparedDocument, document: Document) -> int:
        """Enter a document that has no room yet; it counts as loading, so that others wait."""
        self._count_loading(1)
        try:
            return await self._enter(prepared, document)
        finally:
            self._count_loading(-1)

    async def _process(self, source: object) -> ProcessedDocument:
        """Load a source, and take its document, or each of its documents, to the store."""
        self._count_loading(1)
        try:
            try:
                if self._claims.knows_id_of(source):
                    documents, several = await self._prepare(source)
                else:
                    with self._claims.place() as place:
                        documents, several = await self._prepare(source)
                        await self._claim(source, documents, place)
            except StageFailure as failure:
                note_place(failure.error, failure.stage, _name_of(source))
                raise
            if several:
                done = await process_documents(
                    documents, self._process_one_of_several, lambda: self.controls.max_concurrency
                )
                return merge_documents(id_of(source), source_path(source), done)
            (prepared,) = documents
            weight = await self._enter(prepared, source)
        finally:
            self._count_loading(-1)
        return await self._finish(prepared, weight)

    async def _process_one_of_several(
        self, prepared: PreparedDocument, leave_loading: Callable[[], None]
    ) -> ProcessedDocument:
        """Take one of the documents of a source to the store."""
        self._count_loading(1)
        try:
            if self._config.chunk is not None:
                await self._chunk(prepared, prepared.document)
            weight = await self._enter(prepared, prepared.document)
        except StageFailure as failure:
            self._sources.note_failed(failure.error)
            raise
        finally:
            self._count_loading(-1)
            leave_loading()
        return await self._finish(prepared, weight)

    async def _finish(self, prepared: PreparedDocument, weight: int) -> ProcessedDocument:
        """Embed and store a document, unless it is unchanged, and give its room back."""
        if prepared.unchanged:
            self._uncertain += not prepared.is_certain
            if prepared.stored.is_outdated:
                await self._stored.refresh(prepared.document)
            return self._result(prepared)
        chunks, places = prepared.chunks, prepared.places_to_embed
        assert self._run is not None  # of which this document is a part
        used = CallUsage(self._run.usage)
        texts = [chunks[place].text for place in places]
        made: list[Any] = [None] * len(texts)
        try:
            try:
                await self._stages["embed"](texts, used, made)
            except RequestFailed as failed:
                raise self._embedding_failure(prepared, failed) from failed.error
            finally:
                self._embedding -= 1
            vectors = prepared.with_embeddings(made)
            tokens = None if used.reported is None else used.reported.tokens
            self._check_vectors(prepared, vectors)
            if "store" in self._stages:
                await self._store(
                    EmbeddedDocument(
                        prepared.document, chunks, vectors, prepared.fingerprint, StoreClaim()
                    )
                )
        except BaseException:
            self._spare.keep(texts, made)
            raise
        finally:
            self._leave(weight)
            if self._config.known is not None:
                self._in_flight.end(prepared.document.id)
        if prepared.stored.fingerprint is None and prepared.chunks:
            self._stored.has_new(prepared.document, prepared.fingerprint)
        return self._result(prepared, vectors, tokens)

    async def _store(self, request: EmbeddedDocument) -> None:
        """Store a document; a thread that has begun to is awaited even after a cancellation."""
        try:
            await self._call("store", request, request.document)
        except asyncio.CancelledError:
            if not await request.claim.settle(STORE_GRACE):
                raise
        except StageFailure:
            if not request.claim.stored:  # by an attempt that has outlived its timeout
                raise

    # ── loading and chunking ──────────────────────────────────────────────────────────────────

    async def _prepare(self, source: object) -> tuple[list[PreparedDocument], bool]:
        """Load the documents of a source and chunk them; also whether they came in a list."""
        if self._blocks is not None:
            prepared = await self._blocks(source)
        elif self._config.prepare is not None:
            prepared = await self._prepare_on_worker(source, await self._find_stored(source))
        elif isinstance(source, Document):
            check_given(source)
            prepared = PreparedDocument(source)
        else:
            loaded = await self._call("load", source, source)
            if not isinstance(loaded, Document):
                return list(map(PreparedDocument, loaded)), True
            prepared = PreparedDocument(loaded)
        if self._config.chunk is not None:
            await self._chunk(prepared, source)
        return as_list(prepared), isinstance(prepared, list)

    async def _find_stored(self, source: object) -> str | None:
        """Find the fingerprint that the store has under the id of a source; None if it has none."""
        has_vectors = self._config.embedder.dimension is not None
        if not has_vectors or not self._claims.knows_id_of(source):
            return None
        asked = PreparedDocument(Document(id_of(source), "", source=source_path(source)))
        await self._ask_store(self._config.store_steps.note_stored, [asked], source)
        return asked.stored.fingerprint

    async def _prepare_on_worker(self, source: object, stored: str | None) -> Prepared:
        """Load and chunk a source on the executor, unless the store has its document."""
        asked = SourceForWorker(source, stored)
        prepared: Prepared = await self._call(LOAD_AND_CHUNK, asked, source)
        documents = as_list(prepared)
        await self._ask_store(self._config.store_steps.look_up_and_finish, documents, source)
        if any(each.is_open and each.without_text for each in documents):
            return await self._prepare_on_worker(source, None)  # its file has moved meanwhile
        return prepared

    async def _chunk(self, prepared: PreparedDocument, source: object) -> None:
        """Look up a document, and chunk it in a stage of its own unless it is unchanged."""
        steps, document = self._config.store_steps, prepared.document
        if steps.known is not None:
            await self._ask_store(steps.look_up, [prepared], source)
        if not prepared.is_open:
            return
        chunks = await self._call("chunk", document.text, source)
        if len(document.text) > INLINE_MAX_CHARS:
            prepared.chunks = await asyncio.to_thread(add_locations, document, chunks)
        else:
            prepared.chunks = add_locations(document, chunks)
        if steps.cached is None:
            steps.finish([prepared])
        else:
            await self._ask_store(steps.finish, [prepared], source)

    async def _ask_store(
        self,
        step: Callable[[list[PreparedDocument]], None],
        documents: list[PreparedDocument],
        source: object,
    ) -> None:
        """Run a step of the store on a thread; an error that is nobody's ends in the source."""
        assert self._store_steps is not None  # opened unless blocks of sources are prepared
        try:
            await self._store_steps((step, documents))
        except Exception as error:
            note_place(error, "store", _name_of(source))
            raise StageFailure("store", error) from error

    async def _claim(
        self, source: object, documents: Sequence[PreparedDocument], place: int
    ) -> None:
        """Claim the ids of a source's documents when it is their turn."""
        self._count_loading(-1)  # otherwise the run would not read the sources it waits for
        try:
            await self._claims.turn_of(place)
        finally:
            self._count_loading(1)
        self._claims.claim(source, documents)

    async def _enter(self, prepared: PreparedDocument, source: object) -> int:
        """
        Wait until there is room for the chunks of a document.

        Another document of the same id is stored first, and this one may be unchanged then.

        Returns:
            The room to give back.

        Raises:
            StageFailure: the preparation of the document failed.
            DocumentDeferred: it failed after the run had stopped.
        """
        if prepared.failure is not None:
            if is_a(prepared.failure, StageFailure):
                self._defer_if_stopped(prepared.failure)
                note_place(prepared.failure.error, prepared.failure.stage, _name_of(source))
            raise prepared.failure
        if prepared.unchanged:
            return 0
        known, id_ = self._config.known, prepared.document.id
        while known is not None and not self._in_flight.begin(id_):
            await self._in_flight.wait(id_)
            try:
                stored = await asyncio.to_thread(known.fingerprint_of, id_)
            except Exception as error:
                note_place(error, "store", _name_of(source))
                raise StageFailure("store", error) from error
            if stored == prepared.fingerprint:
                prepared.unchanged = True
                return 0
        try:
            weight = self._budget.enter_now(len(prepared.chunks))
            if weight is None:
                weight = await self._wait_for_room(len(prepared.chunks))
        except BaseException:
            self._in_flight.end(id_)
            raise
        self._embedding += 1
        return weight

    async def _wait_for_room(self, chunks: int) -> int:
        """Wait until there is room for a document; load no further ones while several wait."""
        self._count_waiting(1)
        try:
            return await self._budget.enter(chunks)
        finally:
            self._count_waiting(-1)

    def _leave(self, weight: int) -> None:
        """Give the room of a document back."""
        self._budget.leave(weight)
        if self._room_is_full:
            self._pause_input()

    def _count_waiting(self, change: int) -> None:
        """Count the prepared documents that wait for room; they are in memory, whatever size."""
        self._waiting_for_room += change
        blocks = self._blocks
        if blocks is not None:
            full = self._waiting_for_room >= self._config.max_concurrency
            if full is not blocks.paused:
                blocks.paused = full

    def _count_loading(self, change: int) -> None:
        """Count the sources in the loading stages; pause the input while there are enough."""
        self._loading += change
        if not self._loading and self._all_read:
            self.source_ended()
        self._pause_input()

    def _pause_input(self) -> None:
        """Read no source while enough are loading, or until a full room has that of a batch."""
        if self._budget.free >= self._config.embed.batch_size:
            self._room_is_full = False
        step = 1
        if self._blocks is not None:
            ahead = self._blocks.ahead
        else:
            if self._group_size is not None:
                step = self._group_size.current
            ahead = self.controls.max_concurrency * step
        run = self._run
        assert run is not None  # of which this source is an item
        if self._loading >= ahead or self._room_is_full:
            run.pause_input(True)
        elif self._loading <= ahead - step:  # there is room for a whole group
            run.pause_input(False)

    @property
    def _more_to_embed(self) -> bool:
        """Whether a further document may still hand its chunks to the embedder."""
        return self._loading > 0 or not self._all_read

    @property
    def _more_to_store(self) -> bool:
        """Whether a further document may still be handed to the store."""
        return self._embedding > 0 or self._more_to_embed

    async def _compare_file(self, source: object) -> tuple[int, int]:
        """Count the stored documents of a source that are unchanged, and those that are not."""
        try:
            documents, several = await self._prepare(source)
            if several and self._config.chunk is not None:
                await self._ask_store(self._config.store_steps.look_up, documents, source)
        except Exception:
            return 0, 0  # it will fail in its turn
        stored = [
            each.unchanged
            for each in documents
            if each.failure is None and each.stored.fingerprint is not None
        ]
        return sum(stored), len(stored) - sum(stored)

    # ── embedding and storing ─────────────────────────────────────────────────────────────────

    async def _call(self, stage: str, item: object, source: object) -> Any:
        """Pass one item to a stage and await its value."""
        try:
            (value,) = await self._stages[stage]([item])
        except RequestFailed as failed:
            raise self._failure(stage, failed, _name_of(source)) from failed.error
        return value

    def _embedding_failure(
        self, prepared: PreparedDocument, failed: RequestFailed
    ) -> BaseException:
        """Put the error of a document's chunks into its envelope."""
        chunks, places = prepared.chunks, prepared.places_to_embed
        which = places_of([places[position] for position in failed.positions], chunks)
        return self._failure("embed", failed, f"{which} of {prepared.document.id!r}")

    def _failure(self, name: str, failed: RequestFailed, place: str) -> BaseException:
        """Put the error of a stage into its envelope; an interrupt or exit stays as it is."""
        if is_a(failed.error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
            return failed.error
        stage = self._stages[name]
        # A timeout may be the document's own: the next one gets its error from the stage.
        is_fatal = stage.has_stopped and not (
            stage.run.stopped_early or is_a(failed.error, AttemptTimeout)
        )
        shown = failed.stage or ("load" if name == LOAD_AND_CHUNK else name)
        note_place(failed.error, shown, place)
        return (FatalStageError if is_fatal else StageFailure)(shown, failed.error)

    def _has_known_dimension(self, vectors: Sequence[Vector | None]) -> bool:
        """Whether all vectors are finite, and of the dimension of the first one of the run."""
        lengths = {None if vector is None else len(vector) for vector in vectors}
        return lengths == {self._dimension} and self._dimension is not None

    def _check_vectors(self, prepared: PreparedDocument, vectors: Sequence[Vector | None]) -> None:
        """Refuse a document with a vector that is not finite, or of another dimension."""
        if self._has_known_dimension(vectors):
            return
        for number, vector in enumerate(vectors):
            if vector is None or len(vector) != self._dimension:
                place = f"{places_of([number], prepared.chunks)} of {prepared.document.id!r}"
                self._check_vector(vector, place)

    def _check_vector(self, vector: Vector | None, place: str) -> None:
        """Refuse a vector that is not finite, or not of the dimension of the first one."""
        stored = self._config.embedder.dimension
        if vector is not None and self._dimension is None and stored in (None, len(vector)):
            self._dimension = len(vector)
            return
        error: Exception
        if vector is None:
            error = ValueError(
                "expected finite numbers, got a vector with others: fix the embedder, which may "
                "divide by the length of an empty text's vector"
            )
        elif self._dimension is None:
            error = EmbedderMismatch(
                f"the store holds vectors of {self._config.embedder.name!r} with {stored} "
                f"dimensions, and embed= gives vectors of {len(vector)}: use the embedder that "
                "made the former, or another store"
            )
        else:
            error = ValueError(
                f"expected a vector of {self._dimension} dimensions, as the first of this run, "
                f"got one of {len(vector)}: an embedder must give one dimension"
            )
            self._spare.refuse()
        note_place(error, "embed", place)
        raise StageFailure("embed", error)

    def _result(
        self,
        prepared: PreparedDocument,
        vectors: Sequence[Vector] = (),
        tokens: int | None = None,
    ) -> ProcessedDocument:
        """Make the result of a document."""
        document = prepared.document
        keep = self._config.keep_content and not prepared.unchanged
        return ProcessedDocument(
            document.id,
            document.source,
            None if prepared.unchanged else len(prepared.chunks),
            unchanged=prepared.unchanged,
            document=document if keep else None,
            chunks=tuple(prepared.chunks) if keep else None,
            embeddings=as_array(vectors) if keep else None,
            fingerprint=prepared.fingerprint,
            tokens=tokens,
            **(facts_of(document) if document.metadata else {}),
        )

    # ── early stops and warnings ──────────────────────────────────────────────────────────────

    def stop_early(self, because: str) -> None:
        """Begin no further document and no further call of the embedder."""
        if self._stopped_early:
            return
        self._stopped_early = True
        if self._run is not None:
            for stage in self._stages.values():
                if (failure := stage.run.totals.shared_failure) is not None:
                    self._run.totals.shared_failure = failure
            self._run.stop(because)
        if (embed := self._stages.get("embed")) is not None:
            embed.run.stop(because)

    def _defer_if_stopped(self, failure: StageFailure) -> None:
        """
        Leave a document pending whose preparation failed after an early stop.

        Documents are prepared in blocks, ahead of the embedder: once `max_errors` is exceeded, the
        rest of the block is not counted as failed as well.
        """
        if self._stopped_early:
            raise DocumentDeferred("the run has stopped") from failure

    async def _check_embedder(self) -> None:
        """Refuse the run if the store holds vectors of another embedder; warn of doubts."""
        if self._config.store is None:
            return
        try:
            warning = await asyncio.to_thread(self._config.embedder.check)
        except EmbedderMismatch as error:
            self._refusal = error
        except StoreError:  # each document will meet it too, and the policy decides about retries
            return
        else:
            self._doubts = self._config.fingerprint.unknown if warning else []
            if warning and self._doubts:
                warning += f". The same applies to {' and '.join(self._doubts)}"
            self._warn(warning)

    def _warn_of_unknown(self) -> None:
        """Warn once that documents were treated as unchanged because code cannot be compared."""
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
        """Warn at the line where the processor was made, because a run has a loop of its own."""
        if warning is not None:
            warnings.warn_explicit(warning, UserWarning, *self._config.made_at)


class _BegunDocument:
    """A document whose chunks are with the embedder, without a worker."""

    __slots__ = ("_document", "_pipeline", "_spans", "_weight", "reply")

    def __init__(
        self,
        pipeline: Pipeline,
        document: Document,
        spans: Spans,
        weight: int,
        reply: Reply[list[Any]],
    ) -> None:
        self._pipeline, self._document = pipeline, document
        self._spans, self._weight, self.reply = spans, weight, reply

    def finish(self) -> ProcessedDocument:
        """Make its result, or raise its error."""
        return self._pipeline.finish_begun(self._document, self._spans, self._weight, self.reply)


class DocumentsInFlight:
    """The ids of documents on their way to the store, of which only one may have each id."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}

    def begin(self, document_id: str) -> bool:
        """Let a document go ahead, unless another of its id is on its way."""
        if document_id in self._waiting:
            return False
        self._waiting[document_id] = []
        return True

    async def wait(self, document_id: str) -> None:
        """Wait until the document of this id has ended."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[document_id].append(future)
        await future

    def end(self, document_id: str) -> None:
        """Wake the documents that wait for this id."""
        for future in self._waiting.pop(document_id, ()):
            if not future.done():
                future.set_result(None)


def places_of(failed: Sequence[int], chunks: Sequence[Chunk]) -> str:
    """Describe the chunks that an error is about, given their positions in ascending order."""
    first, last = failed[0], failed[-1]
    span = f"(characters {chunks[first].start} to {chunks[last].end})"
    if first == last:
        return f"chunk {first + 1} of {len(chunks)} {span}"
    return f"chunks {first + 1} to {last + 1} of {len(chunks)} {span}"


def _group_size(config: PipelineConfig, sources: int | None) -> GroupSize:
    """The size of groups for the executor; small first ones, so that each worker gets some."""
    assert config.prepare is not None  # otherwise there are no groups
    share = (sources or 0) // (4 * config.max_concurrency)
    return GroupSize(config.prepare.batch_size, max(1, min(FIRST_GROUP, share)))


def _name_of(source: object) -> str:
    """The id of a source, or the source itself, for a note."""
    return repr(getattr(source, "id", source))
