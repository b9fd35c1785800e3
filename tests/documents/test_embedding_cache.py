"""Whose vectors a store holds: others are refused before anything is embedded, and never mixed."""

from __future__ import annotations

import asyncio
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from ragasync.documents import (
    AsyncDocumentProcessor,
    Chunk,
    Document,
    EmbedderMismatch,
    HashingEmbedder,
    Stage,
)
from tests.support.embedders import CountingEmbedder
from tests.support.notebook_cells import cell, without_source
from tests.support.store_kinds import KINDS, opened

TEXTS = [("a", "one two three"), ("b", "four five")]
MORE = [*TEXTS, ("c", "one two three")]


@pytest.fixture(params=KINDS)
def store(request, tmp_path) -> Iterator[Any]:
    """An empty store of each kind."""
    with opened(request.param, tmp_path) as store:
        yield store


async def run(store: Any, embed: Any, sources: Any = TEXTS, **settings: Any) -> list[bool]:
    """Process with a processor of its own; return which documents were taken for unchanged."""
    processor = AsyncDocumentProcessor(embed=embed, store=store, **settings)
    result = await processor.process(sources)
    assert result.all_succeeded, result.errors
    return [done.unchanged for done in result.get_successful()]


async def refusal(store: Any, embed: Any, sources: Any = MORE, **settings: Any) -> str:
    """Process, have it refused, and return why."""
    vectors = store.to_dataframe()
    result = await AsyncDocumentProcessor(embed=embed, store=store, **settings).process(sources)
    assert result.success_count == 0
    (failed,) = result.get_failed()
    assert isinstance(failed.error, EmbedderMismatch)
    assert "EmbedderMismatch" in result.stopped_because
    assert store.to_dataframe().equals(vectors)
    return str(failed.error)


class Named:
    """An embedder of a name and a model, with settings, that notes what it is asked."""

    def __init__(
        self,
        name: str | None = "named",
        model: str | None = None,
        prefix: str = "",
        api_key: str = "k",
        timeout: float = 1.0,
    ) -> None:
        if name is not None:
            self.name = name
        if model is not None:
            self.model = model
        self.prefix, self.api_key, self.timeout = prefix, api_key, timeout
        self.texts: list[str] = []
        self.calls = 0

    async def embed(self, texts: list[str]) -> list[list[float]]:
        """Embed."""
        self.calls += 1
        self.texts += texts
        return [[float(len(self.prefix + text)), 1.0] for text in texts]

    __call__ = embed


class Asked:
    """Notes what the functions of cells are asked; a list of texts a call."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def function(self, source: str, number: float = 1.0) -> Any:
        """Return the function `embed` of a cell with a number."""
        text = source.replace("NUMBER", str(number))
        return cell("# moved\n" * int(number) + text, ask=self.calls.append)["embed"]


EDITED = """
async def embed(texts):
    '''Embed.'''
    ask(texts)
    return [[float(len(text)), NUMBER] for text in texts]
