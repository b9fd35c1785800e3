"""A stage's settings, and the name by which a document's fingerprint knows it."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial, wraps

import pytest

from ragasync import AsyncRetry, RateLimiter
from ragasync.documents import (
    AsyncDocumentProcessor,
    Document,
    HashingEmbedder,
    PDFLoader,
    RecursiveSplitter,
    SqliteStore,
    Stage,
)

# Internals: single steps of a pipeline.
from ragasync.documents.config import ChunkBudget
from ragasync.documents.stage import as_stage, function_name
from tests.support.services import turns


class Splitter:
    """A splitter as other packages have it, with its sizes as attributes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.model = object()

    def split(self, text: str) -> list[str]:
        """Cut."""
        return [text]


def split(text: str, size: int = 1) -> list[str]:
    """Cut."""
    return [text]


async def embed(texts: list[str]) -> list[list[float]]:
    """Embed."""
    return [[1.0] for _ in texts]


def test_what_a_stage_leaves_open_is_the_processors():
    """Its own settings go before the defaults."""
    limiter, retry = RateLimiter(1), AsyncRetry(7)
    stage = Stage(embed, max_concurrency=2, rate_limiter=limiter, retry=retry, timeout=3)
    plan = stage.plan(embed, max_concurrency=9, batched=True, batch_size=5, timeout=60)
    assert (plan.max_concurrency, plan.batch_size, plan.timeout) == (2, 5, 3)
    assert (plan.limiters, plan.retry) == ((limiter,), retry)


def test_an_executor_of_the_processor_is_not_for_async_functions_but_a_stages_own_is():
    """What waits needs no worker; where one is asked for by name, it gets it."""
    with ThreadPoolExecutor(1) as pool:
        assert Stage(embed).plan(embed, max_concurrency=1, executor=pool).executor is None
        assert Stage(split).plan(split, max_concurrency=1, executor=pool).executor is pool
        assert Stage(embed, executor=pool).plan(embed, max_concurrency=1).executor is pool


@pytest.mark.parametrize("wrong", [7, "embed"])
def test_what_is_no_function_is_refused(wrong):
    """The message says what a stage is."""
    with pytest.raises(TypeError, match=f"a stage is a function, a Stage or None, got {wrong!r}"):
        as_stage(wrong, split)


def test_a_generator_function_is_refused():
    """It would return before it has done anything."""

    def pieces(text: str):
        yield text

    with pytest.raises(TypeError, match="yields"):
        as_stage(pieces, split)


def test_a_function_is_known_by_its_qualified_name():
    """The same in every process."""
    assert function_name(split) == f"{__name__}.split"
    assert function_name(Splitter(3).split) == f"{__name__}.Splitter.split"


def test_what_says_its_own_name_is_believed():
    """A fingerprint goes before a name, also through a bound method."""
    assert function_name(RecursiveSplitter(500)) == RecursiveSplitter(500).fingerprint
    assert (
        function_name(HashingEmbedder(64))
        == function_name(HashingEmbedder(64).__call__)
        == "hashing-64-v2"
    )


class Embeddings:
    """What embedders of one package have in common, as packages have it."""

    def __init__(self, **attributes: object) -> None:
        vars(self).update(attributes)

    async def embed(self, texts: list[str]) -> list[list[float]]:
        """Embed."""
        return await embed(texts)

    @classmethod
    def make(cls, texts: list[str]) -> list[list[float]]:
        """Embed without an object."""
        return [[1.0] for _ in texts]


class Other(Embeddings):
    """Another embedder, with the method that it inherits."""


def test_an_inherited_method_is_its_objects_and_not_its_base_classs():
    """Or else the vectors of two embedders of one package would share a store."""
    assert function_name(Other().embed) == f"{__name__}.Other.embed"
    assert function_name(Other.make) == f"{__name__}.Other.make"
    assert len({function_name(kind().embed) for kind in (Embeddings, Other)}) == 2


@pytest.mark.parametrize("attribute", ["model", "model_name"])
def test_the_model_of_an_embedder_is_part_of_its_name(attribute):
    """A package has one class for many models; a model that is no name has no say."""
    assert function_name(Other(**{attribute: "small"}).embed) == f"{__name__}.Other.embed(small)"
    assert function_name(Other(**{attribute: object()}).embed) == f"{__name__}.Other.embed"


def test_a_name_or_version_that_is_no_text_is_refused():
    """It would change the fingerprint of everything, and nobody would know why."""
    with pytest.raises(TypeError, match="version must be a str, got 2: pass '2'"):
        Stage(split, version=2)
    with pytest.raises(TypeError, match="name must be a str or None, got 7"):
        Stage(split, name=7)


class Client:
    """A stage's client, which notes what becomes of it; `refuses` is what opening it raises."""

    def __init__(self, refuses: Exception | None = None) -> None:
        self.refuses = refuses
        self.noted: list[str] = []

    @asynccontextmanager
    async def open(self):
        """Open and close."""
        if self.refuses is not None:
            raise self.refuses
        self.noted.append("opened")
        yield self
        self.noted.append("closed")


async def test_a_stages_resources_are_opened_once_a_run_and_passed_to_its_function():
    """Async or sync, for embedding or storing: the second argument, or the fourth."""
    client, other = Client(), Client()

    async def embed_by(texts, client):
        client.noted.append("embedded")
        return [[1.0] for _ in texts]

    def store_by(document, chunks, embeddings, client):
        client.noted.append(document.id)

    processor = AsyncDocumentProcessor(
        embed=Stage(embed_by, batch_size=1, resources=client.open),
        store=Stage(store_by, resources=other.open, max_concurrency=1),
    )
    result = await processor.process([Document("a", "a"), Document("b", "b")])
    assert result.success_count == 2
    assert client.noted == ["opened", "embedded", "embedded", "closed"]
    assert (other.noted[0], sorted(other.noted[1:3]), other.noted[3]) == (
        "opened",
        ["a", "b"],
        "closed",
    )


