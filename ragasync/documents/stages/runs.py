"""The runs of a document processor: awaited, streamed, or begun in the background."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, cast

from ragasync.batch import AsyncBatchProcessor
from ragasync.bridge.run_async import run_async
from ragasync.documents.sources.unique import claim
from ragasync.documents.stages.intake import Intake, Sources
from ragasync.documents.stages.line import Line, Occasion, open_line
from ragasync.documents.stages.processed import ProcessedDocument
from ragasync.documents.stages.pruning import Prune
from ragasync.documents.stages.recipe import Recipe, ends_the_run
from ragasync.engine.job_run import JobRun
from ragasync.engine.stream import streamed
from ragasync.job import Job
from ragasync.journal import Journal
from ragasync.journal.use import JournalBinding
from ragasync.outcomes.outcome import Outcome
from ragasync.progress import ProgressCallback
from ragasync.result import BatchResult
from ragasync.retries.policy import AsyncRetry
from ragasync.settings import BatchSettings


class DocumentRuns:
    """
    Runs a recipe over sources, a source an item; AsyncDocumentProcessor makes the recipe.

    Args:
        recipe: what is done with a document.
        intake: what becomes of what is given as sources.
        max_errors: as for AsyncBatchProcessor.
        max_error_rate: as for AsyncBatchProcessor.
        journal: a journal that is made ready for documents, or None.
    """

    def __init__(
        self,
        recipe: Recipe,
        intake: Intake,
        *,
        max_errors: int | None,
        max_error_rate: float | None,
        journal: JournalBinding | None,
    ) -> None:
        self._recipe, self._intake = recipe, intake
        self._processor: AsyncBatchProcessor[Any, ProcessedDocument] = AsyncBatchProcessor(
            _through_the_line,
            max_concurrency=recipe.at_once + recipe.room,
            retry=AsyncRetry(1, 0.0, retry_on=ends_the_run),  # what is postponed is never tried
            max_errors=max_errors,
            max_error_rate=max_error_rate,
            max_initial_failures=None,  # the embedding stage has its own; loading never counts
            journal=cast("Journal | None", journal),  # it knows one that is made ready for it
            resources=partial(open_line, recipe),
        )

    @property
    def last_result(self) -> BatchResult[ProcessedDocument] | None:
        """The result of the latest run that ended, whole or not."""
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
        Take every source through all stages and return all outcomes, in order.

        Args:
            sources: a folder, which is walked, a file, a Document, or an iterable or async
                iterable of these and of (id, text) pairs; with a `load` of your own, of whatever
                it takes.
            progress_callback: as for `AsyncBatchProcessor.process`.
            total: likewise.
            max_items: load only that many sources, as a pilot.
            prune: remove from the store, at the end, the documents of files that are no longer in
                the folders that `sources` names, and of rows that are no longer in their file.
                What lies elsewhere stays, as does any Document that was given, whatever its
                source; and what failed keeps its old version, but not an empty file that
                `skip_unreadable` passes over. Nothing is removed when the run did not come to its
                end, or had `max_items`. A folder that is empty or missing is refused while the
                store has documents of it, because most often its disk is not mounted; "force"
                removes these too.

        Raises:
            FileNotFoundError: a str names no existing path.
            TypeError: to prune, the store would have to tell what it has of a folder.
            ValueError: to prune, a folder would have to be among the sources; or a file is not
                below `root`.
            RunRefused: documents that are stored would be lost.
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
        """Do as `process` does, from sync code; see `run_async`."""
        return run_async(
            self.process(sources, progress_callback, total=total, max_items=max_items, prune=prune)
        )

    async def stream(
        self, sources: Sources, *, ordered: bool = False, total: int | None = None
    ) -> AsyncGenerator[Outcome[Any, ProcessedDocument], None]:
        """Yield each document's outcome as it comes; see `AsyncBatchProcessor.stream`."""
        items, occasion = await asyncio.to_thread(self._intake.of, sources, prune=False)
        plan = self._plan_of(occasion)
        async with aclosing(streamed(plan, items, ordered=ordered, total=total)) as outcomes:
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
        Begin in the background and return the Job; see `AsyncBatchProcessor.start`.

        A folder is walked before this returns, so that the job knows its total.
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
        """Make a run, and have its line know it."""
        plan = self._plan_of(occasion)
        batch = self._processor._new_run(items, progress_callback, total, max_items, plan)
        occasion.run = batch.run
        if max_items is not None:
            occasion.pruner = None  # a pilot has not seen what is there
        return batch

    def _plan_of(self, occasion: Occasion) -> BatchSettings[Any, ProcessedDocument]:
        """Return the plan of one run."""
        plan = replace(
            self._processor._settings, resources=partial(open_line, self._recipe, occasion)
        )
        if plan.journal is None or (holds := plan.journal.still_holds) is None:
            return plan

        def still_holds(source: object, done: ProcessedDocument) -> bool:
            return holds(source, done) and occasion.recalled(source, done)

        return replace(plan, journal=replace(plan.journal, still_holds=still_holds))

    async def _process_again(
        self, items: Sequence[Any], kept: Iterable[Outcome[Any, ProcessedDocument]] = ()
    ) -> BatchResult[ProcessedDocument]:
        """Process items that were found before, beside those that keep their outcomes."""
        occasion = Occasion()
        for outcome in kept:
            claim(occasion.taken, outcome.item)
            if isinstance(outcome.value, ProcessedDocument):
                occasion.recalled(outcome.item, outcome.value)
        for item in items:
            claim(occasion.taken, item)
        return await self._processor._process_again(items, plan=self._plan_of(occasion))


async def _through_the_line(source: object, line: Line) -> ProcessedDocument:
    """Take one source through the stages that its run has opened."""
    return await line.one_document(source)
