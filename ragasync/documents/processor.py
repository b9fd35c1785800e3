"""AsyncDocumentProcessor: loads, chunks, embeds and stores documents."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor
from typing import Any, Literal, TypeAlias

from ragasync._limits.limiter import Limiter
from ragasync._retries.policy import AsyncRetry
from ragasync.arguments import check_positive
from ragasync.batch import DEFAULT_RETRY_COUNT, DEFAULT_RETRY_DELAY, retry_given
from ragasync.documents.embedders import HashingEmbedder
from ragasync.documents.fingerprints import StageFunction
from ragasync.documents.loaders import load_source
from ragasync.documents.sources import FileIds
from ragasync.documents.splitters import RecursiveSplitter
from ragasync.documents.stage import Stage, as_stage, check_version
from ragasync.documents.stages.config import Settings, Stages, pipeline_config
from ragasync.documents.stages.intake import Intake
from ragasync.documents.stages.resuming import bind_document_journal
from ragasync.documents.stages.runs import DocumentRuns
from ragasync.documents.stages.skip_policy import SkipPolicy
from ragasync.documents.store import Store
from ragasync.documents.unique_sources import OwnFiles
from ragasync.journal import Journal

Given: TypeAlias = StageFunction | Stage | None
"""A stage argument: a function, a Stage, or None for the default."""


class AsyncDocumentProcessor(DocumentRuns):
    """
    Process documents through four stages: load, chunk, embed and store. Each document is an item.

    Each stage has its own concurrency, and chunks of many documents share embedding batches. A
    document is done when all its chunks are stored. A failed document affects no other; its outcome
    names the stage. Unchanged documents are skipped: the store has them with the same text, from
    the same stages.

    Example:
        >>> from ragasync import AsyncDocumentProcessor
        >>> from ragasync.documents import MemoryStore
        >>> store = MemoryStore()
        >>> texts = [("limits", "A bucket refills."), ("retries", "Wait, then try again.")]
        >>> AsyncDocumentProcessor(store=store).process_sync(texts).success_count
        2
        >>> store.search("how is a bucket refilled?", k=1)[0].text
        'A bucket refills.'
        >>> store.close()

    Args:
        load: a function from a path (or any item of `sources`) to a Document or a text; the
            default loads by file type. A `sources` item of type str that names a file is a path.
        chunk: a function from a text to texts or Chunks; the default is RecursiveSplitter().
        embed: a function from a list of texts to one vector per text; the default is
            HashingEmbedder().
        store: a Store, or a function of (document, chunks, embeddings). None keeps documents,
            chunks and embeddings in the result.
        max_concurrency: the number of concurrent load and chunk calls; short documents share one
            call on a thread.
        batch_size: the maximum number of chunks in one call of `embed`.
        embed_concurrency: the number of concurrent calls of `embed`, and of a `store` function.
        rate_limiter: one limiter or several for the calls of `embed`.
        retry_count: the number of retries of `embed` and `store`; load and chunk are not retried.
        retry_delay: the base of their exponential back-off, in seconds.
        timeout: the time limit of one call of any stage, in seconds.
        executor: where sync load and chunk functions run, instead of on threads.
        max_errors: as for AsyncBatchProcessor.
        max_error_rate: as for AsyncBatchProcessor.
        max_initial_failures: stop the run if the first calls of `embed`, or of a `store` function,
            this many in number, all fail with the same status of 400, 401, 403, 404 or 405, as they
            do for a wrong model or path. None turns the rule off.
        max_cost: the budget, in the unit in which the embedder reports its cost by `note_usage`.
            When it is reached, the run stops: calls in flight finish, and may exceed the budget;
            documents with all chunks embedded are stored; the rest are pending.
        on_unreadable: "fail" makes a source that cannot be loaded a failure. "skip", or a
            collection of reasons such as {"binary", "empty"} (see LoadError), makes it a success
            with `skipped` set.
        cache: whether to reuse the vectors that the store has of unchanged texts, from the same
            embedder.
        keep_content: whether the result keeps documents, chunks and embeddings when there is a
            store.
        root: the folder that ids and sources of files are relative to, so that the store works on
            another machine or after the folder moved; None for absolute paths.
        version: replaces the code of `load`, `chunk` and of an unnamed `embed` function in deciding
            what has changed: edited code is ignored while the version stays the same, and a new
            version chunks everything again. Settings always count. Vectors of unchanged texts are
            kept; for another model under the same name, pass Stage(embed, version=...).
        key: a function from a source to the text (or other plain data) by which the journal
            identifies it; the default is its id and content, for which a file is read once more.
        journal: a Journal or its path. A source with a recorded outcome is not loaded again as
            long as the stages are unchanged and the store still has its documents; a store that
            cannot tell is trusted. A file with a new modification time is loaded again, so that
            the store has it. A failure is kept, unless the journal has `retry_failed`, or the
            error was an id conflict with another source, which may be gone.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range; or `retry_count` or `retry_delay` is given although
            `embed` and `store` are both Stages with a `retry`.
    """

    def __init__(
        self,
        load: Given = None,
        chunk: Given = None,
        embed: Given = None,
        store: Store | Given = None,
        *,
        max_concurrency: int = 8,
        batch_size: int = 32,
        embed_concurrency: int = 4,
        rate_limiter: Limiter | Sequence[Limiter] | None = None,
        retry_count: int = DEFAULT_RETRY_COUNT,
        retry_delay: float = DEFAULT_RETRY_DELAY,
        timeout: float | None = None,
        executor: Executor | None = None,
        max_errors: int | None = None,
        max_error_rate: float | None = None,
        max_initial_failures: int | None = 20,
        max_cost: float | None = None,
        on_unreadable: Literal["fail", "skip"] | Collection[str] = "fail",
        cache: bool = True,
        keep_content: bool = False,
        root: str | os.PathLike[str] | None = None,
        version: str = "",
        key: Callable[[Any], object] | None = None,
        journal: Journal | str | os.PathLike[str] | None = None,
    ) -> None:
        if not isinstance(keep_content, bool):
            raise TypeError(f"keep_content must be True or False, got {keep_content!r}")
        check_version(version)
        stages = Stages(
            as_stage(load, load_source, may_yield=True),
            as_stage(chunk, RecursiveSplitter(), may_yield=True),
            as_stage(embed, HashingEmbedder()),
            None if store is None else store if isinstance(store, Stage) else Stage(store),
        )
        given = retry_given(retry_count, retry_delay)
        retried = [stage for stage in (stages.embed, stages.store) if stage is not None]
        if given and all(stage.retry is not None for stage in retried):
            raise ValueError(
                f"{given} would have no effect: embed and store both have a retry= of their own"
            )
        if max_cost is not None:
            check_positive("max_cost", max_cost)
        skip_policy, ids = SkipPolicy.of(on_unreadable), FileIds(root)
        config = pipeline_config(
            stages,
            Settings(
                max_concurrency,
                batch_size,
                embed_concurrency,
                rate_limiter,
                AsyncRetry(int(retry_count), retry_delay),
                timeout,
                executor,
                version,
                keep_content=keep_content,
                cache=cache,
                max_cost=max_cost,
                max_initial_failures=max_initial_failures,
                skip_policy=skip_policy,
                ids=ids,
            ),
        )
        use = bind_document_journal(
            journal,
            key,
            stages,
            config.fingerprint,
            config.embedder.now,
            keep_content=keep_content,
            skip_policy=skip_policy,
        )
        own = OwnFiles((getattr(stages.known, "path", None), use and use.journal.path))
        super().__init__(
            config,
            Intake(as_given=load is not None, ids=ids, own=own, store=stages.known),
            max_errors=max_errors,
            max_error_rate=max_error_rate,
            journal=use,
        )

    def __repr__(self) -> str:
        config = self._config
        return (
            f"<AsyncDocumentProcessor embed={config.embedder.name}, "
            f"batch_size={config.embed.batch_size}, max_concurrency={config.max_concurrency}>"
        )
