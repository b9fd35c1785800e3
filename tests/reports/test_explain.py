"""The explanation of a run: the table of time, and advice that names the argument to change."""

import asyncio
from types import MappingProxyType
from typing import Any

import pytest

from ragasync import (
    AsyncBatchProcessor,
    AsyncDocumentProcessor,
    Attempt,
    BatchResult,
    Outcome,
    RateLimiter,
    note_usage,
)

# Internals: results with exact times and states, which no run produces on demand.
from ragasync._outcomes.stats import RunSettings, RunStats, StageStats
from ragasync._reports.advice import round_rate, round_up
from ragasync.documents import HashingEmbedder, Stage
from tests.support.results import done, failed, result_of


class StatusError(Exception):
    """An error with HTTP status 429."""

    status_code = 429


class Overloaded(Exception):
    """An error with HTTP status 503."""

    status_code = 503


def calls_of(seconds: float) -> Any:
    """An async function whose calls take this long."""

    async def call(item: object) -> object:
        await asyncio.sleep(seconds)
        return item

    return call


async def items_every(seconds: float, count: int) -> Any:
    """Yield one item per interval."""
    for number in range(count):
        await asyncio.sleep(seconds)
        yield number


def advice_of(result: BatchResult[Any]) -> str:
    """The text below the tables, on one line."""
    lines = result.explain().splitlines()
    last_row = max(number for number, line in enumerate(lines) if line.startswith("  "))
    return " ".join(lines[last_row + 1 :])


def forty(**facts: float) -> list[Outcome[Any, Any]]:
    """Forty equal items."""
    return [done(index, **facts) for index in range(40)]


def explained(stats: RunStats, outcomes: list[Outcome[Any, Any]]) -> str:
    """The advice on a run of ten seconds."""
    return advice_of(result_of(outcomes, seconds=10.0, stats=stats))


# ── the table ───────────────────────────────────────────────────────────────────────────────


def test_the_parts_of_the_worker_time_are_in_a_table():
    """They add up to the whole; back-off is separate, because it holds no worker."""
    stats = RunStats(4, limited=True)
    outcomes = forty(started=5.0, seconds=0.1, waited=0.2, backed_off=0.1)
    text = result_of(outcomes, seconds=10.0, stats=stats).explain()
    assert text.splitlines()[1:9] == [
        "Time of the workers (max_concurrency=4), 10.0 s each:",
        "  in calls                          4.00 s    10%",
        "  waiting for the rate limit        8.00 s    20%",
        "  waiting for input                    0 s     0%",
        "  idle until retries were due       4.00 s    10%",
        "  idle, no items left to start      12.0 s    30%",
        "  idle otherwise                    12.0 s    30%",
        "  items in back-off                 4.00 s      – (holds no worker)",
    ]


async def test_workers_that_were_never_spawned_because_of_a_slow_source_waited_for_input():
    """One worker was enough for the items that came."""
    processor = AsyncBatchProcessor(calls_of(0.2), max_concurrency=8)
    text = (await processor.process(items_every(0.25, 40))).explain()
    assert "waiting for input             1 min 12 s    88%" in text


