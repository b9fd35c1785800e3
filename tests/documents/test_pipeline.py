"""Documents on their way through load, chunk, embed and store."""

import asyncio
import threading
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ragasync import AsyncRetry, RateLimiter
from ragasync.documents import (
    AsyncDocumentProcessor,
    Chunk,
    Document,
    RecursiveSplitter,
    Source,
    SqliteStore,
    Stage,
    load_source,
)
from tests.support.embedders import CountingEmbedder, given, words
from tests.support.services import about, now, other_tasks, turns


def texts(count: int, chunks: int = 1) -> list[tuple[str, str]]:
    """Return so many texts with their ids, each of so many words."""
    return [(f"d{number}", " ".join(["word"] * chunks)) for number in range(count)]


def documents(count: int, chunks: int = 1) -> list[Document]:
    """Return the same as documents."""
    return [Document(*text) for text in texts(count, chunks)]


def exact(**settings) -> AsyncDocumentProcessor:
    """Return a processor without threads, whose times are exact."""
    return AsyncDocumentProcessor(load=given, chunk=words, **settings)


# ── what goes in ────────────────────────────────────────────────────────────────────────────


async def test_the_defaults_need_no_argument_at_all():
    """By default everything is kept in the result, with the vectors as one array a document."""
    result = await AsyncDocumentProcessor().process([("a", "one text\n"), ("b", "")])
    first, empty = result.get_successful()
    assert first.document == Document("a", "one text\n")
    assert first.chunks == (Chunk("one text", 0, 8, {"line": 1}),)
    assert (first.embeddings.dtype, first.embeddings.shape) == (np.float32, (1, 1024))
    assert (empty.chunk_count, empty.chunks) == (0, ())
    assert len(empty.embeddings) == 0


@pytest.mark.parametrize(
    "kind", [str, Path, lambda folder: [folder], lambda folder: iter([folder])]
)
async def test_a_folder_is_walked_however_it_is_given(tmp_path, kind):
    """As a str or a path, alone or in an iterable."""
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.txt").write_text("two")
    result = await AsyncDocumentProcessor().process(kind(tmp_path))
    found = [done.id.removeprefix(f"{tmp_path}/") for done in result.get_successful()]
    assert found == ["a.txt", "sub/b.txt"]
    assert all(isinstance(outcome.item, Source) for outcome in result)


async def test_a_file_a_document_and_a_pair_are_sources_too(tmp_path):
    """One of them alone, or all of them together."""
    path = tmp_path / "a.txt"
    path.write_text("one")
    processor = AsyncDocumentProcessor()
    assert [done.id for done in (await processor.process(path)).get_successful()] == [str(path)]
    alone = await processor.process(Document("b", "two"))
    assert [done.id for done in alone.get_successful()] == ["b"]
    mixed = [path, Document("b", "two"), ("c", "three"), Source("d", path)]
    result = await processor.process(mixed)
    assert [done.document.text for done in result.get_successful()] == [
        "one",
        "two",
        "three",
        "one",
    ]


async def test_an_async_iterable_is_drawn_from():
    """Sources may come as they are found."""

    async def found():
        for document in documents(3):
            await asyncio.sleep(60)
            yield document

    result = await AsyncDocumentProcessor().process(found())
    assert [done.id for done in result.get_successful()] == ["d0", "d1", "d2"]


async def test_a_str_that_names_nothing_is_an_error_at_once():
    """It is most often a text."""
    processor = AsyncDocumentProcessor()
    with pytest.raises(FileNotFoundError, match="texts are given as"):
        await processor.process("Paris is a city.")
    with pytest.raises(FileNotFoundError, match="texts are given as"):
        processor.start("Paris is a city.")
    with pytest.raises(FileNotFoundError, match="texts are given as"):
        await anext(processor.stream("Paris is a city."))


async def test_a_path_that_names_nothing_fails_alone(tmp_path):
    """As the error of a str that names nothing says."""
    (tmp_path / "a.md").write_text("A bucket refills.")
    paths = [str(tmp_path / name) for name in ("gone.md", "a.md")]
    with pytest.raises(FileNotFoundError, match="given as a Path, and then fails alone"):
        await AsyncDocumentProcessor().process(paths)
    result = await AsyncDocumentProcessor().process(map(Path, paths))
    assert [outcome.status for outcome in result] == ["failed", "done"]
    assert isinstance(result[0].error, FileNotFoundError)


