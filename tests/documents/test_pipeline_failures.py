"""What a document's failure says, whom it leaves alone, and when it ends the run."""

import asyncio
import re
import threading
from concurrent.futures import ProcessPoolExecutor
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from ragasync import FATAL, AsyncRetry, RunAsyncError
from ragasync.documents import (
    AsyncDocumentProcessor,
    Document,
    EmbedderMismatch,
    LoadError,
    MemoryStore,
    SqliteStore,
    Stage,
    StoreError,
)
from tests.support.embedders import CountingEmbedder, given, words
from tests.support.services import StatusError, about, now


def statuses(result) -> list[str]:
    """Return what became of each document."""
    return [outcome.status for outcome in result]


def notes(outcome) -> list[str]:
    """Return what is noted on an outcome's error."""
    return getattr(outcome.error, "__notes__", [])


def documents(*texts: str) -> list[Document]:
    """Return texts as documents a, b, c and so on."""
    return [Document(chr(ord("a") + place), text) for place, text in enumerate(texts)]


async def process(*texts: str, **settings):
    """Run texts through a processor without threads."""
    return await AsyncDocumentProcessor(load=given, chunk=words, **settings).process(
        documents(*texts)
    )


# ── one bad document ────────────────────────────────────────────────────────────────────────


async def test_a_file_that_cannot_be_loaded_harms_no_other(tmp_path):
    """It fails with its stage, its source and a reason."""
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.txt").write_bytes(b"a\0b")
    result = await AsyncDocumentProcessor().process(tmp_path)
    assert statuses(result) == ["done", "failed"]
    assert (result[1].stage, result[1].item.id, result[1].error.reason) == (
        "load",
        str(tmp_path / "b.txt"),
        "binary",
    )
    assert f"in stage load: '{tmp_path}/b.txt'" in notes(result[1])


async def test_a_document_that_cannot_be_cut_harms_no_other():
    """The splitter's failure is told from the loader's."""

    def split(text: str) -> list[str]:
        return [text] if text != "bad" else [text[9]]

    result = await AsyncDocumentProcessor(chunk=split).process(documents("good", "bad"))
    assert statuses(result) == ["done", "failed"]
    assert (result[1].stage, notes(result[1])) == ("chunk", ["in stage chunk: 'b'"])


async def test_a_poison_chunk_fails_its_document_alone():
    """The others of its batch are embedded, and the error names the chunk."""
    embed = CountingEmbedder(poison={"poison": StatusError(400, message="too odd")})
    result = await process("one two", "three poison four", "five", embed=embed)
    assert statuses(result) == ["done", "failed", "done"]
    assert (result[1].stage, str(result[1].error)) == ("embed", "too odd")
    assert notes(result[1]) == ["in stage embed: chunk 2 of 3 (characters 6 to 12) of 'b'"]


async def test_an_error_shared_by_documents_names_no_single_one():
    """A call that fails as a whole is noted once, whatever number of documents it was for."""
    embed = CountingEmbedder(poison={"two": TypeError("a bug")})
    result = await process("one", "two", "three", embed=embed)
    assert result[0].error is result[1].error is result[2].error
    assert notes(result[0]) == ["in stage embed: several documents share this error"]


async def test_an_error_shared_by_the_chunks_of_one_document_names_them_all():
    """From the first to the last."""
    embed = CountingEmbedder(poison={"two": TypeError("a bug")})
    result = await process("one two three", "four", embed=embed, batch_size=3)
    assert statuses(result) == ["failed", "done"]
    assert notes(result[0]) == ["in stage embed: chunks 1 to 3 of 3 (characters 0 to 13) of 'a'"]


async def test_a_second_run_of_the_same_error_notes_nothing_twice():
    """A loader may raise one and the same error again and again."""
    error = LoadError("closed", "come back later")

    def load(name: str) -> Document:
        raise error

    processor = AsyncDocumentProcessor(load=load)
    result = await processor.process(["a"])
    await result.retry_failed(processor)
    assert notes(result[0]) == ["in stage load: 'a'"]


