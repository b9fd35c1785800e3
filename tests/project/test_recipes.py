"""The recipes: parts of other packages, passed to the pipeline directly."""

import importlib.util
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ragasync import Journal
from ragasync.documents import (
    AsyncDocumentProcessor,
    EmbedderMismatch,
    SqliteStore,
    Stage,
)
from tests.support.requirements import needs, needs_in_step

pytestmark = pytest.mark.real_time

HERE = Path(__file__).parents[1]
README = (HERE / "recipes" / "README.md").read_text(encoding="utf-8")
COUNT = 24  # documents

Run = Callable[[str], dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a recipe as a script in a folder with documents, and return its variables."""
    monkeypatch.chdir(tmp_path)
    write(COUNT)
    return lambda name: runpy.run_path(str(HERE / "recipes" / f"{name}.py"))


def write(count: int) -> None:
    """Write documents of two headings each to the folder `docs`."""
    Path("docs").mkdir(exist_ok=True)
    for number in range(count):
        paragraphs = [f"# Errors {number}", "They should never pass silently. " * 12, "## Now"]
        Path(f"docs/{number}.md").write_text("\n\n".join([*paragraphs, f"Better than {number}."]))


# ── LangChain ───────────────────────────────────────────────────────────────────────────────


def test_langchain_cuts_and_embeds(run: Run):
    """Each chunk is the splitter's, at its place, with the vector that the embeddings gave it."""
    needs_in_step("rules", "langchain_core", "langchain_text_splitters")
    made = run("with_langchain")
    assert made["result"].all_succeeded
    store, embeddings = made["store"], made["embeddings"]
    text = Path("docs/7.md").read_text()
    pieces = made["splitter"].split_text(text)
    assert len(pieces) > 2
    assert len(made["hits"]) == 3
    for piece in (pieces[0], pieces[-1]):
        vector = embeddings.embed_query(piece)
        hit = store.search(piece, k=1, mode="vector", vector=vector)[0]
        assert (hit.text, text[hit.start : hit.end]) == (piece, piece)
        assert hit.score == pytest.approx(1.0)
    store.close()


def test_langchains_splitter_of_another_size_chunks_again_and_the_same_one_does_not(run: Run):
    """The store sees the attributes of the object behind the method."""
    needs_in_step("rules", "langchain_core", "langchain_text_splitters")
    made = run("with_langchain")
    store, embed = made["store"], made["embeddings"].embed_documents
    splitter = type(made["splitter"])
    for size, known in ((200, COUNT), (300, 0), (300, COUNT)):
        cut = splitter(chunk_size=size, chunk_overlap=40).split_text
        result = AsyncDocumentProcessor(chunk=cut, embed=embed, store=store).process_sync("docs")
        assert sum(done.unchanged for done in result.get_successful()) == known
    store.close()


def test_langchains_async_methods_fit_and_a_store_distinguishes_its_classes(run: Run):
    """Both classes inherit `aembed_documents`, but their vectors differ."""
    needs_in_step("rules", "langchain_core", "langchain_text_splitters")
    from langchain_core.embeddings import DeterministicFakeEmbedding, FakeEmbeddings

    store = SqliteStore(":memory:")
    one, other = (kind(size=8) for kind in (DeterministicFakeEmbedding, FakeEmbeddings))
    first = AsyncDocumentProcessor(embed=one.aembed_documents, store=store).process_sync("docs")
    assert first.all_succeeded
    later = AsyncDocumentProcessor(embed=other.aembed_documents, store=store).process_sync("docs")
    assert isinstance(later.get_failed()[0].error, EmbedderMismatch)


# ── LlamaIndex ──────────────────────────────────────────────────────────────────────────────


def test_llama_indexs_node_parser_cuts_at_its_nodes(run: Run):
    """Here at headings, which each hit knows too; the embedding model is a plain callable."""
    needs_in_step("rules", "llama_index")
    made = run("with_llama_index")
    assert made["result"].all_succeeded
    assert [done.chunk_count for done in made["result"].get_successful()] == [2] * COUNT
    assert len(made["hits"]) == 3
    hit = made["store"].search("Better than 7", k=1, mode="keyword")[0]
    text = Path("docs/7.md").read_text()
    assert hit.text == "## Now\n\nBetter than 7." == text[hit.start : hit.end]
    assert hit.metadata["heading"] == "Errors 7 > Now"
    assert run("with_llama_index")["result"].get_successful()[0].unchanged
    made["store"].close()


async def test_llama_indexs_splitters_give_texts_and_have_the_places_of_their_nodes():
    """`split_text` alone will do for these, and the async method of an embedding model."""
    needs_in_step("rules", "llama_index")
    from llama_index.core import Document
    from llama_index.core.embeddings import MockEmbedding
    from llama_index.core.node_parser import SentenceSplitter

    text = "Errors should never pass silently. Unless explicitly silenced. " * 9
    splitter = SentenceSplitter(chunk_size=150, chunk_overlap=70, tokenizer=list)
    embed = MockEmbedding(embed_dim=4).aget_text_embedding_batch
    processor = AsyncDocumentProcessor(chunk=splitter.split_text, embed=embed)
    (done,) = (await processor.process([("a", text)])).get_successful()
    nodes = splitter.get_nodes_from_documents([Document(text=text)])
    assert len(nodes) > 2
    assert [chunk.text for chunk in done.chunks] == [node.text for node in nodes]
    assert all(text[chunk.start : chunk.end] == chunk.text for chunk in done.chunks)
    assert done.embeddings.shape == (len(nodes), 4)


# ── sentence-transformers ───────────────────────────────────────────────────────────────────


class StandIn:
    """The methods of a SentenceTransformer that the recipe calls, for tests without torch."""

    def encode(self, sentences: list[str], batch_size: int = 32) -> np.ndarray:
        """Return a float32 row for each of a list of texts."""
        assert isinstance(sentences, list)
        return np.array([[len(text), 1.0] for text in sentences], dtype=np.float32)


def a_model() -> Any:
    """Return a real model with random weights, since others come from a hub; or a fake."""
    if importlib.util.find_spec("sentence_transformers") is None:
        return StandIn()
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: n for n, word in enumerate(["[UNK]", "errors", "now", "never", "silently"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=8)], device="cpu")