"""


# ── named: by name, model, dimension, settings and version ──────────────────────────────────────


@pytest.mark.parametrize(
    ("before", "now", "named"),
    [
        ({"name": "a"}, {"name": "b"}, "the embedder: 'a' -> 'b'"),
        ({"model": "small"}, {"model": "large"}, "the model: 'small' -> 'large'"),
        (
            {"name": None, "model": "small"},
            {"name": None, "model": "large"},
            "'Named(small)' -> 'Named(large)'",
        ),
        ({"prefix": "query: "}, {"prefix": "passage: "}, "the setting prefix of Named"),
    ],
)
async def test_another_name_model_or_setting_is_another_embedder(store, before, now, named):
    """Refused before a text is embedded, with what has changed, and where else to go."""
    await run(store, Named(**before))
    other = Named(**now)
    why = await refusal(store, other)
    assert named in why
    assert "another store, where everything is embedded again" in why
    assert other.texts == []


async def test_another_version_of_a_stage_is_another_embedder(store):
    """Of one with a name, and of a function, whatever its code is."""
    embed = Named()
    await run(store, Stage(embed, version="1"))
    assert await run(store, Stage(embed, version="1"), MORE) == [True, True, False]
    assert "the version: '1' -> '2'" in await refusal(store, Stage(embed, version="2"))
    assert "the version: '1' -> ''" in await refusal(store, embed)
    assert len(embed.texts) == 2


async def test_how_a_service_is_called_does_not_make_it_another(store):
    """A key that was renewed, a longer time limit, a count of calls."""
    embed = Named()
    await run(store, embed)
    other = Named(api_key="renewed", timeout=60.0)
    assert await run(store, other, MORE) == [True, True, False]
    assert await run(store, embed.embed, MORE) == [True, True, True]
    assert other.texts == []  # the store has the vectors of the text


@pytest.mark.parametrize("version", ["", "2"])
async def test_an_embedder_with_a_name_is_not_known_by_its_code(store, version):
    """Its class may be edited, and the processor's version is about code."""
    source = cell_text("""
        class Embedder:
            def __init__(self, model): self.model, self.note = model, ""
            def embed(self, texts):
                ask(texts)
                return [[float(len(text)), NUMBER] for text in texts]
        embed = Embedder("small").embed
    """)
    asked = Asked()
    await run(store, asked.function(source, 1.0))
    other = source.replace("(self, model)", "(self, model, more=3)").replace(
        "self.note", "self.more"
    )
    again = await run(store, asked.function(other, 2.0), MORE, version=version)
    assert again == ([True, True, False] if not version else [False, False, False])
    assert len(asked.calls) == 1


async def test_our_own_embedders_are_known_by_name(store):
    """Whatever the version of the processor."""
    assert await run(store, None) == [False, False]
    assert await run(store, HashingEmbedder(), version="2") == [False, False]
    assert await run(store, HashingEmbedder(), version="2") == [True, True]
    why = await refusal(store, HashingEmbedder(64))
    assert "'hashing-1024-v2' -> 'hashing-64-v2'" in why
    assert "the dimension: 1024 -> 64" in why


async def test_vectors_of_another_dimension_end_the_run_with_the_first_call(store):
    """Where an embedder does not say its dimension before."""
    embed = cell("""
        calls = []
        class Embedder:
            name = "mine"
            def __call__(self, texts):
                calls.append(texts)
                return [[1.0] * len(sizes) for _ in texts]
        embed, sizes = Embedder(), [1, 2]
    """)
    await run(store, embed["embed"])
    embed["sizes"].append(3)
    many = [(str(number), f"text {number}") for number in range(100)]
    processor = AsyncDocumentProcessor(
        embed=embed["embed"], store=store, batch_size=1, embed_concurrency=1
    )
    result = await processor.process(many)
    assert "holds vectors of 'mine' with 2 dimensions, and embed= gives vectors of 3" in str(
        result.get_failed()[0].error
    )
    assert result.success_count == 0
    assert len(embed["calls"]) < 10


# ── functions: by code, unless they are given a name ────────────────────────────────────────────