def test_the_items_of_a_batch_share_the_time_of_their_call():
    """A call with 20 items that took one second held its worker for one second."""
    outcomes = [done(index, seconds=1.0, batch=index // 20) for index in range(40)]
    text = result_of(outcomes, seconds=10.0, stats=RunStats(4)).explain()
    assert "  in calls                          2.00 s" in text


def test_the_times_of_the_engine_count_more_than_those_of_items():
    """Only the engine knows which items shared a call."""
    stats = RunStats(4, worked=3.0, limiter_waited=1.0)
    text = result_of(forty(seconds=0.5, waited=0.5), seconds=10.0, stats=stats).explain()
    assert "  in calls                          3.00 s" in text
    assert "  waiting for the rate limit        1.00 s" in text


def test_the_explanation_of_a_merged_run_says_that_times_are_missing():
    """The times of replaced outcomes are gone."""
    text = result_of(forty(), seconds=10.0, stats=RunStats(4, runs=2)).explain()
    assert "2 runs are merged" in text


def test_a_short_or_unknown_run_is_not_explained():
    """A few items give no advice, and neither does a result that no job made."""
    few = result_of([done(0, seconds=1.0)], seconds=1.0, stats=RunStats(4)).explain()
    assert "The run was too short to explain" in few
    unknown = BatchResult([1], [None], 1, 0).explain()
    assert "Nothing is known about the run" in unknown


async def test_no_line_of_an_explanation_is_long():
    """It must fit into a terminal."""
    processor = AsyncBatchProcessor(calls_of(0.2), max_concurrency=32, rate_limiter=RateLimiter(10))
    text = (await processor.process(range(100))).explain()
    assert max(map(len, text.splitlines())) <= 96


# ── limits, calls, source ───────────────────────────────────────────────────────────────────


async def test_a_rate_limit_is_named_with_a_rate_and_the_workers_needed():
    """The rate it admitted, the rate that is possible, and both settings."""
    processor = AsyncBatchProcessor(calls_of(0.2), max_concurrency=16, rate_limiter=RateLimiter(10))
    advice = advice_of(await processor.process(range(300)))
    assert advice == (
        "The rate limit is the bottleneck: it admitted 9.97 calls a second, while 16 concurrent "
        "calls could reach 80. If the service allows it, a higher rate would help: "
        "rate_limiter=RateLimiter(20). More concurrency would not help; max_concurrency=3 is "
        "enough."
    )


def spending(tokens: int, seconds: float = 0.002) -> Any:
    """An async function whose calls use that many tokens."""

    async def call(item: object) -> object:
        await asyncio.sleep(seconds)
        note_usage(tokens=tokens)
        return item

    return call


@pytest.mark.parametrize(
    ("limits", "tokens", "name"),
    [
        ({"requests": 5000, "tokens": 20_000}, 500, "limit of tokens (20,000 a minute)"),
        ({"requests": 60, "tokens": 200_000}, 500, "limit of requests (60 a minute)"),
        ({"requests": 5000, "tokens": 20_000}, 0, "limit of tokens (20,000 a minute)"),
    ],
)
async def test_of_several_limits_the_one_that_binds_is_named(
    limits: dict[str, float], tokens: int, name: str
):
    """And no advice replaces the limits that the user stated by a single one."""
    limiters = RateLimiter.per_minute(**limits, weight=lambda _: 500)
    result = await AsyncBatchProcessor(spending(tokens), rate_limiter=limiters).process(range(40))
    advice = advice_of(result)
    assert f"The {name} is the bottleneck" in advice
    assert "with the other limit as it is" in advice
    assert "RateLimiter(" not in advice


@pytest.mark.parametrize(
    "limiter",
    [
        RateLimiter(rate=600, per=60, weight=lambda _: 10),
        RateLimiter(rate=600, per=60, weight=lambda _: 10, unit="tokens"),
        RateLimiter.at_most(60, per=60),
    ],
)
async def test_a_limit_that_is_not_of_requests_a_second_is_not_advised_as_one(limiter: RateLimiter):
    """RateLimiter(20) in its place would lose its weight, its unit or its window."""
    result = await AsyncBatchProcessor(spending(10), rate_limiter=limiter).process(range(90))
    advice = advice_of(result)
    assert "would help" in advice
    assert "a minute" in advice
    assert "RateLimiter(" not in advice


async def test_the_rate_of_a_job_is_named_as_job_rate():
    """The advice names the setting that was used."""
    job = AsyncBatchProcessor(calls_of(0.2), max_concurrency=16).start(
        range(200), on_current_loop=True
    )
    job.rate = 10
    assert "a higher rate would help: job.rate = 20" in advice_of(await job)


async def test_batches_under_a_rate_limit_may_be_larger():
    """More items pass with the same number of calls."""

    async def call(items: list[int]) -> list[int]:
        return items

    processor = AsyncBatchProcessor(call, 8, batched=True, rate_limiter=RateLimiter(5))
    assert "more items per call: batch_size=16" in advice_of(await processor.process(range(400)))


def test_no_value_is_advised_for_a_limiter_that_does_not_count_calls():
    """Its rate is not a rate of calls."""
    advice = explained(RunStats(4, limited=True), forty(waited=0.9, seconds=0.01))
    assert "A higher rate would help, if the service allows it" in advice


async def test_pauses_of_the_service_are_not_blamed_on_a_limiter():
    """A Retry-After pauses the job itself."""
    answers = iter(range(10_000))

    class Later(StatusError):
        headers = MappingProxyType({"retry-after": "5"})

    async def call(item: int) -> int:
        await asyncio.sleep(0.1)
        if next(answers) % 10 == 9:
            raise Later
        return item

    advice = advice_of(await AsyncBatchProcessor(call, max_concurrency=8).process(range(100)))
    assert "The service asked for pauses (Retry-After)" in advice
    assert "rate_limiter=RateLimiter(1." in advice


async def test_more_workers_are_advised_if_calls_take_the_time():
    """Twice as many, with the expected effect."""
    processor = AsyncBatchProcessor(calls_of(0.5), max_concurrency=4)
    assert advice_of(await processor.process(range(300))) == (
        "The calls themselves take the time, 0.50 s each: a larger max_concurrency would help, if "
        "the service can take it. Try max_concurrency=8, which would take about half the time."
    )


async def test_no_more_workers_are_advised_than_there_are_calls():
    """45 workers are enough for 45 items."""
    processor = AsyncBatchProcessor(calls_of(0.5), max_concurrency=32)
    assert "Try max_concurrency=45." in advice_of(await processor.process(range(45)))


async def test_larger_batches_are_advised_if_they_are_full():
    """And if calls take the time."""

    async def call(items: list[int]) -> list[int]:
        await asyncio.sleep(0.5)
        return items

    processor = AsyncBatchProcessor(call, 8, 2, batched=True)
    assert "or batch_size=16" in advice_of(await processor.process(range(400)))


async def test_a_run_near_both_limits_should_raise_both():
    """Raising one alone would not help."""
    processor = AsyncBatchProcessor(
        calls_of(0.25), max_concurrency=32, rate_limiter=RateLimiter(130)
    )
    advice = advice_of(await processor.process(range(2000)))
    assert "almost as fast as its settings allow" in advice
    assert "max_concurrency=64 and rate_limiter=RateLimiter(260)" in advice


def test_an_executor_needs_workers_to_match():
    """More concurrent calls alone would only wait in its queue."""
    stats = RunStats(4, settings=RunSettings(where="executor"))
    assert "more workers in the executor" in explained(stats, forty(seconds=0.9))


async def test_a_slow_source_is_named_with_its_rate():
    """And with the number of workers needed."""
    processor = AsyncBatchProcessor(calls_of(0.2), max_concurrency=8)
    advice = advice_of(await processor.process(items_every(0.25, 200)))
    assert (
        "its source yielded 3.98 items a second, while 8 concurrent calls could take 40" in advice
    )
    assert "max_concurrency=2 is enough" in advice


async def test_batches_that_the_source_does_not_fill_are_named():
    """Eight items come at a time; a batch takes thirty-two."""

    async def call(items: list[int]) -> list[int]:
        await asyncio.sleep(0.5)
        return items

    async def in_eights() -> Any:
        for number in range(400):
            await asyncio.sleep(0 if number % 8 else 0.1)
            yield number

    result = await AsyncBatchProcessor(call, 32, batched=True).process(in_eights())
    assert "a call had 10.3 items on average, while batch_size=32 allows" in advice_of(result)
    assert "let it prefetch" in advice_of(result)


async def test_batches_bounded_by_weight_are_named():
    """The setting to change is the weight, not the count."""

    async def call(items: list[int]) -> list[int]:
        await asyncio.sleep(0.5)
        return items

    processor = AsyncBatchProcessor(
        call, 32, batched=True, weight=lambda _: 10, max_batch_weight=100
    )
    assert "a larger max_batch_weight would help" in advice_of(await processor.process(range(400)))


# ── failures ────────────────────────────────────────────────────────────────────────────────


def tried_again(error: str) -> list[Outcome[Any, Any]]:
    """Forty items that failed once and succeeded after a long back-off."""
    history = (Attempt(0.0, 0.05, error, 5.0),)
    return forty(seconds=0.1, attempts=2, backed_off=5.0, history=history)


def test_retries_are_named_with_their_cause():
    """Fewer concurrent calls, or a shorter back-off."""
    stats = RunStats(8, settings=RunSettings(retry_delay=1.0))
    assert explained(stats, tried_again("Overloaded: try later")) == (
        "Retries are the bottleneck: 40 items were retried, mostly after Overloaded: try later, "
        "and workers were idle until the retries were due. If the service is overloaded, fewer "
        "concurrent calls would help: max_concurrency=4. If it is not, a shorter back-off would: "
        "retry_delay=0.5."
    )


def test_fewer_calls_are_not_advised_for_a_single_worker():
    """Only a shorter back-off is."""
    stats = RunStats(1, settings=RunSettings(retry_delay=1.0))
    advice = explained(stats, tried_again("Overloaded: try later"))
    assert "fewer concurrent calls" not in advice
    assert "a shorter back-off would: retry_delay=0.5" in advice


@pytest.mark.parametrize("error", ["HTTPError: 429 Too Many Requests", "RateLimitError: slow down"])
def test_a_rate_limiter_at_the_successful_rate_is_advised_after_429s(error):
    """Four calls a second succeeded."""
    assert "Try rate_limiter=RateLimiter(4)".lower() in explained(
        RunStats(8), tried_again(error)
    ).lower().replace("  ", " ")


async def test_a_429_is_recognized_by_its_status():
    """If its message does not name it."""

    async def call(item: int) -> int:
        await asyncio.sleep(0.01)
        if item % 2:
            raise StatusError("no")
        return item

    result = await AsyncBatchProcessor(call, max_concurrency=8).process(range(100))
    assert "The service rejects calls that come too fast" in advice_of(result)


async def test_a_shorter_timeout_is_advised_if_timeouts_take_the_time():
    """Based on the calls that succeeded."""

    async def call(item: int) -> int:
        await asyncio.sleep(30 if item % 10 == 0 else 0.2)
        return item

    processor = AsyncBatchProcessor(call, max_concurrency=8, timeout=5)
    advice = advice_of(await processor.process(range(300)))
    assert "92% of the time in calls was spent in calls that failed" in advice
    assert "timeout=0.6 would end the others sooner" in advice


def test_other_errors_that_take_the_time_are_named():
    """No setting would help."""
    bad = [failed(index, ValueError("no"), seconds=0.9) for index in range(40)]
    advice = explained(RunStats(4), bad)
    assert "most of it with ValueError: no" in advice
    assert "error_summary(result)" in advice


def test_the_error_that_took_the_time_is_named_not_the_most_common_one():
    """Many failures that take no time are no reason why a run was slow."""
    bad = [failed(index, ValueError("no"), seconds=0.001) for index in range(30)]
    bad += [failed(index, OSError("away"), seconds=5.0) for index in range(30, 40)]
    assert "most of it with OSError: away" in explained(RunStats(4), bad)


# ── tail, idle workers, computing ────────────────────────────────────────────────────────────────


async def test_slow_items_at_the_end_are_named():
    """Which item, how slow it was, and a timeout that would not affect the others."""

    async def call(item: int) -> int:
        await asyncio.sleep(60 if item == 190 else 0.2)
        return item

    advice = advice_of(await AsyncBatchProcessor(call, max_concurrency=8).process(range(200)))
    assert "item 190 took 1 min 00 s, the median is 0.20 s" in advice
    assert "timeout=0.6 would end such calls early" in advice


def test_no_timeout_is_advised_for_threads():
    """A thread cannot be cancelled."""
    outcomes = [done(index, started=0.0, seconds=0.1) for index in range(39)]
    outcomes.append(done(39, started=0.5, seconds=9.5))
    advice = explained(RunStats(4, settings=RunSettings(where="threads")), outcomes)
    assert "Starting slow items first would help." in advice
    assert "timeout" not in advice


async def test_fewer_workers_are_advised_if_there_are_more_than_items():
    """All calls ran concurrently."""
    result = await AsyncBatchProcessor(calls_of(3), max_concurrency=64).process(range(25))
    assert "max_concurrency=25 is enough" in advice_of(result)


async def test_smaller_batches_are_advised_if_there_are_fewer_than_workers():
    """With two calls, six of eight workers have nothing to do."""

    async def call(items: list[int]) -> list[int]:
        await asyncio.sleep(1)
        return items

    result = await AsyncBatchProcessor(call, 50, 8, batched=True).process(range(100))
    assert "There were only 2 calls for 8 workers" in advice_of(result)
    assert "Try batch_size=7." in advice_of(result)


def test_fewer_workers_are_advised_if_the_job_is_short():
    """Without a slow item at the end."""
    advice = explained(RunStats(32), forty(started=0.0, seconds=0.9))
    assert "there are too few for 32 concurrent calls" in advice


def test_processes_are_advised_for_functions_that_compute_on_threads():
    """Threads share one core for Python code."""
    stats = RunStats(4, cpu_seconds=9.8, settings=RunSettings(where="threads"))
    advice = explained(stats, forty(seconds=0.9))
    assert "this process kept 1.0 cores busy" in advice
    assert "executor=ProcessPoolExecutor() would help" in advice


def one_by_one(count: int, seconds: float) -> list[Outcome[Any, Any]]:
    """Items whose calls followed each other."""
    return [done(n, started=n * seconds, seconds=seconds) for n in range(count)]


@pytest.mark.parametrize(
    ("computed", "advice"),
    [
        (9.8, "computes on the event loop"),
        (0.1, "No two calls ran concurrently, although 4 were allowed"),
    ],
)
def test_async_functions_that_block_the_loop_are_named(computed, advice):
    """Because they compute, or wait without await."""
    stats = RunStats(4, cpu_seconds=computed, settings=RunSettings(where="loop"))
    assert advice in explained(stats, one_by_one(40, 0.25))


@pytest.mark.parametrize(
    ("computed", "count", "gap", "seconds"),
    [(9.8, 1000, 1e-5, 1e-5), (0.1, 1000, 1e-5, 1e-5), (0.1, 300_000, 1 / 30_000, 1e-4)],
    ids=["it computed", "no two overlapped", "very many per second"],
)
def test_no_setting_is_advised_for_calls_that_take_no_time(computed, count, gap, seconds):
    """Such calls need not overlap."""
    outcomes = [done(n, started=n * gap, seconds=seconds) for n in range(count)]
    stats = RunStats(4, cpu_seconds=computed, settings=RunSettings(where="loop"))
    assert "The calls take almost no time" in explained(stats, outcomes)


@pytest.mark.parametrize(
    ("source", "advice"),
    [("iterator", "Make it an async generator, or a list"), ("list", "the job was paused")],
)
def test_likely_reasons_are_named_for_idle_workers(source, advice):
    """A source that blocks, a pause, or a busy event loop."""
    outcomes = one_by_one(39, 0.01)
    stats = RunStats(4, settings=RunSettings(source=source))
    assert advice in explained(stats, [*outcomes, done(39, started=9.9, seconds=0.1)])


@pytest.mark.real_time
async def test_a_run_measures_the_cpu_time_of_its_process():
    """On the real clock."""

    def compute(item: int) -> int:
        return sum(number * number for number in range(20_000))

    result = await AsyncBatchProcessor(compute).process(range(20))
    assert result.stats.cpu_seconds is not None
    assert result.stats.cpu_seconds > 0


async def test_a_run_on_a_virtual_clock_measures_no_cpu_time():
    """Virtual seconds cannot be compared with CPU seconds."""
    assert (await AsyncBatchProcessor(calls_of(1)).process(range(4))).stats.cpu_seconds is None


# ── pipelines ───────────────────────────────────────────────────────────────────────────────


async def vectors(texts: list[str]) -> list[list[float]]:
    """Embed slowly."""
    await asyncio.sleep(1.0)
    return [[1.0, 0.0] for _ in texts]


DOCUMENTS = [(f"text {number}", "word and more. " * 400) for number in range(60)]


async def test_a_slow_embedder_is_the_bottleneck():
    """The explanation of a pipeline has a line per stage."""
    result = await AsyncDocumentProcessor(embed=vectors, embed_concurrency=2).process(DOCUMENTS)
    lines = result.explain().splitlines()
    assert lines[2].split() == ["max", "calls", "in", "calls", "rate", "limit", "idle"]
    assert lines[4] == "  embed                    2      100%          0%     0%"
    text = " ".join(lines)
    assert "The stage embed is the bottleneck" in text
    assert "embed_concurrency=4, or batch_size=64" in text


async def test_a_limited_embedder_differs_from_a_slow_one():
    """The setting to change is its limiter."""
    processor = AsyncDocumentProcessor(
        embed=vectors, embed_concurrency=16, rate_limiter=RateLimiter(2)
    )
    text = (await processor.process(DOCUMENTS * 4)).explain().replace("\n", " ")
    assert "The rate limit of embed is the bottleneck" in text
    assert "rate_limiter=RateLimiter(4)" in text


async def test_more_concurrent_documents_are_advised_for_a_slow_load():
    """Its own setting, not that of the embedder."""

    async def load(source: str) -> str:
        await asyncio.sleep(5.0)
        return "a few words"

    processor = AsyncDocumentProcessor(load=load, embed=vectors, max_concurrency=2)
    text = (await processor.process(list("abcdefghijkl"))).explain().replace("\n", " ")
    assert "The stage load is the bottleneck" in text
    assert "max_concurrency=4" in text


@pytest.mark.parametrize(
    ("stage", "computed", "advice"),
    [
        (StageStats("store", 1, 9.0), 0.0, "one document at a time"),
        (StageStats("store", 1, 9.0, batch_size=64), 0.0, "all waiting documents together"),
        (StageStats("store", 4, 38.0, setting="store_concurrency"), 0.0, "store_concurrency=8"),
        (StageStats("embed", 4, 38.0, setting="embed_concurrency"), 0.0, "embed_concurrency=8"),
        (
            StageStats("embed", 4, 38.0, batch_size=8, setting="embed_concurrency", adaptive=True),
            0.0,
            "batch_size=16 would help",
        ),
        (StageStats("embed", 4, 38.0), 0.0, "only a faster embedder would help"),
        (StageStats("load", 4, 38.0, setting="max_concurrency"), 0.0, "max_concurrency=8"),
        (StageStats("embed", 4, 1.0, 30.0, rate=5, own_rate=5), 0.0, "job.rate = 10"),
        (
            StageStats("embed", 4, 39.0, rate=5, calls=48, setting="embed_concurrency"),
            0.0,
            "embed_concurrency=8. Its rate limit is near, too: rate_limiter=RateLimiter(10).",
        ),
        (StageStats("load and chunk", 2, 19.0), 9.8, "executor=ProcessPoolExecutor()"),
        (
            StageStats("load and chunk", 2, 19.0, setting="max_concurrency", on_executor=True),
            9.8,
            "More workers in the executor would help",
        ),
        (StageStats("embed", 4, 1.0, 30.0), 0.0, "a higher one would help"),
        (StageStats("embed", 4, 5.0), 0.0, "No stage was busy most of the time"),
    ],
)
def test_each_stage_has_its_own_setting(stage, computed, advice):
    """The advice is about the busiest stage."""
    stats = RunStats(100, cpu_seconds=computed, stages=(StageStats("load", 8, 0.1), stage))
    text = result_of(forty(seconds=5.0), seconds=10.0, stats=stats).explain()
    assert advice in text.replace("\n", " ")


async def test_more_calls_of_an_embedder_that_computes_are_not_advised():
    """It has as many as the cores can take, unless the user has set their number."""
    embedders = [HashingEmbedder(), Stage(HashingEmbedder(), max_concurrency=2)]
    settings = []
    for embed in embedders:
        result = await AsyncDocumentProcessor(embed=embed).process([("a", "text")])
        settings += [each.setting for each in result.stats.stages if each.name == "embed"]
    assert settings == ["", "embed_concurrency"]


async def test_a_slow_store_function_has_its_own_setting():
    """Not that of the embedder."""

    async def store(*parts: object) -> None:
        await asyncio.sleep(2.0)

    processor = AsyncDocumentProcessor(embed=vectors, store=store, store_concurrency=3)
    text = " ".join((await processor.process(DOCUMENTS)).explain().split())
    assert "The stage store is the bottleneck" in text
    assert "store_concurrency=6" in text


async def test_a_changed_setting_counts_from_the_moment_of_the_change():
    """Thirty calls of a second, one after the other, then three at a time."""
    processor = AsyncDocumentProcessor(embed=vectors, embed_concurrency=1, batch_size=10)
    job = processor.start(DOCUMENTS, on_current_loop=True)
    await asyncio.sleep(20.0)
    job.embed_concurrency = 3
    result = await job
    *_, embed = result.stats.stages
    assert embed.max_concurrency == 3
    assert embed.slot_seconds(result.seconds) == pytest.approx(3 * result.seconds - 40, abs=0.1)
    line = next(line for line in result.explain().splitlines() if line.startswith("  embed"))
    assert int(line.split()[2].rstrip("%")) >= 90


def test_a_merged_stage_with_another_setting_has_the_slots_of_both_runs():
    """Ten seconds of two calls, then five of four."""
    first = RunStats(4, stages=(StageStats("embed", 2, 20.0),))
    second = RunStats(4, stages=(StageStats("embed", 4, 20.0),))
    (merged,) = first.merged_with(second, 10.0).stages
    assert merged.slot_seconds(15.0) == 40.0


def test_stages_of_two_runs_are_added_up():
    """A merged pipeline was as busy as both."""
    first, second = (RunStats(4, stages=(StageStats("embed", 2, worked),)) for worked in (1.0, 2.0))
    assert first.merged_with(second).stages == (StageStats("embed", 2, 3.0),)


# ── values to try ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("value", "text"), [(0.0123, "0.012"), (9.97, "10"), (12.6, "13"), (1234.0, "1200")]
)
def test_a_rate_to_try_has_two_digits(value, text):
    """Written as code, without separators."""
    assert round_rate(value) == text


@pytest.mark.parametrize(("value", "next_one"), [(0.21, 0.3), (0.6, 0.6), (31, 40), (0.0, 0.0)])
def test_a_timeout_to_try_has_one_digit_and_is_rounded_up(value, next_one):
    """Rounding down could end calls that were fast enough."""
    assert round_up(value) == next_one
