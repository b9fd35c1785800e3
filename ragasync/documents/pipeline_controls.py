"""PipelineControls: the settings of a pipeline that can change while it runs."""

from __future__ import annotations

import asyncio
from typing import Any

from ragasync._engine.controls import RunControls
from ragasync.documents.config import PipelineConfig
from ragasync.documents.thread_batches import ThreadBatcher

SETTINGS = {"embed": "embed_concurrency", "store": "store_concurrency"}
"""The settings for concurrent calls of these stages; that of the others is `max_concurrency`."""


class PipelineControls:
    """
    The settings of a pipeline that can change while it runs, and the stages that follow them.

    A setting may be assigned from any thread, at any time. It takes effect in `apply`, which is
    called on the run's loop: a limit that is lowered lets calls in flight finish.

    Args:
        config: the settings that the run begins with.

    Attributes:
        rate: the maximum number of calls of `embed` per second, beside its limiters; or None.
        budget: the bound on chunks in progress, which follows `embed_concurrency`.
    """

    def __init__(self, config: PipelineConfig) -> None:
        self._config = config
        self._max_concurrency: int | None = None  # while it is unset, stages may differ in theirs
        self._embed_concurrency = config.embed.max_concurrency
        self._store_concurrency = 1 if config.store is None else config.store.max_concurrency
        self.embed_is_adaptive = config.embed.adaptive
        self.rate: float | None = None
        self.budget = ChunkBudget(config.room)
        self._run: RunControls | None = None
        self._threads: list[ThreadBatcher[Any, Any]] = []
        self._stages: dict[str, RunControls] = {}

    # ── the settings ──────────────────────────────────────────────────────────────────────────

    @property
    def max_concurrency(self) -> int:
        """The maximum number of documents that are loaded and chunked concurrently."""
        return self._max_concurrency or self._config.max_concurrency

    @max_concurrency.setter
    def max_concurrency(self, value: int) -> None:
        self._max_concurrency = value

    @property
    def embed_concurrency(self) -> int:
        """The maximum number of concurrent calls of `embed`; if adaptive, the limit in force."""
        embed = self._stages.get("embed")
        if self.embed_is_adaptive and embed is not None:
            return embed.max_concurrency
        return self._embed_concurrency

    @embed_concurrency.setter
    def embed_concurrency(self, value: int) -> None:
        self._embed_concurrency, self.embed_is_adaptive = value, False

    def adapt_embed_concurrency(self) -> None:
        """
        Adapt the number of concurrent calls of `embed` to its service.

        Raises:
            ValueError: these calls run on an executor, which has a fixed number of workers.
        """
        self._config.embed.check_adaptable()
        self.embed_is_adaptive = True

    @property
    def store_concurrency(self) -> int:
        """The maximum number of concurrent calls of a `store` function; of a Store, always 1."""
        return self._store_concurrency

    @store_concurrency.setter
    def store_concurrency(self, value: int) -> None:
        if self.has_store_function:
            self._store_concurrency = value

    @property
    def has_store_function(self) -> bool:
        """Whether documents are stored by a function; a Store is called once at a time."""
        return self._config.has_store_function

    def setting_of(self, stage: str) -> str:
        """The name of the setting for concurrent calls of a stage; empty if it has none."""
        if stage == "store" and not self.has_store_function:
            return ""
        return SETTINGS.get(stage, "max_concurrency")

    # ── what follows them ─────────────────────────────────────────────────────────────────────

    def attach_run(self, run: RunControls) -> None:
        """Have the run whose items are the sources take as many as the pipeline has room for."""
        self._run = run
        self.resize_room()

    def attach_threads(self, threads: ThreadBatcher[Any, Any]) -> None:
        """Have the threads that load and chunk follow `max_concurrency`."""
        self._threads.append(threads)

    def attach_stage(self, name: str, stage: RunControls) -> None:
        """Have a stage follow its setting."""
        self._stages[name] = stage
        self.apply()

    def apply(self) -> None:
        """Apply the settings to all stages; on the run's loop."""
        for threads in self._threads:
            threads.resize(self.max_concurrency)
        for name, stage in self._stages.items():
            if name == "embed":
                self._apply_to_embed(stage)
            elif name == "store":
                _resize(stage, self._store_concurrency)
            elif self._max_concurrency is not None:
                _resize(stage, self._max_concurrency)
        self.resize_room()

    def _apply_to_embed(self, stage: RunControls) -> None:
        """Apply the settings of `embed`."""
        if not self.embed_is_adaptive:
            _resize(stage, self._embed_concurrency)
        elif not stage.adaptive:
            stage.adapt()
        if stage.rate != self.rate:
            stage.set_rate(self.rate)

    def resize_room(self) -> None:
        """Let the room for chunks and documents follow the concurrency of `embed`."""
        self.budget.resize(self._config.room_for(self.embed_concurrency))
        if self._run is not None:
            most = self._config.most_documents(self.max_concurrency, self.embed_concurrency)
            _resize(self._run, most)


def _resize(run: RunControls, max_concurrency: int) -> None:
    """Allow a run this number of concurrent calls, unless it does already."""
    if run.adaptive or run.max_concurrency != max_concurrency:
        run.resize(max_concurrency)


class ChunkBudget:
    """
    Bounds the chunks in progress; documents enter first come, first served.

    A document of any size enters, because none counts for more than half of the budget; so the
    stages are never idle between two large ones.

    Args:
        size: the maximum number of chunks.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._taken = 0
        self._entrance = asyncio.Lock()
        self._left = asyncio.Event()

    def enter_now(self, chunks: int) -> int | None:
        """Let a document in if there is room; return the room that it takes, else None."""
        weight = self._weight_of(chunks)
        if self._entrance.locked() or self._taken + weight > self._size:
            return None
        self._taken += weight
        return weight

    async def enter(self, chunks: int) -> int:
        """Wait until there is room for a document; return the room that it takes."""
        async with self._entrance:
            while self._taken + (weight := self._weight_of(chunks)) > self._size:
                self._left.clear()
                await self._left.wait()
            self._taken += weight
        return weight

    def leave(self, weight: int) -> None:
        """Give room back."""
        self._taken -= weight
        self._left.set()

    def resize(self, size: int) -> None:
        """Allow more or fewer chunks; those in progress stay."""
        self._size = size
        self._left.set()

    def _weight_of(self, chunks: int) -> int:
        """The room that a document takes now: a smaller budget gives it no more than half."""
        return max(1, min(chunks, self._size // 2))