def test_a_sentence_transformer_embeds(run: Run, monkeypatch: pytest.MonkeyPatch):
    """With the name that the recipe gives it, under which another model is refused."""
    model = a_model()
    package = ModuleType("sentence_transformers")
    package.SentenceTransformer = lambda name: model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", package)
    made = run("with_sentence_transformers")
    assert made["result"].all_succeeded
    assert len(made["hits"]) == 3
    other = Stage(model.encode, name="another")
    processor = AsyncDocumentProcessor(embed=other, store=made["store"])
    (failed, *_) = processor.process_sync("docs").get_failed()
    assert "holds vectors of 'all-MiniLM-L6-v2'" in str(failed.error)
    made["store"].close()


# ── collections ─────────────────────────────────────────────────────────────────────────────


def in_chroma(made: dict[str, Any]) -> list[tuple[str, int, str]]:
    """Return the document, number and text of each chunk in the collection."""
    found = made["collection"].get()
    told = zip(found["metadatas"], found["documents"], strict=True)
    return sorted((each["document"], each["n"], text) for each, text in told)


def in_qdrant(made: dict[str, Any]) -> list[tuple[str, int, str]]:
    """Return the document, number and text of each chunk in the collection."""
    points, _ = made["client"].scroll("library", limit=10_000)
    told = [point.payload for point in points]
    return sorted((each["document"], each["n"], each["text"]) for each in told)


