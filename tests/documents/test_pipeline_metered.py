"""The usage of a pipeline's run: reported, shared among documents, and bounded by max_cost."""

import asyncio
import threading

import numpy as np
import pytest

from ragasync import JobStopped, RateLimiter, note_usage
from ragasync.documents import AsyncDocumentProcessor, Document, SqliteStore, Stage
from tests.support.embedders import CountingEmbedder, given, words
from tests.support.services import StatusError


class Metered(CountingEmbedder):
    """An embedder that reports a token a character and a price a call."""

    def __init__(self, price: float = 0.25, **settings) -> None:
        super().__init__(**settings)
        self.price = price

    async def __call__(self, texts: list[str]) -> np.ndarray:
        """Answer after a while, and tell what it took."""
        rows = await super().__call__(texts)
        note_usage(tokens=sum(map(len, texts)), cost=self.price)
        return rows


def exact(embed, **settings) -> AsyncDocumentProcessor:
    """Return a processor without threads, one chunk a call, one call at a time."""
    settings = {"batch_size": 1, "embed_concurrency": 1} | settings
    return AsyncDocumentProcessor(chunk=words, embed=embed, **settings)


def texts(count: int, chunks: int = 1) -> list[tuple[str, str]]:
    """Return so many texts with their ids, each of so many words."""
    return [(f"d{number}", " ".join(["word"] * chunks)) for number in range(count)]


def embed_stats(result):
    """Return what is told of the embedding stage."""
    (stats,) = [stage for stage in result.stats.stages if stage.name == "embed"]
    return stats


async def test_a_run_tells_the_calls_tokens_and_money_of_its_embedder():
    """In its stats, its summary and its HTML."""
    result = await exact(Metered(), batch_size=2).process(texts(5, chunks=2))
    stats = embed_stats(result)
    assert (stats.calls, stats.tokens, stats.cost) == (5, 40, 1.25)
    assert (result.usage.tokens, result.usage.cost) == (40, 1.25)
    for said in (result.summary(), result._repr_html_()):
        assert "tokens" in said
        assert "40" in said
        assert "1.25" in said


async def test_a_run_that_is_not_metered_says_nothing_of_it():
    """No line of noughts."""
    embed = CountingEmbedder()
    result = await exact(embed).process(texts(2))
    assert embed_stats(result).calls == len(embed.calls) == 2
    assert "tokens" not in result.summary()
    assert "cost" not in result.summary()
    assert [done.tokens for done in result.results] == [None, None]


async def test_failed_attempts_are_paid_for_too():
    """Where the service has counted them; and each is a call."""

    async def embed(batch: list[str]) -> np.ndarray:
        note_usage(tokens=10)
        if len(calls := embed.calls) == 0:
            calls.append(batch)
            raise StatusError(503)
        return np.ones((len(batch), 2))

    embed.calls = []
    result = await exact(embed).process(texts(1))
    assert (embed_stats(result).calls, embed_stats(result).tokens) == (2, 20)
    assert (result.results[0].tokens, result[0].tokens) == (20, 20)


async def test_documents_share_the_tokens_of_their_calls_to_the_unit():
    """By the length of their texts; calls for chunks of several documents are divided."""
    sources = [("a", "1 22 333"), ("b", "4444"), ("c", ""), ("d", "55555 1")]

    async def embed(batch: list[str]) -> np.ndarray:
        note_usage(tokens=11)
        return np.ones((len(batch), 2))

    result = await exact(embed, batch_size=4).process(sources)
    tokens = [done.tokens for done in result.results]
    assert embed_stats(result).calls == 2
    assert sum(each or 0 for each in tokens) == 22 == result.usage.tokens
    assert tokens[2] is None
    # The first call has 1 + 2 + 3 + 4 characters for 11 tokens, of which b has four tenths.
    assert tokens[:2] == [6, 5]


