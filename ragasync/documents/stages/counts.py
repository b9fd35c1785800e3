"""What a run of the pipeline counts: how busy its stages were, and what was removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ragasync._calls.thread_batches import ThreadBatcher
from ragasync._engine.request_batcher import RequestBatcher
from ragasync._outcomes.stats import StageStats
from ragasync.documents.metering import Meter
from ragasync.documents.stages.config import PipelineConfig

STAGES = ("load", "look up", "chunk", "embed", "store")
"""The stages in the order of a document's way."""


class PipelineCounts:
    """
    Counts for one run.

    Args:
        config: the stages and their settings.
        services: the open stages by their names.
        prepare: loads and cuts, where that is one call.
        meter: what the embedder's calls used.

    Attributes:
        pruned: the documents that were removed from the store; None where that was not asked for.
    """

    def __init__(
        self,
        config: PipelineConfig,
        services: Mapping[str, RequestBatcher[Any, Any]],
        prepare: ThreadBatcher[object, Any] | None,
        meter: Meter,
    ) -> None:
        self._config, self._services = config, services
        self._prepare, self._meter = prepare, meter
        self.pruned: int | None = None

    def restart(self) -> None:
        """Count time from now on, when all stages are open."""
        for service in self._services.values():
            service.activity.restart()
        if self._prepare is not None:
            self._prepare.activity.restart()

    def stages(self) -> tuple[StageStats, ...]:
        """Return how busy each stage was so far, in the order of a document's way."""
        found = {name: service.stats(name) for name, service in self._services.items()}
        if "embed" in found:
            meter = self._meter
            found["embed"] = replace(found["embed"], tokens=meter.tokens, cost=meter.cost)
        if (batcher := self._prepare) is not None:
            found["load"] = StageStats(
                "load and chunk",
                self._config.max_concurrency,
                batcher.activity.seconds,
                calls=batcher.ended,
                ended=batcher.ended,
                in_flight=batcher.in_flight,
                busy=(batcher.activity.snapshot(),),
            )
        return tuple(found[stage] for stage in STAGES if stage in found)

    def told(self) -> tuple[tuple[str, int], ...]:
        """Return what else there is to say of the run: what was counted, and how many."""
        return () if self.pruned is None else (("pruned", self.pruned),)
