"""Documents as tables: a row a source, a row a chunk, a row a stage."""

from pathlib import Path

import pytest

from ragasync import AsyncBatchProcessor, Journal
from ragasync.documents import (
    AsyncDocumentProcessor,
    Document,
    SqliteStore,
    chunks_dataframe,
    documents_dataframe,
    stages_dataframe,
)
from tests.support.document_tables import (
    CHUNKS,
    DOCUMENTS,
    STAGES,
    MeteredEmbedder,
    dtypes_of,
    exact,
    rows,
    texts,
)
from tests.support.embedders import CountingEmbedder, words
from tests.support.results import pending, result_of

# ── a row a source ──────────────────────────────────────────────────────────────────────────


async def test_each_source_has_a_row_with_what_came_of_it():
    """One is done and one has failed in a stage that is named."""
    embedder = MeteredEmbedder(poison={"bad": ValueError("no vector")})
    result = await exact(embed=embedder, retry_count=0).process(texts("one two", "bad", ""))
    frame = documents_dataframe(result)
    assert dtypes_of(frame) == DOCUMENTS
    assert rows(frame, "id", "status", "stage", "chunks", "documents", "tokens") == [
        ("a", "done", None, 2, 1, 50),  # with its share of the calls that failed because of b
        ("b", "failed", "embed", None, None, 30),
        ("c", "done", None, 0, 1, None),
    ]
    assert rows(frame, "error_type", "error_message")[1] == ("ValueError", "no vector")
    assert list(frame.status.cat.categories) == ["pending", "done", "failed", "cancelled"]


async def test_costs_of_documents_add_up_to_those_of_the_run():
    """Chunks of several documents shared the calls."""
    result = await exact(embed=MeteredEmbedder(), batch_size=4).process(
        texts("a bb ccc dddd", "eeeee ffffff", "g h i j k")
    )
    (embed,) = stages_dataframe(result).query("stage == 'embed'").itertuples()
    assert documents_dataframe(result).tokens.sum() == embed.tokens == 110
    assert embed.cost == pytest.approx(1.1)
    assert (embed.calls, embed.items) == (3, 11)


async def test_what_failed_is_tried_again_by_the_frames_index():
    """As with the frame of any other result."""
    embedder = CountingEmbedder(poison={"bad": ValueError("no vector")})
    processor = exact(embed=embedder, retry_count=0, batch_size=1)
    result = await processor.process(texts("one", "bad", "two", "bad too"))
    frame = documents_dataframe(result)
    embedder.poison.clear()
    again = await result.retry_failed(processor, only=frame[frame.status == "failed"].index)
    after = documents_dataframe(again)
    assert rows(after, "id", "status") == [(name, "done") for name in "abcd"]
    assert after.index.name == "item_index"
    assert embedder.texts[4:] == ["bad", "bad", "too"]


async def test_files_say_where_they_are_also_where_they_failed_or_were_skipped(tmp_path: Path):
    """An id and a path, a reason, and no chunk."""
    (tmp_path / "a.txt").write_text("one two")
    (tmp_path / "b.txt").write_bytes(b"\0\1\2" * 100)
    (tmp_path / "c.pdf").write_bytes(b"no such thing")
    processor = AsyncDocumentProcessor(on_unreadable={"binary"})
    frame = documents_dataframe(await processor.process(tmp_path))
    assert list(frame.source) == [str(tmp_path / name) for name in ("a.txt", "b.txt", "c.pdf")]
    assert [Path(id_).name for id_ in frame.id] == ["a.txt", "b.txt", "c.pdf"]
    assert rows(frame, "status", "skipped", "documents", "chunks", "stage") == [
        ("done", None, 1, 1, None),
        ("done", "binary", 0, 0, None),
        ("failed", None, None, None, "load"),
    ]


async def test_a_guessed_encoding_is_seen_in_the_frame_also_of_what_is_unchanged(tmp_path: Path):
    """What may be read wrongly has to be found among a thousand files, as often as one looks."""
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "guessed.txt").write_bytes("Годишен отчет за продажбите.".encode("cp1251"))
    (folder / "marked.txt").write_bytes("Годишен отчет".encode("utf-16"))
    (folder / "rows.csv").write_bytes("a,b\nГодишен,отчет\nЗа,тримесечие\n".encode("cp1251"))
    (folder / "utf8.txt").write_text("Годишен отчет", encoding="utf-8")
    with SqliteStore(tmp_path / "store.sqlite") as store:
        processor = AsyncDocumentProcessor(store=store)
        for _ in range(2):
            frame = documents_dataframe(await processor.process(folder))
            assert rows(frame, "encoding") == [("cp1251",), ("utf-16",), ("cp1251",), (None,)]
            is_guess = [0 < each < 1 for each in frame.encoding_confidence]
            assert is_guess == [True, False, True, False]