@pytest.mark.real_time
async def test_an_embedder_on_threads_reports_to_its_run():
    """Context variables go with it; two runs at once keep apart."""
    together = threading.Barrier(2, timeout=30)

    def embed_for(tokens: int):
        def embed(batch: list[str]) -> np.ndarray:
            together.wait()
            note_usage(tokens=tokens)
            return np.ones((len(batch), 2))

        return embed

    runs = [exact(embed_for(tokens)).process(texts(3)) for tokens in (1, 100)]
    one, hundred = await asyncio.gather(*runs)
    assert (one.usage.tokens, hundred.usage.tokens) == (3, 300)
    assert [done.tokens for done in hundred.results] == [100, 100, 100]


async def test_a_job_tells_what_it_has_used_so_far():
    """Its progress and its panel do, before the end and at it."""
    job = exact(Metered(price=0.5, seconds=1.0)).start(texts(4), on_current_loop=True)
    await asyncio.sleep(2.5)
    assert (job.progress.tokens, job.progress.cost) == (8, 1.0)
    assert "tokens 8, cost 1.00" in repr(job)
    await job
    assert (job.progress.tokens, job.progress.cost) == (16, 2.0)
    assert (job.result.usage.tokens, job.result.usage.cost) == (16, 2.0)


async def test_what_two_runs_used_is_added_when_their_results_are_merged():
    """A retry costs as well."""
    embed = Metered(poison={"poison": StatusError(400)})
    processor = exact(embed)
    first = await processor.process([("a", "one"), ("b", "poison")])
    embed.poison = {}
    whole = await first.retry_failed(processor)
    assert (embed_stats(first).calls, embed_stats(whole).calls) == (2, 3)
    assert (first.usage.cost, whole.usage.cost) == (0.25, 0.5)


async def test_every_stage_reports_for_its_document():
    """Loading and chunking on threads, in a stage of their own or not, and storing."""

    def load(source):
        note_usage(tokens=1)
        return Document(source, "a text")

    def chunk(text):
        note_usage(tokens=10)
        return [text]

    async def load_async(source):
        return load(source)

    def store(document, chunks, vectors):
        note_usage(tokens=1000)

    for loading in (load, load_async):
        processor = AsyncDocumentProcessor(loading, chunk, Metered(), store)
        result = await processor.process(["a", "b"])
        assert [outcome.tokens for outcome in result] == [1017, 1017]
        assert [done.tokens for done in result.results] == [6, 6]
        assert result.usage.tokens == 2034


# ── max_cost ───────────────────────────────────────────────────────────────────────────────


async def test_a_run_stops_when_its_money_is_spent():
    """No call begins after that; the rest is pending, and why is said with both numbers."""
    embed = Metered(price=0.25)
    result = await exact(embed, max_cost=1.0).process(texts(100))
    assert len(embed.calls) == 4
    assert (result.success_count, result.pending_count, result.error_count) == (4, 96, 0)
    assert result.stopped_because == "1 was spent, which reaches max_cost=1"
    assert result.seconds == pytest.approx(4.0)


async def test_calls_in_flight_finish_and_their_documents_are_stored():
    """They were paid for."""
    embed = Metered(price=1.0)
    with SqliteStore(":memory:") as store:
        processor = exact(embed, max_cost=2.0, embed_concurrency=3, store=store)
        result = await processor.process(texts(50))
        assert (len(embed.calls), result.success_count, len(store.documents())) == (3, 3, 3)
    assert result.stopped_because == "2 was spent, which reaches max_cost=2"
    assert result.usage.cost == 3.0


async def test_a_big_document_cannot_spend_beyond_the_bound():
    """It is left pending: of its chunks no further one is embedded."""
    embed = Metered(price=0.5)
    result = await exact(embed, max_cost=2.0).process([("a", "one"), ("big", "word " * 1000)])
    assert len(embed.calls) == 4
    assert [outcome.status for outcome in result] == ["done", "pending"]