@pytest.mark.parametrize(
    ("name", "package", "stored"),
    [("with_chroma", "chromadb", in_chroma), ("with_qdrant", "qdrant_client", in_qdrant)],
)
def test_a_collection_has_each_chunk_once_whatever_changes(run: Run, name, package, stored):
    """After a run, after a second run, and after documents got shorter, longer or blank."""
    needs_in_step("rules", package)
    for change in ({}, {"0.md": "short", "2.md": "longer than it was. " * 300}):
        for file, text in change.items():
            Path("docs", file).write_text(text)
        made = run(name)
        assert made["result"].all_succeeded
        assert stored(made) == expected()
        assert len(made["hits"]) == 3
        assert made["processor"].process_sync([("2.md", " ")]).all_succeeded
        assert stored(made) == [each for each in expected() if each[0] != "2.md"]
        if "client" in made:
            made["client"].close()


def expected() -> list[tuple[str, int, str]]:
    """Return the same from the results of a pipeline without a store."""
    done = AsyncDocumentProcessor().process_sync("docs").get_successful()
    return sorted(
        (each.id, number, chunk.text) for each in done for number, chunk in enumerate(each.chunks)
    )


# ── a cluster ───────────────────────────────────────────────────────────────────────────────


def test_work_goes_to_a_cluster_and_its_journal_stays_here(run: Run, tmp_path: Path):
    """As a script: the workers are processes that import it."""
    needs("distributed")
    script = [sys.executable, str(HERE / "recipes" / "on_a_cluster.py")]
    ran = subprocess.run(
        script, cwd=tmp_path, capture_output=True, text=True, timeout=55, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == f"{COUNT} {COUNT}"
    table = Journal(tmp_path / "counted.sqlite").to_dataframe()
    assert list(table["status"]) == ["done"] * COUNT


# ── a shared rate ───────────────────────────────────────────────────────────────────────────


def test_a_rate_is_shared_through_redis(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The state is shared in Redis, and shows the permits taken."""
    from tests.support.redis_server import RedisServer

    with RedisServer(tmp_path) as server:
        monkeypatch.setenv("REDIS_URL", server.url)
        assert run("shared_rate")["result"].all_succeeded
        with server.asked() as asked:
            state = asked.hgetall("ragasync:rate:{library}")
        assert float(state["rate"]) == 50
        assert float(state["tat"]) > 0.0  # on a busy machine the last one may have been long ago


# ── web services ────────────────────────────────────────────────────────────────────────────


def test_a_service_starts_a_job_shows_it_and_cancels_it(run: Run):
    """Each request comes on its own, and the job runs on between them."""
    needs_in_step("rules", "fastapi")
    from fastapi.testclient import TestClient

    with TestClient(run("with_fastapi")["app"]) as client:
        assert client.post("/jobs/mine", json=["a text"] * 50).status_code == 200
        while (now := client.get("/jobs/mine").json())["done"] < 50:
            assert (now["failed"], now["total"]) == (0, 50)
        assert "50 of 50 done" in client.delete("/jobs/mine").json()


def test_a_page_starts_a_job_and_shows_its_end(run: Run):
    """As a browser sees it, without the browser."""
    needs_in_step("rules", "streamlit")
    from streamlit.testing.v1 import AppTest

    page = AppTest.from_file(str(HERE / "recipes" / "with_streamlit.py"), default_timeout=30).run()
    page.button[0].click().run()
    job = page.session_state.job
    page.slider[0].set_value(64).run()
    assert job.max_concurrency == 64
    assert job.wait().all_succeeded
    page.run()
    assert list(page.dataframe[0].value["status"].unique()) == ["done"]
    assert not page.exception


# ── the README ──────────────────────────────────────────────────────────────────────────────

ROWS = re.findall(r"^\| (.+?) \| `(.+?)` \| \[.+?\]\((\w+\.py)\)", README, re.MULTILINE)


def test_the_readme_shows_what_the_recipes_do():
    """Each file has a row, and each row's code is in its file, except line breaks."""
    files = {path.name for path in (HERE / "recipes").glob("*.py")}
    assert {file for _, _, file in ROWS} == files
    for _, code, file in ROWS:
        assert code in " ".join((HERE / "recipes" / file).read_text().split())
