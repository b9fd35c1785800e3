"""Random document runs: every document ends in one state, and the store holds the done ones."""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import given

from ragasync import AsyncRetry, BatchResult, Job, Journal
from ragasync.documents import AsyncDocumentProcessor, Stage
from ragasync.testing import run_on_virtual_clock
from tests.support.random_documents import (
    FAULTS_OF,
    PASSING,
    STAGES,
    FunctionStore,
    GroupStore,
    RunOptions,
    SqlStore,
    Text,
    TextSource,
    TextStore,
    World,
    document_steps,
    enter,
    options,
    text_sources,
    vector_of,
)
from tests.support.random_schedules import ControlStep, examples
from tests.support.services import now, other_tasks, turns

STORES: dict[str, Any] = {
    "many": GroupStore,
    "single": TextStore,
    "function": FunctionStore,
    "async function": FunctionStore,
    "sqlite": SqlStore,
    "none": lambda: None,
}


def processor_of(options: RunOptions, store: Any, **given: Any) -> AsyncDocumentProcessor:
    """Return a processor with these settings."""
    stages: dict[str, Any] = {
        name: functions[is_async]
        for (name, functions), is_async in zip(
            STAGES.items(), options.has_async_stages, strict=True
        )
    }
    retry = AsyncRetry(6, 0.25, jitter=None)
    stages["embed"] = Stage(stages["embed"], name="test", retry=retry)
    if options.kind != "none":
        calls = {"function": "call", "async function": "call_async"}
        function = getattr(store, calls[options.kind]) if options.kind in calls else store
        stages["store"] = Stage(function, retry=retry)
    return AsyncDocumentProcessor(
        **stages,
        max_concurrency=options.max_concurrency,
        batch_size=options.batch_size,
        embed_concurrency=options.embed_concurrency,
        store_concurrency=options.store_concurrency,
        **given,
    )


async def steer(job: Job[Any, Any], steps: Sequence[ControlStep]) -> None:
    """Use the controls of a job at their times."""
    for step in steps:
        await asyncio.sleep(step.at - now())
        if step.action in ("pause", "resume", "cancel"):
            getattr(job, step.action)()
        elif hasattr(type(job), step.action):
            setattr(job, step.action, step.value)


async def nothing_is_left() -> None:
    """Find no task and no timer."""
    await turns()
    assert other_tasks() == set()
    timers = getattr(asyncio.get_running_loop(), "_scheduled", [])
    assert [timer for timer in timers if not timer.cancelled()] == []


def check_counts(result: BatchResult[Any], sources: Sequence[TextSource]) -> None:
    """Find every source in exactly one state, in its place."""
    states = Counter(outcome.status for outcome in result)
    assert set(states) <= {"done", "failed", "cancelled", "pending"}
    assert states["done"] == result.success_count
    assert states["failed"] == result.error_count
    assert states["cancelled"] == result.cancelled_count
    assert states["pending"] == result.pending_count
    assert [outcome.item for outcome in result] == list(sources[: result.total])


def fails(text: Text, options: RunOptions, *, is_known: bool) -> bool:
    """Whether a document fails if its run is not stopped."""
    if text.fault in PASSING:
        return False
    has_lookup = options.kind in ("many", "single", "sqlite")
    if text.is_unchanged and has_lookup and is_known:
        return text.fault in ("load", "lookup")
    return True


def check_stored(
    result: BatchResult[Any], store: Any, stored_before: set[str], options: RunOptions
) -> None:
    """Find each done document in the store, whole, and no failed one."""
    kept = {} if store is None else store.contents()
    for texts, vectors in kept.values():
        assert vectors == [vector_of(text) for text in texts]
    done = {
        text.id for outcome in result if outcome.status == "done" for text in outcome.item.texts
    }
    for outcome in result:
        for text in outcome.item.texts:
            if text.id in kept:
                is_old = text.id in stored_before and kept[text.id][0] == list(text.before or ())
                assert is_old or kept[text.id][0] == list(text.chunks)
                assert is_old or not fails(text, options, is_known=True)
        if outcome.status == "done" and store is not None:
            for text in outcome.item.texts:
                assert kept[text.id][0] == list(text.chunks)
        if outcome.status == "failed" and len(outcome.item.texts) == 1:
            text = outcome.item.texts[0]
            assert text.id in stored_before | done or text.id not in kept
    if options.kind == "none":
        check_kept(result)