async def test_many_failures_of_one_kind_keep_their_tracebacks_as_text():
    """Also those of a stage inside of the run, and beyond the first twenty."""

    def load(number: int) -> Document:
        raise KeyError(number)

    result = await AsyncDocumentProcessor(load=load).process(range(50))
    assert all("in load" in outcome.traceback for outcome in result)
    assert result[49].error.__traceback__ is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
async def test_a_vector_that_is_not_finite_fails_its_document_alone(bad):
    """Which chunk it was is said."""

    async def embed(texts: list[str]) -> np.ndarray:
        return np.array([[bad if text == "bad" else 1.0] for text in texts], dtype=np.float32)

    result = await process("one", "two bad", embed=embed)
    assert statuses(result) == ["done", "failed"]
    assert result[1].stage == "embed"
    assert str(result[1].error).startswith("expected finite numbers")
    assert notes(result[1]) == ["in stage embed: chunk 2 of 2 (characters 4 to 7) of 'b'"]


@pytest.mark.parametrize(
    ("stage", "fault"),
    [
        ({"embed": lambda texts: None}, "embed must return a list"),
        ({"embed": lambda texts: []}, "embed must return a value for each item"),
        ({"embed": lambda texts: [[1j]]}, "embed must return real numbers"),
        ({"chunk": lambda text: None}, "chunk must return a list of Chunks or texts, got None"),
        (
            {"chunk": lambda text: {"chunks": [text]}},
            "chunk must return a list of Chunks or texts, got {'chunks'",
        ),
        ({"load": lambda source: None}, "load must return a Document"),
    ],
)
async def test_an_unusable_value_of_a_stage_is_an_error_that_names_the_stage(stage, fault):
    """Nobody has passed a process_fn."""
    result = await AsyncDocumentProcessor(**stage, retry_count=0).process([("a", "one")])
    assert str(result[0].error).startswith(fault)


@pytest.mark.parametrize("is_async", [False, True])
async def test_an_embedder_may_fill_the_same_array_in_each_call(is_async):
    """Each document keeps the vectors of its own chunks."""
    buffer = np.zeros((8, 1), np.float32)

    def fill(texts):
        for place, text in enumerate(texts):
            buffer[place] = len(text)
        return buffer[: len(texts)]

    async def fill_async(texts):
        return fill(texts)

    result = await process(
        *("x" * length for length in range(1, 9)),
        embed=Stage(fill_async if is_async else fill, max_concurrency=1, batch_size=2),
    )
    lengths = [done.embeddings.tolist() for done in result.results]
    assert lengths == [[[length]] for length in range(1, 9)]


async def test_a_wrong_number_of_vectors_is_an_error_with_both_numbers():
    """The batch is halved until it is clear whose it is."""

    async def embed(texts: list[str]) -> list[list[float]]:
        return [[1.0] for text in texts if text != "bad"]

    result = await process("one", "bad", "two", embed=embed)
    assert statuses(result) == ["done", "failed", "done"]
    assert "got 0 values for 1 items" in str(result[1].error)


async def test_a_vector_of_another_dimension_fails_its_document_alone():
    """In one batch with good ones, or in one of its own."""

    async def embed(texts: list[str]) -> list[list[float]]:
        return [[1.0] * (3 if text == "bad" else 2) for text in texts]

    for batch_size in (1, 32):
        result = await process("one", "bad", "two", embed=embed, batch_size=batch_size)
        assert statuses(result) == ["done", "failed", "done"]
        assert result[1].stage == "embed"
        assert "expected a vector of 2 dimensions" in str(result[1].error)


async def test_a_store_that_fails_for_one_document_harms_no_other():
    """It counts as done only after the store has acknowledged it."""
    stored = []

    async def store(document: Document, *rest: object) -> None:
        await asyncio.sleep(1)
        if document.id == "b":
            raise StoreError("the disk is full")
        stored.append(document.id)

    result = await process("one", "two", "three", embed=CountingEmbedder(), store=store)
    assert statuses(result) == ["failed" if name == "b" else "done" for name in "abc"]
    assert (result[1].stage, notes(result[1])) == ("store", ["in stage store: 'b'"])
    assert sorted(stored) == ["a", "c"]


