"""DocumentJob: the handle of a job over documents, whose stages can be steered while it runs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from ragasync._engine.job_run import JobRun
from ragasync.arguments import check_positive
from ragasync.documents.pipeline import Pipeline
from ragasync.documents.processed import ProcessedDocument
from ragasync.job import Job
from ragasync.progress_callbacks import Progress
from ragasync.settings import check_concurrency, parse_concurrency

if TYPE_CHECKING:
    from ragasync.notebook.panel_view import ConcurrencySetting, JobView


class DocumentJob(Job[Any, ProcessedDocument]):
    """
    A Job over documents; each stage of its pipeline has a setting of its own.

    `AsyncDocumentProcessor.start` creates it. `progress.limited_by` names the stage that holds the
    others back, as does its line in the panel: raise its setting first. All settings can be changed
    while the job runs, from any thread, and the panel has a slider for each:

    - `max_concurrency`: documents loaded and chunked concurrently
    - `embed_concurrency`: concurrent calls of `embed`, or "auto"
    - `store_concurrency`: concurrent calls of a `store` function
    - `rate`: calls of `embed` per second

    Example:
        >>> import time
        >>> from ragasync import AsyncDocumentProcessor
        >>> def embed(texts):
        ...     time.sleep(0.001)
        ...     return [[float(len(text))] for text in texts]
        >>> documents = [(f"note {number}", "A bucket refills.") for number in range(50)]
        >>> job = AsyncDocumentProcessor(embed=embed, batch_size=1).start(documents)
        >>> job.embed_concurrency = 16  # while it runs
        >>> job.rate = 2_000
        >>> job.wait().success_count  # in a cell: await job
        50
    """

    def __init__(
        self,
        job_run: JobRun[Any, ProcessedDocument],
        loop: asyncio.AbstractEventLoop,
        pipeline: Pipeline,
    ) -> None:
        self._pipeline, self._controls = pipeline, pipeline.controls
        super().__init__(job_run, loop)

    @property
    def max_concurrency(self) -> int:
        """
        The maximum number of documents that are loaded and chunked concurrently.

        If `load` and `chunk` are Stages with a limit each, this is the higher one; setting it sets
        both.
        """
        return self._controls.max_concurrency

    @max_concurrency.setter
    def max_concurrency(self, value: int | Literal["auto"]) -> None:
        self._controls.max_concurrency = check_concurrency(value)
        self._on_loop(self._pipeline.apply_settings)

    @property
    def embed_concurrency(self) -> int:
        """
        The maximum number of concurrent calls of `embed`; can also be set to "auto".

        With "auto" this is the limit in force now; setting a number turns "auto" off. The number of
        chunks in memory grows with it: those of three rounds of calls.
        """
        return self._controls.embed_concurrency

    @embed_concurrency.setter
    def embed_concurrency(self, value: int | Literal["auto"]) -> None:
        limit, adaptive = parse_concurrency(value, "embed_concurrency")
        if adaptive:
            self._controls.adapt_embed_concurrency()
        else:
            self._controls.embed_concurrency = limit
        self._on_loop(self._pipeline.apply_settings)

    @property
    def store_concurrency(self) -> int:
        """
        The maximum number of concurrent calls of a `store` function.

        Of a Store it is 1, and setting it has no effect: a Store is called once at a time, one with
        `upsert_many` for all documents that wait to be stored.
        """
        return self._controls.store_concurrency

    @store_concurrency.setter
    def store_concurrency(self, value: int) -> None:
        self._controls.store_concurrency = check_concurrency(value, "store_concurrency")
        self._on_loop(self._pipeline.apply_settings)

    @property
    def rate(self) -> float | None:
        """The job's own rate limit in calls of `embed` per second; its limiters apply as well."""
        return self._controls.rate

    @rate.setter
    def rate(self, value: float | None) -> None:
        if value is not None:
            check_positive("rate", value)
        self._controls.rate = value
        self._on_loop(self._pipeline.apply_settings)

    @property
    def progress(self) -> Progress:
        """The progress of the job, as a frozen snapshot."""
        return replace(super().progress, max_concurrency=self.max_concurrency)

    def pause(self) -> None:
        """Load no further documents; those in progress are still embedded and stored."""
        super().pause()

    # ── display ──────────────────────────────────────────────────────────────────────────────────

    def _view(self) -> JobView:
        """The state of the job as its panel and its repr show it."""
        view = super()._view()
        calls = sum(stage.calls for stage in view.stages if stage.name == "embed")
        speed = calls / view.stage_seconds if view.stage_seconds > 0 else 0.0
        return replace(view, speed=speed, rate_noun="embed call", rate_label="embed calls/s")

    def _concurrency_settings(self) -> tuple[ConcurrencySetting, ...]:
        """The settings for the number of concurrent calls, as they are shown."""
        from ragasync.notebook.panel_view import ConcurrencySetting

        controls = self._controls
        load = ConcurrencySetting(
            self.max_concurrency, label="load and chunk", noun="load", is_rated=False
        )
        embed = ConcurrencySetting(
            self.embed_concurrency,
            controls.embed_is_adaptive,
            "embed_concurrency",
            label="embed",
            noun="embed call",
            css="embed-",
        )
        store = ConcurrencySetting(
            self.store_concurrency,
            name="store_concurrency",
            label="store",
            noun="store call",
            css="store-",
            is_rated=False,
        )
        return (load, embed, store) if controls.has_store_function else (load, embed)