FUNCTIONS = {
    "edited": EDITED,
    "a lambda": "embed = lambda texts: ask(texts) or [[1.0 * len(text), NUMBER] for text in texts]",
    "a constant": "SCALE = NUMBER\n" + EDITED.replace("NUMBER", "SCALE"),
    "a default": EDITED.replace("texts):", "texts, scale=NUMBER):").replace(
        "), NUMBER]", "), scale]"
    ),
    "a closure": """
        def embedder(scale):
            def embed(texts):
                ask(texts)
                return [[float(len(text)), scale] for text in texts]
            return embed
        embed = embedder(NUMBER)
    """,
    "a partial": """
        from functools import partial
        async def scaled(texts, scale):
            ask(texts)
            return [[float(len(text)), scale] for text in texts]
        embed = partial(scaled, scale=NUMBER)
    """,
    "a helper behind a cache": """
        from functools import cache
        @cache
        def one(text): return [float(len(text)), NUMBER]
        def embed(texts):
            ask(texts)
            return [one(text) for text in texts]
    """,
    "an object without a name": """
        class Embedder:
            def __init__(self, scale): self.options, self.calls = {"scale": scale}, 0
            async def __call__(self, texts):
                self.calls += 1
                ask(texts)
                return [[float(len(text)), self.options["scale"]] for text in texts]
        embed = Embedder(NUMBER)
    """,
    "an object around another": """
        class Embedder:
            def __init__(self, scale): self.scale = scale
            def embed(self, texts): return [[float(len(text)), self.scale] for text in texts]
        class Metered:
            def __init__(self, inner): self.inner, self.calls = inner, 0
            def embed(self, texts):
                self.calls += 1
                ask(texts)
                return self.inner.embed(texts)
        embed = Metered(Embedder(NUMBER)).embed
    """,
}


@pytest.mark.parametrize("kind", FUNCTIONS)
async def test_a_function_that_changed_is_refused_until_it_is_given_a_name(store, kind):
    """Then the store takes on the name and keeps its vectors, whatever becomes of the code."""
    asked, source = Asked(), cell_text(FUNCTIONS[kind])
    assert await run(store, asked.function(source, 1.0)) == [False, False]
    assert await run(store, asked.function(source, 1.0), MORE) == [True, True, False]
    changed = asked.function(source, 2.0)
    why = await refusal(store, changed)
    assert "if it makes the same vectors as before, pass embed=Stage(embed, name=...)" in why
    assert await run(store, Stage(changed, name="mine"), MORE) == [True, True, True]
    edited = asked.function(source.replace("len(text)", "len(text + '.')"), 2.0)
    moved = [*MORE, ("d", "four five")]
    assert await run(store, Stage(edited, name="mine"), moved) == [True] * 3 + [False]
    assert len(asked.calls) == 1
    assert "pass embed=Stage(embed, name='mine')" in await refusal(store, edited)
    assert [hit.text for hit in store.search("four", 1, mode="keyword")] == ["four five"]


def cell_text(source: str) -> str:
    """Return a cell without its indentation, below which comments may come."""
    return textwrap.dedent(source)


COUNTERS = {
    "a global number": "count = 0\nBODY".replace("BODY", EDITED).replace(
        "ask(texts)", "global count; count += 1; ask(texts)"
    ),
    "a list": "seen = []\n" + EDITED.replace("ask(texts)", "seen.extend(texts); ask(texts)"),
    "a dict": "stats = {'calls': 0}\n"
    + EDITED.replace("ask(texts)", "stats['calls'] += 1; ask(texts)"),
    "a Counter": "from collections import Counter\nwords = Counter()\n"
    + EDITED.replace("ask(texts)", "words.update(texts); ask(texts)"),
    "its own attribute": EDITED.replace(
        "ask(texts)", "embed.calls = getattr(embed, 'calls', 0) + 1; ask(texts)"
    ),
    "an object of the user's": """
class Stats:
    def __init__(self): self.calls, self.last = 0, None
stats = Stats()
"""
    + EDITED.replace("ask(texts)", "stats.calls += 1; stats.last = texts[0]; ask(texts)"),
    "a memory by another name": """
class Embedder:
    def __init__(self): self.known = {}
    def __call__(self, texts):
        known = self.known
        known.update(dict.fromkeys(texts, 1))
        ask(texts)
        return [[float(len(text)), NUMBER] for text in texts]
embed = Embedder()
""",
    "a memory that it was given": """
class Embedder:
    def __init__(self, known): self.known = known
    def __call__(self, texts):
        for text in texts: self.known[text] = len(text)
        ask(texts)
        return [[float(len(text)), NUMBER] for text in texts]
embed = Embedder({})
""",
    "a dataclass in its object": """
from dataclasses import dataclass, field
@dataclass
class Stats:
    calls: int = 0
    seen: list = field(default_factory=list)
class Embedder:
    def __init__(self): self.stats = Stats()
    def __call__(self, texts):
        self.stats.calls += 1
        self.stats.seen += texts
        ask(texts)
        return [[float(len(text)), NUMBER] for text in texts]
embed = Embedder()
""",
    "the level of a logger": "import logging\nlog = logging.getLogger('embed')\n"
    + EDITED.replace("ask(texts)", "log.setLevel(10 + len(texts)); ask(texts)"),
}