async def test_a_store_that_cannot_be_asked_is_named_as_the_stage():
    """Not the splitter, in whose call it is asked."""
    store = SqliteStore(":memory:")
    store.close()
    for settings in ({}, {"chunk": words}):
        result = await AsyncDocumentProcessor(**settings, store=store).process(documents("one"))
        assert (result[0].status, result[0].stage) == ("failed", "store")
        assert isinstance(result[0].error, StoreError)


# ── the end of the run ──────────────────────────────────────────────────────────────────────


async def test_a_full_disk_ends_the_run_before_everything_is_embedded(tmp_path):
    """Embedding costs money, and no vector could be stored; with room, the run goes on."""
    embed = CountingEmbedder()
    sources = [(f"{number}", f"text {number} " * 100) for number in range(3_000)]
    with SqliteStore(tmp_path / "store.sqlite") as store:
        connection = store._file._connection
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 60:d}")
        processor = AsyncDocumentProcessor(embed=embed, store=store)
        result = await processor.process(sources)
        assert "free space on the disk" in str(result.stopped_because)
        assert result.error_count == 1
        assert result.pending_count > 1_000
        assert len(store.documents()) == result.success_count > 0
        connection.execute("PRAGMA max_page_count = 1000000")
        assert (await processor.process(sources)).all_succeeded


@pytest.mark.parametrize("as_list", [False, True])
async def test_a_repeated_document_fails_alone_when_it_cannot_be_looked_up_again(as_list):
    """It is looked up again after its twin was stored; the others of its source go on."""
    asked: list[str] = []

    class Forgetful(SqliteStore):
        """A store that can be asked for the fingerprint of a document only twice."""

        def fingerprint_of(self, document_id: str) -> str | None:
            asked.append(document_id)
            if asked.count(document_id) > 2:
                raise StoreError(f"{document_id} cannot be looked up")
            return super().fingerprint_of(document_id)

    def load(name: str) -> Document | list[Document]:
        twin = Document("twin", "some text")
        return [twin, Document(name, "another text")] if as_list else twin

    with Forgetful(":memory:") as store:
        processor = AsyncDocumentProcessor(load=load, embed=CountingEmbedder(), store=store)
        result = await processor.process(["a", "b"])
        assert sorted(statuses(result)) == ["done", "failed"]
        (failed,) = (outcome for outcome in result if outcome.status == "failed")
        assert failed.stage == "store"
        assert {each.id for each in store.documents()} == {"twin", *("ab" if as_list else "")}


async def test_a_bad_key_ends_the_run_at_once():
    """One clear reason, and no call for each of a thousand documents."""
    embed = CountingEmbedder(poison={"word": StatusError(401, message="bad key")})
    result = await process(*["word"] * 1000, embed=embed, embed_concurrency=1)
    assert result.stopped_because == "a fatal error (in stage embed): StatusError: bad key"
    assert len(embed.calls) == 1
    assert result.error_count == 1
    assert result.error_count + result.cancelled_count + result.pending_count == 1000
    assert now() == about(1.0)


async def test_what_a_stages_own_policy_calls_fatal_ends_the_run_too():
    """With the error itself as the reason."""
    embed = CountingEmbedder(poison={"word": OSError("out of money")})
    stage = Stage(embed, retry=AsyncRetry(3, retry_on=lambda _: FATAL))
    result = await process(*["word"] * 100, embed=stage)
    assert result.stopped_because == "a fatal error (in stage embed): OSError: out of money"
    assert len(embed.calls) == 4