async def test_a_load_of_ones_own_takes_whatever_the_sources_are():
    """Numbers, rows, messages: what they are is the loader's business."""

    def row(number: int) -> Document:
        return Document(f"row {number}", str(number))

    result = await AsyncDocumentProcessor(load=row).process(range(3))
    assert [done.document.text for done in result.get_successful()] == ["0", "1", "2"]
    assert [outcome.item for outcome in result] == [0, 1, 2]


async def test_a_load_of_ones_own_gets_the_path_of_a_file_and_may_return_a_text(tmp_path):
    """The document then has the id that it has by default."""
    (tmp_path / "a.txt").write_text("one")
    seen = []

    def load(path: Path) -> str:
        seen.append(path)
        return path.read_text()

    (done,) = (await AsyncDocumentProcessor(load=load).process(tmp_path)).get_successful()
    assert seen == [tmp_path / "a.txt"]
    path = str(tmp_path / "a.txt")
    assert (done.id, done.source, done.document.text) == (path, path, "one")


async def test_our_own_loader_with_other_settings_keeps_the_ids(tmp_path):
    """A partial of it is still given the source, and not the path alone."""
    (tmp_path / "a.txt").write_text("one")
    load = partial(load_source, max_bytes=2)
    (failed,) = (await AsyncDocumentProcessor(load=load).process(tmp_path)).get_failed()
    assert str(failed.error).startswith("too large")
    load = partial(load_source, max_bytes=9)
    (done,) = (await AsyncDocumentProcessor(load=load).process(tmp_path)).get_successful()
    assert done.id == str(tmp_path / "a.txt")


# ── stages ──────────────────────────────────────────────────────────────────────────────────


class Client:
    """Stages as the methods of an object."""

    def load(self, name: str) -> Document:
        """Load."""
        return Document(name, f"{name} text")

    async def load_async(self, name: str) -> Document:
        """Load."""
        return self.load(name)

    def chunk(self, text: str) -> list[str]:
        """Cut."""
        return text.split()

    async def chunk_async(self, text: str) -> list[str]:
        """Cut."""
        return text.split()

    def embed(self, texts: list[str]) -> list[list[float]]:
        """Embed."""
        return [[float(len(text))] for text in texts]

    async def embed_async(self, texts: list[str]) -> list[list[float]]:
        """Embed."""
        return self.embed(texts)


@pytest.mark.parametrize("load", ["load", "load_async"])
@pytest.mark.parametrize("chunk", ["chunk", "chunk_async"])
@pytest.mark.parametrize("embed", ["embed", "embed_async"])
async def test_each_stage_may_be_sync_or_async(load, chunk, embed):
    """In every mixture, as bound methods."""
    stages = [getattr(Client(), name) for name in (load, chunk, embed)]
    stored = []
    result = await AsyncDocumentProcessor(*stages, lambda *parcel: stored.append(parcel)).process(
        ["a", "bcd"]
    )
    assert result.all_succeeded
    assert {document.id: vectors.tolist() for document, _, vectors in stored} == {
        "a": [[1], [4]],
        "bcd": [[3], [4]],
    }


async def test_a_lambda_around_an_async_embedder_is_awaited():
    """The commonest way to fix an argument."""
    client = Client()
    processor = AsyncDocumentProcessor(embed=lambda texts: client.embed_async(texts))
    (done,) = (await processor.process([("a", "abc")])).get_successful()
    assert done.embeddings.tolist() == [[3]]


async def test_a_lambda_around_an_async_splitter_says_what_to_do():
    """It would have to change threads in the middle of a call."""
    processor = AsyncDocumentProcessor(chunk=lambda text: words(text))
    (failed,) = (await processor.process([("a", "abc")])).get_failed()
    assert failed.stage == "chunk"
    assert "is async and does not say so: pass the async function" in str(failed.error)


async def test_texts_from_a_splitter_get_their_places():
    """Also where the same words come twice, and where a splitter rewrote some."""

    def split(text: str) -> list[str]:
        return ["ab", "ab", "AB", "cd"]

    (done,) = (await AsyncDocumentProcessor(chunk=split).process([("a", "ab ab cd")])).results
    assert [(chunk.start, chunk.end) for chunk in done.chunks] == [(0, 2), (3, 5), (3, 5), (6, 8)]


