"""AsyncDocumentProcessor: load, chunk, embed and store documents on the engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor
from typing import Any, Literal, TypeAlias

from ragasync.arguments import check_positive
from ragasync.batch import DEFAULT_RETRY_COUNT, DEFAULT_RETRY_DELAY, retry_given
from ragasync.documents.embedders.hashing import HashingEmbedder
from ragasync.documents.fingerprints import StageFunction
from ragasync.documents.loaders.load import load_source
from ragasync.documents.sources.file_ids import FileIds
from ragasync.documents.sources.own_files import OwnFiles
from ragasync.documents.splitters.recursive import RecursiveSplitter
from ragasync.documents.stage import Stage, as_stage, check_version
from ragasync.documents.stages.intake import Intake
from ragasync.documents.stages.recipe import Settings, Stages, recipe_of
from ragasync.documents.stages.resuming import journal_use
from ragasync.documents.stages.runs import DocumentRuns
from ragasync.documents.stages.skipping import Skips
from ragasync.documents.store import Store
from ragasync.journal import Journal
from ragasync.limits.limiter import Limiter
from ragasync.retries.policy import AsyncRetry

Given: TypeAlias = StageFunction | Stage | None
"""What may be given for a stage: a function, a Stage, or None for the embedded default."""


class AsyncDocumentProcessor(DocumentRuns):
    """
    Take documents through load, chunk, embed and store: a document an item.

    Each stage has its own window of calls, and the chunks of many documents fill the same
    embedding batch. A document is done when its last chunk is stored; one that fails harms no
    other, and its outcome names the stage. What the store already has from the same text and the
    same stages is not embedded again.

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
        load: takes a path (or whatever `sources` holds) and returns a Document or a text; by
            default by file type. A text among `sources` that names a file is known by its path.
        chunk: takes a text and returns texts or Chunks; by default RecursiveSplitter().
        embed: takes a list of texts and returns as many vectors; by default HashingEmbedder().
        store: a Store, or a function of (document, chunks, embeddings); None keeps documents,
            chunks and embeddings in the result.
        max_concurrency: calls that load and cut at once; short documents share one, on a thread.
        batch_size: the most chunks in one call of `embed`.
        embed_concurrency: calls of `embed`, and of a `store` function, at once.
        rate_limiter: limits the calls of `embed`: one limiter or several.
        retry_count: retries of `embed` and `store`; load and chunk are not retried.
        retry_delay: the base of their back-off, in seconds.
        timeout: seconds for one call of any stage.
        executor: where sync load and chunk functions run instead of on threads.
        max_errors: as for AsyncBatchProcessor.
        max_error_rate: as for AsyncBatchProcessor.
        max_initial_failures: stop when the first so many calls of `embed`, or of a `store`
            function, all failed alike, with 400, 401, 403, 404 or 405: a wrong model or path. None
            goes through all documents.
        max_cost: the money, in whatever unit the embedder reports it by `note_usage`, at which
            the run stops: calls in flight finish, so that these may go beyond; documents whose
            chunks are all embedded are stored; the rest is pending.
        skip_unreadable: True, or the reasons of LoadErrors (such as {"binary", "empty"}) for which
            a source is done with `skipped` set, instead of failed.
        cache: whether a chunk whose text the store has from the same embedder takes its vector
            from there instead of having it made again.
        keep: "all" keeps documents, chunks and embeddings in the result beside a store.
        root: the folder that ids and sources of files are relative to, so that the store fits
            another machine or a folder that moved; None for absolute paths.
        version: stands in place of the code of `load` and `chunk`, and of an `embed` function that
            has no name: edited code is no change as long as it stays, and another version has
            everything chunked again. Settings count in any case. Vectors of unchanged texts stay;
            for another model behind the same name, pass Stage(embed, version=...).
        key: makes of a source the text (or other plain data) that the journal knows it by; without
            it that is its id and content, which for a file are read once more.
        journal: a Journal, or the path of one: a source whose outcome it has is not loaded again,
            as long as the stages are the same and the store has what it acknowledged then. A store
            that cannot tell is trusted. A file with a new date is loaded again, to have that in the
            store. What failed stays so, unless `retry_failed` is asked for, or another source had
            its id, which may be gone.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: an argument out of range, or `retry_count` or `retry_delay` where both `embed`
            and `store` are Stages with a retry of their own.
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
        skip_unreadable: bool | Collection[str] = False,
        cache: bool = True,
        keep: Literal["ids", "all"] = "ids",
        root: str | os.PathLike[str] | None = None,
        version: str = "",
        key: Callable[[Any], object] | None = None,
        journal: Journal | str | os.PathLike[str] | None = None,
    ) -> None:
        if keep not in ("ids", "all"):
            raise ValueError(f"keep must be 'ids' or 'all', got {keep!r}")
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
                f"{given} would have no effect: every stage that is retried has a retry of its own"
            )
        if max_cost is not None:
            check_positive("max_cost", max_cost)
        keep_all, skips, ids = keep == "all", Skips.of(skip_unreadable), FileIds(root)
        recipe = recipe_of(
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
                keep_all=keep_all,
                cache=cache,
                max_cost=max_cost,
                max_initial_failures=max_initial_failures,
                skips=skips,
                ids=ids,
            ),
        )
        use = journal_use(
            journal,
            key,
            stages,
            recipe.fingerprint,
            recipe.embedder.now,
            keep_all=keep_all,
            skips=skips,
        )
        own = OwnFiles((getattr(stages.known, "path", None), use and use.journal.path))
        super().__init__(
            recipe,
            Intake(as_given=load is not None, ids=ids, own=own, store=stages.known),
            max_errors=max_errors,
            max_error_rate=max_error_rate,
            journal=use,
        )

    def __repr__(self) -> str:
        recipe = self._recipe
        return (
            f"<AsyncDocumentProcessor embed={recipe.embedder.name}, "
            f"batch_size={recipe.embed.batch_size}, max_concurrency={recipe.at_once}>"
        )