async def test_a_fatal_error_of_a_loader_ends_the_run():
    """Also where load and chunk share one call."""

    def load(number: int) -> Document:
        raise StatusError(401, message="bad key")

    for chunk in (None, words):
        result = await AsyncDocumentProcessor(load=load, chunk=chunk).process(range(1000))
        assert result.stopped_because == "a fatal error (in stage load): StatusError: bad key"
        assert result.pending_count > 900


async def test_a_store_of_another_embedder_ends_the_run():
    """It is not tried again, and nothing more is embedded."""
    with SqliteStore(":memory:") as store:
        await process("one", embed=CountingEmbedder(name="first"), store=store)
        embed = CountingEmbedder(name="second")
        result = await process(*["word"] * 1000, embed=embed, store=store, batch_size=1)
        assert len(store.documents()) == 1
    assert result.stopped_because.startswith(
        "a fatal error (in stage store): EmbedderMismatch: the"
    )
    assert [type(failed.error) for failed in result.get_failed()] == [EmbedderMismatch]
    assert len(embed.calls) < 100


async def test_an_object_of_another_loop_is_raised_with_the_ways_out():
    """One clear error, whichever stage it was in."""

    async def embed(texts: list[str]) -> list[list[float]]:
        raise RuntimeError(
            "<asyncio.locks.Lock object at 0x7F [unlocked]> is bound to a different event loop"
        )

    with pytest.raises(RunAsyncError, match="another event loop"):
        await process("one", "two", embed=embed)


async def test_threads_that_hang_end_the_run_with_the_reason():
    """When no slot is left that could go on."""
    release = threading.Event()

    def load(number: int) -> Document:
        release.wait(30)
        return Document(str(number), "text")

    processor = AsyncDocumentProcessor(load=load, timeout=1, max_concurrency=2)
    result = await processor.process(range(100))
    release.set()
    assert "held by calls that outlived timeout=1 s" in result.stopped_because


@pytest.mark.parametrize(("max_errors", "failed"), [(3, 4), (0, 1)])
async def test_too_many_failures_end_the_run(max_errors, failed):
    """One more than were allowed."""

    async def load(number: int) -> Document:
        await asyncio.sleep(1)
        raise LoadError("odd", f"number {number}")

    processor = AsyncDocumentProcessor(load=load, max_errors=max_errors, max_concurrency=1)
    result = await processor.process(range(100))
    assert result.error_count == failed
    assert result.pending_count == 100 - failed
    assert f"more than max_errors={max_errors}" in result.stopped_because


async def test_vectors_in_a_column_of_objects_are_vectors():
    """As a DataFrame has them."""

    def embed(texts):
        return pd.DataFrame({"vector": [[len(text), 1.0] for text in texts]}, index=texts)["vector"]

    result = await AsyncDocumentProcessor(embed=embed).process([("a", "one"), ("b", "three")])
    assert [done.embeddings.tolist() for done in result.results] == [[[3.0, 1.0]], [[5.0, 1.0]]]


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (np.int64(3), r"int64, which JSON cannot hold: pass value\.item\(\)"),
        (Decimal("1.5"), r"Decimal, which JSON cannot hold: pass str\(value\)"),
    ],
)
async def test_metadata_that_cannot_be_stored_says_how_it_can(value, advice):
    """And the advice is right."""
    processor = AsyncDocumentProcessor(store=(store := MemoryStore()))
    with store:
        refused = await processor.process([Document("a", "text", {"value": value})])
        assert re.search(advice, str(refused[0].error))
        plain = value.item() if hasattr(value, "item") else str(value)
        assert (await processor.process([Document("a", "text", {"value": plain})])).all_succeeded


async def test_a_function_that_cannot_be_sent_to_an_executor_is_named():
    """Not what we wrap it in."""
    lock = threading.Lock()

    def cut(text: str) -> list[str]:
        with lock:
            return [text]

    with ProcessPoolExecutor(1) as pool:
        result = await AsyncDocumentProcessor(chunk=cut, executor=pool).process([("a", "text")])
    message = str(result[0].error)
    assert re.match(r"the function test_a_function.*cut cannot be pickled: .*It uses lock", message)