@pytest.mark.parametrize("kind", COUNTERS)
async def test_what_an_embedder_counts_or_remembers_is_no_change(store, kind):
    """A new processor of the used one, or of one that was never used."""
    asked = Asked()
    embed = asked.function(COUNTERS[kind])
    assert await run(store, embed) == [False, False]
    assert await run(store, embed, MORE) == [True, True, False]
    assert await run(store, asked.function(COUNTERS[kind]), MORE) == [True, True, True]
    assert len(asked.calls) == 1


async def test_a_version_stands_in_place_of_the_code_of_a_function(store):
    """The processor's as that of its stage; another one on other code is another embedder."""
    asked = Asked()
    one, other = asked.function(EDITED, 1.0), asked.function(EDITED, 2.0)
    await run(store, one, version="1")
    assert await run(store, other, version="1") == [True, True]
    assert await run(store, Stage(other, version="1"), version="1") == [True, True]
    assert "the code of 'embed'" in await refusal(store, one, version="2")
    assert await run(store, other, version="2") == [False, False]  # chunked again, the same code
    assert "the version: '2' -> '3'" in await refusal(store, Stage(other, version="3"))
    assert len(asked.calls) == 1


async def test_a_function_that_cannot_be_compared_is_taken_for_the_same_with_a_warning(store):
    """Once a run; a name ends the doubt."""
    asked = Asked()
    hidden = without_source(cell_text(EDITED.replace("NUMBER", "1.0")), ask=asked.calls.append)
    await run(store, asked.function(EDITED, 1.0))
    with pytest.warns(
        UserWarning, match="cannot tell whether embed=embed is the embedder"
    ) as caught:
        assert await run(store, hidden["embed"], MORE) == [True, True, False]
    assert len(caught) == 1
    assert await run(store, Stage(hidden["embed"], name="mine"), MORE) == [True] * 3


async def test_a_store_without_documents_takes_any_embedder(store):
    """Of another dimension too; it holds no vectors to mix them with."""
    await run(store, Named("a"))
    for name, _ in TEXTS:
        store.delete(name)
    await run(store, HashingEmbedder(64))
    assert store.search("one two", mode="vector")[0].text == "one two three"


async def test_two_runs_that_begin_with_an_empty_store_never_mix(store):
    """The second to store something is refused by the store itself."""
    asked = Asked()
    one, other = asked.function(EDITED, 1.0), asked.function(EDITED, 2.0)
    later = AsyncDocumentProcessor(embed=other, store=store)

    async def embed(texts: list[str]) -> list[list[float]]:
        if store.stored_embedder() is None:
            await run(store, one)
        return [[0.0, 0.0] for _ in texts]

    result = await AsyncDocumentProcessor(embed=embed, store=store).process([("z", "late")])
    assert isinstance(result.errors[0], EmbedderMismatch)
    assert (await later.process(TEXTS)).success_count == 0
    assert len(store) == 2


# ── before anything is paid for ─────────────────────────────────────────────────────────────────


async def test_constructing_a_processor_does_not_change_the_store(store):
    """A run lets it search, which an embedder that was given to it does not depend on."""
    before = dict(vars(store))
    processor = AsyncDocumentProcessor(embed=Named("a"), store=store)
    assert (vars(store), store.embedder, store.stored_embedder()) == (before, None, None)
    await processor.process(TEXTS)
    assert store.embedder is None
    assert store.stored_embedder().name == "a"