@pytest.mark.parametrize(
    ("stages", "stage", "message"),
    [
        ({"load": lambda _: 7}, "load", "load must return a Document (or a text, for a path"),
        ({"chunk": lambda _: [7]}, "chunk", "chunk must return Chunks or texts, got 7"),
        ({"chunk": lambda _: "text"}, "chunk", "got one text 'text'"),
        ({"embed": lambda _: [7.0]}, "embed", "a vector for each of 1 texts, got list of shape"),
        ({"embed": lambda _: {}}, "embed", "must return a list with one value"),
        ({"embed": lambda _: []}, "embed", "got 0 values for 1 items"),
    ],
)
async def test_what_a_stage_may_not_return_is_its_failure(stages, stage, message):
    """The message says what was expected and what came."""
    processor = AsyncDocumentProcessor(**stages, retry_count=0)
    (failed,) = (await processor.process([("a", "text")])).get_failed()
    assert failed.stage == stage
    assert message in str(failed.error)


async def test_a_stage_may_have_settings_of_its_own():
    """Concurrency, batches, a limiter and a timeout, whatever those of the others are."""
    embed = CountingEmbedder(seconds=1.0)
    stage = Stage(embed, max_concurrency=2, batch_size=3, rate_limiter=RateLimiter(1, 1), timeout=9)
    result = await exact(embed=stage, batch_size=100, embed_concurrency=50).process(documents(4, 3))
    assert result.all_succeeded
    assert embed.sizes == [3, 3, 3, 3]
    assert embed.most_in_flight <= 2
    assert now() == about(4.0)


async def test_a_timeout_is_for_one_call_of_a_stage():
    """The call that hangs fails, with its stage."""
    (failed,) = (
        await exact(embed=CountingEmbedder(seconds=60), timeout=5, retry_count=0).process(
            documents(1)
        )
    ).get_failed()
    assert (failed.stage, type(failed.error).__name__) == ("embed", "AttemptTimeout")
    assert now() == about(5)


async def test_load_and_chunk_are_not_tried_again_unless_asked():
    """By default a file that cannot be read fails once; a stage of its own may say otherwise."""
    tries = []

    def load(name: str) -> Document:
        tries.append(name)
        raise ConnectionError("gone")

    await AsyncDocumentProcessor(load=load).process(["a"])
    assert tries == ["a"]
    await AsyncDocumentProcessor(load=Stage(load, retry=AsyncRetry(2, 0.0))).process(["b"])
    assert tries == ["a", "b", "b", "b"]


async def test_embed_and_store_are_tried_again():
    """A hiccup of a service costs a back-off, not a document."""
    embed, hiccups = CountingEmbedder(poison={"word": ConnectionError("gone")}), [OSError("full")]

    async def store(*parcel) -> None:
        if hiccups:
            raise hiccups.pop()

    processor = exact(embed=embed, store=store, retry_count=1, retry_delay=0.0)
    running = asyncio.create_task(processor.process(documents(1)))
    await asyncio.sleep(1.1)
    embed.poison.clear()
    assert (await running).all_succeeded
    assert (len(embed.calls), hiccups) == (2, [])


# ── batches, order, bounds ──────────────────────────────────────────────────────────────────