async def test_a_guessed_encoding_is_recalled_from_a_journal(tmp_path: Path):
    """The file is not read again, and what it was read by is known."""
    (tmp_path / "a.txt").write_bytes("Годишен отчет за продажбите.".encode("cp1251"))
    first, again = [
        documents_dataframe(
            await AsyncDocumentProcessor(journal=Journal(tmp_path / "journal")).process(
                [tmp_path / "a.txt"]
            )
        )
        for _ in range(2)
    ]
    assert again.recalled.all()
    assert rows(again, "encoding", "encoding_confidence") == rows(
        first, "encoding", "encoding_confidence"
    )
    assert list(again.encoding) == ["cp1251"]


async def test_what_the_store_had_is_unchanged(tmp_path: Path):
    """Its chunks are not counted again."""
    with SqliteStore(tmp_path / "store.sqlite") as store:
        processor = AsyncDocumentProcessor(store=store)
        await processor.process([("a", "one text")])
        frame = documents_dataframe(await processor.process([("a", "one text"), ("b", "new")]))
    assert rows(frame, "unchanged", "chunks", "recalled") == [
        (True, None, False),
        (False, 1, False),
    ]


@pytest.mark.real_time
async def test_what_a_journal_had_is_recalled(tmp_path: Path):
    """Done and failed alike; a new source is not."""
    embedder = CountingEmbedder(0.0, poison={"bad": ValueError("no vector")})

    def processor() -> AsyncDocumentProcessor:
        return AsyncDocumentProcessor(
            embed=embedder, retry_count=0, journal=tmp_path / "run.sqlite"
        )

    await processor().process([("a", "one"), ("b", "bad")])
    result = await processor().process([("a", "one"), ("b", "bad"), ("c", "two")])
    frame = documents_dataframe(result)
    assert rows(frame, "status", "recalled") == [
        ("done", True),
        ("failed", True),
        ("done", False),
    ]
    assert rows(frame, "stage", "error_message")[1] == ("embed", "no vector")


async def test_a_source_of_several_documents_is_one_row():
    """With their number, and the sum of their chunks."""

    async def load(source: str) -> list[Document]:
        return texts("one two", "three")

    frame = documents_dataframe(
        await AsyncDocumentProcessor(load=load, chunk=words, embed=MeteredEmbedder()).process(["x"])
    )
    assert rows(frame, "id", "source", "documents", "chunks", "tokens") == [("x", "x", 2, 3, 30)]


async def test_what_was_not_reached_has_its_source():
    """A pilot leaves the rest pending."""
    result = await exact().process(texts("one", "two", "three"), max_items=1)
    frame = documents_dataframe(result)
    assert rows(frame, "id", "status") == [("a", "done"), ("b", "pending"), ("c", "pending")]
    assert frame.seconds.isna().tolist() == [False, True, True]


# ── what there is none of ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("table", "dtypes"),
    [(documents_dataframe, DOCUMENTS), (chunks_dataframe, CHUNKS), (stages_dataframe, STAGES)],
)
@pytest.mark.parametrize("outcomes", [[], [pending(0)]])
def test_an_empty_result_has_the_same_columns_of_the_same_types(table, dtypes, outcomes):
    """Code that reads them need not look first."""
    frame = table(result_of(outcomes))
    assert dtypes_of(frame) == dtypes
    assert len(frame) == (len(outcomes) if table is documents_dataframe else 0)


@pytest.mark.parametrize("table", [documents_dataframe, chunks_dataframe, stages_dataframe])
async def test_another_result_is_refused(table):
    """With the name of what it is for."""

    async def same(item: int) -> int:
        return item

    with pytest.raises(TypeError, match=f"{table.__name__} needs the result of a document"):
        table(await AsyncBatchProcessor(same).process([1]))
    with pytest.raises(TypeError, match=f"{table.__name__} needs the result of a document"):
        table([1])