async def test_a_store_searches_with_the_embedder_of_the_latest_run(store):
    """Also where the stage has another name than the embedder, or its cell was edited."""
    asked = Asked()
    await run(store, Stage(Named("own"), name="mine"))
    other = asked.function(EDITED, 3.0)
    await run(store, Stage(other, name="mine"))
    assert asked.calls == []
    await in_thread(store.search, "what is it", mode="vector")
    assert asked.calls == [["what is it"]]


async def in_thread(call: Any, *arguments: Any, **more: Any) -> Any:
    """Call on a thread, as a cell that awaits nothing would."""
    return await asyncio.to_thread(call, *arguments, **more)


@pytest.mark.parametrize(
    "metadata",
    [{"tags": {"a", "b"}}, {"by": object()}, {"size": np.float32(1)}, {("a", 1): "b"}],
    ids=["set", "object", "numpy", "key"],
)
async def test_metadata_that_cannot_be_stored_fails_its_document_before_it_is_embedded(
    store, metadata: Mapping[Any, object]
):
    """Of the document or of a chunk; the others are stored."""
    embed = CountingEmbedder(0)

    def cut(text: str) -> list[Chunk]:
        return [Chunk(text, 0, len(text), metadata if text == "odd chunk" else {})]

    processor = AsyncDocumentProcessor(chunk=cut, embed=embed, store=store)
    sources = [Document("a", "odd text", metadata), ("b", "odd chunk"), ("c", "plain")]
    result = await processor.process(sources)
    assert [outcome.status for outcome in result] == ["failed", "failed", "done"]
    assert [outcome.stage for outcome in result.get_failed()] == ["store", "store"]
    assert "the metadata of document 'b' must be plain data" in str(result.errors[1])
    assert embed.texts == ["plain"]


async def test_what_no_file_can_hold_fails_before_it_is_embedded(store):
    """A lone surrogate in an id, or in a chunk that the splitter rewrote."""
    embed = CountingEmbedder(0)

    async def cut(text: str) -> list[str]:
        return ["\ud800" if text == "odd" else text]

    sources = [Document("\ud800", "text"), ("b", "odd"), ("c", "plain")]
    result = await AsyncDocumentProcessor(chunk=cut, embed=embed, store=store).process(sources)
    assert [outcome.status for outcome in result] == ["failed", "failed", "done"]
    assert embed.texts == ["plain"]


async def test_a_store_that_only_knows_names_is_never_given_vectors_of_two(store):
    """Each document of another embedder is embedded again; the cache asks by another name."""

    class Names:
        """A store of the user's, which keeps what it is given."""

        def __init__(self) -> None:
            self.kept: dict[str, str] = {}
            self.asked: list[str] = []

        def upsert(self, document, chunks, embeddings, *, fingerprint, embedder) -> None:
            """Keep a document's fingerprint."""
            self.kept[document.id] = fingerprint

        def fingerprint_of(self, document_id: str) -> str | None:
            """Return it."""
            return self.kept.get(document_id)

        def vectors_of(self, embedder: str, texts: list[str]) -> list[None]:
            """Note under which name vectors are asked for."""
            self.asked.append(embedder)
            return [None for _ in texts]

    names, asked = Names(), Asked()
    for number, expected in ((1.0, False), (1.0, True), (2.0, False), (2.0, True)):
        assert await run(names, asked.function(EDITED, number)) == [expected] * 2
    assert len(set(names.asked)) == 2
    assert await run(names, Named("a")) == [False, False]
    assert names.asked[-1] == "a"


def test_no_warning_is_given_where_nothing_is_in_doubt(tmp_path):
    """As a notebook would show it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with opened("sqlite", tmp_path) as store:
            for _ in range(2):
                AsyncDocumentProcessor(store=store).process_sync(TEXTS)
    assert caught == []
