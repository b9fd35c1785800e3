"""The settings of a job over documents, which can be changed while it runs."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ragasync import RateLimiter
from ragasync.documents import (
    AsyncDocumentProcessor,
    Document,
    DocumentJob,
    MemoryStore,
    SqliteStore,
    Stage,
)
from tests.support.document_tables import exact
from tests.support.embedders import CountingEmbedder, words
from tests.support.hidden_limits import Queueing, still
from tests.support.services import StatusError, now


class Busy:
    """Calls of a stage, each of a second: how many are in flight, and how many ever were."""

    def __init__(self, seconds: float = 1.0) -> None:
        self.seconds = seconds
        self.in_flight = self.most = 0

    async def __call__(self, *args: Any) -> Any:
        """Return the first argument: a text is its own document."""
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.in_flight -= 1
        return args[0]


def documents(count: int, chunks: int = 1) -> list[Document]:
    """Documents of this many words each."""
    return [Document(f"d{number}", " ".join(["word"] * chunks)) for number in range(count)]


def started(processor: AsyncDocumentProcessor, count: int = 10_000) -> DocumentJob:
    """Start a job over many documents on this loop."""
    return processor.start(documents(count), on_current_loop=True)


def loading(processor: AsyncDocumentProcessor, count: int = 10_000) -> DocumentJob:
    """Start a job over many sources that have to be loaded."""
    return processor.start([f"d{number}" for number in range(count)], on_current_loop=True)


async def ended(job: DocumentJob) -> None:
    """Cancel a job and wait for its end."""
    job.cancel()
    await job


# ── max_concurrency: loading and chunking ───────────────────────────────────────────────────


async def test_more_and_fewer_documents_are_loaded_while_a_job_runs():
    """Loads in flight are left to finish."""
    load = Busy()
    job = loading(AsyncDocumentProcessor(load, words, CountingEmbedder(0.0), max_concurrency=2))
    await asyncio.sleep(5.5)
    assert (load.in_flight, job.max_concurrency) == (2, 2)
    job.max_concurrency = 7
    assert job.max_concurrency == 7
    await asyncio.sleep(1)
    assert load.in_flight == 7
    job.max_concurrency = 1
    await asyncio.sleep(2)
    assert load.in_flight == 1
    await ended(job)


async def test_a_chunk_stage_of_its_own_follows_too():
    """Also where it had a limit of its own."""
    chunk = Busy()
    processor = AsyncDocumentProcessor(
        None, Stage(split_slowly(chunk), max_concurrency=3), CountingEmbedder(0.0)
    )
    job = started(processor)
    await asyncio.sleep(0.5)
    assert (chunk.in_flight, job.max_concurrency) == (3, 8)
    job.max_concurrency = 12
    await asyncio.sleep(1.5)
    assert chunk.in_flight == 12
    await ended(job)


def split_slowly(busy: Busy) -> Any:
    """A splitter into one chunk, as slow as `busy`."""

    async def split(text: str) -> list[str]:
        return [await busy(text)]

    return split


@pytest.mark.real_time
@pytest.mark.parametrize("on_executor", [False, True])
async def test_plain_functions_on_threads_follow_too(on_executor):
    """In blocks on threads, and singly on an executor."""
    several = threading.Event()
    lock, in_flight = threading.Lock(), 0

    def load(source: str) -> str:
        nonlocal in_flight
        with lock:
            in_flight += 1
            if in_flight >= 5:
                several.set()
        several.wait(0.02)
        with lock:
            in_flight -= 1
        return source

    with ThreadPoolExecutor(8) as pool:
        processor = AsyncDocumentProcessor(
            load, max_concurrency=1, executor=pool if on_executor else None
        )
        job = loading(processor, 400)
        await asyncio.sleep(0.05)
        assert in_flight <= 1
        job.max_concurrency = 5
        assert (await job).all_succeeded
        assert several.is_set()


async def test_the_documents_of_one_source_follow_too():
    """Those of a file of many rows are chunked as many at a time."""
    chunk = Busy()

    async def load(source: str) -> list[Document]:
        return documents(1_000)

    processor = AsyncDocumentProcessor(
        load, split_slowly(chunk), CountingEmbedder(0.0), max_concurrency=2
    )
    job = processor.start(["rows"], on_current_loop=True)
    await asyncio.sleep(0.5)
    assert chunk.in_flight == 2
    job.max_concurrency = 6
    await asyncio.sleep(2)
    assert chunk.in_flight == 6
    await ended(job)


# ── embed_concurrency ───────────────────────────────────────────────────────────────────────


async def test_more_and_fewer_calls_of_the_embedder():
    """The room for documents grows with it, so that the calls do not run out of chunks."""
    embed = CountingEmbedder()
    job = started(exact(embed=embed, embed_concurrency=1, batch_size=1, max_concurrency=1))
    await asyncio.sleep(5.5)
    assert embed.in_flight == 1
    job.embed_concurrency = 40
    assert job.embed_concurrency == 40
    await asyncio.sleep(2)
    assert embed.in_flight == 40
    job.embed_concurrency = 3
    await asyncio.sleep(2)
    assert (embed.in_flight, job.embed_concurrency) == (3, 3)
    await ended(job)


async def test_the_chunks_in_memory_are_bounded_whatever_the_setting_becomes():
    """Three rounds of calls, and the documents being loaded."""
    alive = most = 0

    async def split(text: str) -> list[str]:
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        return [text]

    async def store(document: Document, chunks: list[Any], vectors: object) -> None:
        nonlocal alive
        alive -= 1

    processor = AsyncDocumentProcessor(
        Busy(0.0), split, CountingEmbedder(), store, embed_concurrency=2, batch_size=4
    )
    job = started(processor)
    for value in (2, 10, 1, 5):
        job.embed_concurrency = value
        await asyncio.sleep(40)  # the surplus of a lower setting drains
        most = alive
        await asyncio.sleep(10)
        assert 3 * value * 4 <= most <= 3 * value * 4 + 8
    await ended(job)


async def test_large_documents_pass_a_smaller_room():
    """One that waits for more room than there is left waits for what it is."""
    processor = exact(embed=CountingEmbedder(), embed_concurrency=8, batch_size=4)
    job = processor.start(documents(15, chunks=60), on_current_loop=True)
    await asyncio.sleep(0.5)
    job.embed_concurrency = 1
    result = await job
    assert result.all_succeeded


async def test_a_setting_before_the_first_turn_of_the_loop_counts():
    """The run begins with it."""
    embed = CountingEmbedder()
    job = started(exact(embed=embed, embed_concurrency=1, batch_size=1))
    job.embed_concurrency = 6
    await asyncio.sleep(0.5)
    assert embed.in_flight == 6
    await ended(job)


# ── "auto" ──────────────────────────────────────────────────────────────────────────────────


class Adapting:
    """An embedder whose service takes 24 calls concurrently and queues the rest."""

    def __init__(self) -> None:
        self.service = Queueing(still(24))

    async def __call__(self, texts: list[str]) -> list[list[float]]:
        """Embed."""
        await self.service(0)
        return [[1.0]] * len(texts)


async def test_auto_finds_out_how_many_calls_the_service_takes():
    """As `max_concurrency="auto"` does elsewhere; the room for documents follows it."""
    embed = Adapting()
    job = started(exact(embed=embed, embed_concurrency="auto", batch_size=1), 2_000)
    assert job.embed_concurrency == 4
    await asyncio.sleep(10)
    assert 16 <= job.embed_concurrency <= 48
    assert embed.service.in_flight >= 0.9 * job.embed_concurrency - 1
    assert f"{job.embed_concurrency} concurrent embed calls (auto)" in repr(job)
    result = await job
    assert result.all_succeeded
    fixed = await exact(embed=Adapting(), embed_concurrency=24, batch_size=1).process(
        documents(2_000)
    )
    assert result.seconds <= fixed.seconds / 0.8


async def test_a_number_ends_auto_and_auto_begins_again():
    """In a job that was started with a number."""
    embed = Adapting()
    job = started(exact(embed=embed, embed_concurrency=2, batch_size=1))
    await asyncio.sleep(2.5)
    assert (embed.service.in_flight, "(auto)" in repr(job)) == (2, False)
    job.embed_concurrency = "auto"
    await asyncio.sleep(10)
    assert job.embed_concurrency >= 16
    assert "(auto)" in repr(job)
    job.embed_concurrency = 3
    await asyncio.sleep(5)
    assert (embed.service.in_flight, job.embed_concurrency) == (3, 3)
    assert "(auto)" not in repr(job)
    await ended(job)


async def test_auto_on_an_executor_is_the_same_error_as_elsewhere():
    """In the processor, in the Stage and in the job."""

    def embed(texts: list[str]) -> list[list[float]]:
        return [[1.0]] * len(texts)

    message = '"auto" adapts to a service, but an executor has a fixed number of workers'
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(ValueError, match=message):
            exact(embed=Stage(embed, executor=pool), embed_concurrency="auto")
        with pytest.raises(ValueError, match=message):
            exact(embed=Stage(embed, executor=pool, max_concurrency="auto"))
        job = exact(embed=Stage(embed, executor=pool)).start(documents(1), on_current_loop=True)
        with pytest.raises(ValueError, match=message):
            job.embed_concurrency = "auto"
        assert job.embed_concurrency == 4
        await job


# ── store_concurrency ───────────────────────────────────────────────────────────────────────


async def test_more_and_fewer_calls_of_a_store_function():
    """Its own setting, not that of the embedder."""
    store = Busy()
    job = started(exact(embed=CountingEmbedder(0.0), store=store))
    await asyncio.sleep(3.5)
    assert (store.in_flight, job.store_concurrency) == (1, 1)
    job.store_concurrency = 9
    await asyncio.sleep(2)
    assert (store.in_flight, job.store_concurrency) == (9, 9)
    job.store_concurrency = 2
    await asyncio.sleep(2)
    assert store.in_flight == 2
    await ended(job)


@pytest.mark.parametrize("make", [MemoryStore, lambda: None])
async def test_a_store_is_called_once_at_a_time_whatever_is_set(make):
    """The same holds where there is none."""
    store = make()
    job = started(exact(embed=CountingEmbedder(0.0), store=store, store_concurrency=5), 50)
    job.store_concurrency = 8
    assert job.store_concurrency == 1
    result = await job
    assert result.all_succeeded
    assert [s.max_concurrency for s in result.stats.stages if s.name == "store"] in ([1], [])
    if store is not None:
        store.close()


# ── rate ────────────────────────────────────────────────────────────────────────────────────


async def test_a_rate_limits_the_calls_of_the_embedder():
    """Not the documents, of which one call may embed many."""
    embed = CountingEmbedder(0.0)
    job = started(exact(embed=embed, batch_size=10), 4_000)
    job.rate = 2.0
    await asyncio.sleep(20)
    assert job.rate == 2.0
    assert 38 <= len(embed.calls) <= 44
    assert max(embed.sizes) == 10
    job.rate = 20.0
    before = len(embed.calls)
    await asyncio.sleep(5)
    assert 95 <= len(embed.calls) - before <= 120
    job.rate = None
    assert (await job).all_succeeded
    assert now() < 30


async def test_the_limiters_of_the_processor_apply_as_well():
    """The stricter one decides."""
    embed = CountingEmbedder(0.0)
    job = started(exact(embed=embed, batch_size=1, rate_limiter=RateLimiter(3.0, burst_size=1)))
    job.rate = 50.0
    await asyncio.sleep(10.1)
    assert len(embed.calls) <= 32
    await ended(job)


# ── all of them ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.real_time
def test_settings_are_changed_from_any_thread(tmp_path):
    """While documents are loaded, embedded and stored: each ends in one state, none is lost."""

    def embed(texts: list[str]) -> list[list[float]]:
        return [[float(len(text)), 1.0] for text in texts]

    with SqliteStore(tmp_path / "store.sqlite") as store:
        processor = AsyncDocumentProcessor(embed=embed, store=store, batch_size=4)
        job = processor.start(documents(1_500, chunks=3))

        def change(seed: int) -> None:
            for turn in range(40):
                job.max_concurrency = 1 + (seed + turn) % 9
                job.embed_concurrency = "auto" if turn % 7 == 0 else 1 + (seed * turn) % 11
                job.store_concurrency = 1 + turn % 3
                job.rate = None if turn % 3 else 5_000.0

        threads = [threading.Thread(target=change, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        job.rate, job.embed_concurrency = None, 4
        result = job.wait(60)
        assert result.success_count == 1_500
        assert len(list(store.documents())) == 1_500


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("max_concurrency", 0, ValueError, "max_concurrency must be at least 1, got 0"),
        ("max_concurrency", "auto", TypeError, "max_concurrency must be a whole number"),
        ("embed_concurrency", 0, ValueError, "embed_concurrency must be at least 1, got 0"),
        ("embed_concurrency", "all", TypeError, "must be a whole number or \"auto\", got 'all'"),
        ("store_concurrency", 2.5, TypeError, "store_concurrency must be a whole number"),
        ("rate", 0, ValueError, "rate must be"),
    ],
)
async def test_a_wrong_value_changes_nothing(name, value, error, message):
    """The error names the setting and the value."""
    job = started(exact(embed=CountingEmbedder(0.0), store=Busy(0.0)), 3)
    before = getattr(job, name)
    with pytest.raises(error, match=message):
        setattr(job, name, value)
    assert getattr(job, name) == before
    await job


@pytest.mark.parametrize("name", ["max_concurrency", "embed_concurrency", "store_concurrency"])
def test_the_processor_names_the_setting_that_is_wrong(name):
    """Not that of another stage."""
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        AsyncDocumentProcessor(**{name: 0})


async def test_resume_ends_a_pause_that_the_embedders_service_asked_for():
    """A Retry-After that may have been a mistake."""

    class Closing(CountingEmbedder):
        """Refuses its first call, for a hundred seconds."""

        async def __call__(self, texts: list[str]) -> Any:
            """Refuse or embed."""
            if not self.calls:
                self.calls.append(texts)
                raise StatusError(429, retry_after=100.0)
            return await super().__call__(texts)

    job = started(exact(embed=Closing(), batch_size=1, retry_delay=0.0), 20)
    await asyncio.sleep(5)
    assert job.progress.limited_by == "paused"
    job.resume()
    assert (await job).all_succeeded
    assert now() < 100


async def test_a_paused_job_finishes_the_documents_in_progress(capsys):
    """And loads no others; its panel says so."""
    load, embed = Busy(), CountingEmbedder()
    job = loading(AsyncDocumentProcessor(load, words, embed, max_concurrency=3), 200)
    await asyncio.sleep(4.5)
    job.pause()
    await asyncio.sleep(20)
    assert (load.in_flight, embed.in_flight, job.progress.in_flight) == (0, 0, 0)
    assert job.progress.finished in (12, 15)
    job._ipython_display_()
    shown = capsys.readouterr().out
    assert "paused: no new documents are loaded; those in progress finish" in shown
    job.resume()
    assert (await job).all_succeeded


# ── the stage that holds the others back ────────────────────────────────────────────────────


async def test_progress_names_the_stage_that_holds_the_others_back():
    """After a change of settings, the stage that does so now."""
    load, embed, store = Busy(), CountingEmbedder(), Busy()
    job = loading(
        AsyncDocumentProcessor(
            load, words, embed, store, max_concurrency=2, batch_size=1, store_concurrency=100
        )
    )
    await asyncio.sleep(6)
    assert job.progress.limited_by == "load"
    job.max_concurrency = 50
    await asyncio.sleep(12)
    assert job.progress.limited_by == "embed"
    job.embed_concurrency = 50
    job.store_concurrency = 2
    await asyncio.sleep(60)
    assert job.progress.limited_by == "store"
    job.pause()
    await asyncio.sleep(2)
    assert job.progress.limited_by == "paused"
    await ended(job)


async def test_the_progress_of_documents_has_their_concurrency():
    """Not the number of documents that the pipeline has room for."""
    job = started(exact(embed=CountingEmbedder(0.0), max_concurrency=5), 10)
    assert job.progress.max_concurrency == 5
    await job