@pytest.mark.real_time
async def test_an_embedder_on_a_thread_stops_its_run_too():
    """It reports from elsewhere than the loop."""
    called = []

    def embed(batch: list[str]) -> np.ndarray:
        called.append(batch)
        note_usage(cost=1.0)
        return np.ones((len(batch), 2))

    result = await exact(embed, max_cost=3.0).process(texts(50))
    assert len(called) in (3, 4)  # the loop may hear of it after it has begun the next
    assert (result.success_count, result.error_count) == (len(called), 0)
    assert result.pending_count == 50 - len(called)


async def test_what_was_left_is_done_by_the_next_run():
    """The bound is a run's; what is stored is not embedded again."""
    embed = Metered(price=1.0)
    with SqliteStore(":memory:") as store:
        processor = exact(embed, max_cost=4.0, store=store, cache=False)
        runs = [await processor.process(texts(10)) for _ in range(3)]
    assert [run.success_count for run in runs] == [4, 8, 10]
    assert len(embed.calls) == 10
    assert runs[2].stopped_because is None


async def test_a_journal_calls_nothing_done_that_was_left(tmp_path):
    """The next run with it goes on there."""
    embed = Metered(price=1.0)
    journal = tmp_path / "run.sqlite"
    first = await exact(embed, max_cost=4.0, journal=journal).process(texts(6))
    second = await exact(embed, max_cost=9.0, journal=journal).process(texts(6))
    assert (first.success_count, first.pending_count) == (4, 2)
    assert (second.usage.cost, second[0].cost) == (6.0, 1.0)
    assert [outcome.attempts for outcome in second] == [0] * 4 + [1] * 2
    assert len(embed.calls) == 6


async def test_a_stream_ends_with_the_reason():
    """As it does for `max_errors`."""
    seen = []

    async def read() -> None:
        async for outcome in exact(Metered(price=1.0), max_cost=2.0).stream(texts(9)):
            seen.append(outcome.status)  # noqa: PERF401  # what came before the error is kept

    with pytest.raises(JobStopped, match="max_cost=2"):
        await read()
    assert seen == ["done", "done"]


async def test_a_bound_on_what_nobody_reports_is_warned_of_once():
    """At the end, because only then it is known."""
    with pytest.warns(RuntimeWarning, match="no cost was reported") as warned:
        result = await exact(CountingEmbedder(), max_cost=1.0).process(texts(5))
    assert len(warned) == 1
    assert result.all_succeeded


async def test_a_bound_is_not_called_useless_before_a_call_has_succeeded():
    """A job that is cancelled in its first call, and one whose calls all fail."""
    embed = CountingEmbedder(60)
    job = exact(embed, max_cost=1.0).start(texts(3), on_current_loop=True)
    await embed.called.wait()
    job.cancel()
    assert (await job).cancelled_count
    embed = CountingEmbedder(poison={"word": ValueError("no")})
    assert (await exact(embed, max_cost=1.0).process(texts(3))).error_count == 3


async def test_nothing_is_warned_of_where_nothing_was_embedded():
    """There was nothing to report."""
    result = await exact(CountingEmbedder(), max_cost=1.0).process([("a", "")])
    assert result.all_succeeded


@pytest.mark.parametrize("bound", [0, -1.0, float("nan"), float("inf")])
def test_a_bound_must_be_positive_and_finite(bound):
    """Said at once."""
    with pytest.raises(ValueError, match="max_cost"):
        AsyncDocumentProcessor(load=given, max_cost=bound)


async def test_the_usage_of_embedding_corrects_a_limiter_of_tokens():
    """Each text is estimated at 500 tokens, and a call reports a token a character."""
    limiter = RateLimiter(1e-6, 5000, weight=lambda text: 500, unit="tokens")
    embed = Stage(Metered(), rate_limiter=limiter)
    result = await exact(embed).process([("a", "four"), ("b", "seven!!")])
    assert result.usage.tokens == 11
    assert limiter.try_acquire(5000 - 11)
    assert not limiter.try_acquire(1)