async def test_chunks_of_many_documents_fill_the_same_batches():
    """2,020 documents of uneven length take no more calls than their chunks need."""
    embed = CountingEmbedder()
    sources = [Document(f"d{n}", " ".join(["word"] * (n % 9))) for n in range(2020)]
    chunks = sum(n % 9 for n in range(2020))
    result = await exact(embed=embed, store=forget).process(sources)
    assert result.all_succeeded
    assert sum(done.chunk_count for done in result.get_successful()) == sum(embed.sizes) == chunks
    assert len(embed.calls) == -(-chunks // 32)
    assert now() == about(-(-len(embed.calls) // 4) * 1.0)


async def forget(*parcel) -> None:
    """Store nothing, at once."""


async def test_a_batch_is_bounded_by_cost_too():
    """As many chunks as their tokens allow, and one too large fails alone."""
    embed = CountingEmbedder()
    stage = Stage(embed, weight=len, max_batch_weight=10)
    sources = [("a", "four four four"), ("b", "elevenchars")]
    result = await exact(embed=stage).process([Document(*pair) for pair in sources])
    assert [outcome.status for outcome in result] == ["done", "failed"]
    assert result[1].stage == "embed"
    assert embed.sizes == [2, 1]


async def test_stages_overlap():
    """While one document is embedded, the next is loaded, and the one before is stored."""

    async def load(number: int) -> Document:
        await asyncio.sleep(1)
        return Document(str(number), "text")

    async def store(*parcel) -> None:
        await asyncio.sleep(1)

    processor = AsyncDocumentProcessor(
        load, words, CountingEmbedder(), store, max_concurrency=1, batch_size=1, embed_concurrency=1
    )
    await processor.process(range(10))
    assert now() == about(12.0)


async def test_a_slow_embedder_holds_loading_back():
    """2,000 documents of 50 chunks never have more chunks alive than the room allows."""
    alive, most = 0, 0

    async def split(text: str) -> list[str]:
        nonlocal alive, most
        alive += 50
        most = max(most, alive)
        return ["word"] * 50

    async def store(document: Document, chunks: list[Chunk], vectors: object) -> None:
        nonlocal alive
        alive -= len(chunks)

    embed = CountingEmbedder(seconds=1.0)
    drawn = 0

    def sources():
        nonlocal drawn
        for number in range(2000):
            drawn += 1
            assert drawn <= number + 1
            yield Document(str(number), "text")

    processor = AsyncDocumentProcessor(given, split, embed, store)
    result = await processor.process(sources())
    assert result.success_count == 2000
    assert most <= 3 * 4 * 32 + 8 * 50
    assert len(embed.calls) == 100_000 // 32


async def test_documents_are_drawn_only_when_there_is_room_for_them():
    """An endless source of large documents is not read ahead."""
    drawn = 0

    def endless():
        nonlocal drawn
        while True:
            drawn += 1
            yield Document(str(drawn), "word " * 200)

    job = exact(embed=CountingEmbedder(seconds=60)).start(endless(), on_current_loop=True)
    await asyncio.sleep(30)
    assert drawn == 2 + 8
    job.cancel()
    assert (await job).total == 10


async def test_a_slow_store_holds_embedding_back():
    """What is embedded and not yet stored is bounded too."""
    embed = CountingEmbedder()

    async def store(*parcel) -> None:
        await asyncio.sleep(10_000)

    job = exact(embed=embed, store=store).start(documents(10_000), on_current_loop=True)
    await asyncio.sleep(5000)
    assert sum(embed.sizes) == 3 * 4 * 32
    job.cancel()
    await job


@pytest.mark.real_time
async def test_load_and_chunk_never_run_on_the_loop():
    """Nor does a sync embedder or a Store."""
    seen = set()

    def on(name: str, value: object) -> object:
        seen.add((name, threading.get_ident() == threading.main_thread().ident))
        return value

    class Noting(SqliteStore):
        def upsert(self, *args, **kwargs) -> None:
            on("store", super().upsert(*args, **kwargs))

        def fingerprint_of(self, document_id: str) -> str | None:
            return on("ask", super().fingerprint_of(document_id))

    def embed(texts: list[str]) -> list[list[float]]:
        return on("embed", [[1.0]] * len(texts))

    def load(name: str) -> Document:
        return on("load", Document(name, "text"))

    async def load_async(name: str) -> Document:
        return Document(name, "text")

    def split(text: str) -> list[str]:
        return on("chunk", [text])

    for loader in (load, load_async):
        with Noting(":memory:") as store:
            await AsyncDocumentProcessor(loader, split, embed, store).process(["a"])
    assert seen == {(name, False) for name in ("load", "ask", "chunk", "embed", "store")}


def shout(text: str) -> list[str]:
    """Cut, in another process."""
    return [f"{part.upper()} in {threading.main_thread().name}" for part in text.split()]


@pytest.mark.real_time
async def test_load_and_chunk_run_on_processes_while_the_store_stays_here(tmp_path):
    """A store cannot travel; it is asked on a thread of this process, and knows what it has."""
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text("one two")
    with ProcessPoolExecutor(2) as pool, SqliteStore(":memory:") as store:
        processor = AsyncDocumentProcessor(chunk=shout, store=store, executor=pool)
        first = await processor.process(tmp_path)
        assert [done.chunk_count for done in first.get_successful()] == [2, 2, 2]
        second = await processor.process(tmp_path)
    assert all(done.unchanged for done in second.get_successful())
    assert len(second.get_successful()) == 3


@pytest.mark.real_time
async def test_one_stage_alone_may_run_on_processes():
    """The others stay on threads."""
    with ProcessPoolExecutor(1) as pool:
        processor = AsyncDocumentProcessor(chunk=Stage(RecursiveSplitter(), executor=pool))
        result = await processor.process(texts(3))
    assert [done.chunk_count for done in result.get_successful()] == [1, 1, 1]


# ── running ─────────────────────────────────────────────────────────────────────────────────


async def test_progress_counts_documents():
    """The total of a folder or a list is known; the last call tells the end."""
    told = []
    await exact(embed=CountingEmbedder()).process(documents(3), lambda *now: told.append(now))
    assert told[-1] == (3, 3)
    await exact(embed=CountingEmbedder()).process(iter(documents(2)), lambda *now: told.append(now))
    assert told[-1] == (2, 2)


async def test_a_limit_makes_a_pilot():
    """The rest stays pending, and can be run later."""
    processor = exact(embed=CountingEmbedder())
    result = await processor.process(documents(5), max_items=2)
    assert [outcome.status for outcome in result] == ["done"] * 2 + ["pending"] * 3
    whole = await result.retry_failed(processor, only=result.unfinished)
    assert whole.all_succeeded


async def test_a_stream_gives_each_document_as_it_is_done():
    """In the order of their ends, or in that of the sources."""

    async def load(number: int) -> Document:
        await asyncio.sleep(10 - number)
        return Document(str(number), "text")

    processor = AsyncDocumentProcessor(load, words, CountingEmbedder())
    ended = [outcome.index async for outcome in processor.stream(range(3))]
    ordered = [outcome.value.id async for outcome in processor.stream(range(3), ordered=True)]
    assert (ended, ordered) == ([2, 1, 0], ["0", "1", "2"])


async def test_leaving_a_stream_leaves_no_task():
    """What was in flight is cancelled."""
    stream = exact(embed=CountingEmbedder(), batch_size=1).stream(documents(1000))
    async for _ in stream:
        break
    await stream.aclose()
    assert other_tasks() == set()


@pytest.mark.real_time
def test_process_sync_needs_no_loop():
    """The same in a script."""
    result = AsyncDocumentProcessor().process_sync(texts(3))
    assert result.success_count == 3
    assert AsyncDocumentProcessor().last_result is None


async def test_a_job_can_be_paused_and_goes_on():
    """No further document is begun, however many are still to come."""
    embed = CountingEmbedder(seconds=1.0)
    job = exact(embed=embed, batch_size=1, embed_concurrency=1).start(
        documents(100), on_current_loop=True
    )
    await asyncio.sleep(2.5)
    job.pause()
    await asyncio.sleep(1000)
    begun = job.progress.finished
    assert begun < 30
    job.resume()
    result = await job
    assert result.success_count == 100


async def test_a_cancelled_job_keeps_what_was_stored_and_leaves_no_task():
    """Its counts add up."""
    stored = []

    async def store(document: Document, *rest) -> None:
        stored.append(document.id)

    processor = exact(embed=CountingEmbedder(), store=store, batch_size=1, embed_concurrency=1)
    job = processor.start(documents(100), on_current_loop=True)
    await asyncio.sleep(3.5)
    job.cancel()
    result = await job
    assert [done.id for done in result.get_successful()] == stored == ["d0", "d1", "d2"]
    assert result.error_count == 0
    assert result.cancelled_count + result.pending_count == 97
    del job
    await turns()
    assert other_tasks() == set()


@pytest.mark.real_time
async def test_cancelling_ends_the_threads():
    """The threads of a run end with it."""
    before = set(threading.enumerate())
    embed = CountingEmbedder(seconds=60)
    running = asyncio.create_task(AsyncDocumentProcessor(embed=embed).process(iter(documents(100))))
    await embed.called.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    ours = [thread for thread in set(threading.enumerate()) - before if "ragasync" in thread.name]
    for thread in ours:
        thread.join(5)
    assert not any(thread.is_alive() for thread in ours)
    assert other_tasks() == set()


async def test_one_processor_may_run_twice_at_once():
    """It holds the settings only."""
    processor = exact(embed=CountingEmbedder())
    first, second = await asyncio.gather(
        processor.process(documents(40)), processor.process(documents(50))
    )
    assert (first.success_count, second.success_count) == (40, 50)


def test_wrong_arguments_are_errors_at_once():
    """Before anything is loaded."""
    with pytest.raises(TypeError, match="keep_content must be True or False, got 'all'"):
        AsyncDocumentProcessor(keep_content="all")
    with pytest.raises(TypeError, match="a stage is a function, a Stage or None, got 7"):
        AsyncDocumentProcessor(embed=7)
    with pytest.raises(TypeError, match="a stage is a function, a Stage or None, got 'file'"):
        AsyncDocumentProcessor(store="file")
    with pytest.raises(TypeError, match=r"pass store=SqliteStore\('file'\)"):
        AsyncDocumentProcessor(store="file")
    with pytest.raises(ValueError, match="max_concurrency must be at least 1"):
        AsyncDocumentProcessor(max_concurrency=0)


def test_a_repr_tells_the_settings():
    """In one line."""
    assert repr(AsyncDocumentProcessor()) == (
        "<AsyncDocumentProcessor embed=hashing-1024-v2, batch_size=32, max_concurrency=8>"
    )