def check_kept(result: BatchResult[Any]) -> None:
    """Find the chunks and vectors of each done document in the result of a run without a store."""
    for outcome in result:
        if outcome.status == "done":
            values = [outcome.value] if outcome.value.documents is None else outcome.value.documents
            assert [value.id for value in values] == [text.id for text in outcome.item.texts]
            for value, text in zip(values, outcome.item.texts, strict=True):
                assert tuple(chunk.text for chunk in value.chunks) == text.chunks
                assert value.embeddings.tolist() == [vector_of(each) for each in text.chunks]


async def run_once(
    world: World,
    sources: Sequence[TextSource],
    options: RunOptions,
    store: Any,
    steps: Sequence[ControlStep] = (),
    **given: Any,
) -> BatchResult[Any]:
    """Run a job to its end, and find nothing left of it."""
    if "journal" in given:
        given["key"] = lambda source: source.name
    enter(world)
    job = processor_of(options, store, **given).start(sources, on_current_loop=True)
    controlling = asyncio.create_task(steer(job, steps))
    result = await job
    controlling.cancel()
    await asyncio.wait([controlling])
    await nothing_is_left()
    return result


def check_work(world: World, sources: Sequence[TextSource], options: RunOptions) -> None:
    """Find no text embedded twice, and no more documents in the pipeline than there is room for."""
    copies = Counter(text.id for source in sources for text in source.texts)
    for text, times in world.embedded.items():
        assert times <= copies[text.partition(":")[0]]
    if all(options.has_async_stages[:2]):
        room = 3 * max(options.embed_concurrency, 6) * options.batch_size
        widest = max(options.max_concurrency, 6)
        assert world.most_loading <= widest
        assert world.most_open <= widest**2 + room


@examples(40)
@given(text_sources(), options, document_steps())
def test_every_document_of_a_steered_run_is_accounted_for(sources, options, steps):
    """Faults in each stage, stops, cancellation and changed settings, and a run that resumes it."""
    texts = {text.id: text for source in sources for text in source.texts}
    sources = [
        source
        for source in sources
        if all(text.fault in FAULTS_OF[options.kind] for text in source.texts)
    ]

    async def run(folder: str) -> None:
        store = STORES[options.kind]()
        before = [old for source in sources if (old := source.before) is not None]
        await run_once(World(texts, heals=True), before, options, store)
        stored_before = {text.id for source in before for text in source.texts}
        journal: dict[str, Any] = {}
        if options.has_journal and options.kind != "none":
            journal["journal"] = Journal(Path(folder) / "run.sqlite", retry_failed=True)
        world = World(texts)
        limits = {"max_errors": options.max_errors, "max_cost": options.max_cost}
        result = await run_once(world, sources, options, store, steps, **limits, **journal)
        check_counts(result, sources)
        check_work(world, sources, options)
        check_stored(result, store, stored_before, options)
        if result.stopped_because is None:
            expected = [
                "failed"
                if any(
                    fails(text, options, is_known=text.id in stored_before) for text in source.texts
                )
                else "done"
                for source in sources
            ]
            assert [outcome.status for outcome in result] == expected
        world = World(texts, heals=True)
        again = await run_once(world, sources, options, store, **journal)
        assert [outcome.status for outcome in again] == ["done"] * len(sources)
        check_work(world, sources, options)
        if store is not None:
            kept = store.contents()
            assert {id_: tuple(chunks) for id_, (chunks, _) in kept.items()} == {
                text.id: text.chunks for source in sources for text in source.texts
            }
            assert all(vectors == list(map(vector_of, found)) for found, vectors in kept.values())
        if isinstance(store, SqlStore):
            store.close()

    with tempfile.TemporaryDirectory() as folder:
        run_on_virtual_clock(run(folder))
