"""Runs of a document processor: awaited, streamed, or started in the background."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, cast

from ragasync._bridge.run_async import run_async
from ragasync._engine.job_run import JobRun
from ragasync._engine.stream import stream_outcomes
from ragasync._outcomes.outcome import Outcome
from ragasync._retries.policy import AsyncRetry
from ragasync.batch import AsyncBatchProcessor
from ragasync.documents.stages.config import PipelineConfig, ends_the_run
from ragasync.documents.stages.intake import Intake, Sources
from ragasync.documents.stages.pipeline import Occasion, Pipeline, open_pipeline
from ragasync.documents.stages.processed import ProcessedDocument
from ragasync.documents.stages.pruning import Prune
from ragasync.documents.unique_sources import claim
from ragasync.job import Job
from ragasync.journal import Journal
from ragasync.journal.journal import JournalBinding
from ragasync.progress_callbacks import ProgressCallback
from ragasync.result import BatchResult
from ragasync.settings import BatchSettings


class DocumentRuns:
    """
    Runs a pipeline over sources, one item per source.

    Args:
        config: the stages and their settings, from AsyncDocumentProcessor.
        intake: resolves the given sources to items.
        max_errors: as for AsyncBatchProcessor.
        max_error_rate: as for AsyncBatchProcessor.
        journal: the binding of a journal to these stages, or None.
    """

    def __init__(
        self,
        config: PipelineConfig,
        intake: Intake,
        *,
        max_errors: int | None,
        max_error_rate: float | None,
        journal: JournalBinding | None,
    ) -> None:
        self._config, self._intake = config, intake
        self._processor: AsyncBatchProcessor[Any, ProcessedDocument] = AsyncBatchProcessor(
            _through_the_pipeline,
            max_concurrency=config.max_concurrency + config.room,
            retry=AsyncRetry(1, 0.0, retry_on=ends_the_run),  # a deferred document is never retried
            max_errors=max_errors,
            max_error_rate=max_error_rate,
            max_initial_failures=None,  # the embedding stage has its own; loading never counts
            journal=cast("Journal | None", journal),  # it accepts a binding as well
            resources=partial(open_pipeline, config),
        )

    @property
    def last_result(self) -> BatchResult[ProcessedDocument] | None:
        """The result of the latest run that ended, complete or not."""
        return self._processor.last_result

    async def process(
        self,
        sources: Sources,
        progress_callback: ProgressCallback | None = None,
        *,
        total: int | None = None,
        max_items: int | None = None,
        prune: Prune = False,
    ) -> BatchResult[ProcessedDocument]:
        """
        Process every source through all stages and return all outcomes, in input order.

        Args:
            sources: a folder (which is walked), a file, a Document, or an iterable or async
                iterable of these and of (id, text) pairs; with a custom `load`, of whatever it
                accepts.
            progress_callback: as for `AsyncBatchProcessor.process`.
            total: as for `AsyncBatchProcessor.process`.
            max_items: process only the first sources, as a pilot; the rest stay pending.
            prune: at the end, remove stored documents whose file is no longer in the folders among
                `sources`, or whose row is no longer in its file. Documents of other folders stay,
                and so do Documents passed as sources. A document that failed keeps its old
                version, unless it is an empty file that `on_unreadable` skips. Nothing is removed
                if the run did not finish or had `max_items`. If a folder is empty or missing while
                the store has documents of it, the run is refused, because its disk is probably not
                mounted; "force" removes these documents too.

        Raises:
            FileNotFoundError: a str names no existing path.
            TypeError: `prune` needs a store that can list the documents of a folder.
            ValueError: `prune` needs a folder among the sources; or a file is not below `root`.
            RunRefused: stored documents would be lost.
            RunAsyncError: a stage uses an object of another event loop.
        """
        items, occasion = await asyncio.to_thread(self._intake.of, sources, prune=prune)
        return await self._run(items, occasion, progress_callback, total, max_items).complete()

    def process_sync(
        self,
        sources: Sources,
        progress_callback: ProgressCallback | None = None,
        *,
        total: int | None = None,
        max_items: int | None = None,
        prune: Prune = False,
    ) -> BatchResult[ProcessedDocument]:
        """Run `process` from sync code; see `run_async`."""
        return run_async(
            self.process(sources, progress_callback, total=total, max_items=max_items, prune=prune)
        )

    async def stream(
        self, sources: Sources, *, ordered: bool = False, total: int | None = None
    ) -> AsyncGenerator[Outcome[Any, ProcessedDocument], None]:
        """Yield the outcome of each document when it is done; see `AsyncBatchProcessor.stream`."""
        items, occasion = await asyncio.to_thread(self._intake.of, sources, prune=False)
        plan = self._plan_of(occasion)
        async with aclosing(stream_outcomes(plan, items, ordered=ordered, total=total)) as outcomes:
            async for outcome in outcomes:
                yield outcome

    def start(
        self,
        sources: Sources,
        progress_callback: ProgressCallback | None = None,
        *,
        total: int | None = None,
        max_items: int | None = None,
        on_current_loop: bool = False,
        prune: Prune = False,
    ) -> Job[Any, ProcessedDocument]:
        """
        Start a background Job; see `AsyncBatchProcessor.start`.

        Folders are walked before this returns, so that the job knows its total.
        """
        items, occasion = self._intake.of(sources, prune=prune)
        batch = self._run(items, occasion, progress_callback, total, max_items)
        return self._processor._start_run(batch, on_current_loop)

    def _run(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        occasion: Occasion,
        progress_callback: ProgressCallback | None,
        total: int | None,
        max_items: int | None,
    ) -> JobRun[Any, ProcessedDocument]:
        """Set up a run and make it known to its pipeline."""
        plan = self._plan_of(occasion)
        batch = self._processor._new_run(items, progress_callback, total, max_items, plan)
        occasion.run = batch.run
        if max_items is not None:
            occasion.pruner = None  # a pilot has not seen all files
        return batch

    def _plan_of(self, occasion: Occasion) -> BatchSettings[Any, ProcessedDocument]:
        """The plan of one run."""
        plan = replace(
            self._processor._settings, resources=partial(open_pipeline, self._config, occasion)
        )
        if plan.journal is None or (holds := plan.journal.is_still_valid) is None:
            return plan

        def is_still_valid(source: object, done: ProcessedDocument) -> bool:
            return holds(source, done) and occasion.recalled(source, done)

        return replace(plan, journal=replace(plan.journal, is_still_valid=is_still_valid))

    async def _rerun(
        self, items: Sequence[Any], kept: Iterable[Outcome[Any, ProcessedDocument]] = ()
    ) -> BatchResult[ProcessedDocument]:
        """Process items of an earlier result again; `kept` are the outcomes that stay."""
        occasion = Occasion()
        for outcome in kept:
            claim(occasion.taken, outcome.item)
            if isinstance(outcome.value, ProcessedDocument):
                occasion.recalled(outcome.item, outcome.value)
        for item in items:
            claim(occasion.taken, item)
        return await self._processor._rerun(items, settings=self._plan_of(occasion))


async def _through_the_pipeline(source: object, pipeline: Pipeline) -> ProcessedDocument:
    """Process one source through the open stages of its run."""
    return await pipeline.one_document(source)