async def test_what_opening_a_stages_resources_raises_ends_the_run():
    """It is raised as it is, not as a stage that is closed."""
    client = Client(refuses=OSError("no such host"))
    processor = AsyncDocumentProcessor(embed=Stage(embed, resources=client.open))
    with pytest.raises(OSError, match="no such host"):
        await processor.process([Document("a", "a")])


async def test_what_closing_a_stages_resources_raises_is_raised_with_everything_done_kept():
    """Nothing that a client says at its end goes unheard."""

    @asynccontextmanager
    async def client():
        yield None
        raise OSError("the connection broke")

    async def embed_by(texts, client):
        return [[1.0] for _ in texts]

    processor = AsyncDocumentProcessor(embed=Stage(embed_by, resources=client))
    with pytest.raises(OSError, match="the connection broke"):
        await processor.process([Document("a", "a")])
    assert processor.last_result is not None
    assert processor.last_result.success_count == 1


def test_an_object_may_say_itself_how_it_is_called():
    """Its `as_stage` is used where it was given plainly; in a Stage, that has the word."""

    class Embedder:
        def __call__(self, texts):
            raise NotImplementedError

        def as_stage(self):
            return Stage(self, max_concurrency=7)

    embedder = Embedder()
    assert as_stage(embedder, split).max_concurrency == 7
    assert as_stage(Stage(embedder), split).max_concurrency is None


async def test_room_is_given_in_order_and_a_big_document_is_not_overtaken():
    """Who came first goes first, though a smaller one would fit already."""
    room, entered = ChunkBudget(8), []

    async def enter(name: str, chunks: int) -> int:
        weight = await room.enter(chunks)
        entered.append(name)
        return weight

    held = [await enter("a", 4), await enter("b", 2)]
    big = asyncio.create_task(enter("big", 4))
    small = asyncio.create_task(enter("small", 1))
    await turns()
    assert entered == ["a", "b"]
    room.leave(held.pop())
    await turns()
    assert entered == ["a", "b", "big"]
    room.leave(await big)
    await small
    assert entered == ["a", "b", "big", "small"]


async def test_a_document_of_any_size_gets_in_and_none_takes_more_than_half():
    """Two documents larger than the room are inside at once."""
    room = ChunkBudget(8)
    assert [await room.enter(1000), await room.enter(1000)] == [4, 4]
    third = asyncio.create_task(room.enter(0))
    await turns()
    assert not third.done()
    room.leave(4)
    assert await third == 1


async def test_a_cancelled_waiter_gives_its_place_back():
    """The next in the line gets in."""
    room = ChunkBudget(2)
    await room.enter(1)
    await room.enter(1)
    gone, patient = (asyncio.create_task(room.enter(1)) for _ in range(2))
    await turns()
    gone.cancel()
    await turns()
    room.leave(1)
    assert await patient == 1


@pytest.mark.parametrize("given", [{"retry_count": 3}, {"retry_delay": 0.0}])
def test_retries_that_no_stage_would_follow_are_refused(given):
    """Those of a Stage come before the processor's; one of the two has to be without."""
    own = AsyncRetry(1)
    embed = Stage(lambda texts: [[1.0]] * len(texts), retry=own)
    keep = Stage(lambda document, chunks, vectors: None, retry=own)
    with pytest.raises(ValueError, match=f"{next(iter(given))}=.* would have no effect"):
        AsyncDocumentProcessor(embed=embed, **given)
    with pytest.raises(ValueError, match="would have no effect"):
        AsyncDocumentProcessor(embed=embed, store=keep, **given)
    AsyncDocumentProcessor(embed=embed, store=keep)
    AsyncDocumentProcessor(store=keep, **given)


@pytest.mark.parametrize(
    ("stage", "kind"),
    [
        *(("store", SqliteStore), ("chunk", RecursiveSplitter)),
        *(("embed", HashingEmbedder), ("load", PDFLoader)),
    ],
)
def test_a_class_in_place_of_its_object_is_refused(stage: str, kind: type):
    """The message shows the call that was forgotten."""
    with pytest.raises(TypeError, match=rf"got the class {kind.__name__}: .*{kind.__name__}\("):
        AsyncDocumentProcessor(**{stage: kind})


@pytest.mark.parametrize(
    ("stage", "function", "names"),
    [
        ("store", lambda document, chunks: None, r"\(document, chunks, embeddings\)"),
        ("store", lambda document, chunks, embeddings, key: None, r"\(document, chunks, embed"),
        ("embed", lambda client, texts: [], r"\(texts\)"),
        ("chunk", lambda: ["text"], r"\(text\)"),
        ("load", partial(dict, 1, 2), None),
    ],
)
def test_a_function_with_other_parameters_is_refused_before_it_is_called(stage, function, names):
    """Its calls would all fail, those of a store after everything was embedded."""
    if names is None:  # a builtin that does not say what it takes
        AsyncDocumentProcessor(**{stage: function})
        return
    with pytest.raises(TypeError, match=f"expected a function of .*{names}"):
        AsyncDocumentProcessor(**{stage: function})


async def test_the_parameters_of_a_function_are_those_of_its_decorator():
    """A decorator may give further arguments to the function that it wraps."""

    def with_client(function):
        @wraps(function)
        def call(texts):
            return function("client", texts)

        return call

    @with_client
    def embed_by(client: str, texts: list[str]) -> list[list[float]]:
        return [[float(len(client))] for _ in texts]

    result = await AsyncDocumentProcessor(embed=embed_by).process([("a", "text")])
    assert result[0].value.embeddings.tolist() == [[6.0]]
